//! Gradients of the loss against central differences of the same loss, for weights, offsets and coefficients.
//!
//! Fourth-order stencil over f32 losses: with a step of 0.02 its rounding is about 1e-7 / 0.02 of a loss of order 1, and
//! its truncation smaller still for smooth losses. Where the loss has kinks (ReLU, or the penalty's edge) some images cross
//! them within the step, so the step is smaller and the tolerance larger. Errors are those of a whole tensor's gradient,
//! relative to its norm.

use super::super::loss::{LossWeights, loss};
use super::super::model::{Forward, Mode};
use super::*;

const SHAPE: [usize; 3] = [2, 6, 6];
const LABELS: [u16; 20] = [0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 1, 2, 1, 1, 0, 2, 2, 0, 1, 2];
/// Entries of a tensor that are moved.
const MOVED: usize = 24;
/// Below this norm an error is measured against it.
const LEAST_NORM: f64 = 1e-2;

const CROSS_ENTROPY: LossWeights = LossWeights {
    label_smoothing: 0.0,
    range_penalty: 0.0,
    range_limit: 4.0,
    range_images: 16,
    temperature: 1.0,
    alpha: 0.0,
    features: 0.0,
};

/// Step of the stencil and error allowed.
#[derive(Clone, Copy)]
struct Care {
    step: f32,
    tolerance: f64,
}

const SMOOTH: Care = Care { step: 0.02, tolerance: 2e-3 };
const KINKED: Care = Care { step: 2e-3, tolerance: 2e-2 };

struct Case<'a> {
    layers: &'a [&'a str],
    activations: Activations,
    relu_share: f32,
    /// By the batch's own statistics, else by running ones.
    batch_statistics: bool,
    weights: LossWeights,
    taught: bool,
    care: Care,
}

const PLAIN: Case = Case {
    layers: &[],
    activations: Activations::Quadratic,
    relu_share: 0.0,
    batch_statistics: true,
    weights: CROSS_ENTROPY,
    taught: false,
    care: SMOOTH,
};

/// Layers of a network with everything that the terms of the loss read.
const WHOLE: [&str; 7] = [
    "conv2d out = 3; kernel = 3; stride = 2; padding = 1",
    "batchnorm",
    "activation granularity = \"channel\"",
    "flatten",
    "dense out = 6",
    "activation granularity = \"element\"",
    "dense out = 3",
];

impl Case<'_> {
    /// The largest error over the tensors.
    fn check(&self) {
        let recipe = recipe(&layers(self.layers), "[train]\nepochs = 1");
        let (model, mut values) = model(&network(&recipe, self.activations, SHAPE));
        // Away from the first values: scales of 1, shifts of 0, coefficients that are all the same.
        for (slot, values) in values.iter_mut().enumerate() {
            let noise = uniform(values.len(), 100 + slot as u64);
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.15 * noise);
        }
        let mut running = model.first_running.clone();
        for (layer, running) in running.iter_mut().enumerate() {
            running.mean = uniform(running.mean.len(), 200 + layer as u64);
            running.var = running.mean.iter().map(|mean| 0.5 + mean * mean).collect();
        }
        let x = model.images(uniform(LABELS.len() * 72, 7), &Device::flex());
        let taught = self.taught.then(|| {
            let (teacher, values) = super::model(&network(&recipe, Activations::Relu, SHAPE));
            let mode = Mode { running: Some(&running), relu_share: 0.0, integers: None };
            teacher.forward(&tensors(&values), x.clone(), mode)
        });
        let mode = || Mode {
            running: (!self.batch_statistics).then_some(running.as_slice()),
            relu_share: self.relu_share,
            integers: None,
        };
        let total = |forward: &Forward| loss(forward, &LABELS, taught.as_ref(), &self.weights);

        let leaves: Vec<Tensor<1>> =
            tensors(&values).into_iter().map(|value| value.autodiff().require_grad()).collect();
        let found = total(&model.forward(&leaves, x.clone().autodiff(), mode()));
        let gradients = found.backward();

        let plain = tensors(&values);
        for (index, slot) in model.slots.iter().enumerate() {
            let gradient = leaves[index].grad(&gradients).map(host);
            let gradient = gradient.unwrap_or_else(|| panic!("{:?}: {} has no gradient", self.layers, slot.name));
            let (mut wrong, mut norm) = (0.0, 0.0);
            let every = values[index].len().div_ceil(MOVED);
            for place in (0..values[index].len()).step_by(every) {
                let moved = |steps: f32| {
                    let mut moved = values[index].clone();
                    moved[place] += steps * self.care.step;
                    let mut all = plain.clone();
                    all[index] = tensor(&moved);
                    let loss: f32 = total(&model.forward(&all, x.clone(), mode())).into_scalar();
                    (f64::from(loss), f64::from(moved[place]))
                };
                let [(far_below, _), (below, left), (above, right), (far_above, _)] = [-2.0, -1.0, 1.0, 2.0].map(moved);
                // The step that f32 really took.
                let step = (right - left) / 2.0;
                let expected = (8.0 * (above - below) - (far_above - far_below)) / (12.0 * step);
                wrong += (f64::from(gradient[place]) - expected).powi(2);
                norm += expected * expected;
            }
            let error = wrong.sqrt() / norm.sqrt().max(LEAST_NORM);
            println!("{:?} {}: norm {:.4}, error {error:.1e}", self.layers, slot.name, norm.sqrt());
            assert!(
                error <= self.care.tolerance,
                "{:?}: gradient of {} is off by {error:.1e}, at most {:.1e} expected",
                self.layers,
                slot.name,
                self.care.tolerance
            );
        }
    }
}

