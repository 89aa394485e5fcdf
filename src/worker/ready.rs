//! A model and an evaluation key made ready, whichever engine they are for: what a worker of a queue keeps.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jobs::manifest;
use jobs::receipt::{BatchReceipt, Cost};
use jobs::runner::TaskFiles;

use super::WorkerError;
use super::batch::BatchWork;
#[cfg(feature = "exact")]
use super::exact::{self, ExactPlanned, ExactPrepared};
use super::prepared::{Machine, Planned, Prepared, check_own_limit, same};
use crate::format::EngineKind;

/// The engines that this build has: a queue's jobs for others are left to other workers.
#[cfg(feature = "exact")]
pub const ENGINES: &[&str] = &manifest::ENGINES;
/// The engines that this build has: a queue's jobs for others are left to other workers.
#[cfg(not(feature = "exact"))]
pub const ENGINES: &[&str] = &[manifest::ENGINE];

/// Cheap to clone: the copies share one engine.
#[derive(Clone)]
pub(super) enum Ready {
    Ckks(Arc<Prepared>),
    #[cfg(feature = "exact")]
    Tfhe(Arc<ExactPrepared>),
}

impl Ready {
    /// Opens the task's model, holds it against the manifest and what is free, then reads the key.
    pub(super) fn make(files: &TaskFiles<'_>, machine: &Machine) -> Result<Self, WorkerError> {
        let manifest = files.manifest;
        if manifest.engine == EngineKind::Tfhe.name() {
            return Self::make_exact(files, machine);
        }
        manifest.refuse_unknown_options(&[])?;
        let planned = Planned::open(files.model, machine)?;
        planned.expect(manifest)?;
        check_free(files, planned.cost().peak_bytes)?;
        Ok(Self::Ckks(Arc::new(planned.with_key(files.eval_key, &manifest.key_id)?)))
    }

    #[cfg(feature = "exact")]
    fn make_exact(files: &TaskFiles<'_>, machine: &Machine) -> Result<Self, WorkerError> {
        let planned = ExactPlanned::open(files.model, machine.threads)?;
        planned.expect(files.manifest)?;
        check_free(files, planned.peak_bytes(files.manifest))?;
        Ok(Self::Tfhe(Arc::new(planned.with_key(files.eval_key, &files.manifest.key_id)?)))
    }

    #[cfg(not(feature = "exact"))]
    fn make_exact(_: &TaskFiles<'_>, _: &Machine) -> Result<Self, WorkerError> {
        Err(WorkerError::NoExactEngine)
    }

    /// What the task takes once all is ready. The manifest's engine, options, plan and key must be these, and it must fit what is free.
    pub(super) fn expect(&self, files: &TaskFiles<'_>) -> Result<Cost, WorkerError> {
        let manifest = files.manifest;
        let cost = match self {
            Self::Ckks(prepared) => {
                same("engine", &manifest.engine, manifest::ENGINE)?;
                manifest.refuse_unknown_options(&[])?;
                prepared.expect(manifest)?;
                let cost = prepared.cost();
                Cost { elapsed_secs: cost.batch_secs, peak_bytes: cost.peak_bytes, output_bytes: cost.result_bytes }
            }
            #[cfg(feature = "exact")]
            Self::Tfhe(prepared) => {
                same("engine", &manifest.engine, EngineKind::Tfhe.name())?;
                prepared.expect(manifest)?;
                prepared.cost(manifest, manifest.batches[files.index].occupancy.into())
            }
        };
        check_free(files, cost.peak_bytes)?;
        Ok(cost)
    }

    /// One batch, as [`Prepared::run_batch`].
    pub(super) fn run_batch(&self, work: &BatchWork<'_>, stop: &AtomicBool) -> Result<BatchReceipt, WorkerError> {
        match self {
            Self::Ckks(prepared) => prepared.run_batch(work, stop, &|_| {}),
            #[cfg(feature = "exact")]
            Self::Tfhe(prepared) => prepared.run_batch(work, stop, &|_| {}),
        }
    }

    /// The kernels, as a receipt names them.
    pub(super) fn isa(&self, machine: &Machine) -> &'static str {
        match self {
            Self::Ckks(_) => machine.kernel.name(),
            #[cfg(feature = "exact")]
            Self::Tfhe(_) => exact::ISA,
        }
    }
}

/// The plan's own figure against what the worker has left for the task.
fn check_free(files: &TaskFiles<'_>, needed_bytes: u64) -> Result<(), WorkerError> {
    check_own_limit(files.manifest, needed_bytes)?;
    if needed_bytes <= files.memory_bytes {
        return Ok(());
    }
    Err(WorkerError::Memory { needed_bytes, limit_bytes: files.memory_bytes, limit: "free on this worker" })
}
