//! What can go wrong for the client, and the exit code each case answers with.

use std::io;
use std::path::PathBuf;

use jobs::{ExitCode, JobsError};
use packing::PackingError;

use crate::ckks::CkksError;
use crate::format::{ErrorKind, FormatError};
use crate::plan::PlanError;

/// Errors of the client wing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A key, package, ciphertext or result.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A manifest, receipt or a file's digest.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// Images or predictions.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// No plan for the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The scheme.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// The exact engine's scheme.
    #[cfg(feature = "exact")]
    #[error(transparent)]
    Exact(#[from] crate::exact::ExactError),
    /// An output folder cannot be made, or a file cannot be brought into it.
    #[error("{}: cannot create: {source}", path.display())]
    Create {
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A copy failed on the way.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An output is already there.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What may be.
        expected: &'static str,
    },
    /// Two things that must belong together do not.
    #[error("{what}: found {found}, expected {expected}")]
    Mismatch {
        /// What differs.
        what: String,
        /// As found.
        found: String,
        /// As expected.
        expected: String,
    },
    /// A known answer did not come out. How far off it is is told in whole bits only: the exact error is a function of the
    /// secret key (eprint 2020/1533).
    #[error(
        "canary {canary} in slot {slot} of batch {batch}: logit {logit} misses the promised {promised_bits:.1} bits by {missed_bits}: \
         the worker computed something else than the model"
    )]
    Canary {
        /// Batch.
        batch: usize,
        /// Slot.
        slot: usize,
        /// Number of the package's canary.
        canary: usize,
        /// Logit.
        logit: usize,
        /// Bits by which the error is above the tolerance, rounded up.
        missed_bits: u32,
        /// Tolerance, as -log2.
        promised_bits: f64,
    },
    /// A decrypted result is spread over the whole modulus.
    #[error("output {output} of batch {batch}: wrong key, or values outgrew the headroom: {source}")]
    Undecryptable {
        /// Batch.
        batch: usize,
        /// Output.
        output: usize,
        /// How large.
        source: CkksError,
    },
}

impl ClientError {
    /// The exit code a command ends with when this error stops it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Format(error) => match error.kind() {
                ErrorKind::BadData => ExitCode::BadData,
                ErrorKind::Mismatch => ExitCode::Mismatch,
                ErrorKind::Missing => ExitCode::InputMissing,
                ErrorKind::Io => ExitCode::Io,
                ErrorKind::Create => ExitCode::CannotCreate,
                ErrorKind::Permission => ExitCode::Permission,
            },
            Self::Jobs(error) => error.exit_code(),
            Self::Packing(error) => match error.kind() {
                packing::ErrorKind::BadData => ExitCode::BadData,
                packing::ErrorKind::Missing => ExitCode::InputMissing,
                packing::ErrorKind::Io => ExitCode::Io,
                packing::ErrorKind::Usage => ExitCode::Usage,
            },
            Self::Plan(PlanError::Requirement { .. }) => ExitCode::Usage,
            Self::Plan(PlanError::Parameters(error)) | Self::Ckks(error) => match error {
                CkksError::Entropy(_) => ExitCode::Unavailable,
                _ => ExitCode::BadData,
            },
            #[cfg(feature = "exact")]
            Self::Exact(crate::exact::ExactError::Entropy(_)) => ExitCode::Unavailable,
            #[cfg(feature = "exact")]
            Self::Exact(_) => ExitCode::BadData,
            Self::Plan(_) | Self::Canary { .. } | Self::Undecryptable { .. } => ExitCode::BadData,
            Self::Create { source, .. } => ExitCode::on_create(source),
            Self::Write { source, .. } => ExitCode::on_write(source),
            Self::Exists { .. } => ExitCode::CannotCreate,
            Self::Mismatch { .. } => ExitCode::Mismatch,
        }
    }

    pub(super) fn mismatch(what: &str, found: impl ToString, expected: impl ToString) -> Self {
        Self::Mismatch { what: what.to_owned(), found: found.to_string(), expected: expected.to_string() }
    }
}
