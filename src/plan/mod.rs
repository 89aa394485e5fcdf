//! The plan: from a circuit alone to primes, levels, scales, key switches, tiles, predicted precision, bytes and seconds.
//!
//! A pure function of circuit and requirements: no keys, files or clocks. Client and worker each derive it from the model package and
//! compare its [`Plan::id`]; nobody types a prime. What powers and logarithms decide is rounded coarsely, so that every machine decides alike.

pub mod cost;
pub mod defaults;
pub mod explain;
pub mod passes;
pub mod rates;
pub mod scales;
mod switching;
#[cfg(test)]
mod tests;

use crate::ckks::{CkksError, Parameters};
use crate::net::circuit::{FeatureKind, Source};
use crate::ring::RingError;

/// What the user may ask of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirements {
    /// Every logit of a calibration-like image is off by less than 2^-bits.
    pub promised_bits: f64,
    /// Every stage's largest magnitude (`StageStats::max_abs`) is multiplied by this before it bounds the modulus: an image whose
    /// values are so many times larger than any seen still comes out right.
    pub headroom: f64,
}

impl Default for Requirements {
    fn default() -> Self {
        Self { promised_bits: 10.0, headroom: 8.0 }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A requirement is out of range.
    #[error("requirement {what}: found {found}, expected {expected}")]
    Requirement {
        /// Which.
        what: &'static str,
        /// As asked.
        found: f64,
        /// As possible.
        expected: &'static str,
    },
    /// No ring in the security table carries the modulus.
    #[error(
        "the circuit needs a modulus of {found_bits:.0} bits: the largest secure one is {limit_bits} bits at degree {degree}"
    )]
    TooDeep {
        /// Needed at the largest degree.
        found_bits: f64,
        /// Its limit.
        limit_bits: u32,
        /// The largest degree.
        degree: usize,
    },
    /// More stages than any plan carries.
    #[error("the circuit has {found} stages: at most {limit} can be planned")]
    Stages {
        /// In the circuit.
        found: usize,
        /// Most.
        limit: usize,
    },
    /// The scales that the ring carries do not reach the precision asked for.
    #[error("a plan promises {found_bits:.2} bits of precision at best, {wanted_bits:.2} were asked for")]
    Precision {
        /// Reached.
        found_bits: f64,
        /// Asked for.
        wanted_bits: f64,
    },
    /// Figures of the circuit are missing or absurd.
    #[error(
        "stage {stage}: {what} is {found:e}, expected a figure of at most 2^40 and, where it is not a bias, at least 2^-40"
    )]
    Stats {
        /// Stage name.
        stage: String,
        /// Which figure.
        what: &'static str,
        /// As found.
        found: f64,
    },
    /// Parameters derived here were refused: a bug, reported rather than hidden.
    #[error(transparent)]
    Parameters(#[from] CkksError),
}

impl From<RingError> for PlanError {
    fn from(error: RingError) -> Self {
        Self::Parameters(error.into())
    }
}

/// What happens to a stage's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Recomputed inside the tiles of later stages; never stored (the first linear layer).
    Fused,
    /// Relinearised and rescaled by the last prime; only rescaled where they have two components.
    KeySwitch,
    /// Written as results, not relinearised.
    Output,
}

/// A feature group's integer multiplier, which brings it to the stage's common scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// Buffer read.
    pub source: Source,
    /// Value or square.
    pub kind: FeatureKind,
    /// Integer (as an exact float; may exceed 64 bits).
    pub multiplier: f64,
}

/// One stage at its level and scale.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    /// For people.
    pub name: String,
    /// Limbs of the features; level = limbs - 1.
    pub limbs: usize,
    /// Multipliers, one per (source, kind) that occurs.
    pub lifts: Vec<Lift>,
    /// Common scale of the features.
    pub feature_scale: f64,
    /// Scale of the linear map's outputs: `feature_scale * weight_scale`.
    pub product_scale: f64,
    /// What then happens.
    pub after: After,
    /// Limbs of the stage's results.
    pub output_limbs: usize,
    /// Scale of the stage's results.
    pub output_scale: f64,
    /// Components of the linear map's outputs: 2 or 3.
    pub components: usize,
    /// Whether what is stored of the results are their squares, relinearised: the stage that reads them is *eager* and has two components.
    pub squared: bool,
    /// Bound on the mean magnitude of the outputs over the slots, in real units: no coefficient wraps while it holds.
    pub range: f64,
    /// Bits between that bound and the modulus.
    pub spare_bits: f64,
}

/// Predicted precision of the logits, as -log2 of the error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Standard deviation, average image, secret-key encryption.
    pub typical_bits: f64,
    /// Worst calibration image, worst slot (6 standard deviations of Gaussian errors, 12 of rounding errors), secret-key encryption: the promise.
    pub promised_bits: f64,
    /// The same with public-key encryption.
    pub promised_public_bits: f64,
}

/// Everything client, worker and engine need to agree on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ring degree, primes, digits: checked against the security table.
    pub parameters: Parameters,
    /// Scale of fresh ciphertexts.
    pub input_scale: f64,
    /// The stages, as in the circuit.
    pub stages: Vec<StagePlan>,
    /// Predicted precision.
    pub precision: Precision,
}

impl Plan {
    /// N: images a batch can hold.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.parameters.degree()
    }

    /// Limbs of fresh ciphertexts.
    #[must_use]
    pub fn input_limbs(&self) -> usize {
        self.parameters.moduli().len()
    }

    /// Plan of the last stage.
    #[must_use]
    pub fn output(&self) -> &StagePlan {
        self.stages.last().expect("a plan has at least one stage")
    }

    /// Largest coefficient a decrypted logit may have, in units of the message.
    #[must_use]
    pub fn output_limit(&self) -> f64 {
        self.output().range
    }

    /// BLAKE3 of everything that decides the bytes of results, and of the model: equal ids compute equal bytes.
    #[must_use]
    pub fn id(&self, model_id: &[u8; 32]) -> [u8; 32] {
        use std::fmt::Write as _;
        let p = &self.parameters;
        // 2: masks are words where they were blocks.
        let mut text = format!("nightshift plan 2\ndegree {}\nmoduli {:?}\n", p.degree(), p.moduli());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "special {:?}\ndigit limbs {}", p.special(), p.digit_limbs());
        let _ = writeln!(text, "input scale {:016x}", self.input_scale.to_bits());
        for stage in &self.stages {
            let _ = write!(
                text,
                "stage limbs {} after {:?} scale {:016x}",
                stage.limbs,
                stage.after,
                stage.product_scale.to_bits()
            );
            if stage.squared {
                text.push_str(" squared");
            }
            if stage.after == After::KeySwitch && stage.components == 2 {
                text.push_str(" rescaled");
            }
            for lift in &stage.lifts {
                let _ = write!(text, " {:?} {:?} {:016x}", lift.source, lift.kind, lift.multiplier.to_bits());
            }
            text.push('\n');
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(model_id);
        hasher.update(text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}
