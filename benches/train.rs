//! One training step: forward, backward and AdamW on a batch of 128 random images, with batch normalisation and a
//! quadratic for every neuron, without teacher or augmentation.
//!
//! `cargo bench --features train --bench train`: the CryptoNets net of MNIST (0.107 million multiply-accumulates, 945 activations) and a
//! net of five squarings of CIFAR-10 (7.25 million, 18 432). A batch is always computed in two parts, as recipes have it;
//! with one thread one after the other. There is no range penalty, so that the figures compare with a bare step of other
//! frameworks.

use std::num::NonZeroUsize;

use criterion::{Criterion, Throughput};
use nightshift::net::sample::Random;
use nightshift::train::bench::Stepper;
use nightshift::train::{Recipe, TrainingData};
use packing::{ImageSet, Pixels};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BATCH: usize = 128;

const MNIST: [&str; 8] = [
    "conv2d\"\nout = 5\nkernel = 5\nstride = 2\npadding = [0, 1, 1, 0]",
    "batchnorm\"",
    "activation\"",
    "flatten\"",
    "dense\"\nout = 100",
    "batchnorm\"",
    "activation\"",
    "dense\"\nout = 10",
];

/// Output channels, kernel and stride of the convolutions.
const CIFAR: [(usize, usize, usize); 5] = [(24, 5, 2), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)];

/// The recipe of a network with these layers.
fn recipe(name: &str, layers: &[String]) -> Outcome<Recipe> {
    let layers: String = layers.iter().map(|layer| format!("[[layer]]\ntype = \"{layer}\n")).collect();
    let train =
        format!("[train]\nepochs = 1\nbatch = {BATCH}\nshards = 2\nlearning_rate = 1e-3\nrange_penalty = 0.0\n");
    Ok(Recipe::parse(&format!("name = \"{name}\"\n{layers}{train}"))?)
}

fn cifar_layers() -> Vec<String> {
    let mut layers = Vec::new();
    for (out, kernel, stride) in CIFAR {
        let padding = kernel / 2;
        layers.push(format!("conv2d\"\nout = {out}\nkernel = {kernel}\nstride = {stride}\npadding = {padding}"));
        layers.extend(["batchnorm\"", "activation\""].map(str::to_owned));
    }
    layers.extend(["avgpool2d\"\nkernel = 4", "flatten\"", "dense\"\nout = 10"].map(str::to_owned));
    layers
}

/// A batch of random pixels in ten classes.
fn images(recipe: &Recipe, shape: [usize; 3]) -> Outcome<TrainingData> {
    let mut random = Random::new(1);
    let pixels = (0..BATCH * shape.iter().product::<usize>()).map(|_| random.below(256) as u8).collect();
    let labels: Vec<u16> = (0..BATCH as u16).map(|image| image % 10).collect();
    let mut data = recipe.data.clone();
    data.held_out = 0;
    Ok(TrainingData::new(&ImageSet::new(shape, Pixels::Bytes(pixels))?, &labels, None, &data, recipe.seed)?)
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let nets = [("mnist", MNIST.map(str::to_owned).to_vec(), [1, 28, 28]), ("cifar", cifar_layers(), [3, 32, 32])];
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, layers, shape) in nets {
        let recipe = recipe(name, &layers)?;
        let data = images(&recipe, shape)?;
        for threads in [NonZeroUsize::MIN, NonZeroUsize::MIN.saturating_add(1)] {
            let mut stepper = Stepper::new(recipe.clone(), data.clone(), threads)?;
            group.bench_function(format!("net={name}/threads={threads}"), |bencher| {
                bencher.iter(|| {
                    let loss = stepper.step().expect("a step without integers");
                    assert!(loss.is_finite());
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
