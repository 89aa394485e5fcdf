//! `inspect`: what any file of ours is, its ids, sizes and sections, with every digest checked. Of a secret key only its
//! kind, version, key id and length are told.
//!
//! A manifest or receipt is described with the files it names: those that are there are held to their digests, those
//! that are not are called absent.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jobs::manifest::{self, LoadedJob, MANIFEST_LIMIT_BYTES};
use jobs::receipt::{Outcome, RECEIPT_LIMIT_BYTES, Receipt};
use jobs::signing::{SCHEMA, Signature};
use jobs::{ExitCode, FileRole, JobsError};
use serde_json::{Map, Value, json};

use super::Report;
use crate::cli::args::InspectArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::format::{Container, EngineKind, Kind, ModelPackage, OpenLimits, TablePackage, VERSION};
use crate::net::Network;
use crate::net::ranges::{RangeReport, ValueRange};

/// Describes the file.
///
/// # Errors
/// A file that is none of ours, is damaged, or names files that are not the ones it says.
pub fn run(args: &InspectArgs) -> Result<Report, CliError> {
    let path = args.file.as_path();
    match document_schema(path)? {
        Some(schema) if schema.starts_with("nightshift.receipt/") => receipt(path),
        Some(schema) if schema.starts_with("nightshift.signature/") => signature(path),
        Some(_) => job(path),
        None => container(path),
    }
}

/// The word `nightshift.*` that the file gives as its schema, if it is a text that has one. Containers are no text.
fn document_schema(path: &Path) -> Result<Option<String>, CliError> {
    let read_error = |source| CliError::Read { path: path.to_owned(), source };
    // Looked at before opening, because opening a pipe waits for its writer.
    let status = std::fs::metadata(path).map_err(read_error)?;
    if !status.is_file() || status.len() > RECEIPT_LIMIT_BYTES.max(MANIFEST_LIMIT_BYTES) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(RECEIPT_LIMIT_BYTES).read_to_end(&mut bytes)).map_err(read_error)?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    if text.contains('\0') {
        return Ok(None);
    }
    let quoted = text.split('"').find(|word| word.starts_with("nightshift.") && word.contains('/'));
    Ok(quoted.map(str::to_owned))
}

/// Rows for people and fields for programs, gathered together.
struct Facts {
    table: Table,
    fields: Map<String, Value>,
}

impl Facts {
    fn new() -> Facts {
        Facts { table: Table::new(&[("", Align::Left), ("", Align::Left)]), fields: Map::new() }
    }

    fn add(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.table.row([name, &shown]);
        self.fields.insert(name.to_owned(), value);
    }

    fn add_bytes(&mut self, name: &str, bytes: u64) {
        self.table.row([name, &human_bytes(bytes)]);
        self.fields.insert(name.to_owned(), bytes.into());
    }

    fn report(self) -> Report {
        Report { text: self.table.to_string(), json: Value::Object(self.fields) }
    }
}

fn container(path: &Path) -> Result<Report, CliError> {
    let container = Container::open(path, None, &OpenLimits::default())?;
    container.verify()?;
    let mut facts = Facts::new();
    facts.add("kind", container.kind().name());
    facts.add("version", VERSION);
    facts.add_bytes("file_bytes", container.file_bytes());
    facts.add("verified", true);
    if container.kind().is_secret() {
        facts.add("key_id", container.metadata("key_id")?);
        return Ok(facts.report());
    }
    facts.add("content_id", container.content_id());
    facts.add("file_blake3", container.file_digest());
    for (key, value) in container.metadata_entries() {
        if !key.starts_with("digest.") && key != "kind" && key != "version" {
            facts.add(key, value);
        }
    }
    if container.kind() == Kind::Model {
        model(path, &mut facts)?;
    }
    let mut sections = Vec::new();
    for section in container.sections() {
        let (dtype, bytes) = (format!("{:?}", section.dtype), section.bytes.len() as u64);
        let place = format!("{}: {dtype} {:?}, {}", section.name, section.shape, human_bytes(bytes));
        facts.table.row(["section", &place]);
        let digest = container.metadata_opt(&format!("digest.{}", section.name)).unwrap_or_default();
        sections.push(json!({
            "name": section.name, "dtype": dtype, "shape": section.shape, "bytes": bytes, "blake3": digest,
        }));
    }
    facts.fields.insert("sections".to_owned(), sections.into());
    Ok(facts.report())
}

fn tables(path: &Path, facts: &mut Facts) -> Result<(), CliError> {
    let TablePackage { network, circuit, provenance } = TablePackage::open(path)?;
    facts.add("engines", vec!["tfhe"]);
    facts.add("name", network.name.as_str());
    facts.add("dataset", network.dataset.as_str());
    facts.add("input_shape", network.input.shape.to_vec());
    facts.add("layers", network.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>());
    let stages = circuit.stages.iter().map(|stage| stage.name.clone()).chain([circuit.logits.name.clone()]);
    facts.add("stages", stages.collect::<Vec<_>>());
    facts.add("table_bits", circuit.stages.iter().map(|stage| stage.bits).collect::<Vec<_>>());
    facts.add("macs", circuit.macs());
    facts.add("bootstraps", circuit.neurons());
    for (key, value) in &provenance {
        facts.table.row([&format!("provenance {key}"), value]);
    }
    facts.fields.insert("provenance".to_owned(), json!(provenance));
    Ok(())
}

