//! The queue on PostgreSQL, for many machines. Each call is one short transaction, or a few; none is open while
//! anybody computes. The database's clock is the only one. A job's row is locked before those of its tasks wherever both change,
//! so that calls wait for each other and never in a circle; claims lock one task's row and skip locked ones.
//!
//! Payloads lie in an object store. Tables and their meaning: `postgres/schema.sql`, and `schema-2.sql` for what came later.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection, PgConnection, Row};
use tokio::runtime::Runtime;

use super::address::Settings;
use super::{
    Cancelled, Capacity, Claim, Committed, Ended, Failure, JobId, JobRecord, JobState, JobSummary, Lease, ListFilter,
    Pulse, Queue, Reconciled, Requeued, Stats, Submission, Submitted, TaskResult,
};
use crate::error::{JobsError, Result, clip};
use crate::exit::ExitCode;

mod claim;
mod end;
mod rows;

/// What makes each version of the tables of the one before it, the first of nothing. This program knows the last.
const SCHEMA: [&str; 2] = [include_str!("postgres/schema.sql"), include_str!("postgres/schema-2.sql")];
/// The lock under which the tables are made: any number that nobody else uses.
const SCHEMA_LOCK: i64 = 0x6e69_6768_7473_6869;
/// Connections of one process.
const CONNECTIONS_LIMIT: u32 = 4;
/// How long a call waits for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Where changes are announced.
const CHANNEL: &str = "nightshift_queue";

/// A queue in a database.
pub(crate) struct Postgres {
    runtime: Runtime,
    pool: PgPool,
    settings: Settings,
    listener: tokio::sync::Mutex<Option<PgListener>>,
    /// State of the generator behind delays.
    random: std::sync::atomic::AtomicU64,
}

impl Postgres {
    /// `base` is the address up to its `?`, `options` the driver's own settings from behind it (`sslmode` and the like).
    pub(crate) fn connect(base: &str, options: &[(String, String)], settings: Settings, seed: u64) -> Result<Self> {
        let url = super::without_password(base);
        let refused = |problem: String| JobsError::QueueUrl {
            url: url.clone(),
            problem,
            expected: "postgres://USER@HOST/DATABASE?store=ADDRESS".to_owned(),
        };
        let mut parsed = url::Url::parse(base).map_err(|error| refused(error.to_string()))?;
        if !options.is_empty() {
            parsed.query_pairs_mut().extend_pairs(options);
        }
        let connect = PgConnectOptions::from_str(parsed.as_str()).map_err(|error| refused(clip(&error.to_string())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(JobsError::storage_io(&url))?;
        let pool = runtime.block_on(async {
            let pool = PgPoolOptions::new().max_connections(CONNECTIONS_LIMIT).acquire_timeout(CONNECT_LIMIT);
            let pool = pool.connect_with(connect).await.map_err(database("connecting"))?;
            prepare(&pool).await?;
            Ok::<_, JobsError>(pool)
        })?;
        let random = std::sync::atomic::AtomicU64::new(seed);
        Ok(Self { runtime, pool, settings, listener: tokio::sync::Mutex::default(), random })
    }

    /// A number for delays: a Weyl sequence, mixed by the multiplier of SplitMix64.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.random.fetch_add(STEP, std::sync::atomic::Ordering::Relaxed);
        (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
    }

    fn ttl_secs(&self) -> f64 {
        self.settings.ttl.as_secs_f64()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        const CLOSE_LIMIT: Duration = Duration::from_secs(2);
        // Connections are handed back within the runtime, the listener's first.
        let _context = self.runtime.enter();
        *self.listener.get_mut() = None;
        // What cannot be closed in time, the server finds closed.
        let _ = self.runtime.block_on(async { tokio::time::timeout(CLOSE_LIMIT, self.pool.close()).await });
    }
}

/// Makes the tables if they are not there, and those of an earlier version the last one's; one process at a time.
async fn prepare(pool: &PgPool) -> Result<()> {
    let doing = "making its tables";
    let mut connection = pool.acquire().await.map_err(database(doing))?;
    let mut tx = connection.begin().await.map_err(database(doing))?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SCHEMA_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(database(doing))?;
    let table = "SELECT to_regclass('nightshift_schema') IS NOT NULL AS is_there";
    let row = sqlx::query(table).fetch_one(&mut *tx).await.map_err(database(doing))?;
    let mut version = 0;
    if row.try_get::<bool, _>("is_there").map_err(database(doing))? {
        let found = sqlx::query("SELECT max(version) AS version FROM nightshift_schema").fetch_one(&mut *tx).await;
        let found: i32 = found.and_then(|row| row.try_get("version")).map_err(database(doing))?;
        version = usize::try_from(found).unwrap_or(usize::MAX);
    }
    for step in SCHEMA.iter().skip(version) {
        sqlx::raw_sql(*step).execute(&mut *tx).await.map_err(database(doing))?;
    }
    tx.commit().await.map_err(database(doing))?;
    if version <= SCHEMA.len() {
        return Ok(());
    }
    let detail = format!("tables of version {version}, this program knows {}", SCHEMA.len());
    Err(JobsError::Database { doing, detail, exit_code: ExitCode::Mismatch })
}

/// Puts the database's error into our words.
fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> JobsError {
    move |error| {
        let code = error.as_database_error().and_then(|inner| inner.code()).unwrap_or_default().into_owned();
        let exit_code = match (code.get(..2), code.as_str()) {
            (_, "42501") | (Some("28"), _) => ExitCode::Permission,
            (_, "3D000") => ExitCode::Config,
            (_, "53100") => ExitCode::Io,
            // Serialisation failure, deadlock, lock not available: another try goes better.
            (_, "40001" | "40P01" | "55P03") => ExitCode::TryLater,
            (Some("22" | "23" | "42"), _) => ExitCode::Bug,
            _ if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_)) => ExitCode::Bug,
            _ => ExitCode::Unavailable,
        };
        JobsError::Database { doing, detail: clip(&error.to_string()), exit_code }
    }
}

