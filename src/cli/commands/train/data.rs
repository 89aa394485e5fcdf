//! Images of a training run: the training images with labels, drawn digits among them where the recipe asks, and the test
//! images, which are looked at before the run for their shape and labels only and are measured on after it.

use std::path::Path;

use packing::{Batches, ImageSet, Limits, PackingError, Pixels, Split, open_dataset_dir};

use crate::cli::args::TrainArgs;
use crate::cli::digits::{SIDE, render_digits};
use crate::cli::error::CliError;
use crate::cli::images;
use crate::net::Calibration;
use crate::net::network::InputSpec;
use crate::train::Recipe;

/// Seeds of drawn digits for training begin here: far from any that a person gives to `demo`, whose digits so stay unseen.
const DRAWN_SEEDS: u64 = 0x6E73_7472_0000_0000;

/// What is trained on.
pub(super) struct Data {
    pub(super) set: ImageSet,
    pub(super) labels: Vec<u16>,
    /// Drawn digits with their labels.
    pub(super) drawn: Option<(ImageSet, Vec<u16>)>,
    /// BLAKE3 of shape, pixels and labels of the training images, drawn ones not included.
    pub(super) digest: String,
}

impl Data {
    /// Reads the training images and draws digits.
    ///
    /// # Errors
    /// What cannot be read, images without labels, drawn digits for images of another shape.
    pub(super) fn open(args: &TrainArgs, recipe: &Recipe) -> Result<Data, CliError> {
        let mut set = images::open(&args.data, args.labels.as_deref(), Split::Train)?;
        let Some(labels) = set.labels.take() else { return Err(CliError::NoLabels { path: args.data.clone() }) };
        let drawn = match recipe.data.rendered_digits {
            0 => None,
            count if set.shape != [1, SIDE, SIDE] => {
                let what = "data.rendered_digits";
                let [channels, rows, columns] = set.shape;
                let expected =
                    format!("0 for images of {channels}x{rows}x{columns} (drawn digits are 1x{SIDE}x{SIDE})");
                return Err(CliError::content(&args.recipe, what, count, expected));
            }
            count => Some(draw(count, recipe.seed)?),
        };
        let digest = digest(&set, &labels);
        Ok(Data { set, labels, drawn, digest })
    }

    /// Largest label and one, or the recipe's number.
    pub(super) fn classes(&self, recipe: &Recipe) -> usize {
        match recipe.data.classes {
            0 => self.labels.iter().max().map_or(0, |&label| usize::from(label) + 1),
            classes => classes,
        }
    }

    /// At most `most` training images evenly through the files (they may be sorted by class), normalised, for ranges and the
    /// width of the integers.
    ///
    /// # Errors
    /// Images that do not fit the input.
    pub(super) fn calibration(&self, input: &InputSpec, most: usize) -> Result<Calibration, CliError> {
        let count = self.set.count.min(most);
        let entries = self.set.entries();
        let picked = (0..count).map(|index| index * self.set.count / count);
        let pixels = match &self.set.pixels {
            Pixels::Bytes(all) => {
                Pixels::Bytes(picked.flat_map(|image| &all[image * entries..(image + 1) * entries]).copied().collect())
            }
            Pixels::Floats(all) => {
                Pixels::Floats(picked.flat_map(|image| &all[image * entries..(image + 1) * entries]).copied().collect())
            }
        };
        let set = ImageSet::new(self.set.shape, pixels)?;
        let normalisation = images::normalisation(input)?;
        let batches = Batches::new(&set, &normalisation, set.count.next_power_of_two())?;
        let (images, x) = images::block(&batches, 0)?;
        Ok(Calibration { images, x })
    }
}

/// The untouched images, if there are some: those named, or the test split found with the training images. They must
/// have the training images' shape and classes.
///
/// # Errors
/// Images that cannot be read, have no labels or do not fit the training images.
pub(super) fn test_images(args: &TrainArgs, data: &Data, classes: usize) -> Result<Option<ImageSet>, CliError> {
    let (path, set) = match &args.test {
        Some(path) => (path, images::open(path, args.test_labels.as_deref(), Split::Test)?),
        None if !args.data.is_dir() => return Ok(None),
        None => match open_dataset_dir(&args.data, Split::Test, &Limits::default()) {
            Err(PackingError::NoDataset { .. }) => return Ok(None),
            found => (&args.data, found?),
        },
    };
    if set.shape != data.set.shape {
        return Err(PackingError::Shape { path: path.clone(), found: set.shape, expected: data.set.shape }.into());
    }
    let Some(labels) = &set.labels else { return Err(CliError::NoLabels { path: path.clone() }) };
    if let Some(image) = labels.iter().position(|&label| usize::from(label) >= classes) {
        let what = format!("label of test image {image}");
        return Err(CliError::content(path, what, labels[image], format!("one of {classes} classes")));
    }
    // Class folders are numbered by their names in each split by itself.
    if let (Some(found), Some(expected)) = (&set.class_names, &data.set.class_names)
        && found != expected
    {
        return Err(CliError::content(path, "classes of the test images", found.join(", "), expected.join(", ")));
    }
    Ok(Some(set))
}

