//! Scenarios of how tasks and jobs end: commits, failures, cancellation, requeues, deadlines, seals.

use std::time::Duration;

use super::{
    LARGE, Scenario, Yard, claim, commit, job, nothing, result, retryable, run_out, state_of, submit, wear_out,
};
use crate::error::JobsError;
use crate::exit::ExitCode;
use crate::queue::{
    BACKOFF, Cancelled, Committed, Ended, Failure, JobId, JobState, Pulse, REPORT_LIMIT_BYTES, Requeued, Submission,
    TTL, TaskState,
};

pub(super) const ALL: &[Scenario] = &[
    ("the_last_commit_ends_the_job", the_last_commit_ends_the_job),
    ("a_commit_may_be_repeated", a_commit_may_be_repeated),
    ("results_and_reports_are_kept", results_and_reports_are_kept),
    ("a_report_too_large_is_refused", a_report_too_large_is_refused),
    ("a_failed_task_waits_before_its_next_attempt", a_failed_task_waits_before_its_next_attempt),
    ("delays_grow", delays_grow),
    ("a_failure_may_be_repeated", a_failure_may_be_repeated),
    ("a_permanent_failure_is_a_dead_letter", a_permanent_failure_is_a_dead_letter),
    ("five_failures_are_a_dead_letter", five_failures_are_a_dead_letter),
    ("a_dead_letter_stops_the_job", a_dead_letter_stops_the_job),
    ("a_queued_job_can_be_cancelled", a_queued_job_can_be_cancelled),
    ("a_running_job_can_be_cancelled", a_running_job_can_be_cancelled),
    ("a_job_that_is_over_cannot_be_cancelled", a_job_that_is_over_cannot_be_cancelled),
    ("unknown_jobs_are_told", unknown_jobs_are_told),
    ("a_dead_letter_can_be_requeued", a_dead_letter_can_be_requeued),
    ("finished_tasks_stay_finished", finished_tasks_stay_finished),
    ("a_cancelled_job_can_be_requeued", a_cancelled_job_can_be_requeued),
    ("only_what_failed_is_requeued", only_what_failed_is_requeued),
    ("a_lease_of_an_earlier_generation_is_worth_nothing", a_lease_of_an_earlier_generation_is_worth_nothing),
    ("a_job_past_its_deadline_is_not_begun", a_job_past_its_deadline_is_not_begun),
    ("a_job_within_its_deadline_runs", a_job_within_its_deadline_runs),
    ("jobs_wait_for_their_seal", jobs_wait_for_their_seal),
    ("only_the_right_generation_is_sealed", only_the_right_generation_is_sealed),
];

fn the_last_commit_ends_the_job(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 3));
    let leases = [claim(&*queue, "w"), claim(&*queue, "w"), claim(&*queue, "w")];
    assert_eq!(commit(&*queue, &leases[1]), Committed::Task { left: 2 });
    assert_eq!(commit(&*queue, &leases[2]), Committed::Task { left: 1 });
    assert_eq!(state_of(&*queue, id), JobState::Running);
    assert_eq!(commit(&*queue, &leases[0]), Committed::Job);
    let summary = queue.get(id).unwrap().unwrap().summary;
    assert_eq!((summary.state, summary.done, summary.running, summary.is_sealed), (JobState::Done, 3, 0, false));
    nothing(&*queue);
}

fn a_commit_may_be_repeated(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 2));
    let (first, second) = (claim(&*queue, "w"), claim(&*queue, "w"));
    for _ in 0..3 {
        assert_eq!(commit(&*queue, &first), Committed::Task { left: 1 });
    }
    for _ in 0..3 {
        assert_eq!(commit(&*queue, &second), Committed::Job);
    }
    assert_eq!(commit(&*queue, &first), Committed::Task { left: 0 });
    assert_eq!(queue.heartbeat(&first).unwrap(), Pulse::Lost, "a lease ends with its commit");
    assert_eq!(queue.fail(&first, &retryable("disk")).unwrap(), Ended::Lost);
}

