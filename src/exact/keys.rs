//! What the worker gets: the bootstrapping and the key-switching key, seeded as they travel and expanded as they are used.

use tfhe::core_crypto::commons::math::random::{CompressionSeed, Seed};
use tfhe::core_crypto::prelude::{
    DefaultRandomGenerator, FourierLweBootstrapKeyOwned, LweBootstrapKeyOwned, LweKeyswitchKeyOwned,
    SeededLweBootstrapKey, SeededLweKeyswitchKey, convert_standard_lwe_bootstrap_key_to_fourier,
    decompress_seeded_lwe_bootstrap_key, decompress_seeded_lwe_keyswitch_key,
};

use super::ExactError;
use super::error::same_size;
use super::parameters::{LweParameters, PARAMETERS};

/// A seed of masks: the key of AES-128 in counter mode, as tfhe-csprng 0.10 has it. Public, and used once.
pub type MaskSeed = [u8; 16];

/// The worker's key as it travels: bodies, and the seeds that their masks are expanded from.
#[derive(Clone, PartialEq, Eq)]
pub struct EvaluationKey {
    /// Of `bootstrap`.
    pub bootstrap_seed: MaskSeed,
    /// `[n][levels][2][N]`: the small key's bits under the ring's key.
    pub bootstrap: Vec<u64>,
    /// Of `keyswitch`.
    pub keyswitch_seed: MaskSeed,
    /// `[N][levels]`: the big key's bits under the small one.
    pub keyswitch: Vec<u64>,
}

impl std::fmt::Debug for EvaluationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EvaluationKey({} + {} numbers)", self.bootstrap.len(), self.keyswitch.len())
    }
}

/// The same, ready for use: 64 MB.
pub(super) struct ServerKey {
    pub(super) bootstrap: FourierLweBootstrapKeyOwned,
    pub(super) keyswitch: LweKeyswitchKeyOwned<u64>,
}

pub(super) fn compression_seed(seed: &MaskSeed) -> CompressionSeed {
    Seed(u128::from_le_bytes(*seed)).into()
}

impl ServerKey {
    /// Expands masks and transforms the bootstrapping key: a second or so.
    pub(super) fn new(key: &EvaluationKey) -> Result<Self, ExactError> {
        let p: &LweParameters = &PARAMETERS;
        same_size("numbers of the bootstrapping key", key.bootstrap.len(), p.bootstrap_len())?;
        same_size("numbers of the key-switching key", key.keyswitch.len(), p.keyswitch_len())?;
        let (base, levels) = p.bootstrap();
        let seeded = SeededLweBootstrapKey::from_container(
            key.bootstrap.as_slice(),
            p.ring().to_glwe_size(),
            p.degree(),
            base,
            levels,
            compression_seed(&key.bootstrap_seed),
            p.modulus(),
        );
        let mut standard =
            LweBootstrapKeyOwned::new(0, p.ring().to_glwe_size(), p.degree(), base, levels, p.small(), p.modulus());
        decompress_seeded_lwe_bootstrap_key::<u64, _, _, DefaultRandomGenerator>(&mut standard, &seeded);
        let mut bootstrap =
            FourierLweBootstrapKeyOwned::new(p.small(), p.ring().to_glwe_size(), p.degree(), base, levels);
        convert_standard_lwe_bootstrap_key_to_fourier(&standard, &mut bootstrap);
        drop(standard);

        let (base, levels) = p.keyswitch();
        let seeded = SeededLweKeyswitchKey::from_container(
            key.keyswitch.as_slice(),
            base,
            levels,
            p.small().to_lwe_size(),
            compression_seed(&key.keyswitch_seed),
            p.modulus(),
        );
        let mut keyswitch = LweKeyswitchKeyOwned::new(0, base, levels, p.big(), p.small(), p.modulus());
        decompress_seeded_lwe_keyswitch_key::<u64, _, _, DefaultRandomGenerator>(&mut keyswitch, &seeded);
        Ok(Self { bootstrap, keyswitch })
    }
}
