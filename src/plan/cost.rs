//! What a plan costs: operation counts (exact), bytes (exact payloads), memory and seconds (estimates from measured rates).

use super::passes::{Pass, passes};
use super::{After, Plan};
use crate::ckks::keyswitch::Scratch;
use crate::net::circuit::{Circuit, FeatureKind};

/// Transforms of one key switch of `limbs` limbs merged with a rescale: c2 back, digits to the other primes, both sums down.
#[must_use]
pub fn key_switch_transforms(limbs: usize, special: usize, digit_limbs: usize) -> usize {
    let digits: usize = (0..limbs).step_by(digit_limbs).map(|d| limbs + special - digit_limbs.min(limbs - d)).sum();
    limbs + digits + 2 * (special + 1) + 2 * (limbs - 1)
}

/// Speeds of this machine, for estimates only: nothing that is computed depends on them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Weight-times-residue products a second and core.
    pub products_per_sec: f64,
    /// Residue-times-residue products a second and core.
    pub squares_per_sec: f64,
    /// One transform of N = 8192, seconds.
    pub transform_secs: f64,
    /// Residues read and expanded from a file a second and core.
    pub loads_per_sec: f64,
    /// Cores.
    pub threads: usize,
}

/// Homomorphic operations of one stage for one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCost {
    /// Ciphertext-scalar multiply-accumulates.
    pub products: u64,
    /// Ciphertext squarings (those in the first layer's outputs counted where they are used).
    pub squares: u64,
    /// Relinearisations merged with rescales.
    pub key_switches: u64,
    /// Number-theoretic transforms.
    pub transforms: u64,
    /// Residue products behind `products`: times components, limbs and slots; recomputation included.
    pub residue_products: u64,
    /// Residues squared, crossed or lifted: the same for features.
    pub residue_squares: u64,
    /// Residues loaded from the input.
    pub residue_loads: u64,
    /// Passes over the tiles.
    pub passes: u64,
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
    /// One batch, file to file, at the rates given.
    pub batch_secs: f64,
}

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

    let every_pass: Vec<Vec<Pass>> = (0..circuit.stages.len()).map(|k| passes(circuit, plan, k)).collect();
    let stages: Vec<StageCost> =
        (0..circuit.stages.len()).map(|k| stage_cost(circuit, plan, k, &every_pass[k])).collect();

    let input_bytes = entries * n * residue_bytes(p.moduli());
    let ring_scale = plan.slots() as f64 / 8192.0 * (plan.slots() as f64).log2() / 13.0;
    let core_secs: f64 = stages
        .iter()
        .map(|s| {
            s.residue_products as f64 / rates.products_per_sec
                + s.residue_squares as f64 / rates.squares_per_sec
                + s.transforms as f64 * rates.transform_secs * ring_scale
                + s.residue_loads as f64 / rates.loads_per_sec
        })
        .sum();
    Cost {
        input_bytes,
        public_input_bytes: 2 * input_bytes,
        result_bytes: outputs * output.components as u64 * n * residue_bytes(&p.moduli()[..output.output_limbs]),
        evaluation_key_bytes: p.digits() as u64 * n * residue_bytes(&all),
        public_key_bytes: n * residue_bytes(&all),
        peak_bytes: peak_bytes(circuit, plan, &every_pass, input_bytes, rates.threads),
        batch_secs: core_secs / rates.threads.max(1) as f64,
        stages,
    }
}

fn stage_cost(circuit: &Circuit, plan: &Plan, k: usize, list: &[Pass]) -> StageCost {
    let n = plan.slots() as u64;
    let stage = &circuit.stages[k];
    let stage_plan = &plan.stages[k];
    let limbs = stage_plan.limbs as u64;
    let components = stage_plan.components as u64;
    let macs = |blocks: &mut dyn Iterator<Item = usize>| blocks.sum::<usize>() as u64;
    let mut cost = StageCost {
        products: macs(&mut stage.map.blocks.iter().map(|b| b.weights.len())),
        squares: stage.features.iter().filter(|f| f.kind == FeatureKind::Square).count() as u64,
        passes: list.len() as u64,
        ..StageCost::default()
    };
    for pass in list {
        let own = macs(&mut pass.blocks.iter().map(|b| b.weights.len()));
        let fused = macs(&mut pass.fused_blocks.iter().map(|b| b.weights.len()));
        cost.residue_products += (own * components + fused * 2) * limbs * n;
        cost.residue_squares += pass.features.len() as u64 * components * limbs * n;
        cost.residue_loads += pass.inputs.len() as u64 * 2 * limbs * n;
    }
    let outputs = stage.map.outputs as u64;
    match stage_plan.after {
        After::Fused => {}
        After::KeySwitch => {
            let p = &plan.parameters;
            cost.key_switches = outputs;
            let each = key_switch_transforms(stage_plan.limbs, p.special().len(), p.digit_limbs());
            cost.transforms = outputs * each as u64;
        }
        After::Output => cost.transforms = outputs * components * limbs,
    }
    cost
}

/// Buffers alive at the worst moment: kept stage outputs, one pass's outputs, keys, weights and tiles.
fn peak_bytes(circuit: &Circuit, plan: &Plan, every_pass: &[Vec<Pass>], input_bytes: u64, threads: usize) -> u64 {
    let n = plan.slots() as u64;
    let p = &plan.parameters;
    let all_limbs = (p.moduli().len() + p.special().len()) as u64;
    let keys = 2 * p.digits() as u64 * all_limbs * n * 8;
    let tables = all_limbs * n * 8 * 8;
    let mut peak = 0;
    for (k, list) in every_pass.iter().enumerate() {
        let stage_plan = &plan.stages[k];
        let kept: u64 = (1..k)
            .filter(|&j| last_reader(circuit, j) >= k)
            .map(|j| circuit.stages[j].map.outputs as u64 * 2 * plan.stages[j].output_limbs as u64 * n * 8)
            .sum();
        let switched = match stage_plan.after {
            After::KeySwitch => circuit.stages[k].map.outputs as u64 * 2 * stage_plan.output_limbs as u64 * n * 8,
            _ => 0,
        };
        for pass in list {
            let polynomials = match stage_plan.after {
                After::KeySwitch => {
                    let scratch = Scratch::bytes(p.moduli().len(), all_limbs as usize, plan.slots());
                    threads as u64 * (scratch + 3 * stage_plan.limbs as u64 * n * 8)
                }
                // The polynomials of the last stage and their one copy in order.
                _ => 2 * (circuit.stages[k].map.outputs * stage_plan.components * stage_plan.limbs) as u64 * n * 8,
            };
            let raw = (pass.rows.len() * stage_plan.components * stage_plan.limbs) as u64 * n * 8;
            let tile = (pass.words_in_use(stage_plan.components) * 8 * threads) as u64;
            let weights: usize = pass.blocks.iter().chain(&pass.fused_blocks).map(|b| b.weights.len() * 10).sum();
            peak = peak.max(kept + switched + raw + tile + polynomials + weights as u64);
        }
    }
    peak + input_bytes + keys + tables
}

/// The last stage that reads stage `j`.
#[must_use]
pub fn last_reader(circuit: &Circuit, j: usize) -> usize {
    use crate::net::circuit::Source;
    (0..circuit.stages.len())
        .rev()
        .find(|&k| circuit.stages[k].features.iter().any(|f| f.source == Source::Stage(j)))
        .unwrap_or(j)
}
