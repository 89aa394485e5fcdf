//! Passes: how a stage's outputs are cut so that a tile's working set fits the second-level cache and the buffers fit memory.
//!
//! A pass is a set of output rows with exactly the features, first-layer outputs and inputs that they need. Most stages are one pass; a
//! wide convolution is several, whose overlapping inputs are squared again rather than kept.
//!
//! What weights of zero alone connect is left out: rows and columns of a block, features that no row needs, and outputs that nothing reads
//! (those of pruned neurons), which are neither computed nor switched.

use super::{After, Plan, StagePlan};
use crate::net::circuit::{Block, Circuit, Feature, Source};

/// Words of one tile column that a tile may hold: 12 000 words of 16 columns are 1.5 MB.
const MOST_WORDS_PER_COLUMN: usize = 12_000;
/// A pass is halved only if its tile shrinks to this share or less.
const WORTHWHILE: f64 = 0.8;
/// Bytes that a tile's first-stage outputs, features and outputs should stay below.
const TILE_BYTES: usize = 800_000;
/// Bytes that a band's inputs should stay below.
const BAND_BYTES: usize = 900_000;
/// Columns of the narrowest tile: what byte products take at once.
const NARROWEST_TILE: usize = 16;
/// Bytes of a pass's three-component outputs.
const OUTPUT_BYTES: usize = 768 << 20;

/// A dense block with rows and columns renumbered to the tile's own.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalBlock {
    /// Row numbers in the pass's outputs.
    pub rows: Vec<u32>,
    /// Column numbers in the pass's features.
    pub columns: Vec<u32>,
    /// Row-major weights.
    pub weights: Vec<i16>,
}

/// One pass over all tiles of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The stage.
    pub stage: usize,
    /// Output rows of the stage, in order.
    pub rows: Vec<u32>,
    /// Features needed, sorted.
    pub features: Vec<Feature>,
    /// The stage's map on those.
    pub blocks: Vec<LocalBlock>,
    /// Rows of the first stage to be computed in the tile, sorted.
    pub fused_rows: Vec<u32>,
    /// The first stage's map for them; columns number `inputs`.
    pub fused_blocks: Vec<LocalBlock>,
    /// Input entries needed, sorted.
    pub inputs: Vec<u32>,
    /// Columns of a tile: a power of two of at least 16.
    pub tile_columns: usize,
    /// Columns whose inputs are loaded at once, a power of two of at least `tile_columns`: longer pieces are read and expanded faster.
    pub band_columns: usize,
}

impl Pass {
    /// Words of one column of the tile: inputs and first-stage outputs of two components, features and outputs of up to three.
    #[must_use]
    pub fn words_per_column(&self, components: usize) -> usize {
        2 * self.inputs.len() + self.computed_words_per_column(components)
    }

    /// The same without the inputs.
    fn computed_words_per_column(&self, components: usize) -> usize {
        2 * self.fused_rows.len() + components * (self.features.len() + self.rows.len())
    }

    /// Words that one thread holds at once.
    #[must_use]
    pub fn words_in_use(&self, components: usize) -> usize {
        2 * self.inputs.len() * self.band_columns + self.computed_words_per_column(components) * self.tile_columns
    }
}

/// Which outputs of each stage reach a logit through weights that are not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live(Vec<Vec<bool>>);

impl Live {
    /// From the logits back.
    #[must_use]
    pub fn new(circuit: &Circuit) -> Self {
        let mut live: Vec<Vec<bool>> = circuit.stages.iter().map(|stage| vec![false; stage.map.outputs]).collect();
        if let Some(logits) = live.last_mut() {
            logits.fill(true);
        }
        for k in (0..circuit.stages.len()).rev() {
            let stage = &circuit.stages[k];
            for block in &stage.map.blocks {
                let mut read = vec![false; block.columns.len()];
                for (&row, weights) in block.rows.iter().zip(block.weights.chunks_exact(block.columns.len().max(1))) {
                    if live[k][row as usize] {
                        read.iter_mut().zip(weights).for_each(|(read, &w)| *read |= w != 0);
                    }
                }
                for (&column, _) in block.columns.iter().zip(read).filter(|(_, read)| *read) {
                    let feature = &stage.features[column as usize];
                    if let Source::Stage(j) = feature.source {
                        live[j][feature.entry as usize] = true;
                    }
                }
            }
        }
        Self(live)
    }

    /// Those of one stage, ascending.
    pub fn rows(&self, stage: usize) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.0[stage]).filter(|(_, live)| **live).map(|(row, _)| row)
    }
}

/// Cuts one stage into passes. Stage 0 has passes only if it is the last.
#[must_use]
pub fn passes(circuit: &Circuit, plan: &Plan, stage: usize, live: &Live) -> Vec<Pass> {
    let stage_plan = &plan.stages[stage];
    if stage_plan.after == After::Fused {
        return Vec::new();
    }
    let map = &circuit.stages[stage].map;
    // Rows that read the same blocks stay together.
    let mut blocks_of_row: Vec<Vec<u32>> = vec![Vec::new(); map.outputs];
    for (b, block) in map.blocks.iter().enumerate() {
        for &row in &block.rows {
            blocks_of_row[row as usize].push(b as u32);
        }
    }
    let mut order: Vec<u32> = live.rows(stage).collect();
    order.sort_by(|&a, &b| blocks_of_row[a as usize].cmp(&blocks_of_row[b as usize]).then(a.cmp(&b)));

    let row_bytes = stage_plan.components * stage_plan.limbs * plan.slots() * 8;
    let most_rows = (OUTPUT_BYTES / row_bytes).max(1);
    let mut result = Vec::new();
    let mut start = 0;
    while start < order.len() {
        let longest = most_rows.min(order.len() - start);
        let build_to = |rows: usize| build(circuit, stage_plan, stage, &order[start..start + rows]);
        let mut pass = build_to(longest);
        if pass.words_per_column(stage_plan.components) > MOST_WORDS_PER_COLUMN && longest > 1 {
            // Halve the rows while that makes the tile fit better; where all rows read the same features it hardly does.
            let mut rows = longest;
            let mut words = pass.words_per_column(stage_plan.components);
            while rows > 1 && words > MOST_WORDS_PER_COLUMN {
                let half = build_to(rows.div_ceil(2));
                let half_words = half.words_per_column(stage_plan.components);
                if half_words as f64 > WORTHWHILE * words as f64 {
                    break;
                }
                (rows, words, pass) = (half.rows.len(), half_words, half);
            }
        }
        start += pass.rows.len();
        result.push(pass);
    }
    result
}

