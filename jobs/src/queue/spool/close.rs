//! The end of a job: one `final` record decides how it ended, one `closed` record keeps what is left of it, then the open
//! ones go. Each step can be repeated by anybody; a crash between two of them leaves a job that the next who looks at it closes.

use super::Spool;
use super::reader::Scan;
use super::records::{self, FinalDoc, Outcome, RECORD_LIMIT_BYTES, SCHEMA};
use super::view::JobView;
use crate::error::{JobsError, Result};
use crate::queue::JobId;

impl Spool {
    /// Writes down how the job ended, unless somebody has; how it really ended.
    pub(super) fn settle(&self, view: &JobView, outcome: Outcome, by: &str) -> Result<Outcome> {
        if let Some(known) = &view.outcome {
            return Ok(known.clone());
        }
        self.settle_as(view, outcome, by).map(|(outcome, _)| outcome)
    }

    /// As [`settle`](Self::settle); also whether it was `by` who ended it.
    pub(super) fn settle_as(&self, view: &JobView, outcome: Outcome, by: &str) -> Result<(Outcome, bool)> {
        let name = records::final_name(view.job, view.generation);
        let doc = FinalDoc { schema: SCHEMA.to_owned(), outcome: outcome.clone(), by: by.to_owned() };
        crate::failpoint!("spool.final.before", JobsError::storage_io(&name));
        let created = self.objects.create(&name, records::to_bytes(&name, &doc)?)?;
        crate::failpoint!("spool.final.after", JobsError::storage_io(&name));
        if created && self.objects.size(&records::job_name(view.job, view.generation))?.is_some() {
            return Ok((outcome, true));
        }
        if created {
            // Ended otherwise and closed since we looked: its `final` had already been removed, and the job's record before.
            let decided = self.closed_outcome(view)?;
            self.objects.delete(&name)?;
            return Ok((decided, false));
        }
        match self.objects.get(&name, RECORD_LIMIT_BYTES)? {
            Some(bytes) => {
                let found: FinalDoc = records::from_bytes(&self.objects.place(&name), &bytes)?;
                let is_ours = found.by == by;
                Ok((found.outcome, is_ours))
            }
            // Closed since.
            None => self.closed_outcome(view).map(|outcome| (outcome, false)),
        }
    }

    /// Keeps what is left of an ended job and removes its open records: the job's own first, so that nobody takes what
    /// remains for a job, and `final` last.
    pub(super) fn close(&self, view: &JobView, outcome: &Outcome) -> Result<()> {
        // What happened to its tasks up to now; whoever closes first has the last word.
        let Some(latest) = self.reader.view(view.job, view.generation)? else { return Ok(()) };
        let name = records::closed_name(view.job, view.generation, outcome.state());
        let bytes = records::to_bytes(&name, &latest.closed(outcome.clone()))?;
        crate::failpoint!("spool.close.before-closed", JobsError::storage_io(&name));
        self.objects.create(&name, bytes)?;
        crate::failpoint!("spool.close.after-closed", JobsError::storage_io(&name));
        self.objects.delete(&records::job_name(view.job, view.generation))?;
        crate::failpoint!("spool.close.after-job", JobsError::storage_io(&name));
        self.remove_open(view.job, view.generation).map(drop)
    }

    /// Removes what lies in the folder of a closed generation; how many records.
    fn remove_open(&self, job: JobId, generation: u32) -> Result<u64> {
        let folder = records::folder(job, generation);
        let final_name = records::final_name(job, generation);
        let mut removed = 0;
        let listing = self.objects.list(&folder)?;
        for listed in listing.iter().filter(|listed| listed.name != final_name) {
            self.objects.delete(&listed.name)?;
            removed += 1;
        }
        if listing.iter().any(|listed| listed.name == final_name) {
            crate::failpoint!("spool.close.before-final", JobsError::storage_io(&final_name));
            self.objects.delete(&final_name)?;
            removed += 1;
        }
        self.objects.remove_empty_folder(&folder);
        self.objects.remove_empty_folder(&records::job_folder(job));
        Ok(removed)
    }

    /// Removes the records of jobs that were closed by somebody who did not live to do so.
    pub(super) fn clear_remains(&self, scan: &Scan) -> Result<u64> {
        let mut folders: Vec<(JobId, u32)> = scan
            .listing
            .iter()
            .filter_map(|listed| records::parse_open(&listed.name))
            .map(|(job, generation, _)| (job, generation))
            .collect();
        folders.dedup();
        let closed = self.reader.closed_jobs()?;
        let mut removed = 0;
        for (job, generation) in folders {
            let is_closed = closed.get(&job).is_some_and(|&(latest, _)| latest >= generation)
                && self.reader.closed_generations(job)?.contains_key(&generation);
            if is_closed {
                self.objects.delete(&records::job_name(job, generation))?;
                removed += self.remove_open(job, generation)?;
            }
        }
        Ok(removed)
    }

    /// How a closed generation ended, from its record.
    fn closed_outcome(&self, view: &JobView) -> Result<Outcome> {
        let generations = self.reader.closed_generations(view.job)?;
        let place = records::final_name(view.job, view.generation);
        let Some(&state) = generations.get(&view.generation) else {
            return Err(JobsError::NotStored { place: self.objects.place(&place) });
        };
        let docs = self.reader.closed_docs(&[(view.job, view.generation, state)])?;
        let outcome = docs.into_iter().next().map(|(_, _, doc)| doc.outcome);
        outcome.ok_or_else(|| JobsError::NotStored { place: self.objects.place(&place) })
    }
}
