//! One task from its lease to its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::pace::{Pace, Stop, Why};
use super::{Computed, Event, Parts, TaskFiles, Trouble, seal};
use crate::atomic;
use crate::digest::FileStamp;
use crate::error::{JobsError, Result};
use crate::exit::ExitCode;
use crate::manifest::{self, JobManifest};
use crate::queue::{Committed, Ended, Failure, Lease, TaskResult};
use crate::receipt::Timing;
use crate::signing::signature_path;

/// What a commit carries for the receipt: the schema that [`seal`] reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskReport {
    /// What was computed.
    pub computed: Computed,
    /// Seconds besides computing.
    pub steps: Vec<Timing>,
}

/// How a task ended, for the loop that claimed it.
#[derive(Debug)]
pub(super) enum End {
    /// Committed.
    Done,
    /// Failed, now or for good.
    Failed { reason: String, exit_code: ExitCode },
    /// Handed back, since the worker is leaving.
    Released,
    /// Lost or cancelled.
    Lost,
    /// Handed back, since the machine cannot work.
    Machine { reason: String, exit_code: ExitCode },
}

/// Why a task stopped short of its result.
enum Short {
    Trouble(Trouble),
    /// Queue or store.
    Remote(JobsError),
    /// This machine's files.
    Local(JobsError),
}

/// Works on a lease until it has ended, one way or another. The queue is told; where it cannot be, the lease runs out.
///
/// # Errors
/// Queue or store did not answer; the task is not lost by that.
pub(super) fn run(parts: &Parts, lease: &Lease, stop: &Arc<Stop>, memory_bytes: u64) -> Result<End> {
    (parts.observe)(Event::Claimed { lease });
    let start = Instant::now();
    let pace = Pace::start(&parts.queue, lease, stop);
    let outcome = work(parts, lease, stop, memory_bytes);
    let short = match outcome {
        Ok((result, computed)) => {
            // Beating goes on until the commit has answered.
            let committed = commit(parts, lease, &result)?;
            drop(pace);
            let left = match committed {
                Committed::Task { left } => left,
                Committed::Job => 0,
                Committed::Cancelled => return Ok(cancelled(parts, lease)),
                Committed::Lost => return Ok(lost(parts, lease)),
            };
            let elapsed_secs = start.elapsed().as_secs_f64();
            (parts.observe)(Event::Done { lease, computed: &computed, left, elapsed_secs });
            // Also where somebody else found the last task done first and ended the job: sealing twice is sealing once.
            if left == 0 {
                seal::one(parts, lease.task.job)?;
            }
            return Ok(End::Done);
        }
        Err(short) => short,
    };
    match (stop.why(), short) {
        (Some(Why::Lost), _) => Ok(lost(parts, lease)),
        (Some(Why::Cancelled), _) => Ok(cancelled(parts, lease)),
        (Some(Why::Draining), _) | (None, Short::Trouble(Trouble::Stopped)) => {
            parts.queue.release(lease)?;
            (parts.observe)(Event::Released { lease });
            Ok(End::Released)
        }
        (None, Short::Trouble(Trouble::Permanent { reason, exit_code })) => {
            fail(parts, lease, &Failure::permanent(&reason, exit_code))
        }
        (None, Short::Trouble(Trouble::Retryable { reason, exit_code })) => {
            fail(parts, lease, &Failure::retryable(&reason, exit_code))
        }
        (None, Short::Trouble(Trouble::Machine { reason, exit_code })) => machine(parts, lease, reason, exit_code),
        (None, Short::Local(error)) => machine(parts, lease, error.to_string(), error.exit_code()),
        (None, Short::Remote(error)) => remote(parts, lease, error),
    }
}

