//! How far a job is, from what its finished tasks said: for people who wait.

use super::task::TaskReport;
use crate::queue::{JobRecord, TaskState};

/// Figures of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JobProgress {
    /// Images whose results stand.
    pub images_done: u64,
    /// Seconds that workers spent on them, one after the other.
    pub worker_secs: f64,
    /// The most attempts that any task has had.
    pub attempts: u32,
    /// Seconds until the last task is done, if the workers that run now go on as fast as those before; `None` while nobody runs
    /// or none has finished.
    pub eta_secs: Option<f64>,
}

impl JobProgress {
    /// Reads the records of a job.
    pub fn of(record: &JobRecord) -> Self {
        let mut progress = Self::default();
        let (mut done, mut running) = (0_u32, 0_u32);
        for task in &record.tasks {
            progress.attempts = progress.attempts.max(task.attempts);
            running += u32::from(task.state == TaskState::Running);
            let result = task.result.as_ref().filter(|_| task.state == TaskState::Done);
            // A report of another version counts for nothing here.
            let report = result.and_then(|result| serde_json::from_str::<TaskReport>(&result.report).ok());
            if let Some(report) = report {
                done += 1;
                progress.images_done += u64::from(report.computed.batch.occupancy);
                progress.worker_secs += report.computed.measured.elapsed_secs;
            }
        }
        let left = record.summary.submission.tasks.saturating_sub(done);
        if done > 0 && running > 0 && left > 0 {
            let each = progress.worker_secs / f64::from(done);
            progress.eta_secs = Some(each * f64::from(left) / f64::from(running));
        }
        progress
    }

    /// Images a second of one worker; `None` before the first result.
    pub fn images_per_second(&self) -> Option<f64> {
        (self.worker_secs > 0.0).then(|| self.images_done as f64 / self.worker_secs)
    }
}
