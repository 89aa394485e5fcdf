//! Workers of a queue as an operator meets them: real processes on a real spool, with real ciphertexts under real parameters. They are
//! killed, frozen, told to leave, starved of disk; whatever happens, no job is lost, none is done twice, and the bytes are those of a
//! quiet run.
//!
//! `NIGHTSHIFT_KILLS=10000 NIGHTSHIFT_JOBS=1000 cargo test --release --test fleet kills` is the long run of the kill harness.

#[path = "fleet/kills.rs"]
mod kills;
#[path = "fleet/resumed.rs"]
mod resumed;
#[path = "fleet/toy.rs"]
mod toy;
#[path = "fleet/workers.rs"]
mod workers;

use std::path::Path;
use std::time::Duration;

use jobs::manifest::{self, Terms};
use jobs::queue::{JobRecord, JobState, Queue, TaskState};
use jobs::store::Store;
use jobs::submit::job_id_of;
use jobs::{ExitCode, Receipt};
use toy::{Toy, ToyJob};
use workers::{Worker, code, command};

/// A queue in a folder of its own.
struct Spool {
    _folder: tempfile::TempDir,
    url: String,
    queue: Box<dyn Queue>,
    store: Store,
    log: std::path::PathBuf,
}

impl Spool {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("spool:{}{settings}", folder.path().join("queue").display());
        let (queue, store) = jobs::queue::open(&url).unwrap();
        let log = folder.path().join("log");
        Self { _folder: folder, url, queue, store, log }
    }

    fn submit(&self, job: &ToyJob) {
        let (found, said) = code("nightshift", &["submit", text(&job.folder), "--queue", &self.url]);
        assert_eq!(found, 0, "{said}");
    }

    fn record(&self, job: &ToyJob) -> JobRecord {
        self.queue.get(job_id_of(&job.manifest)).unwrap().unwrap()
    }

    fn work(&self, args: &[&str]) -> (i32, String) {
        code("worker", &[&["work", "--queue", &self.url, "--threads", "1"], args].concat())
    }

    /// The job is done, sealed, and its results are those of the quiet run, to the byte.
    fn expect_done(&self, job: &ToyJob) -> JobRecord {
        let record = self.record(job);
        assert_eq!((record.summary.state, record.summary.is_sealed), (JobState::Done, true), "{record:?}");
        let found: Vec<_> = record.tasks.iter().map(|task| task.result.as_ref().unwrap().output).collect();
        assert_eq!(found, job.expected);
        let (found, said) = code("nightshift", &["fetch", text(&job.folder), "--queue", &self.url]);
        assert_eq!(found, 0, "{said}");
        let loaded = manifest::load(&job.folder.join("job.toml")).unwrap();
        Receipt::load(&loaded.receipt_path().unwrap()).unwrap().verify(&loaded).unwrap();
        record
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_job_goes_through_a_queue_and_comes_back_decrypted() {
    let toy = Toy::fast();
    let job = toy.job("job", 3, Some("clinic"), None);
    let spool = Spool::new("");
    let folder = text(&job.folder);
    let fetch = ["fetch", folder, "--queue", &spool.url];
    assert_eq!(code("nightshift", &fetch).0, 66, "no such job yet");
    let submit = ["submit", folder, "--queue", &spool.url, "--json"];
    let first: serde_json::Value = serde_json::from_slice(&command("nightshift", &submit).stdout).unwrap();
    let again: serde_json::Value = serde_json::from_slice(&command("nightshift", &submit).stdout).unwrap();
    assert_eq!((&first["is_new"], &again["is_new"]), (&true.into(), &false.into()));
    assert_eq!(first["queue_job"], again["queue_job"]);
    let (unfinished, said) = code("nightshift", &fetch);
    assert_eq!(unfinished, 75, "{said}");
    assert!(said.contains("queued, 0 of 3 batches done"), "{said}");

    assert_eq!(spool.work(&["--once"]).0, 0);
    assert_eq!(spool.record(&job).summary.done, 1);
    let status: serde_json::Value =
        serde_json::from_slice(&command("worker", &["status", "--queue", &spool.url, "--json"]).stdout).unwrap();
    assert_eq!((&status["jobs"][0]["done"], &status["jobs"][0]["tenant"]), (&1.into(), &"clinic".into()));
    assert!(status["jobs"][0]["images_done"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(code("nightshift", &fetch).0, 75);
    assert_eq!(spool.work(&["--drain", "--concurrency", "2"]).0, 0);
    spool.expect_done(&job);
    assert_eq!(spool.work(&["--once"]).0, 0, "nothing to do");

    let table = toy.path("labels.csv");
    let (key, manifest) = (toy.secret_key(), job.folder.join("job.toml"));
    let (found, said) =
        code("nightshift", &["decrypt", "--key", text(&key), "--job", text(&manifest), "--out", text(&table)]);
    assert_eq!(found, 0, "{said}");
    assert_eq!(std::fs::read_to_string(table).unwrap().lines().count() as u64, job.manifest.images + 1);
    let doctor = command("worker", &["doctor", "--queue", &spool.url, "--json"]);
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    for name in ["store", "store clock"] {
        let good = |check: &&serde_json::Value| check["check"] == name && check["verdict"] == "good";
        assert_eq!(doctor["checks"].as_array().unwrap().iter().filter(good).count(), 1, "{name}: {doctor}");
    }
}

#[test]
fn signed_requests_only_are_worked_on_receipts_are_signed_and_figures_kept() {
    let toy = Toy::fast();
    let spool = Spool::new("");
    let [client, worker, figures] = ["client.key", "worker.key", "figures.prom"].map(|name| toy.path(name));
    for key in [&client, &worker] {
        assert_eq!(code("nightshift", &["signing-keygen", "--out", text(key)]).0, 0);
    }
    let [client_public, worker_public] = ["client.key.pub", "worker.key.pub"].map(|name| toy.path(name));
    // Bound to the tenant by its name.
    let tenants = toy.path("tenants");
    std::fs::create_dir(&tenants).unwrap();
    std::fs::copy(&client_public, tenants.join("clinic.pub")).unwrap();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| toy.job(name, 2, Some("clinic"), None));
    let manifest = signed.folder.join("job.toml");
    let (found, said) = code("nightshift", &["sign", text(&manifest), "--signing-key", text(&client)]);
    assert_eq!(found, 0, "{said}");
    spool.submit(&signed);
    spool.submit(&unsigned);
    let trust = ["--require-signed-by", text(&tenants), "--signing-key", text(&worker)];
    let kept = ["--metrics-textfile", text(&figures), "--drain", "-q"];
    let (found, said) = spool.work(&[trust, kept].concat());
    assert_eq!(found, 0, "the worker lives on: {said}");

    spool.expect_done(&signed);
    let record = spool.record(&unsigned);
    assert_eq!(record.summary.state, JobState::Failed, "{record:?}");
    let reason = &record.tasks.iter().find_map(|task| task.failure.as_ref()).unwrap().reason;
    assert!(reason.contains("sign"), "{reason}");
    let verify = |key: &Path| code("nightshift", &["verify", text(&manifest), "--worker-key", text(key)]);
    assert_eq!(verify(&worker_public).0, 0, "{}", verify(&worker_public).1);
    assert_ne!(verify(&client_public).0, 0, "signed by another");

    let told = std::fs::read_to_string(&figures).unwrap();
    for line in [
        "nightshift_jobs_total{outcome=\"done\",code=\"done\"} 1",
        "nightshift_jobs_total{outcome=\"failed\",code=\"permission\"} 1",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
    }
    let images = format!("nightshift_images_total {}", signed.manifest.images);
    assert!(told.lines().any(|found| found == images), "{images} is not in\n{told}");
    for word in ["clinic", "batch-", signed.manifest.job_id.as_str()] {
        assert!(!told.contains(word), "{word} is in\n{told}");
    }
}

#[test]
fn two_that_come_from_cron_at_once_do_one_batch_each_or_nothing() {
    let toy = Toy::fast();
    let spool = Spool::new("?ttl=1s");
    let jobs = [1, 2].map(|batches| toy.job(&format!("job-{batches}"), batches, None, None));
    for (job, expected) in jobs.iter().zip([1, 2]) {
        spool.submit(job);
        let logs = ["a", "b"].map(|name| spool.log.with_file_name(format!("{name}-{expected}")));
        let mut workers = [0, 1].map(|at| Worker::start(&spool.url, &logs[at], &["--once"]));
        assert_eq!([workers[0].wait(), workers[1].wait()], [0, 0]);
        assert_eq!(workers[0].logged("done").len() + workers[1].logged("done").len(), expected);
        let record = spool.expect_done(job);
        assert!(record.tasks.iter().all(|task| (task.epoch, task.attempts) == (1, 1)), "{record:?}");
    }
}

#[test]
fn two_workers_share_the_batches_of_one_job() {
    let toy = Toy::slow();
    let spool = Spool::new("");
    let job = toy.job("job", 8, None, None);
    spool.submit(&job);
    let mut first = Worker::start(&spool.url, &spool.log, &["--drain", "--isa", "portable"]);
    first.wait_for("claimed", 1);
    let second_log = spool.log.with_extension("second");
    let mut second = Worker::start(&spool.url, &second_log, &["--drain"]);
    assert_eq!([first.wait(), second.wait()], [0, 0]);
    let done = [&first, &second].map(|worker| worker.logged("done").len());
    assert_eq!(done[0] + done[1], 8, "{done:?}");
    spool.expect_done(&job);
}

#[test]
fn a_worker_frozen_past_its_lease_can_change_nothing() {
    let toy = Toy::slow();
    let spool = Spool::new("?ttl=1s&backoff=10ms");
    let job = toy.job("job", 1, None, None);
    spool.submit(&job);
    // The slowest kernel, so that it is caught at work.
    let mut frozen = Worker::start(&spool.url, &spool.log, &["--once", "--isa", "portable"]);
    frozen.wait_for("claimed", 1);
    frozen.signal("STOP");
    assert!(frozen.logged("done").is_empty(), "it was too fast to be caught");
    assert_eq!(spool.work(&["--drain"]).0, 0);
    let before = spool.expect_done(&job);
    assert_eq!(before.tasks[0].epoch, 2);
    frozen.signal("CONT");
    assert_eq!(frozen.wait(), 75);
    assert_eq!(frozen.logged("lease lost, nothing written").len(), 1);
    assert_eq!(spool.expect_done(&job), before);
}

#[test]
fn a_worker_told_to_leave_finishes_or_hands_back() {
    let toy = Toy::slow();
    let spool = Spool::new("");
    let job = toy.job("job", 3, None, None);
    spool.submit(&job);
    let mut patient = Worker::start(&spool.url, &spool.log, &["--isa", "portable", "--grace", "60s"]);
    patient.wait_for("claimed", 1);
    patient.signal("TERM");
    assert_eq!(patient.wait(), 0);
    assert_eq!(spool.record(&job).summary.done, 1, "what it had begun is done, and nothing else");
    let log = spool.log.with_extension("hasty");
    let mut hasty = Worker::start(&spool.url, &log, &["--isa", "portable", "--grace", "1ms"]);
    hasty.wait_for("claimed", 1);
    hasty.signal("TERM");
    assert_eq!(hasty.wait(), 75);
    let record = spool.record(&job);
    assert_eq!((record.summary.done, record.summary.running), (1, 0));
    assert!(record.tasks.iter().all(|task| task.attempts == u32::from(task.state == TaskState::Done)), "{record:?}");
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&job);
}

#[test]
fn a_job_that_kills_its_workers_is_given_up_and_others_proceed() {
    let toy = Toy::slow();
    let spool = Spool::new("?ttl=1s&backoff=1ms");
    let bad = toy.job("bad", 1, Some("bad"), Some(&Terms { priority: Some(9), ..Terms::default() }));
    let good = toy.job("good", 1, Some("good"), None);
    spool.submit(&bad);
    let id = job_id_of(&bad.manifest).to_string();
    let mut deaths = 0;
    let mut is_good_there = false;
    while spool.record(&bad).summary.state != JobState::Failed {
        let log = spool.log.with_extension(deaths.to_string());
        let mut worker = Worker::start(&spool.url, &log, &["--once", "--isa", "portable"]);
        // The last death is noticed by a worker that finds nothing left to do.
        while worker.is_running() {
            if worker.logged("claimed").iter().any(|event| event["task"].as_str().unwrap().starts_with(&id)) {
                worker.kill();
                deaths += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(deaths <= 5, "{:?}", spool.record(&bad));
        if deaths == 3 && !is_good_there {
            is_good_there = true;
            spool.submit(&good);
            assert_eq!(spool.record(&good).summary.state, JobState::Queued);
        }
    }
    assert_eq!(deaths, 5);
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&good);
    let failure = spool.record(&bad).summary.failure.unwrap();
    assert!(!failure.reason.is_empty(), "{failure:?}");
    let (found, said) = code("nightshift", &["fetch", text(&bad.folder), "--queue", &spool.url]);
    assert_eq!(found, i32::from(failure.exit_code.code()), "{said}");
    let receipt = Receipt::load(&bad.folder.join("receipt.json")).unwrap();
    assert!(receipt.require_done().is_err(), "{receipt:?}");

    // Put back, it gets five new attempts, and is done.
    assert_eq!(code("worker", &["requeue", &id, "--queue", &spool.url]).0, 0);
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&bad);
    assert_eq!(code("worker", &["requeue", &id, "--queue", &spool.url]).0, 65, "a job that is done stays so");
}

#[test]
fn a_bad_job_fails_with_its_code_and_the_worker_lives_on() {
    let toy = Toy::fast();
    let spool = Spool::new("");
    let [good, damaged, starved] = ["good", "damaged", "starved"].map(|name| {
        let terms = Terms { memory_limit_bytes: (name == "starved").then_some(1 << 20), ..Terms::default() };
        toy.job(name, 1, Some(name), Some(&terms))
    });
    for job in [&damaged, &starved, &good] {
        spool.submit(job);
    }
    let blob = spool.store.blob_path(damaged.manifest.batches[0].input.digest).unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&good);
    for (job, expected) in [(&damaged, ExitCode::BadData), (&starved, ExitCode::Config)] {
        let record = spool.record(job);
        let failure = record.summary.failure.clone().unwrap();
        assert_eq!((record.summary.state, failure.exit_code), (JobState::Failed, expected), "{failure:?}");
        let (found, said) = code("nightshift", &["fetch", text(&job.folder), "--queue", &spool.url]);
        assert_eq!(found, i32::from(expected.code()), "{said}");
    }
    // With --once the batch's own code is the worker's.
    let again = toy.job("again", 1, Some("again"), Some(&Terms { memory_limit_bytes: Some(1), ..Terms::default() }));
    spool.submit(&again);
    assert_eq!(spool.work(&["--once"]).0, 78);
}

