//! Scenarios of leases: kept by heartbeats, lost by silence, and worth nothing once lost.

use std::time::Duration;

use super::{Scenario, Yard, claim, commit, job, nothing, result, retryable, run_out, state_of, submit};
use crate::queue::{Committed, Ended, JobState, Lease, Pulse, Queue, TTL, TaskState};

pub(super) const ALL: &[Scenario] = &[
    ("heartbeats_keep_a_lease", heartbeats_keep_a_lease),
    ("silence_loses_a_lease", silence_loses_a_lease),
    ("a_frozen_worker_cannot_commit", a_frozen_worker_cannot_commit),
    ("a_frozen_worker_cannot_fail_the_task", a_frozen_worker_cannot_fail_the_task),
    ("a_frozen_worker_cannot_release", a_frozen_worker_cannot_release),
    ("a_frozen_worker_hears_that_it_lost", a_frozen_worker_hears_that_it_lost),
    ("a_frozen_worker_cannot_undo_a_commit", a_frozen_worker_cannot_undo_a_commit),
    ("late_but_first_is_in_time", late_but_first_is_in_time),
    ("epochs_rise_with_each_claim", epochs_rise_with_each_claim),
    ("a_released_task_is_due_and_not_counted", a_released_task_is_due_and_not_counted),
    ("a_released_lease_is_over", a_released_lease_is_over),
    ("a_poisoned_task_is_given_up", a_poisoned_task_is_given_up),
    ("idle_tells_when_to_come_back", idle_tells_when_to_come_back),
];

fn heartbeats_keep_a_lease(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    for _ in 0..9 {
        assert_eq!(nothing(&*other).leased, 1);
        yard.pass(TTL / 3);
        assert_eq!(queue.heartbeat(&lease).unwrap(), Pulse::Alive);
    }
    assert_eq!(commit(&*queue, &lease), Committed::Job);
}

fn silence_loses_a_lease(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    submit(yard, &*queue, &job("a", "k", 1));
    let first = claim(&*queue, "first");
    other.stats().unwrap();
    yard.pass(TTL - Duration::from_secs(1));
    nothing(&*other);
    yard.pass(Duration::from_secs(2));
    let second = claim(&*other, "second");
    assert_eq!(second.task, first.task);
    assert_eq!((second.epoch, second.attempt, second.generation), (2, 2, 0));
    let record = other.get(first.task.job).unwrap().unwrap();
    assert_eq!(record.tasks[0].worker.as_deref(), Some("second"));
}

/// A lease that ran out while its worker was frozen, and the one after it.
fn frozen(yard: &dyn Yard, queue: &dyn Queue, other: &dyn Queue, tasks: u32) -> (Lease, Lease) {
    submit(yard, queue, &job("a", "k", tasks));
    let old = claim(queue, "frozen");
    run_out(yard, other);
    let new = claim(other, "new");
    assert_eq!(new.task, old.task);
    (old, new)
}

fn a_frozen_worker_cannot_commit(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let (old, new) = frozen(yard, &*queue, &*other, 1);
    assert_eq!(queue.commit(&old, &result("old")).unwrap(), Committed::Lost);
    assert_eq!(state_of(&*queue, old.task.job), JobState::Running);
    assert_eq!(other.commit(&new, &result("new")).unwrap(), Committed::Job);
    assert_eq!(queue.commit(&old, &result("old")).unwrap(), Committed::Lost);
    let record = queue.get(old.task.job).unwrap().unwrap();
    assert_eq!(record.tasks[0].result, Some(result("new")));
    assert_eq!(record.tasks[0].epoch, 2);
    queue.seal(old.task.job, 0).unwrap();
    assert_eq!(queue.commit(&old, &result("old")).unwrap(), Committed::Lost);
    assert_eq!(queue.heartbeat(&old).unwrap(), Pulse::Lost);
    assert_eq!(queue.get(old.task.job).unwrap().unwrap().tasks[0].result, Some(result("new")));
}

fn a_frozen_worker_cannot_fail_the_task(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let (old, new) = frozen(yard, &*queue, &*other, 1);
    let permanent = crate::queue::Failure::permanent("bad", crate::ExitCode::BadData);
    assert_eq!(queue.fail(&old, &permanent).unwrap(), Ended::Lost);
    assert_eq!(queue.fail(&old, &retryable("disk")).unwrap(), Ended::Lost);
    assert_eq!(state_of(&*queue, old.task.job), JobState::Running);
    assert_eq!(commit(&*other, &new), Committed::Job);
}

fn a_frozen_worker_cannot_release(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let (old, new) = frozen(yard, &*queue, &*other, 1);
    assert_eq!(queue.release(&old).unwrap(), Ended::Lost);
    nothing(&*queue);
    assert_eq!(commit(&*other, &new), Committed::Job);
}

