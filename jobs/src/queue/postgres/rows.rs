//! Reading rows: jobs, tasks, counts.

use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};

use super::{Postgres, database, job_state, unsigned};
use crate::digest::{Digest, FileStamp};
use crate::error::{JobsError, Result};
use crate::queue::{
    Failure, JobId, JobRecord, JobState, JobSummary, ListFilter, Needs, Stats, Submission, TaskRecord, TaskResult,
    TaskState,
};

/// Every column of a job that a summary needs.
macro_rules! summary_sql {
    ($rest:literal) => {
        concat!(
            "SELECT * FROM (SELECT j.*, (extract(epoch FROM submitted) * 1000)::bigint AS submitted_unix_ms, ",
            "(SELECT count(*) FROM nightshift_tasks t WHERE t.job = j.id AND t.state = 1 AND j.state = 0) AS running ",
            "FROM nightshift_jobs j) s ",
            $rest
        )
    };
}

const GET: &str = summary_sql!("WHERE id = $1");
const LIST: &str = summary_sql!(
    "WHERE ($1::text IS NULL OR tenant = $1) AND ($2::smallint IS NULL OR (state = $2 AND \
     ($2 <> 0 OR $3::boolean = (running > 0)))) ORDER BY submitted DESC, id LIMIT $4"
);
const UNSEALED: &str = summary_sql!("WHERE state IN (1, 2) AND NOT is_sealed ORDER BY submitted, id LIMIT 1000");

impl Postgres {
    pub(super) async fn get_job(&self, job: JobId) -> Result<Option<JobRecord>> {
        let read = database("reading a job");
        let mut connection = self.pool.acquire().await.map_err(&read)?;
        let mut tx = connection.begin().await.map_err(&read)?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *tx)
            .await
            .map_err(&read)?;
        let row = sqlx::query(GET).bind(job.as_bytes().as_slice()).fetch_optional(&mut *tx).await.map_err(&read)?;
        let Some(row) = row else { return Ok(None) };
        let summary = summary(&row)?;
        let tasks = sqlx::query("SELECT * FROM nightshift_tasks WHERE job = $1 ORDER BY batch")
            .bind(job.as_bytes().as_slice())
            .fetch_all(&mut *tx)
            .await
            .map_err(&read)?;
        let tasks = tasks.iter().map(|row| task(row, summary.state)).collect::<Result<Vec<TaskRecord>>>()?;
        Ok(Some(JobRecord { summary, tasks }))
    }

    pub(super) async fn list_jobs(&self, filter: &ListFilter) -> Result<Vec<JobSummary>> {
        let (state, is_running) = match filter.state {
            None => (None, None),
            Some(JobState::Queued) => (Some(0_i16), Some(false)),
            Some(JobState::Running) => (Some(0), Some(true)),
            Some(JobState::Done) => (Some(1), None),
            Some(JobState::Failed) => (Some(2), None),
            Some(JobState::Cancelled) => (Some(3), None),
        };
        let limit = filter.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let query = sqlx::query(LIST).bind(filter.tenant.as_deref()).bind(state).bind(is_running).bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(database("listing jobs"))?;
        rows.iter().map(summary).collect()
    }

    pub(super) async fn unsealed_jobs(&self) -> Result<Vec<JobSummary>> {
        let rows = sqlx::query(UNSEALED).fetch_all(&self.pool).await.map_err(database("listing ended jobs"))?;
        rows.iter().map(summary).collect()
    }

    pub(super) async fn count(&self) -> Result<Stats> {
        let sql = "WITH open AS (SELECT j.id, j.submitted, \
                     EXISTS (SELECT 1 FROM nightshift_tasks t WHERE t.job = j.id AND t.state = 1) AS is_running, \
                     EXISTS (SELECT 1 FROM nightshift_tasks t WHERE t.job = j.id AND t.attempts > 0) AS is_touched \
                   FROM nightshift_jobs j WHERE j.state = 0) \
                   SELECT (SELECT count(*) FROM open WHERE NOT is_running) AS queued, \
                     (SELECT count(*) FROM open WHERE is_running) AS running, \
                     (SELECT count(*) FROM nightshift_jobs WHERE state = 1) AS done, \
                     (SELECT count(*) FROM nightshift_jobs WHERE state = 2) AS failed, \
                     (SELECT count(*) FROM nightshift_jobs WHERE state = 3) AS cancelled, \
                     (SELECT count(*) FROM nightshift_tasks t JOIN open ON open.id = t.job WHERE t.state = 0) AS waiting, \
                     (SELECT count(*) FROM nightshift_tasks t JOIN open ON open.id = t.job \
                       WHERE t.state = 1 AND t.expires > nightshift_now()) AS leases, \
                     (SELECT (extract(epoch FROM nightshift_now() - min(submitted)) * 1000)::bigint \
                       FROM open WHERE NOT is_touched) AS oldest";
        let row = sqlx::query(sql).fetch_one(&self.pool).await.map_err(database("counting"))?;
        let read = || -> std::result::Result<Stats, sqlx::Error> {
            Ok(Stats {
                jobs_queued: unsigned(&row, "queued")?,
                jobs_running: unsigned(&row, "running")?,
                jobs_done: unsigned(&row, "done")?,
                jobs_failed: unsigned(&row, "failed")?,
                jobs_cancelled: unsigned(&row, "cancelled")?,
                tasks_queued: unsigned(&row, "waiting")?,
                live_leases: unsigned(&row, "leases")?,
                oldest_queued_ms: row.try_get::<Option<i64>, _>("oldest")?.map(|ms| u64::try_from(ms).unwrap_or(0)),
            })
        };
        read().map_err(database("counting"))
    }
}

