//! The two JSON sections of a model package: what a network and a circuit are made of, without their numbers in bulk.
//!
//! Reals are written as strings in the shortest decimal form that reads back to the same double, so that no JSON
//! parser can round them. Unknown fields are refused. Not here: bulk tensors (numeric sections, see `package`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::net::circuit::StageStats;
use crate::net::network::Granularity;

/// A finite double as an exact decimal string.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exact(pub(super) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Exact;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a finite decimal number in a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Exact, E> {
                match text.parse::<f64>() {
                    Ok(value) if value.is_finite() => Ok(Exact(value)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Section `network.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkJson {
    pub(super) name: String,
    pub(super) dataset: String,
    pub(super) input: InputJson,
    pub(super) layers: Vec<LayerJson>,
}

/// Input shape and normalisation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputJson {
    pub(super) shape: [usize; 3],
    pub(super) mean: Vec<Exact>,
    pub(super) std: Vec<Exact>,
}

/// One layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerJson {
    pub(super) name: String,
    pub(super) op: OpJson,
}

/// One operation; its tensors follow one another in `network.f32` in the order of the fields of `net::network::Op`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum OpJson {
    /// weight, then bias of `weight_shape[0]`.
    Conv2d { weight_shape: [usize; 4], stride: usize, padding: [usize; 4], groups: usize },
    /// No tensors.
    AvgPool2d { kernel: usize, stride: usize },
    /// weight, then bias of `weight_shape[0]`.
    Dense { weight_shape: [usize; 2] },
    /// gamma, beta, mean, var of `channels` each.
    BatchNorm { channels: usize, eps: Exact },
    /// No tensors.
    Flatten,
    /// No tensors; in packages with tables only.
    Relu,
    /// a, b, c of `coefficients` each.
    Poly2 { granularity: GranularityJson, coefficients: usize },
    /// No tensors.
    Add { with: usize },
}

/// Who shares a quadratic.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GranularityJson {
    /// The layer.
    Layer,
    /// A channel.
    Channel,
    /// Nobody.
    Element,
}

impl From<Granularity> for GranularityJson {
    fn from(granularity: Granularity) -> Self {
        match granularity {
            Granularity::Layer => Self::Layer,
            Granularity::Channel => Self::Channel,
            Granularity::Element => Self::Element,
        }
    }
}

impl From<GranularityJson> for Granularity {
    fn from(granularity: GranularityJson) -> Self {
        match granularity {
            GranularityJson::Layer => Self::Layer,
            GranularityJson::Channel => Self::Channel,
            GranularityJson::Element => Self::Element,
        }
    }
}

/// Section `circuit.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CircuitJson {
    pub(super) input_shape: [usize; 3],
    pub(super) input_stats: StatsJson,
    pub(super) stages: Vec<StageJson>,
}

/// One stage: how much of each bulk section is its own, and its reals.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageJson {
    pub(super) name: String,
    /// Rows of `circuit.features`.
    pub(super) features: usize,
    /// Rows of `circuit.blocks`.
    pub(super) blocks: usize,
    /// Entries of `circuit.bias`.
    pub(super) outputs: usize,
    pub(super) weight_bits: u32,
    pub(super) weight_scale: Exact,
    pub(super) stats: StatsJson,
}

/// Calibration figures.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsJson {
    max_abs: Exact,
    max_rms: Exact,
    noise_gain: Exact,
    noise_gain_worst: Exact,
}

impl From<&StageStats> for StatsJson {
    fn from(stats: &StageStats) -> Self {
        Self {
            max_abs: Exact(stats.max_abs),
            max_rms: Exact(stats.max_rms),
            noise_gain: Exact(stats.noise_gain),
            noise_gain_worst: Exact(stats.noise_gain_worst),
        }
    }
}

impl From<&StatsJson> for StageStats {
    fn from(stats: &StatsJson) -> Self {
        Self {
            max_abs: stats.max_abs.0,
            max_rms: stats.max_rms.0,
            noise_gain: stats.noise_gain.0,
            noise_gain_worst: stats.noise_gain_worst.0,
        }
    }
}
