//! The secret key: key generation, encryption with it, decryption. The only file that can name it.
//!
//! A secret key is a 32-byte seed; everything else is derived from it and zeroed on drop. No `Clone`, no `Debug`, no serialisation.

use super::encoder::Encoder;
use super::keys::{EvaluationKey, PublicKey};
use super::{CkksError, Context};
use crate::ring::Modulus;
use crate::ring::modulus::ShoupFactor;
use crate::ring::sampling::{SEED_BYTES, Seed, Stream, derive_seed, fresh_seed};
use zeroize::{Zeroize, Zeroizing};

const TERNARY: &str = "nightshift 1 secret key: ternary coefficients";
const KEY_ID: &str = "nightshift 1 secret key: public identifier";

/// A ternary secret modulo every prime, and the seed it comes from.
pub struct SecretKey {
    seed: Seed,
    /// `[prime][N]`, NTT domain.
    ntt: Zeroizing<Vec<u64>>,
}

impl SecretKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`CkksError::Entropy`].
    pub fn generate(context: &Context) -> Result<Self, CkksError> {
        Ok(Self::from_seed(context, fresh_seed()?))
    }

    /// The key of a stored seed.
    #[must_use]
    pub fn from_seed(context: &Context, seed: Seed) -> Self {
        let n = context.degree();
        let mut coefficients = Zeroizing::new(vec![0; n]);
        Stream::new(&derive_seed(TERNARY, &seed)).ternary_into(0, &mut coefficients);
        let mut ntt = Zeroizing::new(vec![0; context.all_limbs() * n]);
        for (prime, limb) in ntt.chunks_exact_mut(n).enumerate() {
            context.lift_into(&coefficients, prime, limb);
        }
        Self { seed, ntt }
    }

    /// What is stored.
    #[must_use]
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// Public identifier: reveals nothing of the seed (BLAKE3 key derivation), differs for every key.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&derive_seed(KEY_ID, &self.seed)[..16]);
        id
    }

    fn limb(&self, prime: usize, n: usize) -> &[u64] {
        &self.ntt[prime * n..][..n]
    }

    /// `b = -a s + e (+ addend)` for one pair of key material, all primes.
    fn mask_into(&self, context: &Context, masks: &Stream, errors: &Stream, entry: u32, b: &mut [u64]) {
        let n = context.degree();
        let mut error = Zeroizing::new(vec![0; n]);
        errors.error_into(entry, &mut error);
        let mut noise = Zeroizing::new(vec![0; n]);
        for (prime, b) in b.chunks_exact_mut(n).enumerate() {
            let m = context.modulus(prime);
            masks.uniform_into(m, entry, prime as u32, 0, b);
            context.lift_into(&error, prime, &mut noise);
            context.kernel().subtract_product_from_assign(m, b, self.limb(prime, n), &noise);
        }
    }

    /// The key that lets anyone encrypt.
    ///
    /// # Errors
    /// [`CkksError::Entropy`].
    pub fn public_key(&self, context: &Context) -> Result<PublicKey, CkksError> {
        let (mask_seed, error_seed) = (fresh_seed()?, fresh_seed()?);
        let mut b = vec![0; context.all_limbs() * context.degree()];
        self.mask_into(context, &Stream::new(&mask_seed), &Stream::new(&error_seed), 0, &mut b);
        Ok(PublicKey { mask_seed: *mask_seed, b })
    }

    /// The relinearisation key.
    ///
    /// # Errors
    /// [`CkksError::Entropy`].
    pub fn evaluation_key(&self, context: &Context) -> Result<EvaluationKey, CkksError> {
        let (mask_seed, error_seed) = (fresh_seed()?, fresh_seed()?);
        let (masks, errors) = (Stream::new(&mask_seed), Stream::new(&error_seed));
        let n = context.degree();
        let digits = context.parameters().digits();
        let mut b = vec![0; digits * context.all_limbs() * n];
        let mut square = Zeroizing::new(vec![0; n]);
        for (digit, pair) in b.chunks_exact_mut(context.all_limbs() * n).enumerate() {
            self.mask_into(context, &masks, &errors, digit as u32, pair);
            let first = digit * context.parameters().digit_limbs();
            for prime in first..context.limbs().min(first + context.parameters().digit_limbs()) {
                let m = context.modulus(prime);
                let s = self.limb(prime, n);
                context.kernel().mul_into(m, s, s, &mut square);
                context.kernel().scale_assign(m, &mut square, m.shoup(context.special_product(prime)));
                for (b, &p) in pair[prime * n..][..n].iter_mut().zip(square.iter()) {
                    *b = m.add(*b, p);
                }
            }
        }
        Ok(EvaluationKey { mask_seed: *mask_seed, b })
    }

    /// Decrypts one ciphertext of two or three components in *coefficient* form, `[component][limb][N]`, to slot values in `out`.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] if the sizes do not fit; [`CkksError::Overflow`] if a coefficient is larger
    /// than `limit` (in units of the message): a wrong key, or values that outgrew the headroom.
    #[expect(clippy::too_many_arguments, reason = "each is a plain number of the result, checked against the others")]
    pub fn decrypt_into(
        &self,
        context: &Context,
        components: &mut [u64],
        limbs: usize,
        scale: f64,
        limit: f64,
        decryptor: &mut Decryptor,
        out: &mut [f64],
    ) -> Result<(), CkksError> {
        let n = context.degree();
        let count = components.len() / (limbs.max(1) * n);
        let modulus_bits: f64 = context.parameters().moduli().iter().take(limbs).map(|&q| (q as f64).log2()).sum();
        if !(2..=3).contains(&count) || components.len() != count * limbs * n || !(1..=context.limbs()).contains(&limbs)
        {
            return Err(CkksError::Parameters {
                what: "residues of a result",
                found: format!("{} in {limbs} limbs", components.len()),
                expected: format!("2 or 3 components of 1 to {} limbs of {n}", context.limbs()),
            });
        }
        // m = c0 + (c1 + c2 s) s, limb by limb; the message replaces c0.
        for limb in 0..limbs {
            let m = context.modulus(limb);
            let s = self.limb(limb, n);
            let at = |component: usize| (component * limbs + limb) * n;
            decryptor.sum.fill(0);
            for component in (1..count).rev() {
                decryptor.part.copy_from_slice(&components[at(component)..][..n]);
                context.ntt(limb).forward_assign(&mut decryptor.part);
                for (p, &sum) in decryptor.part.iter_mut().zip(decryptor.sum.iter()) {
                    *p = m.add(*p, sum);
                }
                context.kernel().mul_into(m, &decryptor.part, s, &mut decryptor.sum);
            }
            context.ntt(limb).inverse_assign(&mut decryptor.sum);
            for (c, &sum) in components[at(0)..][..n].iter_mut().zip(decryptor.sum.iter()) {
                *c = m.add(*c, sum);
            }
        }
        let reconstruction = Reconstruction::new(context, limbs);
        let mut largest = 0.0f64;
        let mut digits = Vec::with_capacity(limbs);
        for (i, o) in out.iter_mut().enumerate() {
            let value = reconstruction.centred(|limb| components[limb * n + i], &mut digits) / scale;
            largest = largest.max(value.abs());
            *o = value;
        }
        components.zeroize();
        // False for NaN too.
        let fits = largest <= limit;
        if !fits {
            out.zeroize();
            return Err(CkksError::Overflow {
                found_bits: (largest * scale).log2(),
                limit_bits: (limit * scale).log2(),
                modulus_bits,
            });
        }
        decryptor.encoder.decode_assign(out, &mut decryptor.scratch);
        Ok(())
    }
}

