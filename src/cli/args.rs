//! What the two commands accept: clap types, and the one place where a usage error becomes exit code 64.
//!
//! Types only: no file is opened and nothing is computed here. A value that parses is in range, but whether a path
//! exists or a model fits is found out by the command itself.

mod audit;
mod client;
mod metrics;
mod queue;
mod train;
mod trust;
mod values;
mod worker;

use std::ffi::OsString;

use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args, Parser};

pub use audit::AuditArgs;
pub use client::{
    Client, ClientCommand, DecryptArgs, DemoArgs, EncryptArgs, EvaluateArgs, ImportArgs, InspectArgs, KeygenArgs,
    ModelCommand, PlanArgs,
};
pub use metrics::MetricsArgs;
pub use queue::{DoctorArgs, FetchArgs, JobsArgs, QueueArgs, StatusArgs, SubmitArgs, WorkArgs};
pub use train::{TrainArgs, TrainDevice};
pub use trust::{
    OptionalSigning, RequiredSigning, SignArgs, SigningKeygenArgs, TrustArgs, Validity, VerifyArgs, WorkerKey,
};
pub use values::{ByteSize, Isa, TableFormat, TableOut, ValueError, WeightBits};
pub use worker::{CalibrateArgs, RunArgs, Worker, WorkerCommand};

/// Exit code of a command line that cannot be understood (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;

/// Where the help shows them, apart from a command's own.
const HEADING: &str = "Options of every command";

/// Options that every command of both binaries takes, before or after its name.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// Print exactly one JSON object on standard output
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,

    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = HEADING)]
    pub quiet: bool,

    /// Log more: once for debug, twice for trace
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = HEADING)]
    pub verbose: u8,

    /// Log as JSON, one object a line, on standard error
    #[arg(long, global = true, help_heading = HEADING)]
    pub json_logs: bool,

    /// Threads to compute with, 1 to 1024 [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = HEADING,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
}

/// Arguments, or the text to show instead of running anything: help, the version or a usage error.
///
/// # Errors
/// [`NotRun`], for help and version as well.
pub fn parse<P, I>(arguments: I) -> Result<P, NotRun>
where
    P: Parser,
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    P::try_parse_from(arguments).map_err(NotRun)
}

/// Why a command line leads to no run: help or version was asked for, or it cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotRun(clap::Error);

impl NotRun {
    /// 0 for help and version, [`EXIT_USAGE`] for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        // Help shown because a command is missing counts as an error, and clap sends it to standard error.
        if self.0.use_stderr() { EXIT_USAGE } else { 0 }
    }

    /// Shows the text: help and version on standard output, errors on standard error.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn print(&self) -> std::io::Result<()> {
        self.0.print()
    }
}

#[cfg(test)]
mod tests;
