//! A seeded simulator of the protocol: the real spool over an object store in memory, many workers, and everything that may go
//! wrong between any two operations of the store. A worker may be frozen in the middle of a call while others go on
//! (for longer than a lease), may die before or after an operation took effect, may lose an answer, may have a clock that
//! jumps; its old leases are used again later. What must hold is looked at after every call, and at the end everything
//! is let run in peace: then every job must be over, with every result as its committer wrote it.
//!
//! One thread, one generator of numbers: a seed is a run. `NIGHTSHIFT_SIM_SEEDS=N` tries N seeds, `NIGHTSHIFT_SIM_SEED=S` only that one.
//! Frozen workers wake up in the reverse order of their freezing, which is less than all interleavings there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::Spool;
use crate::digest::{Digest, FileStamp};
use crate::error::JobsError;
use crate::exit::ExitCode;
use crate::manifest::{ENGINE, ENGINES};
use crate::queue::{
    Cancelled, Capacity, Claim, Clock, Committed, Ended, Failure, JobId, JobState, Lease, Needs, Pulse, Queue,
    Requeued, Settings, Submission, TaskId, TaskResult,
};
use crate::store::objects::Objects;

/// Workers of a run, each with a handle of its own.
const WORKERS: usize = 4;
/// Workers that may be frozen at once.
const FROZEN_LIMIT: usize = 3;
/// Calls of a run before it is let run in peace.
const CALLS: u64 = 80;
const TTL: Duration = Duration::from_secs(30);
const LARGE: Capacity = Capacity { memory_bytes: u64::MAX, scratch_bytes: u64::MAX, engines: &ENGINES };

/// What all share: the store's content, the time, the numbers, and what is known to have been promised.
struct World {
    store: Arc<InMemory>,
    random: AtomicU64,
    now_ms: AtomicU64,
    /// Whether anything goes wrong at all.
    is_rough: AtomicBool,
    /// Workers that are not in the middle of a call.
    idle: Mutex<BTreeMap<usize, Worker>>,
    frozen: AtomicU64,
    handles: AtomicU64,
    promised: Mutex<Promised>,
    jobs: Vec<Submission>,
}

struct Worker {
    index: usize,
    spool: Spool,
    link: Arc<Link>,
    lease: Option<Lease>,
    /// Leases of processes that died, or that were lost.
    old: Vec<Lease>,
}

/// One worker's connection to the store.
struct Link {
    world: Arc<World>,
    index: usize,
    is_dead: AtomicBool,
    /// What its wall clock is off by.
    skew_ms: AtomicU64,
}

/// What some caller was told; nothing may contradict it later.
#[derive(Default)]
struct Promised {
    /// Every lease given out.
    given: BTreeSet<(TaskId, u32)>,
    /// The highest epoch given out of each task.
    highest: BTreeMap<TaskId, u32>,
    /// Tasks whose commit was confirmed, and to which epoch.
    committed: BTreeMap<TaskId, u32>,
    /// Jobs whose end was confirmed to a committer: job and generation, and to which lease.
    ended: BTreeMap<(JobId, u32), (TaskId, u32)>,
    /// Jobs whose cancellation was confirmed, in any generation up to this.
    cancelled: BTreeMap<JobId, u32>,
}

impl World {
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True once in `times`, on average.
    fn one_in(&self, times: u64) -> bool {
        self.random().is_multiple_of(times)
    }

