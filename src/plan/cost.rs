//! What a plan costs: operation counts (exact), bytes (exact payloads), memory and seconds (estimates from measured rates).

use super::passes::{Live, LocalBlock, Pass, last_reads, passes};
use super::rates::{Rates, Unit, Work};
use super::{After, Plan};
use crate::ckks::keyswitch::Scratch;
use crate::net::circuit::{Circuit, FeatureKind, Source};
use crate::ring::kernels::{BlockWork, Magnitudes};

/// Transforms of one key switch of `limbs` limbs merged with a rescale: c2 back, digits to the other primes, both sums down.
#[must_use]
pub fn key_switch_transforms(limbs: usize, special: usize, digit_limbs: usize) -> usize {
    let digits: usize = (0..limbs).step_by(digit_limbs).map(|d| limbs + special - digit_limbs.min(limbs - d)).sum();
    limbs + digits + 2 * (special + 1) + 2 * (limbs - 1)
}

/// Residues that the pointwise passes of such a key switch write: extensions of digits, products with the key, both sums down.
#[must_use]
pub fn key_switch_pointwise(limbs: usize, special: usize, digit_limbs: usize) -> usize {
    let digits: usize = (0..limbs).step_by(digit_limbs).map(|d| limbs + special - digit_limbs.min(limbs - d)).sum();
    let products = 2 * limbs.div_ceil(digit_limbs) * (limbs + special);
    digits + products + 2 * limbs + 2 * 2 * (limbs - 1)
}

/// Transforms of a relinearisation without rescale.
#[must_use]
pub fn relinearise_transforms(limbs: usize, special: usize, digit_limbs: usize) -> usize {
    key_switch_transforms(limbs, special, digit_limbs)
}

/// Residues that its pointwise passes write.
#[must_use]
pub fn relinearise_pointwise(limbs: usize, special: usize, digit_limbs: usize) -> usize {
    key_switch_pointwise(limbs, special, digit_limbs) + 2 * 2
}

/// Transforms of a rescale alone: what is divided out back, its rounding to the other primes.
#[must_use]
pub fn rescale_transforms(limbs: usize) -> usize {
    2 * limbs
}

/// Residues that its pointwise passes write.
#[must_use]
pub fn rescale_pointwise(limbs: usize) -> usize {
    2 * 2 * (limbs - 1)
}

/// Homomorphic operations of one stage for one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageCost {
    /// Ciphertext-scalar multiply-accumulates.
    pub products: u64,
    /// Ciphertext squarings (those in the first layer's outputs counted where they are used).
    pub squares: u64,
    /// Relinearisations: of outputs, merged with their rescales, and of outputs' squares.
    pub key_switches: u64,
    /// Number-theoretic transforms.
    pub transforms: u64,
    /// Passes over the tiles.
    pub passes: u64,
    /// What the tiles take, recomputation included.
    pub tiles: Work,
    /// What key switches or the results' transforms take.
    pub polynomials: Work,
    /// What is made ready by one thread before the tiles.
    pub preparation: Work,
    /// Seconds of the tiles and what they need made ready, at the rates given.
    pub tiles_secs: f64,
    /// Seconds of key switches or transforms.
    pub polynomials_secs: f64,
}

/// Cost of a whole batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Per stage, in order.
    pub stages: Vec<StageCost>,
    /// Payload of one batch encrypted with the secret key.
    pub input_bytes: u64,
    /// The same with the public key.
    pub public_input_bytes: u64,
    /// Payload of one batch of results.
    pub result_bytes: u64,
    /// Payload of the evaluation key.
    pub evaluation_key_bytes: u64,
    /// Payload of the public key.
    pub public_key_bytes: u64,
    /// Peak memory of the worker, mapped input included.
    pub peak_bytes: u64,
    /// The digest of one batch's file, at the rates given.
    pub check_secs: f64,
    /// Writing one batch's results.
    pub write_secs: f64,
    /// Key and tables, once a job.
    pub setup_secs: f64,
    /// One batch, file to file: check, stages, writing.
    pub batch_secs: f64,
}

/// Ciphertexts that a thread switches together: their coefficients and a prime's part of the key stay in the second-level cache.
pub const SWITCHED_TOGETHER: usize = 4;

/// Bytes that hold one residue of a prime.
#[must_use]
pub fn width_bytes(q: u64) -> usize {
    (64 - q.leading_zeros() as usize).div_ceil(8)
}

fn residue_bytes(moduli: &[u64]) -> u64 {
    moduli.iter().map(|&q| width_bytes(q) as u64).sum()
}

