//! A pass made ready for its tiles: weights packed, biases and multipliers as residues of every limb.

use crate::ckks::Context;
use crate::net::circuit::{Circuit, FeatureKind, Source};
use crate::plan::Plan;
use crate::plan::passes::{LocalBlock, Pass};
use crate::ring::kernels::PackedBlock;
use crate::ring::modulus::ShoupFactor;

/// A packed block and the tile rows it connects.
pub(super) struct Block {
    pub packed: PackedBlock,
    pub rows: Vec<u32>,
    pub columns: Vec<u32>,
}

/// Where a feature's value lies.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Row of the tile's inputs.
    Input(u32),
    /// Row of the tile's first-stage outputs.
    Fused(u32),
    /// Entry of a stored stage.
    Kept { stage: usize, entry: u32 },
}

/// One feature of the tile.
pub(super) struct TileFeature {
    pub place: Place,
    pub kind: FeatureKind,
    /// Index into `multipliers`; `None` for one.
    pub multiplier: Option<usize>,
}

/// A pass with everything a tile needs.
pub(super) struct PreparedPass {
    pub components: usize,
    pub limbs: usize,
    pub tile_columns: usize,
    pub band_columns: usize,
    pub rows: Vec<u32>,
    pub inputs: Vec<u32>,
    pub fused: Vec<Block>,
    pub fused_rows: usize,
    /// `[limb][fused row]`
    pub fused_bias: Vec<Vec<u64>>,
    pub features: Vec<TileFeature>,
    pub blocks: Vec<Block>,
    /// `[limb][row]`
    pub bias: Vec<Vec<u64>>,
    /// `[limb][multiplier]`
    pub multipliers: Vec<Vec<ShoupFactor>>,
}

impl PreparedPass {
    pub fn new(context: &Context, circuit: &Circuit, plan: &Plan, pass: Pass) -> Self {
        let stage_plan = &plan.stages[pass.stage];
        let stage = &circuit.stages[pass.stage];
        let limbs = stage_plan.limbs;
        let residues = |values: &dyn Fn(usize) -> f64, count: usize| -> Vec<Vec<u64>> {
            (0..limbs).map(|l| (0..count).map(|i| context.modulus(l).from_f64(values(i))).collect()).collect()
        };
        let row_of = |list: &[u32], entry: u32| list.partition_point(|&x| x < entry) as u32;
        let features = pass
            .features
            .iter()
            .map(|f| TileFeature {
                place: match f.source {
                    Source::Input => Place::Input(row_of(&pass.inputs, f.entry)),
                    Source::Stage(0) => Place::Fused(row_of(&pass.fused_rows, f.entry)),
                    Source::Stage(stage) => Place::Kept { stage, entry: f.entry },
                },
                kind: f.kind,
                multiplier: stage_plan
                    .lifts
                    .iter()
                    .position(|l| l.source == f.source && l.kind == f.kind && l.multiplier != 1.0),
            })
            .collect();
        let first = &circuit.stages[0];
        let first_scale = plan.stages[0].product_scale;
        let multipliers = (0..limbs)
            .map(|l| {
                let m = context.modulus(l);
                stage_plan.lifts.iter().map(|lift| m.shoup(m.from_f64(lift.multiplier))).collect()
            })
            .collect();
        Self {
            components: stage_plan.components,
            limbs,
            tile_columns: pass.tile_columns.min(context.degree()),
            band_columns: pass.band_columns.min(context.degree()),
            fused_bias: residues(&|i| first.map.bias[pass.fused_rows[i] as usize] * first_scale, pass.fused_rows.len()),
            bias: residues(&|i| stage.map.bias[pass.rows[i] as usize] * stage_plan.product_scale, pass.rows.len()),
            fused_rows: pass.fused_rows.len(),
            fused: pack(context, pass.fused_blocks),
            features,
            blocks: pack(context, pass.blocks),
            multipliers,
            rows: pass.rows,
            inputs: pass.inputs,
        }
    }
}

fn pack(context: &Context, blocks: Vec<LocalBlock>) -> Vec<Block> {
    let packed = |b: LocalBlock| Block {
        packed: PackedBlock::new(context.kernel(), b.rows.len(), b.columns.len(), &b.weights),
        rows: b.rows,
        columns: b.columns,
    };
    blocks.into_iter().map(packed).collect()
}
