//! Lowering against the clear oracle on random small networks; refusals of bad specifications and circuits.

use super::bits::agreement;
use super::calibration::measure_ranges;
use super::circuit::{Circuit, Feature, FeatureKind, Source};
use super::draft::draft;
use super::lowering::{Budget, Lowering, LoweringLimits};
use super::network::{Granularity, InputSpec, Layer, Op};
use super::sample::{random_images, random_network};
use super::{Calibration, LowerOptions, NetError, Network, choose_bits, lower};

const IMAGES: usize = 70;

fn options(bits: u32) -> LowerOptions {
    LowerOptions { default_bits: bits, ..LowerOptions::default() }
}

fn samples() -> impl Iterator<Item = (Network, Calibration)> {
    (0..60u64).map(|seed| {
        let network = random_network(seed, seed as usize % 4, seed % 3 == 0);
        let images = random_images(&network, IMAGES, seed + 1000);
        (network, images)
    })
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

fn distance(left: &[f64], right: &[f64]) -> f64 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).fold(0.0, |largest: f64, (left, right)| largest.max((left - right).abs()))
}

#[test]
fn samples_have_every_layer_kind() {
    let mut kinds: Vec<&str> = Vec::new();
    let (mut grouped, mut strided, mut padded, mut input_skip, mut later_skip) = (false, false, false, false, false);
    for (network, _) in samples() {
        network.validate().unwrap();
        for layer in &network.layers {
            kinds.push(layer.op.kind());
            match &layer.op {
                Op::Conv2d { groups, stride, padding, .. } => {
                    grouped |= *groups > 1;
                    strided |= *stride > 1;
                    padded |= padding[0] != padding[2];
                }
                Op::Add { with } => {
                    input_skip |= *with == 0;
                    later_skip |= *with > 0;
                }
                _ => {}
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["add", "avgpool2d", "batchnorm", "conv2d", "dense", "flatten", "poly2"]);
    assert!(grouped && strided && padded && input_skip && later_skip);
}

/// The draft in f64, one image after the other: nothing but the folding and the completed squares is tested by this.
#[test]
fn folding_is_exact_before_rounding() {
    for (network, images) in samples() {
        let ranges = measure_ranges(&network, &images).unwrap();
        let lowering = Lowering::decide(&network, &LowerOptions::default(), &ranges).unwrap();
        let draft = draft(&network, &lowering, &mut Budget::new(LoweringLimits::OWN)).unwrap();
        for image in 0..4 {
            let mut buffers: Vec<Vec<f64>> = vec![images.x.iter().skip(image).step_by(IMAGES).copied().collect()];
            for stage in &draft.stages {
                let row = |row: usize| {
                    let terms = stage.forms.row(row).map(|(column, weight)| {
                        let (buffer, kind, entry) = draft.columns.place(column);
                        let value = buffers[buffer][entry];
                        weight * if kind == FeatureKind::Square { value * value } else { value }
                    });
                    terms.sum::<f64>() + stage.forms.constants[row]
                };
                buffers.push((0..stage.forms.rows()).map(row).collect());
            }
            let logits: Vec<f64> = ranges.logits.iter().skip(image).step_by(IMAGES).copied().collect();
            let found = &buffers[buffers.len() - 1];
            let error = distance(found, &logits) / largest(&logits).max(1.0);
            assert!(error < 1e-9, "{}: image {image} is off by {error:e}", network.name);
        }
    }
}

#[test]
fn sixteen_bit_integers_follow_the_clear_oracle_and_fewer_bits_follow_less() {
    let (mut fine, mut coarse) = (0.0, 0.0);
    for (network, images) in samples() {
        let expected = network.evaluate_batch(&images.x, IMAGES).unwrap();
        let size = largest(&expected).max(1.0);
        let error = |bits: u32| {
            let circuit = lower(&network, &options(bits), &images).unwrap();
            let found = circuit.evaluate_batch(&images.x, IMAGES).unwrap();
            distance(&found, &expected) / size
        };
        let (at_16, at_10) = (error(16), error(10));
        assert!(at_16 < 2e-3, "{}: 16 bits are off by {at_16:e}", network.name);
        fine += at_16;
        coarse += at_10;
    }
    let ratio = coarse / fine;
    assert!((16.0..256.0).contains(&ratio), "6 bits fewer make errors {ratio} times larger, expected about 64");
}

#[test]
fn last_stage_outputs_are_the_logits_however_images_are_blocked() {
    let network = random_network(7, 3, true);
    let images = random_images(&network, IMAGES, 1);
    let circuit = lower(&network, &options(8), &images).unwrap();
    let stages = circuit.evaluate_stages_batch(&images.x, IMAGES).unwrap();
    let logits = circuit.evaluate_batch(&images.x, IMAGES).unwrap();
    assert_eq!(stages.last(), Some(&logits));
    let few = images.first(3);
    let first: Vec<f64> = logits.chunks_exact(IMAGES).flat_map(|row| row[..3].to_vec()).collect();
    assert_eq!(circuit.evaluate_batch(&few.x, 3).unwrap(), first);
    for (stage, values) in circuit.stages.iter().zip(&stages) {
        assert_eq!(stage.stats.max_abs, largest(values));
    }
}

fn layer(index: usize, op: Op) -> Layer {
    Layer { name: format!("{index} {}", op.kind()), op }
}

fn network(shape: [usize; 3], ops: Vec<Op>) -> Network {
    let input = InputSpec { shape, mean: vec![0.0; shape[0]], std: vec![1.0; shape[0]] };
    let layers = ops.into_iter().enumerate().map(|(index, op)| layer(index, op)).collect();
    Network { name: "by-hand".to_owned(), dataset: String::new(), input, layers }
}

fn dense(out: usize, weight: &[f32], bias: &[f32]) -> Op {
    Op::Dense { weight: weight.to_vec(), weight_shape: [out, weight.len() / out], bias: bias.to_vec() }
}

fn poly(a: &[f32], b: &[f32], c: &[f32]) -> Op {
    Op::Poly2 { granularity: Granularity::Element, a: a.to_vec(), b: b.to_vec(), c: c.to_vec() }
}

/// Neurons: an ordinary one, one without square, one nobody reads, one that is constant.
fn by_hand() -> (Network, Calibration) {
    let hidden = dense(4, &[1.0, 0.5, 0.25, -1.0, 1.0, 1.0, 0.0, 0.0], &[0.5, 0.0, 0.0, 2.0]);
    let quadratic = poly(&[0.5, 0.0, 1.0, 1.0], &[1.0, 2.0, 0.0, 1.0], &[0.25, 0.0, 0.0, 0.0]);
    let last = dense(2, &[1.0, 1.0, 0.0, 1.0, -1.0, 0.5, 0.0, 1.0], &[0.0, 1.0]);
    let images = Calibration { images: 3, x: vec![0.0, 1.0, 2.0, 0.0, -1.0, 1.0] };
    (network([2, 1, 1], vec![Op::Flatten, hidden, quadratic, last]), images)
}

#[test]
fn unused_constant_and_linear_neurons_are_treated_as_such() {
    let (network, images) = by_hand();
    let circuit = lower(&network, &options(16), &images).unwrap();
    assert_eq!(circuit.stages.len(), 2);
    assert_eq!(circuit.stages[0].map.outputs, 2);
    let feature = |kind, entry| Feature { source: Source::Stage(0), kind, entry };
    assert_eq!(circuit.stages[1].features, [feature(FeatureKind::Value, 1), feature(FeatureKind::Square, 0)]);
    assert_eq!((circuit.macs(0), circuit.macs(1), circuit.squares(1), circuit.total_squares()), (4, 4, 1, 1));
    let expected = network.evaluate_batch(&images.x, 3).unwrap();
    // Image 1 is (1, -1): hidden (1, 1.25, 0, 2), activations (1.75, 2.5, 0, 6).
    assert_eq!((expected[1], expected[4]), (10.25, 6.5));
    assert!(distance(&circuit.evaluate_batch(&images.x, 3).unwrap(), &expected) < 1e-3);
}

#[test]
fn noise_gain_of_a_plain_sum_is_its_length() {
    let network = network([4, 1, 1], vec![Op::Flatten, dense(1, &[1.0, 1.0, 1.0, 1.0], &[0.0])]);
    let images = random_images(&network, 64, 3);
    let stats = lower(&network, &options(8), &images).unwrap().input_stats;
    assert!((stats.noise_gain - 2.0).abs() < 0.3, "gain {}, expected about 2", stats.noise_gain);
    assert!(stats.noise_gain_worst > stats.noise_gain && stats.noise_gain_worst < 4.5);
    assert!(stats.max_rms > 0.75 && stats.max_rms < 1.0 && stats.max_abs <= 1.5);
}

#[test]
fn a_logit_without_weights_is_refused_by_name() {
    let network = network([2, 1, 1], vec![Op::Flatten, dense(2, &[1.0, 1.0, 0.0, 0.001], &[0.0, 1.0])]);
    let images = random_images(&network, 4, 3);
    let refused = lower(&network, &options(8), &images);
    assert_eq!(refused, Err(NetError::ConstantLogit { class: 1, weight_bits: 8 }));
    assert!(lower(&network, &options(16), &images).is_ok());
    assert!(lower(&network, &options(17), &images).is_err());
}

#[test]
fn shared_part_of_residual_rows_stays_dense() {
    let conv = |out: usize| Op::Conv2d {
        weight: (0..out * 2 * 9).map(|index| 0.1 + index as f32 * 0.01).collect(),
        weight_shape: [out, 2, 3, 3],
        bias: vec![0.0; out],
        stride: 1,
        padding: [1; 4],
        groups: 1,
    };
    let square = Op::Poly2 { granularity: Granularity::Layer, a: vec![1.0], b: vec![0.0], c: vec![0.0] };
    let ops = vec![
        conv(2),
        square.clone(),
        conv(2),
        Op::Add { with: 0 },
        square,
        Op::Flatten,
        dense(2, &[0.5; 64], &[0.0; 2]),
    ];
    let network = network([2, 4, 4], ops);
    let images = random_images(&network, 8, 5);
    let circuit = lower(&network, &options(8), &images).unwrap();
    let sizes = |stage: usize| -> Vec<usize> {
        circuit.stages[stage].map.blocks.iter().map(|block| block.rows.len()).collect()
    };
    assert_eq!(sizes(0), [2; 16], "a convolution is one block a position");
    let (dense, private): (Vec<usize>, Vec<usize>) = sizes(1).into_iter().partition(|&rows| rows == 2);
    assert_eq!((dense.len(), private.len()), (16, 32), "one block a position, one skip a row");
    assert_eq!(sizes(2), [2], "a dense layer is one block");
}

#[test]
fn bits_are_raised_only_where_needed() {
    let network = random_network(11, 2, false);
    let images = random_images(&network, 256, 2);
    let easy = choose_bits(&network, &images, 0.5).unwrap();
    assert_eq!(easy.stage_bits, vec![8; easy.circuit.stages.len()]);
    let strict = choose_bits(&network, &images, 1.0).unwrap();
    assert_eq!([easy.first_agreement, strict.first_agreement], [easy.agreement; 2]);
    assert!(strict.stage_bits.iter().any(|&bits| bits > 8) && strict.first_agreement < 1.0, "{strict:?}");
    assert!(strict.agreement >= easy.agreement && strict.logit_error <= easy.logit_error);
    assert!(strict.agreement == 1.0 || strict.logit_error <= 1e-3);
    let logits = strict.circuit.evaluate_batch(&images.x, 256).unwrap();
    let clear = network.evaluate_batch(&images.x, 256).unwrap();
    assert_eq!(agreement(&logits, &clear, clear.len() / 256), strict.agreement);
    assert_eq!(choose_bits(&network, &images, 1.0).unwrap(), strict);
    assert!(choose_bits(&network, &images, f64::NAN).is_err());
}

/// Spoils one thing.
type Break = fn(&mut Circuit);

#[test]
fn circuits_that_break_a_promise_are_refused() {
    let (network, images) = by_hand();
    let good = lower(&network, &options(8), &images).unwrap();
    let broken: [(&str, Break); 14] = [
        ("stages", |circuit| circuit.stages.clear()),
        ("input shape", |circuit| circuit.input_shape[1] = 0),
        ("bias", |circuit| circuit.stages[0].map.bias[0] = f64::NAN),
        ("length of bias", |circuit| circuit.stages[0].map.outputs = 3),
        ("weight bits", |circuit| circuit.stages[0].map.weight_bits = 3),
        ("weight scale", |circuit| circuit.stages[1].map.weight_scale = 0.0),
        ("order of features", |circuit| circuit.stages[1].features.swap(0, 1)),
        ("entry of", |circuit| circuit.stages[1].features[1].entry = 2),
        ("source stage", |circuit| circuit.stages[1].features[1].source = Source::Stage(1)),
        ("rows of a block", |circuit| circuit.stages[0].map.blocks[0].rows[1] = 2),
        ("columns of a block", |circuit| circuit.stages[0].map.blocks[0].columns[1] = 0),
        ("weight is 128", |circuit| circuit.stages[0].map.blocks[0].weights[0] = 128),
        ("all zero", |circuit| circuit.stages[0].map.blocks[0].weights[..2].fill(0)),
        ("2 or more", |circuit| {
            let block = circuit.stages[0].map.blocks[0].clone();
            circuit.stages[0].map.blocks.push(block);
        }),
    ];
    good.validate().unwrap();
    for (what, break_it) in broken {
        let mut circuit = good.clone();
        break_it(&mut circuit);
        let error = circuit.validate().unwrap_err().to_string();
        assert!(error.contains(what), "{error:?} does not name {what:?}");
    }
    assert!(good.evaluate_batch(&images.x[1..], 3).is_err());
}

const SPEC: &str = r#"{"name": "tiny", "dataset": "none", "input_shape": [1, 3, 3],
  "input_normalisation": {"scale": "u8/255", "mean": [0.5], "std": [0.25], "formula": "(u8/255-mean)/std"},
  "layout": "NCHW", "layers": [
  {"type": "conv2d", "stride": 1, "padding_tlbr": [0, 0, 1, 1], "tensors": {
    "weight": {"name": "w", "shape": [1, 1, 2, 2]}, "bias": {"name": "v", "shape": [1]}}},
  {"type": "batchnorm", "eps": 1e-5, "tensors": {"gamma": {"name": "v", "shape": [1]},
    "beta": {"name": "v", "shape": [1]}, "mean": {"name": "v", "shape": [1]}, "var": {"name": "v", "shape": [1]}}},
  {"type": "add", "with": 0},
  {"type": "poly2", "granularity": "layer", "tensors": {"a": {"name": "v", "shape": [1]},
    "b": {"name": "v", "shape": [1]}, "c": {"name": "v", "shape": []}}},
  {"type": "avgpool2d", "kernel": 2, "stride": 1}, {"type": "flatten"}]}"#;

fn tensors(name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    match name {
        "w" => Some((vec![1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0])),
        "v" => Some((vec![1], vec![0.5])),
        "nan" => Some((vec![1], vec![f32::NAN])),
        _ => None,
    }
}

#[test]
fn a_specification_is_read_as_written() {
    let network = Network::import(SPEC, &tensors).unwrap();
    assert_eq!(
        network.shapes().unwrap(),
        [vec![1, 3, 3], vec![1, 3, 3], vec![1, 3, 3], vec![1, 3, 3], vec![1, 2, 2], vec![4]]
    );
    assert_eq!((network.macs().unwrap(), network.squarings(), network.activations().unwrap()), (36, 1, 9));
    assert_eq!(network.layers[2].op, Op::Add { with: 0 });
    let Op::Conv2d { padding, groups, weight, .. } = &network.layers[0].op else { panic!("not a convolution") };
    assert_eq!((*padding, *groups, weight[3]), ([0, 0, 1, 1], 1, 4.0));
}

#[test]
fn wrong_specifications_are_refused_by_layer_and_value() {
    let wrong = [
        (r#""stride": 1, "pad"#, r#""dilation": 2, "stride": 1, "pad"#, "0 conv2d: unknown field \"dilation\""),
        ("avgpool2d", "maxpool2d", "4 maxpool2d: unknown layer type"),
        (r#""granularity": "layer""#, r#""granularity": "row""#, "3 poly2: unknown granularity \"row\""),
        (r#""with": 0"#, r#""with": 3"#, "2 add: with is 3, expected at most 2"),
        (r#""kernel": 2"#, r#""kernel": 4"#, "4 avgpool2d: kernel is 4, expected at most 3"),
        (r#""stride": 1, "pad"#, r#""stride": 0, "pad"#, "0 conv2d: stride is 0"),
        ("[1, 1, 2, 2]", "[1, 2, 2, 2]", "0 conv2d: input channels of weight is 2 x 1 groups, expected 1"),
        ("[1, 1, 2, 2]", "[1, 1, 3, 2]", "0 conv2d: stored shape of weight"),
        ("[1, 1, 2, 2]", "[99999999, 1, 9999, 2]", "0 conv2d: shape of weight"),
        ("[1, 3, 3]", "[1, 3000000, 1]", "input: entries is 3000000, at most 2097152"),
        (r#""name": "w""#, r#""name": "x""#, "tensor weight \"x\" is missing"),
        (r#""beta": {"name": "v""#, r#""beta": {"name": "nan""#, "1 batchnorm: beta[0] is NaN"),
        (r#""std": [0.25]"#, r#""std": [0]"#, "input: std is 0"),
        (r#""mean": [0.5]"#, r#""mean": []"#, "input: length of mean is 0, expected 1"),
        (r#""layout": "NCHW"#, r#""layout": "NHWC"#, "model: layout"),
        (r#""name": "tiny""#, r#""name": "../tiny""#, "model: name"),
        (r#", {"type": "flatten"}"#, "", "model: output shape"),
        (r#""dataset""#, r#""optimiser""#, "model: unknown field \"optimiser\""),
        (r#""name": "tiny","#, r#""name": "tiny""#, "not valid json"),
    ];
    for (from, to, expected) in wrong {
        let spec = SPEC.replacen(from, to, 1);
        assert_ne!(spec, SPEC, "{from} is not in the specification");
        let error = Network::import(&spec, &tensors).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}
