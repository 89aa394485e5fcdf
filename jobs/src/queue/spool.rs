//! The queue without a server: records in a folder or a bucket, decided by who creates one first. Of two that want the same, one
//! creates the record and the other finds it there; nothing is ever changed in place, no clock is compared with
//! another's, and a process that dies leaves at worst a lease that others see run out.
//!
//! What is decided by which record (names in [`records`]): a claim by `lease`; the end of a claim, whether by its holder's commit or by
//! another who found it run out, by the one `end` of that epoch, so that a worker that wakes up late finds its place taken;
//! the end of a job by `final`. Whoever meets something half done finishes it first.
//!
//! Made for thousands of jobs and hundreds of tasks a job: a claim lists all open jobs, a commit its own. Beyond that, use PostgreSQL.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::address::{BACKOFF_LIMIT, Settings};
use super::{
    Cancelled, Capacity, Claim, Clock, Committed, Ended, Failure, JobId, JobRecord, JobState, JobSummary, Lease,
    ListFilter, Pulse, Queue, Reconciled, Requeued, Stats, Submission, Submitted, TaskResult,
};
use crate::error::{JobsError, Result};
use crate::store::objects::Objects;

mod claim;
mod close;
mod end;
mod process;
mod reader;
mod records;
#[cfg(test)]
mod simulation;
mod view;
mod watch;

#[cfg(feature = "postgres")]
pub(crate) use claim::{given_up, overdue, ran_out};
pub(crate) use process::Process;

use reader::{Found, Reader};
use records::{Carried, JobDoc, Outcome, SCHEMA};
use view::{JobView, Phase};
use watch::Watch;

/// Longest sleep of [`Queue::wait`] on a folder.
const FOLDER_POLL: Duration = Duration::from_millis(500);
/// Longest sleep of [`Queue::wait`] on a bucket, where each look costs a request.
const BUCKET_POLL: Duration = Duration::from_secs(5);

/// A queue in an object store.
pub(crate) struct Spool {
    objects: Arc<Objects>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// This process, for others on this machine.
    process: Option<Process>,
    reader: Reader,
    watch: Mutex<Watch>,
    rounds: AtomicU64,
    /// State of the generator behind nonces and delays.
    random: AtomicU64,
}

impl Spool {
    /// `seed` must differ between processes that use the same store.
    pub(crate) fn new(
        objects: Arc<Objects>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        process: Option<Process>,
        seed: u64,
    ) -> Self {
        let reader = Reader::new(Arc::clone(&objects));
        let (watch, rounds, random) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(seed));
        Self { objects, settings, clock, process, reader, watch, rounds, random }
    }

    /// The next of a stream of well mixed numbers (SplitMix64, Steele et al. 2014); not for secrets.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether this lease has run out: its process is gone, or it was not heard of for its whole life as far as this process
    /// has watched. How long it may still live otherwise.
    fn lease_left(&self, view: &JobView, batch: u32, round: u64) -> Option<Duration> {
        let task = &view.tasks[batch as usize];
        let Phase::Leased { mark, process } = &task.phase else { return None };
        if process.as_ref().is_some_and(|process| self.process.is_some() && process.is_gone()) {
            return Some(Duration::ZERO);
        }
        let name = records::lease_name(view.job, view.generation, batch, task.epoch);
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let age = watch.age(&name, mark, self.clock.monotonic(), round);
        Some(self.settings.ttl.saturating_sub(age))
    }

    fn next_round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn known(&self, found: &Found, job: &Submission) -> Result<Submitted> {
        let submission = match found {
            Found::Open(view) => &view.doc.submission,
            Found::Closed { doc, .. } => &doc.submission,
        };
        if submission.manifest == job.manifest {
            return Ok(Submitted { job: job.job_id(), is_new: false });
        }
        Err(JobsError::KeyReused {
            tenant: job.tenant.clone(),
            key: job.idempotency_key.clone(),
            found: job.manifest,
            expected: submission.manifest,
        })
    }

    fn require(&self, job: JobId) -> Result<Found> {
        self.reader.find(job)?.ok_or(JobsError::NoSuchJob { job })
    }
}

/// The delay after an attempt: `backoff` doubled for each one before, at most [`BACKOFF_LIMIT`], times 1/2 to 3/2, so that many
/// that failed together do not come back together.
pub(crate) fn delay_ms(settings: &Settings, attempt: u32, random: u64) -> u64 {
    let doubled = settings.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    let base_ms = u64::try_from(doubled.min(BACKOFF_LIMIT).as_millis()).unwrap_or(u64::MAX);
    base_ms / 2 + random % (base_ms + 1)
}

