//! Batches of the exact engine, image by image: what all batches of a job have in common made ready once, and one batch at a time, for the
//! one-shot run as for a queue. Nothing of one job is kept; a manifest is held against it before each use.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use jobs::digest::stamp_file;
use jobs::receipt::{BatchReceipt, Cost};
use jobs::{FileRole, JobManifest, LoadedJob, Receipt, manifest};

use super::WorkerError;
use super::batch::{BatchWork, check_digest, check_place};
use super::checkpoint::CheckpointPlace;
use super::clock::Clock;
use super::prepared::{check_memory, check_own_limit, same};
use super::run::{RunRequest, WorkerEvent, checkpoint_beside};
use crate::engine::EngineError;
use crate::exact::{Answer, Engine, EvaluationKey, ImageSecs, Noise, PARAMETERS, plan_id};
use crate::format::lwe::{self, BatchShape, KeyShape, LweBatch};
use crate::format::{LweExpected, TablePackage};
use crate::net::TableCircuit;

/// Name of the kernels in a receipt: the crate chooses them itself.
pub(super) const ISA: &str = "tfhe";
/// Memory beside the keys, for every thread and for the program.
const THREAD_BYTES: u64 = 1 << 20;
const PROGRAM_BYTES: u64 = 10 << 20;

/// A package with tables; no key yet.
pub struct ExactPlanned {
    model: TablePackage,
    plan_id: String,
    threads: usize,
}

/// A package with tables and an evaluation key made ready: runs batches, several at a time if need be.
pub struct ExactPrepared {
    engine: Engine,
    plan_id: String,
    key_id: String,
    model_name: String,
    threads: usize,
    image_secs: ImageSecs,
}

impl ExactPlanned {
    /// Opens a package, for so many threads.
    ///
    /// # Errors
    /// [`WorkerError::Format`].
    pub fn open(model_path: &Path, threads: usize) -> Result<Self, WorkerError> {
        let model = TablePackage::open(model_path)?;
        let plan_id = plan_id(&model.model_id()?);
        Ok(Self { model, plan_id, threads })
    }

    /// The manifest's plan must be this one, its options known, and what it asks for within the circuit's reach.
    ///
    /// # Errors
    /// [`WorkerError::Mismatch`], [`WorkerError::Jobs`] for an option, [`WorkerError::Exact`] for labels that cannot be told.
    pub fn expect(&self, manifest: &JobManifest) -> Result<(), WorkerError> {
        expect(manifest, &self.plan_id, &self.model.network.name, &self.model.circuit)
    }

    /// Most memory that a batch of the job takes, keys and what makes them ready included.
    #[must_use]
    pub fn peak_bytes(&self, manifest: &JobManifest) -> u64 {
        peak_bytes(&self.model.circuit, manifest, self.threads)
    }

    /// Bytes of the results of a full batch of the job.
    #[must_use]
    pub fn result_bytes(&self, manifest: &JobManifest) -> u64 {
        result_bytes(&batch_shape(&self.model.circuit, manifest), u64::from(manifest.slots))
    }

    /// Reads the key, makes the engine, and measures what an image takes.
    ///
    /// # Errors
    /// [`WorkerError::Format`] for another key, [`WorkerError::Exact`].
    pub fn with_key(self, eval_key_path: &Path, key_id: &str) -> Result<ExactPrepared, WorkerError> {
        let Self { model, plan_id, threads } = self;
        let parameters = PARAMETERS.text();
        let key = {
            let expected = LweExpected { plan_id: &plan_id, key_id: Some(key_id), parameters: &parameters };
            let p = &PARAMETERS;
            let shape = KeyShape::new(p.lwe_dimension, p.bootstrap_levels, p.polynomial_size, p.keyswitch_levels);
            let parts = lwe::read_key(eval_key_path, &expected, &shape)?.1;
            EvaluationKey {
                bootstrap_seed: parts.bootstrap_seed,
                bootstrap: parts.bootstrap,
                keyswitch_seed: parts.keyswitch_seed,
                keyswitch: parts.keyswitch,
            }
        };
        let engine = Engine::new(model.circuit, &key, threads)?;
        drop(key);
        let image_secs = engine.image_secs();
        let (model_name, key_id) = (model.network.name, key_id.to_owned());
        Ok(ExactPrepared { engine, plan_id, key_id, model_name, threads, image_secs })
    }
}

