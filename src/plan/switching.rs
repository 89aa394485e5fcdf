//! How a plan switches keys: special primes, limbs a digit, and which stages' squares are relinearised before they are read (*eager*) rather than
//! after (*lazy*).
//!
//! Lazy is the rule: a layer usually has fewer outputs than squares, and only its outputs are switched. One with about as many outputs gains by
//! the other way: it computes with two components in place of three, for a few transforms more (ENGINE section 1). What is chosen decides
//! the bytes of results, so it follows from the circuit alone, by the same count of work on every machine.

use super::cost::{self, width_bytes};
use super::scales::{NARROWEST, WIDEST, coarse};
use super::{After, PlanError, StagePlan};
use crate::ckks::noise;
use crate::net::circuit::{Circuit, FeatureKind, Source};
use crate::ring::primes;

/// Widest special prime.
const WIDEST_SPECIAL: f64 = (1u64 << 49) as f64;
/// Most special primes, and most limbs of a digit.
const MOST_SPECIAL: usize = 4;
/// Bytes multiplied in the time of half a transform's share of one coefficient: between what vectors of bytes manage (160) and matrices of bytes (2200),
/// so that what is chosen costs little on either kind of machine.
const BYTES_A_HALF: usize = 600;
/// The error of a lazy key switch is at most this share of its rescale's.
const SHARE_OF_LAZY: f64 = 0.5;
/// The same of an eager one, as it leaves the layer that reads it: errors of one square reach many outputs, which may add up.
const SHARE_OF_EAGER: f64 = 0.125;

/// A stage whose squares may be relinearised before it reads them: they are all outputs of the stage before, and nothing else reads those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    squares: usize,
    /// The largest 2-norm of a row of its weights: what it makes of independent errors.
    growth: f64,
}

/// The candidate of every stage that is one.
pub(super) fn candidates(circuit: &Circuit) -> Vec<Option<Candidate>> {
    (0..circuit.stages.len()).map(|stage| candidate(circuit, stage)).collect()
}

fn candidate(circuit: &Circuit, stage: usize) -> Option<Candidate> {
    // The first stage is not stored, what the last one makes is not rescaled.
    if stage < 2 || stage + 1 == circuit.stages.len() {
        return None;
    }
    let before = Source::Stage(stage - 1);
    let squares = |source, kind| kind == FeatureKind::Square && source == before;
    let features = &circuit.stages[stage].features;
    let only_squares =
        features.iter().all(|f| squares(f.source, f.kind) == (f.kind == FeatureKind::Square || f.source == before));
    let read_elsewhere = |(other, reader): (usize, &crate::net::circuit::Stage)| {
        other != stage && reader.features.iter().any(|f| f.source == before)
    };
    if !only_squares || circuit.stages.iter().enumerate().any(read_elsewhere) {
        return None;
    }
    let mut entries: Vec<u32> = features.iter().filter(|f| f.source == before).map(|f| f.entry).collect();
    entries.sort_unstable();
    entries.dedup();
    if entries.is_empty() {
        return None;
    }
    let map = &circuit.stages[stage].map;
    let mut norms = vec![0u64; map.outputs];
    for block in &map.blocks {
        for (&row, weights) in block.rows.iter().zip(block.weights.chunks_exact(block.columns.len().max(1))) {
            norms[row as usize] += weights.iter().map(|&w| u64::from(w.unsigned_abs()).pow(2)).sum::<u64>();
        }
    }
    let largest = norms.into_iter().max().unwrap_or(0);
    Some(Candidate { squares: entries.len(), growth: (largest as f64).sqrt() })
}

/// A way to switch keys.
pub(super) struct Shape {
    pub special: Vec<u64>,
    pub digit_limbs: usize,
    /// Stages that are eager.
    pub eager: Vec<usize>,
    /// In halves of a transform.
    pub work: usize,
}

/// A stage that ends in a rescale, and in a key switch where it has squares.
struct Rescaled<'a> {
    stage: usize,
    limbs: usize,
    outputs: usize,
    /// Work of the third component of its tiles, in halves of a transform.
    third: usize,
    candidate: Option<&'a Candidate>,
    /// What special primes' product keeps the error small, relinearised after it and before it.
    lazy_target: f64,
    eager_target: f64,
}

/// Special primes and limbs a digit, as far as work depends on them.
#[derive(Clone, Copy)]
struct Count {
    special: usize,
    /// Whether special primes are too wide for the fast transforms.
    is_wide: bool,
    digit_limbs: usize,
}

impl Count {
    /// Of one key switch of `limbs` limbs, in halves of a transform.
    fn work(self, limbs: usize, transforms: usize, pointwise: usize) -> usize {
        // Every digit to every special prime, both sums back: the slow ones take twice as long.
        let wide = if self.is_wide { self.special * (limbs.div_ceil(self.digit_limbs) + 2) } else { 0 };
        2 * (transforms + wide) + pointwise
    }
}

impl Rescaled<'_> {
    fn lazy_work(&self, count: Count) -> usize {
        let Count { special, digit_limbs, .. } = count;
        let transforms = cost::key_switch_transforms(self.limbs, special, digit_limbs);
        let pointwise = cost::key_switch_pointwise(self.limbs, special, digit_limbs);
        self.outputs * count.work(self.limbs, transforms, pointwise) + self.third
    }

    fn eager_work(&self, squares: usize, count: Count) -> usize {
        let Count { special, digit_limbs, .. } = count;
        let transforms = cost::relinearise_transforms(self.limbs, special, digit_limbs);
        let pointwise = cost::relinearise_pointwise(self.limbs, special, digit_limbs);
        let rescale = 2 * cost::rescale_transforms(self.limbs) + cost::rescale_pointwise(self.limbs);
        squares * count.work(self.limbs, transforms, pointwise) + self.outputs * rescale
    }

    fn work(&self, is_eager: bool, count: Count) -> usize {
        match self.candidate {
            Some(candidate) if is_eager => self.eager_work(candidate.squares, count),
            _ => self.lazy_work(count),
        }
    }
}

