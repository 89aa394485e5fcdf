//! The network room against the independently trained reference models: import, goldens, accuracy, integers.
//!
//! Needs the shared folder (`NIGHTSHIFT_SHARED`, or `shared` beside the repository); without it each test says so and
//! returns. Reads files itself; of other rooms it uses the tensors' writer alone.

use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};

use nightshift::format::tensors::{Tensor, Values, write_tensors};
use nightshift::net::bits::labels;
use nightshift::net::network::{Layer, Op};
use nightshift::net::{Calibration, LowerOptions, Network, SpecTensor, lower};
use safetensors::SafeTensors;

type Outcome = Result<(), Box<dyn Error>>;

const MODELS: [(&str, &str); 5] = [
    ("mnist_cn_element", "mnist"),
    ("mnist_w16_element", "mnist"),
    ("mnist_cc_element", "mnist"),
    ("fashion-mnist_f3_element", "fashion-mnist"),
    ("cifar10_element_warm", "cifar-10"),
];

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn shared() -> Option<PathBuf> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("NIGHTSHIFT_SHARED").map_or(beside, PathBuf::from);
    if root.join("reference").is_dir() {
        return Some(root);
    }
    eprintln!("skipped: no reference models at {}", root.display());
    None
}

struct Reference {
    network: Network,
    accuracy_percent: f64,
    /// `[entry][image]`
    golden: Calibration,
    /// `[class][image]`
    golden_logits: Vec<f64>,
}

fn floats(tensors: &SafeTensors, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let tensor = tensors.tensor(name).ok()?;
    let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Some((tensor.shape().to_vec(), values))
}

/// `[image][entry]` to `[entry][image]`.
fn transpose(values: &[f32], images: usize) -> Vec<f64> {
    let entries = values.len() / images;
    (0..values.len()).map(|index| f64::from(values[index % images * entries + index / images])).collect()
}

fn load(root: &Path, name: &str) -> Result<Reference, Box<dyn Error>> {
    let folder = root.join("reference").join(name);
    let spec = std::fs::read_to_string(folder.join("model.json"))?;
    let weights = std::fs::read(folder.join("weights.safetensors"))?;
    let weights = SafeTensors::deserialize(&weights)?;
    let network = Network::import(&spec, &|name| floats(&weights, name))?;
    let golden = std::fs::read(folder.join("golden.safetensors"))?;
    let golden = SafeTensors::deserialize(&golden)?;
    let (shape, inputs) = floats(&golden, "inputs").ok_or("golden inputs")?;
    let (_, logits) = floats(&golden, "logits").ok_or("golden logits")?;
    let json: serde_json::Value = serde_json::from_str(&spec)?;
    Ok(Reference {
        network,
        accuracy_percent: json["test_accuracy_percent"].as_f64().ok_or("accuracy")?,
        golden: Calibration { images: shape[0], x: transpose(&inputs, shape[0]) },
        golden_logits: transpose(&logits, shape[0]),
    })
}

/// Images `skip..skip + count` of a set, normalised for the network, and their labels.
fn images(
    root: &Path,
    dataset: &str,
    train: bool,
    network: &Network,
    skip: usize,
    count: usize,
) -> Result<(Calibration, Vec<usize>), Box<dyn Error>> {
    let folder = root.join("data").join(dataset);
    let gz = |name: &str| -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(folder.join(name))?).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let entries: usize = network.input.shape.iter().product();
    let (pixels, labels) = if dataset == "cifar-10" {
        let name = if train { "data_batch_1.bin.xz" } else { "test_batch.bin.xz" };
        let mut bytes = Vec::new();
        lzma_rust2::XzReader::new(std::fs::File::open(folder.join(name))?, true).read_to_end(&mut bytes)?;
        let records: Vec<&[u8]> = bytes.chunks_exact(entries + 1).collect();
        (
            records.iter().flat_map(|record| &record[1..]).copied().collect(),
            records.iter().map(|record| record[0]).collect(),
        )
    } else {
        let set = if train { "train" } else { "t10k" };
        let pixels = gz(&format!("{set}-images-idx3-ubyte.gz"))?.split_off(16);
        (pixels, gz(&format!("{set}-labels-idx1-ubyte.gz"))?.split_off(8))
    };
    let plane = entries / network.input.shape[0];
    let normalised = |index: usize| {
        let (entry, image) = (index / count, skip + index % count);
        let channel = entry / plane;
        let value = f64::from(pixels[image * entries + entry]) / 255.0;
        (value - network.input.mean[channel]) / network.input.std[channel]
    };
    let x = (0..entries * count).map(normalised).collect();
    Ok((Calibration { images: count, x }, labels[skip..skip + count].iter().map(|&label| label.into()).collect()))
}

