//! Files of rates: what is written comes back, what is wrong is named.

use std::collections::BTreeMap;

use jobs::rates::{KernelRates, RatesFile, SCHEMA};
use jobs::{ExitCode, JobsError};

fn rates() -> RatesFile {
    let unit_secs = BTreeMap::from([("square".to_owned(), 7e-10), ("batch".to_owned(), 0.01)]);
    let kernel =
        |isa: &str| KernelRates { isa: isa.to_owned(), threads: 2, thread_loss: 0.05, unit_secs: unit_secs.clone() };
    RatesFile {
        schema: SCHEMA.to_owned(),
        machine: "a processor, 2 cores".to_owned(),
        code_version: "0.1.0".to_owned(),
        kernels: vec![kernel("portable"), kernel("amx")],
    }
}

#[test]
fn what_is_written_comes_back_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rates.json");
    let mut written = rates();
    written.write(&path).unwrap();
    written.kernels.pop();
    written.write(&path).unwrap();
    let found = RatesFile::load(&path).unwrap();
    assert_eq!(found, written);
    assert!(found.kernel("portable").is_some() && found.kernel("amx").is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    type Change = fn(&mut RatesFile);
    let changes: [(&str, Change); 8] = [
        ("machine", |r| r.machine.clear()),
        ("kernels[1].isa", |r| r.kernels[1].isa = "portable".to_owned()),
        ("kernels[0].threads", |r| r.kernels[0].threads = 0),
        ("kernels[0].thread_loss", |r| r.kernels[0].thread_loss = 1.5),
        ("kernels[1].unit_secs.square", |r| *r.kernels[1].unit_secs.entry("square".to_owned()).or_default() = 0.0),
        ("kernels[1].unit_secs.square", |r| *r.kernels[1].unit_secs.entry("square".to_owned()).or_default() = f64::NAN),
        ("kernels[1].unit_secs.batch", |r| *r.kernels[1].unit_secs.entry("batch".to_owned()).or_default() = 1e9),
        ("schema", |r| r.schema = "nightshift.rates/0".to_owned()),
    ];
    for (field, change) in changes {
        let mut wrong = rates();
        change(&mut wrong);
        let error = wrong.validate().unwrap_err();
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
}

#[test]
fn damaged_foreign_and_newer_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rates.json");
    rates().write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for (text, code) in [
        (text.replace("\"threads\"", "\"cores\""), ExitCode::BadData),
        (text[..text.len() / 2].to_owned(), ExitCode::BadData),
        (text.replace("nightshift.rates/1", "nightshift.rates/2"), ExitCode::Mismatch),
        (text.replace("nightshift.rates/1", "nightshift.receipt/1"), ExitCode::BadData),
        (" ".repeat(2 << 20), ExitCode::BadData),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = RatesFile::load(&path).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
    let missing = RatesFile::load(&folder.path().join("none.json")).unwrap_err();
    assert!(matches!(missing, JobsError::Read { .. }), "{missing}");
    assert_eq!(missing.exit_code(), ExitCode::InputMissing);
}
