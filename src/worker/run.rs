//! One job, one shot: check, evaluate each batch, write results, write the receipt.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jobs::receipt::{self, Cost, Outcome};
use jobs::{ExitCode, FileRole, JobManifest, JobsError, LoadedJob, Receipt, manifest};

use super::ahead::Ahead;
use super::batch::BatchWork;
use super::checkpoint::CheckpointPlace;
use super::clock::Clock;
use super::memory::peak_bytes;
use super::prepared::{Machine, Planned, Prepared};
use super::{CODE_COMMIT, Trust, WorkerError};
use crate::format::EngineKind;
use crate::ring::kernels::Kernel;

/// What to run, and with what.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The manifest.
    pub job_path: PathBuf,
    /// A model package in place of the manifest's own path; its digest must be the manifest's.
    pub model: Option<PathBuf>,
    /// An evaluation key in place of the manifest's own path; its digest must be the manifest's.
    pub eval_key: Option<PathBuf>,
    /// Threads that compute.
    pub threads: usize,
    /// Refuse a job that needs more.
    pub memory_limit_bytes: Option<u64>,
    /// Kernel tier.
    pub kernel: Kernel,
    /// Work from which on a batch's state is kept, in the job's folder, so that it is not lost.
    pub checkpoint_after: Duration,
    /// Rates of this machine that `calibrate` wrote, in place of those in the user's cache. For what is foretold only.
    pub rates: Option<PathBuf>,
}

/// Progress of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerEvent {
    /// Files, keys and plan agree; work begins.
    Begin {
        /// Batches.
        batches: usize,
        /// Ciphertexts that all batches together will compute.
        ciphertexts: u64,
        /// Seconds it should take.
        predicted_secs: f64,
    },
    /// Ciphertexts computed so far.
    Progress {
        /// Of the whole job.
        ciphertexts: u64,
    },
    /// A batch's results stand.
    Batch {
        /// Its number.
        index: usize,
        /// Seconds it took.
        secs: f64,
    },
}

/// How it went.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// A receipt of this very job stood already; nothing was done.
    pub already_done: bool,
    /// Images in all batches.
    pub images: u64,
    /// Batches.
    pub batches: usize,
    /// From start to receipt.
    pub elapsed_secs: f64,
    /// Images over seconds.
    pub images_per_second: f64,
    /// Most memory resident, mapped files included.
    pub peak_bytes: u64,
    /// Bytes of all results.
    pub output_bytes: u64,
    /// Kernel tier.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// The receipt.
    pub receipt_path: PathBuf,
}

/// Runs a job. A job whose receipt stands and fits is not run again. A permanent failure leaves a receipt that says so.
///
/// # Errors
/// [`WorkerError`]; nothing is left under a final name but whole results, which another run replaces with the same bytes.
pub fn run(request: &RunRequest, observe: &(dyn Fn(WorkerEvent) + Sync)) -> Result<RunReport, WorkerError> {
    run_trusted(request, &Trust::default(), observe)
}

/// As [`run`], for requests that are admitted only, and with receipts that are signed where there is a key.
///
/// # Errors
/// Also those of [`Trust::admit`]: nothing is written then, no receipt either.
pub fn run_trusted(
    request: &RunRequest,
    trust: &Trust<'_>,
    observe: &(dyn Fn(WorkerEvent) + Sync),
) -> Result<RunReport, WorkerError> {
    let start = Instant::now();
    let job = manifest::load(&request.job_path)?;
    trust.admit(&job)?;
    let receipt_path = job.receipt_path()?;
    if let Some(done) = finished(&job, trust, &receipt_path)? {
        return Ok(report(&done, request, true, receipt_path));
    }
    let mut receipt = blank_receipt(job.manifest(), request);
    let outcome = if job.manifest().engine == EngineKind::Tfhe.name() {
        evaluate_exact(&job, request, observe, &mut receipt)
    } else {
        evaluate(&job, request, start, observe, &mut receipt)
    };
    receipt.measured = Cost {
        elapsed_secs: start.elapsed().as_secs_f64(),
        peak_bytes: peak_bytes(),
        output_bytes: output_bytes(&receipt),
    };
    match outcome {
        Ok(()) => {
            receipt.write_signed(&receipt_path, trust.signing)?;
            Ok(report(&receipt, request, false, receipt_path))
        }
        Err(error) => {
            if error.is_permanent() {
                receipt.outcome = Outcome::failed(&error.to_string(), error.exit_code());
                // The error that is returned matters more than a receipt that could not be written.
                drop(receipt.write_signed(&receipt_path, trust.signing));
            }
            Err(error)
        }
    }
}

