//! Label files: IDX, npy (integers) and CSV.
//!
//! CSV has one column (label) or two (index,label or file,label), with or without a header line. Labels are integers from 0
//! to 65535 or, in two columns, names of classes: the names in byte order are then the classes 0, 1, .. Indexed rows may
//! come in any order but must be exactly 0 .. N-1.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};

use crate::error::PackingError;
use crate::images::{ImageSet, describe_head, is_picture, npy, read_idx_labels};
use crate::limits::{Limits, bound};
use crate::source::{Source, decoded_head, inner_extension};

/// Most decoded bytes of a CSV file: 16 for each of 16 Mi labels.
const MAX_CSV_BYTES: u64 = 256 << 20;

/// Labels as a file gives them: by position or by file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// Label of image 0, 1, ...
    ByPosition(Vec<u16>),
    /// Label of each image file, by its name relative to the folder of images.
    ByFile(HashMap<String, u16>),
    /// Labels, by position or by file, that stand for names of classes.
    Named {
        /// `ByPosition` or `ByFile`; labels are indices of `class_names`.
        labels: Box<Labels>,
        /// Names of the classes, each once, in byte order.
        class_names: Vec<String>,
    },
}

impl Labels {
    /// One label per image of `images`, in their order.
    ///
    /// # Errors
    /// `Count` when the numbers differ; `Malformed` when a file has no label; `Usage` when labels go by file name and
    /// the images did not come from a folder.
    pub fn for_images(&self, images: &ImageSet) -> Result<Vec<u16>, PackingError> {
        let path = || PathBuf::from("labels");
        let found = self.count();
        if found != images.count {
            return Err(PackingError::Count { path: path(), what: "labels", found, expected: images.count });
        }
        match (self, &images.names) {
            (Self::Named { labels, .. }, _) => labels.for_images(images),
            (Self::ByPosition(labels), _) => Ok(labels.clone()),
            (Self::ByFile(_), None) => {
                Err(PackingError::usage("labels", "file names", "indices, as the images are not a folder's"))
            }
            (Self::ByFile(labels), Some(names)) => names
                .iter()
                .map(|name| {
                    let missing =
                        || PackingError::malformed(&path(), format!("found no label for {name}, expected one"));
                    labels.get(name).copied().ok_or_else(missing)
                })
                .collect(),
        }
    }

    /// Names of the classes, by label, where the file gave names instead of numbers.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        match self {
            Self::Named { class_names, .. } => Some(class_names),
            Self::ByPosition(_) | Self::ByFile(_) => None,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::ByPosition(labels) => labels.len(),
            Self::ByFile(labels) => labels.len(),
            Self::Named { labels, .. } => labels.count(),
        }
    }
}

/// Reads a label file: IDX or npy (also in gzip or xz), or CSV by its name ending.
///
/// # Errors
/// `Missing`, `Io`; `Unrecognised` when it is none of these; `Malformed`, `Truncated`, `Trailing`, `TooLarge`, `Empty`.
pub fn read_labels(path: &Path, limits: &Limits) -> Result<Labels, PackingError> {
    let head = decoded_head(path, 8)?;
    let labels = match head.as_slice() {
        [0, 0, 8, 1, ..] => Labels::ByPosition(read_idx_labels(Source::open(path)?, limits)?),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Labels::ByPosition(npy::read_labels(Source::open(path)?, limits)?),
        _ if inner_extension(path).as_deref() == Some("csv") => read_csv(Source::open(path)?, limits)?,
        _ => {
            return Err(PackingError::Unrecognised {
                path: path.to_owned(),
                found: describe_head(&head),
                expected: "IDX labels, npy or .csv",
            });
        }
    };
    if labels.count() == 0 {
        return Err(PackingError::Empty { path: path.to_owned(), what: "labels" });
    }
    Ok(labels)
}

