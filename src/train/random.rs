//! Random numbers of the trainer: one stream for each purpose, so that what is drawn depends on what it is for and never
//! on the order of work or the number of threads.
//!
//! ChaCha8, keyed with the BLAKE3 hash of the purpose: chosen because its output is the same on every machine and in every
//! release. Seeds are written in recipes, so nothing drawn here is hidden from anybody: never use it for keys.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers.
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of a purpose and up to three numbers of its own (say seed, epoch, image): other words, other numbers.
    pub(super) fn new(purpose: &str, words: [u64; 3]) -> Stream {
        let mut hasher = blake3::Hasher::new();
        for word in words {
            hasher.update(&word.to_le_bytes());
        }
        hasher.update(purpose.as_bytes());
        Stream(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// Uniform in `0..bound` (0 for a bound of 0), by the high half of a product; the bias is below bound / 2^64.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in [-1, 1), multiples of 2^-23.
    pub(super) fn symmetric(&mut self) -> f32 {
        to_symmetric(self.0.next_u64() >> 32)
    }

    /// Fills with numbers as [`Stream::symmetric`] gives, two of each word drawn.
    pub(super) fn fill_symmetric(&mut self, values: &mut [f32]) {
        for pair in values.chunks_mut(2) {
            let word = self.0.next_u64();
            pair[0] = to_symmetric(word >> 32);
            if let Some(second) = pair.get_mut(1) {
                *second = to_symmetric(word & u64::from(u32::MAX));
            }
        }
    }

    /// Puts a list into random order (Fisher and Yates; Durstenfeld, CACM 7:7, 1964).
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

/// The upper 24 of 32 bits, as a number in [-1, 1).
fn to_symmetric(bits: u64) -> f32 {
    (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(purpose: &str, words: [u64; 3]) -> [usize; 4] {
        let mut stream = Stream::new(purpose, words);
        [(); 4].map(|()| stream.below(1 << 60))
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let one = words("a", [1, 2, 3]);
        assert_eq!(one, words("a", [1, 2, 3]));
        for other in [words("b", [1, 2, 3]), words("a", [0, 2, 3]), words("a", [1, 3, 2]), words("a", [1, 2, 4])] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn numbers_fill_their_range_and_no_more() {
        let mut stream = Stream::new("test", [7, 0, 0]);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[stream.below(10)] += 1;
        }
        // Standard deviation 30.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let mut values = [9.0_f32; 10_001];
        stream.fill_symmetric(&mut values);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean: f32 = values.iter().sum::<f32>() / values.len() as f32;
        let power: f32 = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.03 && (power - 1.0 / 3.0).abs() < 0.015, "mean {mean}, power {power}");
        assert!((-1.0..1.0).contains(&stream.symmetric()));
        assert_eq!(stream.below(0), 0);
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut list: Vec<u32> = (0..100).collect();
        Stream::new("test", [1, 0, 0]).shuffle(&mut list);
        assert_ne!(list, (0..100).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..100).collect::<Vec<_>>());
    }
}
