//! How a plan switches keys: special primes, limbs a digit, and which stages' squares are relinearised before they are read (*eager*) rather than
//! after (*lazy*).
//!
//! Lazy is the rule: a layer usually has fewer outputs than squares, and only its outputs are switched. One with as many outputs or more gains by
//! the other way: it computes with two components in place of three, for a few transforms more or none (ENGINE section 1). What is chosen decides
//! the bytes of results, so it follows from the circuit alone, by the same count of work on every machine.

use super::cost::{self, width_bytes};
use super::passes::Live;
use super::scales::{NARROWEST, WIDEST, coarse};
use super::{After, PlanError, StagePlan};
use crate::ckks::noise;
use crate::net::circuit::{Block, Circuit, FeatureKind, Source, Stage};
use crate::net::sample::Random;
use crate::ring::primes::Primes;

/// Widest special prime.
const WIDEST_SPECIAL: f64 = (1u64 << 49) as f64;
/// Most special primes, and most limbs of a digit.
const MOST_SPECIAL: usize = 4;
/// Bytes multiplied in the time of half a transform's share of one coefficient: between what vectors of bytes manage (160) and matrices of bytes (2200),
/// so that what is chosen costs little on either kind of machine.
const BYTES_A_HALF: usize = 600;
/// The error of a lazy key switch is at most this share of its rescale's.
const SHARE_OF_LAZY: f64 = 0.5;
/// The same of an eager one, as it leaves the layer that reads it.
const SHARE_OF_EAGER: f64 = 0.5;
/// Steps towards a layer's largest gain.
const GAIN_STEPS: usize = 6;
/// What they find is multiplied by this: they come to it from below.
const GAIN_MARGIN: f64 = 1.25;
/// A layer with more than so many times as many squares as outputs is lazy, whatever it multiplies.
const MOST_SQUARES: usize = 2;

/// A stage whose squares may be relinearised before it reads them: they are all outputs of the stage before, and nothing else reads those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    squares: usize,
    outputs: usize,
    /// About the 2-norm of its weights, rather more: what it makes of errors, however they add up behind it.
    gain: f64,
}

/// The candidate of every stage that is one. What only zeros connect does not count.
pub(super) fn candidates(circuit: &Circuit) -> Vec<Option<Candidate>> {
    let mut found = vec![None; circuit.stages.len()];
    let eligible: Vec<usize> = (0..found.len()).filter(|&stage| is_eligible(circuit, stage)).collect();
    if eligible.is_empty() {
        return found;
    }
    let live = Live::new(circuit);
    for stage in eligible {
        let (squares, outputs) = (live.rows(stage - 1).count(), live.rows(stage).count());
        if squares <= MOST_SQUARES * outputs {
            found[stage] = Some(Candidate { squares, outputs, gain: gain(&circuit.stages[stage]) });
        }
    }
    found
}

fn is_eligible(circuit: &Circuit, stage: usize) -> bool {
    // The first stage is not stored, what the last one makes is not rescaled.
    if stage < 2 || stage + 1 == circuit.stages.len() {
        return false;
    }
    let before = Source::Stage(stage - 1);
    let reads = |of: &Stage| of.features.iter().any(|f| f.source == before);
    let mut others = circuit.stages.iter().enumerate().filter(|&(other, _)| other != stage);
    let of = &circuit.stages[stage];
    reads(of)
        && of.features.iter().all(|f| (f.kind == FeatureKind::Square) == (f.source == before))
        && !others.any(|(_, other)| reads(other))
}

/// About the 2-norm of a stage's integer weights, by steps of the power method, and at least that of any row: the same additions in the same order on every machine.
fn gain(stage: &Stage) -> f64 {
    let (rows, columns) = (stage.map.outputs, stage.features.len());
    let mut random = Random::new(columns as u64);
    let mut x: Vec<f64> = (0..columns).map(|_| random.unit_variance()).collect();
    let mut gain = 0.0;
    for _ in 0..GAIN_STEPS {
        let mut y = vec![0.0; rows];
        let mut back = vec![0.0; columns];
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        for (block, row, weights) in rows_of(stage) {
            y[row] += block.columns.iter().zip(weights).map(|(&c, &w)| f64::from(w) * x[c as usize]).sum::<f64>();
        }
        for (block, row, weights) in rows_of(stage) {
            block.columns.iter().zip(weights).for_each(|(&c, &w)| back[c as usize] += f64::from(w) * y[row]);
        }
        gain = y.iter().map(|y| y * y).sum::<f64>().sqrt() / norm;
        x = back;
    }
    let mut squares = vec![0.0; rows];
    for (_, row, weights) in rows_of(stage) {
        squares[row] += weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
    }
    (GAIN_MARGIN * gain).max(squares.into_iter().fold(0.0, f64::max).sqrt())
}

