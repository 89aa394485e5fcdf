//! Time as an argument: one clock that only runs forward, by which leases run out, and one that people read, by which
//! deadlines and delays are meant. They are never mixed, and the monotonic one never leaves its process.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a queue takes its time from.
pub trait Clock: Send + Sync {
    /// Time since some moment of this process; never runs backward.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970; may jump either way.
    fn unix_ms(&self) -> u64;
    /// Lets this much time pass.
    fn sleep(&self, time: Duration);
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