/// The receipt of this very job, if it stands and all its outputs do. A receipt that cannot be read, or whose outputs are damaged or gone, is
/// no obstacle: the same bytes are computed again. One of another job, or of a newer version, is.
fn finished(job: &LoadedJob, trust: &Trust<'_>, receipt_path: &Path) -> Result<Option<Receipt>, WorkerError> {
    if !receipt_path.exists() {
        return Ok(None);
    }
    let receipt = match trust.standing_receipt(receipt_path) {
        Ok(Some(receipt)) => receipt,
        Ok(None) => return Ok(None),
        Err(error) if error.exit_code() == ExitCode::BadData => return Ok(None),
        Err(error) => return Err(error),
    };
    if receipt.outcome != Outcome::Done {
        return Ok(None);
    }
    receipt.verify_against(job.manifest())?;
    Ok(receipt.verify_outputs(job.root()).is_ok().then_some(receipt))
}

fn blank_receipt(manifest: &JobManifest, request: &RunRequest) -> Receipt {
    Receipt {
        schema: receipt::SCHEMA.to_owned(),
        job_id: manifest.job_id.clone(),
        tenant: manifest.tenant.clone(),
        outcome: Outcome::Done,
        plan_id: manifest.plan_id.clone(),
        key_id: manifest.key_id.clone(),
        model: manifest.model.digest,
        eval_key: manifest.eval_key.digest,
        images: manifest.images,
        slots: manifest.slots,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        code_commit: CODE_COMMIT.map(str::to_owned),
        attempts: 1,
        isa: request.kernel.name().to_owned(),
        threads: request.threads as u32,
        batches: Vec::new(),
        totals: Vec::new(),
        predicted: None,
        measured: Cost { elapsed_secs: 0.0, peak_bytes: 0, output_bytes: 0 },
    }
}

fn output_bytes(receipt: &Receipt) -> u64 {
    receipt.batches.iter().map(|batch| batch.output_stamp.bytes).sum()
}

fn report(receipt: &Receipt, request: &RunRequest, already_done: bool, receipt_path: PathBuf) -> RunReport {
    let elapsed_secs = receipt.measured.elapsed_secs;
    RunReport {
        already_done,
        images: receipt.images,
        batches: receipt.batches.len(),
        elapsed_secs,
        images_per_second: receipt.images as f64 / elapsed_secs,
        peak_bytes: receipt.measured.peak_bytes,
        output_bytes: output_bytes(receipt),
        isa: receipt.isa.clone(),
        threads: if already_done { receipt.threads as usize } else { request.threads },
        receipt_path,
    }
}

fn evaluate(
    job: &LoadedJob,
    request: &RunRequest,
    start: Instant,
    observe: &(dyn Fn(WorkerEvent) + Sync),
    receipt: &mut Receipt,
) -> Result<(), WorkerError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let begin = |batch: Option<&manifest::Batch>| -> Option<Result<Ahead<'_>, JobsError>> {
            let path = job.input_path(batch?);
            Some(path.map(|path| Ahead::begin(scope, path, request.threads, &stop)))
        };
        let outcome = evaluate_ahead(job, request, start, observe, receipt, &begin);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Begins to map and hash a batch, if there is one.
type BeginBatch<'a, 'scope> = dyn Fn(Option<&manifest::Batch>) -> Option<Result<Ahead<'scope>, JobsError>> + 'a;

