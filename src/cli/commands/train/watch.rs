//! What a run tells, shown and written down: a bar with loss and accuracy, a log line an epoch, and JSON lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jobs::JobsError;
use serde_json::{Value, json};

use super::data::refuse_other;
use crate::cli::error::CliError;
use crate::cli::progress::Progress;
use crate::train::{EpochRecord, Event, Observer, Phase};

/// How every log of a run begins.
const LOG_MARK: &str = "{\"event\":\"run\"";

/// JSON lines of a run. No line holds a time or anything of the machine, so that two runs of one recipe give one log.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the file anew, or at its end to go on.
    ///
    /// # Errors
    /// It cannot be created, or holds something other than such a log.
    pub(super) fn create(path: &Path, go_on: bool) -> Result<Log, CliError> {
        refuse_other(path, LOG_MARK, "training log")?;
        let mut options = OpenOptions::new();
        options.create(true).append(go_on).write(true).truncate(!go_on);
        let file = options.open(path).map_err(|source| CliError::Create { path: path.to_owned(), source })?;
        Ok(Log { path: path.to_owned(), file })
    }

    /// One line. `event` comes first, so that a log is known by its beginning.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn line(&mut self, event: &str, fields: &Value) -> Result<(), CliError> {
        let mut text = format!("{{\"event\":{}", Value::from(event));
        for (key, value) in fields.as_object().into_iter().flatten() {
            text += &format!(",{}:{value}", Value::from(key.as_str()));
        }
        text += "}\n";
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| JobsError::Write { path: self.path.clone(), source }.into())
    }
}

/// The observer of a run.
pub(super) struct Watch<'a> {
    progress: &'a dyn Progress,
    log: Option<Log>,
    /// Why the run was asked to stop.
    failed: Option<CliError>,
    last_accuracy: Option<f64>,
    /// When the current network began, and seconds of those before: a teacher, or a student with its integers.
    began: Option<(Phase, Instant)>,
    student_secs: Vec<f64>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(progress: &'a dyn Progress, log: Option<Log>) -> Watch<'a> {
        Watch { progress, log, failed: None, last_accuracy: None, began: None, student_secs: Vec::new() }
    }

    /// Adds a line to the log, if there is one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn line(&mut self, event: &str, fields: &Value) -> Result<(), CliError> {
        self.log.as_mut().map_or(Ok(()), |log| log.line(event, fields))
    }

    /// The run is over, well or not: ends the bar and gives back what stopped it from here.
    pub(super) fn end(&mut self) -> Option<CliError> {
        self.close_network();
        self.progress.end();
        self.failed.take()
    }

    /// Seconds of each student with its integers, in order; a teacher's are not in them.
    pub(super) fn student_secs(&self) -> &[f64] {
        &self.student_secs
    }

    fn close_network(&mut self) {
        if let Some((Phase::Student | Phase::Quantise, began)) = self.began.take() {
            self.student_secs.push(began.elapsed().as_secs_f64());
        }
    }

    fn tell(&mut self, event: &Event) -> Result<(), CliError> {
        match event {
            Event::Phase { phase, steps, done_steps } => {
                // The integers go on with the student of just before.
                if *phase != Phase::Quantise || self.began.is_none() {
                    self.close_network();
                    self.began = Some((*phase, Instant::now()));
                }
                self.last_accuracy = None;
                self.progress.begin(phase.name(), steps.saturating_sub(*done_steps) as u64);
                self.line("phase", &json!({ "phase": phase, "steps": steps, "done_steps": done_steps }))
            }
            Event::Steps { steps, loss } => {
                self.progress.advance(*steps as u64);
                let accuracy = self.last_accuracy.map_or_else(String::new, |share| format!(", {}", in_percent(share)));
                self.progress.note(&format!("loss {loss:.4}{accuracy}"));
                self.line("steps", &json!({ "steps": steps, "loss": loss }))
            }
            Event::Epoch(record) => {
                self.last_accuracy = Some(record.held_out_accuracy.unwrap_or(record.train_accuracy));
                tracing::info!("{}", epoch_line(record));
                let fields = serde_json::to_value(record).unwrap_or_default();
                self.line("epoch", &fields)
            }
            // A path is the machine's; that there is a checkpoint is the run's.
            Event::Checkpoint(_) => self.line("checkpoint", &json!({})),
        }
    }
}

