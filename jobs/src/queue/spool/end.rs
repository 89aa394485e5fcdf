//! What a lease's holder says: still here, done, failed, handed back. The `end` record of the epoch is the fence: its holder and whoever
//! finds the lease run out want to create the same record, and only one of them can.

use std::time::Duration;

use super::Spool;
use super::reader::Found;
use super::records::{self, End, EndDoc, Outcome, RECORD_LIMIT_BYTES, SCHEMA};
use super::view::Phase;
use crate::error::{JobsError, Result};
use crate::queue::{Committed, Ended, Failure, Lease, Pulse, TaskResult};

/// What became of the end that a holder wrote.
enum Written {
    /// It stands, in this form: of two tries of one holder, the first.
    Stands(End),
    /// The job was over before.
    Over,
    /// The lease was ended by somebody else before.
    Stale,
}

impl Spool {
    pub(super) fn beat(&self, lease: &Lease) -> Result<Pulse> {
        let (job, batch) = (lease.task.job, lease.task.batch);
        let end = records::end_name(job, lease.generation, batch, lease.epoch);
        if self.objects.size(&end)?.is_some() {
            return Ok(Pulse::Lost);
        }
        if !self.is_open(job, lease.generation)? {
            return Ok(if self.is_last_holder(lease)? { Pulse::Cancelled } else { Pulse::Lost });
        }
        let name = records::beat_name(job, lease.generation, batch, lease.epoch);
        crate::failpoint!("spool.heartbeat.before-beat", JobsError::storage_io(&name));
        // Any text that no earlier beat had.
        self.objects.put(&name, format!("{:016x}", self.random()).into_bytes())?;
        crate::failpoint!("spool.heartbeat.after-beat", JobsError::storage_io(&name));
        Ok(Pulse::Alive)
    }

    pub(super) fn commit_task(&self, lease: &Lease, result: &TaskResult) -> Result<Committed> {
        result.validate()?;
        crate::failpoint!("spool.commit.before-end", JobsError::storage_io("commit"));
        match self.write_end(lease, End::Done(result.clone()))? {
            Written::Stands(End::Done(_)) => {}
            Written::Stands(_) | Written::Stale => return Ok(Committed::Lost),
            Written::Over => return Ok(Committed::Cancelled),
        }
        crate::failpoint!("spool.commit.after-end", JobsError::storage_io("commit"));
        let Some(view) = self.reader.view(lease.task.job, lease.generation)? else {
            self.remove_late_end(lease)?;
            return self.committed_in_closed(lease);
        };
        let by = format!("{}.{}", lease.task.batch, lease.epoch);
        let reached = view.outcome.clone().or_else(|| view.reached());
        let Some(reached) = reached else {
            let tasks = view.doc.submission.tasks;
            return Ok(Committed::Task { left: tasks - view.done() });
        };
        // Asked even where the end is known: only its writer is told that it was the one.
        match self.settle_as(&view, reached, &by)? {
            (Outcome::Done, true) => Ok(Committed::Job),
            (Outcome::Done, false) => Ok(Committed::Task { left: 0 }),
            (Outcome::Failed(_) | Outcome::Cancelled, _) => Ok(Committed::Cancelled),
        }
    }

    pub(super) fn fail_task(&self, lease: &Lease, failure: &Failure) -> Result<Ended> {
        crate::failpoint!("spool.fail.before-end", JobsError::storage_io("fail"));
        let end = self.end_of(failure, lease.attempt);
        self.end_undone(lease, end)
    }

    pub(super) fn release_task(&self, lease: &Lease) -> Result<Ended> {
        crate::failpoint!("spool.release.before-end", JobsError::storage_io("release"));
        self.end_undone(lease, End::Released)
    }

    fn end_undone(&self, lease: &Lease, end: End) -> Result<Ended> {
        let stands = match self.write_end(lease, end)? {
            Written::Stands(stands) => stands,
            Written::Over => return Ok(Ended::Cancelled),
            Written::Stale => return Ok(Ended::Lost),
        };
        crate::failpoint!("spool.end.after-end", JobsError::storage_io("end"));
        let Some(view) = self.reader.view(lease.task.job, lease.generation)? else {
            self.remove_late_end(lease)?;
            return Ok(Ended::Cancelled);
        };
        match stands {
            End::Done(_) => Ok(Ended::Lost),
            End::Failed(failure) => match self.settle(&view, Outcome::Failed(failure), "fail")? {
                Outcome::Failed(_) => Ok(Ended::DeadLetter),
                Outcome::Cancelled | Outcome::Done => Ok(Ended::Cancelled),
            },
            End::Retry { .. } | End::Released if view.outcome.is_some() => Ok(Ended::Cancelled),
            End::Retry { delay_ms, .. } => Ok(Ended::Requeued { due_in: Duration::from_millis(delay_ms) }),
            End::Released => Ok(Ended::Requeued { due_in: Duration::ZERO }),
        }
    }

