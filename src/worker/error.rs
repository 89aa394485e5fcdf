//! What can go wrong for the worker, and the exit code each case answers with.

use jobs::{ExitCode, JobsError};

use crate::ckks::CkksError;
use crate::engine::EngineError;
use crate::format::{ErrorKind, FormatError};
use crate::plan::PlanError;

/// Errors of the worker wing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A manifest, receipt or a file's digest.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// A model package, key, batch or result.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No plan for the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Parameters or keys.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// The evaluation itself.
    #[error("batch {batch}: {source}")]
    Engine {
        /// Number of the batch in the manifest.
        batch: usize,
        /// What happened.
        source: Box<EngineError>,
    },
    /// The engine could not be made ready.
    #[error(transparent)]
    Setup(Box<EngineError>),
    /// A job of the exact engine, and a build without it.
    #[error("found a job for the engine tfhe and a build without the cargo feature `exact`, expected one with it")]
    NoExactEngine,
    /// Keys, ciphertexts or circuit of the exact engine.
    #[cfg(feature = "exact")]
    #[error(transparent)]
    Exact(#[from] crate::exact::ExactError),
    /// Manifest and model disagree.
    #[error("{what}: the manifest says {found}, this worker derives {expected}")]
    Mismatch {
        /// Which fact.
        what: &'static str,
        /// In the manifest.
        found: String,
        /// Derived here.
        expected: String,
    },
    /// The job does not fit the machine or the limit given.
    #[error("this job needs about {needed_bytes} bytes of memory: {limit_bytes} are {limit}")]
    Memory {
        /// By the plan's own figures.
        needed_bytes: u64,
        /// What there is.
        limit_bytes: u64,
        /// Whose limit it is.
        limit: &'static str,
    },
}

impl WorkerError {
    /// The process's answer to cron, systemd and Kubernetes.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Jobs(error) => error.exit_code(),
            Self::Format(error) => of_format(error),
            Self::Plan(PlanError::Stats { .. } | PlanError::Stages { .. }) => ExitCode::BadData,
            Self::Plan(PlanError::Parameters(_)) => ExitCode::Bug,
            Self::Plan(_) | Self::Memory { .. } | Self::NoExactEngine => ExitCode::Config,
            #[cfg(feature = "exact")]
            Self::Exact(crate::exact::ExactError::Threads { .. }) => ExitCode::Config,
            #[cfg(feature = "exact")]
            Self::Exact(_) => ExitCode::BadData,
            Self::Mismatch { .. } => ExitCode::Mismatch,
            Self::Ckks(error) => of_scheme(error),
            Self::Engine { source, .. } | Self::Setup(source) => of_engine(source),
        }
    }

    /// Whether trying again later cannot help: the reason then goes into a receipt.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.exit_code(), ExitCode::BadData | ExitCode::Mismatch) || matches!(self, Self::Plan(_))
    }
}

fn of_format(error: &FormatError) -> ExitCode {
    match error.kind() {
        ErrorKind::BadData => ExitCode::BadData,
        ErrorKind::Mismatch => ExitCode::Mismatch,
        ErrorKind::Missing => ExitCode::InputMissing,
        ErrorKind::Io => ExitCode::Io,
        // A full disk is no want of a place, whichever step met it.
        ErrorKind::Create => match error.root() {
            FormatError::Create(source) => ExitCode::on_create(source),
            _ => ExitCode::CannotCreate,
        },
        ErrorKind::Permission => ExitCode::Permission,
    }
}

fn of_scheme(error: &CkksError) -> ExitCode {
    match error {
        CkksError::Insecure { .. } | CkksError::UnknownDegree { .. } | CkksError::Parameters { .. } => {
            ExitCode::Mismatch
        }
        CkksError::Entropy(_) => ExitCode::Unavailable,
        _ => ExitCode::Bug,
    }
}

fn of_engine(error: &EngineError) -> ExitCode {
    match error {
        EngineError::Input(error) => of_format(error),
        EngineError::Scheme(error) => of_scheme(error),
        EngineError::Circuit(_) => ExitCode::BadData,
        EngineError::KeyMissing { .. } | EngineError::Plan { .. } => ExitCode::Mismatch,
        EngineError::Threads { .. } => ExitCode::Config,
        EngineError::Memory { .. } | EngineError::Stopped => ExitCode::TryLater,
    }
}
