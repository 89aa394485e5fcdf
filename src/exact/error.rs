//! What can go wrong with keys, ciphertexts and table circuits.

use crate::net::NetError;
use crate::ring::sampling::EntropyError;

/// Errors of the exact room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExactError {
    /// The circuit is not sound.
    #[error(transparent)]
    Circuit(#[from] NetError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Something given has another size than the circuit or the parameters say.
    #[error("{what}: found {found}, expected {expected}")]
    Size {
        /// What was given.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A stage's tables are finer than the ring can tell apart.
    #[error("{stage}: found tables of {found} bits, expected at most {expected}")]
    TableBits {
        /// The stage.
        stage: String,
        /// Its bits.
        found: u32,
        /// Most.
        expected: u32,
    },
    /// Noise would drown a stage.
    #[error(
        "{stage}: found predicted noise of {found:.3} {unit}, expected at most {expected:.3}: its weights are too wide for values that were \
         bootstrapped"
    )]
    Noise {
        /// The stage.
        stage: String,
        /// Standard deviation.
        found: f64,
        /// Most.
        expected: f64,
        /// What it is counted in.
        unit: &'static str,
    },
    /// Labels alone cannot be told.
    #[error("{place}: labels only: found {found} {what}, expected {expected}")]
    Answer {
        /// The last map, or the image's results.
        place: String,
        /// What is counted.
        what: &'static str,
        /// How many.
        found: String,
        /// How many there should be.
        expected: String,
    },
    /// The operating system gives no threads.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// As many as were asked for.
        threads: usize,
        /// The system's words.
        reason: String,
    },
}

pub(super) fn same_size(what: &'static str, found: usize, expected: usize) -> Result<(), ExactError> {
    if found == expected { Ok(()) } else { Err(ExactError::Size { what, found, expected }) }
}
