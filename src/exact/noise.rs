//! What the noise does: how large it is before each table, how often it moves a sum into the next box, and how far off a
//! logit may be. All variances are in shares of the torus, squared, by tfhe's own formulas.

use tfhe::core_crypto::commons::noise_formulas::centered_mean_shifted_modulus_switch::centered_binary_shifted_modulus_switch_additive_variance;
use tfhe::core_crypto::commons::noise_formulas::lwe_keyswitch::keyswitch_additive_variance_132_bits_security_tuniform;
use tfhe::core_crypto::commons::noise_formulas::lwe_programmable_bootstrap::pbs_variance_132_bits_security_tuniform_fft_mul;

use super::ExactError;
use super::answer::{Answer, win};
use super::parameters::{BODY_BYTES, LweParameters, PARAMETERS, RESULT_BYTES};
use crate::net::TableCircuit;
use crate::net::tables::{Rows, TableStage, Trace};

/// Bits of a double's fraction: the bootstrap multiplies by way of a transform over doubles.
const MANTISSA_BITS: f64 = 53.0;
/// Most noise that comes in with the values a table stage reads, standard deviations in boxes.
const WORST_BOXES: f64 = 0.5;
/// Most noise of a logit, in shares of their range.
const WORST_LOGIT: f64 = 0.1;

/// Noise is never more than so many standard deviations: once in 5e8 times it is.
const FURTHEST: f64 = 6.0;

/// Standard deviations of a circuit's noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Before each hidden stage's tables, of its worst row, in boxes.
    pub boxes: Vec<f64>,
    /// Of each class's sum, in integers of the last map.
    pub logits: Vec<f64>,
    /// Of the difference of two classes' sums, as it is compared where labels alone are asked for, in integers of the last map.
    pub comparison: f64,
    /// The part of `boxes` that the circuit's weights bring, and not the table's own switches.
    brought: Vec<f64>,
}

/// What noise is expected to do to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Odds {
    /// Tables expected to give the value of a neighbouring box.
    pub moved: f64,
    /// Standard deviation of the difference between the two largest logits, in integers of the last map; what moved tables
    /// and noise do to it together.
    pub margin_deviation: f64,
    /// The difference itself.
    pub margin: f64,
    /// How far noise can move each class's logit, in integers of the last map: [`FURTHEST`] deviations of its own noise, and every table of
    /// the last hidden stage whose sum is as near to an edge moved to its disadvantage. Not counted: what moved tables of earlier
    /// stages do.
    pub reach: Vec<f64>,
    /// The same for the comparison of two logits, where labels alone are asked for.
    pub comparison: f64,
}

impl Noise {
    /// Standard deviation of a bootstrapped value, in shares of the torus: what the quantiser reckons with.
    #[must_use]
    pub fn bootstrapped() -> f64 {
        bootstrap_variance().sqrt()
    }

    /// Of a circuit that is valid.
    #[must_use]
    pub fn of(circuit: &TableCircuit) -> Self {
        let mut read = fresh_variance();
        let (mut boxes, mut brought) = (Vec::new(), Vec::new());
        for stage in &circuit.stages {
            let sums = worst_norm(&stage.rows) * read;
            let width = 1.0 / (2.0 * stage.boxes() as f64);
            brought.push(sums.sqrt() / width);
            boxes.push((sums + keyswitch_variance() + switch_variance()).sqrt() / width);
            read = bootstrap_variance();
        }
        let rows = &circuit.logits.rows;
        let range = 2.0 * (1_u64 << circuit.logits.log2_range) as f64;
        let logit =
            |row: usize| (rows.norm_squared(row) * read + keyswitch_variance() + result_variance()).sqrt() * range;
        // Compared are halves. What two rows read is the same, so their noise may add up.
        let compared = 4.0 * worst_norm(rows) * read + keyswitch_variance() + switch_variance();
        let comparison = compared.sqrt() * 2.0 * range;
        Self { boxes, logits: (0..rows.len()).map(logit).collect(), comparison, brought }
    }

