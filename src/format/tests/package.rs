//! Model packages: round trips to the bit, identity, and refusals.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::format::{Canary, ErrorKind, ModelPackage};
use crate::net::circuit::{Block, Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use crate::net::network::{Granularity, InputSpec, Layer, Network, Op};
use crate::net::ranges::{LayerRange, RangeReport, ValueRange, WorstImage};

fn stats(seed: f64) -> StageStats {
    StageStats { max_abs: seed / 3.0, max_rms: seed / 7.0, noise_gain: 1e-300 * seed, noise_gain_worst: 0.1 + 0.2 }
}

fn feature(source: Source, kind: FeatureKind, entry: u32) -> Feature {
    Feature { source, kind, entry }
}

/// Every kind of layer, two stages, reals that no short decimal gives.
fn toy() -> ModelPackage {
    let layer = |name: &str, op: Op| Layer { name: name.into(), op };
    let floats = |count: usize| (0..count).map(|index| (index as f32 - 2.0) / 3.0).collect::<Vec<f32>>();
    let layers = vec![
        layer(
            "0 conv2d",
            Op::Conv2d {
                weight: floats(8),
                weight_shape: [2, 1, 2, 2],
                bias: floats(2),
                stride: 1,
                padding: [1, 0, 0, 1],
                groups: 1,
            },
        ),
        layer("1 bn", {
            let var = vec![0.5, 1.0 / 3.0];
            Op::BatchNorm { gamma: floats(2), beta: floats(2), mean: floats(2), var, eps: 1e-5 }
        }),
        layer("2 poly", Op::Poly2 { granularity: Granularity::Channel, a: floats(2), b: floats(2), c: floats(2) }),
        layer("3 add", Op::Add { with: 2 }),
        layer("4 pool", Op::AvgPool2d { kernel: 2, stride: 2 }),
        layer("5 flatten", Op::Flatten),
        layer("6 dense", Op::Dense { weight: floats(4), weight_shape: [2, 2], bias: vec![-0.0, f32::MIN_POSITIVE] }),
    ];
    let input = InputSpec { shape: [1, 2, 2], mean: vec![0.1307], std: vec![std::f64::consts::PI / 10.0] };
    let first = Stage {
        name: "conv".into(),
        features: (0..4).map(|entry| feature(Source::Input, FeatureKind::Value, entry)).collect(),
        map: LinearMap {
            outputs: 3,
            blocks: vec![
                Block { rows: vec![0, 2], columns: vec![0, 1], weights: vec![1, -127, 127, 0] },
                Block { rows: vec![1], columns: vec![3], weights: vec![-5] },
            ],
            bias: vec![1.0 / 3.0, -0.0, 5e-324],
            weight_scale: 127.0 / 0.37,
            weight_bits: 8,
        },
        stats: stats(1.0),
    };
    let second = Stage {
        name: "dense".into(),
        features: vec![
            feature(Source::Input, FeatureKind::Value, 3),
            feature(Source::Stage(0), FeatureKind::Value, 0),
            feature(Source::Stage(0), FeatureKind::Square, 2),
        ],
        map: LinearMap {
            outputs: 2,
            blocks: vec![Block { rows: vec![0, 1], columns: vec![0, 1, 2], weights: vec![1, 2, 3, -4, 5, 6] }],
            bias: vec![0.1, 1e300],
            weight_scale: 1.0e-3,
            weight_bits: 4,
        },
        stats: stats(2.0),
    };
    let canary = |seed: f32| Canary { input: vec![seed / 3.0; 4], logits: vec![f64::from(seed) / 7.0, -1.5] };
    ModelPackage {
        network: Network { name: "toy-net_1".into(), dataset: "caf\u{e9}".into(), input, layers },
        circuit: Circuit { input_shape: [1, 2, 2], input_stats: stats(0.5), stages: vec![first, second] },
        lowering: None,
        canaries: vec![canary(1.0), canary(2.0)],
        ranges: None,
        provenance: BTreeMap::from([("command".to_string(), "model import".to_string())]),
    }
}

fn round_trip(package: &ModelPackage) -> Result<ModelPackage, FormatError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.nsm");
    package.write(&path)?;
    ModelPackage::open(&path)
}