fn model(path: &Path, facts: &mut Facts) -> Result<(), CliError> {
    if EngineKind::of_file(path, Some(Kind::Model))? == EngineKind::Tfhe {
        return tables(path, facts);
    }
    let package = ModelPackage::open(path)?;
    facts.add("engines", vec!["ckks"]);
    facts.add("name", package.network.name.as_str());
    facts.add("dataset", package.network.dataset.as_str());
    facts.add("input_shape", package.network.input.shape.to_vec());
    facts.add("layers", package.network.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>());
    let stages = package.circuit.stages.iter().map(|stage| stage.name.clone());
    facts.add("stages", stages.collect::<Vec<_>>());
    let bits = package.circuit.stages.iter().map(|stage| stage.map.weight_bits);
    facts.add("weight_bits", bits.collect::<Vec<_>>());
    facts.add("macs", package.circuit.total_macs());
    facts.add("squarings", package.circuit.total_squares());
    facts.add("circuit_form", if package.lowering.is_some() { "made from the network" } else { "stored" });
    facts.add("canaries", package.canaries.len());
    if let Some(report) = &package.ranges {
        ranges(report, &package.network, facts);
    }
    for (key, value) in &package.provenance {
        facts.table.row([&format!("provenance {key}"), value]);
    }
    facts.fields.insert("provenance".to_owned(), json!(package.provenance));
    Ok(())
}

/// One row a quadratic layer and one for the logits, then the images that went farthest.
fn ranges(report: &RangeReport, network: &Network, facts: &mut Facts) {
    facts.table.row(["range images", &report.images.to_string()]);
    let mut add = |name: &str, range: &ValueRange| {
        let figures = format!("{:.4} to {:.4}, rms {:.4}", range.min, range.max, range.rms);
        let tail =
            format!("99.9 % within {:.4}, {} images beyond {:.4}", range.quantile, range.images_beyond, range.limit);
        facts.table.row([&format!("range {name}"), &format!("{figures}, {tail}")]);
        let worst: Vec<Value> =
            range.worst.iter().map(|worst| json!({"image": worst.image, "value": worst.value})).collect();
        json!({
            "name": name, "min": range.min, "max": range.max, "rms": range.rms, "quantile_999": range.quantile,
            "limit": range.limit, "images_beyond": range.images_beyond, "worst": worst,
        })
    };
    let mut fields: Vec<Value> =
        report.layers.iter().map(|range| add(&network.layers[range.layer].name, &range.values)).collect();
    fields.push(add("logits", &report.logits));
    let worst = report.worst_images();
    let named = worst
        .iter()
        .map(|(layer, worst)| format!("{} ({:.4} in {})", worst.image, worst.value, network.layers[*layer].name));
    facts.table.row(["range worst images", &named.collect::<Vec<_>>().join(", ")]);
    facts.fields.insert("ranges".to_owned(), json!({"images": report.images, "values": fields}));
}

fn job(path: &Path) -> Result<Report, CliError> {
    let job = manifest::load(path)?;
    let manifest = job.manifest();
    let mut facts = Facts::new();
    facts.add("kind", "job");
    facts.add("schema", manifest.schema.as_str());
    facts.add("job_id", manifest.job_id.as_str());
    if let Some(tenant) = &manifest.tenant {
        facts.add("tenant", tenant.as_str());
    }
    facts.add("created", manifest.created.as_str());
    facts.add("engine", manifest.engine.as_str());
    facts.add("plan_id", manifest.plan_id.as_str());
    facts.add("key_id", manifest.key_id.as_str());
    facts.add("images", manifest.images);
    facts.add("slots", manifest.slots);
    facts.add("batches", manifest.batches.len());
    facts.add("model", manifest.model.name.as_str());
    facts.add("model_blake3", manifest.model.digest.to_string());
    facts.add("model_file", state(job.verify_model(None).map(drop))?);
    facts.add("eval_key_file", state(job.verify_eval_key(None).map(drop))?);
    facts.add("input_bytes", manifest.batches.iter().map(|batch| batch.input.bytes).sum::<u64>());
    let mut inputs = Vec::new();
    for index in 0..manifest.batches.len() {
        inputs.push(state(input(&job, index))?);
    }
    let absent = inputs.iter().filter(|state| **state == ABSENT).count();
    facts.add("inputs_verified", inputs.len() - absent);
    facts.add("inputs_absent", absent);
    let receipt_path = job.receipt_path()?;
    facts.add("receipt", if receipt_path.exists() { "there" } else { ABSENT });
    Ok(facts.report())
}

const ABSENT: &str = "absent";

