//! The forward direction against the clear oracle, which shares no code with it, and on the engine's integers.

use std::path::PathBuf;

use safetensors::SafeTensors;

use super::super::loss::{LossWeights, loss};
use super::super::model::Mode;
use super::*;
use crate::net::calibration::Ranges;
use crate::net::network::Op;
use crate::net::sample::{random_images, random_network};
use crate::net::shadow::Shadow;
use crate::net::{Calibration, LowerOptions};

/// Error of `found` against `expected`, both `[image][class]`, relative to the largest logit.
fn error_of(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    let off = found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).abs());
    off.fold(0.0, |worst, off| if off <= worst { worst } else { off }) / largest
}

/// Logits of the model as it stands after training, `[image][class]`, for normalised `x` = `[entry][image]`.
fn logits(network: &Network, calibration: &Calibration) -> Vec<f32> {
    let (model, values) = model(network);
    let x = model.images(image_major(&calibration.x, calibration.images), &Device::flex());
    let mode = Mode { running: Some(&model.first_running), relu_share: 0.0, integers: None };
    host(model.forward(&tensors(&values), x, mode).logits)
}

fn oracle(network: &Network, calibration: &Calibration) -> Vec<f64> {
    let logits = network.evaluate_batch(&calibration.x, calibration.images).unwrap();
    let classes = logits.len() / calibration.images;
    (0..logits.len()).map(|at| logits[at % classes * calibration.images + at / classes]).collect()
}

/// As the trainer makes and writes them: no bias before a batch normalisation. (A [`Model`] reads none there.)
fn without_needless_biases(mut network: Network) -> Network {
    for index in 1..network.layers.len() {
        let (before, after) = network.layers.split_at_mut(index);
        if let (Op::Conv2d { bias, .. } | Op::Dense { bias, .. }, Op::BatchNorm { .. }) =
            (&mut before[index - 1].op, &after[0].op)
        {
            bias.fill(0.0);
        }
    }
    network
}

#[test]
fn random_networks_give_the_clear_oracles_logits() {
    let mut worst = 0.0_f64;
    for seed in 0..48 {
        let network = without_needless_biases(random_network(seed, seed as usize % 4, false));
        let images = random_images(&network, 5, seed);
        let error = error_of(&logits(&network, &images), &oracle(&network, &images));
        assert!(error <= 1e-5, "network {seed}: off by {error:.1e}");
        worst = worst.max(error);
    }
    println!("worst error {worst:.1e}");
}

#[test]
fn a_teacher_gives_the_clear_oracles_logits() {
    let list =
        layers(&["conv2d out = 3; kernel = 3; stride = 2", "batchnorm", "activation", "flatten", "dense out = 3"]);
    let network = network(&recipe(&list, "[train]\nepochs = 1"), Activations::Relu, [1, 6, 6]);
    let images = random_images(&network, 5, 1);
    let error = error_of(&logits(&network, &images), &oracle(&network, &images));
    assert!(error <= 1e-5, "off by {error:.1e}");
}

/// Needs the shared folder (`NIGHTSHIFT_SHARED`, or `shared` beside the repository); without it the test says so.
#[test]
fn reference_networks_give_their_golden_logits() {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("NIGHTSHIFT_SHARED").map_or(beside, PathBuf::from).join("reference");
    if !root.is_dir() {
        println!("skipped: no reference models at {}", root.display());
        return;
    }
    let floats = |tensors: &SafeTensors, name: &str| {
        let tensor = tensors.tensor(name).ok()?;
        let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Some((tensor.shape().to_vec(), values))
    };
    for name in [
        "mnist_cn_element",
        "mnist_w16_element",
        "mnist_cc_element",
        "fashion-mnist_f3_element",
        "cifar10_element_warm",
    ] {
        let read = |file: &str| std::fs::read(root.join(name).join(file)).unwrap();
        let (weights, golden) = (read("weights.safetensors"), read("golden.safetensors"));
        let weights = SafeTensors::deserialize(&weights).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        let spec = String::from_utf8(read("model.json")).unwrap();
        let network = Network::import(&spec, &|tensor| floats(&weights, tensor)).unwrap();
        let (_, pixels): (_, Vec<f32>) = floats(&golden, "inputs").unwrap();
        let (_, expected): (_, Vec<f32>) = floats(&golden, "logits").unwrap();
        let (model, values) = model(&network);
        let mode = Mode { running: Some(&model.first_running), relu_share: 0.0, integers: None };
        let found = model.forward(&tensors(&values), model.images(pixels, &Device::flex()), mode);
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let error = error_of(&host(found.logits), &expected);
        println!("{name}: error {error:.1e}");
        assert!(error <= 1e-5, "{name}: off by {error:.1e}");
    }
}

