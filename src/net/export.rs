//! The reverse of [`Network::import`]: a network as specification text and named tensors, so that a teacher, which no package
//! may hold, can be kept as `model.json` and `weights.safetensors`.
//!
//! Importing what was exported gives the same network, bit for bit, if its layers have the names that import gives them
//! (`2 conv2d`); others are lost. Not here: files (see `format::tensors`).

use serde_json::{Value, json};

use super::error::NetError;
use super::network::{Granularity, Network, Op};

/// A network as text and tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// `model.json`: one layer a line.
    pub json: String,
    /// The tensors it names, in order of layers.
    pub tensors: Vec<SpecTensor>,
}

/// One tensor of a [`Spec`].
#[derive(Clone, Debug, PartialEq)]
pub struct SpecTensor {
    /// `LAYER.ROLE`, e.g. `0.weight`.
    pub name: String,
    /// Row-major, at least one side.
    pub shape: Vec<usize>,
    /// As many as the shape's product.
    pub values: Vec<f32>,
}

impl Network {
    /// Specification and tensors. Errors: a network that is not valid.
    pub fn to_spec(&self) -> Result<Spec, NetError> {
        self.validate()?;
        let shapes = self.value_shapes()?;
        let mut tensors = Vec::new();
        let mut lines = Vec::with_capacity(self.layers.len());
        for (index, (layer, shape)) in self.layers.iter().zip(&shapes).enumerate() {
            let mut fields = fields(&layer.op);
            for (role, values, _) in layer.op.tensors(shape) {
                let tensor = SpecTensor {
                    name: format!("{index}.{role}"),
                    shape: tensor_shape(&layer.op, role, shape, values.len()),
                    values: values.to_vec(),
                };
                fields["tensors"][role] = json!({"name": tensor.name, "shape": tensor.shape});
                tensors.push(tensor);
            }
            lines.push(format!("    {fields}"));
        }
        let head = [
            ("name", json!(self.name)),
            ("dataset", json!(self.dataset)),
            ("input_shape", json!(self.input.shape)),
            (
                "input_normalisation",
                json!({"scale": "u8/255", "mean": self.input.mean, "std": self.input.std, "formula": "(u8/255-mean)/std"}),
            ),
            ("layout", json!("NCHW")),
        ];
        let head: Vec<String> = head.iter().map(|(key, value)| format!("  \"{key}\": {value},\n")).collect();
        let json = format!("{{\n{}  \"layers\": [\n{}\n  ]\n}}\n", head.concat(), lines.join(",\n"));
        Ok(Spec { json, tensors })
    }
}

/// What the specification says of an operation besides its tensors.
fn fields(op: &Op) -> Value {
    match op {
        Op::Conv2d { stride, padding, groups, .. } => {
            json!({"type": op.kind(), "stride": stride, "padding_tlbr": padding, "groups": groups})
        }
        Op::AvgPool2d { kernel, stride } => json!({"type": op.kind(), "kernel": kernel, "stride": stride}),
        Op::BatchNorm { eps, .. } => json!({"type": op.kind(), "eps": eps}),
        Op::Poly2 { granularity, .. } => {
            let granularity = match granularity {
                Granularity::Layer => "layer",
                Granularity::Channel => "channel",
                Granularity::Element => "element",
            };
            json!({"type": op.kind(), "granularity": granularity})
        }
        Op::Add { with } => json!({"type": op.kind(), "with": with}),
        Op::Dense { .. } | Op::Flatten | Op::Relu => json!({"type": op.kind()}),
    }
}

/// Shape that [`Network::import`] expects of a tensor; `shape` is what the layer reads.
fn tensor_shape(op: &Op, role: &str, shape: &[usize], len: usize) -> Vec<usize> {
    match op {
        Op::Conv2d { weight_shape, .. } if role == "weight" => weight_shape.to_vec(),
        Op::Dense { weight_shape, .. } if role == "weight" => weight_shape.to_vec(),
        Op::Poly2 { granularity: Granularity::Element, .. } => shape.to_vec(),
        _ => vec![len],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample::{random_images, random_network, with_relus};
    use crate::net::{LowerOptions, lower};

    fn imported(spec: &Spec) -> Result<Network, NetError> {
        let find = |name: &str| spec.tensors.iter().find(|tensor| tensor.name == name);
        Network::import(&spec.json, &|name| find(name).map(|tensor| (tensor.shape.clone(), tensor.values.clone())))
    }

    #[test]
    fn any_network_comes_back_bit_for_bit() {
        for seed in 0..40 {
            let mut network = random_network(seed, seed as usize % 4, false);
            // Reals whose shortest decimals have 17 digits.
            network.input.mean.fill(0.1 + 0.2);
            network.input.std.fill(1.0 / 3.0 + f64::EPSILON);
            for network in [with_relus(network.clone()), network] {
                let spec = network.to_spec().unwrap();
                let again = imported(&spec).unwrap();
                assert_eq!(again, network);
                let bits = |network: &Network| network.input.mean.iter().map(|mean| mean.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&again), bits(&network));
                assert_eq!(again.to_spec().unwrap(), spec);
            }
        }
    }

    #[test]
    fn a_relu_passes_the_positive_part_counts_as_activation_and_is_never_lowered() {
        let quadratic = random_network(3, 3, false);
        let network = with_relus(quadratic.clone());
        let images = random_images(&network, 9, 4);
        let mut seen = 0;
        let mut before: Option<Vec<f64>> = None;
        let check = &mut |layer: usize, values: &[f64], _: usize, _: usize| {
            if let Some(before) = before.take() {
                let positive: Vec<f64> = before.iter().map(|&x| if x > 0.0 { x } else { 0.0 }).collect();
                assert_eq!(values, positive);
                assert!(before.iter().any(|&x| x < 0.0) && before.iter().any(|&x| x > 0.0));
                seen += 1;
            }
            before = matches!(network.layers[layer].op, Op::Relu).then(|| values.to_vec());
        };
        network.evaluate_traced(&images.x, images.images, check).unwrap();
        assert_eq!(seen, 3);
        assert_eq!((network.squarings(), network.activations().unwrap()), (0, quadratic.activations().unwrap()));
        assert_eq!((network.macs(), network.shapes()), (quadratic.macs(), quadratic.shapes()));
        let refused = lower(&network, &LowerOptions::default(), &images).unwrap_err();
        let name = network.layers.iter().find(|layer| layer.op == Op::Relu).unwrap().name.clone();
        assert_eq!(refused, NetError::NoCircuit { place: name.clone(), kind: "relu" });
        let expected = format!("{name}: a relu has no polynomial circuit; only teachers have one");
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn invalid_networks_and_altered_specifications_are_refused() {
        let mut network = random_network(1, 1, false);
        let spec = network.to_spec().unwrap();
        let short = Spec { tensors: spec.tensors[1..].to_vec(), ..spec.clone() };
        assert!(matches!(imported(&short), Err(NetError::Missing { .. })));
        let altered = with_relus(network.clone()).to_spec().unwrap().json.replace("\"relu\"", "\"relu\",\"slope\":0");
        let refused = imported(&Spec { json: altered, ..spec }).unwrap_err().to_string();
        assert!(refused.contains("relu: unknown field \"slope\""), "{refused}");
        network.input.std.fill(0.0);
        assert!(network.to_spec().is_err());
    }
}
