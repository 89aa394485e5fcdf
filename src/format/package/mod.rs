//! Model packages, `.nsm`: the network as trained, the integer circuit made of it, canaries and provenance in one file.
//!
//! A container of kind `model`; `FORMATS.md` lists its sections. Writing the same package twice gives the same bytes.
//! Everything is checked on reading and on writing alike, so that an accepted package has consistent lengths, indices
//! in range, finite reals, no output that is constant, and a network and a circuit that are valid each by itself and take
//! and give the same shapes. Not here: whether the two compute the same (see `net`), any key.

mod check;
mod circuit;
mod json;
mod network;
mod ranges;
mod sections;

use std::collections::BTreeMap;
use std::path::Path;

use crate::net::circuit::Circuit;
use crate::net::network::Network;
use crate::net::ranges::RangeReport;

use check::{check_canaries, check_circuit, check_network};
use circuit::{decode_circuit, encode_circuit};
use network::{decode_network, encode_network};
use ranges::{decode_ranges, encode_ranges};
use sections::{
    PROVENANCE, PackedSection, Sections, decode_canaries, decode_provenance, encode_canaries, encode_provenance,
};

use super::{Container, ContainerWriter, FormatError, Kind, OpenLimits};

/// Longest package accepted.
const FILE_CAP_BYTES: u64 = 1 << 32;
/// Metadata key of the model id.
const MODEL_ID: &str = "model_id";
/// First line of the text whose hash is the model id.
const MODEL_ID_FIRST_LINE: &str = "nightshift model 1\n";

/// An input with the logits that the integer oracle gives for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// Normalised image, channels x rows x columns entries in that order.
    pub input: Vec<f32>,
    /// One per output of the last stage.
    pub logits: Vec<f64>,
}

/// A model as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPackage {
    /// As trained.
    pub network: Network,
    /// As evaluated.
    pub circuit: Circuit,
    /// Known answers; may be empty.
    pub canaries: Vec<Canary>,
    /// How large the network's values were over the training set; absent in packages made without one.
    pub ranges: Option<RangeReport>,
    /// For people: where it came from, which command made it. Not part of the model id.
    pub provenance: BTreeMap<String, String>,
}

impl ModelPackage {
    /// Writes the package, replacing `path`; returns the model id. Errors: a package that [`ModelPackage::open`] would
    /// refuse, and those of [`ContainerWriter`].
    pub fn write(&self, path: &Path) -> Result<String, FormatError> {
        let packed = self.pack().map_err(|error| error.in_file(path))?;
        let id = model_id(&packed);
        let metadata = BTreeMap::from([(MODEL_ID.to_string(), id.clone())]);
        let specs: Vec<_> = packed.iter().map(|section| section.spec.clone()).collect();
        let writer = ContainerWriter::create(path, Kind::Model, &metadata, &specs)?;
        for section in &packed {
            writer.write_at(&section.spec.name, 0, &section.bytes)?;
        }
        writer.finish()?;
        Ok(id)
    }

    /// Reads and checks a package, digests and model id included. Files above 4 GiB are refused.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let limits = OpenLimits { file_bytes: FILE_CAP_BYTES, ..OpenLimits::default() };
        let container = Container::open(path, Some(Kind::Model), &limits)?;
        container.verify()?;
        let package = Self::unpack(&container).map_err(|error| error.in_file(path))?;
        // Computed from what was understood, not from the bytes: so a model has one id however its JSON is spelled.
        let (found, expected) = (container.metadata(MODEL_ID)?, package.model_id()?);
        if found != expected { Err(FormatError::invalid(MODEL_ID, found, expected).in_file(path)) } else { Ok(package) }
    }

    /// BLAKE3 (hexadecimal) over network, circuit, canaries and ranges, as they are written; provenance does not enter.
    /// Errors: an inconsistent package.
    pub fn model_id(&self) -> Result<String, FormatError> {
        Ok(model_id(&self.pack()?))
    }

    fn check(&self) -> Result<(), FormatError> {
        check_network(&self.network)?;
        check_circuit(&self.circuit)?;
        check_canaries(&self.canaries, &self.circuit)?;
        self.network.validate()?;
        self.circuit.validate()?;
        if let Some(ranges) = &self.ranges {
            ranges.validate(&self.network)?;
        }
        if self.network.input.shape != self.circuit.input_shape {
            let (found, expected) = (self.circuit.input_shape, self.network.input.shape);
            return Err(FormatError::invalid(
                "input shape of the circuit",
                format!("{found:?}"),
                format!("{expected:?}"),
            ));
        }
        let (found, expected) = (self.circuit.classes(), self.network.classes()?);
        if found != expected {
            return Err(FormatError::invalid("classes of the circuit", found, expected));
        }
        Ok(())
    }

    /// All sections that are not empty, in file order.
    fn pack(&self) -> Result<Vec<PackedSection>, FormatError> {
        self.check()?;
        let mut packed = Vec::new();
        encode_network(&self.network, &mut packed)?;
        encode_circuit(&self.circuit, &mut packed)?;
        encode_canaries(&self.canaries, &mut packed);
        encode_ranges(self.ranges.as_ref(), &mut packed)?;
        encode_provenance(&self.provenance, &mut packed)?;
        packed.retain(|section| !section.bytes.is_empty());
        Ok(packed)
    }

    fn unpack(container: &Container) -> Result<Self, FormatError> {
        let mut sections = Sections::new(container);
        let package = Self {
            network: decode_network(&mut sections)?,
            circuit: decode_circuit(&mut sections)?,
            canaries: decode_canaries(&mut sections)?,
            ranges: decode_ranges(&mut sections)?,
            provenance: decode_provenance(&mut sections)?,
        };
        sections.all_read()?;
        package.check()?;
        Ok(package)
    }
}

/// BLAKE3 of a text: a first line, then one line a section in order of name (see `FORMATS.md`).
fn model_id(packed: &[PackedSection]) -> String {
    let mut lines: Vec<String> = packed
        .iter()
        .filter(|section| section.spec.name != PROVENANCE)
        .map(|section| {
            let sides: Vec<String> = section.spec.shape.iter().map(ToString::to_string).collect();
            let digest = blake3::hash(&section.bytes).to_hex();
            format!("{} {:?} {} {digest}\n", section.spec.name, section.spec.dtype, sides.join("x"))
        })
        .collect();
    lines.sort();
    blake3::hash(format!("{MODEL_ID_FIRST_LINE}{}", lines.concat()).as_bytes()).to_hex().to_string()
}