/// From the lease to a result that lies in the store.
fn work(
    parts: &Parts,
    lease: &Lease,
    stop: &Stop,
    memory_bytes: u64,
) -> std::result::Result<(TaskResult, Computed), Short> {
    let mut steps = Steps::new();
    let folder = parts.scratch.task_folder(lease).map_err(Short::Local)?;
    let (manifest, manifest_path) = bring_manifest(parts, lease, &folder)?;
    let index = lease.task.batch as usize;
    let batch = &manifest.batches[index];
    let limit_bytes = lease.submission.needs.scratch_bytes;
    if batch.input.bytes > limit_bytes {
        let reason = format!("batch {index}: {} bytes, expected at most the {limit_bytes} declared", batch.input.bytes);
        return Err(permanent(reason, ExitCode::BadData));
    }
    let model = parts.scratch.cached(&parts.store, manifest.model.digest, limit_bytes).map_err(of_payload)?;
    let eval_key = parts.scratch.cached(&parts.store, manifest.eval_key.digest, limit_bytes).map_err(of_payload)?;
    go_on(stop)?;
    let input = folder.path("in.nsc");
    // Neither larger nor other than the manifest says.
    let found = parts.store.get_blob(batch.input.digest, batch.input.bytes, &input).map_err(of_payload)?;
    if found.bytes != batch.input.bytes {
        let reason = format!("batch {index} input: {} bytes, expected {}", found.bytes, batch.input.bytes);
        return Err(permanent(reason, ExitCode::BadData));
    }
    go_on(stop)?;
    steps.end("bring down");
    let output = folder.path("out.nsc");
    let files = TaskFiles {
        manifest: &manifest,
        manifest_path: &manifest_path,
        index,
        model: &model,
        eval_key: &eval_key,
        input: &input,
        output: &output,
        checkpoint: &parts.scratch.checkpoint(lease.task),
        memory_bytes,
    };
    let computed = compute(parts, &files, stop)?;
    go_on(stop)?;
    steps.end("compute");
    let stamp = parts.store.put_result(lease.task, lease.epoch, &output).map_err(Short::Remote)?;
    if stamp != computed.batch.output_stamp {
        return Err(retryable(format!("batch {index}: the result changed before it was stored"), ExitCode::Io));
    }
    steps.end("store");
    go_on(stop)?;
    let report = TaskReport { computed, steps: steps.timings };
    let text = serde_json::to_string(&report)
        .map_err(|error| retryable(format!("batch {index}: report: {error}"), ExitCode::Bug))?;
    let result = TaskResult { output: FileStamp { digest: stamp.digest, bytes: stamp.bytes }, report: text };
    result.validate().map_err(|error| permanent(error.to_string(), error.exit_code()))?;
    Ok((result, report.computed))
}

/// The manifest as the client wrote it, its signature beside it if it has one, and whether it is the job that was enqueued.
fn bring_manifest(
    parts: &Parts,
    lease: &Lease,
    folder: &super::scratch::TaskFolder,
) -> std::result::Result<(JobManifest, std::path::PathBuf), Short> {
    let submission = &lease.submission;
    let path = folder.path("job.toml");
    let bytes = parts.store.get_blob_bytes(submission.manifest, manifest::MANIFEST_LIMIT_BYTES).map_err(of_payload)?;
    let refused = |error: JobsError| permanent(error.to_string(), error.exit_code());
    let text =
        String::from_utf8(bytes).map_err(|_| permanent("the manifest is not UTF-8".to_owned(), ExitCode::BadData))?;
    let manifest = manifest::parse(&path, &text).map_err(refused)?;
    crate::submit::expect_same_job(submission, &manifest).map_err(refused)?;
    atomic::write_atomic(&path, text.as_bytes()).map_err(Short::Local)?;
    let name = crate::submit::signature_name(lease.task.job, submission.manifest);
    if let Some(signature) = parts.store.get_document(&name).map_err(Short::Remote)? {
        atomic::write_atomic(&signature_path(&path), &signature).map_err(Short::Local)?;
    }
    Ok((manifest, path))
}

/// A panic of a task is a failure of the task: the worker lives on.
fn compute(parts: &Parts, files: &TaskFiles<'_>, stop: &Stop) -> std::result::Result<Computed, Short> {
    // What the panicking computation shared is either behind locks that know of it or thrown away with it.
    let computed = catch_unwind(AssertUnwindSafe(|| parts.compute.compute(files, stop.flag())));
    let computed = computed.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        let reason = format!("batch {}: panic: {}", files.index, words.unwrap_or("no words"));
        Err(Trouble::Retryable { reason, exit_code: ExitCode::Bug })
    });
    computed.map_err(Short::Trouble)
}

