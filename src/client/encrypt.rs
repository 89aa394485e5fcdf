//! Encryption: images to a job folder that a worker can be given as it is.
//!
//! ```text
//! JOB/batch-0000.in.nsc ..  encrypted images    JOB/model.nsm, JOB/eval.key  copies             JOB/job.toml  written last
//! ```
//! A folder without `job.toml` is no job. Entries are encrypted in parallel, a run of them at a time; a batch is never held whole.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jobs::manifest::{self, Batch, FileRef, InputRef, JobManifest, ModelRef, Terms};
use jobs::signing::{Purpose, signature_path};
use jobs::{Digest, JobsError, SigningKey};
use packing::{Batches, ImageSet, Normalisation};
use zeroize::Zeroizing;

use super::outputs::Outputs;
use super::{ClientError, Setup};
use crate::ckks::keys::PublicKey;
use crate::ckks::public::PublicEncryptor;
use crate::ckks::secret::{SecretEncryptor, SecretKey};
use crate::format::ciphertexts::{BatchHeader, BatchPlace, BatchWriter, Encryption, EncryptionKind, EntryRun};
use crate::format::{Container, Expected, FormatError, Kind, ModelPackage, OpenLimits, Written, keys, secret};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;
use crate::ring::sampling::fresh_seed;

/// Entries that a thread takes at a time: a cache line of each image's bytes is then read a few times only.
const RUN: usize = 16;

/// The client's own signature under a request.
#[derive(Clone, Copy)]
pub struct RequestSigning<'a> {
    /// Signs.
    pub key: &'a SigningKey,
    /// Seconds since 1970 from which on the signature is good for nothing.
    pub expires_unix_secs: Option<u64>,
}

/// What to encrypt, with what, to where.
#[derive(Clone, Copy)]
pub struct EncryptRequest<'a> {
    /// `secret.key` or `public.key`.
    pub key_path: &'a Path,
    /// The package's file, which goes into the job folder.
    pub model_path: &'a Path,
    /// The same package, open.
    pub model: &'a ModelPackage,
    /// The images, of the model's shape.
    pub images: &'a ImageSet,
    /// Job folder; made if it is not there, refused unless empty.
    pub out_dir: &'a Path,
    /// Default: `eval.key` beside the key.
    pub eval_key_path: Option<&'a Path>,
    /// Threads that encrypt.
    pub threads: NonZeroUsize,
    /// Kernel of all arithmetic.
    pub kernel: Kernel,
    /// Encrypt only so many images.
    pub limit: Option<NonZeroUsize>,
    /// As given to keygen.
    pub requirements: &'a Requirements,
    /// The time, for people; goes into the manifest.
    pub created: &'a str,
    /// Whose job it is, where a worker serves several.
    pub tenant: Option<&'a str>,
    /// What a queue is asked for.
    pub queue: Option<&'a Terms>,
    /// Signs the manifest.
    pub signing: Option<RequestSigning<'a>>,
}

/// What encryption did.
#[derive(Clone, Debug, PartialEq)]
pub struct EncryptReport {
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
    /// Slots of a batch.
    pub slots: usize,
    /// Ciphertexts of a batch.
    pub entries: usize,
    /// With which key.
    pub encryption: EncryptionKind,
    /// Every logit of a calibration-like image will be off by less than 2^-bits.
    pub promised_bits: f64,
    /// Unused slots that carry known answers.
    pub canaries: usize,
    /// Values outside the normalisation's range, clamped to it.
    pub clamped: u64,
    /// Bytes of all batches together.
    pub upload_bytes: u64,
}

/// The key in use.
enum Key {
    Secret(SecretKey),
    Public(PublicKey),
}

