//! From a trained network to a package, for every command that makes one: integers chosen on calibration images, known
//! answers, and the rule that only an earlier package is replaced. Not here: where the network came from.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::error::CliError;
use super::oracles;
use crate::format::tensors::{Tensor, Values, read_tensors};
use crate::format::{Canary, Container, Kind, OpenLimits};
use crate::net::calibration::Ranges;
use crate::net::{BitChoice, Calibration, Circuit, LowerOptions, Lowering, Network, bits, choose_bits};

/// Calibration images used of those there are.
pub(super) const CALIBRATION_IMAGES: usize = 1000;
/// Longest specification read.
const SPEC_CAP_BYTES: u64 = 16 << 20;
/// Share of calibration images whose label the integers must keep.
const TARGET_AGREEMENT: f64 = 0.999;
/// Images with known answers that travel with the model.
const CANARIES: usize = 4;

/// The network of a specification and its tensors, and the specification as read.
///
/// # Errors
/// Files that cannot be read or are not what they should be, naming layer, field or tensor.
pub(super) fn import_network(spec_path: &Path, weights_path: &Path) -> Result<(Network, String), CliError> {
    let spec = read_text(spec_path, SPEC_CAP_BYTES, "a model specification", "JSON in UTF-8")?;
    let weights = read_tensors(weights_path)?;
    let network = Network::import(&spec, &|name| floats(weights.get(name)?))
        .map_err(|error| CliError::NetFile { path: spec_path.to_owned(), error: error.into() })?;
    Ok((network, spec))
}

/// Shape and values of a tensor of floats; doubles are rounded.
pub(super) fn floats(tensor: &Tensor) -> Option<(Vec<usize>, Vec<f32>)> {
    let values = match &tensor.values {
        Values::F32(values) => values.clone(),
        Values::F64(values) => values.iter().map(|&value| value as f32).collect(),
        Values::I64(_) | Values::U8(_) => return None,
    };
    Some((tensor.shape.clone(), values))
}

/// Only an earlier package may be replaced: `--out` with a slip in it must not cost a key or an image.
///
/// # Errors
/// Something else stands at `out`.
pub(super) fn refuse_foreign(out: &Path) -> Result<(), CliError> {
    let there = out.symlink_metadata().is_ok();
    if there && Container::open(out, Some(Kind::Model), &OpenLimits::default()).is_err() {
        return Err(CliError::Replace { path: out.to_owned(), kind: "model package" });
    }
    Ok(())
}

