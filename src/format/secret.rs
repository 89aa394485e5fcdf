//! `secret.key`: the client's 32-byte seed, in a file that only its owner may read. The only file of this room that names a secret.
//!
//! Section `seed` U8 `[32]`; metadata as every file of a key has ([`Header`]); mode 0600, and a looser one is refused. The key itself
//! is derived from the seed (see `FORMATS.md`). Not encrypted by a passphrase: keep it on an encrypted disk.

use std::path::Path;

use super::identity::{Expected, Header, same};
use super::{Container, ContainerWriter, DType, FormatError, HEADER_CAP_BYTES, Kind, OpenLimits, SectionSpec, Written};
use crate::ckks::Context;
use crate::ckks::secret::SecretKey;
use crate::ring::sampling::{SEED_BYTES, Seed};

const SEED: &str = "seed";

/// A key's id as headers spell it: 32 lower-case hexadecimal digits.
#[must_use]
pub fn key_id_text(key: &SecretKey) -> String {
    key.id().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `secret.key` with mode 0600; refuses to replace a file.
///
/// # Errors
/// A header that [`read_secret_key`] would refuse (its key id must be the key's), and those of [`ContainerWriter`].
pub fn write_secret_key(
    path: &Path,
    header: &Header,
    context: &Context,
    key: &SecretKey,
) -> Result<Written, FormatError> {
    let write = || {
        same("key_id", &header.key_id, key_id_text(key))?;
        let specs = [SectionSpec::new(SEED, DType::U8, &[SEED_BYTES])];
        let writer = ContainerWriter::create(path, Kind::SecretKey, &header.metadata(context)?, &specs)?;
        writer.write_at(SEED, 0, key.seed())?;
        writer.finish_new()
    };
    write().map_err(|error| error.in_file(path))
}

/// Reads `secret.key`, checks all of it and derives the key; the header's key id must be that of the seed.
///
/// # Errors
/// [`FormatError::LooseMode`]; [`FormatError::Mismatch`] for another plan, key, parameter or root; the rest for damage.
pub fn read_secret_key(path: &Path, expected: &Expected<'_>) -> Result<(Header, SecretKey), FormatError> {
    let read = || {
        let limits = OpenLimits { file_bytes: HEADER_CAP_BYTES + SEED_BYTES as u64, ..OpenLimits::default() };
        let container = Container::open(path, Some(Kind::SecretKey), &limits)?;
        let header = Header::read(&container, expected)?;
        container.expect_sections(&[SectionSpec::new(SEED, DType::U8, &[SEED_BYTES])])?;
        container.verify()?;
        let mut seed = Seed::new([0; SEED_BYTES]);
        seed.copy_from_slice(container.section(SEED)?.bytes);
        let key = SecretKey::from_seed(expected.context, seed);
        let id = key_id_text(&key);
        if header.key_id != id {
            return Err(FormatError::invalid("key_id", &header.key_id, id));
        }
        Ok((header, key))
    };
    read().map_err(|error: FormatError| error.in_file(path))
}
