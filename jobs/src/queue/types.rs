//! What goes into the queue and what comes out: plain values, checked where they enter. Times are milliseconds since
//! 1970 where they meet people or other machines, and durations otherwise.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{REPORT_LIMIT_BYTES, TASKS_LIMIT};
use crate::digest::{Digest, FileStamp};
use crate::error::{JobsError, Result};
use crate::exit::ExitCode;
use crate::manifest::{self, check};

/// Most characters of a failure's reason.
pub const REASON_LIMIT_CHARS: usize = 4096;

/// Largest time or size in a submission: what every database can hold.
const NUMBER_LIMIT: u64 = i64::MAX as u64;

/// A job's name inside a queue: 32 lower-case hex digits, the first half of a BLAKE3 digest over tenant and idempotency key. Two
/// submissions are the same job exactly when these are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; 16]);

/// One batch of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// Index of the batch in the manifest.
    pub batch: u32,
}

/// What a task needs of a machine, as its plan says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Bytes of memory at its peak.
    pub memory_bytes: u64,
    /// Bytes of scratch space.
    pub scratch_bytes: u64,
}

/// What a worker has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Free bytes of memory.
    pub memory_bytes: u64,
    /// Free bytes of scratch space.
    pub scratch_bytes: u64,
    /// The engines that its program has, of [`manifest::ENGINES`]: tasks of others are left to other workers.
    pub engines: &'static [&'static str],
}

/// A job to enqueue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Whose job it is; 1 to 128 of `A-Z a-z 0-9 . _ -`.
    pub tenant: String,
    /// Names the job within its tenant; of the same alphabet.
    pub idempotency_key: String,
    /// BLAKE3 of the manifest, which lies as a blob in the payload store.
    pub manifest: Digest,
    /// Higher goes first; 0 is ordinary.
    pub priority: i16,
    /// Not to be begun after this moment, in milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// What one task needs.
    pub needs: Needs,
    /// The engine that must compute it, one of [`manifest::ENGINES`]. Records of the first engine do not name it.
    #[serde(default = "manifest::default_engine", skip_serializing_if = "is_default_engine")]
    pub engine: String,
    /// How many batches there are, 1 to [`TASKS_LIMIT`].
    pub tasks: u32,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job's name in the queue.
    pub job: JobId,
    /// False when it was there before.
    pub is_new: bool,
}

/// The right to work on a task, until the lease runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// The fencing token: one more than the claim before, from 1 on; results lie under it.
    pub epoch: u32,
    /// Which attempt this is, from 1 on.
    pub attempt: u32,
    /// How often the job was put back, from 0 on.
    pub generation: u32,
    /// The worker's name as given to the claim.
    pub worker: String,
    /// The job as submitted.
    pub submission: Submission,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A task to work on.
    Task(Box<Lease>),
    /// Nothing that may be begun here and now.
    Nothing(Idle),
}

/// Why there was nothing to claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Tasks that wait for their next attempt's time.
    pub waiting: u64,
    /// Tasks that are due and do not fit the capacity given, or are for an engine that is not among its own.
    pub too_large: u64,
    /// Tasks that other leases hold.
    pub leased: u64,
    /// When the first of the waiting ones is due or the first of the leases may run out; `None` when there is neither.
    pub next_in: Option<Duration>,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// The lease is yours for another [`lease_ttl`](super::Queue::lease_ttl).
    Alive,
    /// The job was cancelled, or failed in another task: stop, the result is not wanted.
    Cancelled,
    /// The lease is not yours any more: stop, write nothing.
    Lost,
}

/// What a task produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResult {
    /// Digest and size of the result in the payload store.
    pub output: FileStamp,
    /// What the worker wants to say in the job's receipt; any text of at most [`REPORT_LIMIT_BYTES`].
    pub report: String,
}

/// The answer to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Recorded; this many of the job's tasks are not done yet. None left: somebody who looked ended the job a moment before;
    /// seal it all the same, sealing twice is sealing once.
    Task {
        /// Tasks not done.
        left: u32,
    },
    /// Recorded, and with it the job is done, told to one commit at most: write its receipt, then [`seal`](super::Queue::seal).
    Job,
    /// Not recorded: the job was cancelled, or failed in another task.
    Cancelled,
    /// Not recorded: the lease is not yours any more.
    Lost,
}