/// Repeated until it is known how it ended, as long as the lease may live.
fn commit(parts: &Parts, lease: &Lease, result: &TaskResult) -> Result<Committed> {
    let until = Instant::now() + parts.queue.lease_ttl();
    loop {
        match parts.queue.commit(lease, result) {
            Err(error) if Instant::now() < until && is_passing(&error) => {
                (parts.observe)(Event::Unavailable { doing: "commit", error: &error });
                std::thread::sleep(parts.queue.lease_ttl() / 20);
            }
            other => return other,
        }
    }
}

fn fail(parts: &Parts, lease: &Lease, failure: &Failure) -> Result<End> {
    let due_in = match parts.queue.fail(lease, failure)? {
        Ended::Requeued { due_in } => Some(due_in),
        Ended::DeadLetter => None,
        Ended::Cancelled => return Ok(cancelled(parts, lease)),
        Ended::Lost => return Ok(lost(parts, lease)),
    };
    let (reason, exit_code) = (failure.reason.as_str(), failure.exit_code);
    (parts.observe)(Event::Failed { lease, reason, exit_code, due_in });
    if due_in.is_none() {
        seal::one(parts, lease.task.job)?;
    }
    Ok(End::Failed { reason: failure.reason.clone(), exit_code })
}

fn machine(parts: &Parts, lease: &Lease, reason: String, exit_code: ExitCode) -> Result<End> {
    // Where the queue cannot be told either, the lease runs out.
    if parts.queue.release(lease).is_ok() {
        (parts.observe)(Event::Released { lease });
    }
    Ok(End::Machine { reason, exit_code })
}

/// What the store answered decides: what is not there, or is something else, is the task's trouble; silence is nobody's.
fn remote(parts: &Parts, lease: &Lease, error: JobsError) -> Result<End> {
    if is_passing(&error) {
        // Told or not, the error is what counts.
        drop(parts.queue.release(lease));
        (parts.observe)(Event::Released { lease });
        return Err(error);
    }
    fail(parts, lease, &Failure::retryable(&error.to_string(), error.exit_code()))
}

fn lost(parts: &Parts, lease: &Lease) -> End {
    (parts.observe)(Event::Lost { lease });
    End::Lost
}

fn cancelled(parts: &Parts, lease: &Lease) -> End {
    (parts.observe)(Event::Cancelled { lease });
    End::Lost
}

fn go_on(stop: &Stop) -> std::result::Result<(), Short> {
    if stop.why().is_none() { Ok(()) } else { Err(Short::Trouble(Trouble::Stopped)) }
}

fn permanent(reason: String, exit_code: ExitCode) -> Short {
    Short::Trouble(Trouble::Permanent { reason, exit_code })
}

fn retryable(reason: String, exit_code: ExitCode) -> Short {
    Short::Trouble(Trouble::Retryable { reason, exit_code })
}

/// Bringing something down fails here, there, or because of what it is.
fn of_payload(error: JobsError) -> Short {
    match error {
        JobsError::Create { .. } | JobsError::Write { .. } | JobsError::Read { .. } => Short::Local(error),
        JobsError::StoredDigest { .. } | JobsError::TooLarge { .. } | JobsError::QueueRecord { .. } => {
            permanent(error.to_string(), ExitCode::BadData)
        }
        error => Short::Remote(error),
    }
}

/// Whether trying the same again may help: a service that does not answer, a full disk.
pub(super) fn is_passing(error: &JobsError) -> bool {
    matches!(error.exit_code(), ExitCode::Unavailable | ExitCode::TryLater | ExitCode::Io)
}

/// Seconds a step.
struct Steps {
    since: Instant,
    timings: Vec<Timing>,
}

impl Steps {
    fn new() -> Self {
        Self { since: Instant::now(), timings: Vec::new() }
    }

    fn end(&mut self, name: &str) {
        let secs = self.since.elapsed().as_secs_f64();
        self.timings.push(Timing { name: name.to_owned(), secs });
        self.since = Instant::now();
    }
}
