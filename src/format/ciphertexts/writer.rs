//! Writing a batch of encrypted inputs, entry by entry, from several threads.

use std::path::Path;

use super::place::{BatchPlace, EncryptionKind, add_scale};
use crate::ckks::Context;
use crate::format::identity::{Header, check_limb, width_of};
use crate::format::{ContainerWriter, DType, Flush, FormatError, Kind, SectionSpec, Written};
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

/// NTT positions of a block.
const BLOCK: usize = 64;

/// Where residues of inputs lie in a section: `[block of positions][entry][position in the block]`. A worker's tile reads a few
/// neighbouring positions of every entry: so they are one piece of the file, not one a ciphertext.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    entries: usize,
    block: usize,
    blocks: usize,
}

impl Blocks {
    pub fn new(entries: usize, degree: usize) -> Self {
        let block = BLOCK.min(degree);
        Self { entries, block, blocks: degree / block }
    }

    /// Residues before position `position` of an entry, and how many of the entry's follow it without a gap, itself among them.
    pub fn place(&self, entry: usize, position: usize) -> (usize, usize) {
        let (block, in_block) = (position / self.block, position % self.block);
        ((block * self.entries + entry) * self.block + in_block, self.block - in_block)
    }

    /// Residues before those of all these entries, where they follow one another without a gap: a whole block of neighbours.
    pub fn place_of_rows(&self, entries: &[u32], position: usize, columns: usize) -> Option<usize> {
        let whole = columns == self.block && position.is_multiple_of(self.block);
        let neighbours = entries.is_sorted_by(|&before, &after| before.checked_add(1) == Some(after));
        let &first = entries.first().filter(|_| whole && neighbours)?;
        Some(self.place(first as usize, position).0)
    }
}

/// Sections of a batch: `c0.limb{j}`, then `c1.limb{j}` or `c1.seed`.
pub(super) fn input_specs(context: &Context, entries: usize, kind: EncryptionKind) -> Vec<SectionSpec> {
    let stored = if kind == EncryptionKind::Public { 2 } else { 1 };
    let Blocks { block, blocks, .. } = Blocks::new(entries, context.degree());
    let mut specs = component_specs(context, &[blocks, entries, block], stored, context.limbs());
    if kind == EncryptionKind::Secret {
        specs.push(SectionSpec::new("c1.seed", DType::U8, &[SEED_BYTES]));
    }
    specs
}

/// `c{i}.limb{j}` U8 `[.., width_j]`, component-major.
pub(super) fn component_specs(context: &Context, shape: &[usize], components: usize, limbs: usize) -> Vec<SectionSpec> {
    let spec = |component: usize, limb: usize| {
        let shape = [shape, &[width_of(context, limb)]].concat();
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
        writer.fill()?;
        if let Encryption::Secret { mask_seed } = encryption {
            writer.write_at("c1.seed", 0, mask_seed)?;
        }
        let stored_components = if kind == EncryptionKind::Public { 2 } else { 1 };
        Ok(Self { context, writer, specs, stored_components, entries })
    }

    /// Packed bytes of an entry.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        let limbs = 0..self.context.limbs();
        self.stored_components * self.context.degree() * limbs.map(|limb| width_of(self.context, limb)).sum::<usize>()
    }

    /// Runs of neighbouring entries, as many as `packed` holds: what lies side by side in the file is written at once.
    #[must_use]
    pub fn run<'b>(&'b self, packed: &'b mut [u8]) -> EntryRun<'b> {
        EntryRun { writer: self, most: packed.len() / self.entry_bytes(), first: 0, count: 0, packed }
    }

    /// Writes one component of an entry, `[limb][N]`, NTT domain. Many entries are written faster by [`Self::run`].
    ///
    /// # Errors
    /// As [`EntryRun::put`] and [`EntryRun::write`].
    pub fn write_entry(&self, entry: usize, component: usize, residues: &[u64]) -> Result<(), FormatError> {
        let mut packed = vec![0; self.entry_bytes()];
        let mut run = self.run(&mut packed);
        run.begin(entry, 1)?;
        run.put(entry, component, residues)?;
        run.write_component(component)
    }

    /// For bringing entries to the disk while [`Self::finish`] hashes them.
    ///
    /// # Errors
    /// Those of [`ContainerWriter::flush`].
    pub fn flush(&self) -> Result<Flush, FormatError> {
        self.writer.flush()
    }

    /// Completes the file and gives it its name; refuses to replace a file.
    ///
    /// # Errors
    /// An entry not written, and those of [`ContainerWriter::finish_new`].
    pub fn finish(self) -> Result<Written, FormatError> {
        self.writer.finish_new()
    }
}

