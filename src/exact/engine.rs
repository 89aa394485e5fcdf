//! Runs a table circuit on encrypted images, one image at a time, its neurons in parallel. Holds no secret.
//!
//! Ciphertexts over the big key are `[N + 1]` numbers of 64 bits, mask first, body last. The bytes of an image stay in their ring
//! ciphertexts; a row of the first map reads each coefficient it needs where it stands. A neuron is: sum, switch to the small
//! key, centred switch to the modulus 2N, blind rotation of its table, extraction of coefficient 0. A thread rotates the tables of a
//! few neurons together, so that each part of the bootstrapping key (60 MB in all) comes out of memory once for all of them.

use std::time::Instant;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tfhe::core_crypto::algorithms::modulus_switch::ModulusSwitchedLweCiphertext;
use tfhe::core_crypto::fft_impl::fft64::crypto::bootstrap::batch_blind_rotate_assign_scratch;
use tfhe::core_crypto::prelude::{
    CiphertextCount, CiphertextModulusLog, ComputationBuffers, ContiguousEntityContainer, DefaultRandomGenerator, Fft,
    GlweCiphertextList, GlweCiphertextOwned, LweCiphertext, LweCiphertextOwned, LweDimension, MonomialDegree,
    SeededGlweCiphertext, decompress_seeded_glwe_ciphertext, extract_lwe_sample_from_glwe_ciphertext,
    keyswitch_lwe_ciphertext, lwe_ciphertext_centered_binary_modulus_switch,
};

use super::ExactError;
use super::answer::{Answer, YES, win};
use super::error::same_size;
use super::keys::{EvaluationKey, MaskSeed, ServerKey, compression_seed};
use super::noise::Noise;
use super::parameters::{BODY_BYTES, LweParameters, PARAMETERS, RESULT_BYTES};
use crate::net::TableCircuit;
use crate::net::tables::Rows;

const BODY_SHIFT: u32 = 64 - 8 * BODY_BYTES as u32;
const RESULT_SHIFT: u32 = 64 - 8 * RESULT_BYTES as u32;

/// Neurons whose tables a thread rotates together, at most: 64 kB each, within a core's second-level cache.
const GROUP: usize = 8;

/// Seconds that an image should take.
#[derive(Clone, Copy, Debug)]
pub struct ImageSecs {
    /// Its scores.
    scores: f64,
    /// The comparisons for its label.
    comparisons: f64,
}

impl ImageSecs {
    /// For what is asked.
    #[must_use]
    pub fn of(self, answer: Answer) -> f64 {
        match answer {
            Answer::Scores => self.scores,
            Answer::Label => self.scores + self.comparisons,
        }
    }
}

/// A circuit, a key and threads.
pub struct Engine {
    circuit: TableCircuit,
    /// log2 of what 1 is on the torus, for each map.
    units: Vec<u32>,
    key: ServerKey,
    fft: Fft,
    pool: ThreadPool,
}

/// One thread's working memory.
struct Scratch {
    buffers: ComputationBuffers,
    small: LweCiphertextOwned<u64>,
    /// `[neuron of the group][2][N]`, each a mask and a body.
    tables: Vec<u64>,
    switched: Vec<Switched>,
}

/// A ciphertext under the small key, modulo 2N.
struct Switched {
    mask: Vec<usize>,
    body: usize,
}

impl ModulusSwitchedLweCiphertext<usize> for Switched {
    fn log_modulus(&self) -> CiphertextModulusLog {
        PARAMETERS.rotation_modulus()
    }

    fn lwe_dimension(&self) -> LweDimension {
        PARAMETERS.small()
    }

    fn body(&self) -> usize {
        self.body
    }

    fn mask(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.mask.iter().copied()
    }
}

/// What a bootstrap looks up.
#[derive(Clone, Copy)]
enum Table<'a> {
    /// A value for each box of the upper half of the torus, 1 at 2^`unit`; the negatives below.
    Values { values: &'a [i16], unit: u32 },
    /// This above zero, and its negative below.
    Sign(u64),
}