    /// Creates the end of this lease's epoch, unless the job is over or the epoch has ended.
    fn write_end(&self, lease: &Lease, end: End) -> Result<Written> {
        let (job, generation) = (lease.task.job, lease.generation);
        let name = records::end_name(job, generation, lease.task.batch, lease.epoch);
        if let Some(known) = self.read_end(&name)? {
            return Ok(known);
        }
        if !self.is_open(job, generation)? {
            // An end of ours may have come to stand in the meantime, or have been put away with the job.
            if let Some(known) = self.read_end(&name)? {
                return Ok(known);
            }
            return Ok(match self.end_in_closed(lease)? {
                Some(stands) => Written::Stands(stands),
                None if self.is_last_holder(lease)? => Written::Over,
                None => Written::Stale,
            });
        }
        let doc = EndDoc { schema: SCHEMA.to_owned(), end: end.clone(), is_holder: true };
        if self.objects.create(&name, records::to_bytes(&name, &doc)?)? {
            return Ok(Written::Stands(end));
        }
        // Gone again only if the job was closed in between.
        Ok(self.read_end(&name)?.unwrap_or(Written::Over))
    }

    fn read_end(&self, name: &str) -> Result<Option<Written>> {
        let Some(bytes) = self.objects.get(name, RECORD_LIMIT_BYTES)? else { return Ok(None) };
        let doc: EndDoc = records::from_bytes(&self.objects.place(name), &bytes)?;
        Ok(Some(if doc.is_holder { Written::Stands(doc.end) } else { Written::Stale }))
    }

    /// Whether the lease was the task's last one when its job ended: then it was not lost, only not wanted any more.
    fn is_last_holder(&self, lease: &Lease) -> Result<bool> {
        let batch = lease.task.batch as usize;
        match self.reader.find(lease.task.job)? {
            Some(Found::Open(view)) if view.generation == lease.generation => {
                let task = view.tasks.get(batch);
                Ok(task.is_some_and(|task| task.epoch == lease.epoch && matches!(task.phase, Phase::Leased { .. })))
            }
            Some(Found::Closed { generation, doc }) if generation == lease.generation => {
                let task = doc.tasks.get(batch);
                Ok(task.is_some_and(|task| task.epoch == lease.epoch && task.result.is_none()))
            }
            // Put back since: a later epoch may have it.
            Some(_) | None => Ok(false),
        }
    }

    /// The commit of this very lease in the record of its closed job.
    fn end_in_closed(&self, lease: &Lease) -> Result<Option<End>> {
        let Some(Found::Closed { generation, doc }) = self.reader.find(lease.task.job)? else { return Ok(None) };
        let task = doc.tasks.get(lease.task.batch as usize);
        let task = task.filter(|task| generation == lease.generation && task.epoch == lease.epoch);
        Ok(task.and_then(|task| task.result.clone()).map(End::Done))
    }

    fn committed_in_closed(&self, lease: &Lease) -> Result<Committed> {
        match self.reader.find(lease.task.job)? {
            Some(Found::Closed { generation, doc }) if generation == lease.generation => {
                let is_ours = doc.tasks.get(lease.task.batch as usize).is_some_and(|task| task.epoch == lease.epoch);
                Ok(match doc.outcome {
                    Outcome::Done if is_ours => Committed::Task { left: 0 },
                    Outcome::Done => Committed::Lost,
                    Outcome::Failed(_) | Outcome::Cancelled => Committed::Cancelled,
                })
            }
            _ => Ok(Committed::Lost),
        }
    }

    /// Removes an end that was written into the folder of a job closed in between.
    fn remove_late_end(&self, lease: &Lease) -> Result<()> {
        let (job, generation) = (lease.task.job, lease.generation);
        self.objects.delete(&records::end_name(job, generation, lease.task.batch, lease.epoch))?;
        self.objects.remove_empty_folder(&records::folder(job, generation));
        self.objects.remove_empty_folder(&records::job_folder(job));
        Ok(())
    }
}
