//! `evaluate` of a model with tables: the network as trained, the tables, and what noise will do to them.

use std::time::Instant;

use packing::Split;
use serde_json::json;

use crate::cli::args::EvaluateArgs;
use crate::cli::commands::{Context, Report};
use crate::cli::decrypted::Held;
use crate::cli::error::CliError;
use crate::cli::oracles::share;
use crate::cli::report::{Align, Table, human_duration, human_rate, percent};
use crate::cli::{images, tables};
use crate::format::TablePackage;

/// Runs both oracles over the images (the test split of a data set's folder) and counts.
///
/// # Errors
/// A package, images or labels that cannot be read or do not fit each other.
pub(in crate::cli::commands) fn evaluate(args: &EvaluateArgs, context: &Context) -> Result<Report, CliError> {
    let package = TablePackage::open(&args.model)?;
    let set = images::load(&args.images, args.labels.as_deref(), Split::Test, None, &package.network.input)?;
    let Some(truth) = &set.labels else { return Err(CliError::NoLabels { path: args.images.clone() }) };
    let start = Instant::now();
    context.progress.begin("evaluating", set.count as u64);
    let readings = tables::read(&package, &set, context.threads.get(), &|images| context.progress.advance(images))?;
    context.progress.end();
    let elapsed = start.elapsed();
    let found = tables::Tally::of(&readings, truth);
    let count = set.count as u64;
    let integer: Vec<u16> = readings.iter().map(tables::Reading::integer_label).collect();
    let explains = |image: usize, label: u16| match args.labels_only {
        true => readings[image].may_be_told(label),
        false => readings[image].may_be.get(usize::from(label)) == Some(&true),
    };
    let explains: Option<&dyn Fn(usize, u16) -> bool> = if cfg!(feature = "exact") { Some(&explains) } else { None };
    let held = args.decrypted.as_deref().map(|path| Held::read(path, truth, &integer, explains)).transpose()?;

    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &package.network.name]);
    table.row(["images", &count.to_string()]);
    table.row(["accuracy, floats", &percent(found.right_float, count)]);
    table.row(["accuracy, tables", &percent(found.right_integer, count)]);
    table.row(["same label", &percent(found.agree, count)]);
    table.row(["largest logit difference", &format!("{:.4}", found.difference)]);
    table.row(["outside the tables' ranges", &format!("{} image(s)", found.outside)]);
    if cfg!(feature = "exact") {
        let neurons = package.circuit.neurons();
        table.row(["tables moved by noise", &format!("{:.1} of {neurons} an image, by one box", found.moved)]);
        let text = format!("{} image(s) with a margin within 4 deviations", found.unsure);
        table.row(["labels that noise may change", &text]);
    }
    if let Some(held) = &held {
        held.rows(&mut table);
    }
    table.row(["time", &format!("{} ({})", human_duration(elapsed), human_rate(count, elapsed, "images"))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": package.network.name,
            "model_id": package.model_id()?,
            "engine": "tfhe",
            "images": set.count,
            "accuracy_float": share(found.right_float, set.count),
            "accuracy_integer": share(found.right_integer, set.count),
            "agreement": share(found.agree, set.count),
            "max_logit_difference": found.difference,
            "outside_ranges": found.outside,
            "decrypted": held.as_ref().map(Held::json),
            "moved_tables": cfg!(feature = "exact").then_some(found.moved),
            "unsure_labels": cfg!(feature = "exact").then_some(found.unsure),
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}
