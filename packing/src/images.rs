//! A set of images in memory, `[count][channels][rows][columns]`, and the one function that reads it from a path.
//!
//! Formats, told by content and then by name: IDX, CIFAR-10 binary, npy, npz (each plain; IDX, CIFAR and npy also in
//! gzip or xz), a PNG or JPEG, a folder of them, a folder of class folders of them. What this does not do: resize,
//! convert colours, normalise (see `normalise`), or find a data set's files in a folder (see `dataset`).

mod cifar;
pub(crate) mod dataset;
mod folder;
mod idx;
pub(crate) mod npy;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::PackingError;
use crate::limits::Limits;
use crate::source::{Source, decoded_head, inner_extension};

const FORMATS: &str =
    "IDX images, CIFAR-10 binary (.bin), npy, npz, PNG or JPEG (IDX, CIFAR and npy also in gzip or xz)";

/// Pixel values, image-major, then channel, row, column.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// Raw pixels, 0 to 255; a `Normalisation` turns them into the network's input.
    Bytes(Vec<u8>),
    /// Values that are *already normalised*: they are clamped to the normalisation's range and used as they are.
    Floats(Vec<f32>),
}

impl Pixels {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Images of one shape, with what else their files said about them.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSet {
    /// Number of images.
    pub count: usize,
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// `[count][channels][rows][columns]`.
    pub pixels: Pixels,
    /// Class of each image, `[count]`, where the source carries it.
    pub labels: Option<Vec<u16>>,
    /// Names of the classes, by label, where the source carries them.
    pub class_names: Option<Vec<String>>,
    /// File of each image relative to the folder read, `[count]`; `None` unless a folder was read.
    pub names: Option<Vec<String>>,
}

impl ImageSet {
    /// From a shape (channels, rows, columns) and values; the count follows.
    ///
    /// # Errors
    /// `Count` when the values are no whole number of images, `Empty` when there are none, `Malformed` for a float that
    /// is not finite.
    pub fn new(shape: [usize; 3], pixels: Pixels) -> Result<Self, PackingError> {
        let entries = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).unwrap_or(0);
        let count = pixels.len().checked_div(entries).unwrap_or(0);
        let set = Self { count, shape, pixels, labels: None, class_names: None, names: None };
        set.check()?;
        Ok(set)
    }

