//! Encryption with the public key, for a data provider that holds no secret.
//!
//! Encrypts zero modulo the special primes as well and divides by them: the error is then the rounding of that division, about three bits
//! above a secret-key encryption instead of seven. Both components are stored. What is random here lives in this file only and is zeroed.

use super::encoder::Encoder;
use super::keys::PublicKey;
use super::keyswitch::ModDown;
use super::{CkksError, Context};
use crate::ring::sampling::{Stream, fresh_seed};
use zeroize::Zeroizing;

/// Encrypts entries of one batch with a public key.
pub struct PublicEncryptor<'a> {
    context: &'a Context,
    key: &'a PublicKey,
    /// The key's mask, `[prime][N]`.
    a: Vec<u64>,
    ternary: Stream,
    errors: [Stream; 2],
    scale: f64,
    encoder: Encoder,
    mod_down: ModDown,
}

/// Working memory of one encrypting thread.
pub struct PublicScratch {
    coefficients: Zeroizing<Vec<i64>>,
    small: Zeroizing<Vec<i64>>,
    transform: Zeroizing<Vec<f64>>,
    limb: Zeroizing<Vec<u64>>,
    ephemeral: Zeroizing<Vec<u64>>,
    sum: Zeroizing<Vec<u64>>,
}

impl<'a> PublicEncryptor<'a> {
    /// With fresh seeds: one encryptor per batch, never reused for another.
    ///
    /// # Errors
    /// [`CkksError::Entropy`]; [`CkksError::Parameters`] if the key has not one residue per prime and coefficient.
    pub fn new(context: &'a Context, key: &'a PublicKey, scale: f64) -> Result<Self, CkksError> {
        let n = context.degree();
        if key.b.len() != context.all_limbs() * n {
            return Err(CkksError::Parameters {
                what: "residues in the public key",
                found: key.b.len().to_string(),
                expected: (context.all_limbs() * n).to_string(),
            });
        }
        let mut a = vec![0; key.b.len()];
        let masks = Stream::new(&key.mask_seed);
        for (prime, limb) in a.chunks_exact_mut(n).enumerate() {
            masks.uniform_into(context.modulus(prime), 0, prime as u32, 0, limb);
        }
        let stream = || fresh_seed().map(|seed| Stream::with_kernel(&seed, context.kernel()));
        Ok(Self {
            context,
            key,
            a,
            ternary: stream()?,
            errors: [stream()?, stream()?],
            scale,
            encoder: Encoder::new(n, context.kernel()),
            mod_down: ModDown::new(context, (context.limbs()..context.all_limbs()).collect(), context.limbs()),
        })
    }

    /// Memory for [`Self::encrypt_into`].
    #[must_use]
    pub fn scratch(&self) -> PublicScratch {
        let n = self.context.degree();
        let words = |len: usize| Zeroizing::new(vec![0u64; len]);
        PublicScratch {
            coefficients: Zeroizing::new(vec![0; n]),
            small: Zeroizing::new(vec![0; n]),
            transform: Zeroizing::new(vec![0.0; self.encoder.scratch_len()]),
            limb: words(n),
            ephemeral: words(self.context.all_limbs() * n),
            sum: words(self.context.all_limbs() * n),
        }
    }

    /// Encrypts the slots as ciphertext number `entry`: both components to `out`, each `[limb][N]`, NTT domain. `slots` is overwritten. Each
    /// entry once.
    ///
    /// # Errors
    /// [`CkksError::Encode`].
    pub fn encrypt_into(
        &self,
        entry: u32,
        slots: &mut [f64],
        scratch: &mut PublicScratch,
        out: [&mut [u64]; 2],
    ) -> Result<(), CkksError> {
        self.transform_assign(slots, scratch);
        self.encrypt_transformed_into(entry, slots, scratch, out)
    }

    /// Turns the slots of several ciphertexts, `[ciphertext][N]`, into what [`Self::encrypt_transformed_into`] takes; faster than one by one.
    pub fn transform_assign(&self, slots: &mut [f64], scratch: &mut PublicScratch) {
        self.encoder.transform_assign(slots, &mut scratch.transform);
    }

    /// The rest of [`Self::encrypt_into`]. Each entry once.
    ///
    /// # Errors
    /// [`CkksError::Encode`].
    pub fn encrypt_transformed_into(
        &self,
        entry: u32,
        transformed: &[f64],
        scratch: &mut PublicScratch,
        out: [&mut [u64]; 2],
    ) -> Result<(), CkksError> {
        let context = self.context;
        let n = context.degree();
        let kernel = context.kernel();
        self.encoder.round_into(transformed, self.scale, &mut scratch.coefficients)?;
        self.ternary.ternary_into(entry, &mut scratch.small);
        for (prime, limb) in scratch.ephemeral.chunks_exact_mut(n).enumerate() {
            context.lift_into(&scratch.small, prime, limb);
        }
        for (component, out) in out.into_iter().enumerate() {
            let key = [&self.key.b, &self.a][component];
            self.errors[component].error_into(entry, &mut scratch.small);
            for (prime, sum) in scratch.sum.chunks_exact_mut(n).enumerate() {
                context.lift_into(&scratch.small, prime, sum);
                let u = &scratch.ephemeral[prime * n..][..n];
                kernel.mul_add_assign(context.modulus(prime), sum, u, &key[prime * n..][..n]);
            }
            self.mod_down.apply(context, &mut scratch.sum, out);
            if component == 0 {
                for (prime, out) in out.chunks_exact_mut(n).enumerate() {
                    let m = context.modulus(prime);
                    context.lift_into(&scratch.coefficients, prime, &mut scratch.limb);
                    for (o, &message) in out.iter_mut().zip(scratch.limb.iter()) {
                        *o = m.add(*o, message);
                    }
                }
            }
        }
        Ok(())
    }
}
