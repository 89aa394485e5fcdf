//! BLAKE3 digests: 32 bytes, written as 64 lower-case hex digits. Files are read once, front to back, through one
//! buffer, so memory does not grow with the file. No keyed hashing and no mapping of files.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{JobsError, Result, clip};

/// Bytes read at a time while digesting a file.
const BUFFER_BYTES: usize = 1 << 20;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A file's digest and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    /// BLAKE3 of all the bytes.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
}

/// The text is not 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("digest {found:?} ({found_chars} characters), expected 64 lower-case hex digits")]
pub struct DigestSyntax {
    found: String,
    found_chars: usize,
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes 32 bytes that already are a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Digest and length of everything `reader` gives.
    ///
    /// # Errors
    /// Whatever the reader answers.
    pub fn of_reader(mut reader: impl Read) -> io::Result<FileStamp> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0_u8; BUFFER_BYTES];
        let mut bytes = 0_u64;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(FileStamp { digest: Self(*hasher.finalize().as_bytes()), bytes })
    }
}

/// The digest of a file, in constant memory.
///
/// # Errors
/// As [`stamp_file`].
pub fn digest_file(path: &Path) -> Result<Digest> {
    stamp_file(path).map(|stamp| stamp.digest)
}

/// Digest and length of a file, in constant memory.
///
/// # Errors
/// [`JobsError::Read`] when it cannot be read; [`JobsError::NotAFile`] for a folder, pipe or device, which is not opened.
pub fn stamp_file(path: &Path) -> Result<FileStamp> {
    let read_error = |source| JobsError::Read { path: path.to_owned(), source };
    regular_file_bytes(path)?;
    let file = File::open(path).map_err(read_error)?;
    Digest::of_reader(file).map_err(read_error)
}

/// The length of a regular file, links followed; asked before opening, since opening a pipe waits for a writer.
pub(crate) fn regular_file_bytes(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).map_err(|source| JobsError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let found = if metadata.is_dir() { "folder" } else { "pipe or device" };
    Err(JobsError::NotAFile { path: path.to_owned(), found })
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestSyntax;

    fn from_str(text: &str) -> std::result::Result<Self, DigestSyntax> {
        let refused = || DigestSyntax { found: clip(text), found_chars: text.chars().count() };
        let digits = text.as_bytes();
        let mut bytes = [0_u8; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(refused());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (hex_value(pair[0]), hex_value(pair[1])) else { return Err(refused()) };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BLAKE3 of nothing, as published with the reference implementation.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn known_answer_and_text_form() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::from_bytes(*Digest::of(b"x").as_bytes()), Digest::of(b"x"));
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_a_digest() {
        let upper = EMPTY.to_uppercase();
        let wide = format!("{}é", &EMPTY[..62]);
        for bad in ["", "af13", &upper, &EMPTY[1..], &format!("{EMPTY}0"), &EMPTY.replace('a', "g"), &wide] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_file_longer_than_the_buffer_digests_as_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        let content: Vec<u8> = (0..2 * BUFFER_BYTES + 77).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let stamp = stamp_file(&path).unwrap();
        assert_eq!(stamp, FileStamp { digest: Digest::of(&content), bytes: content.len() as u64 });
        assert_eq!(digest_file(&path).unwrap(), stamp.digest);
    }

    #[test]
    fn folders_and_missing_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(stamp_file(folder.path()), Err(JobsError::NotAFile { found: "folder", .. })));
        let missing = stamp_file(&folder.path().join("none")).unwrap_err();
        assert_eq!(missing.exit_code().code(), 66);
        assert!(matches!(stamp_file(Path::new("/dev/null")), Err(JobsError::NotAFile { .. })));
    }
}