fn read_csv(source: Source<'_>, limits: &Limits) -> Result<Labels, PackingError> {
    let path = source.path();
    let most_bytes = limits.max_decoded_bytes.min(MAX_CSV_BYTES);
    // A cut-off file would otherwise read as a shorter one.
    let mut text = source.into_reader().take(most_bytes.saturating_add(1));
    let mut rows = Vec::new();
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&mut text);
    let mut record = StringRecord::new();
    let mut columns = None;
    let mut named = None;
    // Names of classes, numbered as they first occur.
    let mut class_indices: HashMap<String, u16> = HashMap::new();
    while reader.read_record(&mut record).map_err(|error| csv_error(path, error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let expected = *columns.get_or_insert(record.len());
        if record.len() != expected || !(1..=2).contains(&expected) {
            let what =
                format!("found {} columns at line {line}, expected label, index,label or file,label", record.len());
            return Err(PackingError::malformed(path, what));
        }
        let label = record[expected - 1].trim();
        if line <= 1 && is_header(&record) {
            continue;
        }
        let key = (expected == 2).then(|| record[0].trim().to_owned());
        // The first row decides: numbers or, beside a key, names.
        let named = *named.get_or_insert(expected == 2 && label.starts_with(char::is_alphabetic));
        match (label.parse::<u16>(), named) {
            (Ok(label), false) => rows.push((key, label)),
            (Err(_), true) if !label.is_empty() => {
                let next = class_indices.len() as u16;
                let class = *class_indices.entry(label.to_owned()).or_insert(next);
                bound(path, "classes", class_indices.len() as u64, u64::from(u16::MAX))?;
                rows.push((key, class));
            }
            (_, named) => {
                let expected = if named { "the name of a class" } else { "an integer from 0 to 65535" };
                let what = format!("found label {label:?} at line {line}, expected {expected}");
                return Err(PackingError::malformed(path, what));
            }
        }
        bound(path, "labels", rows.len() as u64, limits.max_images as u64)?;
    }
    drop(reader);
    if text.limit() == 0 {
        let found = most_bytes.saturating_add(1);
        return Err(PackingError::TooLarge { path: path.to_owned(), what: "bytes of CSV", found, limit: most_bytes });
    }
    if class_indices.is_empty() {
        return by_key(path, rows);
    }
    let mut classes: Vec<(String, u16)> = class_indices.into_iter().collect();
    classes.sort();
    let mut sorted_place = vec![0; classes.len()];
    for (place, (_, occurrence)) in classes.iter().enumerate() {
        sorted_place[usize::from(*occurrence)] = place as u16;
    }
    rows.iter_mut().for_each(|(_, class)| *class = sorted_place[usize::from(*class)]);
    let class_names = classes.into_iter().map(|(name, _)| name).collect();
    Ok(Labels::Named { labels: Box::new(by_key(path, rows)?), class_names })
}

/// Whether a first row is a header: a word where labels stand and, in two columns, no key beside it (a key is an index or
/// the name of a picture).
fn is_header(record: &StringRecord) -> bool {
    let is_word = |field: &str| field.starts_with(char::is_alphabetic);
    match (record.get(0).map(str::trim), record.get(1).map(str::trim)) {
        (Some(label), None) => is_word(label),
        (Some(key), Some(label)) => is_word(label) && key.parse::<usize>().is_err() && !is_picture(Path::new(key)),
        (None, _) => false,
    }
}

/// Orders rows by index where every key is one, else keys them by file.
fn by_key(path: &Path, rows: Vec<(Option<String>, u16)>) -> Result<Labels, PackingError> {
    if rows.iter().all(|(key, _)| key.is_none()) {
        return Ok(Labels::ByPosition(rows.into_iter().map(|(_, label)| label).collect()));
    }
    let duplicate = |key: &str| PackingError::malformed(path, format!("found two labels for {key}, expected one"));
    let indices: Option<Vec<usize>> = rows.iter().map(|(key, _)| key.as_deref()?.parse().ok()).collect();
    if let Some(indices) = indices {
        let mut labels: Vec<Option<u16>> = vec![None; rows.len()];
        for (index, (_, label)) in indices.into_iter().zip(&rows) {
            let expected = rows.len() - 1;
            let slot = labels.get_mut(index).ok_or_else(|| {
                PackingError::malformed(path, format!("found index {index}, expected 0 to {expected}"))
            })?;
            if slot.replace(*label).is_some() {
                return Err(duplicate(&index.to_string()));
            }
        }
        // As many rows as places and no place taken twice: none is empty.
        return Ok(Labels::ByPosition(labels.into_iter().flatten().collect()));
    }
    let mut labels = HashMap::with_capacity(rows.len());
    for (key, label) in rows {
        let key = key.unwrap_or_default();
        if labels.insert(key.clone(), label).is_some() {
            return Err(duplicate(&key));
        }
    }
    Ok(Labels::ByFile(labels))
}

fn csv_error(path: &Path, error: csv::Error) -> PackingError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => PackingError::read(path, error),
        csv::ErrorKind::Utf8 { .. } => PackingError::malformed(path, "found bytes that are not UTF-8, expected text"),
        other => PackingError::malformed(path, format!("{other:?}")),
    }
}
