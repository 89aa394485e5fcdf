//! What people and scripts read at the end: aligned tables, figures with units, one-line errors, one JSON object.
//!
//! Decimal units (1 kB = 1000 bytes). Text from outside is shown with its control characters escaped, so that a file's
//! name cannot move the cursor. No colours, no wrapping.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

/// Side on which a table's column is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// A plain-text table: a header, a rule, rows; columns as wide as their widest cell and two spaces apart.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns. Where every name is empty, header and rule are left out.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| (one_line(name), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing are empty; cells beyond the last column are dropped.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: fmt::Display,
    {
        let mut row: Vec<String> = cells.into_iter().map(|cell| one_line(&cell.to_string())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    /// Writes the table to `out`.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write_into(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{self}")
    }

    /// Writes the table to standard output.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.write_into(&mut out)?;
        out.flush()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let headed = names.iter().any(|name| !name.is_empty());
        let widths: Vec<usize> = (0..names.len())
            .map(|column| self.rows.iter().chain([&names]).map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: &[String]| {
            let mut text = String::new();
            for ((cell, (_, align)), &width) in cells.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => text += &format!("{cell:<width$}  "),
                    Align::Right => text += &format!("{cell:>width$}  "),
                }
            }
            text.trim_end().to_owned()
        };
        if headed {
            writeln!(f, "{}", line(&names))?;
            let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            writeln!(f, "{}", line(&rule))?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}

/// `text` with line breaks and other control characters escaped.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // The second range turns the direction of text around.
        if c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Three significant figures: 3.42, 34.2, 342.
fn three_figures(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// Bytes with three figures: `812 B`, `18.4 kB`, `1.34 GB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would show as 1000: the next unit's 1.00 is meant.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", three_figures(value), UNITS[unit])
}

/// A duration: `0.42 ms`, `812 ms`, `3.42 s`, `59.9 s`, `2 min 05 s`, `1 h 02 min`.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let secs = duration.as_secs_f64();
    if secs < 0.9995 {
        return format!("{} ms", three_figures(secs * 1e3));
    }
    if secs < 59.95 {
        return format!("{} s", three_figures(secs));
    }
    let whole_secs = secs.round() as u64;
    if whole_secs < 3600 {
        return format!("{} min {:02} s", whole_secs / 60, whole_secs % 60);
    }
    let whole_mins = (secs / 60.0).round() as u64;
    format!("{} h {:02} min", whole_mins / 60, whole_mins % 60)
}

/// A share with two decimals: `98.93 %`. Rounded down, so that only all of them are `100.00 %`; `-` of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// Things a second, whole from 100 on: `2134 images/s`, `3.42 images/s`; `-` where no time passed.
#[must_use]
pub fn human_rate(count: u64, duration: Duration, noun: &str) -> String {
    if duration.is_zero() {
        return "-".to_owned();
    }
    format!("{} {noun}/s", three_figures(count as f64 / duration.as_secs_f64()))
}

/// Writes `error: ...` on one line, with each cause that its text does not hold yet, and `advice: ...` on another.
///
/// # Errors
/// `out` cannot be written.
pub fn write_error_into(out: &mut dyn Write, error: &dyn Error, advice: Option<&str>) -> io::Result<()> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let deeper = error.to_string();
        if !text.contains(&deeper) {
            text = format!("{text}: {deeper}");
        }
        cause = error.source();
    }
    writeln!(out, "error: {}", one_line(&text))?;
    match advice {
        Some(advice) => writeln!(out, "advice: {}", one_line(advice)),
        None => Ok(()),
    }
}

/// [`write_error_into`] standard error; where that is closed there is nobody to tell.
pub fn print_error(error: &dyn Error, advice: Option<&str>) {
    let _closed = write_error_into(&mut io::stderr().lock(), error, advice);
}

/// Writes one JSON object and a line break to standard output, and nothing else.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_json_line(value: &serde_json::Value) -> io::Result<()> {
    write_json_line_into(&mut io::stdout().lock(), value)
}

