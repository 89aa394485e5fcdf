//! Reading a spool: a listing, the records behind it, and what they say together. Records never change, so each is fetched
//! once and kept while it is listed. A job whose records vanish while they are read has just been closed by somebody, and is
//! left out; one whose records cannot be understood is set aside, so that it stops nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

use super::records::{
    self, CLOSED_LIMIT_BYTES, ClosedDoc, EndDoc, FinalDoc, JobDoc, LeaseDoc, OPEN, RECORD_LIMIT_BYTES,
};
use super::view::{Docs, JobView, Names, group};
use crate::error::{JobsError, Result};
use crate::queue::{JobId, JobState};
use crate::store::objects::{Listed, Objects};

/// All open jobs at one moment, more or less: each job's records are consistent, since each is written once.
pub(super) struct Scan {
    pub(super) views: Vec<JobView>,
    /// Jobs that cannot be read, and why.
    pub(super) damaged: Vec<JobsError>,
    pub(super) listing: Vec<Listed>,
}

/// A job found by its id.
pub(super) enum Found {
    Open(Box<JobView>),
    Closed { generation: u32, doc: Box<ClosedDoc> },
}

pub(super) struct Reader {
    objects: Arc<Objects>,
    records: Mutex<HashMap<String, Record>>,
}

#[derive(Clone)]
enum Record {
    Job(Arc<JobDoc>),
    Lease(Arc<LeaseDoc>),
    End(Arc<EndDoc>),
    Final(Arc<FinalDoc>),
}

impl Reader {
    pub(super) fn new(objects: Arc<Objects>) -> Self {
        Self { objects, records: Mutex::default() }
    }

    /// Every open job.
    pub(super) fn scan(&self) -> Result<Scan> {
        let listing = self.objects.list(OPEN)?;
        let jobs = group(&listing);
        self.forget_unlisted(&listing);
        let mut wanted = Vec::new();
        for (&(job, generation), names) in jobs.iter().filter(|(_, names)| names.has_job) {
            wanted.extend(names_of(job, generation, names));
        }
        // A record that cannot be fetched or understood is met again below, and blamed on its job.
        let _ = self.fetch(&wanted);
        let (mut views, mut damaged) = (Vec::new(), Vec::new());
        for ((job, generation), names) in jobs {
            match self.view_of(job, generation, &names) {
                Ok(Some(view)) => views.push(view),
                Ok(None) => {}
                Err(problem @ JobsError::Storage { .. }) => return Err(problem),
                Err(problem) => damaged.push(problem),
            }
        }
        Ok(Scan { views, damaged, listing })
    }

    /// One generation of an open job; `None` when it is not open.
    pub(super) fn view(&self, job: JobId, generation: u32) -> Result<Option<JobView>> {
        let listing = self.objects.list(&records::folder(job, generation))?;
        match group(&listing).remove(&(job, generation)) {
            Some(names) => self.view_of(job, generation, &names),
            None => Ok(None),
        }
    }

    /// A job's latest generation, open or closed. Looks at the open ones first: a job that closes in between is then found
    /// among the closed.
    pub(super) fn find(&self, job: JobId) -> Result<Option<Found>> {
        let listing = self.objects.list(&records::job_folder(job))?;
        let mut open: BTreeMap<u32, Names> =
            group(&listing).into_iter().map(|((_, generation), names)| (generation, names)).collect();
        open.retain(|_, names| names.has_job);
        let closed = self.closed_generations(job)?;
        let latest_closed = closed.last_key_value().map(|(&generation, &state)| (generation, state));
        if let Some((generation, names)) = open.pop_last()
            && latest_closed.is_none_or(|(closed_generation, _)| closed_generation < generation)
        {
            return match self.view_of(job, generation, &names)? {
                Some(view) => Ok(Some(Found::Open(Box::new(view)))),
                // Closed between the two looks.
                None => self.closed(job, self.closed_generations(job)?.pop_last()),
            };
        }
        self.closed(job, latest_closed)
    }

    /// The closed generations of a job and how they ended.
    pub(super) fn closed_generations(&self, job: JobId) -> Result<BTreeMap<u32, JobState>> {
        let listing = self.objects.list(&records::closed_folder(job))?;
        let parsed = listing.iter().filter_map(|listed| records::parse_closed(&listed.name));
        Ok(parsed.map(|(_, generation, state)| (generation, state)).collect())
    }

    /// The latest closed generation of each job.
    pub(super) fn closed_jobs(&self) -> Result<BTreeMap<JobId, (u32, JobState)>> {
        let listing = self.objects.list(records::closed_root())?;
        // In the order of names, so that the last generation of a job stays.
        let parsed = listing.iter().filter_map(|listed| records::parse_closed(&listed.name));
        Ok(parsed.map(|(job, generation, state)| (job, (generation, state))).collect())
    }

