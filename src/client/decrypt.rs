//! Decryption: a finished job to labels. Manifest, receipt and digests first, then whose the results are, then the secret key.
//!
//! Known answers in unused slots must come out to the promised precision, or nothing is given back. Scores are as decrypted; whoever
//! shares them rounds them to [`DecryptReport::decimals`] (raw CKKS decryptions must not be shared, eprint 2020/1533).

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jobs::receipt::BatchReceipt;
use jobs::trust::Signed;
use jobs::{LoadedJob, TrustedKeys};
use packing::{Prediction, predictions_from_slots};
use zeroize::Zeroizing;

use super::setup::promised_bits;
use super::verify;
use super::{ClientError, Setup};
use crate::ckks::CkksError;
use crate::ckks::secret::{Decryptor, SecretKey};
use crate::format::ciphertexts::{ExpectedResult, ResultBatch};
use crate::format::{Expected, ModelPackage, secret};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;

/// Decimal digits a bit is worth.
const DECIMALS_PER_BIT: f64 = 0.301;
/// Bits of a double's fraction: no finer error is told.
const MANTISSA_BITS: f64 = 52.0;

/// One output's decrypted slots; zeroed when dropped.
type Slots = Zeroizing<Vec<f64>>;

/// Which job to decrypt, with what.
#[derive(Clone, Copy, Debug)]
pub struct DecryptRequest<'a> {
    /// `secret.key`.
    pub key_path: &'a Path,
    /// `JOB/job.toml`.
    pub job_path: &'a Path,
    /// The model package, where it is not the job's own copy.
    pub model_path: Option<&'a Path>,
    /// Keys of which one must have signed the receipt; none asks for no signature.
    pub worker_keys: Option<&'a TrustedKeys>,
    /// Threads that decrypt.
    pub threads: NonZeroUsize,
    /// Kernel of all arithmetic.
    pub kernel: Kernel,
    /// As given to keygen.
    pub requirements: &'a Requirements,
}

/// What decryption gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Decrypted {
    /// One per image, in the images' order.
    pub predictions: Vec<Prediction>,
    /// How it went.
    pub report: DecryptReport,
}

/// What decryption saw.
#[derive(Clone, Debug, PartialEq)]
pub struct DecryptReport {
    /// Job decrypted.
    pub job_id: String,
    /// Key used.
    pub key_id: String,
    /// Plan of the results.
    pub plan_id: String,
    /// Images.
    pub images: usize,
    /// Batches.
    pub batches: usize,
    /// Every logit of an image that is not in [`beyond`](Self::beyond) is off by less than 2^-bits.
    pub promised_bits: f64,
    /// Decimals of a score that mean something.
    pub decimals: u8,
    /// Known answers checked.
    pub canaries: usize,
    /// Largest error of any of their logits, in the logits' units; none where there were none. Not to be shown: it tells of the
    /// secret key. [`canary_bits`](Self::canary_bits) may be.
    pub canary_max_error: Option<f64>,
    /// Smallest distance between the two largest scores of an image; infinite for a single class. Not to be shown as it is:
    /// [`shown_margin`](Self::shown_margin) may be.
    pub smallest_margin: f64,
    /// Images whose two largest scores are closer than the promised precision tells apart: their label may differ from the clear one.
    pub too_close: Vec<usize>,
    /// Images with a score larger than any calibration image had ([`ModelPackage::score_limit`]). Noise grows with the values that it meets:
    /// how precise these are was not measured and is not promised.
    pub beyond: Vec<usize>,
    /// Bytes of all results together.
    pub result_bytes: u64,
    /// Who signed the receipt, and what is known of them.
    pub receipt_signed: Signed,
}

impl DecryptReport {
    /// Bits to which all known answers came out: -log2 of [`canary_max_error`](Self::canary_max_error), rounded down, at most 52;
    /// none where there were none.
    #[must_use]
    pub fn canary_bits(&self) -> Option<i32> {
        self.canary_max_error.map(|error| (-error.log2()).floor().min(MANTISSA_BITS) as i32)
    }

    /// [`smallest_margin`](Self::smallest_margin) rounded down to [`decimals`](Self::decimals); infinite for a single class.
    #[must_use]
    pub fn shown_margin(&self) -> f64 {
        let unit = 10_f64.powi(i32::from(self.decimals));
        (self.smallest_margin * unit).floor() / unit
    }
}

