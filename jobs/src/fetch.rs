//! A job's results out of a queue's payload store into the job's folder, where they lie as if a one-shot had run there: outputs under the
//! manifest's names, each held to the digest of its commit, and the receipt last.

use crate::atomic;
use crate::digest::Digest;
use crate::error::{FileRole, JobsError, Result};
use crate::manifest::LoadedJob;
use crate::queue::{JobId, JobState, JobSummary, Queue};
use crate::receipt::{Outcome, Receipt};
use crate::runner::seal::{self, receipt_name};
use crate::signing::signature_path;
use crate::store::Store;
use crate::submit::job_id_of;

/// What there was to fetch.
#[derive(Clone, Debug, PartialEq)]
pub enum Fetched {
    /// Results and receipt lie in the folder.
    Done {
        /// The receipt.
        receipt: Box<Receipt>,
        /// Bytes of all results.
        bytes: u64,
    },
    /// The job failed; its receipt lies in the folder, where it has one.
    Failed {
        /// As the queue has it.
        summary: Box<JobSummary>,
    },
    /// Not yet: it waits, runs, or is about to get its receipt.
    Unfinished {
        /// As the queue has it.
        summary: Box<JobSummary>,
    },
    /// Somebody cancelled it.
    Cancelled,
}

/// Where the job stands in the queue; the queue's job must have this very manifest.
///
/// # Errors
/// [`JobsError::NoSuchJob`]; [`JobsError::KeyReused`] for a job with another manifest.
pub fn find(queue: &dyn Queue, job: &LoadedJob) -> Result<crate::queue::JobRecord> {
    let id: JobId = job_id_of(job.manifest());
    let record = queue.get(id)?.ok_or(JobsError::NoSuchJob { job: id })?;
    let submission = &record.summary.submission;
    let found = Digest::of(job.document().as_bytes());
    if submission.manifest == found {
        return Ok(record);
    }
    Err(JobsError::KeyReused {
        tenant: submission.tenant.clone(),
        key: submission.idempotency_key.clone(),
        found,
        expected: submission.manifest,
    })
}

/// Brings down what the job has by now.
///
/// # Errors
/// Those of [`find`]; a receipt that does not answer the manifest, results that are not those of the receipt; files that cannot be
/// written.
pub fn fetch(queue: &dyn Queue, store: &Store, job: &LoadedJob) -> Result<Fetched> {
    let record = find(queue, job)?;
    let summary = Box::new(record.summary);
    if summary.state == JobState::Cancelled {
        return Ok(Fetched::Cancelled);
    }
    if !summary.state.is_final() || !summary.is_sealed {
        return Ok(Fetched::Unfinished { summary });
    }
    let name = receipt_name(summary.job, summary.generation);
    let Some(bytes) = store.get_document(&name)? else {
        // A job that failed before anybody could read its manifest.
        return match summary.state {
            JobState::Failed => Ok(Fetched::Failed { summary }),
            _ => Err(JobsError::NotStored { place: name }),
        };
    };
    let path = job.receipt_path()?;
    let text = String::from_utf8(bytes)
        .map_err(|_| JobsError::Syntax { path: path.clone(), detail: "the stored receipt is not UTF-8".to_owned() })?;
    let receipt = Receipt::parse(&path, &text)?;
    receipt.verify_against(job.manifest())?;
    let mut fetched_bytes = 0;
    if receipt.outcome == Outcome::Done {
        for (index, (task, batch)) in record.tasks.iter().zip(&receipt.batches).enumerate() {
            let expected = batch.output_stamp;
            let result = task.result.as_ref().map(|result| result.output);
            if result != Some(expected) {
                let found = result.map_or(Digest::of(&[]), |stamp| stamp.digest);
                let (role, path) = (FileRole::Output(index), path.clone());
                return Err(JobsError::WrongDigest { role, path, found, expected: expected.digest });
            }
            let to = job.output_path(&job.manifest().batches[index])?;
            let id = crate::queue::TaskId { job: summary.job, batch: index as u32 };
            store.get_result(id, task.epoch, expected, &to)?;
            fetched_bytes += expected.bytes;
        }
    }
    // A receipt is never there without its own signature.
    if let Some(signature) = store.get_document(&seal::signature_name(summary.job, summary.generation))? {
        atomic::write_atomic(&signature_path(&path), &signature)?;
    }
    atomic::write_atomic(&path, text.as_bytes())?;
    match receipt.outcome {
        Outcome::Done => Ok(Fetched::Done { receipt: Box::new(receipt), bytes: fetched_bytes }),
        Outcome::Failed { .. } => Ok(Fetched::Failed { summary }),
    }
}
