//! The spool on a folder: every scenario of the conformance suite, each in a folder of its own, with a clock that the
//! scenario moves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobs::queue::conformance::{Yard, run_all};
use jobs::queue::{Clock, Queue, open_at};
use tempfile::TempDir;

/// Both clocks begin somewhere and move together.
struct HandClock(Mutex<Duration>);

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn unix_ms(&self) -> u64 {
        1_750_000_000_000 + self.0.lock().unwrap().as_millis() as u64
    }

    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

struct Folder {
    folder: TempDir,
    clock: Arc<HandClock>,
}

impl Yard for Folder {
    fn open(&self) -> Box<dyn Queue> {
        let address = format!("spool:{}", self.folder.path().display());
        open_at(&address, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap().0
    }

    fn pass(&self, time: Duration) {
        self.clock.sleep(time);
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }
}

#[test]
fn a_folder_passes_every_scenario() {
    run_all(|_| {
        let clock = Arc::new(HandClock(Mutex::new(Duration::from_secs(77))));
        Box::new(Folder { folder: tempfile::tempdir().unwrap(), clock })
    });
}
