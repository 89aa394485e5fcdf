//! One batch of a job, alone: encrypted images in, encrypted logits out, and what a receipt says of it. The same bytes
//! whoever runs it, in whatever order, and whichever other batches run beside it.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use jobs::receipt::BatchReceipt;
use jobs::{Digest, FileRole, FileStamp, JobManifest, JobsError, manifest};

use super::WorkerError;
use super::ahead::Ahead;
use super::checkpoint::{CheckpointPlace, FileCheckpoints, StateOwner};
use super::clock::Clock;
use super::prepared::Prepared;
use crate::engine::{Event, Inputs};
use crate::format::FormatError;
use crate::format::ciphertexts::{BatchPlace, EncryptedBatch, ExpectedBatch, write_results};

/// Which batch, and its two files.
#[derive(Clone, Copy, Debug)]
pub struct BatchWork<'a> {
    /// The manifest of its job.
    pub manifest: &'a JobManifest,
    /// Number of the batch in it.
    pub index: usize,
    /// Encrypted images.
    pub input_path: &'a Path,
    /// Where the encrypted logits go.
    pub output_path: &'a Path,
    /// Where its state is kept while it is worked on; the exact engine keeps none.
    pub checkpoint: CheckpointPlace<'a>,
}

impl<'a> BatchWork<'a> {
    /// What the manifest says of it.
    #[must_use]
    pub fn batch(&self) -> &'a manifest::Batch {
        &self.manifest.batches[self.index]
    }
}

impl Inputs for EncryptedBatch {
    fn load_into(
        &self,
        component: usize,
        limb: usize,
        entry: usize,
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        Self::load_into(self, component, limb, entry, first, out)
    }

    fn load_rows_into(
        &self,
        component: usize,
        limb: usize,
        entries: &[u32],
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        Self::load_rows_into(self, component, limb, entries, first, out)
    }

    fn prefetch(&self, limb: usize, entries: &[u32], first: usize, count: usize) {
        Self::prefetch(self, limb, entries, first, count);
    }
}

impl Prepared {
    /// Checks one batch's file, evaluates it and writes its results, whole or not at all. `advance` is told how many of
    /// the batch's [`ciphertexts`](Self::ciphertexts) are done.
    ///
    /// # Errors
    /// A file that is not the one the manifest speaks of; [`WorkerError::Engine`], stopped among them when `stop` is set.
    pub fn run_batch(
        &self,
        work: &BatchWork<'_>,
        stop: &AtomicBool,
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<BatchReceipt, WorkerError> {
        let ahead = Ahead::Waiting(work.input_path.to_owned());
        let receipt = self.run_batch_ahead(work, ahead, &mut || (), stop, advance);
        // Who knows when the next one comes.
        self.engine.release_memory();
        receipt
    }

    /// As [`run_batch`](Self::run_batch), with a file that is on its way; calls `taken` when it has arrived.
    pub(super) fn run_batch_ahead(
        &self,
        work: &BatchWork<'_>,
        on_its_way: Ahead<'_>,
        taken: &mut dyn FnMut(),
        stop: &AtomicBool,
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<BatchReceipt, WorkerError> {
        let (index, batch) = (work.index, work.batch());
        let clock = Clock::default();
        clock.begin("check input");
        let expected = ExpectedBatch {
            context: self.engine.context(),
            input_scale: self.input_scale,
            plan_id: &self.plan_id,
            key_id: &self.key_id,
            job_id: &work.manifest.job_id,
            entries: self.entries,
        };
        // The digest is of the file as it is mapped, so that nothing can be put in its place between check and use.
        let (mapped, found) = on_its_way.finish(&self.engine)?;
        taken();
        let input = EncryptedBatch::new(mapped, &expected)?;
        check_place(input.place(), index, batch)?;
        check_digest(&found, index, work.input_path, batch.input.digest)?;
        let observe = |event: Event<'_>| match event {
            Event::Tiles { stage, .. } => clock.begin(format!("stage {stage}: tiles")),
            Event::Polynomials { stage, .. } => clock.begin(format!("stage {stage}: polynomials")),
            Event::Done { ciphertexts, .. } => advance(ciphertexts),
        };
        let owner = StateOwner {
            plan_id: &self.plan_id,
            key_id: &self.key_id,
            job_id: &work.manifest.job_id,
            batch: index,
            input_digest: &found,
        };
        let mut checkpoints = FileCheckpoints::open(work.checkpoint, &owner, &self.engine, self.cost());
        let results = self.engine.run_kept(&input, &observe, stop, &mut checkpoints);
        let results = results.map_err(|source| WorkerError::Engine { batch: index, source: Box::new(source) })?;
        clock.begin("write results");
        let header = input.result_header(&found);
        let write = || {
            write_results(
                work.output_path,
                &header,
                self.engine.context(),
                results.outputs,
                results.components,
                results.limbs,
                self.output_scale,
                &results.residues,
            )
        };
        // A large mapping takes its time to go, and a disk to take in results.
        let (written, ()) = self.engine.both(write, || drop(input));
        let written = written?;
        checkpoints.end();
        Ok(BatchReceipt {
            input: batch.input.digest,
            output: batch.output.clone(),
            output_stamp: FileStamp { digest: parse(&written.digest), bytes: written.file_bytes },
            occupancy: batch.occupancy,
            first_image: batch.first_image,
            stages: clock.finish(),
        })
    }
}

pub(super) fn check_digest(found: &str, index: usize, path: &Path, expected: Digest) -> Result<(), WorkerError> {
    if found == expected.to_string() {
        return Ok(());
    }
    Err(JobsError::WrongDigest { role: FileRole::Input(index), path: path.to_owned(), found: parse(found), expected }
        .into())
}

/// A digest that the format's own code wrote.
fn parse(digest: &str) -> Digest {
    digest.parse().expect("BLAKE3 writes 64 hexadecimal digits")
}

/// The batch file must be the one that the manifest speaks of.
pub(super) fn check_place(input: &BatchPlace, index: usize, batch: &manifest::Batch) -> Result<(), WorkerError> {
    for (what, found, expected) in [
        ("batch number", index as u64, input.index as u64),
        ("first image", batch.first_image, input.first_image),
        ("occupancy", u64::from(batch.occupancy), input.occupancy as u64),
    ] {
        if found != expected {
            return Err(WorkerError::Mismatch {
                what,
                found: found.to_string(),
                expected: format!("{expected} from the batch file"),
            });
        }
    }
    Ok(())
}
