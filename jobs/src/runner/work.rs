//! The loop: slots that claim and work, and one watcher that minds signals, grace and what other workers left undone.
//!
//! A slot claims with what the machine has, less what running tasks need; claims of one worker happen one after the other, so
//! that this adds up. Slots are threads of their own and are not waited for without end: when a worker must leave, it hands back the leases
//! of those that do not stop in time, and their threads end with the process.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::{Stop, Why};
use super::task::{self, End, is_passing};
use super::{Event, FAILURES_LIMIT, IDLE_LIMIT, Options, Parts, STOPPING, Summary, Until, seal};
use crate::error::{JobsError, Result};
use crate::exit::ExitCode;
use crate::queue::{Capacity, Claim, Idle, Lease, Needs, TaskId};

/// First pause of a worker that found nothing; doubles up to [`IDLE_LIMIT`].
const IDLE_FIRST: Duration = Duration::from_millis(50);
/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);
/// First pause after a queue or store did not answer; doubles up to a minute.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// Works as the options say.
///
/// # Errors
/// Queue or store did not answer and the worker was to end by itself; what it had done stands.
pub fn run(parts: Parts) -> Result<Summary> {
    Runner::new(parts).run()
}

/// A worker of a queue.
pub struct Runner {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    /// What is being worked on. Held over a claim.
    running: Mutex<Vec<Running>>,
    summary: Mutex<Summary>,
    /// Nobody claims any more: a signal, or this machine cannot work.
    closed: std::sync::atomic::AtomicBool,
}

/// A lease, what stops its work, and the memory that it may take.
type Claimed = (Lease, Arc<Stop>, u64);

struct Running {
    lease: Lease,
    stop: Arc<Stop>,
}

