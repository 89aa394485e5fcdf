//! What lowering decided: all that, beside the network, makes its circuit's integers.
//!
//! The width of every stage's integers, and the few neurons whose squares were not completed. Calibration images decide
//! both, once; from then on the same network and the same decisions give the same circuit, bit for bit, on every machine
//! (see [`lower`](super::lower())). So a model package can hold these instead of the integers.
//!
//! Not here: calibration figures of the circuit, bytes on disk (see `format::package`).

use super::calibration::{Calibration, Ranges};
use super::circuit::Circuit;
use super::error::{NetError, at_most, same_len};
use super::gains::fill_stats;
use super::lower::{LowerOptions, lower_with_places};
use super::network::{Layer, Network, Op};
use super::shapes::entries;

/// Bits that a stage's integers may have.
const WEIGHT_BITS: std::ops::RangeInclusive<u32> = 4..=16;
/// Units of kept neurons are 2^-40 to 2^40.
const LARGEST_LOG2_UNIT: i8 = 40;

/// A neuron whose square was not completed: its row of the circuit is z = x / 2^`log2_unit`, read by value and by square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptNeuron {
    /// The quadratic layer's index in the network.
    pub layer: u32,
    /// Entry of what the layer reads.
    pub entry: u32,
    /// -40 to 40.
    pub log2_unit: i8,
}

impl KeptNeuron {
    fn place(&self) -> (u32, u32) {
        (self.layer, self.entry)
    }
}

/// The decisions of one lowering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowering {
    /// Width of each stage's integers, sign included.
    stage_bits: Vec<u32>,
    /// By layer, then entry.
    kept: Vec<KeptNeuron>,
}

/// How far a lowering may go; a network of a few kilobytes can ask for any number of operations and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoweringLimits {
    /// Weights of all affine forms made on the way, a form's own cost counted as four; each takes about 20 bytes.
    pub weights: u64,
    /// Multiplications and other single steps on weights while folding; each takes about a nanosecond.
    pub steps: u64,
}

impl LoweringLimits {
    /// For networks that somebody else sent: at most some 3 GB and a few seconds. The circuit of a network of 40 million
    /// multiply-accumulates stays below half of it.
    pub const FOREIGN: LoweringLimits = LoweringLimits { weights: 1 << 27, steps: 1 << 31 };
    /// For one's own networks: only the limits that every network and stage has.
    pub const OWN: LoweringLimits = LoweringLimits { weights: u64::MAX, steps: u64::MAX };
}

/// What is left of the limits.
pub(super) struct Budget {
    limits: LoweringLimits,
    weights: u64,
    steps: u64,
}

impl Budget {
    pub(super) fn new(limits: LoweringLimits) -> Budget {
        Budget { limits, weights: 0, steps: 0 }
    }

    /// Books weights of forms that are about to be made, or have just been.
    pub(super) fn make(&mut self, weights: usize) -> Result<(), NetError> {
        self.weights = self.weights.saturating_add(weights as u64);
        at_most("lowering", "weights of all forms", self.weights.into(), self.limits.weights.into())?;
        self.step(weights)
    }

    /// Books steps that are about to be taken.
    pub(super) fn step(&mut self, steps: usize) -> Result<(), NetError> {
        self.steps = self.steps.saturating_add(steps as u64);
        at_most("lowering", "steps", self.steps.into(), self.limits.steps.into())
    }
}

impl Lowering {
    /// Decisions from elsewhere. Nothing is checked before [`Lowering::circuit`] sees the network.
    pub fn new(stage_bits: Vec<u32>, kept: Vec<KeptNeuron>) -> Lowering {
        Lowering { stage_bits, kept }
    }

    /// Decides as the options say, by ranges measured on a network of the same architecture.
    ///
    /// Errors: options out of range, ranges of another architecture, an invalid network.
    pub fn decide(network: &Network, options: &LowerOptions, ranges: &Ranges) -> Result<Lowering, NetError> {
        options.check()?;
        ranges.check(network)?;
        let stage_bits = (0..stage_count(network)).map(|stage| options.bits(stage)).collect();
        let mut kept = Vec::new();
        for_neurons(network, |neuron| {
            let max_abs = &ranges.max_abs[neuron.layer];
            let layer_max = max_abs.iter().fold(0.0, |largest: f64, &max| largest.max(max));
            (0..max_abs.len()).for_each(|entry| {
                let (a, b) = neuron.coefficients(entry);
                let in_proportion = a != 0.0 && (b / (2.0 * a)).abs() <= options.shift_limit * layer_max;
                if !in_proportion && (a != 0.0 || b != 0.0) {
                    let log2_unit = log2_below(max_abs[entry]);
                    kept.push(KeptNeuron { layer: neuron.layer as u32, entry: entry as u32, log2_unit });
                }
            });
            Ok(())
        })?;
        Ok(Lowering { stage_bits, kept })
    }

    /// Width of each stage's integers, sign included. A stage ends at each quadratic layer that has a square, the last one
    /// at the logits; stages without neurons that matter do not occur in the circuit.
    pub fn stage_bits(&self) -> &[u32] {
        &self.stage_bits
    }

    /// Neurons whose squares were not completed, by layer, then entry.
    pub fn kept(&self) -> &[KeptNeuron] {
        &self.kept
    }

    /// The circuit that these decisions make of the network; its calibration figures are zero.
    ///
    /// Errors: an invalid network, decisions that do not fit it, a logit that depends on nothing, sizes beyond the limits.
    pub fn circuit(&self, network: &Network, limits: &LoweringLimits) -> Result<Circuit, NetError> {
        Ok(lower_with_places(network, self, limits)?.0)
    }

