//! Arguments of the commands on queues: the client's `submit` and `fetch`, the worker's `work`, `status`, `cancel`, `requeue` and
//! `doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jobs::queue::{JobId, JobState};

use super::values::parse_duration;
use super::{ByteSize, Isa, MetricsArgs, TrustArgs};

/// The queue of every command on queues.
#[derive(Args, Debug)]
pub struct QueueArgs {
    /// Queue: spool:DIR, s3://BUCKET/PREFIX or postgres://USER@HOST/DB?store=spool:DIR
    #[arg(long = "queue", value_name = "URL", env = "NIGHTSHIFT_QUEUE", hide_env_values = true)]
    pub url: String,
}

/// Arguments of `submit`.
#[derive(Args, Debug)]
pub struct SubmitArgs {
    /// Job folder, or the manifest in it
    #[arg(value_name = "JOB/")]
    pub job: PathBuf,
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Wait until the job is over, and bring its results back as `fetch` does
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// Job folder, or the manifest in it
    #[arg(value_name = "JOB/")]
    pub job: PathBuf,
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
}

/// Arguments of `work`.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Do one batch and leave, or leave where there is none
    #[arg(long, conflicts_with_all = ["drain", "concurrency"])]
    pub once: bool,
    /// Leave when the queue is empty
    #[arg(long)]
    pub drain: bool,
    /// Batches at a time, 1 to 256; they share the threads
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub concurrency: usize,
    /// Memory for all batches together, such as 2GiB [default: what is free at the start]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<ByteSize>,
    /// Folder for files while they are worked on; models and keys are kept in it [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// After SIGTERM, how long running batches may go on before they are handed back, such as 30s
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub grace: Duration,
    /// Keep a batch's state in the scratch folder from so much work on, for whoever goes on with it there
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = parse_duration)]
    pub checkpoint_after: Duration,
    /// This worker's name in the queue [default: the host's name and the process's number]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Kernel to compute with
    #[arg(long, value_enum, env = "NIGHTSHIFT_ISA", default_value_t)]
    pub isa: Isa,
    /// Signatures.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Figures.
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Only jobs in this state: queued, running, done, failed or cancelled
    #[arg(long, value_name = "STATE")]
    pub state: Option<JobState>,
    /// Only this tenant's jobs
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// At most so many jobs, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// Arguments of `cancel` and `requeue`.
#[derive(Args, Debug)]
pub struct JobsArgs {
    /// Jobs, by the ids that `status` shows
    #[arg(value_name = "ID", required = true)]
    pub jobs: Vec<JobId>,
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// The queue.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Scratch folder to look at [default: the system's temporary one]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}
