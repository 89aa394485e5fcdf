//! A small working day, run by a child process into a failpoint, and what another process must be able to do the day after: every job
//! to its end, with every byte in place.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Output};
use std::time::Duration;

use jobs::manifest::{ENGINE, ENGINES};
use jobs::queue::{
    Capacity, Claim, Failure, JobId, JobState, Lease, Needs, Queue, Requeued, Submission, TaskId, TaskResult,
};
use jobs::store::Store;
use jobs::{Digest, JobsError, atomic};
use tempfile::TempDir;

const LARGE: Capacity = Capacity { memory_bytes: u64::MAX, scratch_bytes: u64::MAX, engines: &ENGINES };
const KEYS: [&str; 4] = ["plain", "troubled", "cancelled", "abandoned"];

/// A queue on which a day is worked, and its store.
pub struct Place {
    pub folder: PathBuf,
    pub queue: Box<dyn Queue>,
    pub store: Store,
    /// Lets time pass for the queue.
    pub pass: Box<dyn Fn(Duration)>,
}

impl Place {
    fn submit(&self, key: &str) -> Result<JobId, JobsError> {
        let manifest = self.store.put_blob_bytes(key.as_bytes())?.digest;
        let (tenant, idempotency_key) = ("t".to_owned(), key.to_owned());
        let (needs, tasks) = (Needs::default(), 2);
        let engine = ENGINE.to_owned();
        let job =
            Submission { tenant, idempotency_key, manifest, priority: 0, deadline_unix_ms: None, needs, engine, tasks };
        self.queue.submit(&job).map(|submitted| submitted.job)
    }

    fn claim(&self) -> Result<Option<Lease>, JobsError> {
        Ok(match self.queue.claim("w", LARGE)? {
            Claim::Task(lease) => Some(*lease),
            Claim::Nothing(_) => None,
        })
    }

    fn work(&self, lease: &Lease) -> Result<(), JobsError> {
        self.queue.heartbeat(lease)?;
        let path = self.folder.join("result");
        atomic::write_atomic(&path, &expected(&lease.submission.idempotency_key, lease.task.batch))?;
        let output = self.store.put_result(lease.task, lease.epoch, &path)?;
        self.queue.commit(lease, &TaskResult { output, report: String::new() })?;
        Ok(())
    }

    fn seal(&self) -> Result<(), JobsError> {
        for ended in self.queue.unsealed()? {
            self.store.create_document(&format!("{}.{}", ended.job, ended.generation), b"receipt")?;
            self.queue.seal(ended.job, ended.generation)?;
        }
        Ok(())
    }
}

fn expected(key: &str, batch: u32) -> Vec<u8> {
    format!("{key} {batch} ").repeat(1000).into_bytes()
}

/// A day that passes every failpoint of the queues, the store and atomic files.
fn working_day(place: &Place) -> Result<(), JobsError> {
    let folder = &place.folder;
    let input = folder.join("input");
    atomic::create_atomic(&input, b"input")?;
    let stamp = place.store.put_blob(&input)?;
    place.store.get_blob(stamp.digest, 100, &folder.join("copy"))?;

    place.submit("plain")?;
    while let Some(lease) = place.claim()? {
        place.work(&lease)?;
    }
    place.seal()?;

    place.submit("troubled")?;
    if let Some(lease) = place.claim()? {
        place.queue.release(&lease)?;
    }
    if let Some(lease) = place.claim()? {
        place.queue.fail(&lease, &Failure::retryable("disk", jobs::ExitCode::Io))?;
    }

    let cancelled = place.submit("cancelled")?;
    place.queue.cancel(cancelled)?;
    place.queue.requeue(cancelled)?;

    place.submit("abandoned")?;
    while place.claim()?.is_some() {}
    place.queue.stats()?;
    (place.pass)(Duration::from_secs(60));
    place.queue.reconcile()?;
    Ok(())
}

/// What another process does the day after.
fn recover(place: &Place, cell: &str) {
    let folder = &place.folder;
    let ids = KEYS.map(|key| place.submit(key).unwrap());
    place.queue.stats().unwrap();
    for _ in 0..20 {
        (place.pass)(Duration::from_secs(60));
        place.queue.reconcile().unwrap();
        for id in ids {
            let state = place.queue.get(id).unwrap().unwrap().summary.state;
            if matches!(state, JobState::Failed | JobState::Cancelled) {
                assert!(matches!(place.queue.requeue(id).unwrap(), Requeued::Requeued { .. }), "{cell}");
            }
        }
        while let Some(lease) = place.claim().unwrap() {
            place.work(&lease).unwrap();
        }
        place.seal().unwrap();
        let is_over = |id: &JobId| place.queue.get(*id).unwrap().unwrap().summary.is_sealed;
        let is_done = |id: &JobId| place.queue.get(*id).unwrap().unwrap().summary.state == JobState::Done;
        if ids.iter().all(|id| is_over(id) && is_done(id)) {
            break;
        }
    }
    for (id, key) in ids.into_iter().zip(KEYS) {
        let record = place.queue.get(id).unwrap().unwrap();
        assert_eq!(record.summary.state, JobState::Done, "{cell}: {key}");
        assert!(record.summary.is_sealed, "{cell}: {key}");
        for (task, batch) in record.tasks.iter().zip(0..) {
            let output = task.result.as_ref().unwrap().output;
            let to = folder.join("fetched");
            place.store.get_result(TaskId { job: id, batch }, task.epoch, output, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), expected(key, batch), "{cell}: {key} batch {batch}");
        }
        let generation = record.summary.generation;
        let receipt = place.store.get_document(&format!("{id}.{generation}")).unwrap();
        assert_eq!(receipt.as_deref(), Some(b"receipt".as_slice()), "{cell}: {key}");
    }
    for (name, bytes) in [("input", "input"), ("copy", "input")] {
        if let Ok(found) = fs::read(folder.join(name)) {
            assert_eq!(found, bytes.as_bytes(), "{cell}: {name} is torn");
        }
    }
    let blob = place.store.get_blob_bytes(Digest::of(b"plain"), 100).unwrap();
    assert_eq!(blob, b"plain", "{cell}");
}

fn is_right(action: &str, status: ExitStatus) -> bool {
    match action {
        "kill" => status.signal() == Some(9),
        "panic" => status.code() == Some(101),
        _ => status.code() == Some(74),
    }
}

/// The child's part: the day in `place`, its end as an exit code.
pub fn work(place: &Place) -> ExitCode {
    match working_day(place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => ExitCode::from(problem.exit_code().code()),
    }
}

/// Every failpoint of `names` times every way to go wrong there. `run` gets a cell's number and what must be in the child's environment,
/// makes this program run [`work`] in a place of the cell's own, and opens that place a day later. Gives the number of cells.
pub fn run_cells<'a>(
    names: impl Iterator<Item = &'a str>,
    run: impl Fn(usize, &mut Command) -> (Output, Place, TempDir),
) -> usize {
    let mut cells = 0;
    let mut failed = Vec::new();
    for (name, action) in
        names.flat_map(|name| ["kill", "panic", "eio", "enospc", "short", "fsync"].map(|action| (name, action)))
    {
        let cell = format!("{name}={action}@1");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env("NIGHTSHIFT_FAILPOINTS", &cell);
        let (output, place, _folder) = run(cells, &mut child);
        cells += 1;
        if !is_right(action, output.status) {
            failed.push(format!("{cell}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        recover(&place, &cell);
    }
    assert!(failed.is_empty(), "{} of {cells} cells ended otherwise:\n{}", failed.len(), failed.join("\n"));
    cells
}
