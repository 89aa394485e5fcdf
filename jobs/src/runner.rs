//! The runner: claims tasks of a queue, has them computed, commits what came out. Knows leases, payloads and time, and nothing of
//! what is computed: that is [`Compute`]'s.
//!
//! One task, in order: claim; bring manifest, model, key and inputs into scratch, each held to its digest; compute; put the
//! result under the lease's epoch; commit. From claim to commit a thread of its own keeps the lease alive. Whoever commits a job's
//! last task, or gives it up, writes the job's receipt and seals it; if it dies before that, another worker does ([`seal`]).
//!
//! Three kinds of trouble end differently: the job's own (permanent, or counted and tried again), the machine's (handed back
//! uncounted, and the worker ends, since its next task would meet the same), and a lost lease (nothing is written any more).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::JobsError;
use crate::exit::ExitCode;
use crate::manifest::JobManifest;
use crate::queue::{Capacity, Idle, JobId, JobState, Lease, Stats, TaskId};
use crate::receipt::{BatchReceipt, Cost, Receipt};

mod pace;
mod progress;
mod scratch;
pub mod seal;
mod task;
mod work;

pub use progress::JobProgress;
pub use scratch::Scratch;
pub use work::{Runner, run};

/// Whoever is idle looks again at the latest after this time.
pub const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// What work that was told to stop may still take before its lease is handed back over its head.
pub const STOPPING: Duration = Duration::from_secs(5);
/// Times a queue or store may fail in a row before a worker that is to end by itself gives up.
pub const FAILURES_LIMIT: u32 = 4;

/// A task's files in scratch, complete and of the right digests, and where its result goes.
#[derive(Clone, Copy, Debug)]
pub struct TaskFiles<'a> {
    /// The job's manifest, checked.
    pub manifest: &'a JobManifest,
    /// The manifest's file, whose signature may lie beside it.
    pub manifest_path: &'a Path,
    /// Number of the batch.
    pub index: usize,
    /// Model package.
    pub model: &'a Path,
    /// Evaluation key.
    pub eval_key: &'a Path,
    /// The batch's encrypted images; of the manifest's size, its digest not yet looked at.
    pub input: &'a Path,
    /// Where the encrypted logits go.
    pub output: &'a Path,
    /// Where the state of the work may be kept: the same for every worker that shares the scratch folder, whoever has the task.
    pub checkpoint: &'a Path,
    /// Most memory that the task may take.
    pub memory_bytes: u64,
}

/// What computing a task gave, besides the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Computed {
    /// The batch, as the receipt will have it.
    pub batch: BatchReceipt,
    /// What the plan foretold.
    pub predicted: Cost,
    /// What it took.
    pub measured: Cost,
    /// Kernels that ran.
    pub isa: String,
    /// Threads that ran.
    pub threads: u32,
    /// Version of the program that ran.
    pub code_version: String,
    /// The commit it was built from, where that is known.
    pub code_commit: Option<String>,
}

/// Why a task has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No attempt can succeed.
    Permanent {
        /// Words for the receipt.
        reason: String,
        /// The code a one-shot would end with.
        exit_code: ExitCode,
    },
    /// Another attempt, perhaps on another machine, may succeed. Counted.
    Retryable {
        /// Words for the log and, of the last attempt, for the receipt.
        reason: String,
        /// The code a one-shot would end with.
        exit_code: ExitCode,
    },
    /// This machine cannot work, whatever the task. Not counted.
    Machine {
        /// Words for the log.
        reason: String,
        /// The code that the worker ends with.
        exit_code: ExitCode,
    },
    /// It was told to stop.
    Stopped,
}