/// Decrypts a finished job. `progress` is called, from several threads, with the number of outputs done, of batches x classes.
///
/// # Errors
/// [`ClientError::Jobs`] where manifest, receipt and files do not fit together or the job failed; [`ClientError::Format`] for another key,
/// plan, job or batch; [`ClientError::Undecryptable`]; [`ClientError::Canary`].
pub fn decrypt(request: &DecryptRequest<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Decrypted, ClientError> {
    let (job, receipt, signed) = verify::answered(request.job_path, request.worker_keys)?;
    let model = ModelPackage::open(&job.verify_model(request.model_path)?)?;
    let setup = Setup::new(&model, request.requirements, request.kernel)?;
    let manifest = job.manifest();
    if manifest.plan_id != setup.plan_id {
        return Err(ClientError::mismatch("plan_id of the job", &manifest.plan_id, &setup.plan_id));
    }
    if manifest.slots as usize != setup.plan.slots() {
        return Err(ClientError::mismatch("slots of the job", manifest.slots, setup.plan.slots()));
    }
    let expected = Expected { plan_id: &setup.plan_id, key_id: Some(&manifest.key_id), context: &setup.context };
    let (_, key) = secret::read_secret_key(request.key_path, &expected)?;

    let run = Run { job: &job, model: &model, setup: &setup, key: &key, done: AtomicU64::new(0), progress };
    let mut summary = Summary::default();
    let mut predictions = Vec::with_capacity(manifest.images as usize);
    // A few batches at a time, so that all threads have work and memory stays bounded.
    let classes = model.circuit.classes();
    let group = request.threads.get().div_ceil(classes.max(1));
    for (number, receipts) in receipt.batches.chunks(group).enumerate() {
        let first = number * group;
        let opened: Vec<ResultBatch> =
            receipts.iter().enumerate().map(|(i, batch)| run.open(first + i, batch)).collect::<Result<_, _>>()?;
        let logits = run.decrypt_all(first, &opened, request.threads)?;
        for (i, (results, logits)) in opened.iter().zip(logits.chunks_exact(classes)).enumerate() {
            let bits = promised_bits(&setup.plan, results.header().place.encryption);
            summary.check_canaries(first + i, results, logits, &model, bits)?;
            let occupancy = results.header().place.occupancy;
            predictions.extend(predictions_from_slots(results.header().place.first_image as usize, logits, occupancy)?);
            summary.promised_bits = summary.promised_bits.min(bits);
        }
    }
    summary.weigh(&predictions, model.score_limit());
    let result_bytes = receipt.batches.iter().map(|batch| batch.output_stamp.bytes).sum();
    let report = DecryptReport {
        job_id: manifest.job_id.clone(),
        key_id: manifest.key_id.clone(),
        plan_id: manifest.plan_id.clone(),
        images: predictions.len(),
        batches: receipt.batches.len(),
        promised_bits: summary.promised_bits,
        decimals: (summary.promised_bits * DECIMALS_PER_BIT).floor().clamp(0.0, 9.0) as u8,
        canaries: summary.canaries,
        canary_max_error: (summary.canaries > 0).then_some(summary.canary_max_error),
        smallest_margin: summary.smallest_margin,
        too_close: summary.too_close,
        beyond: summary.beyond,
        result_bytes,
        receipt_signed: signed,
    };
    Ok(Decrypted { predictions, report })
}

/// What all batches of a job share.
struct Run<'a> {
    job: &'a LoadedJob,
    model: &'a ModelPackage,
    setup: &'a Setup,
    key: &'a SecretKey,
    done: AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Run<'_> {
    /// Opens a batch's results and holds them to manifest and plan.
    fn open(&self, index: usize, receipt: &BatchReceipt) -> Result<ResultBatch, ClientError> {
        let manifest = self.job.manifest();
        let output = self.setup.plan.output();
        let input_digest = receipt.input.to_string();
        let expected = ExpectedResult {
            context: &self.setup.context,
            plan_id: &self.setup.plan_id,
            key_id: &manifest.key_id,
            job_id: &manifest.job_id,
            index,
            first_image: receipt.first_image,
            occupancy: receipt.occupancy as usize,
            input_digest: &input_digest,
            outputs: self.model.circuit.classes(),
            components: output.components,
            limbs: output.output_limbs,
            scale: output.output_scale,
        };
        let path = jobs::paths::resolve_input(self.job.root(), &receipt.output)?;
        let results = ResultBatch::open(&path, &expected)?;
        results.verify()?;
        let found = &results.header().place.canaries;
        let expected = canary_slots(self.setup.plan.slots(), receipt.occupancy as usize, self.model.canaries.len());
        if *found != expected {
            let what = format!("canaries of batch {index}");
            return Err(ClientError::mismatch(&what, format!("{found:?}"), format!("{expected:?}")));
        }
        Ok(results)
    }

    /// Slots of all outputs of some batches, batch-major; zeroed when dropped.
    fn decrypt_all(
        &self,
        first: usize,
        batches: &[ResultBatch],
        threads: NonZeroUsize,
    ) -> Result<Zeroizing<Vec<Vec<f64>>>, ClientError> {
        let classes = self.model.circuit.classes();
        let count = batches.len() * classes;
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Slots)>, ClientError> {
            let mut decryptor = Decryptor::new(&self.setup.context);
            let mut decrypted = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (batch, output) = (at / classes, at % classes);
                let Some(results) = batches.get(batch) else { return Ok(decrypted) };
                let slots = self.decrypt_one(first + batch, results, output, &mut decryptor);
                // After an error the others need not go on.
                decrypted.push((at, slots.inspect_err(|_| next.store(count, Ordering::Relaxed))?));
                (self.progress)(self.done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        };
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get().min(count)).map(|_| scope.spawn(work)).collect();
            let own = work();
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(own).chain(others.into_iter().map(join)).collect::<Result<Vec<_>, _>>()
        })?;
        let mut all: Vec<_> = parts.into_iter().flatten().collect();
        all.sort_by_key(|&(at, _)| at);
        Ok(Zeroizing::new(all.iter_mut().map(|(_, slots)| std::mem::take(&mut **slots)).collect()))
    }

    fn decrypt_one(
        &self,
        batch: usize,
        results: &ResultBatch,
        output: usize,
        decryptor: &mut Decryptor,
    ) -> Result<Slots, ClientError> {
        let plan = &self.setup.plan;
        let mut residues = Zeroizing::new(vec![0; results.output_len()]);
        results.read_output_into(output, &mut residues)?;
        let mut slots = Zeroizing::new(vec![0.0; plan.slots()]);
        let StageFigures { limbs, scale, limit } = StageFigures::of(self.setup);
        self.key.decrypt_into(&self.setup.context, &mut residues, limbs, scale, limit, decryptor, &mut slots).map_err(
            |source| match source {
                CkksError::Overflow { .. } => ClientError::Undecryptable { batch, output, source },
                other => other.into(),
            },
        )?;
        Ok(slots)
    }
}

