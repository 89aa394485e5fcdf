//! Heavy: the five reference models through encryption, worker and decryption, each equal to its integer oracle. Release builds only, with
//! the shared folder; `ops/test` sets NIGHTSHIFT_HEAVY=1. Without either each test says so and returns.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn shared() -> Option<PathBuf> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("NIGHTSHIFT_SHARED").map_or(beside, PathBuf::from);
    if std::env::var_os("NIGHTSHIFT_HEAVY").is_none() {
        eprintln!("skipped: NIGHTSHIFT_HEAVY is not set");
        return None;
    }
    if !root.join("reference").is_dir() {
        eprintln!("skipped: no reference models at {}", root.display());
        return None;
    }
    Some(root)
}

/// Runs the client's command with `--json` and gives its object.
fn nightshift(arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_nightshift")).args(arguments).arg("--json").output()?;
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Imports the model, calibrated on training images, and runs the demo on its test set.
fn demo(root: &Path, model: &str, dataset: &str, images: &str) -> Result<Value, Box<dyn Error>> {
    let folder = root.join("reference").join(model);
    let work = tempfile::tempdir()?;
    let package = work.path().join("model.nsm");
    let [spec, weights, golden] = ["model.json", "weights.safetensors", "golden.safetensors"].map(|f| folder.join(f));
    let arguments = ["model", "import", "--spec", text(&spec), "--weights", text(&weights), "--golden", text(&golden)];
    let data = root.join("data").join(dataset);
    let training = data.join(if dataset == "cifar-10" { "data_batch_1.bin.xz" } else { "train-images-idx3-ubyte.gz" });
    let labels = data.join("train-labels-idx1-ubyte.gz");
    let calibration = ["--images", text(&training), "--labels", text(&labels)];
    let calibration = if dataset == "cifar-10" { &calibration[..2] } else { &calibration[..] };
    nightshift(&[&arguments[..], calibration, &["--bits", "8", "--out", text(&package)]].concat())?;
    nightshift(&["demo", "--model", text(&package), "--data", text(&data), "--images", images])
}

fn number(report: &Value, key: &str) -> Result<f64, Box<dyn Error>> {
    report[key].as_f64().ok_or_else(|| format!("no number {key} in {report}").into())
}

/// Labels equal to the integer oracle's on every image (ties closer than the promised precision excepted), precision as promised.
fn check(report: &Value) -> Outcome {
    let images = number(report, "images")?;
    let ties = report["ties"].as_array().ok_or("ties")?.len() as f64;
    assert!(number(report, "agreement_integer")? * images >= images - ties - 0.5, "{report}");
    assert!(number(report, "precision_bits")? >= 10.0, "{report}");
    assert_eq!(number(report, "security_bits")?, 128.0);
    Ok(())
}

#[test]
fn mnist_cryptonets_on_the_whole_test_set() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    let report = demo(&root, "mnist_cn_element", "mnist", "10000")?;
    check(&report)?;
    assert_eq!(number(&report, "batches")?, 2.0);
    assert!(number(&report, "agreement_float")? >= 0.999, "{report}");
    assert!((number(&report, "accuracy_encrypted")? - 0.9893).abs() <= 0.001, "{report}");
    assert!(report["ties"].as_array().is_some_and(Vec::is_empty), "{report}");
    Ok(())
}

#[test]
fn three_small_models_on_a_full_batch() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    for (model, dataset, accuracy) in [
        ("mnist_w16_element", "mnist", 0.9913),
        ("mnist_cc_element", "mnist", 0.9908),
        ("fashion-mnist_f3_element", "fashion-mnist", 0.9068),
    ] {
        let report = demo(&root, model, dataset, "8192")?;
        check(&report)?;
        // The first 8192 images are not the whole test set: the clear network is the measure, the published accuracy a sanity check.
        assert!(
            (number(&report, "accuracy_encrypted")? - number(&report, "accuracy_clear")?).abs() <= 0.002,
            "{report}"
        );
        assert!((number(&report, "accuracy_clear")? - accuracy).abs() <= 0.01, "{report}");
    }
    Ok(())
}

#[test]
fn cifar_with_five_squarings() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    let report = demo(&root, "cifar10_element_warm", "cifar-10", "64")?;
    check(&report)
}

/// Every model of the zoo: accuracy of its integers on the untouched test images as promised, and encrypted labels that
/// equal them. `images`: how many go the encrypted way.
#[test]
fn the_zoo_keeps_what_its_cards_say() -> Outcome {
    let Some(root) = shared() else { return Ok(()) };
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models"));
    for (model, dataset, least, images) in [
        ("mnist-cryptonets", "mnist", 0.990, "8192"),
        ("mnist-best", "mnist", 0.993, "8192"),
        ("fashion", "fashion-mnist", 0.915, "8192"),
        ("cifar10", "cifar-10", 0.83, "64"),
    ] {
        let package = models.join(format!("{model}.nsm"));
        let data = root.join("data").join(dataset);
        let measured = nightshift(&["evaluate", "--model", text(&package), "--images", text(&data)])?;
        let accuracy = number(&measured, "accuracy_integer")?;
        assert!(accuracy >= least, "{model}: {measured}");
        let card = std::fs::read_to_string(models.join(format!("{model}.md")))?;
        let id = measured["model_id"].as_str().ok_or("model_id")?;
        assert!(card.contains(id), "{model}: the card is not of model {id}");
        assert!(card.contains(&format!("{:.2} %", 100.0 * accuracy)), "{model}: the card does not say {accuracy}");
        let report = nightshift(&["demo", "--model", text(&package), "--data", text(&data), "--images", images])?;
        check(&report)?;
    }
    // A model with tables: what both oracles say is the same in every build.
    let package = models.join("mnist-relu.nsm");
    let data = root.join("data").join("mnist");
    let measured = nightshift(&["evaluate", "--model", text(&package), "--images", text(&data)])?;
    let accuracy = number(&measured, "accuracy_integer")?;
    assert!(accuracy >= 0.98, "{measured}");
    let card = std::fs::read_to_string(models.join("mnist-relu.md"))?;
    assert!(card.contains(measured["model_id"].as_str().ok_or("model_id")?), "the card is of another model");
    assert!(card.contains(&format!("{:.2} %", 100.0 * accuracy)), "the card does not say {accuracy}");
    Ok(())
}