/// Working memory of decryption, reused over ciphertexts.
pub struct Decryptor {
    encoder: Encoder,
    scratch: Zeroizing<Vec<f64>>,
    sum: Zeroizing<Vec<u64>>,
    part: Zeroizing<Vec<u64>>,
}

impl Decryptor {
    /// For one context.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let encoder = Encoder::new(context.degree(), context.kernel());
        let zeros = || Zeroizing::new(vec![0; context.degree()]);
        Self { scratch: Zeroizing::new(vec![0.0; encoder.scratch_len()]), encoder, sum: zeros(), part: zeros() }
    }
}

/// Centred Chinese remaindering of a few limbs: mixed-radix digits (Garner), then a double.
struct Reconstruction {
    moduli: Vec<Modulus>,
    /// `[i][j] = q_j^-1 mod q_i` for j < i
    inverses: Vec<Vec<ShoupFactor>>,
}

impl Reconstruction {
    fn new(context: &Context, limbs: usize) -> Self {
        let moduli: Vec<Modulus> = (0..limbs).map(|i| *context.modulus(i)).collect();
        let inverse = |m: &Modulus, of: &Modulus| m.shoup(m.inv(m.reduce(of.value())));
        let inverses = moduli.iter().enumerate().map(|(i, m)| moduli[..i].iter().map(|of| inverse(m, of)).collect());
        Self { inverses: inverses.collect(), moduli }
    }

