//! Scenarios of submission and of the order in which tasks are given out.

use std::time::Duration;

use super::{LARGE, Scenario, Yard, claim, commit, job, nothing, state_of, submit};
use crate::digest::Digest;
use crate::error::JobsError;
use crate::manifest::{ENGINE, ENGINES};
use crate::queue::{Capacity, Claim, Committed, JobState, Lease, Needs, Submission, TASKS_LIMIT};

pub(super) const ALL: &[Scenario] = &[
    ("submit_twice_is_one_job", submit_twice_is_one_job),
    ("same_key_with_another_manifest_is_refused", same_key_with_another_manifest_is_refused),
    ("same_key_of_another_tenant_is_another_job", same_key_of_another_tenant_is_another_job),
    ("impossible_submissions_are_refused", impossible_submissions_are_refused),
    ("a_finished_job_is_still_known", a_finished_job_is_still_known),
    ("an_empty_queue_gives_nothing", an_empty_queue_gives_nothing),
    ("a_lease_says_what_was_submitted", a_lease_says_what_was_submitted),
    ("batches_go_in_order", batches_go_in_order),
    ("the_oldest_job_goes_first", the_oldest_job_goes_first),
    ("higher_priority_goes_first", higher_priority_goes_first),
    ("tenants_share_fairly", tenants_share_fairly),
    ("priority_goes_before_fairness", priority_goes_before_fairness),
    ("only_what_fits_is_claimed", only_what_fits_is_claimed),
    ("an_engine_that_is_not_there_is_left_to_others", an_engine_that_is_not_there_is_left_to_others),
    ("a_small_job_passes_a_large_one", a_small_job_passes_a_large_one),
    ("a_clock_of_its_own_is_told", a_clock_of_its_own_is_told),
    ("workers_without_a_plain_name_are_refused", workers_without_a_plain_name_are_refused),
];

fn submit_twice_is_one_job(yard: &dyn Yard) {
    let queue = yard.open();
    let first = queue.submit(&job("a", "k", 2)).unwrap();
    let second = yard.open().submit(&job("a", "k", 2)).unwrap();
    assert!(first.is_new && !second.is_new);
    assert_eq!(first.job, second.job);
    let leases: Vec<Lease> = (0..2).map(|_| claim(&*queue, "w")).collect();
    assert_eq!(leases[0].task.job, first.job);
    nothing(&*queue);
}

fn same_key_with_another_manifest_is_refused(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    let other = Submission { manifest: Digest::of(b"another"), ..job("a", "k", 1) };
    let refused = queue.submit(&other).unwrap_err();
    assert!(matches!(refused, JobsError::KeyReused { .. }), "{refused}");
    assert_eq!(refused.exit_code().code(), 65);
    assert_eq!(queue.get(id).unwrap().unwrap().summary.submission.manifest, Digest::of(b"k"));
}

fn same_key_of_another_tenant_is_another_job(yard: &dyn Yard) {
    let queue = yard.open();
    let first = submit(yard, &*queue, &job("a", "k", 1));
    let second = submit(yard, &*queue, &job("b", "k", 1));
    // Where one name ends and the other begins must count.
    let third = submit(yard, &*queue, &job("ak", "x", 1));
    let fourth = submit(yard, &*queue, &job("a", "kx", 1));
    let mut ids = vec![first, second, third, fourth];
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

fn impossible_submissions_are_refused(yard: &dyn Yard) {
    let queue = yard.open();
    let bad = [
        job("", "k", 1),
        job("a/b", "k", 1),
        job("a", "k\n", 1),
        job("a", &"k".repeat(129), 1),
        job("a", "k", 0),
        job("a", "k", TASKS_LIMIT + 1),
    ];
    for submission in bad {
        let refused = queue.submit(&submission).unwrap_err();
        assert_eq!(refused.exit_code().code(), 65, "{submission:?}: {refused}");
    }
    nothing(&*queue);
}

fn a_finished_job_is_still_known(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    assert_eq!(commit(&*queue, &claim(&*queue, "w")), Committed::Job);
    assert!(!queue.submit(&job("a", "k", 1)).unwrap().is_new);
    queue.seal(id, 0).unwrap();
    let again = yard.open().submit(&job("a", "k", 1)).unwrap();
    assert_eq!((again.job, again.is_new), (id, false));
    assert!(queue.submit(&Submission { manifest: Digest::of(b"x"), ..job("a", "k", 1) }).is_err());
    assert_eq!(state_of(&*queue, id), JobState::Done);
    nothing(&*queue);
}

fn an_empty_queue_gives_nothing(yard: &dyn Yard) {
    let idle = nothing(&*yard.open());
    assert_eq!((idle.leased, idle.waiting, idle.too_large, idle.next_in), (0, 0, 0, None));
}

fn a_lease_says_what_was_submitted(yard: &dyn Yard) {
    let queue = yard.open();
    let submission = Submission {
        priority: -3,
        deadline_unix_ms: Some(yard.unix_ms() + 3_600_000),
        needs: Needs { memory_bytes: u64::from(u32::MAX) * 5, scratch_bytes: 7 },
        engine: ENGINES[1].to_owned(),
        ..job("tenant.1", "key_2-x", 3)
    };
    let id = submit(yard, &*queue, &submission);
    let lease = claim(&*queue, "worker-1.example");
    assert_eq!(lease.submission, submission);
    assert_eq!((lease.task.job, lease.task.batch), (id, 0));
    assert_eq!((lease.epoch, lease.attempt, lease.generation), (1, 1, 0));
    assert_eq!(lease.worker, "worker-1.example");
    assert_eq!(state_of(&*queue, id), JobState::Running);
}

fn batches_go_in_order(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 12));
    let batches: Vec<u32> = (0..12).map(|_| claim(&*queue, "w").task.batch).collect();
    assert_eq!(batches, (0..12).collect::<Vec<u32>>());
    assert_eq!(nothing(&*queue).leased, 12);
}

