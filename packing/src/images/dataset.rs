//! A folder that holds a data set: MNIST and Fashion-MNIST (IDX) and CIFAR-10 (binary batches) in their published layout, or
//! a user's own in a layout of the same kind.
//!
//! | images of the split `train` (likewise `test`) | labels |
//! |---|---|
//! | `train-images-idx3-ubyte` (test: `t10k-..`) | `train-labels-idx1-ubyte` |
//! | `data_batch_1.bin` to `_5.bin` (`test_batch.bin`) | inside |
//! | `train/CLASS/*.png` (or JPEG) | the class folders |
//! | `train/*.png` (or JPEG) | `train.csv` (file,label or file,name) |
//! | `train.npz` | inside, or as below |
//! | `train.npy` | `train-labels.npy` or `train.csv` |
//!
//! The first that is there is read. Files other than pictures may end in .gz or .xz, but not npz. Labels always come
//! along. Where classes have names, those of `train` number the classes of both splits. Other files are not looked at.

use std::path::{Path, PathBuf};

use crate::error::PackingError;
use crate::images::folder::Content;
use crate::images::{ImageSet, Pixels, cifar, folder as pictures, idx, npy};
use crate::labels::read::read_labels;
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

/// Reads one split of the data set in `folder`, labels included; class names where class folders, a CSV file or
/// `batches.meta.txt` give them. The module's table lists the layouts: IDX, CIFAR-10 binary, class folders of pictures,
/// pictures with CSV, npz, npy.
///
/// # Errors
/// `NoDataset` (kind `Missing`) when the folder has none of the layouts; `Count` when labels and images disagree;
/// `Malformed` when the test split has a class that the training split has not; the errors of [`crate::read_images`] otherwise.
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
        if let Some(set) = own_layout(folder, split, limits)? {
            return Ok(set);
        }
        let name = split.name();
        let expected = format!(
            "{images_name}, {}, {name}/CLASS/*.png, {name}/*.png with {name}.csv, {name}.npz or {name}.npy",
            batches[0]
        );
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

/// A user's own data: pictures or arrays named after the split; `None` if there are none.
fn own_layout(folder: &Path, split: Split, limits: &Limits) -> Result<Option<ImageSet>, PackingError> {
    let name = split.name();
    let labels_path = find(folder, &format!("{name}-labels.npy")).or_else(|| find(folder, &format!("{name}.csv")));
    let (pictures_path, npz_path) = (folder.join(name), folder.join(format!("{name}.npz")));
    let mut set = if pictures_path.is_dir() {
        // Pictures without labels may be a class called "train" in a folder of class folders: no layout of a data set.
        match pictures::content(&pictures_path)? {
            Content::Classes(_) => {}
            Content::Pictures if labels_path.is_some() => {}
            Content::Pictures | Content::Nothing => return Ok(None),
        }
        pictures::read(&pictures_path, limits)?
    } else if npz_path.is_file() {
        npy::read_npz(&npz_path, limits)?
    } else if let Some(path) = find(folder, &format!("{name}.npy")) {
        npy::read_images(Source::open(&path)?, limits)?
    } else {
        return Ok(None);
    };
    let mut source = pictures_path;
    if set.labels.is_none() {
        source = labels_path.ok_or_else(|| PackingError::Missing { path: folder.join(format!("{name}.csv")) })?;
        let labels = read_labels(&source, limits)?;
        set.class_names = labels.class_names().map(<[String]>::to_vec);
        set.labels = Some(labels.for_images(&set)?);
    }
    if split == Split::Test
        && set.class_names.is_some()
        && let Some(class_names) = training_class_names(folder, limits)?
    {
        set.align_classes(&class_names, &source)?;
    }
    Ok(Some(set))
}

/// Names of the classes of the training split, by label; `None` if it is not there or has numbers only.
fn training_class_names(folder: &Path, limits: &Limits) -> Result<Option<Vec<String>>, PackingError> {
    let pictures_path = folder.join(Split::Train.name());
    if pictures_path.is_dir()
        && let Content::Classes(class_names) = pictures::content(&pictures_path)?
    {
        return Ok(Some(class_names));
    }
    let Some(labels_path) = find(folder, "train.csv") else { return Ok(None) };
    Ok(read_labels(&labels_path, limits)?.class_names().map(<[String]>::to_vec))
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
