//! `ops/capacity.md` says what the planner says. `UPDATE_GOLDEN=1` writes the table anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use nightshift::format::{EngineKind, Kind};
use serde_json::Value;

use super::{ops, read};

const BEGIN: &str = "<!-- figures: written by tests/ops/capacity.rs -->\n";
const END: &str = "<!-- end of figures -->\n";
const THREADS: [&str; 3] = ["1", "8", "32"];

fn plan(model: &Path, threads: &str) -> Value {
    let program = env!("CARGO_BIN_EXE_nightshift");
    let output = Command::new(program).args(["plan", "--json", "--threads", threads, "--model"]).arg(model).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Megabytes, rounded up: a sheet that is wrong should be wrong on the safe side.
fn megabytes(bytes: &Value) -> u64 {
    bytes.as_u64().unwrap().div_ceil(1_000_000)
}

fn table() -> String {
    let mut text = String::from(
        "| model | images a batch | input, MB | results, MB | evaluation key, MB | scratch a task, MB | memory, MB: 1 thread | 8 | 32 |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut models: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|ending| ending == "nsm"));
    // The sheet is of the batch engine: models with tables have no plan.
    models.retain(|path| EngineKind::of_file(path, Some(Kind::Model)).unwrap() == EngineKind::Ckks);
    models.sort();
    for model in models {
        let plans = THREADS.map(|threads| plan(&model, threads));
        let first = &plans[0];
        let bytes = &first["bytes"];
        let package = std::fs::metadata(&model).unwrap().len();
        let all = ["input", "result", "evaluation_key"].map(|name| bytes[name].as_u64().unwrap());
        let scratch = megabytes(&(all.iter().sum::<u64>() + package).into());
        let [input, result, key] = all.map(|bytes| megabytes(&bytes.into()));
        let name = first["model"].as_str().unwrap();
        let memory = plans.each_ref().map(|plan| megabytes(&plan["peak_bytes"]).to_string()).join(" | ");
        let _ = writeln!(text, "| {name} | {} | {input} | {result} | {key} | {scratch} | {memory} |", first["slots"]);
    }
    text
}

#[test]
fn the_sheet_is_the_planner_s() {
    let text = read("capacity.md");
    let (before, rest) = text.split_once(BEGIN).expect("the sheet has its first mark");
    let (found, after) = rest.split_once(END).expect("the sheet has its second mark");
    let expected = table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(ops().join("capacity.md"), format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, expected, "UPDATE_GOLDEN=1 cargo test --test ops writes it anew");
}
