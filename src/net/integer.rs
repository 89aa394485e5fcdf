//! The integer oracle: a [`Circuit`] on numbers, with the very integers the engine uses; and the circuit's own checks.
//!
//! Input `[entry][image]` normalised, outputs `[row][image]`. A block's dot products run over its columns in order,
//! blocks are added in order, the sum is divided once by the weight scale and the bias added: the same bits everywhere.

use super::batch::for_blocks;
use super::circuit::{Block, Circuit, FeatureKind, Source, Stage, StageStats};
use super::draft::MAX_NAME;
use super::error::{NetError, all_finite, at_most, same_len};
use super::panel::Panel;
use super::shapes::{MAX_LAYERS, MAX_MACS, MAX_VALUE_ENTRIES, checked_entries};

impl StageStats {
    /// Before calibration.
    pub(super) const ZERO: StageStats =
        StageStats { max_abs: 0.0, max_rms: 0.0, noise_gain: 0.0, noise_gain_worst: 0.0 };
}

impl Circuit {
    /// Entries of the input image.
    pub fn inputs(&self) -> usize {
        self.input_shape.iter().product()
    }

    /// Number of logits.
    pub fn classes(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.map.outputs)
    }

    /// Entries of the buffer a feature reads; 0 for a stage that does not exist.
    pub fn buffer_len(&self, source: Source) -> usize {
        match source {
            Source::Input => self.inputs(),
            Source::Stage(stage) => self.stages.get(stage).map_or(0, |stage| stage.map.outputs),
        }
    }

    /// Multiply-accumulates of a stage on one image: the entries of its dense blocks.
    pub fn macs(&self, stage: usize) -> u64 {
        self.stages.get(stage).map_or(0, |stage| stage.map.blocks.iter().map(|block| block.weights.len() as u64).sum())
    }

    /// Multiply-accumulates of all stages on one image.
    pub fn total_macs(&self) -> u64 {
        (0..self.stages.len()).map(|stage| self.macs(stage)).sum()
    }

    /// Distinct squares a stage reads.
    pub fn squares(&self, stage: usize) -> usize {
        let Some(stage) = self.stages.get(stage) else { return 0 };
        stage.features.iter().filter(|feature| feature.kind == FeatureKind::Square).count()
    }

    /// Distinct squares of the whole circuit; one read by several stages counts once.
    pub fn total_squares(&self) -> usize {
        let mut squares: Vec<_> = self.stages.iter().flat_map(|stage| &stage.features).collect();
        squares.retain(|feature| feature.kind == FeatureKind::Square);
        squares.sort_unstable();
        squares.dedup();
        squares.len()
    }

    /// Logits `[class][image]` of normalised images `x` = `[entry][image]`.
    ///
    /// Errors: an invalid circuit, or `x` does not hold `images` images.
    pub fn evaluate_batch(&self, x: &[f64], images: usize) -> Result<Vec<f64>, NetError> {
        self.validate()?;
        let mut run = Run::default();
        for_blocks(x, self.inputs(), images, self.classes(), |block, width, _| {
            let mut buffers = vec![block];
            self.run_stages(0, &mut buffers, width, &mut run);
            Ok(buffers.pop().unwrap_or_default())
        })
    }

    /// Every stage's outputs, `[stage][row][image]`. Errors as [`Circuit::evaluate_batch`].
    pub fn evaluate_stages_batch(&self, x: &[f64], images: usize) -> Result<Vec<Vec<f64>>, NetError> {
        self.validate()?;
        let outputs = self.stages.iter().map(|stage| stage.map.outputs).sum();
        let mut run = Run::default();
        let mut all = for_blocks(x, self.inputs(), images, outputs, |block, width, _| {
            let mut buffers = vec![block];
            self.run_stages(0, &mut buffers, width, &mut run);
            Ok(buffers[1..].concat())
        })?;
        let mut stages = Vec::new();
        for stage in &self.stages {
            let rest = all.split_off(stage.map.outputs * images);
            stages.push(std::mem::replace(&mut all, rest));
        }
        Ok(stages)
    }

    /// Appends the outputs of stages `first..` to `buffers` (`[0]` the input, `[k + 1]` stage k), each `[row][width]`.
    pub(super) fn run_stages(&self, first: usize, buffers: &mut Vec<Vec<f64>>, width: usize, run: &mut Run) {
        for stage in &self.stages[first..] {
            let output = stage.run(buffers, width, run);
            buffers.push(output);
        }
    }

    /// Checks every promise of the [`circuit`](super::circuit) types; circuits come from outside. Errors name the stage,
    /// found and expected.
    pub fn validate(&self) -> Result<(), NetError> {
        let count = checked_entries("circuit", "input shape", &self.input_shape)?;
        at_most("circuit", "entries of the input", count as u128, MAX_VALUE_ENTRIES as u128)?;
        check_stats("input", &self.input_stats)?;
        if self.stages.is_empty() {
            return Err(NetError::missing("circuit", "stages"));
        }
        at_most("circuit", "stages", self.stages.len() as u128, MAX_LAYERS as u128 + 1)?;
        at_most("circuit", "multiply-accumulates", self.total_macs().into(), MAX_MACS.into())?;
        for (index, stage) in self.stages.iter().enumerate() {
            self.validate_stage(&format!("stage {index}"), index, stage)?;
        }
        Ok(())
    }

    fn validate_stage(&self, place: &str, index: usize, stage: &Stage) -> Result<(), NetError> {
        at_most(place, "length of the name", stage.name.chars().count() as u128, MAX_NAME as u128)?;
        check_stats(place, &stage.stats)?;
        let map = &stage.map;
        at_most(place, "outputs", map.outputs as u128, MAX_VALUE_ENTRIES as u128)?;
        if map.outputs == 0 {
            return Err(NetError::mismatch(place, "outputs", 0, "at least 1"));
        }
        same_len(place, "bias", map.bias.len(), map.outputs)?;
        all_finite(place, "bias", map.bias.iter().copied())?;
        if !(4..=16).contains(&map.weight_bits) {
            return Err(NetError::mismatch(place, "weight bits", map.weight_bits, "4 to 16"));
        }
        if !(map.weight_scale.is_finite() && map.weight_scale > 0.0) {
            return Err(NetError::mismatch(place, "weight scale", map.weight_scale, "a positive number"));
        }
        if let Some(pair) = stage.features.windows(2).find(|pair| pair[0] >= pair[1]) {
            let found = format!("{:?} before {:?}", pair[0], pair[1]);
            return Err(NetError::mismatch(place, "order of features", found, "strictly ascending"));
        }
        for feature in &stage.features {
            if let Source::Stage(source) = feature.source
                && source >= index
            {
                return Err(NetError::mismatch(place, "source stage", source, format!("below {index}")));
            }
            let len = self.buffer_len(feature.source);
            if feature.entry as usize >= len {
                return Err(NetError::mismatch(
                    place,
                    format!("entry of {feature:?}"),
                    feature.entry,
                    format!("below {len}"),
                ));
            }
        }
        let limit = (1i32 << (map.weight_bits - 1)) - 1;
        for block in &map.blocks {
            check_block(place, block, map.outputs, stage.features.len(), limit)?;
        }
        check_rows(place, &map.blocks, map.outputs, stage.features.len())
    }
}