/// Why a task did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Words for people.
    pub reason: String,
    /// The exit code a one-shot would have ended with.
    pub exit_code: ExitCode,
    /// Whether another attempt may go better.
    pub is_retryable: bool,
}

/// The answer to a failure or a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The task is queued again and due after this time.
    Requeued {
        /// From now.
        due_in: Duration,
    },
    /// Task and job are failed: write the receipt, then [`seal`](super::Queue::seal).
    DeadLetter,
    /// The job was cancelled, or failed in another task.
    Cancelled,
    /// Without effect: the lease is not yours any more.
    Lost,
}

/// The answer to a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The job is cancelled, now or since earlier.
    Cancelled,
    /// Too late: the job has ended in this state.
    Already(JobState),
}

/// The answer to a requeue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The job is queued again.
    Requeued {
        /// Its generation now.
        generation: u32,
    },
    /// Without effect: the job is in this state, which is neither failed nor cancelled.
    Not(JobState),
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// No task is leased, none was finished in this generation, or the rest waits.
    Queued,
    /// A task is leased.
    Running,
    /// All tasks are done.
    Done,
    /// A task was given up: the dead letter.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Nobody works on it.
    Queued,
    /// A lease holds it.
    Running,
    /// Its result is committed.
    Done,
    /// Given up.
    Failed,
}

/// A job as the queue sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// Its name in the queue.
    pub job: JobId,
    /// As submitted.
    pub submission: Submission,
    /// When, in milliseconds since 1970 by the clock of the submitter (spool) or the database.
    pub submitted_unix_ms: u64,
    /// Where it stands.
    pub state: JobState,
    /// How often it was put back.
    pub generation: u32,
    /// Tasks with a committed result.
    pub done: u32,
    /// Tasks that a lease holds.
    pub running: u32,
    /// Why it failed, of a failed job.
    pub failure: Option<Failure>,
    /// Whether it is over and its receipt written; cancelled jobs have none and are always sealed.
    pub is_sealed: bool,
}

/// A job with its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub summary: JobSummary,
    /// Its tasks in the order of their batches.
    pub tasks: Vec<TaskRecord>,
}

/// A task as the queue sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Where it stands.
    pub state: TaskState,
    /// The last epoch given out, 0 before the first.
    pub epoch: u32,
    /// Attempts counted in this generation.
    pub attempts: u32,
    /// Who holds or held the last lease.
    pub worker: Option<String>,
    /// The committed result, of a done task; it lies under `epoch`.
    pub result: Option<TaskResult>,
    /// The last failure, of a task that had one in this generation.
    pub failure: Option<Failure>,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// At most this many; `None` for all.
    pub limit: Option<usize>,
}

/// Counts over the whole queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Jobs in each state.
    pub jobs_queued: u64,
    /// See [`JobState`].
    pub jobs_running: u64,
    /// See [`JobState`].
    pub jobs_done: u64,
    /// See [`JobState`].
    pub jobs_failed: u64,
    /// See [`JobState`].
    pub jobs_cancelled: u64,
    /// Tasks of queued and running jobs that nobody works on.
    pub tasks_queued: u64,
    /// Leases that have not run out, as far as this caller can know.
    pub live_leases: u64,
    /// How long the oldest job waits of which no task has been attempted in this generation; `None` when there is none.
    pub oldest_queued_ms: Option<u64>,
}

/// What a reconciliation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Leases taken back.
    pub leases_expired: u64,
    /// Jobs ended whose last worker had died before it could.
    pub jobs_ended: u64,
    /// Objects of closed jobs removed.
    pub remains_removed: u64,
    /// Jobs whose records no version of this program wrote; they are left alone.
    pub damaged_jobs: u64,
}

impl JobId {
    /// The name of this tenant's job under this key.
    pub fn of(tenant: &str, idempotency_key: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("nightshift 2026 queue job id");
        hasher.update(&(tenant.len() as u64).to_le_bytes());
        hasher.update(tenant.as_bytes());
        hasher.update(idempotency_key.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Takes 16 bytes that already are an id.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = JobsError;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || JobsError::field("queue job id", format_args!("{text:?}"), "32 lower-case hex digits");
        let is_hex = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !is_hex {
            return Err(refused());
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| refused())
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.batch)
    }
}

