//! A network as burn sees it: one flat tensor for each parameter, and the forward direction over a batch.
//!
//! Every value between layers is `[image][channel][row][column]`; after `Flatten` and dense layers rows and columns are 1, so that all
//! layers read one shape. Parameters lie on the plain device; a training step lifts them to leaves of its own graph.

use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation::relu};

use super::error::TrainError;
use crate::net::Network;
use crate::net::network::{Granularity, Op};

/// What a parameter is for the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Weight of a convolution or dense layer: decays.
    Weight,
    /// Bias, scale or shift: does not decay.
    Offset,
    /// `a` of a quadratic, kept away from zero.
    Square,
    /// `b` or `c` of a quadratic.
    Coefficient,
    /// Stays as it is: the plain square.
    Frozen,
}

/// Where a parameter's values come from and go to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slot {
    /// `3.weight`: layer and tensor, for checkpoints and errors.
    pub(super) name: String,
    pub(super) layer: usize,
    pub(super) part: Part,
    pub(super) role: Role,
}

/// Tensor of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Weight,
    Bias,
    Gamma,
    Beta,
    A,
    B,
    C,
}

/// Running mean and variance of one batch normalisation, one a channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) layer: usize,
    pub(super) mean: Vec<f32>,
    pub(super) var: Vec<f32>,
}

enum Step {
    Conv { weight: usize, bias: Option<usize>, shape: [usize; 4], options: ConvOptions<2> },
    Dense { weight: usize, bias: Option<usize>, shape: [usize; 2] },
    BatchNorm { gamma: usize, beta: usize, running: usize, channels: usize, eps: f64 },
    AvgPool { kernel: usize, stride: usize },
    Flatten,
    Relu,
    Quadratic { coefficients: [usize; 3], shape: [usize; 4] },
    Add { with: usize },
}

/// The structure of a network; parameters travel beside it.
pub(super) struct Model {
    steps: Vec<Step>,
    /// Whether the value of this index (0: the image) is read again by an `add`.
    kept: Vec<bool>,
    pub(super) slots: Vec<Slot>,
    pub(super) first_running: Vec<Running>,
    input_shape: [usize; 3],
    pub(super) classes: usize,
}

/// How a batch is run.
pub(super) struct Mode<'a> {
    /// Batch normalisation by the batch's own statistics (else by these running ones).
    pub(super) running: Option<&'a [Running]>,
    /// Share of ReLU in every quadratic.
    pub(super) relu_share: f32,
    /// What the engine's integers give for the input of each activation, in order, and for the logits as the last:
    /// `[image][entry]`, NaN where they give nothing. These numbers are used in the forward direction, while gradients
    /// pass as if nothing had been changed (straight-through estimator, Bengio et al., arXiv 1308.3432).
    pub(super) integers: Option<&'a [Vec<f32>]>,
}

/// What came out.
pub(super) struct Forward {
    /// `[image][class]`
    pub(super) logits: Tensor<2>,
    /// What each activation read.
    pub(super) inputs: Vec<Tensor<4>>,
    /// What each activation gave.
    pub(super) outputs: Vec<Tensor<4>>,
    /// Mean and (biased) variance of each batch normalisation, and how many numbers a channel they are over.
    pub(super) statistics: Vec<(Tensor<1>, Tensor<1>, usize)>,
}

