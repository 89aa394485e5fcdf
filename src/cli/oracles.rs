//! The two clear readings of a model, floats and integers, over any number of images on several threads. The results do
//! not depend on how many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use packing::{Batches, ImageSet, argmax};

use super::error::CliError;
use super::images::{self, BLOCK};
use crate::net::{Circuit, Network};

/// Logits of both oracles.
pub(super) struct Oracles {
    /// Number of classes.
    pub(super) classes: usize,
    /// The network as trained, `[image][class]`.
    pub(super) float: Vec<f64>,
    /// Its integer circuit, `[image][class]`.
    pub(super) integer: Vec<f64>,
}

/// Runs both oracles; `advance` is told how many images were done since it was last called.
///
/// # Errors
/// A network or circuit that is not valid, images that do not fit it.
pub(super) fn run(
    network: &Network,
    circuit: &Circuit,
    set: &ImageSet,
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Oracles, CliError> {
    let normalisation = images::normalisation(&network.input)?;
    let batches = Batches::new(set, &normalisation, BLOCK)?;
    if batches.clamped() > 0 {
        tracing::warn!("{} values lay outside the range of pixels and are clamped to it", batches.clamped());
    }
    let classes = circuit.classes();
    let logits = || vec![0.0; set.count * classes];
    let shared = Mutex::new((logits(), logits()));
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), CliError> {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= batches.batches() {
                return Ok(());
            }
            let (images, x) = images::block(&batches, block)?;
            let float = network.evaluate_batch(&x, images)?;
            let integer = circuit.evaluate_batch(&x, images)?;
            let first = block * BLOCK * classes;
            let mut all = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            transpose_into(&float, images, &mut all.0[first..first + images * classes]);
            transpose_into(&integer, images, &mut all.1[first..first + images * classes]);
            drop(all);
            advance(images as u64);
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(batches.batches())).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(own, Result::and)
    })?;
    let (float, integer) = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Oracles { classes, float, integer })
}

/// `[class][image]` to `[image][class]`.
fn transpose_into(logits: &[f64], images: usize, out: &mut [f64]) {
    let classes = logits.len() / images.max(1);
    for (image, row) in out.chunks_exact_mut(classes.max(1)).enumerate() {
        for (class, value) in row.iter_mut().enumerate() {
            *value = logits[class * images + image];
        }
    }
}

impl Oracles {
    /// Label of each image by the float oracle.
    pub(super) fn float_labels(&self) -> Vec<u16> {
        labels(&self.float, self.classes)
    }

    /// Label of each image by the integer oracle.
    pub(super) fn integer_labels(&self) -> Vec<u16> {
        labels(&self.integer, self.classes)
    }
}

/// The first of the largest logits of each image; `logits` is `[image][class]`.
pub(super) fn labels(logits: &[f64], classes: usize) -> Vec<u16> {
    logits.chunks_exact(classes.max(1)).map(|row| argmax(row).unwrap_or(0) as u16).collect()
}

/// Largest difference of two lists of logits.
pub(super) fn max_difference(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).fold(0.0, |largest: f64, (left, right)| largest.max((left - right).abs()))
}

/// How many labels are the same.
pub(super) fn same(left: &[u16], right: &[u16]) -> u64 {
    left.iter().zip(right).filter(|(left, right)| left == right).count() as u64
}

/// `part / whole`, 1 for nothing.
pub(super) fn share(part: u64, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample::{random_images, random_network};
    use crate::net::{LowerOptions, lower};
    use packing::Pixels;

    #[test]
    fn any_number_of_threads_gives_the_same_logits_in_the_images_order() {
        let network = random_network(3, 1, false);
        let circuit = lower(&network, &LowerOptions::default(), &random_images(&network, 32, 1)).unwrap();
        let shape = network.input.shape;
        let entries: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..600 * entries).map(|index| (index * 7 % 251) as u8).collect();
        let set = ImageSet::new(shape, Pixels::Bytes(bytes)).unwrap();
        let done = AtomicUsize::new(0);
        let count = |images: u64| {
            done.fetch_add(images as usize, Ordering::Relaxed);
        };
        let one = run(&network, &circuit, &set, 1, &count).unwrap();
        let three = run(&network, &circuit, &set, 3, &count).unwrap();
        assert_eq!((&one.float, &one.integer), (&three.float, &three.integer));
        assert_eq!(done.into_inner(), 2 * 600);
        let alone = ImageSet::new(shape, set_bytes(&set, 599, entries)).unwrap();
        let alone = run(&network, &circuit, &alone, 1, &|_| {}).unwrap();
        assert_eq!(alone.float, one.float[599 * one.classes..]);
        assert_eq!(one.float_labels().len(), 600);
    }

    fn set_bytes(set: &ImageSet, image: usize, entries: usize) -> Pixels {
        match &set.pixels {
            Pixels::Bytes(bytes) => Pixels::Bytes(bytes[image * entries..(image + 1) * entries].to_vec()),
            Pixels::Floats(_) => unreachable!("the set was made of bytes"),
        }
    }
}
