//! The untrusted wing: one job from manifest to encrypted results and receipt, or the batches of many jobs, one at a time, as a queue
//! gives them out. Holds no secret.
//!
//! Everything from outside is checked before any work: manifest, digests, plan id, key id, parameters, memory. Each output appears whole under
//! its final name or not at all; the receipt is written last. Running a finished job again does nothing.

mod ahead;
mod batch;
mod checkpoint;
mod clock;
mod error;
#[cfg(feature = "exact")]
mod exact;
mod fleet;
mod memory;
mod prepared;
pub mod rates;
mod ready;
mod run;
mod trust;

pub use batch::BatchWork;
pub use checkpoint::{CHECKPOINT_AFTER, CheckpointPlace};
pub use error::WorkerError;
#[cfg(feature = "exact")]
pub use exact::{ExactPlanned, ExactPrepared};
pub use fleet::{Fleet, FleetTrust};
pub use memory::{available_bytes, free_bytes, peak_bytes};
pub use prepared::{Machine, Planned, Prepared};
pub use ready::ENGINES;
pub use run::{RunReport, RunRequest, WorkerEvent, run, run_trusted};
pub use trust::{CODE_COMMIT, Trust};
