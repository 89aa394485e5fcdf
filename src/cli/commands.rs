//! The commands, one file each: arguments in, files written, a [`Report`] out. The mains choose among them and end with
//! the exit code that [`finish`] gives.
//!
//! The worker's main names `run`, those on queues, `calibrate` and `completions` only, so that nothing which decrypts is linked into its
//! binary.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jobs::ExitCode;
use serde_json::Value;

use super::args::Global;
use super::error::CliError;
use super::progress::{Progress, Screen};
use super::{logging, report};

pub mod audit;
pub mod calibrate;
pub mod completions;
pub mod decrypt;
pub mod demo;
pub mod doctor;
pub mod encrypt;
pub mod evaluate;
mod exact;
pub mod fetch;
pub mod inspect;
pub mod keygen;
pub mod model_import;
pub mod plan;
pub mod queue;
pub mod run;
pub mod sign;
pub mod signing_keygen;
pub mod status;
pub mod submit;
pub mod train;
pub mod verify;
pub mod work;

/// What every command gets besides its arguments.
pub struct Context {
    /// Threads to compute with.
    pub threads: NonZeroUsize,
    /// Where the command tells how far it is.
    pub progress: Box<dyn Progress>,
}

impl Context {
    /// Sets up logs and progress as the options say. Called once, by a main.
    #[must_use]
    pub fn start(global: &Global) -> Context {
        let screen = Screen::choose(global);
        logging::init(global, &screen);
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = global.threads.and_then(NonZeroUsize::new).unwrap_or_else(cores);
        Context { threads, progress: screen.progress() }
    }
}

/// What a command says when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// For people: a short table, each line ended. Not printed with `--quiet`.
    pub text: String,
    /// For programs: one object.
    pub json: Value,
}

/// The command's outcome; a panic, already told on standard error, is [`CliError::Panicked`].
///
/// # Errors
/// Those of the command, and that.
pub fn guarded(command: impl FnOnce() -> Result<Report, CliError>) -> Result<Report, CliError> {
    // What the command shared with others is not used again, but for printing the error.
    catch_unwind(AssertUnwindSafe(command)).unwrap_or(Err(CliError::Panicked))
}

/// Prints the report on standard output, or the error and its advice on standard error.
pub fn finish(outcome: Result<Report, CliError>, global: &Global) -> ExitCode {
    let printed = outcome.and_then(|report| print(&report, global).map_err(CliError::Stdout));
    match printed {
        Ok(()) => ExitCode::Done,
        Err(error) => {
            report::print_error(&error, error.advice().as_deref());
            error.exit_code()
        }
    }
}

fn print(report: &Report, global: &Global) -> io::Result<()> {
    if global.json {
        return report::print_json_line(&report.json);
    }
    if global.quiet {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(report.text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanError;

    #[test]
    fn a_panic_is_a_bug_and_nothing_else_changes() {
        let none: Vec<Report> = Vec::new();
        let error = guarded(|| Ok(none[0].clone())).unwrap_err();
        assert_eq!(error.exit_code().code(), 70);
        assert!(error.advice().is_some_and(|advice| advice.contains("report it")), "{error}");
        let wish = PlanError::Requirement { what: "precision", found: 99.0, expected: "2 to 30 bits" };
        assert_eq!(guarded(|| Err(wish.into())).unwrap_err().exit_code().code(), 64);
        let report = Report { text: String::new(), json: Value::Null };
        assert_eq!(guarded(|| Ok(report.clone())).unwrap(), report);
    }
}
