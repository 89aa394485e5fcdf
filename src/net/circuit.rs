//! The circuit: integer linear maps over values and squares of values. One definition, four readings: the integer
//! oracle (numbers), the planner (level, scale, noise, cost), the engine (ciphertext tiles), and the package (bytes).
//!
//! Stage 0 reads the input image, stage k the outputs of earlier stages. Every stage computes
//! `out = W . features + bias`, where a feature is a value of an earlier buffer or its square. All activations have
//! been completed to squares, so there is nothing else. The last stage's outputs are the logits.
//!
//! Not here: floats as trained (see [`network`](super::network)), moduli, levels or scales of ciphertexts (see `plan`).

/// Where a feature is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The normalised input image, entries in (channel, row, column) order.
    Input,
    /// The outputs of an earlier stage.
    Stage(usize),
}

/// What is done to a value before the linear map sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureKind {
    /// The value itself.
    Value,
    /// Its square.
    Square,
}

/// One column of a stage's linear map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feature {
    /// Buffer that holds the value.
    pub source: Source,
    /// The value or its square.
    pub kind: FeatureKind,
    /// Index into the buffer.
    pub entry: u32,
}

/// A dense block of a sparse integer matrix: all of `rows` read all of `columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Output indices, strictly ascending.
    pub rows: Vec<u32>,
    /// Indices into the stage's features, strictly ascending.
    pub columns: Vec<u32>,
    /// Row-major `rows.len() x columns.len()` integers of at most the map's `weight_bits` bits, sign included.
    pub weights: Vec<i16>,
}

/// `out[r] = bias[r] + sum over blocks of (weights[r, c] / weight_scale) * feature[c]`.
///
/// A row may appear in several blocks (their contributions add), but no (row, column) pair twice, and every row has at
/// least one non-zero weight: a constant output would be a transparent ciphertext.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap {
    /// Number of rows.
    pub outputs: usize,
    /// The dense blocks.
    pub blocks: Vec<Block>,
    /// One per output, in real units.
    pub bias: Vec<f64>,
    /// Real weight = integer / `weight_scale`.
    pub weight_scale: f64,
    /// Width of the integers, sign included: 4 to 16, |w| <= 2^(bits-1) - 1.
    pub weight_bits: u32,
}

/// What calibration saw at a stage's outputs, in real units. `max_abs` and `max_rms` may be those of a larger set of images
/// (see [`Circuit::widen`]); "calibration images" below are that set then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageStats {
    /// Largest magnitude of any output over all calibration images.
    pub max_abs: f64,
    /// Largest root mean square over the calibration images of any single output.
    pub max_rms: f64,
    /// Root mean square over calibration images and logits of the logit change per unit of independent noise added to
    /// every output of this stage (for the last stage: 1).
    pub noise_gain: f64,
    /// The same for the worst (image, logit) pair.
    pub noise_gain_worst: f64,
}

/// One linear map and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// For people: which layers this is, e.g. `conv2d 1x28x28 -> 5x13x13`.
    pub name: String,
    /// The columns of the map, sorted, without repetition.
    pub features: Vec<Feature>,
    /// The map.
    pub map: LinearMap,
    /// Calibration figures of the outputs.
    pub stats: StageStats,
}

/// A whole network as integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Circuit {
    /// Channels, rows, columns of an image; entry (c, y, x) has index `(c * rows + y) * columns + x`.
    pub input_shape: [usize; 3],
    /// Calibration figures of the normalised input.
    pub input_stats: StageStats,
    /// The stages in order of evaluation.
    pub stages: Vec<Stage>,
}
