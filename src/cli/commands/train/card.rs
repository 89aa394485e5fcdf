//! The model card: one page of Markdown on what a model is, what it was made from and what it costs.

use std::fmt::Write as _;
use std::time::Duration;

use super::pack::{Body, CircuitBody, Packed, TableBody};
use super::teacher::GivenTeacher;
use super::watch::in_percent;
use crate::cli::report::{human_duration, one_line};
use crate::format::ModelPackage;
use crate::net::network::{Granularity, Op};
use crate::train::{EpochRecord, Recipe};
use crate::worker::CODE_COMMIT;

/// First line of every card, so that one is told from other texts.
pub(super) const CARD_MARK: &str = "<!-- nightshift train: model card -->";

/// Labels of the test images by both clear readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TestFigures {
    pub(super) images: usize,
    /// Shares, 0 to 1.
    pub(super) float: f64,
    pub(super) integer: f64,
    pub(super) agreement: f64,
}

/// Labels of test images that were encrypted, run and decrypted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct EncryptedFigures {
    pub(super) images: usize,
    /// Shares, 0 to 1.
    pub(super) accuracy: f64,
    pub(super) agreement_integer: f64,
}

/// All that the card tells.
pub(super) struct Card<'a> {
    pub(super) packed: &'a Packed,
    /// File name of the package, for commands.
    pub(super) file: &'a str,
    /// File name of the curve.
    pub(super) curve: &'a str,
    pub(super) recipe: &'a Recipe,
    pub(super) recipe_text: &'a str,
    /// In place of one that the recipe trains.
    pub(super) teacher: Option<&'a GivenTeacher>,
    pub(super) created: &'a str,
    pub(super) training_images: usize,
    pub(super) drawn_images: usize,
    pub(super) class_names: Option<&'a [String]>,
    pub(super) data_digest: &'a str,
    pub(super) history: &'a [EpochRecord],
    /// Of this run alone: what an earlier one did before a resume is not in it.
    pub(super) elapsed: Duration,
    pub(super) resumed: bool,
    pub(super) threads: usize,
    pub(super) encrypted: Option<EncryptedFigures>,
}