fn draw(count: usize, seed: u64) -> Result<(ImageSet, Vec<u16>), CliError> {
    let (pixels, labels) = render_digits(count, DRAWN_SEEDS.wrapping_add(seed));
    Ok((ImageSet::new([1, SIDE, SIDE], Pixels::Bytes(pixels))?, labels))
}

fn digest(set: &ImageSet, labels: &[u16]) -> String {
    let mut hasher = blake3::Hasher::new();
    for number in set.shape.into_iter().chain([set.count]) {
        hasher.update(&(number as u64).to_le_bytes());
    }
    match &set.pixels {
        Pixels::Bytes(bytes) => {
            hasher.update(bytes);
        }
        Pixels::Floats(floats) => floats.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        }),
    }
    labels.iter().for_each(|label| {
        hasher.update(&label.to_le_bytes());
    });
    hasher.finalize().to_hex().to_string()
}

/// Whether `path` is free, or holds what this command wrote there earlier, told by `mark` near its beginning: a slip in
/// `--out` or `--log` must not cost a file.
///
/// # Errors
/// Something else stands there, or it cannot be read.
pub(super) fn refuse_other(path: &Path, mark: &str, kind: &'static str) -> Result<(), CliError> {
    use std::io::Read;
    /// Far enough for every mark.
    const HEAD_BYTES: u64 = 512;
    let refused = || CliError::Replace { path: path.to_owned(), kind };
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if !path.is_file() {
        return Err(refused());
    }
    let read_error = |source| CliError::Read { path: path.to_owned(), source };
    let mut head = Vec::new();
    std::fs::File::open(path).map_err(read_error)?.take(HEAD_BYTES).read_to_end(&mut head).map_err(read_error)?;
    if head.is_empty() || String::from_utf8_lossy(&head).contains(mark) { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u16>) -> Data {
        let set = ImageSet::new(shape, Pixels::Bytes(pixels)).unwrap();
        let digest = digest(&set, &labels);
        Data { set, labels, drawn: None, digest }
    }

    #[test]
    fn the_digest_sees_pixels_labels_and_shape() {
        let base = data([1, 1, 2], vec![1, 2, 3, 4], vec![0, 1]);
        assert_eq!(base.digest, data([1, 1, 2], vec![1, 2, 3, 4], vec![0, 1]).digest);
        for other in [
            data([1, 1, 2], vec![1, 2, 3, 5], vec![0, 1]),
            data([1, 1, 2], vec![1, 2, 3, 4], vec![1, 1]),
            data([1, 2, 1], vec![1, 2, 3, 4], vec![0, 1]),
        ] {
            assert_ne!(base.digest, other.digest);
        }
    }

    #[test]
    fn calibration_images_come_from_all_through_the_files() {
        // 3000 images of one pixel, sorted: image i has the value i / 12.
        let pixels: Vec<u8> = (0..3000).map(|image| (image / 12) as u8).collect();
        let input = InputSpec { shape: [1, 1, 1], mean: vec![0.0], std: vec![1.0] };
        let calibration = data([1, 1, 1], pixels, vec![0; 3000]).calibration(&input, 1000).unwrap();
        assert_eq!(calibration.images, 1000);
        assert_eq!(calibration.x[0], 0.0);
        assert!((calibration.x[999] - 249.0 / 255.0).abs() < 1e-9, "{}", calibration.x[999]);
        let few = data([1, 1, 1], vec![5, 6, 7], vec![0; 3]).calibration(&input, 1000).unwrap();
        assert_eq!((few.images, few.x.len()), (3, 3));
    }

    #[test]
    fn drawn_digits_are_none_of_the_demo_s() {
        let (training, _) = draw(50, 1).unwrap();
        let (demo, _) = render_digits(50, 1);
        let Pixels::Bytes(training) = training.pixels else { panic!("drawn digits are bytes") };
        for image in training.chunks_exact(SIDE * SIDE) {
            assert!(demo.chunks_exact(SIDE * SIDE).all(|other| other != image));
        }
    }

    #[test]
    fn only_an_earlier_file_of_the_same_kind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("README.md");
        refuse_other(&path, "mark", "model card").unwrap();
        std::fs::write(&path, "notes of mine").unwrap();
        assert_eq!(refuse_other(&path, "mark", "model card").unwrap_err().exit_code().code(), 73);
        std::fs::write(&path, "<!-- mark -->\n# card").unwrap();
        refuse_other(&path, "mark", "model card").unwrap();
        assert!(refuse_other(folder.path(), "mark", "model card").is_err());
    }
}
