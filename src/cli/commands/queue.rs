//! `nightshift-worker cancel` and `requeue`, and what all commands on queues share: opening one, finding a job's manifest.

use std::path::{Path, PathBuf};

use jobs::manifest::{self, LoadedJob};
use jobs::queue::{Cancelled, JobId, JobState, Queue, Requeued};
use jobs::store::Store;
use serde_json::json;

use super::Report;
use crate::cli::args::{JobsArgs, QueueArgs};
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table};

/// The queue and its payloads.
pub(super) fn open(args: &QueueArgs) -> Result<(Box<dyn Queue>, Store), CliError> {
    Ok(jobs::queue::open(&args.url)?)
}

/// The manifest of a job folder, or the one named itself.
pub(super) fn load_job(path: &Path) -> Result<LoadedJob, CliError> {
    let path: PathBuf = if path.is_dir() { path.join("job.toml") } else { path.to_owned() };
    Ok(manifest::load(&path)?)
}

/// Cancels jobs, each that can still be.
///
/// # Errors
/// A job that is not there or is over.
pub fn cancel(args: &JobsArgs) -> Result<Report, CliError> {
    change(args, "cancelled", |queue, job| {
        Ok(match queue.cancel(job)? {
            Cancelled::Cancelled => Ok("cancelled".to_owned()),
            Cancelled::Already(state) => Err(state),
        })
    })
}

/// Puts jobs back, each that failed or was cancelled.
///
/// # Errors
/// A job that is not there or is neither failed nor cancelled.
pub fn requeue(args: &JobsArgs) -> Result<Report, CliError> {
    change(args, "requeued", |queue, job| {
        Ok(match queue.requeue(job)? {
            Requeued::Requeued { generation } => Ok(format!("queued again, time {generation}")),
            Requeued::Not(state) => Err(state),
        })
    })
}

/// All jobs are tried; the first that could not be changed is the error.
fn change(
    args: &JobsArgs,
    what: &str,
    one: impl Fn(&dyn Queue, JobId) -> jobs::Result<Result<String, JobState>>,
) -> Result<Report, CliError> {
    let (queue, _) = open(&args.queue)?;
    let mut table = Table::new(&[("job", Align::Left), ("", Align::Left)]);
    let mut refused = None;
    let mut changed = Vec::new();
    for &job in &args.jobs {
        match one(&*queue, job)? {
            Ok(words) => {
                table.row([job.to_string(), words]);
                changed.push(job.to_string());
            }
            Err(state) => {
                let (what, reason) = (format!("job {job}"), format!("found {state}, cannot be {what}"));
                let code = jobs::ExitCode::BadData;
                refused.get_or_insert(CliError::Ended { what, reason, code, advice: None });
            }
        }
    }
    match refused {
        Some(error) => Err(error),
        None => Ok(Report { text: table.to_string(), json: json!({ what: changed }) }),
    }
}