/// Every row of every block, with its number among the outputs.
fn rows_of(stage: &Stage) -> impl Iterator<Item = (&Block, usize, &[i16])> {
    stage.map.blocks.iter().flat_map(|block| {
        let rows = block.rows.iter().zip(block.weights.chunks_exact(block.columns.len().max(1)));
        rows.map(move |(&row, weights)| (block, row as usize, weights))
    })
}

/// A way to switch keys.
pub(super) struct Shape {
    pub special: Vec<u64>,
    pub digit_limbs: usize,
    /// Stages that are eager.
    pub eager: Vec<usize>,
    /// In halves of a transform, third components that an eager stage would not have included.
    pub work: usize,
}

/// A stage that ends in a rescale, and in a key switch where it has squares.
struct Rescaled<'a> {
    stage: usize,
    limbs: usize,
    outputs: usize,
    /// Work of the third component of a candidate's tiles, in halves of a transform.
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
    primes: &Primes,
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
                let third = |c: &Candidate| products * bytes / BYTES_A_HALF + (c.squares + 2 * c.outputs) * limbs;
                Rescaled {
                    stage,
                    limbs,
                    outputs: candidate.map_or(of.map.outputs, |candidate| candidate.outputs),
                    third: candidate.map_or(0, third),
                    candidate,
                    lazy_target: coarse(alone / (SHARE_OF_LAZY * rescale)),
                    eager_target: candidate.map_or(f64::INFINITY, |candidate| {
                        coarse(alone * candidate.gain * lifted(plan) / (SHARE_OF_EAGER * rescale))
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
            let mut gainers: Vec<&Rescaled<'_>> = switched.iter().filter(gains).collect();
            gainers.sort_by(|a, b| a.eager_target.total_cmp(&b.eager_target));
            let gainers: Vec<usize> = gainers.into_iter().map(|of| of.stage).collect();
            // Not all of them too: the others may do with fewer special primes, or smaller ones.
            for eager in (0..=gainers.len()).map(|count| &gainers[..count]) {
                let is_eager = |of: &Rescaled<'_>| eager.contains(&of.stage);
                let targets = switched.iter().map(|of| if is_eager(of) { of.eager_target } else { of.lazy_target });
                let target = targets.fold(NARROWEST, f64::max);
                if !fits(target) || (eager.is_empty() && lazy_is_fast) {
                    continue;
                }
                let count = count(target);
                lazy_is_fast |= !count.is_wide;
                let mut found = Vec::with_capacity(special);
                let mut all = used.to_vec();
                for _ in 0..special {
                    let prime = primes.nearest(width(target) as u64, degree, &all)?;
                    all.push(prime);
                    found.push(prime);
                }
                let work = switched.iter().map(|of| of.work(is_eager(of), count)).sum();
                shapes.push(Shape { special: found, digit_limbs, work, eager: eager.to_vec() });
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
            rescale.hypot(before * candidate.gain * lifted(plan) / last)
        }
        None if plan.components == 2 => rescale,
        None => rescale.hypot(noise::key_switch(degree, &digits, special * last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::dense_circuit;

    /// Known norms: of rank one, of a diagonal, and of arbitrary weights at least that of what some vectors become.
    #[test]
    fn gains_are_the_norms_of_weights_or_a_little_more() {
        let mut stage = dense_circuit(&[20, 64, 64, 50, 4]).stages.remove(2);
        let weights = |stage: &mut Stage, of: &dyn Fn(usize, usize) -> i16| {
            let all = (0..50 * 64).map(|i| of(i / 64, i % 64));
            stage.map.blocks[0].weights = all.collect();
            gain(stage)
        };
        let ratio = weights(&mut stage, &|_, _| 3) / (9.0f64 * 50.0 * 64.0).sqrt();
        assert!((1.0..=GAIN_MARGIN * 1.001).contains(&ratio), "{ratio}");
        let ratio = weights(&mut stage, &|r, c| if r == c { [7, -2][r % 2] } else { 0 }) / 7.0;
        assert!((1.0..=GAIN_MARGIN * 1.001).contains(&ratio), "{ratio}");
        let found = weights(&mut stage, &|r, c| ((r * 64 + c) * 37 % 255) as i16 - 127);
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let x: Vec<f64> = (0..64).map(|_| random.signed()).collect();
            let y = rows_of(&stage).map(|(_, _, w)| w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>());
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let ratio = norm(&mut y.into_iter()) / norm(&mut x.iter().copied());
            assert!(ratio <= found, "{ratio} of {found}");
        }
        assert_eq!(weights(&mut stage, &|_, _| 0), 0.0);
    }
}