/// What a map reads.
enum Inputs<'a> {
    /// Masks, and bodies, of the ring ciphertexts that an image is in; the image's entries lie N in each.
    Image { masks: &'a [Vec<u64>], bodies: &'a [u32] },
    /// Ciphertexts of values, `[value][N + 1]`.
    Values(&'a [Vec<u64>]),
}

impl Engine {
    /// Prepares key and threads: about a second, and 130 MB while it lasts, half of it after.
    ///
    /// # Errors
    /// A circuit that is not sound, or whose tables the ring cannot tell apart, or whose later stages would drown in noise
    /// (named); a key of another size; no threads.
    pub fn new(circuit: TableCircuit, key: &EvaluationKey, threads: usize) -> Result<Self, ExactError> {
        circuit.validate()?;
        Noise::of(&circuit).check(&circuit)?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|thread| format!("exact {thread}"))
            .build()
            .map_err(|error| ExactError::Threads { threads, reason: error.to_string() })?;
        let fft = Fft::new(PARAMETERS.degree());
        Ok(Self { units: circuit.log2_units(), circuit, key: ServerKey::new(key)?, fft, pool })
    }

    /// The circuit.
    #[must_use]
    pub fn circuit(&self) -> &TableCircuit {
        &self.circuit
    }

    /// Runs `work` on the engine's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// Whether the circuit can be asked for that.
    ///
    /// # Errors
    /// [`ExactError::Answer`]: labels of a circuit without a table, of a single class, or of too many to tell apart.
    pub fn check_answer(&self, answer: Answer) -> Result<(), ExactError> {
        Noise::of(&self.circuit).check_answer(&self.circuit, answer)
    }

    /// Seconds that an image should take, from a few groups of each stage's neurons on every thread, done here. A comparison for the label
    /// takes what a bootstrap of the last stage does.
    #[must_use]
    pub fn image_secs(&self) -> ImageSecs {
        const GROUPS: usize = 2;
        let degree = PARAMETERS.polynomial_size;
        // The time does not depend on what is in a ciphertext.
        let made_up: Vec<u64> = (0..=degree as u64).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let inputs = self.circuit.inputs();
        let masks = vec![made_up[..degree].to_vec(); inputs.div_ceil(degree)];
        let mut made = Hidden { masks, bodies: vec![0x9e37_79b9; inputs], values: Vec::new() };
        let (mut secs, mut bootstrap_secs) = (0.0, 0.0);
        for (index, stage) in self.circuit.stages.iter().enumerate() {
            let rows = stage.rows.len();
            let some = rows.min(GROUPS * GROUP * self.pool.current_num_threads());
            if index == 0 {
                drop(self.stage(index, &made.inputs(), some.div_ceil(GROUPS), Answer::Scores, &|| {}));
            }
            let since = Instant::now();
            drop(self.stage(index, &made.inputs(), some, Answer::Scores, &|| {}));
            bootstrap_secs = since.elapsed().as_secs_f64() / some.max(1) as f64;
            secs += bootstrap_secs * rows as f64;
            made.values = vec![made_up.clone(); rows];
        }
        let since = Instant::now();
        drop(self.pool.install(|| self.results(&made)));
        let compared = Answer::Label.bootstraps(self.circuit.classes());
        ImageSecs { scores: secs + since.elapsed().as_secs_f64(), comparisons: bootstrap_secs * compared as f64 }
    }

    /// Neurons that are rotated together in a stage of so many: all threads should have some.
    fn group(&self, neurons: usize) -> usize {
        neurons.div_ceil(self.pool.current_num_threads()).clamp(1, GROUP)
    }

    /// Results of an image, `[class][n + 1]`; `done` is called, from several threads, for each bootstrap.
    ///
    /// # Errors
    /// [`ExactError::Size`] for another number of seeds or bodies than an image has, [`ExactError::Answer`] as from
    /// [`check_answer`](Self::check_answer).
    pub fn run(
        &self,
        seeds: &[MaskSeed],
        bodies: &[u32],
        answer: Answer,
        done: &(dyn Fn() + Sync),
    ) -> Result<Vec<u16>, ExactError> {
        self.check_answer(answer)?;
        let hidden = self.hidden(seeds, bodies, answer, done)?;
        match answer {
            Answer::Scores => Ok(self.pool.install(|| self.results(&hidden))),
            Answer::Label => {
                let bits = self.label_bits(&hidden, done);
                Ok(self.pool.install(|| bits.into_par_iter().map(|bit| self.result(bit)).collect::<Vec<_>>().concat()))
            }
        }
    }

    /// log2 of what 1 is on the torus in what map `index` reads. Scores to be compared are half as large as scores to be told, so that
    /// their differences do not wrap.
    fn unit(&self, index: usize, answer: Answer) -> u32 {
        let halved = answer == Answer::Label && index + 1 == self.units.len();
        self.units[index] - u32::from(halved)
    }

    /// What an image is, before any map, and after all hidden ones.
    fn hidden(
        &self,
        seeds: &[MaskSeed],
        bodies: &[u32],
        answer: Answer,
        done: &(dyn Fn() + Sync),
    ) -> Result<Hidden, ExactError> {
        same_size("bodies of an image", bodies.len(), self.circuit.inputs())?;
        same_size("seeds of an image", seeds.len(), bodies.len().div_ceil(PARAMETERS.polynomial_size))?;
        let masks: Vec<Vec<u64>> = seeds.iter().map(expand_mask).collect();
        let mut hidden = Hidden { masks, bodies: bodies.to_vec(), values: Vec::new() };
        for (index, stage) in self.circuit.stages.iter().enumerate() {
            hidden.values = self.stage(index, &hidden.inputs(), stage.rows.len(), answer, done);
        }
        Ok(hidden)
    }

    /// Values of a stage's first `rows` neurons.
    fn stage(
        &self,
        index: usize,
        inputs: &Inputs<'_>,
        rows: usize,
        answer: Answer,
        done: &(dyn Fn() + Sync),
    ) -> Vec<Vec<u64>> {
        let stage = &self.circuit.stages[index];
        let [read, unit] = [self.unit(index, answer), self.unit(index + 1, answer)];
        let sum = |row| (sum_row(&stage.rows, row, read, inputs), Table::Values { values: stage.table(row), unit });
        self.look_up_all(rows, &sum, done)
    }

    /// A bit for each class, at [`YES`]: whether its score is above all others, the first of equals being above.
    fn label_bits(&self, hidden: &Hidden, done: &(dyn Fn() + Sync)) -> Vec<Vec<u64>> {
        let (rows, degree) = (&self.circuit.logits.rows, PARAMETERS.polynomial_size);
        let unit = self.unit(self.units.len() - 1, Answer::Label);
        let inputs = hidden.inputs();
        let classes = rows.len();
        let scores: Vec<Vec<u64>> =
            self.pool.install(|| (0..classes).into_par_iter().map(|row| sum_row(rows, row, unit, &inputs)).collect());
        let pairs: Vec<(usize, usize)> =
            (0..classes).flat_map(|first| (first + 1..classes).map(move |second| (first, second))).collect();
        let compare = |pair: usize| {
            let (first, second) = pairs[pair];
            let (first, second) = (scores[first].iter(), scores[second].iter());
            let mut difference: Vec<u64> = first.zip(second).map(|(one, other)| one.wrapping_sub(*other)).collect();
            // Between two integers, so that noise is as far from turning an equality as from turning a difference of 1.
            difference[degree] = difference[degree].wrapping_add(1 << (unit - 1));
            (difference, Table::Sign(win(classes)))
        };
        let won = self.look_up_all(pairs.len(), &compare, done);
        let all_won = |class: usize| {
            let mut wins = vec![0_u64; degree + 1];
            for (&(first, second), won) in pairs.iter().zip(&won) {
                let sign = if class == first { 1 } else { u64::MAX };
                if class == first || class == second {
                    wins.iter_mut().zip(won).for_each(|(wins, &won)| *wins = wins.wrapping_add(won.wrapping_mul(sign)));
                }
            }
            // All won is one win above zero, anything else one or more below.
            wins[degree] = wins[degree].wrapping_sub((classes as u64 - 2).wrapping_mul(win(classes)));
            (wins, Table::Sign(YES / 2))
        };
        let mut bits = self.look_up_all(classes, &all_won, done);
        bits.iter_mut().for_each(|bit| bit[degree] = bit[degree].wrapping_add(YES / 2));
        bits
    }

    /// Looks up a table for each of `count` sums, by all threads, a group of them at a time.
    fn look_up_all<'a>(
        &self,
        count: usize,
        sum: &(dyn Fn(usize) -> (Vec<u64>, Table<'a>) + Sync),
        done: &(dyn Fn() + Sync),
    ) -> Vec<Vec<u64>> {
        let group = self.group(count);
        let values: Vec<Vec<Vec<u64>>> = self.pool.install(|| {
            (0..count.div_ceil(group))
                .into_par_iter()
                .with_max_len(1)
                .map_init(
                    || self.scratch(),
                    |scratch, at| {
                        let picked = at * group..count.min((at + 1) * group);
                        let values = self.look_up(picked.map(sum), scratch);
                        values.iter().for_each(|_| done());
                        values
                    },
                )
                .collect()
        });
        values.concat()
    }

    /// The last map's sums under the small key, rounded.
    fn results(&self, hidden: &Hidden) -> Vec<u16> {
        let rows = &self.circuit.logits.rows;
        let unit = self.units.last().copied().unwrap_or(0);
        let inputs = hidden.inputs();
        let class = |row: usize| self.result(sum_row(rows, row, unit, &inputs));
        let classes: Vec<Vec<u16>> = (0..rows.len()).into_par_iter().map(class).collect();
        classes.concat()
    }

    /// A ciphertext under the small key, rounded.
    fn result(&self, ciphertext: Vec<u64>) -> Vec<u16> {
        let p: &LweParameters = &PARAMETERS;
        let mut small = LweCiphertext::new(0, p.small().to_lwe_size(), p.modulus());
        let ciphertext = LweCiphertext::from_container(ciphertext, p.modulus());
        keyswitch_lwe_ciphertext(&self.key.keyswitch, &ciphertext, &mut small);
        let half = 1_u64 << (RESULT_SHIFT - 1);
        small.as_ref().iter().map(|number| (number.wrapping_add(half) >> RESULT_SHIFT) as u16).collect()
    }

    fn scratch(&self) -> Scratch {
        let p: &LweParameters = &PARAMETERS;
        let mut buffers = ComputationBuffers::new();
        let needed = batch_blind_rotate_assign_scratch::<u64>(
            p.ring().to_glwe_size(),
            p.degree(),
            CiphertextCount(GROUP),
            self.fft.as_view(),
        );
        buffers.resize(needed.unaligned_bytes_required());
        let small = LweCiphertext::new(0, p.small().to_lwe_size(), p.modulus());
        Scratch { buffers, small, tables: Vec::new(), switched: Vec::new() }
    }

    /// A programmable bootstrap of each sum, at most [`GROUP`] of them: its table at the box that it is in.
    fn look_up<'a>(&self, sums: impl Iterator<Item = (Vec<u64>, Table<'a>)>, scratch: &mut Scratch) -> Vec<Vec<u64>> {
        let p: &LweParameters = &PARAMETERS;
        let Scratch { buffers, small, tables, switched } = scratch;
        tables.clear();
        switched.clear();
        for (sum, table) in sums {
            keyswitch_lwe_ciphertext(&self.key.keyswitch, &LweCiphertext::from_container(sum, p.modulus()), small);
            // The centred switch maps [k, k + 1) of 2N to k, so that a box is its coefficients and nothing is shifted by half.
            let lazy =
                lwe_ciphertext_centered_binary_modulus_switch::<u64, usize, _>(small.as_view(), p.rotation_modulus());
            switched.push(Switched { mask: lazy.mask().collect(), body: lazy.body() });
            let body = tables.len() + p.polynomial_size;
            tables.resize(body + p.polynomial_size, 0);
            match table {
                Table::Sign(value) => tables[body..].fill(value),
                Table::Values { values, unit } => {
                    let width = (p.polynomial_size / values.len().max(1)).max(1);
                    for (coefficients, &value) in tables[body..].chunks_mut(width).zip(values) {
                        coefficients.fill((i64::from(value) as u64) << unit);
                    }
                }
            }
        }
        let size = p.ring().to_glwe_size();
        self.key.bootstrap.as_view().batch_blind_rotate_assign(
            GlweCiphertextList::from_container(tables.as_mut_slice(), size, p.degree(), p.modulus()),
            switched,
            self.fft.as_view(),
            buffers.stack(),
        );
        let rotated = GlweCiphertextList::from_container(tables.as_slice(), size, p.degree(), p.modulus());
        let first = |rotated| {
            let mut value = LweCiphertext::new(0, p.big().to_lwe_size(), p.modulus());
            extract_lwe_sample_from_glwe_ciphertext(&rotated, &mut value, MonomialDegree(0));
            value.into_container()
        };
        rotated.iter().map(first).collect()
    }

    /// Values of the last hidden stage, for the tests that look inside.
    #[cfg(test)]
    pub(super) fn hidden_values(&self, seeds: &[MaskSeed], bodies: &[u32]) -> Vec<Vec<u64>> {
        self.hidden(seeds, bodies, Answer::Scores, &|| {}).unwrap().values
    }
}

