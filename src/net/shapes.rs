//! Shapes and counts of a [`Network`]: what each layer makes of the running shape, whether everything fits together,
//! and how large it is. Nothing is allocated from a size that has not been checked against a limit first.
//!
//! Not here: reading files (see `spec`), evaluation (see `clear`).

use super::error::{NetError, all_finite, at_most, same_len};
use super::network::{Granularity, InputSpec, Layer, Network, Op};

/// Largest number of layers.
pub const MAX_LAYERS: usize = 1024;
/// Largest side, channel count or padding.
pub const MAX_DIMENSION: usize = 1 << 16;
/// Largest number of entries of a tensor.
pub const MAX_ENTRIES: usize = 1 << 27;
/// Largest number of entries of an image or of a value between layers.
pub const MAX_VALUE_ENTRIES: usize = 1 << 21;
/// Largest number of multiply-accumulates of a network on one image.
pub const MAX_MACS: u64 = 100_000_000_000;

/// Product of a shape's sides; `None` on overflow.
pub(super) fn entries(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side))
}

/// Entry count of a shape checked against the limits.
pub(super) fn checked_entries(place: &str, what: &str, shape: &[usize]) -> Result<usize, NetError> {
    for &side in shape {
        if side == 0 {
            return Err(NetError::mismatch(place, what, format!("{shape:?}"), "sides of at least 1"));
        }
        at_most(place, what, side as u128, MAX_ENTRIES as u128)?;
    }
    let product = shape.iter().fold(1u128, |product, &side| product.saturating_mul(side as u128));
    at_most(place, what, product, MAX_ENTRIES as u128)?;
    Ok(product as usize)
}

/// `5x13x13`
pub(super) fn show(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Output side of a window sliding over `size` entries after padding; `None` where the window does not fit.
fn slide(size: usize, before: usize, after: usize, kernel: usize, stride: usize) -> Option<usize> {
    (size + before + after).checked_sub(kernel).map(|room| room / stride + 1)
}

fn image_shape(layer: &Layer, shape: &[usize]) -> Result<[usize; 3], NetError> {
    <[usize; 3]>::try_from(shape)
        .map_err(|_| NetError::mismatch(&layer.name, "input shape", format!("{shape:?}"), "[channels, rows, columns]"))
}

impl Op {
    /// The kind's name in the specification.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Conv2d { .. } => "conv2d",
            Op::AvgPool2d { .. } => "avgpool2d",
            Op::Dense { .. } => "dense",
            Op::BatchNorm { .. } => "batchnorm",
            Op::Flatten => "flatten",
            Op::Poly2 { .. } => "poly2",
            Op::Relu => "relu",
            Op::Add { .. } => "add",
        }
    }

    /// Its tensors with their names and expected lengths, given the running shape.
    pub(super) fn tensors(&self, shape: &[usize]) -> Vec<(&'static str, &[f32], usize)> {
        match self {
            Op::Conv2d { weight, weight_shape, bias, .. } => {
                vec![("weight", weight, entries(weight_shape).unwrap_or(usize::MAX)), ("bias", bias, weight_shape[0])]
            }
            Op::Dense { weight, weight_shape, bias } => {
                vec![("weight", weight, entries(weight_shape).unwrap_or(usize::MAX)), ("bias", bias, weight_shape[0])]
            }
            Op::BatchNorm { gamma, beta, mean, var, .. } => {
                let channels = shape[0];
                vec![
                    ("gamma", gamma, channels),
                    ("beta", beta, channels),
                    ("mean", mean, channels),
                    ("var", var, channels),
                ]
            }
            Op::Poly2 { granularity, a, b, c } => {
                let count = match granularity {
                    Granularity::Layer => 1,
                    Granularity::Channel => shape[0],
                    Granularity::Element => entries(shape).unwrap_or(usize::MAX),
                };
                vec![("a", a, count), ("b", b, count), ("c", c, count)]
            }
            Op::AvgPool2d { .. } | Op::Flatten | Op::Relu | Op::Add { .. } => Vec::new(),
        }
    }
}

