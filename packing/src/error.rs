//! The one error type of this crate, and how its cases sort into exit codes.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What kind of trouble an error is, coarse enough to choose an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The content is wrong and will be wrong next time.
    BadData,
    /// A file or folder is not there.
    Missing,
    /// The operating system failed to read or write.
    Io,
    /// The caller asked for something that has no meaning (slots not a power of two, batch out of range, ..).
    Usage,
}

/// Why images or labels could not be read, packed or written. Shapes are (channels, rows, columns).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackingError {
    /// There is nothing at this path.
    #[error("{}: not found", path.display())]
    Missing {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A folder has none of the files of a known data set layout.
    #[error("{}: no {split} split found, expected {expected}", path.display())]
    NoDataset {
        /// The folder.
        path: PathBuf,
        /// `test` or `train`.
        split: &'static str,
        /// The file names looked for.
        expected: String,
    },
    /// The operating system refused a read.
    #[error("{}: cannot read", path.display())]
    Io {
        /// The file being read.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The operating system refused a write.
    #[error("cannot write predictions")]
    Write {
        /// The error of the writer handed in.
        source: io::Error,
    },
    /// No known format.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What it starts with or is.
        found: String,
        /// The formats understood here.
        expected: &'static str,
    },
    /// The content breaks its format; the text has found and expected.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Fewer bytes than the header says.
    #[error("{}: truncated: found {found_bytes} decoded bytes, expected {expected_bytes}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Decoded bytes there, header included.
        found_bytes: u64,
        /// Decoded bytes the header calls for, header included.
        expected_bytes: u64,
    },
    /// More bytes than the header says.
    #[error("{}: trailing data: found more than the expected {expected_bytes} decoded bytes", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Decoded bytes the header calls for, header included.
        expected_bytes: u64,
    },
    /// A size is above its limit.
    #[error("{}: found {found} {what}, limit {limit}", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The quantity: images, rows, decoded bytes, ...
        what: &'static str,
        /// The size found or claimed.
        found: u64,
        /// The limit in force.
        limit: u64,
    },
    /// An image (set) has another shape than its companions or the model.
    #[error("{}: found shape {found:?}, expected {expected:?} (channels, rows, columns)", path.display())]
    Shape {
        /// The file, or `images` when the set did not come from one file.
        path: PathBuf,
        /// Shape found.
        found: [usize; 3],
        /// Shape expected.
        expected: [usize; 3],
    },
    /// Two counts that must agree do not.
    #[error("{}: found {found} {what}, expected {expected}", path.display())]
    Count {
        /// The file, or `images`/`labels` when there is none.
        path: PathBuf,
        /// The quantity.
        what: &'static str,
        /// Count found.
        found: usize,
        /// Count expected.
        expected: usize,
    },
    /// Nothing to read.
    #[error("{}: found 0 {what}, expected at least 1", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// The quantity.
        what: &'static str,
    },
    /// A logit is not a finite number: decryption went wrong.
    #[error("image {index}: found score {found} for class {class}, expected a finite number")]
    NotFinite {
        /// Image.
        index: usize,
        /// Class.
        class: usize,
        /// The score.
        found: f64,
    },
    /// A request without meaning; the text has found and expected.
    #[error("{what}: found {found}, expected {expected}")]
    Usage {
        /// The parameter.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
}

impl PackingError {
    /// Sorts the error for the exit code.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::NoDataset { .. } => ErrorKind::Missing,
            Self::Io { .. } | Self::Write { .. } => ErrorKind::Io,
            Self::Usage { .. } => ErrorKind::Usage,
            Self::Unrecognised { .. }
            | Self::Malformed { .. }
            | Self::Truncated { .. }
            | Self::Trailing { .. }
            | Self::TooLarge { .. }
            | Self::Shape { .. }
            | Self::Count { .. }
            | Self::Empty { .. }
            | Self::NotFinite { .. } => ErrorKind::BadData,
        }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn usage(what: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self::Usage { what, found: found.to_string(), expected: expected.to_string() }
    }

    /// Sorts a failed read: not found, the system's trouble (it has an error number), or a decoder's complaint.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            Self::Missing { path: path.to_owned() }
        } else if source.raw_os_error().is_some() {
            Self::Io { path: path.to_owned(), source }
        } else {
            Self::malformed(path, source.to_string())
        }
    }
}
