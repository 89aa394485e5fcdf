//! The network as trained: layers in order, float weights, input normalisation.
//!
//! Values between layers are `[channels, rows, columns]` (or `[n]` after `Flatten` and dense layers), entry order
//! channel-major as in NCHW. Convolution is cross-correlation; padding is zero in normalised space.

/// How pixels become the numbers the network was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// Per channel: value = (byte / 255 - mean) / std.
    pub mean: Vec<f64>,
    /// Per channel, positive.
    pub std: Vec<f64>,
}

impl InputSpec {
    /// The byte nearest to a normalised value of entry `entry`, as table circuits read pixels.
    #[must_use]
    pub fn byte(&self, entry: usize, value: f64) -> u8 {
        let channel = entry / (self.shape[1] * self.shape[2]).max(1);
        let at = |constants: &[f64]| constants.get(channel).copied().unwrap_or(0.0);
        // A float becomes the nearest byte there is; what is no number becomes 0.
        (255.0 * (value * at(&self.std) + at(&self.mean))).round() as u8
    }
}

/// How many neurons share one quadratic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// One (a, b, c) for the whole layer.
    Layer,
    /// One per channel.
    Channel,
    /// One per neuron.
    Element,
}

/// What a layer computes. Tensors are row-major f32.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Cross-correlation.
    Conv2d {
        /// `[out, in / groups, kh, kw]`
        weight: Vec<f32>,
        /// out, in / groups, kh, kw
        weight_shape: [usize; 4],
        /// `[out]`
        bias: Vec<f32>,
        /// Step in both directions.
        stride: usize,
        /// top, left, bottom, right
        padding: [usize; 4],
        /// Divides both channel counts.
        groups: usize,
    },
    /// Mean over square windows, no padding.
    AvgPool2d {
        /// Window side.
        kernel: usize,
        /// Step.
        stride: usize,
    },
    /// Fully connected.
    Dense {
        /// `[out, in]`
        weight: Vec<f32>,
        /// out, in
        weight_shape: [usize; 2],
        /// `[out]`
        bias: Vec<f32>,
    },
    /// Inference-time batch normalisation per channel: gamma (x - mean) / sqrt(var + eps) + beta.
    BatchNorm {
        /// `[channels]`
        gamma: Vec<f32>,
        /// `[channels]`
        beta: Vec<f32>,
        /// `[channels]`
        mean: Vec<f32>,
        /// `[channels]`
        var: Vec<f32>,
        /// Positive.
        eps: f64,
    },
    /// Channel-major flattening; changes no value.
    Flatten,
    /// a x^2 + b x + c with coefficients shared as `granularity` says.
    Poly2 {
        /// Who shares.
        granularity: Granularity,
        /// 1, channels, or all entries
        a: Vec<f32>,
        /// as `a`
        b: Vec<f32>,
        /// as `a`
        c: Vec<f32>,
    },
    /// max(x, 0). Of teachers, and of models for the exact engine, where it is a table; the batch engine's lowering and packages
    /// refuse it.
    Relu,
    /// Residual addition of an earlier value of the same shape.
    Add {
        /// 0 is the input, k the output of layer k - 1 (so `with` is at most this layer's own index).
        with: usize,
    },
}

/// One layer; it reads the previous layer's output (the first one the image).
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// For people and error messages, e.g. `2 conv2d`.
    pub name: String,
    /// The operation.
    pub op: Op,
}

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Short name: letters, digits, '-', '_'.
    pub name: String,
    /// Data set it was trained on, for people.
    pub dataset: String,
    /// Input shape and normalisation.
    pub input: InputSpec,
    /// Layers in order.
    pub layers: Vec<Layer>,
}