#[test]
fn what_does_not_fit_or_was_cancelled_is_left_alone() {
    let toy = Toy::fast();
    let spool = Spool::new("");
    let job = toy.job("job", 1, None, None);
    spool.submit(&job);
    assert_eq!(spool.work(&["--drain", "--memory-limit", "1MB"]).0, 0);
    assert_eq!(spool.record(&job).tasks[0].epoch, 0, "a batch larger than the machine is never claimed");
    let id = job_id_of(&job.manifest).to_string();
    assert_eq!(code("worker", &["cancel", &id, "--queue", &spool.url]).0, 0);
    assert_eq!(spool.work(&["--drain"]).0, 0);
    assert_eq!(spool.record(&job).summary.state, JobState::Cancelled);
    assert_eq!(code("nightshift", &["fetch", text(&job.folder), "--queue", &spool.url]).0, 75);
    assert_eq!(code("worker", &["requeue", &id, "--queue", &spool.url]).0, 0);
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&job);
    assert_eq!(code("worker", &["cancel", &id, "--queue", &spool.url]).0, 65, "too late");
    assert_eq!(code("worker", &["cancel", &"0".repeat(32), "--queue", &spool.url]).0, 66);
}

/// A file size limit stands for the full disk: what is written beyond it fails, queue records are small enough to pass.
#[test]
fn a_full_disk_ends_the_worker_and_leaves_the_queue_as_it_was() {
    let toy = Toy::fast();
    let spool = Spool::new("");
    let job = toy.job("job", 2, None, None);
    spool.submit(&job);
    let line = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} work --queue '{}' --drain --threads 1",
        env!("CARGO_BIN_EXE_nightshift-worker"),
        spool.url
    );
    let starved = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
    let said = String::from_utf8_lossy(&starved.stderr).into_owned();
    assert_eq!(starved.status.code(), Some(74), "{said}");
    let record = spool.record(&job);
    assert_eq!((record.summary.state, record.summary.done), (JobState::Queued, 0), "{record:?}");
    assert!(record.tasks.iter().all(|task| task.attempts == 0), "{record:?}");
    assert_eq!(spool.work(&["--drain"]).0, 0);
    spool.expect_done(&job);
}

