//! The clear oracle: the network as trained, in f64 from its f32 weights. It knows nothing of folding, squares or integers,
//! so that it can contradict everything that does.
//!
//! Input `[entry][image]` normalised, output `[class][image]`. Single-threaded; images are evaluated in blocks.

use super::batch::for_blocks;
use super::error::NetError;
use super::network::{Granularity, Network, Op};
use super::panel::Panel;
use super::shapes::entries;

/// Told (layer, `[entry][width]` values it reads, width, images that count).
type Observer<'a> = dyn FnMut(usize, &[f64], usize, usize) + 'a;

impl Network {
    /// Logits `[class][image]` of normalised images `x` = `[entry][image]`.
    ///
    /// Errors: the network is invalid, or `x` does not hold `images` images.
    pub fn evaluate_batch(&self, x: &[f64], images: usize) -> Result<Vec<f64>, NetError> {
        self.evaluate_traced(x, images, &mut |_, _, _, _| {})
    }

    /// As [`Network::evaluate_batch`]; `observe(layer, input, width, images)` sees what each layer reads, `[entry][width]`
    /// of which the first `images` count, block after block.
    pub(super) fn evaluate_traced(
        &self,
        x: &[f64],
        images: usize,
        observe: &mut Observer,
    ) -> Result<Vec<f64>, NetError> {
        self.validate()?;
        let shapes = self.value_shapes()?;
        let mut kept = vec![false; shapes.len()];
        for layer in &self.layers {
            if let Op::Add { with } = layer.op {
                kept[with] = true;
            }
        }
        let input_entries = entries(&shapes[0]).unwrap_or(0);
        let classes = shapes.last().and_then(|shape| entries(shape)).unwrap_or(0);
        let (mut panel, mut sums) = (Panel::default(), Vec::new());
        for_blocks(x, input_entries, images, classes, |block, width, count| {
            let mut values: Vec<Vec<f64>> = Vec::new();
            let mut current = block;
            for (index, layer) in self.layers.iter().enumerate() {
                observe(index, &current, width, count);
                values.push(if kept[index] { current.clone() } else { Vec::new() });
                let shape = &shapes[index];
                let output = &shapes[index + 1];
                current = match &layer.op {
                    Op::Conv2d { .. } => convolve(&layer.op, shape, output, &current, width, &mut panel, &mut sums),
                    Op::Dense { weight, bias, .. } => {
                        panel.reset(shape[0], width);
                        for (column, value) in current.chunks_exact(width).enumerate() {
                            panel.set(column, value, |value| value);
                        }
                        panel.multiply_into(weight, &mut sums);
                        for (row, &bias) in sums.chunks_exact_mut(width).zip(bias) {
                            row.iter_mut().for_each(|sum| *sum += f64::from(bias));
                        }
                        sums.clone()
                    }
                    Op::AvgPool2d { kernel, stride } => pool(*kernel, *stride, shape, output, &current, width),
                    Op::Flatten => current,
                    Op::Add { with } => {
                        let other = if *with == index { &current } else { &values[*with] };
                        current.iter().zip(other).map(|(&left, &right)| left + right).collect()
                    }
                    Op::BatchNorm { .. } | Op::Poly2 { .. } | Op::Relu => {
                        pointwise(&layer.op, shape, &mut current, width);
                        current
                    }
                };
            }
            Ok(current)
        })
    }
}

