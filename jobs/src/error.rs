//! The one error of this crate, and the exit code each kind answers with. Values come first, found before expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::exit::ExitCode;
use crate::queue::JobId;
use crate::signing::Purpose;

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
    /// The idempotency key names a job with another manifest.
    #[error("tenant {tenant:?}, idempotency key {key:?}: manifest {found}, the job in the queue has {expected}")]
    KeyReused {
        /// Whose job it is.
        tenant: String,
        /// The key.
        key: String,
        /// Digest of the manifest submitted now.
        found: Digest,
        /// Digest of the manifest submitted first.
        expected: Digest,
    },
    /// The queue does not know this job.
    #[error("queue job {job}: not in this queue")]
    NoSuchJob {
        /// The job asked for.
        job: JobId,
    },
    /// Not the address of a queue.
    #[error("queue {url:?}: {problem}, expected {expected}")]
    QueueUrl {
        /// The address, its password taken out.
        url: String,
        /// What is wrong with it.
        problem: String,
        /// What it may be.
        expected: String,
    },
    /// The address of a queue this program was built without.
    #[error("queue {scheme:?}: this program was built without the feature {feature:?}")]
    NotCompiledIn {
        /// The address's scheme.
        scheme: String,
        /// The cargo feature that has it.
        feature: &'static str,
    },
    /// An object that should be in the store is not.
    #[error("{place}: not in the store")]
    NotStored {
        /// The object's name.
        place: String,
    },
    /// The object store cannot do what it was asked.
    #[error("{place}: {detail}")]
    Storage {
        /// The object's name.
        place: String,
        /// The store's words.
        detail: String,
        /// What that means.
        exit_code: ExitCode,
    },
    /// The database cannot do what it was asked.
    #[error("queue database, {doing}: {detail}")]
    Database {
        /// The step.
        doing: &'static str,
        /// The database's words.
        detail: String,
        /// What that means.
        exit_code: ExitCode,
    },
    /// A record of the queue that no version of this program wrote.
    #[error("{place}: {detail}")]
    QueueRecord {
        /// The record's name.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A stored object has another content than its name or its commit says.
    #[error("{place}: {found_bytes} bytes with digest {found}, expected {expected}")]
    StoredDigest {
        /// The object's name.
        place: String,
        /// Digest of what is there.
        found: Digest,
        /// Size of what is there.
        found_bytes: u64,
        /// Digest promised.
        expected: Digest,
    },
    /// A signature is demanded and there is none.
    #[error("{}: found no signature beside it, expected one by a key of {}", path.display(), place.display())]
    Unsigned {
        /// The document.
        path: PathBuf,
        /// The list of keys.
        place: PathBuf,
    },
    /// A signature that is not of this document.
    #[error("{path}: the signature beside it is none of this {purpose} by {key}")]
    WrongSignature {
        /// The document.
        path: PathBuf,
        /// What the document is.
        purpose: Purpose,
        /// The key that the signature names.
        key: String,
    },
    /// A sound signature by a key that is not trusted, or not with this.
    #[error("{path}: signed by {found}, expected {expected}")]
    Untrusted {
        /// The document.
        path: PathBuf,
        /// The key.
        found: String,
        /// Whose was expected.
        expected: String,
    },
    /// A signature whose time is over.
    #[error("{path}: signature expired at {expired_unix_secs}, found the time {now_unix_secs} (seconds since 1970)")]
    Expired {
        /// The document.
        path: PathBuf,
        /// When it ended.
        expired_unix_secs: u64,
        /// The time now.
        now_unix_secs: u64,
    },
    /// A job id that was taken before, with another content.
    #[error("job {job_id}: manifest digest {found}, expected {expected}, with which this id was taken before")]
    Replayed {
        /// The id.
        job_id: String,
        /// Digest of the manifest now.
        found: Digest,
        /// Digest of the manifest then.
        expected: Digest,
    },
    /// A signing key that others may read or change.
    #[error("{path}: found file mode {found:04o}, expected 0600 or stricter")]
    LooseMode {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
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
            | Self::PathEscapes { .. }
            | Self::KeyReused { .. }
            | Self::QueueRecord { .. }
            | Self::StoredDigest { .. }
            | Self::WrongSignature { .. } => ExitCode::BadData,
            Self::Unsigned { .. }
            | Self::Untrusted { .. }
            | Self::Expired { .. }
            | Self::Replayed { .. }
            | Self::LooseMode { .. } => ExitCode::Permission,
            Self::NoModel { .. } | Self::NoSuchJob { .. } | Self::NotStored { .. } => ExitCode::InputMissing,
            Self::QueueUrl { .. } | Self::NotCompiledIn { .. } => ExitCode::Config,
            Self::NewerSchema { .. } | Self::ReceiptMismatch { .. } => ExitCode::Mismatch,
            Self::WrongSize { role, .. } | Self::WrongDigest { role, .. } => match role {
                FileRole::Model | FileRole::EvalKey => ExitCode::Mismatch,
                FileRole::Input(_) | FileRole::Output(_) => ExitCode::BadData,
            },
            Self::JobFailed { exit_code, .. } | Self::Storage { exit_code, .. } | Self::Database { exit_code, .. } => {
                *exit_code
            }
        }
    }

    /// Wraps a system error met at an object of the store.
    pub(crate) fn storage_io(place: &str) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Storage {
            place: place.to_owned(),
            detail: source.to_string(),
            exit_code: ExitCode::on_write(&source),
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
