//! From a trained network to its package, for either engine, and what was measured of it: integers and a plan for quadratics,
//! tables for ReLUs. What goes into a package depends on recipe, data and a given teacher only.

use std::collections::BTreeMap;

use packing::ImageSet;
use serde_json::{Value, json};

use super::card::TestFigures;
use super::model::Prepared;
use crate::cli::args::TrainArgs;
use crate::cli::commands::Context;
use crate::cli::error::CliError;
use crate::cli::observe;
use crate::cli::oracles::{self, same, share};
use crate::cli::packaging::{CALIBRATION_IMAGES, canaries, integers, warn_of_lost_labels};
use crate::cli::report::Table;
use crate::cli::tables::{self, Filled, TABLE_CALIBRATION_IMAGES, Tally};
use crate::format::{ModelPackage, TablePackage};
use crate::net::calibration::Ranges;
use crate::net::tables::TableReport;
use crate::net::{LowerOptions, Network};
use crate::plan::cost::cost;
use crate::plan::{Plan, Requirements, scales};
use crate::ring::kernels::Kernel;
use crate::train::Trained;
use crate::train::recipe::TablesRecipe;
use crate::worker::rates;

/// The package as written, and what was measured of it.
pub(super) struct Packed {
    pub(super) body: Body,
    pub(super) model_id: String,
    pub(super) test: Option<TestFigures>,
}

/// What only one engine's packages have.
pub(super) enum Body {
    /// Quadratics, for the batch engine.
    Circuit(Box<CircuitBody>),
    /// Tables, for the exact engine.
    Tables(Box<TableBody>),
}

pub(super) struct CircuitBody {
    pub(super) package: ModelPackage,
    pub(super) plan: Plan,
    pub(super) stage_bits: Vec<u32>,
    /// Planned on this machine, full batches.
    pub(super) images_per_second: f64,
}

pub(super) struct TableBody {
    pub(super) package: TablePackage,
    pub(super) report: TableReport,
    /// Noise before each hidden stage's tables, one standard deviation, in boxes.
    pub(super) noise_boxes: Vec<f64>,
    pub(super) calibration_images: usize,
    /// Over the test images.
    pub(super) tally: Option<Tally>,
}

impl Packed {
    pub(super) fn network(&self) -> &Network {
        match &self.body {
            Body::Circuit(body) => &body.package.network,
            Body::Tables(body) => &body.package.network,
        }
    }

    /// Bits of each stage's integers, sign included.
    pub(super) fn weight_bits(&self) -> &[u32] {
        match &self.body {
            Body::Circuit(body) => &body.stage_bits,
            Body::Tables(body) => &body.report.weight_bits,
        }
    }

    /// Rows of the command's report on what the package computes and costs.
    pub(super) fn rows_into(&self, table: &mut Table) {
        match &self.body {
            Body::Circuit(body) => {
                let circuit = &body.package.circuit;
                for (stage, bits) in circuit.stages.iter().zip(&body.stage_bits) {
                    table.row(["stage", &format!("{}, {bits}-bit integers", stage.name)]);
                }
                let (macs, squarings) = (circuit.total_macs(), circuit.total_squares());
                table.row(["operations an image", &format!("{macs} multiply-accumulates, {squarings} squares")]);
                let (degree, log_qp) = (body.plan.parameters.degree(), body.plan.parameters.log_qp_bits());
                table.row(["ring planned", &format!("degree {degree}, log2(QP) {log_qp:.1}")]);
                table.row(["planned here", &format!("{:.0} images/s", body.images_per_second)]);
            }
            Body::Tables(body) => {
                tables::rows_into(&body.package.circuit, &body.report.weight_bits, &body.noise_boxes, table);
            }
        }
    }

    /// The same as an object.
    pub(super) fn json(&self) -> Value {
        match &self.body {
            Body::Circuit(body) => {
                let (circuit, parameters) = (&body.package.circuit, &body.plan.parameters);
                json!({
                    "engine": "ckks",
                    "macs": circuit.total_macs(),
                    "squarings": circuit.total_squares(),
                    "ring_degree": parameters.degree(),
                    "log_qp": parameters.log_qp_bits(),
                    "planned_images_per_second": body.images_per_second,
                })
            }
            Body::Tables(body) => {
                let circuit = &body.package.circuit;
                json!({
                    "engine": "tfhe",
                    "macs": circuit.macs(),
                    "bootstraps": circuit.neurons(),
                    "constant_neurons": body.report.constant_neurons,
                    "noise_boxes": body.noise_boxes,
                    "outside_ranges": body.tally.map(|tally| tally.outside),
                    "moved_tables": body.tally.map(|tally| tally.moved),
                    "unsure_labels": body.tally.map(|tally| tally.unsure),
                })
            }
        }
    }
}

/// Packs for the engine that the recipe is for; measures; writes.
///
/// # Errors
/// A network that no secure ring carries, or whose tables noise would drown; an output that cannot be written.
pub(super) fn pack(
    args: &TrainArgs,
    prepared: &Prepared,
    trained: &Trained,
    test: Option<&ImageSet>,
    context: &Context,
) -> Result<Packed, CliError> {
    match &prepared.recipe.tables {
        None => pack_circuit(args, prepared, trained, test, context),
        Some(tables) => pack_tables(args, prepared, trained, tables, test, context),
    }
}

