//! Addresses of queues and stores, one line of text each, and what stands behind them:
//!
//! - `spool:DIR`: a folder of this machine or of a shared file system; no server;
//! - `s3://BUCKET/PREFIX`, `gs://..`, `az://..`: a bucket (feature `cloud`); credentials come from the environment;
//! - `postgres://USER@HOST/DATABASE?store=ADDRESS` (feature `postgres`), payloads in one of the stores above.
//!
//! Settings follow a `?`, joined by `&`: `ttl=30s` (a lease's life without a heartbeat), `attempts=5`, `backoff=2s` (delay
//! before the second attempt, doubled for each further one up to ten minutes).

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::spool::{Process, Spool};
use super::{ATTEMPTS_LIMIT, Clock, Queue, SystemClock};
use crate::error::{JobsError, Result, clip};
use crate::store::Store;
use crate::store::objects::Objects;

/// A lease's life without a heartbeat, unless the address says otherwise.
pub const TTL: Duration = Duration::from_secs(30);
/// Delay before the second attempt, unless the address says otherwise.
pub const BACKOFF: Duration = Duration::from_secs(2);
/// Longest delay before an attempt.
pub const BACKOFF_LIMIT: Duration = Duration::from_secs(600);

/// Shortest life of a lease that an address may set: heartbeats go over networks.
const TTL_LEAST: Duration = Duration::from_secs(1);
/// Longest time that an address may set.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What a queue's address may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lives without a heartbeat.
    pub ttl: Duration,
    /// Attempts of a task before it is given up, at least 1.
    pub attempts_limit: u32,
    /// Delay before the second attempt; doubles up to [`BACKOFF_LIMIT`].
    pub backoff: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ttl: TTL, attempts_limit: ATTEMPTS_LIMIT, backoff: BACKOFF }
    }
}

/// Opens a queue and the store of its payloads.
///
/// # Errors
/// [`JobsError::QueueUrl`] for an address that is none, [`JobsError::NotCompiledIn`] for one whose feature is missing, and
/// what the store or the database answers.
pub fn open(address: &str) -> Result<(Box<dyn Queue>, Store)> {
    open_at(address, Arc::new(SystemClock))
}

/// As [`open`], with another clock than this machine's; a database has its own.
///
/// # Errors
/// As [`open`].
pub fn open_at(address: &str, clock: Arc<dyn Clock>) -> Result<(Box<dyn Queue>, Store)> {
    let (base, query) = split(address);
    let (settings, rest) = settings(address, query)?;
    if let Some((scheme @ ("postgres" | "postgresql"), _)) = base.split_once("://") {
        return open_postgres(scheme, address, base, settings, rest);
    }
    if let Some((name, _)) = rest.first() {
        let expected = "one of ttl, attempts, backoff".to_owned();
        return Err(refused(address, &format!("setting {name:?}"), expected));
    }
    let objects = Arc::new(open_objects(address, base)?);
    let process = objects.folder().and_then(|_| Process::current());
    let spool = Spool::new(Arc::clone(&objects), settings, clock, process, seed());
    Ok((Box::new(spool), Store::new(objects)))
}

/// Opens a payload store alone.
///
/// # Errors
/// As [`open`].
pub fn open_store(address: &str) -> Result<Store> {
    Ok(Store::new(Arc::new(open_objects(address, split(address).0)?)))
}

fn open_objects(address: &str, base: &str) -> Result<Objects> {
    if let Some(folder) = base.strip_prefix("spool:") {
        if folder.is_empty() {
            return Err(refused(address, "no folder", "spool:DIR".to_owned()));
        }
        return Objects::of_folder(Path::new(folder));
    }
    match base.split_once("://") {
        Some((scheme @ ("s3" | "gs" | "az"), _)) => open_bucket(scheme, address, base),
        _ => Err(refused(address, "unknown kind", "spool:DIR, s3://, gs://, az:// or postgres://".to_owned())),
    }
}

#[cfg(feature = "cloud")]
fn open_bucket(scheme: &str, address: &str, base: &str) -> Result<Objects> {
    let problem = |problem: &str| refused(address, problem, format!("{scheme}://BUCKET/PREFIX and its credentials"));
    super::bucket::open(scheme, base, problem)
}

#[cfg(not(feature = "cloud"))]
fn open_bucket(scheme: &str, _address: &str, _base: &str) -> Result<Objects> {
    Err(JobsError::NotCompiledIn { scheme: scheme.to_owned(), feature: "cloud" })
}

#[cfg(feature = "postgres")]
fn open_postgres(
    _scheme: &str,
    address: &str,
    base: &str,
    settings: Settings,
    rest: Vec<(String, String)>,
) -> Result<(Box<dyn Queue>, Store)> {
    let (stores, options): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(name, _)| name == "store");
    let [(_, store)] = stores.as_slice() else {
        let expected = "postgres://USER@HOST/DATABASE?store=spool:DIR".to_owned();
        return Err(refused(address, &format!("{} payload stores", stores.len()), expected));
    };
    let store = open_store(store)?;
    let queue = super::postgres::Postgres::connect(base, &options, settings, seed())?;
    Ok((Box::new(queue), store))
}