    /// Refuses a circuit that noise would drown.
    ///
    /// # Errors
    /// [`ExactError::TableBits`], [`ExactError::Noise`], naming the stage.
    pub fn check(&self, circuit: &TableCircuit) -> Result<(), ExactError> {
        // A box of at least eight coefficients.
        let most_bits = PARAMETERS.polynomial_size.ilog2() - 3;
        for (stage, &found) in circuit.stages.iter().zip(&self.brought) {
            if stage.bits > most_bits {
                return Err(ExactError::TableBits {
                    stage: stage.name.clone(),
                    found: stage.bits,
                    expected: most_bits,
                });
            }
            if found > WORST_BOXES {
                let expected = WORST_BOXES;
                return Err(ExactError::Noise {
                    stage: stage.name.clone(),
                    found,
                    expected,
                    unit: "boxes of its tables",
                });
            }
        }
        let range = (1_u64 << circuit.logits.log2_range) as f64;
        let found = self.logits.iter().fold(0.0, |most: f64, deviation| most.max(*deviation)) / range;
        if found > WORST_LOGIT {
            let (stage, expected) = (circuit.logits.name.clone(), WORST_LOGIT);
            return Err(ExactError::Noise { stage, found, expected, unit: "of the logits' range" });
        }
        Ok(())
    }

    /// Refuses to ask a circuit for labels alone where they could not be told.
    ///
    /// # Errors
    /// [`ExactError::Answer`], [`ExactError::Noise`].
    pub fn check_answer(&self, circuit: &TableCircuit, answer: Answer) -> Result<(), ExactError> {
        if answer == Answer::Scores {
            return Ok(());
        }
        let (name, classes) = (&circuit.logits.name, circuit.classes());
        let refused = |what, found: usize, expected: String| {
            Err(ExactError::Answer { place: name.clone(), what, found: found.to_string(), expected })
        };
        if circuit.stages.is_empty() {
            return refused("stages of tables", 0, "at least one".to_owned());
        }
        let most = most_classes();
        if !(2..=most).contains(&classes) {
            return refused("classes", classes, format!("2 to {most}"));
        }
        let found = self.comparison / (1_u64 << circuit.logits.log2_range) as f64;
        if found > WORST_LOGIT {
            let (stage, expected) = (name.clone(), WORST_LOGIT);
            return Err(ExactError::Noise { stage, found, expected, unit: "of the logits' range, where compared" });
        }
        Ok(())
    }

    /// What noise is expected to do to an image with these sums.
    #[must_use]
    pub fn odds(&self, circuit: &TableCircuit, trace: &Trace) -> Odds {
        let mut moved = 0.0;
        let (mut variances, mut jumps) = (Vec::new(), Vec::new());
        for ((stage, sums), &deviation) in circuit.stages.iter().zip(&trace.sums).zip(&self.boxes) {
            let odds: Vec<Neighbours> =
                sums.iter().enumerate().map(|(row, &sum)| Neighbours::of(stage, row, sum, deviation)).collect();
            moved += odds.iter().map(|one| one.chance).sum::<f64>();
            variances = odds.iter().map(|one| one.variance).collect();
            jumps = odds.into_iter().map(|one| one.jump).collect();
        }
        let rows = &circuit.logits.rows;
        let (best, second) = two_largest(&trace.logits);
        // Both rows read the same values, so the difference's weights are what counts.
        let mut weights = vec![0.0; variances.len().max(circuit.inputs())];
        rows.row(best).for_each(|(column, weight)| weights[column] += weight as f64);
        rows.row(second).for_each(|(column, weight)| weights[column] -= weight as f64);
        let of_tables: f64 = weights.iter().zip(&variances).map(|(weight, variance)| weight * weight * variance).sum();
        let at = |row: usize| self.logits.get(row).copied().unwrap_or(0.0);
        let own = at(best) * at(best) + at(second) * at(second);
        let margin =
            (trace.logits.get(best).copied().unwrap_or(0) - trace.logits.get(second).copied().unwrap_or(0)) as f64;
        let reach = |class: usize| {
            let of_tables =
                rows.row(class).map(|(column, weight)| weight.abs() as f64 * jumps.get(column).unwrap_or(&0.0));
            FURTHEST * at(class) + of_tables.sum::<f64>()
        };
        let reach = (0..rows.len()).map(reach).collect();
        let comparison = FURTHEST * self.comparison;
        Odds { moved, margin_deviation: (of_tables + own).sqrt(), margin, reach, comparison }
    }
}

impl Odds {
    /// Whether the label may differ from the oracle's because a sum stood near the edge of a box, or two logits near each
    /// other: the margin is within four standard deviations.
    #[must_use]
    pub fn unsure(&self) -> bool {
        self.margin <= 4.0 * self.margin_deviation
    }