fn write_json_line_into(out: &mut dyn Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{value}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_spaces() {
        let mut table = Table::new(&[("step", Align::Left), ("seconds", Align::Right), ("note", Align::Left)]);
        table.row(["encrypt", "1.52", "two batches"]).row(["décrypter", "10.3"]).row(["run"]);
        assert_eq!(
            table.to_string(),
            "step       seconds  note\n\
             ---------  -------  -----------\n\
             encrypt       1.52  two batches\n\
             décrypter     10.3\n\
             run\n"
        );
    }

    #[test]
    fn a_table_without_names_has_no_header_and_drops_what_does_not_fit() {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
        table.row(["slots", "8192", "lost"]).row([7, 12]);
        assert_eq!(table.to_string(), "slots  8192\n7        12\n");
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        let mut table = Table::new(&[("file", Align::Left)]);
        table.row(["a\nb\u{1b}[2J\u{202e}c"]);
        assert_eq!(table.to_string().lines().nth(2), Some("a\\nb\\u{1b}[2J\\u{202e}c"));
    }

    #[test]
    fn bytes_have_three_figures_and_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (18_432, "18.4 kB"),
            (99_960, "100 kB"),
            (999_400, "999 kB"),
            (999_500, "1.00 MB"),
            (2_147_483_648, "2.15 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human_bytes(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn durations_read_well_at_every_length() {
        for (secs, text) in [
            (0.0, "0.00 ms"),
            (0.000_42, "0.42 ms"),
            (0.812, "812 ms"),
            (0.999_6, "1.00 s"),
            (3.4199, "3.42 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 00 s"),
            (125.4, "2 min 05 s"),
            (3599.4, "59 min 59 s"),
            (3599.6, "1 h 00 min"),
            (3725.0, "1 h 02 min"),
            (90_000.0, "25 h 00 min"),
        ] {
            assert_eq!(human_duration(Duration::from_secs_f64(secs)), text, "{secs}");
        }
    }

    #[test]
    fn a_share_is_100_percent_only_when_whole() {
        assert_eq!(percent(9893, 10_000), "98.93 %");
        assert_eq!(percent(999_999, 1_000_000), "99.99 %");
        assert_eq!(percent(8192, 8192), "100.00 %");
        assert_eq!(percent(1, 3), "33.33 %");
        assert_eq!(percent(0, 7), "0.00 %");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.00 %");
    }

    #[test]
    fn rates_count_by_the_second() {
        assert_eq!(human_rate(8192, Duration::from_millis(3840), "images"), "2133 images/s");
        assert_eq!(human_rate(10, Duration::from_secs(4), "images"), "2.50 images/s");
        assert_eq!(human_rate(10, Duration::ZERO, "images"), "-");
    }

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("cannot open {path}")]
        Open { path: String, source: io::Error },
        #[error("bad header: {0}")]
        Header(#[source] io::Error),
    }

    fn shown(error: &Sample, advice: Option<&str>) -> String {
        let mut out = Vec::new();
        write_error_into(&mut out, error, advice).expect("memory takes every byte");
        String::from_utf8(out).expect("errors are text")
    }

    #[test]
    fn an_error_is_one_line_with_its_causes_and_advice_another() {
        let error = Sample::Open { path: "a\nerror: b".to_owned(), source: io::Error::other("disk gone") };
        assert_eq!(
            shown(&error, Some("check the path")),
            "error: cannot open a\\nerror: b: disk gone\nadvice: check the path\n"
        );
        let error = Sample::Header(io::Error::other("12 bytes"));
        assert_eq!(shown(&error, None), "error: bad header: 12 bytes\n");
    }

    #[test]
    fn json_is_one_line() {
        let mut out = Vec::new();
        let value = serde_json::json!({ "images": 8192, "note": "two\nlines" });
        write_json_line_into(&mut out, &value).expect("memory takes every byte");
        let text = String::from_utf8(out).expect("JSON is text");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.ends_with('\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(value));
    }
}
