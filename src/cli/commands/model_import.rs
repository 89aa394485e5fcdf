//! `model import`: a trained network, held against its golden outputs, becomes integers and a package.
//!
//! Spec and tensors are read, the network must give the golden logits again, calibration images choose the widths of
//! the integers and the ranges, four of them become canaries. A model that no ring carries is refused here already.

use std::collections::BTreeMap;
use std::path::Path;

use jobs::Digest;
use packing::{Batches, Split};
use serde_json::{Value, json};

use super::{Context, Report, exact};
use crate::cli::args::{ImportArgs, WeightBits};
use crate::cli::error::CliError;
use crate::cli::packaging::{
    CALIBRATION_IMAGES, canaries, floats, import_network, integers, refuse_foreign, warn_of_lost_labels,
};
use crate::cli::report::{Align, Table, human_bytes};
use crate::cli::tables::TABLE_CALIBRATION_IMAGES;
use crate::cli::{images, oracles};
use crate::format::ModelPackage;
use crate::format::tensors::{Values, read_tensors};
use crate::net::{Calibration, LowerOptions, Network, bits};
use crate::plan::{Requirements, scales};

/// Most golden images held against.
const GOLDEN_CAP_IMAGES: usize = 4096;
/// Largest golden difference, relative to the largest golden logit.
const GOLDEN_TOLERANCE: f64 = 1e-3;

/// Reads, checks, lowers, writes.
///
/// # Errors
/// Files that cannot be read or are not what they should be, naming layer, field or tensor; golden outputs that do not
/// come out again; a network that no secure ring carries; an output that cannot be written, or that would replace
/// something other than a model package.
pub fn run(args: &ImportArgs, context: &Context) -> Result<Report, CliError> {
    refuse_foreign(&args.out)?;
    let (network, spec) = import_network(&args.spec, &args.weights)?;
    let golden = Golden::read(&args.golden, &network)?;
    context.progress.begin("golden outputs", 0);
    let golden_error = golden.check(&args.golden, &network)?;

    if args.tables || exact::is_needed(&network) {
        let calibration = calibration(args, &network, golden, TABLE_CALIBRATION_IMAGES)?;
        return exact::import(args, context, network, &calibration, origin(args, &spec, golden_error)?);
    }
    let (calibration, truth) = calibration(args, &network, golden, CALIBRATION_IMAGES)?;
    context.progress.begin("choosing integers", 0);
    let choice = integers(&network, &calibration, fixed_bits(args.bits).as_ref())?;
    let accuracy = truth.map(|truth| {
        let found = bits::labels(&choice.logits, choice.circuit.classes());
        let right = found.iter().zip(&truth).filter(|&(&found, &truth)| found == usize::from(truth)).count();
        oracles::share(right as u64, truth.len())
    });
    warn_of_lost_labels(&choice, &calibration);
    let plan = scales::plan(&choice.circuit, &Requirements::default())?;
    let canaries = canaries(&choice, &calibration)?;
    context.progress.end();

    let stage_bits = choice.stage_bits();
    let mut provenance = origin(args, &spec, golden_error)?;
    for (key, value) in [
        ("calibration_images", calibration.images.to_string()),
        ("calibration_agreement", choice.agreement.to_string()),
        ("weight_bits", format!("{stage_bits:?}")),
    ] {
        provenance.insert(key.to_owned(), value);
    }
    let lowering = Some(choice.lowering);
    let package = ModelPackage { network, circuit: choice.circuit, lowering, canaries, ranges: None, provenance };
    let model_id = package.write(&args.out)?;
    let package_bytes =
        std::fs::metadata(&args.out).map_err(|source| CliError::Read { path: args.out.clone(), source })?.len();

    let circuit = &package.circuit;
    let (macs, squarings) = (circuit.total_macs(), circuit.total_squares());
    let (degree, log_qp) = (plan.parameters.degree(), plan.parameters.log_qp_bits());
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &package.network.name]);
    for (stage, bits) in circuit.stages.iter().zip(&stage_bits) {
        table.row(["stage", &format!("{}, {bits}-bit integers", stage.name)]);
    }
    table.row(["operations an image", &format!("{macs} multiply-accumulates, {squarings} squares")]);
    table.row(["golden outputs", &format!("largest error {golden_error:.2e}")]);
    let kept = format!("{:.2} % of {} calibration images", 100.0 * choice.agreement, calibration.images);
    table.row(["labels kept", &kept]);
    if let Some(agreement) = choice.byte_agreement {
        let kept =
            format!("{:.2} %, and products of the wider stages in half to two thirds of the time", 100.0 * agreement);
        table.row(["kept with --bits 8", &kept]);
    }
    if let Some(accuracy) = accuracy {
        table.row(["accuracy there", &format!("{:.2} %", 100.0 * accuracy)]);
    }
    table.row(["ring planned", &format!("degree {degree}, log2(QP) {log_qp:.1}")]);
    table.row(["package", &format!("{}, {}", args.out.display(), human_bytes(package_bytes))]);
    table.row(["model id", &model_id]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": package.network.name,
            "model_id": model_id,
            "path": args.out.to_string_lossy(),
            "package_bytes": package_bytes,
            "stages": circuit.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>(),
            "weight_bits": stage_bits,
            "macs": macs,
            "squarings": squarings,
            "golden_max_error": golden_error,
            "calibration_images": calibration.images,
            "calibration_agreement": choice.agreement,
            "calibration_agreement_at_8_bits": choice.byte_agreement,
            "calibration_accuracy": accuracy,
            "calibration_logit_error": choice.logit_error,
            "canaries": package.canaries.len(),
            "ring_degree": degree,
            "log_qp": log_qp,
        }),
    })
}