/// Computes tasks. Shared by all slots of a worker.
pub trait Compute: Send + Sync {
    /// Evaluates one batch, soon giving up when `stop` is set.
    ///
    /// # Errors
    /// [`Trouble`], of the kind that decides what becomes of the task. A panic counts as retryable.
    fn compute(&self, files: &TaskFiles<'_>, stop: &AtomicBool) -> Result<Computed, Trouble>;

    /// The worker's signature of a receipt, where it has a key: the text of a `.sig` file.
    fn sign(&self, receipt: &[u8]) -> Option<String> {
        let _ = receipt;
        None
    }
}

/// How a worker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its name in the queue, for people: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    pub worker: String,
    /// Tasks at a time, at least 1.
    pub slots: usize,
    /// When to end.
    pub until: Until,
    /// How long running tasks may go on after the first signal.
    pub grace: Duration,
    /// Whether the queue is counted now and then ([`Event::Counted`]).
    pub counts: bool,
}

/// When a worker ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After one task, or when there is none to be had.
    Once,
    /// When nothing is queued, waiting or leased any more.
    Empty,
    /// Never: a signal ends it.
    Told,
}

/// What happens, for logs and metrics. Told from the thread where it happens.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A task is begun.
    Claimed {
        /// Its lease.
        lease: &'a Lease,
    },
    /// A task's result is committed.
    Done {
        /// Its lease.
        lease: &'a Lease,
        /// What was computed.
        computed: &'a Computed,
        /// Tasks of the job that are not done.
        left: u32,
        /// From claim to commit.
        elapsed_secs: f64,
    },
    /// A task failed.
    Failed {
        /// Its lease.
        lease: &'a Lease,
        /// Why.
        reason: &'a str,
        /// The code that says what kind of failure.
        exit_code: ExitCode,
        /// When it is due again; `None` when it was given up.
        due_in: Option<Duration>,
    },
    /// A task was handed back, not counted.
    Released {
        /// Its lease.
        lease: &'a Lease,
    },
    /// A lease was lost: nothing of the task is written.
    Lost {
        /// The lease.
        lease: &'a Lease,
    },
    /// The job was cancelled, or failed in another task.
    Cancelled {
        /// The lease.
        lease: &'a Lease,
    },
    /// A job's receipt stands.
    Sealed {
        /// The job.
        job: JobId,
        /// Done or failed.
        state: JobState,
        /// Manifest and receipt; none where nobody can read the manifest.
        documents: Option<(&'a JobManifest, &'a Receipt)>,
    },
    /// How the queue stands, now and then, where that was asked for.
    Counted {
        /// Its counts.
        stats: Stats,
    },
    /// Nothing to do.
    Idle {
        /// Why.
        idle: Idle,
    },
    /// Queue or store did not answer as they should; tried again after a while.
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What they said.
        error: &'a JobsError,
    },
    /// Leases that had run out were taken back from workers that are gone.
    Reconciled {
        /// How many.
        leases: u64,
    },
    /// Signalled: no new tasks.
    Draining {
        /// Tasks still running.
        running: usize,
    },
}

/// How a worker ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tasks committed.
    pub done: u64,
    /// Tasks that failed, counted once an attempt.
    pub failed: u64,
    /// Tasks handed back.
    pub released: u64,
    /// Tasks whose lease was lost or whose job was cancelled.
    pub lost: u64,
    /// The last task that did not succeed, with its reason and code.
    pub last_failure: Option<(TaskId, String, ExitCode)>,
    /// Why the machine cannot work, where that ended it.
    pub machine: Option<(String, ExitCode)>,
}

/// What a runner is given.
pub struct Parts {
    /// The queue.
    pub queue: Arc<dyn crate::queue::Queue>,
    /// Its payloads.
    pub store: crate::store::Store,
    /// Who computes.
    pub compute: Arc<dyn Compute>,
    /// Where files lie meanwhile.
    pub scratch: Scratch,
    /// How to work.
    pub options: Options,
    /// What the machine has for tasks in all: memory at the start, scratch at the moment, the program's engines.
    pub capacity: Box<dyn Fn() -> Capacity + Send + Sync>,
    /// Signals received: from the first on no task is claimed, from the second on none goes on.
    pub signals: Arc<AtomicUsize>,
    /// Is told what happens.
    pub observe: Box<dyn Fn(Event<'_>) + Send + Sync>,
}