    /// Whether noise can have made this the label of an image with these logits: no other class stays above it whatever noise does
    /// within its reach.
    #[must_use]
    pub fn explains(&self, logits: &[i64], label: usize, answer: Answer) -> bool {
        let compared = if answer == Answer::Label { self.comparison } else { 0.0 };
        let at = |class: usize| {
            (logits.get(class).map_or(0.0, |&logit| logit as f64), self.reach.get(class).unwrap_or(&0.0))
        };
        let (own, reach) = at(label);
        (0..logits.len()).all(|class| class == label || own + reach + compared >= at(class).0 - at(class).1)
    }
}

/// What the boxes beside a sum's own mean for its table's value.
struct Neighbours {
    /// That noise moves the sum out of its box.
    chance: f64,
    /// Variance of the value that comes of it.
    variance: f64,
    /// Largest change of the value within [`FURTHEST`] deviations.
    jump: f64,
}

impl Neighbours {
    /// For noise with a deviation of so many boxes.
    fn of(stage: &TableStage, row: usize, sum: i64, deviation: f64) -> Self {
        let width = (1_i64 << stage.log2_box) as f64;
        let place = sum.rem_euclid(1 << stage.log2_box) as f64 / width;
        let value = stage.look_up(row, sum).value;
        let step = 1_i64 << stage.log2_box;
        let mut found = Self { chance: 0.0, variance: 0.0, jump: 0.0 };
        for (distance, side) in [(place, -1), (1.0 - place, 1)] {
            // Two boxes away are still counted: tables of many bits have narrow ones.
            let deviations = [distance / deviation, (distance + 1.0) / deviation];
            let chances = deviations.map(upper_tail);
            for (boxes, chance, away) in [(1, chances[0] - chances[1], deviations[0]), (2, chances[1], deviations[1])] {
                let change = (stage.look_up(row, sum + side * boxes * step).value - value) as f64;
                found.chance += chance;
                found.variance += chance * change * change;
                if away <= FURTHEST {
                    found.jump = found.jump.max(change.abs());
                }
            }
        }
        found
    }
}

/// Q(x) of the normal distribution, to 3e-7 relative for small x: Abramowitz and Stegun 7.1.26.
fn upper_tail(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    0.5 * polynomial * (-z * z).exp()
}

/// Indices of the largest sum and of the next; the first among equals.
fn two_largest(sums: &[i64]) -> (usize, usize) {
    let mut order: Vec<usize> = (0..sums.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sums[index]));
    (order.first().copied().unwrap_or(0), order.get(1).copied().unwrap_or(0))
}

fn worst_norm(rows: &Rows) -> f64 {
    (0..rows.len()).fold(0.0, |most: f64, row| most.max(rows.norm_squared(row)))
}

/// Most classes of which a label alone can be told: a win is [`FURTHEST`] deviations of the wins' noise.
fn most_classes() -> usize {
    let holds = |classes: usize| {
        let variance = (classes - 1) as f64 * bootstrap_variance() + keyswitch_variance() + switch_variance();
        win(classes) as f64 / torus() >= FURTHEST * variance.sqrt()
    };
    (2..=1024).take_while(|&classes| holds(classes)).last().unwrap_or(0)
}

/// 2^64, which is what tfhe's formulas call the modulus.
fn torus() -> f64 {
    64_f64.exp2()
}

/// Of a fresh body: tuniform's variance, and the rounding to its upper half.
fn fresh_variance() -> f64 {
    let rounded = (-8.0 * BODY_BYTES as f64).exp2();
    PARAMETERS.ring_noise().variance(torus()).0 + rounded * rounded / 12.0
}

fn keyswitch_variance() -> f64 {
    let p: &LweParameters = &PARAMETERS;
    let (base, levels) = p.keyswitch();
    keyswitch_additive_variance_132_bits_security_tuniform(p.big(), p.small(), base, levels, torus(), torus()).0
}

fn switch_variance() -> f64 {
    let p: &LweParameters = &PARAMETERS;
    let rotations = 2.0 * p.polynomial_size as f64;
    centered_binary_shifted_modulus_switch_additive_variance(p.small(), torus(), rotations).0
}

fn bootstrap_variance() -> f64 {
    let p: &LweParameters = &PARAMETERS;
    let (base, levels) = p.bootstrap();
    pbs_variance_132_bits_security_tuniform_fft_mul(
        p.small(),
        p.ring(),
        p.degree(),
        base,
        levels,
        MANTISSA_BITS,
        torus(),
    )
    .0
}

/// Rounding of mask and body of a result: half of the mask's counts.
fn result_variance() -> f64 {
    let rounded = (-8.0 * RESULT_BYTES as f64).exp2();
    rounded * rounded / 12.0 * (1.0 + PARAMETERS.lwe_dimension as f64 / 2.0)
}
