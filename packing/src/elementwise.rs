//! Element-wise packing: slot = image, one slot vector per entry, entry = (c * H + y) * W + x.
//!
//! ```text
//! images [count][C*H*W]  ->  batch b, entry e: [slots] f64, slot s = image b * slots + s
//! ```
//!
//! The last batch may be partial: its unused slots are zero, or carry canaries from the last slot downwards. What this
//! does not do: choose the number of slots, encode, or hold a whole packed batch (the caller asks for a run of
//! entries).

use std::ops::Range;

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels};
use crate::normalise::Normalisation;

/// Images and entries of one transposition tile: writes are runs of 32 f64, the bytes read stay in the first cache.
const TILE_IMAGES: usize = 32;
const TILE_ENTRIES: usize = 64;

/// A float this far outside the range (relative to its larger end) is rounding of f32, not an escape: clamped,
/// uncounted.
const RANGE_SLACK: f64 = 4.0 * f32::EPSILON as f64;

/// An image set seen as batches of slot vectors.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    images: &'a ImageSet,
    normalisation: &'a Normalisation,
    slots: usize,
    canaries: Vec<Vec<f64>>,
    clamped: u64,
}

impl<'a> Batches<'a> {
    /// Views `images` in batches of `slots` (a power of two).
    ///
    /// # Errors
    /// `Usage` for a slot count that is no power of two or a normalisation with other channels than the images;
    /// `Count`, `Empty` or `Malformed` when the set contradicts itself (its fields are public) or holds a float not
    /// finite.
    pub fn new(images: &'a ImageSet, normalisation: &'a Normalisation, slots: usize) -> Result<Self, PackingError> {
        if !slots.is_power_of_two() {
            return Err(PackingError::usage("slots", slots, "a power of two"));
        }
        images.check()?;
        if normalisation.channels() != images.shape[0] {
            let expected = format!("{} as the images have", images.shape[0]);
            return Err(PackingError::usage("channels of the normalisation", normalisation.channels(), expected));
        }
        let clamped = count_clamped(images, normalisation);
        Ok(Self { images, normalisation, slots, canaries: Vec::new(), clamped })
    }

    /// Lets unused slots carry known images: each canary is C*H*W normalised values, used as given (not clamped).
    ///
    /// # Errors
    /// `Usage` when a canary has another length or a value that is not finite.
    pub fn with_canaries(mut self, canaries: Vec<Vec<f64>>) -> Result<Self, PackingError> {
        for canary in &canaries {
            if canary.len() != self.entries() {
                return Err(PackingError::usage("values of a canary", canary.len(), self.entries()));
            }
            if let Some(value) = canary.iter().find(|value| !value.is_finite()) {
                return Err(PackingError::usage("value of a canary", value, "a finite number"));
            }
        }
        self.canaries = canaries;
        Ok(self)
    }

