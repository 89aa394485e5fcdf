//! The client's half: the secret keys, encryption of images, decryption of results. The only file that can name them.
//!
//! A secret key is a 32-byte seed; both keys' bits are derived from it and zeroed on drop. No `Clone`, no `Debug`, no serialisation.

use tfhe::core_crypto::commons::math::random::{Seed as NoiseSeed, Seeder};
use tfhe::core_crypto::prelude::{
    GlweSecretKey, LweSecretKey, PlaintextList, SeededGlweCiphertext, SeededLweBootstrapKey, SeededLweKeyswitchKey,
    encrypt_seeded_glwe_ciphertext, generate_seeded_lwe_bootstrap_key, generate_seeded_lwe_keyswitch_key,
};
use zeroize::Zeroizing;

use super::ExactError;
use super::answer::YES;
use super::error::same_size;
use super::keys::{EvaluationKey, MaskSeed, compression_seed};
use super::parameters::{BODY_BYTES, LweParameters, PARAMETERS, RESULT_BYTES};
use crate::net::TableCircuit;
use crate::ring::sampling::{SEED_BYTES, Seed, derive_seed, fresh_seed};

const RING_BITS: &str = "nightshift 1 tfhe secret key: bits of the ring key";
const SMALL_BITS: &str = "nightshift 1 tfhe secret key: bits of the small key";
const KEY_ID: &str = "nightshift 1 tfhe secret key: public identifier";
/// Bits of a coefficient that an encrypted image leaves out.
const BODY_SHIFT: u32 = 64 - 8 * BODY_BYTES as u32;
const RESULT_SHIFT: u32 = 64 - 8 * RESULT_BYTES as u32;

/// Both secret keys and the seed that they come from.
pub struct SecretKey {
    seed: Seed,
    /// 0 or 1, N of them.
    ring: Zeroizing<Vec<u64>>,
    /// 0 or 1, n of them.
    small: Zeroizing<Vec<u64>>,
}

/// An image on its way to the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedImage {
    /// Seeds of the masks, one for each N bytes of the image.
    pub seeds: Vec<MaskSeed>,
    /// `[byte of the image]`: upper halves of the bodies.
    pub bodies: Vec<u32>,
}