fn check_stats(place: &str, stats: &StageStats) -> Result<(), NetError> {
    for (what, value) in [
        ("largest magnitude", stats.max_abs),
        ("largest rms", stats.max_rms),
        ("noise gain", stats.noise_gain),
        ("worst noise gain", stats.noise_gain_worst),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(NetError::mismatch(place, what, value, "a finite number of at least 0"));
        }
    }
    Ok(())
}

fn check_block(place: &str, block: &Block, outputs: usize, features: usize, limit: i32) -> Result<(), NetError> {
    for (what, indices, below) in [("rows", &block.rows, outputs), ("columns", &block.columns, features)] {
        let ascending = indices.windows(2).all(|pair| pair[0] < pair[1]);
        let last = indices.last().copied();
        if !ascending || last.is_none_or(|last| last as usize >= below) {
            let found = format!("{} indices up to {last:?}, ascending: {ascending}", indices.len());
            let expected = format!("at least one, strictly ascending, below {below}");
            return Err(NetError::mismatch(place, format!("{what} of a block"), found, expected));
        }
    }
    same_len(place, "weights of a block", block.weights.len(), block.rows.len() * block.columns.len())?;
    match block.weights.iter().find(|&&weight| i32::from(weight).abs() > limit) {
        Some(weight) => Err(NetError::mismatch(place, "weight", weight, format!("magnitude at most {limit}"))),
        None => Ok(()),
    }
}