fn results_and_reports_are_kept(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 2));
    let report = format!("{{\"r\": \"{}\u{fc}\"}}", "x".repeat(REPORT_LIMIT_BYTES - 20));
    let big = crate::queue::TaskResult { report, ..result("first") };
    queue.commit(&claim(&*queue, "w1"), &big).unwrap();
    let kept = |expected_state| {
        let record = yard.open().get(id).unwrap().unwrap();
        assert_eq!(record.tasks[0].result.as_ref(), Some(&big));
        assert_eq!((record.tasks[0].state, record.tasks[0].epoch), (TaskState::Done, 1));
        assert_eq!(record.tasks[0].worker.as_deref(), Some("w1"));
        assert_eq!(record.tasks[1].state, expected_state);
    };
    kept(TaskState::Queued);
    let second = claim(&*queue, "w2");
    kept(TaskState::Running);
    queue.commit(&second, &result("second")).unwrap();
    kept(TaskState::Done);
    queue.seal(id, 0).unwrap();
    kept(TaskState::Done);
}

fn a_report_too_large_is_refused(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    let mut large = result("r");
    large.report = "x".repeat(REPORT_LIMIT_BYTES + 1);
    assert_eq!(queue.commit(&lease, &large).unwrap_err().exit_code().code(), 65);
    assert_eq!(queue.heartbeat(&lease).unwrap(), Pulse::Alive);
    assert_eq!(commit(&*queue, &lease), Committed::Job);
}

fn a_failed_task_waits_before_its_next_attempt(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    let Ended::Requeued { due_in } = queue.fail(&lease, &retryable("disk")).unwrap() else { panic!("not put back") };
    assert!(due_in >= BACKOFF / 2 && due_in <= BACKOFF * 3 / 2, "{due_in:?}");
    assert_eq!(nothing(&*other).waiting, 1);
    let task = &other.get(id).unwrap().unwrap().tasks[0];
    assert_eq!((task.state, task.attempts), (TaskState::Queued, 1));
    assert_eq!(task.failure.as_ref().unwrap().reason, "disk");
    assert_eq!(state_of(&*other, id), JobState::Queued);
    yard.pass(due_in / 2);
    nothing(&*other);
    yard.pass(due_in / 2 + Duration::from_millis(20));
    let next = claim(&*other, "w2");
    assert_eq!((next.epoch, next.attempt), (2, 2));
}

fn delays_grow(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 1));
    let mut expected = BACKOFF;
    for _ in 1..crate::queue::ATTEMPTS_LIMIT {
        let ended = queue.fail(&claim(&*queue, "w"), &retryable("disk")).unwrap();
        let Ended::Requeued { due_in } = ended else { panic!("{ended:?}") };
        assert!(due_in >= expected / 2 && due_in <= expected * 3 / 2, "{due_in:?}, expected about {expected:?}");
        yard.pass(due_in + Duration::from_millis(20));
        expected *= 2;
    }
}

fn a_failure_may_be_repeated(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let lease = claim(&*queue, "w");
    for _ in 0..3 {
        assert!(matches!(queue.fail(&lease, &retryable("disk")).unwrap(), Ended::Requeued { .. }));
    }
    assert_eq!(queue.get(id).unwrap().unwrap().tasks[0].attempts, 1);
    yard.pass(TTL);
    let next = claim(&*queue, "w");
    assert_eq!(next.attempt, 2);
    let permanent = Failure::permanent("bad digest", ExitCode::BadData);
    for _ in 0..3 {
        assert_eq!(queue.fail(&next, &permanent).unwrap(), Ended::DeadLetter);
    }
}