/// At 4 bits the integers are far from the floats. They are what the forward direction gives, and gradients are those of
/// the floats' graph at the integers' logits.
#[test]
fn integers_replace_the_forward_direction_and_let_gradients_through() {
    let list = layers(&[
        "conv2d out = 3; kernel = 3; stride = 2",
        "batchnorm",
        "activation granularity = \"element\"",
        "flatten",
        "dense out = 6",
        "activation granularity = \"channel\"",
        "dense out = 3",
    ]);
    let network = network(&recipe(&list, "[train]\nepochs = 1"), Activations::Quadratic, [1, 6, 6]);
    let (images, labels) = (random_images(&network, 8, 5), [0_u16, 1, 2, 0, 1, 2, 0, 1]);
    let options = LowerOptions { stage_bits: vec![4; 3], ..LowerOptions::default() };
    let shadow = Shadow::new(&network, &options, &Ranges::measure(&network, &images).unwrap()).unwrap();
    let exact = shadow.evaluate(&images.x, images.images).unwrap();
    let integers: Vec<Vec<f32>> =
        exact.inputs.iter().chain([&exact.logits]).map(|values| image_major(values, images.images)).collect();
    assert_eq!(integers.len(), 3);

    let (model, values) = model(&network);
    let leaves: Vec<Tensor<1>> = tensors(&values).into_iter().map(|value| value.autodiff().require_grad()).collect();
    let x = model.images(image_major(&images.x, images.images), &Device::flex()).autodiff();
    let mode = Mode { running: Some(&model.first_running), relu_share: 0.0, integers: Some(&integers) };
    let forward = model.forward(&leaves, x, mode);
    let found = host(forward.logits.clone().inner());
    let wanted: Vec<f64> = integers[2].iter().map(|value| f64::from(*value)).collect();
    assert!(error_of(&found, &wanted) <= 1e-6, "{found:?} are not {wanted:?}");
    assert!(error_of(&logits(&network, &images), &wanted) > 1e-3, "4 bits are as exact as floats");
    for (input, exact) in forward.inputs.iter().zip(&integers) {
        // NaN where no logit depends on the place; there is none here.
        let exact: Vec<f64> = exact.iter().map(|value| f64::from(*value)).collect();
        assert!(error_of(&host(input.clone().inner()), &exact) <= 1e-6);
    }

    let weights = LossWeights {
        label_smoothing: 0.0,
        range_penalty: 0.0,
        range_limit: 4.0,
        range_images: 16,
        temperature: 1.0,
        alpha: 0.0,
        features: 0.0,
    };
    let gradients = loss(&forward, &labels, None, &weights).backward();
    for (leaf, slot) in leaves.iter().zip(&model.slots) {
        let gradient = host(leaf.grad(&gradients).unwrap());
        assert!(gradient.iter().any(|value| *value != 0.0), "{}", slot.name);
        assert!(gradient.iter().all(|value| value.is_finite()), "{}", slot.name);
    }
    // The last bias: mean over the images of softmax(integers' logits) - label.
    let mut expected = [0.0; 3];
    for (row, label) in wanted.chunks_exact(3).zip(labels) {
        let sum: f64 = row.iter().map(|value| value.exp()).sum();
        for (class, value) in row.iter().enumerate() {
            expected[class] += (value.exp() / sum - f64::from(u8::from(class == usize::from(label)))) / 8.0;
        }
    }
    let last = leaves.last().unwrap();
    assert_eq!(model.slots.last().unwrap().name, "6.bias");
    assert!(error_of(&host(last.grad(&gradients).unwrap()), &expected) <= 1e-5, "{expected:?}");
}
