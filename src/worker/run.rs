//! One job, one shot: check, evaluate each batch, write results, write the receipt.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use jobs::digest::stamp_file;
use jobs::receipt::{self, BatchReceipt, Cost, Outcome, Timing};
use jobs::{Digest, ExitCode, FileRole, JobManifest, JobsError, LoadedJob, Receipt, manifest};

use super::WorkerError;
use super::memory::{available_bytes, peak_bytes};
use crate::ckks::Context;
use crate::engine::{Engine, Event, Inputs, rates};
use crate::format::ciphertexts::{EncryptedBatch, ExpectedBatch, write_results};
use crate::format::keys::read_evaluation_key;
use crate::format::{Expected, FormatError, ModelPackage};
use crate::plan::{Plan, Requirements, cost, scales};
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

    fn prefetch(&self, limb: usize, entry: usize, first: usize, count: usize) {
        Self::prefetch(self, limb, entry, first, count);
    }
}

/// Runs a job. A job whose receipt stands and fits is not run again. A permanent failure leaves a receipt that says so.
///
/// # Errors
/// [`WorkerError`]; nothing is left under a final name but whole results, which another run replaces with the same bytes.
pub fn run(request: &RunRequest, observe: &(dyn Fn(WorkerEvent) + Sync)) -> Result<RunReport, WorkerError> {
    let start = Instant::now();
    let job = manifest::load(&request.job_path)?;
    let receipt_path = job.receipt_path()?;
    if let Some(done) = finished(&job, &receipt_path)? {
        return Ok(report(&done, request, true, receipt_path));
    }
    let mut receipt = blank_receipt(job.manifest(), request);
    let outcome = evaluate(&job, request, observe, &mut receipt);
    receipt.measured = Cost {
        elapsed_secs: start.elapsed().as_secs_f64(),
        peak_bytes: peak_bytes(),
        output_bytes: output_bytes(&receipt),
    };
    match outcome {
        Ok(()) => {
            receipt.write(&receipt_path)?;
            Ok(report(&receipt, request, false, receipt_path))
        }
        Err(error) => {
            if error.is_permanent() {
                receipt.outcome = Outcome::failed(&error.to_string(), error.exit_code());
                // The error that is returned matters more than a receipt that could not be written.
                drop(receipt.write(&receipt_path));
            }
            Err(error)
        }
    }
}

