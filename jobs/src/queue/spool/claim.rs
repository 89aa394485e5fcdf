//! Claims: look at all open jobs, finish what others left half done, choose, and create the lease. Of two that choose the same task
//! one creates the lease; the other goes on to its next choice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::records::{self, End, LeaseDoc, Outcome, SCHEMA};
use super::view::{JobView, Phase};
use super::{Spool, delay_ms};
use crate::error::{JobsError, Result};
use crate::exit::ExitCode;
use crate::manifest::check;
use crate::queue::{Capacity, Claim, Failure, Idle, JobId, Lease, TaskId};

/// How often a claim looks again after it changed something, or lost every choice to others.
const ROUNDS: usize = 8;

/// What was finished on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tended {
    pub(super) leases_expired: u64,
    pub(super) jobs_ended: u64,
}

/// A task that may be claimed, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    /// Highest priority first.
    priority_down: i32,
    /// Then the tenant with the fewest running tasks.
    tenant_running: u64,
    submitted_unix_ms: u64,
    job: JobId,
    batch: u32,
    /// Index among the views; the last word only.
    view: usize,
}

impl Spool {
    pub(super) fn claim_task(&self, worker: &str, capacity: Capacity) -> Result<Claim> {
        check::check_name("worker", worker)?;
        let mut idle = Idle::default();
        for _ in 0..ROUNDS {
            let views = self.reader.scan()?.views;
            let round = self.next_round();
            let mut tended = Tended::default();
            for view in &views {
                let more = self.tend(view, round)?;
                tended.leases_expired += more.leases_expired;
                tended.jobs_ended += more.jobs_ended;
            }
            if tended.leases_expired + tended.jobs_ended > 0 {
                continue;
            }
            let choices;
            (choices, idle) = self.choices(&views, capacity, round);
            for choice in &choices {
                if let Some(lease) = self.take(&views[choice.view], choice.batch, worker)? {
                    return Ok(Claim::Task(Box::new(lease)));
                }
            }
            if choices.is_empty() {
                return Ok(Claim::Nothing(idle));
            }
        }
        // Others were faster each time, so there are others: come again soon.
        idle.next_in = Some(idle.next_in.unwrap_or(Duration::ZERO).min(Duration::from_millis(100)));
        Ok(Claim::Nothing(idle))
    }

    /// Finishes what is due in a job: leases that ran out, a deadline that passed, an end that was reached, a close.
    pub(super) fn tend(&self, view: &JobView, round: u64) -> Result<Tended> {
        let mut tended = Tended::default();
        match &view.outcome {
            Some(Outcome::Cancelled) => return self.close(view, &Outcome::Cancelled).map(|()| tended),
            Some(Outcome::Done | Outcome::Failed(_)) => return Ok(tended),
            None => {}
        }
        for (batch, task) in (0..).zip(&view.tasks) {
            let left = self.lease_left(view, batch, round);
            if left.is_some_and(|left| left.is_zero()) {
                let worker = task.worker.as_deref().unwrap_or("unknown");
                tended.leases_expired += u64::from(self.take_back(view, batch, worker)?);
            }
        }
        let reached = view.reached().or_else(|| self.overdue(view));
        if let Some(outcome) = reached {
            self.settle(view, outcome, "reconcile")?;
            tended.jobs_ended += 1;
        }
        Ok(tended)
    }

    /// A failure when the deadline has passed and a task is left that nobody has begun.
    fn overdue(&self, view: &JobView) -> Option<Outcome> {
        let deadline_ms = view.doc.submission.deadline_unix_ms?;
        let now_ms = self.clock.unix_ms();
        let waits = view.tasks.iter().any(|task| matches!(task.phase, Phase::Due | Phase::Waiting { .. }));
        (waits && now_ms > deadline_ms).then(|| Outcome::Failed(overdue(deadline_ms, now_ms)))
    }

    /// Ends a lease that ran out: the task is due at once, or given up when this was its last attempt. False when its
    /// holder, or another, ended it first.
    fn take_back(&self, view: &JobView, batch: u32, worker: &str) -> Result<bool> {
        let task = &view.tasks[batch as usize];
        let failure = ran_out(worker, task.attempts);
        let end = if task.attempts >= self.settings.attempts_limit {
            End::Failed(given_up(&failure, task.attempts))
        } else {
            End::Retry { failure, due_unix_ms: self.clock.unix_ms(), delay_ms: 0 }
        };
        let name = records::end_name(view.job, view.generation, batch, task.epoch);
        crate::failpoint!("spool.expire.before-end", JobsError::storage_io(&name));
        let doc = records::EndDoc { schema: SCHEMA.to_owned(), end, is_holder: false };
        self.objects.create(&name, records::to_bytes(&name, &doc)?)
    }

