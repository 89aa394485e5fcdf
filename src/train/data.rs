//! The images and labels of a run, checked once: bytes, one shape, labels below the number of classes, no class empty.
//!
//! Images are image-major, `[image][channel][row][column]`, pixels 0 to 255: first the real ones, then the extra ones
//! (drawn digits). Some real images are held out for the numbers shown while training: drawn at random with the run's seed,
//! from each class in proportion to its size, so that their accuracy estimates that of the whole set. Nothing here ever
//! sees a test set. Not here: reading files (see `packing`), changing images (see `augment`).

use packing::{ImageSet, Pixels};

use super::error::TrainError;
use super::random::Stream;
use super::recipe::DataRecipe;
use crate::net::network::InputSpec;

/// Most classes: labels are 16-bit.
const MOST_CLASSES: usize = 1 << 16;

/// Training images with labels.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingData {
    pub(super) shape: [usize; 3],
    pub(super) pixels: Vec<u8>,
    pub(super) labels: Vec<u16>,
    pub(super) classes: usize,
    pub(super) input: InputSpec,
    /// Images that are trained on, in order of the files.
    pub(super) used: Vec<u32>,
    /// Images that only the numbers shown while training see, in order of the files.
    pub(super) held_out: Vec<u32>,
}

impl TrainingData {
    /// Checks and copies the training images of a run: the first `recipe.limit` of `set`, then those of `extra`, which
    /// are never held out and do not count in mean and deviation. `labels` is `[image]`; the seed decides which images
    /// are held out.
    ///
    /// # Errors
    /// [`TrainError::Data`] for floats, an image set that contradicts itself, shapes or counts that differ, a label that
    /// is no class, a class without images, a channel of one single value; [`TrainError::Setting`] for a `limit`,
    /// `held_out` or `mean` and `std` that do not fit the images.
    pub fn new(
        set: &ImageSet,
        labels: &[u16],
        extra: Option<(&ImageSet, &[u16])>,
        recipe: &DataRecipe,
        seed: u64,
    ) -> Result<TrainingData, TrainError> {
        if recipe.limit > set.count {
            return Err(TrainError::setting("data.limit", recipe.limit, format!("at most {} images", set.count)));
        }
        let real = if recipe.limit == 0 { set.count } else { recipe.limit };
        let shape = set.shape;
        let mut pixels = checked_bytes(set, labels, "images")?[..real * set.entries()].to_vec();
        let mut labels = labels[..real].to_vec();
        if let Some((extra, extra_labels)) = extra {
            if extra.shape != shape {
                let found = format!("{:?}", extra.shape);
                return Err(TrainError::data("shape of the extra images", found, format!("{shape:?}")));
            }
            pixels.extend_from_slice(checked_bytes(extra, extra_labels, "extra images")?);
            labels.extend_from_slice(extra_labels);
        }
        if u32::try_from(labels.len()).is_err() {
            return Err(TrainError::data("number of images", labels.len(), format!("at most {}", u32::MAX)));
        }
        let classes = checked_classes(&labels, recipe.classes)?;
        let held_out = held_out(&labels[..real], classes, recipe.held_out, seed)?;
        let used = (0..labels.len() as u32).filter(|image| held_out.binary_search(image).is_err()).collect();
        let input = InputSpec { shape, mean: recipe.mean.clone(), std: recipe.std.clone() };
        let mut data = TrainingData { shape, pixels, labels, classes, input, used, held_out };
        data.settle_normalisation(real)?;
        Ok(data)
    }

    /// Images in all: those trained on and those held out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// Images trained on, extra ones included.
    #[must_use]
    pub fn used_count(&self) -> usize {
        self.used.len()
    }

    /// Images held out.
    #[must_use]
    pub fn held_out_count(&self) -> usize {
        self.held_out.len()
    }

    /// Number of classes; labels are below it.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Shape and normalisation, as the network will carry them.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// Label of each image, `[image]`, real ones first.
    #[must_use]
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Requires enough images to fill a batch of `batch`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming `train.batch`.
    pub fn expect_batch(&self, batch: usize) -> Result<(), TrainError> {
        if batch <= self.used.len() {
            return Ok(());
        }
        let (used, held_out) = (self.used.len(), self.held_out.len());
        let expected = format!("at most the {used} images trained on (data.held_out takes {held_out} more)");
        Err(TrainError::setting("train.batch", batch, expected))
    }