/// Counts everything.
#[must_use]
pub fn cost(circuit: &Circuit, plan: &Plan, rates: &Rates) -> Cost {
    let n = plan.slots() as u64;
    let p = &plan.parameters;
    let all: Vec<u64> = p.moduli().iter().chain(p.special()).copied().collect();
    let entries = circuit.input_shape.iter().product::<usize>() as u64;
    let outputs = circuit.stages.last().map_or(0, |s| s.map.outputs) as u64;
    let output = plan.output();

    let live = Live::new(circuit);
    let every_pass: Vec<Vec<Pass>> = (0..circuit.stages.len()).map(|k| passes(circuit, plan, k, &live)).collect();
    let stages: Vec<StageCost> =
        (0..circuit.stages.len()).map(|k| stage_cost(circuit, plan, k, &every_pass[k], rates)).collect();

    let input_bytes = entries * n * residue_bytes(p.moduli());
    let result_bytes = outputs * output.components as u64 * n * residue_bytes(&p.moduli()[..output.output_limbs]);
    let of = |unit: Unit, count: u64| {
        let mut work = Work::default();
        work.add(unit, count);
        work
    };
    let mut writing = of(Unit::ResultByte, result_bytes);
    writing.add(Unit::Batch, 1);
    let check_secs = rates.shared_secs(&of(Unit::DigestByte, input_bytes));
    let write_secs = rates.alone_secs(&writing);
    let key_residues = (2 * p.digits() * all.len() + 4 * all.len()) as u64 * n;
    let stages_secs: f64 = stages.iter().map(|s| s.tiles_secs + s.polynomials_secs).sum();
    Cost {
        input_bytes,
        public_input_bytes: 2 * input_bytes,
        result_bytes,
        evaluation_key_bytes: p.digits() as u64 * n * residue_bytes(&all),
        public_key_bytes: n * residue_bytes(&all),
        peak_bytes: peak_bytes(circuit, plan, &every_pass, input_bytes, rates.threads),
        check_secs,
        write_secs,
        setup_secs: rates.alone_secs(&of(Unit::KeyResidue, key_residues)),
        batch_secs: check_secs + stages_secs + write_secs,
        stages,
    }
}

fn stage_cost(circuit: &Circuit, plan: &Plan, k: usize, list: &[Pass], rates: &Rates) -> StageCost {
    let n = plan.slots() as u64;
    let stage = &circuit.stages[k];
    let stage_plan = &plan.stages[k];
    let (limbs, components) = (stage_plan.limbs as u64, stage_plan.components as u64);
    let mut cost = StageCost {
        products: stage.map.blocks.iter().map(|b| b.weights.len() as u64).sum(),
        squares: stage.features.iter().filter(|f| f.kind == FeatureKind::Square).count() as u64,
        passes: list.len() as u64,
        ..StageCost::default()
    };
    for pass in list {
        for (blocks, components) in [(&pass.fused_blocks, 2), (&pass.blocks, components)] {
            for block in blocks {
                let (rows, columns) = (block.rows.len(), block.columns.len());
                let magnitudes = Magnitudes::new(columns, &block.weights);
                for &q in &plan.parameters.moduli()[..stage_plan.limbs] {
                    let bits = u64::BITS - q.leading_zeros();
                    let work = BlockWork::new(rates.kernel, rows, columns, magnitudes, bits);
                    cost.tiles.add_block(&work, components * n);
                }
            }
        }
        for feature in &pass.features {
            if matches!(feature.source, Source::Stage(j) if j > 0) {
                cost.tiles.add(Unit::KeptRead, 2 * limbs * n);
            }
            let lifted = stage_plan
                .lifts
                .iter()
                .any(|lift| lift.source == feature.source && lift.kind == feature.kind && lift.multiplier != 1.0);
            let squared = matches!(feature.source, Source::Stage(j) if plan.stages[j].squared);
            match feature.kind {
                FeatureKind::Square if !squared => cost.tiles.add(Unit::Square, 3 * limbs * n),
                _ => cost.tiles.add(Unit::Copy, components * limbs * n),
            }
            if lifted {
                cost.tiles.add(Unit::Copy, components * limbs * n);
            }
        }
        let loaded = pass.inputs.len() as u64 * limbs * n;
        cost.tiles.add(Unit::Unpack, loaded);
        cost.tiles.add(Unit::Expand, loaded);
        let written = pass.rows.len() as u64 * components * limbs * n;
        cost.tiles.add(Unit::Store, written);
        cost.polynomials.add(Unit::Gather, written);
        let weights = |blocks: &[LocalBlock]| blocks.iter().map(|b| b.weights.len() as u64).sum::<u64>();
        cost.preparation.add(Unit::Weight, weights(&pass.blocks) + weights(&pass.fused_blocks));
    }
    let outputs: u64 = list.iter().map(|pass| pass.rows.len() as u64).sum();
    match stage_plan.after {
        After::Fused => {}
        After::KeySwitch => {
            let p = &plan.parameters;
            let (special, digit_limbs) = (p.special().len(), p.digit_limbs());
            let (mut transforms, mut pointwise) = match components {
                2 => (rescale_transforms(stage_plan.limbs), rescale_pointwise(stage_plan.limbs)),
                _ => {
                    cost.key_switches += outputs;
                    let pointwise = key_switch_pointwise(stage_plan.limbs, special, digit_limbs);
                    (key_switch_transforms(stage_plan.limbs, special, digit_limbs), pointwise)
                }
            };
            if stage_plan.squared {
                let limbs = stage_plan.output_limbs;
                cost.key_switches += outputs;
                transforms += relinearise_transforms(limbs, special, digit_limbs);
                pointwise += relinearise_pointwise(limbs, special, digit_limbs);
                // c1 is read and squared again for its digits.
                cost.polynomials.add(Unit::Square, outputs * 5 * limbs as u64 * n);
                cost.polynomials.add(Unit::Gather, outputs * 4 * limbs as u64 * n);
            }
            cost.transforms = outputs * transforms as u64;
            cost.polynomials.add(Unit::Pointwise, outputs * pointwise as u64 * n);
        }
        After::Output => cost.transforms = outputs * components * limbs,
    }
    cost.polynomials.add(Unit::Butterfly, cost.transforms * n / 2 * u64::from(n.ilog2()));
    cost.tiles_secs = rates.shared_secs(&cost.tiles) + rates.alone_secs(&cost.preparation);
    cost.polynomials_secs = rates.shared_secs(&cost.polynomials);
    cost
}

