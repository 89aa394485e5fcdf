//! The integers inside training: what every neuron's quadratic reads when the network runs on its circuit's integers.
//!
//! For quantisation-aware training by the straight-through estimator (Bengio, Leonard, Courville, arXiv 1308.3432): at each
//! step a [`Shadow`] of the present weights gives the x of each quadratic in the network's own units; the trainer adds the
//! difference to its own x as a constant. So the forward direction is the very circuit that a package of these weights
//! would hold, rounding, balancing and folding included. Completed squares are undone: `z = factor (x + shift)`.
//!
//! Single-threaded; the caller may evaluate slices of images side by side. Not here: calibration figures (all zero in a
//! shadow's circuit), gradients.

use super::batch::for_blocks;
use super::calibration::Ranges;
use super::circuit::Circuit;
use super::error::NetError;
use super::integer::Run;
use super::lower::{LowerOptions, lower_with_places};
use super::lowering::{Lowering, LoweringLimits};
use super::network::{Network, Op};

/// Where the inputs x of one quadratic layer are found in a circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlaces {
    /// The layer's index in the network.
    pub layer: usize,
    /// One per entry of its input.
    pub places: Vec<Place>,
}

/// Where the input x of one neuron's quadratic, in the network's own units, is found in a circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// x = output / factor - shift, of output `row` of stage `stage`.
    Row {
        /// Stage of the circuit.
        stage: usize,
        /// Row of its map.
        row: usize,
        /// Not zero.
        factor: f64,
        /// 0 where the neuron's square was not completed.
        shift: f64,
    },
    /// The same number for every image: no weight, or all of them rounded to zero.
    Constant(f64),
    /// No logit depends on it, or its quadratic is constant or part of a layer without squares.
    Unread,
}

/// A network's integer circuit, and where in it the inputs of the quadratic layers are.
#[derive(Clone, Debug)]
pub struct Shadow {
    circuit: Circuit,
    layers: Vec<LayerPlaces>,
}

/// What a shadow gives for some images.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowValues {
    /// For each quadratic layer, in the order of [`Shadow::layers`]: its inputs `[entry][image]`. NaN where the place is
    /// [`Place::Unread`].
    pub inputs: Vec<Vec<f64>>,
    /// `[class][image]`, those of [`Circuit::evaluate_batch`].
    pub logits: Vec<f64>,
}

impl Shadow {
    /// Lowers the network as it stands, with the widths of `options`; `ranges` of the same architecture decide how neurons
    /// are written.
    ///
    /// Errors: as [`lower`](super::lower()), or ranges of another architecture.
    pub fn new(network: &Network, options: &LowerOptions, ranges: &Ranges) -> Result<Shadow, NetError> {
        let lowering = Lowering::decide(network, options, ranges)?;
        let (circuit, lowered) = lower_with_places(network, &lowering, &LoweringLimits::OWN)?;
        let shapes = network.value_shapes()?;
        let mut lowered = lowered.into_iter().peekable();
        let mut layers = Vec::new();
        for (layer, _) in network.layers.iter().enumerate().filter(|(_, layer)| matches!(layer.op, Op::Poly2 { .. })) {
            // A quadratic layer without squares was folded away.
            let unread = || LayerPlaces { layer, places: vec![Place::Unread; shapes[layer].iter().product()] };
            layers.push(lowered.next_if(|places| places.layer == layer).unwrap_or_else(unread));
        }
        Ok(Shadow { circuit, layers })
    }

    /// The circuit; its calibration figures are zero.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// All quadratic layers in order, and where their inputs are.
    pub fn layers(&self) -> &[LayerPlaces] {
        &self.layers
    }

    /// Runs the circuit on normalised images `x` = `[entry][image]`.
    ///
    /// Errors: `x` does not hold `images` images.
    pub fn evaluate(&self, x: &[f64], images: usize) -> Result<ShadowValues, NetError> {
        let neurons = || self.layers.iter().flat_map(|layer| &layer.places);
        let logits = self.circuit.classes();
        let outputs = neurons().count() + logits;
        let mut run = Run::default();
        let mut all = for_blocks(x, self.circuit.inputs(), images, outputs, |block, width, _| {
            let mut buffers = vec![block];
            self.circuit.run_stages(0, &mut buffers, width, &mut run);
            let mut out = Vec::with_capacity(outputs * width);
            for place in neurons() {
                match *place {
                    Place::Row { stage, row, factor, shift } => {
                        let values = &buffers[stage + 1][row * width..(row + 1) * width];
                        out.extend(values.iter().map(|value| value / factor - shift));
                    }
                    Place::Constant(x) => out.resize(out.len() + width, x),
                    Place::Unread => out.resize(out.len() + width, f64::NAN),
                }
            }
            out.extend(buffers.pop().unwrap_or_default());
            Ok(out)
        })?;
        let mut inputs = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let rest = all.split_off(layer.places.len() * images);
            inputs.push(std::mem::replace(&mut all, rest));
        }
        Ok(ShadowValues { inputs, logits: all })
    }
}

#[cfg(test)]
mod tests;
