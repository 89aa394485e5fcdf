//! The whole journey through files with the exact engine: keygen, encrypt, worker, decrypt, on a small ReLU network; and what
//! happens when a file is not what it should be. Real parameters, real files, nothing mocked.
#![cfg(feature = "exact")]

#[path = "exact/queue.rs"]
mod queue;
#[path = "fleet/toy.rs"]
#[expect(dead_code, reason = "a part of what the fleet's tests need")]
mod toy;
#[path = "fleet/workers.rs"]
#[expect(dead_code, reason = "a part of what the fleet's tests need")]
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jobs::manifest::Terms;
use jobs::trust::Signed;
use jobs::{ExitCode, Receipt, SigningKey, TrustedKeys, manifest};
use nightshift::client::exact::{self, ExactDecrypted, ExactEncryptRequest};
use nightshift::client::{self, ClientError, RequestSigning};
use nightshift::exact::{Answer, Noise};
use nightshift::format::{ErrorKind, ModelPackage, TablePackage};
use nightshift::net::network::{InputSpec, Layer, Op};
use nightshift::net::sample::{Random, random_images, random_network};
use nightshift::net::tables::{TableOptions, quantise};
use nightshift::net::{Calibration, LowerOptions, Network, lower};
use nightshift::plan::Requirements;
use nightshift::ring::kernels::Kernel;
use nightshift::worker::{self, CHECKPOINT_AFTER, RunReport, RunRequest, Trust, WorkerError};
use packing::{ImageSet, Pixels, argmax};

const SIDE: usize = 6;
const CLASSES: usize = 4;

/// Convolution, average pool, ReLU, dense: 8 neurons.
fn network() -> Network {
    network_of(2, 2)
}

/// Of so many channels, pooled over squares of so many pixels of the convolution's 4 x 4.
fn network_of(channels: usize, pool: usize) -> Network {
    let neurons = channels * (4 / pool).pow(2);
    let mut random = Random::new(3);
    let mut tensor =
        |len: usize, size: f64| -> Vec<f32> { (0..len).map(|_| (random.signed() * size) as f32).collect() };
    let convolution = Op::Conv2d {
        weight: tensor(channels * 9, 0.6),
        weight_shape: [channels, 1, 3, 3],
        bias: tensor(channels, 0.3),
        stride: 1,
        padding: [0; 4],
        groups: 1,
    };
    let dense = Op::Dense {
        weight: tensor(CLASSES * neurons, 0.8),
        weight_shape: [CLASSES, neurons],
        bias: tensor(CLASSES, 0.3),
    };
    let ops = [convolution, Op::AvgPool2d { kernel: pool, stride: pool }, Op::Relu, Op::Flatten, dense];
    let named = ops.into_iter().enumerate().map(|(index, op)| Layer { name: format!("{index} {}", op.kind()), op });
    let input = InputSpec { shape: [1, SIDE, SIDE], mean: vec![0.5], std: vec![0.29] };
    Network { name: "small-relu".to_owned(), dataset: "random".to_owned(), input, layers: named.collect() }
}

/// Smooth random images: pure noise would give every image the same label.
fn images(count: usize, seed: u64) -> ImageSet {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..count {
        let [down, across, level] = [random.signed(), random.signed(), random.signed()];
        for index in 0..SIDE * SIDE {
            let (y, x) = ((index / SIDE) as f64 / 5.0 - 0.5, (index % SIDE) as f64 / 5.0 - 0.5);
            let value = 127.0 + 120.0 * (down * y + across * x) + 60.0 * level + 30.0 * random.signed();
            bytes.push(value.clamp(0.0, 255.0) as u8);
        }
    }
    ImageSet::new([1, SIDE, SIDE], Pixels::Bytes(bytes)).unwrap()
}

struct Bench {
    folder: tempfile::TempDir,
    model: TablePackage,
}

impl Bench {
    fn new() -> Self {
        let bench = Self::of(network());
        assert_eq!(bench.model.circuit.neurons(), 8);
        bench
    }

