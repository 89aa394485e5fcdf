//! Batches of many jobs, as a queue gives them out: models and keys are made ready once and kept while they are in use. What is
//! claimed, and what becomes of a failure, the runner decides (`jobs::runner`); this says which kind of failure it is.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jobs::receipt::Cost;
use jobs::runner::{Compute, Computed, TaskFiles, Trouble};
use jobs::signing::Purpose;
use jobs::trust::Ledger;
use jobs::{Digest, ExitCode, JobsError, SigningKey, TrustedKeys, manifest};

use super::batch::BatchWork;
use super::checkpoint::CheckpointPlace;
use super::memory::peak_bytes;
use super::prepared::Machine;
use super::ready::Ready;
use super::{CODE_COMMIT, Trust, WorkerError};
use crate::engine::EngineError;

/// Model and evaluation key, by content.
type Pair = (Digest, Digest);

/// Computes the tasks of a queue.
pub struct Fleet {
    machine: Machine,
    /// The last ones used come last.
    ready: Mutex<Vec<(Pair, Ready)>>,
    /// How many are kept.
    kept: usize,
    checkpoint_after: Duration,
    trust: FleetTrust,
}

/// Whose requests are taken, and in whose name receipts are signed. Nothing of it is demanded by default.
#[derive(Default)]
pub struct FleetTrust {
    /// Keys of which one must have signed a request, for its tenant.
    pub requests: Option<TrustedKeys>,
    /// Memory of the jobs taken.
    pub ledger: Option<Ledger>,
    /// Signs receipts.
    pub signing: Option<SigningKey>,
}

impl Fleet {
    /// For a worker of so many slots: each may have a model and key of its own. Of a batch that takes longer than `checkpoint_after` the
    /// state is kept now and then.
    pub fn new(machine: Machine, slots: usize, checkpoint_after: Duration, trust: FleetTrust) -> Self {
        Self { machine, ready: Mutex::default(), kept: slots.max(1), checkpoint_after, trust }
    }

    /// Whether the job may be worked on; refusals come before anything that it names is looked at.
    fn admit(&self, files: &TaskFiles<'_>) -> Result<(), WorkerError> {
        let trust = Trust {
            requests: self.trust.requests.as_ref(),
            ledger: self.trust.ledger.as_ref(),
            signing: self.trust.signing.as_ref(),
            now_unix_secs: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        trust.admit(&manifest::load(files.manifest_path)?)
    }

    /// The task's model and key, made ready now or before, held against its manifest; and what it takes with them.
    fn ready(&self, files: &TaskFiles<'_>) -> Result<(Ready, Cost), WorkerError> {
        let manifest = files.manifest;
        let pair = (manifest.model.digest, manifest.eval_key.digest);
        let mut kept = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(known, _)| *known == pair).map(|at| kept.remove(at).1);
        let ready = match found {
            Some(ready) => ready,
            None => {
                // The oldest goes first, so that there is room for the new one.
                let surplus = (kept.len() + 1).saturating_sub(self.kept);
                kept.drain(..surplus);
                Ready::make(files, &self.machine)?
            }
        };
        kept.push((pair, ready.clone()));
        let cost = ready.expect(files)?;
        Ok((ready, cost))
    }

    fn evaluate(&self, files: &TaskFiles<'_>, stop: &AtomicBool) -> Result<Computed, WorkerError> {
        let start = Instant::now();
        self.admit(files)?;
        let (ready, predicted) = self.ready(files)?;
        let work = BatchWork {
            manifest: files.manifest,
            index: files.index,
            input_path: files.input,
            output_path: files.output,
            checkpoint: CheckpointPlace { path: files.checkpoint, after: self.checkpoint_after },
        };
        let batch = ready.run_batch(&work, stop)?;
        Ok(Computed {
            predicted,
            measured: Cost {
                elapsed_secs: start.elapsed().as_secs_f64(),
                peak_bytes: peak_bytes(),
                output_bytes: batch.output_stamp.bytes,
            },
            batch,
            isa: ready.isa(&self.machine).to_owned(),
            threads: self.machine.threads as u32,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            code_commit: CODE_COMMIT.map(str::to_owned),
        })
    }
}

impl Compute for Fleet {
    fn compute(&self, files: &TaskFiles<'_>, stop: &AtomicBool) -> Result<Computed, Trouble> {
        self.evaluate(files, stop).map_err(|error| trouble(&error, files))
    }

    fn sign(&self, receipt: &[u8]) -> Option<String> {
        Some(self.trust.signing.as_ref()?.sign(Purpose::Receipt, receipt, None).to_text())
    }
}

/// Whose trouble an error is: the job's, once and for all; this attempt's; or this machine's.
fn trouble(error: &WorkerError, files: &TaskFiles<'_>) -> Trouble {
    let (reason, exit_code) = (error.to_string(), error.exit_code());
    let own_limit = files.manifest.queue.as_ref().and_then(|terms| terms.memory_limit_bytes);
    match error {
        WorkerError::Engine { source, .. } if matches!(**source, EngineError::Stopped) => Trouble::Stopped,
        WorkerError::Memory { needed_bytes, .. } if own_limit.is_some_and(|limit| *needed_bytes > limit) => {
            Trouble::Permanent { reason, exit_code }
        }
        // A larger machine may come by, or one with the engine: claims leave its tasks alone (`ENGINES`), so this is a runner's mistake.
        WorkerError::Memory { .. } | WorkerError::NoExactEngine => Trouble::Retryable { reason, exit_code },
        WorkerError::Jobs(
            JobsError::Unsigned { .. }
            | JobsError::Untrusted { .. }
            | JobsError::WrongSignature { .. }
            | JobsError::Expired { .. }
            | JobsError::Replayed { .. },
        ) => Trouble::Permanent { reason, exit_code },
        error if error.is_permanent() => Trouble::Permanent { reason, exit_code },
        _ => match exit_code {
            ExitCode::InputMissing
            | ExitCode::CannotCreate
            | ExitCode::Io
            | ExitCode::Permission
            | ExitCode::Config => Trouble::Machine { reason, exit_code },
            _ => Trouble::Retryable { reason, exit_code },
        },
    }
}