impl Queue for Spool {
    fn submit(&self, job: &Submission) -> Result<Submitted> {
        job.validate()?;
        let id = job.job_id();
        if let Some(found) = self.reader.find(id)? {
            return self.known(&found, job);
        }
        let doc = JobDoc {
            schema: SCHEMA.to_owned(),
            submission: job.clone(),
            submitted_unix_ms: self.clock.unix_ms(),
            carried: Vec::new(),
            nonce: self.random(),
        };
        let name = records::job_name(id, 0);
        crate::failpoint!("spool.submit.before-job", JobsError::storage_io(&name));
        let is_new = self.objects.create(&name, records::to_bytes(&name, &doc)?)?;
        crate::failpoint!("spool.submit.after-job", JobsError::storage_io(&name));
        if is_new && !self.reader.closed_generations(id)?.contains_key(&0) {
            return Ok(Submitted { job: id, is_new: true });
        }
        if is_new {
            // Submitted, run and closed by others since we looked.
            self.objects.delete(&name)?;
        }
        self.known(&self.require(id)?, job)
    }

    fn claim(&self, worker: &str, capacity: Capacity) -> Result<Claim> {
        self.claim_task(worker, capacity)
    }

    fn heartbeat(&self, lease: &Lease) -> Result<Pulse> {
        self.beat(lease)
    }

    fn commit(&self, lease: &Lease, result: &TaskResult) -> Result<Committed> {
        self.commit_task(lease, result)
    }

    fn fail(&self, lease: &Lease, failure: &Failure) -> Result<Ended> {
        self.fail_task(lease, failure)
    }

    fn release(&self, lease: &Lease) -> Result<Ended> {
        self.release_task(lease)
    }

    fn cancel(&self, job: JobId) -> Result<Cancelled> {
        let view = match self.require(job)? {
            Found::Closed { doc, .. } => return Ok(cancelled(doc.outcome.state())),
            Found::Open(view) => view,
        };
        let outcome = match view.outcome.clone().or_else(|| view.reached()) {
            Some(outcome) => self.settle(&view, outcome, "cancel")?,
            None => self.settle(&view, Outcome::Cancelled, "cancel")?,
        };
        if outcome == Outcome::Cancelled {
            self.close(&view, &outcome)?;
        }
        Ok(cancelled(outcome.state()))
    }

    fn requeue(&self, job: JobId) -> Result<Requeued> {
        let (generation, doc) = match self.require(job)? {
            Found::Closed { generation, doc } => (generation, doc),
            Found::Open(view) => {
                let outcome = match view.outcome.clone().or_else(|| view.reached()) {
                    None => return Ok(Requeued::Not(view.state())),
                    Some(reached) => self.settle(&view, reached, "requeue")?,
                };
                if outcome == Outcome::Done {
                    return Ok(Requeued::Not(JobState::Done));
                }
                self.close(&view, &outcome)?;
                match self.require(job)? {
                    Found::Closed { generation, doc } => (generation, doc),
                    // Somebody else has requeued it since.
                    Found::Open(view) => return Ok(Requeued::Requeued { generation: view.generation }),
                }
            }
        };
        if doc.outcome == Outcome::Done {
            return Ok(Requeued::Not(JobState::Done));
        }
        let carried = doc.tasks.into_iter().map(|task| Carried {
            epoch: task.epoch,
            worker: task.worker.filter(|_| task.result.is_some()),
            result: task.result,
        });
        let next = JobDoc {
            schema: SCHEMA.to_owned(),
            submission: doc.submission,
            submitted_unix_ms: doc.submitted_unix_ms,
            carried: carried.collect(),
            nonce: self.random(),
        };
        let generation = generation + 1;
        let name = records::job_name(job, generation);
        crate::failpoint!("spool.requeue.before-job", JobsError::storage_io(&name));
        let is_new = self.objects.create(&name, records::to_bytes(&name, &next)?)?;
        crate::failpoint!("spool.requeue.after-job", JobsError::storage_io(&name));
        if is_new && self.reader.closed_generations(job)?.contains_key(&generation) {
            self.objects.delete(&name)?;
        }
        Ok(Requeued::Requeued { generation })
    }

    fn get(&self, job: JobId) -> Result<Option<JobRecord>> {
        Ok(self.reader.find(job)?.map(|found| match found {
            Found::Open(view) => view.record(),
            Found::Closed { generation, doc } => doc.record(job, generation),
        }))
    }

