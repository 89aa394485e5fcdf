//! Measures what each kind of work takes on this machine: inner loops one by one ([`fit`]), then the whole engine on a made-up batch, by which
//! they are corrected. [`quick`] only compares a few loops with the figures that come with the program.

use super::EngineError;
use super::calibrate;
use crate::ckks::keys::EvaluationKey;
use crate::ckks::keyswitch::{KeySwitch, KeySwitchKey, Scratch};
use crate::ckks::{CkksError, Context, Parameters, ParametersLiteral};
use crate::format::Bytes;
use crate::plan::cost::{key_switch_pointwise, key_switch_transforms, width_bytes};
use crate::plan::defaults::{defaults, loop_secs};
use crate::plan::rates::{Rates, Unit, Work};
use crate::ring::kernels::{BlockOperands, BlockScratch, BlockWork, Kernel, Magnitudes, PackedBlock, Start, Zero};
use crate::ring::sampling::Stream;
use crate::ring::{Lines, Modulus, primes};
use std::cell::{Cell, RefCell};
use std::time::Instant;

const DEGREE: usize = 8192;
/// Columns of a tile, as wide stages have them.
const COLUMNS: usize = 16;
/// Residues of a piece of a batch that is read at once.
const PIECE: usize = 128;
/// Residues beyond the caches.
const LARGE: usize = 3 << 20;

/// Seconds of one round of `work`: the best of as many as fit the budget, at least two.
fn best_secs(budget_secs: f64, mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    for round in 0.. {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        if round > 0 && begin.elapsed().as_secs_f64() >= budget_secs {
            break;
        }
    }
    best
}

/// The default rates of the kernel, scaled to what a few inner loops take here: two milliseconds or so.
#[must_use]
pub fn quick(kernel: Kernel, threads: usize) -> Rates {
    const BUDGET_SECS: f64 = 2e-4;
    let mut rates = defaults(kernel, threads);
    let Ok(loops) = Loops::new(kernel, BUDGET_SECS) else { return rates };
    // Loops with loops: in a batch both take longer, as the default rates know.
    let [square_secs, expand_secs] = loop_secs(kernel);
    let log_ratio = (loops.square() / square_secs).ln() + (loops.expand() / expand_secs).ln();
    let ratio = (log_ratio / 2.0).exp().clamp(0.1, 10.0);
    for unit in Unit::ALL.into_iter().filter(|unit| !matches!(unit, Unit::Batch | Unit::ResultByte)) {
        rates.unit_secs.set(unit, rates.unit_secs.get(unit) * ratio);
    }
    rates
}

/// Rates of this machine with a kernel and so many threads, or with `stand_alone` those of the loops alone: seconds of measuring, up to half a minute with the slowest kernel. Writing files is not
/// the engine's affair: [`Unit::ResultByte`] and [`Unit::Batch`] are the defaults.
///
/// # Errors
/// [`EngineError`] if rings, threads or memory cannot be had.
pub fn fit(kernel: Kernel, threads: usize, stand_alone: bool) -> Result<Rates, EngineError> {
    const BUDGET_SECS: f64 = 0.007;
    /// Of all loops: where a core is slow for a while, some of its loops would seem slow beside the others.
    const ROUNDS: usize = 3;
    let mut loops = Loops::new(kernel, BUDGET_SECS)?;
    let mut rates = defaults(kernel, threads);
    let secs = &mut rates.unit_secs;
    for _ in 0..ROUNDS {
        loops.begin_round();
        loops.products(secs);
        secs.set(Unit::Square, loops.square());
        secs.set(Unit::Copy, loops.copy());
        secs.set(Unit::Expand, loops.expand());
        loops.memory(secs)?;
        loops.polynomials(secs)?;
        secs.set(Unit::Weight, loops.weight());
        secs.set(Unit::DigestByte, loops.digest());
    }
    if stand_alone {
        rates.thread_loss = 0.0;
    } else {
        calibrate::correct(&mut rates)?;
    }
    Ok(rates)
}

/// Operands for the inner loops.
struct Loops {
    kernel: Kernel,
    budget_secs: f64,
    /// Primes that residues are multiplied with whole, and in halves where the kernel has a choice.
    moduli: [Modulus; 2],
    stream: Stream,
    /// The best seconds of each loop in the rounds so far, in the order they are run in.
    best: RefCell<Vec<f64>>,
    /// Loops run in this round.
    run: Cell<usize>,
}