    /// BLAKE3 digest, 64 hexadecimal digits, of all that is here: shape, classes, normalisation, pixels, labels, and which
    /// images are held out. Equal digests train the same network with the same recipe.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"nightshift training data 1\n");
        let counts = [self.labels.len(), self.classes, self.held_out.len()];
        for number in self.shape.iter().chain(&counts) {
            hasher.update(&(*number as u64).to_le_bytes());
        }
        for constant in self.input.mean.iter().chain(&self.input.std) {
            hasher.update(&constant.to_bits().to_le_bytes());
        }
        hasher.update(&self.pixels);
        for label in &self.labels {
            hasher.update(&label.to_le_bytes());
        }
        for image in &self.held_out {
            hasher.update(&image.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Pixels of an image (one of `used` or `held_out`), `[channel][row][column]`.
    pub(super) fn image(&self, image: u32) -> &[u8] {
        let entries: usize = self.shape.iter().product();
        &self.pixels[image as usize * entries..][..entries]
    }

    /// Checks the recipe's mean and deviation, or measures them over the real images (the first `real`) trained on.
    fn settle_normalisation(&mut self, real: usize) -> Result<(), TrainError> {
        let channels = self.shape[0];
        let InputSpec { mut mean, mut std, shape } = self.input.clone();
        for (setting, found) in [("data.mean", mean.len()), ("data.std", std.len())] {
            if found != channels && (found != 0 || mean.len() != std.len()) {
                let expected = format!("{channels}, one a channel (or neither mean nor std, to measure them)");
                return Err(TrainError::setting(setting, format!("a list of {found}"), expected));
            }
        }
        if mean.is_empty() {
            let plane = self.shape[1] * self.shape[2];
            let mut sums = vec![(0_u64, 0_u64); channels];
            let mut images = 0_u64;
            for &image in self.used.iter().take_while(|&&image| (image as usize) < real) {
                images += 1;
                for (pixels, (sum, squares)) in self.image(image).chunks_exact(plane).zip(&mut sums) {
                    *sum += pixels.iter().map(|&pixel| u64::from(pixel)).sum::<u64>();
                    *squares += pixels.iter().map(|&pixel| u64::from(pixel) * u64::from(pixel)).sum::<u64>();
                }
            }
            (mean, std) = sums.iter().map(|sums| mean_and_deviation(*sums, images * plane as u64)).unzip();
        }
        for (channel, (&mean, &std)) in mean.iter().zip(&std).enumerate() {
            if !mean.is_finite() {
                return Err(TrainError::data(format!("mean of channel {channel}"), mean, "a finite number"));
            }
            if !(std.is_finite() && std > 0.0) {
                let expected = "a finite number above 0 (are all pixels of the channel the same?)";
                return Err(TrainError::data(format!("standard deviation of channel {channel}"), std, expected));
            }
        }
        self.input = InputSpec { shape, mean, std };
        Ok(())
    }
}

/// Mean and population standard deviation of byte / 255 from exact sums of `count` bytes and of their squares.
fn mean_and_deviation((sum, squares): (u64, u64), count: u64) -> (f64, f64) {
    let spread = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
    (sum as f64 / (count as f64 * 255.0), (spread as f64).sqrt() / (count as f64 * 255.0))
}

/// The bytes of a set whose counts agree.
fn checked_bytes<'a>(set: &'a ImageSet, labels: &[u16], what: &str) -> Result<&'a [u8], TrainError> {
    let Pixels::Bytes(bytes) = &set.pixels else {
        let expected = "bytes 0 to 255 (save them as u8: the trainer normalises and varies them itself)";
        return Err(TrainError::data(format!("pixel type of the {what}"), "float", expected));
    };
    let values = set.shape.iter().try_fold(set.count, |product, side| product.checked_mul(*side));
    if set.count == 0 || values.is_none_or(|values| values == 0 || values != bytes.len()) {
        let expected = format!("{} (images x channels x rows x columns), above 0", values.unwrap_or(usize::MAX));
        return Err(TrainError::data(format!("number of pixels of the {what}"), bytes.len(), expected));
    }
    if labels.len() != set.count {
        let expected = format!("{}, one an image", set.count);
        return Err(TrainError::data(format!("number of labels of the {what}"), labels.len(), expected));
    }
    Ok(bytes)
}

/// The number of classes: `asked` or, if that is 0, one more than the largest label. Each has an image.
fn checked_classes(labels: &[u16], asked: usize) -> Result<usize, TrainError> {
    let largest = labels.iter().copied().max().map_or(0, usize::from);
    let classes = if asked == 0 { largest + 1 } else { asked };
    if !(2..=MOST_CLASSES).contains(&classes) {
        return Err(TrainError::data("number of classes", classes, format!("2 to {MOST_CLASSES}")));
    }
    let mut counts = vec![0_usize; classes];
    for (image, &label) in labels.iter().enumerate() {
        let Some(count) = counts.get_mut(usize::from(label)) else {
            return Err(TrainError::data(format!("label of image {image}"), label, format!("below {classes}")));
        };
        *count += 1;
    }
    if let Some(class) = counts.iter().position(|count| *count == 0) {
        return Err(TrainError::data(format!("number of images of class {class}"), 0, "at least 1"));
    }
    Ok(classes)
}

/// Draws `wanted` of the real images, in ascending order; every class keeps at least one image to train on.
fn held_out(labels: &[u16], classes: usize, wanted: usize, seed: u64) -> Result<Vec<u32>, TrainError> {
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); classes];
    for (image, &label) in labels.iter().enumerate() {
        members[usize::from(label)].push(image as u32);
    }
    // A class may give all its images but one.
    let most: Vec<usize> = members.iter().map(|images| images.len().saturating_sub(1)).collect();
    let available: usize = most.iter().sum();
    if wanted > available {
        let expected = format!("at most {available} ({} images, and each class keeps one)", labels.len());
        return Err(TrainError::setting("data.held_out", wanted, expected));
    }
    // The share of a class, rounded down, and what is left to the largest remainders (the first of equals); both are
    // numbers over the same denominator, the number of images.
    let share = |images: &Vec<u32>| images.len() as u128 * wanted as u128;
    let total = labels.len().max(1) as u128;
    let mut quotas: Vec<usize> =
        members.iter().zip(&most).map(|(images, most)| ((share(images) / total) as usize).min(*most)).collect();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(share(&members[class]) % total));
    let mut left = wanted - quotas.iter().sum::<usize>();
    while left > 0 {
        for &class in &order {
            if left > 0 && quotas[class] < most[class] {
                quotas[class] += 1;
                left -= 1;
            }
        }
    }
    let mut chosen = Vec::with_capacity(wanted);
    for (class, (images, quota)) in members.iter_mut().zip(quotas).enumerate() {
        Stream::new("held out", [seed, class as u64, 0]).shuffle(images);
        chosen.extend_from_slice(&images[..quota]);
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests;
