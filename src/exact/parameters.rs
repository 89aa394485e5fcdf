//! The parameters, which are tfhe's own, and what is fixed beside them: how ciphertexts are rounded, and the plan's id.

use tfhe::core_crypto::prelude::{
    CiphertextModulus, CiphertextModulusLog, DecompositionBaseLog, DecompositionLevelCount, GlweDimension,
    LweDimension, PolynomialSize, TUniform,
};

/// Bytes of a coefficient of an encrypted image: the upper half of the torus' 64 bits. The rounding is 2^15 times the fresh
/// noise and still 2^20 times below the step that a table tells apart.
pub const BODY_BYTES: usize = 4;
/// Bytes of a coefficient of a result.
pub const RESULT_BYTES: usize = 2;

/// A parameter set over the torus of 64 bits, ring dimension 1, binary secrets, tuniform noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LweParameters {
    /// As tfhe calls it.
    pub name: &'static str,
    /// n: the small key's bits.
    pub lwe_dimension: usize,
    /// N: the ring's degree and, the ring dimension being 1, the big key's bits.
    pub polynomial_size: usize,
    /// Noise of the small key is uniform up to 2^this, of 2^64.
    pub lwe_noise_log2: u32,
    /// Noise of the ring's key likewise.
    pub ring_noise_log2: u32,
    /// Digits of the bootstrap are of so many bits.
    pub bootstrap_base_log2: usize,
    /// And there are so many.
    pub bootstrap_levels: usize,
    /// Digits of the key switch likewise.
    pub keyswitch_base_log2: usize,
    /// And there are so many.
    pub keyswitch_levels: usize,
    /// log2 of the probability that a 4-bit table errs in the middle of a box, where the sum's noise is at most five
    /// bootstrapped values'.
    pub log2_failure: f64,
}

/// `V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128` of tfhe 1.8.2 (the numbers stand in
/// `shortint/parameters/v1_4/classic/tuniform/p_fail_2_minus_128/ks_pbs.rs`; copied, because the feature `shortint` would
/// be compiled for them alone). 132 bits of security by tfhe's own formulas, to which a test holds the noise. The failure
/// probability presumes the centred modulus switch, which the engine uses.
pub const PARAMETERS: LweParameters = LweParameters {
    name: "V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128",
    lwe_dimension: 918,
    polynomial_size: 2048,
    lwe_noise_log2: 45,
    ring_noise_log2: 17,
    bootstrap_base_log2: 23,
    bootstrap_levels: 1,
    keyswitch_base_log2: 4,
    keyswitch_levels: 4,
    log2_failure: -129.581,
};

impl LweParameters {
    /// One spelling for headers and ids.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{{\"set\":\"{}\",\"lwe_dimension\":{},\"polynomial_size\":{},\"lwe_noise\":{},\"ring_noise\":{},\
             \"bootstrap\":[{},{}],\"keyswitch\":[{},{}]}}",
            self.name,
            self.lwe_dimension,
            self.polynomial_size,
            self.lwe_noise_log2,
            self.ring_noise_log2,
            self.bootstrap_base_log2,
            self.bootstrap_levels,
            self.keyswitch_base_log2,
            self.keyswitch_levels,
        )
    }

    /// Numbers of the seeded bootstrapping key.
    #[must_use]
    pub fn bootstrap_len(&self) -> usize {
        self.lwe_dimension * self.bootstrap_levels * 2 * self.polynomial_size
    }

    /// Numbers of the seeded key-switching key.
    #[must_use]
    pub fn keyswitch_len(&self) -> usize {
        self.polynomial_size * self.keyswitch_levels
    }

    /// Coefficients of a result: a mask over the small key, and the body.
    #[must_use]
    pub fn result_len(&self) -> usize {
        self.lwe_dimension + 1
    }

    pub(super) fn small(&self) -> LweDimension {
        LweDimension(self.lwe_dimension)
    }

    pub(super) fn big(&self) -> LweDimension {
        LweDimension(self.polynomial_size)
    }

    pub(super) fn ring(&self) -> GlweDimension {
        GlweDimension(1)
    }

    pub(super) fn degree(&self) -> PolynomialSize {
        PolynomialSize(self.polynomial_size)
    }

    pub(super) fn bootstrap(&self) -> (DecompositionBaseLog, DecompositionLevelCount) {
        (DecompositionBaseLog(self.bootstrap_base_log2), DecompositionLevelCount(self.bootstrap_levels))
    }

    pub(super) fn keyswitch(&self) -> (DecompositionBaseLog, DecompositionLevelCount) {
        (DecompositionBaseLog(self.keyswitch_base_log2), DecompositionLevelCount(self.keyswitch_levels))
    }

    pub(super) fn lwe_noise(&self) -> TUniform<u64> {
        TUniform::new(self.lwe_noise_log2)
    }

    pub(super) fn ring_noise(&self) -> TUniform<u64> {
        TUniform::new(self.ring_noise_log2)
    }

    pub(super) fn modulus(&self) -> CiphertextModulus<u64> {
        CiphertextModulus::new_native()
    }

    /// Of the exponents of the blind rotation: 2N.
    pub(super) fn rotation_modulus(&self) -> CiphertextModulusLog {
        CiphertextModulusLog(self.polynomial_size.ilog2() as usize + 1)
    }
}

/// The id that keys, ciphertexts and results of a model carry: of the package's id and of all that decides what a result
/// means.
#[must_use]
pub fn plan_id(model_id: &str) -> String {
    let text =
        format!("nightshift tfhe plan 1\n{model_id}\n{}\nbody {BODY_BYTES} result {RESULT_BYTES}\n", PARAMETERS.text());
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
