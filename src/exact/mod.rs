//! The exact engine: table circuits on TFHE ciphertexts, one programmable bootstrap a neuron, image by image.
//!
//! Built on `tfhe`'s core_crypto; this room is the only one that names that crate. An image's bytes lie in the coefficients of
//! seeded ring ciphertexts (`secret`); the engine adds them up with integer weights, switches each sum to the small key,
//! and looks its table up by blind rotation (Chillotti, Gama, Georgieva, Izabachene, J. Cryptology 33, 2020). Sums are exact; what is
//! not exact is the switch to a small modulus right before the table, which can move a sum near the edge of a box into the
//! next one. How often is predicted here (`noise`).
//!
//! `secret` is the client's half and is named by the client alone. Not here: files, jobs, how networks become tables (`net::tables`).

mod answer;
mod engine;
mod error;
mod keys;
mod noise;
mod parameters;
pub mod secret;

pub use answer::Answer;
pub use engine::{Engine, ImageSecs};
pub use error::ExactError;
pub use keys::{EvaluationKey, MaskSeed};
pub use noise::{Noise, Odds};
pub use parameters::{BODY_BYTES, LweParameters, PARAMETERS, RESULT_BYTES, plan_id};

#[cfg(test)]
mod tests;