    fn below(&self, limit: usize) -> usize {
        usize::try_from(self.random() % limit as u64).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn new_worker(self: &Arc<Self>, index: usize) -> Worker {
        let link = Arc::new(Link {
            world: Arc::clone(self),
            index,
            is_dead: AtomicBool::new(false),
            skew_ms: AtomicU64::new(0),
        });
        let store = Arc::new(Rough { link: Arc::clone(&link) });
        let objects = Arc::new(Objects::over(store, ObjectPath::default(), "memory:".to_owned()));
        let settings = Settings { ttl: TTL, ..Settings::default() };
        let seed = self.handles.fetch_add(1, Ordering::Relaxed) << 32 | self.random() >> 32;
        let clock = Arc::clone(&link) as Arc<dyn Clock>;
        Worker { index, spool: Spool::new(objects, settings, clock, None, seed), link, lease: None, old: Vec::new() }
    }

    /// One call of one worker that is free.
    fn act(self: &Arc<Self>) {
        let mut worker = {
            let mut idle = self.idle.lock().unwrap();
            let indices: Vec<usize> = idle.keys().copied().collect();
            if indices.is_empty() {
                return;
            }
            idle.remove(&indices[self.below(indices.len())]).unwrap()
        };
        self.pass(Duration::from_millis(self.random() % 3000));
        worker.call(self);
        if worker.link.is_dead.load(Ordering::Relaxed) {
            let mut next = self.new_worker(worker.index);
            next.old = std::mem::take(&mut worker.old);
            next.old.extend(worker.lease.take());
            worker = next;
        }
        self.idle.lock().unwrap().insert(worker.index, worker);
    }
}

impl Worker {
    fn call(&mut self, world: &Arc<World>) {
        if let Some(lease) = self.lease.clone() {
            match world.below(10) {
                0..5 => self.commit(world, &lease),
                5..8 => self.beat(world, &lease),
                8 => self.fail(world, &lease),
                _ => self.release(world, &lease),
            }
            return;
        }
        if !self.old.is_empty() && world.one_in(6) {
            let lease = self.old[world.below(self.old.len())].clone();
            match world.below(4) {
                0 | 1 => self.commit(world, &lease),
                2 => self.beat(world, &lease),
                _ => self.fail(world, &lease),
            }
            return;
        }
        let job = &world.jobs[world.below(world.jobs.len())];
        match world.below(24) {
            0..2 => drop(self.answer(self.spool.submit(job))),
            2 => self.cancel(world, job.job_id()),
            3 => {
                let requeued = self.spool.requeue(job.job_id());
                if let Some(Requeued::Requeued { generation }) = self.answer_or_unknown(requeued) {
                    assert!(generation > 0, "{job:?}");
                }
            }
            4..6 => drop(self.answer(self.spool.reconcile())),
            6..8 => self.seal(),
            8 => drop(self.answer(self.spool.stats())),
            _ => self.claim(world),
        }
    }

    fn claim(&mut self, world: &Arc<World>) {
        if let Some(Claim::Task(lease)) = self.answer(self.spool.claim("w", LARGE)) {
            let mut promised = world.promised.lock().unwrap();
            assert!(
                promised.given.insert((lease.task, lease.epoch)),
                "{} epoch {} given twice",
                lease.task,
                lease.epoch
            );
            let highest = promised.highest.entry(lease.task).or_default();
            *highest = lease.epoch.max(*highest);
            self.lease = Some(*lease);
        }
    }

    /// Whether a later lease of the same task had been given out before this moment.
    fn is_overtaken(world: &World, lease: &Lease) -> bool {
        world.promised.lock().unwrap().highest.get(&lease.task).is_some_and(|&highest| highest > lease.epoch)
    }

