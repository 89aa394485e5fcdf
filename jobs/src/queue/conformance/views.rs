//! Scenarios of what people and reconcilers see.

use std::time::Duration;

use super::{Scenario, Yard, claim, commit, job, nothing, retryable, run_out, submit};
use crate::exit::ExitCode;
use crate::queue::{Failure, JobState, ListFilter, Queue, Reconciled, Stats};

pub(super) const ALL: &[Scenario] = &[
    ("lists_are_newest_first_and_filtered", lists_are_newest_first_and_filtered),
    ("stats_count_every_state", stats_count_every_state),
    ("stats_know_the_oldest_waiting_job", stats_know_the_oldest_waiting_job),
    ("reconcile_takes_back_what_ran_out", reconcile_takes_back_what_ran_out),
    ("reconcile_leaves_a_healthy_queue_alone", reconcile_leaves_a_healthy_queue_alone),
    ("another_handle_sees_the_same", another_handle_sees_the_same),
    ("waiting_comes_back", waiting_comes_back),
];

/// One job in each state, oldest first: done, failed, cancelled, running, queued.
fn one_of_each(yard: &dyn Yard, queue: &dyn Queue) {
    submit(yard, queue, &job("a", "done", 1));
    commit(queue, &claim(queue, "w"));
    submit(yard, queue, &job("b", "failed", 1));
    queue.fail(&claim(queue, "w"), &Failure::permanent("bad", ExitCode::BadData)).unwrap();
    let cancelled = submit(yard, queue, &job("a", "cancelled", 1));
    queue.cancel(cancelled).unwrap();
    submit(yard, queue, &job("b", "running", 2));
    claim(queue, "w");
    submit(yard, queue, &job("a", "queued", 3));
}

fn lists_are_newest_first_and_filtered(yard: &dyn Yard) {
    let queue = yard.open();
    one_of_each(yard, &*queue);
    for is_sealed in [false, true] {
        let keys = |filter: ListFilter| -> Vec<String> {
            let found = queue.list(&filter).unwrap();
            found.into_iter().map(|summary| summary.submission.idempotency_key).collect()
        };
        let all = ["queued", "running", "cancelled", "failed", "done"];
        assert_eq!(keys(ListFilter::default()), all, "sealed: {is_sealed}");
        assert_eq!(keys(ListFilter { limit: Some(2), ..ListFilter::default() }), all[..2]);
        for (state, key) in JobState::ALL.into_iter().zip(["queued", "running", "done", "failed", "cancelled"]) {
            assert_eq!(keys(ListFilter { state: Some(state), ..ListFilter::default() }), [key]);
        }
        let tenant = Some("b".to_owned());
        assert_eq!(keys(ListFilter { tenant: tenant.clone(), ..ListFilter::default() }), ["running", "failed"]);
        let none = ListFilter { tenant, state: Some(JobState::Done), limit: None };
        assert!(keys(none).is_empty());
        for summary in queue.unsealed().unwrap() {
            queue.seal(summary.job, summary.generation).unwrap();
        }
    }
}

fn stats_count_every_state(yard: &dyn Yard) {
    let queue = yard.open();
    assert_eq!(queue.stats().unwrap(), Stats::default());
    one_of_each(yard, &*queue);
    for is_sealed in [false, true] {
        let stats = queue.stats().unwrap();
        let jobs = (stats.jobs_queued, stats.jobs_running, stats.jobs_done, stats.jobs_failed, stats.jobs_cancelled);
        assert_eq!(jobs, (1, 1, 1, 1, 1), "sealed: {is_sealed}");
        assert_eq!((stats.tasks_queued, stats.live_leases), (4, 1));
        for summary in queue.unsealed().unwrap() {
            queue.seal(summary.job, summary.generation).unwrap();
        }
    }
    run_out(yard, &*queue);
    assert_eq!(queue.stats().unwrap().live_leases, 0);
}

fn stats_know_the_oldest_waiting_job(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "first", 1));
    yard.pass(Duration::from_secs(40));
    submit(yard, &*queue, &job("a", "second", 1));
    yard.pass(Duration::from_secs(10));
    let oldest_ms = || queue.stats().unwrap().oldest_queued_ms;
    assert!(oldest_ms().is_some_and(|ms| (50_000..60_000).contains(&ms)), "{:?}", oldest_ms());
    let lease = claim(&*queue, "w");
    assert!(oldest_ms().is_some_and(|ms| (10_000..20_000).contains(&ms)), "{:?}", oldest_ms());
    claim(&*queue, "w");
    assert_eq!(oldest_ms(), None);
    queue.fail(&lease, &retryable("disk")).unwrap();
    assert_eq!(oldest_ms(), None, "attempted before");
}

fn reconcile_takes_back_what_ran_out(yard: &dyn Yard) {
    let (queue, other) = (yard.open(), yard.open());
    let id = submit(yard, &*queue, &job("a", "k", 3));
    claim(&*queue, "dead");
    claim(&*queue, "dead");
    let alive = claim(&*queue, "alive");
    other.reconcile().unwrap();
    yard.pass(super::TTL / 2);
    queue.heartbeat(&alive).unwrap();
    other.reconcile().unwrap();
    yard.pass(super::TTL / 2 + Duration::from_secs(1));
    assert_eq!(other.reconcile().unwrap(), Reconciled { leases_expired: 2, ..Reconciled::default() });
    let summary = other.get(id).unwrap().unwrap().summary;
    assert_eq!((summary.state, summary.running), (JobState::Running, 1));
    assert_eq!([claim(&*other, "w"), claim(&*other, "w")].map(|lease| lease.epoch), [2, 2]);
    nothing(&*other);
}

fn reconcile_leaves_a_healthy_queue_alone(yard: &dyn Yard) {
    let queue = yard.open();
    one_of_each(yard, &*queue);
    let before = queue.list(&ListFilter::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(queue.reconcile().unwrap(), Reconciled::default());
    }
    assert_eq!(queue.list(&ListFilter::default()).unwrap(), before);
}

fn another_handle_sees_the_same(yard: &dyn Yard) {
    let queue = yard.open();
    one_of_each(yard, &*queue);
    let seen = queue.list(&ListFilter::default()).unwrap();
    let other = yard.open();
    assert_eq!(other.list(&ListFilter::default()).unwrap(), seen);
    for summary in seen {
        assert_eq!(other.get(summary.job).unwrap(), queue.get(summary.job).unwrap());
    }
}

fn waiting_comes_back(yard: &dyn Yard) {
    let queue = yard.open();
    queue.wait(Duration::from_millis(1)).unwrap();
    queue.wait(Duration::ZERO).unwrap();
    assert_eq!(queue.lease_ttl(), super::TTL);
}