fn percent(logits: &[f64], truth: &[usize], classes: usize) -> f64 {
    let found = labels(logits, classes);
    100.0 * found.iter().zip(truth).filter(|(found, truth)| found == truth).count() as f64 / truth.len() as f64
}

#[test]
fn goldens_come_out_again() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    for (name, _) in MODELS {
        let reference = load(&root, name)?;
        let logits = reference.network.evaluate_batch(&reference.golden.x, reference.golden.images)?;
        assert_eq!(logits.len(), reference.golden_logits.len());
        for (index, (found, expected)) in logits.iter().zip(&reference.golden_logits).enumerate() {
            let tolerance = 1e-4 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= tolerance, "{name}: logit {index} is {found}, expected {expected}");
        }
    }
    Ok(())
}

/// As `model.json` and `weights.safetensors` on disk, and a ReLU teacher of the same layers too.
#[test]
fn reference_models_are_saved_and_imported_again_bit_for_bit() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("weights.safetensors");
    for (name, _) in MODELS {
        let network = load(&root, name)?.network;
        let mut teacher = network.clone();
        for (index, layer) in teacher.layers.iter_mut().enumerate() {
            if matches!(layer.op, Op::Poly2 { .. }) {
                *layer = Layer { name: format!("{index} relu"), op: Op::Relu };
            }
        }
        for network in [network, teacher] {
            let spec = network.to_spec()?;
            let named = spec
                .tensors
                .into_iter()
                .map(|SpecTensor { name, shape, values }| (name, Tensor { shape, values: Values::F32(values) }));
            write_tensors(&path, &named.collect())?;
            let weights = std::fs::read(&path)?;
            let weights = SafeTensors::deserialize(&weights)?;
            let again = Network::import(&spec.json, &|name| floats(&weights, name))?;
            assert_eq!(again, network, "{name}");
        }
    }
    Ok(())
}

#[test]
fn counts_are_the_published_ones() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    let network = load(&root, "mnist_cn_element")?.network;
    assert_eq!((network.macs()?, network.squarings(), network.activations()?), (106_625, 2, 945));
    let network = load(&root, "cifar10_element_warm")?.network;
    assert_eq!((network.macs()?, network.squarings(), network.activations()?), (7_245_056, 5, 18_432));
    Ok(())
}

/// Float and integer accuracy on the first test images; calibrated on training images.
fn accuracies(name: &str, dataset: &str, count: usize, calibrate: usize) -> Result<Option<[f64; 3]>, Box<dyn Error>> {
    let Some(root) = shared() else { return Ok(None) };
    let reference = load(&root, name)?;
    let classes = reference.network.classes()?;
    let (calibration, _) = images(&root, dataset, true, &reference.network, 0, calibrate)?;
    let (test, truth) = images(&root, dataset, false, &reference.network, 0, count)?;
    let circuit = lower(&reference.network, &LowerOptions::default(), &calibration)?;
    let float = percent(&reference.network.evaluate_batch(&test.x, count)?, &truth, classes);
    let integer = percent(&circuit.evaluate_batch(&test.x, count)?, &truth, classes);
    Ok(Some([float, integer, reference.accuracy_percent]))
}

#[test]
fn small_models_keep_their_accuracy_in_integers() -> Outcome {
    for (name, dataset) in &MODELS[..4] {
        if let Some([float, integer, _]) = accuracies(name, dataset, 2000, 500)? {
            assert!((float - integer).abs() <= 0.1 + 1e-9, "{name}: float {float} %, integers {integer} %");
        }
    }
    Ok(())
}

#[test]
fn the_first_model_has_its_published_accuracy() -> Outcome {
    if let Some([float, integer, published]) = accuracies("mnist_cn_element", "mnist", 10_000, 500)? {
        assert!((float - published).abs() < 0.005, "float {float} %, expected {published} %");
        assert!((integer - published).abs() <= 0.1, "integers {integer} %, expected {published} %");
    }
    Ok(())
}

#[test]
fn the_deep_model_keeps_its_labels_in_integers() -> Outcome {
    if let Some([float, integer, _]) = accuracies("cifar10_element_warm", "cifar-10", 200, 64)? {
        assert!((float - integer).abs() <= 1.0, "float {float} %, integers {integer} %");
    }
    Ok(())
}
