//! What can be wrong with a file, with the values found and expected.

use std::io;
use std::path::{Path, PathBuf};

use crate::ckks::CkksError;
use crate::net::NetError;

/// Coarse class of a [`FormatError`]; the command line turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The bytes are damaged, foreign or inconsistent (65).
    BadData,
    /// Sound, but of another kind, version, key, plan or model (76).
    Mismatch,
    /// There is no such file (66).
    Missing,
    /// Reading or writing failed, a full disk included (74).
    Io,
    /// The output could not be created (73).
    Create,
    /// Access denied, or a secret that others may read (77).
    Permission,
}

/// Errors of the format room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A file is refused; says which one.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Box<FormatError>,
    },
    /// The file could not be opened, inspected, mapped or read.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// The output could not be created or given its name.
    #[error("cannot create: {0}")]
    Create(io::Error),
    /// Writing, syncing or re-reading the output failed.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// Not a regular file.
    #[error("found {found}, expected a regular file")]
    NotAFile {
        /// What the path names.
        found: &'static str,
    },
    /// A file with a secret may be read or changed by others.
    #[error("found file mode {found:04o}, expected 0600 or stricter")]
    LooseMode {
        /// Permission bits of the file.
        found: u32,
    },
    /// The file is not as long as its header says.
    #[error("found {found_bytes} bytes, expected {expected_bytes}")]
    Length {
        /// Actual length.
        found_bytes: u64,
        /// Length that the header implies.
        expected_bytes: u64,
    },
    /// A size is above what the reader is willing to handle.
    #[error("{what}: found {found}, expected at most {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Found.
        found: u64,
        /// Largest accepted.
        limit: u64,
    },
    /// The header is not a container header.
    #[error("malformed header: {0}")]
    Header(String),
    /// Sound safetensors, but not written by this program.
    #[error("not a nightshift container: metadata has no nightshift.{key}")]
    Foreign {
        /// The entry that is absent.
        key: &'static str,
    },
    /// Written by another version of the format.
    #[error("found format version {found}, expected {expected}")]
    Version {
        /// Version in the file.
        found: String,
        /// Version this program reads.
        expected: &'static str,
    },
    /// The file is of another kind.
    #[error("found a {found} file, expected {expected}")]
    Kind {
        /// Kind in the file.
        found: String,
        /// Kind asked for.
        expected: String,
    },
    /// Belongs to another key, plan, model or job.
    #[error("{what} mismatch: found {found}, expected {expected}")]
    Mismatch {
        /// What differs, e.g. `key_id`.
        what: String,
        /// Value in the file.
        found: String,
        /// Value asked for.
        expected: String,
    },
    /// A compact package whose network this program lowers to another circuit than the program that wrote it.
    #[error("model_id of the network lowered anew: found {found}, expected {expected}, package made with {made_with}")]
    LoweredOtherwise {
        /// Model id with the circuit that this program makes.
        found: String,
        /// Model id in the file.
        expected: String,
        /// Version that the package's provenance names.
        made_with: String,
    },
    /// A metadata entry is absent.
    #[error("metadata has no nightshift.{key}")]
    NoMetadata {
        /// Name without the prefix.
        key: String,
    },
    /// A section is absent.
    #[error("no section {name:?}")]
    NoSection {
        /// Its name.
        name: String,
    },
    /// A byte between sections is not zero.
    #[error("padding after section {section:?}: found byte {found} at file offset {offset_bytes}, expected 0")]
    Padding {
        /// The section before it.
        section: String,
        /// Offset in the file.
        offset_bytes: u64,
        /// The byte.
        found: u8,
    },
    /// Bytes do not hash to their digest.
    #[error("digest of {section:?}: found {found}, expected {expected}")]
    Digest {
        /// Section, or `header`.
        section: String,
        /// BLAKE3 of the bytes, hexadecimal.
        found: String,
        /// BLAKE3 recorded in the header.
        expected: String,
    },
    /// A residue is not reduced, or does not fit its width.
    #[error("residue {index}: found {found}, expected less than {limit}")]
    Residue {
        /// Index among the residues given.
        index: usize,
        /// Its value.
        found: u64,
        /// Exclusive limit (the modulus, or 2 to the packed width).
        limit: u64,
    },
    /// A width outside 1 to 8 bytes.
    #[error("residue width: found {found} bytes, expected 1 to 8")]
    Width {
        /// Width asked for.
        found: usize,
    },
    /// A value or count is not what the rest of the file (or the caller's other arguments) implies.
    #[error("{what}: found {found}, expected {expected}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// Found.
        found: String,
        /// Expected.
        expected: String,
    },
    /// The ring parameters in a file are not sound or not secure.
    #[error("parameters: {0}")]
    Parameters(CkksError),
    /// A package's network or circuit breaks a promise of its type.
    #[error(transparent)]
    Net(Box<NetError>),
    /// Text in a section is not the JSON expected.
    #[error("section {section:?}: {reason}")]
    Json {
        /// Section name.
        section: String,
        /// The parser's message.
        reason: String,
    },
}

impl From<NetError> for FormatError {
    fn from(error: NetError) -> Self {
        Self::Net(Box::new(error))
    }
}

impl FormatError {
    /// Class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InFile { error, .. } => error.kind(),
            Self::Read(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::Missing,
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                _ => ErrorKind::Io,
            },
            Self::Create(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Io,
                _ => ErrorKind::Create,
            },
            Self::Write(_) => ErrorKind::Io,
            Self::LooseMode { .. } => ErrorKind::Permission,
            Self::Version { .. } | Self::Kind { .. } | Self::Mismatch { .. } | Self::LoweredOtherwise { .. } => {
                ErrorKind::Mismatch
            }
            _ => ErrorKind::BadData,
        }
    }

    /// The error without the file's name.
    pub fn root(&self) -> &Self {
        match self {
            Self::InFile { error, .. } => error.root(),
            other => other,
        }
    }

    /// Names the file, once.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            named @ Self::InFile { .. } => named,
            error => Self::InFile { path: path.to_path_buf(), error: Box::new(error) },
        }
    }

    /// [`FormatError::Invalid`] from displayable values.
    pub fn invalid(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Self {
        Self::Invalid { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }
}