#[test]
fn a_package_comes_back_to_the_bit() {
    let package = toy();
    let back = round_trip(&package).unwrap();
    assert_eq!(back, package);
    // `==` cannot tell the zeros apart.
    assert!(back.circuit.stages[0].map.bias[1].is_sign_negative());
    let bare = ModelPackage { canaries: Vec::new(), provenance: BTreeMap::new(), ..toy() };
    assert_eq!(round_trip(&bare).unwrap(), bare);
    let mut wide = toy();
    wide.circuit.stages[0].map.weight_bits = 16;
    wide.circuit.stages[0].map.blocks[0].weights[1] = -32767;
    assert_eq!(round_trip(&wide).unwrap(), wide);
}

#[test]
fn weights_take_a_byte_where_they_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.nsm");
    let mut package = toy();
    for (bits, dtype) in [(8, DType::I8), (9, DType::I16)] {
        package.circuit.stages[0].map.weight_bits = bits;
        package.write(&path).unwrap();
        open(&path).unwrap().section_shaped("circuit.weights", dtype, &[11]).unwrap();
    }
}

#[test]
fn the_model_id_is_that_of_the_content() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.nsm"), folder.path().join("second.nsm"));
    let package = toy();
    let id = package.write(&first).unwrap();
    assert_eq!(package.write(&second).unwrap(), id);
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    assert_eq!(id, GOLDEN_MODEL_ID, "packages written earlier would change their identity");
    assert_eq!(ModelPackage::open(&first).unwrap().model_id().unwrap(), id);
    assert_eq!(open(&first).unwrap().metadata("model_id").unwrap(), id);

    let mut other = toy();
    other.provenance.insert("note".into(), "imported elsewhere".into());
    assert_eq!(other.model_id().unwrap(), id);
    other.circuit.stages[1].map.bias[0] += f64::EPSILON;
    assert_ne!(other.model_id().unwrap(), id);
}

const GOLDEN_MODEL_ID: &str = "a89754d4795c2a74ece7e4e9a52200e5d9c7f2e20aa1942d6540df6512128ae7";

