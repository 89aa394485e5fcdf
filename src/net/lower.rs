//! Lowering: network -> decisions -> draft (exact, f64) -> balanced -> integers -> [`Circuit`], with its calibration figures.
//!
//! Deterministic to the bit: only + - * / sqrt and round, in a fixed order, no threads. Packages rely on it: most hold a
//! network and the decisions, and lower again when they are opened.
//! Not here: decisions (see `lowering`), folding (see `draft`), grouping into blocks (see `blocks`), figures (see `gains`).

use super::balance::balance;
use super::blocks::{IntegerRows, build_blocks};
use super::calibration::{Calibration, measure_ranges};
use super::circuit::{Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use super::draft::{Draft, DraftStage, Root, draft};
use super::error::{NetError, all_finite};
use super::forms::largest_magnitude;
use super::lowering::{Budget, Lowering, LoweringLimits};
use super::network::Network;
use super::shadow::{LayerPlaces, Place};

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
    pub(super) fn bits(&self, stage: usize) -> u32 {
        self.stage_bits.get(stage).copied().unwrap_or(self.default_bits)
    }

    pub(super) fn check(&self) -> Result<(), NetError> {
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
    Lowering::decide(network, options, &ranges)?.measured_circuit(network, calibration)
}

/// The circuit without its calibration figures, and where in it the quadratic layers' inputs are.
pub(super) fn lower_with_places(
    network: &Network,
    lowering: &Lowering,
    limits: &LoweringLimits,
) -> Result<(Circuit, Vec<LayerPlaces>), NetError> {
    network.validate()?;
    lowering.check(network)?;
    let mut draft = draft(network, lowering, &mut Budget::new(*limits))?;
    let alive = read_rows(&draft, |stage, position| draft.stages[stage].forms.weights[position] != 0.0);
    balance(&mut draft, &alive);
    let integers = round_stages(&mut draft, &alive, lowering.stage_bits())?;
    let (circuit, places) = assemble(network.input.shape, &draft, &integers, lowering.stage_bits());
    circuit.validate()?;
    Ok((circuit, places))
}

/// Which rows of each stage a later stage reads, given which weights count. All rows of the last stage.
fn read_rows(draft: &Draft, counts: impl Fn(usize, usize) -> bool) -> Vec<Vec<bool>> {
    let last = draft.stages.len() - 1;
    let mut read = vec![false; draft.columns.len()];
    let mut alive: Vec<Vec<bool>> = Vec::new();
    for (stage, source) in draft.stages.iter().enumerate().rev() {
        let column = |kind, row| draft.columns.column(stage + 1, kind, row) as usize;
        let is_read = |row| read[column(FeatureKind::Value, row)] || read[column(FeatureKind::Square, row)];
        let rows: Vec<bool> = (0..source.forms.rows()).map(|row| stage == last || is_read(row)).collect();
        for row in (0..source.forms.rows()).filter(|&row| rows[row]) {
            for position in source.forms.range(row) {
                // A column once read stays read.
                read[source.forms.columns[position] as usize] |= counts(stage, position);
            }
        }
        alive.push(rows);
    }
    alive.reverse();
    alive
}

/// Integers of a stage, one per (row, column) of the draft.
struct IntegerStage {
    weights: Vec<i16>,
    scale: f64,
}

/// Rounds stage by stage. A root whose row rounds to nothing is a constant: it is folded into the biases that read it and
/// its columns are zeroed.
fn round_stages(draft: &mut Draft, alive: &[Vec<bool>], stage_bits: &[u32]) -> Result<Vec<IntegerStage>, NetError> {
    let last = draft.stages.len() - 1;
    let mut known: Vec<Option<f64>> = vec![None; draft.columns.len()];
    let mut any_known = false;
    let mut stages = Vec::new();
    for stage in 0..=last {
        let DraftStage { name, forms, roots } = &mut draft.stages[stage];
        for row in (0..forms.rows()).filter(|_| any_known) {
            for position in forms.range(row) {
                if let Some(constant) = known[forms.columns[position] as usize] {
                    forms.constants[row] += std::mem::take(&mut forms.weights[position]) * constant;
                }
            }
        }
        all_finite(name, "weights", forms.weights.iter().copied())?;
        let rows = (0..forms.rows()).filter(|&row| alive[stage][row]);
        let largest = rows.fold(0.0, |most: f64, row| most.max(largest_magnitude(&forms.weights[forms.range(row)])));
        let limit = f64::from((1i32 << (stage_bits[stage] - 1)) - 1);
        // A stage of constants only has no rows in the end; any finite scale will do.
        let scale = if largest > 0.0 { limit / largest } else { 1.0 };
        if !scale.is_finite() {
            let expected = "large enough for a finite scale";
            return Err(NetError::mismatch(&*name, "largest weight", largest, expected));
        }
        let mut weights: Vec<i16> =
            forms.weights.iter().map(|weight| round((weight * scale).clamp(-limit, limit))).collect();
        for row in 0..forms.rows() {
            let constant = forms.constants[row];
            if !alive[stage][row] {
                weights[forms.range(row)].fill(0);
                if let Some(root) = roots.get_mut(row) {
                    *root = Root::Unread;
                }
            }
            if weights[forms.range(row)].iter().any(|&weight| weight != 0) {
                continue;
            }
            if stage == last {
                return Err(NetError::ConstantLogit { class: row, weight_bits: stage_bits[stage] });
            }
            if let Root::Row { factor, shift } = roots[row] {
                roots[row] = Root::Constant(constant / factor - shift);
            }
            any_known = true;
            known[draft.columns.column(stage + 1, FeatureKind::Value, row) as usize] = Some(constant);
            known[draft.columns.column(stage + 1, FeatureKind::Square, row) as usize] = Some(constant * constant);
        }
        stages.push(IntegerStage { weights, scale });
    }
    Ok(stages)
}

/// A number of magnitude at most 2^15, rounded to the nearest integer, halves away from zero: `f64::round` without the call
/// into the mathematics library that it is on plain x86-64.
fn round(number: f64) -> i16 {
    let whole = number as i32;
    let rest = number - f64::from(whole);
    (whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as i16
}

/// Drops what nobody reads, renumbers, and builds the blocks.
fn assemble(
    input_shape: [usize; 3],
    draft: &Draft,
    integers: &[IntegerStage],
    stage_bits: &[u32],
) -> (Circuit, Vec<LayerPlaces>) {
    let alive = read_rows(draft, |stage, position| integers[stage].weights[position] != 0);
    let mut stage_number = Vec::new();
    let mut row_number = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut places = Vec::new();
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
            rows.columns.push(&forms.columns[range.clone()]);
            rows.weights.push(&integer.weights[range]);
            bias.push(forms.constants[row]);
            count += 1;
        }
        if let Some(&layer) = draft.quadratics.get(stage) {
            let place = |(row, root): (usize, &Root)| match *root {
                Root::Row { factor, shift } if alive[stage][row] => {
                    Place::Row { stage: stages.len(), row: numbers[row] as usize, factor, shift }
                }
                Root::Constant(x) => Place::Constant(x),
                Root::Row { .. } | Root::Unread => Place::Unread,
            };
            places.push(LayerPlaces { layer, places: source.roots.iter().enumerate().map(place).collect() });
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
            weight_bits: stage_bits[stage],
        };
        stages.push(Stage { name: source.name.clone(), features, map, stats: StageStats::ZERO });
    }
    (Circuit { input_shape, input_stats: StageStats::ZERO, stages }, places)
}
