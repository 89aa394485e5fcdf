//! Sections `network.json` and `network.f32`: the network as trained, layer by layer, tensors one after the other.
//!
//! Not here: whether shapes and values make sense (see `check`).

use super::check::entries;
use super::json::{Exact, InputJson, LayerJson, NetworkJson, OpJson};
use super::sections::{Numbers, PackedSection, Sections, json, numbers};
use crate::format::FormatError;
use crate::net::network::{InputSpec, Layer, Network, Op};

pub(super) fn encode_network(network: &Network, packed: &mut Vec<PackedSection>) -> Result<(), FormatError> {
    let mut tensors = Vec::new();
    let mut layers = Vec::with_capacity(network.layers.len());
    for layer in &network.layers {
        let op = encode_op(layer, &mut |tensor| tensors.extend_from_slice(tensor))?;
        layers.push(LayerJson { name: layer.name.clone(), op });
    }
    let value = NetworkJson {
        name: network.name.clone(),
        dataset: network.dataset.clone(),
        layers,
        input: InputJson {
            shape: network.input.shape,
            mean: network.input.mean.iter().copied().map(Exact).collect(),
            std: network.input.std.iter().copied().map(Exact).collect(),
        },
    };
    packed.push(json("network.json", &value)?);
    packed.push(numbers("network.f32", &[tensors.len()], &tensors));
    Ok(())
}

/// The JSON of an operation; hands its tensors to `put` in order.
fn encode_op(layer: &Layer, put: &mut impl FnMut(&[f32])) -> Result<OpJson, FormatError> {
    Ok(match &layer.op {
        Op::Conv2d { weight, weight_shape, bias, stride, padding, groups } => {
            put(weight);
            put(bias);
            OpJson::Conv2d { weight_shape: *weight_shape, stride: *stride, padding: *padding, groups: *groups }
        }
        Op::AvgPool2d { kernel, stride } => OpJson::AvgPool2d { kernel: *kernel, stride: *stride },
        Op::Dense { weight, weight_shape, bias } => {
            put(weight);
            put(bias);
            OpJson::Dense { weight_shape: *weight_shape }
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            [gamma, beta, mean, var].into_iter().for_each(|tensor| put(tensor));
            OpJson::BatchNorm { channels: gamma.len(), eps: Exact(*eps) }
        }
        Op::Flatten => OpJson::Flatten,
        Op::Poly2 { granularity, a, b, c } => {
            [a, b, c].into_iter().for_each(|tensor| put(tensor));
            OpJson::Poly2 { granularity: (*granularity).into(), coefficients: a.len() }
        }
        Op::Relu => OpJson::Relu,
        Op::Add { with } => OpJson::Add { with: *with },
    })
}

pub(super) fn decode_network(sections: &mut Sections<'_>) -> Result<Network, FormatError> {
    let value: NetworkJson = sections.json("network.json")?;
    let mut tensors = sections.numbers::<f32>("network.f32", &[])?;
    let mut layers = Vec::with_capacity(value.layers.len());
    for layer in value.layers {
        let op = decode_op(&layer.name, layer.op, &mut tensors)?;
        layers.push(Layer { name: layer.name, op });
    }
    tensors.end()?;
    let reals = |values: Vec<Exact>| values.into_iter().map(|exact| exact.0).collect();
    let input = InputSpec { shape: value.input.shape, mean: reals(value.input.mean), std: reals(value.input.std) };
    Ok(Network { name: value.name, dataset: value.dataset, input, layers })
}

fn decode_op(name: &str, op: OpJson, tensors: &mut Numbers<'_, f32>) -> Result<Op, FormatError> {
    Ok(match op {
        OpJson::Conv2d { weight_shape, stride, padding, groups } => {
            let weight = tensors.take(entries(&format!("{name} weight"), &weight_shape)?)?;
            let bias = tensors.take(weight_shape[0])?;
            Op::Conv2d { weight, weight_shape, bias, stride, padding, groups }
        }
        OpJson::AvgPool2d { kernel, stride } => Op::AvgPool2d { kernel, stride },
        OpJson::Dense { weight_shape } => {
            let weight = tensors.take(entries(&format!("{name} weight"), &weight_shape)?)?;
            Op::Dense { weight, weight_shape, bias: tensors.take(weight_shape[0])? }
        }
        OpJson::BatchNorm { channels, eps } => {
            let mut next = || tensors.take(channels);
            Op::BatchNorm { gamma: next()?, beta: next()?, mean: next()?, var: next()?, eps: eps.0 }
        }
        OpJson::Flatten => Op::Flatten,
        OpJson::Relu => Op::Relu,
        OpJson::Poly2 { granularity, coefficients } => {
            let mut next = || tensors.take(coefficients);
            Op::Poly2 { granularity: granularity.into(), a: next()?, b: next()?, c: next()? }
        }
        OpJson::Add { with } => Op::Add { with },
    })
}
