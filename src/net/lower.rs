//! Lowering: network -> draft (exact, f64) -> balanced -> integers -> [`Circuit`], with its calibration figures.
//!
//! Deterministic to the bit: only + - * / sqrt and round, in a fixed order, no threads.
//! Not here: folding (see `draft`), grouping into blocks (see `blocks`), figures (see `gains`).

use super::balance::balance;
use super::blocks::{IntegerRows, build_blocks};
use super::calibration::{Calibration, Ranges, measure_ranges};
use super::circuit::{Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use super::draft::{Draft, draft};
use super::error::{NetError, all_finite};
use super::gains::fill_stats;
use super::network::Network;

/// How to lower.
#[derive(Clone, Debug, PartialEq)]
pub struct LowerOptions {
    /// Width of the integers, sign included, where `stage_bits` says nothing: 4 to 16.
    pub default_bits: u32,
    /// Width per stage, first stage first; may be shorter than the circuit.
    pub stage_bits: Vec<u32>,
    /// A neuron's square is completed where |b/2a| is at most this many times the largest calibrated |x| of its layer.
    pub shift_limit: f64,
}

impl Default for LowerOptions {
    fn default() -> LowerOptions {
        LowerOptions { default_bits: 8, stage_bits: Vec::new(), shift_limit: 8.0 }
    }
}

impl LowerOptions {
    fn bits(&self, stage: usize) -> u32 {
        self.stage_bits.get(stage).copied().unwrap_or(self.default_bits)
    }

    fn check(&self) -> Result<(), NetError> {
        for &bits in self.stage_bits.iter().chain([&self.default_bits]) {
            if !(4..=16).contains(&bits) {
                return Err(NetError::mismatch("lowering options", "weight bits", bits, "4 to 16"));
            }
        }
        if !(self.shift_limit.is_finite() && self.shift_limit >= 0.0) {
            return Err(NetError::mismatch("lowering options", "shift limit", self.shift_limit, "at least 0"));
        }
        Ok(())
    }
}

/// Lowers a network to integers and measures the circuit on the calibration images.
///
/// Errors: an invalid network, images of another size, a logit that depends on nothing, sizes beyond the limits.
pub fn lower(network: &Network, options: &LowerOptions, calibration: &Calibration) -> Result<Circuit, NetError> {
    let ranges = measure_ranges(network, calibration)?;
    let mut circuit = lower_weights(network, options, &ranges)?;
    fill_stats(&mut circuit, calibration)?;
    Ok(circuit)
}

/// The circuit without its calibration figures (all zero).
pub(super) fn lower_weights(network: &Network, options: &LowerOptions, ranges: &Ranges) -> Result<Circuit, NetError> {
    options.check()?;
    let mut draft = draft(network, ranges, options.shift_limit)?;
    let alive = read_rows(&draft, |stage, position| draft.stages[stage].forms.weights[position] != 0.0);
    balance(&mut draft, &alive);
    let integers = round_stages(&mut draft, &alive, options)?;
    let circuit = assemble(network.input.shape, &draft, &integers, options);
    circuit.validate()?;
    Ok(circuit)
}

/// Which rows of each stage a later stage reads, given which weights count. All rows of the last stage.
fn read_rows(draft: &Draft, counts: impl Fn(usize, usize) -> bool) -> Vec<Vec<bool>> {
    let mut alive: Vec<Vec<bool>> = draft.stages.iter().map(|stage| vec![false; stage.forms.rows()]).collect();
    if let Some(last) = alive.last_mut() {
        last.fill(true);
    }
    for stage in (0..draft.stages.len()).rev() {
        let forms = &draft.stages[stage].forms;
        for row in 0..forms.rows() {
            if !alive[stage][row] {
                continue;
            }
            for position in forms.range(row) {
                if counts(stage, position) {
                    let (buffer, _, entry) = draft.columns.place(forms.columns[position]);
                    if buffer > 0 {
                        alive[buffer - 1][entry] = true;
                    }
                }
            }
        }
    }
    alive
}

/// Integers of a stage, one per (row, column) of the draft.
struct IntegerStage {
    weights: Vec<i16>,
    scale: f64,
}

/// Rounds stage by stage. A root whose row rounds to nothing is a constant: it is folded into the biases that read it and
/// its columns are zeroed.
fn round_stages(draft: &mut Draft, alive: &[Vec<bool>], options: &LowerOptions) -> Result<Vec<IntegerStage>, NetError> {
    let last = draft.stages.len() - 1;
    let mut known: Vec<Option<f64>> = vec![None; draft.columns.len()];
    let mut stages = Vec::new();
    for stage in 0..=last {
        let forms = &mut draft.stages[stage].forms;
        for row in 0..forms.rows() {
            for position in forms.range(row) {
                if let Some(constant) = known[forms.columns[position] as usize] {
                    forms.constants[row] += std::mem::take(&mut forms.weights[position]) * constant;
                }
            }
        }
        all_finite(&draft.stages[stage].name, "weights", draft.stages[stage].forms.weights.iter().copied())?;
        let forms = &draft.stages[stage].forms;
        let rows = (0..forms.rows()).filter(|&row| alive[stage][row]);
        let largest =
            rows.flat_map(|row| forms.row(row)).fold(0.0, |largest: f64, (_, weight)| largest.max(weight.abs()));
        let limit = f64::from((1i32 << (options.bits(stage) - 1)) - 1);
        // A stage of constants only has no rows in the end; any finite scale will do.
        let scale = if largest > 0.0 { limit / largest } else { 1.0 };
        if !scale.is_finite() {
            let expected = "large enough for a finite scale";
            return Err(NetError::mismatch(&draft.stages[stage].name, "largest weight", largest, expected));
        }
        let round = |weight: &f64| (weight * scale).round().clamp(-limit, limit) as i16;
        let mut weights: Vec<i16> = forms.weights.iter().map(round).collect();
        for row in 0..forms.rows() {
            if !alive[stage][row] {
                weights[forms.range(row)].fill(0);
            }
            if weights[forms.range(row)].iter().any(|&weight| weight != 0) {
                continue;
            }
            if stage == last {
                return Err(NetError::ConstantLogit { class: row, weight_bits: options.bits(stage) });
            }
            let constant = forms.constants[row];
            known[draft.columns.column(stage + 1, FeatureKind::Value, row) as usize] = Some(constant);
            known[draft.columns.column(stage + 1, FeatureKind::Square, row) as usize] = Some(constant * constant);
        }
        stages.push(IntegerStage { weights, scale });
    }
    Ok(stages)
}

/// Drops what nobody reads, renumbers, and builds the blocks.
fn assemble(input_shape: [usize; 3], draft: &Draft, integers: &[IntegerStage], options: &LowerOptions) -> Circuit {
    let alive = read_rows(draft, |stage, position| integers[stage].weights[position] != 0);
    let mut stage_number = Vec::new();
    let mut row_number = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for (stage, (source, integer)) in draft.stages.iter().zip(integers).enumerate() {
        let forms = &source.forms;
        stage_number.push(stages.len());
        let mut count = 0u32;
        let mut numbers = vec![0u32; forms.rows()];
        let mut rows = IntegerRows { outputs: Vec::new(), columns: Vec::new(), weights: Vec::new() };
        let mut bias = Vec::new();
        for row in (0..forms.rows()).filter(|&row| alive[stage][row]) {
            let range = forms.range(row);
            numbers[row] = count;
            rows.outputs.push(count);
            rows.columns.push(forms.columns[range.clone()].to_vec());
            rows.weights.push(integer.weights[range].to_vec());
            bias.push(forms.constants[row]);
            count += 1;
        }
        row_number.push(numbers);
        if count == 0 {
            continue;
        }
        let (used, blocks) = build_blocks(&rows, &draft.columns);
        let renumber = |column: &u32| {
            let feature = draft.columns.feature(*column);
            match feature.source {
                Source::Input => feature,
                Source::Stage(old) => Feature {
                    source: Source::Stage(stage_number[old]),
                    entry: row_number[old][feature.entry as usize],
                    ..feature
                },
            }
        };
        let features = used.iter().map(renumber).collect();
        let map = LinearMap {
            outputs: count as usize,
            blocks,
            bias,
            weight_scale: integer.scale,
            weight_bits: options.bits(stage),
        };
        stages.push(Stage { name: source.name.clone(), features, map, stats: StageStats::ZERO });
    }
    Circuit { input_shape, input_stats: StageStats::ZERO, stages }
}
