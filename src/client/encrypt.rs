//! Encryption: images to a job folder that a worker can be given as it is.
//!
//! ```text
//! JOB/batch-0000.in.nsc ..  encrypted images    JOB/model.nsm, JOB/eval.key  copies             JOB/job.toml  written last
//! ```
//! A folder without `job.toml` is no job. Entries are encrypted in parallel, a run of them at a time; a batch is never held whole. A batch is
//! hashed and brought to the disk while the next one is encrypted.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

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
use crate::format::{Bytes, Container, Expected, FormatError, Kind, ModelPackage, OpenLimits, Written, keys, secret};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;
use crate::ring::sampling::fresh_seed;

/// Entries whose slots a thread has at a time: a cache line of each image's bytes is then read a few times only.
const SLOTS_RUN: usize = 16;
/// Entries that a thread takes at a time, at most: the longer the pieces of the file, the less time they take the system.
const LONGEST_RUN: usize = 64;
/// Bytes of a run, at most, unless one group of slots has more: it is kept packed until it is written.
const LONGEST_RUN_BYTES: usize = 16 << 20;
/// Runs that a thread takes, at least, so that none waits long for the last.
const RUNS_A_THREAD: usize = 6;

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
    let step = || progress(done.fetch_add(1, Ordering::Relaxed) + 1);
    let places: Vec<BatchPlace> = (0..batches.batches()).map(|index| job.place(index)).collect();
    let written = job.write_batches(&places, request.threads, &mut outputs, &step)?;
    let mut listed = Vec::with_capacity(batches.batches());
    for (place, written) in places.iter().zip(&written) {
        let index = place.index;
        listed.push(Batch {
            output: format!("batch-{index:04}.out.nsc"),
            occupancy: place.occupancy as u32,
            first_image: place.first_image,
            input: InputRef { path: input_name(index), digest: digest(&written.digest)?, bytes: written.file_bytes },
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
        canaries: places.iter().map(|place| place.canaries.len()).sum(),
        clamped: batches.clamped(),
        upload_bytes: written.iter().map(|written| written.file_bytes).sum(),
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

fn input_name(index: usize) -> String {
    format!("batch-{index:04}.in.nsc")
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

    /// Writes all batches. One is hashed and brought to the disk while the next is encrypted, unless there is one thread for all.
    fn write_batches(
        &self,
        places: &[BatchPlace],
        threads: NonZeroUsize,
        outputs: &mut Outputs,
        step: &(dyn Fn() + Sync),
    ) -> Result<Vec<Written>, ClientError> {
        std::thread::scope(|scope| {
            let mut all = Vec::with_capacity(places.len());
            let mut finishing: Option<Finishing<'_>> = None;
            for place in places {
                let free = outputs.free_path(&input_name(place.index));
                let encrypted = free.and_then(|path| Ok((self.encrypt_batch(&path, place, threads, step)?, path)));
                // The batch before first, whose file is to be removed if this one failed.
                all.extend(finishing.take().map(|before| before.join(outputs)).transpose()?);
                let (writer, path) = encrypted?;
                if threads.get() == 1 {
                    all.push(writer.finish()?);
                    outputs.made(&path);
                    continue;
                }
                let flush = writer.flush()?;
                let (flush, finish) = (scope.spawn(|| flush.wait()), scope.spawn(|| writer.finish()));
                finishing = Some(Finishing { path, flush, finish });
            }
            all.extend(finishing.map(|last| last.join(outputs)).transpose()?);
            Ok(all)
        })
    }

    fn encrypt_batch(
        &self,
        path: &Path,
        place: &BatchPlace,
        threads: NonZeroUsize,
        step: &(dyn Fn() + Sync),
    ) -> Result<BatchWriter<'_>, ClientError> {
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
        let longest = run_entries(entries, threads, writer.entry_bytes());
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let encrypt_runs = || -> Result<(), ClientError> {
            let mut worker = Worker::new(self, &encryptor, place.index);
            let mut packed = Bytes::zeroed(longest * writer.entry_bytes()).map_err(FormatError::Write)?;
            let mut run = writer.run(&mut packed);
            loop {
                let start = next.fetch_add(longest, Ordering::Relaxed);
                if start >= entries {
                    return Ok(());
                }
                worker.encrypt_run(start..entries.min(start + longest), &mut run, step)?;
            }
        };
        let work = || {
            if let Err(error) = encrypt_runs() {
                // The others stop at their next run; the first error is the one reported.
                next.store(entries, Ordering::Relaxed);
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.get().min(entries.div_ceil(longest)) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner() {
            Ok(None) => Ok(writer),
            Ok(Some(error)) => Err(error),
            Err(poisoned) => Err(poisoned
                .into_inner()
                .unwrap_or_else(|| ClientError::mismatch("encrypting threads", "a panic", "none"))),
        }
    }
}

/// Entries of a run: one or more groups of [`SLOTS_RUN`].
fn run_entries(entries: usize, threads: NonZeroUsize, entry_bytes: usize) -> usize {
    let fair = entries / (RUNS_A_THREAD * threads.get());
    let held = LONGEST_RUN_BYTES / entry_bytes.max(1);
    (fair.min(held).min(LONGEST_RUN) / SLOTS_RUN).max(1) * SLOTS_RUN
}

/// A batch that is brought to the disk and hashed by two threads of its own.
struct Finishing<'scope> {
    path: PathBuf,
    flush: ScopedJoinHandle<'scope, Result<(), FormatError>>,
    finish: ScopedJoinHandle<'scope, Result<Written, FormatError>>,
}

impl Finishing<'_> {
    fn join(self, outputs: &mut Outputs) -> Result<Written, ClientError> {
        let panicked = |_| ClientError::mismatch("finishing threads", "a panic", "none");
        let written = self.finish.join().map_err(panicked)??;
        // It has its name by now, and goes again if it is not on the disk.
        outputs.made(&self.path);
        self.flush.join().map_err(panicked)??;
        Ok(written)
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

fn other_scratch() -> ClientError {
    ClientError::mismatch("scratch memory", "of the other key", "of this key")
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
        let slots = Zeroizing::new(vec![0.0; SLOTS_RUN * context.degree()]);
        Self { batches: job.batches, batch, encryptor, slots, components, scratch }
    }

    fn encrypt_run(
        &mut self,
        entries: Range<usize>,
        run: &mut EntryRun<'_>,
        step: &(dyn Fn() + Sync),
    ) -> Result<(), ClientError> {
        run.begin(entries.start, entries.len())?;
        for start in entries.clone().step_by(SLOTS_RUN) {
            self.encrypt_entries(start..entries.end.min(start + SLOTS_RUN), run, step)?;
        }
        Ok(run.write()?)
    }

    /// Of one run, as many as there are slots for.
    fn encrypt_entries(
        &mut self,
        entries: Range<usize>,
        run: &mut EntryRun<'_>,
        step: &(dyn Fn() + Sync),
    ) -> Result<(), ClientError> {
        let n = self.batches.slots();
        let values = &mut self.slots[..entries.len() * n];
        self.batches.entries_into(self.batch, entries.clone(), values)?;
        match (self.encryptor, &mut self.scratch) {
            (Encryptor::Secret(encryptor), Scratch::Secret(scratch)) => encryptor.transform_assign(values, scratch),
            (Encryptor::Public(encryptor), Scratch::Public(scratch)) => encryptor.transform_assign(values, scratch),
            _ => return Err(other_scratch()),
        }
        for (entry, values) in entries.zip(values.chunks_exact(n)) {
            let number = entry as u32;
            let [c0, c1] = &mut self.components;
            match (self.encryptor, &mut self.scratch) {
                (Encryptor::Secret(encryptor), Scratch::Secret(scratch)) => {
                    encryptor.encrypt_transformed_into(number, values, scratch, c0)?;
                }
                (Encryptor::Public(encryptor), Scratch::Public(scratch)) => {
                    encryptor.encrypt_transformed_into(number, values, scratch, [&mut *c0, &mut *c1])?;
                    run.put(entry, 1, c1)?;
                }
                _ => return Err(other_scratch()),
            }
            run.put(entry, 0, c0)?;
            step();
        }
        Ok(())
    }
}
