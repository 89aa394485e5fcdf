//! The queue on PostgreSQL: every scenario of the conformance suite, each in a database of its own, on a scratch server that
//! this test makes and takes away again.

#[expect(dead_code, reason = "opening a database that another process made is for failpoints")]
mod postgres;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobs::queue::conformance::{Yard, run_all};
use jobs::queue::{Queue, open};
use postgres::{Database, Server};
use tempfile::TempDir;

/// A database and where its payloads go.
struct Place {
    database: Database,
    payloads: TempDir,
}

impl Yard for Place {
    fn open(&self) -> Box<dyn Queue> {
        open(&self.database.address(self.payloads.path())).unwrap().0
    }

    fn pass(&self, time: Duration) {
        self.database.pass(time);
    }

    fn unix_ms(&self) -> u64 {
        // Scenarios ask before they let much time pass; a second or two does not matter to them.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
}

#[test]
fn postgresql_passes_every_scenario() {
    let server = Server::start();
    run_all(|name| Box::new(Place { database: server.database(name), payloads: tempfile::tempdir().unwrap() }));
}
