//! `nightshift-worker doctor`: tries what a worker relies on, on the real queue and this machine, and says what to do about what
//! does not hold.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jobs::queue::{self, Queue};
use jobs::store::Store;
use jobs::{ExitCode, JobsError};
use serde_json::json;

use super::Report;
use crate::cli::args::DoctorArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::ring::kernels::Kernel;
use crate::worker::{ENGINES, available_bytes, free_bytes};

/// Scratch and memory below which hardly any batch fits.
const FREE_LIMIT_BYTES: u64 = 256 << 20;
/// A sync that takes longer makes small batches slow.
const SYNC_LIMIT: Duration = Duration::from_millis(500);

/// How a check went.
enum Finding {
    Good(String),
    /// Works, with a remark.
    Poor(String, &'static str),
    Bad(String, ExitCode, &'static str),
}

/// Runs all checks; leaves nothing behind.
///
/// # Errors
/// [`CliError::Unwell`] when a check failed: the table has then been logged, line by line.
pub fn run(args: &DoctorArgs) -> Result<Report, CliError> {
    let engines = Finding::Good(ENGINES.join(", "));
    let mut findings = vec![("processor", processor()), ("engines", engines), ("memory", memory())];
    findings.extend(scratch(args.scratch.as_deref()));
    match queue::open(&args.queue.url) {
        Ok((queue, store)) => findings.extend(queue_checks(&*queue, &store)),
        Err(error) => findings.push(("queue", bad(&error, "check the address, the credentials and the network"))),
    }
    let mut table =
        Table::new(&[("check", Align::Left), ("", Align::Left), ("found", Align::Left), ("advice", Align::Left)]);
    let mut objects = Vec::new();
    let mut failures = Vec::new();
    for (name, finding) in &findings {
        let (verdict, found, advice) = match finding {
            Finding::Good(found) => ("good", found, ""),
            Finding::Poor(found, advice) => ("poor", found, *advice),
            Finding::Bad(found, code, advice) => {
                failures.push((format!("{name}: {found}"), *code));
                ("bad", found, *advice)
            }
        };
        table.row([*name, verdict, found, advice]);
        objects.push(json!({ "check": name, "verdict": verdict, "found": found, "advice": advice }));
    }
    match failures.first() {
        None => Ok(Report { text: table.to_string(), json: json!({ "checks": objects }) }),
        Some((first, code)) => {
            table.to_string().lines().for_each(|line| tracing::error!("{line}"));
            let (failed, checks) = (failures.len(), findings.len());
            Err(CliError::Unwell { failed, checks, first: first.clone(), code: *code })
        }
    }
}

fn bad(error: &JobsError, advice: &'static str) -> Finding {
    Finding::Bad(error.to_string(), error.exit_code(), advice)
}

fn processor() -> Finding {
    let names: Vec<_> = Kernel::present().iter().map(Kernel::name).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{cores} core(s), kernels {}", names.join(", "));
    if names.len() > 1 {
        return Finding::Good(found);
    }
    Finding::Poor(found, "plain code only: a processor with AVX2 or AVX-512 is many times faster")
}

fn memory() -> Finding {
    match available_bytes() {
        None => Finding::Poor("unknown".to_owned(), "give --memory-limit: this system does not tell what is free"),
        Some(bytes) if bytes < FREE_LIMIT_BYTES => {
            let found = format!("{} free", human_bytes(bytes));
            Finding::Bad(found, ExitCode::Config, "hardly any batch fits: free some memory or use a larger machine")
        }
        Some(bytes) => Finding::Good(format!("{} free", human_bytes(bytes))),
    }
}

fn scratch(folder: Option<&Path>) -> Vec<(&'static str, Finding)> {
    let folder: PathBuf = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let shown = folder.display();
    let space = match free_bytes(&folder) {
        None => Finding::Bad(format!("{shown}: not there"), ExitCode::CannotCreate, "make the folder, or name another"),
        Some(bytes) if bytes < FREE_LIMIT_BYTES => {
            let found = format!("{} free in {shown}", human_bytes(bytes));
            Finding::Bad(found, ExitCode::Io, "hardly any batch fits: make room, or name another folder")
        }
        Some(bytes) => Finding::Good(format!("{} free in {shown}", human_bytes(bytes))),
    };
    let sync = match timed_sync(&folder) {
        Ok(time) if time > SYNC_LIMIT => {
            Finding::Poor(human_duration(time), "slow to sync: small batches will wait for the disk")
        }
        Ok(time) => Finding::Good(human_duration(time)),
        Err(error) => {
            let code = ExitCode::on_create(&error);
            Finding::Bad(format!("{shown}: {error}"), code, "the worker must be able to write and sync there")
        }
    };
    vec![("scratch", space), ("scratch sync", sync)]
}

/// Writes and syncs a file and its folder.
fn timed_sync(folder: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::Builder::new().prefix(".nightshift-doctor-").tempfile_in(folder)?;
    let start = Instant::now();
    file.write_all(&[0x5a; 4096])?;
    file.as_file().sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(start.elapsed())
}

fn queue_checks(queue: &dyn Queue, store: &Store) -> Vec<(&'static str, Finding)> {
    let start = Instant::now();
    let answered = match queue.stats() {
        Ok(stats) => {
            let found = format!(
                "answers in {}: {} batch(es) waiting, {} leased, {} job(s) failed",
                human_duration(start.elapsed()),
                stats.tasks_queued,
                stats.live_leases,
                stats.jobs_failed
            );
            Finding::Good(found)
        }
        Err(error) => bad(&error, "check that the service runs and may be reached from here"),
    };
    let lease = Finding::Good(format!("a lease lives {}", human_duration(queue.lease_ttl())));
    let nonce = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let start = Instant::now();
    let (probed, written_unix_ms) = match store.probe(nonce ^ u64::from(std::process::id())) {
        Ok(written_unix_ms) => {
            let time = human_duration(start.elapsed());
            let found = format!("{}: creates once, reads back, lists, removes ({time})", store.address());
            (Finding::Good(found), Some(written_unix_ms))
        }
        Err(error) => {
            let advice = "do not use this store: without create-only writes two workers can overwrite each other";
            (bad(&error, advice), None)
        }
    };
    let mut findings = vec![("queue", answered), ("lease", lease), ("store", probed)];
    match queue.now_unix_ms() {
        Ok(Some(now_unix_ms)) => findings.push(("queue clock", clock(now_unix_ms, queue.lease_ttl()))),
        Ok(None) => {}
        Err(error) => findings.push(("queue clock", bad(&error, "check that the service runs"))),
    }
    if let Some(written_unix_ms) = written_unix_ms {
        findings.push(("store clock", clock(written_unix_ms, queue.lease_ttl())));
    }
    if let Some(folder) = store.folder()
        && let Some(bytes) = free_bytes(folder)
    {
        let found = format!("{} free in {}", human_bytes(bytes), folder.display());
        let space = if bytes < FREE_LIMIT_BYTES {
            Finding::Bad(found, ExitCode::Io, "make room: results cannot be stored")
        } else {
            Finding::Good(found)
        };
        findings.push(("store space", space));
    }
    findings
}

/// Another clock, read a moment ago, against this machine's: leases do not depend on it, deadlines and ages do.
fn clock(found_unix_ms: u64, ttl: Duration) -> Finding {
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let skew = Duration::from_millis(here.abs_diff(found_unix_ms));
    let found = format!("{} from this machine's", human_duration(skew));
    if skew > ttl {
        return Finding::Poor(found, "set the clocks: deadlines are meant by them; leases are not");
    }
    Finding::Good(found)
}