    /// The circuit with figures measured on the calibration images.
    ///
    /// Errors: as [`Lowering::circuit`], images of another size.
    pub fn measured_circuit(&self, network: &Network, calibration: &Calibration) -> Result<Circuit, NetError> {
        let mut circuit = self.circuit(network, &LoweringLimits::OWN)?;
        fill_stats(&mut circuit, calibration)?;
        Ok(circuit)
    }

    /// Whether they are decisions about this network, and complete: each layer and entry exists, in order, and every neuron
    /// without a square to complete is among them.
    pub(super) fn check(&self, network: &Network) -> Result<(), NetError> {
        same_len("lowering", "stage bits", self.stage_bits.len(), stage_count(network))?;
        if let Some(bits) = self.stage_bits.iter().find(|bits| !WEIGHT_BITS.contains(bits)) {
            return Err(NetError::mismatch("lowering", "weight bits", bits, "4 to 16"));
        }
        let wrong = |what: &str, kept: &KeptNeuron, expected: &str| {
            let found = format!("layer {}, entry {}, 2^{}", kept.layer, kept.entry, kept.log2_unit);
            Err(NetError::mismatch("lowering", what, found, expected))
        };
        if let Some(pair) = self.kept.windows(2).find(|pair| pair[0].place() >= pair[1].place()) {
            return wrong("order of kept neurons", &pair[1], "ascending layers and entries");
        }
        if let Some(kept) = self.kept.iter().find(|kept| kept.log2_unit.unsigned_abs() > LARGEST_LOG2_UNIT as u8) {
            return wrong("unit of a kept neuron", kept, "2^-40 to 2^40");
        }
        let mut rest = self.kept.iter().peekable();
        for_neurons(network, |neuron| {
            for entry in 0..neuron.entries {
                let (a, b) = neuron.coefficients(entry);
                let place = (neuron.layer as u32, entry as u32);
                match rest.next_if(|kept| kept.place() == place) {
                    Some(kept) if a == 0.0 && b == 0.0 => {
                        return wrong("kept neuron", kept, "one whose quadratic is not constant");
                    }
                    None if a == 0.0 && b != 0.0 => {
                        let found = format!("entry {entry} of layer {} left out", neuron.layer);
                        return Err(NetError::mismatch("lowering", "kept neurons", found, "all without a square"));
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        match rest.next() {
            Some(kept) => wrong("kept neuron", kept, "a neuron of a quadratic layer with squares"),
            None => Ok(()),
        }
    }

    /// The kept neurons of a layer.
    pub(super) fn kept_in(&self, layer: usize) -> &[KeptNeuron] {
        let start = self.kept.partition_point(|kept| (kept.layer as usize) < layer);
        let end = self.kept.partition_point(|kept| (kept.layer as usize) <= layer);
        &self.kept[start..end]
    }
}

/// Whether the layer is a quadratic that squares anything; others are folded into the linear layers around them.
pub(super) fn has_squares(op: &Op) -> bool {
    matches!(op, Op::Poly2 { a, .. } if a.iter().any(|&a| a != 0.0))
}

/// Stages that lowering begins with: one for each quadratic layer that has a square, and the logits'.
pub(super) fn stage_count(network: &Network) -> usize {
    network.layers.iter().filter(|layer| has_squares(&layer.op)).count() + 1
}

/// A quadratic layer with squares.
struct Neurons<'a> {
    layer: usize,
    op: &'a Op,
    entries: usize,
    per_channel: usize,
}

impl Neurons<'_> {
    /// a and b of a neuron's a x^2 + b x + c.
    fn coefficients(&self, entry: usize) -> (f64, f64) {
        let Op::Poly2 { granularity, a, b, .. } = self.op else { return (0.0, 0.0) };
        let index = granularity.index(entry, entry / self.per_channel);
        (f64::from(a[index]), f64::from(b[index]))
    }
}

fn for_neurons(network: &Network, mut visit: impl FnMut(&Neurons<'_>) -> Result<(), NetError>) -> Result<(), NetError> {
    let shapes = network.value_shapes()?;
    for (layer, (Layer { op, .. }, shape)) in network.layers.iter().zip(&shapes).enumerate() {
        if has_squares(op) {
            let per_channel = shape[1..].iter().product();
            visit(&Neurons { layer, op, entries: entries(shape).unwrap_or(0), per_channel })?;
        }
    }
    Ok(())
}

/// Exponent of the largest power of two not above a positive number, within -40 .. 40; 0 for zero and what is no number.
fn log2_below(number: f64) -> i8 {
    if number.is_nan() || number <= 0.0 {
        return 0;
    }
    let mut exponent = 0;
    while power_of_two(exponent) > number && exponent > -LARGEST_LOG2_UNIT {
        exponent -= 1;
    }
    while exponent < LARGEST_LOG2_UNIT && power_of_two(exponent + 1) <= number {
        exponent += 1;
    }
    exponent
}

/// 2^exponent, exactly.
pub(super) fn power_of_two(exponent: i8) -> f64 {
    const BIAS: i64 = 1023;
    const MANTISSA_BITS: u32 = 52;
    f64::from_bits(((BIAS + i64::from(exponent)) as u64) << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_the_powers_of_two_below() {
        for exponent in -40..=40_i8 {
            let power = 2f64.powi(exponent.into());
            assert_eq!(power_of_two(exponent), power);
            assert_eq!(log2_below(power), exponent);
            assert_eq!(log2_below(power * 1.999), exponent);
        }
        for (number, exponent) in [(0.0, 0), (-1.0, 0), (f64::NAN, 0), (1e-300, -40), (f64::INFINITY, 40)] {
            assert_eq!(log2_below(number), exponent, "{number}");
        }
    }
}