impl Model {
    /// The structure and the parameters of a network, in order of layers. `trained_quadratics` as in
    /// [`Draft`](super::build::Draft); quadratics that are not trained are no parameters but stay as they are.
    pub(super) fn new(network: &Network, trained_quadratics: &[bool]) -> Result<(Model, Vec<Vec<f32>>), TrainError> {
        let shapes = network.value_shapes()?;
        let mut model = Model {
            steps: Vec::new(),
            kept: vec![false; shapes.len()],
            slots: Vec::new(),
            first_running: Vec::new(),
            input_shape: network.input.shape,
            classes: network.classes()?,
        };
        let mut values = Vec::new();
        for (layer, entry) in network.layers.iter().enumerate() {
            let mut slot = |part: Part, role: Role, tensor: &[f32]| {
                let name = format!("{layer}.{}", format!("{part:?}").to_lowercase());
                model.slots.push(Slot { name, layer, part, role });
                values.push(tensor.to_vec());
                values.len() - 1
            };
            // Batch normalisation subtracts whatever a bias before it adds while training, so none is trained; one that a
            // given network has still counts against the running mean.
            let normalised = matches!(network.layers.get(layer + 1).map(|next| &next.op), Some(Op::BatchNorm { .. }));
            let has_bias = |bias: &[f32]| !normalised || bias.iter().any(|bias| *bias != 0.0);
            let step = match &entry.op {
                Op::Conv2d { weight, weight_shape, bias, stride, padding, groups } => {
                    let [top, left, bottom, right] = *padding;
                    let mut options = ConvOptions::new([*stride; 2], [0; 2], [1; 2], *groups);
                    options.padding = [(top, bottom), (left, right)];
                    Step::Conv {
                        weight: slot(Part::Weight, Role::Weight, weight),
                        bias: has_bias(bias).then(|| slot(Part::Bias, Role::Offset, bias)),
                        shape: *weight_shape,
                        options,
                    }
                }
                Op::Dense { weight, weight_shape, bias } => Step::Dense {
                    weight: slot(Part::Weight, Role::Weight, weight),
                    bias: has_bias(bias).then(|| slot(Part::Bias, Role::Offset, bias)),
                    shape: *weight_shape,
                },
                Op::BatchNorm { gamma, beta, mean, var, eps } => {
                    let (gamma_slot, beta_slot) =
                        (slot(Part::Gamma, Role::Offset, gamma), slot(Part::Beta, Role::Offset, beta));
                    model.first_running.push(Running { layer, mean: mean.clone(), var: var.clone() });
                    Step::BatchNorm {
                        gamma: gamma_slot,
                        beta: beta_slot,
                        running: model.first_running.len() - 1,
                        channels: gamma.len(),
                        eps: *eps,
                    }
                }
                Op::AvgPool2d { kernel, stride } => Step::AvgPool { kernel: *kernel, stride: *stride },
                Op::Flatten => Step::Flatten,
                Op::Relu => Step::Relu,
                Op::Poly2 { granularity, a, b, c } => {
                    let full = image_shape(&shapes[layer]);
                    let shape = match granularity {
                        Granularity::Layer => [1, 1, 1, 1],
                        Granularity::Channel => [1, full[0], 1, 1],
                        Granularity::Element => [1, full[0], full[1], full[2]],
                    };
                    let role = |role| if trained_quadratics[layer] { role } else { Role::Frozen };
                    let coefficients = [
                        slot(Part::A, role(Role::Square), a),
                        slot(Part::B, role(Role::Coefficient), b),
                        slot(Part::C, role(Role::Coefficient), c),
                    ];
                    Step::Quadratic { coefficients, shape }
                }
                Op::Add { with } => {
                    model.kept[*with] = true;
                    Step::Add { with: *with }
                }
            };
            model.steps.push(step);
        }
        Ok((model, values))
    }

    /// Images as a tensor: `pixels` is `[image][channel][row][column]`, normalised.
    pub(super) fn images(&self, pixels: Vec<f32>, device: &Device) -> Tensor<4> {
        let [channels, rows, columns] = self.input_shape;
        let images = pixels.len() / (channels * rows * columns);
        Tensor::from_data(TensorData::new(pixels, [images, channels, rows, columns]), device)
    }

