//! Heartbeats, the ends of leases, and the ends of jobs. Every change locks the job's row first.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use super::claim::id_bytes;
use super::rows::failure_text;
use super::{Postgres, database, job_state, notify};
use crate::error::{JobsError, Result};
use crate::queue::spool::{delay_ms, given_up};
use crate::queue::{Cancelled, Committed, Ended, Failure, JobId, JobState, Lease, Pulse, Requeued, TaskResult};

/// What a lease is worth at this moment, its job's row locked.
enum Standing {
    /// Held, and the job goes on.
    Held { done: u32 },
    /// Held, and the job is over.
    Over,
    /// Ended by its holder, in this way.
    Ended { how: String, delay_ms: u64, state: JobState, left: u32, ended_by: Option<String> },
    /// Not this worker's any more.
    Lost,
}

impl Postgres {
    pub(super) async fn beat(&self, lease: &Lease) -> Result<Pulse> {
        let doing = database("sending a heartbeat");
        let sql = "UPDATE nightshift_tasks t SET expires = nightshift_now() + make_interval(secs => $5) \
                   FROM nightshift_jobs j WHERE j.id = t.job AND t.job = $1 AND t.batch = $2 AND t.epoch = $3 \
                   AND t.state = 1 AND j.generation = $4 AND j.state = 0";
        let beaten = sqlx::query(sql)
            .bind(id_bytes(&lease.task.job))
            .bind(lease.task.batch.cast_signed())
            .bind(lease.epoch.cast_signed())
            .bind(lease.generation.cast_signed())
            .bind(self.ttl_secs())
            .execute(&self.pool)
            .await
            .map_err(&doing)?;
        if beaten.rows_affected() == 1 {
            return Ok(Pulse::Alive);
        }
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        Ok(match standing(&mut tx, lease).await? {
            Standing::Over => Pulse::Cancelled,
            // Alive again: nothing of ours changed in between, so a heartbeat crossed with something short.
            Standing::Held { .. } => Pulse::Alive,
            Standing::Ended { .. } | Standing::Lost => Pulse::Lost,
        })
    }

    pub(super) async fn commit_task(&self, lease: &Lease, result: &TaskResult) -> Result<Committed> {
        let doing = database("committing a task");
        let by = format!("{}.{}", lease.task.batch, lease.epoch);
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        let done = match standing(&mut tx, lease).await? {
            Standing::Held { done } => done + 1,
            Standing::Over => return Ok(Committed::Cancelled),
            Standing::Ended { how, state, left, ended_by, .. } if how == "done" => {
                return Ok(match state {
                    JobState::Done if ended_by.as_deref() == Some(by.as_str()) => Committed::Job,
                    JobState::Failed | JobState::Cancelled => Committed::Cancelled,
                    _ => Committed::Task { left },
                });
            }
            Standing::Ended { .. } | Standing::Lost => return Ok(Committed::Lost),
        };
        let sql = "UPDATE nightshift_tasks SET state = 2, ended = 'done', output_digest = $3, output_bytes = $4, \
                   report = $5, failure = NULL WHERE job = $1 AND batch = $2";
        sqlx::query(sql)
            .bind(id_bytes(&lease.task.job))
            .bind(lease.task.batch.cast_signed())
            .bind(result.output.digest.as_bytes().as_slice())
            .bind(i64::try_from(result.output.bytes).unwrap_or(i64::MAX))
            .bind(&result.report)
            .execute(&mut *tx)
            .await
            .map_err(&doing)?;
        let tasks = lease.submission.tasks;
        let sql = "UPDATE nightshift_jobs SET done = $2, state = CASE WHEN $2 = tasks THEN 1 ELSE state END, \
                   ended_by = CASE WHEN $2 = tasks THEN $3 ELSE ended_by END WHERE id = $1";
        let counted = sqlx::query(sql).bind(id_bytes(&lease.task.job)).bind(done.cast_signed()).bind(&by);
        counted.execute(&mut *tx).await.map_err(&doing)?;
        notify(&mut tx, "committing a task").await?;
        crate::failpoint!("postgres.commit.before-commit", JobsError::storage_io("queue database"));
        tx.commit().await.map_err(&doing)?;
        crate::failpoint!("postgres.commit.after-commit", JobsError::storage_io("queue database"));
        Ok(if done == tasks { Committed::Job } else { Committed::Task { left: tasks.saturating_sub(done) } })
    }

