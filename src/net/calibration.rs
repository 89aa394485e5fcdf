//! Calibration images, and the ranges of a network's values over them.

use super::error::{NetError, all_finite, at_most, same_len};
use super::network::{Network, Op};
use super::shapes::MAX_ENTRIES;

/// Normalised images to measure ranges on.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// How many; at least 1.
    pub images: usize,
    /// `[entry][image]`, normalised.
    pub x: Vec<f64>,
}

impl Calibration {
    /// Checks the number of images and values against an input of `entries` entries.
    pub(super) fn check(&self, entries: usize) -> Result<(), NetError> {
        if self.images == 0 {
            return Err(NetError::mismatch("calibration", "images", 0, "at least 1"));
        }
        let expected = entries as u128 * self.images as u128;
        at_most("calibration", "values", expected, 8 * MAX_ENTRIES as u128)?;
        same_len("calibration", "values", self.x.len(), expected as usize)?;
        all_finite("calibration", "values", self.x.iter().copied())
    }

    /// Some of them, in the order given.
    pub(super) fn pick(&self, images: &[usize]) -> Calibration {
        let rows = self.x.chunks_exact(self.images.max(1));
        Calibration { images: images.len(), x: rows.flat_map(|row| images.iter().map(|&image| row[image])).collect() }
    }

    /// The first `images` of them (all where there are fewer).
    pub fn first(&self, images: usize) -> Calibration {
        let count = images.min(self.images);
        let rows = self.x.chunks_exact(self.images.max(1));
        Calibration { images: count, x: rows.flat_map(|row| &row[..count]).copied().collect() }
    }
}

/// Largest magnitude of each input of the quadratic layers.
pub(super) struct Ranges {
    /// `[layer][entry]`; empty for other layers.
    pub(super) max_abs: Vec<Vec<f64>>,
    /// The float logits, `[class][image]`.
    pub(super) logits: Vec<f64>,
}

/// Runs the clear oracle over the calibration images.
pub(super) fn measure_ranges(network: &Network, calibration: &Calibration) -> Result<Ranges, NetError> {
    network.validate()?;
    calibration.check(network.input.shape.iter().product())?;
    let mut max_abs = vec![Vec::new(); network.layers.len()];
    let logits = network.evaluate_traced(&calibration.x, calibration.images, &mut |layer, input, width, images| {
        if !matches!(network.layers[layer].op, Op::Poly2 { .. }) {
            return;
        }
        let ranges = &mut max_abs[layer];
        ranges.resize(input.len() / width, 0.0);
        for (largest, row) in ranges.iter_mut().zip(input.chunks_exact(width)) {
            *largest = row[..images].iter().fold(*largest, |largest: f64, value| largest.max(value.abs()));
        }
    })?;
    all_finite("calibration", "logits", logits.iter().copied())?;
    Ok(Ranges { max_abs, logits })
}
