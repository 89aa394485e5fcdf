//! Arguments of `nightshift-worker`, the command of the machine that holds no secret.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{ByteSize, Global, Isa};

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
}