/// The job of a row that has the columns of `nightshift_jobs`.
pub(super) fn submission(row: &PgRow) -> Result<Submission> {
    let read = || -> std::result::Result<(Submission, Vec<u8>), sqlx::Error> {
        let submission = Submission {
            tenant: row.try_get("tenant")?,
            idempotency_key: row.try_get("idempotency_key")?,
            manifest: Digest::from_bytes([0; 32]),
            priority: row.try_get("priority")?,
            deadline_unix_ms: row.try_get::<Option<i64>, _>("deadline_unix_ms")?.map(i64::unsigned_abs),
            needs: Needs {
                memory_bytes: unsigned(row, "memory_bytes")?,
                scratch_bytes: unsigned(row, "scratch_bytes")?,
            },
            engine: row.try_get("engine")?,
            tasks: row.try_get::<i32, _>("tasks")?.unsigned_abs(),
        };
        Ok((submission, row.try_get("manifest")?))
    };
    let (submission, manifest) = read().map_err(database("reading a job"))?;
    Ok(Submission { manifest: digest(&manifest)?, ..submission })
}

fn summary(row: &PgRow) -> Result<JobSummary> {
    let submission = submission(row)?;
    let read = || -> std::result::Result<(JobSummary, Option<String>), sqlx::Error> {
        let running: i64 = row.try_get("running")?;
        let state = job_state(row.try_get("state")?, running);
        let summary = JobSummary {
            job: submission.job_id(),
            submitted_unix_ms: unsigned(row, "submitted_unix_ms")?,
            state,
            generation: row.try_get::<i32, _>("generation")?.unsigned_abs(),
            done: row.try_get::<i32, _>("done")?.unsigned_abs(),
            running: u32::try_from(running).unwrap_or(u32::MAX),
            failure: None,
            is_sealed: row.try_get("is_sealed")? || state == JobState::Cancelled,
            submission: submission.clone(),
        };
        Ok((summary, row.try_get("failure")?))
    };
    let (summary, text) = read().map_err(database("reading a job"))?;
    Ok(JobSummary { failure: text.as_deref().map(failure).transpose()?, ..summary })
}

fn task(row: &PgRow, job: JobState) -> Result<TaskRecord> {
    let read = || -> std::result::Result<_, sqlx::Error> {
        let number: i16 = row.try_get("state")?;
        let state = match number {
            1 if !job.is_final() => TaskState::Running,
            2 => TaskState::Done,
            3 => TaskState::Failed,
            _ => TaskState::Queued,
        };
        let digest: Option<Vec<u8>> = row.try_get("output_digest")?;
        let bytes: Option<i64> = row.try_get("output_bytes")?;
        let report: Option<String> = row.try_get("report")?;
        let text: Option<String> = row.try_get("failure")?;
        let record = TaskRecord {
            state,
            epoch: row.try_get::<i32, _>("epoch")?.unsigned_abs(),
            attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
            worker: row.try_get("worker")?,
            result: None,
            failure: None,
        };
        Ok((record, digest, bytes, report, text))
    };
    let (record, output, bytes, report, text) = read().map_err(database("reading a task"))?;
    let result = match (output, bytes, report) {
        (Some(output), Some(bytes), Some(report)) => {
            Some(TaskResult { output: FileStamp { digest: digest(&output)?, bytes: bytes.unsigned_abs() }, report })
        }
        _ => None,
    };
    Ok(TaskRecord { result, failure: text.as_deref().map(failure).transpose()?, ..record })
}

fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| damaged(format!("a digest of {} bytes", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

fn failure(text: &str) -> Result<Failure> {
    serde_json::from_str(text).map_err(|error| damaged(format!("a failure: {error}")))
}

/// A failure as it is kept.
pub(super) fn failure_text(failure: &Failure) -> Result<String> {
    serde_json::to_string(failure).map_err(|error| damaged(format!("a failure: {error}")))
}

fn damaged(detail: String) -> JobsError {
    JobsError::QueueRecord { place: "queue database".to_owned(), detail }
}