    /// Runs a batch. Errors are bugs: shapes were checked with the network.
    pub(super) fn forward(&self, parameters: &[Tensor<1>], x: Tensor<4>, mode: Mode) -> Forward {
        let mut kept: Vec<Option<Tensor<4>>> = Vec::with_capacity(self.steps.len());
        let (mut inputs, mut outputs, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
        let mut integers = mode.integers.into_iter().flatten();
        let mut value = x;
        for (index, step) in self.steps.iter().enumerate() {
            kept.push(self.kept[index].then(|| value.clone()));
            value = match step {
                Step::Conv { weight, bias, shape, options } => {
                    let bias = bias.map(|bias| parameters[bias].clone());
                    conv2d(value, parameters[*weight].clone().reshape(*shape), bias, options.clone())
                }
                Step::Dense { weight, bias, shape } => {
                    let images = value.dims()[0];
                    let mut sums = value
                        .reshape([images, shape[1]])
                        .matmul(parameters[*weight].clone().reshape(*shape).transpose());
                    if let Some(bias) = bias {
                        sums = sums + parameters[*bias].clone().reshape([1, shape[0]]);
                    }
                    sums.reshape([images, shape[0], 1, 1])
                }
                Step::BatchNorm { gamma, beta, running, channels, eps } => {
                    let wide = [1, *channels, 1, 1];
                    let (gamma, beta) =
                        (parameters[*gamma].clone().reshape(wide), parameters[*beta].clone().reshape(wide));
                    match mode.running {
                        Some(known) => {
                            let device = value.device();
                            let known = &known[*running];
                            let scale: Vec<f32> =
                                known.var.iter().map(|var| (1.0 / (f64::from(*var) + eps).sqrt()) as f32).collect();
                            let constant = |values: &[f32]| {
                                Tensor::<4>::from_data(TensorData::new(values.to_vec(), wide), &device)
                            };
                            let scale = constant(&scale) * gamma;
                            let shift = beta - constant(&known.mean) * scale.clone();
                            value * scale + shift
                        }
                        None => {
                            let [images, _, rows, columns] = value.dims();
                            let mean = channel_mean(value.clone());
                            let centred = value - mean.clone();
                            let var = channel_mean(centred.clone() * centred.clone());
                            let count = images * rows * columns;
                            statistics.push((
                                mean.inner().reshape([*channels]),
                                var.clone().inner().reshape([*channels]),
                                count,
                            ));
                            centred * (gamma / (var + *eps).sqrt()) + beta
                        }
                    }
                }
                Step::AvgPool { kernel, stride } => {
                    avg_pool2d(value, burn::tensor::ops::AvgPoolOptions::new([*kernel; 2]).with_stride([*stride; 2]))
                }
                Step::Flatten => {
                    let [images, channels, rows, columns] = value.dims();
                    value.reshape([images, channels * rows * columns, 1, 1])
                }
                Step::Relu | Step::Quadratic { .. } => {
                    if let Some(exact) = integers.next() {
                        value = straight_through(value, exact);
                    }
                    inputs.push(value.clone());
                    let output = match step {
                        Step::Quadratic { coefficients, shape } => {
                            let [a, b, c] = coefficients.map(|index| parameters[index].clone().reshape(*shape));
                            quadratic(value, a, b, c, mode.relu_share)
                        }
                        _ => relu(value),
                    };
                    outputs.push(output.clone());
                    output
                }
                Step::Add { with } => match &kept[*with] {
                    Some(earlier) => value + earlier.clone(),
                    None => value,
                },
            };
        }
        if let Some(exact) = integers.next() {
            value = straight_through(value, exact);
        }
        let images = value.dims()[0];
        Forward { logits: value.reshape([images, self.classes]), inputs, outputs, statistics }
    }
}

/// `exact` where it is a number, with the gradient of `value`.
fn straight_through(value: Tensor<4>, exact: &[f32]) -> Tensor<4> {
    let shape = value.dims();
    let device = value.device();
    let found = host(value.clone().inner());
    let offsets: Vec<f32> =
        found.iter().zip(exact).map(|(found, exact)| if exact.is_nan() { 0.0 } else { exact - found }).collect();
    value + Tensor::from_data(TensorData::new(offsets, shape), &device)
}

/// The values of a tensor, row-major.
pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().unwrap_or_default()
}

/// relu_share * relu(x) + (1 - relu_share) * (a x^2 + b x + c).
fn quadratic(x: Tensor<4>, a: Tensor<4>, b: Tensor<4>, c: Tensor<4>, relu_share: f32) -> Tensor<4> {
    let square = (a * x.clone() + b) * x.clone() + c;
    if relu_share > 0.0 { relu(x) * relu_share + square * (1.0 - relu_share) } else { square }
}

/// Mean over images, rows and columns, `[1, channels, 1, 1]`.
fn channel_mean(value: Tensor<4>) -> Tensor<4> {
    value.mean_dim(0).mean_dim(2).mean_dim(3)
}

/// A value's shape with rows and columns, 1 where it has none.
fn image_shape(shape: &[usize]) -> [usize; 3] {
    match shape {
        [channels, rows, columns] => [*channels, *rows, *columns],
        other => [other.iter().product(), 1, 1],
    }
}

/// Writes parameters and running statistics back into the network they were made from.
pub(super) fn write_back(network: &mut Network, slots: &[Slot], values: &[Vec<f32>], running: &[Running]) {
    for (slot, new) in slots.iter().zip(values) {
        let target = match (&mut network.layers[slot.layer].op, slot.part) {
            (Op::Conv2d { weight, .. } | Op::Dense { weight, .. }, Part::Weight) => weight,
            (Op::Conv2d { bias, .. } | Op::Dense { bias, .. }, Part::Bias) => bias,
            (Op::BatchNorm { gamma, .. }, Part::Gamma) => gamma,
            (Op::BatchNorm { beta, .. }, Part::Beta) => beta,
            (Op::Poly2 { a, .. }, Part::A) => a,
            (Op::Poly2 { b, .. }, Part::B) => b,
            (Op::Poly2 { c, .. }, Part::C) => c,
            _ => continue,
        };
        target.clone_from(new);
    }
    for statistics in running {
        if let Op::BatchNorm { mean, var, .. } = &mut network.layers[statistics.layer].op {
            mean.clone_from(&statistics.mean);
            var.clone_from(&statistics.var);
        }
    }
}
