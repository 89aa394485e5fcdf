//! Progress of long steps: bars on a terminal, a log line now and then elsewhere, nothing with `--quiet` or `--json`.
//!
//! Rooms further down know none of this: they call a closure with the work done since the last call, and the commands
//! pass one that calls [`Progress::advance`]. Progress goes to standard error only.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::args::Global;
use super::report::{human_duration, percent};

/// One step at a time, told from any thread.
pub trait Progress: Send + Sync {
    /// A step starts: its name, and its units of work (0: unknown). Ends the step before.
    fn begin(&self, what: &str, total: u64);
    /// `n` more units are done.
    fn advance(&self, n: u64);
    /// A few words on how it goes, shown beside the step until the next ones.
    fn note(&self, text: &str);
    /// The step is done.
    fn end(&self);
}

/// Where a command shows how far it is.
#[derive(Clone, Debug)]
pub enum Screen {
    /// A terminal on standard error: bars, with log lines written above them.
    Bars(MultiProgress),
    /// A log: a line at most each 5 seconds and each tenth of a step, and one at its end.
    Lines,
    /// Nothing.
    Silent,
}

impl Screen {
    /// The one that fits the options and this process's standard error.
    #[must_use]
    pub fn choose(global: &Global) -> Self {
        Self::choose_for(global, io::stderr().is_terminal())
    }

    fn choose_for(global: &Global, terminal: bool) -> Self {
        if global.quiet || global.json {
            Self::Silent
        } else if terminal && !global.json_logs {
            Self::Bars(MultiProgress::new())
        } else {
            Self::Lines
        }
    }

    /// Progress shown there.
    #[must_use]
    pub fn progress(&self) -> Box<dyn Progress> {
        match self {
            Self::Bars(bars) => Box::new(Bars { bars: bars.clone(), bar: Mutex::new(None) }),
            Self::Lines => Box::new(Lines { step: Mutex::new(None) }),
            Self::Silent => Box::new(Silent),
        }
    }

    /// Standard error, with bars moved out of the way of what is written.
    #[must_use]
    pub fn log_writer(&self) -> LogWriter {
        match self {
            Self::Bars(bars) => LogWriter(Some(bars.clone())),
            Self::Lines | Self::Silent => LogWriter(None),
        }
    }
}

/// Writes to standard error above the bars.
#[derive(Clone, Debug)]
pub struct LogWriter(Option<MultiProgress>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The value even where another thread panicked while it held the lock: progress never makes that worse.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: u64) {}
    fn advance(&self, _n: u64) {}
    fn note(&self, _text: &str) {}
    fn end(&self) {}
}

