//! The untrusted wing: one job from manifest to encrypted results and receipt. Holds no secret.
//!
//! Everything from outside is checked before any work: manifest, digests, plan id, key id, parameters, memory. Each output appears whole under
//! its final name or not at all; the receipt is written last. Running a finished job again does nothing.

mod error;
mod memory;
mod run;

pub use error::WorkerError;
pub use memory::{available_bytes, peak_bytes};
pub use run::{RunReport, RunRequest, WorkerEvent, run};