/// Buffers alive at the worst moment: stored stages, what one pass writes and uses up, keys, weights and tiles.
fn peak_bytes(circuit: &Circuit, plan: &Plan, every_pass: &[Vec<Pass>], input_bytes: u64, threads: usize) -> u64 {
    let n = plan.slots() as u64;
    let p = &plan.parameters;
    let all_limbs = (p.moduli().len() + p.special().len()) as u64;
    let keys = 2 * p.digits() as u64 * all_limbs * n * 8;
    let tables = all_limbs * n * 8 * 8;
    let stored_of = |k: usize, pass: &Pass| match plan.stages[k].after {
        After::KeySwitch => pass.rows.len() as u64 * 2 * n * residue_bytes(&p.moduli()[..plan.stages[k].output_limbs]),
        _ => 0,
    };
    let stored = |k: usize| every_pass[k].iter().map(|pass| stored_of(k, pass)).sum::<u64>();
    let mut peak = 0;
    // What passes use up is not given back between them.
    let mut used = 0;
    let last = plan.output();
    let results =
        circuit.stages.last().map_or(0, |s| s.map.outputs) as u64 * (last.components * last.limbs) as u64 * n * 8;
    for (k, list) in every_pass.iter().enumerate() {
        let stage_plan = &plan.stages[k];
        let mut kept: u64 = (1..k).filter(|&j| last_reader(circuit, j) >= k).map(stored).sum();
        let finished = (1..k).filter(|&j| last_reader(circuit, j) == k).map(|j| {
            let mut pass_of_row = vec![None; circuit.stages[j].map.outputs];
            for (number, pass) in every_pass[j].iter().enumerate() {
                pass.rows.iter().for_each(|&row| pass_of_row[row as usize] = Some(number));
            }
            (j, last_reads(list, j, every_pass[j].len(), |row| pass_of_row[row as usize]))
        });
        let finished: Vec<_> = finished.collect();
        for (number, pass) in list.iter().enumerate() {
            let moduli = &p.moduli()[..stage_plan.limbs];
            let all = stage_plan.components as u64 * residue_bytes(moduli);
            let kept_of_it = match stage_plan.after {
                After::KeySwitch => 2 * residue_bytes(&moduli[..stage_plan.output_limbs]),
                _ => 0,
            };
            used = used.max(pass.rows.len() as u64 * n * (all - kept_of_it));
            let digits = stage_plan.limbs.div_ceil(p.digit_limbs());
            // Besides a key switch's own, one limb of what is squared and two components of its square.
            let squared = if stage_plan.squared { 4 * n * 8 } else { 0 };
            let switch = Scratch::bytes(SWITCHED_TOGETHER, stage_plan.limbs, p.special().len(), digits, plan.slots());
            let switch = switch + squared;
            let tile = (pass.words_in_use(stage_plan.components) * 8) as u64;
            let weights: usize = pass.blocks.iter().chain(&pass.fused_blocks).map(|b| b.weights.len() * 10).sum();
            let working = threads as u64 * switch.max(tile) + weights as u64;
            kept += stored_of(k, pass);
            peak = peak.max(kept + used + working);
            for (j, last) in &finished {
                let read = every_pass[*j].iter().zip(last).filter(|&(_, &reader)| reader == number);
                kept -= read.map(|(pass, _)| stored_of(*j, pass)).sum::<u64>();
            }
        }
    }
    peak + results + input_bytes + keys + tables
}

/// The last stage that reads stage `j`.
#[must_use]
pub fn last_reader(circuit: &Circuit, j: usize) -> usize {
    (0..circuit.stages.len())
        .rev()
        .find(|&k| circuit.stages[k].features.iter().any(|f| f.source == Source::Stage(j)))
        .unwrap_or(j)
}