fn a_permanent_failure_is_a_dead_letter(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let permanent = Failure::permanent("digest of batch 0 differs\nline", ExitCode::Mismatch);
    assert_eq!(queue.fail(&claim(&*queue, "w"), &permanent).unwrap(), Ended::DeadLetter);
    let record = yard.open().get(id).unwrap().unwrap();
    assert_eq!(record.summary.state, JobState::Failed);
    assert_eq!(record.summary.failure.as_ref().unwrap().reason, "digest of batch 0 differs line");
    assert_eq!(record.summary.failure.unwrap().exit_code, ExitCode::Mismatch);
    assert_eq!(record.tasks[0].state, TaskState::Failed);
    nothing(&*queue);
}

fn five_failures_are_a_dead_letter(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    wear_out(yard, &*queue);
    let record = queue.get(id).unwrap().unwrap();
    assert_eq!((record.summary.state, record.tasks[0].attempts), (JobState::Failed, 5));
    let failure = record.summary.failure.unwrap();
    assert!(failure.reason.contains("5 attempts") && failure.reason.contains("disk"), "{}", failure.reason);
    assert_eq!(failure.exit_code, ExitCode::Io);
    yard.pass(TTL * 1000);
    nothing(&*queue);
}

fn a_dead_letter_stops_the_job(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 4));
    let leases = [claim(&*queue, "w"), claim(&*other, "v"), claim(&*other, "v")];
    assert_eq!(queue.fail(&leases[0], &Failure::permanent("bad", ExitCode::BadData)).unwrap(), Ended::DeadLetter);
    nothing(&*other);
    assert_eq!(other.heartbeat(&leases[1]).unwrap(), Pulse::Cancelled);
    assert_eq!(commit(&*other, &leases[1]), Committed::Cancelled);
    assert_eq!(other.fail(&leases[2], &retryable("disk")).unwrap(), Ended::Cancelled);
    let summary = other.get(id).unwrap().unwrap().summary;
    assert_eq!((summary.state, summary.running), (JobState::Failed, 0));
}

fn a_queued_job_can_be_cancelled(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 2));
    assert_eq!(queue.cancel(id).unwrap(), Cancelled::Cancelled);
    assert_eq!(yard.open().cancel(id).unwrap(), Cancelled::Cancelled, "the same again gives the same answer");
    assert_eq!(state_of(&*queue, id), JobState::Cancelled);
    nothing(&*queue);
    assert!(!queue.submit(&job("a", "k", 2)).unwrap().is_new);
    nothing(&*queue);
    assert!(queue.unsealed().unwrap().is_empty(), "nobody waits for the receipt of a cancelled job");
}

fn a_running_job_can_be_cancelled(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 4));
    let leases = [claim(&*queue, "w"), claim(&*queue, "w"), claim(&*queue, "w")];
    assert_eq!(other.cancel(id).unwrap(), Cancelled::Cancelled);
    assert_eq!(queue.heartbeat(&leases[0]).unwrap(), Pulse::Cancelled);
    assert_eq!(commit(&*queue, &leases[0]), Committed::Cancelled);
    assert_eq!(queue.fail(&leases[1], &retryable("disk")).unwrap(), Ended::Cancelled);
    assert_eq!(queue.release(&leases[2]).unwrap(), Ended::Cancelled);
    let record = queue.get(id).unwrap().unwrap();
    assert_eq!(record.summary.state, JobState::Cancelled);
    assert!(record.tasks.iter().all(|task| task.result.is_none()));
}

fn a_job_that_is_over_cannot_be_cancelled(yard: &dyn Yard) {
    let queue = yard.open();
    let done = submit(yard, &*queue, &job("a", "done", 1));
    commit(&*queue, &claim(&*queue, "w"));
    let failed = submit(yard, &*queue, &job("a", "failed", 1));
    queue.fail(&claim(&*queue, "w"), &Failure::permanent("bad", ExitCode::BadData)).unwrap();
    for is_sealed in [false, true] {
        assert_eq!(queue.cancel(done).unwrap(), Cancelled::Already(JobState::Done), "sealed: {is_sealed}");
        assert_eq!(queue.cancel(failed).unwrap(), Cancelled::Already(JobState::Failed), "sealed: {is_sealed}");
        queue.seal(done, 0).unwrap();
        queue.seal(failed, 0).unwrap();
    }
    assert_eq!(state_of(&*queue, done), JobState::Done);
}