/// No (row, column) twice, and a non-zero weight in every row.
fn check_rows(place: &str, blocks: &[Block], outputs: usize, features: usize) -> Result<(), NetError> {
    let mut blocks_of_row: Vec<Vec<u32>> = vec![Vec::new(); outputs];
    let mut weighted = vec![false; outputs];
    for (index, block) in blocks.iter().enumerate() {
        for (&row, weights) in block.rows.iter().zip(block.weights.chunks_exact(block.columns.len())) {
            blocks_of_row[row as usize].push(index as u32);
            weighted[row as usize] |= weights.iter().any(|&weight| weight != 0);
        }
    }
    if let Some(row) = weighted.iter().position(|weighted| !weighted) {
        return Err(NetError::mismatch(place, format!("row {row}"), "all zero", "at least one non-zero weight"));
    }
    let mut seen_by = vec![usize::MAX; features];
    for (row, indices) in blocks_of_row.iter().enumerate().filter(|(_, indices)| indices.len() > 1) {
        for &column in indices.iter().flat_map(|&index| &blocks[index as usize].columns) {
            if std::mem::replace(&mut seen_by[column as usize], row) == row {
                let what = format!("blocks holding row {row}, column {column}");
                return Err(NetError::mismatch(place, what, "2 or more", "at most 1"));
            }
        }
    }
    Ok(())
}

/// Scratch of an evaluation.
#[derive(Default)]
pub(super) struct Run {
    panel: Panel,
    sums: Vec<f64>,
}

impl Stage {
    /// `[row][width]` from the buffers so far.
    fn run(&self, buffers: &[Vec<f64>], width: usize, run: &mut Run) -> Vec<f64> {
        let mut out = vec![0.0; self.map.outputs * width];
        for block in &self.map.blocks {
            run.panel.reset(block.columns.len(), width);
            for (place, &column) in block.columns.iter().enumerate() {
                let feature = self.features[column as usize];
                let buffer = match feature.source {
                    Source::Input => &buffers[0],
                    Source::Stage(stage) => &buffers[stage + 1],
                };
                let entry = feature.entry as usize;
                let values = &buffer[entry * width..(entry + 1) * width];
                match feature.kind {
                    FeatureKind::Value => run.panel.set(place, values, |value| value),
                    FeatureKind::Square => run.panel.set(place, values, |value| value * value),
                }
            }
            run.panel.multiply_into(&block.weights, &mut run.sums);
            for (&row, sums) in block.rows.iter().zip(run.sums.chunks_exact(width)) {
                let place = &mut out[row as usize * width..(row as usize + 1) * width];
                place.iter_mut().zip(sums).for_each(|(out, &sum)| *out += sum);
            }
        }
        for (row, &bias) in out.chunks_exact_mut(width).zip(&self.map.bias) {
            row.iter_mut().for_each(|sum| *sum = *sum / self.map.weight_scale + bias);
        }
        out
    }
}