fn the_oldest_job_goes_first(yard: &dyn Yard) {
    let queue = yard.open();
    let submitted: Vec<_> = (0..4).map(|i| submit(yard, &*queue, &job("a", &format!("k{}", 9 - i), 1))).collect();
    let claimed: Vec<_> = (0..4).map(|_| claim(&*queue, "w").task.job).collect();
    assert_eq!(claimed, submitted);
}

fn higher_priority_goes_first(yard: &dyn Yard) {
    let queue = yard.open();
    for (key, priority) in [("ordinary", 0), ("low", -5), ("high", 7), ("least", i16::MIN), ("most", i16::MAX)] {
        submit(yard, &*queue, &Submission { priority, ..job("a", key, 1) });
    }
    let claimed: Vec<String> = (0..5).map(|_| claim(&*queue, "w").submission.idempotency_key).collect();
    assert_eq!(claimed, ["most", "high", "ordinary", "low", "least"]);
}

fn tenants_share_fairly(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("many", "k1", 6));
    submit(yard, &*queue, &job("many", "k2", 6));
    submit(yard, &*queue, &job("few", "k", 3));
    let tenants: Vec<String> = (0..6).map(|_| claim(&*queue, "w").submission.tenant).collect();
    assert_eq!(tenants, ["many", "few", "many", "few", "many", "few"]);
}

fn priority_goes_before_fairness(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &Submission { priority: 1, ..job("a", "urgent", 3) });
    submit(yard, &*queue, &job("b", "k", 1));
    let tenants: Vec<String> = (0..4).map(|_| claim(&*queue, "w").submission.tenant).collect();
    assert_eq!(tenants, ["a", "a", "a", "b"]);
}

fn only_what_fits_is_claimed(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 2));
    for (memory_bytes, scratch_bytes) in [(99, 10), (100, 9), (0, 0)] {
        match queue.claim("w", Capacity { memory_bytes, scratch_bytes, ..LARGE }).unwrap() {
            Claim::Task(lease) => panic!("{memory_bytes} and {scratch_bytes} bytes took {:?}", lease.submission.needs),
            Claim::Nothing(idle) => assert_eq!(idle.too_large, 2),
        }
    }
    let exactly = Capacity { memory_bytes: 100, scratch_bytes: 10, ..LARGE };
    let Claim::Task(lease) = queue.claim("w", exactly).unwrap() else { panic!("what fits exactly was not claimed") };
    assert_eq!(lease.epoch, 1, "looking does not claim");
}

fn an_engine_that_is_not_there_is_left_to_others(yard: &dyn Yard) {
    let queue = yard.open();
    let [first, other] = ENGINES;
    submit(yard, &*queue, &Submission { engine: other.to_owned(), priority: 9, ..job("a", "other", 2) });
    submit(yard, &*queue, &job("a", "first", 1));
    let only_first = Capacity { engines: &[ENGINE], ..LARGE };
    let Claim::Task(lease) = queue.claim("w", only_first).unwrap() else { panic!("nothing claimed") };
    assert_eq!((lease.submission.idempotency_key.as_str(), lease.submission.engine.as_str()), ("first", first));
    match queue.claim("w", only_first).unwrap() {
        Claim::Task(lease) => panic!("claimed {}, for {}", lease.task, lease.submission.engine),
        Claim::Nothing(idle) => assert_eq!((idle.too_large, idle.leased, idle.waiting), (2, 1, 0)),
    }
    let lease = claim(&*queue, "w");
    assert_eq!((lease.submission.engine.as_str(), lease.epoch, lease.attempt), (other, 1, 1), "nobody had touched it");
    let unknown = Submission { engine: "bfv".to_owned(), ..job("a", "unknown", 1) };
    assert_eq!(queue.submit(&unknown).unwrap_err().exit_code().code(), 65);
}

fn a_clock_of_its_own_is_told(yard: &dyn Yard) {
    let queue = yard.open();
    let before = yard.unix_ms();
    if let Some(told) = queue.now_unix_ms().unwrap() {
        assert!((before..=yard.unix_ms()).contains(&told), "{told}, not between {before} and {}", yard.unix_ms());
    }
}

fn a_small_job_passes_a_large_one(yard: &dyn Yard) {
    let queue = yard.open();
    let needs = Needs { memory_bytes: 1_000_000, scratch_bytes: 0 };
    submit(yard, &*queue, &Submission { needs, priority: 9, ..job("a", "large", 1) });
    submit(yard, &*queue, &job("a", "small", 1));
    let Claim::Task(lease) = queue.claim("w", Capacity { memory_bytes: 1000, ..LARGE }).unwrap() else {
        panic!("nothing claimed")
    };
    assert_eq!(lease.submission.idempotency_key, "small");
    assert_eq!(claim(&*queue, "w").submission.idempotency_key, "large");
}

fn workers_without_a_plain_name_are_refused(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 1));
    for name in ["", "a b", "w\u{e9}", &"w".repeat(129)] {
        assert_eq!(queue.claim(name, LARGE).unwrap_err().exit_code().code(), 65, "{name:?}");
    }
    yard.pass(Duration::from_secs(1));
    assert_eq!(claim(&*queue, &"w".repeat(128)).epoch, 1);
}