/// Lowers with the bits that were trained for, or the fewest that keep the labels.
fn pack_circuit(
    args: &TrainArgs,
    prepared: &Prepared,
    trained: &Trained,
    test: Option<&ImageSet>,
    context: &Context,
) -> Result<Packed, CliError> {
    let network = trained.network.clone();
    context.progress.begin("choosing integers", 0);
    let calibration = prepared.data.calibration(&network.input, CALIBRATION_IMAGES)?;
    let mut choice = integers(&network, &calibration, trained_bits(trained).as_ref())?;
    warn_of_lost_labels(&choice, &calibration);
    let canaries = canaries(&choice, &calibration)?;
    let stage_bits = choice.stage_bits();
    context.progress.end();

    context.progress.begin("ranges", prepared.data.set.count as u64);
    let advance = |images| context.progress.advance(images);
    let calibrated = Ranges::measure(&network, &calibration)?;
    let (set, threads) = (&prepared.data.set, context.threads.get());
    let ranges = observe::widen(&network, &mut choice.circuit, &calibrated, set, threads, &advance)?;
    context.progress.end();
    let plan = scales::plan(&choice.circuit, &Requirements::default())?;

    let test = match test {
        None => None,
        Some(set) => {
            context.progress.begin("measuring", set.count as u64);
            let oracles = oracles::run(&network, &choice.circuit, set, threads, &advance)?;
            context.progress.end();
            let truth = set.labels.as_deref().unwrap_or_default();
            let (float, integer) = (oracles.float_labels(), oracles.integer_labels());
            Some(TestFigures {
                images: set.count,
                float: share(same(&float, truth), set.count),
                integer: share(same(&integer, truth), set.count),
                agreement: share(same(&float, &integer), set.count),
            })
        }
    };

    let mut provenance = provenance(prepared, calibration.images, &stage_bits, test)?;
    provenance.insert("calibration_agreement".to_owned(), choice.agreement.to_string());
    let lowering = Some(choice.lowering);
    let package =
        ModelPackage { network, circuit: choice.circuit, lowering, canaries, ranges: Some(ranges), provenance };
    let model_id = package.write(&args.out)?;
    let (rates, _) = rates::find(None, Kernel::detect(), threads)?;
    let images_per_second = plan.slots() as f64 / cost(&package.circuit, &plan, &rates).batch_secs;
    let body = Body::Circuit(Box::new(CircuitBody { package, plan, stage_bits, images_per_second }));
    Ok(Packed { body, model_id, test })
}

/// Fills tables over the ranges of the training images.
fn pack_tables(
    args: &TrainArgs,
    prepared: &Prepared,
    trained: &Trained,
    recipe: &TablesRecipe,
    test: Option<&ImageSet>,
    context: &Context,
) -> Result<Packed, CliError> {
    let network = trained.network.clone();
    context.progress.begin("filling tables", 0);
    let calibration = prepared.data.calibration(&network.input, TABLE_CALIBRATION_IMAGES)?;
    let Filled { circuit, report, noise_boxes } = tables::fill(&network, &calibration, recipe.bits)?;
    let calibration_images = calibration.images;
    drop(calibration);
    context.progress.end();

    let mut package = TablePackage { network, circuit, provenance: BTreeMap::new() };
    let tally = match test {
        None => None,
        Some(set) => {
            context.progress.begin("measuring", set.count as u64);
            let advance = |images| context.progress.advance(images);
            let readings = tables::read(&package, set, context.threads.get(), &advance)?;
            context.progress.end();
            Some(Tally::of(&readings, set.labels.as_deref().unwrap_or_default()))
        }
    };
    let test = tally.map(|tally| TestFigures {
        images: tally.images,
        float: share(tally.right_float, tally.images),
        integer: share(tally.right_integer, tally.images),
        agreement: share(tally.agree, tally.images),
    });
    package.provenance = provenance(prepared, calibration_images, &report.weight_bits, test)?;
    package.provenance.insert("table_bits".to_owned(), recipe.bits.to_string());
    let model_id = package.write(&args.out)?;
    let body = TableBody { package, report, noise_boxes, calibration_images, tally };
    Ok(Packed { body: Body::Tables(Box::new(body)), model_id, test })
}

/// What the package says of where it came from: nothing of machine, time or build, which would change its bytes.
fn provenance(
    prepared: &Prepared,
    calibration_images: usize,
    weight_bits: &[u32],
    test: Option<TestFigures>,
) -> Result<BTreeMap<String, String>, CliError> {
    let recipe_text = prepared.recipe.to_toml().map_err(|error| prepared.places.told(error))?;
    let mut provenance = BTreeMap::from([
        ("command", "nightshift train".to_owned()),
        ("nightshift_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("recipe", recipe_text),
        ("seed", prepared.recipe.seed.to_string()),
        ("data_blake3", prepared.data.digest.clone()),
        ("training_images", prepared.data.set.count.to_string()),
        ("drawn_images", prepared.recipe.data.rendered_digits.to_string()),
        ("calibration_images", calibration_images.to_string()),
        ("weight_bits", format!("{weight_bits:?}")),
    ]);
    if let Some(given) = &prepared.teacher {
        provenance.insert("teacher_blake3", given.digest.clone());
    }
    if let Some(names) = &prepared.data.set.class_names {
        provenance.insert("class_names", names.join(", "));
    }
    if let Some(test) = test {
        provenance.insert("test_images", test.images.to_string());
        provenance.insert("test_accuracy_float", test.float.to_string());
        provenance.insert("test_accuracy_integer", test.integer.to_string());
    }
    Ok(provenance.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// `None` where the network was not trained for integers.
pub(super) fn trained_bits(trained: &Trained) -> Option<LowerOptions> {
    let stage_bits = trained.stage_bits.clone();
    (!stage_bits.is_empty()).then(|| LowerOptions { stage_bits, ..LowerOptions::default() })
}