impl Loops {
    fn new(kernel: Kernel, budget_secs: f64) -> Result<Self, CkksError> {
        let prime =
            |target: u64| -> Result<Modulus, CkksError> { Ok(Modulus::new(primes::nearest(target, DEGREE, &[])?)?) };
        let moduli = [prime(1 << 43)?, prime((1 << 49) - (1 << 40))?];
        let stream = Stream::with_kernel(&[7; 32], kernel);
        Ok(Self { kernel, budget_secs, moduli, stream, best: RefCell::default(), run: Cell::default() })
    }

    /// The same loops in the same order once more: each gives the best of all rounds.
    fn begin_round(&mut self) {
        self.run.set(0);
    }

    /// Takes what the next loop took.
    fn best_of_rounds(&self, secs: f64) -> f64 {
        let (mut best, at) = (self.best.borrow_mut(), self.run.replace(self.run.get() + 1));
        if at == best.len() {
            best.push(secs);
        }
        best[at] = best[at].min(secs);
        best[at]
    }

    /// The next loop's best seconds.
    fn best_secs(&self, work: impl FnMut()) -> f64 {
        self.best_of_rounds(best_secs(self.budget_secs, work))
    }

    /// In memory that lies as the engine's.
    fn residues(&self, m: &Modulus, count: usize) -> Lines {
        let mut lines = Lines::default();
        let x = lines.first(count);
        self.stream.uniform_into(m, 0, 0, 0, x);
        self.kernel.nonzero_assign(m, x);
        lines
    }

    /// Block products of several shapes: seconds of each, and the units' seconds that explain them best.
    fn products(&self, secs: &mut Work) {
        // The smallest is multiplied as words by every kernel, other small ones by most.
        let shapes =
            [(5, 25), (1, 9), (8, 25), (4, 80), (2, 100), (16, 40), (10, 100), (64, 576), (100, 845), (128, 72)];
        let mut samples = Vec::new();
        for m in &self.moduli {
            for (rows, columns) in shapes {
                let row_words = 3 * COLUMNS;
                let weights: Vec<i16> = (0..rows * columns).map(|i| ((i * 37) % 255) as i16 - 127).collect();
                let block = PackedBlock::new(self.kernel, rows, columns, &weights);
                let x = self.residues(m, columns * row_words);
                let (ins, outs): (Vec<u32>, Vec<u32>) = ((0..columns as u32).collect(), (0..rows as u32).collect());
                let constants = vec![1; rows];
                let start = Start::Constants { values: &constants, columns: COLUMNS };
                let operands = BlockOperands { x: x.words(), columns: &ins, rows: &outs, row_words, start };
                let (mut scratch, mut out) = (BlockScratch::default(), Lines::default());
                let out = out.first(rows * row_words);
                let found = self.best_secs(|| block.mul_add_into(m, &operands, &mut scratch, out));
                let mut work = Work::default();
                let magnitudes = Magnitudes::new(columns, &weights);
                work.add_block(&BlockWork::new(self.kernel, rows, columns, magnitudes, m.bits()), row_words as u64);
                samples.push((work, found));
            }
        }
        explain(&samples, secs);
    }

    fn square(&self) -> f64 {
        let (m, rows) = (&self.moduli[0], 200);
        let x = self.residues(m, rows * 2 * COLUMNS);
        let (x, mut out) = (&x.words()[..rows * 2 * COLUMNS], Lines::default());
        let out = out.first(rows * 3 * COLUMNS);
        let found = self.best_secs(|| self.kernel.square_rows_into(m, COLUMNS, x, Zero::Modulus, out));
        found / out.len() as f64
    }

    fn copy(&self) -> f64 {
        let m = &self.moduli[0];
        let x = self.residues(m, 200 * COLUMNS);
        let (x, mut out) = (&x.words()[..200 * COLUMNS], Lines::default());
        let out = out.first(x.len());
        let found = self.best_secs(|| {
            for (out, x) in out.chunks_exact_mut(COLUMNS).zip(x.chunks_exact(COLUMNS)) {
                out.copy_from_slice(x);
                self.kernel.nonzero_assign(m, out);
            }
        });
        found / out.len() as f64
    }