fn a_frozen_worker_hears_that_it_lost(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let (old, new) = frozen(yard, &*queue, &*other, 1);
    assert_eq!(queue.heartbeat(&old).unwrap(), Pulse::Lost);
    assert_eq!(other.heartbeat(&new).unwrap(), Pulse::Alive);
    // The old one's heartbeat did not keep the new one's lease.
    run_out(yard, &*queue);
    assert_eq!(queue.heartbeat(&old).unwrap(), Pulse::Lost);
    assert_eq!(claim(&*queue, "third").epoch, 3);
}

fn a_frozen_worker_cannot_undo_a_commit(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let (old, new) = frozen(yard, &*queue, &*other, 2);
    assert_eq!(commit(&*other, &new), Committed::Task { left: 1 });
    assert_eq!(queue.fail(&old, &retryable("disk")).unwrap(), Ended::Lost);
    assert_eq!(queue.release(&old).unwrap(), Ended::Lost);
    assert_eq!(queue.heartbeat(&old).unwrap(), Pulse::Lost);
    assert_eq!(queue.get(old.task.job).unwrap().unwrap().tasks[0].state, TaskState::Done);
    assert_eq!(claim(&*queue, "w").task.batch, 1);
}

/// A lease may be long silent; as long as nobody took the task back, its holder's word counts.
fn late_but_first_is_in_time(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 2));
    let (first, second) = (claim(&*queue, "w"), claim(&*queue, "w"));
    yard.pass(TTL * 100);
    assert_eq!(queue.heartbeat(&first).unwrap(), Pulse::Alive);
    assert_eq!(commit(&*queue, &first), Committed::Task { left: 1 });
    assert_eq!(commit(&*queue, &second), Committed::Job);
}

fn epochs_rise_with_each_claim(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 2));
    for epoch in 1..12 {
        let lease = claim(&*queue, "w");
        assert_eq!((lease.task.batch, lease.epoch, lease.attempt), (0, epoch, 1));
        queue.release(&lease).unwrap();
    }
}

fn a_released_task_is_due_and_not_counted(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    assert_eq!(queue.release(&lease).unwrap(), Ended::Requeued { due_in: Duration::ZERO });
    assert_eq!(state_of(&*other, id), JobState::Queued);
    assert_eq!(other.get(id).unwrap().unwrap().tasks[0].attempts, 0);
    let next = claim(&*other, "w2");
    assert_eq!((next.epoch, next.attempt), (2, 1));
    other.fail(&next, &retryable("disk")).unwrap();
    yard.pass(TTL);
    let third = claim(&*queue, "w");
    assert_eq!((third.epoch, third.attempt), (3, 2));
    queue.release(&third).unwrap();
    assert_eq!(claim(&*queue, "w").attempt, 2, "a release takes back its own attempt only");
}

fn a_released_lease_is_over(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    let released = queue.release(&lease).unwrap();
    assert_eq!(queue.release(&lease).unwrap(), released, "the same again gives the same answer");
    assert_eq!(queue.heartbeat(&lease).unwrap(), Pulse::Lost);
    assert_eq!(commit(&*queue, &lease), Committed::Lost);
    assert_eq!(claim(&*queue, "w").epoch, 2);
}

fn a_poisoned_task_is_given_up(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let poisoned = submit(yard, &*queue, &job("a", "poisoned", 1));
    for attempt in 1..=crate::queue::ATTEMPTS_LIMIT {
        let lease = claim(&*queue, "victim");
        assert_eq!((lease.task.job, lease.attempt), (poisoned, attempt));
        run_out(yard, &*queue);
    }
    submit(yard, &*other, &job("b", "k", 1));
    assert_eq!(claim(&*queue, "w").submission.tenant, "b", "other tenants proceed");
    let record = other.get(poisoned).unwrap().unwrap();
    assert_eq!(record.summary.state, JobState::Failed);
    let failure = record.summary.failure.clone().unwrap();
    assert!(failure.reason.contains("5 attempts") && failure.reason.contains("victim"), "{}", failure.reason);
    assert_eq!(failure.exit_code.code(), 75);
    assert_eq!(record.failed_task().unwrap().0, 0);
}

fn idle_tells_when_to_come_back(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    let idle = nothing(&*queue);
    let left = idle.next_in.unwrap();
    assert!(idle.leased == 1 && left <= TTL && left > TTL / 2, "{idle:?}");
    let Ended::Requeued { due_in } = queue.fail(&lease, &retryable("disk")).unwrap() else { panic!("not put back") };
    let idle = nothing(&*queue);
    let left = idle.next_in.unwrap();
    assert!(idle.waiting == 1 && idle.leased == 0 && left <= due_in, "{idle:?}, due in {due_in:?}");
    yard.pass(left + Duration::from_millis(20));
    claim(&*queue, "w");
}
