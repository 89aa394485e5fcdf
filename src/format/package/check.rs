//! What a model package must satisfy before it is written and after it is read: lengths, index ranges, finite numbers.
//!
//! These run first, for messages that name fields as the package has them, and so that `Network::validate` and
//! `Circuit::validate`, which run next, index without fear. Theirs: whether the layers fit one another in shape, and
//! whether two blocks repeat a (row, column) pair.

use crate::net::circuit::{Circuit, LinearMap, Source, Stage, StageStats};
use crate::net::network::{Granularity, Network, Op};

use super::Canary;
use crate::format::FormatError;

/// Most entries of an image, outputs of a stage, or tensor elements of a shape.
const ENTRIES_CAP: usize = 1 << 30;

fn ensure(
    holds: bool,
    what: impl FnOnce() -> String,
    found: impl ToString,
    expected: impl ToString,
) -> Result<(), FormatError> {
    if holds { Ok(()) } else { Err(FormatError::invalid(what(), found, expected)) }
}

/// Product of a shape without overflow; refuses a zero side and more than 2^30 entries.
pub(super) fn entries(what: &str, shape: &[usize]) -> Result<usize, FormatError> {
    let product = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
    product
        .filter(|product| (1..=ENTRIES_CAP).contains(product))
        .ok_or_else(|| FormatError::invalid(format!("shape of {what}"), format!("{shape:?}"), "1 to 2^30 entries"))
}

fn all_finite<T: Copy + Into<f64>>(what: &str, values: &[T]) -> Result<(), FormatError> {
    match values.iter().position(|&value| !value.into().is_finite()) {
        None => Ok(()),
        Some(index) => Err(FormatError::invalid(format!("{what}[{index}]"), values[index].into(), "a finite number")),
    }
}

/// Lengths of tensors against shapes, finite values, positive steps and deviations.
pub(super) fn check_network(network: &Network) -> Result<(), FormatError> {
    let is_name_char = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let is_name = (1..=100).contains(&network.name.len()) && network.name.chars().all(is_name_char);
    ensure(is_name, || "network name".into(), format!("{:?}", network.name), "1 to 100 letters, digits, '-' or '_'")?;
    let input = &network.input;
    entries("the input", &input.shape)?;
    for (what, values) in [("input mean", &input.mean), ("input std", &input.std)] {
        ensure(values.len() == input.shape[0], || format!("{what} values"), values.len(), input.shape[0])?;
        all_finite(what, values)?;
    }
    if let Some(std) = input.std.iter().find(|&&std| std <= 0.0) {
        return Err(FormatError::invalid("input std", std, "a positive number"));
    }
    network.layers.iter().enumerate().try_for_each(|(index, layer)| {
        let name = format!("layer {index} ({})", layer.name);
        check_op(&name, &layer.op, index)
    })
}

/// A package with a circuit holds what was lowered, and a ReLU cannot be.
pub(super) fn check_no_relu(network: &Network) -> Result<(), FormatError> {
    let Some((index, layer)) = network.layers.iter().enumerate().find(|(_, layer)| matches!(layer.op, Op::Relu)) else {
        return Ok(());
    };
    let expected = "one that has a circuit (a relu needs tables)";
    Err(FormatError::invalid(format!("layer {index} ({}): operation", layer.name), "relu", expected))
}