/// The text of a file of at most `cap_bytes` that a person wrote; `what` it should be, in which `form`.
///
/// # Errors
/// A file that cannot be read, is none, is longer or is not UTF-8.
pub(super) fn read_text(path: &Path, cap_bytes: u64, what: &str, form: &str) -> Result<String, CliError> {
    let read_error = |source| CliError::Read { path: path.to_owned(), source };
    // Looked at before opening, because opening a pipe waits for its writer.
    let status = std::fs::metadata(path).map_err(read_error)?;
    if !status.is_file() {
        return Err(CliError::content(path, "what stands there", "no regular file", what));
    }
    let file = std::fs::File::open(path).map_err(read_error)?;
    let mut bytes = Vec::new();
    file.take(cap_bytes + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > cap_bytes {
        let found = format!("above {cap_bytes} bytes");
        return Err(CliError::content(path, "length", found, format!("at most {cap_bytes} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| CliError::content(path, "text", "not UTF-8", form))
}

/// The circuit, and how its labels compare with the network's on the calibration images.
pub(super) struct Integers {
    pub(super) circuit: Circuit,
    /// What makes the circuit of the network again.
    pub(super) lowering: Lowering,
    /// Share of images with the same label, 0 to 1.
    pub(super) agreement: f64,
    /// The same with all stages a byte wide, where wider ones were chosen.
    pub(super) byte_agreement: Option<f64>,
    /// Largest logit error relative to the largest logit.
    pub(super) logit_error: f64,
    /// The circuit's, `[class][image]`.
    pub(super) logits: Vec<f64>,
}

impl Integers {
    /// Bits of each stage's integers.
    pub(super) fn stage_bits(&self) -> Vec<u32> {
        self.circuit.stages.iter().map(|stage| stage.map.weight_bits).collect()
    }
}

/// Lowers as `fixed` says, or with the fewest bits that keep the labels.
///
/// # Errors
/// A network that cannot be lowered, images that do not fit it.
pub(super) fn integers(
    network: &Network,
    calibration: &Calibration,
    fixed: Option<&LowerOptions>,
) -> Result<Integers, CliError> {
    let Some(options) = fixed else {
        let choice = choose_bits(network, calibration, TARGET_AGREEMENT)?;
        let BitChoice { lowering, circuit, agreement, first_agreement, logit_error, stage_bits } = choice;
        let byte_agreement = stage_bits.iter().any(|&bits| bits > bits::FIRST_BITS).then_some(first_agreement);
        let logits = circuit.evaluate_batch(&calibration.x, calibration.images)?;
        return Ok(Integers { circuit, lowering, agreement, byte_agreement, logit_error, logits });
    };
    let lowering = Lowering::decide(network, options, &Ranges::measure(network, calibration)?)?;
    let circuit = lowering.measured_circuit(network, calibration)?;
    let logits = circuit.evaluate_batch(&calibration.x, calibration.images)?;
    let float = network.evaluate_batch(&calibration.x, calibration.images)?;
    let agreement = bits::agreement(&logits, &float, circuit.classes());
    let largest = float.iter().fold(0.0, |largest: f64, logit| largest.max(logit.abs()));
    let logit_error = oracles::max_difference(&logits, &float) / largest.max(f64::MIN_POSITIVE);
    Ok(Integers { circuit, lowering, agreement, byte_agreement: None, logit_error, logits })
}

/// Tells the log of integers that change more labels than they should.
pub(super) fn warn_of_lost_labels(integers: &Integers, calibration: &Calibration) {
    if integers.agreement < TARGET_AGREEMENT {
        tracing::warn!(
            "the integers keep the label of {:.2} % of {} calibration images, below {:.2} %",
            100.0 * integers.agreement,
            calibration.images,
            100.0 * TARGET_AGREEMENT
        );
    }
}

/// The first calibration image of each of four classes, evenly among those that occur; fewer where fewer occur.
///
/// # Errors
/// Images that do not fit the circuit.
pub(super) fn canaries(integers: &Integers, calibration: &Calibration) -> Result<Vec<Canary>, CliError> {
    let circuit = &integers.circuit;
    let labels = bits::labels(&integers.logits, circuit.classes());
    let present: Vec<usize> = labels.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let count = CANARIES.min(present.len());
    let mut canaries = Vec::with_capacity(count);
    for pick in 0..count {
        let class = present[pick * present.len() / count];
        let image = labels.iter().position(|&label| label == class).unwrap_or(0);
        let input: Vec<f32> = calibration.x.chunks_exact(calibration.images).map(|entry| entry[image] as f32).collect();
        // Of the rounded input, so that anyone who reads the canary gets these very logits.
        let x: Vec<f64> = input.iter().map(|&value| f64::from(value)).collect();
        canaries.push(Canary { logits: circuit.evaluate_batch(&x, 1)?, input });
    }
    Ok(canaries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample::{random_images, random_network};

    fn trained(seed: u64) -> (Network, Calibration) {
        let network = random_network(seed, 1, false);
        let calibration = random_images(&network, 20, 5);
        (network, calibration)
    }

    fn of_bits(bits: u32) -> LowerOptions {
        LowerOptions { default_bits: bits, ..LowerOptions::default() }
    }

    #[test]
    fn canaries_are_of_different_classes_and_answer_for_their_rounded_inputs() {
        let (network, calibration) = trained(9);
        let integers = integers(&network, &calibration, Some(&of_bits(10))).unwrap();
        let canaries = canaries(&integers, &calibration).unwrap();
        let classes: BTreeSet<_> = canaries.iter().map(|canary| packing::argmax(&canary.logits).unwrap()).collect();
        assert_eq!(classes.len(), canaries.len());
        assert!((1..=4).contains(&canaries.len()));
        let x: Vec<f64> = canaries[0].input.iter().map(|&value| f64::from(value)).collect();
        assert_eq!(integers.circuit.evaluate_batch(&x, 1).unwrap(), canaries[0].logits);
        assert_eq!(x.len(), network.input.shape.iter().product::<usize>());
    }

    #[test]
    fn more_bits_are_closer_to_the_floats() {
        let (network, calibration) = trained(12);
        let error = |bits| integers(&network, &calibration, Some(&of_bits(bits))).unwrap().logit_error;
        assert!(error(14) < error(5) / 8.0, "{} {}", error(14), error(5));
        let auto = integers(&network, &calibration, None).unwrap();
        assert!(auto.agreement >= 0.999 || auto.logit_error <= 1e-3, "{}", auto.agreement);
    }
}
