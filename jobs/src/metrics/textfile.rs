//! Figures in a file, for one-shots that nobody can scrape: node_exporter's textfile collector reads it. Counters go on from
//! where the file stands, so that runs add up; gauges are replaced. The file appears whole, and processes that write the same
//! one take turns (a lock on `.NAME.lock` beside it).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::{FAMILIES, Family, Kind, Metrics, Series, Value, render, zero};
use crate::atomic;
use crate::document;
use crate::error::{JobsError, Result};

/// Most bytes of an earlier file that are read; from a larger one nothing is gone on from.
const TEXTFILE_LIMIT_BYTES: u64 = 1 << 20;

/// A file that a process adds its figures to.
#[derive(Debug)]
pub struct Textfile {
    path: PathBuf,
    /// What this process has told the file so far.
    told: Series,
}

impl Textfile {
    /// Names the file; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), told: Series::new() }
    }

    /// Adds what has come since the last call. An earlier file that cannot be understood is begun anew, as a restarted process's
    /// counters are.
    ///
    /// # Errors
    /// [`JobsError::Create`] for the lock, and those of [`atomic::write_atomic`].
    pub fn write(&mut self, metrics: &Metrics) -> Result<()> {
        let lock_path = self.lock_path();
        let create = |source| JobsError::Create { path: lock_path.clone(), source };
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&lock_path).map_err(create)?;
        lock.lock().map_err(create)?;
        let earlier = document::read_capped(&self.path, TEXTFILE_LIMIT_BYTES).unwrap_or_default();
        let mut series = parse(&earlier);
        let now = metrics.series();
        for (key, value) in &now {
            let Some(family) = FAMILIES.iter().find(|family| family.name == key.0) else { continue };
            let place = series.entry(key.clone()).or_insert_with(|| zero(family));
            let told = self.told.get(key).cloned().unwrap_or_else(|| zero(family));
            match (place, value, told) {
                (Value::Number(place), Value::Number(value), _) if family.kind == Kind::Gauge => *place = *value,
                (Value::Number(place), Value::Number(value), Value::Number(told)) => *place += value - told,
                (Value::Histogram(place, sum), Value::Histogram(counts, added), Value::Histogram(told, told_sum)) => {
                    place.iter_mut().zip(counts.iter().zip(&told)).for_each(|(place, (new, old))| *place += new - old);
                    *sum += added - told_sum;
                }
                _ => {}
            }
        }
        // Only one program runs now: what an earlier one was is not told any more.
        series.retain(|key, _| key.0 != super::families::BUILD.name || now.contains_key(key));
        atomic::write_atomic(&self.path, render(&series).as_bytes())?;
        self.told = now;
        Ok(())
    }

    fn lock_path(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".lock");
        self.path.with_file_name(name)
    }
}

/// What `render` wrote. Lines of other families or another form are left out; a histogram that is not whole is, too.
#[doc(hidden)]
pub fn rewritten(text: &str) -> String {
    render(&parse(text))
}

fn parse(text: &str) -> Series {
    let mut series = Series::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels, number)) = sample(line) else { continue };
        let of = |name: &str| FAMILIES.iter().copied().find(|family| family.name == name);
        let histogram = |ending: &str| of(name.strip_suffix(ending)?).filter(|f| matches!(f.kind, Kind::Histogram(_)));
        if let Some(family) = of(name).filter(|family| !matches!(family.kind, Kind::Histogram(_))) {
            if let Some(values) = values_of(family, &labels, 0) {
                series.insert((family.name, values), Value::Number(number));
            }
        } else if let Some(family) = histogram("_bucket") {
            let bound = labels.last().filter(|(name, _)| name == "le").map(|(_, bound)| bound.as_str());
            let (Some(values), Some(bound)) = (values_of(family, &labels, 1), bound) else { continue };
            let Kind::Histogram(bounds) = family.kind else { continue };
            let place = bounds.iter().position(|b| b.to_string() == bound);
            let place = place.or_else(|| (bound == "+Inf").then_some(bounds.len()));
            if let (Some(place), Value::Histogram(counts, _)) =
                (place, series.entry((family.name, values)).or_insert_with(|| zero(family)))
            {
                counts[place] = number;
            }
        } else if let Some(family) = histogram("_sum")
            && let Some(values) = values_of(family, &labels, 0)
            && let Value::Histogram(_, sum) = series.entry((family.name, values)).or_insert_with(|| zero(family))
        {
            *sum = number;
        }
    }
    // Buckets are written as running totals.
    for value in series.values_mut() {
        if let Value::Histogram(counts, _) = value {
            for index in (1..counts.len()).rev() {
                counts[index] -= counts[index - 1];
            }
        }
    }
    series.retain(|_, value| match value {
        Value::Number(number) => number.is_finite(),
        Value::Histogram(counts, sum) => counts.iter().all(|count| *count >= 0.0) && sum.is_finite(),
    });
    series
}

