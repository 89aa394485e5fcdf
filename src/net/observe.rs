//! Ranges of a circuit's own values over a whole set of images, chunk by chunk, and what they do to its figures.
//!
//! The planner multiplies [`StageStats::max_abs`](super::circuit::StageStats) by its headroom and sizes the modulus by the
//! product, so the figure should be that of every image there is to calibrate on, not of the few that lowering measured noise
//! gains with. Noise gains stay as they are: they cost many evaluations an image.

use super::batch::{BLOCK, take_block};
use super::circuit::Circuit;
use super::error::{NetError, all_finite, same_len};
use super::gains::BufferRange;
use super::integer::Run;
use super::panel::TILE;

/// What was seen so far of a run of neighbouring images: ranges of the input and of every stage's outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct StageObservation {
    first: u64,
    images: u64,
    /// `[0]` the input, `[k + 1]` stage k.
    ranges: Vec<BufferRange>,
}

impl Circuit {
    /// Runs the circuit on normalised images `x` = `[entry][image]`, which are images `first..` of the set.
    ///
    /// Errors: an invalid circuit, no images, `x` of another size, values that are not finite.
    pub fn observe(&self, x: &[f64], images: usize, first: u64) -> Result<StageObservation, NetError> {
        self.validate()?;
        same_len("images", "values", x.len(), self.inputs().saturating_mul(images))?;
        if images == 0 {
            return Err(NetError::mismatch("observation", "images", 0, "at least 1"));
        }
        let mut run = Run::default();
        let mut ranges = vec![BufferRange::default(); self.stages.len() + 1];
        for start in (0..images).step_by(BLOCK) {
            let count = BLOCK.min(images - start);
            let mut buffers = vec![take_block(x, images, start, count)];
            let width = count.next_multiple_of(TILE);
            self.run_stages(0, &mut buffers, width, &mut run);
            for (range, buffer) in ranges.iter_mut().zip(&buffers) {
                range.see(buffer, width, count);
            }
        }
        for (buffer, range) in ranges.iter().enumerate() {
            let place = buffer.checked_sub(1).map_or("input".to_owned(), |stage| format!("stage {stage}"));
            all_finite(&place, "sums of squares", range.squares().iter().copied())?;
        }
        Ok(StageObservation { first, images: images as u64, ranges })
    }

    /// Takes over the ranges of a set larger than the one lowering saw: the largest magnitude becomes the larger one of
    /// both, the largest root mean square that of the observed set. Noise gains stay.
    ///
    /// Errors: an observation of another circuit.
    pub fn widen(&mut self, observation: &StageObservation) -> Result<(), NetError> {
        same_len("observation", "stages", observation.ranges.len(), self.stages.len() + 1)?;
        let maps = self.stages.iter().map(|stage| stage.map.outputs);
        for (range, outputs) in observation.ranges.iter().zip(std::iter::once(self.inputs()).chain(maps)) {
            same_len("observation", "outputs of a stage", range.squares().len(), outputs)?;
        }
        let all = std::iter::once(&mut self.input_stats).chain(self.stages.iter_mut().map(|stage| &mut stage.stats));
        for (stats, range) in all.zip(&observation.ranges) {
            let seen = range.stats(observation.images as usize);
            stats.max_abs = stats.max_abs.max(seen.max_abs);
            stats.max_rms = seen.max_rms;
        }
        self.validate()
    }
}