    fn commit(&mut self, world: &Arc<World>, lease: &Lease) {
        let was_overtaken = Self::is_overtaken(world, lease);
        let bytes = result_bytes(lease);
        let stamp = FileStamp { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        if self.answer(self.spool.objects.put_new(&result_name(lease), bytes)).is_none() {
            return;
        }
        let result = TaskResult { output: stamp, report: format!("epoch {}", lease.epoch) };
        let Some(committed) = self.answer(self.spool.commit(lease, &result)) else { return };
        self.lease = None;
        let mut promised = world.promised.lock().unwrap();
        let is_recorded = matches!(committed, Committed::Task { .. } | Committed::Job);
        if is_recorded {
            assert!(!was_overtaken, "{} epoch {} committed though overtaken", lease.task, lease.epoch);
            let first = *promised.committed.entry(lease.task).or_insert(lease.epoch);
            assert_eq!(first, lease.epoch, "{} committed by two epochs", lease.task);
        }
        if committed == Committed::Job {
            let key = (lease.task.job, lease.generation);
            let by = *promised.ended.entry(key).or_insert((lease.task, lease.epoch));
            assert_eq!(by, (lease.task, lease.epoch), "two were told that they ended {key:?}");
            let cancelled = promised.cancelled.get(&lease.task.job);
            assert!(
                cancelled.is_none_or(|&cancelled| cancelled < lease.generation),
                "{key:?} was cancelled and is done"
            );
        }
    }

    fn beat(&mut self, world: &Arc<World>, lease: &Lease) {
        let was_overtaken = Self::is_overtaken(world, lease);
        match self.answer(self.spool.heartbeat(lease)) {
            Some(Pulse::Alive) => {
                assert!(!was_overtaken, "{} epoch {} lives though overtaken", lease.task, lease.epoch);
            }
            Some(Pulse::Cancelled | Pulse::Lost) => self.old.extend(self.lease.take()),
            None => {}
        }
    }

    fn fail(&mut self, world: &Arc<World>, lease: &Lease) {
        let was_overtaken = Self::is_overtaken(world, lease);
        let failure = if world.one_in(6) {
            Failure::permanent("bad", ExitCode::BadData)
        } else {
            Failure::retryable("disk", ExitCode::Io)
        };
        let Some(ended) = self.answer(self.spool.fail(lease, &failure)) else { return };
        // The holder's own end may have stood before it was overtaken; repeated, it is told again.
        let is_new = self.lease.take().is_some();
        assert!(!(was_overtaken && is_new && ended == Ended::DeadLetter), "{} failed though overtaken", lease.task);
        self.old.push(lease.clone());
    }

    fn release(&mut self, _world: &Arc<World>, lease: &Lease) {
        if self.answer(self.spool.release(lease)).is_some() {
            self.old.extend(self.lease.take());
        }
    }

    fn cancel(&mut self, world: &Arc<World>, job: JobId) {
        if !world.one_in(3) {
            return;
        }
        // The generation before the call: a later one may be begun while it is under way.
        let Some(Some(before)) = self.answer(self.spool.get(job)) else { return };
        let cancelled = self.spool.cancel(job);
        if self.answer_or_unknown(cancelled) == Some(Cancelled::Cancelled) {
            let mut promised = world.promised.lock().unwrap();
            let generation = before.summary.generation;
            let known = promised.cancelled.entry(job).or_insert(generation);
            *known = generation.max(*known);
            let ended = promised.ended.get(&(job, generation));
            assert!(ended.is_none() || before.summary.state == JobState::Done, "{job} was done and is cancelled");
        }
    }

    fn seal(&mut self) {
        let Some(ended) = self.answer(self.spool.unsealed()) else { return };
        for summary in ended {
            self.answer(self.spool.seal(summary.job, summary.generation));
        }
    }

    /// What a call said, `None` when the store failed it. Any other error is a bug.
    fn answer<T>(&self, answer: crate::Result<T>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(JobsError::Storage { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// As [`answer`](Self::answer), of a job that may not have been submitted yet.
    fn answer_or_unknown<T>(&self, answer: crate::Result<T>) -> Option<T> {
        match answer {
            Err(JobsError::NoSuchJob { .. }) => None,
            other => self.answer(other),
        }
    }
}

fn result_name(lease: &Lease) -> String {
    format!("results/{}/{}/{}", lease.task.job, lease.task.batch, lease.epoch)
}

fn result_bytes(lease: &Lease) -> Vec<u8> {
    format!("result of {} in epoch {}", lease.task, lease.epoch).into_bytes()
}

fn jobs(world_random: u64) -> Vec<Submission> {
    (0..3)
        .map(|number: u32| Submission {
            tenant: format!("tenant{}", number % 2),
            idempotency_key: format!("job{number}"),
            manifest: Digest::of(&number.to_le_bytes()),
            priority: i16::try_from(number % 2).unwrap(),
            deadline_unix_ms: None,
            needs: Needs::default(),
            engine: ENGINE.to_owned(),
            tasks: 1 + u32::try_from(world_random >> (8 * number) & 3).unwrap(),
        })
        .collect()
}

/// One run.
fn run(seed: u64) {
    let world = Arc::new(World {
        store: Arc::new(InMemory::new()),
        random: AtomicU64::new(seed),
        now_ms: AtomicU64::new(1_000_000),
        is_rough: AtomicBool::new(false),
        idle: Mutex::default(),
        frozen: AtomicU64::new(0),
        handles: AtomicU64::new(1),
        promised: Mutex::default(),
        jobs: jobs(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    });
    for index in 0..WORKERS {
        let worker = world.new_worker(index);
        world.idle.lock().unwrap().insert(index, worker);
    }
    world.is_rough.store(true, Ordering::Relaxed);
    for _ in 0..CALLS {
        world.act();
    }
    world.is_rough.store(false, Ordering::Relaxed);
    finish_in_peace(&world);
}

/// Nothing goes wrong any more: every job that was not cancelled comes to its end, and everything promised holds.
fn finish_in_peace(world: &Arc<World>) {
    let queue = world.new_worker(WORKERS).spool;
    for job in &world.jobs {
        queue.submit(job).unwrap();
    }
    for _ in 0..1000 {
        queue.reconcile().unwrap();
        for job in &world.jobs {
            if queue.get(job.job_id()).unwrap().unwrap().summary.state == JobState::Failed {
                queue.requeue(job.job_id()).unwrap();
            }
        }
        for summary in queue.unsealed().unwrap() {
            queue.seal(summary.job, summary.generation).unwrap();
        }
        match queue.claim("peace", LARGE).unwrap() {
            Claim::Task(lease) => {
                let bytes = result_bytes(&lease);
                let output = FileStamp { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
                queue.objects.put_new(&result_name(&lease), bytes).unwrap();
                let committed = queue.commit(&lease, &TaskResult { output, report: String::new() }).unwrap();
                assert!(matches!(committed, Committed::Task { .. } | Committed::Job), "{committed:?}");
                let promised = &mut world.promised.lock().unwrap();
                let first = *promised.committed.entry(lease.task).or_insert(lease.epoch);
                assert_eq!(first, lease.epoch, "{} was promised to an earlier epoch and given out again", lease.task);
            }
            Claim::Nothing(idle) => match idle.next_in {
                Some(next_in) => world.pass(next_in + Duration::from_millis(1)),
                None if queue.unsealed().unwrap().is_empty() => break,
                None => {}
            },
        }
    }
    let promised = world.promised.lock().unwrap();
    for job in &world.jobs {
        let record = queue.get(job.job_id()).unwrap().unwrap();
        let (state, generation) = (record.summary.state, record.summary.generation);
        assert!(matches!(state, JobState::Done | JobState::Cancelled), "{} ended as {state}", job.idempotency_key);
        if promised.ended.contains_key(&(job.job_id(), generation)) {
            assert_eq!(state, JobState::Done, "{} was promised as done", job.idempotency_key);
        }
        for (task, batch) in record.tasks.iter().zip(0..) {
            let id = TaskId { job: job.job_id(), batch };
            if let Some(&epoch) = promised.committed.get(&id) {
                assert_eq!(task.result.as_ref().map(|_| task.epoch), Some(epoch), "{id} was promised");
            }
            let Some(result) = &task.result else {
                assert_eq!(state, JobState::Cancelled, "{id} has no result");
                continue;
            };
            let name = format!("results/{}/{batch}/{}", id.job, task.epoch);
            let bytes = queue.objects.get(&name, 1 << 20).unwrap().unwrap();
            assert_eq!(Digest::of(&bytes), result.output.digest, "{id}: another result than was committed");
        }
    }
    drop(promised);
    queue.reconcile().unwrap();
    assert_eq!(queue.objects.list("queue/open").unwrap(), [], "remains of closed jobs");
}

/// The store as one worker meets it.
struct Rough {
    link: Arc<Link>,
}

impl Link {
    /// Before an operation: others may go on for a while, this worker may die, the store may refuse.
    fn before(&self) -> StoreResult<()> {
        self.check_dead()?;
        let world = &self.world;
        if !world.is_rough.load(Ordering::Relaxed) {
            return Ok(());
        }
        if world.one_in(100) && world.frozen.load(Ordering::Relaxed) < FROZEN_LIMIT as u64 {
            world.frozen.fetch_add(1, Ordering::Relaxed);
            for _ in 0..1 + world.below(8) {
                if world.one_in(3) {
                    world.pass(TTL / 2 + Duration::from_millis(world.random() % 60_000));
                }
                world.act();
            }
            world.frozen.fetch_sub(1, Ordering::Relaxed);
        }
        if world.one_in(300) {
            let days = world.random() % 2000;
            self.skew_ms.store(days.wrapping_sub(1000).wrapping_mul(86_400_000), Ordering::Relaxed);
        }
        if world.one_in(150) {
            self.is_dead.store(true, Ordering::Relaxed);
        }
        self.check_dead()?;
        if world.one_in(120) { Err(failure("refused")) } else { Ok(()) }
    }

    /// After an operation took effect: the worker may die, or only the answer be lost.
    fn after(&self) -> StoreResult<()> {
        let world = &self.world;
        if !world.is_rough.load(Ordering::Relaxed) {
            return Ok(());
        }
        if world.one_in(150) {
            self.is_dead.store(true, Ordering::Relaxed);
        }
        self.check_dead()?;
        if world.one_in(200) { Err(failure("answer lost")) } else { Ok(()) }
    }

    fn check_dead(&self) -> StoreResult<()> {
        if self.is_dead.load(Ordering::Relaxed) { Err(failure("this worker is dead")) } else { Ok(()) }
    }
}

fn failure(words: &str) -> StoreError {
    StoreError::Generic { store: "simulation", source: words.to_owned().into() }
}

impl Clock for Link {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.world.now_ms.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        let now_ms = 1_750_000_000_000 + self.world.now_ms.load(Ordering::Relaxed);
        now_ms.wrapping_add(self.skew_ms.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.world.pass(time);
    }
}

impl fmt::Debug for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rough({})", self.link.index)
    }
}

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rough store of worker {}", self.link.index)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Rough {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.link.before()?;
        let put = self.link.world.store.put_opts(at, payload, options).await?;
        self.link.after().map(|()| put)
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.link.world.store.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.link.before()?;
        self.link.world.store.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        places: BoxStream<'static, StoreResult<ObjectPath>>,
    ) -> BoxStream<'static, StoreResult<ObjectPath>> {
        if let Err(error) = self.link.before() {
            return stream::once(async { Err(error) }).boxed();
        }
        let link = Arc::clone(&self.link);
        let deleted = self.link.world.store.delete_stream(places);
        deleted.map(move |place| place.and_then(|place| link.after().map(|()| place))).boxed()
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.link.before() {
            Ok(()) => self.link.world.store.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.link.before()?;
        self.link.world.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.link.world.store.copy_opts(from, to, options).await
    }
}

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 300;

#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("NIGHTSHIFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NIGHTSHIFT_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed} failed; NIGHTSHIFT_SIM_SEED={seed} runs it again");
    }
}
