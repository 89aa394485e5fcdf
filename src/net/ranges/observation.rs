//! Running figures of a network's values over neighbouring images, chunk after chunk.

use super::{LayerRange, RangeReport, ValueRange, WORST_IMAGES, WorstImage, order, quadratics};
use crate::net::NetError;
use crate::net::calibration::Ranges;
use crate::net::error::{all_finite, same_len};
use crate::net::network::Network;

/// Share of the values that [`ValueRange::quantile`] bounds.
pub const QUANTILE: f64 = 0.999;
/// Bins an octave of the histogram behind the quantile.
const BINS_PER_OCTAVE: u64 = 64;
/// Smallest power of two that the histogram tells apart from smaller numbers.
const FIRST_EXPONENT: i64 = -32;
/// Octaves of the histogram.
const OCTAVES: u64 = 64;

impl Ranges {
    /// Largest magnitude over the calibration images of each quadratic layer's inputs and, last, of the logits: limits for
    /// [`Network::observe_ranges`].
    pub fn limits(&self) -> Vec<f64> {
        let largest = |values: &Vec<f64>| values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        self.max_abs.iter().filter(|layer| !layer.is_empty()).chain([&self.logits]).map(largest).collect()
    }
}

/// What was seen so far of a run of neighbouring images.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeObservation {
    first: u64,
    images: u64,
    /// Layers observed, in order; the logits are not among them.
    layers: Vec<usize>,
    /// As `layers`, then the logits.
    seen: Vec<Seen>,
}

/// Running figures of one layer.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    limit: f64,
    min: f64,
    max: f64,
    sum_of_squares: f64,
    /// Magnitudes by [`bin`].
    histogram: Vec<u64>,
    images_beyond: u64,
    worst: Vec<WorstImage>,
}

impl Network {
    /// Runs the clear oracle over normalised images `x` = `[entry][image]`, which are images `first..` of the set, and notes
    /// the range of what each quadratic reads and of the logits. `limits`: one for each quadratic layer, then one for the
    /// logits, each at least 0 (see [`Ranges::limits`]).
    ///
    /// Errors: an invalid network, `x` of another size, limits of another number, a value that is not finite, no images.
    pub fn observe_ranges(
        &self,
        x: &[f64],
        images: usize,
        first: u64,
        limits: &[f64],
    ) -> Result<RangeObservation, NetError> {
        let layers = quadratics(self);
        same_len("ranges", "limits", limits.len(), layers.len() + 1)?;
        if images == 0 {
            return Err(NetError::mismatch("ranges", "images", 0, "at least 1"));
        }
        if let Some(limit) = limits.iter().find(|limit| !(limit.is_finite() && **limit >= 0.0)) {
            return Err(NetError::mismatch("ranges", "limit", limit, "a finite number of at least 0"));
        }
        let mut seen: Vec<Seen> = limits.iter().map(|&limit| Seen::new(limit)).collect();
        let mut done = 0;
        let mut bad = None;
        let logits = self.evaluate_traced(x, images, &mut |layer, values, width, count| {
            if let Ok(place) = layers.binary_search(&layer)
                && !seen[place].see(values, width, count, first + done)
            {
                bad = bad.or(Some(layer));
            }
            if layer + 1 == self.layers.len() {
                done += count as u64;
            }
        })?;
        if let Some(layer) = bad {
            let found = "not finite or too large to square";
            return Err(NetError::mismatch(&self.layers[layer].name, "a value it reads", found, "a number"));
        }
        all_finite("ranges", "logits", logits.iter().copied())?;
        if let Some(seen) = seen.last_mut() {
            seen.see(&logits, images, images, first);
        }
        Ok(RangeObservation { first, images: images as u64, layers, seen })
    }
}

impl RangeObservation {
    /// Adds the observation of the images that follow.
    ///
    /// Errors: one of other images, of another network or with other limits.
    pub fn merge(&mut self, next: &RangeObservation) -> Result<(), NetError> {
        let expected = self.first + self.images;
        if next.first != expected {
            return Err(NetError::mismatch("ranges", "first image of the next chunk", next.first, expected));
        }
        let limits =
            |observation: &RangeObservation| observation.seen.iter().map(|seen| seen.limit).collect::<Vec<_>>();
        if next.layers != self.layers || limits(next) != limits(self) {
            return Err(NetError::mismatch(
                "ranges",
                "next chunk",
                "of another network",
                "of the same with the same limits",
            ));
        }
        self.images += next.images;
        for (seen, next) in self.seen.iter_mut().zip(&next.seen) {
            seen.min = seen.min.min(next.min);
            seen.max = seen.max.max(next.max);
            seen.sum_of_squares += next.sum_of_squares;
            seen.histogram.iter_mut().zip(&next.histogram).for_each(|(count, next)| *count += next);
            seen.images_beyond += next.images_beyond;
            seen.worst.extend_from_slice(&next.worst);
            seen.keep_worst();
        }
        Ok(())
    }

