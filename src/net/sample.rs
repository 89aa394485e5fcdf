//! Small random networks and images for tests here and in the encrypted engine, and the generator they and the noise
//! figures draw from. Not for cryptography.

use super::calibration::Calibration;
use super::network::{Granularity, InputSpec, Layer, Network, Op};

/// Splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Uniform with mean 0 and variance 1.
    pub fn unit_variance(&mut self) -> f64 {
        self.signed() * 3f64.sqrt()
    }

    /// Uniform in `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next_u64() % count.max(1) as u64) as usize
    }

    fn tensor(&mut self, len: usize, size: f64) -> Vec<f32> {
        (0..len).map(|_| (self.signed() * size) as f32).collect()
    }
}

/// A small valid network: input 1x6x6 to 2x8x8, 2 to 4 classes, `squarings` quadratics (0 to 3), values of order 1.
///
/// Over seeds it has every layer kind: strides, uneven padding, groups, pooling, batch-norm, residual additions of the
/// input, of values before and after activations, and all three granularities. With `ill_conditioned` some quadratics
/// have a tiny or zero `a`.
pub fn random_network(seed: u64, squarings: usize, ill_conditioned: bool) -> Network {
    let mut random = Random::new(seed);
    let side = 6 + random.below(3);
    let input = [1 + random.below(2), side, side];
    let mut build = Builder { shapes: vec![input.to_vec()], layers: Vec::new(), random, ill_conditioned };
    for round in 0..squarings.min(3) {
        match build.shape().len() {
            3 if round == 2 || build.random.below(4) == 0 => build.flatten_dense(5),
            3 => build.convolution_block(),
            _ => build.dense(5),
        }
        if build.random.below(3) == 0 {
            build.batch_norm();
        }
        build.add_if_possible();
        build.quadratic();
        build.add_if_possible();
    }
    if build.shape().len() == 3 {
        if build.shape()[1] >= 2 && build.shape()[2] >= 2 && build.random.below(2) == 0 {
            build.pool();
        }
        let classes = 2 + build.random.below(3);
        build.flatten_dense(classes);
    } else {
        let classes = 2 + build.random.below(3);
        build.dense(classes);
    }
    let input = InputSpec { shape: input, mean: vec![0.5; input[0]], std: vec![0.25; input[0]] };
    Network { name: format!("random-{seed}"), dataset: "random".to_owned(), input, layers: build.layers }
}

/// Dense layers of the widths given, the first being the input's, with well-conditioned quadratics between them.
#[cfg(test)]
pub(crate) fn dense_network(seed: u64, widths: &[usize]) -> Network {
    let input = [1, 1, widths[0]];
    let random = Random::new(seed);
    let mut build = Builder { shapes: vec![input.to_vec()], layers: Vec::new(), random, ill_conditioned: false };
    build.flatten_dense(widths[1]);
    for &width in &widths[2..] {
        build.quadratic();
        build.dense(width);
    }
    let input = InputSpec { shape: input, mean: vec![0.5], std: vec![0.25] };
    Network { name: format!("dense-{seed}"), dataset: "random".to_owned(), input, layers: build.layers }
}

/// Images uniform in -1.5..1.5 for a network, `[entry][image]`.
pub fn random_images(network: &Network, images: usize, seed: u64) -> Calibration {
    let mut random = Random::new(seed);
    let entries: usize = network.input.shape.iter().product();
    Calibration { images, x: (0..entries * images).map(|_| 1.5 * random.signed()).collect() }
}

/// The network with a ReLU in place of every quadratic.
pub fn with_relus(mut network: Network) -> Network {
    for (index, layer) in network.layers.iter_mut().enumerate() {
        if matches!(layer.op, Op::Poly2 { .. }) {
            layer.op = Op::Relu;
            layer.name = format!("{index} relu");
        }
    }
    network
}

struct Builder {
    /// `[k]`: the value layer k reads.
    shapes: Vec<Vec<usize>>,
    layers: Vec<Layer>,
    random: Random,
    ill_conditioned: bool,
}

