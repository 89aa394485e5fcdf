//! Which process holds a lease, so that another on the same machine need not wait for the lease to run out when that process is
//! gone: as with a cron job that starts anew after a crash. Says "gone" only when it is certain: same boot, same
//! namespace of process ids, and no process of that id that started at that moment. Elsewhere the lease's time decides.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process, told apart from any later one with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// The kernel's id of this boot.
    pub(crate) boot: String,
    /// The namespace its number is of.
    pub(crate) namespace: String,
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl Process {
    /// This process; `None` where the system does not tell all of it.
    pub(crate) fn current() -> Option<Self> {
        let pid = std::process::id();
        let (boot, namespace) = surroundings()?;
        Some(Self { boot, namespace, pid, start_ticks: start_ticks(pid)? })
    }

    /// Whether this process is certainly no more.
    pub(crate) fn is_gone(&self) -> bool {
        let is_here = surroundings().is_some_and(|(boot, namespace)| boot == self.boot && namespace == self.namespace);
        is_here && fs::exists("/proc/self/stat").unwrap_or(false) && self.start_now() != Some(self.start_ticks)
    }

    /// `None` when there is no such process, or only its exit status is left to be fetched.
    fn start_now(&self) -> Option<u64> {
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => alive_since(&stat),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // Not certain.
            Err(_) => Some(self.start_ticks),
        }
    }
}

fn surroundings() -> Option<(String, String)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some((boot.trim().to_owned(), namespace.to_str()?.to_owned()))
}

fn start_ticks(pid: u32) -> Option<u64> {
    alive_since(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`, unless field 3 says dead. The second field is a name in brackets that may hold anything.
fn alive_since(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_finished_child_is_gone() {
        let me = Process::current().unwrap();
        assert!(!me.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start = start_ticks(child.id()).unwrap();
        let there = Process { pid: child.id(), start_ticks: start, ..me.clone() };
        assert!(!there.is_gone());
        child.kill().unwrap();
        // Not yet waited for: a zombie runs no more.
        while start_ticks(there.pid).is_some() {
            std::thread::yield_now();
        }
        assert!(there.is_gone());
        child.wait().unwrap();
        assert!(there.is_gone());
    }

    #[test]
    fn another_boot_namespace_or_start_is_told_apart() {
        let me = Process::current().unwrap();
        assert!(!Process { boot: "elsewhere".to_owned(), pid: u32::MAX, ..me.clone() }.is_gone());
        assert!(!Process { namespace: "pid:[1]".to_owned(), pid: u32::MAX, ..me.clone() }.is_gone());
        assert!(Process { start_ticks: me.start_ticks + 1, ..me.clone() }.is_gone(), "its number was given anew");
    }

    #[test]
    fn names_with_brackets_and_spaces_do_not_confuse() {
        let fields = (4..=22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(alive_since(&format!("7 (a) b) S {fields} 23")), Some(22));
        assert_eq!(alive_since(&format!("7 (a) Z {fields} 23")), None);
        assert_eq!(alive_since("7 (a"), None);
    }
}
