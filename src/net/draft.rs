//! The draft: a network as affine forms over values and squares, in f64, before anything is rounded.
//!
//! Layers are propagated symbolically. Convolution, pooling, dense layers, batch normalisation, flattening and addition
//! compose into affine forms; each quadratic layer closes a stage whose outputs z are the completed squares' roots:
//! `a x^2 + b x + c = sign(a) (sqrt|a| (x + b/2a))^2 + (c - b^2/4a)`, root into this stage, sign and constant into the
//! next. Where the shift b/2a is out of proportion the neuron is kept as `z = x / 2^k` and read by value and square; which
//! ones these are is decided before (see `lowering`). The proportion is the layer's range, not the neuron's: noise in z
//! becomes noise b / sqrt|a| in the activation however small x is. Measured per neuron instead, 2 to 50 neurons of each
//! reference model (border ones, mostly) would be kept, with logit errors 20 to 60 % larger on the MNIST models, equal on
//! CIFAR and 15 % smaller on Fashion.

use super::circuit::FeatureKind;
use super::error::{NetError, all_finite};
use super::forms::{Columns, Combiner, Forms};
use super::lowering::{Budget, KeptNeuron, Lowering, has_squares, power_of_two};
use super::network::{Layer, Network, Op};
use super::shapes::show;

/// One linear map of the draft. The last stage's rows are the logits.
pub(super) struct DraftStage {
    pub(super) name: String,
    pub(super) forms: Forms,
    /// How the quadratic layer's inputs are read from the rows; empty for the last stage.
    pub(super) roots: Vec<Root>,
}

/// How the input x of a neuron's quadratic is read from the row z that stands for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Root {
    /// x = z / factor - shift.
    Row { factor: f64, shift: f64 },
    /// x is this for every image.
    Constant(f64),
    /// Nothing depends on x.
    Unread,
}

/// All stages over one space of columns.
pub(super) struct Draft {
    pub(super) columns: Columns,
    pub(super) stages: Vec<DraftStage>,
    /// Per stage but the last: the layer whose activations close it.
    pub(super) quadratics: Vec<usize>,
}

/// Propagates the layers; `lowering` has been checked against them.
pub(super) fn draft(network: &Network, lowering: &Lowering, budget: &mut Budget) -> Result<Draft, NetError> {
    if let Some(Layer { name, op }) = network.layers.iter().find(|layer| matches!(layer.op, Op::Relu)) {
        return Err(NetError::NoCircuit { place: name.clone(), kind: op.kind() });
    }
    propagate(network, budget, &has_squares, &mut |columns, stage, index, shape, forms| {
        complete_squares(columns, stage, &network.layers[index], shape, forms, lowering.kept_in(index))
    })
}

/// Whether a layer ends a stage of a table circuit: a ReLU, or a quadratic that squares anything.
pub(super) fn has_tables(op: &Op) -> bool {
    matches!(op, Op::Relu) || has_squares(op)
}

/// As [`draft`] for a table circuit: the rows of a stage are what its activations read, the next stage reads what they give,
/// whatever that is. An activation that reads nothing is given by `constant(layer, row, what it reads)`.
pub(super) fn draft_tables(
    network: &Network,
    budget: &mut Budget,
    constant: &dyn Fn(usize, usize, f64) -> f64,
) -> Result<Draft, NetError> {
    propagate(network, budget, &has_tables, &mut |columns, stage, index, _, forms| {
        columns.push(forms.rows())?;
        let mut next = Forms::new();
        for row in 0..forms.rows() {
            let known = forms.row(row).all(|(_, weight)| weight == 0.0);
            let column = columns.column(stage + 1, FeatureKind::Value, row);
            let given = if known { constant(index, row, forms.constants[row]) } else { 0.0 };
            next.push((!known).then_some((column, 1.0)).into_iter(), given)?;
        }
        Ok((forms, Vec::new(), next))
    })
}

/// Rows of a closed stage, how activations are read from them, and the activations as forms.
type Closed = (Forms, Vec<Root>, Forms);
/// Closes a stage, of (columns, stage, layer, shape, what the layer reads).
type Close<'a> = dyn FnMut(&mut Columns, usize, usize, &[usize], Forms) -> Result<Closed, NetError> + 'a;

