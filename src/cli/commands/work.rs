//! `nightshift-worker work`: a worker of a queue, until it is empty, until one batch is done, or until told. Holds no secret.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jobs::metrics::{Metrics, families};
use jobs::queue::{Capacity, JobState, Stats};
use jobs::receipt::Outcome;
use jobs::runner::{self, Event, Options, Parts, Scratch, Summary, Until};
use jobs::trust::Ledger;
use jobs::{ExitCode, SigningKey, TrustedKeys};
use serde_json::json;

use super::queue::open;
use super::run::kernel;
use super::{Context, Report};
use crate::cli::args::{ByteSize, TrustArgs, WorkArgs};
use crate::cli::error::CliError;
use crate::cli::figures::Figures;
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::cli::signals;
use crate::worker::{ENGINES, Fleet, FleetTrust, Machine, available_bytes, free_bytes};

/// Of the free memory at the start, what is left to the system and to what the plan's figures do not count.
const RESERVE: u64 = 20;

/// Works.
///
/// # Errors
/// With `--once` the batch's own failure; a machine that cannot work; a queue that does not answer; work handed back on a signal (75).
pub fn run(args: &WorkArgs, context: &Context) -> Result<Report, CliError> {
    let machine =
        Machine { threads: context.threads.get(), kernel: kernel(args.isa)?, memory_limit_bytes: None, rates: None };
    let trust = trust(&args.trust)?;
    let figures = Figures::start(&args.metrics, machine.kernel.name())?;
    let metrics = Arc::clone(figures.metrics());
    let figures = Arc::new(Mutex::new(figures));
    let signals = signals::count().map_err(|source| CliError::System { what: "signals", source })?;
    let (queue, store) = open(&args.queue)?;
    let scratch = match &args.scratch {
        Some(folder) => Scratch::open(folder)?,
        None => Scratch::temporary()?,
    };
    let memory_bytes = match (args.memory_limit.map(ByteSize::bytes), available_bytes()) {
        (Some(limit), _) => limit,
        (None, Some(available)) => available - available / RESERVE,
        (None, None) => u64::MAX,
    };
    let scratch_folder = scratch.folder().to_owned();
    let capacity = move || Capacity {
        memory_bytes,
        scratch_bytes: free_bytes(&scratch_folder).unwrap_or(u64::MAX),
        engines: ENGINES,
    };
    let name = args.name.clone().unwrap_or_else(default_name);
    let (memory, engines) = (human_bytes(memory_bytes), ENGINES.join(", "));
    tracing::info!(worker = name, memory, scratch = %scratch.folder().display(), engines, "working");
    let until = match (args.once, args.drain) {
        (true, _) => Until::Once,
        (false, true) => Until::Empty,
        (false, false) => Until::Told,
    };
    let counts = args.metrics.metrics_textfile.is_some() || args.metrics.metrics_listen.is_some();
    let options = Options { worker: name, slots: args.concurrency, until, grace: args.grace, counts };
    let written = Arc::clone(&figures);
    let observe = move |event: Event<'_>| {
        tell(&event);
        if count(&metrics, &event) {
            written.lock().unwrap_or_else(PoisonError::into_inner).write();
        }
    };
    let parts = Parts {
        queue: Arc::from(queue),
        store,
        compute: Arc::new(Fleet::new(machine, args.concurrency, args.checkpoint_after, trust)),
        scratch,
        options,
        capacity: Box::new(capacity),
        signals,
        observe: Box::new(observe),
    };
    let outcome = runner::run(parts);
    figures.lock().unwrap_or_else(PoisonError::into_inner).write();
    report(&outcome?, until)
}

/// Reads the keys that the options name.
fn trust(args: &TrustArgs) -> Result<FleetTrust, CliError> {
    Ok(FleetTrust {
        requests: args.require_signed_by.as_deref().map(TrustedKeys::load).transpose()?,
        ledger: args.ledger.as_deref().map(Ledger::open).transpose()?,
        signing: args.signing_key.as_deref().map(SigningKey::load).transpose()?,
    })
}