impl Observer for Watch<'_> {
    fn observe(&mut self, event: &Event) -> bool {
        match self.tell(event) {
            Ok(()) => true,
            Err(error) => {
                self.failed.get_or_insert(error);
                false
            }
        }
    }
}

/// A share as `98.93 %`.
pub(super) fn in_percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn epoch_line(record: &EpochRecord) -> String {
    let mut line = format!(
        "{}, epoch {} of {}: loss {:.4}, accuracy in training {}",
        record.phase.name(),
        record.epoch,
        record.epochs,
        record.loss,
        in_percent(record.train_accuracy)
    );
    if let Some(share) = record.held_out_accuracy {
        line += &format!(", held out {}", in_percent(share));
    }
    if let Some(largest) = record.largest_input {
        line += &format!(", largest |x| {largest:.1}");
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::progress::Screen;

    pub(in crate::cli::commands::train) fn record(phase: Phase, epoch: usize, epochs: usize) -> EpochRecord {
        let rise = epoch as f64 / epochs as f64;
        EpochRecord {
            phase,
            epoch,
            epochs,
            loss: 2.3 - 2.0 * rise,
            train_accuracy: 0.1 + 0.8 * rise,
            held_out_accuracy: Some(0.1 + 0.85 * rise),
            learning_rate: 1e-3,
            relu_share: 0.0,
            largest_input: Some(4.25),
            gradient_norm: 1.5,
        }
    }

    #[test]
    fn a_log_says_every_event_and_nothing_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let progress = Screen::Silent.progress();
        let write = |go_on: bool| {
            let mut watch = Watch::new(&*progress, Some(Log::create(&path, go_on).unwrap()));
            watch.line("run", &json!({ "seed": 1 })).unwrap();
            let student = record(Phase::Student, 1, 2);
            for event in [
                Event::Phase { phase: Phase::Teacher, steps: 2, done_steps: 0 },
                Event::Phase { phase: Phase::Student, steps: 4, done_steps: 2 },
                Event::Steps { steps: 2, loss: 0.5 },
                Event::Epoch(&student),
                Event::Checkpoint(&path),
                Event::Phase { phase: Phase::Quantise, steps: 3, done_steps: 0 },
                Event::Phase { phase: Phase::Student, steps: 4, done_steps: 0 },
            ] {
                assert!(watch.observe(&event));
            }
            assert!(watch.end().is_none());
            assert_eq!(
                watch.student_secs().len(),
                2,
                "two students; the teacher and the integers have no line of their own"
            );
            std::fs::read_to_string(&path).unwrap()
        };
        let first = write(false);
        assert_eq!(first, write(false), "anew, the same");
        assert_eq!(write(true), format!("{first}{first}"), "at the end of what is there");
        let lines: Vec<Value> = first.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["run", "phase", "phase", "steps", "epoch", "checkpoint", "phase", "phase"]);
        assert_eq!((&lines[4]["held_out_accuracy"], &lines[4]["phase"]), (&0.525.into(), &"student".into()));
        assert!(!first.contains(&*folder.path().to_string_lossy()));
    }

    #[test]
    fn a_log_that_cannot_be_written_stops_the_run_and_is_the_error() {
        let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let progress = Screen::Silent.progress();
        let mut watch = Watch::new(&*progress, Some(Log { path: "/dev/full".into(), file }));
        assert!(!watch.observe(&Event::Steps { steps: 1, loss: 0.5 }));
        assert_eq!(watch.end().unwrap().exit_code().code(), 74);
    }

    #[test]
    fn an_epoch_reads_as_a_sentence() {
        let line = epoch_line(&record(Phase::Teacher, 2, 2));
        assert_eq!(
            line,
            "teacher, epoch 2 of 2: loss 0.3000, accuracy in training 90.00 %, held out 95.00 %, largest |x| 4.2"
        );
    }
}
