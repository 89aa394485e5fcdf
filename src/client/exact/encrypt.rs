//! Encryption for the exact engine: images to a job folder that a worker can be given as it is.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jobs::manifest::{self, Batch, FileRef, InputRef, JobManifest, ModelRef, Terms};
use packing::{ImageSet, Pixels};
use zeroize::Zeroizing;

use super::{BATCH_IMAGES, ExactSetup, batch_shape, key_shape};
use crate::client::encrypt::{check_model_id, digest, fresh_id, too_many_batches, write_manifest};
use crate::client::outputs::Outputs;
use crate::client::{ClientError, RequestSigning};
use crate::exact::secret::{EncryptedImage, SecretKey};
use crate::exact::{Answer, ExactError, Noise};
use crate::format::ciphertexts::{BatchPlace, EncryptionKind};
use crate::format::lwe::{self, LweImages};
use crate::format::{EngineKind, TablePackage};
use crate::net::TableCircuit;
use crate::net::network::InputSpec;

/// What to encrypt, with what, to where.
#[derive(Clone, Copy)]
pub struct ExactEncryptRequest<'a> {
    /// `secret.key`.
    pub key_path: &'a Path,
    /// The package's file, which goes into the job folder.
    pub model_path: &'a Path,
    /// The same package, open.
    pub model: &'a TablePackage,
    /// The images, of the model's shape.
    pub images: &'a ImageSet,
    /// Job folder; made if it is not there, refused unless empty.
    pub out_dir: &'a Path,
    /// Default: `eval.key` beside the key.
    pub eval_key_path: Option<&'a Path>,
    /// Threads that encrypt.
    pub threads: NonZeroUsize,
    /// Encrypt only so many images.
    pub limit: Option<NonZeroUsize>,
    /// The time, for people; goes into the manifest.
    pub created: &'a str,
    /// Whose job it is, where a worker serves several.
    pub tenant: Option<&'a str>,
    /// What a queue is asked for.
    pub queue: Option<&'a Terms>,
    /// Signs the manifest.
    pub signing: Option<RequestSigning<'a>>,
    /// What the results are to say.
    pub answer: Answer,
}

/// What encryption did.
#[derive(Clone, Debug, PartialEq)]
pub struct EncryptedJob {
    /// Random, 32 hexadecimal digits.
    pub job_id: String,
    /// Key of the ciphertexts.
    pub key_id: String,
    /// Plan of the ciphertexts.
    pub plan_id: String,
    /// Images encrypted.
    pub images: usize,
    /// Batches written.
    pub batches: usize,
    /// Images of a full batch.
    pub slots: usize,
    /// Bytes of all batches together.
    pub upload_bytes: u64,
}

/// The bytes of some images, image after image, as table circuits read them; zeroed when dropped.
#[must_use]
pub fn image_bytes(images: &ImageSet, input: &InputSpec) -> Zeroizing<Vec<u8>> {
    let entries = images.entries().max(1);
    Zeroizing::new(match &images.pixels {
        Pixels::Bytes(bytes) => bytes.clone(),
        Pixels::Floats(values) => {
            values.iter().enumerate().map(|(at, &value)| input.byte(at % entries, value.into())).collect()
        }
    })
}

