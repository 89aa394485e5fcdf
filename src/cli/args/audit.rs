//! Arguments of `audit`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

/// Arguments of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// secret.key of the job
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Finished job of the polynomial engine, JOB/job.toml
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// Model package with exact activations (tables) for the same images
    #[arg(long, value_name = "X.nsm")]
    pub exact: PathBuf,
    /// Images drawn at random from the job
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub sample: usize,
    /// Draw the same images as another audit with this seed [default: from the system's randomness]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// PNG of the images on which the two differ; holds plain images, so its mode is 0600
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Refuse a sample that would take longer, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub time_limit: u64,
    /// Run it however long it takes
    #[arg(long)]
    pub yes: bool,
}