impl Card<'_> {
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{CARD_MARK}\n# {}\n\n", self.recipe.name);
        self.head_into(&mut text);
        self.accuracy_into(&mut text);
        self.network_into(&mut text);
        match &self.packed.body {
            Body::Circuit(body) => {
                ranges_into(&body.package, &mut text);
                self.cost_into(body, &mut text);
            }
            Body::Tables(body) => tables_into(body, &mut text),
        }
        let _ = write!(text, "\n## Recipe\n\n```toml\n{}\n```\n", self.recipe_text.trim_end().replace("```", "` ` `"));
        text
    }

    fn head_into(&self, text: &mut String) {
        let [channels, rows, columns] = self.packed.network().input.shape;
        let data = if self.recipe.dataset.is_empty() { "the user's own" } else { &self.recipe.dataset };
        let mut table = Rows::new(text);
        table.row("model id", format!("`{}`", self.packed.model_id));
        table.row("data", cell(data));
        table.row("training images", format!("{}, {channels}x{rows}x{columns}", self.training_images));
        table.row("of these held out", self.recipe.data.held_out.to_string());
        if self.drawn_images > 0 {
            table.row("drawn digits added", self.drawn_images.to_string());
        }
        if let Some(names) = self.class_names {
            table.row("classes", cell(&names.join(", ")));
        }
        table.row("BLAKE3 of the training images", format!("`{}`", self.data_digest));
        if let Some(given) = self.teacher {
            let (name, digest) = (cell(&given.network.name), &given.digest);
            table.row("teacher, given", format!("{name}, BLAKE3 of its file `{digest}`"));
        }
        table.row("seed", self.recipe.seed.to_string());
        table.row("nightshift", format!("{}, commit {}", env!("CARGO_PKG_VERSION"), CODE_COMMIT.unwrap_or("unknown")));
        table.row("made", self.created.to_owned());
        let part = if self.resumed { " (since the last resume)" } else { "" };
        table.row("training time", format!("{}{part}, {} thread(s)", human_duration(self.elapsed), self.threads));
        let _ = write!(text, "\n![training curve]({})\n\n", self.curve);
    }

    fn accuracy_into(&self, text: &mut String) {
        *text += "## Accuracy\n\n";
        match self.packed.test {
            None => {
                *text += "No test images were given: nothing is known of images that were not trained on beyond the\n\
                              held-out ones below.\n\n"
            }
            Some(test) => {
                let _ = write!(
                    text,
                    "On {} test images that no step of the training saw. One image is {:.3} points.\n\n",
                    test.images,
                    100.0 / test.images as f64
                );
            }
        }
        *text += "| reading | accuracy | |\n|---|---|---|\n";
        if let Some(test) = self.packed.test {
            let _ = writeln!(text, "| floats, as trained | {} | |", in_percent(test.float));
            let note = format!("same label as floats: {}", in_percent(test.agreement));
            let reading = match self.packed.body {
                Body::Circuit(_) => "integers, as the worker uses them",
                Body::Tables(_) => "integers and tables, as the worker uses them",
            };
            let _ = writeln!(text, "| {reading} | {} | {note} |", in_percent(test.integer));
        }
        match (self.encrypted, self.packed.test) {
            (Some(found), _) => {
                let note = format!(
                    "first {} test images; same label as integers: {}",
                    found.images,
                    in_percent(found.agreement_integer)
                );
                let _ = writeln!(text, "| encrypted | {} | {note} |", in_percent(found.accuracy));
            }
            (None, Some(_)) => {
                let how = match self.packed.body {
                    Body::Circuit(_) => {
                        format!("`nightshift demo --data DIR --model {}`, or `train --encrypted-images N`", self.file)
                    }
                    Body::Tables(_) => {
                        "`keygen`, `encrypt`, `run`, `decrypt`, in builds with the exact engine".to_owned()
                    }
                };
                let _ = writeln!(text, "| encrypted | not run | {how} |");
            }
            (None, None) => {}
        }
        if let Some(last) = self.history.last() {
            let _ = writeln!(text, "| last epoch, training images (varied) | {} | |", in_percent(last.train_accuracy));
            if let Some(share) = last.held_out_accuracy {
                let note = "shown while training; settings may have been chosen by it";
                let _ = writeln!(text, "| last epoch, held-out images | {} | {note} |", in_percent(share));
            }
        }
    }

    fn network_into(&self, text: &mut String) {
        *text += "\n## Network\n\n| layer | what | output |\n|---|---|---|\n";
        let network = self.packed.network();
        let shapes = network.shapes().unwrap_or_default();
        for (index, layer) in network.layers.iter().enumerate() {
            let sides = shapes.get(index).into_iter().flatten().map(usize::to_string).collect::<Vec<_>>().join("x");
            let _ = writeln!(text, "| {} | {} | {sides} |", cell(&layer.name), describe(&layer.op));
        }
    }

    fn cost_into(&self, body: &CircuitBody, text: &mut String) {
        let (network, circuit) = (&body.package.network, &body.package.circuit);
        *text += "\n## Cost of an encrypted image\n\n";
        let mut table = Rows::new(text);
        table.row("multiply-accumulates", circuit.total_macs().to_string());
        table.row("activations", network.activations().map_or_else(|_| "-".to_owned(), |count| count.to_string()));
        table.row("squares", circuit.total_squares().to_string());
        table.row("squarings in a row", network.squarings().to_string());
        let parameters = &body.plan.parameters;
        table.row("ring", format!("degree {} = {} slots", parameters.degree(), body.plan.slots()));
        table.row("log2(QP)", format!("{:.1}", parameters.log_qp_bits()));
        let precision = &body.plan.precision;
        table.row("precision", format!("{:.1} bits promised", precision.promised_bits));
        let rate = format!("{:.0} images/s in full batches, {} thread(s)", body.images_per_second, self.threads);
        table.row("planned on this machine", rate);
    }
}