/// For each of `count` passes of stage `stage`, the number of the last pass of a later stage, cut into `list`, that reads any of its rows: after it
/// the rows' memory is free. Where none does, the first.
#[must_use]
pub fn last_reads(list: &[Pass], stage: usize, count: usize, pass_of_row: impl Fn(u32) -> Option<usize>) -> Vec<usize> {
    let mut last = vec![0; count];
    for (number, pass) in list.iter().enumerate() {
        let read = pass.features.iter().filter(|f| f.source == Source::Stage(stage));
        read.filter_map(|f| pass_of_row(f.entry)).for_each(|of| last[of] = number);
    }
    last
}

fn build(circuit: &Circuit, stage_plan: &StagePlan, stage: usize, rows: &[u32]) -> Pass {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let source_stage = &circuit.stages[stage];
    let picked = restrict(&source_stage.map.blocks, &rows);
    let mut feature_numbers: Vec<u32> = picked.iter().flat_map(|b| b.columns.iter().copied()).collect();
    feature_numbers.sort_unstable();
    feature_numbers.dedup();
    let features: Vec<Feature> = feature_numbers.iter().map(|&f| source_stage.features[f as usize]).collect();
    let blocks = localise(picked, &rows, &feature_numbers);

    let entries_of = |source: Source| -> Vec<u32> {
        let mut entries: Vec<u32> = features.iter().filter(|f| f.source == source).map(|f| f.entry).collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    };
    let mut inputs = entries_of(Source::Input);
    let fused_rows = entries_of(Source::Stage(0));
    let mut fused_blocks = Vec::new();
    if !fused_rows.is_empty() {
        let first = &circuit.stages[0];
        let picked = restrict(&first.map.blocks, &fused_rows);
        // The first stage's features are inputs.
        let entry = |&column: &u32| first.features[column as usize].entry;
        inputs.extend(picked.iter().flat_map(|b| b.columns.iter().map(entry)));
        inputs.sort_unstable();
        inputs.dedup();
        let renamed = picked.into_iter().map(|mut b| {
            b.columns = b.columns.iter().map(entry).collect();
            b
        });
        fused_blocks = localise(renamed.collect(), &fused_rows, &inputs);
    }
    let (tile_columns, band_columns) = (NARROWEST_TILE, NARROWEST_TILE);
    let mut pass = Pass { stage, rows, features, blocks, fused_rows, fused_blocks, inputs, tile_columns, band_columns };
    let words = pass.computed_words_per_column(stage_plan.components);
    while pass.tile_columns < 64 && 2 * pass.tile_columns * words * 8 <= TILE_BYTES {
        pass.tile_columns *= 2;
    }
    pass.band_columns = pass.tile_columns;
    while pass.band_columns < 128 && 2 * pass.band_columns * 2 * pass.inputs.len() * 8 <= BAND_BYTES {
        pass.band_columns *= 2;
    }
    pass
}

/// The parts of the blocks that belong to some rows (sorted), without rows and columns of zeros.
fn restrict(blocks: &[Block], rows: &[u32]) -> Vec<LocalBlock> {
    let mut result = Vec::new();
    for block in blocks {
        let width = block.columns.len();
        let weights_of = |r: usize| &block.weights[r * width..(r + 1) * width];
        let mut read = vec![false; width];
        let mut kept: Vec<usize> = Vec::new();
        for r in (0..block.rows.len()).filter(|&r| rows.binary_search(&block.rows[r]).is_ok()) {
            let mut any = false;
            for (read, &w) in read.iter_mut().zip(weights_of(r)) {
                *read |= w != 0;
                any |= w != 0;
            }
            if any {
                kept.push(r);
            }
        }
        if kept.is_empty() {
            continue;
        }
        let columns: Vec<usize> = (0..width).filter(|&c| read[c]).collect();
        result.push(LocalBlock {
            rows: kept.iter().map(|&r| block.rows[r]).collect(),
            columns: columns.iter().map(|&c| block.columns[c]).collect(),
            weights: kept.iter().flat_map(|&r| columns.iter().map(move |&c| weights_of(r)[c])).collect(),
        });
    }
    result
}

/// Renumbers rows and columns by their places in sorted lists that contain them.
fn localise(mut blocks: Vec<LocalBlock>, rows: &[u32], columns: &[u32]) -> Vec<LocalBlock> {
    let place = |list: &[u32], x: u32| list.partition_point(|&y| y < x) as u32;
    for block in &mut blocks {
        block.rows.iter_mut().for_each(|r| *r = place(rows, *r));
        block.columns.iter_mut().for_each(|c| *c = place(columns, *c));
    }
    blocks
}
