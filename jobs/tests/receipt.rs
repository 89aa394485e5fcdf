//! Receipts: they come back equal, answer only their own manifest, and only the very outputs they name.

mod common;

use std::fs;

use common::{sample_manifest, sample_receipt, write_job};
use jobs::receipt::{Outcome, REASON_LIMIT_CHARS, RECEIPT_LIMIT_BYTES};
use jobs::{Digest, ExitCode, FileRole, JobsError, Receipt, manifest};
use proptest::prelude::*;

/// Something done to an honest receipt.
type Change = fn(&mut Receipt);

fn load_text(text: &str) -> Result<Receipt, JobsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    fs::write(&path, text).unwrap();
    Receipt::load(&path)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_comes_back(
        occupancies in prop::collection::vec(1..=common::SLOTS, 1..10),
        ticks in prop::collection::vec(0_u32..1 << 24, 3),
        reason in prop::option::of("[^\\p{Cc}]{1,200}"),
        finished in 0_usize..10,
    ) {
        let manifest = sample_manifest(&occupancies);
        let mut receipt = sample_receipt(&manifest);
        // Multiples of 1/1024 have short decimal forms, which every parser reads exactly.
        let secs = |tick: u32| f64::from(tick) / 1024.0;
        receipt.totals[0].secs = secs(ticks[0]);
        receipt.measured.elapsed_secs = secs(ticks[1]);
        receipt.batches[0].stages[0].secs = secs(ticks[2]);
        if let Some(reason) = reason {
            receipt.outcome = Outcome::failed(&reason, ExitCode::Io);
            receipt.batches.truncate(finished);
            receipt.predicted = None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        receipt.write(&path).unwrap();
        let back = Receipt::load(&path).unwrap();
        prop_assert_eq!(&back, &receipt);
        prop_assert!(back.verify_against(&manifest).is_ok());
    }
}

#[test]
fn a_receipt_is_json_and_nothing_else() {
    let receipt = sample_receipt(&sample_manifest(&[16]));
    let json = serde_json::to_string(&receipt).unwrap();
    assert_eq!(load_text(&format!("\n {json}\n")).unwrap(), receipt);
    let toml = "schema = \"nightshift.receipt/1\"\njob_id = \"00\"\n";
    for text in [toml, "", "[]", "\u{feff}{}"] {
        let error = load_text(text).unwrap_err();
        assert!(error.to_string().contains("does not start as a JSON object"), "{text:?}: {error}");
        assert_eq!(error.exit_code(), ExitCode::BadData);
    }
}

#[test]
fn every_truncation_is_refused() {
    let text = serde_json::to_string_pretty(&sample_receipt(&sample_manifest(&[16, 3]))).unwrap();
    assert!(load_text(&text).is_ok());
    for end in (0..text.len()).step_by(7).chain([text.len() - 1]) {
        let error = load_text(&text[..end]).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::BadData, "cut at {end}: {error}");
    }
    assert!(load_text(&format!("{text}x")).is_err());
}

#[test]
fn unknown_missing_newer_and_oversized_are_refused() {
    let whole = serde_json::to_value(sample_receipt(&sample_manifest(&[16, 3]))).unwrap();
    for name in whole.as_object().unwrap().keys() {
        let mut lacking = whole.clone();
        lacking.as_object_mut().unwrap().remove(name);
        let optional = ["tenant", "predicted", "code_commit", "attempts"].contains(&name.as_str());
        assert_eq!(load_text(&lacking.to_string()).is_ok(), optional, "{name}");
    }
    for pointer in ["", "/batches/1", "/batches/0/output_stamp", "/batches/0/stages/1", "/measured", "/predicted"] {
        let mut added = whole.clone();
        added.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("colour".into(), "red".into());
        assert!(load_text(&added.to_string()).unwrap_err().to_string().contains("unknown field `colour`"), "{pointer}");
    }
    let text = whole.to_string();
    let newer = load_text(&text.replace("nightshift.receipt/1", "nightshift.receipt/17")).unwrap_err();
    assert_eq!(newer.exit_code(), ExitCode::Mismatch, "{newer}");
    let padded = text + &" ".repeat(RECEIPT_LIMIT_BYTES as usize);
    assert!(matches!(load_text(&padded), Err(JobsError::TooLarge { .. })));
}