    fn of(network: Network) -> Self {
        let set = images(500, 1);
        let Pixels::Bytes(bytes) = &set.pixels else { unreachable!("made of bytes") };
        let entries = SIDE * SIDE;
        let x = (0..entries).flat_map(|entry| bytes.iter().skip(entry).step_by(entries));
        let x = x.map(|&byte| (f64::from(byte) / 255.0 - 0.5) / 0.29).collect();
        let options = TableOptions { bits: 5, input_weight_bits: 10, margin: 0.1, output_noise: Noise::bootstrapped() };
        let (circuit, _) = quantise(&network, &Calibration { images: set.count, x }, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let model = TablePackage { network, circuit, provenance: BTreeMap::new() };
        model.write(&folder.path().join("model.nsm")).unwrap();
        assert_eq!(TablePackage::open(&folder.path().join("model.nsm")).unwrap(), model);
        exact::keygen(&model, &folder.path().join("keys")).unwrap();
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn encrypt(&self, set: &ImageSet, job: &str) {
        self.encrypt_asking(set, job, Answer::Scores, None, None);
    }

    fn encrypt_signed(&self, set: &ImageSet, job: &str, signing: Option<RequestSigning<'_>>) {
        self.encrypt_asking(set, job, Answer::Scores, signing, None);
    }

    fn encrypt_asking(
        &self,
        set: &ImageSet,
        job: &str,
        answer: Answer,
        signing: Option<RequestSigning<'_>>,
        queue: Option<&Terms>,
    ) {
        let request = ExactEncryptRequest {
            key_path: &self.path("keys/secret.key"),
            model_path: &self.path("model.nsm"),
            model: &self.model,
            images: set,
            out_dir: &self.path(job),
            eval_key_path: None,
            threads: NonZeroUsize::new(2).unwrap(),
            limit: None,
            created: "2026-01-01T00:00:00Z",
            tenant: None,
            queue,
            signing,
            answer,
        };
        exact::encrypt(&request, &|| {}).unwrap();
    }

    fn run(&self, job: &str, threads: usize) -> Result<RunReport, WorkerError> {
        self.run_trusted(job, threads, &Trust::default())
    }

    fn run_trusted(&self, job: &str, threads: usize, trust: &Trust<'_>) -> Result<RunReport, WorkerError> {
        let request = RunRequest {
            job_path: self.path(job).join("job.toml"),
            model: None,
            eval_key: None,
            threads,
            memory_limit_bytes: None,
            kernel: Kernel::detect(),
            rates: None,
            checkpoint_after: CHECKPOINT_AFTER,
        };
        worker::run_trusted(&request, trust, &|_| {})
    }

    fn decrypt(&self, job: &str) -> Result<ExactDecrypted, ClientError> {
        self.decrypt_trusting(job, None)
    }

    fn decrypt_trusting(&self, job: &str, workers: Option<&TrustedKeys>) -> Result<ExactDecrypted, ClientError> {
        let job = self.path(job).join("job.toml");
        exact::decrypt(&self.path("keys/secret.key"), &job, None, workers, &|| {})
    }
}

/// Changes a byte of a file.
fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Scores and labels are the oracle's, as far as noise can explain a difference; which labels the oracle gives.
fn expect_oracle(bench: &Bench, set: &ImageSet, found: &ExactDecrypted) -> [bool; CLASSES] {
    assert_eq!(found.predictions.len(), set.count);
    let circuit = &bench.model.circuit;
    let noise = Noise::of(circuit);
    let bytes = exact::image_bytes(set, &bench.model.network.input);
    let mut seen = [false; CLASSES];
    for (prediction, image) in found.predictions.iter().zip(bytes.chunks_exact(SIDE * SIDE)) {
        let wanted = circuit.evaluate(image).unwrap();
        let label = argmax(&wanted).unwrap();
        seen[label] = true;
        let trace = circuit.trace(image).unwrap();
        let odds = noise.odds(circuit, &trace);
        for ((found, wanted), reach) in prediction.scores.iter().zip(&wanted).zip(&odds.reach) {
            let reach = reach * circuit.logits.unit;
            assert!((found - wanted).abs() <= reach, "{reach}: {:?} {wanted:?}", prediction.scores);
        }
        let found = usize::from(prediction.label);
        assert!(
            odds.explains(&trace.logits, label, Answer::Scores) && odds.explains(&trace.logits, found, Answer::Scores),
            "{prediction:?} {wanted:?}"
        );
    }
    seen
}

#[test]
fn labels_are_the_oracles_and_results_do_not_depend_on_threads() {
    let bench = Bench::new();
    let set = images(10, 9);
    bench.encrypt(&set, "job");
    let report = bench.run("job", 2).unwrap();
    assert_eq!((report.images, report.isa.as_str()), (10, "tfhe"));
    let found = bench.decrypt("job").unwrap();
    let seen = expect_oracle(&bench, &set, &found);
    assert!(seen.iter().filter(|&&seen| seen).count() > 1, "{seen:?}");

    let receipt = Receipt::load(&bench.path("job/receipt.json")).unwrap();
    assert!(receipt.predicted.unwrap().elapsed_secs > 0.0);
    assert!(bench.run("job", 1).unwrap().already_done);
    let first = fs::read(bench.path("job/batch-0000.out.nsc")).unwrap();
    fs::remove_file(bench.path("job/receipt.json")).unwrap();
    bench.run("job", 1).unwrap();
    assert_eq!(fs::read(bench.path("job/batch-0000.out.nsc")).unwrap(), first);
    // Nor on the process.
    fs::remove_file(bench.path("job/receipt.json")).unwrap();
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift-worker"));
    let ended = worker.arg("run").arg(bench.path("job/job.toml")).args(["--threads", "1"]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(fs::read(bench.path("job/batch-0000.out.nsc")).unwrap(), first);
}

#[test]
fn a_job_of_labels_only_tells_labels_and_is_taken_for_nothing_else() {
    let bench = Bench::new();
    let set = images(6, 9);
    bench.encrypt_asking(&set, "job", Answer::Label, None, None);
    let report = bench.run("job", 2).unwrap();
    assert_eq!(report.images, 6);
    let found = bench.decrypt("job").unwrap();
    assert_eq!(found.answer, Answer::Label);
    let circuit = &bench.model.circuit;
    let noise = Noise::of(circuit);
    let bytes = exact::image_bytes(&set, &bench.model.network.input);
    let mut same = 0;
    for (prediction, image) in found.predictions.iter().zip(bytes.chunks_exact(SIDE * SIDE)) {
        let trace = circuit.trace(image).unwrap();
        let label = argmax(&circuit.scores(&trace.logits)).unwrap();
        let odds = noise.odds(circuit, &trace);
        if prediction.label == exact::UNDECIDED {
            assert!(found.too_close.contains(&prediction.index) && prediction.scores == [0.0; CLASSES]);
            continue;
        }
        let told = usize::from(prediction.label);
        assert!(odds.explains(&trace.logits, told, Answer::Label), "{prediction:?} {:?}", trace.logits);
        let one = |class| if class == told { 1.0 } else { 0.0 };
        assert_eq!(prediction.scores, (0..CLASSES).map(one).collect::<Vec<_>>());
        same += usize::from(told == label);
    }
    assert!(same >= 4, "{same} of 6");

    // The same results under a request for scores, and a wish that no worker knows.
    let path = bench.path("job/job.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (asked, other) = ("answer = \"label\"", "answer = \"secret\"");
    assert!(text.contains(asked), "{text}");
    fs::write(&path, text.replace(asked, "")).unwrap();
    assert_eq!(bench.decrypt("job").unwrap_err().exit_code(), ExitCode::Mismatch);
    fs::write(&path, text.replace(asked, other)).unwrap();
    assert_eq!(bench.decrypt("job").unwrap_err().exit_code(), ExitCode::BadData);
    fs::remove_file(bench.path("job/receipt.json")).unwrap();
    let refused = bench.run("job", 1).unwrap_err();
    assert_eq!(refused.exit_code(), ExitCode::BadData);
    assert!(refused.to_string().contains("options.answer: secret, expected"), "{refused}");
}

#[test]
fn files_that_are_damaged_or_of_another_key_or_engine_are_refused() {
    let bench = Bench::new();
    bench.encrypt(&images(1, 2), "job");
    let manifest = manifest::load(&bench.path("job/job.toml")).unwrap();
    assert_eq!(manifest.manifest().engine, "tfhe");
    for (file, code) in [("batch-0000.in.nsc", 65), ("eval.key", 76), ("model.nsm", 76)] {
        let path = bench.path("job").join(file);
        let whole = fs::read(&path).unwrap();
        spoil(&path, whole.len() / 2);
        assert_eq!(bench.run("job", 1).unwrap_err().exit_code().code(), code, "{file}");
        fs::write(&path, &whole).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(bench.run("job", 1).unwrap_err().exit_code().code(), code, "{file}, shortened");
        fs::write(&path, whole).unwrap();
        // A permanent failure left its receipt.
        let receipt = bench.path("job/receipt.json");
        assert!(receipt.exists());
        fs::remove_file(receipt).unwrap();
    }
    bench.run("job", 1).unwrap();
    let results = bench.path("job/batch-0000.out.nsc");
    let whole = fs::read(&results).unwrap();
    spoil(&results, whole.len() - 1);
    assert_eq!(bench.decrypt("job").unwrap_err().exit_code(), ExitCode::BadData);
    fs::write(&results, whole).unwrap();
    bench.decrypt("job").unwrap();

    // Another key of the same model.
    exact::keygen(&bench.model, &bench.path("other")).unwrap();
    let refused = exact::decrypt(&bench.path("other/secret.key"), &bench.path("job/job.toml"), None, None, &|| {});
    assert_eq!(refused.unwrap_err().exit_code(), ExitCode::Mismatch);

    // A package and keys of the other engine.
    let polynomial = random_network(3, 1, false);
    let calibration = random_images(&polynomial, 64, 1);
    let circuit = lower(&polynomial, &LowerOptions::default(), &calibration).unwrap();
    let package = ModelPackage {
        network: polynomial,
        circuit,
        lowering: None,
        canaries: Vec::new(),
        ranges: None,
        provenance: BTreeMap::new(),
    };
    package.write(&bench.path("ckks.nsm")).unwrap();
    client::keygen(&package, &Requirements::default(), &bench.path("ckks"), Kernel::detect()).unwrap();
    let refused = exact::decrypt(&bench.path("ckks/secret.key"), &bench.path("job/job.toml"), None, None, &|| {});
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("engine mismatch: found ckks, expected tfhe"), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Mismatch);
    assert_eq!(TablePackage::open(&bench.path("ckks.nsm")).unwrap_err().kind(), ErrorKind::Mismatch);
    assert_eq!(ModelPackage::open(&bench.path("model.nsm")).unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn requests_are_signed_and_receipts_must_be_where_keys_are_given() {
    let bench = Bench::new();
    let [client, worker, other] = [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]));
    let trusted = |name: &str, key: &SigningKey| TrustedKeys::load(&key.write_new(&bench.path(name)).unwrap()).unwrap();
    let (clients, workers) = (trusted("client", &client), trusted("worker", &worker));
    bench.encrypt(&images(1, 4), "unsigned");
    bench.encrypt_signed(&images(1, 4), "job", Some(RequestSigning { key: &client, expires_unix_secs: None }));
    let trust = Trust { requests: Some(&clients), ..Trust::default() };
    assert_eq!(bench.run_trusted("unsigned", 1, &trust).unwrap_err().exit_code(), ExitCode::Permission);

    bench.run_trusted("job", 1, &trust).unwrap();
    assert_eq!(bench.decrypt("job").unwrap().receipt_signed, Signed::Not);
    assert_eq!(bench.decrypt_trusting("job", Some(&workers)).unwrap_err().exit_code(), ExitCode::Permission);
    for (key, is_trusted) in [(&other, false), (&worker, true)] {
        bench.run_trusted("job", 1, &Trust { signing: Some(key), ..trust }).unwrap();
        match bench.decrypt_trusting("job", Some(&workers)) {
            Ok(done) => assert!(is_trusted && done.receipt_signed == Signed::Trusted(key.verifying_key())),
            Err(error) => assert!(!is_trusted && error.exit_code() == ExitCode::Permission, "{error}"),
        }
    }
}
