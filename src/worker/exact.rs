//! A job of the exact engine: check, evaluate image by image, write results. The frame (receipt, repetition) is `run`'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jobs::digest::stamp_file;
use jobs::receipt::{BatchReceipt, Cost, Timing};
use jobs::{FileRole, LoadedJob, Receipt, manifest};

use super::WorkerError;
use super::batch::{check_digest, check_place};
use super::prepared::{check_memory, check_own_limit};
use super::run::{RunRequest, WorkerEvent};
use crate::exact::{Answer, Engine, EvaluationKey, PARAMETERS, plan_id};
use crate::format::lwe::{self, BatchShape, KeyShape, LweBatch};
use crate::format::{LweExpected, TablePackage};

/// Name of the kernels in a receipt: the crate chooses them itself.
const ISA: &str = "tfhe";
/// Memory beside the keys, for every thread and for the program.
const THREAD_BYTES: u64 = 1 << 20;
const PROGRAM_BYTES: u64 = 10 << 20;

pub(super) fn evaluate(
    job: &LoadedJob,
    request: &RunRequest,
    observe: &(dyn Fn(WorkerEvent) + Sync),
    receipt: &mut Receipt,
) -> Result<(), WorkerError> {
    let manifest = job.manifest();
    let start = Instant::now();
    ISA.clone_into(&mut receipt.isa);
    manifest.refuse_unknown_options(&[Answer::OPTION])?;
    let answer = Answer::of(manifest.option(Answer::OPTION, &Answer::VALUES)?);
    let model = TablePackage::open(&job.verify_model(request.model.as_deref())?)?;
    let plan_id = plan_id(&model.model_id()?);
    for (what, found, expected) in
        [("plan id", &manifest.plan_id, &plan_id), ("model name", &manifest.model.name, &model.network.name)]
    {
        if found != expected {
            return Err(WorkerError::Mismatch { what, found: found.clone(), expected: expected.clone() });
        }
    }
    let eval_key_path = job.verify_eval_key(request.eval_key.as_deref())?;
    for (index, batch) in manifest.batches.iter().enumerate() {
        manifest::check_size(FileRole::Input(index), &job.input_path(batch)?, batch.input.bytes)?;
        job.output_path(batch)?;
    }
    let needed_bytes = peak_bytes(&model, request.threads);
    check_own_limit(manifest, needed_bytes)?;
    check_memory(needed_bytes, request.memory_limit_bytes)?;

    let parameters = PARAMETERS.text();
    let expected = LweExpected { plan_id: &plan_id, key_id: Some(&manifest.key_id), parameters: &parameters };
    let key = {
        let (_, parts) = {
            let p = &PARAMETERS;
            let shape = KeyShape::new(p.lwe_dimension, p.bootstrap_levels, p.polynomial_size, p.keyswitch_levels);
            lwe::read_key(&eval_key_path, &expected, &shape)?
        };
        EvaluationKey {
            bootstrap_seed: parts.bootstrap_seed,
            bootstrap: parts.bootstrap,
            keyswitch_seed: parts.keyswitch_seed,
            keyswitch: parts.keyswitch,
        }
    };
    let shape =
        BatchShape::new(&model.circuit, manifest.slots as usize, PARAMETERS.lwe_dimension, PARAMETERS.polynomial_size);
    let bootstraps = (model.circuit.neurons() + answer.bootstraps(model.circuit.classes())) as u64;
    let engine = Engine::new(model.circuit, &key, request.threads)?;
    drop(key);
    engine.check_answer(answer)?;
    let images_secs = engine.image_secs(answer) * manifest.images as f64;
    let predicted_secs = start.elapsed().as_secs_f64() + images_secs;
    let result_bytes = (shape.classes * shape.coefficients * 2) as u64 * manifest.images;
    receipt.predicted =
        Some(Cost { elapsed_secs: predicted_secs, peak_bytes: needed_bytes, output_bytes: result_bytes });
    observe(WorkerEvent::Begin {
        batches: manifest.batches.len(),
        ciphertexts: bootstraps * manifest.images,
        predicted_secs,
    });
    let timing = |name: &str, secs: f64| Timing { name: name.to_owned(), secs };
    receipt.totals.push(timing("check", start.elapsed().as_secs_f64()));
    let since = Instant::now();
    let done = AtomicU64::new(0);
    let step = || {
        let ciphertexts = done.fetch_add(1, Ordering::Relaxed) + 1;
        observe(WorkerEvent::Progress { ciphertexts });
    };
    for (index, batch) in manifest.batches.iter().enumerate() {
        let since = Instant::now();
        let path = job.input_path(batch)?;
        let input = LweBatch::open(&path, &expected, &manifest.job_id, &shape)?;
        check_place(input.place(), index, batch)?;
        // Of the file as it is mapped, so that nothing can be put in its place between check and use.
        let found = engine.install(|| input.file_digest_in_parallel());
        check_digest(&found, index, &path, batch.input.digest)?;
        let mut results = Vec::with_capacity(batch.occupancy as usize * shape.classes * shape.coefficients);
        for image in 0..input.place().occupancy {
            let image = input.image(image)?;
            results.extend(engine.run(&image.seeds, &image.bodies, answer, &step)?);
        }
        let evaluated_secs = since.elapsed().as_secs_f64();
        let output_path = job.output_path(batch)?;
        let input_digest = batch.input.digest.to_string();
        lwe::write_results(&output_path, &input, &parameters, &input_digest, answer.option(), &results)?;
        let output_stamp = stamp_file(&output_path)?;
        let secs = since.elapsed().as_secs_f64();
        receipt.batches.push(BatchReceipt {
            input: batch.input.digest,
            output: batch.output.clone(),
            output_stamp,
            occupancy: batch.occupancy,
            first_image: batch.first_image,
            stages: vec![timing("bootstraps", evaluated_secs), timing("write results", secs - evaluated_secs)],
        });
        observe(WorkerEvent::Batch { index, secs });
    }
    receipt.totals.push(timing("batches", since.elapsed().as_secs_f64()));
    Ok(())
}

/// While keys are prepared: the bootstrapping key's bodies, its masks and bodies, and the same transformed. Later: the transformed
/// one, the key-switching key, and all values of two neighbouring stages.
fn peak_bytes(model: &TablePackage, threads: usize) -> u64 {
    let bodies = PARAMETERS.bootstrap_len() as u64 * 8;
    let keyswitch = (PARAMETERS.keyswitch_len() * PARAMETERS.result_len()) as u64 * 8;
    let widest = model.circuit.stages.iter().map(|stage| stage.rows.len()).max().unwrap_or(0);
    let values = 2 * (widest * (PARAMETERS.polynomial_size + 1)) as u64 * 8;
    let needed = (5 * bodies).max(2 * bodies + keyswitch + values);
    needed + THREAD_BYTES * threads as u64 + PROGRAM_BYTES
}
