//! The engine: runs a plan's program on one encrypted batch. Holds no secret.
//!
//! Between two key switches nothing mixes columns, so the unit of work is a *tile* (one limb, a few NTT positions): load, first linear
//! layer, squares, linear layer, store. A stage's activations exist in one tile's scratch only. Then the key-switch pass runs over
//! whole polynomials, and the next stage begins. All arithmetic is exact: results are the same words for any number of threads and any
//! kernel tier.

mod calibrate;
mod checkpoint;
mod memory;
mod prepare;
pub mod rates;
mod run;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod tile;

pub use checkpoint::{Checkpoints, LAYOUT, Piece, State};
pub use run::{Engine, Event, Inputs, Results};

use crate::ckks::CkksError;
use crate::format::FormatError;
use crate::net::NetError;

/// Why a batch could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Reading the encrypted inputs failed, or they hold residues that are none.
    #[error(transparent)]
    Input(#[from] FormatError),
    /// Parameters or keys do not fit the plan.
    #[error(transparent)]
    Scheme(#[from] CkksError),
    /// The circuit is not valid.
    #[error(transparent)]
    Circuit(#[from] NetError),
    /// Circuit and plan are not of each other.
    #[error("plan of {found} stages for a circuit of {expected}, or transforms of other parameters")]
    Plan {
        /// Stages in the plan.
        found: usize,
        /// Stages in the circuit.
        expected: usize,
    },
    /// A key is needed and was not given.
    #[error("the plan has {switches} key switches and no evaluation key was given")]
    KeyMissing {
        /// Key switches in the plan.
        switches: usize,
    },
    /// Asked to stop before the end.
    #[error("stopped before the end")]
    Stopped,
    /// The system gave no working memory.
    #[error("cannot map {bytes} bytes of working memory: {reason}")]
    Memory {
        /// As asked.
        bytes: usize,
        /// As told.
        reason: String,
    },
    /// The thread pool could not be made.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// As asked.
        threads: usize,
        /// As told.
        reason: String,
    },
}