impl StageObservation {
    /// Number of images seen.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Adds the observation of the images that follow.
    ///
    /// Errors: one of other images or of another circuit.
    pub fn merge(&mut self, next: &StageObservation) -> Result<(), NetError> {
        let expected = self.first + self.images;
        if next.first != expected {
            return Err(NetError::mismatch("observation", "first image of the next chunk", next.first, expected));
        }
        let sizes = |ranges: &[BufferRange]| ranges.iter().map(|range| range.squares().len()).collect::<Vec<_>>();
        let (found, expected) = (sizes(&next.ranges), sizes(&self.ranges));
        if found != expected {
            let (found, expected) = (format!("{found:?}"), format!("{expected:?}"));
            return Err(NetError::mismatch("observation", "outputs of the next chunk's stages", found, expected));
        }
        self.images += next.images;
        for (range, next) in self.ranges.iter_mut().zip(&next.ranges) {
            range.merge(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample::{random_images, random_network};
    use crate::net::{LowerOptions, lower};

    const IMAGES: usize = 150;

    #[test]
    fn observing_the_calibration_images_gives_their_figures_again() {
        for seed in 0..9 {
            let network = random_network(seed, seed as usize % 4, false);
            let images = random_images(&network, IMAGES, seed);
            let circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
            let mut widened = circuit.clone();
            widened.widen(&circuit.observe(&images.x, IMAGES, 0).unwrap()).unwrap();
            assert_eq!(widened, circuit);
        }
    }

    #[test]
    fn merged_chunks_widen_as_the_whole_does_and_never_narrow() {
        let network = random_network(6, 3, false);
        let few = random_images(&network, 20, 1);
        let narrow = lower(&network, &LowerOptions::default(), &few).unwrap();
        let many = random_images(&network, IMAGES, 2);
        let part = |from: usize, to: usize| -> StageObservation {
            let x: Vec<f64> = many.x.chunks_exact(IMAGES).flat_map(|row| row[from..to].to_vec()).collect();
            narrow.observe(&x, to - from, from as u64).unwrap()
        };
        let mut merged = part(0, 64);
        merged.merge(&part(64, 100)).unwrap();
        merged.merge(&part(100, IMAGES)).unwrap();
        assert_eq!(merged.images(), IMAGES as u64);
        let (mut wide, mut whole) = (narrow.clone(), narrow.clone());
        wide.widen(&merged).unwrap();
        whole.widen(&narrow.observe(&many.x, IMAGES, 0).unwrap()).unwrap();
        let outputs = narrow.evaluate_stages_batch(&many.x, IMAGES).unwrap();
        for (stage, values) in outputs.iter().enumerate() {
            let (before, after) = (narrow.stages[stage].stats, wide.stages[stage].stats);
            let largest = values.iter().fold(before.max_abs, |most: f64, value| most.max(value.abs()));
            let square = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>();
            let rms = (values.chunks_exact(IMAGES).map(square).fold(0.0, f64::max) / IMAGES as f64).sqrt();
            assert_eq!((after.max_abs, whole.stages[stage].stats.max_abs), (largest, largest));
            assert!((after.max_rms / rms - 1.0).abs() < 1e-12);
            assert_eq!((after.noise_gain, after.noise_gain_worst), (before.noise_gain, before.noise_gain_worst));
        }
        assert!(wide.stages.iter().zip(&narrow.stages).any(|(wide, narrow)| wide.stats.max_abs > narrow.stats.max_abs));
        assert!(wide.input_stats.max_abs > narrow.input_stats.max_abs);
        // Fewer images have no larger range: the figures stay.
        let bounds = |circuit: &Circuit| circuit.stages.iter().map(|stage| stage.stats.max_abs).collect::<Vec<_>>();
        let before = bounds(&wide);
        wide.widen(&part(0, 8)).unwrap();
        assert_eq!(bounds(&wide), before);
    }

    #[test]
    fn observations_that_do_not_fit_are_refused() {
        let network = random_network(6, 2, false);
        let images = random_images(&network, 16, 1);
        let mut circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
        let mut seen = circuit.observe(&images.x, 16, 0).unwrap();
        let refused = seen.clone().merge(&seen).unwrap_err().to_string();
        assert!(refused.contains("first image of the next chunk is 0, expected 16"), "{refused}");
        assert!(circuit.observe(&[], 0, 0).unwrap_err().to_string().contains("images is 0"));
        assert!(circuit.observe(&images.x[1..], 16, 0).is_err());
        let mut spoilt = images.x.clone();
        spoilt[3] = f64::NAN;
        assert!(circuit.observe(&spoilt, 16, 0).unwrap_err().to_string().contains("input: sums of squares"));
        let other = random_network(7, 1, false);
        let others = random_images(&other, 16, 1);
        let foreign = lower(&other, &LowerOptions::default(), &others).unwrap().observe(&others.x, 16, 16).unwrap();
        assert!(seen.merge(&foreign).is_err());
        assert!(circuit.widen(&foreign).is_err());
    }
}
