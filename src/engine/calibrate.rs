//! The whole engine on a made-up batch, to correct what inner loops alone say: caches are shared there, and memory is fresh.
//!
//! Ciphertexts, key and weights are arbitrary numbers: evaluation takes the same time whatever they mean.

use super::{Engine, EngineError, Event, Inputs};
use crate::ckks::Context;
use crate::ckks::keys::EvaluationKey;
use crate::format::FormatError;
use crate::format::ciphertexts::Blocks;
use crate::net::circuit::{Block, Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use crate::plan::cost::{Cost, cost, width_bytes};
use crate::plan::rates::{Rates, Unit};
use crate::plan::{Plan, Requirements, scales};
use crate::ring::Modulus;
use crate::ring::kernels::{self, Kernel};
use crate::ring::sampling::Stream;
use std::sync::Mutex;
use std::time::Instant;

/// Entries of the batch: as many as a small picture has, since caches and fresh memory are what is to be corrected for.
const INPUTS: usize = 784;
/// Runs at most.
const RUNS: usize = 9;
/// Runs that are begun after this are not: cores are slower for seconds at times.
const BUDGET_SECS: f64 = 4.0;
/// One run in so many is faster than the one that counts.
const QUARTER: usize = 4;
/// More than this is not the threads' doing.
const MOST_THREAD_LOSS: f64 = 0.3;

/// Units that the tiles take.
const TILES: [Unit; 12] = [
    Unit::WordProduct,
    Unit::HalfProduct,
    Unit::WordOutput,
    Unit::ByteProduct,
    Unit::SplitByte,
    Unit::JoinedByte,
    Unit::Square,
    Unit::Copy,
    Unit::KeptRead,
    Unit::Unpack,
    Unit::Expand,
    Unit::Store,
];
/// Units that key switches take.
const POLYNOMIALS: [Unit; 3] = [Unit::Gather, Unit::Butterfly, Unit::Pointwise];

/// Packed residues in memory, where a batch's file has them.
struct MadeUp {
    kernel: Kernel,
    blocks: Blocks,
    moduli: Vec<Modulus>,
    /// By limb.
    packed: Vec<Vec<u8>>,
    masks: Stream,
}

impl MadeUp {
    fn new(context: &Context) -> Self {
        let (kernel, degree) = (context.kernel(), context.degree());
        let masks = Stream::with_kernel(&[3; 32], kernel);
        let moduli: Vec<Modulus> = (0..context.limbs()).map(|limb| *context.modulus(limb)).collect();
        let mut words = vec![0; degree];
        // Any residues in any order: where they are read is what counts.
        let packed = (0..).zip(&moduli).map(|(limb, m)| {
            let width = width_bytes(m.value());
            let mut packed = vec![0; INPUTS * degree * width];
            for (entry, packed) in (0..).zip(packed.chunks_exact_mut(degree * width)) {
                masks.uniform_into(m, entry, limb + 1000, 0, &mut words);
                kernel.pack_into(width, &words, packed);
            }
            packed
        });
        let packed = packed.collect();
        Self { kernel, blocks: Blocks::new(INPUTS, degree), moduli, packed, masks }
    }
}

impl Inputs for MadeUp {
    fn load_into(
        &self,
        component: usize,
        limb: usize,
        entry: usize,
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        let m = &self.moduli[limb];
        if component == 1 {
            self.masks.uniform_into(m, entry as u32, limb as u32, first, out);
        } else {
            let width = width_bytes(m.value());
            let mut done = 0;
            while done < out.len() {
                let (place, side_by_side) = self.blocks.place(entry, first + done);
                let out = &mut out[done..];
                let count = side_by_side.min(out.len());
                self.kernel.unpack_into(width, &self.packed[limb][place * width..][..count * width], &mut out[..count]);
                done += count;
            }
        }
        Ok(())
    }

    fn prefetch(&self, limb: usize, entries: &[u32], first: usize, count: usize) {
        let width = width_bytes(self.moduli[limb].value());
        if let Some(place) = self.blocks.place_of_rows(entries, first, count) {
            return kernels::prefetch(&self.packed[limb][place * width..][..entries.len() * count * width]);
        }
        for &entry in entries {
            let (place, side_by_side) = self.blocks.place(entry as usize, first);
            kernels::prefetch(&self.packed[limb][place * width..][..count.min(side_by_side) * width]);
        }
    }

    fn load_rows_into(
        &self,
        component: usize,
        limb: usize,
        entries: &[u32],
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        let columns = out.len() / entries.len();
        if component == 1 {
            self.masks.uniform_rows_into(&self.moduli[limb], entries, limb as u32, first, out);
            return Ok(());
        }
        if let Some(place) = self.blocks.place_of_rows(entries, first, columns) {
            let width = width_bytes(self.moduli[limb].value());
            self.kernel.unpack_into(width, &self.packed[limb][place * width..][..out.len() * width], out);
            return Ok(());
        }
        let mut rows = entries.iter().zip(out.chunks_exact_mut(columns));
        rows.try_for_each(|(&entry, out)| self.load_into(component, limb, entry as usize, first, out))
    }
}

/// Small blocks, squares, a dense layer, squares, a dense layer: the kinds of work that every program is made of.
fn circuit() -> Circuit {
    let stats = StageStats { max_abs: 4.0, max_rms: 1.0, noise_gain: 2.0, noise_gain_worst: 4.0 };
    let stage = |name: &str, features: Vec<Feature>, outputs: usize, blocks: Vec<(Vec<u32>, Vec<u32>)>| {
        let blocks = blocks.into_iter().map(|(rows, columns)| Block {
            weights: (0..rows.len() * columns.len()).map(|i| ((i * 37) % 254) as i16 - 126).map(|w| w | 1).collect(),
            rows,
            columns,
        });
        let map = LinearMap {
            outputs,
            blocks: blocks.collect(),
            bias: vec![0.25; outputs],
            weight_scale: 4000.0,
            weight_bits: 8,
        };
        Stage { name: name.to_owned(), features, map, stats }
    };
    let features = |source: Source, kind: FeatureKind, count: usize| -> Vec<Feature> {
        (0..count as u32).map(|entry| Feature { source, kind, entry }).collect()
    };
    let small = (0..169u32).map(|i| ((5 * i..5 * i + 5).collect(), (4 * i..4 * i + 25).collect())).collect();
    let all = |count: usize| (0..count as u32).collect::<Vec<u32>>();
    Circuit {
        input_shape: [1, 1, INPUTS],
        input_stats: stats,
        stages: vec![
            stage("blocks", features(Source::Input, FeatureKind::Value, INPUTS), 845, small),
            stage("dense", features(Source::Stage(0), FeatureKind::Square, 845), 100, vec![(all(100), all(845))]),
            stage("logits", features(Source::Stage(1), FeatureKind::Square, 100), 10, vec![(all(10), all(100))]),
        ],
    }
}

/// Seconds of tiles and of polynomials in each run, the fastest first.
fn measured(circuit: &Circuit, plan: &Plan, kernel: Kernel, threads: usize) -> Result<Vec<[f64; 2]>, EngineError> {
    let context = Context::new(plan.parameters.clone(), kernel)?;
    let mut b = vec![0; context.parameters().digits() * context.all_limbs() * context.degree()];
    for (at, limb) in b.chunks_exact_mut(context.degree()).enumerate() {
        Stream::with_kernel(&[5; 32], kernel).uniform_into(
            context.modulus(at % context.all_limbs()),
            at as u32,
            0,
            0,
            limb,
        );
    }
    let batch = MadeUp::new(&context);
    let key = EvaluationKey { mask_seed: [1; 32], b };
    let engine = Engine::with_context(context, circuit.clone(), plan.clone(), Some(key), threads)?;
    let begin = Instant::now();
    let mut found: Vec<[f64; 2]> = Vec::new();
    for _ in 0..RUNS {
        if !found.is_empty() && begin.elapsed().as_secs_f64() > BUDGET_SECS {
            break;
        }
        // When the step began, which it is, and seconds of both.
        let clock = Mutex::new((Instant::now(), 0, [0.0; 2]));
        let turn = |next: usize| {
            let mut clock = clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (since, step, secs) = &mut *clock;
            secs[*step] += since.elapsed().as_secs_f64();
            (*since, *step) = (Instant::now(), next);
        };
        engine.run(&batch, &|event| match event {
            Event::Tiles { .. } => turn(0),
            Event::Polynomials { .. } => turn(1),
            Event::Done { .. } => {}
        })?;
        turn(0);
        // The next run finds its memory as the first batch of a job does.
        engine.release_memory();
        found.push(clock.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).2);
    }
    found.sort_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum()));
    Ok(found)
}

