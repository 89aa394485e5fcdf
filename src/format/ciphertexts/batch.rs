//! Reading a batch of encrypted inputs: a mapped file that gives out short runs of residues.
//!
//! Entry e (pixel) is one ciphertext with components c0 and c1, each `[limb][N]` in the NTT domain; in the file a block of neighbouring
//! positions of all entries is one piece, as a worker's tiles read it. c0 is stored; c1 is stored or,
//! in a batch encrypted with the secret key, expanded from a seed: residue i of limb j of entry e is block (e, j, i) of the stream.

use std::path::Path;

use super::place::{BatchPlace, EncryptionKind, expect_scale};
use super::results::ResultHeader;
use super::writer::{Blocks, input_specs};
use crate::ckks::Context;
use crate::format::identity::{Expected, Header, same};
use crate::format::residues::{unpack_checked_into, width_bytes};
use crate::format::{Container, FormatError, Kind, OpenLimits, PartDigest};
use crate::ring::Modulus;
use crate::ring::kernels::{self, Kernel};
use crate::ring::sampling::{SEED_BYTES, Stream};

/// What a worker asks of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedBatch<'a> {
    /// Parameters and roots.
    pub context: &'a Context,
    /// Scale of fresh ciphertexts (`Plan::input_scale`), to the bit.
    pub input_scale: f64,
    /// Plan.
    pub plan_id: &'a str,
    /// Key.
    pub key_id: &'a str,
    /// Job.
    pub job_id: &'a str,
    /// Ciphertexts: entries of an image.
    pub entries: usize,
}

/// A batch's file, mapped: a container of the right kind, whose content nobody has looked at yet.
#[derive(Debug)]
pub struct MappedBatch {
    container: Container,
}

impl MappedBatch {
    /// Maps a batch and checks its header's form.
    ///
    /// # Errors
    /// [`FormatError`] if it cannot be read or is no container of encrypted inputs.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let container = Container::open(path, Some(Kind::Ciphertexts), &OpenLimits::default());
        Ok(Self { container: container.map_err(|error| error.in_file(path))? })
    }

    /// BLAKE3 of the whole file by this thread, as far as it gets before `stop` says so.
    #[must_use]
    pub fn begin_digest(&self, stop: &dyn Fn() -> bool) -> PartDigest {
        self.container.begin_digest(stop)
    }

    /// The rest of it, by all threads of the pool that the caller runs in; hexadecimal.
    #[must_use]
    pub fn finish_digest_in_parallel(&self, part: PartDigest) -> String {
        self.container.finish_digest_in_parallel(part)
    }
}

/// An open batch. Shared freely between threads.
pub struct EncryptedBatch {
    container: Container,
    header: Header,
    place: BatchPlace,
    degree: usize,
    entries: usize,
    blocks: Blocks,
    moduli: Vec<Modulus>,
    kernel: Kernel,
    /// Expands c1, unless it is stored.
    masks: Option<Stream>,
}

impl std::fmt::Debug for EncryptedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptedBatch({:?}, {:?}, {} entries)", self.header, self.place, self.entries)
    }
}

