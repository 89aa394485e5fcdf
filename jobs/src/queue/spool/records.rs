//! The objects of a spool, as JSON, and their names. All but the beat are written once and never changed, so that whoever creates one
//! first has decided something for everybody. Under `queue/`:
//!
//! ```text
//! open/JOB/GENERATION/job                  the job as submitted
//! open/JOB/GENERATION/BATCH.EPOCH.lease    a claim
//! open/JOB/GENERATION/BATCH.EPOCH.beat     a heartbeat of that claim; the one object that is replaced
//! open/JOB/GENERATION/BATCH.EPOCH.end      how that claim ended; only then can the next epoch be claimed
//! open/JOB/GENERATION/final                how the job ended
//! closed/JOB/GENERATION.STATE              all of the above in one, after which they are removed
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{JobsError, Result};
use crate::queue::{Failure, JobId, JobState, Submission, TaskResult};

/// The schema of every record here.
pub(super) const SCHEMA: &str = "nightshift.queue/1";
/// Most bytes of a record of one task or of an open job's own.
pub(super) const RECORD_LIMIT_BYTES: u64 = 256 << 20;
/// Most bytes of a closed job's record: every task with its report.
pub(super) const CLOSED_LIMIT_BYTES: u64 = 8 << 30;
/// Where the records lie.
pub(super) const OPEN: &str = "queue/open";
const CLOSED: &str = "queue/closed";

/// `job`: what was submitted, and what an earlier generation left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobDoc {
    pub(super) schema: String,
    pub(super) submission: Submission,
    pub(super) submitted_unix_ms: u64,
    /// One a task, or empty in generation 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) carried: Vec<Carried>,
    pub(super) nonce: u64,
}

/// What a task brings along from the generation before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Carried {
    /// The last epoch given out.
    pub(super) epoch: u32,
    /// Its result, if it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<TaskResult>,
    /// Whose it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<String>,
}

/// `BATCH.EPOCH.lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseDoc {
    pub(super) schema: String,
    pub(super) worker: String,
    /// Attempts counted in this generation, this one included.
    pub(super) attempt: u32,
    /// The process that holds it, where others on its machine can see whether that lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<super::process::Process>,
    pub(super) nonce: u64,
}

/// `BATCH.EPOCH.end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndDoc {
    pub(super) schema: String,
    pub(super) end: End,
    /// Whether the lease's holder wrote this; otherwise somebody who found the lease run out.
    pub(super) is_holder: bool,
}

/// How a claim ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum End {
    /// With a result.
    Done(TaskResult),
    /// With a failure that was the last.
    Failed(Failure),
    /// With a failure or an expiry that may be tried again from this moment on, by the clock of whoever wrote it.
    Retry {
        /// What happened.
        failure: Failure,
        /// When the next attempt may begin.
        due_unix_ms: u64,
        /// How long that was from the writing on; no reader waits longer, whatever its clock says.
        delay_ms: u64,
    },
    /// Handed back; not an attempt.
    Released,
}

/// `final`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FinalDoc {
    pub(super) schema: String,
    pub(super) outcome: Outcome,
    /// `BATCH.EPOCH` of the lease whose end ended the job, or who else did: only one writer is told that it was the one.
    pub(super) by: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Outcome {
    /// All tasks are done.
    Done,
    /// One was given up.
    Failed(Failure),
    /// Somebody said so.
    Cancelled,
}

/// `closed/JOB/GENERATION.STATE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClosedDoc {
    pub(super) schema: String,
    pub(super) submission: Submission,
    pub(super) submitted_unix_ms: u64,
    pub(super) outcome: Outcome,
    /// One a task.
    pub(super) tasks: Vec<ClosedTask>,
}

/// A task of a closed job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClosedTask {
    pub(super) epoch: u32,
    pub(super) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<TaskResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<Failure>,
    /// Whether this task's failure was its last.
    #[serde(default)]
    pub(super) is_given_up: bool,
}

impl Outcome {
    pub(super) fn state(&self) -> JobState {
        match self {
            Self::Done => JobState::Done,
            Self::Failed(_) => JobState::Failed,
            Self::Cancelled => JobState::Cancelled,
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Done | Self::Cancelled => None,
        }
    }
}