    /// Values of one image: channels * rows * columns.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.shape.iter().product()
    }

    /// Keeps the first `count` images (all, if there are fewer).
    pub fn truncate(&mut self, count: usize) {
        let kept = count.min(self.count);
        let values = kept * self.entries();
        self.count = kept;
        match &mut self.pixels {
            Pixels::Bytes(bytes) => bytes.truncate(values),
            Pixels::Floats(floats) => floats.truncate(values),
        }
        if let Some(labels) = &mut self.labels {
            labels.truncate(kept);
        }
        if let Some(names) = &mut self.names {
            names.truncate(kept);
        }
    }

    /// Requires the images to have `expected` = (channels, rows, columns).
    ///
    /// # Errors
    /// `Shape` with found and expected.
    pub fn expect_shape(&self, expected: [usize; 3]) -> Result<(), PackingError> {
        if self.shape == expected {
            return Ok(());
        }
        Err(PackingError::Shape { path: PathBuf::from("images"), found: self.shape, expected })
    }

    /// Numbers the classes as `class_names` does, by their names: so that two parts of a data set agree, also where one
    /// of them lacks a class.
    ///
    /// # Errors
    /// `Usage` when the set has no labels or no names of classes; `Malformed` for a class that is not in `class_names` or
    /// a label without a name, naming `path`, where the set came from.
    pub(crate) fn align_classes(&mut self, class_names: &[String], path: &Path) -> Result<(), PackingError> {
        let (Some(labels), Some(own)) = (&mut self.labels, &self.class_names) else {
            return Err(PackingError::usage("class names", "none", "labels and a name for each class"));
        };
        let known: HashMap<&String, usize> =
            class_names.iter().enumerate().map(|(class, name)| (name, class)).collect();
        let mut numbers = Vec::with_capacity(own.len());
        for name in own {
            let number = known.get(name).ok_or_else(|| {
                let known: Vec<&str> = class_names.iter().take(8).map(String::as_str).collect();
                PackingError::malformed(path, format!("found class {name:?}, expected one of {known:?}"))
            })?;
            numbers.push(*number as u16);
        }
        for label in labels {
            let number = numbers.get(usize::from(*label)).ok_or_else(|| {
                PackingError::malformed(path, format!("found label {label}, expected less than {}", numbers.len()))
            })?;
            *label = *number;
        }
        self.class_names = Some(class_names.to_vec());
        Ok(())
    }

    /// Whether count, shape, values and labels agree; floats are finite.
    pub(crate) fn check(&self) -> Result<(), PackingError> {
        let path = PathBuf::from("images");
        if self.count == 0 {
            return Err(PackingError::Empty { path, what: "images" });
        }
        let expected = self.shape.iter().try_fold(self.count, |product, side| product.checked_mul(*side));
        let expected = expected.unwrap_or(usize::MAX);
        if self.pixels.len() != expected || expected == 0 {
            return Err(PackingError::Count { path, what: "pixel values", found: self.pixels.len(), expected });
        }
        let counts =
            [("labels", self.labels.as_ref().map(Vec::len)), ("file names", self.names.as_ref().map(Vec::len))];
        for (what, found) in counts {
            if let Some(found) = found.filter(|found| *found != self.count) {
                return Err(PackingError::Count { path, what, found, expected: self.count });
            }
        }
        if let Pixels::Floats(floats) = &self.pixels {
            require_finite(&path, floats, self.entries())?;
        }
        Ok(())
    }
}

/// Refuses the first value that is not finite, naming its image.
pub(crate) fn require_finite(path: &Path, floats: &[f32], entries: usize) -> Result<(), PackingError> {
    let Some(index) = floats.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (image, value) = (index / entries, floats[index]);
    Err(PackingError::malformed(path, format!("found {value} in image {image}, expected finite numbers")))
}

/// Reads images from a file or folder.
///
/// npz: the array `images`, or else the only array that is not `labels`; `labels` if there. Folder: files in order of
/// their names; if it has no images of its own, its subfolders in order of their names are the classes 0, 1, ...
///
/// # Errors
/// `Missing`, `Io`; `Unrecognised` when it is none of the formats; the bad-data cases of [`PackingError`] otherwise,
/// each with the path. A claim above `limits` is refused before memory is reserved for it.
pub fn read_images(path: &Path, limits: &Limits) -> Result<ImageSet, PackingError> {
    let metadata = std::fs::metadata(path).map_err(|error| PackingError::read(path, error))?;
    if metadata.is_dir() {
        return folder::read(path, limits);
    }
    // CIFAR-10 files have no magic number and could by chance start like anything, so the name decides first.
    if inner_extension(path).as_deref() == Some("bin") {
        return cifar::read(Source::open(path)?, limits);
    }
    let head = decoded_head(path, 8)?;
    match head.as_slice() {
        [0, 0, 8, 3 | 4, ..] => idx::read_images(Source::open(path)?, limits),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::read_images(Source::open(path)?, limits),
        [b'P', b'K', 3, 4, ..] => npy::read_npz(path, limits),
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => folder::read_one(path, limits),
        _ => Err(PackingError::Unrecognised { path: path.to_owned(), found: describe_head(&head), expected: FORMATS }),
    }
}

/// "an empty file" or the first bytes in hexadecimal.
pub(crate) fn describe_head(head: &[u8]) -> String {
    if head.is_empty() {
        return "an empty file".to_owned();
    }
    let bytes: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("first bytes {}", bytes.join(" "))
}

pub(crate) use folder::is_picture;
pub(crate) use idx::read_labels as read_idx_labels;
