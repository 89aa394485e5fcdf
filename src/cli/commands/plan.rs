//! `plan`: what a model leads to, before any key is made: ring, primes, precision, bytes of every file, memory, seconds.
//!
//! Bytes are payloads; a file's header and page alignment add a few thousand. Seconds are estimates from rates that
//! `nightshift-worker calibrate` found, or else from a quick measurement.

use std::time::Duration;

use serde_json::{Value, json};

use super::run::kernel;
use super::{Context, Report};
use crate::ckks::security;
use crate::cli::args::PlanArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::format::ModelPackage;
use crate::plan::cost::{Cost, cost};
use crate::plan::explain::explain;
use crate::plan::{Plan, Requirements, scales};
use crate::worker::rates::{self, RatesSource};

/// How many images are to be run, and what that makes.
struct Load {
    images: usize,
    batches: usize,
    last_occupancy: usize,
}

impl Load {
    fn new(images: usize, slots: usize) -> Load {
        let batches = images.div_ceil(slots);
        Load { images, batches, last_occupancy: images - batches.saturating_sub(1) * slots }
    }
}

/// Plans the model and counts what it costs on this machine.
///
/// # Errors
/// A package that cannot be read, or that no secure ring carries at the precision asked for.
pub fn run(args: &PlanArgs, context: &Context) -> Result<Report, CliError> {
    let package = ModelPackage::open(&args.model)?;
    let mut requirements = Requirements::default();
    if let Some(bits) = args.precision {
        requirements.promised_bits = f64::from(bits);
    }
    let plan = scales::plan(&package.circuit, &requirements)?;
    let (rates, source) = rates::find(args.rates.as_deref(), kernel(args.isa)?, context.threads.get())?;
    if let RatesSource::Ignored { path, reason } = source {
        tracing::warn!("{}: {reason}; seconds rest on a quick measurement", path.display());
    }
    let cost = cost(&package.circuit, &plan, &rates);
    let load = Load::new(args.batch.map_or(plan.slots(), usize::from), plan.slots());
    let text = if args.explain { explain(&plan, &cost) } else { table(&package, &plan, &cost, &load) };
    Ok(Report { text, json: object(&package, &plan, &cost, &load)? })
}

fn table(package: &ModelPackage, plan: &Plan, cost: &Cost, load: &Load) -> String {
    let slots = plan.slots();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let row = |table: &mut Table, name: &str, value: String| {
        table.row([name, &value]);
    };
    row(&mut table, "model", package.network.name.clone());
    row(&mut table, "ring", format!("degree {} = {slots} slots", plan.parameters.degree()));
    let limit = limit_bits(plan);
    let log_qp = plan.parameters.log_qp_bits();
    row(&mut table, "log2(QP)", format!("{log_qp:.1}, at most {limit} for {} bits", security::SECURITY_BITS));
    let precision = &plan.precision;
    row(
        &mut table,
        "precision",
        format!("{:.1} bits promised, {:.1} typical", precision.promised_bits, precision.typical_bits),
    );
    let each = |bytes: u64| format!("{} a batch, {} an image", human_bytes(bytes), human_bytes(bytes / slots as u64));
    row(&mut table, "upload, secret key", each(cost.input_bytes));
    row(&mut table, "upload, public key", each(cost.public_input_bytes));
    row(&mut table, "results", each(cost.result_bytes));
    row(&mut table, "evaluation key", human_bytes(cost.evaluation_key_bytes));
    row(&mut table, "public key", human_bytes(cost.public_key_bytes));
    row(&mut table, "worker's memory", human_bytes(cost.peak_bytes));
    let time = human_duration(secs(cost.batch_secs));
    row(&mut table, "time a batch", format!("{time} ({:.0} images/s when full)", slots as f64 / cost.batch_secs));
    let batches = format!("{} ({} images in the last of {slots} slots)", load.batches, load.last_occupancy);
    row(&mut table, &format!("batches for {} images", load.images), batches);
    let all = load.batches as u64;
    row(
        &mut table,
        "all of them",
        format!(
            "{} up, {} down, {}",
            human_bytes(all.saturating_mul(cost.input_bytes)),
            human_bytes(all.saturating_mul(cost.result_bytes)),
            human_duration(secs(all as f64 * cost.batch_secs))
        ),
    );
    table.to_string()
}

