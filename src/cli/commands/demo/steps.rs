//! The demo's figures: seconds a step, and the table and object at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::compare::{Comparison, Tie};
use super::secs_since;
use crate::ckks::security;
use crate::cli::commands::Report;
use crate::cli::report::{Align, Table, human_bytes, human_duration, percent};
use crate::client::{DecryptReport, EncryptReport, KeygenReport};
use crate::plan::Plan;
use crate::worker::RunReport;

/// Seconds of each step, in order.
pub(in crate::cli) struct Steps {
    start: Instant,
    last: Instant,
    secs: Vec<(&'static str, f64)>,
}

impl Steps {
    pub(in crate::cli) fn new() -> Steps {
        let now = Instant::now();
        Steps { start: now, last: now, secs: Vec::new() }
    }

    /// The step that began at the last end is over.
    pub(super) fn end(&mut self, name: &'static str) {
        self.secs.push((name, secs_since(self.last)));
        self.last = Instant::now();
    }

    fn of(&self, name: &str) -> f64 {
        self.secs.iter().find(|(step, _)| *step == name).map_or(0.0, |(_, secs)| *secs)
    }
}

/// All that is told at the end.
pub(super) struct Figures<'a> {
    pub(super) model: &'a str,
    /// The images were drawn, not read.
    pub(super) drawn: bool,
    pub(super) plan: &'a Plan,
    pub(super) made: &'a KeygenReport,
    pub(super) encrypted: &'a EncryptReport,
    pub(super) ran: &'a RunReport,
    pub(super) decrypted: &'a DecryptReport,
    pub(super) comparison: &'a Comparison,
    /// Folder that stays.
    pub(super) kept: Option<&'a Path>,
    pub(super) steps: &'a Steps,
}

impl Figures<'_> {
    pub(super) fn report(&self) -> Report {
        Report { text: self.text(), json: self.json() }
    }

    fn per_second(&self, step: &str) -> f64 {
        self.encrypted.images as f64 / self.steps.of(step).max(1e-9)
    }

    fn bytes_an_image(&self, bytes: u64) -> f64 {
        bytes as f64 / self.encrypted.images.max(1) as f64
    }

    fn text(&self) -> String {
        let (made, ran, comparison) = (self.made, self.ran, self.comparison);
        let images = self.encrypted.images;
        let mut steps = Table::new(&[("step", Align::Left), ("time", Align::Right), ("images/s", Align::Right)]);
        for &(step, secs) in &self.steps.secs {
            let rate = match step {
                "encrypt" | "run" | "decrypt" | "compare" => format!("{:.0}", self.per_second(step)),
                _ => String::new(),
            };
            steps.row([step, &human_duration(Duration::try_from_secs_f64(secs).unwrap_or_default()), &rate]);
        }
        let total = human_duration(self.steps.start.elapsed());
        steps.row(["all", &total, ""]);

        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        let source = if self.drawn { "drawn by this program" } else { "read from the data set" };
        let share = |share: f64| percent((share * images as f64).round() as u64, images as u64);
        table.row(["images", &format!("{images}, {source}")]);
        table.row(["model", self.model]);
        let slots = self.plan.slots();
        table.row(["ring", &format!("degree {} = {slots} slots, {} batch(es)", made.degree, self.encrypted.batches)]);
        let limit = security::row(made.degree).map_or(0, |row| row.classical_bits);
        let log_qp = made.log_qp_bits;
        table.row(["security", &format!("{} bits: log2(QP) {log_qp:.1}, at most {limit}", made.security_bits)]);
        table.row(["upload an image", &human_bytes(self.bytes_an_image(self.encrypted.upload_bytes).round() as u64)]);
        table.row(["result an image", &human_bytes(self.bytes_an_image(ran.output_bytes).round() as u64)]);
        table.row(["peak memory", &human_bytes(ran.peak_bytes)]);
        table.row(["computed with", &format!("{}, {} thread(s)", ran.isa, ran.threads)]);
        table.row(["accuracy, encrypted", &share(comparison.accuracy_encrypted)]);
        table.row(["accuracy, in the clear", &share(comparison.accuracy_clear)]);
        table.row(["labels as the integers'", &share(comparison.agreement_integer)]);
        table.row(["labels as the floats'", &share(comparison.agreement_float)]);
        let promised = self.encrypted.promised_bits;
        let precision = comparison.precision_bits;
        // Told finer than `decrypt` tells it: a test of the program on the user's own images, under a key made for it.
        table.row(["precision", &format!("{precision:.1} bits ({promised:.1} promised)")]);
        if let Some(bits) = comparison.precision_beyond_bits {
            let images = comparison.beyond.len();
            table.row(["beyond the calibration", &format!("{images} image(s), {bits:.1} bits, not promised")]);
        }
        let known = format!("{} in unused slots came out", self.decrypted.canaries);
        table.row(["known answers", &known]);
        for Tie { image, encrypted, integer, gap } in &comparison.ties {
            table.row(["tie", &format!("image {image}: {encrypted} for {integer}, logits {gap:.1e} apart")]);
        }
        if let Some(folder) = self.kept {
            table.row(["keys and job", &folder.display().to_string()]);
        }
        format!("{steps}\n{table}")
    }

    fn json(&self) -> Value {
        let (made, ran, comparison) = (self.made, self.ran, self.comparison);
        let mut seconds: Map<String, Value> =
            self.steps.secs.iter().map(|&(step, secs)| (step.to_owned(), secs.into())).collect();
        seconds.insert("total".to_owned(), secs_since(self.steps.start).into());
        json!({
            "model": self.model,
            "images_source": if self.drawn { "drawn" } else { "data" },
            "images": self.encrypted.images,
            "batches": self.encrypted.batches,
            "slots": self.plan.slots(),
            "ring_degree": made.degree,
            "log_qp": made.log_qp_bits,
            "security_bits": made.security_bits,
            "plan_id": made.plan_id,
            "accuracy_encrypted": comparison.accuracy_encrypted,
            "accuracy_clear": comparison.accuracy_clear,
            "agreement_integer": comparison.agreement_integer,
            "agreement_float": comparison.agreement_float,
            "precision_bits": comparison.precision_bits,
            "promised_bits": self.encrypted.promised_bits,
            "beyond_calibration": comparison.beyond,
            "precision_beyond_bits": comparison.precision_beyond_bits,
            "ties": comparison.ties.iter().map(Tie::json).collect::<Vec<_>>(),
            "canaries": self.decrypted.canaries,
            "encrypt_images_per_second": self.per_second("encrypt"),
            "images_per_second": ran.images_per_second,
            "decrypt_images_per_second": self.per_second("decrypt"),
            "upload_bytes_per_image": self.bytes_an_image(self.encrypted.upload_bytes),
            "result_bytes_per_image": self.bytes_an_image(ran.output_bytes),
            "evaluation_key_bytes": made.evaluation_key.file_bytes,
            "peak_bytes": ran.peak_bytes,
            "isa": ran.isa,
            "threads": ran.threads,
            "seconds": seconds,
        })
    }
}