/// Counts what happened; whether somebody who reads the figures later should see it now.
fn count(metrics: &Metrics, event: &Event<'_>) -> bool {
    let running = |change: f64| metrics.move_by(&families::TASKS_RUNNING, &[], change);
    match event {
        Event::Claimed { .. } => {
            metrics.add(&families::CLAIMS, &[], 1.0);
            running(1.0);
        }
        Event::Done { .. } | Event::Failed { .. } | Event::Released { .. } | Event::Cancelled { .. } => running(-1.0),
        Event::Lost { .. } => {
            metrics.add(&families::LEASE_LOSSES, &[], 1.0);
            running(-1.0);
        }
        Event::Sealed { state, documents, .. } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            match documents {
                Some((manifest, receipt)) => match receipt.outcome {
                    Outcome::Done => metrics.job_done(families::Ended::Done, manifest, receipt, now),
                    Outcome::Failed { exit_code, .. } => metrics.job_failed(exit_code, now),
                },
                None if *state == JobState::Failed => metrics.job_failed(ExitCode::BadData, now),
                None => {}
            }
            return true;
        }
        Event::Counted { stats } => {
            gauge(metrics, stats);
            return true;
        }
        _ => {}
    }
    false
}

fn gauge(metrics: &Metrics, stats: &Stats) {
    for (state, jobs) in [
        (JobState::Queued, stats.jobs_queued),
        (JobState::Running, stats.jobs_running),
        (JobState::Done, stats.jobs_done),
        (JobState::Failed, stats.jobs_failed),
        (JobState::Cancelled, stats.jobs_cancelled),
    ] {
        metrics.set(&families::QUEUE_JOBS, &[state.name()], jobs as f64);
    }
    metrics.set(&families::QUEUE_LEASES, &[], stats.live_leases as f64);
    metrics.set(&families::QUEUE_OLDEST, &[], stats.oldest_queued_ms.map_or(0.0, |ms| ms as f64 / 1000.0));
}

/// Host and process: unique enough to find a worker by.
fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
    format!("{}-{}", if plain.is_empty() { "worker" } else { &plain[..plain.len().min(64)] }, std::process::id())
}

/// A line a thing that happens. Names of tasks only: a tenant's files have no place in a log.
fn tell(event: &Event<'_>) {
    match event {
        Event::Claimed { lease } => {
            tracing::info!(task = %lease.task, epoch = lease.epoch, attempt = lease.attempt, "claimed");
        }
        Event::Done { lease, computed, left, elapsed_secs } => {
            let images = computed.batch.occupancy;
            tracing::info!(task = %lease.task, epoch = lease.epoch, images, left, secs = elapsed_secs, "done");
        }
        Event::Failed { lease, reason, exit_code, due_in } => match due_in {
            Some(due_in) => {
                let again_in = human_duration(*due_in);
                tracing::warn!(task = %lease.task, attempt = lease.attempt, code = exit_code.code(), again_in, "failed: {reason}");
            }
            None => tracing::error!(task = %lease.task, code = exit_code.code(), "given up: {reason}"),
        },
        Event::Released { lease } => tracing::info!(task = %lease.task, "handed back"),
        Event::Lost { lease } => tracing::warn!(task = %lease.task, epoch = lease.epoch, "lease lost, nothing written"),
        Event::Cancelled { lease } => tracing::info!(task = %lease.task, "cancelled"),
        Event::Sealed { job, state, .. } => tracing::info!(%job, %state, "receipt written"),
        Event::Idle { idle } => {
            tracing::debug!(waiting = idle.waiting, leased = idle.leased, too_large = idle.too_large, "nothing to do");
        }
        Event::Unavailable { doing, error } => tracing::warn!(doing, "queue or store: {error}"),
        Event::Reconciled { leases } => tracing::info!(leases, "leases of workers that are gone taken back"),
        Event::Counted { .. } => {}
        Event::Draining { running } => tracing::info!(running, "told to leave: no new batches"),
    }
}

fn report(summary: &Summary, until: Until) -> Result<Report, CliError> {
    if let Some((reason, code)) = &summary.machine {
        let (what, advice) = ("this machine cannot work", Some("nothing is lost: the batch is back in the queue"));
        return Err(CliError::Ended { what: what.to_owned(), reason: reason.clone(), code: *code, advice });
    }
    if let (Until::Once, Some((task, reason, code))) = (until, &summary.last_failure) {
        let (what, reason) = (format!("batch {task}"), reason.clone());
        return Err(CliError::Ended { what, reason, code: *code, advice: None });
    }
    if summary.released > 0 {
        let what = format!("{} batch(es)", summary.released);
        let reason = "handed back: the worker was told to leave".to_owned();
        return Err(CliError::Ended { what, reason, code: ExitCode::TryLater, advice: None });
    }
    let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
    table.row(["batches done", &summary.done.to_string()]);
    table.row(["failed attempts", &summary.failed.to_string()]);
    table.row(["leases lost", &summary.lost.to_string()]);
    Ok(Report {
        text: table.to_string(),
        json: json!({ "done": summary.done, "failed": summary.failed, "lost": summary.lost }),
    })
}