fn unknown_jobs_are_told(yard: &dyn Yard) {
    let queue = yard.open();
    let id = JobId::of("nobody", "nothing");
    assert_eq!(queue.get(id).unwrap(), None);
    for refused in [queue.cancel(id).unwrap_err(), queue.requeue(id).unwrap_err()] {
        assert!(matches!(refused, JobsError::NoSuchJob { job } if job == id), "{refused}");
        assert_eq!(refused.exit_code().code(), 66);
    }
    queue.seal(id, 0).unwrap();
}

fn a_dead_letter_can_be_requeued(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let last = wear_out(yard, &*queue);
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Requeued { generation: 1 });
    let summary = queue.get(id).unwrap().unwrap().summary;
    assert_eq!((summary.state, summary.generation, summary.failure), (JobState::Queued, 1, None));
    let lease = claim(&*yard.open(), "w");
    assert_eq!((lease.epoch, lease.attempt, lease.generation), (last.epoch + 1, 1, 1));
    assert_eq!(commit(&*queue, &lease), Committed::Job);
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Not(JobState::Done));
}

fn finished_tasks_stay_finished(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 3));
    let leases = [claim(&*queue, "first"), claim(&*queue, "w"), claim(&*queue, "w")];
    queue.commit(&leases[0], &result("kept")).unwrap();
    queue.fail(&leases[1], &Failure::permanent("bad", ExitCode::BadData)).unwrap();
    queue.seal(id, 0).unwrap();
    queue.requeue(id).unwrap();
    let record = queue.get(id).unwrap().unwrap();
    assert_eq!((record.summary.done, record.summary.is_sealed), (1, false));
    assert_eq!(record.tasks[0].result, Some(result("kept")));
    assert_eq!((record.tasks[0].epoch, record.tasks[0].worker.as_deref()), (1, Some("first")));
    let next = [claim(&*queue, "w"), claim(&*queue, "w")];
    assert_eq!(next.each_ref().map(|lease| (lease.task.batch, lease.epoch)), [(1, 2), (2, 2)]);
    nothing(&*queue);
    assert_eq!(commit(&*queue, &next[0]), Committed::Task { left: 1 });
    assert_eq!(commit(&*queue, &next[1]), Committed::Job);
}

fn a_cancelled_job_can_be_requeued(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    queue.cancel(id).unwrap();
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Requeued { generation: 1 });
    assert_eq!(state_of(&*queue, id), JobState::Queued);
    queue.cancel(id).unwrap();
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Requeued { generation: 2 });
    let lease = claim(&*queue, "w");
    assert_eq!((lease.epoch, lease.generation), (1, 2));
    assert_eq!(commit(&*queue, &lease), Committed::Job);
}

fn only_what_failed_is_requeued(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Not(JobState::Queued));
    let lease = claim(&*queue, "w");
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Not(JobState::Running));
    assert_eq!(commit(&*queue, &lease), Committed::Job);
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Not(JobState::Done));
    queue.seal(id, 0).unwrap();
    assert_eq!(queue.requeue(id).unwrap(), Requeued::Not(JobState::Done));
}

