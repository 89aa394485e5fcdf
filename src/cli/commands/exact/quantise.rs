//! From a trained network to a package with tables: the second half of `model import` for networks with ReLUs.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::args::ImportArgs;
use crate::cli::commands::{Context, Report};
use crate::cli::error::CliError;
use crate::cli::oracles::share;
use crate::cli::report::{Align, Table, human_bytes};
use crate::cli::tables::{self, Filled};
use crate::format::TablePackage;
use crate::net::{Calibration, Network};

/// Quantises, measures and writes.
///
/// # Errors
/// A network that has no tables (named), or whose noise would be too much; a build without the exact engine; an output that
/// cannot be written.
pub(in crate::cli::commands) fn import(
    args: &ImportArgs,
    context: &Context,
    network: Network,
    calibration: &(Calibration, Option<Vec<u16>>),
    mut provenance: BTreeMap<String, String>,
) -> Result<Report, CliError> {
    let (calibration, truth) = calibration;
    context.progress.begin("filling tables", 0);
    let Filled { circuit, report, noise_boxes } = tables::fill(&network, calibration, args.table_bits.into())?;
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
    tables::rows_into(circuit, &report.weight_bits, &noise_boxes, &mut table);
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
            "noise_boxes": noise_boxes,
            "calibration_images": calibration.images,
            "calibration_agreement": agreement,
            "calibration_accuracy": accuracy,
        }),
    })
}
