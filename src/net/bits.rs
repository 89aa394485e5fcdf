//! Choosing the width of every stage's integers against a stated agreement with the float network.

use super::calibration::{Calibration, measure_ranges};
use super::circuit::Circuit;
use super::error::NetError;
use super::gains::fill_stats;
use super::lower::LowerOptions;
use super::lowering::{Lowering, LoweringLimits};
use super::network::Network;

/// Width every stage starts with: of a byte, which is multiplied at once.
pub const FIRST_BITS: u32 = 8;
/// Widest integers there are.
const LAST_BITS: u32 = 16;
/// Images on which single steps are compared; the target is always checked on all.
const TRIAL_IMAGES: usize = 128;
/// Logit error, relative to the largest logit, below which labels differ only on ties.
const SMALL_ERROR: f64 = 1e-3;

/// What [`choose_bits`] settled on.
#[derive(Clone, Debug, PartialEq)]
pub struct BitChoice {
    /// Width per stage, for [`LowerOptions::stage_bits`].
    pub stage_bits: Vec<u32>,
    /// Fraction of calibration images whose label is the float network's.
    pub agreement: f64,
    /// The same with [`FIRST_BITS`] in every stage.
    pub first_agreement: f64,
    /// Largest logit error over the calibration images, relative to their largest logit.
    pub logit_error: f64,
    /// All that, with the network, makes the circuit.
    pub lowering: Lowering,
    /// The circuit, with its calibration figures.
    pub circuit: Circuit,
}

/// Starts every stage at 8 bits and raises single stages, up to 16, each time the one that lowers the logit error most, until
/// `target_agreement` (0.999 is a good one) of the calibration images get the float network's label, or the logit error is
/// below a thousandth, or all stages are at 16. Deterministic. The caller judges `agreement`: the best is returned even
/// where it misses the target.
///
/// Errors: as [`lower`](super::lower()), or a target outside 0 to 1.
pub fn choose_bits(network: &Network, calibration: &Calibration, target_agreement: f64) -> Result<BitChoice, NetError> {
    if !(0.0..=1.0).contains(&target_agreement) {
        return Err(NetError::mismatch("bit choice", "target agreement", target_agreement, "0 to 1"));
    }
    let ranges = measure_ranges(network, calibration)?;
    let classes = network.classes()?;
    let trial = calibration.first(TRIAL_IMAGES);
    let trial_logits = Calibration { images: calibration.images, x: ranges.logits.clone() }.first(TRIAL_IMAGES).x;
    let decided = |stage_bits: &[u32]| {
        let options = LowerOptions { stage_bits: stage_bits.to_vec(), ..LowerOptions::default() };
        Lowering::decide(network, &options, &ranges)
    };
    let lowered = |stage_bits: &[u32]| decided(stage_bits)?.circuit(network, &LoweringLimits::OWN);
    let mut stage_bits = vec![FIRST_BITS; network.squarings() + 1];
    let mut first_agreement = None;
    loop {
        let mut circuit = lowered(&stage_bits)?;
        let logits = circuit.evaluate_batch(&calibration.x, calibration.images)?;
        let agreement = agreement(&logits, &ranges.logits, classes);
        let first_agreement = *first_agreement.get_or_insert(agreement);
        let logit_error = relative_error(&logits, &ranges.logits);
        let done = agreement >= target_agreement || logit_error <= SMALL_ERROR;
        let open: Vec<usize> = (0..stage_bits.len()).filter(|&stage| stage_bits[stage] < LAST_BITS).collect();
        if done || open.is_empty() {
            fill_stats(&mut circuit, calibration)?;
            let lowering = decided(&stage_bits)?;
            stage_bits.truncate(circuit.stages.len());
            return Ok(BitChoice { stage_bits, agreement, first_agreement, logit_error, lowering, circuit });
        }
        let mut best: Option<(f64, usize)> = None;
        for stage in open {
            stage_bits[stage] += 1;
            let logits = lowered(&stage_bits)?.evaluate_batch(&trial.x, trial.images)?;
            stage_bits[stage] -= 1;
            let error = mean_square_error(&logits, &trial_logits);
            if best.is_none_or(|(least, _)| error < least) {
                best = Some((error, stage));
            }
        }
        if let Some((_, stage)) = best {
            stage_bits[stage] += 1;
        }
    }
}

/// Class of the largest logit of each image, the first among equals; `logits` is `[class][image]`.
pub fn labels(logits: &[f64], classes: usize) -> Vec<usize> {
    let images = logits.len() / classes.max(1);
    let mut best = vec![0; images];
    for class in 1..classes {
        for (image, label) in best.iter_mut().enumerate() {
            if logits[class * images + image] > logits[*label * images + image] {
                *label = class;
            }
        }
    }
    best
}

/// Fraction of images with the same label in both; 1 for no images.
pub fn agreement(left: &[f64], right: &[f64], classes: usize) -> f64 {
    let (left, right) = (labels(left, classes), labels(right, classes));
    if left.is_empty() {
        return 1.0;
    }
    left.iter().zip(&right).filter(|(left, right)| left == right).count() as f64 / left.len() as f64
}

fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let error =
        found.iter().zip(expected).fold(0.0, |largest: f64, (found, expected)| largest.max((found - expected).abs()));
    let largest = expected.iter().fold(0.0, |largest: f64, logit| largest.max(logit.abs()));
    if largest > 0.0 { error / largest } else { error }
}

fn mean_square_error(found: &[f64], expected: &[f64]) -> f64 {
    let sum: f64 = found.iter().zip(expected).map(|(found, expected)| (found - expected) * (found - expected)).sum();
    sum / found.len().max(1) as f64
}
