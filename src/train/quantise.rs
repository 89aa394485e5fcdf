//! The engine's integers in the forward direction of training.
//!
//! At every step the network is folded, balanced and rounded as for a package of its present weights, and the circuit is run
//! on the step's images; see [`Shadow`]. Training sees exactly what the worker will compute, up to encryption noise.

use super::augment::Augmenter;
use super::data::TrainingData;
use super::error::TrainError;
use super::fit::IntegerForward;
use super::model::{Slot, host, write_back};
use super::optimiser::State;
use crate::net::calibration::Ranges;
use crate::net::shadow::Shadow;
use crate::net::{Calibration, LowerOptions, Network};

/// Training images on which the ranges are measured that decide how neurons are written.
const RANGED_IMAGES: usize = 1000;

/// The integers of a network whose weights change.
pub(super) struct Exact<'a> {
    network: Network,
    slots: &'a [Slot],
    options: LowerOptions,
    ranges: Ranges,
}

impl<'a> Exact<'a> {
    /// `network` with the weights of the first step.
    pub(super) fn new(
        network: Network,
        slots: &'a [Slot],
        stage_bits: &[u32],
        data: &TrainingData,
        augmenter: &Augmenter,
    ) -> Result<Exact<'a>, TrainError> {
        let entries: usize = data.shape.iter().product();
        let images = &data.used[..data.used.len().min(RANGED_IMAGES)];
        let mut pixels = vec![0.0; images.len() * entries];
        for (&image, pixels) in images.iter().zip(pixels.chunks_exact_mut(entries)) {
            augmenter.plain_into(data.image(image), pixels);
        }
        let calibration = Calibration { images: images.len(), x: entry_major(&pixels, images.len()) };
        let ranges = Ranges::measure(&network, &calibration)?;
        let options = LowerOptions { stage_bits: stage_bits.to_vec(), ..LowerOptions::default() };
        Ok(Exact { network, slots, options, ranges })
    }

    /// The integers of these weights.
    pub(super) fn at(&self, state: &State) -> Result<Box<dyn IntegerForward>, TrainError> {
        let mut network = self.network.clone();
        let values: Vec<Vec<f32>> = state.values.iter().map(|value| host(value.clone())).collect();
        write_back(&mut network, self.slots, &values, &state.running);
        Ok(Box::new(Integers(Shadow::new(&network, &self.options, &self.ranges)?)))
    }
}

struct Integers(Shadow);

impl IntegerForward for Integers {
    fn run(&self, images: &[f32], count: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        let found = self.0.evaluate(&entry_major(images, count), count)?;
        Ok(found.inputs.iter().chain([&found.logits]).map(|values| image_major(values, count)).collect())
    }
}

/// `[image][entry]` to `[entry][image]`.
fn entry_major(values: &[f32], images: usize) -> Vec<f64> {
    let entries = values.len() / images.max(1);
    (0..values.len()).map(|at| f64::from(values[at % images * entries + at / images])).collect()
}

/// `[entry][image]` to `[image][entry]`.
fn image_major(values: &[f64], images: usize) -> Vec<f32> {
    let entries = values.len() / images.max(1);
    (0..values.len()).map(|at| values[at % entries * images + at / entries] as f32).collect()
}