/// Propagates the layers. Those that `closes` picks end a stage, as `close(columns, stage, layer, shape, forms read)` says.
fn propagate(
    network: &Network,
    budget: &mut Budget,
    closes: &dyn Fn(&Op) -> bool,
    close: &mut Close<'_>,
) -> Result<Draft, NetError> {
    let shapes = network.value_shapes()?;
    let mut kept = vec![false; shapes.len()];
    for layer in &network.layers {
        if let Op::Add { with } = layer.op {
            kept[with] = true;
        }
    }
    let entries = shapes[0].iter().product::<usize>();
    budget.make(5 * entries)?;
    let mut draft = Draft { columns: Columns::new(entries)?, stages: Vec::new(), quadratics: Vec::new() };
    let mut current = Forms::new();
    for entry in 0..entries {
        let column = draft.columns.column(0, FeatureKind::Value, entry);
        current.push(std::iter::once((column, 1.0)), 0.0)?;
    }
    let mut values: Vec<Option<Forms>> = Vec::new();
    let mut name = StageName::starting_at(&shapes[0]);
    for (index, layer) in network.layers.iter().enumerate() {
        // What a layer reads and what it gives are walked through several times.
        budget.step(current.size())?;
        if kept[index] {
            budget.make(current.size())?;
        }
        values.push(kept[index].then(|| current.clone()));
        let (shape, output) = (&shapes[index], &shapes[index + 1]);
        current = match &layer.op {
            Op::Flatten => current,
            op if closes(op) => {
                // Of the new forms, two weights and four for the form each; the roots take as much.
                budget.make(8 * current.rows())?;
                let stage = draft.stages.len();
                let (forms, roots, next) = close(&mut draft.columns, stage, index, shape, current)?;
                draft.stages.push(DraftStage { name: name.finish(shape), forms, roots });
                draft.quadratics.push(index);
                next
            }
            Op::Add { with } => {
                let mut combiner = Combiner::new(draft.columns.len(), budget)?;
                let mut sum = Forms::new();
                let other = values[*with].as_ref().unwrap_or(&current);
                for row in 0..current.rows() {
                    combiner.add_row(1.0, &current, row, budget)?;
                    combiner.add_row(1.0, other, row, budget)?;
                    combiner.finish(&mut sum, budget)?;
                }
                name.part("add");
                sum
            }
            op => {
                name.part(op.kind());
                apply_linear(op, shape, output, current, draft.columns.len(), budget)?
            }
        };
        all_finite(&layer.name, "folded weights", current.weights.iter().chain(&current.constants).copied())?;
    }
    draft.stages.push(DraftStage { name: name.finish(&shapes[shapes.len() - 1]), forms: current, roots: Vec::new() });
    Ok(draft)
}

/// `conv2d 1x28x28 -> 5x13x13`, gathered layer by layer.
struct StageName {
    parts: Vec<&'static str>,
    from: String,
}

impl StageName {
    fn starting_at(shape: &[usize]) -> StageName {
        StageName { parts: Vec::new(), from: show(shape) }
    }

    fn part(&mut self, kind: &'static str) {
        self.parts.push(kind);
    }

    fn finish(&mut self, to: &[usize]) -> String {
        let parts = if self.parts.is_empty() { "identity".to_owned() } else { self.parts.join(" + ") };
        let text = format!("{parts} {} -> {}", self.from, show(to));
        *self = StageName::starting_at(to);
        // Long chains of linear layers are cut: the name is for people.
        text.chars().take(MAX_NAME).collect()
    }
}

/// Longest name of a stage, in characters.
pub(super) const MAX_NAME: usize = 200;

