//! Calibration figures of a circuit: ranges of every buffer, and how far noise in it moves the logits.
//!
//! Noise is pseudo-random from a fixed seed and uniform (no transcendental function is needed, so the figures are the same
//! bits everywhere). Ranges are those of all images, the average gain that of the first [`GAIN_IMAGES`], the worst gain that of as many with the
//! largest logits: a rare image that drives its neurons hard is the one whose noise grows most.

use super::batch::{BLOCK, take_block};
use super::calibration::Calibration;
use super::circuit::{Circuit, StageStats};
use super::error::NetError;
use super::integer::Run;
use super::sample::Random;

/// Images used for a gain.
pub const GAIN_IMAGES: usize = 32;
/// Noise draws per buffer.
const DRAWS: usize = 8;
/// Standard deviation of the noise relative to the buffer's largest rms: far below any curvature.
const RELATIVE_NOISE: f64 = 1e-6;

/// Fills `input_stats` and every stage's `stats`.
pub(super) fn fill_stats(circuit: &mut Circuit, calibration: &Calibration) -> Result<(), NetError> {
    calibration.check(circuit.inputs())?;
    let mut run = Run::default();
    let mut ranges: Vec<BufferRange> = Vec::new();
    let mut loudness = Vec::with_capacity(calibration.images);
    for start in (0..calibration.images).step_by(BLOCK) {
        let count = BLOCK.min(calibration.images - start);
        let mut buffers = vec![take_block(&calibration.x, calibration.images, start, count)];
        let width = count.next_multiple_of(super::panel::TILE);
        circuit.run_stages(0, &mut buffers, width, &mut run);
        ranges.resize_with(buffers.len(), BufferRange::default);
        for (range, buffer) in ranges.iter_mut().zip(&buffers) {
            range.see(buffer, width, count);
        }
        let logits = buffers.pop().unwrap_or_default();
        let largest =
            |image: usize| logits.iter().skip(image).step_by(width).fold(0.0, |most: f64, x| most.max(x.abs()));
        loudness.extend((0..count).map(largest));
    }
    let figures: Vec<StageStats> = ranges.iter().map(|range| range.stats(calibration.images)).collect();
    let mut loudest: Vec<usize> = (0..calibration.images).collect();
    loudest.sort_by(|&a, &b| loudness[b].total_cmp(&loudness[a]).then(a.cmp(&b)));
    loudest.truncate(GAIN_IMAGES);
    let mut sets = Vec::new();
    for few in [calibration.first(GAIN_IMAGES), calibration.pick(&loudest)] {
        let mut buffers = vec![take_block(&few.x, few.images, 0, few.images)];
        circuit.run_stages(0, &mut buffers, few.images.next_multiple_of(super::panel::TILE), &mut run);
        let logits = buffers.pop().unwrap_or_default();
        sets.push((few.images, buffers, logits));
    }
    let last = figures.len() - 1;
    for (buffer, mut stats) in figures.into_iter().enumerate() {
        (stats.noise_gain, stats.noise_gain_worst) = (1.0, 1.0);
        if buffer != last {
            let mut gain = |(images, buffers, logits): &(usize, Vec<Vec<f64>>, Vec<f64>)| {
                measure_gain(circuit, &buffers[..=buffer], logits, stats.max_rms, *images, &mut run)
            };
            let (average, worst) = gain(&sets[0]);
            (stats.noise_gain, stats.noise_gain_worst) = (average, worst.max(gain(&sets[1]).1));
        }
        match buffer.checked_sub(1) {
            None => circuit.input_stats = stats,
            Some(stage) => circuit.stages[stage].stats = stats,
        }
    }
    circuit.validate()
}

/// Gain and worst gain of the last of `buffers` (`[0]` the input).
fn measure_gain(
    circuit: &Circuit,
    buffers: &[Vec<f64>],
    logits: &[f64],
    max_rms: f64,
    images: usize,
    run: &mut Run,
) -> (f64, f64) {
    let last = buffers.len() - 1;
    let width = images.next_multiple_of(super::panel::TILE);
    let deviation = if max_rms > 0.0 { RELATIVE_NOISE * max_rms } else { RELATIVE_NOISE };
    let mut squares = vec![0.0; logits.len()];
    let mut random = Random::new(0x6e6f_6973_6500 + last as u64);
    for _ in 0..DRAWS {
        let mut noisy = buffers.to_vec();
        for value in &mut noisy[last] {
            *value += deviation * random.unit_variance();
        }
        circuit.run_stages(last, &mut noisy, width, run);
        let moved = noisy.pop().unwrap_or_default();
        for (square, (moved, logit)) in squares.iter_mut().zip(moved.iter().zip(logits)) {
            let change = (moved - logit) / deviation;
            *square += change * change;
        }
    }
    let counted = || squares.chunks_exact(width).flat_map(|row| &row[..images]);
    let sum: f64 = counted().sum();
    let worst = counted().fold(0.0, |largest: f64, &square| largest.max(square));
    let classes = logits.len() / width;
    ((sum / (DRAWS * classes * images) as f64).sqrt(), (worst / DRAWS as f64).sqrt())
}

/// Running figures of one buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BufferRange {
    max_abs: f64,
    squares: Vec<f64>,
}

impl BufferRange {
    /// Sums of squares, one an output.
    pub(super) fn squares(&self) -> &[f64] {
        &self.squares
    }

    /// Adds the figures of the same buffer on other images.
    pub(super) fn merge(&mut self, other: &BufferRange) {
        self.max_abs = self.max_abs.max(other.max_abs);
        self.squares.iter_mut().zip(&other.squares).for_each(|(sum, other)| *sum += other);
    }

    /// Adds `[output][width]` values of which the first `images` count.
    pub(super) fn see(&mut self, buffer: &[f64], width: usize, images: usize) {
        self.squares.resize(buffer.len() / width, 0.0);
        for (square, row) in self.squares.iter_mut().zip(buffer.chunks_exact(width)) {
            for &value in &row[..images] {
                self.max_abs = self.max_abs.max(value.abs());
                *square += value * value;
            }
        }
    }

    /// Ranges over `images` images; the gains are zero.
    pub(super) fn stats(&self, images: usize) -> StageStats {
        let largest = self.squares.iter().fold(0.0, |largest: f64, &square| largest.max(square));
        StageStats { max_abs: self.max_abs, max_rms: (largest / images as f64).sqrt(), ..StageStats::ZERO }
    }
}