#[test]
fn damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.nsm");
    toy().write(&path).unwrap();
    let sound = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in (0..sound.len()).step_by(7) {
        file.write_all_at(&[sound[at] ^ 1], at as u64).unwrap();
        assert!(ModelPackage::open(&path).is_err(), "byte {at} flipped");
        file.write_all_at(&[sound[at]], at as u64).unwrap();
    }
    ModelPackage::open(&path).unwrap();
    write_toy(&path, Kind::Results).unwrap();
    assert_eq!(ModelPackage::open(&path).unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn inconsistent_packages_are_not_written() {
    type Spoil = fn(&mut ModelPackage);
    let spoilt: [(&str, Spoil); 27] = [
        ("feature 2: found 3", |package| package.circuit.stages[1].features[2].entry = 3),
        ("feature 1: found stage 1", |package| package.circuit.stages[1].features[1].source = Source::Stage(1)),
        ("ascending order", |package| package.circuit.stages[1].features.swap(0, 1)),
        ("ascending order", |package| package.circuit.stages[0].features[1].entry = 0),
        ("rows: found 3", |package| package.circuit.stages[0].map.blocks[0].rows[1] = 3),
        ("columns: found 4", |package| package.circuit.stages[0].map.blocks[0].columns[1] = 4),
        ("rows: found 2 before 2", |package| package.circuit.stages[0].map.blocks[0].rows[0] = 2),
        ("weights: found 0", |package| package.circuit.stages[0].map.blocks[1].weights.clear()),
        ("weight: found 8", |package| package.circuit.stages[1].map.blocks[0].weights[0] = 8),
        ("weight: found -128", |package| package.circuit.stages[0].map.blocks[0].weights[1] = -128),
        ("constant Some(1)", |package| package.circuit.stages[0].map.blocks[1].weights[0] = 0),
        ("weight bits: found 17", |package| package.circuit.stages[0].map.weight_bits = 17),
        ("weight scale: found 0", |package| package.circuit.stages[0].map.weight_scale = 0.0),
        ("bias[0]: found NaN", |package| package.circuit.stages[0].map.bias[0] = f64::NAN),
        ("bias values: found 4", |package| package.circuit.stages[0].map.bias.push(0.0)),
        ("max_abs: found inf", |package| package.circuit.stages[0].stats.max_abs = f64::INFINITY),
        ("shape of the circuit's input", |package| package.circuit.input_shape = [usize::MAX, 2, 2]),
        ("input shape of the circuit", |package| package.circuit.input_shape = [4, 1, 1]),
        ("canary 1: logits: found 1", |package| package.canaries[1].logits.truncate(1)),
        ("input std: found -1", |package| package.network.input.std[0] = -1.0),
        ("network name", |package| package.network.name = "../toy".into()),
        ("classes of the circuit: found 1, expected 2", |package| {
            let map = &mut package.circuit.stages[1].map;
            map.outputs = 1;
            map.bias.truncate(1);
            map.blocks[0].rows.truncate(1);
            map.blocks[0].weights.truncate(3);
            package.canaries.iter_mut().for_each(|canary| canary.logits.truncate(1));
        }),
        ("input size of weight is 4, expected 2", |package| {
            let op = Op::Dense { weight: vec![1.0; 8], weight_shape: [2, 4], bias: vec![0.0; 2] };
            package.network.layers[6].op = op;
        }),
        ("output shape is Some([2, 1, 1]), expected [classes]", |package| package.network.layers.truncate(5)),
        ("blocks holding row 1, column 3 is 2 or more", |package| {
            let blocks = &mut package.circuit.stages[0].map.blocks;
            blocks.push(blocks[1].clone());
        }),
        ("operation: found relu", |package| package.network.layers[3].op = Op::Relu),
        ("with: found 4", |package| package.network.layers[3].op = Op::Add { with: 4 }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.nsm");
    for (part, spoil) in spoilt {
        let mut package = toy();
        spoil(&mut package);
        let error = package.write(&path).expect_err(part);
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(error.kind(), ErrorKind::BadData);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// Writes a package with one section replaced, all digests right.
fn forge(package: &ModelPackage, path: &Path, name: &str, shape: &[usize], bytes: &[u8]) {
    let sound = path.with_extension("sound");
    package.write(&sound).unwrap();
    let sound = open(&sound).unwrap();
    let metadata = BTreeMap::from([("model_id".to_string(), sound.metadata("model_id").unwrap().to_string())]);
    let replaced = |section: &crate::format::Section<'_>| section.name == name;
    let specs: Vec<_> = sound
        .sections()
        .map(|section| {
            SectionSpec::new(section.name, section.dtype, if replaced(&section) { shape } else { section.shape })
        })
        .collect();
    let writer = ContainerWriter::create(path, Kind::Model, &metadata, &specs).unwrap();
    for section in sound.sections() {
        writer.write_at(section.name, 0, if replaced(&section) { bytes } else { section.bytes }).unwrap();
    }
    writer.finish().unwrap();
}

/// What is said against a package with one section replaced.
pub(super) fn refusal_of(package: &ModelPackage, path: &Path, name: &str, shape: &[usize], bytes: &[u8]) -> String {
    forge(package, path, name, shape, bytes);
    ModelPackage::open(path).expect_err(name).root().to_string()
}

#[test]
fn forged_sections_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged.nsm");
    let refusal = |name: &str, shape: &[usize], bytes: &[u8]| refusal_of(&toy(), &path, name, shape, bytes);
    // Row and column counts whose product claims 2^64 weights.
    let counts = encode(&[u32::MAX; 6]);
    assert_eq!(
        refusal("circuit.blocks", &[3, 2], &counts),
        "numbers in section \"circuit.rows\": found 5 left, expected 4294967295"
    );
    assert!(
        refusal("circuit.blocks", &[6], &encode(&[1_u32; 6])).starts_with("section \"circuit.blocks\": found U32 [6]")
    );
    assert!(refusal("circuit.bias", &[6], &encode(&[1.0_f64; 6])).starts_with("end of section \"circuit.bias\""));
    let kinds = encode(&[0, 2, 0_u32].repeat(7));
    assert_eq!(refusal("circuit.features", &[7, 3], &kinds), "feature kind: found 2, expected 0 or 1");
    let rewritten = |name: &str, from: &str, to: &str| {
        let sound = folder.path().join("sound.nsm");
        toy().write(&sound).unwrap();
        let text = String::from_utf8(open(&sound).unwrap().section(name).unwrap().bytes.to_vec()).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        refusal(name, &[changed.len()], changed.as_bytes())
    };
    let circuit = |from: &str, to: &str| rewritten("circuit.json", from, to);
    assert!(circuit("\"outputs\":3", "\"outputs\":18446744073709551615").contains("numbers in section"));
    assert!(circuit("\"blocks\":2", "\"blocks\":18446744073709551615").contains("numbers in section"));
    assert!(circuit("\"outputs\":3", "\"outputs\":3,\"more\":1").contains("unknown field"));
    assert!(circuit("\"weight_scale\":\"", "\"weight_scale\":\"nan").contains("finite decimal number"));
    assert!(circuit("\"weight_bits\":8", "\"weight_bits\":12").contains("section \"circuit.weights\": found I8"));
    // A block without columns.
    let empty = encode(&[2, 2, 1, 1, 2, 0_u32]);
    assert_eq!(
        refusal("circuit.blocks", &[3, 2], &empty),
        "rows x columns of a block: found 2 x 0, expected at least 1 x 1"
    );
    assert!(circuit("\"name\":\"conv\"", "\"name\":\"covn\"").starts_with("model_id: found a89754d4795c"));
    let network = |from: &str, to: &str| rewritten("network.json", from, to);
    assert_eq!(network("\"with\":2", "\"with\":0"), "3 add: shape of value 0 is [1, 2, 2], expected [2, 2, 2]");
    assert!(network("[2,1,2,2]", "[4294967296,4294967296,2,2]").contains("1 to 2^30 entries"));
    assert!(network("[2,1,2,2]", "[1000,1000,10,10]").contains("numbers in section \"network.f32\""));
    assert!(network("\"flatten\"", "\"relu\"").contains("operation: found relu"));
    assert!(network("\"stride\":1", "\"stride\":-1").contains("invalid value"));
    assert!(network("\"mean\":[", &format!("\"mean\":[{}", "[".repeat(300))).contains("section \"network.json\""));
}

/// Ranges that the toy network could have, over three images.
fn toy_ranges() -> RangeReport {
    let worst = |image, value| WorstImage { image, value };
    let values = ValueRange {
        min: -0.1 - 0.2,
        max: 1.0 / 3.0,
        rms: 0.125,
        quantile: 0.3,
        limit: 0.25,
        images_beyond: 2,
        worst: vec![worst(2, 1.0 / 3.0), worst(0, -0.1 - 0.2), worst(1, 0.25)],
    };
    RangeReport { images: 3, layers: vec![LayerRange { layer: 2, values: values.clone() }], logits: values }
}

#[test]
fn ranges_travel_with_the_model_and_belong_to_its_identity() {
    let with = ModelPackage { ranges: Some(toy_ranges()), ..toy() };
    let back = round_trip(&with).unwrap();
    assert_eq!(back, with);
    assert_ne!(with.model_id().unwrap(), GOLDEN_MODEL_ID);
    let mut other = with.clone();
    other.ranges.as_mut().unwrap().logits.limit = 0.5;
    assert_ne!(other.model_id().unwrap(), with.model_id().unwrap());
    other.ranges = None;
    assert_eq!(other.model_id().unwrap(), GOLDEN_MODEL_ID, "a package without ranges would change its identity");
}

#[test]
fn a_package_of_an_earlier_program_keeps_its_identity() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/full-form.nsm");
    let package = ModelPackage::open(&path).unwrap();
    assert_eq!(package.ranges, None);
    assert_eq!(package.model_id().unwrap(), open(&path).unwrap().metadata("model_id").unwrap());
}

#[test]
fn forged_ranges_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (sound, path) = (folder.path().join("sound.nsm"), folder.path().join("forged.nsm"));
    let package = ModelPackage { ranges: Some(toy_ranges()), ..toy() };
    package.write(&sound).unwrap();
    let text = String::from_utf8(open(&sound).unwrap().section("ranges.json").unwrap().bytes.to_vec()).unwrap();
    for (from, to, says) in [
        ("\"images\":3", "\"images\":0", "ranges: images is 0, expected at least 1"),
        ("\"images\":3", "\"images\":18446744073709551616", "section \"ranges.json\""),
        ("\"layer\":2", "\"layer\":3", "ranges: quadratic layers is [3], expected [2]"),
        ("\"layer\":2", "\"layer\":2,\"more\":1", "unknown field"),
        ("\"rms\":\"0.125\"", "\"rms\":\"inf\"", "finite decimal number"),
        ("\"rms\":\"0.125\"", "\"rms\":0.125", "finite decimal number"),
        (
            "\"images_beyond\":2",
            "\"images_beyond\":4",
            "ranges of 2 poly: images beyond the limit is 4, expected at most 3",
        ),
        ("\"image\":0", "\"image\":7", "worst image is 7, expected below 3"),
        ("\"image\":0", "\"image\":1", "worst images is 1 twice"),
        (",\"quantile\":\"0.3\"", "", "missing field"),
        ("\"quantile\":\"0.3\"", "\"quantile\":\"0.4\"", "ranges of 2 poly: quantile is 0.4"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let refused = refusal_of(&package, &path, "ranges.json", &[changed.len()], changed.as_bytes());
        assert!(refused.contains(says), "{refused:?} does not say {says:?}");
    }
    // Ranges without a network that has a quadratic.
    let mut linear = package;
    linear.network.layers[2].op =
        Op::BatchNorm { gamma: vec![1.0; 2], beta: vec![0.0; 2], mean: vec![0.0; 2], var: vec![1.0; 2], eps: 1e-5 };
    assert!(linear.write(&path).unwrap_err().to_string().contains("quadratic layers is [2], expected []"));
}

#[test]
fn a_large_circuit_opens() {
    let (rows, columns) = (1800_u32, 4000_u32);
    let mut package = toy();
    package.canaries.clear();
    package.circuit.input_shape = [4, 100, 10];
    package.network.input = InputSpec { shape: [4, 100, 10], mean: vec![0.0; 4], std: vec![1.0; 4] };
    let weight = vec![0.25; rows as usize * 40];
    let dense = Op::Dense { weight, weight_shape: [rows as usize, 40], bias: vec![0.0; rows as usize] };
    let ops = [Op::AvgPool2d { kernel: 10, stride: 10 }, Op::Flatten, dense];
    package.network.layers = ops.map(|op| Layer { name: op.kind().into(), op }).into();
    package.circuit.stages.truncate(1);
    let stage = &mut package.circuit.stages[0];
    stage.features = (0..columns).map(|entry| feature(Source::Input, FeatureKind::Value, entry)).collect();
    let weights = (0..rows * columns).map(|index| (index % 255) as i16 - 127).collect();
    stage.map.blocks = vec![Block { rows: (0..rows).collect(), columns: (0..columns).collect(), weights }];
    stage.map.outputs = rows as usize;
    stage.map.bias = vec![0.5; rows as usize];
    assert!(round_trip(&package).unwrap() == package, "7.2 million weights");
}