/// A linear layer (or a quadratic without squares) applied to forms.
fn apply_linear(
    op: &Op,
    shape: &[usize],
    output: &[usize],
    mut input: Forms,
    columns: usize,
    budget: &mut Budget,
) -> Result<Forms, NetError> {
    let mut combiner = Combiner::new(columns, budget)?;
    let mut out = Forms::new();
    match op {
        Op::Conv2d { weight, weight_shape, bias, stride, padding, groups } => {
            let [channels, inner, kernel_rows, kernel_columns] = *weight_shape;
            // Taps in the padding add nothing and still take their time.
            budget.step(channels * output[1] * output[2] * inner * kernel_rows * kernel_columns)?;
            for channel in 0..channels {
                let first = channel / (channels / groups) * inner;
                let fan_in = inner * kernel_rows * kernel_columns;
                let taps = &weight[channel * fan_in..(channel + 1) * fan_in];
                for position in 0..output[1] * output[2] {
                    let top = position / output[2] * stride;
                    let left = position % output[2] * stride;
                    combiner.add_constant(f64::from(bias[channel]));
                    for (source, plane_taps) in taps.chunks_exact(kernel_rows * kernel_columns).enumerate() {
                        let first_row = (first + source) * shape[1];
                        for (down, row_taps) in plane_taps.chunks_exact(kernel_columns).enumerate() {
                            let y = (top + down).checked_sub(padding[0]);
                            let Some(y) = y.filter(|&y| y < shape[1]) else { continue };
                            for (across, &weight) in row_taps.iter().enumerate() {
                                let x = (left + across).checked_sub(padding[1]);
                                let Some(x) = x.filter(|&x| x < shape[2]) else { continue };
                                combiner.add_row(f64::from(weight), &input, (first_row + y) * shape[2] + x, budget)?;
                            }
                        }
                    }
                    combiner.finish(&mut out, budget)?;
                }
            }
        }
        Op::Dense { weight, weight_shape: [_, inner], bias } => {
            for (weights, &bias) in weight.chunks_exact(*inner).zip(bias) {
                combiner.add_constant(f64::from(bias));
                for (row, &weight) in weights.iter().enumerate() {
                    combiner.add_row(f64::from(weight), &input, row, budget)?;
                }
                combiner.finish(&mut out, budget)?;
            }
        }
        Op::AvgPool2d { kernel, stride } => {
            let share = 1.0 / (kernel * kernel) as f64;
            for index in 0..output.iter().product() {
                let channel = index / (output[1] * output[2]);
                let (top, left) = (index / output[2] % output[1] * stride, index % output[2] * stride);
                for tap in 0..kernel * kernel {
                    let (y, x) = (top + tap / kernel, left + tap % kernel);
                    combiner.add_row(share, &input, (channel * shape[1] + y) * shape[2] + x, budget)?;
                }
                combiner.finish(&mut out, budget)?;
            }
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            let per_channel = shape[1..].iter().product::<usize>();
            input.rewrite_rows(|row, _, constant| {
                let channel = row / per_channel;
                let factor = f64::from(gamma[channel]) / (f64::from(var[channel]) + eps).sqrt();
                let offset = f64::from(beta[channel]) - factor * f64::from(mean[channel]);
                Some((factor, factor * constant + offset))
            });
            return Ok(input);
        }
        Op::Poly2 { granularity, b, c, .. } => {
            let per_channel = shape[1..].iter().product::<usize>();
            input.rewrite_rows(|row, _, constant| {
                let index = granularity.index(row, row / per_channel);
                let factor = f64::from(b[index]);
                Some((factor, factor * constant + f64::from(c[index])))
            });
            return Ok(input);
        }
        Op::Flatten | Op::Add { .. } | Op::Relu => return Ok(input),
    }
    Ok(out)
}

/// Closes stage `stage`: its roots z as forms over older columns, how x is read from them, and the activations as forms over
/// the roots.
fn complete_squares(
    columns: &mut Columns,
    stage: usize,
    layer: &Layer,
    shape: &[usize],
    mut forms: Forms,
    kept: &[KeptNeuron],
) -> Result<Closed, NetError> {
    let Op::Poly2 { granularity, a, b, c } = &layer.op else { return Ok((Forms::new(), Vec::new(), forms)) };
    columns.push(forms.rows())?;
    let per_channel = shape[1..].iter().product::<usize>();
    let mut kept = kept.iter().peekable();
    let (mut roots, mut next) = (Vec::with_capacity(forms.rows()), Forms::new());
    let mut pushed = Ok(());
    let mut activation = |terms: &[(u32, f64)], constant: f64| {
        if pushed.is_ok() {
            pushed = next.push(terms.iter().copied().filter(|&(_, weight)| weight != 0.0), constant);
        }
    };
    forms.rewrite_rows(|row, weights, constant| {
        let kept = kept.next_if(|kept| kept.entry as usize == row);
        let index = granularity.index(row, row / per_channel);
        let (a, b, c) = (f64::from(a[index]), f64::from(b[index]), f64::from(c[index]));
        let value = columns.column(stage + 1, FeatureKind::Value, row);
        let square = columns.column(stage + 1, FeatureKind::Square, row);
        if (a == 0.0 && b == 0.0) || weights.iter().all(|&weight| weight == 0.0) {
            // The same for every image: no root, only a constant further on.
            let unread = a == 0.0 && b == 0.0;
            roots.push(if unread { Root::Unread } else { Root::Constant(constant) });
            let known = if unread { c } else { (a * constant + b) * constant + c };
            activation(&[], known);
            return None;
        }
        if let Some(kept) = kept {
            let factor = 1.0 / power_of_two(kept.log2_unit);
            roots.push(Root::Row { factor, shift: 0.0 });
            activation(&[(value, b / factor), (square, a / (factor * factor))], c);
            Some((factor, factor * constant))
        } else {
            // Neurons without a square are all kept, so a is not zero.
            let shift = b / (2.0 * a);
            let factor = a.abs().sqrt();
            roots.push(Root::Row { factor, shift });
            activation(&[(square, a.signum())], c - b * shift / 2.0);
            Some((factor, factor * (constant + shift)))
        }
    });
    pushed?;
    all_finite(&layer.name, "completed squares", forms.weights.iter().chain(&forms.constants).copied())?;
    Ok((forms, roots, next))
}