impl ExactPrepared {
    /// The manifest's plan and key must be these, its options known, and what it asks for within the circuit's reach.
    ///
    /// # Errors
    /// As [`ExactPlanned::expect`].
    pub fn expect(&self, manifest: &JobManifest) -> Result<(), WorkerError> {
        expect(manifest, &self.plan_id, &self.model_name, self.engine.circuit())?;
        same("key id", &manifest.key_id, &self.key_id)
    }

    /// What so many images of the job take once all is ready, one after the other.
    #[must_use]
    pub fn cost(&self, manifest: &JobManifest, images: u64) -> Cost {
        let circuit = self.engine.circuit();
        Cost {
            elapsed_secs: self.image_secs.of(answer(manifest)) * images as f64,
            peak_bytes: peak_bytes(circuit, manifest, self.threads),
            output_bytes: result_bytes(&batch_shape(circuit, manifest), images),
        }
    }

    /// Bootstraps that one image of the job takes.
    #[must_use]
    pub fn bootstraps(&self, manifest: &JobManifest) -> usize {
        let circuit = self.engine.circuit();
        circuit.neurons() + answer(manifest).bootstraps(circuit.classes())
    }

    /// Checks one batch's file, evaluates it and writes its results, whole or not at all. `advance` is told, from several threads, how
    /// many of the batch's bootstraps are done. Nothing is kept of a batch that did not end: an image is computed again.
    ///
    /// # Errors
    /// A file that is not the one the manifest speaks of; [`WorkerError::Engine`] when `stop` is set, which is looked at between images.
    pub fn run_batch(
        &self,
        work: &BatchWork<'_>,
        stop: &AtomicBool,
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<BatchReceipt, WorkerError> {
        let (manifest, index, batch) = (work.manifest, work.index, work.batch());
        let clock = Clock::default();
        clock.begin("check input");
        let shape = batch_shape(self.engine.circuit(), manifest);
        let parameters = PARAMETERS.text();
        let expected = LweExpected { plan_id: &self.plan_id, key_id: Some(&self.key_id), parameters: &parameters };
        let input = LweBatch::open(work.input_path, &expected, &manifest.job_id, &shape)?;
        check_place(input.place(), index, batch)?;
        // Of the file as it is mapped, so that nothing can be put in its place between check and use.
        let found = self.engine.install(|| input.file_digest_in_parallel());
        check_digest(&found, index, work.input_path, batch.input.digest)?;
        clock.begin("bootstraps");
        let answer = answer(manifest);
        let steps = Steps { done: AtomicUsize::new(0), advance };
        let step = || steps.count();
        let mut results = Vec::with_capacity(input.place().occupancy * shape.classes * shape.coefficients);
        for image in 0..input.place().occupancy {
            if stop.load(Ordering::Relaxed) {
                return Err(WorkerError::Engine { batch: index, source: Box::new(EngineError::Stopped) });
            }
            let image = input.image(image)?;
            results.extend(self.engine.run(&image.seeds, &image.bodies, answer, &step)?);
        }
        clock.begin("write results");
        let input_digest = batch.input.digest.to_string();
        lwe::write_results(work.output_path, &input, &parameters, &input_digest, answer.option(), &results)?;
        Ok(BatchReceipt {
            input: batch.input.digest,
            output: batch.output.clone(),
            output_stamp: stamp_file(work.output_path)?,
            occupancy: batch.occupancy,
            first_image: batch.first_image,
            stages: clock.finish(),
        })
    }
}

/// Counts a batch's bootstraps, from several threads.
struct Steps<'a> {
    done: AtomicUsize,
    advance: &'a (dyn Fn(usize) + Sync),
}

