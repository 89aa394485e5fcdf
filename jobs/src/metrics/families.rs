//! Every family there is, and what a finished or failed job adds to them. A name here is a promise to dashboards and alerts:
//! `ops/` uses them, and a test holds the two together.

use super::{Family, Kind, Metrics};
use crate::exit::ExitCode;
use crate::manifest::JobManifest;
use crate::receipt::{Cost, Receipt};

/// Seconds from a blink to half a day.
const SECONDS: &[f64] =
    &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0];

macro_rules! families {
    ($($constant:ident $name:literal $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family { name: $name, help: $help, kind: $kind, labels: &[$($label),*] };
        )*
        /// All of them, in the order they are shown.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD "nightshift_build_info" Kind::Gauge, ["version", "commit", "isa"], "Always 1: the program and its kernels.";
    JOBS "nightshift_jobs_total" Kind::Counter, ["outcome", "code"], "Jobs by outcome (done, nothing, failed) and exit code.";
    IMAGES "nightshift_images_total" Kind::Counter, [], "Images of jobs that were done.";
    BATCHES "nightshift_batches_total" Kind::Counter, [], "Batches of jobs that were done.";
    BYTES "nightshift_bytes_total" Kind::Counter, ["direction"], "Bytes of encrypted inputs (in) and results (out) of jobs done.";
    STAGE_SECONDS "nightshift_stage_seconds_total" Kind::Counter, ["stage"], "Seconds by stage of jobs that were done.";
    JOB_SECONDS "nightshift_job_seconds" Kind::Histogram(SECONDS), [], "Seconds from start to receipt of jobs that were done.";
    ATTEMPTS "nightshift_attempts_total" Kind::Counter, [], "Attempts that done jobs took, one each at least.";
    LAST_RATIO "nightshift_last_ratio" Kind::Gauge, ["what"], "Measured over predicted of the last job: seconds, memory, output.";
    LAST_PEAK "nightshift_last_peak_bytes" Kind::Gauge, [], "Most memory that the last job's process had resident.";
    LAST_DONE "nightshift_last_done_timestamp_seconds" Kind::Gauge, [], "When a job was last done, seconds since 1970.";
    LAST_RUN "nightshift_last_run_timestamp_seconds" Kind::Gauge, [], "When a job last ended, done or not, seconds since 1970.";
    QUEUE_JOBS "nightshift_queue_jobs" Kind::Gauge, ["state"], "Jobs in the queue by state.";
    QUEUE_OLDEST "nightshift_queue_oldest_seconds" Kind::Gauge, [], "How long the oldest queued job has waited.";
    QUEUE_LEASES "nightshift_queue_live_leases" Kind::Gauge, [], "Leases that are alive, of all workers.";
    CLAIMS "nightshift_claims_total" Kind::Counter, [], "Tasks that this worker claimed.";
    LEASE_LOSSES "nightshift_lease_losses_total" Kind::Counter, [], "Leases that this worker lost while it computed.";
    TASKS_RUNNING "nightshift_tasks_running" Kind::Gauge, [], "Tasks that this worker computes now.";
}

/// A job that ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was computed.
    Done,
    /// It had been done before.
    Nothing,
}

impl Metrics {
    /// Which program this is; `isa` is the tier of its kernels.
    pub fn set_build(&self, version: &str, commit: Option<&str>, isa: &str) {
        self.set(&BUILD, &[version, commit.unwrap_or("unknown"), isa], 1.0);
    }

    /// Counts a job that ended well. Of one that had been done before only the outcome is counted.
    pub fn job_done(&self, ended: Ended, manifest: &JobManifest, receipt: &Receipt, now_unix_secs: u64) {
        let outcome = match ended {
            Ended::Done => "done",
            Ended::Nothing => "nothing",
        };
        self.add(&JOBS, &[outcome, ExitCode::Done.name()], 1.0);
        self.set(&LAST_RUN, &[], now_unix_secs as f64);
        self.set(&LAST_DONE, &[], now_unix_secs as f64);
        if ended == Ended::Nothing {
            return;
        }
        self.add(&IMAGES, &[], receipt.images as f64);
        self.add(&BATCHES, &[], receipt.batches.len() as f64);
        self.add(&ATTEMPTS, &[], f64::from(receipt.attempts));
        let inputs: u64 = manifest.batches.iter().map(|batch| batch.input.bytes).fold(0, u64::saturating_add);
        self.add(&BYTES, &["in"], inputs as f64);
        self.add(&BYTES, &["out"], receipt.measured.output_bytes as f64);
        self.observe(&JOB_SECONDS, &[], receipt.measured.elapsed_secs);
        for timing in receipt.batches.iter().flat_map(|batch| &batch.stages) {
            self.add(&STAGE_SECONDS, &[&timing.name], timing.secs);
        }
        self.set(&LAST_PEAK, &[], receipt.measured.peak_bytes as f64);
        if let Some(predicted) = receipt.predicted {
            self.set_ratios(&predicted, &receipt.measured);
        }
    }

    /// Counts a job that stopped with this code.
    pub fn job_failed(&self, code: ExitCode, now_unix_secs: u64) {
        self.add(&JOBS, &["failed", code.name()], 1.0);
        self.set(&LAST_RUN, &[], now_unix_secs as f64);
    }

    /// Writes down the outcomes that have not been seen as zeros, so that a first failure is an increase and not a beginning.
    pub fn expect_jobs(&self) {
        self.add(&JOBS, &["done", ExitCode::Done.name()], 0.0);
        for code in ExitCode::ALL.into_iter().filter(|&code| !matches!(code, ExitCode::Done | ExitCode::Usage)) {
            self.add(&JOBS, &["failed", code.name()], 0.0);
        }
    }

    fn set_ratios(&self, predicted: &Cost, measured: &Cost) {
        for (what, predicted, measured) in [
            ("seconds", predicted.elapsed_secs, measured.elapsed_secs),
            ("memory", predicted.peak_bytes as f64, measured.peak_bytes as f64),
            ("output", predicted.output_bytes as f64, measured.output_bytes as f64),
        ] {
            if predicted > 0.0 {
                self.set(&LAST_RATIO, &[what], measured / predicted);
            }
        }
    }
}
