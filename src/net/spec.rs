//! Import of a model specification: `model.json` plus named tensors. Unknown layers, fields and conventions are refused
//! by name, because a field that is ignored silently is a network that computes something else.
//!
//! Shapes: conv weight `[out, in / groups, kh, kw]`, dense weight `[out, in]`, `padding_tlbr` top, left, bottom, right,
//! NCHW. Not here: where the bytes come from (the caller hands in a tensor look-up).

use serde_json::{Map, Value};

use super::error::{NetError, at_most};
use super::network::{Granularity, InputSpec, Layer, Network, Op};
use super::shapes::{MAX_LAYERS, MAX_MACS, checked_entries};

/// Largest accepted specification text.
const MAX_SPEC_BYTES: usize = 16 << 20;

const MODEL_FIELDS: &[&str] = &[
    "name",
    "dataset",
    "input_shape",
    "input_normalisation",
    "layout",
    "layers",
    // For people; they change nothing that is computed.
    "test_accuracy_percent",
    "cost",
    "test_ranges",
    "max_abs_logit",
    "training",
];
const LAYER_KINDS: &str = "conv2d, avgpool2d, dense, batchnorm, flatten, poly2, relu, add";

/// A tensor by name: its shape and its row-major values, `None` where there is none of this name.
pub type TensorSource<'a> = dyn Fn(&str) -> Option<(Vec<usize>, Vec<f32>)> + 'a;

impl Network {
    /// Reads a specification and fetches the tensors it names. The result has passed [`Network::validate`].
    ///
    /// Errors name the layer (`2 conv2d`) and what was found and expected; sizes are checked before tensors are fetched.
    pub fn import(spec_json: &str, tensors: &TensorSource) -> Result<Network, NetError> {
        at_most("model specification", "length in bytes", spec_json.len() as u128, MAX_SPEC_BYTES as u128)?;
        let json: Value = serde_json::from_str(spec_json).map_err(|error| NetError::Json(error.to_string()))?;
        let model = Fields::of("model", &json)?;
        model.only(MODEL_FIELDS)?;
        if let Some(layout) = model.map.get("layout") {
            let text = layout.as_str().unwrap_or_default();
            if !text.starts_with("NCHW") {
                return Err(NetError::mismatch("model", "layout", layout, "a text that starts with NCHW"));
            }
        }
        let shape = model.sizes("input_shape")?;
        let Ok(shape) = <[usize; 3]>::try_from(shape.as_slice()) else {
            return Err(NetError::mismatch("model", "input_shape", format!("{shape:?}"), "[channels, rows, columns]"));
        };
        let normalisation = Fields::of("input_normalisation", model.get("input_normalisation")?)?;
        normalisation.only(&["scale", "mean", "std", "formula"])?;
        normalisation.fixed_text("scale", "u8/255")?;
        normalisation.fixed_text("formula", "(u8/255-mean)/std")?;
        let input = InputSpec { shape, mean: normalisation.numbers("mean")?, std: normalisation.numbers("std")? };
        input.validate()?;

        let entries = model.list("layers")?;
        at_most("layers", "count", entries.len() as u128, MAX_LAYERS as u128)?;
        let mut shapes = vec![shape.to_vec()];
        let mut macs = 0u64;
        let mut layers = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let layer = read_layer(index, entry, &shapes, &mut macs, tensors)?;
            shapes.push(layer.output_shape(&shapes)?);
            layers.push(layer);
        }
        let dataset = match model.map.get("dataset") {
            Some(_) => model.text("dataset")?.to_owned(),
            None => String::new(),
        };
        let network = Network { name: model.text("name")?.to_owned(), dataset, input, layers };
        network.validate()?;
        Ok(network)
    }
}

