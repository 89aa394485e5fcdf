//! A folder that holds a data set in its published layout: MNIST and Fashion-MNIST (IDX), CIFAR-10 (binary batches), or
//! one of one's own: `train/` and `test/`, each with class folders of PNG or JPEG.
//!
//! Published files may be plain or end in .gz or .xz. Labels always come along. The folder's other files are not looked at.

use std::path::{Path, PathBuf};

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels, cifar, folder, idx};
use crate::limits::Limits;
use crate::source::Source;

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Held out for evaluation.
    Test,
    /// For training and calibration.
    Train,
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Train => "train",
        }
    }
}

/// Most bytes read of a class-name file.
const MAX_CLASS_NAMES_BYTES: u64 = 64 << 10;

/// Reads one split of the data set in `folder`, labels included; class names where the folder has `batches.meta.txt`, or
/// class folders, whose order by name numbers them in each split by itself.
///
/// # Errors
/// `NoDataset` (kind `Missing`) when the folder has none of the layouts; `Count` when labels and images disagree; the
/// errors of [`crate::read_images`] otherwise.
pub fn open_dataset_dir(folder: &Path, split: Split, limits: &Limits) -> Result<ImageSet, PackingError> {
    std::fs::read_dir(folder).map_err(|error| PackingError::read(folder, error))?;
    let (prefix, batches) = match split {
        Split::Test => ("t10k", vec!["test_batch.bin".to_owned()]),
        Split::Train => ("train", (1..=5).map(|batch| format!("data_batch_{batch}.bin")).collect::<Vec<_>>()),
    };
    let images_name = format!("{prefix}-images-idx3-ubyte");
    if let Some(images_path) = find(folder, &images_name) {
        let labels_path = required(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
        let mut set = idx::read_images(Source::open(&images_path)?, limits)?;
        let labels = idx::read_labels(Source::open(&labels_path)?, limits)?;
        if labels.len() != set.count {
            let (found, expected) = (labels.len(), set.count);
            return Err(PackingError::Count { path: labels_path, what: "labels", found, expected });
        }
        set.labels = Some(labels);
        return Ok(set);
    }
    if find(folder, &batches[0]).is_none() {
        if has_class_folders(folder, Split::Train)? && has_class_folders(folder, Split::Test)? {
            return folder::read(&folder.join(split.name()), limits);
        }
        let batch = &batches[0];
        let expected =
            format!("{images_name}(.gz|.xz), {batch}(.gz|.xz), or train/ and test/ with class folders in them");
        return Err(PackingError::NoDataset { path: folder.to_owned(), split: split.name(), expected });
    }
    let mut set = cifar::read(Source::open(&required(folder, &batches[0])?)?, limits)?;
    for batch in &batches[1..] {
        let left = Limits {
            max_images: limits.max_images.saturating_sub(set.count),
            max_decoded_bytes: limits.max_decoded_bytes.saturating_sub(set.pixels.len() as u64),
            max_side: limits.max_side,
        };
        let more = cifar::read(Source::open(&required(folder, batch)?)?, &left)?;
        if let (Pixels::Bytes(all), Pixels::Bytes(pixels)) = (&mut set.pixels, more.pixels) {
            all.extend_from_slice(&pixels);
        }
        if let (Some(all), Some(labels)) = (&mut set.labels, more.labels) {
            all.extend_from_slice(&labels);
        }
        set.count += more.count;
    }
    set.class_names = class_names(&folder.join("batches.meta.txt"))?;
    Ok(set)
}

/// Whether the split's own folder is there and has folders in it: a class called `train` holds pictures instead.
fn has_class_folders(folder: &Path, split: Split) -> Result<bool, PackingError> {
    let path = folder.join(split.name());
    if !path.is_dir() {
        return Ok(false);
    }
    let entries = std::fs::read_dir(&path).map_err(|error| PackingError::read(&path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| PackingError::read(&path, error))?;
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            return Ok(true);
        }
    }
    Ok(false)
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ["", ".gz", ".xz"].iter().map(|ending| folder.join(format!("{name}{ending}"))).find(|path| path.is_file())
}

fn required(folder: &Path, name: &str) -> Result<PathBuf, PackingError> {
    find(folder, name).ok_or_else(|| PackingError::Missing { path: folder.join(name) })
}

fn class_names(path: &Path) -> Result<Option<Vec<String>>, PackingError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = Source::open(path)?.read_up_to(MAX_CLASS_NAMES_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| PackingError::malformed(path, "found bytes that are not UTF-8"))?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Ok((names.len() == 10).then_some(names))
}