fn a_lease_of_an_earlier_generation_is_worth_nothing(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let old = claim(&*queue, "w");
    other.cancel(id).unwrap();
    other.requeue(id).unwrap();
    assert_eq!(queue.heartbeat(&old).unwrap(), Pulse::Lost);
    assert_eq!(commit(&*queue, &old), Committed::Lost);
    assert_eq!(queue.fail(&old, &retryable("disk")).unwrap(), Ended::Lost);
    assert_eq!(queue.release(&old).unwrap(), Ended::Lost);
    let new = claim(&*other, "v");
    assert_eq!((new.epoch, new.attempt), (old.epoch + 1, 1));
    assert_eq!(commit(&*queue, &old), Committed::Lost);
    assert_eq!(commit(&*other, &new), Committed::Job);
}

fn a_job_past_its_deadline_is_not_begun(yard: &dyn Yard) {
    let queue = yard.open();
    let deadline_unix_ms = Some(yard.unix_ms() + 10_000);
    let id = submit(yard, &*queue, &Submission { deadline_unix_ms, ..job("a", "k", 1) });
    yard.pass(Duration::from_secs(11));
    nothing(&*queue);
    let summary = queue.get(id).unwrap().unwrap().summary;
    let failure = summary.failure.unwrap();
    assert_eq!((summary.state, failure.exit_code), (JobState::Failed, ExitCode::BadData));
    assert!(failure.reason.contains("deadline"), "{}", failure.reason);
    assert_eq!(queue.unsealed().unwrap().len(), 1);
}

fn a_job_within_its_deadline_runs(yard: &dyn Yard) {
    let queue = yard.open();
    let deadline_unix_ms = Some(yard.unix_ms() + 20_000);
    submit(yard, &*queue, &Submission { deadline_unix_ms, ..job("a", "k", 1) });
    yard.pass(Duration::from_secs(10));
    let lease = claim(&*queue, "w");
    yard.pass(Duration::from_secs(15));
    // Begun in time: it may finish.
    nothing(&*queue);
    assert_eq!(commit(&*queue, &lease), Committed::Job);
}

fn jobs_wait_for_their_seal(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let done = submit(yard, &*queue, &job("a", "done", 1));
    commit(&*queue, &claim(&*queue, "w"));
    let failed = submit(yard, &*queue, &job("a", "failed", 1));
    queue.fail(&claim(&*queue, "w"), &Failure::permanent("bad", ExitCode::BadData)).unwrap();
    submit(yard, &*queue, &job("a", "queued", 1));
    let waiting = other.unsealed().unwrap();
    assert_eq!(waiting.iter().map(|summary| summary.job).collect::<Vec<_>>(), [done, failed]);
    assert!(waiting.iter().all(|summary| !summary.is_sealed));
    for _ in 0..2 {
        other.seal(done, 0).unwrap();
    }
    assert_eq!(queue.unsealed().unwrap().iter().map(|summary| summary.job).collect::<Vec<_>>(), [failed]);
    queue.seal(failed, 0).unwrap();
    assert!(other.unsealed().unwrap().is_empty());
    let states = [done, failed].map(|id| queue.get(id).unwrap().unwrap().summary);
    assert!(states.iter().all(|summary| summary.is_sealed));
    assert_eq!(states.map(|summary| summary.state), [JobState::Done, JobState::Failed]);
}

fn only_the_right_generation_is_sealed(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    queue.seal(id, 0).unwrap();
    assert_eq!(state_of(&*queue, id), JobState::Queued, "a queued job cannot be sealed");
    let lease = claim(&*queue, "w");
    queue.fail(&lease, &Failure::permanent("bad", ExitCode::BadData)).unwrap();
    queue.requeue(id).unwrap();
    queue.seal(id, 0).unwrap();
    assert_eq!(commit(&*queue, &claim(&*queue, "w")), Committed::Job);
    queue.seal(id, 0).unwrap();
    assert_eq!(queue.unsealed().unwrap().len(), 1, "sealed for an earlier generation");
    queue.seal(id, 1).unwrap();
    assert!(queue.unsealed().unwrap().is_empty());
    run_out(yard, &*queue);
    assert!(matches!(queue.claim("w", LARGE).unwrap(), crate::queue::Claim::Nothing(_)));
}
