//! What the operating system says of memory and disks; zero or nothing where it does not say.

use std::fs;
use std::path::Path;

/// A `name: value kB` line of a /proc file, in bytes.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Most memory this process has had resident, mapped files included; 0 where the system does not tell.
#[must_use]
pub fn peak_bytes() -> u64 {
    field("/proc/self/status", "VmHWM").unwrap_or(0)
}

/// Memory that could be had now, or `None` where the system does not tell.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable")
}

/// Bytes that this user may still write to the file system of `path`, or `None` where the system does not tell.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn figures_are_plausible() {
        let peak = super::peak_bytes();
        assert!(peak > 1 << 20 && peak < 1 << 42, "{peak}");
        assert!(super::available_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(super::free_bytes("/".as_ref()).is_some());
        assert_eq!(super::free_bytes("/none/such".as_ref()), None);
    }
}
