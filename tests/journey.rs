//! The whole journey through files on a small random network: keygen, encrypt, worker, decrypt; and what happens when a file is not what it
//! should be. Real parameters (inside the security table), real files, nothing mocked.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jobs::{ExitCode, JobManifest, Receipt, manifest};
use nightshift::client::{self, ClientError, DecryptRequest, Decrypted, EncryptRequest};
use nightshift::format::{Canary, ModelPackage};
use nightshift::net::sample::{Random, random_network};
use nightshift::net::{Calibration, LowerOptions, Network, lower};
use nightshift::plan::{Requirements, scales};
use nightshift::ring::kernels::Kernel;
use nightshift::worker::{self, CHECKPOINT_AFTER, RunReport, RunRequest, WorkerError};
use packing::{Batches, ImageSet, Normalisation, Pixels};

const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A model, its keys and a folder to work in.
struct Bench {
    folder: tempfile::TempDir,
    model: ModelPackage,
}

impl Bench {
    /// A network with two squarings, keys made.
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut network = random_network(seed, 2, false);
        network.name = format!("random-{seed}");
        let calibration = Calibration { images: 256, x: normalised(&network, &byte_images(network.input.shape, 256)) };
        let circuit = lower(&network, &LowerOptions::default(), &calibration).unwrap();
        let canaries = (0..3)
            .map(|image| {
                let input: Vec<f32> = calibration.x.chunks_exact(256).map(|entry| entry[image] as f32).collect();
                let exact: Vec<f64> = input.iter().copied().map(f64::from).collect();
                Canary { logits: circuit.evaluate_batch(&exact, 1).unwrap(), input }
            })
            .collect();
        let model =
            ModelPackage { network, circuit, lowering: None, canaries, ranges: None, provenance: BTreeMap::new() };
        model.write(&folder.path().join("model.nsm")).unwrap();
        client::keygen(&model, &Requirements::default(), &folder.path().join("keys"), Kernel::detect()).unwrap();
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn images(&self, count: usize) -> ImageSet {
        byte_images(self.model.circuit.input_shape, count)
    }

    fn encrypt(&self, images: &ImageSet, key: &str, job: &str) {
        let request = EncryptRequest {
            key_path: &self.path("keys").join(key),
            model_path: &self.path("model.nsm"),
            model: &self.model,
            images,
            out_dir: &self.path(job),
            eval_key_path: None,
            threads: THREADS,
            kernel: Kernel::detect(),
            limit: None,
            requirements: &Requirements::default(),
            created: "2026-01-01T00:00:00Z",
            tenant: None,
            queue: None,
            signing: None,
        };
        client::encrypt(&request, &|_| {}).unwrap();
    }

    fn decrypt(&self, job: &str) -> Result<Decrypted, ClientError> {
        let request = DecryptRequest {
            key_path: &self.path("keys").join("secret.key"),
            job_path: &self.path(job).join("job.toml"),
            model_path: None,
            worker_keys: None,
            threads: THREADS,
            kernel: Kernel::detect(),
            requirements: &Requirements::default(),
        };
        client::decrypt(&request, &|_| {})
    }

    /// Integer-oracle logits `[class][image]`.
    fn oracle(&self, images: &ImageSet) -> Vec<f64> {
        let x = normalised(&self.model.network, images);
        let slots = images.count.next_power_of_two();
        let logits = self.model.circuit.evaluate_batch(&x, slots).unwrap();
        logits.chunks_exact(slots).flat_map(|class| class[..images.count].to_vec()).collect()
    }
}

fn byte_images(shape: [usize; 3], count: usize) -> ImageSet {
    let mut random = Random::new(9);
    let bytes = (0..count * shape.iter().product::<usize>()).map(|_| random.below(256) as u8).collect();
    ImageSet::new(shape, Pixels::Bytes(bytes)).unwrap()
}

