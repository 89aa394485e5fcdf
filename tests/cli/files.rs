//! Files that the command-line tests feed in: drawn digits as IDX, damaged packages, a tiny trained network.

use std::path::Path;

use nightshift::cli::digits::{SIDE, render_digits};

use crate::harness::{MODEL, Stage};

/// IDX of bytes: the magic's last byte is the rank.
fn idx(sides: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sides.len() as u8];
    sides.iter().for_each(|side| file.extend(side.to_be_bytes()));
    file.extend(bytes);
    file
}

/// `images.idx` and `labels.idx`: drawn digits.
pub fn digits(stage: &Stage, count: usize) {
    let (pixels, labels) = render_digits(count, 1);
    stage.write("images.idx", &idx(&[count as u32, SIDE as u32, SIDE as u32], &pixels));
    let labels: Vec<u8> = labels.iter().map(|&label| label as u8).collect();
    stage.write("labels.idx", &idx(&[count as u32], &labels));
}

/// Images and labels that do not fit, and files that are something else.
pub fn bad_inputs(stage: &Stage) {
    stage.write("small.idx", &idx(&[2, 5, 5], &[7; 50]));
    stage.write("two-labels.idx", &idx(&[2], &[1, 2]));
    stage.write("label-12.idx", &idx(&[64], &[12; 64]));
    stage.write("cut.idx", &idx(&[64, 28, 28], &[0; 1000]));
    stage.write("text.txt", b"neither images nor a model\n");
    stage.write("empty", b"");
    std::fs::create_dir(stage.path("folder")).unwrap();
    let model = std::fs::read(MODEL).unwrap();
    stage.write("cut.nsm", &model[..model.len() - 100]);
    let mut flipped = model.clone();
    flipped[300_000] ^= 1;
    stage.write("flipped.nsm", &flipped);
    stage.write("newer.nsm", &edited(&model, br#""nightshift.version":"1""#, br#""nightshift.version":"2""#));
    stage.write("other-kind.nsm", &edited(&model, br#""nightshift.kind":"model""#, br#""nightshift.kind":"motel""#));
}

/// `bytes` with the first `from` replaced by `to`, of the same length.
pub fn edited(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the text to replace is there");
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// A safetensors file of F32 tensors.
fn safetensors(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let offsets = [begin, data.len()];
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":{offsets:?}}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

const TINY_SPEC: &str = r#"{"name": "tiny", "dataset": "none", "input_shape": [1, 2, 2],
"input_normalisation": {"scale": "u8/255", "mean": [0.5], "std": [0.25], "formula": "(u8/255-mean)/std"},
"layers": [{"type": "flatten"},
 {"type": "dense", "tensors": {"weight": {"name": "w1", "shape": [3, 4]}, "bias": {"name": "b1", "shape": [3]}}},
 {"type": "poly2", "granularity": "layer", "tensors": {"a": {"name": "a", "shape": [1]}, "b": {"name": "b", "shape": [1]}, "c": {"name": "c", "shape": [1]}}},
 {"type": "dense", "tensors": {"weight": {"name": "w2", "shape": [2, 3]}, "bias": {"name": "b2", "shape": [2]}}}],
"test_accuracy_percent": 50.0}"#;

/// `tiny.json`, `tiny.weights`, `tiny.golden`: 4 pixels, 3 quadratics, 2 classes, and variants with one thing wrong each.
pub fn tiny_network(stage: &Stage) {
    let w1: Vec<f32> = (0..12).map(|i| (i as f32 * 0.37).sin()).collect();
    let w2: Vec<f32> = (0..6).map(|i| (i as f32 * 0.91).cos()).collect();
    let (b1, b2) = ([0.1_f32, -0.2, 0.3], [0.5_f32, -0.5]);
    let inputs: Vec<f32> = (0..80).map(|i| (i as f32 * 1.3).sin() * 1.5).collect();
    let mut logits = Vec::new();
    for x in inputs.chunks(4) {
        let z: Vec<f32> = (0..3).map(|r| b1[r] + (0..4).map(|c| w1[r * 4 + c] * x[c]).sum::<f32>()).collect();
        let y: Vec<f32> = z.iter().map(|z| 0.25 * z * z + 0.5 * z + 0.1).collect();
        logits.extend((0..2).map(|r| b2[r] + (0..3).map(|c| w2[r * 3 + c] * y[c]).sum::<f32>()));
    }
    let weights = |w1_shape: &[usize]| {
        safetensors(&[
            ("w1", w1_shape, &w1),
            ("b1", &[3], &b1),
            ("a", &[1], &[0.25]),
            ("b", &[1], &[0.5]),
            ("c", &[1], &[0.1]),
            ("w2", &[2, 3], &w2),
            ("b2", &[2], &b2),
        ])
    };
    let golden = |logits: &[f32]| safetensors(&[("inputs", &[20, 1, 2, 2], &inputs), ("logits", &[20, 2], logits)]);
    stage.write("tiny.json", TINY_SPEC.as_bytes());
    stage.write("tiny.weights", &weights(&[3, 4]));
    stage.write("tiny.golden", &golden(&logits));

    stage.write("unknown-layer.json", TINY_SPEC.replace("\"flatten\"", "\"softmax\"").as_bytes());
    stage.write("unknown-field.json", TINY_SPEC.replace("\"dataset\"", "\"dataste\"").as_bytes());
    stage.write("other-shape.json", TINY_SPEC.replace("[2, 3]", "[2, 4]").as_bytes());
    stage.write("turned.weights", &weights(&[4, 3]));
    stage.write("missing.weights", &safetensors(&[("w1", &[3, 4], &w1)]));
    let mut wrong = logits.clone();
    wrong[2 * 7 + 1] += 1.0;
    stage.write("wrong.golden", &golden(&wrong));
    wrong[3] = f32::NAN;
    stage.write("nan.golden", &golden(&wrong));
    stage.write("no-logits.golden", &safetensors(&[("inputs", &[20, 1, 2, 2], &inputs)]));
    stage.write("short.golden", &safetensors(&[("inputs", &[20, 1, 2, 2], &inputs), ("logits", &[2], &[1.0, 2.0])]));
    let whole = golden(&logits);
    stage.write("cut.golden", &whole[..whole.len() - 4]);
}

/// The shared folder of reference models, where it is.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn shared() -> Option<std::path::PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let root = std::env::var_os("NIGHTSHIFT_SHARED").map_or(beside, Into::into);
    if root.join("reference").is_dir() {
        return root.canonicalize().ok();
    }
    eprintln!("skipped: no reference models in {}", root.display());
    None
}