impl Layer {
    /// Shape after this layer, given the shapes of value 0 (the image) to the running one. Looks at sizes only, so it
    /// may be asked before the tensors are there.
    pub fn output_shape(&self, before: &[Vec<usize>]) -> Result<Vec<usize>, NetError> {
        let Some(shape) = before.last() else { return Err(NetError::missing(&self.name, "input shape")) };
        let output = match &self.op {
            Op::Conv2d { weight_shape: [out, inner, rows, columns], stride, padding, groups, .. } => {
                let [channels, height, width] = image_shape(self, shape)?;
                checked_entries(&self.name, "weight shape", &[*out, *inner, *rows, *columns])?;
                self.positive("stride", *stride)?;
                self.positive("groups", *groups)?;
                for &side in padding {
                    at_most(&self.name, "padding", side as u128, MAX_DIMENSION as u128)?;
                }
                if inner.checked_mul(*groups) != Some(channels) {
                    let found = format!("{inner} x {groups} groups");
                    return Err(NetError::mismatch(&self.name, "input channels of weight", found, channels));
                }
                if out % groups != 0 {
                    let expected = format!("a multiple of {groups} groups");
                    return Err(NetError::mismatch(&self.name, "output channels of weight", out, expected));
                }
                let [top, left, bottom, right] = *padding;
                let down = slide(height, top, bottom, *rows, *stride);
                let across = slide(width, left, right, *columns, *stride);
                let (Some(down), Some(across)) = (down, across) else {
                    let found = format!("{rows}x{columns}");
                    let expected = format!("at most {}x{}", height + top + bottom, width + left + right);
                    return Err(NetError::mismatch(&self.name, "kernel", found, expected));
                };
                vec![*out, down, across]
            }
            Op::AvgPool2d { kernel, stride } => {
                let [channels, height, width] = image_shape(self, shape)?;
                self.positive("kernel", *kernel)?;
                self.positive("stride", *stride)?;
                let (down, across) = (slide(height, 0, 0, *kernel, *stride), slide(width, 0, 0, *kernel, *stride));
                let (Some(down), Some(across)) = (down, across) else {
                    let expected = format!("at most {}", height.min(width));
                    return Err(NetError::mismatch(&self.name, "kernel", kernel, expected));
                };
                vec![channels, down, across]
            }
            Op::Dense { weight_shape: [out, inner], .. } => {
                checked_entries(&self.name, "weight shape", &[*out, *inner])?;
                if shape.len() != 1 {
                    return Err(NetError::mismatch(
                        &self.name,
                        "input shape",
                        format!("{shape:?}"),
                        "[n] (flatten first)",
                    ));
                }
                if *inner != shape[0] {
                    return Err(NetError::mismatch(&self.name, "input size of weight", inner, shape[0]));
                }
                vec![*out]
            }
            Op::Flatten => vec![checked_entries(&self.name, "input shape", shape)?],
            Op::BatchNorm { .. } | Op::Poly2 { .. } | Op::Relu => shape.clone(),
            Op::Add { with } => {
                let Some(other) = before.get(*with) else {
                    let expected = format!("at most {}", before.len() - 1);
                    return Err(NetError::mismatch(&self.name, "with", with, expected));
                };
                if other != shape {
                    let (found, expected) = (format!("{other:?}"), format!("{shape:?}"));
                    return Err(NetError::mismatch(&self.name, format!("shape of value {with}"), found, expected));
                }
                shape.clone()
            }
        };
        let count = checked_entries(&self.name, "output shape", &output)?;
        at_most(&self.name, "entries of the output", count as u128, MAX_VALUE_ENTRIES as u128)?;
        Ok(output)
    }

    fn positive(&self, what: &str, value: usize) -> Result<(), NetError> {
        if value == 0 {
            return Err(NetError::mismatch(&self.name, what, value, "at least 1"));
        }
        at_most(&self.name, what, value as u128, MAX_DIMENSION as u128)
    }

    /// Multiply-accumulates on one image, weights only, padding counted; saturating.
    pub(super) fn macs(&self, output: &[usize]) -> u64 {
        let outputs = output.iter().fold(1u64, |product, &side| product.saturating_mul(side as u64));
        let each = match &self.op {
            Op::Conv2d { weight_shape: [_, inner, rows, columns], .. } => inner * rows * columns,
            Op::Dense { weight_shape: [_, inner], .. } => *inner,
            _ => 0,
        };
        outputs.saturating_mul(each as u64)
    }