/// `[entry][slot]`, as many slots as the next power of two.
fn normalised(network: &Network, images: &ImageSet) -> Vec<f64> {
    let normalisation = Normalisation::new(&network.input.mean, &network.input.std).unwrap();
    let slots = images.count.next_power_of_two();
    let batches = Batches::new(images, &normalisation, slots).unwrap();
    let mut x = vec![0.0; batches.entries() * slots];
    batches.entries_into(0, 0..batches.entries(), &mut x).unwrap();
    x
}

fn run(job: &Path, kernel: Kernel, threads: usize) -> Result<RunReport, WorkerError> {
    let request = RunRequest {
        job_path: job.join("job.toml"),
        model: None,
        eval_key: None,
        threads,
        memory_limit_bytes: None,
        kernel,
        rates: None,
        checkpoint_after: CHECKPOINT_AFTER,
    };
    worker::run(&request, &|_| {})
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn outputs(job: &Path) -> Vec<Vec<u8>> {
    let job = manifest::load(&job.join("job.toml")).unwrap();
    job.manifest().batches.iter().map(|b| fs::read(job.root().join(&b.output)).unwrap()).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
    // Copies keep read-only modes; a fresh file does not.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_jobs_own_images_can_be_read_back_by_the_key_owner_alone() {
    let bench = Bench::new(23);
    let slots = scales::plan(&bench.model.circuit, &Requirements::default()).unwrap().slots() as u64;
    let images = bench.images(slots as usize + 10);
    bench.encrypt(&images, "secret.key", "job");
    let (key_path, job_path) = (bench.path("keys/secret.key"), bench.path("job/job.toml"));
    let request = DecryptRequest {
        key_path: &key_path,
        job_path: &job_path,
        model_path: None,
        threads: THREADS,
        worker_keys: None,
        kernel: Kernel::detect(),
        requirements: &Requirements::default(),
    };
    let asked = [slots + 3, 0, 17];
    let found = client::decrypt_inputs(&request, &asked, &|_| {}).unwrap();
    let Pixels::Bytes(bytes) = &images.pixels else { unreachable!("made of bytes") };
    let input = &bench.model.network.input;
    for (values, image) in found.iter().zip(asked) {
        let back: Vec<u8> = values.iter().enumerate().map(|(entry, &value)| input.byte(entry, value)).collect();
        assert_eq!(back, bytes[image as usize * images.entries()..][..images.entries()]);
    }
    let beyond = client::decrypt_inputs(&request, &[slots + 10], &|_| {}).unwrap_err();
    assert_eq!(beyond.exit_code(), ExitCode::Mismatch);
    client::keygen(&bench.model, &Requirements::default(), &bench.path("other"), Kernel::detect()).unwrap();
    let other = bench.path("other/secret.key");
    let refused = client::decrypt_inputs(&DecryptRequest { key_path: &other, ..request }, &[0], &|_| {}).unwrap_err();
    assert_eq!(refused.exit_code(), ExitCode::Mismatch);
    flip(&bench.path("job/batch-0000.in.nsc"), 100_000);
    let damaged = client::decrypt_inputs(&request, &[0], &|_| {}).unwrap_err();
    assert_eq!(damaged.exit_code(), ExitCode::BadData);
}

#[test]
fn two_batches_come_back_as_the_integer_oracle_says() {
    let bench = Bench::new(21);
    let slots = scales::plan(&bench.model.circuit, &Requirements::default()).unwrap().slots();
    let images = bench.images(slots + 100);
    for key in ["secret.key", "public.key"] {
        let job = format!("job-{key}");
        bench.encrypt(&images, key, &job);
        let folder = bench.path(&job);
        let other = bench.path(&format!("copy-{key}"));
        copy_folder(&folder, &other);

        let report = run(&folder, Kernel::detect(), 2).unwrap();
        assert!(!report.already_done && report.batches == 2 && report.images == images.count as u64);
        let again = run(&folder, Kernel::detect(), 1).unwrap();
        assert!(again.already_done, "a finished job is not run again");
        let whole = outputs(&folder);
        flip(&folder.join("batch-0001.out.nsc"), 9_999);
        assert!(!run(&folder, Kernel::detect(), 2).unwrap().already_done, "damaged results are computed again");
        fs::write(folder.join("receipt.json"), b"{").unwrap();
        assert!(!run(&folder, Kernel::detect(), 2).unwrap().already_done, "so are those of a torn receipt");
        assert_eq!(outputs(&folder), whole);
        for kernel in Kernel::present() {
            for threads in [1, 2] {
                let copy = bench.path(&format!("{key}-{}-{threads}", kernel.name()));
                copy_folder(&other, &copy);
                run(&copy, kernel, threads).unwrap();
                assert_eq!(outputs(&copy), outputs(&folder), "{} with {threads} threads", kernel.name());
            }
        }

        let decrypted = bench.decrypt(&job).unwrap();
        assert_eq!(decrypted.predictions.len(), images.count);
        assert_eq!(decrypted.report.canaries, 3, "the last batch has room for all canaries");
        let oracle = bench.oracle(&images);
        let tolerance = 2f64.powf(-decrypted.report.promised_bits);
        for (image, prediction) in decrypted.predictions.iter().enumerate() {
            for (class, score) in prediction.scores.iter().enumerate() {
                let expected = oracle[class * images.count + image];
                assert!(
                    (score - expected).abs() < tolerance,
                    "{key}: image {image} class {class}: {score}, {expected}"
                );
            }
        }
    }
}

#[test]
fn every_wrong_file_is_refused_with_its_exit_code() {
    let bench = Bench::new(22);
    let images = bench.images(40);
    bench.encrypt(&images, "secret.key", "job");
    let other = Bench::new(23);
    other.encrypt(&other.images(40), "secret.key", "job");

    type Damage<'a> = &'a dyn Fn(&Path);
    let edit = |job: &Path, change: &dyn Fn(&mut JobManifest)| {
        let path = job.join("job.toml");
        let mut manifest = manifest::load(&path).unwrap().manifest().clone();
        change(&mut manifest);
        let text = manifest.to_toml(&path).unwrap_or_else(|_| panic!("an edit that the writer itself refuses"));
        fs::write(&path, text).unwrap();
    };
    let replace_text = |job: &Path, from: &str, to: &str| {
        let path = job.join("job.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    };
    let input = |job: &Path| {
        let loaded = manifest::load(&job.join("job.toml")).unwrap();
        loaded.input_path(&loaded.manifest().batches[0]).unwrap()
    };
    let cases: [(&str, ExitCode, Damage<'_>); 14] = [
        ("flipped input", ExitCode::BadData, &|job| flip(&input(job), 1_000_003)),
        ("truncated input", ExitCode::BadData, &|job| {
            let path = input(job);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("missing input", ExitCode::InputMissing, &|job| fs::remove_file(input(job)).unwrap()),
        ("flipped model", ExitCode::Mismatch, &|job| flip(&job.join("model.nsm"), 77_777)),
        ("missing model", ExitCode::InputMissing, &|job| fs::remove_file(job.join("model.nsm")).unwrap()),
        ("flipped evaluation key", ExitCode::Mismatch, &|job| flip(&job.join("eval.key"), 123_456)),
        ("another model", ExitCode::Mismatch, &|job| {
            fs::remove_file(job.join("model.nsm")).unwrap();
            fs::copy(other.path("job").join("model.nsm"), job.join("model.nsm")).unwrap();
            let digest = jobs::digest::digest_file(&job.join("model.nsm")).unwrap();
            edit(job, &|m| m.model.digest = digest);
        }),
        ("another key", ExitCode::Mismatch, &|job| {
            fs::remove_file(job.join("eval.key")).unwrap();
            fs::copy(other.path("job").join("eval.key"), job.join("eval.key")).unwrap();
            let digest = jobs::digest::digest_file(&job.join("eval.key")).unwrap();
            edit(job, &|m| m.eval_key.digest = digest);
        }),
        ("another job's batch", ExitCode::Mismatch, &|job| {
            edit(job, &|m| m.job_id = "0123456789abcdef0123456789abcdef".to_owned());
        }),
        ("another plan", ExitCode::Mismatch, &|job| edit(job, &|m| m.plan_id = "0".repeat(64))),
        ("outside the folder", ExitCode::BadData, &|job| replace_text(job, "\"eval.key\"", "\"../keys/eval.key\"")),
        ("absolute path", ExitCode::BadData, &|job| replace_text(job, "\"model.nsm\"", "\"/etc/passwd\"")),
        ("newer manifest", ExitCode::Mismatch, &|job| replace_text(job, "nightshift.job/1", "nightshift.job/2")),
        ("no manifest at all", ExitCode::BadData, &|job| fs::write(job.join("job.toml"), b"\0\xff{").unwrap()),
    ];
    for (what, code, damage) in cases {
        let job = bench.path(&format!("damaged {what}"));
        copy_folder(&bench.path("job"), &job);
        damage(&job);
        let before: Vec<_> = fs::read_dir(&job).unwrap().map(|e| e.unwrap().file_name()).collect();
        let error = run(&job, Kernel::detect(), 1).expect_err(what);
        assert_eq!(error.exit_code(), code, "{what}: {error}");
        for entry in fs::read_dir(&job).unwrap() {
            let name = entry.unwrap().file_name();
            let receipt = name.to_string_lossy().contains("receipt");
            assert!(before.contains(&name) || receipt, "{what}: left {name:?}");
            if receipt {
                assert!(
                    Receipt::load(&job.join(&name)).unwrap().require_done().is_err(),
                    "{what}: a receipt of success"
                );
            }
        }
    }

    let request = RunRequest {
        job_path: bench.path("job").join("job.toml"),
        model: None,
        eval_key: None,
        threads: 1,
        memory_limit_bytes: Some(1 << 20),
        kernel: Kernel::detect(),
        rates: None,
        checkpoint_after: CHECKPOINT_AFTER,
    };
    let error = worker::run(&request, &|_| {}).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Config, "{error}");
}

#[test]
fn the_client_decrypts_nothing_that_the_receipt_does_not_cover() {
    let bench = Bench::new(24);
    bench.encrypt(&bench.images(10), "secret.key", "job");
    assert!(bench.decrypt("job").is_err(), "no receipt yet");
    run(&bench.path("job"), Kernel::detect(), 1).unwrap();
    assert_eq!(bench.decrypt("job").unwrap().predictions.len(), 10);

    let loaded = manifest::load(&bench.path("job").join("job.toml")).unwrap();
    let output = loaded.manifest().batches[0].output.clone();
    let receipt = loaded.manifest().receipt.clone();
    for (what, damage) in [
        ("flipped result", &(|job: &Path| flip(&job.join(&output), 5_000)) as &dyn Fn(&Path)),
        ("missing result", &|job| fs::remove_file(job.join(&output)).unwrap()),
        ("truncated receipt", &|job| {
            let text = fs::read_to_string(job.join(&receipt)).unwrap();
            fs::write(job.join(&receipt), &text[..text.len() / 2]).unwrap();
        }),
        ("receipt of another plan", &|job| {
            let text = fs::read_to_string(job.join(&receipt)).unwrap();
            let plan = &loaded.manifest().plan_id;
            fs::write(job.join(&receipt), text.replace(plan.as_str(), &"1".repeat(plan.len()))).unwrap();
        }),
    ] {
        let name = format!("damaged {what}");
        copy_folder(&bench.path("job"), &bench.path(&name));
        damage(&bench.path(&name));
        assert!(bench.decrypt(&name).is_err(), "{what}");
    }
}
