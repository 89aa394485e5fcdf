//! The clear readings of a model with tables, floats and integers, over any number of images on several threads, and what the
//! exact engine's noise is expected to do to each. The results do not depend on how many threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use packing::{Batches, ImageSet, argmax};

use super::error::CliError;
use super::images::{self, BLOCK};
use crate::format::TablePackage;
use crate::net::network::InputSpec;
use crate::net::tables::Trace;

/// What the oracles say about one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Of the network as trained.
    pub(super) float: Vec<f64>,
    /// Of the tables.
    pub(super) integer: Vec<f64>,
    /// Whether all sums were within their tables' ranges.
    pub(super) inside: bool,
    /// Tables that noise is expected to move by a box; 0 in builds without the engine.
    pub(super) moved: f64,
    /// Whether the encrypted label may differ by noise and rounding alone; false in builds without the engine.
    pub(super) unsure: bool,
    /// `[class]`: whether noise can make this the label; empty in builds without the engine.
    pub(super) may_be: Vec<bool>,
}

impl Reading {
    pub(super) fn float_label(&self) -> u16 {
        argmax(&self.float).unwrap_or(0) as u16
    }

    pub(super) fn integer_label(&self) -> u16 {
        argmax(&self.integer).unwrap_or(0) as u16
    }
}

/// Readings of all images, in order; `advance` is told how many images were done since it was last called.
///
/// # Errors
/// A network or circuit that is not valid, images that do not fit it.
pub(super) fn read(
    package: &TablePackage,
    set: &ImageSet,
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Reading>, CliError> {
    package.circuit.validate()?;
    let normalisation = images::normalisation(&package.network.input)?;
    let batches = Batches::new(set, &normalisation, BLOCK)?;
    let all = Mutex::new(vec![Reading::default(); set.count]);
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), CliError> {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= batches.batches() {
                return Ok(());
            }
            let (images, x) = images::block(&batches, block)?;
            let readings = read_block(package, &x, images)?;
            let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all[block * BLOCK..][..images].clone_from_slice(&readings);
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
    Ok(all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Readings of normalised images `[entry][image]`.
pub(super) fn read_block(package: &TablePackage, x: &[f64], images: usize) -> Result<Vec<Reading>, CliError> {
    let TablePackage { network, circuit, .. } = package;
    let float = network.evaluate_batch(x, images)?;
    let odds = Expected::of(package);
    let reading = |image: usize| -> Result<Reading, CliError> {
        let trace = circuit.trace(&bytes(&network.input, x, images, image))?;
        let inside = circuit
            .stages
            .iter()
            .zip(&trace.sums)
            .all(|(stage, sums)| sums.iter().enumerate().all(|(row, &sum)| stage.look_up(row, sum).inside));
        let (moved, unsure, may_be) = odds.of_trace(package, &trace);
        let float = float.iter().skip(image).step_by(images).copied().collect();
        Ok(Reading { float, integer: circuit.scores(&trace.logits), inside, moved, unsure, may_be })
    };
    (0..images).map(reading).collect()
}

/// One image of `[entry][image]`, as bytes.
fn bytes(input: &InputSpec, x: &[f64], images: usize, image: usize) -> Vec<u8> {
    x.iter().skip(image).step_by(images.max(1)).enumerate().map(|(entry, &value)| input.byte(entry, value)).collect()
}

#[cfg(feature = "exact")]
struct Expected(crate::exact::Noise);

#[cfg(feature = "exact")]
impl Expected {
    fn of(package: &TablePackage) -> Self {
        Self(crate::exact::Noise::of(&package.circuit))
    }

    fn of_trace(&self, package: &TablePackage, trace: &Trace) -> (f64, bool, Vec<bool>) {
        let odds = self.0.odds(&package.circuit, trace);
        let may_be = (0..trace.logits.len()).map(|class| odds.explains(&trace.logits, class)).collect();
        (odds.moved, odds.unsure(), may_be)
    }
}

#[cfg(not(feature = "exact"))]
struct Expected;

#[cfg(not(feature = "exact"))]
impl Expected {
    fn of(_: &TablePackage) -> Self {
        Self
    }

    fn of_trace(&self, _: &TablePackage, _: &Trace) -> (f64, bool, Vec<bool>) {
        (0.0, false, Vec::new())
    }
}
