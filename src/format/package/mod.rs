//! Model packages, `.nsm`: the network as trained, the integer circuit made of it, canaries and provenance in one file.
//!
//! A container of kind `model`; `FORMATS.md` lists its sections. Writing the same package twice gives the same bytes.
//! Where lowering the network gives the circuit again, bit for bit, the file holds the decisions of lowering instead of the
//! circuit (compact form); the model id is the same in both forms, and opening requires it of the circuit made anew.
//! Everything is checked on reading and on writing alike, so that an accepted package has consistent lengths, indices
//! in range, finite reals, no output that is constant, and a network and a circuit that are valid each by itself and take
//! and give the same shapes. Not here: whether the two compute the same (see `net`), any key.

mod check;
mod circuit;
mod json;
mod lowering;
mod network;
mod ranges;
mod sections;
mod tables;

use std::collections::BTreeMap;
use std::path::Path;

use crate::net::circuit::Circuit;
use crate::net::lowering::Lowering;
use crate::net::network::Network;
use crate::net::ranges::RangeReport;

use check::{check_canaries, check_circuit, check_network, check_no_relu};
use circuit::{decode_circuit, encode_circuit};
use lowering::{decode_lowering, encode_lowering, lower_again};
use network::{decode_network, encode_network};
use ranges::{decode_ranges, encode_ranges};
use sections::{
    PROVENANCE, PackedSection, Sections, decode_canaries, decode_provenance, encode_canaries, encode_provenance,
};

use super::{Container, ContainerWriter, FormatError, Kind, OpenLimits};

pub use tables::TablePackage;

/// Which engine serves a package, or made a file: the word in `nightshift.engine`, which the first engine's files lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Circuits of squares on slots.
    Ckks,
    /// Circuits of tables, image by image.
    Tfhe,
}

impl EngineKind {
    /// The word in files and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ckks => "ckks",
            Self::Tfhe => "tfhe",
        }
    }

    /// The engine of an open file of any kind.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn of(container: &Container) -> Result<Self, FormatError> {
        match container.metadata_opt(ENGINE) {
            None => Ok(Self::Ckks),
            Some("tfhe") => Ok(Self::Tfhe),
            Some(other) => {
                let error = FormatError::invalid(ENGINE, format!("{other:.40?}"), "tfhe, or no such entry");
                Err(error.in_file(container.path()))
            }
        }
    }

    /// The engine of a file.
    ///
    /// # Errors
    /// As [`Container::open`] and [`EngineKind::of`].
    pub fn of_file(path: &Path, kind: Option<Kind>) -> Result<Self, FormatError> {
        Self::of(&Container::open(path, kind, &OpenLimits::default())?)
    }

    /// Refuses, as a mismatch, a file of the other engine.
    pub(in crate::format) fn expect(self, container: &Container) -> Result<(), FormatError> {
        let found = Self::of(container)?;
        if found == self {
            return Ok(());
        }
        let (found, expected) = (found.name().to_owned(), self.name().to_owned());
        Err(FormatError::Mismatch { what: ENGINE.to_owned(), found, expected }.in_file(container.path()))
    }
}

/// Metadata key of the engine.
pub(in crate::format) const ENGINE: &str = "engine";
/// Longest package accepted.
const FILE_CAP_BYTES: u64 = 1 << 32;
/// Entry of provenance that tells the version which made a package.
const MADE_WITH: &str = "nightshift_version";
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
    /// What makes this very circuit of the network; `None` for a circuit from elsewhere. Not part of the model id.
    pub lowering: Option<Lowering>,
    /// Known answers; may be empty.
    pub canaries: Vec<Canary>,
    /// How large the network's values were over the training set; absent in packages made without one.
    pub ranges: Option<RangeReport>,
    /// For people: where it came from, which command made it. Not part of the model id.
    pub provenance: BTreeMap<String, String>,
}

impl ModelPackage {
    /// Writes the package, replacing `path`; returns the model id. The form is compact where `lowering` makes the very
    /// circuit within [`LoweringLimits::FOREIGN`](crate::net::LoweringLimits::FOREIGN), else full, without `lowering`. Errors:
    /// a package that [`ModelPackage::open`] would refuse, and those of [`ContainerWriter`].
    pub fn write(&self, path: &Path) -> Result<String, FormatError> {
        let packed = self.pack().map_err(|error| error.in_file(path))?;
        let id = packed.model_id();
        let Packed { network, circuit, rest } = packed;
        let compact = self.pack_lowering(&circuit).map_err(|error| error.in_file(path))?;
        let packed: Vec<_> = network.into_iter().chain(compact.unwrap_or(circuit)).chain(rest).collect();
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
        Ok(Self::open_with_id(path)?.0)
    }

