//! A batch whose worker was killed in the middle goes on from its last stage: the same bytes, whatever became of the state kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jobs::Digest;

use crate::toy::{Toy, ToyJob, copy_folder};
use crate::workers::{Worker, command, messages};
use crate::{Spool, text};

/// Jobs that may be done before their worker is caught in the middle.
const TRIES: usize = 10;

fn states(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file() && !path.to_string_lossy().ends_with(".tmp")).collect()
}

/// Starts a worker on a copy of the job and kills it when it has kept a state that its batch still needs.
fn killed_in_the_middle(toy: &Toy, job: &ToyJob) -> (PathBuf, PathBuf) {
    for attempt in 0..TRIES {
        let folder = toy.path(&format!("killed-{attempt}"));
        copy_folder(&job.folder, &folder);
        let state = folder.join(format!(".{}.checkpoint", job.manifest.batches[0].output));
        let mut child = Command::new(env!("CARGO_BIN_EXE_nightshift-worker"))
            .args([
                "run",
                text(&folder.join("job.toml")),
                "--threads",
                "1",
                "--isa",
                "portable",
                "--checkpoint-after",
                "1ms",
                "-q",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while !state.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if state.exists() {
            return (folder, state);
        }
    }
    panic!("{TRIES} workers were too fast to be caught");
}

#[test]
fn a_killed_run_goes_on_from_its_last_stage() {
    let toy = Toy::slow();
    let job = toy.job("job", 1, None, None);
    let (folder, state) = killed_in_the_middle(&toy, &job);
    let output = &job.manifest.batches[0].output;
    assert!(!folder.join(output).exists());
    let sound = fs::read(&state).unwrap();
    let spoilt = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let of_nothing = vec![0; sound.len()];
    for (name, bytes, is_used) in [
        ("sound", sound.clone(), true),
        ("payload", spoilt(sound.len() / 2), false),
        ("header", spoilt(20), false),
        ("cut", sound[..sound.len() / 2].to_vec(), false),
        ("zeros", of_nothing, false),
    ] {
        let folder = toy.path(name);
        copy_folder(&job.folder, &folder);
        let state = folder.join(state.file_name().unwrap());
        fs::write(&state, bytes).unwrap();
        let ran = command("worker", &["run", text(&folder.join("job.toml")), "--json-logs"]);
        let log = toy.path("log");
        fs::write(&log, &ran.stderr).unwrap();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(messages(&log, "going on from a kept state").len(), usize::from(is_used), "{name}");
        assert_eq!(messages(&log, "state not used, the batch begins anew").len(), usize::from(!is_used), "{name}");
        assert_eq!(Digest::of(&fs::read(folder.join(output)).unwrap()), job.expected[0].digest, "{name}");
        assert!(!state.exists(), "{name}");
    }

    // Another job's state, though everything else is as it should be.
    let other = toy.job("other", 1, None, None);
    let place = other.folder.join(state.file_name().unwrap());
    fs::write(&place, &sound).unwrap();
    let ran = command("worker", &["run", text(&other.folder.join("job.toml")), "-q"]);
    assert!(ran.status.success());
    assert_eq!(Digest::of(&fs::read(other.folder.join(output)).unwrap()), other.expected[0].digest);
    assert!(!place.exists());
}

#[test]
fn another_worker_of_the_scratch_folder_goes_on() {
    let toy = Toy::slow();
    let spool = Spool::new("?ttl=1s&attempts=1000&backoff=1ms");
    let scratch = toy.path("scratch");
    let kept = scratch.join("checkpoints");
    let job = toy.job("job", 8, None, None);
    spool.submit(&job);
    let args = ["--drain", "--isa", "portable", "--scratch", text(&scratch), "--checkpoint-after", "1ms"];
    // Until one was killed between a state and the end of its batch: then some other began with that.
    for _ in 0..TRIES {
        let mut worker = Worker::start(&spool.url, &spool.log, &args);
        let before = worker.logged("state kept").len();
        while worker.is_running() && worker.logged("state kept").len() == before {
            std::thread::yield_now();
        }
        worker.kill();
        if !states(&kept).is_empty() {
            break;
        }
    }
    assert_eq!(states(&kept).len(), 1, "all were too fast to be caught");
    assert_eq!(Worker::start(&spool.url, &spool.log, &args).wait(), 0);
    assert_eq!(messages(&spool.log, "going on from a kept state").len(), 1);
    spool.expect_done(&job);
    assert!(states(&kept).is_empty());
}