struct Bars {
    bars: MultiProgress,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: u64) {
        self.end();
        let (bar, template) = if total == 0 {
            (ProgressBar::new_spinner(), "{msg:<28} {spinner} {pos} {elapsed}")
        } else {
            (ProgressBar::new(total), "{msg:<28} [{bar:30}] {percent:>3} % {elapsed}, {eta} left {prefix}")
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(bar.with_style(style.progress_chars("=> ")).with_message(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(200));
        *locked(&self.bar) = Some(bar);
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = &*locked(&self.bar) {
            bar.inc(n);
        }
    }

    fn note(&self, text: &str) {
        if let Some(bar) = &*locked(&self.bar) {
            bar.set_prefix(text.to_owned());
        }
    }

    fn end(&self) {
        if let Some(bar) = locked(&self.bar).take() {
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.finish_with_message(format!("{:<28} done in {}", bar.message(), human_duration(bar.elapsed())));
        }
    }
}

struct Lines {
    step: Mutex<Option<Step>>,
}

/// A step under way, as the log sees it.
struct Step {
    what: String,
    total: u64,
    done: u64,
    note: String,
    started: Instant,
    pace: Pace,
}

impl Progress for Lines {
    fn begin(&self, what: &str, total: u64) {
        self.end();
        let what = what.to_owned();
        let (note, started, pace) = (String::new(), Instant::now(), Pace::default());
        *locked(&self.step) = Some(Step { what, total, done: 0, note, started, pace });
    }

    fn advance(&self, n: u64) {
        if let Some(step) = &mut *locked(&self.step) {
            step.done = step.done.saturating_add(n);
            let elapsed = step.started.elapsed();
            if step.pace.is_due(elapsed, step.done, step.total) {
                let (what, done, total) = (&step.what, step.done, step.total);
                let comma = if step.note.is_empty() { "" } else { ", " };
                let note = &step.note;
                if total == 0 {
                    tracing::info!("{what}: {done} in {}{comma}{note}", human_duration(elapsed));
                } else {
                    let share = percent(done, total);
                    tracing::info!("{what}: {share}, {done} of {total} in {}{comma}{note}", human_duration(elapsed));
                }
            }
        }
    }

    fn note(&self, text: &str) {
        if let Some(step) = &mut *locked(&self.step) {
            text.clone_into(&mut step.note);
        }
    }

    fn end(&self) {
        if let Some(step) = locked(&self.step).take() {
            tracing::info!("{}: done in {}", step.what, human_duration(step.started.elapsed()));
        }
    }
}

/// Decides which advances are worth a line: 5 seconds and a tenth of the step since the last one, neither less.
#[derive(Default)]
struct Pace {
    last: Duration,
    tenths: u64,
}

impl Pace {
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Whether a line is due `elapsed` after the step's start with `done` of `total` units (0: unknown) done.
    fn is_due(&mut self, elapsed: Duration, done: u64, total: u64) -> bool {
        if elapsed.saturating_sub(self.last) < Self::INTERVAL {
            return false;
        }
        if total > 0 {
            let tenths = (u128::from(done) * 10 / u128::from(total)).min(10) as u64;
            if tenths <= self.tenths || tenths == 10 {
                return false;
            }
            self.tenths = tenths;
        }
        self.last = elapsed;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_both_five_seconds_and_a_tenth_apart() {
        let mut pace = Pace::default();
        let mut due = |secs: u64, done| pace.is_due(Duration::from_secs(secs), done, 1000);
        assert!(!due(4, 400), "too early");
        assert!(due(5, 450));
        assert!(!due(60, 499), "the same tenth");
        assert!(due(61, 500));
        assert!(!due(65, 700), "four seconds later");
        assert!(due(66, 720));
        assert!(!due(100, 1000), "the end has its own line");
        assert!(!due(200, 5000), "more than promised");
    }

    #[test]
    fn a_step_of_unknown_length_is_paced_by_time_alone() {
        let mut pace = Pace::default();
        let lines: Vec<u64> = (0..=20).filter(|&secs| pace.is_due(Duration::from_secs(secs), secs, 0)).collect();
        assert_eq!(lines, [5, 10, 15, 20]);
    }

    #[test]
    fn the_screen_follows_options_and_terminal() {
        let plain = Global::default();
        let quiet = Global { quiet: true, ..plain.clone() };
        let json = Global { json: true, ..plain.clone() };
        let json_logs = Global { json_logs: true, ..plain.clone() };
        assert!(matches!(Screen::choose_for(&plain, true), Screen::Bars(_)));
        assert!(matches!(Screen::choose_for(&plain, false), Screen::Lines));
        assert!(matches!(Screen::choose_for(&json_logs, true), Screen::Lines));
        for silent in [quiet, json] {
            assert!(matches!(Screen::choose_for(&silent, true), Screen::Silent));
            assert!(matches!(Screen::choose_for(&silent, false), Screen::Silent));
        }
    }

    #[test]
    fn bars_count_from_every_thread_and_end_once() {
        let bars = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let progress = Bars { bars, bar: Mutex::new(None) };
        progress.advance(1); // no step yet: nothing to count
        progress.begin("encrypting", 400);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.advance(1)));
            }
        });
        let bar = locked(&progress.bar).clone().expect("a step is under way");
        assert_eq!((bar.position(), bar.length(), bar.message()), (400, Some(400), "encrypting".to_owned()));
        progress.note("loss 0.12");
        assert_eq!(bar.prefix(), "loss 0.12");
        progress.begin("decrypting", 0);
        assert!(bar.is_finished(), "a new step ends the one before");
        let shown = bar.message();
        assert!(shown.starts_with("encrypting  ") && shown.contains(" done in "), "{shown}");
        progress.end();
        assert!(locked(&progress.bar).is_none());
    }

    #[test]
    fn log_lines_count_without_overflow() {
        let progress = Lines { step: Mutex::new(None) };
        progress.begin("reading", 10);
        progress.advance(u64::MAX);
        progress.advance(3);
        assert_eq!(locked(&progress.step).as_ref().map(|step| step.done), Some(u64::MAX));
        progress.end();
        assert!(locked(&progress.step).is_none());
    }
}
