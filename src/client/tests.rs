//! The whole wing around a worker that does nothing: the model is the identity, so the results are the inputs.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jobs::manifest;
use jobs::receipt::{self, BatchReceipt, Cost, Outcome, Receipt};
use packing::{ImageSet, Pixels};

use super::*;
use crate::format::ciphertexts::{EncryptedBatch, EncryptionKind, ExpectedBatch, write_results};
use crate::format::{Canary, ModelPackage};
use crate::net::circuit::{Block, Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use crate::net::network::{InputSpec, Layer, Network, Op};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;

const ENTRIES: usize = 4;
const IMAGES: usize = 4096 + 100;

/// Four logits that are the four pixels.
fn identity() -> ModelPackage {
    let eye = |i: usize| i.is_multiple_of(ENTRIES + 1);
    let stats = StageStats { max_abs: 1.96, max_rms: 1.0, noise_gain: 0.5, noise_gain_worst: 1.0 };
    let all: Vec<u32> = (0..ENTRIES as u32).collect();
    let stage = Stage {
        name: "identity".into(),
        features: all.iter().map(|&entry| Feature { source: Source::Input, kind: FeatureKind::Value, entry }).collect(),
        map: LinearMap {
            outputs: ENTRIES,
            blocks: vec![Block {
                rows: all.clone(),
                columns: all,
                weights: (0..16).map(|i| i16::from(eye(i))).collect(),
            }],
            bias: vec![0.0; ENTRIES],
            weight_scale: 1.0,
            weight_bits: 8,
        },
        stats,
    };
    let weight = (0..16).map(|i| f32::from(u8::from(eye(i)))).collect();
    let dense = Op::Dense { weight, weight_shape: [ENTRIES, ENTRIES], bias: vec![0.0; ENTRIES] };
    let layer = |name: &str, op| Layer { name: name.into(), op };
    let input = InputSpec { shape: [1, 2, 2], mean: vec![0.5], std: vec![0.25] };
    let canary = |values: [f32; 4]| Canary { input: values.to_vec(), logits: values.map(f64::from).to_vec() };
    ModelPackage {
        network: Network {
            name: "identity".into(),
            dataset: "none".into(),
            input,
            layers: vec![layer("0 flatten", Op::Flatten), layer("1 dense", dense)],
        },
        circuit: Circuit { input_shape: [1, 2, 2], input_stats: stats, stages: vec![stage] },
        lowering: None,
        canaries: vec![canary([1.5, -1.25, 0.5, 0.0]), canary([-2.0, 0.75, 1.0, 1.5])],
        ranges: None,
        provenance: std::collections::BTreeMap::new(),
    }
}

struct World {
    folder: tempfile::TempDir,
    model: ModelPackage,
    images: ImageSet,
    requirements: Requirements,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pixels = (0..IMAGES * ENTRIES).map(|i| (i * 7919 % 251) as u8).collect();
        let world = Self {
            folder,
            model: identity(),
            images: ImageSet::new([1, 2, 2], Pixels::Bytes(pixels)).unwrap(),
            requirements: Requirements::default(),
        };
        world.model.write(&world.path("M.nsm")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn keygen(&self, folder: &str) -> Result<KeygenReport, ClientError> {
        keygen(&self.model, &self.requirements, &self.path(folder), Kernel::detect())
    }

    fn encrypt(&self, key: &str, job: &str) -> Result<EncryptReport, ClientError> {
        self.encrypt_with(key, job, |_| {}).0
    }

    /// Returns the count of progress calls too.
    fn encrypt_with(
        &self,
        key: &str,
        job: &str,
        change: impl Fn(&mut EncryptRequest<'_>),
    ) -> (Result<EncryptReport, ClientError>, u64) {
        let (key_path, model_path, out_dir) = (self.path(key), self.path("M.nsm"), self.path(job));
        let mut request = EncryptRequest {
            key_path: &key_path,
            model_path: &model_path,
            model: &self.model,
            images: &self.images,
            out_dir: &out_dir,
            eval_key_path: None,
            threads: NonZeroUsize::new(2).unwrap(),
            kernel: Kernel::detect(),
            limit: None,
            requirements: &self.requirements,
            created: "2026-01-02T03:04:05Z",
            tenant: None,
            queue: None,
            signing: None,
        };
        change(&mut request);
        let calls = AtomicU64::new(0);
        let result = encrypt(&request, &|_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        (result, calls.into_inner())
    }

    fn decrypt(&self, key: &str, job: &str) -> Result<Decrypted, ClientError> {
        let request = DecryptRequest {
            key_path: &self.path(key),
            job_path: &self.path(job).join("job.toml"),
            model_path: None,
            worker_keys: None,
            threads: NonZeroUsize::new(2).unwrap(),
            kernel: Kernel::detect(),
            requirements: &self.requirements,
        };
        decrypt(&request, &|_| {})
    }

    /// A worker that hands the inputs back, output `i` being entry `order[i]`.
    fn work(&self, job: &str, order: [usize; ENTRIES]) {
        let setup = Setup::new(&self.model, &self.requirements, Kernel::detect()).unwrap();
        let context = &setup.context;
        let loaded = manifest::load(&self.path(job).join("job.toml")).unwrap();
        loaded.verify_inputs().unwrap();
        let manifest = loaded.manifest();
        let (n, limbs) = (context.degree(), context.limbs());
        let mut batches = Vec::new();
        for listed in &manifest.batches {
            let expected = ExpectedBatch {
                context,
                input_scale: setup.plan.input_scale,
                plan_id: &manifest.plan_id,
                key_id: &manifest.key_id,
                job_id: &manifest.job_id,
                entries: ENTRIES,
            };
            let batch = EncryptedBatch::open(&loaded.input_path(listed).unwrap(), &expected).unwrap();
            batch.verify().unwrap();
            let mut residues = Vec::new();
            for entry in order {
                for at in 0..2 * limbs {
                    let (component, limb) = (at / limbs, at % limbs);
                    let mut part = vec![0; n];
                    batch.load_into(component, limb, entry, 0, &mut part).unwrap();
                    context.ntt(limb).inverse_assign(&mut part);
                    residues.extend(part);
                }
            }
            let header = batch.result_header(&batch.file_digest());
            let path = loaded.output_path(listed).unwrap();
            let scale = setup.plan.output().output_scale;
            write_results(&path, &header, context, ENTRIES, 2, limbs, scale, &residues).unwrap();
            batches.push(BatchReceipt {
                input: listed.input.digest,
                output: listed.output.clone(),
                output_stamp: jobs::digest::stamp_file(&path).unwrap(),
                occupancy: listed.occupancy,
                first_image: listed.first_image,
                stages: Vec::new(),
            });
        }
        let receipt = Receipt {
            schema: receipt::SCHEMA.into(),
            job_id: manifest.job_id.clone(),
            tenant: None,
            outcome: Outcome::Done,
            plan_id: manifest.plan_id.clone(),
            key_id: manifest.key_id.clone(),
            model: manifest.model.digest,
            eval_key: manifest.eval_key.digest,
            images: manifest.images,
            slots: manifest.slots,
            attempts: 1,
            code_version: "test".into(),
            code_commit: None,
            isa: "test".into(),
            threads: 1,
            batches,
            totals: Vec::new(),
            predicted: None,
            measured: Cost { elapsed_secs: 0.0, peak_bytes: 0, output_bytes: 0 },
        };
        receipt.write(&loaded.receipt_path().unwrap()).unwrap();
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_encrypted_is_decrypted_with_either_key() {
    let world = World::new();
    let keys = world.keygen("keys").unwrap();
    assert_eq!(names_in(&world.path("keys")), ["eval.key", "public.key", "secret.key"]);
    for (key, encryption) in [("secret.key", EncryptionKind::Secret), ("public.key", EncryptionKind::Public)] {
        let (report, calls) = world.encrypt_with(&format!("keys/{key}"), key, |_| {});
        let report = report.unwrap();
        assert_eq!(calls, 2 * ENTRIES as u64);
        assert_eq!((&report.key_id, &report.plan_id), (&keys.key_id, &keys.plan_id));
        assert_eq!((report.images, report.batches, report.slots, report.canaries), (IMAGES, 2, 4096, 2));
        assert_eq!(report.encryption, encryption);
        let layout = ["batch-0000.in.nsc", "batch-0001.in.nsc", "eval.key", "job.toml", "model.nsm"];
        assert_eq!(names_in(&world.path(key)), layout);

        world.work(key, [0, 1, 2, 3]);
        let Decrypted { predictions, report: decrypted } = world.decrypt("keys/secret.key", key).unwrap();
        assert_eq!(decrypted.promised_bits, report.promised_bits);
        let tolerance = (-report.promised_bits).exp2();
        assert_eq!(predictions.len(), IMAGES);
        let Pixels::Bytes(bytes) = &world.images.pixels else { panic!("bytes") };
        for (index, (prediction, pixels)) in predictions.iter().zip(bytes.chunks_exact(ENTRIES)).enumerate() {
            assert_eq!(prediction.index, index);
            for (score, &byte) in prediction.scores.iter().zip(pixels) {
                let value = (f64::from(byte) / 255.0 - 0.5) / 0.25;
                assert!((score - value).abs() < tolerance, "{key}: image {index}: {score}, not {value} to {tolerance}");
            }
        }
        assert_eq!((decrypted.canaries, decrypted.batches, decrypted.images), (2, 2, IMAGES));
        let error = decrypted.canary_max_error.unwrap();
        assert!(error > 0.0 && error < tolerance, "{error}");
        assert_eq!(decrypted.decimals, (report.promised_bits * 0.301) as u8);
        let bits = decrypted.canary_bits().unwrap();
        assert!((-f64::from(bits)).exp2() >= error && (-f64::from(bits + 1)).exp2() < error, "{error} is {bits} bits");
        let (shown, margin) = (decrypted.shown_margin(), decrypted.smallest_margin);
        let unit = 10_f64.powi(-i32::from(decrypted.decimals));
        assert!(shown <= margin && margin - shown < unit, "{margin} is shown as {shown}");
        // Equal neighbours exist among the pixels? Then their margin must be listed.
        let close = |scores: &[f64]| {
            let mut sorted = scores.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[3] - sorted[2] <= 2.0 * tolerance
        };
        let expected: Vec<usize> = predictions.iter().filter(|p| close(&p.scores)).map(|p| p.index).collect();
        assert_eq!(decrypted.too_close, expected);
        let limit = world.model.score_limit();
        let expected: Vec<usize> =
            predictions.iter().filter(|p| p.scores.iter().any(|score| score.abs() > limit)).map(|p| p.index).collect();
        assert!(!expected.is_empty() && expected.len() < IMAGES);
        assert_eq!(decrypted.beyond, expected);
    }
}

#[test]
fn a_worker_that_computes_something_else_is_found_by_the_canaries() {
    let world = World::new();
    world.keygen("keys").unwrap();
    world.encrypt("keys/secret.key", "job").unwrap();
    world.work("job", [0, 1, 3, 2]);
    let error = world.decrypt("keys/secret.key", "job").unwrap_err();
    let found = matches!(error, ClientError::Canary { batch: 1, slot: 4095, canary: 0, logit: 2, .. });
    assert!(found, "{error}");
    // 0 came for 0.5: off by one bit less than the promise, give or take noise that the rounding up hides or shows.
    let ClientError::Canary { missed_bits, promised_bits, .. } = error else { panic!("{error}") };
    assert!((f64::from(missed_bits) - (promised_bits - 1.0)).abs() < 1.5, "{error}");
    assert!(!error.to_string().contains("0.5"), "{error}");
    assert_eq!(error.exit_code().code(), 65);
}

#[test]
fn other_keys_plans_and_damage_have_their_exit_codes() {
    let mut world = World::new();
    world.keygen("keys").unwrap();
    world.keygen("other").unwrap();
    world.encrypt("keys/secret.key", "job").unwrap();
    let code = |world: &World, key: &str| world.decrypt(key, "job").unwrap_err().exit_code().code();
    assert_eq!(code(&world, "keys/secret.key"), 66, "no receipt yet");
    world.work("job", [0, 1, 2, 3]);
    world.decrypt("keys/secret.key", "job").unwrap();
    assert_eq!(code(&world, "other/secret.key"), 76);
    assert_eq!(code(&world, "keys/public.key"), 76);
    assert_eq!(code(&world, "keys/none.key"), 66);

    let mixed = world.encrypt_with("keys/secret.key", "mixed", |request| {
        request.eval_key_path = Some(Path::new("/dev/null"));
    });
    assert_eq!(mixed.0.unwrap_err().exit_code().code(), 65);
    let other_eval = world.path("other/eval.key");
    let (mixed, _) = {
        let (key_path, model_path, out_dir) = (world.path("keys/secret.key"), world.path("M.nsm"), world.path("mixed"));
        let request = EncryptRequest {
            key_path: &key_path,
            model_path: &model_path,
            model: &world.model,
            images: &world.images,
            out_dir: &out_dir,
            eval_key_path: Some(&other_eval),
            threads: NonZeroUsize::MIN,
            kernel: Kernel::portable(),
            limit: None,
            requirements: &world.requirements,
            created: "now",
            tenant: None,
            queue: None,
            signing: None,
        };
        (encrypt(&request, &|_| {}), ())
    };
    assert_eq!(mixed.unwrap_err().exit_code().code(), 76, "evaluation key of another key");

    let output = world.path("job/batch-0001.out.nsc");
    let mut bytes = fs::read(&output).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&output, &bytes).unwrap();
    assert_eq!(code(&world, "keys/secret.key"), 65, "flipped byte");
    bytes[last] ^= 1;
    fs::write(&output, &bytes).unwrap();
    world.requirements.promised_bits = 12.0;
    assert_eq!(code(&world, "keys/secret.key"), 76, "another plan");
    assert_eq!(world.encrypt("keys/public.key", "again").unwrap_err().exit_code().code(), 76, "another plan");
    assert!(!world.path("again").exists());
}

#[test]
fn nothing_is_left_where_a_command_fails() {
    let world = World::new();
    world.keygen("keys").unwrap();
    // Existing keys are kept and nothing is put beside them.
    fs::remove_file(world.path("keys/public.key")).unwrap();
    let before = fs::read(world.path("keys/secret.key")).unwrap();
    assert_eq!(world.keygen("keys").unwrap_err().exit_code().code(), 73);
    assert_eq!(names_in(&world.path("keys")), ["eval.key", "secret.key"]);
    assert_eq!(fs::read(world.path("keys/secret.key")).unwrap(), before);

    // After all batches are written, the manifest is refused. One thread finishes them itself, two leave it to others.
    for threads in [1, 2] {
        let (late, calls) = world.encrypt_with("keys/secret.key", "late", |request| {
            (request.created, request.threads) = ("", NonZeroUsize::new(threads).unwrap());
        });
        assert_eq!((late.unwrap_err().exit_code().code(), calls), (65, 2 * ENTRIES as u64));
        assert!(!world.path("late").exists());
    }
    // A folder that was there stays, without what was put in it; its own files stay too.
    fs::create_dir(world.path("mine")).unwrap();
    let (late, _) = world.encrypt_with("keys/secret.key", "mine", |request| request.created = "");
    assert!(late.is_err() && names_in(&world.path("mine")).is_empty());
    fs::write(world.path("mine/notes"), "x").unwrap();
    let error = world.encrypt("keys/secret.key", "mine").unwrap_err();
    assert_eq!(error.exit_code().code(), 73, "{error}");
    assert_eq!(names_in(&world.path("mine")), ["notes"]);
    assert!(world.path("keys/eval.key").exists() && world.path("M.nsm").exists());

    let wide = ImageSet::new([1, 4, 1], Pixels::Bytes(vec![0; 8])).unwrap();
    let mut other = World::new();
    other.images = wide;
    other.keygen("keys").unwrap();
    let error = other.encrypt("keys/secret.key", "job").unwrap_err();
    assert!(error.to_string().contains("found shape [1, 4, 1], expected [1, 2, 2]"), "{error}");
    assert!(!other.path("job").exists());
}

#[test]
fn a_limit_takes_the_first_images() {
    let world = World::new();
    world.keygen("keys").unwrap();
    let (report, _) = world.encrypt_with("keys/secret.key", "job", |request| {
        (request.limit, request.threads) = (NonZeroUsize::new(5), NonZeroUsize::MIN);
    });
    assert_eq!((report.as_ref().unwrap().images, report.unwrap().batches), (5, 1));
    world.work("job", [0, 1, 2, 3]);
    let decrypted = world.decrypt("keys/secret.key", "job").unwrap();
    assert_eq!((decrypted.predictions.len(), decrypted.report.canaries), (5, 2));
    // The job does not need the original package or evaluation key any more.
    fs::remove_file(world.path("M.nsm")).unwrap();
    fs::remove_file(world.path("keys/eval.key")).unwrap();
    manifest::load(&world.path("job/job.toml")).unwrap().verify_eval_key(None).unwrap();
    assert_eq!(world.decrypt("keys/secret.key", "job").unwrap(), decrypted);
}
