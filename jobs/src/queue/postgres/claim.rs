//! Submissions and claims.

use std::time::Duration;

use sqlx::{Connection, Row};

use super::rows::{failure_text, submission};
use super::{Postgres, database, notify};
use crate::digest::Digest;
use crate::error::{JobsError, Result};
use crate::queue::spool::{given_up, overdue, ran_out};
use crate::queue::{Capacity, Claim, Idle, JobId, Lease, Submission, Submitted, TaskId};

/// Leases taken back in one call; the next call takes the rest.
const EXPIRE_LIMIT: i64 = 1000;

/// The next task: priority, then the tenant with the fewest running tasks, then age, then batch. The job's row is only read:
/// should the job end at this moment, the first heartbeat will tell.
const CHOOSE: &str = "SELECT t.batch, t.epoch + 1 AS next_epoch, t.attempts + 1 AS next_attempt, j.* \
    FROM nightshift_tasks t JOIN nightshift_jobs j ON j.id = t.job \
    LEFT JOIN (SELECT b.tenant, count(*) AS running FROM nightshift_tasks a JOIN nightshift_jobs b ON b.id = a.job \
               WHERE a.state = 1 AND b.state = 0 GROUP BY b.tenant) r ON r.tenant = j.tenant \
    WHERE t.state = 0 AND j.state = 0 AND t.due <= nightshift_now() \
      AND j.memory_bytes <= $1 AND j.scratch_bytes <= $2 AND j.engine = ANY($3) \
    ORDER BY j.priority DESC, coalesce(r.running, 0), j.submitted, j.id, t.batch \
    LIMIT 1 FOR UPDATE OF t SKIP LOCKED";

const IDLE: &str = "SELECT \
    count(*) FILTER (WHERE t.state = 0 AND t.due > n.now) AS waiting, \
    count(*) FILTER (WHERE t.state = 0 AND t.due <= n.now \
                     AND (j.memory_bytes > $1 OR j.scratch_bytes > $2 OR j.engine <> ALL($3))) AS too_large, \
    count(*) FILTER (WHERE t.state = 1) AS leased, \
    (extract(epoch FROM min(CASE WHEN t.state = 1 THEN t.expires WHEN t.due > n.now THEN t.due END) - n.now) \
        * 1000)::bigint AS next_ms \
    FROM (SELECT nightshift_now() AS now) n \
    LEFT JOIN nightshift_jobs j ON j.state = 0 LEFT JOIN nightshift_tasks t ON t.job = j.id AND t.state IN (0, 1) \
    GROUP BY n.now";