impl Runner {
    /// A worker that has not begun.
    pub fn new(parts: Parts) -> Self {
        let shared = Shared { parts, running: Mutex::default(), summary: Mutex::default(), closed: Default::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Works as the options say.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self) -> Result<Summary> {
        let shared = &self.shared;
        let (ended, ends) = mpsc::channel();
        let slots = if shared.options().until == Until::Once { 1 } else { shared.options().slots.max(1) };
        for slot in 0..slots {
            let (shared, ended): (_, Sender<Result<()>>) = (Arc::clone(shared), ended.clone());
            let work = move || {
                let outcome = shared.slot();
                // Before it is told: whoever has heard of all slots holds the last of what they shared, scratch among it.
                drop(shared);
                // Nobody listens when the worker has left without this slot.
                let _gone = ended.send(outcome);
            };
            std::thread::Builder::new().name(format!("slot-{slot}")).spawn(work).map_err(no_thread)?;
        }
        drop(ended);
        let outcome = shared.watch(&ends, slots);
        outcome.map(|()| locked(&shared.summary).clone())
    }
}

fn no_thread(source: std::io::Error) -> JobsError {
    JobsError::Create { path: "a thread".into(), source }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn options(&self) -> &Options {
        &self.parts.options
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.parts.signals.load(Ordering::Acquire) > 0
    }

    /// Waits for all slots, or until they have had time enough.
    fn watch(&self, ends: &Receiver<Result<()>>, slots: usize) -> Result<()> {
        let mut first_error = None;
        let mut left = slots;
        let mut draining_since = None;
        let mut stopping_since = None;
        // A worker that leaves at once, as one from cron does, first does what is owed.
        let mut tended = self.tend().map(|()| Instant::now());
        while left > 0 {
            match ends.recv_timeout(TICK) {
                Ok(outcome) => {
                    left -= 1;
                    if let Err(error) = outcome {
                        self.closed.store(true, Ordering::Release);
                        first_error.get_or_insert(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => left = 0,
            }
            let signals = self.parts.signals.load(Ordering::Acquire);
            if signals > 0 && draining_since.is_none() {
                draining_since = Some(Instant::now());
                (self.parts.observe)(Event::Draining { running: locked(&self.running).len() });
            }
            let is_over = draining_since.is_some_and(|since: Instant| since.elapsed() >= self.options().grace);
            if (is_over || signals > 1) && stopping_since.is_none() {
                stopping_since = Some(Instant::now());
                locked(&self.running).iter().for_each(|running| running.stop.set(Why::Draining));
            }
            if stopping_since.is_some_and(|since: Instant| since.elapsed() >= STOPPING) {
                self.abandon();
                break;
            }
            let is_due = tended.as_ref().map_or(true, |at| at.elapsed() >= self.parts.queue.lease_ttl());
            if is_due && left > 0 && signals == 0 {
                tended = self.tend().map(|()| Instant::now());
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        // Jobs that ended on the way with no worker at their end: attempts used up, a deadline passed. What cannot be written now
        // the next worker writes.
        if left == 0
            && self.parts.signals.load(Ordering::Acquire) < 2
            && let Err(error) = seal::all(&self.parts)
        {
            (self.parts.observe)(Event::Unavailable { doing: "seal", error: &error });
        }
        Ok(())
    }

    /// Does what dead workers left: leases that ran out, jobs without receipts.
    fn tend(&self) -> std::result::Result<(), ()> {
        let told = |doing, outcome: Result<()>| {
            outcome.map_err(|error| (self.parts.observe)(Event::Unavailable { doing, error: &error }))
        };
        let reconciled = self.parts.queue.reconcile().map(|found| {
            if found.leases_expired > 0 {
                (self.parts.observe)(Event::Reconciled { leases: found.leases_expired });
            }
        });
        told("reconcile", reconciled)?;
        if self.options().counts {
            let stats = self.parts.queue.stats();
            told("count", stats.map(|stats| (self.parts.observe)(Event::Counted { stats })))?;
        }
        told("seal", seal::all(&self.parts))
    }

    /// Hands back what did not stop: its threads may still run, and can no longer commit.
    fn abandon(&self) {
        let running = std::mem::take(&mut *locked(&self.running));
        for Running { lease, .. } in running {
            // Where this fails too, the lease runs out.
            if self.parts.queue.release(&lease).is_ok() {
                (self.parts.observe)(Event::Released { lease: &lease });
            }
            locked(&self.summary).released += 1;
        }
    }

    /// Claims and works until there is a reason to end.
    fn slot(&self) -> Result<()> {
        let mut failures = 0;
        let mut idle_pause = IDLE_FIRST;
        let mut watched_since: Option<Instant> = None;
        while !self.is_closed() {
            let outcome = self.claim().and_then(|claim| match claim {
                Err(idle) => Ok(Some(idle)),
                Ok((lease, stop, memory_bytes)) => {
                    let end = task::run(&self.parts, &lease, &stop, memory_bytes);
                    self.forget(&lease);
                    self.count(lease.task, end?);
                    Ok(None)
                }
            });
            match outcome {
                Ok(None) => {
                    (failures, idle_pause, watched_since) = (0, IDLE_FIRST, None);
                    if self.options().until == Until::Once {
                        return Ok(());
                    }
                }
                Ok(Some(idle)) => {
                    failures = 0;
                    let since = *watched_since.get_or_insert_with(Instant::now);
                    if self.is_finished(idle, since) {
                        return Ok(());
                    }
                    (self.parts.observe)(Event::Idle { idle });
                    self.pause(idle_pause.min(idle.next_in.unwrap_or(IDLE_LIMIT)))?;
                    idle_pause = (2 * idle_pause).min(IDLE_LIMIT);
                }
                Err(error) => {
                    failures += 1;
                    (self.parts.observe)(Event::Unavailable { doing: "work", error: &error });
                    let ends_by_itself = self.options().until != Until::Told;
                    if !is_passing(&error) || (ends_by_itself && failures >= FAILURES_LIMIT) {
                        return Err(error);
                    }
                    self.sleep((RETRY_FIRST * 2_u32.pow(failures.min(8))).min(RETRY_LIMIT));
                }
            }
        }
        Ok(())
    }

    /// The next task, its stop and the memory it may take; or why there is none.
    fn claim(&self) -> Result<std::result::Result<Claimed, Idle>> {
        let mut running = locked(&self.running);
        // Asked under the lock: a signal that came before is seen, and one that comes now finds the task among the running.
        if self.is_closed() {
            return Ok(Err(Idle::default()));
        }
        let all = (self.parts.capacity)();
        let used = running.iter().fold(Needs::default(), |sum, running| {
            let needs = running.lease.submission.needs;
            Needs {
                memory_bytes: sum.memory_bytes.saturating_add(needs.memory_bytes),
                scratch_bytes: sum.scratch_bytes.saturating_add(needs.scratch_bytes),
            }
        });
        let free = Capacity {
            memory_bytes: all.memory_bytes.saturating_sub(used.memory_bytes),
            scratch_bytes: all.scratch_bytes.saturating_sub(used.scratch_bytes),
            engines: all.engines,
        };
        match self.parts.queue.claim(&self.options().worker, free)? {
            Claim::Nothing(idle) => Ok(Err(idle)),
            Claim::Task(lease) => {
                let stop = Arc::new(Stop::default());
                running.push(Running { lease: (*lease).clone(), stop: Arc::clone(&stop) });
                Ok(Ok((*lease, stop, free.memory_bytes)))
            }
        }
    }

    fn forget(&self, lease: &Lease) {
        locked(&self.running).retain(|running| running.lease.task != lease.task || running.lease.epoch != lease.epoch);
    }

    fn count(&self, task: TaskId, end: End) {
        let mut summary = locked(&self.summary);
        let failure = match &end {
            End::Done => None,
            End::Released => Some(("the worker was told to leave".to_owned(), ExitCode::TryLater)),
            End::Lost => Some(("the lease was lost".to_owned(), ExitCode::TryLater)),
            End::Failed { reason, exit_code } | End::Machine { reason, exit_code } => {
                Some((reason.clone(), *exit_code))
            }
        };
        if let Some((reason, exit_code)) = failure {
            summary.last_failure = Some((task, reason, exit_code));
        }
        match end {
            End::Done => summary.done += 1,
            End::Released => summary.released += 1,
            End::Lost => summary.lost += 1,
            End::Failed { .. } => summary.failed += 1,
            End::Machine { reason, exit_code } => {
                self.closed.store(true, Ordering::Release);
                summary.released += 1;
                summary.machine.get_or_insert((reason, exit_code));
            }
        }
    }

    /// Whether a worker that found nothing ends. One from cron looks on as long as a lease may live, so that it takes over what a killed
    /// one left: nobody else may come by in time to see that lease run out.
    fn is_finished(&self, idle: Idle, since: Instant) -> bool {
        match self.options().until {
            Until::Told => false,
            Until::Empty => idle.waiting == 0 && idle.leased == 0,
            Until::Once => {
                // A little more than a lease's life: the queue counts from when it first looked.
                let long_enough = self.parts.queue.lease_ttl() + self.parts.queue.lease_ttl() / 4;
                idle.leased == 0 || since.elapsed() >= long_enough
            }
        }
    }

    /// Waits for the doorbell in pieces, so that signals are seen.
    fn pause(&self, at_most: Duration) -> Result<()> {
        let until = Instant::now() + at_most;
        while !self.is_closed() {
            let now = Instant::now();
            let piece = until.saturating_duration_since(now).min(10 * TICK);
            if piece.is_zero() {
                break;
            }
            self.parts.queue.wait(piece)?;
            // Back early: somebody rang.
            if now.elapsed() < piece {
                break;
            }
        }
        Ok(())
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_closed() && Instant::now() < until {
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}
