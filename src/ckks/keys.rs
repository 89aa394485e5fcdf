//! Public key material: what a worker or a data provider may hold.
//!
//! Masks are expanded from public seeds (see [`sampling`](crate::ring::sampling)); only the other component is stored.

use super::Context;
use crate::ring::Lines;
use crate::ring::sampling::{SEED_BYTES, Stream};

/// Encryption key for anyone: `b = -a s + e` modulo all primes and the special ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    /// Seed of `a`: entry 0, limb = prime number.
    pub mask_seed: [u8; SEED_BYTES],
    /// `[prime][N]`, NTT domain.
    pub b: Vec<u64>,
}

/// Relinearisation key, one pair per digit: `b_d = -a_d s + e_d + P s^2` on the primes of digit d, without the last term on the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvaluationKey {
    /// Seed of the `a_d`: entry d, limb = prime number.
    pub mask_seed: [u8; SEED_BYTES],
    /// `[digit][prime][N]`, NTT domain.
    pub b: Vec<u64>,
}

impl EvaluationKey {
    /// The masks in the layout of `b`.
    #[must_use]
    pub fn expand_masks(&self, context: &Context) -> Lines {
        let n = context.degree();
        let primes = context.all_limbs();
        let stream = Stream::new(&self.mask_seed);
        let mut a = Lines::default();
        for (at, polynomial) in a.first(self.b.len()).chunks_exact_mut(n).enumerate() {
            let (digit, prime) = (at / primes, at % primes);
            stream.uniform_into(context.modulus(prime), digit as u32, prime as u32, 0, polynomial);
        }
        a
    }
}
