//! The kill harness: workers on one queue, killed with SIGKILL at random moments while jobs are submitted all along. At the end no job
//! is lost, no batch was committed twice, and every result has the bytes of a quiet run.
//!
//! Bounded by `NIGHTSHIFT_KILLS` (kills, at least) and `NIGHTSHIFT_JOBS` (jobs, at least); `NIGHTSHIFT_SEED` repeats a run's choices, as far as
//! the machine lets it; `NIGHTSHIFT_KILL_QUEUE` names another queue than a spool in memory, an empty one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jobs::manifest::{JobManifest, Terms};
use jobs::queue::{JobId, JobState, Needs, Queue};
use jobs::runner::seal::receipt_name;
use jobs::store::Store;
use jobs::submit::{job_id_of, submission};
use jobs::{Digest, FileStamp, Receipt};
use nightshift::net::sample::Random;

use crate::toy::{Toy, ToyJob};
use crate::workers::{Worker, messages};

/// Worker processes at a time.
const WORKERS: usize = 4;
/// Jobs in the queue at a time.
const OPEN: usize = 12;
/// Distinct encrypted jobs, submitted again and again under other names.
const KINDS: usize = 4;
/// Mean time between two kills. A worker needs some tens of milliseconds before its first claim.
const PAUSE_MS: usize = 40;
/// Nothing takes longer than this without any job being finished.
const STUCK: Duration = Duration::from_secs(300);

fn bound(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?}")))
}

/// A job as submitted, and which kind it is.
struct Submitted {
    manifest: JobManifest,
    kind: usize,
}

struct Harness {
    url: String,
    queue: Box<dyn Queue>,
    store: Store,
    kinds: Vec<ToyJob>,
    random: Random,
    scratch: PathBuf,
    logs: PathBuf,
    workers: Vec<Worker>,
    starts: usize,
    jobs: BTreeMap<JobId, Submitted>,
}

#[test]
fn kills_lose_nothing_double_nothing_and_change_no_byte() {
    let kills = bound("NIGHTSHIFT_KILLS", 120);
    let jobs = bound("NIGHTSHIFT_JOBS", kills.div_ceil(10));
    let seed = bound("NIGHTSHIFT_SEED", 1) as u64;
    // Memory, where there is some: SIGKILL does not ask whether anything reached a disk.
    let parent =
        Some(Path::new("/dev/shm")).filter(|path| path.is_dir()).map_or_else(std::env::temp_dir, Path::to_owned);
    let folder = tempfile::Builder::new().prefix("nightshift-kills-").tempdir_in(parent).unwrap();
    let settings = "?ttl=1s&attempts=1000000&backoff=1ms";
    let url = std::env::var("NIGHTSHIFT_KILL_QUEUE")
        .unwrap_or_else(|_| format!("spool:{}{settings}", folder.path().join("queue").display()));
    let toy = Toy::fast();
    let kinds: Vec<ToyJob> =
        (0..KINDS).map(|kind| toy.job(&format!("kind-{kind}"), 1 + kind % 3, None, None)).collect();
    let (queue, store) = jobs::queue::open(&url).unwrap();
    let (scratch, logs) = (folder.path().join("scratch"), folder.path().join("logs"));
    std::fs::create_dir(&logs).unwrap();
    let mut harness = Harness {
        url,
        queue,
        store,
        kinds,
        random: Random::new(seed),
        scratch,
        logs,
        workers: Vec::new(),
        starts: 0,
        jobs: BTreeMap::new(),
    };
    harness.upload();
    let start = Instant::now();
    let killed = harness.run(kills, jobs);
    let elapsed = start.elapsed().as_secs_f64();
    harness.drain();
    let commits = harness.check();
    println!("{killed} kills over {} jobs ({commits} batches) in {elapsed:.1} s, seed {seed}", harness.jobs.len());
    assert!(killed >= kills && harness.jobs.len() >= jobs);
}

impl Harness {
    fn upload(&self) {
        for kind in &self.kinds {
            let manifest = &kind.manifest;
            let names = manifest.batches.iter().map(|batch| batch.input.path.as_str());
            for name in names.chain(["model.nsm", "eval.key"]) {
                self.store.put_blob(&kind.folder.join(name)).unwrap();
            }
        }
    }

    /// The same ciphertexts under another tenant and key are another job.
    fn submit(&mut self) {
        let number = self.jobs.len();
        let kind = number % self.kinds.len();
        let mut manifest = self.kinds[kind].manifest.clone();
        manifest.tenant = Some(format!("tenant-{}", number % 5));
        let priority = Some((number % 3) as i16);
        manifest.queue = Some(Terms { idempotency_key: Some(format!("job-{number}")), priority, ..Terms::default() });
        let text = manifest.to_toml("job.toml".as_ref()).unwrap();
        let stamp = self.store.put_blob_bytes(text.as_bytes()).unwrap();
        let needs = Needs { memory_bytes: 64 << 20, scratch_bytes: 8 << 20 };
        let submitted = self.queue.submit(&submission(&manifest, stamp, needs)).unwrap();
        assert!(submitted.is_new, "the queue was not empty");
        self.jobs.insert(submitted.job, Submitted { manifest, kind });
    }

