//! What the records of one open job say, taken together: where each task stands, and what may happen next. Pure: no store, no
//! clock. A lease's age is not in the records; see [`super::watch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::process::Process;
use super::records::{
    ClosedDoc, ClosedTask, End, EndDoc, FinalDoc, JobDoc, Kind, LeaseDoc, Outcome, SCHEMA, parse_open,
};
use crate::queue::{Failure, JobId, JobRecord, JobState, JobSummary, TaskRecord, TaskResult, TaskState};
use crate::store::objects::Listed;

/// The names of one open job's records, and the marks of those that tell a lease's age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) has_job: bool,
    pub(super) has_final: bool,
    /// Batch -> its highest epoch that was claimed.
    pub(super) claims: BTreeMap<u32, ClaimNames>,
}

/// The records of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimNames {
    pub(super) epoch: u32,
    /// Changes with each heartbeat.
    pub(super) mark: String,
    pub(super) has_end: bool,
}

/// Groups a listing by job and generation. Names that are none of ours are left out.
pub(super) fn group(listing: &[Listed]) -> BTreeMap<(JobId, u32), Names> {
    let mut jobs: BTreeMap<(JobId, u32), Names> = BTreeMap::new();
    for listed in listing {
        let Some((job, generation, kind)) = parse_open(&listed.name) else { continue };
        let names = jobs.entry((job, generation)).or_default();
        match kind {
            Kind::Job => names.has_job = true,
            Kind::Final => names.has_final = true,
            Kind::Lease { batch, epoch } => {
                let claim = ClaimNames { epoch, mark: listed.mark.clone(), has_end: false };
                let highest = names.claims.entry(batch).or_insert_with(|| claim.clone());
                if highest.epoch < epoch {
                    *highest = claim;
                }
            }
            Kind::Beat { .. } | Kind::End { .. } => {}
        }
    }
    // Now that the highest claims are known: what belongs to them.
    for listed in listing {
        let Some((job, generation, kind)) = parse_open(&listed.name) else { continue };
        let (Kind::Beat { batch, epoch } | Kind::End { batch, epoch }) = kind else { continue };
        let claim = jobs.get_mut(&(job, generation)).and_then(|names| names.claims.get_mut(&batch));
        if let Some(claim) = claim.filter(|claim| claim.epoch == epoch) {
            match kind {
                Kind::End { .. } => claim.has_end = true,
                _ => claim.mark.clone_from(&listed.mark),
            }
        }
    }
    jobs
}

/// An open job.
#[derive(Clone, Debug)]
pub(super) struct JobView {
    pub(super) job: JobId,
    pub(super) generation: u32,
    pub(super) doc: Arc<JobDoc>,
    pub(super) outcome: Option<Outcome>,
    pub(super) tasks: Vec<TaskView>,
}

/// One task of an open job.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskView {
    /// The last epoch given out, 0 before the first.
    pub(super) epoch: u32,
    /// Attempts counted in this generation.
    pub(super) attempts: u32,
    pub(super) worker: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) phase: Phase,
}

/// Where a task of an open job stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Due at once.
    #[default]
    Due,
    /// Due at a moment.
    Waiting { due_unix_ms: u64, delay_ms: u64 },
    /// Claimed and not ended. `mark` changes with each heartbeat.
    Leased { mark: String, process: Option<Process> },
    /// Committed.
    Done(TaskResult),
    /// The dead letter.
    GivenUp,
}

/// The records that a view is made of, behind the names.
pub(super) struct Docs {
    pub(super) job: Arc<JobDoc>,
    pub(super) outcome: Option<Arc<FinalDoc>>,
    /// Batch -> the highest claim and its end.
    pub(super) claims: BTreeMap<u32, (Arc<LeaseDoc>, Option<Arc<EndDoc>>)>,
}

impl JobView {
    /// Puts names and records together.
    pub(super) fn new(job: JobId, generation: u32, names: &Names, docs: Docs) -> Self {
        let count = docs.job.submission.tasks;
        let mut tasks = Vec::new();
        for batch in 0..count {
            let carried = usize::try_from(batch).ok().and_then(|index| docs.job.carried.get(index));
            let mut task = TaskView::default();
            if let Some(carried) = carried {
                task.epoch = carried.epoch;
                task.worker.clone_from(&carried.worker);
                if let Some(result) = &carried.result {
                    task.phase = Phase::Done(result.clone());
                }
            }
            if let (Some(claim), Some((lease, end))) = (names.claims.get(&batch), docs.claims.get(&batch)) {
                task.take_claim(claim, lease, end.as_deref());
            }
            tasks.push(task);
        }
        let outcome = docs.outcome.map(|found| found.outcome.clone());
        Self { job, generation, doc: docs.job, outcome, tasks }
    }

    pub(super) fn done(&self) -> u32 {
        self.count(|phase| matches!(phase, Phase::Done(_)))
    }

    pub(super) fn running(&self) -> u32 {
        self.count(|phase| matches!(phase, Phase::Leased { .. }))
    }