    fn check_tensors(&self, shape: &[usize]) -> Result<(), NetError> {
        for (what, tensor, expected) in self.op.tensors(shape) {
            same_len(&self.name, what, tensor.len(), expected)?;
            all_finite(&self.name, what, tensor.iter().map(|&weight| f64::from(weight)))?;
        }
        if let Op::BatchNorm { var, eps, .. } = &self.op {
            if !(eps.is_finite() && *eps > 0.0) {
                return Err(NetError::mismatch(&self.name, "eps", eps, "a positive number"));
            }
            if let Some(bad) = var.iter().find(|&&var| var < 0.0) {
                return Err(NetError::mismatch(&self.name, "var", bad, "at least 0"));
            }
        }
        Ok(())
    }
}

impl InputSpec {
    /// Shape within limits, one finite mean and one finite positive std a channel.
    pub(super) fn validate(&self) -> Result<(), NetError> {
        let count = checked_entries("input", "shape", &self.shape)?;
        at_most("input", "entries", count as u128, MAX_VALUE_ENTRIES as u128)?;
        same_len("input", "mean", self.mean.len(), self.shape[0])?;
        same_len("input", "std", self.std.len(), self.shape[0])?;
        all_finite("input", "mean", self.mean.iter().copied())?;
        all_finite("input", "std", self.std.iter().copied())?;
        match self.std.iter().find(|&&std| std <= 0.0) {
            Some(bad) => Err(NetError::mismatch("input", "std", bad, "a positive number")),
            None => Ok(()),
        }
    }
}

impl Network {
    /// Value shapes: `[0]` the image, `[k]` after layer k - 1. Errors name the layer, the shape found and expected.
    pub fn value_shapes(&self) -> Result<Vec<Vec<usize>>, NetError> {
        at_most("layers", "count", self.layers.len() as u128, MAX_LAYERS as u128)?;
        self.input.validate()?;
        let mut shapes = vec![self.input.shape.to_vec()];
        let mut macs = 0u64;
        for layer in &self.layers {
            let output = layer.output_shape(&shapes)?;
            macs = macs.saturating_add(layer.macs(&output));
            at_most(&layer.name, "multiply-accumulates up to here", macs.into(), MAX_MACS.into())?;
            shapes.push(output);
        }
        Ok(shapes)
    }

    /// Shape of the value after each layer, in order of layers.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, NetError> {
        let mut shapes = self.value_shapes()?;
        shapes.remove(0);
        Ok(shapes)
    }

    /// Checks everything: name, normalisation, shapes, tensor lengths, finite weights, logits of shape `[classes]`.
    pub fn validate(&self) -> Result<(), NetError> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            let expected = "1 to 64 letters, digits, '-' or '_'";
            return Err(NetError::mismatch("model", "name", format!("{:?}", self.name), expected));
        }
        at_most("model", "length of dataset name", self.dataset.len() as u128, 64)?;
        let shapes = self.value_shapes()?;
        for (layer, shape) in self.layers.iter().zip(&shapes) {
            layer.check_tensors(shape)?;
        }
        match shapes.last().map(Vec::as_slice) {
            Some([_]) => Ok(()),
            last => Err(NetError::mismatch("model", "output shape", format!("{last:?}"), "[classes]")),
        }
    }

    /// Number of logits; an error where the shapes do not fit together.
    pub fn classes(&self) -> Result<usize, NetError> {
        Ok(self.value_shapes()?.last().and_then(|shape| entries(shape)).unwrap_or(0))
    }

    /// Multiply-accumulates on one image as the layers stand (convolutions and dense layers, padding counted).
    pub fn macs(&self) -> Result<u64, NetError> {
        let shapes = self.shapes()?;
        Ok(self.layers.iter().zip(&shapes).fold(0u64, |sum, (layer, shape)| sum.saturating_add(layer.macs(shape))))
    }

    /// Number of quadratic layers: the multiplicative depth.
    pub fn squarings(&self) -> usize {
        self.layers.iter().filter(|layer| matches!(layer.op, Op::Poly2 { .. })).count()
    }

    /// Number of neurons that go through a quadratic or, in a teacher, a ReLU.
    pub fn activations(&self) -> Result<usize, NetError> {
        let shapes = self.shapes()?;
        let active = |(layer, _): &(&Layer, &Vec<usize>)| matches!(layer.op, Op::Poly2 { .. } | Op::Relu);
        Ok(self.layers.iter().zip(&shapes).filter(active).filter_map(|(_, shape)| entries(shape)).sum())
    }
}