/// What kind of record a name in an open job's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Job,
    Final,
    Lease { batch: u32, epoch: u32 },
    Beat { batch: u32, epoch: u32 },
    End { batch: u32, epoch: u32 },
}

/// `queue/open/JOB/GENERATION`.
pub(super) fn folder(job: JobId, generation: u32) -> String {
    format!("{OPEN}/{job}/{generation:04}")
}

/// `queue/open/JOB`.
pub(super) fn job_folder(job: JobId) -> String {
    format!("{OPEN}/{job}")
}

/// `queue/closed/JOB`.
pub(super) fn closed_folder(job: JobId) -> String {
    format!("{CLOSED}/{job}")
}

/// Every closed job.
pub(super) fn closed_root() -> &'static str {
    CLOSED
}

pub(super) fn closed_name(job: JobId, generation: u32, state: JobState) -> String {
    format!("{CLOSED}/{job}/{generation:04}.{state}")
}

pub(super) fn job_name(job: JobId, generation: u32) -> String {
    format!("{}/job", folder(job, generation))
}

pub(super) fn final_name(job: JobId, generation: u32) -> String {
    format!("{}/final", folder(job, generation))
}

pub(super) fn lease_name(job: JobId, generation: u32, batch: u32, epoch: u32) -> String {
    format!("{}/{batch:05}.{epoch:06}.lease", folder(job, generation))
}

pub(super) fn beat_name(job: JobId, generation: u32, batch: u32, epoch: u32) -> String {
    format!("{}/{batch:05}.{epoch:06}.beat", folder(job, generation))
}

pub(super) fn end_name(job: JobId, generation: u32, batch: u32, epoch: u32) -> String {
    format!("{}/{batch:05}.{epoch:06}.end", folder(job, generation))
}

/// Takes the name of an open record apart; `None` for what this program does not write.
pub(super) fn parse_open(name: &str) -> Option<(JobId, u32, Kind)> {
    let (job, generation, inner) = three(name.strip_prefix(OPEN)?.strip_prefix('/')?)?;
    let kind = match inner {
        "job" => Kind::Job,
        "final" => Kind::Final,
        _ => {
            let mut pieces = inner.split('.');
            let (batch, epoch) = (number(pieces.next()?, 5)?, number(pieces.next()?, 6)?);
            let kind = match pieces.next()? {
                "lease" => Kind::Lease { batch, epoch },
                "beat" => Kind::Beat { batch, epoch },
                "end" => Kind::End { batch, epoch },
                _ => return None,
            };
            if pieces.next().is_some() {
                return None;
            }
            kind
        }
    };
    Some((job, generation, kind))
}

/// Takes the name of a closed record apart.
pub(super) fn parse_closed(name: &str) -> Option<(JobId, u32, JobState)> {
    let (job, rest) = name.strip_prefix(CLOSED)?.strip_prefix('/')?.split_once('/')?;
    let (generation, state) = rest.split_once('.')?;
    let state = state.parse().ok().filter(|state: &JobState| state.is_final())?;
    Some((job.parse().ok()?, number(generation, 4)?, state))
}

fn three(name: &str) -> Option<(JobId, u32, &str)> {
    let (job, rest) = name.split_once('/')?;
    let (generation, inner) = rest.split_once('/')?;
    Some((job.parse().ok()?, number(generation, 4)?, inner))
}

/// Decimal digits, at least this many.
fn number(digits: &str, least: usize) -> Option<u32> {
    let is_plain = digits.len() >= least && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_plain { digits.parse().ok() } else { None }
}

/// A record as written.
pub(super) fn to_bytes<T: Serialize>(place: &str, record: &T) -> Result<Vec<u8>> {
    let refused = |error: serde_json::Error| JobsError::QueueRecord {
        place: place.to_owned(),
        detail: format!("cannot be written as JSON: {error}"),
    };
    serde_json::to_vec(record).map_err(refused)
}

/// A record as read: its schema first, then its fields.
pub(super) fn from_bytes<T: serde::de::DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|error| JobsError::QueueRecord {
        place: place.to_owned(),
        detail: format!("byte {} is not UTF-8", error.valid_up_to()),
    })?;
    crate::document::parse_json(std::path::Path::new(place), text, SCHEMA)
}
