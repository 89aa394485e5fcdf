//! A pass made ready for its tiles: weights packed, biases and multipliers as residues of every limb.

use super::store::{StoredRows, StoredStage};
use crate::ckks::Context;
use crate::net::circuit::{Circuit, FeatureKind, Source};
use crate::plan::Plan;
use crate::plan::passes::{LocalBlock, Pass};
use crate::ring::kernels::{PackedBlock, Zero};
use crate::ring::modulus::ShoupFactor;

/// A packed block and the tile rows it connects.
pub(super) struct Block {
    pub packed: PackedBlock,
    pub rows: Vec<u32>,
    pub columns: Vec<u32>,
    /// No block before it has any of its rows: its products are added to the biases, not to what the rows hold.
    pub is_first: bool,
}

/// A linear map on a tile.
pub(super) struct Linear {
    pub blocks: Vec<Block>,
    /// `[limb][row]`
    pub bias: Vec<Vec<u64>>,
    /// Rows that no first block has: they begin with their bias.
    pub filled: Vec<u32>,
    /// How all blocks can read zero.
    pub zero: Zero,
}

impl Linear {
    fn new(context: &Context, blocks: Vec<LocalBlock>, bias: Vec<Vec<u64>>, rows: usize) -> Self {
        let mut begun = vec![false; rows];
        let mut written = vec![false; rows];
        let mut packed = Vec::with_capacity(blocks.len());
        for b in blocks {
            let is_first = b.rows.iter().all(|&row| !written[row as usize]);
            for &row in &b.rows {
                begun[row as usize] |= is_first;
                written[row as usize] = true;
            }
            packed.push(Block {
                packed: PackedBlock::new(context.kernel(), b.rows.len(), b.columns.len(), &b.weights),
                rows: b.rows,
                columns: b.columns,
                is_first,
            });
        }
        let filled = (0..rows as u32).filter(|&row| !begun[row as usize]).collect();
        let nonzero = packed.iter().any(|block| block.packed.zero() == Zero::Modulus);
        Self { blocks: packed, bias, filled, zero: if nonzero { Zero::Modulus } else { Zero::Itself } }
    }
}

/// Features that are squares of neighbouring rows of the tile's first-stage outputs, without multiplier: squared in one call.
pub(super) struct SquareRun {
    pub first_feature: usize,
    pub first_row: usize,
    pub rows: usize,
}

/// Features that are neighbouring rows of a stored stage or their squares, without multiplier: loaded, and squared where they are not squares already,
/// in one call.
pub(super) struct StoredRun {
    pub first_feature: usize,
    pub stage: usize,
    pub rows: StoredRows,
    pub kind: FeatureKind,
}

/// Where a feature's value lies.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Row of the tile's inputs.
    Input(u32),
    /// Row of the tile's first-stage outputs.
    Fused(u32),
    /// An entry of a stored stage.
    Kept { stage: usize, rows: StoredRows },
}

/// One feature of the tile.
pub(super) struct TileFeature {
    pub place: Place,
    /// A value where what is stored is the square.
    pub kind: FeatureKind,
    /// Index into `multipliers`; `None` for one.
    pub multiplier: Option<usize>,
}

/// A pass with everything a tile needs.
pub(super) struct PreparedPass {
    pub components: usize,
    /// Whether squares of the outputs are stored.
    pub squared: bool,
    pub limbs: usize,
    pub tile_columns: usize,
    pub band_columns: usize,
    pub rows: Vec<u32>,
    pub inputs: Vec<u32>,
    pub fused: Linear,
    pub fused_rows: usize,
    pub square_runs: Vec<SquareRun>,
    pub stored_runs: Vec<StoredRun>,
    /// Features that are in no run, with their numbers.
    pub features: Vec<(usize, TileFeature)>,
    pub feature_count: usize,
    pub linear: Linear,
    /// `[limb][multiplier]`
    pub multipliers: Vec<Vec<ShoupFactor>>,
}