    /// [`Self::open`], with the model id that was checked.
    pub fn open_with_id(path: &Path) -> Result<(Self, String), FormatError> {
        let limits = OpenLimits { file_bytes: FILE_CAP_BYTES, ..OpenLimits::default() };
        let container = Container::open(path, Some(Kind::Model), &limits)?;
        EngineKind::Ckks.expect(&container)?;
        container.verify()?;
        let package = Self::unpack(&container).map_err(|error| error.in_file(path))?;
        // Computed from what was understood, not from the bytes: so a model has one id however its JSON is spelled.
        let packed = package.pack_checked().map_err(|error| error.in_file(path))?;
        let (found, expected) = (container.metadata(MODEL_ID)?, packed.model_id());
        if found == expected {
            return Ok((package, expected));
        }
        let error = if package.lowering.is_none() {
            FormatError::invalid(MODEL_ID, found, expected)
        } else {
            let made_with = package.provenance.get(MADE_WITH).map_or("an unknown version", String::as_str);
            let made_with = made_with.chars().filter(|letter| !letter.is_control()).take(40).collect();
            FormatError::LoweredOtherwise { found: expected, expected: found.to_owned(), made_with }
        };
        Err(error.in_file(path))
    }

    /// Largest magnitude of a calibration image's score. The planner's noise gains are of such images: an image with a larger score lies outside
    /// what precision is promised for.
    #[must_use]
    pub fn score_limit(&self) -> f64 {
        let seen = self.circuit.stages.last().map_or(0.0, |last| last.stats.max_abs);
        // Ranges may have widened the circuit's own figure to images whose gains nobody measured.
        self.ranges.as_ref().map_or(seen, |ranges| ranges.logits.limit)
    }

    /// BLAKE3 (hexadecimal) over network, circuit, canaries and ranges, as the full form has them; provenance does not enter,
    /// nor does the form. Errors: an inconsistent package.
    pub fn model_id(&self) -> Result<String, FormatError> {
        Ok(self.pack()?.model_id())
    }

    fn check(&self) -> Result<(), FormatError> {
        check_network(&self.network)?;
        check_no_relu(&self.network)?;
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

    /// All sections of the full form that are not empty, in file order.
    fn pack(&self) -> Result<Packed, FormatError> {
        self.check()?;
        self.pack_checked()
    }

    /// [`Self::pack`] of a package that was checked before.
    fn pack_checked(&self) -> Result<Packed, FormatError> {
        let mut packed = Packed { network: Vec::new(), circuit: Vec::new(), rest: Vec::new() };
        encode_network(&self.network, &mut packed.network)?;
        encode_circuit(&self.circuit, &mut packed.circuit)?;
        encode_canaries(&self.canaries, &mut packed.rest);
        encode_ranges(self.ranges.as_ref(), &mut packed.rest)?;
        encode_provenance(&self.provenance, &mut packed.rest)?;
        for sections in [&mut packed.network, &mut packed.circuit, &mut packed.rest] {
            sections.retain(|section| !section.bytes.is_empty());
        }
        Ok(packed)
    }

    /// The sections that stand for those of the circuit; `None` where they would not give the same bytes again.
    fn pack_lowering(&self, circuit: &[PackedSection]) -> Result<Option<Vec<PackedSection>>, FormatError> {
        let Some(lowering) = &self.lowering else { return Ok(None) };
        let Ok(again) = lower_again(&self.network, lowering, &self.circuit) else { return Ok(None) };
        let mut sections = Vec::new();
        encode_circuit(&again, &mut sections)?;
        sections.retain(|section| !section.bytes.is_empty());
        if sections != circuit {
            return Ok(None);
        }
        sections.clear();
        encode_lowering(lowering, &self.circuit, &mut sections)?;
        sections.retain(|section| !section.bytes.is_empty());
        Ok(Some(sections))
    }

    fn unpack(container: &Container) -> Result<Self, FormatError> {
        let mut sections = Sections::new(container);
        let network = decode_network(&mut sections)?;
        // First of all, because lowering indexes by what the network says.
        check_network(&network)?;
        check_no_relu(&network)?;
        let (lowering, circuit) = match decode_lowering(&mut sections, &network)? {
            Some((lowering, circuit)) => (Some(lowering), circuit),
            None => (None, decode_circuit(&mut sections)?),
        };
        let package = Self {
            network,
            circuit,
            lowering,
            canaries: decode_canaries(&mut sections)?,
            ranges: decode_ranges(&mut sections)?,
            provenance: decode_provenance(&mut sections)?,
        };
        sections.all_read()?;
        package.check()?;
        Ok(package)
    }
}

/// Sections of the full form, in file order.
struct Packed {
    network: Vec<PackedSection>,
    circuit: Vec<PackedSection>,
    /// Canaries, ranges, provenance.
    rest: Vec<PackedSection>,
}

impl Packed {
    fn model_id(&self) -> String {
        model_id(self.network.iter().chain(&self.circuit).chain(&self.rest))
    }
}

/// BLAKE3 of a text: a first line, then one line a section in order of name (see `FORMATS.md`).
fn model_id<'a>(packed: impl Iterator<Item = &'a PackedSection>) -> String {
    let mut lines: Vec<String> = packed
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
