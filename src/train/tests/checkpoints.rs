//! Checkpoints that must be refused, and those that cannot be written.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::super::checkpoint::tensors_digest;
use super::super::{RunOptions, TrainError, Trained, train};
use super::runs::{StopAt, assert_same, full, options};
use super::*;

/// Writes the checkpoint of a run that was stopped within the student's second epoch.
fn written(path: &Path) -> Vec<u8> {
    let (recipe, data) = (full(), stripes(1));
    // Teacher: phase, and (steps, checkpoint, epoch) twice; student: phase, steps, checkpoint, epoch.
    let stopped = train(&recipe, &data, &options(2, Some(path)), &mut StopAt { event: 10, heard: 0 });
    assert!(matches!(stopped, Err(TrainError::Stopped { phase: "student", epoch: 2 })), "{stopped:?}");
    std::fs::read(path).unwrap()
}

fn refusal(result: Result<Trained, TrainError>) -> String {
    match result {
        Err(TrainError::Checkpoint { what, .. }) => what,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn of_another_recipe_or_other_data_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let before = written(&path);
    let (recipe, data) = (full(), stripes(1));
    let resumed = |recipe: &Recipe, data: &TrainingData| {
        let found = refusal(train(recipe, data, &options(1, Some(&path)), &mut Quiet));
        assert!(std::fs::read(&path).unwrap() == before);
        found
    };
    let mut other = recipe.clone();
    other.train.learning_rate *= 1.5;
    assert_eq!(resumed(&other, &data), "recipe digest");
    assert_eq!(resumed(&recipe, &stripes(2)), "data digest");
    let mut one_label = data.clone();
    one_label.labels[0] = 1;
    assert_eq!(resumed(&recipe, &one_label), "data digest");
}

#[test]
fn without_resume_a_checkpoint_is_replaced_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    std::fs::write(&path, "of another program").unwrap();
    let (recipe, data) = (full(), stripes(1));
    assert_eq!(refusal(train(&recipe, &data, &options(1, Some(&path)), &mut Quiet)), "content");
    let fresh = RunOptions { resume: false, ..options(1, Some(&path)) };
    let trained = train(&recipe, &data, &fresh, &mut Quiet).unwrap();
    assert_same(&train(&recipe, &data, &options(1, Some(&path)), &mut Quiet).unwrap(), &trained, "its own");
}

#[test]
fn cut_off_anywhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let whole = written(&path);
    let (recipe, data) = (full(), stripes(1));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let spread = (0..whole.len()).step_by(whole.len() / 60);
    for length in [1, 7, 8, 9, header - 1, header, header + 1, whole.len() - 1].into_iter().chain(spread) {
        std::fs::write(&path, &whole[..length]).unwrap();
        refusal(train(&recipe, &data, &options(1, Some(&path)), &mut Quiet));
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    refusal(train(&recipe, &data, &options(1, Some(&path)), &mut Quiet));
}

/// Names, shapes, offsets, types, digests: a change of any is refused. What a changed number of the run itself (a loss, a count of
/// steps) does is not told here: nothing guards it.
#[test]
fn with_a_damaged_header_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let whole = written(&path);
    let (recipe, data) = (full(), stripes(1));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let find = |text: &str| {
        let at = whole[..header].windows(text.len()).position(|window| window == text.as_bytes());
        at.unwrap_or_else(|| panic!("no {text} in the header"))
    };
    let mut damaged: Vec<usize> = (0..9).collect();
    for text in ["F32", "value.", "moment1.", "average.", "teacher.", "running.", "data_offsets", "shape", "run\":"] {
        let at = find(text);
        damaged.extend(at..at + text.len());
    }
    for text in ["version", "recipe", "moment_steps", "averaged"] {
        damaged.push(find(text));
    }
    let first_digit = |text: &str| {
        let from = find(text);
        from + whole[from..].iter().position(u8::is_ascii_digit).unwrap()
    };
    damaged.extend(["data_offsets", "shape", "version"].map(first_digit));
    for place in damaged {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let resumed = train(&recipe, &data, &options(1, Some(&path)), &mut Quiet);
        assert!(matches!(resumed, Err(TrainError::Checkpoint { .. })), "byte {place}: {resumed:?}");
    }
}

/// Well-formed files whose tensors have another length than the network's.
#[test]
fn with_tensors_of_another_length_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let whole = written(&path);
    let (_, metadata) = SafeTensors::read_metadata(&whole).unwrap();
    let tensors = SafeTensors::deserialize(&whole).unwrap().tensors();
    for name in ["value", "moment1", "moment2", "average", "teacher"].map(|kept| format!("{kept}.0.weight")) {
        let shorter: BTreeMap<&String, (usize, &[u8])> = tensors
            .iter()
            .map(|(other, view)| {
                let length = view.shape()[0] - usize::from(*other == name);
                (other, (length, &view.data()[..4 * length]))
            })
            .collect();
        // With the digest that goes with them, as a forger would write it.
        let digest = tensors_digest(shorter.iter().map(|(name, (_, bytes))| (name.as_str(), *bytes)));
        let mut forged = metadata.metadata().clone().unwrap();
        let mut run: serde_json::Value = serde_json::from_str(&forged["run"]).unwrap();
        run["tensors"] = digest.into();
        forged.insert("run".to_owned(), run.to_string());
        let views = shorter.iter().map(|(name, (length, bytes))| {
            (*name, TensorView::new(safetensors::Dtype::F32, vec![*length], bytes).unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, Some(forged)).unwrap()).unwrap();
        let refused = refusal(train(&full(), &stripes(1), &options(1, Some(&path)), &mut Quiet));
        assert_eq!(refused, format!("length of {name}"));
    }
}

#[test]
fn in_a_folder_that_is_not_there_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("run");
    match train(&full(), &stripes(1), &options(1, Some(&path)), &mut Quiet) {
        Err(TrainError::Io { path: found, source }) => {
            assert_eq!((found, source.kind()), (path, std::io::ErrorKind::NotFound));
        }
        other => panic!("{other:?}"),
    }
}

/// A full disk, as a process that may write no file beyond 512 or 1024 bytes (what a shell's `ulimit -f 1` means): this
/// test runs itself so.
#[test]
#[cfg(unix)]
fn on_a_full_disk_leave_the_old_one_whole() {
    const NAME: &str = "train::tests::checkpoints::on_a_full_disk_leave_the_old_one_whole";
    const PATH: &str = "NIGHTSHIFT_TEST_FULL_DISK";
    let (recipe, data) = (full(), stripes(1));
    if let Some(path) = std::env::var_os(PATH) {
        let path = Path::new(&path);
        match train(&recipe, &data, &options(1, Some(path)), &mut Quiet) {
            Err(TrainError::Io { path: found, .. }) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let before = written(&path);
    let mut limited = Command::new("sh");
    // Without the trap the system ends the process instead of refusing the write.
    limited.args(["-c", "ulimit -f 1; trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"]);
    let output = limited.arg(std::env::current_exe().unwrap()).arg(NAME).env(PATH, &path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    let whole = train(&recipe, &data, &options(2, None), &mut Quiet).unwrap();
    assert_same(&train(&recipe, &data, &options(2, Some(&path)), &mut Quiet).unwrap(), &whole, "after the full disk");
}