fn check_op(name: &str, op: &Op, index: usize) -> Result<(), FormatError> {
    let tensor = |part: &str, values: &[f32], len: usize| {
        ensure(values.len() == len, || format!("{name}: {part} elements"), values.len(), len)?;
        all_finite(&format!("{name}: {part}"), values)
    };
    let positive = |part: &str, value: usize| ensure(value > 0, || format!("{name}: {part}"), value, "at least 1");
    match op {
        Op::Conv2d { weight, weight_shape, bias, stride, padding, groups } => {
            tensor("weight", weight, entries(&format!("{name} weight"), weight_shape)?)?;
            tensor("bias", bias, weight_shape[0])?;
            positive("stride", *stride)?;
            positive("groups", *groups)?;
            let widest = padding.iter().copied().max().unwrap_or(0);
            ensure(widest <= ENTRIES_CAP, || format!("{name}: padding"), widest, "at most 2^30")
        }
        Op::AvgPool2d { kernel, stride } => {
            positive("kernel", *kernel)?;
            positive("stride", *stride)
        }
        Op::Dense { weight, weight_shape, bias } => {
            tensor("weight", weight, entries(&format!("{name} weight"), weight_shape)?)?;
            tensor("bias", bias, weight_shape[0])
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            positive("channels", gamma.len())?;
            for (part, values) in [("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)] {
                tensor(part, values, gamma.len())?;
            }
            ensure(eps.is_finite() && *eps > 0.0, || format!("{name}: eps"), eps, "a positive number")?;
            let lowest = var.iter().copied().fold(f32::INFINITY, f32::min);
            ensure(lowest >= 0.0, || format!("{name}: var"), lowest, "at least 0")
        }
        Op::Flatten | Op::Relu => Ok(()),
        Op::Poly2 { granularity, a, b, c } => {
            positive("coefficients", a.len())?;
            for (part, values) in [("a", a), ("b", b), ("c", c)] {
                tensor(part, values, a.len())?;
            }
            let fits = *granularity != Granularity::Layer || a.len() == 1;
            ensure(fits, || format!("{name}: coefficients of a layer-wide quadratic"), a.len(), 1)
        }
        Op::Add { with } => ensure(*with <= index, || format!("{name}: with"), with, format!("at most {index}")),
    }
}

/// Index ranges, orders, lengths, widths and finite reals; every output depends on something.
pub(super) fn check_circuit(circuit: &Circuit) -> Result<(), FormatError> {
    let input_entries = entries("the circuit's input", &circuit.input_shape)?;
    check_stats("input", &circuit.input_stats)?;
    ensure(!circuit.stages.is_empty(), || "stages".into(), 0, "at least 1")?;
    let mut outputs_so_far = Vec::with_capacity(circuit.stages.len());
    for (index, stage) in circuit.stages.iter().enumerate() {
        let name = format!("stage {index} ({})", stage.name);
        check_features(&name, stage, input_entries, &outputs_so_far)?;
        check_map(&name, &stage.map, stage.features.len())?;
        check_stats(&name, &stage.stats)?;
        outputs_so_far.push(stage.map.outputs);
    }
    Ok(())
}

fn check_features(
    name: &str,
    stage: &Stage,
    input_entries: usize,
    outputs_so_far: &[usize],
) -> Result<(), FormatError> {
    for (index, feature) in stage.features.iter().enumerate() {
        let at = || format!("{name}: feature {index}");
        let available = match feature.source {
            Source::Input => input_entries,
            Source::Stage(source) => *outputs_so_far.get(source).ok_or_else(|| {
                FormatError::invalid(at(), format!("stage {source}"), format!("one before {}", outputs_so_far.len()))
            })?,
        };
        ensure((feature.entry as usize) < available, at, feature.entry, format!("less than {available}"))?;
    }
    let unsorted = stage.features.windows(2).position(|pair| pair[0] >= pair[1]);
    ensure(unsorted.is_none(), || format!("{name}: features"), format!("disorder at {unsorted:?}"), "ascending order")
}

fn check_map(name: &str, map: &LinearMap, features: usize) -> Result<(), FormatError> {
    ensure((4..=16).contains(&map.weight_bits), || format!("{name}: weight bits"), map.weight_bits, "4 to 16")?;
    let scale = map.weight_scale;
    ensure(scale.is_finite() && scale > 0.0, || format!("{name}: weight scale"), scale, "a positive number")?;
    ensure((1..=ENTRIES_CAP).contains(&map.outputs), || format!("{name}: outputs"), map.outputs, "1 to 2^30")?;
    ensure(map.bias.len() == map.outputs, || format!("{name}: bias values"), map.bias.len(), map.outputs)?;
    all_finite(&format!("{name}: bias"), &map.bias)?;
    let largest = (1_i32 << (map.weight_bits - 1)) - 1;
    let mut depends = vec![false; map.outputs];
    for (index, block) in map.blocks.iter().enumerate() {
        let at = format!("{name}: block {index}");
        check_indices(&at, "rows", &block.rows, map.outputs)?;
        check_indices(&at, "columns", &block.columns, features)?;
        let expected = block.rows.len().checked_mul(block.columns.len());
        let fits = expected == Some(block.weights.len());
        let product = || format!("{} x {}", block.rows.len(), block.columns.len());
        ensure(fits, || format!("{at}: weights"), block.weights.len(), product())?;
        let too_wide = block.weights.iter().find(|&&weight| i32::from(weight).abs() > largest);
        if let Some(weight) = too_wide {
            return Err(FormatError::invalid(
                format!("{at}: weight"),
                weight,
                format!("at most {largest} in magnitude"),
            ));
        }
        for (&row, weights) in block.rows.iter().zip(block.weights.chunks_exact(block.columns.len())) {
            depends[row as usize] |= weights.iter().any(|&weight| weight != 0);
        }
    }
    let constant = depends.iter().position(|&depends| !depends);
    ensure(
        constant.is_none(),
        || format!("{name}: outputs"),
        format!("constant {constant:?}"),
        "a non-zero weight each",
    )
}

/// Not empty, strictly ascending, below `limit`.
fn check_indices(at: &str, what: &str, indices: &[u32], limit: usize) -> Result<(), FormatError> {
    let name = || format!("{at}: {what}");
    let Some(&last) = indices.last() else {
        return Err(FormatError::invalid(name(), "none", "at least 1"));
    };
    let unsorted = indices.windows(2).find(|pair| pair[0] >= pair[1]);
    if let Some(pair) = unsorted {
        return Err(FormatError::invalid(name(), format!("{} before {}", pair[0], pair[1]), "ascending order"));
    }
    ensure((last as usize) < limit, name, last, format!("less than {limit}"))
}

fn check_stats(name: &str, stats: &StageStats) -> Result<(), FormatError> {
    let figures = [
        ("max_abs", stats.max_abs),
        ("max_rms", stats.max_rms),
        ("noise_gain", stats.noise_gain),
        ("noise_gain_worst", stats.noise_gain_worst),
    ];
    figures.into_iter().try_for_each(|(figure, value)| {
        ensure(value.is_finite() && value >= 0.0, || format!("{name}: {figure}"), value, "a number of at least 0")
    })
}

/// Lengths against the circuit, finite values.
pub(super) fn check_canaries(canaries: &[Canary], circuit: &Circuit) -> Result<(), FormatError> {
    let inputs = entries("the circuit's input", &circuit.input_shape)?;
    let logits = circuit.stages.last().map_or(0, |stage| stage.map.outputs);
    for (index, canary) in canaries.iter().enumerate() {
        let at = |what: &str| format!("canary {index}: {what}");
        ensure(canary.input.len() == inputs, || at("input values"), canary.input.len(), inputs)?;
        ensure(canary.logits.len() == logits, || at("logits"), canary.logits.len(), logits)?;
        all_finite(&at("input"), &canary.input)?;
        all_finite(&at("logit"), &canary.logits)?;
    }
    Ok(())
}