impl Submission {
    /// The job's name in the queue.
    pub fn job_id(&self) -> JobId {
        JobId::of(&self.tenant, &self.idempotency_key)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`JobsError::Field`] naming the first that is wrong.
    pub fn validate(&self) -> Result<()> {
        check::check_name("tenant", &self.tenant)?;
        check::check_name("idempotency_key", &self.idempotency_key)?;
        if self.tasks == 0 || self.tasks > TASKS_LIMIT {
            return Err(JobsError::field("tasks", self.tasks, format!("1 to {TASKS_LIMIT}")));
        }
        check::check_engine(&self.engine)?;
        let numbers = [
            ("deadline_unix_ms", self.deadline_unix_ms.unwrap_or(0)),
            ("needs.memory_bytes", self.needs.memory_bytes),
            ("needs.scratch_bytes", self.needs.scratch_bytes),
        ];
        for (field, number) in numbers {
            if number > NUMBER_LIMIT {
                return Err(JobsError::field(field, number, format!("at most {NUMBER_LIMIT}")));
            }
        }
        Ok(())
    }

    /// Whether a worker with this much left, and these engines, can take one of its tasks.
    pub fn fits(&self, capacity: Capacity) -> bool {
        self.needs.memory_bytes <= capacity.memory_bytes
            && self.needs.scratch_bytes <= capacity.scratch_bytes
            && capacity.engines.contains(&self.engine.as_str())
    }
}

impl TaskResult {
    /// # Errors
    /// [`JobsError::Field`] when the report is too large.
    pub fn validate(&self) -> Result<()> {
        if self.report.len() <= REPORT_LIMIT_BYTES {
            return Ok(());
        }
        let found = format!("{} bytes", self.report.len());
        Err(JobsError::field("report", found, format!("at most {REPORT_LIMIT_BYTES}")))
    }
}

impl Failure {
    /// A failure that another attempt may not meet, its reason cut to what a receipt may hold.
    pub fn retryable(reason: &str, exit_code: ExitCode) -> Self {
        Self { reason: printable(reason), exit_code, is_retryable: true }
    }

    /// A failure that every attempt would meet.
    pub fn permanent(reason: &str, exit_code: ExitCode) -> Self {
        Self { reason: printable(reason), exit_code, is_retryable: false }
    }
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for JobState {
    type Err = JobsError;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            JobsError::field("state", format_args!("{text:?}"), format!("one of {names}"))
        })
    }
}

impl JobRecord {
    /// The first failure among its tasks that ended the job.
    pub fn failed_task(&self) -> Option<(u32, &Failure)> {
        let failed = self.tasks.iter().zip(0_u32..).find(|(task, _)| task.state == TaskState::Failed);
        failed.and_then(|(task, batch)| task.failure.as_ref().map(|failure| (batch, failure)))
    }
}

impl Stats {
    /// Counts one job.
    pub(crate) fn count(&mut self, state: JobState) {
        *match state {
            JobState::Queued => &mut self.jobs_queued,
            JobState::Running => &mut self.jobs_running,
            JobState::Done => &mut self.jobs_done,
            JobState::Failed => &mut self.jobs_failed,
            JobState::Cancelled => &mut self.jobs_cancelled,
        } += 1;
    }
}

fn is_default_engine(engine: &str) -> bool {
    engine == manifest::ENGINE
}

fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_LIMIT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_first_engine_are_as_they_were() {
        let text = r#"{"tenant":"a","idempotency_key":"k","manifest":"DIGEST","priority":0,"deadline_unix_ms":null,"needs":{"memory_bytes":1,"scratch_bytes":2},"tasks":3}"#;
        let text = text.replace("DIGEST", &Digest::of(b"manifest").to_string());
        let first: Submission = serde_json::from_str(&text).unwrap();
        assert_eq!(first.engine, manifest::ENGINE);
        assert_eq!(serde_json::to_string(&first).unwrap(), text);
        let other = Submission { engine: manifest::ENGINES[1].to_owned(), ..first };
        let text = serde_json::to_string(&other).unwrap();
        assert!(text.contains(r#""engine":"tfhe""#), "{text}");
        assert_eq!(serde_json::from_str::<Submission>(&text).unwrap(), other);
    }
}
