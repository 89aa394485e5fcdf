//! The queue on PostgreSQL: every scenario of the conformance suite, each in a database of its own, on a scratch server that
//! this test makes and takes away again.

#[expect(dead_code, reason = "opening a database that another process made is for failpoints")]
mod postgres;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobs::manifest::{ENGINE, ENGINES};
use jobs::queue::conformance::{Yard, run_all};
use jobs::queue::{Capacity, Claim, Needs, Queue, Submission, open};
use jobs::{Digest, ExitCode};
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

#[test]
fn tables_of_the_first_version_become_the_last_ones_and_newer_ones_are_refused() {
    let server = Server::start();
    let place = Place { database: server.database("older"), payloads: tempfile::tempdir().unwrap() };
    let submission = |key: &str, engine: &str| Submission {
        tenant: "a".to_owned(),
        idempotency_key: key.to_owned(),
        manifest: Digest::of(key.as_bytes()),
        priority: 0,
        deadline_unix_ms: None,
        needs: Needs { memory_bytes: 100, scratch_bytes: 10 },
        engine: engine.to_owned(),
        tasks: 1,
    };
    place.open().submit(&submission("before", ENGINE)).unwrap();
    place.database.sql("ALTER TABLE nightshift_jobs DROP COLUMN engine; UPDATE nightshift_schema SET version = 1");
    let queue = place.open();
    queue.submit(&submission("after", ENGINES[1])).unwrap();
    for (key, engine) in [("before", ENGINE), ("after", ENGINES[1])] {
        let capacity = Capacity { memory_bytes: 100, scratch_bytes: 10, engines: &ENGINES };
        let Claim::Task(lease) = queue.claim("w", capacity).unwrap() else { panic!("nothing to claim") };
        assert_eq!(lease.submission, submission(key, engine));
    }
    place.database.sql("UPDATE nightshift_schema SET version = 3");
    let refused = open(&place.database.address(place.payloads.path())).err().unwrap();
    assert_eq!(refused.exit_code(), ExitCode::Mismatch, "{refused}");
}
