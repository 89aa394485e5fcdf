//! Named places where tests make things go wrong: before and after each write, sync, rename and change of state. Without the
//! feature `failpoints` a point is nothing. With it, the environment variable `NIGHTSHIFT_FAILPOINTS` says what
//! happens where, as `NAME=ACTION[@NTH]` joined by commas:
//!
//! - `kill`: the process ends at once, as by SIGKILL, without unwinding or flushing;
//! - `panic`: the thread panics;
//! - `eio`, `enospc`, `fsync`: the step fails with that error of the system (a failed sync gives EIO too);
//! - `short`: the step fails as a write that took too few bytes.
//!
//! `@NTH` waits for the NTH time the point is reached (counted from 1) and acts once; without it the action happens every
//! time. A text that cannot be read, or that names no point, panics at the first point reached, so that a
//! misspelt test cannot pass.

#[cfg(not(feature = "failpoints"))]
use std::io;

/// Every failpoint of this crate, sorted.
pub const NAMES: [&str; 41] = [
    "atomic.before-create",
    "atomic.before-rename",
    "atomic.create",
    "atomic.sync-file",
    "atomic.sync-folder",
    "atomic.write",
    "postgres.cancel.before-commit",
    "postgres.claim.after-commit",
    "postgres.claim.before-commit",
    "postgres.commit.after-commit",
    "postgres.commit.before-commit",
    "postgres.end.before-commit",
    "postgres.expire.before-commit",
    "postgres.requeue.before-commit",
    "postgres.submit.before-commit",
    "spool.claim.after-lease",
    "spool.claim.before-lease",
    "spool.close.after-closed",
    "spool.close.after-job",
    "spool.close.before-closed",
    "spool.close.before-final",
    "spool.commit.after-end",
    "spool.commit.before-end",
    "spool.end.after-end",
    "spool.expire.before-end",
    "spool.fail.before-end",
    "spool.final.after",
    "spool.final.before",
    "spool.heartbeat.after-beat",
    "spool.heartbeat.before-beat",
    "spool.release.before-end",
    "spool.requeue.after-job",
    "spool.requeue.before-job",
    "spool.submit.after-job",
    "spool.submit.before-job",
    "store.blob.after-put",
    "store.blob.before-put",
    "store.document.after-create",
    "store.document.before-create",
    "store.result.after-put",
    "store.result.before-part",
];

/// Fails here when a test asked for it: `failpoint!("name", wrap)` returns `Err(wrap(io_error))` from the function.
#[macro_export]
macro_rules! failpoint {
    ($name:literal, $wrap:expr) => {
        if let Some(error) = $crate::failpoint::hit($name) {
            return Err(($wrap)(error).into());
        }
    };
}

/// What the environment says of this point: nothing, an error to fail with, or the end of the process.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> Option<io::Error> {
    None
}

#[cfg(feature = "failpoints")]
pub use armed::hit;

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Action {
        Kill,
        Panic,
        Error(i32),
        Short,
    }

    #[derive(Debug)]
    struct Point {
        action: Action,
        /// The one time it acts, counted from 1; 0 for every time.
        nth: u64,
        reached: AtomicU64,
    }

    static POINTS: LazyLock<BTreeMap<String, Point>> = LazyLock::new(|| {
        let text = std::env::var("NIGHTSHIFT_FAILPOINTS").unwrap_or_default();
        parse(&text).unwrap_or_else(|problem| panic!("NIGHTSHIFT_FAILPOINTS: {problem}"))
    });

    /// What the environment says of this point: nothing, an error to fail with, or the end of the process.
    ///
    /// # Panics
    /// When told to, or when the environment's text cannot be read.
    pub fn hit(name: &'static str) -> Option<io::Error> {
        let point = POINTS.get(name)?;
        let reached = point.reached.fetch_add(1, Ordering::SeqCst) + 1;
        if point.nth != 0 && point.nth != reached {
            return None;
        }
        match point.action {
            Action::Kill => kill(),
            Action::Panic => panic!("failpoint {name}"),
            Action::Error(raw) => Some(io::Error::from_raw_os_error(raw)),
            Action::Short => Some(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Ends the process as SIGKILL does; by that signal itself where a shell can send it.
    fn kill() -> ! {
        let pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-9", &pid]).status();
        // Reached only where there is no such program.
        drop(sent);
        std::process::abort()
    }

    fn parse(text: &str) -> Result<BTreeMap<String, Point>, String> {
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        let mut points = BTreeMap::new();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let (name, rest) = entry.split_once('=').ok_or_else(|| format!("{entry:?}, expected NAME=ACTION"))?;
            let (action, nth) = rest
                .split_once('@')
                .map_or((rest, Some(0)), |(action, nth)| (action, nth.parse().ok().filter(|nth| *nth > 0)));
            let nth = nth.ok_or_else(|| format!("{entry:?}, expected a number from 1 on behind the @"))?;
            let action = match action {
                "kill" => Action::Kill,
                "panic" => Action::Panic,
                "eio" | "fsync" => Action::Error(EIO),
                "enospc" => Action::Error(ENOSPC),
                "short" => Action::Short,
                _ => return Err(format!("action {action:?}, expected kill, panic, eio, enospc, fsync or short")),
            };
            if !super::NAMES.contains(&name) {
                return Err(format!("no failpoint {name:?}"));
            }
            points.insert(name.to_owned(), Point { action, nth, reached: AtomicU64::new(0) });
        }
        Ok(points)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn texts_are_read_and_misspelt_ones_refused() {
            let points = parse("atomic.write=short,spool.claim.after-lease=kill@3").unwrap();
            assert_eq!((points["atomic.write"].action, points["atomic.write"].nth), (Action::Short, 0));
            let claim = &points["spool.claim.after-lease"];
            assert_eq!((claim.action, claim.nth), (Action::Kill, 3));
            for bad in
                ["atomic.write", "atomic.write=explode", "nowhere=kill", "atomic.write=eio@0", "atomic.write=eio@x"]
            {
                assert!(parse(bad).is_err(), "{bad:?} was taken");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every `failpoint!("...")` and `failpoint::hit("...")` of the sources is in the list, and the other way round.
    #[test]
    fn the_list_is_the_sources() {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found.sort();
        found.dedup();
        assert_eq!(found, super::NAMES);
    }

    fn collect(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if !path.ends_with("failpoint.rs") {
                let text = fs::read_to_string(&path).unwrap();
                for opening in ["failpoint!(\"", "failpoint::hit(\""] {
                    let behind = text.split(opening).skip(1);
                    found.extend(behind.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
                }
            }
        }
    }
}