/// One batch's encryptor.
enum Encryptor<'a> {
    Secret(Box<SecretEncryptor<'a>>),
    Public(Box<PublicEncryptor<'a>>),
}

/// Encrypts images into a job folder. `progress` is called, from several threads, with the number of entries done, of batches x entries.
///
/// # Errors
/// [`ClientError::Packing`] for images of another shape; [`ClientError::Format`] (mismatch) for a key of another plan or an evaluation key of
/// another key; [`ClientError::Exists`] for a folder that is not empty; those of reading and writing. On error nothing is left in it.
pub fn encrypt(request: &EncryptRequest<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<EncryptReport, ClientError> {
    let EncryptRequest { model, limit, .. } = *request;
    request.images.expect_shape(model.circuit.input_shape)?;
    let truncated = limit.filter(|limit| limit.get() < request.images.count).map(|limit| first(request.images, limit));
    let images = truncated.as_ref().unwrap_or(request.images);
    let setup = Setup::new(model, request.requirements, request.kernel)?;
    let (key, key_id) = read_key(request, &setup)?;
    let eval_key_path = match request.eval_key_path {
        Some(path) => path.to_owned(),
        None => request.key_path.with_file_name("eval.key"),
    };
    keys::read_evaluation_key(&eval_key_path, &expected(&setup, Some(&key_id)))?;
    check_model_id(request.model_path, &setup.model_id)?;

    let normalisation = Normalisation::new(&model.network.input.mean, &model.network.input.std)?;
    let known = model.canaries.iter().map(|canary| canary.input.iter().copied().map(f64::from).collect()).collect();
    let batches = Batches::new(images, &normalisation, setup.plan.slots())?.with_canaries(known)?;
    if batches.batches() > manifest::BATCHES_LIMIT {
        return Err(too_many_batches(batches.batches()));
    }

    let mut outputs = Outputs::open(request.out_dir, 0o777)?;
    outputs.expect_empty()?;
    let job = Job { setup: &setup, key: &key, key_id: &key_id, job_id: fresh_id()?, batches: &batches };
    let model_digest = jobs::digest::digest_file(&outputs.bring(request.model_path, "model.nsm")?)?;
    let eval_key_digest = jobs::digest::digest_file(&outputs.bring(&eval_key_path, "eval.key")?)?;
    let done = AtomicU64::new(0);
    let mut listed = Vec::with_capacity(batches.batches());
    let (mut upload_bytes, mut canaries) = (0, 0);
    for index in 0..batches.batches() {
        let name = format!("batch-{index:04}.in.nsc");
        let path = outputs.free_path(&name)?;
        let place = job.place(index);
        canaries += place.canaries.len();
        let step = || progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        let written = job.encrypt_batch(&path, &place, request.threads, &step)?;
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
        job_id: job.job_id.clone(),
        tenant: request.tenant.map(str::to_owned),
        created: request.created.to_owned(),
        engine: manifest::ENGINE.to_owned(),
        plan_id: setup.plan_id.clone(),
        key_id: key_id.clone(),
        images: images.count as u64,
        slots: batches.slots() as u32,
        receipt: "receipt.json".to_owned(),
        options: std::collections::BTreeMap::new(),
        queue: request.queue.filter(|terms| !terms.is_empty()).cloned(),
        model: ModelRef { name: setup.model_name.clone(), digest: model_digest, path: Some("model.nsm".to_owned()) },
        eval_key: FileRef { path: "eval.key".to_owned(), digest: eval_key_digest },
        batches: listed,
    };
    write_manifest(&manifest, request.signing, &mut outputs)?;
    outputs.keep();
    let encryption = key.kind();
    Ok(EncryptReport {
        job_id: manifest.job_id,
        key_id,
        promised_bits: super::setup::promised_bits(&setup.plan, encryption),
        images: images.count,
        batches: batches.batches(),
        slots: batches.slots(),
        entries: batches.entries(),
        encryption,
        canaries,
        clamped: batches.clamped(),
        upload_bytes,
        plan_id: setup.plan_id,
    })
}

/// Writes `job.toml`, and its signature where there is a key.
pub(super) fn write_manifest(
    manifest: &JobManifest,
    signing: Option<RequestSigning<'_>>,
    outputs: &mut Outputs,
) -> Result<(), ClientError> {
    let path = outputs.free_path("job.toml")?;
    if let Some(RequestSigning { key, expires_unix_secs }) = signing {
        // Before the manifest: a worker that finds the one finds the other.
        let text = manifest.to_toml(&path)?;
        outputs.made(&signature_path(&path));
        key.sign(Purpose::Request, text.as_bytes(), expires_unix_secs).write_beside(&path)?;
    }
    manifest.write(&path)?;
    Ok(())
}

fn first(images: &ImageSet, limit: NonZeroUsize) -> ImageSet {
    let mut images = images.clone();
    images.truncate(limit.get());
    images
}

fn expected<'a>(setup: &'a Setup, key_id: Option<&'a str>) -> Expected<'a> {
    Expected { plan_id: &setup.plan_id, key_id, context: &setup.context }
}

fn read_key(request: &EncryptRequest<'_>, setup: &Setup) -> Result<(Key, String), ClientError> {
    let path = request.key_path;
    match keys::kind_of(path)? {
        Kind::SecretKey => {
            let (header, key) = secret::read_secret_key(path, &expected(setup, None))?;
            Ok((Key::Secret(key), header.key_id))
        }
        Kind::PublicKey => {
            let (header, key) = keys::read_public_key(path, &expected(setup, None))?;
            Ok((Key::Public(key), header.key_id))
        }
        other => {
            let expected = "secret-key or public-key".to_owned();
            Err(FormatError::Kind { found: other.name().to_owned(), expected }.in_file(path).into())
        }
    }
}

/// The file that goes into the job must be the package that was planned.
pub(super) fn check_model_id(path: &Path, model_id: &str) -> Result<(), ClientError> {
    let container = Container::open(path, Some(Kind::Model), &OpenLimits::default())?;
    Ok(container.expect_metadata("model_id", model_id)?)
}

/// A random job id.
pub(super) fn fresh_id() -> Result<String, ClientError> {
    let seed = fresh_seed().map_err(crate::ckks::CkksError::from)?;
    Ok(seed[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A digest as manifests have it.
pub(super) fn digest(text: &str) -> Result<Digest, ClientError> {
    text.parse().map_err(|error: jobs::digest::DigestSyntax| {
        FormatError::invalid("digest of a file just written", error.to_string(), "64 hexadecimal digits").into()
    })
}

/// More batches than a manifest lists.
pub(super) fn too_many_batches(found: usize) -> ClientError {
    let expected = format!("at most {}", manifest::BATCHES_LIMIT);
    JobsError::Field { field: "batches".to_owned(), found: format!("{found} batches"), expected }.into()
}

impl Key {
    fn kind(&self) -> EncryptionKind {
        match self {
            Self::Secret(_) => EncryptionKind::Secret,
            Self::Public(_) => EncryptionKind::Public,
        }
    }
}

/// What all batches of a job have in common.
struct Job<'a> {
    setup: &'a Setup,
    key: &'a Key,
    key_id: &'a str,
    job_id: String,
    batches: &'a Batches<'a>,
}

impl Job<'_> {
    fn place(&self, index: usize) -> BatchPlace {
        BatchPlace {
            job_id: self.job_id.clone(),
            index,
            first_image: (index * self.batches.slots()) as u64,
            occupancy: self.batches.occupancy(index),
            canaries: self.batches.canary_slots(index),
            encryption: self.key.kind(),
        }
    }

    fn encrypt_batch(
        &self,
        path: &Path,
        place: &BatchPlace,
        threads: NonZeroUsize,
        step: &(dyn Fn() + Sync),
    ) -> Result<Written, ClientError> {
        let context = &self.setup.context;
        let scale = self.setup.plan.input_scale;
        // Fresh masks and errors for every batch.
        let (encryptor, encryption) = match self.key {
            Key::Secret(key) => {
                let encryptor = SecretEncryptor::new(context, key, scale)?;
                let mask_seed = *encryptor.mask_seed();
                (Encryptor::Secret(Box::new(encryptor)), Encryption::Secret { mask_seed })
            }
            Key::Public(key) => {
                (Encryptor::Public(Box::new(PublicEncryptor::new(context, key, scale)?)), Encryption::Public)
            }
        };
        let header = BatchHeader { header: self.setup.header(self.key_id), place: place.clone(), scale };
        let entries = self.batches.entries();
        let writer = BatchWriter::create(path, &header, context, entries, &encryption)?;
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            let mut worker = Worker::new(self, &encryptor, place.index);
            let mut run = writer.run(RUN);
            loop {
                let start = next.fetch_add(RUN, Ordering::Relaxed);
                if start >= entries {
                    return;
                }
                if let Err(error) = worker.encrypt_run(start, entries.min(start + RUN), &mut run, step) {
                    // The others stop at their next run; the first error is the one reported.
                    next.store(entries, Ordering::Relaxed);
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(error);
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.get().min(entries.div_ceil(RUN)) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner() {
            Ok(None) => Ok(writer.finish()?),
            Ok(Some(error)) => Err(error),
            Err(poisoned) => Err(poisoned
                .into_inner()
                .unwrap_or_else(|| ClientError::mismatch("encrypting threads", "a panic", "none"))),
        }
    }
}

/// One thread's memory. Slots and residues of both components; the slots are plain images, so they are zeroed.
struct Worker<'a> {
    batches: &'a Batches<'a>,
    batch: usize,
    encryptor: &'a Encryptor<'a>,
    slots: Zeroizing<Vec<f64>>,
    components: [Vec<u64>; 2],
    scratch: Scratch,
}

enum Scratch {
    Secret(crate::ckks::secret::EncryptScratch),
    Public(Box<crate::ckks::public::PublicScratch>),
}

impl<'a> Worker<'a> {
    fn new(job: &'a Job<'_>, encryptor: &'a Encryptor<'_>, batch: usize) -> Self {
        let context = &job.setup.context;
        let residues = || vec![0; context.limbs() * context.degree()];
        let (components, scratch) = match encryptor {
            Encryptor::Secret(encryptor) => ([residues(), Vec::new()], Scratch::Secret(encryptor.scratch())),
            Encryptor::Public(encryptor) => ([residues(), residues()], Scratch::Public(Box::new(encryptor.scratch()))),
        };
        let slots = Zeroizing::new(vec![0.0; RUN * context.degree()]);
        Self { batches: job.batches, batch, encryptor, slots, components, scratch }
    }

    fn encrypt_run(
        &mut self,
        start: usize,
        end: usize,
        run: &mut EntryRun<'_>,
        step: &(dyn Fn() + Sync),
    ) -> Result<(), ClientError> {
        let n = self.batches.slots();
        run.begin(start, end - start)?;
        let values = &mut self.slots[..(end - start) * n];
        self.batches.entries_into(self.batch, start..end, values)?;
        for (entry, slots) in (start..end).zip(values.chunks_exact_mut(n)) {
            let [c0, c1] = &mut self.components;
            match (self.encryptor, &mut self.scratch) {
                (Encryptor::Secret(encryptor), Scratch::Secret(scratch)) => {
                    encryptor.encrypt_into(entry as u32, slots, scratch, c0)?;
                }
                (Encryptor::Public(encryptor), Scratch::Public(scratch)) => {
                    encryptor.encrypt_into(entry as u32, slots, scratch, [&mut *c0, &mut *c1])?;
                    run.put(entry, 1, c1)?;
                }
                _ => return Err(ClientError::mismatch("scratch memory", "of the other key", "of this key")),
            }
            run.put(entry, 0, c0)?;
            step();
        }
        Ok(run.write()?)
    }
}
