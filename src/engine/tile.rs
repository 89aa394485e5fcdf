//! One tile: a limb and a few NTT positions through first linear layer, features, linear layer. Inputs are loaded a *band* of
//! neighbouring tiles at a time, because longer pieces are read and expanded faster.
//!
//! Scratch rows are `[component][tile column]`; inputs and features hold residues as block products want them, in `[1, q]` or, of features, `[0, q]`.

use super::EngineError;
use super::prepare::{Linear, Place, PreparedPass, StoredRun, TileFeature};
use super::run::Inputs;
use super::store::{Packing, StoredStage};
use crate::ckks::Context;
use crate::net::circuit::FeatureKind;
use crate::ring::kernels::{BlockOperands, BlockScratch, Start, Zero};
use crate::ring::{Lines, Modulus};

/// Entries by which reading is announced before it happens, and that are loaded together.
const PREFETCH_ROWS: usize = 8;

/// Working memory of one thread.
#[derive(Default)]
pub(super) struct TileScratch {
    /// `[tile of the band][input row]`
    inputs: Lines,
    /// One component of some entries across the band.
    pieces: Lines,
    fused: Lines,
    /// Both components of some entries of a stored stage.
    kept: Lines,
    features: Lines,
    outputs: Lines,
    blocks: BlockScratch,
}

/// Rows of a tile that a linear map reads.
struct Operand<'a> {
    x: &'a [u64],
    row_words: usize,
    columns: usize,
}

/// Every row's bias (on component 0) plus its blocks' products.
fn linear_into(
    m: &Modulus,
    linear: &Linear,
    limb: usize,
    operand: &Operand<'_>,
    scratch: &mut BlockScratch,
    out: &mut [u64],
) {
    let &Operand { x, row_words, columns } = operand;
    let bias = &linear.bias[limb];
    for &row in &linear.filled {
        let words = &mut out[row as usize * row_words..][..row_words];
        words[..columns].fill(bias[row as usize]);
        words[columns..].fill(0);
    }
    for block in &linear.blocks {
        let start = if block.is_first { Start::Constants { values: bias, columns } } else { Start::Held };
        let operands = BlockOperands { x, columns: &block.columns, rows: &block.rows, row_words, start };
        block.packed.mul_add_into(m, &operands, scratch, out);
    }
}

/// Which runs of stored rows have been announced, and how many rows those have that are not loaded yet.
#[derive(Default)]
struct Announced {
    runs: usize,
    rows: usize,
}

impl Announced {
    /// Before run number `number` is loaded: announces until [`PREFETCH_ROWS`] rows lie ahead of it.
    fn go_on(&mut self, runs: &[StoredRun], number: usize, announce: impl Fn(&StoredRun)) {
        // What is loaded now counts, but does not lie ahead any more.
        let loaded = runs[number].rows.count;
        while let Some(run) = runs.get(self.runs)
            && (self.runs <= number || self.rows < loaded + PREFETCH_ROWS)
        {
            announce(run);
            self.rows += run.rows.count;
            self.runs += 1;
        }
        self.rows -= loaded;
    }
}

/// Which band: a limb, and the first of the pass's number of NTT positions.
#[derive(Clone, Copy)]
pub(super) struct BandPlace {
    pub limb: usize,
    pub first: usize,
}

/// What all tiles of a pass have in common.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    pub context: &'a Context,
    pub pass: &'a PreparedPass,
    pub inputs: &'a dyn Inputs,
    /// By stage.
    pub stored: &'a [StoredStage],
    /// Layouts of what is kept for later stages, and of the rest.
    pub packings: [&'a Packing; 2],
}

