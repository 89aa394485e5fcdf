//! Runs the real binaries in a folder of their own and compares what they say with the texts in `tests/cli/golden`.
//!
//! A transcript has a block a command: the line, its exit code, standard output, standard error. Paths of the test's
//! folder read `TMP`, log lines with times are left out. `UPDATE_GOLDEN=1` writes the texts instead of comparing them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bundled model.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/mnist-cryptonets.nsm");

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The one JSON object on standard output.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!((self.code, self.out.lines().count()), (0, 1), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A folder, and what was run in it.
pub struct Stage {
    folder: tempfile::TempDir,
    transcript: String,
}

impl Stage {
    pub fn new() -> Stage {
        Stage { folder: tempfile::tempdir().unwrap(), transcript: String::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs `nightshift ARGS`, or `nightshift-worker ARGS` where the line begins so.
    pub fn run(&self, line: &str) -> Ended {
        let (program, args) = match line.strip_prefix("worker ") {
            Some(args) => (env!("CARGO_BIN_EXE_nightshift-worker"), args),
            None => (env!("CARGO_BIN_EXE_nightshift"), line),
        };
        let args = args.split_whitespace().map(|word| if word == "MODEL" { MODEL } else { word });
        let output = Command::new(program).args(args).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a line and adds it to the transcript.
    pub fn say(&mut self, line: &str) -> Ended {
        let ended = self.run(line);
        let command = if line.starts_with("worker ") { "nightshift-" } else { "nightshift " };
        let _ = writeln!(self.transcript, "$ {command}{line}\nexit {}", ended.code);
        for (stream, text) in [("out", &ended.out), ("err", &ended.err)] {
            for line in text.lines().filter(|line| !line.contains(" INFO ")) {
                let separator = if line.is_empty() { "" } else { " " };
                let _ = writeln!(self.transcript, "{stream}:{separator}{}", self.normalised(line));
            }
        }
        self.transcript.push('\n');
        ended
    }

    fn normalised(&self, line: &str) -> String {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let canonical = self.folder.path().canonicalize().unwrap().to_string_lossy().into_owned();
        // A temporary file's random name.
        let line = line.split_once(" at path ").map_or(line, |(start, _)| start);
        let text = line.replace(MODEL, "MODEL").replace(&canonical, "TMP").replace(&folder, "TMP");
        // Digests and ids that differ from run to run are marked by those who make them; 64 digits stand for any.
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        for word in &mut words {
            let trimmed = word.trim_end_matches([',', ':', ';']);
            if (32..=64).contains(&trimmed.len()) && trimmed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                *word = word.replace(trimmed, "HEX");
            }
        }
        words.join(" ")
    }

    /// Holds the transcript to `tests/cli/golden/NAME.txt`.
    pub fn expect(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/golden/{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.transcript).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (number, (found, expected)) in self.transcript.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "line {} of {} (UPDATE_GOLDEN=1 rewrites it)", number + 1, path.display());
        }
        assert_eq!(self.transcript.lines().count(), expected.lines().count(), "lines of {}", path.display());
    }

    /// The names of the files in a folder of the stage, sorted; hidden ones too.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