#[cfg(not(feature = "postgres"))]
fn open_postgres(
    scheme: &str,
    _address: &str,
    _base: &str,
    _settings: Settings,
    _rest: Vec<(String, String)>,
) -> Result<(Box<dyn Queue>, Store)> {
    Err(JobsError::NotCompiledIn { scheme: scheme.to_owned(), feature: "postgres" })
}

/// What stands before the first `?` and behind it.
fn split(address: &str) -> (&str, &str) {
    address.split_once('?').unwrap_or((address, ""))
}

/// Our settings, and what else there is, decoded.
fn settings(address: &str, query: &str) -> Result<(Settings, Vec<(String, String)>)> {
    let mut settings = Settings::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |expected: &str| refused(address, &format!("{name}={value}"), expected.to_owned());
        let time = || parse_time(value).ok_or_else(|| bad("a time such as 500ms, 30s, 2m or 1h, up to 24h"));
        match name {
            "ttl" => {
                settings.ttl = time()?;
                if settings.ttl < TTL_LEAST {
                    return Err(bad("ttl of at least 1s"));
                }
            }
            "backoff" => settings.backoff = time()?,
            "attempts" => {
                let attempts = value.parse().ok().filter(|attempts| (1..=1_000_000).contains(attempts));
                settings.attempts_limit = attempts.ok_or_else(|| bad("attempts of 1 to 1000000"))?;
            }
            _ => {
                let value = decode(value).ok_or_else(|| bad("percent signs that are followed by two hex digits"))?;
                rest.push((name.to_owned(), value));
            }
        }
    }
    Ok((settings, rest))
}

fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(unit_ms)?);
    (time <= TIME_LIMIT).then_some(time)
}

/// Resolves `%41`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}

fn refused(address: &str, problem: &str, expected: String) -> JobsError {
    JobsError::QueueUrl { url: clip(&without_password(address)), problem: clip(problem), expected }
}

/// The address as it may be shown: `user:password@` becomes `user:***@`.
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(authority_end);
    let Some((user_info, host)) = authority.rsplit_once('@') else { return address.to_owned() };
    let user = user_info.split_once(':').map_or(user_info.to_owned(), |(user, _)| format!("{user}:***"));
    format!("{scheme}://{user}@{host}{behind}")
}

/// A number that no other process has: from the randomness the system gives to hash tables.
fn seed() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(SystemClock.unix_ms());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(address: &str) -> Result<(Settings, Vec<(String, String)>)> {
        settings(address, split(address).1)
    }

    #[test]
    fn settings_are_read_and_the_rest_is_handed_on_decoded() {
        let (found, rest) = settings_of("postgres://h/d?ttl=500s&attempts=7&store=s3%3A%2F%2Fb&backoff=20ms").unwrap();
        let (ttl, backoff) = (Duration::from_secs(500), Duration::from_millis(20));
        assert_eq!(found, Settings { ttl, attempts_limit: 7, backoff });
        assert_eq!(rest, [("store".to_owned(), "s3://b".to_owned())]);
        assert_eq!(settings_of("spool:d").unwrap().0, Settings::default());
    }

    #[test]
    fn addresses_that_are_none_are_refused_with_78() {
        for bad in [
            "",
            "dir",
            "spool:",
            "ftp://x/y",
            "spool:d?ttl=1",
            "spool:d?ttl=0s",
            "spool:d?ttl=25h",
            "spool:d?ttl=5 s",
            "spool:d?attempts=0",
            "spool:d?colour=red",
            "spool:d?x=%4",
            "spool:d?ttl=99999999999999999999s",
        ] {
            let problem = open(bad).err().unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert_eq!(problem.exit_code().code(), 78, "{bad:?}: {problem}");
        }
        assert!(!Path::new("d").exists(), "a refused address made a folder");
    }

    #[cfg(not(all(feature = "cloud", feature = "postgres")))]
    #[test]
    fn a_kind_that_was_not_built_names_its_feature() {
        #[cfg(not(feature = "cloud"))]
        assert!(matches!(open("s3://b/p"), Err(JobsError::NotCompiledIn { feature: "cloud", .. })));
        #[cfg(not(feature = "postgres"))]
        assert!(matches!(open("postgres://h/d"), Err(JobsError::NotCompiledIn { feature: "postgres", .. })));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("postgres://u:p@h:5/d?x=1"), "postgres://u:***@h:5/d?x=1");
        assert_eq!(without_password("postgres://u@h/d"), "postgres://u@h/d");
        assert_eq!(without_password("spool:a@b"), "spool:a@b");
        let problem = open("postgres://u:hunter2@h/d?ttl=x").err().unwrap().to_string();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}