impl Postgres {
    pub(super) async fn submit_job(&self, job: &Submission) -> Result<Submitted> {
        let doing = database("submitting a job");
        let id = job.job_id();
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        let sql = "INSERT INTO nightshift_jobs (id, tenant, idempotency_key, manifest, priority, deadline_unix_ms, \
                   memory_bytes, scratch_bytes, tasks, engine, submitted) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, nightshift_now()) ON CONFLICT DO NOTHING";
        let inserted = sqlx::query(sql)
            .bind(id.as_bytes().as_slice())
            .bind(&job.tenant)
            .bind(&job.idempotency_key)
            .bind(job.manifest.as_bytes().as_slice())
            .bind(job.priority)
            .bind(job.deadline_unix_ms.map(signed))
            .bind(signed(job.needs.memory_bytes))
            .bind(signed(job.needs.scratch_bytes))
            .bind(i64::from(job.tasks))
            .bind(&job.engine)
            .execute(&mut *tx)
            .await
            .map_err(&doing)?;
        if inserted.rows_affected() == 1 {
            let sql = "INSERT INTO nightshift_tasks (job, batch, due) \
                       SELECT $1, batch, nightshift_now() FROM generate_series(0, $2 - 1) AS batch";
            let tasks = sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(job.tasks.cast_signed());
            tasks.execute(&mut *tx).await.map_err(&doing)?;
            notify(&mut tx, "submitting a job").await?;
            crate::failpoint!("postgres.submit.before-commit", JobsError::storage_io("queue database"));
            tx.commit().await.map_err(&doing)?;
            return Ok(Submitted { job: id, is_new: true });
        }
        let row = sqlx::query("SELECT manifest FROM nightshift_jobs WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await
            .map_err(&doing)?;
        let known: Vec<u8> = match row {
            Some(row) => row.try_get("manifest").map_err(&doing)?,
            None => return Err(JobsError::NoSuchJob { job: id }),
        };
        if known == job.manifest.as_bytes() {
            return Ok(Submitted { job: id, is_new: false });
        }
        Err(JobsError::KeyReused {
            tenant: job.tenant.clone(),
            key: job.idempotency_key.clone(),
            found: job.manifest,
            expected: <[u8; 32]>::try_from(known).map_or(Digest::from_bytes([0; 32]), Digest::from_bytes),
        })
    }

    pub(super) async fn claim_task(&self, worker: &str, capacity: Capacity) -> Result<Claim> {
        self.expire().await?;
        self.end_overdue().await?;
        let doing = database("claiming a task");
        let fitting = |sql| {
            let query = sqlx::query(sql).bind(signed(capacity.memory_bytes)).bind(signed(capacity.scratch_bytes));
            query.bind(capacity.engines)
        };
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        let chosen = fitting(CHOOSE).fetch_optional(&mut *tx).await;
        let Some(row) = chosen.map_err(&doing)? else {
            let row = fitting(IDLE).fetch_one(&mut *tx).await;
            let row = row.map_err(&doing)?;
            let count = |column: &str| super::unsigned(&row, column).map_err(&doing);
            let next_ms: Option<i64> = row.try_get("next_ms").map_err(&doing)?;
            return Ok(Claim::Nothing(Idle {
                waiting: count("waiting")?,
                too_large: count("too_large")?,
                leased: count("leased")?,
                next_in: next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            }));
        };
        let number = |column: &str| row.try_get::<i32, _>(column).map(i32::unsigned_abs).map_err(&doing);
        let (batch, epoch, attempt) = (number("batch")?, number("next_epoch")?, number("next_attempt")?);
        let submission = submission(&row)?;
        let job = submission.job_id();
        let sql = "UPDATE nightshift_tasks SET state = 1, epoch = $3, attempts = $4, worker = $5, ended = NULL, \
                   expires = nightshift_now() + make_interval(secs => $6) WHERE job = $1 AND batch = $2";
        sqlx::query(sql)
            .bind(job.as_bytes().as_slice())
            .bind(batch.cast_signed())
            .bind(epoch.cast_signed())
            .bind(attempt.cast_signed())
            .bind(worker)
            .bind(self.ttl_secs())
            .execute(&mut *tx)
            .await
            .map_err(&doing)?;
        crate::failpoint!("postgres.claim.before-commit", JobsError::storage_io("queue database"));
        tx.commit().await.map_err(&doing)?;
        crate::failpoint!("postgres.claim.after-commit", JobsError::storage_io("queue database"));
        Ok(Claim::Task(Box::new(Lease {
            task: TaskId { job, batch },
            epoch,
            attempt,
            generation: number("generation")?,
            worker: worker.to_owned(),
            submission,
        })))
    }

    /// Takes back the leases that ran out: due at once, or given up with the last attempt. How many, and how many jobs
    /// that ended.
    pub(super) async fn expire(&self) -> Result<(u64, u64)> {
        let doing = database("taking back leases");
        let sql = "SELECT t.job, t.batch, t.epoch, t.attempts, t.worker FROM nightshift_tasks t \
                   JOIN nightshift_jobs j ON j.id = t.job \
                   WHERE t.state = 1 AND j.state = 0 AND t.expires <= nightshift_now() LIMIT $1";
        let found = sqlx::query(sql).bind(EXPIRE_LIMIT).fetch_all(&self.pool).await.map_err(&doing)?;
        let (mut leases, mut jobs) = (0, 0);
        for row in found {
            let job: Vec<u8> = row.try_get("job").map_err(&doing)?;
            let batch: i32 = row.try_get("batch").map_err(&doing)?;
            let epoch: i32 = row.try_get("epoch").map_err(&doing)?;
            let attempts = row.try_get::<i32, _>("attempts").map_err(&doing)?.unsigned_abs();
            let worker: Option<String> = row.try_get("worker").map_err(&doing)?;
            let last = ran_out(worker.as_deref().unwrap_or("unknown"), attempts);
            let is_last = attempts >= self.settings.attempts_limit;
            let failure = failure_text(&if is_last { given_up(&last, attempts) } else { last })?;
            let mut connection = self.pool.acquire().await.map_err(&doing)?;
            let mut tx = connection.begin().await.map_err(&doing)?;
            let locked = "SELECT 1 AS one FROM nightshift_jobs WHERE id = $1 AND state = 0 FOR UPDATE";
            if sqlx::query(locked).bind(&job).fetch_optional(&mut *tx).await.map_err(&doing)?.is_none() {
                continue;
            }
            let sql = "UPDATE nightshift_tasks SET state = $4, ended = NULL, due = nightshift_now(), failure = $5 \
                       WHERE job = $1 AND batch = $2 AND epoch = $3 AND state = 1 AND expires <= nightshift_now()";
            let taken = sqlx::query(sql)
                .bind(&job)
                .bind(batch)
                .bind(epoch)
                .bind(if is_last { 3_i16 } else { 0 })
                .bind(&failure)
                .execute(&mut *tx)
                .await
                .map_err(&doing)?
                .rows_affected();
            if taken == 1 && is_last {
                let sql = "UPDATE nightshift_jobs SET state = 2, failure = $2 WHERE id = $1";
                sqlx::query(sql).bind(&job).bind(&failure).execute(&mut *tx).await.map_err(&doing)?;
                jobs += 1;
            }
            crate::failpoint!("postgres.expire.before-commit", JobsError::storage_io("queue database"));
            tx.commit().await.map_err(&doing)?;
            leases += taken;
        }
        Ok((leases, jobs))
    }

    /// Ends the jobs whose deadline has passed while a task waits. How many.
    pub(super) async fn end_overdue(&self) -> Result<u64> {
        let doing = database("ending overdue jobs");
        let sql = "SELECT id, deadline_unix_ms, (extract(epoch FROM nightshift_now()) * 1000)::bigint AS now_ms \
                   FROM nightshift_jobs j WHERE state = 0 \
                   AND deadline_unix_ms < (extract(epoch FROM nightshift_now()) * 1000)::bigint \
                   AND EXISTS (SELECT 1 FROM nightshift_tasks t WHERE t.job = j.id AND t.state = 0)";
        let mut ended = 0;
        for row in sqlx::query(sql).fetch_all(&self.pool).await.map_err(&doing)? {
            let job: Vec<u8> = row.try_get("id").map_err(&doing)?;
            let deadline_ms = super::unsigned(&row, "deadline_unix_ms").map_err(&doing)?;
            let now_ms = super::unsigned(&row, "now_ms").map_err(&doing)?;
            let failure = failure_text(&overdue(deadline_ms, now_ms))?;
            let sql = "UPDATE nightshift_jobs SET state = 2, failure = $2 WHERE id = $1 AND state = 0";
            let changed = sqlx::query(sql).bind(&job).bind(&failure).execute(&self.pool).await.map_err(&doing)?;
            ended += changed.rows_affected();
        }
        Ok(ended)
    }
}

/// A number that the database can hold; larger ones are as good as the largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first bytes of an id are all of it.
pub(super) fn id_bytes(job: &JobId) -> &[u8] {
    job.as_bytes().as_slice()
}