#[test]
fn of_convolutions_with_stride_padding_and_groups() {
    for convolution in [
        "conv2d out = 3; kernel = 3",
        "conv2d out = 4; kernel = 3; stride = 2; padding = 1",
        "conv2d out = 4; kernel = 3; stride = 2; padding = [0, 1, 2, 1]; groups = 2",
        "conv2d out = 2; kernel = 2; stride = 3; padding = [1, 0, 0, 2]; groups = 2",
    ] {
        Case { layers: &[convolution, "flatten", "dense out = 3"], ..PLAIN }.check();
    }
}

#[test]
fn of_dense_layers_and_pools() {
    Case { layers: &["flatten", "dense out = 5", "dense out = 3"], ..PLAIN }.check();
    for pool in ["avgpool2d kernel = 2", "avgpool2d kernel = 3; stride = 1"] {
        Case { layers: &["conv2d out = 3; kernel = 3; padding = 1", pool, "flatten", "dense out = 3"], ..PLAIN }
            .check();
    }
}

#[test]
fn of_batch_normalisation_by_the_batch_and_by_running_statistics() {
    let of_channels = ["conv2d out = 3; kernel = 3; stride = 2", "batchnorm", "flatten", "dense out = 3"];
    let of_entries = ["flatten", "dense out = 5", "batchnorm", "dense out = 3"];
    for layers in [of_channels, of_entries] {
        for batch_statistics in [true, false] {
            Case { layers: &layers, batch_statistics, ..PLAIN }.check();
        }
    }
}

#[test]
fn of_quadratics_of_layers_channels_and_elements() {
    for granularity in ["layer", "channel", "element"] {
        let activation = format!("activation granularity = \"{granularity}\"");
        let layers = [
            "conv2d out = 3; kernel = 3; stride = 2",
            &activation,
            "flatten",
            "dense out = 5",
            &activation,
            "dense out = 3",
        ];
        Case { layers: &layers, ..PLAIN }.check();
        Case { layers: &layers, relu_share: 0.3, care: KINKED, ..PLAIN }.check();
    }
}

#[test]
fn of_relu() {
    let layers = ["conv2d out = 3; kernel = 3; stride = 2", "activation", "flatten", "dense out = 3"];
    Case { layers: &layers, activations: Activations::Relu, care: KINKED, ..PLAIN }.check();
}

#[test]
fn of_additions() {
    let layers = [
        "conv2d out = 2; kernel = 3; padding = 1",
        "add with = 0",
        "activation granularity = \"element\"",
        "conv2d out = 2; kernel = 3; padding = 1",
        "add with = 2",
        "add with = 5",
        "flatten",
        "dense out = 3",
    ];
    Case { layers: &layers, ..PLAIN }.check();
}

#[test]
fn of_every_term_of_the_loss() {
    let taught = LossWeights { temperature: 3.0, alpha: 0.8, ..CROSS_ENTROPY };
    let penalised = LossWeights { range_penalty: 0.5, range_limit: 0.4, ..CROSS_ENTROPY };
    for weights in [
        LossWeights { label_smoothing: 0.1, ..CROSS_ENTROPY },
        taught,
        LossWeights { features: 0.3, ..taught },
        LossWeights { label_smoothing: 0.1, features: 0.3, alpha: 0.5, ..taught },
    ] {
        Case { layers: &WHOLE, weights, taught: weights.alpha > 0.0, ..PLAIN }.check();
    }
    Case { layers: &WHOLE, weights: penalised, care: KINKED, ..PLAIN }.check();
}