fn evaluate_ahead<'scope>(
    job: &LoadedJob,
    request: &RunRequest,
    start: Instant,
    observe: &(dyn Fn(WorkerEvent) + Sync),
    receipt: &mut Receipt,
    begin_batch: &BeginBatch<'_, 'scope>,
) -> Result<(), WorkerError> {
    let manifest = job.manifest();
    let mut ahead = begin_batch(manifest.batches.first());
    let clock = Clock::default();
    clock.begin("check");
    let prepared = prepare(job, request, start, receipt)?;
    for (index, batch) in manifest.batches.iter().enumerate() {
        manifest::check_size(FileRole::Input(index), &job.input_path(batch)?, batch.input.bytes)?;
        job.output_path(batch)?;
    }

    let batches = manifest.batches.len();
    let each = prepared.ciphertexts();
    let predicted_secs = receipt.predicted.map_or(0.0, |cost| cost.elapsed_secs);
    observe(WorkerEvent::Begin { batches, ciphertexts: (each * batches) as u64, predicted_secs });
    clock.begin("batches");
    let never = AtomicBool::new(false);
    for (index, batch) in manifest.batches.iter().enumerate() {
        let since = Instant::now();
        let (input_path, output_path) = (job.input_path(batch)?, job.output_path(batch)?);
        let on_its_way = ahead.take().unwrap_or_else(|| Ok(Ahead::Waiting(input_path.clone())))?;
        let checkpoint_path = checkpoint_beside(&output_path);
        let work = BatchWork {
            manifest,
            index,
            input_path: &input_path,
            output_path: &output_path,
            checkpoint: CheckpointPlace { path: &checkpoint_path, after: request.checkpoint_after },
        };
        let advance = |done: usize| observe(WorkerEvent::Progress { ciphertexts: (index * each + done) as u64 });
        let mut taken = || ahead = begin_batch(manifest.batches.get(index + 1));
        receipt.batches.push(prepared.run_batch_ahead(&work, on_its_way, &mut taken, &never, &advance)?);
        observe(WorkerEvent::Batch { index, secs: since.elapsed().as_secs_f64() });
    }
    receipt.totals = clock.finish();
    Ok(())
}

/// `.NAME.checkpoint` in the folder of the results.
pub(super) fn checkpoint_beside(output_path: &Path) -> PathBuf {
    let name = output_path.file_name().unwrap_or_default().to_string_lossy();
    output_path.with_file_name(format!(".{name}.checkpoint"))
}

/// All that is checked before any batch is looked at: options, model, plan, key, memory.
fn prepare(
    job: &LoadedJob,
    request: &RunRequest,
    start: Instant,
    receipt: &mut Receipt,
) -> Result<Prepared, WorkerError> {
    let manifest = job.manifest();
    manifest.refuse_unknown_options(&[])?;
    let machine = Machine {
        threads: request.threads,
        kernel: request.kernel,
        memory_limit_bytes: request.memory_limit_bytes,
        rates: request.rates.clone(),
    };
    let planned = Planned::open(&job.verify_model(request.model.as_deref())?, &machine)?;
    planned.expect(manifest)?;
    let eval_key_path = job.verify_eval_key(request.eval_key.as_deref())?;
    let batches = manifest.batches.len() as u64;
    let cost = planned.cost();
    // What has passed counts as it was, and so does the digest that is taken meanwhile.
    let passed_secs = start.elapsed().as_secs_f64();
    let hidden_secs = if request.threads > 1 { cost.check_secs.min(passed_secs) } else { 0.0 };
    receipt.predicted = Some(Cost {
        elapsed_secs: passed_secs + cost.setup_secs + cost.batch_secs * batches as f64 - hidden_secs,
        peak_bytes: cost.peak_bytes,
        output_bytes: cost.result_bytes * batches,
    });
    planned.check_memory(manifest)?;
    planned.with_key(&eval_key_path, &manifest.key_id)
}

#[cfg(feature = "exact")]
use super::exact::evaluate as evaluate_exact;

#[cfg(not(feature = "exact"))]
fn evaluate_exact(
    _: &LoadedJob,
    _: &RunRequest,
    _: &(dyn Fn(WorkerEvent) + Sync),
    _: &mut Receipt,
) -> Result<(), WorkerError> {
    Err(WorkerError::NoExactEngine)
}
