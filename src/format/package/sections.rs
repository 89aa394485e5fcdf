//! The sections of a model package, packed and unpacked. Shapes are listed in `FORMATS.md`.
//!
//! A section without elements is left out; its absence reads as empty. Every vector is allocated from bytes already in
//! the file, so no count in a file can make the reader allocate more than a few times the file's length.
//! Not here: whether values make sense (see `check`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Canary;
use crate::format::{Container, DType, Element, FormatError, SectionSpec, decode, encode};

/// Longest JSON section.
const JSON_CAP_BYTES: usize = 8 << 20;
/// The section that is not part of a model's identity.
pub(super) const PROVENANCE: &str = "provenance.json";

/// A section with its bytes, ready to be written.
#[derive(Debug, PartialEq)]
pub(super) struct PackedSection {
    pub(super) spec: SectionSpec,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn numbers<T: Element>(name: &str, shape: &[usize], values: &[T]) -> PackedSection {
    PackedSection { spec: SectionSpec::new(name, T::DTYPE, shape), bytes: encode(values) }
}

pub(super) fn json<T: Serialize>(name: &str, value: &T) -> Result<PackedSection, FormatError> {
    let to_error = |error: serde_json::Error| FormatError::Json { section: name.into(), reason: error.to_string() };
    let bytes = serde_json::to_vec(value).map_err(to_error)?;
    check_json_len(name, bytes.len())?;
    Ok(PackedSection { spec: SectionSpec::new(name, DType::U8, &[bytes.len()]), bytes })
}

fn check_json_len(name: &str, len: usize) -> Result<(), FormatError> {
    if len <= JSON_CAP_BYTES {
        return Ok(());
    }
    let what = format!("bytes of section {name:?}");
    Err(FormatError::TooLarge { what, found: len as u64, limit: JSON_CAP_BYTES as u64 })
}

/// The sections of an open package; remembers which were read.
#[derive(Debug)]
pub(super) struct Sections<'a> {
    container: &'a Container,
    read: BTreeSet<String>,
}

impl<'a> Sections<'a> {
    pub(super) fn new(container: &'a Container) -> Self {
        Self { container, read: BTreeSet::new() }
    }

    /// Refuses sections that nothing has read.
    pub(super) fn all_read(&self) -> Result<(), FormatError> {
        match self.container.sections().find(|section| !self.read.contains(section.name)) {
            None => Ok(()),
            Some(section) => {
                Err(FormatError::invalid("section", format!("{:?}", section.name), "one of a model package"))
            }
        }
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, FormatError> {
        let bytes = self.bytes(name, DType::U8, &[])?;
        check_json_len(name, bytes.len())?;
        let to_error = |error: serde_json::Error| FormatError::Json { section: name.into(), reason: error.to_string() };
        serde_json::from_slice(bytes).map_err(to_error)
    }

    /// As [`Sections::json`]; `None` where there is no such section.
    pub(super) fn json_opt<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, FormatError> {
        self.container.section_opt(name).is_some().then(|| self.json(name)).transpose()
    }

    /// Numbers of a section of shape `[any, inner...]`.
    pub(super) fn numbers<T: Element>(
        &mut self,
        name: &'static str,
        inner: &[usize],
    ) -> Result<Numbers<'a, T>, FormatError> {
        let rest = self.bytes(name, T::DTYPE, inner)?;
        Ok(Numbers { name, rest, of: std::marker::PhantomData })
    }

    fn bytes(&mut self, name: &str, dtype: DType, inner: &[usize]) -> Result<&'a [u8], FormatError> {
        self.read.insert(name.to_string());
        let Some(section) = self.container.section_opt(name) else { return Ok(&[]) };
        if section.dtype == dtype && section.shape.split_first().is_some_and(|(_, rest)| rest == inner) {
            return Ok(section.bytes);
        }
        let found = format!("{:?} {:?}", section.dtype, section.shape);
        Err(FormatError::invalid(format!("section {name:?}"), found, format!("{dtype:?} [any] + {inner:?}")))
    }
}

/// What is left of a numeric section.
pub(super) struct Numbers<'a, T> {
    name: &'static str,
    rest: &'a [u8],
    of: std::marker::PhantomData<T>,
}

impl<T: Element> Numbers<'_, T> {
    /// The next `count` numbers; checked against what is left before anything is allocated.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<T>, FormatError> {
        let size = T::DTYPE.size_bytes();
        let taken = count.checked_mul(size).and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = taken else {
            let found = format!("{} left", self.rest.len() / size);
            return Err(FormatError::invalid(format!("numbers in section {:?}", self.name), found, count));
        };
        self.rest = rest;
        decode(taken)
    }

    /// All that are left.
    pub(super) fn rest(&mut self) -> Result<Vec<T>, FormatError> {
        self.take(self.rest.len() / T::DTYPE.size_bytes())
    }

    /// Refuses numbers that nothing refers to.
    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let found = format!("{} bytes that nothing refers to", self.rest.len());
        Err(FormatError::invalid(format!("end of section {:?}", self.name), found, "none"))
    }
}

pub(super) fn encode_canaries(canaries: &[Canary], packed: &mut Vec<PackedSection>) {
    let inputs: Vec<f32> = canaries.iter().flat_map(|canary| canary.input.iter().copied()).collect();
    let logits: Vec<f64> = canaries.iter().flat_map(|canary| canary.logits.iter().copied()).collect();
    let count = canaries.len();
    packed.push(numbers("canaries.input", &[count, inputs.len() / count.max(1)], &inputs));
    packed.push(numbers("canaries.logits", &[count, logits.len() / count.max(1)], &logits));
}

pub(super) fn decode_canaries(sections: &mut Sections<'_>) -> Result<Vec<Canary>, FormatError> {
    let shape_of = |name: &str| {
        sections.container.section_opt(name).map_or([0, 0], |section| match *section.shape {
            [count, width] => [count, width],
            _ => [0, 0],
        })
    };
    let ([count, inputs], [logit_rows, logits]) = (shape_of("canaries.input"), shape_of("canaries.logits"));
    if count != logit_rows {
        return Err(FormatError::invalid("rows of canaries.logits", logit_rows, count));
    }
    let mut input = sections.numbers::<f32>("canaries.input", &[inputs])?;
    let mut logit = sections.numbers::<f64>("canaries.logits", &[logits])?;
    (0..count).map(|_| Ok(Canary { input: input.take(inputs)?, logits: logit.take(logits)? })).collect()
}

pub(super) fn encode_provenance(
    provenance: &BTreeMap<String, String>,
    packed: &mut Vec<PackedSection>,
) -> Result<(), FormatError> {
    packed.push(json(PROVENANCE, provenance)?);
    Ok(())
}

pub(super) fn decode_provenance(sections: &mut Sections<'_>) -> Result<BTreeMap<String, String>, FormatError> {
    sections.json(PROVENANCE)
}