    /// The representative nearest to zero, rounded to a double. `digits` is scratch.
    fn centred(&self, residue: impl Fn(usize) -> u64, digits: &mut Vec<u64>) -> f64 {
        digits.clear();
        for (i, m) in self.moduli.iter().enumerate() {
            let digit = digits
                .iter()
                .zip(&self.inverses[i])
                .fold(residue(i), |x, (&d, &inverse)| m.mul_shoup(m.sub(x, m.reduce(d)), inverse));
            digits.push(digit);
        }
        let horner = |digit: &dyn Fn(usize) -> u64| {
            (0..digits.len()).rev().fold(0.0, |sum, i| sum * self.moduli[i].value() as f64 + digit(i) as f64)
        };
        // Messages are far from half the modulus, so the top digit decides the sign. -x - 1 has the complementary digits.
        let top = digits.len() - 1;
        if digits[top] > self.moduli[top].value() / 2 {
            -(horner(&|i| self.moduli[i].value() - 1 - digits[i]) + 1.0)
        } else {
            horner(&|i| digits[i])
        }
    }
}

/// Encrypts entries of one batch with the secret key: c1 is a public seed, only c0 is stored.
pub struct SecretEncryptor<'a> {
    context: &'a Context,
    key: &'a SecretKey,
    mask_seed: [u8; SEED_BYTES],
    masks: Stream,
    errors: Stream,
    scale: f64,
    encoder: Encoder,
}

/// Working memory of one encrypting thread.
pub struct EncryptScratch {
    coefficients: Zeroizing<Vec<i64>>,
    transform: Zeroizing<Vec<f64>>,
    limb: Zeroizing<Vec<u64>>,
}

impl<'a> SecretEncryptor<'a> {
    /// With fresh seeds for masks and errors: one encryptor per batch, never reused for another.
    ///
    /// # Errors
    /// [`CkksError::Entropy`].
    pub fn new(context: &'a Context, key: &'a SecretKey, scale: f64) -> Result<Self, CkksError> {
        let (mask_seed, error_seed) = (fresh_seed()?, fresh_seed()?);
        Ok(Self {
            context,
            key,
            mask_seed: *mask_seed,
            masks: Stream::with_kernel(&mask_seed, context.kernel()),
            errors: Stream::with_kernel(&error_seed, context.kernel()),
            scale,
            encoder: Encoder::new(context.degree(), context.kernel()),
        })
    }

    /// The public seed that replaces c1: entry = ciphertext number, limb = prime number.
    #[must_use]
    pub fn mask_seed(&self) -> &[u8; SEED_BYTES] {
        &self.mask_seed
    }

    /// Memory for [`Self::encrypt_into`].
    #[must_use]
    pub fn scratch(&self) -> EncryptScratch {
        let n = self.context.degree();
        EncryptScratch {
            coefficients: Zeroizing::new(vec![0; n]),
            transform: Zeroizing::new(vec![0.0; self.encoder.scratch_len()]),
            limb: Zeroizing::new(vec![0; n]),
        }
    }

    /// Encrypts the slots as ciphertext number `entry`: c0 to `out`, `[limb][N]`, NTT domain. `slots` is overwritten. Each entry once.
    ///
    /// # Errors
    /// [`CkksError::Encode`].
    pub fn encrypt_into(
        &self,
        entry: u32,
        slots: &mut [f64],
        scratch: &mut EncryptScratch,
        out: &mut [u64],
    ) -> Result<(), CkksError> {
        self.transform_assign(slots, scratch);
        self.encrypt_transformed_into(entry, slots, scratch, out)
    }

    /// Turns the slots of several ciphertexts, `[ciphertext][N]`, into what [`Self::encrypt_transformed_into`] takes; faster than one by one.
    pub fn transform_assign(&self, slots: &mut [f64], scratch: &mut EncryptScratch) {
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
        scratch: &mut EncryptScratch,
        out: &mut [u64],
    ) -> Result<(), CkksError> {
        let n = self.context.degree();
        self.encoder.round_into(transformed, self.scale, &mut scratch.coefficients)?;
        self.errors.add_error_assign(entry, &mut scratch.coefficients);
        for (prime, out) in out.chunks_exact_mut(n).enumerate() {
            let m = self.context.modulus(prime);
            self.context.lift_into(&scratch.coefficients, prime, &mut scratch.limb);
            self.masks.uniform_into(m, entry, prime as u32, 0, out);
            // c0 = m + e - c1 s, the mask being in `out`.
            self.context.kernel().subtract_product_from_assign(m, out, self.key.limb(prime, n), &scratch.limb);
        }
        Ok(())
    }
}