/// Neighbouring entries of a batch on their way to the file. A thread's own.
#[derive(Debug)]
pub struct EntryRun<'a> {
    writer: &'a BatchWriter<'a>,
    most: usize,
    first: usize,
    count: usize,
    /// `[component][limb]`, each `[block][entry of the run][position in the block]` in packed residues, and room for `most` entries.
    packed: &'a mut [u8],
}

impl EntryRun<'_> {
    /// The run is now of entries `first .. first + count`.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] outside the batch or beyond the memory.
    pub fn begin(&mut self, first: usize, count: usize) -> Result<(), FormatError> {
        let entries = self.writer.entries;
        if count > self.most || first.checked_add(count).is_none_or(|end| end > entries) {
            let expected = format!("at most {} of {entries}", self.most);
            return Err(FormatError::invalid("entries of a run", format!("{count} from {first} on"), expected));
        }
        (self.first, self.count) = (first, count);
        Ok(())
    }

    /// Takes one component of an entry, `[limb][N]`, NTT domain.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] outside the run or for another length, [`FormatError::Residue`] for residues that are not reduced.
    pub fn put(&mut self, entry: usize, component: usize, residues: &[u64]) -> Result<(), FormatError> {
        let BatchWriter { context, stored_components, .. } = *self.writer;
        let (n, limbs) = (context.degree(), context.limbs());
        let range = self.first..self.first + self.count;
        if component >= stored_components || !range.contains(&entry) || residues.len() != limbs * n {
            let found = format!("entry {entry}, component {component}, {} residues", residues.len());
            let expected = format!("entries {range:?}, {stored_components} components, {} residues", limbs * n);
            return Err(FormatError::invalid("ciphertext written", found, expected));
        }
        let places = Blocks::new(self.count, n);
        let (at, _) = places.place(entry - self.first, 0);
        for (limb, residues) in residues.chunks_exact(n).enumerate() {
            check_limb(context, limb, residues)?;
            let width = width_of(context, limb);
            let stride = self.count * places.block * width;
            let to = self.start(component, limb) + at * width;
            context.kernel().pack_pieces_into(width, residues, stride, places.block, &mut self.packed[to..]);
        }
        Ok(())
    }

    /// Where a limb's packed residues begin.
    fn start(&self, component: usize, limb: usize) -> usize {
        let BatchWriter { context, .. } = self.writer;
        let widths = |limbs: std::ops::Range<usize>| limbs.map(|limb| width_of(context, limb)).sum::<usize>();
        self.most * context.degree() * (component * widths(0..context.limbs()) + widths(0..limb))
    }

    /// Writes the run, of which every entry was put.
    ///
    /// # Errors
    /// Those of [`ContainerWriter::write_at`].
    pub fn write(&mut self) -> Result<(), FormatError> {
        (0..self.writer.stored_components).try_for_each(|component| self.write_component(component))
    }

    fn write_component(&self, component: usize) -> Result<(), FormatError> {
        let BatchWriter { context, writer, specs, entries, .. } = self.writer;
        let limbs = context.limbs();
        let places = Blocks::new(*entries, context.degree());
        for limb in 0..limbs {
            let width = width_of(context, limb);
            let section = &specs[component * limbs + limb].name;
            let piece_bytes = self.count * places.block * width;
            let packed = &self.packed[self.start(component, limb)..];
            for (block, piece) in packed.chunks_exact(piece_bytes.max(1)).take(places.blocks).enumerate() {
                let (at, _) = places.place(self.first, block * places.block);
                writer.write_at(section, (at * width) as u64, piece)?;
            }
        }
        Ok(())
    }
}
