//! Packages that the exact engine serves: a network (ReLUs and all) and its table circuit, in full.
//!
//! Sections `tables.*` stand in place of `circuit.*`; metadata `engine` says `tfhe`. Everything is checked on reading and on
//! writing alike. Not here: whether the tables are those that quantising the network gives.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::check::check_network;
use super::json::Exact;
use super::network::{decode_network, encode_network};
use super::sections::{Numbers, PackedSection, Sections, decode_provenance, encode_provenance, json, numbers};
use super::{ENGINE, EngineKind, FILE_CAP_BYTES, MODEL_ID, model_id};
use crate::format::{Container, ContainerWriter, FormatError, Kind, OpenLimits};
use crate::net::network::Network;
use crate::net::tables::{LogitStage, Rows, TableCircuit, TableStage};

const NAME: &str = "tables.json";
const STARTS: &str = "tables.starts";
const COLUMNS: &str = "tables.columns";
const WEIGHTS: &str = "tables.weights";
const BIAS: &str = "tables.bias";
const VALUES: &str = "tables.values";
/// Widest table in a file: what a count is held to before it is multiplied.
const BITS_CAP: u32 = 16;

/// A model of the exact engine as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePackage {
    /// As trained.
    pub network: Network,
    /// As evaluated.
    pub circuit: TableCircuit,
    /// For people. Not part of the model id.
    pub provenance: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TablesJson {
    stages: Vec<StageJson>,
    logits: LogitsJson,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageJson {
    name: String,
    rows: usize,
    bits: u32,
    log2_box: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogitsJson {
    name: String,
    rows: usize,
    log2_range: u32,
    unit: Exact,
}

impl TablePackage {
    /// Writes the package, replacing `path`; returns the model id.
    ///
    /// # Errors
    /// A package that [`TablePackage::open`] would refuse, and those of [`ContainerWriter`].
    pub fn write(&self, path: &Path) -> Result<String, FormatError> {
        let packed = self.pack().map_err(|error| error.in_file(path))?;
        let id = model_id(packed.iter());
        let engine = EngineKind::Tfhe.name().to_owned();
        let metadata = BTreeMap::from([(MODEL_ID.to_owned(), id.clone()), (ENGINE.to_owned(), engine)]);
        let specs: Vec<_> = packed.iter().map(|section| section.spec.clone()).collect();
        let writer = ContainerWriter::create(path, Kind::Model, &metadata, &specs)?;
        for section in &packed {
            writer.write_at(&section.spec.name, 0, &section.bytes)?;
        }
        writer.finish()?;
        Ok(id)
    }

    /// Reads and checks a package, digests and model id included. Files above 4 GiB are refused.
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] for a package of the other engine; the rest for damage.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let limits = OpenLimits { file_bytes: FILE_CAP_BYTES, ..OpenLimits::default() };
        let container = Container::open(path, Some(Kind::Model), &limits)?;
        EngineKind::Tfhe.expect(&container)?;
        container.verify()?;
        let package = Self::unpack(&container).map_err(|error| error.in_file(path))?;
        let (found, expected) = (container.metadata(MODEL_ID)?, package.model_id()?);
        if found != expected {
            return Err(FormatError::invalid(MODEL_ID, found, expected).in_file(path));
        }
        Ok(package)
    }

    /// BLAKE3 (hexadecimal) over all sections but provenance.
    ///
    /// # Errors
    /// An inconsistent package.
    pub fn model_id(&self) -> Result<String, FormatError> {
        Ok(model_id(self.pack()?.iter()))
    }

    fn check(&self) -> Result<(), FormatError> {
        check_network(&self.network)?;
        self.network.validate()?;
        self.circuit.validate()?;
        let shapes = (self.circuit.input_shape, self.network.input.shape);
        if shapes.0 != shapes.1 {
            let (found, expected) = (format!("{:?}", shapes.0), format!("{:?}", shapes.1));
            return Err(FormatError::invalid("input shape of the tables", found, expected));
        }
        let (found, expected) = (self.circuit.classes(), self.network.classes()?);
        if found == expected { Ok(()) } else { Err(FormatError::invalid("classes of the tables", found, expected)) }
    }

    /// All sections that are not empty, in file order.
    fn pack(&self) -> Result<Vec<PackedSection>, FormatError> {
        self.check()?;
        let mut packed = Vec::new();
        encode_network(&self.network, &mut packed)?;
        encode_tables(&self.circuit, &mut packed)?;
        encode_provenance(&self.provenance, &mut packed)?;
        packed.retain(|section| !section.bytes.is_empty());
        Ok(packed)
    }

    fn unpack(container: &Container) -> Result<Self, FormatError> {
        let mut sections = Sections::new(container);
        let network = decode_network(&mut sections)?;
        let circuit = decode_tables(&mut sections, network.input.shape)?;
        let package = Self { network, circuit, provenance: decode_provenance(&mut sections)? };
        sections.all_read()?;
        package.check()?;
        Ok(package)
    }
}