    pub(super) async fn fail_task(&self, lease: &Lease, failure: &Failure) -> Result<Ended> {
        if !failure.is_retryable {
            return self.end_undone(lease, "failed", 0, Some(failure.clone())).await;
        }
        if lease.attempt >= self.settings.attempts_limit {
            return self.end_undone(lease, "failed", 0, Some(given_up(failure, lease.attempt))).await;
        }
        let delay = delay_ms(&self.settings, lease.attempt, self.random());
        self.end_undone(lease, "retry", delay, Some(failure.clone())).await
    }

    pub(super) async fn release_task(&self, lease: &Lease) -> Result<Ended> {
        self.end_undone(lease, "released", 0, None).await
    }

    async fn end_undone(&self, lease: &Lease, how: &str, delay_ms: u64, failure: Option<Failure>) -> Result<Ended> {
        let doing = database("ending a lease");
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        match standing(&mut tx, lease).await? {
            Standing::Held { .. } => {}
            Standing::Over => return Ok(Ended::Cancelled),
            Standing::Lost => return Ok(Ended::Lost),
            Standing::Ended { how, delay_ms, state, .. } => {
                return Ok(match (how.as_str(), state) {
                    ("failed", JobState::Failed) => Ended::DeadLetter,
                    ("done", _) => Ended::Lost,
                    (_, state) if state.is_final() => Ended::Cancelled,
                    _ => Ended::Requeued { due_in: Duration::from_millis(delay_ms) },
                });
            }
        }
        let failure = failure.as_ref().map(failure_text).transpose()?;
        let is_failed = how == "failed";
        let sql = "UPDATE nightshift_tasks SET state = $3, ended = $4, delay_ms = $5, expires = NULL, \
                   due = nightshift_now() + make_interval(secs => $6), attempts = attempts - $7, \
                   failure = coalesce($8, failure) WHERE job = $1 AND batch = $2";
        sqlx::query(sql)
            .bind(id_bytes(&lease.task.job))
            .bind(lease.task.batch.cast_signed())
            .bind(if is_failed { 3_i16 } else { 0 })
            .bind(how)
            .bind(i64::try_from(delay_ms).unwrap_or(i64::MAX))
            .bind(Duration::from_millis(delay_ms).as_secs_f64())
            .bind(i32::from(how == "released"))
            .bind(&failure)
            .execute(&mut *tx)
            .await
            .map_err(&doing)?;
        if is_failed {
            let sql = "UPDATE nightshift_jobs SET state = 2, failure = $2 WHERE id = $1";
            let job = sqlx::query(sql).bind(id_bytes(&lease.task.job)).bind(&failure);
            job.execute(&mut *tx).await.map_err(&doing)?;
        }
        notify(&mut tx, "ending a lease").await?;
        crate::failpoint!("postgres.end.before-commit", JobsError::storage_io("queue database"));
        tx.commit().await.map_err(&doing)?;
        Ok(if is_failed { Ended::DeadLetter } else { Ended::Requeued { due_in: Duration::from_millis(delay_ms) } })
    }

    pub(super) async fn cancel_job(&self, job: JobId) -> Result<Cancelled> {
        let doing = database("cancelling a job");
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        let (state, _, _) = lock_job(&mut tx, job).await?.ok_or(JobsError::NoSuchJob { job })?;
        match state {
            JobState::Cancelled => return Ok(Cancelled::Cancelled),
            JobState::Done | JobState::Failed => return Ok(Cancelled::Already(state)),
            JobState::Queued | JobState::Running => {}
        }
        let sql = "UPDATE nightshift_jobs SET state = 3 WHERE id = $1";
        sqlx::query(sql).bind(id_bytes(&job)).execute(&mut *tx).await.map_err(&doing)?;
        crate::failpoint!("postgres.cancel.before-commit", JobsError::storage_io("queue database"));
        tx.commit().await.map_err(&doing)?;
        Ok(Cancelled::Cancelled)
    }

