//! Models with tables: filling the tables of a trained network, and their clear readings, floats and integers, over any number
//! of images on several threads, with what the exact engine's noise is expected to do to each. The results do not depend on how
//! many threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use packing::{Batches, ImageSet, argmax};

use super::error::CliError;
use super::images::{self, BLOCK};
use super::oracles::{max_difference, same};
use super::report::Table;
#[cfg(feature = "exact")]
use crate::exact::Answer;
use crate::format::TablePackage;
use crate::net::network::InputSpec;
use crate::net::tables::{TableCircuit, TableReport, Trace};
use crate::net::{Calibration, Network};

/// Calibration images used for ranges of tables: a sum outside them wraps, so rare images count.
pub(super) const TABLE_CALIBRATION_IMAGES: usize = 60_000;

/// The tables of a network.
pub(super) struct Filled {
    pub(super) circuit: TableCircuit,
    pub(super) report: TableReport,
    /// Noise before each hidden stage's tables, one standard deviation, in boxes.
    pub(super) noise_boxes: Vec<f64>,
}

/// Quantises a network whose activations stay exact: tables of 2^bits boxes, over the ranges seen on the calibration images.
///
/// # Errors
/// A network that has no tables (named), or whose noise would be too much; a build without the exact engine, whose noise
/// decides the integers.
#[cfg(feature = "exact")]
pub(super) fn fill(network: &Network, calibration: &Calibration, bits: u32) -> Result<Filled, CliError> {
    use crate::exact::Noise;
    use crate::net::tables::{TableOptions, quantise};
    /// Width of the integers that meet fresh ciphertexts: rounding them errs less than a table's box does.
    const INPUT_WEIGHT_BITS: u32 = 10;
    /// How far a neuron's range is widened on either side.
    const MARGIN: f64 = 0.05;
    let (input_weight_bits, output_noise) = (INPUT_WEIGHT_BITS, Noise::bootstrapped());
    let options = TableOptions { bits, input_weight_bits, margin: MARGIN, output_noise };
    let (circuit, report) = quantise(network, calibration, &options)?;
    let noise = Noise::of(&circuit);
    noise.check(&circuit).map_err(|error| CliError::from(crate::client::ClientError::from(error)))?;
    Ok(Filled { circuit, report, noise_boxes: noise.boxes })
}

/// As its namesake in builds with the exact engine.
///
/// # Errors
/// Always [`CliError::NoExactEngine`].
#[cfg(not(feature = "exact"))]
pub(super) fn fill(_: &Network, _: &Calibration, _: u32) -> Result<Filled, CliError> {
    Err(CliError::NoExactEngine)
}

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
    /// The same where the worker compares the scores, and labels alone are told.
    pub(super) may_be_told: Vec<bool>,
}

impl Reading {
    /// Whether a job of labels only may end with this one, or with none: no class wins where three scores are too close to tell apart.
    pub(super) fn may_be_told(&self, label: u16) -> bool {
        match self.may_be_told.get(usize::from(label)) {
            Some(&may) => may,
            None => self.may_be_told.iter().filter(|&&may| may).count() > 2,
        }
    }

    pub(super) fn float_label(&self) -> u16 {
        argmax(&self.float).unwrap_or(0) as u16
    }

    pub(super) fn integer_label(&self) -> u16 {
        argmax(&self.integer).unwrap_or(0) as u16
    }
}

/// What the exact engine computes and an image costs, as rows of a report.
pub(super) fn rows_into(circuit: &TableCircuit, weight_bits: &[u32], noise_boxes: &[f64], table: &mut Table) {
    table.row(["engine", "tfhe: exact activations, one bootstrap a neuron"]);
    for ((stage, bits), boxes) in circuit.stages.iter().zip(weight_bits).zip(noise_boxes) {
        let text = format!("{}, {bits}-bit integers, {}-bit tables, noise {boxes:.3} boxes", stage.name, stage.bits);
        table.row(["stage", &text]);
    }
    let last = weight_bits.last().copied().unwrap_or(0);
    table.row(["stage", &format!("{}, {last}-bit integers", circuit.logits.name)]);
    let (macs, bootstraps) = (circuit.macs(), circuit.neurons());
    table.row(["operations an image", &format!("{macs} multiply-accumulates, {bootstraps} bootstraps")]);
}

/// Readings of many images, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) images: usize,
    /// Right labels of the network as trained, and of the tables.
    pub(super) right_float: u64,
    pub(super) right_integer: u64,
    /// Images with the same label by both.
    pub(super) agree: u64,
    /// Largest difference of a logit.
    pub(super) difference: f64,
    /// Images with a sum outside its table's range.
    pub(super) outside: u64,
    /// Images whose label noise may change.
    pub(super) unsure: u64,
    /// Tables that noise is expected to move by a box, mean an image.
    pub(super) moved: f64,
}

impl Tally {
    /// `truth` holds one label a reading.
    pub(super) fn of(readings: &[Reading], truth: &[u16]) -> Tally {
        let float: Vec<u16> = readings.iter().map(Reading::float_label).collect();
        let integer: Vec<u16> = readings.iter().map(Reading::integer_label).collect();
        let count = |is: fn(&&Reading) -> bool| readings.iter().filter(is).count() as u64;
        Tally {
            images: readings.len(),
            right_float: same(&float, truth),
            right_integer: same(&integer, truth),
            agree: same(&float, &integer),
            difference: readings.iter().fold(0.0, |most, read| most.max(max_difference(&read.float, &read.integer))),
            outside: count(|read| !read.inside),
            unsure: count(|read| read.unsure),
            moved: readings.iter().map(|read| read.moved).sum::<f64>() / readings.len().max(1) as f64,
        }
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
        let Chances { moved, unsure, may_be, may_be_told } = odds.of_trace(package, &trace);
        let float = float.iter().skip(image).step_by(images).copied().collect();
        Ok(Reading { float, integer: circuit.scores(&trace.logits), inside, moved, unsure, may_be, may_be_told })
    };
    (0..images).map(reading).collect()
}

/// One image of `[entry][image]`, as bytes.
fn bytes(input: &InputSpec, x: &[f64], images: usize, image: usize) -> Vec<u8> {
    x.iter().skip(image).step_by(images.max(1)).enumerate().map(|(entry, &value)| input.byte(entry, value)).collect()
}

/// What noise is expected to do to an image; nothing in builds without the engine.
#[derive(Default)]
struct Chances {
    moved: f64,
    unsure: bool,
    may_be: Vec<bool>,
    may_be_told: Vec<bool>,
}

#[cfg(feature = "exact")]
struct Expected(crate::exact::Noise);

#[cfg(feature = "exact")]
impl Expected {
    fn of(package: &TablePackage) -> Self {
        Self(crate::exact::Noise::of(&package.circuit))
    }

    fn of_trace(&self, package: &TablePackage, trace: &Trace) -> Chances {
        let odds = self.0.odds(&package.circuit, trace);
        let [may_be, may_be_told] = [Answer::Scores, Answer::Label]
            .map(|answer| (0..trace.logits.len()).map(|class| odds.explains(&trace.logits, class, answer)).collect());
        Chances { moved: odds.moved, unsure: odds.unsure(), may_be, may_be_told }
    }
}

#[cfg(not(feature = "exact"))]
struct Expected;

#[cfg(not(feature = "exact"))]
impl Expected {
    fn of(_: &TablePackage) -> Self {
        Self
    }

    fn of_trace(&self, _: &TablePackage, _: &Trace) -> Chances {
        Chances::default()
    }
}
