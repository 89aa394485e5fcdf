//! Every failpoint of the folder queue, the store and atomic files, times every way to go wrong there: a child process runs
//! into it in the middle of a small working day; it must end by the signal, the panic or the exit code that is documented, and
//! another process must then bring every job to its end, with every byte in place.

mod working_day;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobs::failpoint;
use jobs::queue::{Clock, open_at};
use working_day::Place;

const FOLDER: &str = "NIGHTSHIFT_TEST_FOLDER";

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

fn place(folder: &Path, hours: u64) -> Place {
    let clock = Arc::new(HandClock(Mutex::new(Duration::from_secs(3600 * hours))));
    let address = format!("spool:{}", folder.join("spool").display());
    let (queue, store) = open_at(&address, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    Place { folder: folder.to_owned(), queue, store, pass: Box::new(move |time| clock.sleep(time)) }
}

fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return working_day::work(&place(Path::new(&folder), 0));
    }
    let names = failpoint::NAMES.into_iter().filter(|name| !name.starts_with("postgres."));
    let cells = working_day::run_cells(names, |_, child| {
        let folder = tempfile::tempdir().unwrap();
        let output = child.env(FOLDER, folder.path()).output().unwrap();
        (output, place(folder.path(), 24), folder)
    });
    assert!(cells > 150, "only {cells} cells");
    ExitCode::SUCCESS
}