/// Encrypts images into a job folder. `progress` is called, from several threads, once for each image.
///
/// # Errors
/// As [`encrypt`](crate::client::encrypt()), and [`ClientError::Exact`].
pub fn encrypt(request: &ExactEncryptRequest<'_>, progress: &(dyn Fn() + Sync)) -> Result<EncryptedJob, ClientError> {
    let model = request.model;
    let circuit = &model.circuit;
    request.images.expect_shape(circuit.input_shape)?;
    Noise::of(circuit).check_answer(circuit, request.answer)?;
    let count = request.limit.map_or(usize::MAX, NonZeroUsize::get).min(request.images.count);
    let setup = ExactSetup::new(model)?;
    let key = setup.read_secret(request.key_path, None)?;
    let key_id = key.id();
    let eval_key_path = match request.eval_key_path {
        Some(path) => path.to_owned(),
        None => request.key_path.with_file_name("eval.key"),
    };
    lwe::read_key(&eval_key_path, &setup.expected(Some(&key_id)), &key_shape())?;
    check_model_id(request.model_path, &setup.model_id)?;
    let batches = count.div_ceil(BATCH_IMAGES);
    if batches > manifest::BATCHES_LIMIT {
        return Err(too_many_batches(batches));
    }

    let mut outputs = Outputs::open(request.out_dir, 0o777)?;
    outputs.expect_empty()?;
    let job_id = fresh_id()?;
    let model_digest = jobs::digest::digest_file(&outputs.bring(request.model_path, "model.nsm")?)?;
    let eval_key_digest = jobs::digest::digest_file(&outputs.bring(&eval_key_path, "eval.key")?)?;
    let bytes = image_bytes(request.images, &model.network.input);
    let images: Vec<&[u8]> = bytes.chunks_exact(circuit.inputs()).take(count).collect();
    let mut listed = Vec::with_capacity(batches);
    let mut upload_bytes = 0;
    for (index, part) in images.chunks(BATCH_IMAGES).enumerate() {
        let name = format!("batch-{index:04}.in.nsc");
        let path = outputs.free_path(&name)?;
        let place = BatchPlace {
            job_id: job_id.clone(),
            index,
            first_image: (index * BATCH_IMAGES) as u64,
            occupancy: part.len(),
            canaries: Vec::new(),
            encryption: EncryptionKind::Secret,
        };
        let encrypted = encrypt_all(&key, circuit, part, request.threads, progress)?;
        let shape = batch_shape(circuit, BATCH_IMAGES);
        let header = setup.header(&key_id);
        let written = lwe::write_images(&path, &header, &setup.parameters, &shape, &place, &encrypted)?;
        outputs.made(&path);
        upload_bytes += written.file_bytes;
        listed.push(Batch {
            output: format!("batch-{index:04}.out.nsc"),
            occupancy: place.occupancy as u32,
            first_image: place.first_image,
            input: InputRef { path: name, digest: digest(&written.digest)?, bytes: written.file_bytes },
        });
    }
    let manifest = JobManifest {
        schema: manifest::SCHEMA.to_owned(),
        job_id,
        tenant: request.tenant.map(str::to_owned),
        created: request.created.to_owned(),
        engine: EngineKind::Tfhe.name().to_owned(),
        plan_id: setup.plan_id.clone(),
        key_id: key_id.clone(),
        images: images.len() as u64,
        slots: BATCH_IMAGES as u32,
        receipt: "receipt.json".to_owned(),
        options: request
            .answer
            .option()
            .map(|value| (Answer::OPTION.to_owned(), value.to_owned()))
            .into_iter()
            .collect(),
        queue: request.queue.filter(|terms| !terms.is_empty()).cloned(),
        model: ModelRef { name: setup.model_name.clone(), digest: model_digest, path: Some("model.nsm".to_owned()) },
        eval_key: FileRef { path: "eval.key".to_owned(), digest: eval_key_digest },
        batches: listed,
    };
    write_manifest(&manifest, request.signing, &mut outputs)?;
    outputs.keep();
    Ok(EncryptedJob {
        job_id: manifest.job_id,
        key_id,
        plan_id: setup.plan_id,
        images: images.len(),
        batches,
        slots: BATCH_IMAGES,
        upload_bytes,
    })
}

/// A batch's images, encrypted by several threads, in order.
fn encrypt_all(
    key: &SecretKey,
    circuit: &TableCircuit,
    images: &[&[u8]],
    threads: NonZeroUsize,
    progress: &(dyn Fn() + Sync),
) -> Result<LweImages, ClientError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<EncryptedImage>>> = Mutex::new(vec![None; images.len()]);
    let work = || -> Result<(), ExactError> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(image) = images.get(at) else { return Ok(()) };
            let encrypted = key.encrypt(circuit, image)?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at] = Some(encrypted);
            progress();
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get().min(images.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(own, Result::and)
    })?;
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all = LweImages { seeds: Vec::new(), bodies: Vec::new() };
    for image in done.into_iter().flatten() {
        all.seeds.extend(image.seeds);
        all.bodies.extend(image.bodies);
    }
    Ok(all)
}