impl Builder {
    fn shape(&self) -> &[usize] {
        self.shapes.last().map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, op: Op) {
        let name = format!("{} {}", self.layers.len(), op.kind());
        let layer = Layer { name, op };
        // The builder's own choices always fit; a layer that did not would be left out.
        if let Ok(shape) = layer.output_shape(&self.shapes) {
            self.shapes.push(shape);
            self.layers.push(layer);
        }
    }

    fn convolution_block(&mut self) {
        let channels = self.shape()[0];
        // Half of the blocks keep the shape, so that residual additions find partners.
        let same = self.random.below(2) == 0;
        let groups = if channels == 2 && self.random.below(2) == 0 { 2 } else { 1 };
        let out = if same { channels } else { groups * (1 + self.random.below(2)) };
        let kernel = if same { 3 } else { 2 + self.random.below(2) };
        let stride = if same { 1 } else { 1 + self.random.below(2) };
        let padding = if same { [1; 4] } else { std::array::from_fn(|_| self.random.below(2)) };
        let inner = channels / groups;
        let fan_in = inner * kernel * kernel;
        let weight = self.random.tensor(out * fan_in, (3.0 / fan_in as f64).sqrt());
        let bias = self.random.tensor(out, 0.3);
        self.push(Op::Conv2d { weight, weight_shape: [out, inner, kernel, kernel], bias, stride, padding, groups });
        if self.shape()[1] >= 4 && self.shape()[2] >= 4 && self.random.below(3) == 0 {
            self.pool();
        }
    }

    fn pool(&mut self) {
        let stride = 1 + self.random.below(2);
        self.push(Op::AvgPool2d { kernel: 2, stride });
    }

    fn flatten_dense(&mut self, out: usize) {
        self.push(Op::Flatten);
        self.dense(out);
    }

    fn dense(&mut self, out: usize) {
        let inner = self.shape()[0];
        let weight = self.random.tensor(out * inner, (3.0 / inner as f64).sqrt());
        let bias = self.random.tensor(out, 0.3);
        self.push(Op::Dense { weight, weight_shape: [out, inner], bias });
    }

    fn batch_norm(&mut self) {
        let channels = self.shape()[0];
        let random = &mut self.random;
        let positive = |random: &mut Random| (0..channels).map(|_| 1.0 + 0.5 * random.signed() as f32).collect();
        let (gamma, var) = (positive(random), positive(random));
        let (beta, mean) = (random.tensor(channels, 0.3), random.tensor(channels, 0.3));
        self.push(Op::BatchNorm { gamma, beta, mean, var, eps: 1e-5 });
    }

    /// Adds some earlier value of the same shape, if there is one.
    fn add_if_possible(&mut self) {
        let last = self.shapes.len() - 1;
        let partners: Vec<usize> = (0..last).filter(|&with| self.shapes[with] == self.shapes[last]).collect();
        if !partners.is_empty() && self.random.below(2) == 0 {
            let with = partners[self.random.below(partners.len())];
            self.push(Op::Add { with });
        }
    }

    fn quadratic(&mut self) {
        let shape = self.shape().to_vec();
        let (granularity, count) = match self.random.below(3) {
            0 => (Granularity::Layer, 1),
            1 => (Granularity::Channel, shape[0]),
            _ => (Granularity::Element, shape.iter().product()),
        };
        let mut a = Vec::new();
        for _ in 0..count {
            let size = 0.1 + 0.2 * self.random.signed().abs();
            let sign = if self.random.below(4) == 0 { -1.0 } else { 1.0 };
            let size = match self.random.below(6) {
                0 if self.ill_conditioned => 0.0,
                1 if self.ill_conditioned => 1e-5,
                _ => size,
            };
            a.push((sign * size) as f32);
        }
        let (b, c) = (self.random.tensor(count, 0.6), self.random.tensor(count, 0.2));
        self.push(Op::Poly2 { granularity, a, b, c });
    }
}