impl EncryptedBatch {
    /// Maps a batch and checks its header, metadata and layout, not the sections' digests (see [`Self::verify`]).
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] for another plan, key, job, parameters, root, number of entries, level or scale; the rest for damage.
    pub fn open(path: &Path, expected: &ExpectedBatch<'_>) -> Result<Self, FormatError> {
        Self::new(MappedBatch::open(path)?, expected)
    }

    /// Checks metadata and layout of a mapped batch.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(mapped: MappedBatch, expected: &ExpectedBatch<'_>) -> Result<Self, FormatError> {
        let path = mapped.container.path().to_owned();
        Self::new_unnamed(mapped.container, expected).map_err(|error| error.in_file(&path))
    }

    fn new_unnamed(container: Container, expected: &ExpectedBatch<'_>) -> Result<Self, FormatError> {
        let ExpectedBatch { context, input_scale, plan_id, key_id, job_id, entries } = *expected;
        let header = Header::read(&container, &Expected { plan_id, key_id: Some(key_id), context })?;
        container.expect_metadata("job_id", job_id)?;
        container.expect_metadata("form", "ntt")?;
        container.expect_metadata("entries", &entries.to_string())?;
        container.expect_metadata("level", &(context.limbs() - 1).to_string())?;
        expect_scale(&container, input_scale)?;
        let place = BatchPlace::read(&container, context.degree())?;
        container.expect_sections(&input_specs(context, entries, place.encryption))?;
        let masks = match place.encryption {
            EncryptionKind::Public => None,
            EncryptionKind::Secret => {
                let mut seed = [0; SEED_BYTES];
                seed.copy_from_slice(container.section("c1.seed")?.bytes);
                Some(Stream::with_kernel(&seed, context.kernel()))
            }
        };
        let moduli = (0..context.limbs()).map(|prime| *context.modulus(prime)).collect();
        Ok(Self {
            container,
            header,
            place,
            degree: context.degree(),
            entries,
            blocks: Blocks::new(entries, context.degree()),
            moduli,
            kernel: context.kernel(),
            masks,
        })
    }

    /// Checks every section's digest: reads the whole file once.
    ///
    /// # Errors
    /// [`FormatError::Digest`].
    pub fn verify(&self) -> Result<(), FormatError> {
        self.container.verify()
    }

    /// Whose it is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which part of its job it is.
    #[must_use]
    pub fn place(&self) -> &BatchPlace {
        &self.place
    }

    /// Slots that carry images.
    #[must_use]
    pub fn occupancy(&self) -> usize {
        self.place.occupancy
    }

    /// Image in slot 0, counted over the whole job.
    #[must_use]
    pub fn first_image(&self) -> u64 {
        self.place.first_image
    }

    /// Number of the batch in its job.
    #[must_use]
    pub fn index(&self) -> usize {
        self.place.index
    }

    /// Number of ciphertexts.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// BLAKE3 of the whole file, hexadecimal; reads it once.
    #[must_use]
    pub fn file_digest(&self) -> String {
        self.container.file_digest()
    }

    /// Length of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.container.file_bytes()
    }

    /// Hints that the whole file is about to be read.
    pub fn read_ahead(&self) {
        self.container.read_ahead();
    }

    /// What results of this batch say about themselves; `input_digest` is that of this file.
    #[must_use]
    pub fn result_header(&self, input_digest: &str) -> ResultHeader {
        ResultHeader { header: self.header.clone(), place: self.place.clone(), input_digest: input_digest.to_owned() }
    }

    /// Residues `first_slot .. first_slot + out.len()` (positions in the NTT domain) of one limb of one component of an entry, each
    /// checked to be below its prime. Allocates nothing.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] outside the batch, [`FormatError::Residue`].
    pub fn load_into(
        &self,
        component: usize,
        limb: usize,
        entry: usize,
        first_slot: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        let end = first_slot.saturating_add(out.len());
        let Some(modulus) =
            self.moduli.get(limb).filter(|_| component < 2 && entry < self.entries && end <= self.degree)
        else {
            return Err(self.outside(component, limb, entry, end));
        };
        if let (1, Some(masks)) = (component, &self.masks) {
            masks.uniform_into(modulus, entry as u32, limb as u32, first_slot, out);
            return Ok(());
        }
        // Sections are c0.limb0, c0.limb1, .., c1.limb0, ..: their order and shapes were checked when the file was opened.
        let section = self.container.section_bytes(component * self.moduli.len() + limb);
        let width = width_bytes(modulus.value());
        let mut rest = out;
        let mut position = first_slot;
        while !rest.is_empty() {
            let (place, side_by_side) = self.blocks.place(entry, position);
            let (out, after) = rest.split_at_mut(side_by_side.min(rest.len()));
            let packed = section.get(place * width..(place + out.len()) * width).unwrap_or_default();
            if packed.len() != out.len() * width || self.kernel.unpack_into(width, packed, out) >= modulus.value() {
                // Something is wrong: the checked reader says what.
                unpack_checked_into(packed, width, out, modulus.value())
                    .map_err(|error| error.in_file(self.container.path()))?;
            }
            position += out.len();
            rest = after;
        }
        Ok(())
    }

    /// [`Self::load_into`] for several entries, `[entry][residue]`, as many residues of each: masks are expanded together, and what lies together
    /// is unpacked in one go.
    ///
    /// # Errors
    /// As [`Self::load_into`].
    pub fn load_rows_into(
        &self,
        component: usize,
        limb: usize,
        entries: &[u32],
        first_slot: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        let columns = out.len() / entries.len().max(1);
        let end = first_slot.saturating_add(columns);
        if let Some(&entry) = entries.iter().find(|&&entry| entry as usize >= self.entries || end > self.degree) {
            return Err(self.outside(component, limb, entry as usize, end));
        }
        if let (1, Some(masks), Some(modulus)) = (component, &self.masks, self.moduli.get(limb)) {
            masks.uniform_rows_into(modulus, entries, limb as u32, first_slot, out);
            return Ok(());
        }
        if let (0..2, Some(modulus)) = (component, self.moduli.get(limb))
            && let Some(packed) = self.packed_rows(component, limb, entries, first_slot, columns)
            && packed.len() == out.len() * width_bytes(modulus.value())
            && self.kernel.unpack_into(width_bytes(modulus.value()), packed, out) < modulus.value()
        {
            return Ok(());
        }
        // One by one: they lie apart, or something is wrong, and then it is said what.
        let mut rows = entries.iter().zip(out.chunks_exact_mut(columns.max(1)));
        rows.try_for_each(|(&entry, out)| self.load_into(component, limb, entry as usize, first_slot, out))
    }

    /// What is stored of all these entries' residues, where it lies together.
    fn packed_rows(
        &self,
        component: usize,
        limb: usize,
        entries: &[u32],
        first_slot: usize,
        columns: usize,
    ) -> Option<&[u8]> {
        let width = width_bytes(self.moduli.get(limb)?.value());
        let place = self.blocks.place_of_rows(entries, first_slot, columns)?;
        let section = self.container.section_bytes(component * self.moduli.len() + limb);
        section.get(place * width..(place + entries.len() * columns) * width)
    }

    /// Announces that [`Self::load_rows_into`] will read these residues of every stored component. A hint: outside the batch it does nothing.
    pub fn prefetch(&self, limb: usize, entries: &[u32], first_slot: usize, count: usize) {
        let Some(modulus) = self.moduli.get(limb) else { return };
        let stored = if self.masks.is_some() { 1 } else { 2 };
        let width = width_bytes(modulus.value());
        for component in 0..stored {
            if let Some(packed) = self.packed_rows(component, limb, entries, first_slot, count) {
                kernels::prefetch(packed);
                continue;
            }
            let section = self.container.section_bytes(component * self.moduli.len() + limb);
            for &entry in entries {
                let (place, side_by_side) = self.blocks.place(entry as usize, first_slot);
                let packed = section.get(place * width..(place + count.min(side_by_side)) * width);
                kernels::prefetch(packed.unwrap_or_default());
            }
        }
    }

    #[cold]
    fn outside(&self, component: usize, limb: usize, entry: usize, end: usize) -> FormatError {
        let limbs = self.moduli.len();
        FormatError::invalid(
            "residues asked for",
            format!("component {component}, limb {limb}, entry {entry}, up to {end}"),
            format!("2 components, {limbs} limbs, {} entries, up to {}", self.entries, self.degree),
        )
    }
}

impl ResultHeader {
    /// Requires that results answer this place and input.
    pub(super) fn expect(
        &self,
        index: usize,
        first_image: u64,
        occupancy: usize,
        input: &str,
    ) -> Result<(), FormatError> {
        same("batch", self.place.index, index)?;
        same("first_image", self.place.first_image, first_image)?;
        same("occupancy", self.place.occupancy, occupancy)?;
        same("input_digest", &self.input_digest, input)
    }
}
