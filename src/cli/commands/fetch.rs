//! `fetch`: a finished job's results and receipt out of the queue's store into the job's folder, where `decrypt` expects them.

use jobs::fetch::{Fetched, fetch};
use jobs::queue::{JobSummary, Queue};
use jobs::store::Store;
use jobs::submit::job_id_of;
use jobs::{ExitCode, LoadedJob};
use serde_json::json;

use super::Report;
use super::queue::{load_job, open};
use crate::cli::args::FetchArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes};

/// Brings results and receipt; what is there already is replaced by the same bytes.
///
/// # Errors
/// A job that is not over (75), that failed (its own code) or was cancelled (75); results that are not the receipt's.
pub fn run(args: &FetchArgs) -> Result<Report, CliError> {
    let job = load_job(&args.job)?;
    let (queue, store) = open(&args.queue)?;
    report(&*queue, &store, &job)
}

pub(super) fn report(queue: &dyn Queue, store: &Store, job: &LoadedJob) -> Result<Report, CliError> {
    let id = job_id_of(job.manifest());
    let (receipt, bytes) = match fetch(queue, store, job)? {
        Fetched::Done { receipt, bytes } => (receipt, bytes),
        Fetched::Failed { summary } => return Err(failed(&summary)),
        Fetched::Unfinished { summary } => {
            let found = format!("{}, {} of {} batches done", summary.state, summary.done, summary.submission.tasks);
            return Err(CliError::Unfinished { job: id.to_string(), found });
        }
        Fetched::Cancelled => {
            let (what, reason) = (format!("job {id}"), "cancelled".to_owned());
            let advice = Some("nightshift-worker requeue puts it back");
            return Err(CliError::Ended { what, reason, code: ExitCode::TryLater, advice });
        }
    };
    let path = job.receipt_path()?;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["receipt", &path.display().to_string()]);
    table.row(["images", &format!("{} in {} batch(es)", receipt.images, receipt.batches.len())]);
    table.row(["results", &human_bytes(bytes)]);
    table.row(["computed with", &receipt.isa]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "queue_job": id.to_string(),
            "job_id": receipt.job_id,
            "receipt": path.to_string_lossy(),
            "images": receipt.images,
            "batches": receipt.batches.len(),
            "result_bytes": bytes,
        }),
    })
}

fn failed(summary: &JobSummary) -> CliError {
    let what = format!("job {}", summary.job);
    let (reason, code) = match &summary.failure {
        Some(failure) => (failure.reason.clone(), failure.exit_code),
        None => ("failed, no reason is recorded".to_owned(), ExitCode::Bug),
    };
    CliError::Ended {
        what,
        reason,
        code,
        advice: Some("nightshift-worker requeue puts it back, once the cause is gone"),
    }
}