impl SecretKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`ExactError::Entropy`].
    pub fn generate() -> Result<Self, ExactError> {
        Ok(Self::from_seed(fresh_seed()?))
    }

    /// The key of a stored seed.
    #[must_use]
    pub fn from_seed(seed: Seed) -> Self {
        let ring = bits(RING_BITS, &seed, PARAMETERS.polynomial_size);
        let small = bits(SMALL_BITS, &seed, PARAMETERS.lwe_dimension);
        Self { seed, ring, small }
    }

    /// What is stored.
    #[must_use]
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// Public identifier, 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        derive_seed(KEY_ID, &self.seed)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The worker's key: some seconds.
    ///
    /// # Errors
    /// [`ExactError::Entropy`].
    pub fn evaluation_key(&self) -> Result<EvaluationKey, ExactError> {
        let p: &LweParameters = &PARAMETERS;
        let ring = GlweSecretKey::from_container(self.ring.as_slice(), p.degree());
        let (small, big) =
            (LweSecretKey::from_container(self.small.as_slice()), LweSecretKey::from_container(self.ring.as_slice()));
        let (bootstrap_seed, mut noise) = fresh_pair()?;
        let (base, levels) = p.bootstrap();
        let mut bootstrap = SeededLweBootstrapKey::from_container(
            vec![0; p.bootstrap_len()],
            p.ring().to_glwe_size(),
            p.degree(),
            base,
            levels,
            compression_seed(&bootstrap_seed),
            p.modulus(),
        );
        generate_seeded_lwe_bootstrap_key(&small, &ring, &mut bootstrap, p.ring_noise(), &mut noise);
        let (keyswitch_seed, mut noise) = fresh_pair()?;
        let (base, levels) = p.keyswitch();
        let mut keyswitch = SeededLweKeyswitchKey::from_container(
            vec![0; p.keyswitch_len()],
            base,
            levels,
            p.small().to_lwe_size(),
            compression_seed(&keyswitch_seed),
            p.modulus(),
        );
        generate_seeded_lwe_keyswitch_key(&big, &small, &mut keyswitch, p.lwe_noise(), &mut noise);
        Ok(EvaluationKey {
            bootstrap_seed,
            bootstrap: bootstrap.as_ref().to_vec(),
            keyswitch_seed,
            keyswitch: keyswitch.as_ref().to_vec(),
        })
    }

    /// Encrypts an image's bytes for a circuit, under fresh masks and noise.
    ///
    /// # Errors
    /// [`ExactError::Size`] for another number of bytes, [`ExactError::Entropy`].
    pub fn encrypt(&self, circuit: &TableCircuit, image: &[u8]) -> Result<EncryptedImage, ExactError> {
        let p: &LweParameters = &PARAMETERS;
        same_size("bytes of an image", image.len(), circuit.inputs())?;
        let unit = circuit.log2_units().first().copied().unwrap_or(0);
        let ring = GlweSecretKey::from_container(self.ring.as_slice(), p.degree());
        let mut encrypted = EncryptedImage { seeds: Vec::new(), bodies: Vec::with_capacity(image.len()) };
        for piece in image.chunks(p.polynomial_size) {
            let mut plain = Zeroizing::new(vec![0_u64; p.polynomial_size]);
            plain.iter_mut().zip(piece).for_each(|(plain, &byte)| *plain = u64::from(byte) << unit);
            let (seed, mut noise) = fresh_pair()?;
            let mut body = SeededGlweCiphertext::from_container(
                vec![0; p.polynomial_size],
                p.ring().to_glwe_size(),
                compression_seed(&seed),
                p.modulus(),
            );
            let plain = PlaintextList::from_container(plain.as_slice());
            encrypt_seeded_glwe_ciphertext(&ring, &mut body, &plain, p.ring_noise(), &mut noise);
            encrypted.seeds.push(seed);
            let half = 1_u64 << (BODY_SHIFT - 1);
            let upper =
                body.as_ref().iter().take(piece.len()).map(|&body| (body.wrapping_add(half) >> BODY_SHIFT) as u32);
            encrypted.bodies.extend(upper);
        }
        Ok(encrypted)
    }

    /// Decrypts an image's results, `[class][n + 1]`, to the sums of the circuit's last map.
    ///
    /// # Errors
    /// [`ExactError::Size`] for another number of them.
    pub fn decrypt(&self, circuit: &TableCircuit, results: &[u16]) -> Result<Vec<i64>, ExactError> {
        let unit = 63 - circuit.logits.log2_range;
        let sum = |phase: u64| {
            let phase = phase as i64;
            // To the nearest sum; finer than a sum the torus is read as it is.
            if unit == 0 { phase } else { (phase >> (unit - 1)).wrapping_add(1) >> 1 }
        };
        Ok(self.result_phases(circuit, results)?.into_iter().map(sum).collect())
    }

    /// Decrypts an image's results of a job that asked for labels only, `[class][n + 1]`, to the label; `None` where none won against all
    /// others, which takes three scores too close to tell apart.
    ///
    /// # Errors
    /// [`ExactError::Size`] for another number of them, [`ExactError::Answer`] for what are no such results of this key.
    pub fn decrypt_label(&self, circuit: &TableCircuit, results: &[u16]) -> Result<Option<usize>, ExactError> {
        let phases = self.result_phases(circuit, results)?;
        let refused = |what, found: String, expected: &str| {
            Err(ExactError::Answer { place: "results".to_owned(), what, found, expected: expected.to_owned() })
        };
        let near = |phase: u64, to: u64| (phase.wrapping_sub(to) as i64).unsigned_abs() < YES / 4;
        if let Some(&phase) = phases.iter().find(|&&phase| !near(phase, 0) && !near(phase, YES)) {
            let share = phase as f64 / 64_f64.exp2();
            return refused("of the torus", format!("{share:.3}"), "0.00 or 0.25, as results of this key");
        }
        let mut labels = phases.iter().enumerate().filter(|&(_, &phase)| near(phase, YES)).map(|(class, _)| class);
        match (labels.next(), labels.count()) {
            (label, 0) => Ok(label),
            (_, more) => refused("labels of an image", (more + 1).to_string(), "one, as results of this key"),
        }
    }

    /// Torus values of results `[class][n + 1]`, 16 bits of them.
    fn result_phases(&self, circuit: &TableCircuit, results: &[u16]) -> Result<Vec<u64>, ExactError> {
        let len = PARAMETERS.result_len();
        same_size("coefficients of an image's results", results.len(), circuit.classes() * len)?;
        let phase = |result: &[u16]| {
            let (body, mask) = result.split_last().map_or((0, result), |(&body, mask)| (body, mask));
            let masked = mask.iter().zip(self.small.iter());
            let hidden = masked.fold(0_u16, |sum, (&mask, &bit)| sum.wrapping_add(mask.wrapping_mul(bit as u16)));
            u64::from(body.wrapping_sub(hidden)) << RESULT_SHIFT
        };
        Ok(results.chunks_exact(len).map(phase).collect())
    }

    /// The torus value of a ciphertext over the big key, for the tests that look inside the engine.
    #[cfg(test)]
    pub(super) fn phase(&self, ciphertext: &[u64]) -> u64 {
        let (body, mask) = ciphertext.split_last().unwrap();
        let masked = mask.iter().zip(self.ring.iter());
        body.wrapping_sub(masked.fold(0, |sum: u64, (&mask, &bit)| sum.wrapping_add(mask.wrapping_mul(bit))))
    }
}

/// Independent bits: bit i is bit i mod 8, from the lowest, of byte i / 8 of BLAKE3's extended output.
fn bits(context: &str, seed: &Seed, count: usize) -> Zeroizing<Vec<u64>> {
    let mut bytes = Zeroizing::new(vec![0; count.div_ceil(8)]);
    blake3::Hasher::new_derive_key(context).update(seed.as_slice()).finalize_xof().fill(&mut bytes);
    Zeroizing::new((0..count).map(|bit| u64::from(bytes[bit / 8] >> (bit % 8) & 1)).collect())
}

/// Gives the one seed that a generator of noise asks for.
struct Once(Option<Zeroizing<[u8; 16]>>);

impl Seeder for Once {
    fn seed(&mut self) -> NoiseSeed {
        // Asked for again, it would have to repeat itself, which must never be.
        let seed = self.0.take().expect("a generator of noise is seeded once");
        NoiseSeed(u128::from_le_bytes(*seed))
    }

    fn is_available() -> bool {
        true
    }
}

/// A public seed for masks and a secret one for noise, independent.
fn fresh_pair() -> Result<(MaskSeed, Once), ExactError> {
    let fresh = fresh_seed()?;
    let (mut mask, mut noise) = ([0; 16], Zeroizing::new([0; 16]));
    mask.copy_from_slice(&fresh[..16]);
    noise.copy_from_slice(&fresh[16..]);
    Ok((mask, Once(Some(noise))))
}