/// Scales the rates so that they foretell the made-up batch, on one thread and on all.
pub(super) fn correct(rates: &mut Rates) -> Result<(), EngineError> {
    let circuit = circuit();
    let plan = match scales::plan(&circuit, &Requirements::default()) {
        Ok(plan) => plan,
        // Only a changed security table could do this: the loops' rates stand as they are.
        Err(_) => return Ok(()),
    };
    let foretold = |rates: &Rates| {
        let Cost { stages, .. } = cost(&circuit, &plan, rates);
        [stages.iter().map(|s| s.tiles_secs).sum::<f64>(), stages.iter().map(|s| s.polynomials_secs).sum::<f64>()]
    };
    let alone = Rates { threads: 1, ..*rates };
    let [tiles, polynomials] = foretold(&alone);
    let runs = measured(&circuit, &plan, rates.kernel, 1)?;
    let [found_tiles, found_polynomials] = runs[runs.len() / QUARTER];
    for (units, ratio) in [(&TILES[..], found_tiles / tiles), (&POLYNOMIALS[..], found_polynomials / polynomials)] {
        for &unit in units {
            rates.unit_secs.set(unit, rates.unit_secs.get(unit) * ratio.clamp(0.3, 3.0));
        }
    }
    if rates.threads > 1 {
        let threads = rates.threads as f64;
        // The fastest of both: whatever else the machine does takes more from many threads than from one.
        let together = measured(&circuit, &plan, rates.kernel, rates.threads)?;
        let ratio = together[0].iter().sum::<f64>() * threads / runs[0].iter().sum::<f64>();
        rates.thread_loss = ((ratio - 1.0) / (threads - 1.0)).clamp(0.0, MOST_THREAD_LOSS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_up_batch_runs_and_is_foretold_in_part_by_every_unit_of_its_steps() {
        let circuit = circuit();
        circuit.validate().unwrap();
        let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
        let rates = crate::plan::defaults::defaults(Kernel::detect(), 1);
        let cost = cost(&circuit, &plan, &rates);
        let counted = |units: &[Unit], of: &dyn Fn(Unit) -> f64| units.iter().filter(|&&unit| of(unit) > 0.0).count();
        let tiles = |unit: Unit| cost.stages.iter().map(|s| s.tiles.get(unit)).sum::<f64>();
        let polynomials = |unit: Unit| cost.stages.iter().map(|s| s.polynomials.get(unit)).sum::<f64>();
        assert_eq!(counted(&POLYNOMIALS, &polynomials), POLYNOMIALS.len());
        assert_eq!(counted(&POLYNOMIALS, &tiles) + counted(&TILES, &polynomials), 0);
        assert!(counted(&TILES, &tiles) >= 6);
    }
}