/// Ranges over all training images: of what each activation reads, of the logits, and the images that go farthest.
fn ranges_into(package: &ModelPackage, text: &mut String) {
    *text += "\n## Ranges\n\n";
    if let Some(report) = &package.ranges {
        let _ = write!(
            text,
            "Over all {} training images, of what each activation reads. The planner's headroom starts from the largest.\n\n\
             | layer | smallest | largest | rms | 99.9 % of magnitudes below | images beyond the calibration's largest | worst images: value |\n\
             |---|---|---|---|---|---|---|\n",
            report.images
        );
        let names = &package.network.layers;
        let layers = report.layers.iter().map(|range| (cell(&names[range.layer].name), &range.values));
        for (name, values) in layers.chain([("logits".to_owned(), &report.logits)]) {
            let worst: Vec<String> =
                values.worst.iter().take(4).map(|worst| format!("{}: {:.1}", worst.image, worst.value)).collect();
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.2} | {:.3} | {:.2} | {} (beyond {:.2}) | {} |",
                values.min,
                values.max,
                values.rms,
                values.quantile,
                values.images_beyond,
                values.limit,
                worst.join(", ")
            );
        }
        *text += "\n";
    }
    *text += "The circuit's stages, whose outputs are squared next:\n\n\
              | stage | bits of the integers | largest magnitude | largest root mean square |\n|---|---|---|---|\n";
    for stage in &package.circuit.stages {
        let (name, stats) = (cell(&stage.name), &stage.stats);
        let bits = stage.map.weight_bits;
        let _ = writeln!(text, "| {name} | {bits} | {:.3} | {:.3} |", stats.max_abs, stats.max_rms);
    }
}

/// What stands in the tables, what noise does to them, and what an image costs.
fn tables_into(body: &TableBody, text: &mut String) {
    let circuit = &body.package.circuit;
    let _ = write!(
        text,
        "\n## Tables\n\nRanges are those of {} training images, widened; outside them a sum wraps. Noise is one standard deviation \
         before the table.\n\n| stage | tables | bits of a table | bits of the integers | noise, boxes |\n|---|---|---|---|---|\n",
        body.calibration_images
    );
    for ((stage, bits), noise) in circuit.stages.iter().zip(&body.report.weight_bits).zip(&body.noise_boxes) {
        let (name, tables) = (cell(&stage.name), stage.rows.len());
        let _ = writeln!(text, "| {name} | {tables} | {} | {bits} | {noise:.3} |", stage.bits);
    }
    let last = body.report.weight_bits.last().copied().unwrap_or(0);
    let _ = writeln!(text, "| {} | - | - | {last} | - |", cell(&circuit.logits.name));
    if let Some(tally) = &body.tally {
        *text += "\n";
        let mut table = Rows::new(text);
        table.row("test images with a sum outside its table's range", format!("{} of {}", tally.outside, tally.images));
        let moved = format!("{:.1} of {} an image, by one box", tally.moved, circuit.neurons());
        table.row("tables that noise is predicted to move", moved);
        let unsure = format!("{} of {} (margin within 4 deviations)", tally.unsure, tally.images);
        table.row("test images whose label noise may change", unsure);
    }
    *text += "\n## Cost of an encrypted image\n\n";
    let mut table = Rows::new(text);
    table.row("multiply-accumulates", circuit.macs().to_string());
    table.row("programmable bootstraps, one a ReLU", circuit.neurons().to_string());
    table.row("ReLUs left out, the same for every image", body.report.constant_neurons.to_string());
}

/// A table of two columns without names.
struct Rows<'a>(&'a mut String);

impl<'a> Rows<'a> {
    fn new(text: &'a mut String) -> Rows<'a> {
        *text += "| | |\n|---|---|\n";
        Rows(text)
    }

    fn row(&mut self, name: &str, value: String) {
        let _ = writeln!(self.0, "| {name} | {value} |");
    }
}

/// Text from outside in one cell of a table.
fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|").replace('<', "&lt;")
}

fn describe(op: &Op) -> String {
    match op {
        Op::Conv2d { weight_shape: [out, inputs, rows, columns], stride, padding, groups, .. } => {
            let [top, left, bottom, right] = padding;
            let grouped = if *groups > 1 { format!(", {groups} groups") } else { String::new() };
            let channels = inputs * groups;
            format!(
                "{channels} -> {out} channels, kernel {rows}x{columns}, stride {stride}, padding {top} {left} {bottom} \
                 {right}{grouped}"
            )
        }
        Op::AvgPool2d { kernel, stride } => format!("mean of {kernel}x{kernel}, stride {stride}"),
        Op::Dense { weight_shape: [out, inputs], .. } => format!("{inputs} -> {out}"),
        Op::BatchNorm { gamma, .. } => format!("{} channels, folded into its neighbour", gamma.len()),
        Op::Poly2 { granularity, a, .. } => {
            let shared = match granularity {
                Granularity::Layer => "layer",
                Granularity::Channel => "channel",
                Granularity::Element => "element",
            };
            format!("a x^2 + b x + c, {} quadratics, one for each {shared}", a.len())
        }
        Op::Add { with } => format!("adds value {with}"),
        // What has no numbers of its own needs no words besides its name.
        _ => String::new(),
    }
}
