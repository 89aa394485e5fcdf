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

/// Largest magnitude of each input of the quadratic layers over some images, by which [`lower`](super::lower()) decides
/// how neurons are written. Measured once, it serves any weights of the same architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    /// `[layer][entry]`; empty for other layers.
    pub(super) max_abs: Vec<Vec<f64>>,
    /// The float logits, `[class][image]`.
    pub(super) logits: Vec<f64>,
}

impl Ranges {
    /// Runs the clear oracle over the calibration images.
    ///
    /// Errors: an invalid network, images of another size, logits that are not finite.
    pub fn measure(network: &Network, calibration: &Calibration) -> Result<Ranges, NetError> {
        measure_ranges(network, calibration)
    }

    /// Whether they were measured on a network of the same architecture.
    pub(super) fn check(&self, network: &Network) -> Result<(), NetError> {
        same_len("ranges", "layers", self.max_abs.len(), network.layers.len())?;
        for ((layer, shape), ranges) in network.layers.iter().zip(network.value_shapes()?).zip(&self.max_abs) {
            let quadratic = matches!(layer.op, Op::Poly2 { .. });
            let expected = if quadratic { shape.iter().product() } else { 0 };
            same_len(&layer.name, "ranges", ranges.len(), expected)?;
        }
        Ok(())
    }
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
