//! Real worker processes: started, killed, frozen, told to leave; and what their logs say.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A worker process and its log.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// `nightshift-worker work --queue URL ARGS`, logging to a file.
    pub fn start(url: &str, log: &Path, args: &[&str]) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nightshift-worker"))
            .args(["work", "--queue", url, "--json-logs", "--threads", "1"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned() }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Any signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Its exit code.
    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "a worker does not end: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has so many of these messages.
    pub fn wait_for(&mut self, message: &str, count: usize) {
        let start = Instant::now();
        while messages(&self.log, message).len() < count {
            assert!(start.elapsed() < PATIENCE, "no {message:?}: {}", self.text());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it logged under this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        messages(&self.log, message)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The events of a log that carry this message; a line that a killed worker did not finish is none.
pub fn messages(log: &Path, message: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["message"] == message).collect()
}

/// Runs the client's or the worker's command to its end: `nightshift ..` or `nightshift-worker ..`.
pub fn command(program: &str, args: &[&str]) -> Output {
    let program = match program {
        "nightshift" => env!("CARGO_BIN_EXE_nightshift"),
        _ => env!("CARGO_BIN_EXE_nightshift-worker"),
    };
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Its exit code, with what it said for when that is a surprise.
pub fn code(program: &str, args: &[&str]) -> (i32, String) {
    let output = command(program, args);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), said)
}
