//! `public.key` and `eval.key`: what encryption without the secret and the worker need.
//!
//! Sections `b.limb{j}` U8 `[digits, N, width_j]`, one per prime with the special ones last, residues in the NTT domain (a public key has
//! one "digit"); `mask.seed` U8 `[32]`, from which the other component is expanded. Metadata as every file of a key has ([`Header`]).
//! Not here: the secret key (see `secret`).

use std::path::Path;

use super::identity::{Expected, Header, pack_limb_into, unpack_limb_into, width_of};
use super::{Container, ContainerWriter, DType, FormatError, HEADER_CAP_BYTES, Kind, OpenLimits, SectionSpec, Written};
use crate::ckks::Context;
use crate::ckks::keys::{EvaluationKey, PublicKey};
use crate::ring::sampling::SEED_BYTES;

const MASK_SEED: &str = "mask.seed";

/// Writes `public.key`; refuses to replace a file.
///
/// # Errors
/// A header or key that [`read_public_key`] would refuse, and those of [`ContainerWriter`].
pub fn write_public_key(
    path: &Path,
    header: &Header,
    context: &Context,
    key: &PublicKey,
) -> Result<Written, FormatError> {
    Material { kind: Kind::PublicKey, digits: 1, context }.write(path, header, &key.mask_seed, &key.b)
}

/// Reads `public.key` and checks all of it.
///
/// # Errors
/// [`FormatError::Mismatch`] for another plan, key, parameter or root of unity; the rest of [`FormatError`] for damage.
pub fn read_public_key(path: &Path, expected: &Expected<'_>) -> Result<(Header, PublicKey), FormatError> {
    let material = Material { kind: Kind::PublicKey, digits: 1, context: expected.context };
    let (header, mask_seed, b) = material.read(path, expected)?;
    Ok((header, PublicKey { mask_seed, b }))
}

/// Writes `eval.key`; refuses to replace a file.
///
/// # Errors
/// As [`write_public_key`].
pub fn write_evaluation_key(
    path: &Path,
    header: &Header,
    context: &Context,
    key: &EvaluationKey,
) -> Result<Written, FormatError> {
    let digits = context.parameters().digits();
    Material { kind: Kind::EvaluationKey, digits, context }.write(path, header, &key.mask_seed, &key.b)
}

/// Reads `eval.key` and checks all of it.
///
/// # Errors
/// As [`read_public_key`].
pub fn read_evaluation_key(path: &Path, expected: &Expected<'_>) -> Result<(Header, EvaluationKey), FormatError> {
    let digits = expected.context.parameters().digits();
    let material = Material { kind: Kind::EvaluationKey, digits, context: expected.context };
    let (header, mask_seed, b) = material.read(path, expected)?;
    Ok((header, EvaluationKey { mask_seed, b }))
}

/// The kind of a file, for callers that take a secret or a public key. A secret key with a loose mode is refused here already.
///
/// # Errors
/// Those of [`Container::open`].
pub fn kind_of(path: &Path) -> Result<Kind, FormatError> {
    Ok(Container::open(path, None, &OpenLimits::default())?.kind())
}

/// Residues `[digit][prime][N]` and a seed, as both keys have them.
struct Material<'a> {
    kind: Kind,
    digits: usize,
    context: &'a Context,
}

impl Material<'_> {
    fn specs(&self) -> Vec<SectionSpec> {
        let limb = |prime: usize| {
            let shape = [self.digits, self.context.degree(), width_of(self.context, prime)];
            SectionSpec::new(format!("b.limb{prime}"), DType::U8, &shape)
        };
        let mut specs: Vec<_> = (0..self.context.all_limbs()).map(limb).collect();
        specs.push(SectionSpec::new(MASK_SEED, DType::U8, &[SEED_BYTES]));
        specs
    }

    fn write(&self, path: &Path, header: &Header, seed: &[u8], b: &[u64]) -> Result<Written, FormatError> {
        self.write_unnamed(path, header, seed, b).map_err(|error| error.in_file(path))
    }

    fn write_unnamed(&self, path: &Path, header: &Header, seed: &[u8], b: &[u64]) -> Result<Written, FormatError> {
        let (n, primes) = (self.context.degree(), self.context.all_limbs());
        if b.len() != self.digits * primes * n {
            return Err(FormatError::invalid("residues of a key", b.len(), self.digits * primes * n));
        }
        let specs = self.specs();
        let writer = ContainerWriter::create(path, self.kind, &header.metadata(self.context)?, &specs)?;
        for (at, limb) in b.chunks_exact(n).enumerate() {
            let (digit, prime) = (at / primes, at % primes);
            let mut packed = vec![0; n * width_of(self.context, prime)];
            pack_limb_into(self.context, prime, limb, &mut packed)?;
            writer.write_at(&specs[prime].name, (digit * packed.len()) as u64, &packed)?;
        }
        writer.write_at(MASK_SEED, 0, seed)?;
        writer.finish_new()
    }

    fn read(&self, path: &Path, expected: &Expected<'_>) -> Result<(Header, [u8; SEED_BYTES], Vec<u64>), FormatError> {
        self.read_unnamed(path, expected).map_err(|error| error.in_file(path))
    }

    fn read_unnamed(
        &self,
        path: &Path,
        expected: &Expected<'_>,
    ) -> Result<(Header, [u8; SEED_BYTES], Vec<u64>), FormatError> {
        let (n, primes) = (self.context.degree(), self.context.all_limbs());
        let specs = self.specs();
        let section_bytes: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>() + 4096).sum();
        let limits = OpenLimits { file_bytes: HEADER_CAP_BYTES + section_bytes as u64, ..OpenLimits::default() };
        let container = Container::open(path, Some(self.kind), &limits)?;
        let header = Header::read(&container, expected)?;
        container.expect_sections(&specs)?;
        container.verify()?;
        let mut b = vec![0; self.digits * primes * n];
        for (at, limb) in b.chunks_exact_mut(n).enumerate() {
            let (digit, prime) = (at / primes, at % primes);
            let packed_bytes = n * width_of(self.context, prime);
            let section = container.section(&specs[prime].name)?;
            let packed = section.bytes.get(digit * packed_bytes..(digit + 1) * packed_bytes).unwrap_or_default();
            unpack_limb_into(self.context, prime, packed, limb)?;
        }
        let mut seed = [0; SEED_BYTES];
        seed.copy_from_slice(container.section_shaped(MASK_SEED, DType::U8, &[SEED_BYTES])?.bytes);
        Ok((header, seed, b))
    }
}