    fn choices(&self, views: &[JobView], capacity: Capacity, round: u64) -> (Vec<Choice>, Idle) {
        let mut running: BTreeMap<&str, u64> = BTreeMap::new();
        for view in views.iter().filter(|view| view.outcome.is_none()) {
            *running.entry(&view.doc.submission.tenant).or_default() += u64::from(view.running());
        }
        let now_ms = self.clock.unix_ms();
        let (mut choices, mut idle) = (Vec::new(), Idle::default());
        for (index, view) in views.iter().enumerate().filter(|(_, view)| view.outcome.is_none()) {
            let submission = &view.doc.submission;
            for (batch, task) in (0..).zip(&view.tasks) {
                if let Some(left) = self.lease_left(view, batch, round) {
                    idle.leased += 1;
                    idle.hear_of(left);
                    continue;
                }
                match task.phase.due_in_ms(now_ms) {
                    None => {}
                    Some(0) if !submission.fits(capacity) => idle.too_large += 1,
                    Some(0) => choices.push(Choice {
                        priority_down: -i32::from(submission.priority),
                        tenant_running: running.get(submission.tenant.as_str()).copied().unwrap_or_default(),
                        submitted_unix_ms: view.doc.submitted_unix_ms,
                        job: view.job,
                        batch,
                        view: index,
                    }),
                    Some(left_ms) => {
                        idle.waiting += 1;
                        idle.hear_of(Duration::from_millis(left_ms));
                    }
                }
            }
        }
        choices.sort_unstable();
        (choices, idle)
    }

    /// Creates the lease, and looks whether the job was still open then; `None` when somebody was faster.
    fn take(&self, view: &JobView, batch: u32, worker: &str) -> Result<Option<Lease>> {
        let task = &view.tasks[batch as usize];
        let (epoch, attempt) = (task.epoch + 1, task.attempts + 1);
        let name = records::lease_name(view.job, view.generation, batch, epoch);
        let doc = LeaseDoc {
            schema: SCHEMA.to_owned(),
            worker: worker.to_owned(),
            attempt,
            process: self.process.clone(),
            nonce: self.random(),
        };
        crate::failpoint!("spool.claim.before-lease", JobsError::storage_io(&name));
        if !self.objects.create(&name, records::to_bytes(&name, &doc)?)? {
            return Ok(None);
        }
        crate::failpoint!("spool.claim.after-lease", JobsError::storage_io(&name));
        if !self.is_open(view.job, view.generation)? {
            // Over since we looked. If it is closed as well, the lease would remain for good.
            if self.objects.size(&records::job_name(view.job, view.generation))?.is_none() {
                self.objects.delete(&name)?;
            }
            return Ok(None);
        }
        Ok(Some(Lease {
            task: TaskId { job: view.job, batch },
            epoch,
            attempt,
            generation: view.generation,
            worker: worker.to_owned(),
            submission: view.doc.submission.clone(),
        }))
    }

    /// Whether the job was open and not over at one moment during this call. `final` is looked at first: a close removes
    /// it after the job's own record.
    pub(super) fn is_open(&self, job: JobId, generation: u32) -> Result<bool> {
        Ok(self.objects.size(&records::final_name(job, generation))?.is_none()
            && self.objects.size(&records::job_name(job, generation))?.is_some())
    }

    /// The end that a failure of this attempt makes.
    pub(super) fn end_of(&self, failure: &Failure, attempt: u32) -> End {
        if !failure.is_retryable {
            return End::Failed(failure.clone());
        }
        if attempt >= self.settings.attempts_limit {
            return End::Failed(given_up(failure, attempt));
        }
        let delay_ms = delay_ms(&self.settings, attempt, self.random());
        let due_unix_ms = self.clock.unix_ms().saturating_add(delay_ms);
        End::Retry { failure: failure.clone(), due_unix_ms, delay_ms }
    }
}

impl Idle {
    /// Something may change after this time.
    pub(crate) fn hear_of(&mut self, left: Duration) {
        self.next_in = Some(self.next_in.map_or(left, |known| known.min(left)));
    }
}

/// What is written of a lease that ran out.
pub(crate) fn ran_out(worker: &str, attempt: u32) -> Failure {
    let reason = format!("attempt {attempt}: the lease of worker {worker} ran out; it died, froze or lost the queue");
    Failure::retryable(&reason, ExitCode::TryLater)
}

/// What is written of the last attempt.
pub(crate) fn given_up(last: &Failure, attempts: u32) -> Failure {
    Failure::permanent(&format!("given up after {attempts} attempts; the last: {}", last.reason), last.exit_code)
}

/// What is written of a job whose time is over.
pub(crate) fn overdue(deadline_unix_ms: u64, now_unix_ms: u64) -> Failure {
    let late_secs = now_unix_ms.saturating_sub(deadline_unix_ms).div_ceil(1000);
    let reason =
        format!("deadline passed {late_secs} s ago (at {deadline_unix_ms} ms since 1970), not all tasks begun");
    Failure::permanent(&reason, ExitCode::BadData)
}
