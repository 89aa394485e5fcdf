//! `secret.key` of the exact engine: a 32-byte seed like any other, with that engine's header; mode 0600, and a looser one is refused.
//!
//! Not here: what is derived from the seed (see `FORMATS.md`).

use std::path::Path;

use super::identity::{Header, LweExpected};
use super::{Container, ContainerWriter, DType, FormatError, HEADER_CAP_BYTES, Kind, OpenLimits, SectionSpec, Written};
use crate::ring::sampling::{SEED_BYTES, Seed};

const SEED: &str = "seed";

/// Writes `secret.key` with mode 0600; refuses to replace a file.
///
/// # Errors
/// A header that [`read_secret_seed`] would refuse, and those of [`ContainerWriter`].
pub fn write_secret_seed(
    path: &Path,
    header: &Header,
    parameters: &str,
    seed: &[u8; SEED_BYTES],
) -> Result<Written, FormatError> {
    let write = || {
        let specs = [SectionSpec::new(SEED, DType::U8, &[SEED_BYTES])];
        let writer = ContainerWriter::create(path, Kind::SecretKey, &header.lwe_metadata(parameters)?, &specs)?;
        writer.write_at(SEED, 0, seed)?;
        writer.finish_new()
    };
    write().map_err(|error: FormatError| error.in_file(path))
}

/// Reads `secret.key` and checks all of it but that its key id is the seed's, which who derives the key does.
///
/// # Errors
/// [`FormatError::LooseMode`]; [`FormatError::Mismatch`] for another engine, plan, key or parameters; the rest for damage.
pub fn read_secret_seed(path: &Path, expected: &LweExpected<'_>) -> Result<(Header, Seed), FormatError> {
    let read = || {
        let limits = OpenLimits { file_bytes: HEADER_CAP_BYTES + SEED_BYTES as u64, ..OpenLimits::default() };
        let container = Container::open(path, Some(Kind::SecretKey), &limits)?;
        let header = Header::read_lwe(&container, expected)?;
        container.expect_sections(&[SectionSpec::new(SEED, DType::U8, &[SEED_BYTES])])?;
        container.verify()?;
        let mut seed = Seed::new([0; SEED_BYTES]);
        seed.copy_from_slice(container.section(SEED)?.bytes);
        Ok((header, seed))
    };
    read().map_err(|error: FormatError| error.in_file(path))
}
