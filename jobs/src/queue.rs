//! The queue: who works on which batch, and what came of it. A *job* is a (tenant, idempotency key) with a manifest; its
//! *tasks* are its batches. A worker **claims** a task and gets a lease with an *epoch*, a fencing token that rises with
//! each claim; **heartbeats** keep the lease; **commit**, **fail** and **release** end it, and each works only for the
//! current epoch. A worker that was frozen and wakes up after its lease was given away can therefore change nothing.
//!
//! States, of a task: queued -> running -> done, or failed (the dead letter: attempts used up, or a permanent failure),
//! or cancelled. A job is done when all its tasks are, failed as soon as one is, cancelled when somebody said so; of these
//! three, exactly one ever happens to a job in one *generation* (a requeue begins the next).
//!
//! A job that is done or failed waits for its receipt: whoever ends it writes that document to the payload store and
//! [seals](Queue::seal) the job. Should that worker die in between, [`Queue::unsealed`] names the job to the next.
//!
//! Calls block. A backend owns what threads it needs, and is shared by reference: heartbeats come from another thread than
//! the work. Not here: payloads (see [`crate::store`]), and what a task does.

use std::time::Duration;

use crate::error::Result;

mod address;
#[cfg(feature = "cloud")]
mod bucket;
mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "postgres")]
mod postgres;
mod spool;
mod types;

pub use address::{BACKOFF, BACKOFF_LIMIT, Settings, TTL, open, open_at, open_store, without_password};
pub use clock::{Clock, SystemClock};
pub use types::{
    Cancelled, Capacity, Claim, Committed, Ended, Failure, Idle, JobId, JobRecord, JobState, JobSummary, Lease,
    ListFilter, Needs, Pulse, Reconciled, Requeued, Stats, Submission, Submitted, TaskId, TaskRecord, TaskResult,
    TaskState,
};

/// Attempts of a task before it is given up.
pub const ATTEMPTS_LIMIT: u32 = 5;
/// Most tasks of a job, as many as a manifest may have batches.
pub const TASKS_LIMIT: u32 = 65_536;
/// Most bytes of the report that a commit carries.
pub const REPORT_LIMIT_BYTES: usize = 64 << 10;

/// A queue of jobs. Every backend passes one suite of scenarios (`queue::conformance`, feature `conformance`).
///
/// An `Err` says that the queue could not be asked, or that the call makes no sense (see [`crate::JobsError`]); the caller then does
/// not know whether its call had an effect, and may repeat it: every call is safe to repeat. What the protocol itself
/// answers (lost, cancelled, nothing to do) is `Ok`.
pub trait Queue: Send + Sync {
    /// Enqueues a job, once: the same tenant and idempotency key again changes nothing and gives the same id.
    ///
    /// # Errors
    /// [`KeyReused`](crate::JobsError::KeyReused) when the job that is known has another manifest;
    /// [`Field`](crate::JobsError::Field) for an impossible submission.
    fn submit(&self, job: &Submission) -> Result<Submitted>;

    /// Takes the next task that fits `capacity`: highest priority first, then the tenant with the fewest running tasks,
    /// then the oldest job, then the lowest batch. Counts the attempt. Leases found expired are taken back on the way.
    ///
    /// `worker` is a name for people, 1 to 128 of `A-Z a-z 0-9 . _ -`.
    fn claim(&self, worker: &str, capacity: Capacity) -> Result<Claim>;

    /// Extends the lease, and tells whether to go on. Call it every third of [`lease_ttl`](Self::lease_ttl), from a thread that
    /// the work cannot starve.
    fn heartbeat(&self, lease: &Lease) -> Result<Pulse>;

    /// Ends the lease with a result, whose bytes lie complete under this epoch in the payload store. Only the current
    /// epoch may; the same lease again gives the same answer.
    ///
    /// # Errors
    /// [`Field`](crate::JobsError::Field) when the report is larger than [`REPORT_LIMIT_BYTES`].
    fn commit(&self, lease: &Lease, result: &TaskResult) -> Result<Committed>;

    /// Ends the lease with a failure: a retryable one goes back after a delay that doubles with each attempt; a permanent
    /// one, or the last attempt's, makes task and job failed.
    fn fail(&self, lease: &Lease, failure: &Failure) -> Result<Ended>;

    /// Hands the task back undone, as when a worker drains: due at once, the attempt not counted.
    fn release(&self, lease: &Lease) -> Result<Ended>;

    /// Cancels a job that is neither done nor failed. Its workers learn of it at their next heartbeat.
    ///
    /// # Errors
    /// [`NoSuchJob`](crate::JobsError::NoSuchJob).
    fn cancel(&self, job: JobId) -> Result<Cancelled>;

    /// Puts a failed or cancelled job back to queued as its next generation: finished tasks stay finished, attempts of the
    /// others begin at zero, epochs go on rising.
    ///
    /// # Errors
    /// [`NoSuchJob`](crate::JobsError::NoSuchJob).
    fn requeue(&self, job: JobId) -> Result<Requeued>;

    /// A job with all its tasks; `None` when there is no such job.
    fn get(&self, job: JobId) -> Result<Option<JobRecord>>;

    /// The jobs that pass the filter, newest first.
    fn list(&self, filter: &ListFilter) -> Result<Vec<JobSummary>>;

    /// Counts over all jobs.
    fn stats(&self) -> Result<Stats>;

    /// Holds what is recorded against what lives: takes back expired leases, ends jobs whose last worker died between its
    /// commit and the job's end, clears what closed jobs left. A worker does this now and then; it is safe at any time.
    fn reconcile(&self) -> Result<Reconciled>;

    /// Jobs that are done or failed and have no receipt yet, oldest first, at most 1000.
    fn unsealed(&self) -> Result<Vec<JobSummary>>;

    /// Records that the receipt of this generation of the job lies in the payload store. Idempotent; without effect on a job
    /// that is not in that generation, or neither done nor failed.
    fn seal(&self, job: JobId, generation: u32) -> Result<()>;

    /// Returns when something may have changed, at the latest after `at_most`. A doorbell, not a promise.
    fn wait(&self, at_most: Duration) -> Result<()>;

    /// How long a lease lives without a heartbeat.
    fn lease_ttl(&self) -> Duration;

    /// The queue's own clock, in milliseconds since 1970; `None` where it has none and takes each process's for deadlines.
    fn now_unix_ms(&self) -> Result<Option<u64>>;
}