/// An image and what its hidden stages gave.
struct Hidden {
    masks: Vec<Vec<u64>>,
    bodies: Vec<u32>,
    values: Vec<Vec<u64>>,
}

impl Hidden {
    /// What the next map reads: the image until there are values.
    fn inputs(&self) -> Inputs<'_> {
        if self.values.is_empty() {
            Inputs::Image { masks: &self.masks, bodies: &self.bodies }
        } else {
            Inputs::Values(&self.values)
        }
    }
}

/// The mask of a seeded ring ciphertext.
fn expand_mask(seed: &MaskSeed) -> Vec<u64> {
    let p: &LweParameters = &PARAMETERS;
    let size = p.ring().to_glwe_size();
    let body = vec![0_u64; p.polynomial_size];
    let seeded = SeededGlweCiphertext::from_container(body, size, compression_seed(seed), p.modulus());
    let mut expanded = GlweCiphertextOwned::new(0, size, p.degree(), p.modulus());
    decompress_seeded_glwe_ciphertext::<u64, _, _, DefaultRandomGenerator>(&mut expanded, &seeded);
    expanded.get_mask().as_ref().to_vec()
}

/// One row's sum, `[N + 1]`, with 1 at 2^`unit` as in what it reads.
fn sum_row(rows: &Rows, row: usize, unit: u32, inputs: &Inputs<'_>) -> Vec<u64> {
    let degree = PARAMETERS.polynomial_size;
    let mut sum = vec![0_u64; degree + 1];
    for (column, weight) in rows.row(row) {
        let weight = weight as u64;
        match inputs {
            Inputs::Values(values) => {
                for (sum, &value) in sum.iter_mut().zip(&values[column]) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(value));
                }
            }
            Inputs::Image { masks, bodies } => {
                // Coefficient c of a s is sum over j of a[c - j] s[j], with -a[N + c - j] where j is above c.
                let (mask, coefficient) = (&masks[column / degree], column % degree);
                let (low, rest) = sum.split_at_mut(coefficient + 1);
                for (sum, &number) in low.iter_mut().zip(mask[..=coefficient].iter().rev()) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(number));
                }
                for (sum, &number) in rest.iter_mut().zip(mask[coefficient + 1..].iter().rev()) {
                    *sum = sum.wrapping_sub(weight.wrapping_mul(number));
                }
                let body = u64::from(bodies[column]) << BODY_SHIFT;
                sum[degree] = sum[degree].wrapping_add(weight.wrapping_mul(body));
            }
        }
    }
    sum[degree] = sum[degree].wrapping_add((rows.bias[row] as u64) << unit);
    sum
}
