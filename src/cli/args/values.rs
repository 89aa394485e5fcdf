//! Values that one argument carries: sizes in bytes, times, bits a weight, kernels, output tables. Parsed from text, checked.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What is wrong with the text of one value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No digits where a number must stand, or something else between them.
    #[error("{found:?} is not a size: expected a number and a unit, such as 2GiB or 500MB")]
    Size {
        /// The text given.
        found: String,
    },
    /// A unit outside the list.
    #[error("unit {found:?} is unknown: expected B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
    Unit {
        /// The text after the number.
        found: String,
    },
    /// Zero, or more than 2^64 - 1 bytes.
    #[error("{found:?} is out of range: expected from 1 byte to 2^64 - 1 bytes")]
    SizeRange {
        /// The text given.
        found: String,
    },
    /// Bits that are neither `auto` nor 4 to 16.
    #[error("{found:?} bits a weight: expected auto or a whole number from 4 to 16")]
    Bits {
        /// The text given.
        found: String,
    },
    /// A moment spelt otherwise than manifests have it.
    #[error("{found:?} is no time: expected UTC such as 2026-01-31T18:00:00Z")]
    Time {
        /// The text given.
        found: String,
    },
    /// No whole number and unit, or zero.
    #[error("{found:?} is no duration: expected a whole number and ms, s, min or h, such as 30s")]
    Duration {
        /// The text given.
        found: String,
    },
    /// A time that is no whole number of seconds, minutes, hours or days.
    #[error("{found:?} is not a time: expected a whole number and s, m, h or d, such as 12h or 7d, up to 365000d")]
    Validity {
        /// The text given.
        found: String,
    },
    /// A file name whose ending names no table format.
    #[error("{found:?} names no format: expected a file ending in .csv, .json or .npy")]
    TableFormat {
        /// The file's path as given.
        found: PathBuf,
    },
}

/// A size in bytes, at least 1. Text: a decimal number and a unit; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let not_a_size = || ValueError::Size { found: text.to_owned() };
        let trimmed = text.trim();
        let number_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let unit_bytes = unit_bytes(unit.trim_start())?;

        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || fraction.len() > 9 {
            return Err(not_a_size());
        }
        let out_of_range = || ValueError::SizeRange { found: text.to_owned() };
        let whole: u64 = whole.parse().map_err(|_| out_of_range())?;
        let denominator = 10_u128.pow(fraction.len() as u32);
        let numerator = u128::from(fraction.parse::<u64>().map_err(|_| not_a_size())?);
        // Below 2^64 * 2^40 + 2^40: no overflow. A fraction of a byte is dropped.
        let bytes = u128::from(whole) * u128::from(unit_bytes) + numerator * u128::from(unit_bytes) / denominator;
        match u64::try_from(bytes) {
            Ok(bytes @ 1..) => Ok(Self(bytes)),
            _ => Err(out_of_range()),
        }
    }
}

fn unit_bytes(unit: &str) -> Result<u64, ValueError> {
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(ValueError::Unit { found: unit.to_owned() }),
    };
    Ok(bytes)
}

/// Bits to which a model's weights are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightBits {
    /// The fewest that keep the calibration set's accuracy.
    Auto,
    /// That many in every layer, 4 to 16.
    Fixed(u8),
}

impl FromStr for WeightBits {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(bits @ 4..=16) => Ok(Self::Fixed(bits)),
            _ => Err(ValueError::Bits { found: text.to_owned() }),
        }
    }
}

/// Kernel to compute with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isa {
    /// The fastest that this machine has
    #[default]
    Auto,
    /// Plain code, any machine
    Portable,
    /// 256-bit vectors
    Avx2,
    /// AVX-512 with 52-bit integer multiply-add
    #[value(name = "avx512ifma")]
    Avx512Ifma,
    /// The same, and products of bytes
    #[value(name = "avx512vnni")]
    Avx512Vnni,
    /// The same, and products of byte matrices
    Amx,
}

/// How a table of labels is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// A header line, then a line an image.
    Csv,
    /// One JSON object.
    Json,
    /// A NumPy array.
    Npy,
}

/// A table to write: its path, and the format that the path's ending names (upper or lower case).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOut {
    path: PathBuf,
    format: TableFormat,
}

impl TableOut {
    /// The format that `path` ends in.
    ///
    /// # Errors
    /// [`ValueError::TableFormat`] for any other ending, or none.
    pub fn new(path: PathBuf) -> Result<Self, ValueError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let format = match ending.as_deref() {
            Some("csv") => TableFormat::Csv,
            Some("json") => TableFormat::Json,
            Some("npy") => TableFormat::Npy,
            _ => return Err(ValueError::TableFormat { found: path }),
        };
        Ok(Self { path, format })
    }

    /// Where the table goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is written.
    #[must_use]
    pub fn format(&self) -> TableFormat {
        self.format
    }
}

/// A moment, kept as it was written: RFC 3339 in UTC with whole seconds.
///
/// # Errors
/// [`ValueError::Time`] for every other spelling.
pub(super) fn parse_time(text: &str) -> Result<String, ValueError> {
    match jobs::time::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(ValueError::Time { found: text.to_owned() }),
    }
}

/// A duration, at least 1 ms. Text: a whole number and one of ms, s, min, h; a bare number is seconds.
///
/// # Errors
/// [`ValueError::Duration`].
pub(super) fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let refused = || ValueError::Duration { found: text.to_owned() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refused()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms @ 1..) => Ok(Duration::from_millis(ms)),
        _ => Err(refused()),
    }
}