    fn expand(&self) -> f64 {
        let m = &self.moduli[0];
        let mut out = Lines::default();
        let out = out.first(PIECE);
        let found = self.best_secs(|| {
            for entry in 0..8 {
                self.stream.uniform_into(m, entry, 0, 0, out);
                self.kernel.nonzero_assign(m, out);
            }
        });
        found / (8 * PIECE) as f64
    }

    fn digest(&self) -> f64 {
        let input = vec![1u8; LARGE];
        let found = self.best_secs(|| {
            std::hint::black_box(blake3::hash(&input));
        });
        found / input.len() as f64
    }

    fn weight(&self) -> f64 {
        let weights = vec![3i16; 100 * 845];
        let found = self.best_secs(|| {
            std::hint::black_box(PackedBlock::new(self.kernel, 100, 845, &weights));
        });
        // Cutting blocks to passes costs about as much again.
        2.0 * found / weights.len() as f64
    }

    /// What reads and writes memory beyond the caches.
    fn memory(&self, secs: &mut Work) -> Result<(), EngineError> {
        let m = &self.moduli[0];
        let width = width_bytes(m.value());
        let packed = vec![1u8; LARGE * width];
        // Every 61st piece of the memory, then the ones after them, so that neighbours are not read together.
        let unpack = |piece: usize| {
            let mut out = Lines::default();
            let out = out.first(piece);
            let pieces = LARGE / piece;
            let mut at = 0;
            let found = self.best_secs(|| {
                for _ in 0..1024 {
                    at = (at + 61) % pieces;
                    self.kernel.unpack_into(width, &packed[at * piece * width..][..piece * width], out);
                }
                self.kernel.nonzero_assign(m, out);
            });
            found / (1024 * piece) as f64
        };
        secs.set(Unit::Unpack, unpack(PIECE));
        secs.set(Unit::KeptRead, unpack(2 * COLUMNS));
        secs.set(Unit::Gather, unpack(2 * COLUMNS));
        let x = self.residues(m, 16 * PIECE);
        let x = &x.words()[..16 * PIECE];
        // Fresh memory every time: a batch's memory is fresh as well.
        let mut refused = None;
        let found = self.best_secs(|| match Bytes::zeroed(LARGE * width) {
            Ok(mut fresh) => {
                for piece in fresh.chunks_exact_mut(x.len() * width) {
                    self.kernel.pack_into(width, x, piece);
                }
            }
            Err(error) => refused = Some(error),
        });
        if let Some(error) = refused {
            return Err(EngineError::Memory { bytes: LARGE * width, reason: error.to_string() });
        }
        secs.set(Unit::Store, found / LARGE as f64);
        Ok(())
    }

    /// Transforms and key switches.
    fn polynomials(&self, secs: &mut Work) -> Result<(), EngineError> {
        let mut moduli = Vec::new();
        for target in [920_000_000_000u64, 921_000_000_000, 17_400_000_000_000, 362_000_000_000] {
            moduli.push(primes::nearest(target, DEGREE, &moduli).map_err(CkksError::from)?);
        }
        let special = moduli.split_off(3);
        let (limbs, digit_limbs) = (moduli.len(), 2);
        let parameters = Parameters::new(ParametersLiteral { degree: DEGREE, moduli, special, digit_limbs })?;
        let context = Context::new(parameters, self.kernel)?;
        let mut lines = self.residues(context.modulus(0), DEGREE);
        let x = lines.first(DEGREE);
        context.kernel().scale_assign(context.modulus(0), x, context.modulus(0).shoup(1));
        let both = self.best_secs(|| {
            context.ntt(0).forward_assign(x);
            context.ntt(0).inverse_assign(x);
        });
        let butterflies = (DEGREE / 2 * DEGREE.ilog2() as usize) as f64;
        secs.set(Unit::Butterfly, both / 2.0 / butterflies);

        let mut b = vec![0; context.parameters().digits() * context.all_limbs() * DEGREE];
        for (at, limb) in b.chunks_exact_mut(DEGREE).enumerate() {
            self.stream.uniform_into(context.modulus(at % context.all_limbs()), at as u32, 9, 0, limb);
        }
        let key_residues = 2 * b.len();
        let start = Instant::now();
        let key = KeySwitchKey::new(&context, EvaluationKey { mask_seed: [1; 32], b })?;
        let made = self.best_of_rounds(start.elapsed().as_secs_f64());
        secs.set(Unit::KeyResidue, 4.0 * made / key_residues as f64);
        let switch = KeySwitch::new(&context, limbs, true)?;
        let mut components = vec![0; 3 * limbs * DEGREE];
        for (at, limb) in components.chunks_exact_mut(DEGREE).enumerate() {
            self.stream.uniform_into(context.modulus(at % limbs), at as u32, 8, 0, limb);
        }
        let [mut o0, mut o1] = [0, 1].map(|_| vec![0; switch.output_limbs() * DEGREE]);
        let mut scratch = Scratch::default();
        let component = |c: usize| &components[c * limbs * DEGREE..][..limbs * DEGREE];
        let found = self.best_secs(|| {
            switch.apply(&context, &key, [0, 1, 2].map(component), &mut scratch, [&mut o0, &mut o1]);
        });
        let transforms = key_switch_transforms(limbs, 1, digit_limbs) as f64 * both / 2.0;
        let pointwise = (key_switch_pointwise(limbs, 1, digit_limbs) * DEGREE) as f64;
        secs.set(Unit::Pointwise, (found - transforms).max(0.05 * found) / pointwise);
        Ok(())
    }
}

