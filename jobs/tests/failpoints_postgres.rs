//! Every failpoint of the queue on PostgreSQL times every way to go wrong there, as `failpoints.rs` does it on a folder: whatever a
//! transaction had not committed when its process ended never was.

mod postgres;
mod working_day;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jobs::failpoint;
use postgres::{Database, Server};
use working_day::Place;

const FOLDER: &str = "NIGHTSHIFT_TEST_FOLDER";
const SOCKET: &str = "NIGHTSHIFT_TEST_SOCKET";
const NAME: &str = "NIGHTSHIFT_TEST_DATABASE";

fn place(folder: &Path, database: Database) -> Place {
    let (queue, store) = jobs::queue::open(&database.address(&folder.join("store"))).unwrap();
    Place { folder: folder.to_owned(), queue, store, pass: Box::new(move |time| database.pass(time)) }
}

fn main() -> ExitCode {
    if let [Ok(folder), Ok(socket), Ok(name)] = [FOLDER, SOCKET, NAME].map(std::env::var) {
        return working_day::work(&place(Path::new(&folder), Database::found(Path::new(&socket), &name)));
    }
    let server = Server::start();
    let names = failpoint::NAMES.into_iter().filter(|name| name.starts_with("postgres."));
    let cells = working_day::run_cells(names, |number, child| {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("cell_{number}");
        let database = server.database(&name);
        let output = child.env(FOLDER, folder.path()).env(SOCKET, server.folder()).env(NAME, &name).output().unwrap();
        database.pass(Duration::from_secs(24 * 3600));
        (output, place(folder.path(), database), folder)
    });
    assert!(cells >= 54, "only {cells} cells");
    ExitCode::SUCCESS
}
