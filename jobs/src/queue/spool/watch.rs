//! How long a lease has not been heard of, on this process's own monotonic clock: from the moment its last change was first
//! seen here. No clock of another machine is looked at, so none can be wrong; the price is that a process that has just
//! begun must watch for a whole life of a lease before it may take one back.

use std::collections::HashMap;
use std::time::Duration;

/// What is watched, by the lease's name.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    mark: String,
    since: Duration,
    round: u64,
}

impl Watch {
    /// Notes that the lease has this mark now; how long it has had it.
    pub(super) fn age(&mut self, lease: &str, mark: &str, now: Duration, round: u64) -> Duration {
        let seen = self.seen.entry(lease.to_owned());
        let seen = seen.or_insert_with(|| Seen { mark: mark.to_owned(), since: now, round });
        if seen.mark != mark {
            mark.clone_into(&mut seen.mark);
            seen.since = now;
        }
        seen.round = seen.round.max(round);
        now.saturating_sub(seen.since)
    }

    /// Forgets the leases that no round since this one has seen.
    pub(super) fn forget_before(&mut self, round: u64) {
        self.seen.retain(|_, seen| seen.round >= round);
    }
}
