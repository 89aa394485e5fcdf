//! Jobs of the exact engine on queues: real workers on a real spool, beside jobs of the other engine.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jobs::ExitCode;
use jobs::queue::{JobRecord, JobState, Queue};
use jobs::runner::{Compute, TaskFiles, Trouble};
use jobs::submit::job_id_of;
use nightshift::engine::EngineError;
use nightshift::worker::{BatchWork, CheckpointPlace, ExactPlanned, Fleet, FleetTrust, Machine};

use super::*;
use crate::toy::Toy;
use crate::workers::{Worker, code, command};

/// Room enough for the small network.
const ENOUGH_BYTES: u64 = 1 << 30;

struct Spool {
    folder: tempfile::TempDir,
    url: String,
    queue: Box<dyn Queue>,
}

impl Spool {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("spool:{}", folder.path().join("queue").display());
        let (queue, _) = jobs::queue::open(&url).unwrap();
        Self { folder, url, queue }
    }

    /// What the command said, as JSON.
    fn submit(&self, job: &Path) -> serde_json::Value {
        let output = command("nightshift", &["submit", text(job), "--queue", &self.url, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn work(&self, args: &[&str]) -> (i32, String) {
        code("worker", &[&["work", "--queue", &self.url, "--threads", "2"], args].concat())
    }

    fn fetch(&self, job: &Path) -> (i32, String) {
        code("nightshift", &["fetch", text(job), "--queue", &self.url])
    }

    fn record(&self, job: &Path) -> JobRecord {
        let loaded = manifest::load(&job.join("job.toml")).unwrap();
        self.queue.get(job_id_of(loaded.manifest())).unwrap().unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn machine() -> Machine {
    Machine { threads: 2, kernel: Kernel::detect(), memory_limit_bytes: None, rates: None }
}

#[test]
fn a_job_of_several_batches_comes_back_from_a_queue_that_has_both_engines() {
    let bench = Bench::of(network_of(1, 4));
    assert_eq!(bench.model.circuit.neurons(), 1);
    let set = images(exact::BATCH_IMAGES + 2, 9);
    bench.encrypt(&set, "job");
    let (toy, spool) = (Toy::fast(), Spool::new());
    let other = toy.job("other", 2, None, None);
    let job = bench.path("job");
    let told = spool.submit(&job);
    assert_eq!((&told["is_new"], &told["batches"]), (&true.into(), &2.into()));
    assert!(told["memory_bytes"].as_u64().unwrap() > 5 * 30_000_000, "five times the key: {told}");
    assert!(told["scratch_bytes"].as_u64().unwrap() > 30_000_000, "the key: {told}");
    spool.submit(&other.folder);
    assert_eq!(spool.submit(&job)["is_new"], false);

    let worker = SigningKey::from_seed(&[5; 32]);
    let workers = TrustedKeys::load(&worker.write_new(&bench.path("worker")).unwrap()).unwrap();
    let (worked, said) = spool.work(&["--drain", "--signing-key", text(&bench.path("worker"))]);
    assert_eq!(worked, 0, "{said}");
    for folder in [&job, &other.folder] {
        let (fetched, said) = spool.fetch(folder);
        assert_eq!(fetched, 0, "{said}");
    }
    let record = spool.record(&other.folder);
    let outputs: Vec<_> = record.tasks.iter().map(|task| task.result.as_ref().unwrap().output).collect();
    assert_eq!(outputs, other.expected);

    let receipt = Receipt::load(&job.join("receipt.json")).unwrap();
    let predicted = receipt.predicted.unwrap();
    assert_eq!((receipt.isa.as_str(), receipt.attempts, receipt.batches.len()), ("tfhe", 1, 2));
    assert_eq!(receipt.batches.iter().map(|batch| batch.occupancy).collect::<Vec<_>>(), [256, 2]);
    assert!(predicted.elapsed_secs > 0.0 && predicted.peak_bytes <= told["memory_bytes"].as_u64().unwrap());
    let found = bench.decrypt_trusting("job", Some(&workers)).unwrap();
    assert_eq!(found.receipt_signed, Signed::Trusted(worker.verifying_key()));
    expect_oracle(&bench, &set, &found);
    // One neuron may well leave all images with one label, but not with one score.
    let scores = || found.predictions.iter().map(|prediction| prediction.scores[0]);
    let spread = scores().fold(f64::MIN, f64::max) - scores().fold(f64::MAX, f64::min);
    assert!(spread > 10.0 * found.score_deviation, "{spread} against a noise of {}", found.score_deviation);
}

#[test]
fn a_batch_is_stopped_between_images_and_handed_back() {
    let bench = Bench::new();
    let set = images(3, 4);
    bench.encrypt(&set, "job");
    let (job, spool) = (bench.path("job"), Spool::new());
    let loaded = manifest::load(&job.join("job.toml")).unwrap();
    let manifest = loaded.manifest();
    let output = bench.path("stopped.out.nsc");
    let work = BatchWork {
        manifest,
        index: 0,
        input_path: &job.join(&manifest.batches[0].input.path),
        output_path: &output,
        checkpoint: CheckpointPlace { path: &bench.path("none"), after: CHECKPOINT_AFTER },
    };
    let planned = ExactPlanned::open(&job.join("model.nsm"), 2).unwrap();
    let prepared = planned.with_key(&job.join("eval.key"), &manifest.key_id).unwrap();
    let (stop, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = prepared.run_batch(&work, &stop, &|done| {
        stop.store(true, Ordering::SeqCst);
        most.fetch_max(done, Ordering::SeqCst);
    });
    let Err(WorkerError::Engine { batch: 0, source }) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(*source, EngineError::Stopped), "{source}");
    assert_eq!(most.into_inner(), 8, "the first image, and no other");
    assert!(!output.exists());

    // The same by a signal: as if it had never been claimed.
    spool.submit(&job);
    let mut hasty = Worker::start(&spool.url, &spool.folder.path().join("log"), &["--grace", "1ms"]);
    hasty.wait_for("claimed", 1);
    hasty.signal("TERM");
    assert_eq!(hasty.wait(), 75);
    let record = spool.record(&job);
    assert_eq!((record.summary.state, record.summary.running, record.tasks[0].attempts), (JobState::Queued, 0, 0));
    assert_eq!(spool.work(&["--once"]).0, 0);
    assert_eq!(spool.fetch(&job).0, 0);
    expect_oracle(&bench, &set, &bench.decrypt("job").unwrap());
}

#[test]
fn what_does_not_fit_is_left_alone_or_refused() {
    let bench = Bench::new();
    let terms = Terms { memory_limit_bytes: Some(100 << 20), ..Terms::default() };
    bench.encrypt(&images(1, 2), "job");
    bench.encrypt_asking(&images(1, 2), "starved", Answer::Scores, None, Some(&terms));
    let spool = Spool::new();
    let [job, starved] = ["job", "starved"].map(|name| bench.path(name));
    spool.submit(&job);
    assert_eq!(spool.work(&["--drain", "--memory-limit", "100MB"]).0, 0);
    assert_eq!(spool.record(&job).tasks[0].epoch, 0, "a batch larger than the machine is never claimed");
    spool.submit(&starved);
    assert_eq!(spool.work(&["--drain"]).0, 0);
    assert_eq!(spool.record(&job).summary.state, JobState::Done);
    let summary = spool.record(&starved).summary;
    let failure = summary.failure.unwrap();
    assert_eq!((summary.state, failure.exit_code), (JobState::Failed, ExitCode::Config), "{failure:?}");
    assert!(failure.reason.contains("allowed by the job's own manifest"), "{failure:?}");
    assert_eq!(bench.run("starved", 1).unwrap_err().exit_code(), ExitCode::Config, "a one-shot refuses the same");
}

#[test]
fn a_task_is_held_against_its_manifest_though_model_and_key_are_ready() {
    let bench = Bench::new();
    bench.encrypt(&images(1, 3), "job");
    let job = bench.path("job");
    let path = job.join("job.toml");
    let loaded = manifest::load(&path).unwrap();
    let output = bench.path("out.nsc");
    let fleet = Fleet::new(machine(), 1, Duration::from_secs(60), FleetTrust::default());
    let compute = |change: fn(&mut jobs::JobManifest), memory_bytes: u64, stop: bool| {
        let mut manifest = loaded.manifest().clone();
        change(&mut manifest);
        let files = TaskFiles {
            manifest: &manifest,
            manifest_path: &path,
            index: 0,
            model: &job.join("model.nsm"),
            eval_key: &job.join("eval.key"),
            input: &job.join(&manifest.batches[0].input.path),
            output: &output,
            checkpoint: &bench.path("checkpoint"),
            memory_bytes,
        };
        fleet.compute(&files, &AtomicBool::new(stop))
    };
    // First before anything is ready, then with all of it.
    let small = |found| {
        let Err(Trouble::Retryable { reason, exit_code: ExitCode::Config }) = found else { panic!("{found:?}") };
        assert!(reason.contains("free on this worker"), "{reason}");
    };
    small(compute(|_| {}, 1 << 20, false));
    let computed = compute(|_| {}, ENOUGH_BYTES, false).unwrap();
    assert_eq!((computed.isa.as_str(), computed.threads, computed.batch.occupancy), ("tfhe", 2, 1));
    assert!(computed.predicted.peak_bytes < ENOUGH_BYTES && computed.measured.output_bytes > 0);
    fs::remove_file(&output).unwrap();
    small(compute(|_| {}, 1 << 20, false));
    assert_eq!(compute(|_| {}, ENOUGH_BYTES, true), Err(Trouble::Stopped));
    type Change = fn(&mut jobs::JobManifest);
    let changes: [(Change, &str); 5] = [
        (|m| m.engine = "ckks".to_owned(), "engine: the manifest says ckks"),
        (|m| m.plan_id = "0".repeat(64), "plan id: the manifest says 0000"),
        (|m| m.key_id = "0".repeat(32), "key id: the manifest says 0000"),
        (|m| m.model.name = "another".to_owned(), "model name: the manifest says another"),
        (|m| m.batches[0].first_image = 7, "first image"),
    ];
    for (change, words) in changes {
        let Err(Trouble::Permanent { reason, .. }) = compute(change, ENOUGH_BYTES, false) else { panic!("{words}") };
        assert!(reason.contains(words), "{reason}");
    }
    assert!(!output.exists(), "nothing was written");
}
