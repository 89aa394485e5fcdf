//! The runner on a real spool, with a computation small enough to see through: a batch's result is its input and a few words.

#[expect(dead_code, reason = "each test binary uses a part of the shared samples")]
mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{sample_manifest, write_job};
use jobs::digest::stamp_file;
use jobs::fetch::{Fetched, fetch};
use jobs::manifest::{ENGINE, ENGINES};
use jobs::queue::{Capacity, JobState, Needs, Queue};
use jobs::receipt::{BatchReceipt, Cost, Outcome};
use jobs::runner::{self, Compute, Computed, Event, Options, Parts, Scratch, Summary, TaskFiles, Trouble, Until};
use jobs::store::Store;
use jobs::submit::{job_id_of, submission, submit};
use jobs::{ExitCode, JobsError, LoadedJob, manifest};

const NEEDS: Needs = Needs { memory_bytes: 1000, scratch_bytes: 1 << 20 };

/// What a computation does with a batch, besides computing it.
type Mood = Box<dyn Fn(&TaskFiles<'_>, &AtomicBool) -> Result<(), Trouble> + Send + Sync>;

struct Toy {
    mood: Mood,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Toy {
    fn new(mood: impl Fn(&TaskFiles<'_>, &AtomicBool) -> Result<(), Trouble> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { mood: Box::new(mood), at_once: AtomicUsize::new(0), most_at_once: AtomicUsize::new(0) })
    }
}

impl Compute for Toy {
    fn compute(&self, files: &TaskFiles<'_>, stop: &AtomicBool) -> Result<Computed, Trouble> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let mood = (self.mood)(files, stop);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        mood?;
        let mut bytes = std::fs::read(files.input).unwrap();
        bytes.extend_from_slice(b", computed");
        std::fs::write(files.output, bytes).unwrap();
        let batch = &files.manifest.batches[files.index];
        let output_stamp = stamp_file(files.output).unwrap();
        let cost = Cost { elapsed_secs: 0.5, peak_bytes: 900, output_bytes: output_stamp.bytes };
        Ok(Computed {
            batch: BatchReceipt {
                input: batch.input.digest,
                output: batch.output.clone(),
                output_stamp,
                occupancy: batch.occupancy,
                first_image: batch.first_image,
                stages: Vec::new(),
            },
            predicted: cost,
            measured: cost,
            isa: "toy".to_owned(),
            threads: 1,
            code_version: "0".to_owned(),
            code_commit: None,
        })
    }
}

/// A queue, and a job whose inputs have contents made from their index.
struct Bench {
    folder: tempfile::TempDir,
    url: String,
    queue: Box<dyn Queue>,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("spool:{}?ttl=1s&backoff=1ms", folder.path().join("queue").display());
        let (queue, store) = jobs::queue::open(&url).unwrap();
        Self { folder, url, queue, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self, name: &str, batches: usize) -> LoadedJob {
        self.job_for(ENGINE, name, batches)
    }

    fn job_for(&self, engine: &str, name: &str, batches: usize) -> LoadedJob {
        let mut manifest = sample_manifest(&vec![1; batches]);
        manifest.engine = engine.to_owned();
        manifest.tenant = Some(name.to_owned());
        manifest.options.clear();
        manifest.queue.as_mut().unwrap().deadline = None;
        let folder = self.path(name);
        std::fs::create_dir(&folder).unwrap();
        let job = manifest::load(&write_job(&folder, &manifest)).unwrap();
        submit(&*self.queue, &self.store, &job, NEEDS, &mut |_| {}).unwrap();
        job
    }

    fn state(&self, job: &LoadedJob) -> JobState {
        self.queue.get(job_id_of(job.manifest())).unwrap().unwrap().summary.state
    }

    fn parts(&self, compute: Arc<dyn Compute>, until: Until) -> Parts {
        let (queue, store) = jobs::queue::open(&self.url).unwrap();
        let options =
            Options { worker: "w".to_owned(), slots: 2, until, grace: Duration::from_millis(200), counts: true };
        Parts {
            queue: Arc::from(queue),
            store,
            compute,
            scratch: Scratch::open(&self.path("scratch")).unwrap(),
            options,
            capacity: Box::new(|| Capacity { memory_bytes: 10_000, scratch_bytes: 1 << 30, engines: &ENGINES }),
            signals: Arc::default(),
            observe: Box::new(|_| {}),
        }
    }

    fn drain(&self, compute: Arc<dyn Compute>) -> Summary {
        runner::run(self.parts(compute, Until::Empty)).unwrap()
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn expect_results(bench: &Bench, job: &LoadedJob) {
    let Fetched::Done { receipt, .. } = fetch(&*bench.queue, &bench.store, job).unwrap() else {
        panic!("{:?}", bench.state(job))
    };
    receipt.verify(job).unwrap();
    for (index, batch) in job.manifest().batches.iter().enumerate() {
        let found = std::fs::read_to_string(job.root().join(&batch.output)).unwrap();
        assert_eq!(found, format!("encrypted images {index}, computed"));
    }
    assert!((receipt.measured.elapsed_secs - 0.5 * receipt.batches.len() as f64).abs() < 1e-9, "{receipt:?}");
}

#[test]
fn all_batches_of_all_jobs_are_done_and_scratch_is_left_empty() {
    let bench = Bench::new();
    let jobs = [bench.job("a", 3), bench.job("b", 1)];
    assert!(matches!(fetch(&*bench.queue, &bench.store, &jobs[0]).unwrap(), Fetched::Unfinished { .. }));
    let toy = Toy::new(|_, _| Ok(()));
    assert_eq!(bench.drain(toy.clone()), Summary { done: 4, ..Summary::default() });
    jobs.iter().for_each(|job| expect_results(&bench, job));
    assert!(toy.most_at_once.load(Ordering::SeqCst) <= 2);
    assert_eq!(names_in(&bench.path("scratch")), ["cache", "checkpoints"]);
    assert_eq!(names_in(&bench.path("scratch/checkpoints")), [""; 0], "only models and keys stay");
    assert_eq!(bench.drain(toy), Summary::default());
}

#[test]
fn a_panic_is_retried_and_given_up_with_its_words_while_others_proceed() {
    let bench = Bench::new();
    let (bad, good) = (bench.job("bad", 2), bench.job("good", 2));
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let summary = bench.drain(Toy::new(move |files, _| {
        let is_bad = files.manifest.tenant.as_deref() == Some("bad");
        if is_bad && files.index == 0 {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("poison");
        }
        Ok(())
    }));
    assert_eq!(tries.load(Ordering::SeqCst), 5);
    assert_eq!(summary.failed, 5, "{summary:?}");
    expect_results(&bench, &good);
    assert!(matches!(fetch(&*bench.queue, &bench.store, &bad).unwrap(), Fetched::Failed { .. }));
    let receipt = jobs::Receipt::load(&bad.receipt_path().unwrap()).unwrap();
    let Outcome::Failed { reason, exit_code } = receipt.outcome else { panic!("{receipt:?}") };
    assert!(reason.contains("panic: poison"), "{reason}");
    assert_eq!((exit_code, receipt.attempts), (ExitCode::Bug, 5));
}

#[test]
fn the_machine_s_trouble_ends_the_worker_and_costs_the_job_nothing() {
    let bench = Bench::new();
    let job = bench.job("a", 2);
    let summary = bench.drain(Toy::new(|_, _| {
        Err(Trouble::Machine { reason: "the disk is full".to_owned(), exit_code: ExitCode::Io })
    }));
    assert_eq!(summary.machine, Some(("the disk is full".to_owned(), ExitCode::Io)));
    let record = bench.queue.get(job_id_of(job.manifest())).unwrap().unwrap();
    assert!(record.tasks.iter().all(|task| task.attempts == 0), "{record:?}");
    bench.drain(Toy::new(|_, _| Ok(())));
    expect_results(&bench, &job);
}

#[test]
fn a_job_waits_for_a_worker_that_has_its_engine() {
    let bench = Bench::new();
    let (other, job) = (bench.job_for(ENGINES[1], "other", 2), bench.job("a", 1));
    let toy = Toy::new(|_, _| Ok(()));
    let mut parts = bench.parts(toy.clone(), Until::Empty);
    parts.capacity = Box::new(|| Capacity { memory_bytes: 10_000, scratch_bytes: 1 << 30, engines: &[ENGINE] });
    assert_eq!(runner::run(parts).unwrap(), Summary { done: 1, ..Summary::default() });
    expect_results(&bench, &job);
    let record = bench.queue.get(job_id_of(other.manifest())).unwrap().unwrap();
    assert_eq!(record.summary.state, JobState::Queued);
    assert!(record.tasks.iter().all(|task| (task.epoch, task.attempts) == (0, 0)), "{record:?}");
    assert_eq!(bench.drain(toy), Summary { done: 2, ..Summary::default() });
    expect_results(&bench, &other);
}

#[test]
fn a_queue_record_that_does_not_say_what_the_manifest_says_is_refused() {
    let bench = Bench::new();
    let job = bench.job("honest", 1);
    type Change = fn(&mut jobs::queue::Submission);
    let changes: [(Change, &str); 5] = [
        (|s| s.priority = 100, "priority"),
        (|s| s.deadline_unix_ms = Some(i64::MAX as u64), "deadline"),
        (|s| s.tasks = 7, "tasks"),
        (|s| s.idempotency_key = "another".to_owned(), "idempotency_key"),
        (|s| s.engine = ENGINES[1].to_owned(), "engine"),
    ];
    for (number, (change, word)) in changes.into_iter().enumerate() {
        let mut manifest = job.manifest().clone();
        manifest.tenant = Some(format!("forger-{number}"));
        let text = manifest.to_toml(Path::new("job.toml")).unwrap();
        let stamp = bench.store.put_blob_bytes(text.as_bytes()).unwrap();
        let mut forged = submission(&manifest, stamp, NEEDS);
        change(&mut forged);
        let id = bench.queue.submit(&forged).unwrap().job;
        bench.drain(Toy::new(|_, _| Ok(())));
        let failure = bench.queue.get(id).unwrap().unwrap().summary.failure.unwrap();
        assert!(failure.reason.contains(word) && failure.exit_code == ExitCode::BadData, "{failure:?}");
    }
    expect_results(&bench, &job);
}

#[test]
fn files_that_are_not_the_manifest_s_are_not_enqueued() {
    let bench = Bench::new();
    let job = bench.job("a", 1);
    let mut manifest = job.manifest().clone();
    manifest.tenant = Some("b".to_owned());
    let folder = bench.path("b");
    std::fs::create_dir(&folder).unwrap();
    let other = manifest::load(&write_job(&folder, &manifest)).unwrap();
    std::fs::write(folder.join("inputs/0000.nsc"), b"encrypted images X").unwrap();
    let refused = submit(&*bench.queue, &bench.store, &other, NEEDS, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, JobsError::WrongDigest { .. }), "{refused}");
    assert!(bench.queue.get(job_id_of(&manifest)).unwrap().is_none());
    // Under a name that is taken, another manifest is refused.
    manifest.tenant = Some("a".to_owned());
    manifest.created = "later".to_owned();
    std::fs::remove_file(folder.join("job.toml")).unwrap();
    let other = manifest::load(&write_job(&folder, &manifest)).unwrap();
    let refused = submit(&*bench.queue, &bench.store, &other, NEEDS, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, JobsError::KeyReused { .. }), "{refused}");
    assert!(matches!(fetch(&*bench.queue, &bench.store, &other), Err(JobsError::KeyReused { .. })));
}

#[test]
fn a_second_signal_hands_back_even_what_does_not_listen() {
    let bench = Bench::new();
    let job = bench.job("a", 1);
    let events = Arc::new(Mutex::new(Vec::new()));
    let signals = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&signals);
    let deaf = Toy::new(move |_, _| {
        sent.store(2, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let mut parts = bench.parts(deaf, Until::Told);
    parts.signals = signals;
    let told = Arc::clone(&events);
    parts.observe = Box::new(move |event| {
        if matches!(event, Event::Released { .. } | Event::Draining { .. }) {
            told.lock().unwrap().push(format!("{event:?}").split(' ').next().unwrap_or_default().to_owned());
        }
    });
    let summary = runner::run(parts).unwrap();
    assert_eq!((summary.released, summary.done), (1, 0));
    assert_eq!(*events.lock().unwrap(), ["Draining", "Released"]);
    let record = bench.queue.get(job_id_of(job.manifest())).unwrap().unwrap();
    assert_eq!((record.summary.running, record.tasks[0].attempts), (0, 0), "{record:?}");
}

#[test]
fn a_cancelled_job_s_batch_is_stopped_and_writes_nothing() {
    let bench = Bench::new();
    let job = bench.job("a", 1);
    let (queue, _) = jobs::queue::open(&bench.url).unwrap();
    let id = job_id_of(job.manifest());
    let stopped = Arc::new(AtomicBool::new(false));
    let saw = Arc::clone(&stopped);
    let summary = bench.drain(Toy::new(move |_, stop| {
        queue.cancel(id).unwrap();
        while !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        saw.store(true, Ordering::SeqCst);
        Err(Trouble::Stopped)
    }));
    assert!(stopped.load(Ordering::SeqCst));
    assert_eq!((summary.lost, summary.done), (1, 0), "{summary:?}");
    assert_eq!(bench.state(&job), JobState::Cancelled);
    assert_eq!(fetch(&*bench.queue, &bench.store, &job).unwrap(), Fetched::Cancelled);
}
