//! Leveled RNS-CKKS over the conjugate-invariant ring, as much of it as one image per slot needs: no rotations, no bootstrapping.
//!
//! A ciphertext component is limb-major `[limb][N]` residues, in the NTT domain unless a name says otherwise. A fresh ciphertext has
//! components (c0, c1) with `c0 + c1 s = m + e`; a squared one has (c0, c1, c2), decrypted by `c0 + c1 s + c2 s^2`.
//! A ciphertext at *level* l has the limbs of primes 0..=l. The exact *scale* is carried by the plan, not by ciphertexts.
//!
//! `secret.rs` alone can name a secret key. Layouts on disk are `format`'s business.

pub mod context;
pub mod encoder;
pub mod keys;
pub mod keyswitch;
pub mod noise;
pub mod parameters;
pub mod public;
pub mod secret;
pub mod security;
#[cfg(test)]
mod tests;

pub use context::Context;
pub use parameters::{Parameters, ParametersLiteral};

use crate::ring::RingError;
use crate::ring::sampling::EntropyError;

/// What can go wrong in the scheme.
#[derive(Debug, thiserror::Error)]
pub enum CkksError {
    /// Ring parameters were refused.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The modulus is too large for the ring degree.
    #[error(
        "log2(QP) is {found_bits:.2} bits at ring degree {degree}: at most {limit_bits} bits are secure (128-bit classical)"
    )]
    Insecure {
        /// log2 of all primes together.
        found_bits: f64,
        /// N.
        degree: usize,
        /// The table's limit.
        limit_bits: u32,
    },
    /// The ring degree is not in the security table.
    #[error("ring degree {found} has no row in the security table: expected 4096 to 65536, a power of two")]
    UnknownDegree {
        /// N.
        found: usize,
    },
    /// A parameter set is inconsistent.
    #[error("parameters: {what}: found {found}, expected {expected}")]
    Parameters {
        /// Which part.
        what: &'static str,
        /// As given.
        found: String,
        /// As needed.
        expected: String,
    },
    /// A value cannot be encoded at this scale.
    #[error("slot value {value} at scale 2^{log_scale:.1} does not fit: at most 2^62 in a coefficient")]
    Encode {
        /// Largest coefficient in units of the message.
        value: f64,
        /// log2 of the scale.
        log_scale: f64,
    },
    /// A decrypted result is spread over the whole modulus: wrong key, or values that outgrew the plan's headroom.
    #[error(
        "decrypted coefficients reach {found_bits:.0} bits: the plan leaves them at most {limit_bits:.0} of {modulus_bits:.0}"
    )]
    Overflow {
        /// log2 of the largest coefficient.
        found_bits: f64,
        /// log2 of what the plan allows.
        limit_bits: f64,
        /// log2 of the modulus.
        modulus_bits: f64,
    },
}