    fn list(&self, filter: &ListFilter) -> Result<Vec<JobSummary>> {
        let scan = self.reader.scan()?;
        let mut closed = self.reader.closed_jobs()?;
        let mut found = Vec::new();
        for view in &scan.views {
            match closed.get(&view.job) {
                // Closed, and its open records not removed yet.
                Some(&(generation, _)) if generation >= view.generation => {}
                _ => {
                    closed.remove(&view.job);
                    found.push(view.summary());
                }
            }
        }
        let wanted: Vec<(JobId, u32, JobState)> = closed
            .into_iter()
            .map(|(job, (generation, state))| (job, generation, state))
            .filter(|(_, _, state)| filter.state.is_none_or(|wanted| wanted == *state))
            .collect();
        let docs = self.reader.closed_docs(&wanted)?;
        found.extend(docs.iter().map(|(job, generation, doc)| doc.summary(*job, *generation)));
        found.retain(|summary| {
            filter.state.is_none_or(|state| state == summary.state)
                && filter.tenant.as_ref().is_none_or(|tenant| *tenant == summary.submission.tenant)
        });
        found.sort_by_key(|summary| (std::cmp::Reverse(summary.submitted_unix_ms), summary.job));
        found.truncate(filter.limit.unwrap_or(usize::MAX));
        Ok(found)
    }

    fn stats(&self) -> Result<Stats> {
        let scan = self.reader.scan()?;
        let mut closed = self.reader.closed_jobs()?;
        let (mut stats, round, now_ms) = (Stats::default(), self.next_round(), self.clock.unix_ms());
        for view in &scan.views {
            if closed.get(&view.job).is_some_and(|&(generation, _)| generation >= view.generation) {
                continue;
            }
            closed.remove(&view.job);
            stats.count(view.state());
            if view.outcome.is_some() {
                continue;
            }
            for (batch, task) in (0..).zip(&view.tasks) {
                match &task.phase {
                    Phase::Due | Phase::Waiting { .. } => stats.tasks_queued += 1,
                    Phase::Leased { .. } => {
                        let left = self.lease_left(view, batch, round);
                        stats.live_leases += u64::from(left.is_some_and(|left| !left.is_zero()));
                    }
                    Phase::Done(_) | Phase::GivenUp => {}
                }
            }
            if view.is_untouched() {
                let waited_ms = now_ms.saturating_sub(view.doc.submitted_unix_ms);
                stats.oldest_queued_ms = stats.oldest_queued_ms.max(Some(waited_ms));
            }
        }
        closed.into_values().for_each(|(_, state)| stats.count(state));
        Ok(stats)
    }

    fn reconcile(&self) -> Result<Reconciled> {
        let scan = self.reader.scan()?;
        let mut changed = Reconciled { damaged_jobs: scan.damaged.len() as u64, ..Reconciled::default() };
        let round = self.next_round();
        for view in &scan.views {
            let tended = self.tend(view, round)?;
            changed.leases_expired += tended.leases_expired;
            changed.jobs_ended += tended.jobs_ended;
        }
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).forget_before(round);
        changed.remains_removed = self.clear_remains(&self.reader.scan()?)?;
        Ok(changed)
    }

    fn unsealed(&self) -> Result<Vec<JobSummary>> {
        const LIMIT: usize = 1000;
        let mut found = Vec::new();
        for mut view in self.reader.scan()?.views {
            if view.outcome.is_none()
                && let Some(reached) = view.reached()
            {
                view.outcome = Some(self.settle(&view, reached, "unsealed")?);
            }
            if matches!(view.outcome, Some(Outcome::Done | Outcome::Failed(_))) {
                found.push(view.summary());
            }
        }
        found.sort_by_key(|summary| (summary.submitted_unix_ms, summary.job));
        found.truncate(LIMIT);
        Ok(found)
    }

    fn seal(&self, job: JobId, generation: u32) -> Result<()> {
        let Some(view) = self.reader.view(job, generation)? else { return Ok(()) };
        match view.outcome.clone().or_else(|| view.reached()) {
            None | Some(Outcome::Cancelled) => Ok(()),
            Some(reached) => {
                let outcome = self.settle(&view, reached, "seal")?;
                self.close(&view, &outcome)
            }
        }
    }

    fn wait(&self, at_most: Duration) -> Result<()> {
        let poll = if self.objects.folder().is_some() { FOLDER_POLL } else { BUCKET_POLL };
        self.clock.sleep(at_most.min(poll));
        Ok(())
    }

    fn lease_ttl(&self) -> Duration {
        self.settings.ttl
    }

    fn now_unix_ms(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

fn cancelled(state: JobState) -> Cancelled {
    match state {
        JobState::Cancelled => Cancelled::Cancelled,
        other => Cancelled::Already(other),
    }
}
