//! `nightshift-worker status`: a queue's counts and jobs, and how far the unfinished ones are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobs::queue::{JobState, JobSummary, ListFilter, Queue, Stats};
use jobs::runner::JobProgress;
use serde_json::{Value, json};

use super::Report;
use super::queue::open;
use crate::cli::args::StatusArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_duration};

/// One job and, where it has been looked at, how far it is.
struct Line {
    job: JobSummary,
    progress: Option<JobProgress>,
}

/// Lists the queue.
///
/// # Errors
/// A queue that does not answer.
pub fn run(args: &StatusArgs) -> Result<Report, CliError> {
    let (queue, _) = open(&args.queue)?;
    let stats = queue.stats()?;
    let filter = ListFilter { state: args.state, tenant: args.tenant.clone(), limit: Some(args.limit) };
    let jobs = queue.list(&filter)?;
    let lines = jobs.into_iter().map(|job| line(&*queue, job)).collect::<Result<Vec<_>, _>>()?;
    Ok(Report { text: text(&stats, &lines), json: object(&stats, &lines) })
}

/// Tasks are read of jobs that have begun and are not over.
fn line(queue: &dyn Queue, job: JobSummary) -> Result<Line, CliError> {
    let is_under_way = !job.state.is_final() && job.done + job.running > 0;
    let record = if is_under_way { queue.get(job.job)? } else { None };
    Ok(Line { progress: record.as_ref().map(JobProgress::of), job })
}

/// Images a second of all running workers together, as far as it can be told.
fn throughput(lines: &[Line]) -> Option<f64> {
    let each = lines.iter().filter_map(|line| {
        let of_one = line.progress?.images_per_second()?;
        Some(of_one * f64::from(line.job.running))
    });
    let sum: f64 = each.sum();
    (sum > 0.0).then_some(sum)
}

fn text(stats: &Stats, lines: &[Line]) -> String {
    let mut counts = Table::new(&[("", Align::Left), ("", Align::Left)]);
    counts.row([
        "jobs",
        &format!(
            "{} queued, {} running, {} done, {} failed, {} cancelled",
            stats.jobs_queued, stats.jobs_running, stats.jobs_done, stats.jobs_failed, stats.jobs_cancelled
        ),
    ]);
    counts.row(["batches", &format!("{} waiting, {} leased", stats.tasks_queued, stats.live_leases)]);
    if let Some(ms) = stats.oldest_queued_ms {
        counts.row(["oldest waits", &human_duration(Duration::from_millis(ms))]);
    }
    if let Some(images_per_second) = throughput(lines) {
        counts.row(["throughput", &format!("{images_per_second:.0} images/s")]);
    }
    if lines.is_empty() {
        return counts.to_string();
    }
    let mut table = Table::new(&[
        ("job", Align::Left),
        ("tenant", Align::Left),
        ("state", Align::Left),
        ("done", Align::Right),
        ("running", Align::Right),
        ("attempts", Align::Right),
        ("age", Align::Right),
        ("left", Align::Right),
        ("reason", Align::Left),
    ]);
    for Line { job, progress } in lines {
        let attempts = progress.map_or_else(|| "-".to_owned(), |progress| progress.attempts.to_string());
        let left =
            progress.and_then(|progress| progress.eta_secs).map_or_else(|| "-".to_owned(), |s| human_duration(secs(s)));
        table.row([
            job.job.to_string(),
            job.submission.tenant.clone(),
            job.state.to_string(),
            format!("{}/{}", job.done, job.submission.tasks),
            job.running.to_string(),
            attempts,
            human_duration(age(job)),
            left,
            job.failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default(),
        ]);
    }
    format!("{counts}\n{table}")
}

fn object(stats: &Stats, lines: &[Line]) -> Value {
    let jobs: Vec<Value> = lines.iter().map(job_object).collect();
    json!({ "stats": stats, "images_per_second": throughput(lines), "jobs": jobs })
}

fn job_object(line: &Line) -> Value {
    let Line { job, progress } = line;
    json!({
        "queue_job": job.job.to_string(),
        "tenant": job.submission.tenant,
        "engine": job.submission.engine,
        "idempotency_key": job.submission.idempotency_key,
        "state": job.state.name(),
        "generation": job.generation,
        "batches": job.submission.tasks,
        "done": job.done,
        "running": job.running,
        "priority": job.submission.priority,
        "age_secs": age(job).as_secs_f64(),
        "attempts": progress.map(|progress| progress.attempts),
        "images_done": progress.map(|progress| progress.images_done),
        "eta_secs": progress.and_then(|progress| progress.eta_secs),
        "is_sealed": job.is_sealed && matches!(job.state, JobState::Done | JobState::Failed),
        "reason": job.failure.as_ref().map(|failure| &failure.reason),
        "exit_code": job.failure.as_ref().map(|failure| failure.exit_code.code()),
    })
}

/// Since it was submitted; nothing where the clocks disagree.
fn age(job: &JobSummary) -> Duration {
    let submitted = UNIX_EPOCH + Duration::from_millis(job.submitted_unix_ms);
    SystemTime::now().duration_since(submitted).unwrap_or_default()
}

fn secs(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}