/// `verified` or `absent`; an error where it is there and not what it should be.
fn state(checked: jobs::Result<()>) -> Result<&'static str, CliError> {
    match checked {
        Ok(()) => Ok("verified"),
        Err(error) if error.exit_code() == ExitCode::InputMissing => Ok(ABSENT),
        Err(error) => Err(error.into()),
    }
}

fn input(job: &LoadedJob, index: usize) -> Result<(), JobsError> {
    let batch = &job.manifest().batches[index];
    let path = job.input_path(batch)?;
    manifest::check_size(FileRole::Input(index), &path, batch.input.bytes)?;
    manifest::check_digest(FileRole::Input(index), &path, batch.input.digest)
}

/// Of the signature alone: whether it is its document's, `verify` and the worker say.
fn signature(path: &Path) -> Result<Report, CliError> {
    let signature = Signature::load(path)?;
    let mut facts = Facts::new();
    facts.add("kind", "signature");
    facts.add("schema", SCHEMA);
    facts.add("purpose", signature.purpose().to_string());
    facts.add("key", signature.key().to_string());
    facts.add("expires_unix_secs", signature.expires_unix_secs());
    Ok(facts.report())
}

fn receipt(path: &Path) -> Result<Report, CliError> {
    let receipt = Receipt::load(path)?;
    let mut facts = Facts::new();
    facts.add("kind", "receipt");
    facts.add("schema", receipt.schema.as_str());
    facts.add("job_id", receipt.job_id.as_str());
    match &receipt.outcome {
        Outcome::Done => facts.add("outcome", "done"),
        Outcome::Failed { reason, exit_code } => {
            facts.add("outcome", "failed");
            facts.add("reason", reason.as_str());
            facts.add("exit_code", exit_code.code());
        }
    }
    facts.add("plan_id", receipt.plan_id.as_str());
    facts.add("key_id", receipt.key_id.as_str());
    facts.add("images", receipt.images);
    facts.add("slots", receipt.slots);
    facts.add("batches", receipt.batches.len());
    facts.add("code_version", receipt.code_version.as_str());
    if let Some(commit) = &receipt.code_commit {
        facts.add("code_commit", commit.as_str());
    }
    facts.add("attempts", receipt.attempts);
    facts.add("isa", receipt.isa.as_str());
    facts.add("threads", receipt.threads);
    facts.add("elapsed_secs", receipt.measured.elapsed_secs);
    let elapsed = std::time::Duration::try_from_secs_f64(receipt.measured.elapsed_secs).unwrap_or_default();
    facts.table.row(["elapsed", &human_duration(elapsed)]);
    facts.add_bytes("peak_bytes", receipt.measured.peak_bytes);
    facts.add_bytes("output_bytes", receipt.measured.output_bytes);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    facts.add("outputs", state(receipt.verify_outputs(folder))?);
    Ok(facts.report())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::calibration::Ranges;
    use crate::net::sample::{random_images, random_network};
    use crate::net::{LowerOptions, Lowering};

    #[test]
    fn ranges_of_a_package_are_shown_by_layer_with_the_worst_images() {
        let network = random_network(3, 2, false);
        let images = random_images(&network, 40, 1);
        let ranges = Ranges::measure(&network, &images).unwrap();
        let lowering = Lowering::decide(&network, &LowerOptions::default(), &ranges).unwrap();
        let circuit = lowering.measured_circuit(&network, &images).unwrap();
        let limits = Ranges::measure(&network, &images.first(10)).unwrap().limits();
        let report = network.observe_ranges(&images.x, 40, 0, &limits).unwrap().report();
        let package = ModelPackage {
            network,
            circuit,
            lowering: Some(lowering),
            canaries: Vec::new(),
            ranges: Some(report.clone()),
            provenance: std::collections::BTreeMap::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.nsm");
        package.write(&path).unwrap();
        let shown = run(&InspectArgs { file: path }).unwrap();
        assert_eq!(shown.json["circuit_form"], "made from the network");
        let section = shown.json["sections"].as_array().unwrap().iter().find(|place| place["name"] == "lowering.json");
        assert!(section.unwrap()["bytes"].as_u64().unwrap() > 100, "{}", shown.text);
        assert_eq!(shown.json["ranges"]["images"], 40);
        let values = shown.json["ranges"]["values"].as_array().unwrap();
        assert_eq!(values.len(), 3);
        assert_eq!((&values[2]["name"], &values[2]["max"]), (&"logits".into(), &report.logits.max.into()));
        for range in &report.layers {
            let beyond = format!("{} images beyond {:.4}", range.values.images_beyond, range.values.limit);
            assert!(shown.text.contains(&package.network.layers[range.layer].name), "{}", shown.text);
            assert!(shown.text.contains(&beyond), "{}", shown.text);
        }
        let worst = report.layers.iter().map(|range| range.values.worst[0]);
        let worst = worst.max_by(|left, right| left.value.abs().total_cmp(&right.value.abs())).unwrap();
        assert!(shown.text.contains(&format!("{} ({:.4} in", worst.image, worst.value)), "{}", shown.text);
    }
}
