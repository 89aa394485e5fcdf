//! `evaluate`: accuracy in the clear, of the network as trained and of the integers the worker will use.

use std::time::{Duration, Instant};

use packing::Split;
use serde_json::json;

use super::{Context, Report, exact};
use crate::cli::args::EvaluateArgs;
use crate::cli::decrypted::Held;
use crate::cli::error::CliError;
use crate::cli::images;
use crate::cli::oracles::{self, max_difference, same, share};
use crate::cli::report::{Align, Table, human_duration, human_rate, percent};
use crate::format::ModelPackage;

/// Runs both oracles over the images (the test split of a data set's folder) and counts.
///
/// # Errors
/// A package, images or labels that cannot be read or do not fit each other.
pub fn run(args: &EvaluateArgs, context: &Context) -> Result<Report, CliError> {
    if exact::serves(&args.model)? {
        return exact::evaluate(args, context);
    }
    if args.labels_only {
        let (used_on, expected) = ("a model of the engine ckks", "a model of the exact engine");
        return Err(CliError::Option { option: "--labels-only", used_on, expected });
    }
    let package = ModelPackage::open(&args.model)?;
    let (network, circuit) = (&package.network, &package.circuit);
    let set = images::load(&args.images, args.labels.as_deref(), Split::Test, None, &network.input)?;
    let Some(truth) = &set.labels else { return Err(CliError::NoLabels { path: args.images.clone() }) };
    let classes = circuit.classes();
    if let Some((image, label)) = truth.iter().enumerate().find(|(_, label)| usize::from(**label) >= classes) {
        let place = args.labels.as_deref().unwrap_or(&args.images);
        return Err(CliError::content(
            place,
            format!("label of image {image}"),
            label,
            format!("one of {classes} classes"),
        ));
    }

    let start = Instant::now();
    context.progress.begin("evaluating", set.count as u64);
    let oracles =
        oracles::run(network, circuit, &set, context.threads.get(), &|images| context.progress.advance(images))?;
    context.progress.end();
    let elapsed = start.elapsed();

    let (float, integer) = (oracles.float_labels(), oracles.integer_labels());
    let (right_float, right_integer) = (same(&float, truth), same(&integer, truth));
    let agree = same(&float, &integer);
    let max_logit_difference = max_difference(&oracles.float, &oracles.integer);
    let count = set.count as u64;
    let held = args.decrypted.as_deref().map(|path| Held::read(path, truth, &integer, None)).transpose()?;

    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &network.name]);
    table.row(["images", &count.to_string()]);
    table.row(["accuracy, floats", &percent(right_float, count)]);
    table.row(["accuracy, integers", &percent(right_integer, count)]);
    table.row(["same label", &percent(agree, count)]);
    table.row(["largest logit difference", &format!("{max_logit_difference:.4}")]);
    if let Some(held) = &held {
        held.rows(&mut table);
    }
    table.row(["time", &timing(count, elapsed)]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": network.name,
            "model_id": package.model_id()?,
            "images": set.count,
            "accuracy_float": share(right_float, set.count),
            "accuracy_integer": share(right_integer, set.count),
            "agreement": share(agree, set.count),
            "max_logit_difference": max_logit_difference,
            "decrypted": held.as_ref().map(Held::json),
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}

fn timing(count: u64, elapsed: Duration) -> String {
    format!("{} ({})", human_duration(elapsed), human_rate(count, elapsed, "images"))
}
