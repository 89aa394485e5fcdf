//! How large a network's values become over a whole set of images: what each quadratic reads, and the logits.
//!
//! A few images may lie far outside the range of all others, and every square squares the distance, so a thousand
//! calibration images do not tell how much headroom a circuit needs. A set too large for memory is observed chunk by chunk:
//! [`RangeObservation`]s of neighbouring chunks are merged in the images' order, so that the figures depend on the chunks'
//! sizes at most in the last bits, and on threads not at all.
//!
//! Here is the report and what makes it sound; the running figures are in `observation`. Not here: the integer circuit's own
//! values (see `observe`), bytes on disk (see `format::package`).

mod observation;

use super::error::{NetError, all_finite, same_len};
use super::network::{Network, Op};

pub use observation::{QUANTILE, RangeObservation};

/// Images remembered for each layer.
pub const WORST_IMAGES: usize = 8;

/// An image and its largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorstImage {
    /// Index in the set, from 0.
    pub image: u64,
    /// Its value of largest magnitude, with its sign.
    pub value: f64,
}

/// What one layer's values were over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueRange {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Root mean square over all entries and images.
    pub rms: f64,
    /// 99.9 % of the magnitudes are below it: upper edge of a bin of a histogram with 64 bins an octave, so at most 1/64 too
    /// large, and at most the largest magnitude.
    pub quantile: f64,
    /// Magnitude up to which a value counts as within the range.
    pub limit: f64,
    /// Images with a value beyond the limit.
    pub images_beyond: u64,
    /// The images with the largest magnitudes, largest first, equal ones by index; at most [`WORST_IMAGES`].
    pub worst: Vec<WorstImage>,
}

/// The inputs of one quadratic layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRange {
    /// The layer's index in the network.
    pub layer: usize,
    /// Its inputs.
    pub values: ValueRange,
}

/// Ranges of a network over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeReport {
    /// How many images were seen; at least 1.
    pub images: u64,
    /// The quadratic layers in order.
    pub layers: Vec<LayerRange>,
    /// The logits.
    pub logits: ValueRange,
}

impl ValueRange {
    /// Largest magnitude.
    pub fn max_abs(&self) -> f64 {
        self.max.max(-self.min)
    }

    fn validate(&self, place: &str, images: u64) -> Result<(), NetError> {
        let figures = [self.min, self.max, self.rms, self.quantile, self.limit];
        all_finite(place, "figures of the range", figures.into_iter())?;
        let wrong = |what: &str, found: f64, expected: String| Err(NetError::mismatch(place, what, found, expected));
        if self.min > self.max {
            return wrong("smallest value", self.min, format!("at most the largest, {}", self.max));
        }
        // The mean of equal squares may be rounded up.
        for (what, figure, most) in [
            ("root mean square", self.rms, self.max_abs() * (1.0 + 1e-9)),
            ("quantile", self.quantile, self.max_abs()),
            ("limit", self.limit, f64::MAX),
        ] {
            if !(0.0..=most).contains(&figure) {
                return wrong(what, figure, format!("0 to {most}"));
            }
        }
        if self.images_beyond > images {
            return Err(NetError::mismatch(
                place,
                "images beyond the limit",
                self.images_beyond,
                format!("at most {images}"),
            ));
        }
        let expected = images.min(WORST_IMAGES as u64) as usize;
        same_len(place, "worst images", self.worst.len(), expected)?;
        all_finite(place, "worst values", self.worst.iter().map(|worst| worst.value))?;
        if let Some(worst) = self.worst.iter().find(|worst| worst.image >= images) {
            return Err(NetError::mismatch(place, "worst image", worst.image, format!("below {images}")));
        }
        if let Some(pair) = self.worst.windows(2).find(|pair| !comes_before(&pair[0], &pair[1])) {
            let found = format!("{} before {}", pair[0].value, pair[1].value);
            return Err(NetError::mismatch(place, "order of the worst images", found, "largest magnitude first"));
        }
        let mut images_named: Vec<u64> = self.worst.iter().map(|worst| worst.image).collect();
        images_named.sort_unstable();
        if let Some(pair) = images_named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NetError::mismatch(place, "worst images", format!("{} twice", pair[0]), "different ones"));
        }
        match self.worst.first() {
            Some(worst) if worst.value.abs() != self.max_abs() => {
                wrong("worst value", worst.value, format!("{} in magnitude", self.max_abs()))
            }
            _ => Ok(()),
        }
    }
}

impl RangeReport {
    /// Whether it is one of this network, and its figures agree with one another. Errors name the layer, found and expected.
    pub fn validate(&self, network: &Network) -> Result<(), NetError> {
        if self.images == 0 {
            return Err(NetError::mismatch("ranges", "images", 0, "at least 1"));
        }
        let (found, expected): (Vec<usize>, _) =
            (self.layers.iter().map(|range| range.layer).collect(), quadratics(network));
        if found != expected {
            let (found, expected) = (format!("{found:?}"), format!("{expected:?}"));
            return Err(NetError::mismatch("ranges", "quadratic layers", found, expected));
        }
        for range in &self.layers {
            range.values.validate(&format!("ranges of {}", network.layers[range.layer].name), self.images)?;
        }
        self.logits.validate("ranges of the logits", self.images)
    }

    /// The images with the largest inputs of any quadratic, largest first, with the layer of that input; at most
    /// [`WORST_IMAGES`], none twice.
    pub fn worst_images(&self) -> Vec<(usize, WorstImage)> {
        let mut all: Vec<(usize, WorstImage)> =
            self.layers.iter().flat_map(|range| range.values.worst.iter().map(|&worst| (range.layer, worst))).collect();
        all.sort_by(|(left_layer, left), (right_layer, right)| order(left, right).then(left_layer.cmp(right_layer)));
        let mut seen = Vec::new();
        all.retain(|(_, worst)| {
            !seen.contains(&worst.image) && {
                seen.push(worst.image);
                true
            }
        });
        all.truncate(WORST_IMAGES);
        all
    }
}

/// Largest magnitude first, then smallest index.
fn order(left: &WorstImage, right: &WorstImage) -> std::cmp::Ordering {
    right.value.abs().total_cmp(&left.value.abs()).then(left.image.cmp(&right.image))
}

fn comes_before(left: &WorstImage, right: &WorstImage) -> bool {
    order(left, right).is_lt()
}

/// Indices of the quadratic layers.
fn quadratics(network: &Network) -> Vec<usize> {
    let is_quadratic = |index: &usize| matches!(network.layers[*index].op, Op::Poly2 { .. });
    (0..network.layers.len()).filter(is_quadratic).collect()
}

#[cfg(test)]
mod tests;