    fn count(&self, is: impl Fn(&Phase) -> bool) -> u32 {
        let found = self.tasks.iter().filter(|task| is(&task.phase)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    /// How the tasks say the job ended, whether or not anybody has written it down yet.
    pub(super) fn reached(&self) -> Option<Outcome> {
        let given_up = self.tasks.iter().find(|task| task.phase == Phase::GivenUp);
        if let Some(failure) = given_up.and_then(|task| task.failure.clone()) {
            return Some(Outcome::Failed(failure));
        }
        let all_done = self.tasks.iter().all(|task| matches!(task.phase, Phase::Done(_)));
        all_done.then_some(Outcome::Done)
    }

    /// Whether no task was attempted in this generation.
    pub(super) fn is_untouched(&self) -> bool {
        self.outcome.is_none() && self.tasks.iter().all(|task| task.attempts == 0)
    }

    pub(super) fn state(&self) -> JobState {
        match &self.outcome {
            Some(outcome) => outcome.state(),
            None if self.running() > 0 => JobState::Running,
            None => JobState::Queued,
        }
    }

    pub(super) fn summary(&self) -> JobSummary {
        JobSummary {
            job: self.job,
            submission: self.doc.submission.clone(),
            submitted_unix_ms: self.doc.submitted_unix_ms,
            state: self.state(),
            generation: self.generation,
            done: self.done(),
            running: if self.outcome.is_some() { 0 } else { self.running() },
            failure: self.outcome.as_ref().and_then(Outcome::failure).cloned(),
            is_sealed: self.outcome == Some(Outcome::Cancelled),
        }
    }

    pub(super) fn record(&self) -> JobRecord {
        let is_over = self.outcome.is_some();
        let tasks = self.tasks.iter().map(|task| {
            let state = match &task.phase {
                Phase::Leased { .. } if !is_over => TaskState::Running,
                Phase::Due | Phase::Waiting { .. } | Phase::Leased { .. } => TaskState::Queued,
                Phase::Done(_) => TaskState::Done,
                Phase::GivenUp => TaskState::Failed,
            };
            task.record(state)
        });
        JobRecord { summary: self.summary(), tasks: tasks.collect() }
    }

    /// The one record that is left of a job when it closes.
    pub(super) fn closed(&self, outcome: Outcome) -> ClosedDoc {
        let tasks = self.tasks.iter().map(|task| ClosedTask {
            epoch: task.epoch,
            attempts: task.attempts,
            worker: task.worker.clone(),
            result: task.result(),
            failure: task.failure.clone(),
            is_given_up: task.phase == Phase::GivenUp,
        });
        ClosedDoc {
            schema: SCHEMA.to_owned(),
            submission: self.doc.submission.clone(),
            submitted_unix_ms: self.doc.submitted_unix_ms,
            outcome,
            tasks: tasks.collect(),
        }
    }
}

impl TaskView {
    fn take_claim(&mut self, names: &ClaimNames, lease: &LeaseDoc, end: Option<&EndDoc>) {
        self.epoch = names.epoch;
        self.attempts = lease.attempt;
        self.worker = Some(lease.worker.clone());
        self.phase = match end.map(|found| &found.end) {
            None => Phase::Leased { mark: names.mark.clone(), process: lease.process.clone() },
            Some(End::Done(result)) => Phase::Done(result.clone()),
            Some(End::Failed(failure)) => {
                self.failure = Some(failure.clone());
                Phase::GivenUp
            }
            Some(End::Retry { failure, due_unix_ms, delay_ms }) => {
                self.failure = Some(failure.clone());
                Phase::Waiting { due_unix_ms: *due_unix_ms, delay_ms: *delay_ms }
            }
            Some(End::Released) => {
                self.attempts = lease.attempt.saturating_sub(1);
                Phase::Due
            }
        };
    }

    fn result(&self) -> Option<TaskResult> {
        match &self.phase {
            Phase::Done(result) => Some(result.clone()),
            _ => None,
        }
    }

    fn record(&self, state: TaskState) -> TaskRecord {
        TaskRecord {
            state,
            epoch: self.epoch,
            attempts: self.attempts,
            worker: self.worker.clone(),
            result: self.result(),
            failure: self.failure.clone(),
        }
    }
}

impl Phase {
    /// Milliseconds until the task may be claimed; `None` when it is not a matter of waiting for its time. A clock that is
    /// wrong by years shortens or lengthens the wait, but never beyond the delay itself.
    pub(super) fn due_in_ms(&self, now_unix_ms: u64) -> Option<u64> {
        match self {
            Self::Due => Some(0),
            Self::Waiting { due_unix_ms, delay_ms } => {
                let left_ms = due_unix_ms.saturating_sub(now_unix_ms);
                Some(if left_ms > *delay_ms { 0 } else { left_ms })
            }
            Self::Leased { .. } | Self::Done(_) | Self::GivenUp => None,
        }
    }
}

impl ClosedDoc {
    pub(super) fn summary(&self, job: JobId, generation: u32) -> JobSummary {
        let done = self.tasks.iter().filter(|task| task.result.is_some()).count();
        JobSummary {
            job,
            submission: self.submission.clone(),
            submitted_unix_ms: self.submitted_unix_ms,
            state: self.outcome.state(),
            generation,
            done: u32::try_from(done).unwrap_or(u32::MAX),
            running: 0,
            failure: self.outcome.failure().cloned(),
            is_sealed: true,
        }
    }

    pub(super) fn record(&self, job: JobId, generation: u32) -> JobRecord {
        let tasks = self.tasks.iter().map(|task| TaskRecord {
            state: match (&task.result, task.is_given_up) {
                (Some(_), _) => TaskState::Done,
                (None, true) => TaskState::Failed,
                (None, false) => TaskState::Queued,
            },
            epoch: task.epoch,
            attempts: task.attempts,
            worker: task.worker.clone(),
            result: task.result.clone(),
            failure: task.failure.clone(),
        });
        JobRecord { summary: self.summary(job, generation), tasks: tasks.collect() }
    }
}
