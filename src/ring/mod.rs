//! The conjugate-invariant ring R = Z[X + 1/X] / (X^2N + 1) in residue-number representation.
//!
//! An element is `a_0 + sum_{i=1}^{N-1} a_i (X^i + X^-i)`, stored as its N coefficients; modulo a prime `q = 1 mod 4N` it
//! has N evaluations ("NTT domain"). The ring has N *real* slots (Kim and Song, eprint 2018/952). There are no rotations
//! here, because one image per slot never needs one.
//!
//! Buffers are plain `u64` slices: one polynomial modulo one prime is N residues in `[0, q)`; a polynomial modulo several
//! primes is limb-major, limb j at `j * N`.

pub mod extend;
pub mod kernels;
pub mod lines;
pub mod modulus;
pub mod ntt;
pub mod primes;
pub mod sampling;

pub use lines::Lines;
pub use modulus::Modulus;
pub use ntt::Ntt;

/// What can be wrong with ring parameters.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RingError {
    /// The degree is not a supported power of two.
    #[error("ring degree {found}: expected a power of two from {min} to {max}")]
    Degree {
        /// What was asked for.
        found: usize,
        /// Smallest supported.
        min: usize,
        /// Largest supported.
        max: usize,
    },
    /// The modulus is outside the supported range.
    #[error("modulus {found}: expected a prime in [2^33, 2^50)")]
    ModulusRange {
        /// What was asked for.
        found: u64,
    },
    /// The modulus is no prime or has no root of the order needed.
    #[error("modulus {found}: expected a prime that is 1 mod {order}")]
    NotNttPrime {
        /// What was asked for.
        found: u64,
        /// 4N.
        order: u64,
    },
    /// No prime left near the target.
    #[error("no unused prime that is 1 mod {order} near {target}")]
    NoPrime {
        /// Where the search began.
        target: u64,
        /// 4N.
        order: u64,
    },
    /// The transform library computes something else than this ring expects.
    #[error(
        "transform self-test failed for modulus {modulus} at degree {degree}: the transform library and this code disagree"
    )]
    SelfTest {
        /// The prime.
        modulus: u64,
        /// The degree.
        degree: usize,
    },
}
