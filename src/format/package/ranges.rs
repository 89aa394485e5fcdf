//! Section `ranges.json`: how large the network's values became over the training set. Optional.
//!
//! Not here: whether the figures agree with one another and with the network (`RangeReport::validate`).

use serde::{Deserialize, Serialize};

use super::json::Exact;
use super::sections::{PackedSection, Sections, json};
use crate::format::FormatError;
use crate::net::ranges::{LayerRange, RangeReport, ValueRange, WorstImage};

const NAME: &str = "ranges.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangesJson {
    images: u64,
    layers: Vec<LayerRangeJson>,
    logits: ValueRangeJson,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerRangeJson {
    layer: usize,
    values: ValueRangeJson,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueRangeJson {
    min: Exact,
    max: Exact,
    rms: Exact,
    quantile: Exact,
    limit: Exact,
    images_beyond: u64,
    worst: Vec<WorstJson>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorstJson {
    image: u64,
    value: Exact,
}

impl From<&ValueRange> for ValueRangeJson {
    fn from(range: &ValueRange) -> Self {
        let worst = range.worst.iter().map(|worst| WorstJson { image: worst.image, value: Exact(worst.value) });
        Self {
            min: Exact(range.min),
            max: Exact(range.max),
            rms: Exact(range.rms),
            quantile: Exact(range.quantile),
            limit: Exact(range.limit),
            images_beyond: range.images_beyond,
            worst: worst.collect(),
        }
    }
}

impl From<ValueRangeJson> for ValueRange {
    fn from(range: ValueRangeJson) -> Self {
        let worst = range.worst.into_iter().map(|worst| WorstImage { image: worst.image, value: worst.value.0 });
        Self {
            min: range.min.0,
            max: range.max.0,
            rms: range.rms.0,
            quantile: range.quantile.0,
            limit: range.limit.0,
            images_beyond: range.images_beyond,
            worst: worst.collect(),
        }
    }
}

pub(super) fn encode_ranges(ranges: Option<&RangeReport>, packed: &mut Vec<PackedSection>) -> Result<(), FormatError> {
    let Some(report) = ranges else { return Ok(()) };
    let layers =
        report.layers.iter().map(|range| LayerRangeJson { layer: range.layer, values: (&range.values).into() });
    let value = RangesJson { images: report.images, layers: layers.collect(), logits: (&report.logits).into() };
    packed.push(json(NAME, &value)?);
    Ok(())
}

pub(super) fn decode_ranges(sections: &mut Sections<'_>) -> Result<Option<RangeReport>, FormatError> {
    let Some(RangesJson { images, layers, logits }) = sections.json_opt(NAME)? else { return Ok(None) };
    let layers = layers.into_iter().map(|range| LayerRange { layer: range.layer, values: range.values.into() });
    Ok(Some(RangeReport { images, layers: layers.collect(), logits: logits.into() }))
}