    /// The records of closed jobs; those that cannot be read are left out.
    pub(super) fn closed_docs(&self, jobs: &[(JobId, u32, JobState)]) -> Result<Vec<(JobId, u32, ClosedDoc)>> {
        let names: Vec<String> =
            jobs.iter().map(|&(job, generation, state)| records::closed_name(job, generation, state)).collect();
        let fetched = self.objects.get_many(&names, CLOSED_LIMIT_BYTES)?;
        let read = jobs.iter().zip(&names).zip(fetched).filter_map(|((&(job, generation, _), name), bytes)| {
            let doc = records::from_bytes(&self.objects.place(name), &bytes?).ok()?;
            Some((job, generation, doc))
        });
        Ok(read.collect())
    }

    fn closed(&self, job: JobId, latest: Option<(u32, JobState)>) -> Result<Option<Found>> {
        let Some((generation, state)) = latest else { return Ok(None) };
        let name = records::closed_name(job, generation, state);
        let bytes = self.objects.get(&name, CLOSED_LIMIT_BYTES)?;
        let place = self.objects.place(&name);
        let bytes = bytes.ok_or_else(|| JobsError::NotStored { place: place.clone() })?;
        Ok(Some(Found::Closed { generation, doc: Box::new(records::from_bytes(&place, &bytes)?) }))
    }

    fn view_of(&self, job: JobId, generation: u32, names: &Names) -> Result<Option<JobView>> {
        if !names.has_job {
            return Ok(None);
        }
        let found = self.fetch(&names_of(job, generation, names))?;
        let Some(Record::Job(job_doc)) = found.get(&records::job_name(job, generation)).cloned() else {
            return Ok(None);
        };
        let problem = check_job(job, &job_doc);
        if let Some(detail) = problem {
            let place = self.objects.place(&records::job_name(job, generation));
            return Err(JobsError::QueueRecord { place, detail });
        }
        let outcome = if names.has_final {
            let Some(Record::Final(doc)) = found.get(&records::final_name(job, generation)) else { return Ok(None) };
            Some(Arc::clone(doc))
        } else {
            None
        };
        let mut claims = BTreeMap::new();
        for (&batch, claim) in &names.claims {
            let lease = found.get(&records::lease_name(job, generation, batch, claim.epoch));
            let Some(Record::Lease(lease)) = lease else { return Ok(None) };
            let mut end = None;
            if claim.has_end {
                let record = found.get(&records::end_name(job, generation, batch, claim.epoch));
                let Some(Record::End(record)) = record else { return Ok(None) };
                end = Some(Arc::clone(record));
            }
            claims.insert(batch, (Arc::clone(lease), end));
        }
        Ok(Some(JobView::new(job, generation, names, Docs { job: job_doc, outcome, claims })))
    }

    /// The records of these names, from memory or the store; those that are not there are left out. What can be read is
    /// kept even when something else cannot.
    fn fetch(&self, names: &[String]) -> Result<HashMap<String, Record>> {
        let mut found = HashMap::new();
        let mut unknown = Vec::new();
        {
            let known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            for name in names {
                match known.get(name) {
                    Some(record) => drop(found.insert(name.clone(), record.clone())),
                    None => unknown.push(name.clone()),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let fetched = self.objects.get_many(&unknown, RECORD_LIMIT_BYTES)?;
        let mut problem = None;
        for (name, bytes) in unknown.into_iter().zip(fetched) {
            let Some(bytes) = bytes else { continue };
            match parse(&self.objects.place(&name), &name, &bytes) {
                Ok(record) => {
                    let mut known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(name.clone(), record.clone());
                    found.insert(name, record);
                }
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(found), Err)
    }

    fn forget_unlisted(&self, listing: &[Listed]) {
        let listed: BTreeSet<&str> = listing.iter().map(|listed| listed.name.as_str()).collect();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|name, _| listed.contains(name.as_str()));
    }
}

/// The names of the records that a view is made of.
fn names_of(job: JobId, generation: u32, names: &Names) -> Vec<String> {
    let mut wanted = vec![records::job_name(job, generation)];
    if names.has_final {
        wanted.push(records::final_name(job, generation));
    }
    for (&batch, claim) in &names.claims {
        wanted.push(records::lease_name(job, generation, batch, claim.epoch));
        if claim.has_end {
            wanted.push(records::end_name(job, generation, batch, claim.epoch));
        }
    }
    wanted
}

fn parse(place: &str, name: &str, bytes: &[u8]) -> Result<Record> {
    fn read<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<Arc<T>> {
        records::from_bytes(place, bytes).map(Arc::new)
    }
    match name.rsplit(['.', '/']).next() {
        Some("job") => read(place, bytes).map(Record::Job),
        Some("lease") => read(place, bytes).map(Record::Lease),
        Some("end") => read(place, bytes).map(Record::End),
        _ => read(place, bytes).map(Record::Final),
    }
}

/// What is wrong with a job's own record: its numbers decide how much memory its tasks take.
fn check_job(job: JobId, doc: &JobDoc) -> Option<String> {
    if let Err(problem) = doc.submission.validate() {
        return Some(problem.to_string());
    }
    let (id, carried) = (doc.submission.job_id(), doc.carried.len());
    if id != job {
        return Some(format!("is of job {id}, expected {job}"));
    }
    if carried != 0 && carried as u64 != u64::from(doc.submission.tasks) {
        return Some(format!("{carried} tasks carried, expected {} or none", doc.submission.tasks));
    }
    None
}
