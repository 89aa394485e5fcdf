//! From a trained network to a package with tables: the second half of `model import` for networks with ReLUs.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::args::ImportArgs;
use crate::cli::commands::{Context, Report};
use crate::cli::error::CliError;
use crate::cli::oracles::share;
use crate::cli::report::{Align, Table, human_bytes};
use crate::cli::tables;
use crate::exact::Noise;
use crate::format::TablePackage;
use crate::net::tables::{TableOptions, quantise};
use crate::net::{Calibration, Network};

/// Width of the integers that meet fresh ciphertexts: rounding them errs less than a table's box does.
const INPUT_WEIGHT_BITS: u32 = 10;
/// How far a neuron's range is widened on either side.
const MARGIN: f64 = 0.05;

/// Quantises, measures and writes.
///
/// # Errors
/// A network that has no tables (named), or whose noise would be too much; an output that cannot be written.
pub(in crate::cli::commands) fn import(
    args: &ImportArgs,
    context: &Context,
    network: Network,
    calibration: &(Calibration, Option<Vec<u16>>),
    mut provenance: BTreeMap<String, String>,
) -> Result<Report, CliError> {
    let (calibration, truth) = calibration;
    context.progress.begin("filling tables", 0);
    let options = TableOptions {
        bits: args.table_bits.into(),
        input_weight_bits: INPUT_WEIGHT_BITS,
        margin: MARGIN,
        output_noise: Noise::bootstrapped(),
    };
    let (circuit, report) = quantise(&network, calibration, &options)?;
    let noise = Noise::of(&circuit);
    noise.check(&circuit).map_err(|error| CliError::from(crate::client::ClientError::from(error)))?;
    for (key, value) in [
        ("table_bits", args.table_bits.to_string()),
        ("weight_bits", format!("{:?}", report.weight_bits)),
        ("calibration_images", calibration.images.to_string()),
    ] {
        provenance.insert(key.to_owned(), value);
    }
    let package = TablePackage { network, circuit, provenance };
    let readings = tables::read_block(&package, &calibration.x, calibration.images)?;
    context.progress.end();
    let agree = readings.iter().filter(|read| read.float_label() == read.integer_label()).count();
    let agreement = share(agree as u64, calibration.images);
    let right = |truth: &Vec<u16>| {
        let right = readings.iter().zip(truth).filter(|&(read, &truth)| read.integer_label() == truth).count();
        share(right as u64, truth.len())
    };
    let accuracy = truth.as_ref().map(right);
    let model_id = package.write(&args.out)?;
    let package_bytes =
        std::fs::metadata(&args.out).map_err(|source| CliError::Read { path: args.out.clone(), source })?.len();

    let circuit = &package.circuit;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &package.network.name]);
    table.row(["engine", "tfhe: exact activations, one bootstrap a neuron"]);
    for ((stage, bits), boxes) in circuit.stages.iter().zip(&report.weight_bits).zip(&noise.boxes) {
        let text = format!("{}, {bits}-bit integers, {}-bit tables, noise {boxes:.3} boxes", stage.name, stage.bits);
        table.row(["stage", &text]);
    }
    let last = report.weight_bits.last().copied().unwrap_or(0);
    table.row(["stage", &format!("{}, {last}-bit integers", circuit.logits.name)]);
    table.row([
        "operations an image",
        &format!("{} multiply-accumulates, {} bootstraps", circuit.macs(), circuit.neurons()),
    ]);
    table.row(["labels kept", &format!("{:.2} % of {} calibration images", 100.0 * agreement, calibration.images)]);
    if let Some(accuracy) = accuracy {
        table.row(["accuracy there", &format!("{:.2} %", 100.0 * accuracy)]);
    }
    table.row(["package", &format!("{}, {}", args.out.display(), human_bytes(package_bytes))]);
    table.row(["model id", &model_id]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": package.network.name,
            "model_id": model_id,
            "engine": "tfhe",
            "path": args.out.to_string_lossy(),
            "package_bytes": package_bytes,
            "table_bits": args.table_bits,
            "weight_bits": report.weight_bits,
            "macs": circuit.macs(),
            "bootstraps": circuit.neurons(),
            "constant_neurons": report.constant_neurons,
            "noise_boxes": noise.boxes,
            "calibration_images": calibration.images,
            "calibration_agreement": agreement,
            "calibration_accuracy": accuracy,
        }),
    })
}