impl Steps<'_> {
    fn count(&self) {
        (self.advance)(self.done.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

/// A job, one shot. The frame (receipt, repetition) is `run`'s.
pub(super) fn evaluate(
    job: &LoadedJob,
    request: &RunRequest,
    observe: &(dyn Fn(WorkerEvent) + Sync),
    receipt: &mut Receipt,
) -> Result<(), WorkerError> {
    let manifest = job.manifest();
    let start = Instant::now();
    ISA.clone_into(&mut receipt.isa);
    let clock = Clock::default();
    clock.begin("check");
    let planned = ExactPlanned::open(&job.verify_model(request.model.as_deref())?, request.threads)?;
    planned.expect(manifest)?;
    let eval_key_path = job.verify_eval_key(request.eval_key.as_deref())?;
    for (index, batch) in manifest.batches.iter().enumerate() {
        manifest::check_size(FileRole::Input(index), &job.input_path(batch)?, batch.input.bytes)?;
        job.output_path(batch)?;
    }
    let needed_bytes = planned.peak_bytes(manifest);
    check_own_limit(manifest, needed_bytes)?;
    check_memory(needed_bytes, request.memory_limit_bytes)?;
    let prepared = planned.with_key(&eval_key_path, &manifest.key_id)?;
    let cost = prepared.cost(manifest, manifest.images);
    let predicted_secs = start.elapsed().as_secs_f64() + cost.elapsed_secs;
    receipt.predicted = Some(Cost { elapsed_secs: predicted_secs, ..cost });
    let each = prepared.bootstraps(manifest) as u64;
    let (batches, ciphertexts) = (manifest.batches.len(), each * manifest.images);
    observe(WorkerEvent::Begin { batches, ciphertexts, predicted_secs });
    clock.begin("batches");
    let never = AtomicBool::new(false);
    for (index, batch) in manifest.batches.iter().enumerate() {
        let since = Instant::now();
        let (input_path, output_path) = (job.input_path(batch)?, job.output_path(batch)?);
        let work = BatchWork {
            manifest,
            index,
            input_path: &input_path,
            output_path: &output_path,
            checkpoint: CheckpointPlace { path: &checkpoint_beside(&output_path), after: request.checkpoint_after },
        };
        let before = each * batch.first_image;
        let advance = |done: usize| observe(WorkerEvent::Progress { ciphertexts: before + done as u64 });
        receipt.batches.push(prepared.run_batch(&work, &never, &advance)?);
        observe(WorkerEvent::Batch { index, secs: since.elapsed().as_secs_f64() });
    }
    receipt.totals = clock.finish();
    Ok(())
}

fn expect(manifest: &JobManifest, plan_id: &str, model_name: &str, circuit: &TableCircuit) -> Result<(), WorkerError> {
    manifest.refuse_unknown_options(&[Answer::OPTION])?;
    let answer = Answer::of(manifest.option(Answer::OPTION, &Answer::VALUES)?);
    same("plan id", &manifest.plan_id, plan_id)?;
    same("model name", &manifest.model.name, model_name)?;
    Ok(Noise::of(circuit).check_answer(circuit, answer)?)
}

/// What the job asks for; its option has been held to what it may say.
fn answer(manifest: &JobManifest) -> Answer {
    Answer::of(manifest.options.get(Answer::OPTION).map(String::as_str))
}

fn batch_shape(circuit: &TableCircuit, manifest: &JobManifest) -> BatchShape {
    BatchShape::new(circuit, manifest.slots as usize, PARAMETERS.lwe_dimension, PARAMETERS.polynomial_size)
}

/// Two bytes a coefficient.
fn result_bytes(shape: &BatchShape, images: u64) -> u64 {
    (shape.classes * shape.coefficients * 2) as u64 * images
}

/// While keys are prepared: the bootstrapping key's bodies, its masks and bodies, and the same transformed. Later: the transformed
/// one, the key-switching key, all values of two neighbouring stages (comparisons and wins are stages as well), and a full batch's results, as numbers and as bytes.
fn peak_bytes(circuit: &TableCircuit, manifest: &JobManifest, threads: usize) -> u64 {
    let bodies = PARAMETERS.bootstrap_len() as u64 * 8;
    let keyswitch = (PARAMETERS.keyswitch_len() * PARAMETERS.result_len()) as u64 * 8;
    let compared = answer(manifest).bootstraps(circuit.classes());
    let widest = circuit.stages.iter().map(|stage| stage.rows.len()).chain([compared]).max().unwrap_or(0);
    let values = 2 * (widest * (PARAMETERS.polynomial_size + 1)) as u64 * 8;
    let results = 2 * result_bytes(&batch_shape(circuit, manifest), u64::from(manifest.slots));
    let needed = (5 * bodies).max(2 * bodies + keyswitch + values + results);
    needed + THREAD_BYTES * threads as u64 + PROGRAM_BYTES
}