#[test]
fn impossible_values_are_neither_written_nor_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    let refusal = |change: Change| {
        let mut receipt = sample_receipt(&sample_manifest(&[16, 3]));
        change(&mut receipt);
        let written = receipt.write(&path).unwrap_err().to_string();
        assert!(load_text(&serde_json::to_string(&receipt).unwrap()).is_err());
        written
    };
    assert_eq!(refusal(|r| r.threads = 0), "threads: 0, expected at least 1");
    assert!(refusal(|r| r.measured.elapsed_secs = f64::NAN).starts_with("measured.elapsed_secs: NaN"));
    assert!(refusal(|r| r.totals[0].secs = -1.0).starts_with("totals[0].secs: -1, expected finite"));
    assert!(refusal(|r| r.batches[1].stages[0].secs = f64::INFINITY).starts_with("batches[1].stages[0].secs: inf"));
    assert!(refusal(|r| r.batches[0].output = "../x".to_owned()).contains("has a \"..\""));
    assert!(refusal(|r| r.outcome = Outcome::failed("why", ExitCode::Done)).starts_with("outcome.failed.exit_code"));
    assert!(!path.exists());
}

#[test]
fn a_receipt_answers_only_its_own_manifest() {
    let manifest = sample_manifest(&[16, 3]);
    let mismatch = |change: Change| {
        let mut receipt = sample_receipt(&manifest);
        change(&mut receipt);
        let error = receipt.verify_against(&manifest).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Mismatch);
        error.to_string()
    };
    let other = Digest::of(b"other");
    assert_eq!(mismatch(|r| r.slots = 8), "receipt slots: 8, the manifest expects 16");
    assert_eq!(mismatch(|r| r.tenant = None), "receipt tenant: none, the manifest expects clinic-7");
    assert_eq!(mismatch(|r| r.images = 20), "receipt images: 20, the manifest expects 19");
    assert_eq!(
        mismatch(|r| r.model = Digest::of(b"other")),
        format!("receipt model: {other}, the manifest expects {}", manifest.model.digest)
    );
    let named: [(&str, Change); 9] = [
        ("job_id", |r| r.job_id = "f".repeat(32)),
        ("key_id", |r| r.key_id = "k".to_owned()),
        ("plan_id", |r| r.plan_id = "p".to_owned()),
        ("eval_key", |r| r.eval_key = Digest::of(b"other")),
        ("number of batches: 1,", |r| drop(r.batches.pop())),
        ("batches[1].input", |r| r.batches[1].input = Digest::of(b"other")),
        ("batches[0].output", |r| r.batches[0].output = "outputs/elsewhere.nsc".to_owned()),
        ("batches[1].occupancy", |r| r.batches[1].occupancy = 4),
        ("batches[1].first_image", |r| r.batches[1].first_image = 15),
    ];
    for (what, change) in named {
        let found = mismatch(change);
        assert!(found.starts_with(&format!("receipt {what}")), "{found}");
    }
}

#[test]
fn outputs_on_disk_are_held_to_the_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let job = manifest::load(&write_job(folder.path(), &sample_manifest(&[16, 3]))).unwrap();
    let receipt = sample_receipt(job.manifest());
    receipt.write(&job.receipt_path().unwrap()).unwrap();
    let receipt = Receipt::load(&job.receipt_path().unwrap()).unwrap();
    receipt.verify(&job).unwrap();

    let output = job.output_path(&job.manifest().batches[1]).unwrap();
    let honest = fs::read(&output).unwrap();
    for at in 0..honest.len() {
        let mut flipped = honest.clone();
        flipped[at] ^= 0x20;
        fs::write(&output, flipped).unwrap();
        match receipt.verify(&job).unwrap_err() {
            error @ JobsError::WrongDigest { role: FileRole::Output(1), expected, .. } => {
                assert_eq!(expected, receipt.batches[1].output_stamp.digest);
                assert_eq!(error.exit_code(), ExitCode::BadData);
            }
            other => panic!("byte {at}: {other}"),
        }
    }
    fs::write(&output, &honest[1..]).unwrap();
    let short = receipt.verify(&job).unwrap_err().to_string();
    assert!(short.starts_with("batch 1 output: 17 bytes in"), "{short}");
    assert!(short.ends_with("expected 18"), "{short}");
    fs::remove_file(&output).unwrap();
    assert_eq!(receipt.verify(&job).unwrap_err().exit_code(), ExitCode::InputMissing);
}

#[test]
fn a_failed_job_says_why_with_the_workers_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let job = manifest::load(&write_job(folder.path(), &sample_manifest(&[16, 3]))).unwrap();
    let mut receipt = sample_receipt(job.manifest());
    receipt.batches.truncate(1);
    receipt.outcome = Outcome::failed("disk full\non /scratch", ExitCode::Io);
    let error = receipt.verify(&job).unwrap_err();
    assert_eq!(error.to_string(), "the job failed with exit code 74 (io): disk full on /scratch");
    assert_eq!(error.exit_code(), ExitCode::Io);
    receipt.outcome = Outcome::failed(&"x".repeat(10_000), ExitCode::Bug);
    assert!(receipt.validate().is_ok());
    assert!(matches!(receipt.outcome, Outcome::Failed { reason, .. } if reason.len() == REASON_LIMIT_CHARS));
}