/// Sizes of digits: products of so many limbs each.
fn digits(moduli: &[u64], digit_limbs: usize) -> Vec<f64> {
    moduli.chunks(digit_limbs).map(|digit| digit.iter().map(|&q| q as f64).product()).collect()
}

/// Limbs a digit, special primes and eager stages, the cheapest first, among those whose key-switch errors stay small beside the rescales': long
/// digits are fewer, but need a larger product of special primes.
pub(super) fn shapes(
    circuit: &Circuit,
    candidates: &[Option<Candidate>],
    moduli: &[u64],
    stages: &[StagePlan],
    degree: usize,
    used: &[u64],
) -> Result<Vec<Shape>, PlanError> {
    let rescale = noise::rescale(degree);
    let mut shapes = Vec::new();
    for digit_limbs in 1..=MOST_SPECIAL {
        let switched =
            stages.iter().zip(&circuit.stages).enumerate().filter(|(_, (plan, _))| plan.after == After::KeySwitch);
        let switched: Vec<Rescaled<'_>> = switched
            .filter(|(_, (plan, _))| plan.components == 3)
            .map(|(stage, (plan, of))| {
                let limbs = plan.limbs;
                let alone = noise::key_switch(degree, &digits(&moduli[..limbs], digit_limbs), moduli[limbs - 1] as f64);
                let candidate = candidates[stage].as_ref();
                let bytes: usize = moduli[..limbs].iter().map(|&q| width_bytes(q)).sum();
                let products: usize = of.map.blocks.iter().map(|block| block.weights.len()).sum();
                Rescaled {
                    stage,
                    limbs,
                    outputs: of.map.outputs,
                    third: products * bytes / BYTES_A_HALF + (of.features.len() + 2 * of.map.outputs) * limbs,
                    candidate,
                    lazy_target: coarse(alone / (SHARE_OF_LAZY * rescale)),
                    eager_target: candidate.map_or(f64::INFINITY, |candidate| {
                        coarse(alone * candidate.growth * lifted(plan) / (SHARE_OF_EAGER * rescale))
                    }),
                }
            })
            .collect();
        let mut lazy_is_fast = false;
        for special in 1..=MOST_SPECIAL {
            if digit_limbs > special + 1 {
                continue;
            }
            let width = |target: f64| match special {
                1 => target,
                _ => coarse(target.powf(1.0 / special as f64)).max(NARROWEST),
            };
            let count = |target: f64| Count { special, is_wide: width(target) > WIDEST, digit_limbs };
            let fits = |target: f64| target.is_finite() && width(target) <= WIDEST_SPECIAL;
            let gains = |of: &&Rescaled<'_>| {
                fits(of.eager_target) && of.work(true, count(of.eager_target)) < of.work(false, count(of.lazy_target))
            };
            let eager: Vec<usize> = switched.iter().filter(gains).map(|of| of.stage).collect();
            // All lazy too: it may do with fewer special primes, or smaller ones.
            for eager in [Vec::new(), eager] {
                let is_eager = |of: &Rescaled<'_>| eager.contains(&of.stage);
                let targets = switched.iter().map(|of| if is_eager(of) { of.eager_target } else { of.lazy_target });
                let target = targets.fold(NARROWEST, f64::max);
                if !fits(target) || (eager.is_empty() && lazy_is_fast) {
                    continue;
                }
                let count = count(target);
                lazy_is_fast |= !count.is_wide;
                let mut primes = Vec::with_capacity(special);
                let mut all = used.to_vec();
                for _ in 0..special {
                    let prime = primes::nearest(width(target) as u64, degree, &all)?;
                    all.push(prime);
                    primes.push(prime);
                }
                let work = switched.iter().map(|of| of.work(is_eager(of), count)).sum();
                shapes.push(Shape { special: primes, digit_limbs, work, eager });
            }
        }
    }
    // Stable: of equals the shorter digits, with the smaller modulus.
    shapes.sort_by_key(|shape| shape.work);
    Ok(shapes)
}

/// What multiplies a stage's squares, and their errors.
fn lifted(plan: &StagePlan) -> f64 {
    let squares = plan.lifts.iter().filter(|lift| lift.kind == FeatureKind::Square);
    squares.map(|lift| lift.multiplier).fold(1.0, f64::max)
}

/// Standard deviation of the error that a stage's rescale and the key switch before or with it add to its results, in slots, in units of their
/// integers.
pub(super) fn error(
    degree: usize,
    eager: Option<&Candidate>,
    plan: &StagePlan,
    moduli: &[u64],
    special: f64,
    digit_limbs: usize,
) -> f64 {
    let moduli = &moduli[..plan.limbs];
    let (rescale, last) = (noise::rescale(degree), moduli[plan.limbs - 1] as f64);
    let digits = digits(moduli, digit_limbs);
    match eager {
        Some(candidate) => {
            let before = rescale.hypot(noise::key_switch(degree, &digits, special));
            rescale.hypot(before * candidate.growth * lifted(plan) / last)
        }
        None if plan.components == 2 => rescale,
        None => rescale.hypot(noise::key_switch(degree, &digits, special * last)),
    }
}