    fn start(&mut self) -> Worker {
        let log = self.logs.join(format!("{:06}", self.starts));
        self.starts += 1;
        let name = format!("worker-{}", self.starts);
        // Some work on two batches at a time.
        let concurrency = if self.starts.is_multiple_of(3) { "2" } else { "1" };
        let args = ["--scratch", self.scratch.to_str().unwrap(), "--name", &name, "--concurrency", concurrency];
        Worker::start(&self.url, &log, &args)
    }

    /// Kills until there were enough kills and jobs.
    fn run(&mut self, kills: usize, jobs: usize) -> usize {
        for _ in 0..WORKERS {
            let worker = self.start();
            self.workers.push(worker);
        }
        let (mut killed, mut closed, mut progressed) = (0, 0, Instant::now());
        while killed < kills || self.jobs.len() < jobs {
            let stats = self.queue.stats().unwrap();
            let now_closed = stats.jobs_done + stats.jobs_failed;
            if now_closed > closed {
                (closed, progressed) = (now_closed, Instant::now());
            }
            assert!(progressed.elapsed() < STUCK, "no job was finished for long: {stats:?}");
            let open = (stats.jobs_queued + stats.jobs_running) as usize;
            (open..OPEN).for_each(|_| self.submit());
            // A stretch of kills between two looks.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(self.random.below(2 * PAUSE_MS) as u64));
                let victim = self.random.below(WORKERS);
                assert!(self.workers[victim].is_running(), "a worker ended by itself");
                self.workers[victim].kill();
                killed += 1;
                let successor = self.start();
                self.workers[victim] = successor;
            }
        }
        killed
    }

    /// Kills the last ones, and lets one worker finish in peace.
    fn drain(&mut self) {
        self.workers.iter_mut().for_each(Worker::kill);
        let log = self.logs.join("last");
        let scratch = self.scratch.to_str().unwrap().to_owned();
        let mut last = Worker::start(&self.url, &log, &["--drain", "--scratch", &scratch, "--concurrency", "2"]);
        let code = last.wait();
        assert_eq!(code, 0, "{}", std::fs::read_to_string(&log).unwrap());
    }

    /// Everything is there, once, and right. How many batches that were.
    fn check(&self) -> usize {
        let stats = self.queue.stats().unwrap();
        assert_eq!(
            (stats.jobs_done as usize, stats.tasks_queued, stats.live_leases),
            (self.jobs.len(), 0, 0),
            "{stats:?}"
        );
        let commits = self.commits();
        let mut batches = 0;
        let results = tempfile::tempdir().unwrap();
        for (&job, Submitted { manifest, kind }) in &self.jobs {
            assert_eq!(job, job_id_of(manifest));
            let record = self.queue.get(job).unwrap().unwrap_or_else(|| panic!("{job} is lost"));
            let summary = &record.summary;
            assert_eq!((summary.state, summary.is_sealed), (JobState::Done, true), "{summary:?}");
            let expected = &self.kinds[*kind].expected;
            assert_eq!(record.tasks.len(), expected.len());
            for (batch, (task, &expected)) in record.tasks.iter().zip(expected).enumerate() {
                assert_eq!(task.result.as_ref().map(|result| result.output), Some(expected), "{job}/{batch}");
                let id = jobs::queue::TaskId { job, batch: batch as u32 };
                let path = results.path().join("result");
                self.store.get_result(id, task.epoch, expected, &path).unwrap();
                let bytes = std::fs::read(&path).unwrap();
                let found = FileStamp { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
                assert_eq!(found, expected, "{job}/{batch}");
                // A worker may have been killed before it could say so; if any said so, it was this epoch's.
                let said = commits.get(&id.to_string()).cloned().unwrap_or_default();
                assert!(said.is_empty() || said == [u64::from(task.epoch)], "{id}: {said:?}, {}", task.epoch);
                batches += 1;
            }
            let name = receipt_name(job, summary.generation);
            let text = String::from_utf8(self.store.get_document(&name).unwrap().unwrap()).unwrap();
            let receipt = Receipt::parse(name.as_ref(), &text).unwrap();
            receipt.require_done().unwrap();
            receipt.verify_against(manifest).unwrap();
            let stamps: Vec<FileStamp> = receipt.batches.iter().map(|batch| batch.output_stamp).collect();
            assert_eq!(&stamps, expected, "{job}");
        }
        batches
    }

    /// The epochs under which workers say that they committed, by task.
    fn commits(&self) -> BTreeMap<String, Vec<u64>> {
        let mut commits: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for entry in std::fs::read_dir(&self.logs).unwrap() {
            for event in messages(&entry.unwrap().path(), "done") {
                let (task, epoch) = (event["task"].as_str().unwrap().to_owned(), event["epoch"].as_u64().unwrap());
                commits.entry(task).or_default().push(epoch);
            }
        }
        commits
    }
}
