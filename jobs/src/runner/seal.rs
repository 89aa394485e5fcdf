//! The receipt of a job that a queue has ended: made of what its tasks' commits carry, written once, sealed. A function of the
//! queue's records alone, so that two workers who do it at once write the same bytes.

use super::task::TaskReport;
use super::{Event, Parts};
use crate::error::{JobsError, Result};
use crate::manifest::{self, JobManifest};
use crate::queue::{JobId, JobRecord, JobState, TaskState};
use crate::receipt::{self, BatchReceipt, Cost, Outcome, Receipt, Timing};

/// Where a job's receipt lies among the store's documents.
#[must_use]
pub fn receipt_name(job: JobId, generation: u32) -> String {
    format!("{job}/receipt-{generation}.json")
}

/// Where its signature lies, if a worker with a key wrote it.
pub(crate) fn signature_name(job: JobId, generation: u32) -> String {
    format!("{}.sig", receipt_name(job, generation))
}

/// Writes the receipts that dead workers owe.
pub(super) fn all(parts: &Parts) -> Result<()> {
    parts.queue.unsealed()?.iter().try_for_each(|job| one(parts, job.job))
}

/// Writes a job's receipt and seals it; does nothing where that is done, or the job goes on.
pub(super) fn one(parts: &Parts, job: JobId) -> Result<()> {
    let Some(record) = parts.queue.get(job)? else { return Ok(()) };
    let state = record.summary.state;
    if record.summary.is_sealed || !matches!(state, JobState::Done | JobState::Failed) {
        return Ok(());
    }
    let generation = record.summary.generation;
    let name = receipt_name(job, generation);
    let manifest = parts.store.get_blob_bytes(record.summary.submission.manifest, manifest::MANIFEST_LIMIT_BYTES)?;
    // A manifest that nobody can read has no receipt: the queue has the reason.
    let manifest = String::from_utf8(manifest).ok().and_then(|text| manifest::parse(name.as_ref(), &text).ok());
    let receipt = manifest.as_ref().map(|manifest| assemble(manifest, &record)).transpose()?;
    if let Some(receipt) = &receipt {
        let text = receipt.to_text(name.as_ref())?;
        // Where another stands, by another version of this program, it stays: the first one counts, and who made it signs it.
        let is_own = parts.store.create_document(&name, text.as_bytes())?;
        let signature = if is_own { parts.compute.sign(text.as_bytes()) } else { None };
        if let Some(signature) = signature {
            parts.store.create_document(&signature_name(job, generation), signature.as_bytes())?;
        }
    }
    parts.queue.seal(job, generation)?;
    let documents = manifest.as_ref().zip(receipt.as_ref());
    (parts.observe)(Event::Sealed { job, state, documents });
    Ok(())
}

/// The receipt of a job that is done or failed.
fn assemble(manifest: &JobManifest, record: &JobRecord) -> Result<Receipt> {
    let reports = reports(record)?;
    let done = record.tasks.iter().take_while(|task| task.state == TaskState::Done).count();
    let outcome = match (&record.summary.state, &record.summary.failure) {
        (JobState::Done, _) => Outcome::Done,
        (_, Some(failure)) => Outcome::failed(&failure.reason, failure.exit_code),
        (_, None) => Outcome::failed("no reason is recorded", crate::ExitCode::Bug),
    };
    let batches: Vec<BatchReceipt> = reports.iter().take(done).flatten().map(|r| r.computed.batch.clone()).collect();
    let known: Vec<&TaskReport> = reports.iter().flatten().collect();
    let measured = sum(known.iter().map(|report| report.computed.measured));
    Ok(Receipt {
        schema: receipt::SCHEMA.to_owned(),
        job_id: manifest.job_id.clone(),
        tenant: manifest.tenant.clone(),
        outcome,
        plan_id: manifest.plan_id.clone(),
        key_id: manifest.key_id.clone(),
        model: manifest.model.digest,
        eval_key: manifest.eval_key.digest,
        images: manifest.images,
        slots: manifest.slots,
        code_version: joined(known.iter().map(|report| report.computed.code_version.as_str())),
        code_commit: commit(&known),
        attempts: record.tasks.iter().map(|task| task.attempts).max().unwrap_or(1).max(1),
        isa: joined(known.iter().map(|report| report.computed.isa.as_str())),
        threads: known.iter().map(|report| report.computed.threads).max().unwrap_or(1),
        batches,
        totals: totals(&known),
        predicted: (known.len() == record.tasks.len()).then(|| sum(known.iter().map(|r| r.computed.predicted))),
        measured,
    })
}

/// One a task, in order; none for a task without a result.
fn reports(record: &JobRecord) -> Result<Vec<Option<TaskReport>>> {
    let job = record.summary.job;
    let of_task = |(batch, task): (usize, &crate::queue::TaskRecord)| {
        let result = task.result.as_ref().filter(|_| task.state == TaskState::Done);
        let report = result.map(|result| serde_json::from_str(&result.report));
        report.transpose().map_err(|error| JobsError::QueueRecord {
            place: format!("{job}/{batch}"),
            detail: format!("report: {error}"),
        })
    };
    record.tasks.iter().enumerate().map(of_task).collect()
}

/// Seconds and bytes add up; the peak is the largest of any.
fn sum(costs: impl Iterator<Item = Cost>) -> Cost {
    let none = Cost { elapsed_secs: 0.0, peak_bytes: 0, output_bytes: 0 };
    costs.fold(none, |sum, cost| Cost {
        elapsed_secs: sum.elapsed_secs + cost.elapsed_secs,
        peak_bytes: sum.peak_bytes.max(cost.peak_bytes),
        output_bytes: sum.output_bytes.saturating_add(cost.output_bytes),
    })
}

/// The distinct ones in order of first appearance, joined by `+`; as many as a receipt's field has room for.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const LIMIT_CHARS: usize = 64;
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    let text = distinct.join("+");
    if text.is_empty() { "none".to_owned() } else { text.chars().take(LIMIT_CHARS).collect() }
}

/// The one commit that all were built from, if there is one.
fn commit(reports: &[&TaskReport]) -> Option<String> {
    let first = reports.first()?.computed.code_commit.clone();
    first.filter(|first| reports.iter().all(|report| report.computed.code_commit.as_ref() == Some(first)))
}

fn totals(reports: &[&TaskReport]) -> Vec<Timing> {
    let mut totals: Vec<Timing> = Vec::new();
    for step in reports.iter().flat_map(|report| &report.steps) {
        match totals.iter_mut().find(|total| total.name == step.name) {
            Some(total) => total.secs += step.secs,
            None => totals.push(step.clone()),
        }
    }
    totals
}