/// The receipt of this very job, if it stands and all its outputs do. A receipt that cannot be read, or whose outputs are damaged or gone, is
/// no obstacle: the same bytes are computed again. One of another job, or of a newer version, is.
fn finished(job: &LoadedJob, receipt_path: &Path) -> Result<Option<Receipt>, WorkerError> {
    if !receipt_path.exists() {
        return Ok(None);
    }
    let receipt = match Receipt::load(receipt_path) {
        Ok(receipt) => receipt,
        Err(error) if error.exit_code() == ExitCode::BadData => return Ok(None),
        Err(error) => return Err(error.into()),
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

/// Seconds a step, in order of first appearance.
#[derive(Default)]
struct Clock {
    steps: Vec<Timing>,
    running: Option<(String, Instant)>,
}

impl Clock {
    fn begin(&mut self, name: String) {
        self.end();
        self.running = Some((name, Instant::now()));
    }

    fn end(&mut self) {
        let Some((name, since)) = self.running.take() else { return };
        let secs = since.elapsed().as_secs_f64();
        match self.steps.iter_mut().find(|step| step.name == name) {
            Some(step) => step.secs += secs,
            None => self.steps.push(Timing { name, secs }),
        }
    }
}

fn evaluate(
    job: &LoadedJob,
    request: &RunRequest,
    observe: &(dyn Fn(WorkerEvent) + Sync),
    receipt: &mut Receipt,
) -> Result<(), WorkerError> {
    let manifest = job.manifest();
    let mut clock = Clock::default();
    clock.begin("check".to_owned());
    manifest.refuse_unknown_options(&[])?;
    let model = ModelPackage::open(&job.verify_model(request.model.as_deref())?)?;
    let plan = scales::plan(&model.circuit, &Requirements::default())?;
    let plan_id = plan_id(&plan, &model)?;
    for (what, found, expected) in [
        ("plan id", &manifest.plan_id, &plan_id),
        ("slots", &manifest.slots.to_string(), &plan.slots().to_string()),
        ("model name", &manifest.model.name, &model.network.name),
    ] {
        if found != expected {
            return Err(WorkerError::Mismatch { what, found: found.clone(), expected: expected.clone() });
        }
    }
    let eval_key_path = job.verify_eval_key(request.eval_key.as_deref())?;

    let rates = rates::measure(request.kernel, request.threads)?;
    let cost = cost::cost(&model.circuit, &plan, &rates);
    check_memory(cost.peak_bytes, request.memory_limit_bytes)?;
    let batches = manifest.batches.len();
    let predicted_secs = cost.batch_secs * batches as f64;
    receipt.predicted = Some(Cost {
        elapsed_secs: predicted_secs,
        peak_bytes: cost.peak_bytes,
        output_bytes: cost.result_bytes * batches as u64,
    });

    let key = {
        let context = Context::new(plan.parameters.clone(), request.kernel)?;
        let expected = Expected { plan_id: &plan_id, key_id: Some(&manifest.key_id), context: &context };
        read_evaluation_key(&eval_key_path, &expected)?.1
    };
    let entries = model.circuit.inputs();
    let output = plan.output().clone();
    let input_scale = plan.input_scale;
    let engine =
        Engine::new(model.circuit, plan, Some(key), request.kernel, request.threads).map_err(WorkerError::Setup)?;
    for (index, batch) in manifest.batches.iter().enumerate() {
        manifest::check_size(FileRole::Input(index), &job.input_path(batch)?, batch.input.bytes)?;
        job.output_path(batch)?;
    }

    let ciphertexts = (engine.ciphertexts() * batches) as u64;
    observe(WorkerEvent::Begin { batches, ciphertexts, predicted_secs });
    clock.begin("batches".to_owned());
    for (index, batch) in manifest.batches.iter().enumerate() {
        let since = Instant::now();
        let mut stages = Clock::default();
        stages.begin("check input".to_owned());
        let path = job.input_path(batch)?;
        let expected = ExpectedBatch {
            context: engine.context(),
            input_scale,
            plan_id: &plan_id,
            key_id: &manifest.key_id,
            job_id: &manifest.job_id,
            entries,
        };
        let input = EncryptedBatch::open(&path, &expected)?;
        check_place(&input, index, batch)?;
        // Of the file as it is mapped, so that nothing can be put in its place between check and use.
        let found = engine.install(|| input.file_digest_in_parallel());
        check_digest(&found, index, &path, batch.input.digest)?;
        let stages = Mutex::new(stages);
        let results = engine
            .run(&input, &|event| match event {
                Event::Tiles { stage, .. } => begin(&stages, format!("stage {stage}: tiles")),
                Event::Polynomials { stage, .. } => begin(&stages, format!("stage {stage}: polynomials")),
                Event::Done { ciphertexts, total } => {
                    observe(WorkerEvent::Progress { ciphertexts: (index * total + ciphertexts) as u64 });
                }
            })
            .map_err(|source| WorkerError::Engine { batch: index, source })?;
        begin(&stages, "write results".to_owned());
        let output_path = job.output_path(batch)?;
        let header = input.result_header(&batch.input.digest.to_string());
        write_results(
            &output_path,
            &header,
            engine.context(),
            results.outputs,
            results.components,
            results.limbs,
            output.output_scale,
            &results.residues,
        )?;
        let output_stamp = stamp_file(&output_path)?;
        let mut stages = stages.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        stages.end();
        receipt.batches.push(BatchReceipt {
            input: batch.input.digest,
            output: batch.output.clone(),
            output_stamp,
            occupancy: batch.occupancy,
            first_image: batch.first_image,
            stages: stages.steps,
        });
        observe(WorkerEvent::Batch { index, secs: since.elapsed().as_secs_f64() });
    }
    clock.end();
    receipt.totals = clock.steps;
    Ok(())
}

fn begin(clock: &Mutex<Clock>, name: String) {
    clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).begin(name);
}

fn plan_id(plan: &Plan, model: &ModelPackage) -> Result<String, WorkerError> {
    let model_id = model.model_id()?;
    let bytes = blake3::Hash::from_hex(&model_id)
        .map_err(|error| FormatError::invalid("model_id", &model_id, error.to_string()))?;
    Ok(Digest::from_bytes(plan.id(bytes.as_bytes())).to_string())
}

fn check_memory(needed_bytes: u64, limit_bytes: Option<u64>) -> Result<(), WorkerError> {
    if let Some(limit_bytes) = limit_bytes.filter(|&limit| needed_bytes > limit) {
        return Err(WorkerError::Memory { needed_bytes, limit_bytes, limit: "allowed by the limit given" });
    }
    if let Some(limit_bytes) = available_bytes().filter(|&limit| needed_bytes > limit) {
        return Err(WorkerError::Memory { needed_bytes, limit_bytes, limit: "available on this machine" });
    }
    Ok(())
}

fn check_digest(found: &str, index: usize, path: &Path, expected: Digest) -> Result<(), WorkerError> {
    if found == expected.to_string() {
        return Ok(());
    }
    let found = found.parse().unwrap_or(Digest::of(&[]));
    Err(JobsError::WrongDigest { role: FileRole::Input(index), path: path.to_owned(), found, expected }.into())
}

/// The batch file must be the one that the manifest speaks of.
fn check_place(input: &EncryptedBatch, index: usize, batch: &manifest::Batch) -> Result<(), WorkerError> {
    for (what, found, expected) in [
        ("batch number", index as u64, input.index() as u64),
        ("first image", batch.first_image, input.first_image()),
        ("occupancy", u64::from(batch.occupancy), input.occupancy() as u64),
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