    /// The figures so far. Only those of a run that began at image 0 are a report that a package accepts.
    pub fn report(&self) -> RangeReport {
        let mut ranges: Vec<ValueRange> = self.seen.iter().map(Seen::range).collect();
        // There is one for the logits, always.
        let logits = ranges.pop().unwrap_or_else(|| Seen::new(1.0).range());
        let layers = self.layers.iter().zip(ranges).map(|(&layer, values)| LayerRange { layer, values }).collect();
        RangeReport { images: self.images, layers, logits }
    }
}

impl Seen {
    fn new(limit: f64) -> Seen {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        let histogram = vec![0; (OCTAVES * BINS_PER_OCTAVE) as usize];
        Seen { limit, min, max, sum_of_squares: 0.0, histogram, images_beyond: 0, worst: Vec::new() }
    }

    /// Notes `[entry][width]` values, of which the first `count` of each entry are images `first..`. Whether all are finite.
    fn see(&mut self, values: &[f64], width: usize, count: usize, first: u64) -> bool {
        let mut lowest = vec![f64::INFINITY; count];
        let mut highest = vec![f64::NEG_INFINITY; count];
        let mut squares = vec![0.0; count];
        for row in values.chunks_exact(width) {
            for (image, &value) in row[..count].iter().enumerate() {
                lowest[image] = lowest[image].min(value);
                highest[image] = highest[image].max(value);
                squares[image] += value * value;
                self.histogram[bin(value)] += 1;
            }
        }
        for image in 0..count {
            let (low, high) = (lowest[image], highest[image]);
            self.min = self.min.min(low);
            self.max = self.max.max(high);
            self.sum_of_squares += squares[image];
            let value = if high >= -low { high } else { low };
            self.images_beyond += u64::from(value.abs() > self.limit);
            self.worst.push(WorstImage { image: first + image as u64, value });
        }
        self.keep_worst();
        // A NaN or an infinity anywhere is in its image's sum of squares.
        squares.iter().all(|sum| sum.is_finite())
    }

    fn keep_worst(&mut self) {
        self.worst.sort_by(order);
        self.worst.truncate(WORST_IMAGES);
    }

    fn range(&self) -> ValueRange {
        let count: u64 = self.histogram.iter().sum();
        let max_abs = self.max.max(-self.min);
        let wanted = (QUANTILE * count as f64).ceil() as u64;
        let mut below = 0;
        let reached = self.histogram.iter().position(|&bin| {
            below += bin;
            below >= wanted
        });
        ValueRange {
            min: self.min,
            max: self.max,
            rms: (self.sum_of_squares / count.max(1) as f64).sqrt(),
            quantile: upper_edge(reached.unwrap_or(0)).min(max_abs),
            limit: self.limit,
            images_beyond: self.images_beyond,
            worst: self.worst.clone(),
        }
    }
}

/// Bits of a double's mantissa that the histogram does not look at.
const DROPPED_BITS: u32 = 52 - BINS_PER_OCTAVE.ilog2();
/// Number of the first bin among all that doubles have.
const FIRST_BIN: u64 = ((1023 + FIRST_EXPONENT) as u64) * BINS_PER_OCTAVE;

/// Bin of a magnitude: its exponent and the first bits of its mantissa. The first and last bin take all beyond.
pub(super) fn bin(value: f64) -> usize {
    let bin = value.abs().to_bits() >> DROPPED_BITS;
    (bin.max(FIRST_BIN) - FIRST_BIN).min(OCTAVES * BINS_PER_OCTAVE - 1) as usize
}

/// Upper edge of a bin; infinite for the last one.
pub(super) fn upper_edge(bin: usize) -> f64 {
    let next = bin as u64 + 1;
    if next == OCTAVES * BINS_PER_OCTAVE { f64::INFINITY } else { f64::from_bits((FIRST_BIN + next) << DROPPED_BITS) }
}