/// One layer: its sizes are checked first, on a copy without tensors, then the tensors are fetched.
fn read_layer(
    index: usize,
    entry: &Value,
    shapes: &[Vec<usize>],
    macs: &mut u64,
    tensors: &TensorSource,
) -> Result<Layer, NetError> {
    let place = format!("layer {index}");
    let kind = Fields::of(&place, entry)?.text("type")?;
    let name = format!("{index} {kind}");
    let fields = Fields::of(&name, entry)?;
    let declared = fields.declared_tensors()?;
    let mut op = read_op(&fields, kind, &declared)?;
    let layer = Layer { name: name.clone(), op: op.clone() };
    let output = layer.output_shape(shapes)?;
    *macs = macs.saturating_add(layer.macs(&output));
    at_most(&name, "multiply-accumulates up to here", (*macs).into(), MAX_MACS.into())?;

    let channels = shapes.last().map_or(0, |shape| shape[0]);
    let fetch = |what: &str, expected: &[usize]| declared.fetch(what, expected, tensors);
    match &mut op {
        Op::Conv2d { weight, weight_shape, bias, .. } => {
            *weight = fetch("weight", weight_shape.as_slice())?;
            *bias = fetch("bias", &[weight_shape[0]])?;
        }
        Op::Dense { weight, weight_shape, bias } => {
            *weight = fetch("weight", weight_shape.as_slice())?;
            *bias = fetch("bias", &[weight_shape[0]])?;
        }
        Op::BatchNorm { gamma, beta, mean, var, .. } => {
            for (what, tensor) in [("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)] {
                *tensor = fetch(what, &[channels])?;
            }
        }
        Op::Poly2 { granularity, a, b, c } => {
            let expected = match granularity {
                Granularity::Layer => vec![1],
                Granularity::Channel => vec![channels],
                Granularity::Element => output.clone(),
            };
            for (what, tensor) in [("a", a), ("b", b), ("c", c)] {
                *tensor = fetch(what, &expected)?;
            }
        }
        Op::AvgPool2d { .. } | Op::Flatten | Op::Relu | Op::Add { .. } => {}
    }
    Ok(Layer { name, op })
}

/// The operation with its sizes, tensors still empty.
fn read_op(fields: &Fields, kind: &str, declared: &Declared) -> Result<Op, NetError> {
    let weight_shape = |rank: usize| -> Result<Vec<usize>, NetError> {
        let shape = declared.shape("weight")?;
        if shape.len() != rank {
            return Err(NetError::mismatch(fields.place, "rank of weight", shape.len(), rank));
        }
        Ok(shape.to_vec())
    };
    match kind {
        "conv2d" => {
            fields.only(&["type", "stride", "padding_tlbr", "groups", "tensors"])?;
            declared.only(&["weight", "bias"])?;
            let shape = weight_shape(4)?;
            let padding = fields.sizes("padding_tlbr")?;
            let Ok(padding) = <[usize; 4]>::try_from(padding.as_slice()) else {
                let expected = "[top, left, bottom, right]";
                return Err(NetError::mismatch(fields.place, "padding_tlbr", format!("{padding:?}"), expected));
            };
            Ok(Op::Conv2d {
                weight: Vec::new(),
                weight_shape: [shape[0], shape[1], shape[2], shape[3]],
                bias: Vec::new(),
                stride: fields.size("stride")?,
                padding,
                groups: if fields.map.contains_key("groups") { fields.size("groups")? } else { 1 },
            })
        }
        "avgpool2d" => {
            fields.only(&["type", "kernel", "stride"])?;
            Ok(Op::AvgPool2d { kernel: fields.size("kernel")?, stride: fields.size("stride")? })
        }
        "dense" => {
            fields.only(&["type", "tensors"])?;
            declared.only(&["weight", "bias"])?;
            let shape = weight_shape(2)?;
            Ok(Op::Dense { weight: Vec::new(), weight_shape: [shape[0], shape[1]], bias: Vec::new() })
        }
        "batchnorm" => {
            fields.only(&["type", "eps", "tensors"])?;
            declared.only(&["gamma", "beta", "mean", "var"])?;
            let eps = fields.number(fields.get("eps")?, "eps")?;
            let empty = Vec::new;
            Ok(Op::BatchNorm { gamma: empty(), beta: empty(), mean: empty(), var: empty(), eps })
        }
        "flatten" => {
            fields.only(&["type"])?;
            Ok(Op::Flatten)
        }
        "poly2" => {
            fields.only(&["type", "granularity", "tensors"])?;
            declared.only(&["a", "b", "c"])?;
            let granularity = match fields.text("granularity")? {
                "layer" => Granularity::Layer,
                "channel" => Granularity::Channel,
                "element" => Granularity::Element,
                other => return Err(fields.unknown("granularity", other, "layer, channel, element")),
            };
            Ok(Op::Poly2 { granularity, a: Vec::new(), b: Vec::new(), c: Vec::new() })
        }
        "relu" => {
            fields.only(&["type"])?;
            Ok(Op::Relu)
        }
        "add" => {
            fields.only(&["type", "with"])?;
            Ok(Op::Add { with: fields.size("with")? })
        }
        other => Err(fields.unknown("layer type", other, LAYER_KINDS)),
    }
}

/// A JSON object with the place it stands at, for errors.
struct Fields<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(place: &'a str, value: &'a Value) -> Result<Fields<'a>, NetError> {
        match value.as_object() {
            Some(map) => Ok(Fields { place, map }),
            None => Err(NetError::mismatch(place, "value", brief(value), "an object")),
        }
    }

    fn unknown(&self, what: &'static str, found: &str, known: &str) -> NetError {
        NetError::Unknown { place: self.place.to_owned(), what, found: found.to_owned(), known: known.to_owned() }
    }

    fn only(&self, known: &[&str]) -> Result<(), NetError> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.unknown("field", key, &known.join(", "))),
            None => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Result<&'a Value, NetError> {
        self.map.get(key).ok_or_else(|| NetError::missing(self.place, key))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> NetError {
        NetError::mismatch(self.place, key, brief(value), expected)
    }

    fn text(&self, key: &str) -> Result<&'a str, NetError> {
        let value = self.get(key)?;
        value.as_str().ok_or_else(|| self.wrong(key, value, "a text"))
    }

    fn fixed_text(&self, key: &str, expected: &str) -> Result<(), NetError> {
        match self.map.get(key) {
            Some(value) if value.as_str() != Some(expected) => Err(self.wrong(key, value, expected)),
            _ => Ok(()),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Value], NetError> {
        let value = self.get(key)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(key, value, "a list"))
    }

    fn whole(&self, key: &str, value: &Value) -> Result<usize, NetError> {
        let whole = value.as_u64().and_then(|whole| usize::try_from(whole).ok());
        whole.ok_or_else(|| self.wrong(key, value, "a whole number of at least 0"))
    }

    fn size(&self, key: &str) -> Result<usize, NetError> {
        self.whole(key, self.get(key)?)
    }

    fn sizes(&self, key: &str) -> Result<Vec<usize>, NetError> {
        self.list(key)?.iter().map(|value| self.whole(key, value)).collect()
    }

    fn number(&self, value: &Value, key: &str) -> Result<f64, NetError> {
        value.as_f64().ok_or_else(|| self.wrong(key, value, "a number"))
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, NetError> {
        self.list(key)?.iter().map(|value| self.number(value, key)).collect()
    }

    fn declared_tensors(&self) -> Result<Declared<'a>, NetError> {
        let mut tensors = Vec::new();
        if let Some(value) = self.map.get("tensors") {
            for (role, entry) in Fields::of(self.place, value)?.map {
                let entry = Fields::of(self.place, entry)?;
                entry.only(&["name", "shape"])?;
                let (name, shape) = (entry.text("name")?, entry.sizes("shape")?);
                checked_entries(self.place, &format!("shape of {role}"), &shape)?;
                tensors.push((role.as_str(), name, shape));
            }
        }
        Ok(Declared { place: self.place.to_owned(), tensors })
    }
}

