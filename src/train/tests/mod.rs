//! Tests of the trainer as a whole: gradients, the forward direction, the optimiser, whole runs and their checkpoints, on
//! networks and images so small that each takes a few seconds at most.

mod checkpoints;
mod forward;
mod gradients;
mod optimiser;
mod runs;

use burn::tensor::{Device, Tensor, TensorData};
use packing::{ImageSet, Pixels};

use super::build::{Activations, build};
use super::data::TrainingData;
use super::events::{Event, Observer};
use super::model::{Model, host};
use super::recipe::{DataRecipe, Recipe};
use crate::net::Network;
use crate::net::network::InputSpec;
use crate::net::sample::Random;

/// A recipe of these layers (TOML of `[[layer]]`) and further sections.
fn recipe(layers: &str, sections: &str) -> Recipe {
    Recipe::parse(&format!("name = \"tiny\"\nseed = 3\n{layers}\n{sections}")).unwrap()
}

/// `[[layer]]` sections from lines such as `conv2d out = 3; kernel = 5`.
fn layers(list: &[&str]) -> String {
    let section = |layer: &&str| {
        let (kind, settings) = layer.split_once(' ').unwrap_or((layer, ""));
        format!("[[layer]]\ntype = \"{kind}\"\n{}\n", settings.replace("; ", "\n"))
    };
    list.iter().map(section).collect()
}

/// The network of a recipe, first weights, for normalised images of `shape` and 3 classes.
fn network(recipe: &Recipe, activations: Activations, shape: [usize; 3]) -> Network {
    let input = InputSpec { shape, mean: vec![0.5; shape[0]], std: vec![0.25; shape[0]] };
    build(recipe, &recipe.layers, activations, &input, 3, recipe.seed).unwrap().network
}

/// Structure and values of a network whose quadratics are all trained.
fn model(network: &Network) -> (Model, Vec<Vec<f32>>) {
    Model::new(network, &vec![true; network.layers.len()]).unwrap()
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), &Device::flex())
}

fn tensors(values: &[Vec<f32>]) -> Vec<Tensor<1>> {
    values.iter().map(|values| tensor(values)).collect()
}

/// Numbers uniform in -1.5 to 1.5.
fn uniform(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| (1.5 * random.signed()) as f32).collect()
}

/// `[entry][image]` to `[image][entry]`.
fn image_major(values: &[f64], images: usize) -> Vec<f32> {
    let entries = values.len() / images;
    (0..values.len()).map(|at| values[at % entries * images + at / entries] as f32).collect()
}

/// 120 grey images of 6 x 6 pixels in 3 classes, of which 24 are held out: two bright rows that tell the class, and noise.
fn stripes(seed: u64) -> TrainingData {
    let mut random = Random::new(seed);
    let mut pixels = Vec::new();
    for image in 0..120 {
        for place in 0..36 {
            let bright = place / 12 == image % 3;
            pixels.push((if bright { 150 } else { 50 } + random.below(100)) as u8);
        }
    }
    let labels: Vec<u16> = (0..120).map(|image| image % 3).collect();
    let set = ImageSet::new([1, 6, 6], Pixels::Bytes(pixels)).unwrap();
    let recipe = DataRecipe { held_out: 24, ..DataRecipe::default() };
    TrainingData::new(&set, &labels, None, &recipe, 1).unwrap()
}

/// All bits of a network, as text: `==` of floats would take -0 for 0.
fn bits(network: &Network) -> String {
    format!("{network:?}")
}

/// Hears everything and stops nothing.
struct Quiet;

impl Observer for Quiet {
    fn observe(&mut self, _: &Event) -> bool {
        true
    }
}
