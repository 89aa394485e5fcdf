//! Writing a batch of encrypted inputs, entry by entry, from several threads.

use std::path::Path;

use super::place::{BatchPlace, EncryptionKind, add_scale};
use crate::ckks::Context;
use crate::format::identity::{Header, pack_limb_into, width_of};
use crate::format::{ContainerWriter, DType, FormatError, Kind, SectionSpec, Written};
use crate::ring::sampling::SEED_BYTES;

/// What a batch says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchHeader {
    /// Whose it is.
    pub header: Header,
    /// Which part of its job. Its `encryption` must be the [`Encryption`] that the writer is given.
    pub place: BatchPlace,
    /// Exact scale of the ciphertexts.
    pub scale: f64,
}

/// How c1 is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// As the seed of its masks.
    Secret {
        /// `SecretEncryptor::mask_seed`.
        mask_seed: [u8; SEED_BYTES],
    },
    /// As residues, like c0.
    Public,
}

impl Encryption {
    /// Which of the two.
    #[must_use]
    pub fn kind(&self) -> EncryptionKind {
        match self {
            Self::Secret { .. } => EncryptionKind::Secret,
            Self::Public => EncryptionKind::Public,
        }
    }
}

/// Sections of a batch: `c0.limb{j}`, then `c1.limb{j}` or `c1.seed`.
pub(super) fn input_specs(context: &Context, entries: usize, kind: EncryptionKind) -> Vec<SectionSpec> {
    let stored = if kind == EncryptionKind::Public { 2 } else { 1 };
    let mut specs = component_specs(context, entries, stored, context.limbs());
    if kind == EncryptionKind::Secret {
        specs.push(SectionSpec::new("c1.seed", DType::U8, &[SEED_BYTES]));
    }
    specs
}

/// `c{i}.limb{j}` U8 `[count, N, width_j]`, component-major.
pub(super) fn component_specs(context: &Context, count: usize, components: usize, limbs: usize) -> Vec<SectionSpec> {
    let spec = |component: usize, limb: usize| {
        let shape = [count, context.degree(), width_of(context, limb)];
        SectionSpec::new(format!("c{component}.limb{limb}"), DType::U8, &shape)
    };
    (0..components).flat_map(|component| (0..limbs).map(move |limb| spec(component, limb))).collect()
}

/// A batch being written. Each entry's components once, in any order, from any thread.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    context: &'a Context,
    writer: ContainerWriter,
    specs: Vec<SectionSpec>,
    stored_components: usize,
    entries: usize,
}

impl<'a> BatchWriter<'a> {
    /// Creates the temporary file beside `path`.
    ///
    /// # Errors
    /// A header that no reader would take, and those of [`ContainerWriter::create`].
    pub fn create(
        path: &Path,
        header: &BatchHeader,
        context: &'a Context,
        entries: usize,
        encryption: &Encryption,
    ) -> Result<Self, FormatError> {
        Self::create_unnamed(path, header, context, entries, encryption).map_err(|error| error.in_file(path))
    }

    fn create_unnamed(
        path: &Path,
        header: &BatchHeader,
        context: &'a Context,
        entries: usize,
        encryption: &Encryption,
    ) -> Result<Self, FormatError> {
        let kind = encryption.kind();
        if header.place.encryption != kind {
            return Err(FormatError::invalid("encryption", header.place.encryption.name(), kind.name()));
        }
        if u32::try_from(entries).is_err() {
            return Err(FormatError::invalid("entries", entries, "less than 2^32"));
        }
        let mut metadata = header.header.metadata(context)?;
        header.place.add_metadata(context.degree(), &mut metadata)?;
        add_scale(header.scale, &mut metadata)?;
        metadata.insert("entries".into(), entries.to_string());
        metadata.insert("level".into(), (context.limbs() - 1).to_string());
        metadata.insert("form".into(), "ntt".into());
        let specs = input_specs(context, entries, kind);
        let writer = ContainerWriter::create(path, Kind::Ciphertexts, &metadata, &specs)?;
        if let Encryption::Secret { mask_seed } = encryption {
            writer.write_at("c1.seed", 0, mask_seed)?;
        }
        let stored_components = if kind == EncryptionKind::Public { 2 } else { 1 };
        Ok(Self { context, writer, specs, stored_components, entries })
    }

    /// Writes one component of an entry, `[limb][N]`, NTT domain.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] outside the batch or for another length, [`FormatError::Residue`] for residues that are not reduced, and
    /// those of [`ContainerWriter::write_at`].
    pub fn write_entry(&self, entry: usize, component: usize, residues: &[u64]) -> Result<(), FormatError> {
        let (n, limbs) = (self.context.degree(), self.context.limbs());
        if component >= self.stored_components || entry >= self.entries || residues.len() != limbs * n {
            let found = format!("entry {entry}, component {component}, {} residues", residues.len());
            let expected =
                format!("{} entries, {} components, {} residues", self.entries, self.stored_components, limbs * n);
            return Err(FormatError::invalid("ciphertext written", found, expected));
        }
        let mut buffer = vec![0; 8 * n];
        for (limb, residues) in residues.chunks_exact(n).enumerate() {
            let packed = &mut buffer[..n * width_of(self.context, limb)];
            pack_limb_into(self.context, limb, residues, packed)?;
            let name = &self.specs[component * limbs + limb].name;
            self.writer.write_at(name, (entry * packed.len()) as u64, packed)?;
        }
        Ok(())
    }

    /// Completes the file and gives it its name; refuses to replace a file.
    ///
    /// # Errors
    /// An entry not written, and those of [`ContainerWriter::finish_new`].
    pub fn finish(self) -> Result<Written, FormatError> {
        self.writer.finish_new()
    }
}