/// A duration of any finite length; estimates beyond what a duration holds are its longest.
fn secs(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)
}

fn limit_bits(plan: &Plan) -> u32 {
    security::row(plan.parameters.degree()).map_or(0, |row| row.classical_bits)
}

fn object(package: &ModelPackage, plan: &Plan, cost: &Cost, load: &Load) -> Result<Value, CliError> {
    let model_id = package.model_id()?;
    let parameters = &plan.parameters;
    let bits = |moduli: &[u64]| moduli.iter().map(|&q| (q as f64).log2()).collect::<Vec<_>>();
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .zip(&cost.stages)
        .map(|(stage, cost)| {
            json!({
                "name": stage.name,
                "level": stage.limbs - 1,
                "feature_scale_bits": stage.feature_scale.log2(),
                "product_scale_bits": stage.product_scale.log2(),
                "after": format!("{:?}", stage.after),
                "components": stage.components,
                "squared": stage.squared,
                "output_level": stage.output_limbs - 1,
                "range": stage.range,
                "spare_bits": stage.spare_bits,
                "products": cost.products,
                "squares": cost.squares,
                "key_switches": cost.key_switches,
                "transforms": cost.transforms,
                "passes": cost.passes,
                "seconds": cost.tiles_secs + cost.polynomials_secs,
            })
        })
        .collect();
    let slots = plan.slots();
    let batches = load.batches as u64;
    Ok(json!({
        "model": package.network.name,
        "model_id": model_id,
        "plan_id": plan_id(plan, &model_id),
        "ring_degree": parameters.degree(),
        "slots": slots,
        "log_qp": parameters.log_qp_bits(),
        "security_bits": security::SECURITY_BITS,
        "log_qp_limit": limit_bits(plan),
        "moduli_bits": bits(parameters.moduli()),
        "special_bits": bits(parameters.special()),
        "digit_limbs": parameters.digit_limbs(),
        "input_scale_bits": plan.input_scale.log2(),
        "stages": stages,
        "precision_bits": {
            "promised": plan.precision.promised_bits,
            "promised_public": plan.precision.promised_public_bits,
            "typical": plan.precision.typical_bits,
        },
        "bytes": {
            "input": cost.input_bytes,
            "input_public": cost.public_input_bytes,
            "result": cost.result_bytes,
            "evaluation_key": cost.evaluation_key_bytes,
            "public_key": cost.public_key_bytes,
        },
        "upload_bytes_per_image": cost.input_bytes as f64 / slots as f64,
        "result_bytes_per_image": cost.result_bytes as f64 / slots as f64,
        "peak_bytes": cost.peak_bytes,
        "seconds": cost.batch_secs,
        "images_per_second": slots as f64 / cost.batch_secs,
        "images": load.images,
        "batches": load.batches,
        "last_occupancy": load.last_occupancy,
        "total": {
            "input_bytes": batches.saturating_mul(cost.input_bytes),
            "result_bytes": batches.saturating_mul(cost.result_bytes),
            "seconds": batches as f64 * cost.batch_secs,
        },
    }))
}

/// The plan's id in hexadecimal; `model_id` is 64 hexadecimal digits.
pub(in crate::cli) fn plan_id(plan: &Plan, model_id: &str) -> String {
    let bytes = blake3::Hash::from_hex(model_id).map_or([0; 32], |hash| *hash.as_bytes());
    blake3::Hash::from_bytes(plan.id(&bytes)).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_the_last_one_s_images() {
        for (images, slots, batches, last) in
            [(1, 8192, 1, 1), (8192, 8192, 1, 8192), (8193, 8192, 2, 1), (10_000, 8192, 2, 1808), (4, 1, 4, 1)]
        {
            let load = Load::new(images, slots);
            assert_eq!((load.batches, load.last_occupancy), (batches, last), "{images} in {slots}");
        }
    }

    #[test]
    fn estimates_of_any_length_are_durations() {
        assert_eq!(secs(1.5), Duration::from_millis(1500));
        assert_eq!(secs(f64::INFINITY), Duration::MAX);
        assert_eq!(secs(1e300), Duration::MAX);
    }
}
