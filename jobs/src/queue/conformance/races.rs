//! Scenarios in which several machines want the same at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::{LARGE, Scenario, Yard, commit, job, submit};
use crate::queue::{Cancelled, Claim, Committed, JobId, JobState, Queue, Requeued, TaskId};

pub(super) const ALL: &[Scenario] = &[
    ("of_many_submitters_one_is_first", of_many_submitters_one_is_first),
    ("of_many_claimers_each_task_has_one", of_many_claimers_each_task_has_one),
    ("of_two_commits_one_is_the_last", of_two_commits_one_is_the_last),
    ("commit_and_cancel_agree", commit_and_cancel_agree),
    ("of_many_requeues_one_counts", of_many_requeues_one_counts),
    ("of_many_reconcilers_one_takes_back", of_many_reconcilers_one_takes_back),
];

/// Machines of a race.
const MACHINES: usize = 4;

/// Runs `act` on every machine at once; what each answered.
fn at_once<T: Send>(yard: &dyn Yard, machines: usize, act: impl Fn(usize, &dyn Queue) -> T + Sync) -> Vec<T> {
    let queues: Vec<Box<dyn Queue>> = (0..machines).map(|_| yard.open()).collect();
    let start = std::sync::Barrier::new(machines);
    thread::scope(|scope| {
        let (start, act) = (&start, &act);
        let mut running = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            running.push(scope.spawn(move || {
                start.wait();
                act(index, &**queue)
            }));
        }
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn of_many_submitters_one_is_first(yard: &dyn Yard) {
    let answers = at_once(yard, MACHINES, |_, queue| queue.submit(&job("a", "k", 1)).unwrap());
    assert_eq!(answers.iter().filter(|answer| answer.is_new).count(), 1);
    assert!(answers.iter().all(|answer| answer.job == answers[0].job));
    assert_eq!(yard.open().stats().unwrap().jobs_queued, 1);
}

fn of_many_claimers_each_task_has_one(yard: &dyn Yard) {
    const TASKS: u32 = 30;
    let queue = yard.open();
    let ids = ["k1", "k2"].map(|key| submit(yard, &*queue, &job("a", key, TASKS / 2)));
    let claimed: Mutex<BTreeSet<TaskId>> = Mutex::default();
    // Per job: commits told that they ended it, and commits told that nothing is left.
    let told: Mutex<BTreeMap<JobId, (usize, usize)>> = Mutex::default();
    at_once(yard, MACHINES, |index, queue| {
        loop {
            match queue.claim(&format!("w{index}"), LARGE).unwrap() {
                Claim::Task(lease) => {
                    assert_eq!((lease.epoch, lease.attempt), (1, 1), "{}", lease.task);
                    assert!(claimed.lock().unwrap().insert(lease.task), "{} claimed twice", lease.task);
                    let answer = commit(queue, &lease);
                    let mut told = told.lock().unwrap();
                    let (enders, lasts) = told.entry(lease.task.job).or_default();
                    *enders += usize::from(answer == Committed::Job);
                    *lasts += usize::from(matches!(answer, Committed::Job | Committed::Task { left: 0 }));
                }
                // Others' tasks are still leased, or the round was lost to others: look again until all are done.
                Claim::Nothing(_) if claimed.lock().unwrap().len() < TASKS as usize => thread::yield_now(),
                Claim::Nothing(_) => return,
            }
        }
    });
    // A claimer that finds the last task done may end the job before its committer does, who then hears that nothing is left.
    for (job, (enders, lasts)) in told.into_inner().unwrap() {
        assert!(enders <= 1 && lasts >= 1, "{job}: {enders} commits ended it, {lasts} left nothing");
    }
    for id in ids {
        let summary = queue.get(id).unwrap().unwrap().summary;
        assert_eq!((summary.state, summary.done), (JobState::Done, TASKS / 2));
    }
}

fn of_two_commits_one_is_the_last(yard: &dyn Yard) {
    let queue = yard.open();
    for round in 0..8 {
        submit(yard, &*queue, &job("a", &format!("k{round}"), 2));
        let leases = [super::claim(&*queue, "w"), super::claim(&*queue, "w")];
        let answers = at_once(yard, 2, |index, queue| commit(queue, &leases[index]));
        let last = answers.iter().filter(|answer| **answer == Committed::Job).count();
        assert_eq!(last, 1, "{answers:?}");
    }
}

fn commit_and_cancel_agree(yard: &dyn Yard) {
    let queue = yard.open();
    for round in 0..8 {
        let id = submit(yard, &*queue, &job("a", &format!("k{round}"), 1));
        let lease = super::claim(&*queue, "w");
        let answers = at_once(yard, 2, |index, queue| match index {
            0 => commit(queue, &lease) == Committed::Job,
            _ => queue.cancel(id).unwrap() == Cancelled::Already(JobState::Done),
        });
        let is_done = super::state_of(&*queue, id) == JobState::Done;
        // The commit may also hear of a job that was done through it when the canceller ended it first.
        assert!(answers[1] == is_done && (!answers[0] || is_done), "{answers:?}, done: {is_done}");
        let expected = if is_done { JobState::Done } else { JobState::Cancelled };
        assert_eq!(super::state_of(&*queue, id), expected);
    }
}

fn of_many_requeues_one_counts(yard: &dyn Yard) {
    let queue = yard.open();
    let id = submit(yard, &*queue, &job("a", "k", 1));
    queue.cancel(id).unwrap();
    let answers = at_once(yard, MACHINES, |_, queue| queue.requeue(id).unwrap());
    for answer in answers {
        let is_fine = matches!(answer, Requeued::Requeued { generation: 1 } | Requeued::Not(JobState::Queued));
        assert!(is_fine, "{answer:?}");
    }
    let record = queue.get(id).unwrap().unwrap();
    assert_eq!((record.summary.generation, record.summary.state), (1, JobState::Queued));
}

fn of_many_reconcilers_one_takes_back(yard: &dyn Yard) {
    let queue = yard.open();
    submit(yard, &*queue, &job("a", "k", 6));
    for _ in 0..6 {
        super::claim(&*queue, "dead");
    }
    let watchers: Vec<Box<dyn Queue>> = (0..MACHINES).map(|_| yard.open()).collect();
    for watcher in &watchers {
        watcher.reconcile().unwrap();
    }
    yard.pass(super::TTL + Duration::from_secs(1));
    thread::scope(|scope| {
        for watcher in &watchers {
            scope.spawn(|| watcher.reconcile().unwrap());
        }
    });
    for _ in 0..6 {
        let lease = super::claim(&*queue, "w");
        assert_eq!((lease.epoch, lease.attempt), (2, 2));
    }
    super::nothing(&*queue);
}
