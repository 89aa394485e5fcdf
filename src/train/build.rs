//! From a recipe to a network with its first weights: the one description that everything after it reads.
//!
//! Weights are uniform with He's variance 2 / fan-in (arXiv 1502.01852), by exact arithmetic on the seed's bits only, so that they are
//! the same on every machine. Batch normalisation starts as the identity, quadratics as the recipe says.

use super::error::TrainError;
use super::random::Stream;
use super::recipe::{LayerRecipe, Recipe, Sharing};
use crate::net::Network;
use crate::net::network::{Granularity, InputSpec, Layer, Op};

/// Added to the variance, as in PyTorch.
const BATCH_NORM_EPS: f64 = 1e-5;

/// What the activations of a network are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activations {
    /// ReLU: a teacher.
    Relu,
    /// ReLU in the network itself: a recipe with tables.
    Tables,
    /// The recipe's quadratics.
    Quadratic,
}

/// A network with first weights, and for each of its layers whether its quadratic is trained (false for the plain square).
pub(super) struct Draft {
    pub(super) network: Network,
    pub(super) trained_quadratics: Vec<bool>,
}

/// Builds `layers` for images of `input`. Errors: layers that do not fit each other, or another number of outputs than
/// `classes`.
pub(super) fn build(
    recipe: &Recipe,
    layers: &[LayerRecipe],
    activations: Activations,
    input: &InputSpec,
    classes: usize,
    seed: u64,
) -> Result<Draft, TrainError> {
    let mut shapes = vec![input.shape.to_vec()];
    let mut built = Vec::new();
    let mut trained_quadratics = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let before = shapes[index].clone();
        let channels = before[0];
        let sharing = match layer {
            LayerRecipe::Activation { granularity } => granularity.unwrap_or(recipe.activation.granularity),
            _ => Sharing::Layer,
        };
        let purpose = if activations == Activations::Relu { "weights of the teacher" } else { "weights" };
        let mut random = Stream::new(purpose, [seed, index as u64, 0]);
        let (kind, op) = match layer {
            LayerRecipe::Conv2d { out, kernel, stride, padding, groups } => {
                let inputs = channels.checked_div(*groups).unwrap_or(0);
                let fan_in = inputs * kernel * kernel;
                let op = Op::Conv2d {
                    weight: he_uniform(&mut random, limited(index, out.saturating_mul(fan_in))?, fan_in),
                    weight_shape: [*out, inputs, *kernel, *kernel],
                    bias: vec![0.0; limited(index, *out)?],
                    stride: *stride,
                    padding: padding.sides(),
                    groups: *groups,
                };
                ("conv2d", op)
            }
            LayerRecipe::Dense { out } => {
                let op = Op::Dense {
                    weight: he_uniform(&mut random, limited(index, out.saturating_mul(channels))?, channels),
                    weight_shape: [*out, channels],
                    bias: vec![0.0; *out],
                };
                ("dense", op)
            }
            LayerRecipe::BatchNorm {} => {
                let op = Op::BatchNorm {
                    gamma: vec![1.0; channels],
                    beta: vec![0.0; channels],
                    mean: vec![0.0; channels],
                    var: vec![1.0; channels],
                    eps: BATCH_NORM_EPS,
                };
                ("batchnorm", op)
            }
            LayerRecipe::Activation { .. } if activations != Activations::Quadratic => ("relu", Op::Relu),
            LayerRecipe::Activation { .. } => {
                let granularity = sharing.granularity();
                let count = match granularity {
                    Granularity::Layer => 1,
                    Granularity::Channel => channels,
                    Granularity::Element => before.iter().product(),
                };
                let start = if sharing == Sharing::Square { [1.0, 0.0, 0.0] } else { recipe.activation.init };
                let [a, b, c] = start.map(|value| vec![value as f32; count]);
                ("poly2", Op::Poly2 { granularity, a, b, c })
            }
            LayerRecipe::AvgPool2d { kernel, stride } => {
                ("avgpool2d", Op::AvgPool2d { kernel: *kernel, stride: stride.unwrap_or(*kernel) })
            }
            LayerRecipe::Flatten {} => ("flatten", Op::Flatten),
            LayerRecipe::Add { with } => ("add", Op::Add { with: *with }),
        };
        let layer = Layer { name: format!("{index} {kind}"), op };
        shapes.push(layer.output_shape(&shapes)?);
        built.push(layer);
        trained_quadratics.push(sharing != Sharing::Square);
    }
    let outputs = shapes.last().map_or(0, |shape| if shape.len() == 1 { shape[0] } else { 0 });
    if outputs != classes {
        let found = format!("{:?}", shapes.last().map_or(&[][..], Vec::as_slice));
        return Err(TrainError::setting(
            "shape of the last layer's output",
            found,
            format!("[{classes}], one a class"),
        ));
    }
    let network =
        Network { name: recipe.name.clone(), dataset: recipe.dataset.clone(), input: input.clone(), layers: built };
    network.validate()?;
    Ok(Draft { network, trained_quadratics })
}

/// Refuses sizes that no layer of ours has before memory is taken for them.
fn limited(layer: usize, entries: usize) -> Result<usize, TrainError> {
    const MOST: usize = 1 << 26;
    if entries <= MOST {
        Ok(entries)
    } else {
        Err(TrainError::setting(&format!("weights of layer {layer}"), entries, format!("at most {MOST}")))
    }
}

fn he_uniform(random: &mut Stream, count: usize, fan_in: usize) -> Vec<f32> {
    let bound = (6.0 / fan_in.max(1) as f64).sqrt() as f32;
    let mut weights = vec![0.0; count];
    random.fill_symmetric(&mut weights);
    weights.iter_mut().for_each(|weight| *weight *= bound);
    weights
}