/// Seconds a unit, none negative, that explain the samples best in relative terms: coordinate descent from what `secs` says.
fn explain(samples: &[(Work, f64)], secs: &mut Work) {
    const ROUNDS: usize = 2000;
    let units = Unit::ALL.into_iter().filter(|&unit| samples.iter().any(|(work, _)| work.get(unit) > 0.0));
    let units: Vec<Unit> = units.collect();
    let before = *secs;
    for _ in 0..ROUNDS {
        for &unit in &units {
            // Minimises the sum of ((predicted - found) / found)^2 in this unit alone.
            let (mut above, mut below) = (0.0, 0.0);
            for (work, found) in samples {
                let share = work.get(unit) * secs.get(unit);
                let others = units.iter().map(|&u| work.get(u) * secs.get(u)).sum::<f64>() - share;
                let slope = work.get(unit) / found;
                above += slope * (1.0 - others / found);
                below += slope * slope;
            }
            // Nothing is free: a floor keeps what only few samples tell apart from nothing.
            secs.set(unit, (above / below).max(0.1 * before.get(unit)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_made_the_samples_are_found_again() {
        let (word, output) = (2e-10, 3e-9);
        let samples: Vec<(Work, f64)> = [(10, 1), (200, 5), (4000, 30), (50, 40)]
            .map(|(products, outputs)| {
                let mut work = Work::default();
                work.add(Unit::WordProduct, products);
                work.add(Unit::WordOutput, outputs);
                (work, products as f64 * word + outputs as f64 * output)
            })
            .to_vec();
        let mut secs = defaults(Kernel::portable(), 1).unit_secs;
        explain(&samples, &mut secs);
        assert!((secs.get(Unit::WordProduct) / word - 1.0).abs() < 1e-3, "{secs:?}");
        assert!((secs.get(Unit::WordOutput) / output - 1.0).abs() < 1e-3, "{secs:?}");
    }

    #[test]
    fn a_loop_is_as_fast_as_in_its_best_round() {
        let mut loops = Loops::new(Kernel::portable(), 0.0).unwrap();
        let mut round = |secs: [f64; 3]| {
            loops.begin_round();
            secs.map(|secs| loops.best_of_rounds(secs))
        };
        assert_eq!(round([3.0, 1.0, 2.0]), [3.0, 1.0, 2.0]);
        assert_eq!(round([1.0, 4.0, 2.5]), [1.0, 1.0, 2.0]);
        assert_eq!(round([2.0, 0.5, 9.0]), [1.0, 0.5, 2.0]);
    }

    #[test]
    fn every_kernel_has_rates_here() {
        for kernel in Kernel::present() {
            let rates = quick(kernel, 2);
            let all = Unit::ALL.map(|unit| rates.unit_secs.get(unit));
            assert!(all.iter().all(|&secs| secs > 0.0 && secs < 1.0), "{}: {rates:?}", kernel.name());
            assert_eq!((rates.kernel, rates.threads), (kernel, 2));
        }
    }
}