/// Label values in the family's order, with `extra` labels behind them left aside; `None` for other labels.
fn values_of(family: &Family, labels: &[(String, String)], extra: usize) -> Option<Vec<String>> {
    let own = labels.get(..labels.len().checked_sub(extra)?)?;
    let names = own.iter().map(|(name, _)| name.as_str());
    names.eq(family.labels.iter().copied()).then(|| own.iter().map(|(_, value)| value.clone()).collect())
}

/// Name, labels with their values, number.
type Sample<'a> = (&'a str, Vec<(String, String)>, f64);

/// `name{label="value"} number`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (head, number) = line.rsplit_once(' ')?;
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite())?;
    let Some((name, rest)) = head.split_once('{') else { return Some((head, Vec::new(), number)) };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((label.to_owned(), value));
        rest = &quoted[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some((name, labels, number))
}

#[cfg(test)]
mod tests {
    use super::super::families::{BUILD, JOB_SECONDS, JOBS, LAST_RATIO, STAGE_SECONDS};
    use super::*;
    use std::fs;

    fn filled(version: &str) -> Metrics {
        let metrics = Metrics::new();
        metrics.add(&JOBS, &["done", "done"], 1.0);
        metrics.add(&STAGE_SECONDS, &["a \"b\"\\,c=\"{}\n"], 0.25);
        metrics.observe(&JOB_SECONDS, &[], 2.0);
        metrics.set(&LAST_RATIO, &["seconds"], 0.5);
        metrics.set(&BUILD, &[version, "unknown", "portable"], 1.0);
        metrics
    }

    #[test]
    fn runs_add_up_and_gauges_are_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nightshift.prom");
        let first = filled("0.1.0");
        let mut file = Textfile::new(&path);
        file.write(&first).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first.render());
        // The same process again: what it has told is not told twice.
        first.add(&JOBS, &["failed", "io"], 1.0);
        file.write(&first).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first.render());
        let second = filled("0.2.0");
        second.set(&LAST_RATIO, &["seconds"], 0.75);
        Textfile::new(&path).write(&second).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for line in [
            "nightshift_jobs_total{outcome=\"done\",code=\"done\"} 2",
            "nightshift_jobs_total{outcome=\"failed\",code=\"io\"} 1",
            "nightshift_job_seconds_bucket{le=\"1\"} 0",
            "nightshift_job_seconds_bucket{le=\"3\"} 2",
            "nightshift_job_seconds_sum 4",
            "nightshift_last_ratio{what=\"seconds\"} 0.75",
            "nightshift_build_info{version=\"0.2.0\",commit=\"unknown\",isa=\"portable\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("0.1.0") && text.contains("\"} 0.5"), "{text}");
    }

    #[test]
    fn processes_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nightshift.prom");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| Textfile::new(&path).write(&filled("0")).unwrap()));
            }
        });
        assert!(
            fs::read_to_string(&path).unwrap().contains("nightshift_jobs_total{outcome=\"done\",code=\"done\"} 40\n")
        );
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nightshift.prom");
        let expected = filled("0").render();
        for text in [
            &b"\xff\xfe"[..],
            b"nightshift_jobs_total{outcome=\"done\",code=\"done\" 7\n",
            b"nightshift_jobs_total{code=\"done\"} 7\nnightshift_jobs_total{outcome=\"done\",code=\"done\"} inf\n",
            b"nightshift_job_seconds_bucket{le=\"7\"} 1\nnightshift_job_seconds_sum NaN\nother_total 3\n",
            b"nightshift_job_seconds_bucket{le=\"1\"} 5\nnightshift_job_seconds_bucket{le=\"3\"} 4\n",
        ] {
            fs::write(&path, text).unwrap();
            Textfile::new(&path).write(&filled("0")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