#[test]
fn cancelled_while_it_runs_a_batch_is_stopped() {
    let toy = Toy::slow();
    let spool = Spool::new("?ttl=1s");
    let job = toy.job("job", 6, None, None);
    spool.submit(&job);
    let mut worker = Worker::start(&spool.url, &spool.log, &["--drain", "--isa", "portable"]);
    worker.wait_for("claimed", 1);
    let id = job_id_of(&job.manifest).to_string();
    assert_eq!(code("worker", &["cancel", &id, "--queue", &spool.url]).0, 0);
    assert_eq!(worker.wait(), 0);
    let record = spool.record(&job);
    assert_eq!(record.summary.state, JobState::Cancelled);
    assert!(record.summary.done < 6, "{record:?}");
}

/// Payloads that no worker may look at: the engine is what the queue asks for first.
#[cfg(not(feature = "exact"))]
#[test]
fn a_job_of_an_engine_that_this_build_lacks_is_left_to_a_worker_that_has_it() {
    use std::sync::atomic::AtomicBool;

    use jobs::queue::Needs;
    use jobs::runner::{Compute, TaskFiles, Trouble};
    use nightshift::ring::kernels::Kernel;
    use nightshift::worker::{CHECKPOINT_AFTER, Fleet, FleetTrust, Machine};

    let toy = Toy::fast();
    let spool = Spool::new("");
    let [other, good] = ["other", "good"].map(|name| toy.job(name, 2, Some(name), None));
    let path = other.folder.join("job.toml");
    let mut manifest = other.manifest.clone();
    manifest.engine = "tfhe".to_owned();
    std::fs::write(&path, manifest.to_toml("job.toml".as_ref()).unwrap()).unwrap();
    // The client counts what its own engines need; a client that has this one enqueues.
    let (found, said) = code("nightshift", &["submit", text(&other.folder), "--queue", &spool.url]);
    assert_eq!(found, 78, "{said}");
    assert!(said.contains("`exact`"), "{said}");
    let loaded = manifest::load(&path).unwrap();
    let needs = Needs { memory_bytes: 1, scratch_bytes: 1 << 30 };
    jobs::submit::submit(&*spool.queue, &spool.store, &loaded, needs, &mut |_| {}).unwrap();
    spool.submit(&good);
    for _ in 0..6 {
        assert_eq!(spool.work(&["--drain"]).0, 0);
    }
    spool.expect_done(&good);
    let record = spool.record(&other);
    assert_eq!((record.summary.state, &record.summary.failure), (JobState::Queued, &None), "{record:?}");
    assert!(record.tasks.iter().all(|task| (task.epoch, task.attempts) == (0, 0)), "{record:?}");
    let status = command("worker", &["status", "--queue", &spool.url, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let engines: Vec<_> = status["jobs"].as_array().unwrap().iter().map(|job| &job["engine"]).collect();
    assert_eq!(engines, ["ckks", "tfhe"]);

    // Given one all the same, the fleet blames no job for its own build.
    let machine = Machine { threads: 1, kernel: Kernel::detect(), memory_limit_bytes: None, rates: None };
    let fleet = Fleet::new(machine, 1, CHECKPOINT_AFTER, FleetTrust::default());
    let output = other.folder.join("out.nsc");
    let files = TaskFiles {
        manifest: &manifest,
        manifest_path: &path,
        index: 0,
        model: &other.folder.join("model.nsm"),
        eval_key: &other.folder.join("eval.key"),
        input: &other.folder.join(&manifest.batches[0].input.path),
        output: &output,
        checkpoint: &other.folder.join("checkpoint"),
        memory_bytes: 1 << 30,
    };
    let found = fleet.compute(&files, &AtomicBool::new(false));
    let Err(Trouble::Retryable { reason, exit_code: ExitCode::Config }) = found else { panic!("{found:?}") };
    assert!(reason.contains("engine tfhe"), "{reason}");
}
