//! The figures of one worker process, and where they go: a textfile at the end, an address while it runs. What is counted is
//! `jobs::metrics`'s affair.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jobs::metrics::families::Ended;
use jobs::metrics::{Listener, Metrics, Textfile};
use jobs::{ExitCode, Receipt, manifest};

use super::CliError;
use super::args::MetricsArgs;
use crate::worker::{CODE_COMMIT, RunReport, RunRequest};

/// Figures, and who is told of them.
pub struct Figures {
    metrics: Arc<Metrics>,
    textfile: Option<Textfile>,
    _listener: Option<Listener>,
}

impl Figures {
    /// Begins to count, and to answer where that is asked for.
    ///
    /// # Errors
    /// [`CliError::Listen`].
    pub fn start(args: &MetricsArgs, isa: &str) -> Result<Figures, CliError> {
        let metrics = Arc::new(Metrics::new());
        metrics.set_build(env!("CARGO_PKG_VERSION"), CODE_COMMIT, isa);
        metrics.expect_jobs();
        let listen = |address| {
            Listener::start(address, Arc::clone(&metrics)).map_err(|source| CliError::Listen { address, source })
        };
        let listener = args.metrics_listen.map(listen).transpose()?;
        if let Some(listener) = &listener {
            tracing::info!("figures at http://{}/metrics", listener.address());
        }
        let textfile = args.metrics_textfile.as_deref().map(Textfile::new);
        Ok(Figures { metrics, textfile, _listener: listener })
    }

    /// To count more than jobs.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Counts one job by its outcome and writes the textfile. A failure to write it is logged: the job's own outcome matters more.
    pub fn job_ended(&mut self, request: &RunRequest, outcome: Result<&RunReport, ExitCode>) {
        let now = unix_secs(SystemTime::now());
        match outcome {
            Ok(done) => {
                let ended = if done.already_done { Ended::Nothing } else { Ended::Done };
                // Both were read a moment ago; where they are gone by now, less is counted.
                if let (Ok(job), Ok(receipt)) = (manifest::load(&request.job_path), Receipt::load(&done.receipt_path)) {
                    self.metrics.job_done(ended, job.manifest(), &receipt, now);
                }
            }
            Err(code) => self.metrics.job_failed(code, now),
        }
        self.write();
    }

    /// Writes the textfile, where there is one.
    pub fn write(&mut self) {
        if let Some(textfile) = &mut self.textfile
            && let Err(error) = textfile.write(&self.metrics)
        {
            tracing::warn!("figures are not written: {error}");
        }
    }
}

/// Seconds since 1970; 0 for times before.
pub(super) fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
