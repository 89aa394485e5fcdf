//! Decryption for the exact engine: manifest, receipt and digests first, then whose the results are, then the secret key.

use std::path::Path;

use jobs::TrustedKeys;
use jobs::trust::Signed;
use packing::Prediction;

use super::{ExactSetup, batch_shape};
use crate::client::{ClientError, verify};
use crate::exact::{Answer, Noise, PARAMETERS};
use crate::format::TablePackage;
use crate::format::lwe::{self, ExpectedLweResult};

/// Two logits closer than so many of their noise's standard deviations are too close to tell.
const CLOSE_DEVIATIONS: f64 = 4.0;

/// Label of an image of which no class won against all others: the number of no class.
pub const UNDECIDED: u16 = u16::MAX;

/// What decryption gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactDecrypted {
    /// One per image, in the images' order. Where labels only were asked for, scores are 1 for the label and 0 for all others; an image that
    /// is undecided has none but zeros, and [`UNDECIDED`] as its label.
    pub predictions: Vec<Prediction>,
    /// What the job asked for.
    pub answer: Answer,
    /// Job decrypted.
    pub job_id: String,
    /// Key used.
    pub key_id: String,
    /// Plan of the results.
    pub plan_id: String,
    /// Batches.
    pub batches: usize,
    /// Standard deviation of a score's noise, of the worst class, or of the difference of two as it was compared; rounding at
    /// tables comes on top.
    pub score_deviation: f64,
    /// Images whose two largest scores are closer than their noise tells apart; of labels only those that are undecided.
    pub too_close: Vec<usize>,
    /// Bytes of all results together.
    pub result_bytes: u64,
    /// Who signed the receipt, and what is known of them.
    pub receipt_signed: Signed,
}

/// Decrypts a finished job; `progress` is called once for each image. With `worker_keys`, one of them must have signed the receipt.
///
/// # Errors
/// As [`decrypt`](crate::client::decrypt()).
pub fn decrypt(
    key_path: &Path,
    job_path: &Path,
    model_path: Option<&Path>,
    worker_keys: Option<&TrustedKeys>,
    progress: &dyn Fn(),
) -> Result<ExactDecrypted, ClientError> {
    let (job, receipt, receipt_signed) = verify::answered(job_path, worker_keys)?;
    let model = TablePackage::open(&job.verify_model(model_path)?)?;
    let setup = ExactSetup::new(&model)?;
    let manifest = job.manifest();
    if manifest.plan_id != setup.plan_id {
        return Err(ClientError::mismatch("plan_id of the job", &manifest.plan_id, &setup.plan_id));
    }
    let key = setup.read_secret(key_path, Some(&manifest.key_id))?;
    let circuit = &model.circuit;
    let shape = batch_shape(circuit, manifest.slots as usize);
    let noise = Noise::of(circuit);
    manifest.refuse_unknown_options(&[Answer::OPTION])?;
    let answer = Answer::of(manifest.option(Answer::OPTION, &Answer::VALUES)?);
    let worst = match answer {
        Answer::Scores => noise.logits.iter().fold(0.0, |most: f64, deviation| most.max(*deviation)),
        Answer::Label => noise.comparison,
    };
    let mut predictions = Vec::with_capacity(manifest.images as usize);
    let mut too_close = Vec::new();
    for (index, batch) in receipt.batches.iter().enumerate() {
        let input_digest = batch.input.to_string();
        let result = ExpectedLweResult {
            job_id: &manifest.job_id,
            index,
            first_image: batch.first_image,
            occupancy: batch.occupancy as usize,
            input_digest: &input_digest,
            answer: answer.option(),
        };
        let path = jobs::paths::resolve_input(job.root(), &batch.output)?;
        let results = lwe::read_results(&path, &setup.expected(Some(&manifest.key_id)), &result, &shape)?;
        for results in results.chunks_exact(circuit.classes() * PARAMETERS.result_len()) {
            let index = predictions.len();
            let (prediction, close) = match answer {
                Answer::Scores => {
                    let sums = key.decrypt(circuit, results)?;
                    let close = margin(&sums) <= CLOSE_DEVIATIONS * std::f64::consts::SQRT_2 * worst;
                    (Prediction::new(index, circuit.scores(&sums))?, close)
                }
                Answer::Label => {
                    let label = key.decrypt_label(circuit, results)?;
                    let scores =
                        (0..circuit.classes()).map(|class| f64::from(u8::from(label == Some(class)))).collect();
                    let known = label.map_or(UNDECIDED, |label| label as u16);
                    (Prediction { index, label: known, scores }, label.is_none())
                }
            };
            if close {
                too_close.push(index);
            }
            predictions.push(prediction);
            progress();
        }
    }
    Ok(ExactDecrypted {
        predictions,
        answer,
        job_id: manifest.job_id.clone(),
        key_id: manifest.key_id.clone(),
        plan_id: manifest.plan_id.clone(),
        batches: receipt.batches.len(),
        score_deviation: worst * circuit.logits.unit,
        too_close,
        result_bytes: receipt.batches.iter().map(|batch| batch.output_stamp.bytes).sum(),
        receipt_signed,
    })
}

/// Between the two largest; infinite for a single class.
fn margin(sums: &[i64]) -> f64 {
    let mut sorted = sums.to_vec();
    sorted.sort_unstable_by(|left, right| right.cmp(left));
    match sorted.as_slice() {
        [first, second, ..] => (first - second) as f64,
        _ => f64::INFINITY,
    }
}