impl Tiles<'_> {
    /// Computes the pass's outputs for one band and packs them, for each layout into the band's piece of every group.
    pub fn band_into(
        &self,
        place: BandPlace,
        scratch: &mut TileScratch,
        mut out: [Vec<&mut [u8]>; 2],
    ) -> Result<(), EngineError> {
        self.load(place, scratch)?;
        let (pass, kernel) = (self.pass, self.context.kernel());
        for tile in 0..pass.band_columns / pass.tile_columns {
            self.tile_into(place, tile, scratch);
            for (packing, out) in self.packings.iter().zip(&mut out) {
                packing.pack_tile(kernel, place.limb, tile, pass.components, scratch.outputs.words(), out);
            }
        }
        Ok(())
    }

    fn load(&self, place: BandPlace, scratch: &mut TileScratch) -> Result<(), EngineError> {
        let Self { context, pass, .. } = self;
        let m = context.modulus(place.limb);
        let columns = pass.tile_columns;
        let tile_words = pass.inputs.len() * 2 * columns;
        let loaded = scratch.inputs.first(pass.band_columns / columns * tile_words);
        let pieces = scratch.pieces.first(PREFETCH_ROWS * pass.band_columns);
        let mut groups = pass.inputs.chunks(PREFETCH_ROWS).enumerate().peekable();
        while let Some((group, entries)) = groups.next() {
            if let Some((_, next)) = groups.peek() {
                self.inputs.prefetch(place.limb, next, place.first, pass.band_columns);
            }
            let pieces = &mut pieces[..entries.len() * pass.band_columns];
            for component in 0..2 {
                self.inputs.load_rows_into(component, place.limb, entries, place.first, pieces)?;
                for (row, piece) in (group * PREFETCH_ROWS..).zip(pieces.chunks_exact(pass.band_columns)) {
                    let at = (2 * row + component) * columns;
                    context.kernel().nonzero_pieces_into(m, piece, columns, tile_words, &mut loaded[at..]);
                }
            }
        }
        Ok(())
    }

    /// Computes tile number `tile` of a loaded band: outputs are `[row][component][column]`, residues in `[0, q)`.
    fn tile_into(&self, place: BandPlace, tile: usize, scratch: &mut TileScratch) {
        let Self { context, pass, stored, .. } = *self;
        let limb = place.limb;
        let m = context.modulus(limb);
        let kernel = context.kernel();
        let columns = pass.tile_columns;
        let first = place.first + tile * columns;
        let pair = 2 * columns;
        let input_words = pass.inputs.len() * pair;
        let loaded = &scratch.inputs.words()[tile * input_words..][..input_words];

        let fused = scratch.fused.first(pass.fused_rows * pair);
        let operand = Operand { x: loaded, row_words: pair, columns };
        linear_into(m, &pass.fused, limb, &operand, &mut scratch.blocks, fused);

        let row_words = pass.components * columns;
        let zero = pass.linear.zero;
        let features = scratch.features.first(pass.feature_count * row_words);
        for run in &pass.square_runs {
            let x = &fused[run.first_row * pair..][..run.rows * pair];
            let squares = &mut features[run.first_feature * row_words..][..run.rows * row_words];
            kernel.square_rows_into(m, columns, x, zero, squares);
        }
        let mut announced = Announced::default();
        for (number, run) in pass.stored_runs.iter().enumerate() {
            announced.go_on(&pass.stored_runs, number, |run| {
                stored[run.stage].prefetch(&run.rows, limb, first, columns);
            });
            let loaded = &mut features[run.first_feature * row_words..][..run.rows.count * row_words];
            if run.kind == FeatureKind::Value {
                stored[run.stage].load_into(kernel, &run.rows, limb, first, loaded);
                if zero == Zero::Modulus {
                    kernel.nonzero_assign(m, loaded);
                }
            } else {
                let x = scratch.kept.first(run.rows.count * pair);
                stored[run.stage].load_into(kernel, &run.rows, limb, first, x);
                kernel.square_rows_into(m, columns, x, zero, loaded);
            }
        }
        let pair_of_kept = scratch.kept.first(pair);
        for (number, (at, feature)) in pass.features.iter().enumerate() {
            let row = &mut features[at * row_words..][..row_words];
            if let Some((_, TileFeature { place: Place::Kept { stage, rows }, .. })) =
                pass.features.get(number + PREFETCH_ROWS)
            {
                stored[*stage].prefetch(rows, limb, first, columns);
            }
            let (c0, c1) = match feature.place {
                Place::Input(r) => loaded[r as usize * pair..][..pair].split_at(columns),
                Place::Fused(r) => fused[r as usize * pair..][..pair].split_at(columns),
                Place::Kept { stage, rows } => {
                    stored[stage].load_into(kernel, &rows, limb, first, pair_of_kept);
                    pair_of_kept.split_at(columns)
                }
            };
            match feature.kind {
                FeatureKind::Square => {
                    let (o0, rest) = row.split_at_mut(columns);
                    let (o1, o2) = rest.split_at_mut(columns);
                    kernel.square_into(m, c0, c1, [o0, o1, o2]);
                }
                FeatureKind::Value => {
                    row[..columns].copy_from_slice(c0);
                    row[columns..pair].copy_from_slice(c1);
                    row[pair..].fill(m.value());
                }
            }
            if let Some(multiplier) = feature.multiplier {
                kernel.scale_assign(m, row, pass.multipliers[limb][multiplier]);
            }
            if feature.multiplier.is_some() || feature.kind == FeatureKind::Value {
                kernel.nonzero_assign(m, row);
            }
        }
        let operand = Operand { x: features, row_words, columns };
        let outputs = scratch.outputs.first(pass.rows.len() * row_words);
        linear_into(m, &pass.linear, limb, &operand, &mut scratch.blocks, outputs);
    }
}