/// The tensors a layer declares: (role, name, shape).
struct Declared<'a> {
    place: String,
    tensors: Vec<(&'a str, &'a str, Vec<usize>)>,
}

impl Declared<'_> {
    fn only(&self, known: &[&str]) -> Result<(), NetError> {
        match self.tensors.iter().find(|(role, ..)| !known.contains(role)) {
            Some((role, ..)) => Err(NetError::Unknown {
                place: self.place.clone(),
                what: "tensor",
                found: (*role).to_owned(),
                known: known.join(", "),
            }),
            None => Ok(()),
        }
    }

    fn find(&self, what: &str) -> Result<(&str, &[usize]), NetError> {
        let found = self.tensors.iter().find(|(role, ..)| *role == what);
        let (_, name, shape) = found.ok_or_else(|| NetError::missing(&self.place, format!("tensor {what}")))?;
        Ok((name, shape))
    }

    fn shape(&self, what: &str) -> Result<&[usize], NetError> {
        Ok(self.find(what)?.1)
    }

    fn fetch(&self, what: &str, expected: &[usize], tensors: &TensorSource) -> Result<Vec<f32>, NetError> {
        let (name, declared) = self.find(what)?;
        let check = |source: &str, shape: &[usize]| {
            // A single number may be written as a scalar or as a list of one.
            let same = shape == expected || (shape.is_empty() && expected == [1]);
            let what = format!("{source} shape of {what}");
            if same {
                Ok(())
            } else {
                Err(NetError::mismatch(&self.place, what, format!("{shape:?}"), format!("{expected:?}")))
            }
        };
        check("declared", declared)?;
        let found = tensors(name);
        let (shape, values) =
            found.ok_or_else(|| NetError::missing(&self.place, format!("tensor {what} \"{name}\"")))?;
        check("stored", &shape)?;
        Ok(values)
    }
}

/// A JSON value cut to a length fit for an error message.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