    /// Slots of a batch.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Entries of an image: C*H*W.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.images.entries()
    }

    /// Number of batches: images / slots, rounded up.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.images.count.div_ceil(self.slots)
    }

    /// Slots of batch `batch` that carry images; 0 beyond the last batch.
    #[must_use]
    pub fn occupancy(&self, batch: usize) -> usize {
        let before = batch.saturating_mul(self.slots);
        self.images.count.saturating_sub(before).min(self.slots)
    }

    /// Where batch `batch` carries canaries: (slot, index of the canary), last slot first. Empty beyond the last batch.
    #[must_use]
    pub fn canary_slots(&self, batch: usize) -> Vec<(usize, usize)> {
        let occupancy = self.occupancy(batch);
        let unused = if occupancy == 0 { 0 } else { self.slots - occupancy };
        (0..self.canaries.len().min(unused)).map(|canary| (self.slots - 1 - canary, canary)).collect()
    }

    /// Float values of the whole set that lay outside the normalisation's range and are clamped to it (bytes never do).
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Writes the slot vector of one entry: `out` is `[slots]`, fully overwritten.
    ///
    /// # Errors
    /// `Usage` when batch, entry or the length of `out` is out of range.
    pub fn entry_into(&self, batch: usize, entry: usize, out: &mut [f64]) -> Result<(), PackingError> {
        self.entries_into(batch, entry..entry.saturating_add(1), out)
    }

    /// Writes the slot vectors of a run of entries: `out` is `[range.len()][slots]`, fully overwritten. Each image row
    /// is read once a call, in tiles that stay in the first cache.
    ///
    /// # Errors
    /// `Usage` when batch, range or the length of `out` is out of range.
    pub fn entries_into(&self, batch: usize, range: Range<usize>, out: &mut [f64]) -> Result<(), PackingError> {
        if batch >= self.batches() {
            return Err(PackingError::usage("batch", batch, format!("less than {}", self.batches())));
        }
        if range.start > range.end || range.end > self.entries() {
            let expected = format!("within 0..{}", self.entries());
            return Err(PackingError::usage("entries", format!("{}..{}", range.start, range.end), expected));
        }
        if range.len().checked_mul(self.slots) != Some(out.len()) {
            let expected = format!("{} entries of {} slots", range.len(), self.slots);
            return Err(PackingError::usage("values of the output", out.len(), expected));
        }

        let occupancy = self.occupancy(batch);
        for row in out.chunks_exact_mut(self.slots) {
            row[occupancy..].fill(0.0);
        }
        let first_value = batch * self.slots * self.entries();
        let values = first_value..first_value + occupancy * self.entries();
        let plane = self.images.shape[1] * self.images.shape[2];
        let mut start = range.start;
        while start < range.end {
            // One channel at a time, so that the table or the clamp is fixed in the inner loop.
            let channel = start / plane;
            let end = range.end.min((channel + 1) * plane);
            let rows = &mut out[(start - range.start) * self.slots..(end - range.start) * self.slots];
            let table = &self.normalisation.table(channel).ok_or_else(|| {
                PackingError::usage("channel", channel, format!("less than {}", self.normalisation.channels()))
            })?;
            match &self.images.pixels {
                Pixels::Bytes(bytes) => {
                    transpose_into(&bytes[values.clone()], self.entries(), start..end, self.slots, rows, |byte| {
                        table[usize::from(byte)]
                    });
                }
                Pixels::Floats(floats) => {
                    let (low, high) = (table[0], table[255]);
                    transpose_into(&floats[values.clone()], self.entries(), start..end, self.slots, rows, |value| {
                        f64::from(value).clamp(low, high)
                    });
                }
            }
            start = end;
        }
        for (slot, canary) in self.canary_slots(batch) {
            for (row, value) in out.chunks_exact_mut(self.slots).zip(&self.canaries[canary][range.clone()]) {
                row[slot] = *value;
            }
        }
        Ok(())
    }
}

/// `images [occupancy][entries]` to `out [range.len()][slots]` through `convert`, tile by tile.
fn transpose_into<T: Copy>(
    images: &[T],
    entries: usize,
    range: Range<usize>,
    slots: usize,
    out: &mut [f64],
    convert: impl Fn(T) -> f64,
) {
    for (tile, tile_images) in images.chunks(TILE_IMAGES * entries).enumerate() {
        let first_slot = tile * TILE_IMAGES;
        let tile_slots = tile_images.len() / entries;
        for first_entry in range.clone().step_by(TILE_ENTRIES) {
            for entry in first_entry..range.end.min(first_entry + TILE_ENTRIES) {
                let row = (entry - range.start) * slots + first_slot;
                for (value, image) in out[row..row + tile_slots].iter_mut().zip(tile_images.chunks_exact(entries)) {
                    *value = convert(image[entry]);
                }
            }
        }
    }
}

fn count_clamped(images: &ImageSet, normalisation: &Normalisation) -> u64 {
    let Pixels::Floats(floats) = &images.pixels else { return 0 };
    let plane = images.shape[1] * images.shape[2];
    let mut clamped = 0;
    for (index, values) in floats.chunks_exact(plane).enumerate() {
        let Some((low, high)) = normalisation.range(index % images.shape[0]) else { continue };
        let slack = RANGE_SLACK * low.abs().max(high.abs());
        let escaped = |value: &&f32| !(low - slack..=high + slack).contains(&f64::from(**value));
        clamped += values.iter().filter(escaped).count() as u64;
    }
    clamped
}
