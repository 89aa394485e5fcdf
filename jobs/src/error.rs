//! The one error of this crate, and the exit code each kind answers with. Values come first, found before expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::exit::ExitCode;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, JobsError>;

/// What a file is to its job; decides what a wrong digest means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The encrypted images of the batch at this index.
    Input(usize),
    /// The encrypted logits of the batch at this index.
    Output(usize),
    /// The model package.
    Model,
    /// The evaluation key.
    EvalKey,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(index) => write!(f, "batch {index} input"),
            Self::Output(index) => write!(f, "batch {index} output"),
            Self::Model => write!(f, "model"),
            Self::EvalKey => write!(f, "eval_key"),
        }
    }
}

/// Everything that can go wrong around a manifest, a receipt or a file they name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// An input cannot be opened or read.
    #[error("{path}: cannot read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An output cannot be created, or not be renamed into place.
    #[error("{path}: cannot create: {source}")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An output was created but cannot be written or synced.
    #[error("{path}: cannot write: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// What stands under the name is a folder, a pipe or a device.
    #[error("{path}: found a {found}, expected a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A manifest or receipt larger than any honest one.
    #[error("{path}: {found_bytes} bytes, expected at most {limit_bytes}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size; when it grows while being read, the limit plus one.
        found_bytes: u64,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// Not TOML or JSON of the right shape.
    #[error("{path}: {detail}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column where it gives them.
        detail: String,
    },
    /// Written by a newer version of this program.
    #[error("{path}: schema {found}, newer than the {expected} this program reads")]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The schema named in the file.
        found: String,
        /// The schema this program reads.
        expected: &'static str,
    },
    /// Some other kind of document.
    #[error("{path}: schema {found:?}, expected {expected:?}")]
    ForeignSchema {
        /// The file.
        path: PathBuf,
        /// The schema named in the file.
        found: String,
        /// The schema this program reads.
        expected: &'static str,
    },
    /// A field has the right type and an impossible value.
    #[error("{field}: {found}, expected {expected}")]
    Field {
        /// The field, as a path inside the document.
        field: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Two fields name the same file.
    #[error("{field}: path {path:?} is already used by {first}")]
    PathTwice {
        /// The second use.
        field: String,
        /// The path, as written.
        path: String,
        /// The first use.
        first: String,
    },
    /// A path that is not a plain relative path.
    #[error("path {path:?} {problem}, expected a relative path of plain names joined by '/'")]
    PathForm {
        /// The path, as written.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path that leaves the job's folder by a link, or whose link leads nowhere.
    #[error("path {path:?} {problem}, expected to stay inside {root}")]
    PathEscapes {
        /// The path, as written.
        path: String,
        /// How it leaves.
        problem: &'static str,
        /// The job's folder.
        root: PathBuf,
    },
    /// A file has another size than was promised.
    #[error("{role}: {found_bytes} bytes in {path}, expected {expected_bytes}")]
    WrongSize {
        /// What the file is to the job.
        role: FileRole,
        /// The file.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
        /// The size promised.
        expected_bytes: u64,
    },
    /// A file has another content than was promised.
    #[error("{role}: digest {found} of {path}, expected {expected}")]
    WrongDigest {
        /// What the file is to the job.
        role: FileRole,
        /// The file.
        path: PathBuf,
        /// Digest of what is there.
        found: Digest,
        /// Digest promised.
        expected: Digest,
    },
    /// Neither the manifest nor the caller says where the model lies.
    #[error("model {name:?} ({digest}): no path in the manifest and none given, expected one of them")]
    NoModel {
        /// Its name in the manifest.
        name: String,
        /// Its digest in the manifest.
        digest: Digest,
    },
    /// A receipt that does not answer this manifest.
    #[error("receipt {what}: {found}, the manifest expects {expected}")]
    ReceiptMismatch {
        /// The field, as a path inside the receipt.
        what: String,
        /// The receipt's value.
        found: String,
        /// The manifest's value.
        expected: String,
    },
    /// The receipt is in order and says that the job failed.
    #[error("the job failed with exit code {exit_code}: {reason}")]
    JobFailed {
        /// The worker's words.
        reason: String,
        /// The worker's exit code.
        exit_code: ExitCode,
    },
}

impl JobsError {
    /// The exit code a command ends with when this error stops it.
    ///
    /// A wrong digest of an input or output is bad data (65); of a model or evaluation key it is a mismatch (76), since
    /// what is there is most likely another one.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read { source, .. } => ExitCode::on_read(source),
            Self::Create { source, .. } => ExitCode::on_create(source),
            Self::Write { source, .. } => ExitCode::on_write(source),
            Self::NotAFile { .. }
            | Self::TooLarge { .. }
            | Self::Syntax { .. }
            | Self::ForeignSchema { .. }
            | Self::Field { .. }
            | Self::PathTwice { .. }
            | Self::PathForm { .. }
            | Self::PathEscapes { .. } => ExitCode::BadData,
            Self::NoModel { .. } => ExitCode::InputMissing,
            Self::NewerSchema { .. } | Self::ReceiptMismatch { .. } => ExitCode::Mismatch,
            Self::WrongSize { role, .. } | Self::WrongDigest { role, .. } => match role {
                FileRole::Model | FileRole::EvalKey => ExitCode::Mismatch,
                FileRole::Input(_) | FileRole::Output(_) => ExitCode::BadData,
            },
            Self::JobFailed { exit_code, .. } => *exit_code,
        }
    }

    pub(crate) fn field(field: impl Into<String>, found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self::Field { field: field.into(), found: clip(&found.to_string()), expected: expected.into() }
    }
}

/// Shortens a value from outside so that an error stays one readable line: at most 120 characters, none of control.
pub(crate) fn clip(text: &str) -> String {
    const LIMIT_CHARS: usize = 120;
    let printable = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut clipped: String = printable.take(LIMIT_CHARS).collect();
    if text.chars().nth(LIMIT_CHARS).is_some() {
        clipped.push_str("...");
    }
    clipped
}
