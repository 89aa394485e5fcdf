//! A job's folder into a queue: what the payload store lacks goes up, every file held to the digest that the manifest has for it,
//! and only then is the job enqueued. Doing it again changes nothing.

use crate::digest::{Digest, FileStamp};
use crate::error::{FileRole, JobsError, Result};
use crate::manifest::{JobManifest, LoadedJob};
use crate::queue::{JobId, Needs, Queue, Submission, Submitted};
use crate::signing::Signature;
use crate::store::Store;

/// The tenant of manifests that name none.
pub const NO_TENANT: &str = "default";

/// Whose job it is, for the queue.
#[must_use]
pub fn tenant_of(manifest: &JobManifest) -> &str {
    manifest.tenant.as_deref().unwrap_or(NO_TENANT)
}

/// The name under which the queue knows the job.
#[must_use]
pub fn job_id_of(manifest: &JobManifest) -> JobId {
    JobId::of(tenant_of(manifest), idempotency_key_of(manifest))
}

fn idempotency_key_of(manifest: &JobManifest) -> &str {
    manifest.queue.as_ref().and_then(|terms| terms.idempotency_key.as_deref()).unwrap_or(&manifest.job_id)
}

/// Where a request's signature lies among the store's documents: by the manifest's content too, since another manifest under the same
/// name is refused only later, and must not find its signature's place taken.
pub(crate) fn signature_name(job: JobId, manifest: Digest) -> String {
    format!("{job}/request-{manifest}.sig")
}

/// What the queue is told of a manifest; `manifest_stamp` is its file's.
pub fn submission(manifest: &JobManifest, manifest_stamp: FileStamp, needs: Needs) -> Submission {
    let terms = manifest.queue.clone().unwrap_or_default();
    let deadline = terms.deadline().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Submission {
        tenant: tenant_of(manifest).to_owned(),
        idempotency_key: idempotency_key_of(manifest).to_owned(),
        manifest: manifest_stamp.digest,
        priority: terms.priority.unwrap_or(0),
        deadline_unix_ms: deadline.and_then(|since| u64::try_from(since.as_millis()).ok()),
        needs,
        engine: manifest.engine.clone(),
        // A manifest that was checked has no more than a queue takes.
        tasks: u32::try_from(manifest.batches.len()).unwrap_or(u32::MAX),
    }
}

/// That a submission says what its manifest says: a queue is no place where a job's tenant, engine, priority or deadline can change.
///
/// # Errors
/// [`JobsError::Field`] naming the first that differs.
pub(crate) fn expect_same_job(submission: &Submission, manifest: &JobManifest) -> Result<()> {
    let stamp = FileStamp { digest: submission.manifest, bytes: 0 };
    let expected = self::submission(manifest, stamp, submission.needs);
    let differs = |field: &str, found: String, expected: String| Err(JobsError::field(field, found, expected));
    if submission.tenant != expected.tenant {
        return differs("queue record, tenant", submission.tenant.clone(), expected.tenant);
    }
    if submission.idempotency_key != expected.idempotency_key {
        return differs("queue record, idempotency_key", submission.idempotency_key.clone(), expected.idempotency_key);
    }
    if submission.engine != expected.engine {
        return differs("queue record, engine", submission.engine.clone(), expected.engine);
    }
    if submission.priority != expected.priority {
        return differs("queue record, priority", submission.priority.to_string(), expected.priority.to_string());
    }
    if submission.deadline_unix_ms != expected.deadline_unix_ms {
        let shown = |ms: Option<u64>| ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms since 1970"));
        let (found, expected) = (submission.deadline_unix_ms, expected.deadline_unix_ms);
        return differs("queue record, deadline", shown(found), shown(expected));
    }
    if submission.tasks != expected.tasks {
        return differs("queue record, tasks", submission.tasks.to_string(), expected.tasks.to_string());
    }
    Ok(())
}

/// Uploads and enqueues. `uploaded` is told of each file's bytes when the store has it.
///
/// # Errors
/// [`JobsError::NoModel`] for a job whose folder has no model; [`JobsError::WrongDigest`] and [`JobsError::WrongSize`] for files that are not
/// the manifest's; [`JobsError::KeyReused`]; those of reading and of the store and queue. Nothing is enqueued then.
pub fn submit(
    queue: &dyn Queue,
    store: &Store,
    job: &LoadedJob,
    needs: Needs,
    uploaded: &mut dyn FnMut(u64),
) -> Result<Submitted> {
    let manifest = job.manifest();
    let model = &manifest.model;
    let Some(model_path) = &model.path else {
        return Err(JobsError::NoModel { name: model.name.clone(), digest: model.digest });
    };
    let mut files = vec![
        (FileRole::Model, crate::paths::resolve_input(job.root(), model_path)?, model.digest),
        (
            FileRole::EvalKey,
            crate::paths::resolve_input(job.root(), &manifest.eval_key.path)?,
            manifest.eval_key.digest,
        ),
    ];
    for (index, batch) in manifest.batches.iter().enumerate() {
        let path = job.input_path(batch)?;
        crate::manifest::check_size(FileRole::Input(index), &path, batch.input.bytes)?;
        files.push((FileRole::Input(index), path, batch.input.digest));
    }
    for (role, path, expected) in files {
        let found = store.put_blob(&path)?;
        if found.digest != expected {
            return Err(JobsError::WrongDigest { role, path, found: found.digest, expected });
        }
        uploaded(found.bytes);
    }
    // The bytes that were parsed, whatever became of the file meanwhile.
    let stamp = store.put_blob_bytes(job.document().as_bytes())?;
    let submission = submission(manifest, stamp, needs);
    if let Some(signature) = Signature::load_beside(job.path())? {
        let name = signature_name(submission.job_id(), stamp.digest);
        store.create_document(&name, signature.to_text().as_bytes())?;
    }
    queue.submit(&submission)
}