fn encode_tables(circuit: &TableCircuit, packed: &mut Vec<PackedSection>) -> Result<(), FormatError> {
    let stages = circuit.stages.iter().map(|stage| StageJson {
        name: stage.name.clone(),
        rows: stage.rows.len(),
        bits: stage.bits,
        log2_box: stage.log2_box,
    });
    let LogitStage { name, rows, log2_range, unit } = &circuit.logits;
    let logits = LogitsJson { name: name.clone(), rows: rows.len(), log2_range: *log2_range, unit: Exact(*unit) };
    packed.push(json(NAME, &TablesJson { stages: stages.collect(), logits })?);
    let all: Vec<&Rows> = circuit.stages.iter().map(|stage| &stage.rows).chain([&circuit.logits.rows]).collect();
    let starts: Vec<u32> = all.iter().flat_map(|rows| rows.starts.iter().copied()).collect();
    let columns: Vec<u32> = all.iter().flat_map(|rows| rows.columns.iter().copied()).collect();
    let weights: Vec<i16> = all.iter().flat_map(|rows| rows.weights.iter().copied()).collect();
    // Whole numbers below 2^53, so that a double holds each.
    let bias: Vec<f64> = all.iter().flat_map(|rows| rows.bias.iter().map(|&bias| bias as f64)).collect();
    let values: Vec<i16> = circuit.stages.iter().flat_map(|stage| stage.values.iter().copied()).collect();
    packed.push(numbers(STARTS, &[starts.len()], &starts));
    packed.push(numbers(COLUMNS, &[columns.len()], &columns));
    packed.push(numbers(WEIGHTS, &[weights.len()], &weights));
    packed.push(numbers(BIAS, &[bias.len()], &bias));
    packed.push(numbers(VALUES, &[values.len()], &values));
    Ok(())
}

/// The bulk sections, read from front to back.
struct Bulk<'a> {
    starts: Numbers<'a, u32>,
    columns: Numbers<'a, u32>,
    weights: Numbers<'a, i16>,
    bias: Numbers<'a, f64>,
    values: Numbers<'a, i16>,
}

impl Bulk<'_> {
    fn rows(&mut self, count: usize) -> Result<Rows, FormatError> {
        let starts = self.starts.take(count.saturating_add(1))?;
        let entries = starts.last().map_or(0, |&last| last as usize);
        let (columns, weights) = (self.columns.take(entries)?, self.weights.take(entries)?);
        let bias = self.bias.take(count)?;
        if let Some(found) = bias.iter().find(|bias| bias.round() != **bias || bias.abs() > (1_i64 << 52) as f64) {
            return Err(FormatError::invalid(format!("number in {BIAS}"), found, "a whole number of at most 2^52"));
        }
        Ok(Rows { starts, columns, weights, bias: bias.into_iter().map(|bias| bias as i64).collect() })
    }
}

fn decode_tables(sections: &mut Sections<'_>, input_shape: [usize; 3]) -> Result<TableCircuit, FormatError> {
    let TablesJson { stages, logits } = sections.json(NAME)?;
    let mut bulk = Bulk {
        starts: sections.numbers(STARTS, &[])?,
        columns: sections.numbers(COLUMNS, &[])?,
        weights: sections.numbers(WEIGHTS, &[])?,
        bias: sections.numbers(BIAS, &[])?,
        values: sections.numbers(VALUES, &[])?,
    };
    let mut decoded = Vec::new();
    for StageJson { name, rows, bits, log2_box } in stages {
        if bits > BITS_CAP {
            return Err(FormatError::invalid(format!("{name}: bits of a table"), bits, format!("at most {BITS_CAP}")));
        }
        let sums = bulk.rows(rows)?;
        let values = bulk.values.take(rows.saturating_mul(1 << bits))?;
        decoded.push(TableStage { name, rows: sums, bits, log2_box, values });
    }
    let rows = bulk.rows(logits.rows)?;
    let logits = LogitStage { name: logits.name, rows, log2_range: logits.log2_range, unit: logits.unit.0 };
    bulk.starts.end()?;
    bulk.columns.end()?;
    bulk.weights.end()?;
    bulk.bias.end()?;
    bulk.values.end()?;
    Ok(TableCircuit { input_shape, stages: decoded, logits })
}
