//! Arguments of `nightshift-worker`, the command of the machine that holds no secret.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::values::parse_duration;
use super::{
    ByteSize, DoctorArgs, Global, Isa, JobsArgs, MetricsArgs, SigningKeygenArgs, StatusArgs, TrustArgs, WorkArgs,
};

/// Run encrypted batches; holds no secret and learns nothing of the images
#[derive(Parser, Debug)]
#[command(name = "nightshift-worker", version, after_help = "Example: nightshift-worker run JOB/job.toml")]
pub struct Worker {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: WorkerCommand,
}

/// The worker's commands.
#[derive(Subcommand, Debug)]
pub enum WorkerCommand {
    /// Run one job and leave; does nothing where the job is done
    #[command(after_help = "Example: nightshift-worker run JOB/job.toml --memory-limit 2GiB --json")]
    Run(RunArgs),
    /// Measure this machine once, so that times are foretold well
    #[command(after_help = "Example: nightshift-worker calibrate")]
    Calibrate(CalibrateArgs),
    /// Work on the batches of a queue, beside any number of other workers
    #[command(
        after_help = "Example: nightshift-worker work --queue spool:/srv/nightshift --concurrency 2 --scratch /var/cache/nightshift"
    )]
    Work(WorkArgs),
    /// Show a queue: counts, jobs, how far they are
    #[command(after_help = "Example: nightshift-worker status --queue spool:/srv/nightshift --state failed")]
    Status(StatusArgs),
    /// Cancel jobs that are not over; their workers stop at the next heartbeat
    #[command(
        after_help = "Example: nightshift-worker cancel 0123456789abcdef0123456789abcdef --queue spool:/srv/nightshift"
    )]
    Cancel(JobsArgs),
    /// Put failed or cancelled jobs back; batches that are done stay done
    #[command(
        after_help = "Example: nightshift-worker requeue 0123456789abcdef0123456789abcdef --queue spool:/srv/nightshift"
    )]
    Requeue(JobsArgs),
    /// Try what a queue and this machine must be able to do, and say what to do about what they cannot
    #[command(
        after_help = "Example: nightshift-worker doctor --queue s3://bucket/nightshift --scratch /var/cache/nightshift"
    )]
    Doctor(DoctorArgs),
    /// Make a key to sign receipts with
    #[command(after_help = "Example: nightshift-worker signing-keygen --out worker-signing.key")]
    SigningKeygen(SigningKeygenArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example: nightshift-worker completions zsh > _nightshift-worker")]
    Completions {
        /// Shell to complete in
        shell: Shell,
    },
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The job's manifest
    #[arg(value_name = "JOB/job.toml")]
    pub job: PathBuf,
    /// Model package [default: the one the manifest names]
    #[arg(long, value_name = "M.nsm")]
    pub model: Option<PathBuf>,
    /// Evaluation key [default: the one the manifest names]
    #[arg(long, value_name = "FILE")]
    pub eval_key: Option<PathBuf>,
    /// Refuse a job that needs more memory, such as 2GiB or 500MB [default: this machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<ByteSize>,
    /// Kernel to compute with
    #[arg(long, value_enum, env = "NIGHTSHIFT_ISA", default_value_t)]
    pub isa: Isa,
    /// Rates that calibrate wrote, for the seconds foretold [default: those in the user's cache]
    #[arg(long, value_name = "FILE")]
    pub rates: Option<PathBuf>,
    /// Keep a batch's state beside its results from so much work on, and go on from it
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = parse_duration)]
    pub checkpoint_after: Duration,
    /// Signatures.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Figures.
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

/// Arguments of `calibrate`.
#[derive(Args, Debug)]
pub struct CalibrateArgs {
    /// File to write [default: nightshift/rates.json in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    pub rates: Option<PathBuf>,
    /// Measure this kernel only [default: all that this machine has]
    #[arg(long, value_enum)]
    pub isa: Option<Isa>,
    /// Keep what inner loops take alone, without the correction by a whole run: a floor to hold runs against
    #[arg(long)]
    pub stand_alone: bool,
}