/// What the package says of where it came from, whatever becomes of the network.
fn origin(args: &ImportArgs, spec: &str, golden_error: f64) -> Result<BTreeMap<String, String>, CliError> {
    let mut provenance = BTreeMap::from([
        ("command", "nightshift model import".to_owned()),
        ("nightshift_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("calibration_source", if args.images.is_some() { "images" } else { "golden inputs" }.to_owned()),
        ("golden_max_error", golden_error.to_string()),
        ("spec_blake3", Digest::of(spec.as_bytes()).to_string()),
        ("weights_blake3", jobs::digest::digest_file(&args.weights)?.to_string()),
        ("golden_blake3", jobs::digest::digest_file(&args.golden)?.to_string()),
    ]);
    if let Some(stated) = stated_accuracy(spec) {
        provenance.insert("stated_accuracy_percent", stated);
    }
    Ok(provenance.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// `None` where the fewest that do are to be found.
fn fixed_bits(bits: WeightBits) -> Option<LowerOptions> {
    match bits {
        WeightBits::Auto => None,
        WeightBits::Fixed(bits) => Some(LowerOptions { default_bits: bits.into(), ..LowerOptions::default() }),
    }
}

/// The accuracy that the specification states, in percent.
fn stated_accuracy(spec: &str) -> Option<String> {
    let spec: Value = serde_json::from_str(spec).ok()?;
    spec.get("test_accuracy_percent")?.as_f64().map(|percent| percent.to_string())
}

/// Normalised inputs, the logits that must come out again, and labels if there are some.
struct Golden {
    inputs: Calibration,
    /// `[class][image]`
    logits: Vec<f64>,
    labels: Option<Vec<u16>>,
}

impl Golden {
    fn read(path: &Path, network: &Network) -> Result<Golden, CliError> {
        let tensors = read_tensors(path)?;
        let tensor = |name: &str| -> Result<(Vec<usize>, Vec<f32>), CliError> {
            let found = tensors
                .get(name)
                .ok_or_else(|| CliError::content(path, format!("tensor {name:?}"), "missing", "a float tensor"))?;
            let (shape, values) = floats(found)
                .ok_or_else(|| CliError::content(path, format!("type of {name:?}"), "integers", "F32 or F64"))?;
            match values.iter().position(|value| !value.is_finite()) {
                None => Ok((shape, values)),
                Some(at) => Err(CliError::content(path, format!("{name}[{at}]"), values[at], "a finite number")),
            }
        };
        let ((inputs_shape, inputs), (logits_shape, logits)) = (tensor("inputs")?, tensor("logits")?);
        let images = inputs_shape.first().copied().unwrap_or(0);
        if !(1..=GOLDEN_CAP_IMAGES).contains(&images) {
            return Err(CliError::content(path, "number of inputs", images, format!("1 to {GOLDEN_CAP_IMAGES}")));
        }
        let [channels, rows, columns] = network.input.shape;
        for (name, found, expected) in [
            ("inputs", &inputs_shape, vec![images, channels, rows, columns]),
            ("logits", &logits_shape, vec![images, network.classes()?]),
        ] {
            if *found != expected {
                let what = format!("shape of {name:?}");
                return Err(CliError::content(path, what, format!("{found:?}"), format!("{expected:?}")));
            }
        }
        let labels = match tensors.get("labels").map(|tensor| &tensor.values) {
            Some(Values::I64(labels)) if labels.len() == images => {
                labels.iter().map(|&label| u16::try_from(label).ok()).collect()
            }
            _ => None,
        };
        let inputs = Calibration { images, x: transpose(&inputs, images) };
        Ok(Golden { inputs, logits: transpose(&logits, images), labels })
    }

    /// The largest difference between the network's logits and these.
    fn check(&self, path: &Path, network: &Network) -> Result<f64, CliError> {
        let found = network.evaluate_batch(&self.inputs.x, self.inputs.images)?;
        let largest = self.logits.iter().fold(0.0, |largest: f64, logit| largest.max(logit.abs()));
        let limit = GOLDEN_TOLERANCE * largest;
        let mut worst = (0, 0.0);
        for (index, (found, expected)) in found.iter().zip(&self.logits).enumerate() {
            let difference = (found - expected).abs();
            // An overflow to infinity or NaN is the worst there is.
            if !difference.is_finite() || difference > worst.1 {
                worst = (index, difference);
            }
            if !difference.is_finite() {
                break;
            }
        }
        let (at, difference) = worst;
        if difference.is_finite() && difference <= limit {
            return Ok(difference);
        }
        Err(CliError::Golden {
            path: path.to_owned(),
            layer: network.layers.last().map_or_else(String::new, |layer| layer.name.clone()),
            image: at % self.inputs.images,
            class: at / self.inputs.images,
            found: found[at],
            expected: self.logits[at],
            limit,
        })
    }
}

/// `[image][entry]` to `[entry][image]`.
fn transpose(values: &[f32], images: usize) -> Vec<f64> {
    let entries = values.len() / images.max(1);
    (0..values.len()).map(|index| f64::from(values[index % images * entries + index / images])).collect()
}

/// The images given (the training split of a data set's folder), or else the golden inputs; labels where there are some.
fn calibration(
    args: &ImportArgs,
    network: &Network,
    golden: Golden,
    most_images: usize,
) -> Result<(Calibration, Option<Vec<u16>>), CliError> {
    let Some(path) = &args.images else { return Ok((golden.inputs, golden.labels)) };
    let limit = Some(most_images);
    let set = images::load(path, args.labels.as_deref(), Split::Train, limit, &network.input)?;
    let normalisation = images::normalisation(&network.input)?;
    let batches = Batches::new(&set, &normalisation, set.count.next_power_of_two())?;
    let (images, x) = images::block(&batches, 0)?;
    Ok((Calibration { images, x }, set.labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample::{random_images, random_network};

    fn golden(seed: u64) -> (Network, Golden) {
        let network = random_network(seed, 1, false);
        let inputs = random_images(&network, 20, 5);
        let logits = network.evaluate_batch(&inputs.x, inputs.images).unwrap();
        (network, Golden { inputs, logits, labels: None })
    }

    #[test]
    fn golden_logits_that_differ_are_named() {
        let (network, mut golden) = golden(4);
        let path = Path::new("golden.safetensors");
        assert_eq!(golden.check(path, &network).unwrap(), 0.0);
        let largest = golden.logits.iter().fold(0.0_f64, |largest, logit| largest.max(logit.abs()));
        golden.logits[20 + 3] += 0.9e-3 * largest;
        let error = golden.check(path, &network).unwrap();
        assert!((error / largest - 0.9e-3).abs() < 1e-9, "{error} of {largest}");
        golden.logits[20 + 7] -= 0.01 * largest;
        let refused = golden.check(path, &network).unwrap_err();
        assert!(matches!(refused, CliError::Golden { image: 7, class: 1, .. }), "{refused}");
        assert_eq!(refused.exit_code().code(), 65);
    }
}
