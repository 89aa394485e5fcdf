//! What every queue must do, as scenarios with names: a backend passes when none of them panics. Test code: the
//! only file here that panics on purpose, compiled for tests and with the feature `conformance`.
//!
//! A scenario gets a [`Yard`]: an empty queue that may be opened many times, each handle standing for another machine, and whose
//! time the scenario lets pass. Yards have leases of [`TTL`], [`ATTEMPTS_LIMIT`] attempts and a first delay of
//! [`BACKOFF`], the defaults.

use std::time::Duration;

use super::{
    ATTEMPTS_LIMIT, BACKOFF, Capacity, Claim, Committed, Ended, Failure, JobId, JobState, Lease, Needs, Queue,
    Submission, TTL, TaskResult,
};
use crate::digest::{Digest, FileStamp};
use crate::exit::ExitCode;
use crate::manifest::{ENGINE, ENGINES};

mod endings;
mod leases;
mod races;
mod submitting;
mod views;

/// A place for one scenario.
pub trait Yard: Sync {
    /// A handle on the yard's queue, as another machine would open it.
    fn open(&self) -> Box<dyn Queue>;

    /// Lets time pass for all handles.
    fn pass(&self, time: Duration);

    /// The wall clock of the queue, in milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// A scenario and its name.
pub type Scenario = (&'static str, fn(&dyn Yard));

/// Every scenario.
pub fn scenarios() -> Vec<Scenario> {
    [submitting::ALL, leases::ALL, endings::ALL, views::ALL, races::ALL].concat()
}

/// Runs every scenario in a yard of its own, says which ones fail, and panics if any did. To look into one, the environment
/// variable `NIGHTSHIFT_SCENARIO` leaves those whose name contains it.
///
/// # Panics
/// When a scenario did.
pub fn run_all<'a>(new_yard: impl Fn(&str) -> Box<dyn Yard + 'a>) {
    let mut failed = Vec::new();
    let wanted = std::env::var("NIGHTSHIFT_SCENARIO").unwrap_or_default();
    let mut all = scenarios();
    all.retain(|(name, _)| name.contains(&wanted));
    assert!(!all.is_empty(), "no scenario has {wanted:?} in its name");
    for (name, scenario) in all {
        let yard = new_yard(name);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(yard.as_ref())));
        if ran.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} scenarios failed: {}", failed.len(), failed.join(", "));
}

/// A machine that any task fits.
const LARGE: Capacity = Capacity { memory_bytes: u64::MAX, scratch_bytes: u64::MAX, engines: &ENGINES };

fn job(tenant: &str, key: &str, tasks: u32) -> Submission {
    Submission {
        tenant: tenant.to_owned(),
        idempotency_key: key.to_owned(),
        manifest: Digest::of(key.as_bytes()),
        priority: 0,
        deadline_unix_ms: None,
        needs: Needs { memory_bytes: 100, scratch_bytes: 10 },
        engine: ENGINE.to_owned(),
        tasks,
    }
}

fn submit(yard: &dyn Yard, queue: &dyn Queue, submission: &Submission) -> JobId {
    let submitted = queue.submit(submission).unwrap();
    assert!(submitted.is_new, "{}", submission.idempotency_key);
    // Jobs are told apart by their age in milliseconds.
    yard.pass(Duration::from_millis(5));
    submitted.job
}

fn claim(queue: &dyn Queue, worker: &str) -> Lease {
    match queue.claim(worker, LARGE).unwrap() {
        Claim::Task(lease) => *lease,
        Claim::Nothing(idle) => panic!("{worker} found nothing to claim: {idle:?}"),
    }
}

fn nothing(queue: &dyn Queue) -> super::Idle {
    match queue.claim("idle", LARGE).unwrap() {
        Claim::Task(lease) => panic!("claimed {} epoch {}, expected nothing", lease.task, lease.epoch),
        Claim::Nothing(idle) => idle,
    }
}

fn result(words: &str) -> TaskResult {
    let output = FileStamp { digest: Digest::of(words.as_bytes()), bytes: words.len() as u64 };
    TaskResult { output, report: words.to_owned() }
}

fn commit(queue: &dyn Queue, lease: &Lease) -> Committed {
    queue.commit(lease, &result(&format!("{} {}", lease.task, lease.epoch))).unwrap()
}

/// Lets every lease run out, watched by `watcher`.
fn run_out(yard: &dyn Yard, watcher: &dyn Queue) {
    watcher.stats().unwrap();
    yard.pass(TTL + Duration::from_secs(1));
}

fn retryable(words: &str) -> Failure {
    Failure::retryable(words, ExitCode::Io)
}

fn state_of(queue: &dyn Queue, job: JobId) -> JobState {
    queue.get(job).unwrap().unwrap().summary.state
}

/// Claims the one task there is and makes it fail until it is given up.
fn wear_out(yard: &dyn Yard, queue: &dyn Queue) -> Lease {
    for attempt in 1..=ATTEMPTS_LIMIT {
        let lease = claim(queue, "w");
        assert_eq!(lease.attempt, attempt);
        let ended = queue.fail(&lease, &retryable("disk")).unwrap();
        if attempt == ATTEMPTS_LIMIT {
            assert_eq!(ended, Ended::DeadLetter);
            return lease;
        }
        assert!(matches!(ended, Ended::Requeued { .. }), "{ended:?}");
        yard.pass(BACKOFF * 2_u32.pow(attempt) + Duration::from_secs(1));
    }
    unreachable!("the loop returns")
}
