//! Predictions to CSV, JSON and npy, into any `Write`. The caller owns the file: temporary name, sync, rename.
//!
//! Scores are rounded to a stated number of decimals: raw CKKS decryptions must not be shared (eprint 2020/1533), and
//! digits below the promised precision are noise.

use std::io::{self, Write};

use npyz::WriterBuilder;
use serde_json::{Map, Value, json};

use crate::error::PackingError;
use crate::labels::Prediction;

/// f64 has 17 significant digits.
const MAX_DECIMALS: u8 = 17;

/// How CSV and JSON are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOptions<'a> {
    /// Decimals of each score, 0 to 17.
    pub decimals: u8,
    /// Name of each class; adds a `name` beside each label.
    pub class_names: Option<&'a [String]>,
}

/// What an npy file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NpyContent {
    /// int64 `[images]`: the labels.
    Labels,
    /// float64 `[images][classes]`: the scores, rounded to so many decimals (0 to 17).
    Scores {
        /// Decimals of each score.
        decimals: u8,
    },
}

/// Writes `index,label,score_0,score_1,..` (`index,label,name,score_0,..` with class names), a line per image.
///
/// # Errors
/// `Write` from the writer; `Usage` for no predictions, differing numbers of classes, too few class names, or too many
/// decimals (all checked before the first byte is written).
pub fn write_csv(out: &mut dyn Write, predictions: &[Prediction], options: &TextOptions) -> Result<(), PackingError> {
    let classes = check(predictions, options.decimals, options.class_names)?;
    let mut writer = csv::Writer::from_writer(out);
    let mut header = vec!["index".to_owned(), "label".to_owned()];
    header.extend(options.class_names.map(|_| "name".to_owned()));
    header.extend((0..classes).map(|class| format!("score_{class}")));
    writer.write_record(&header).map_err(csv_error)?;
    for prediction in predictions {
        let mut record = vec![prediction.index.to_string(), prediction.label.to_string()];
        record.extend(name_of(prediction, options).map(str::to_owned));
        record.extend(prediction.scores.iter().map(|score| decimal(*score, options.decimals)));
        writer.write_record(&record).map_err(csv_error)?;
    }
    writer.flush().map_err(|source| PackingError::Write { source })
}

/// Writes one object: `classes`, `class_names` if given, and `predictions`, a list of `{index, label, name?, scores}`.
///
/// # Errors
/// As [`write_csv`].
pub fn write_json(out: &mut dyn Write, predictions: &[Prediction], options: &TextOptions) -> Result<(), PackingError> {
    let classes = check(predictions, options.decimals, options.class_names)?;
    json_into(out, predictions, options, classes).map_err(|source| PackingError::Write { source })
}

fn json_into(out: &mut dyn Write, predictions: &[Prediction], options: &TextOptions, classes: usize) -> io::Result<()> {
    write!(out, "{{\"classes\":{classes}")?;
    if let Some(names) = options.class_names {
        write!(out, ",\"class_names\":{}", json!(names))?;
    }
    write!(out, ",\"predictions\":[")?;
    for (position, prediction) in predictions.iter().enumerate() {
        let mut object = Map::new();
        object.insert("index".to_owned(), prediction.index.into());
        object.insert("label".to_owned(), prediction.label.into());
        if let Some(name) = name_of(prediction, options) {
            object.insert("name".to_owned(), name.into());
        }
        let scores: Vec<f64> = prediction.scores.iter().map(|score| rounded(*score, options.decimals)).collect();
        object.insert("scores".to_owned(), scores.into());
        let separator = if position == 0 { "\n" } else { ",\n" };
        write!(out, "{separator}{}", Value::Object(object))?;
    }
    writeln!(out, "\n]}}")?;
    out.flush()
}

/// Writes an npy array, labels or scores as `content` says.
///
/// # Errors
/// As [`write_csv`].
pub fn write_npy(out: &mut dyn Write, predictions: &[Prediction], content: NpyContent) -> Result<(), PackingError> {
    let decimals = if let NpyContent::Scores { decimals } = content { decimals } else { 0 };
    let classes = check(predictions, decimals, None)?;
    let images = predictions.len() as u64;
    let written = match content {
        NpyContent::Labels => {
            npy_into(out, &[images], predictions.iter().map(|prediction| i64::from(prediction.label)))
        }
        NpyContent::Scores { decimals } => {
            let scores = predictions.iter().flat_map(|prediction| &prediction.scores);
            npy_into(out, &[images, classes as u64], scores.map(|score| rounded(*score, decimals)))
        }
    };
    written.map_err(|source| PackingError::Write { source })
}

fn npy_into<T: npyz::AutoSerialize>(
    out: &mut dyn Write,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> io::Result<()> {
    let mut writer = npyz::WriteOptions::<T>::new().default_dtype().shape(shape).writer(&mut *out).begin_nd()?;
    writer.extend(values)?;
    writer.finish()?;
    out.flush()
}

fn check(predictions: &[Prediction], decimals: u8, names: Option<&[String]>) -> Result<usize, PackingError> {
    let Some(first) = predictions.first() else {
        return Err(PackingError::usage("predictions", 0, "at least 1"));
    };
    let classes = first.scores.len();
    if let Some(other) = predictions.iter().find(|prediction| prediction.scores.len() != classes) {
        let expected = format!("{classes} as of the first");
        return Err(PackingError::usage("scores of a prediction", other.scores.len(), expected));
    }
    if let Some(names) = names.filter(|names| names.len() != classes) {
        return Err(PackingError::usage("class names", names.len(), classes));
    }
    if let Some(wrong) = predictions.iter().find(|prediction| usize::from(prediction.label) >= classes) {
        return Err(PackingError::usage("label", wrong.label, format!("less than {classes}")));
    }
    if decimals > MAX_DECIMALS {
        return Err(PackingError::usage("decimals", decimals, format!("at most {MAX_DECIMALS}")));
    }
    Ok(classes)
}

fn name_of<'a>(prediction: &Prediction, options: &TextOptions<'a>) -> Option<&'a str> {
    options.class_names?.get(usize::from(prediction.label)).map(String::as_str)
}

/// A score in plain decimals; minus zero is written as zero.
fn decimal(score: f64, decimals: u8) -> String {
    let text = format!("{score:.0$}", usize::from(decimals));
    match text.strip_prefix('-') {
        Some(magnitude) if magnitude.chars().all(|c| c == '0' || c == '.') => magnitude.to_owned(),
        _ => text,
    }
}

/// The f64 nearest to the decimal text, so that all formats round alike.
fn rounded(score: f64, decimals: u8) -> f64 {
    decimal(score, decimals).parse().unwrap_or(score)
}

fn csv_error(error: csv::Error) -> PackingError {
    PackingError::Write { source: error.into() }
}