/// What decrypting an output needs of the plan.
struct StageFigures {
    limbs: usize,
    scale: f64,
    limit: f64,
}

impl StageFigures {
    fn of(setup: &Setup) -> Self {
        let output = setup.plan.output();
        Self { limbs: output.output_limbs, scale: output.output_scale, limit: setup.plan.output_limit() }
    }
}

/// Whether an image's scores are beyond those that the precision was measured with.
#[must_use]
pub fn exceeds(scores: &[f64], limit: f64) -> bool {
    // NaN exceeds everything.
    scores.iter().any(|score| !(-limit..=limit).contains(score))
}

/// Where `Batches` puts canaries: in unused slots from the last one downwards.
fn canary_slots(slots: usize, occupancy: usize, canaries: usize) -> Vec<(usize, usize)> {
    (0..canaries.min(slots.saturating_sub(occupancy))).map(|canary| (slots - 1 - canary, canary)).collect()
}

/// What is gathered over all batches.
struct Summary {
    promised_bits: f64,
    canaries: usize,
    canary_max_error: f64,
    smallest_margin: f64,
    too_close: Vec<usize>,
    beyond: Vec<usize>,
}

impl Default for Summary {
    fn default() -> Self {
        let infinite = f64::INFINITY;
        let (too_close, beyond) = (Vec::new(), Vec::new());
        Self {
            promised_bits: infinite,
            canaries: 0,
            canary_max_error: 0.0,
            smallest_margin: infinite,
            too_close,
            beyond,
        }
    }
}

impl Summary {
    /// Known answers must come out; `logits` is `[class][slot]`.
    fn check_canaries(
        &mut self,
        batch: usize,
        results: &ResultBatch,
        logits: &[Vec<f64>],
        model: &ModelPackage,
        promised_bits: f64,
    ) -> Result<(), ClientError> {
        let tolerance = (-promised_bits).exp2();
        for &(slot, canary) in &results.header().place.canaries {
            for (logit, (slots, &expected)) in logits.iter().zip(&model.canaries[canary].logits).enumerate() {
                let error = (slots[slot] - expected).abs();
                if error.is_nan() || error > tolerance {
                    // NaN counts as a miss by one bit: `max` drops it.
                    let missed_bits = (error.log2() + promised_bits).ceil().max(1.0) as u32;
                    return Err(ClientError::Canary { batch, slot, canary, logit, missed_bits, promised_bits });
                }
                self.canary_max_error = self.canary_max_error.max(error);
            }
            self.canaries += 1;
        }
        Ok(())
    }

    /// Lists the images that the promised precision cannot decide, and those that it does not hold for.
    fn weigh(&mut self, predictions: &[Prediction], score_limit: f64) {
        let tolerance = 2.0 * (-self.promised_bits).exp2();
        for prediction in predictions {
            let best = prediction.scores[usize::from(prediction.label)];
            let others =
                prediction.scores.iter().enumerate().filter(|&(class, _)| class != usize::from(prediction.label));
            let margin = others.map(|(_, &score)| best - score).fold(f64::INFINITY, f64::min);
            self.smallest_margin = self.smallest_margin.min(margin);
            if margin <= tolerance {
                self.too_close.push(prediction.index);
            }
            if exceeds(&prediction.scores, score_limit) {
                self.beyond.push(prediction.index);
            }
        }
    }
}
