//! What was done, as figures for Prometheus: counters, gauges and histograms under fixed names. They leave as text (exposition
//! format 0.0.4) through a file ([`textfile`]) or over HTTP ([`listen`]).
//!
//! Labels hold names that this program chose: outcomes, exit codes, stages, states. Never a path, a job, a tenant or a key. A
//! family holds a bounded number of label values; what comes beyond is counted under `other`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

pub mod families;
pub mod listen;
pub mod textfile;

pub use families::FAMILIES;
pub use listen::Listener;
pub use textfile::Textfile;

/// Most label values of one family.
const SERIES_LIMIT: usize = 256;
/// What a label value beyond the limit reads.
const OTHER: &str = "other";

/// How a family's values behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// The last value set.
    Gauge,
    /// How many values were at most each of these bounds, which ascend.
    Histogram(&'static [f64]),
}

/// A name, what it means, and the labels that its values carry.
#[derive(Debug)]
pub struct Family {
    /// Begins with `nightshift_`.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

/// One value of a family, or a histogram's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    /// Counts by bucket (not summed up), the last of them beyond all bounds; and the sum of what was observed.
    Histogram(Vec<f64>, f64),
}

/// All values: family's name and label values to value.
pub(crate) type Series = BTreeMap<(&'static str, Vec<String>), Value>;

/// The figures of one process. Shared by its threads.
#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<Series>,
}

impl Metrics {
    /// No figures yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a counter. What is not a positive number adds nothing.
    pub fn add(&self, family: &'static Family, labels: &[&str], amount: f64) {
        if amount.is_finite() && amount >= 0.0 {
            self.change(family, labels, |value| {
                if let Value::Number(number) = value {
                    *number += amount;
                }
            });
        }
    }

    /// Sets a gauge.
    pub fn set(&self, family: &'static Family, labels: &[&str], amount: f64) {
        self.change(family, labels, |value| *value = Value::Number(amount));
    }

    /// Moves a gauge up or down.
    pub fn move_by(&self, family: &'static Family, labels: &[&str], amount: f64) {
        self.change(family, labels, |value| {
            if let Value::Number(number) = value {
                *number += amount;
            }
        });
    }

    /// Puts a value into a histogram. What is not a number is left out.
    pub fn observe(&self, family: &'static Family, labels: &[&str], amount: f64) {
        let Kind::Histogram(bounds) = family.kind else { return };
        if !amount.is_finite() {
            return;
        }
        self.change(family, labels, |value| {
            if let Value::Histogram(counts, sum) = value {
                let bucket = bounds.iter().position(|&bound| amount <= bound).unwrap_or(bounds.len());
                if let Some(count) = counts.get_mut(bucket) {
                    *count += 1.0;
                }
                *sum += amount;
            }
        });
    }

    /// The figures as text.
    #[must_use]
    pub fn render(&self) -> String {
        render(&self.series())
    }

    pub(crate) fn series(&self) -> Series {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, family: &'static Family, labels: &[&str], change: impl FnOnce(&mut Value)) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |index: usize| labels.get(index).copied().unwrap_or_default().to_owned();
        let mut key = (family.name, (0..family.labels.len()).map(wanted).collect::<Vec<_>>());
        let of_family = |(name, _): &&(&str, Vec<String>)| *name == family.name;
        if !series.contains_key(&key) && series.keys().filter(of_family).count() >= SERIES_LIMIT {
            key.1.iter_mut().for_each(|value| OTHER.clone_into(value));
        }
        change(series.entry(key).or_insert_with(|| zero(family)));
    }
}

pub(crate) fn zero(family: &Family) -> Value {
    match family.kind {
        Kind::Counter | Kind::Gauge => Value::Number(0.0),
        Kind::Histogram(bounds) => Value::Histogram(vec![0.0; bounds.len() + 1], 0.0),
    }
}

/// Exposition format 0.0.4, families in the order of [`FAMILIES`].
pub(crate) fn render(series: &Series) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let mut values = series.iter().filter(|((name, _), _)| *name == family.name).peekable();
        if values.peek().is_some() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
        }
        for ((name, labels), value) in values {
            match value {
                Value::Number(number) => {
                    let _ = writeln!(text, "{name}{} {number}", braces(family, labels, None));
                }
                Value::Histogram(counts, sum) => {
                    let Kind::Histogram(bounds) = family.kind else { continue };
                    let mut total = 0.0;
                    for (index, count) in counts.iter().enumerate() {
                        total += count;
                        let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                        let _ = writeln!(text, "{name}_bucket{} {total}", braces(family, labels, Some(&bound)));
                    }
                    let braces = braces(family, labels, None);
                    let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
                }
            }
        }
    }
    text
}

/// `{stage="check",le="1"}`, or nothing where there are no labels.
fn braces(family: &Family, labels: &[String], bound: Option<&str>) -> String {
    let pairs = family.labels.iter().copied().zip(labels.iter().map(String::as_str));
    let mut text = String::new();
    for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::families::{JOB_SECONDS, JOBS, LAST_RATIO, STAGE_SECONDS};
    use super::*;

    #[test]
    fn figures_read_as_prometheus_expects() {
        let metrics = Metrics::new();
        metrics.add(&JOBS, &["done", "done"], 1.0);
        metrics.add(&JOBS, &["done", "done"], 1.0);
        metrics.add(&JOBS, &["failed", "bad-data"], 1.0);
        metrics.add(&JOBS, &["done", "done"], f64::NAN);
        metrics.add(&JOBS, &["done", "done"], -1.0);
        metrics.set(&LAST_RATIO, &["seconds"], 1.25);
        for secs in [0.5, 0.5, 70.0, 1e9, f64::INFINITY] {
            metrics.observe(&JOB_SECONDS, &[], secs);
        }
        let text = metrics.render();
        for line in [
            "# TYPE nightshift_jobs_total counter",
            "nightshift_jobs_total{outcome=\"done\",code=\"done\"} 2",
            "nightshift_jobs_total{outcome=\"failed\",code=\"bad-data\"} 1",
            "nightshift_last_ratio{what=\"seconds\"} 1.25",
            "nightshift_job_seconds_bucket{le=\"1\"} 2",
            "nightshift_job_seconds_bucket{le=\"+Inf\"} 4",
            "nightshift_job_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("stage_seconds"), "a family without values is left out");
    }

    #[test]
    fn label_values_are_escaped_and_their_number_is_bounded() {
        let metrics = Metrics::new();
        metrics.add(&STAGE_SECONDS, &["a\"b\\c\nd"], 1.5);
        assert!(metrics.render().contains("nightshift_stage_seconds_total{stage=\"a\\\"b\\\\c\\nd\"} 1.5\n"));
        for stage in 0..10_000 {
            metrics.add(&STAGE_SECONDS, &[&format!("stage {stage}")], 1.0);
        }
        let text = metrics.render();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), SERIES_LIMIT + 1);
        assert!(text.contains(&format!("{{stage=\"other\"}} {}", 10_001 - SERIES_LIMIT)), "{text}");
    }
}
