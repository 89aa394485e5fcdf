//! Sections `circuit.*`: the integer circuit, its bulk concatenated over stages and, within them, over blocks.
//!
//! `circuit.json` and `circuit.blocks` say how much belongs to each. Weights are I8 where no stage is wider than 8
//! bits, else I16. Not here: whether indices and values make sense (see `check`).

use super::json::{CircuitJson, Exact, StageJson};
use super::sections::{Numbers, PackedSection, Sections, json, numbers};
use crate::format::FormatError;
use crate::net::circuit::{Block, Circuit, Feature, FeatureKind, LinearMap, Source, Stage};

pub(super) fn encode_circuit(circuit: &Circuit, packed: &mut Vec<PackedSection>) -> Result<(), FormatError> {
    let (mut features, mut blocks, mut rows, mut columns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut weights, mut bias) = (Vec::new(), Vec::new());
    for stage in &circuit.stages {
        for feature in &stage.features {
            features.extend(encode_feature(feature)?);
        }
        for block in &stage.map.blocks {
            blocks.extend([
                count("rows of a block", block.rows.len())?,
                count("columns of a block", block.columns.len())?,
            ]);
            rows.extend_from_slice(&block.rows);
            columns.extend_from_slice(&block.columns);
            weights.extend_from_slice(&block.weights);
        }
        bias.extend_from_slice(&stage.map.bias);
    }
    let stages = circuit.stages.iter().map(|stage| StageJson {
        name: stage.name.clone(),
        features: stage.features.len(),
        blocks: stage.map.blocks.len(),
        outputs: stage.map.outputs,
        weight_bits: stage.map.weight_bits,
        weight_scale: Exact(stage.map.weight_scale),
        stats: (&stage.stats).into(),
    });
    let value = CircuitJson {
        input_shape: circuit.input_shape,
        input_stats: (&circuit.input_stats).into(),
        stages: stages.collect(),
    };
    packed.push(json("circuit.json", &value)?);
    packed.push(numbers("circuit.features", &[features.len() / 3, 3], &features));
    packed.push(numbers("circuit.blocks", &[blocks.len() / 2, 2], &blocks));
    packed.push(numbers("circuit.rows", &[rows.len()], &rows));
    packed.push(numbers("circuit.columns", &[columns.len()], &columns));
    let narrow: Result<Vec<i8>, _> = if circuit.stages.iter().all(|stage| stage.map.weight_bits <= 8) {
        weights.iter().map(|&weight| i8::try_from(weight)).collect()
    } else {
        packed.push(numbers("circuit.weights", &[weights.len()], &weights));
        Ok(Vec::new())
    };
    let narrow = narrow.map_err(|_| FormatError::invalid("weights", "one above 8 bits", "at most 8 bits"))?;
    packed.push(numbers("circuit.weights", &[narrow.len()], &narrow));
    packed.push(numbers("circuit.bias", &[bias.len()], &bias));
    Ok(())
}

fn count(what: &str, value: usize) -> Result<u32, FormatError> {
    u32::try_from(value).map_err(|_| FormatError::invalid(what, value, "less than 2^32"))
}

fn encode_feature(feature: &Feature) -> Result<[u32; 3], FormatError> {
    let source = match feature.source {
        Source::Input => 0,
        Source::Stage(stage) => count("source stage", stage.saturating_add(1))?,
    };
    let kind = match feature.kind {
        FeatureKind::Value => 0,
        FeatureKind::Square => 1,
    };
    Ok([source, kind, feature.entry])
}

fn decode_feature(source: u32, kind: u32, entry: u32) -> Result<Feature, FormatError> {
    let source = source.checked_sub(1).map_or(Source::Input, |stage| Source::Stage(stage as usize));
    let kind = match kind {
        0 => FeatureKind::Value,
        1 => FeatureKind::Square,
        other => return Err(FormatError::invalid("feature kind", other, "0 or 1")),
    };
    Ok(Feature { source, kind, entry })
}

pub(super) fn decode_circuit(sections: &mut Sections<'_>) -> Result<Circuit, FormatError> {
    let value: CircuitJson = sections.json("circuit.json")?;
    let wide = value.stages.iter().any(|stage| stage.weight_bits > 8);
    let mut bulk = CircuitNumbers {
        features: sections.numbers("circuit.features", &[3])?,
        blocks: sections.numbers("circuit.blocks", &[2])?,
        rows: sections.numbers("circuit.rows", &[])?,
        columns: sections.numbers("circuit.columns", &[])?,
        weights: if wide {
            Weights::Wide(sections.numbers("circuit.weights", &[])?)
        } else {
            Weights::Narrow(sections.numbers("circuit.weights", &[])?)
        },
        bias: sections.numbers("circuit.bias", &[])?,
    };
    let stages = value.stages.into_iter().map(|stage| bulk.stage(stage)).collect::<Result<_, _>>()?;
    bulk.end()?;
    Ok(Circuit { input_shape: value.input_shape, input_stats: (&value.input_stats).into(), stages })
}

enum Weights<'a> {
    Narrow(Numbers<'a, i8>),
    Wide(Numbers<'a, i16>),
}

struct CircuitNumbers<'a> {
    features: Numbers<'a, u32>,
    blocks: Numbers<'a, u32>,
    rows: Numbers<'a, u32>,
    columns: Numbers<'a, u32>,
    weights: Weights<'a>,
    bias: Numbers<'a, f64>,
}

impl CircuitNumbers<'_> {
    fn stage(&mut self, stage: StageJson) -> Result<Stage, FormatError> {
        let triples = self.features.take(stage.features.saturating_mul(3))?;
        let features = triples
            .chunks_exact(3)
            .map(|triple| decode_feature(triple[0], triple[1], triple[2]))
            .collect::<Result<_, _>>()?;
        let sizes = self.blocks.take(stage.blocks.saturating_mul(2))?;
        let blocks = sizes
            .chunks_exact(2)
            .map(|pair| self.block(pair[0] as usize, pair[1] as usize))
            .collect::<Result<_, _>>()?;
        let map = LinearMap {
            outputs: stage.outputs,
            blocks,
            bias: self.bias.take(stage.outputs)?,
            weight_scale: stage.weight_scale.0,
            weight_bits: stage.weight_bits,
        };
        Ok(Stage { name: stage.name, features, map, stats: (&stage.stats).into() })
    }

    fn block(&mut self, rows: usize, columns: usize) -> Result<Block, FormatError> {
        // A block of nothing costs a file 8 bytes and memory many times that.
        if rows == 0 || columns == 0 {
            return Err(FormatError::invalid(
                "rows x columns of a block",
                format!("{rows} x {columns}"),
                "at least 1 x 1",
            ));
        }
        let weights = rows.saturating_mul(columns);
        Ok(Block {
            rows: self.rows.take(rows)?,
            columns: self.columns.take(columns)?,
            weights: match &mut self.weights {
                Weights::Narrow(narrow) => narrow.take(weights)?.into_iter().map(i16::from).collect(),
                Weights::Wide(wide) => wide.take(weights)?,
            },
        })
    }

    fn end(&self) -> Result<(), FormatError> {
        for indices in [&self.features, &self.blocks, &self.rows, &self.columns] {
            indices.end()?;
        }
        match &self.weights {
            Weights::Narrow(narrow) => narrow.end()?,
            Weights::Wide(wide) => wide.end()?,
        }
        self.bias.end()
    }
}
