//! Parameters with their transforms: everything public that computing on ciphertexts needs.

use super::{CkksError, Parameters};
use crate::ring::kernels::Kernel;
use crate::ring::{Modulus, Ntt};

/// Checked parameters and one prepared transform per prime.
#[derive(Debug)]
pub struct Context {
    parameters: Parameters,
    kernel: Kernel,
    ntts: Vec<Ntt>,
}

impl Context {
    /// Prepares the transforms of all primes (self-tested, some milliseconds).
    ///
    /// # Errors
    /// [`CkksError::Ring`] if a transform cannot be made.
    pub fn new(parameters: Parameters, kernel: Kernel) -> Result<Self, CkksError> {
        let all = parameters.moduli().iter().chain(parameters.special());
        let ntts = all.map(|&q| Ntt::new(parameters.degree(), q, kernel)).collect::<Result<_, _>>()?;
        Ok(Self { parameters, kernel, ntts })
    }

    /// The parameters.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The kernel tier of all arithmetic.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// N.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.parameters.degree()
    }

    /// Number of ciphertext primes.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.parameters.moduli().len()
    }

    /// Number of primes, special ones included.
    #[must_use]
    pub fn all_limbs(&self) -> usize {
        self.ntts.len()
    }

    /// Transform of prime `i`; special primes follow the ciphertext primes.
    #[must_use]
    pub fn ntt(&self, i: usize) -> &Ntt {
        &self.ntts[i]
    }

    /// Prime `i`; special primes follow the ciphertext primes.
    #[must_use]
    pub fn modulus(&self, i: usize) -> &Modulus {
        self.ntts[i].modulus()
    }

    /// The special primes' product modulo prime `i`.
    #[must_use]
    pub fn special_product(&self, i: usize) -> u64 {
        let m = self.modulus(i);
        self.parameters.special().iter().fold(1, |p, &q| m.mul(p, m.reduce(q)))
    }

    /// Small signed coefficients to the NTT domain of prime `i`.
    pub fn lift_into(&self, coefficients: &[i64], i: usize, out: &mut [u64]) {
        self.kernel.lift_into(self.modulus(i), coefficients, out);
        self.ntts[i].forward_assign(out);
    }
}