async fn notify(connection: &mut PgConnection, doing: &'static str) -> Result<()> {
    sqlx::query("NOTIFY nightshift_queue").execute(connection).await.map(drop).map_err(database(doing))
}

impl Queue for Postgres {
    fn submit(&self, job: &Submission) -> Result<Submitted> {
        job.validate()?;
        self.runtime.block_on(self.submit_job(job))
    }

    fn claim(&self, worker: &str, capacity: Capacity) -> Result<Claim> {
        crate::manifest::check::check_name("worker", worker)?;
        self.runtime.block_on(self.claim_task(worker, capacity))
    }

    fn heartbeat(&self, lease: &Lease) -> Result<Pulse> {
        self.runtime.block_on(self.beat(lease))
    }

    fn commit(&self, lease: &Lease, result: &TaskResult) -> Result<Committed> {
        result.validate()?;
        self.runtime.block_on(self.commit_task(lease, result))
    }

    fn fail(&self, lease: &Lease, failure: &Failure) -> Result<Ended> {
        self.runtime.block_on(self.fail_task(lease, failure))
    }

    fn release(&self, lease: &Lease) -> Result<Ended> {
        self.runtime.block_on(self.release_task(lease))
    }

    fn cancel(&self, job: JobId) -> Result<Cancelled> {
        self.runtime.block_on(self.cancel_job(job))
    }

    fn requeue(&self, job: JobId) -> Result<Requeued> {
        self.runtime.block_on(self.requeue_job(job))
    }

    fn get(&self, job: JobId) -> Result<Option<JobRecord>> {
        self.runtime.block_on(self.get_job(job))
    }

    fn list(&self, filter: &ListFilter) -> Result<Vec<JobSummary>> {
        self.runtime.block_on(self.list_jobs(filter))
    }

    fn stats(&self) -> Result<Stats> {
        self.runtime.block_on(self.count())
    }

    fn reconcile(&self) -> Result<Reconciled> {
        self.runtime.block_on(async {
            let (leases_expired, _) = self.expire().await?;
            let jobs_ended = self.end_overdue().await?;
            Ok(Reconciled { leases_expired, jobs_ended, ..Reconciled::default() })
        })
    }

    fn unsealed(&self) -> Result<Vec<JobSummary>> {
        self.runtime.block_on(self.unsealed_jobs())
    }

    fn seal(&self, job: JobId, generation: u32) -> Result<()> {
        let sql = "UPDATE nightshift_jobs SET is_sealed = true WHERE id = $1 AND generation = $2 AND state IN (1, 2)";
        let query = sqlx::query(sql).bind(job.as_bytes().as_slice()).bind(i64::from(generation));
        self.runtime.block_on(query.execute(&self.pool)).map(drop).map_err(database("sealing a job"))
    }

    fn wait(&self, at_most: Duration) -> Result<()> {
        self.runtime.block_on(async {
            // One call listens; others of this process are content to sleep a moment.
            let Ok(mut slot) = self.listener.try_lock() else {
                tokio::time::sleep(at_most.min(Duration::from_millis(500))).await;
                return Ok(());
            };
            if slot.is_none() {
                let mut listener = PgListener::connect_with(&self.pool).await.map_err(database("listening"))?;
                listener.listen(CHANNEL).await.map_err(database("listening"))?;
                *slot = Some(listener);
            }
            let Some(listener) = slot.as_mut() else { return Ok(()) };
            match tokio::time::timeout(at_most, listener.recv()).await {
                Ok(Ok(_)) | Err(_) => Ok(()),
                Ok(Err(error)) => {
                    *slot = None;
                    Err(database("listening")(error))
                }
            }
        })
    }

    fn lease_ttl(&self) -> Duration {
        self.settings.ttl
    }

    fn now_unix_ms(&self) -> Result<Option<u64>> {
        let sql = "SELECT floor(extract(epoch FROM nightshift_now()) * 1000)::bigint AS now_ms";
        let row = self.runtime.block_on(sqlx::query(sql).fetch_one(&self.pool));
        row.and_then(|row| unsigned(&row, "now_ms")).map(Some).map_err(database("reading the clock"))
    }
}

/// The state of a job from its number and whether a task is leased.
fn job_state(number: i16, running: i64) -> JobState {
    match number {
        1 => JobState::Done,
        2 => JobState::Failed,
        3 => JobState::Cancelled,
        _ if running > 0 => JobState::Running,
        _ => JobState::Queued,
    }
}

/// A count from the database, never negative there.
fn unsigned(row: &PgRow, column: &str) -> std::result::Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::unsigned_abs)
}