impl PreparedPass {
    /// `stored` are the outputs of earlier stages.
    pub fn new(context: &Context, circuit: &Circuit, plan: &Plan, stored: &[StoredStage], pass: Pass) -> Self {
        let stage_plan = &plan.stages[pass.stage];
        let stage = &circuit.stages[pass.stage];
        let limbs = stage_plan.limbs;
        let residues = |values: &dyn Fn(usize) -> f64, count: usize| -> Vec<Vec<u64>> {
            (0..limbs).map(|l| (0..count).map(|i| context.modulus(l).from_f64(values(i))).collect()).collect()
        };
        let row_of = |list: &[u32], entry: u32| list.partition_point(|&x| x < entry) as u32;
        let all_features: Vec<TileFeature> = pass
            .features
            .iter()
            .map(|f| TileFeature {
                place: match f.source {
                    Source::Input => Place::Input(row_of(&pass.inputs, f.entry)),
                    Source::Stage(0) => Place::Fused(row_of(&pass.fused_rows, f.entry)),
                    Source::Stage(stage) => Place::Kept { stage, rows: stored[stage].find(f.entry as usize) },
                },
                kind: match f.source {
                    Source::Stage(j) if plan.stages[j].squared => FeatureKind::Value,
                    _ => f.kind,
                },
                multiplier: stage_plan
                    .lifts
                    .iter()
                    .position(|l| l.source == f.source && l.kind == f.kind && l.multiplier != 1.0),
            })
            .collect();
        let feature_count = all_features.len();
        let (square_runs, stored_runs, features) = runs(all_features, stage_plan.components);
        let first = &circuit.stages[0];
        let first_scale = plan.stages[0].product_scale;
        let multipliers = (0..limbs)
            .map(|l| {
                let m = context.modulus(l);
                stage_plan.lifts.iter().map(|lift| m.shoup(m.from_f64(lift.multiplier))).collect()
            })
            .collect();
        let fused_bias =
            residues(&|i| first.map.bias[pass.fused_rows[i] as usize] * first_scale, pass.fused_rows.len());
        let bias = residues(&|i| stage.map.bias[pass.rows[i] as usize] * stage_plan.product_scale, pass.rows.len());
        Self {
            components: stage_plan.components,
            squared: stage_plan.squared,
            limbs,
            tile_columns: pass.tile_columns.min(context.degree()),
            band_columns: pass.band_columns.min(context.degree()),
            fused_rows: pass.fused_rows.len(),
            fused: Linear::new(context, pass.fused_blocks, fused_bias, pass.fused_rows.len()),
            square_runs,
            stored_runs,
            features,
            feature_count,
            linear: Linear::new(context, pass.blocks, bias, pass.rows.len()),
            multipliers,
            rows: pass.rows,
            inputs: pass.inputs,
        }
    }
}

/// Takes runs of plain squares, of first-stage outputs and of stored entries, out of the features; of two components, also runs of stored entries as they are.
fn runs(features: Vec<TileFeature>, components: usize) -> (Vec<SquareRun>, Vec<StoredRun>, Vec<(usize, TileFeature)>) {
    let mut runs: Vec<SquareRun> = Vec::new();
    let mut stored: Vec<StoredRun> = Vec::new();
    let mut others = Vec::new();
    for (at, feature) in features.into_iter().enumerate() {
        match feature {
            TileFeature { place: Place::Fused(row), kind: FeatureKind::Square, multiplier: None } => {
                let row = row as usize;
                match runs.last_mut() {
                    Some(run) if run.first_feature + run.rows == at && run.first_row + run.rows == row => run.rows += 1,
                    _ => runs.push(SquareRun { first_feature: at, first_row: row, rows: 1 }),
                }
            }
            TileFeature { place: Place::Kept { stage, rows }, kind, multiplier: None }
                if kind == FeatureKind::Square || components == 2 =>
            {
                let taken = stored.last_mut().is_some_and(|run| {
                    (run.stage, run.kind) == (stage, kind)
                        && run.first_feature + run.rows.count == at
                        && run.rows.take_in(&rows)
                });
                if !taken {
                    stored.push(StoredRun { first_feature: at, stage, rows, kind });
                }
            }
            _ => others.push((at, feature)),
        }
    }
    (runs, stored, others)
}