/// Convolution, one output position and group at a time; taps in the padding read zeros.
fn convolve(
    op: &Op,
    shape: &[usize],
    output: &[usize],
    values: &[f64],
    width: usize,
    panel: &mut Panel,
    sums: &mut Vec<f64>,
) -> Vec<f64> {
    let Op::Conv2d { weight, weight_shape, bias, stride, padding, groups } = op else { return Vec::new() };
    let [out, inner, kernel_rows, kernel_columns] = *weight_shape;
    let (height, across) = (shape[1], shape[2]);
    let (out_rows, out_columns) = (output[1], output[2]);
    let group_out = out / groups;
    let columns = inner * kernel_rows * kernel_columns;
    let mut result = vec![0.0; out * out_rows * out_columns * width];
    for position in 0..out_rows * out_columns {
        let (out_y, out_x) = (position / out_columns, position % out_columns);
        for group in 0..*groups {
            panel.reset(columns, width);
            for column in 0..columns {
                let channel = group * inner + column / (kernel_rows * kernel_columns);
                let y = out_y * stride + column / kernel_columns % kernel_rows;
                let x = out_x * stride + column % kernel_columns;
                let y = y.checked_sub(padding[0]).filter(|&y| y < height);
                let x = x.checked_sub(padding[1]).filter(|&x| x < across);
                match (y, x) {
                    (Some(y), Some(x)) => {
                        let entry = (channel * height + y) * across + x;
                        panel.set(column, &values[entry * width..(entry + 1) * width], |value| value);
                    }
                    _ => panel.set_zero(column),
                }
            }
            let first = group * group_out;
            panel.multiply_into(&weight[first * columns..(first + group_out) * columns], sums);
            for (row, sums) in sums.chunks_exact(width).enumerate() {
                let channel = first + row;
                let entry = channel * out_rows * out_columns + position;
                let bias = f64::from(bias[channel]);
                for (place, &sum) in result[entry * width..(entry + 1) * width].iter_mut().zip(sums) {
                    *place = sum + bias;
                }
            }
        }
    }
    result
}

fn pool(kernel: usize, stride: usize, shape: &[usize], output: &[usize], values: &[f64], width: usize) -> Vec<f64> {
    let (height, across) = (shape[1], shape[2]);
    let (out_rows, out_columns) = (output[1], output[2]);
    let count = (kernel * kernel) as f64;
    let mut result = vec![0.0; output[0] * out_rows * out_columns * width];
    for (index, place) in result.chunks_exact_mut(width).enumerate() {
        let channel = index / (out_rows * out_columns);
        let (out_y, out_x) = (index / out_columns % out_rows, index % out_columns);
        for tap in 0..kernel * kernel {
            let (y, x) = (out_y * stride + tap / kernel, out_x * stride + tap % kernel);
            let entry = (channel * height + y) * across + x;
            for (sum, &value) in place.iter_mut().zip(&values[entry * width..(entry + 1) * width]) {
                *sum += value;
            }
        }
        place.iter_mut().for_each(|sum| *sum /= count);
    }
    result
}

/// Batch normalisation, quadratics and ReLU, in place.
fn pointwise(op: &Op, shape: &[usize], values: &mut [f64], width: usize) {
    let per_channel = shape[1..].iter().product::<usize>();
    for (entry, row) in values.chunks_exact_mut(width).enumerate() {
        let channel = entry / per_channel;
        match op {
            Op::BatchNorm { gamma, beta, mean, var, eps } => {
                let deviation = (f64::from(var[channel]) + eps).sqrt();
                let (gamma, beta, mean) =
                    (f64::from(gamma[channel]), f64::from(beta[channel]), f64::from(mean[channel]));
                row.iter_mut().for_each(|value| *value = (*value - mean) / deviation * gamma + beta);
            }
            Op::Poly2 { granularity, a, b, c } => {
                let index = granularity.index(entry, channel);
                let (a, b, c) = (f64::from(a[index]), f64::from(b[index]), f64::from(c[index]));
                row.iter_mut().for_each(|value| *value = (a * *value + b) * *value + c);
            }
            // Not `max`, which would turn NaN into zero.
            Op::Relu => row.iter_mut().filter(|value| **value < 0.0).for_each(|value| *value = 0.0),
            _ => {}
        }
    }
}

impl Granularity {
    /// Which coefficients an entry of a channel uses.
    pub(super) fn index(self, entry: usize, channel: usize) -> usize {
        match self {
            Granularity::Layer => 0,
            Granularity::Channel => channel,
            Granularity::Element => entry,
        }
    }
}
