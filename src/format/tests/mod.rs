//! Tests of the format room: round trips, damage, hostile files.

mod ciphertexts;
mod compact;
mod container;
mod flips;
mod hostile;
mod keys;
mod package;
mod residues;
mod vectors;

use std::collections::BTreeMap;
use std::path::Path;

use super::{Container, ContainerWriter, DType, FormatError, Kind, OpenLimits, SectionSpec, Written, encode};

/// Sections `a` (10 bytes) and `b` (3 floats): 4096 + 4096 + 12 bytes, padding included.
fn write_toy(path: &Path, kind: Kind) -> Result<Written, FormatError> {
    let metadata = BTreeMap::from([("key_id".to_string(), "k\"\n\u{e9}".to_string())]);
    let sections = [SectionSpec::new("a", DType::U8, &[2, 5]), SectionSpec::new("b", DType::F32, &[3])];
    let writer = ContainerWriter::create(path, kind, &metadata, &sections)?;
    writer.write_at("b", 0, &encode(&[1.5_f32, -2.0, 0.25]))?;
    writer.write_at("a", 4, &[4, 5, 6, 7, 8, 9])?;
    writer.write_at("a", 0, &[0, 1, 2, 3])?;
    writer.finish()
}

fn open(path: &Path) -> Result<Container, FormatError> {
    Container::open(path, None, &OpenLimits::default())
}

fn open_and_verify(path: &Path) -> Result<(), FormatError> {
    open(path)?.verify()
}