    pub(super) async fn requeue_job(&self, job: JobId) -> Result<Requeued> {
        let doing = database("putting a job back");
        let mut connection = self.pool.acquire().await.map_err(&doing)?;
        let mut tx = connection.begin().await.map_err(&doing)?;
        let (state, generation, running) = lock_job(&mut tx, job).await?.ok_or(JobsError::NoSuchJob { job })?;
        if !matches!(state, JobState::Failed | JobState::Cancelled) {
            return Ok(Requeued::Not(if running > 0 && state == JobState::Queued { JobState::Running } else { state }));
        }
        let generation = generation + 1;
        let sql = "UPDATE nightshift_jobs SET state = 0, generation = $2, failure = NULL, is_sealed = false, \
                   ended_by = NULL WHERE id = $1";
        let jobs = sqlx::query(sql).bind(id_bytes(&job)).bind(generation.cast_signed());
        jobs.execute(&mut *tx).await.map_err(&doing)?;
        let sql = "UPDATE nightshift_tasks SET state = 0, attempts = 0, due = nightshift_now(), expires = NULL, \
                   ended = NULL, failure = NULL, worker = NULL WHERE job = $1 AND state <> 2";
        sqlx::query(sql).bind(id_bytes(&job)).execute(&mut *tx).await.map_err(&doing)?;
        notify(&mut tx, "putting a job back").await?;
        crate::failpoint!("postgres.requeue.before-commit", JobsError::storage_io("queue database"));
        tx.commit().await.map_err(&doing)?;
        Ok(Requeued::Requeued { generation })
    }
}

/// State, generation and leased tasks of a job, whose row is locked until the transaction ends.
async fn lock_job(tx: &mut PgConnection, job: JobId) -> Result<Option<(JobState, u32, i64)>> {
    let doing = database("locking a job");
    let sql = "SELECT state, generation FROM nightshift_jobs WHERE id = $1 FOR UPDATE";
    let row = sqlx::query(sql).bind(id_bytes(&job)).fetch_optional(&mut *tx).await.map_err(&doing)?;
    let Some(row) = row else { return Ok(None) };
    let sql = "SELECT count(*) AS running FROM nightshift_tasks WHERE job = $1 AND state = 1";
    let count = sqlx::query(sql).bind(id_bytes(&job)).fetch_one(&mut *tx).await.map_err(&doing)?;
    let running: i64 = count.try_get("running").map_err(&doing)?;
    let generation: i32 = row.try_get("generation").map_err(&doing)?;
    let state = job_state(row.try_get("state").map_err(&doing)?, running);
    Ok(Some((state, generation.unsigned_abs(), running)))
}

async fn standing(tx: &mut PgConnection, lease: &Lease) -> Result<Standing> {
    let doing = database("looking at a lease");
    let sql = "SELECT state, generation, done, tasks, ended_by FROM nightshift_jobs WHERE id = $1 FOR UPDATE";
    let job = sqlx::query(sql).bind(id_bytes(&lease.task.job)).fetch_optional(&mut *tx).await.map_err(&doing)?;
    let Some(job) = job else { return Ok(Standing::Lost) };
    let sql = "SELECT state, epoch, ended, delay_ms FROM nightshift_tasks WHERE job = $1 AND batch = $2 FOR UPDATE";
    let task = sqlx::query(sql)
        .bind(id_bytes(&lease.task.job))
        .bind(lease.task.batch.cast_signed())
        .fetch_optional(&mut *tx)
        .await
        .map_err(&doing)?;
    let Some(task) = task else { return Ok(Standing::Lost) };
    let read = || -> std::result::Result<Standing, sqlx::Error> {
        let number = |row: &sqlx::postgres::PgRow, column: &str| row.try_get::<i32, _>(column).map(i32::unsigned_abs);
        if number(&job, "generation")? != lease.generation || number(&task, "epoch")? != lease.epoch {
            return Ok(Standing::Lost);
        }
        let state = job_state(job.try_get("state")?, 0);
        let (done, tasks) = (number(&job, "done")?, number(&job, "tasks")?);
        if task.try_get::<i16, _>("state")? == 1 {
            return Ok(if state.is_final() { Standing::Over } else { Standing::Held { done } });
        }
        Ok(match task.try_get::<Option<String>, _>("ended")? {
            None => Standing::Lost,
            Some(how) => Standing::Ended {
                how,
                delay_ms: super::unsigned(&task, "delay_ms")?,
                state,
                left: tasks.saturating_sub(done),
                ended_by: job.try_get("ended_by")?,
            },
        })
    };
    read().map_err(&doing)
}
