//! The commands as a person or a script meets them: the real binaries, their exit codes, errors and JSON.
//!
//! What they say is pinned by the transcripts in `tests/cli/golden`. No network, no shared folder except where a test
//! says that it was skipped.

#[path = "cli/files.rs"]
mod files;
#[path = "cli/harness.rs"]
mod harness;

use harness::Stage;

#[test]
fn usage_errors_are_64_and_help_is_0() {
    let mut stage = Stage::new();
    for line in [
        "",
        "fly",
        "plan",
        "plan --model",
        "plan --model M --precision 31",
        "decrypt --key K --job J --out labels.txt",
        "demo --images 0",
        "worker run",
        "worker run job.toml --isa neon",
        "worker decrypt",
        "completions cmd.exe",
    ] {
        assert_eq!(stage.say(line).code, 64, "{line}");
    }
    stage.expect("usage");
    for line in ["--help", "--version", "help encrypt", "model import --help", "worker --help", "worker run --help"] {
        let ended = stage.run(line);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{line}");
        assert!(ended.out.contains("nightshift"), "{line}");
    }
}

#[test]
fn evaluate_says_what_is_wrong() {
    let mut stage = Stage::new();
    files::digits(&stage, 64);
    files::bad_inputs(&stage);
    for (line, code) in [
        ("evaluate --model none.nsm --images images.idx", 66),
        ("evaluate --model folder --images images.idx", 65),
        ("evaluate --model text.txt --images images.idx", 65),
        ("evaluate --model empty --images images.idx", 65),
        ("evaluate --model cut.nsm --images images.idx", 65),
        ("evaluate --model flipped.nsm --images images.idx", 65),
        ("evaluate --model newer.nsm --images images.idx", 76),
        ("evaluate --model other-kind.nsm --images images.idx", 76),
        ("evaluate --model MODEL --images none.idx", 66),
        ("evaluate --model MODEL --images text.txt", 65),
        ("evaluate --model MODEL --images folder", 65),
        ("evaluate --model MODEL --images cut.idx", 65),
        ("evaluate --model MODEL --images small.idx", 65),
        ("evaluate --model MODEL --images images.idx", 65),
        ("evaluate --model MODEL --images images.idx --labels none.idx", 66),
        ("evaluate --model MODEL --images images.idx --labels two-labels.idx", 65),
        ("evaluate --model MODEL --images images.idx --labels label-12.idx", 65),
    ] {
        let ended = stage.say(line);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{line}: {}", ended.err);
    }
    stage.expect("evaluate");
}

#[test]
fn evaluate_counts_the_same_with_any_threads() {
    let stage = Stage::new();
    files::digits(&stage, 300);
    let line = "evaluate --model MODEL --images images.idx --labels labels.idx --json --threads";
    let [one, two] = ["1", "2"].map(|threads| stage.run(&format!("{line} {threads}")).json());
    assert_eq!(one["images"], 300);
    for key in ["accuracy_float", "accuracy_integer", "agreement", "max_logit_difference"] {
        assert_eq!(one[key], two[key], "{key}");
    }
    let (float, agreement) = (one["accuracy_float"].as_f64().unwrap(), one["agreement"].as_f64().unwrap());
    assert!(float > 0.8 && agreement > 0.98, "{one}");
    let difference = one["max_logit_difference"].as_f64().unwrap();
    assert!(difference > 0.0 && difference < 2.0, "{one}");
}

#[test]
fn plan_is_a_table_an_explanation_or_an_object() {
    let mut stage = Stage::new();
    files::bad_inputs(&stage);
    assert_eq!(stage.say("plan --model none.nsm").code, 66);
    assert_eq!(stage.say("plan --model newer.nsm --json").code, 76);
    assert_eq!(stage.say("plan --model flipped.nsm --explain").code, 65);
    stage.expect("plan");

    let object = stage.run("plan --model MODEL --batch 10000 --json").json();
    assert_eq!(
        (&object["slots"], &object["batches"], &object["last_occupancy"]),
        (&8192.into(), &2.into(), &1808.into())
    );
    let (log_qp, limit) = (object["log_qp"].as_f64().unwrap(), object["log_qp_limit"].as_f64().unwrap());
    assert!(log_qp > 100.0 && log_qp <= limit, "{object}");
    let primes = ["moduli_bits", "special_bits"].map(|key| object[key].as_array().unwrap().clone()).concat();
    let sum: f64 = primes.iter().map(|bits| bits.as_f64().unwrap()).sum();
    assert!((sum - log_qp).abs() < 1e-6, "{sum} {log_qp}");
    assert!(object["precision_bits"]["promised"].as_f64().unwrap() >= 10.0);
    let squares: u64 =
        object["stages"].as_array().unwrap().iter().map(|stage| stage["squares"].as_u64().unwrap()).sum();
    assert_eq!(squares, 945);
    assert!(object["upload_bytes_per_image"].as_f64().unwrap() <= 20_000.0);
    assert_eq!(object["plan_id"].as_str().unwrap().len(), 64);

    let finer = stage.run("plan --model MODEL --precision 16 --json").json();
    assert!(finer["precision_bits"]["promised"].as_f64().unwrap() >= 16.0);
    assert_ne!(finer["plan_id"], object["plan_id"]);
    let explained = stage.run("plan --model MODEL --explain");
    assert!(explained.out.contains("key switches") && explained.out.contains("stage 2: dense 100 -> 10"));
    let table = stage.run("plan --model MODEL");
    assert!(table.out.contains("8192 slots") && table.out.lines().count() >= 10, "{table:?}");
    assert_eq!(stage.run("plan --model MODEL --quiet").out, "");
}

#[test]
fn calibrate_keeps_rates_that_plan_and_run_read() {
    let stage = Stage::new();
    files::bad_inputs(&stage);
    let object = stage.run("worker calibrate --isa portable --stand-alone --rates new/rates.json --json").json();
    assert_eq!(object["kernels"].as_array().unwrap().len(), 1);
    assert_eq!(stage.names("new"), ["rates.json"]);
    let plan = |rates: &str, more: &str| stage.run(&format!("plan --model MODEL --rates {rates} --json {more}"));
    let seconds = |rates: &str, threads: &str| {
        let found = plan(rates, &format!("--isa portable --threads {threads}")).json();
        found["seconds"].as_f64().unwrap()
    };
    // Stand-alone rates know of no loss by threads, and what one thread does alone stays.
    let (one, two) = (seconds("new/rates.json", "1"), seconds("new/rates.json", "2"));
    assert!(two < one && two > 0.5 * one, "{one} {two}");
    let text = std::fs::read_to_string(stage.path("new/rates.json")).unwrap();
    let mut slower: serde_json::Value = serde_json::from_str(&text).unwrap();
    slower["kernels"][0]["unit_secs"]["square"] = 1e-3.into();
    stage.write("slower.json", slower.to_string().as_bytes());
    assert!(seconds("slower.json", "1") > 10.0 * one);
    slower["kernels"][0]["unit_secs"].as_object_mut().unwrap().remove("gather");
    stage.write("lacking.json", slower.to_string().as_bytes());
    stage.write("wrong.json", text.replace("\"isa\": \"portable\"", "\"isa\": \"abacus\"").as_bytes());
    for (rates, code, said) in [
        ("none.json", 66, "none.json"),
        ("text.txt", 65, "text.txt"),
        ("lacking.json", 65, "seconds of \"gather\""),
        ("wrong.json", 65, "rates of portable"),
    ] {
        let ended = plan(rates, "--isa portable");
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{rates}: {}", ended.err);
        assert!(ended.err.contains(said), "{rates}: {}", ended.err);
    }
}

#[test]
fn import_says_which_layer_tensor_or_golden_image_is_wrong() {
    let mut stage = Stage::new();
    files::tiny_network(&stage);
    files::bad_inputs(&stage);
    let out = "--out M.nsm";
    for (line, code) in [
        ("--spec none --weights tiny.weights --golden tiny.golden", 66),
        ("--spec tiny.json --weights none --golden tiny.golden", 66),
        ("--spec tiny.json --weights tiny.weights --golden none", 66),
        ("--spec folder --weights tiny.weights --golden tiny.golden", 65),
        ("--spec text.txt --weights tiny.weights --golden tiny.golden", 65),
        ("--spec tiny.json --weights text.txt --golden tiny.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden cut.golden", 65),
        ("--spec unknown-layer.json --weights tiny.weights --golden tiny.golden", 65),
        ("--spec unknown-field.json --weights tiny.weights --golden tiny.golden", 65),
        ("--spec other-shape.json --weights tiny.weights --golden tiny.golden", 65),
        ("--spec tiny.json --weights turned.weights --golden tiny.golden", 65),
        ("--spec tiny.json --weights missing.weights --golden tiny.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden wrong.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden nan.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden no-logits.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden short.golden", 65),
        ("--spec tiny.json --weights tiny.weights --golden tiny.golden --images small.idx", 65),
    ] {
        let line = format!("model import {line} {out}");
        let ended = stage.say(&line);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{line}: {}", ended.err);
        assert!(!stage.path("M.nsm").exists(), "{line} left a package");
    }
    let good = "model import --spec tiny.json --weights tiny.weights --golden tiny.golden";
    assert_eq!(stage.say(&format!("{good} --out none/M.nsm")).code, 73);
    assert_eq!(stage.say(&format!("{good} --out folder")).code, 73);
    // A slip: the weights themselves.
    let weights = std::fs::read(stage.path("tiny.weights")).unwrap();
    assert_eq!(stage.say(&format!("{good} --out tiny.weights")).code, 73);
    assert_eq!(std::fs::read(stage.path("tiny.weights")).unwrap(), weights);
    stage.expect("model-import");
    assert!(stage.names(".").iter().all(|name| !name.ends_with(".tmp")), "a temporary file is left");

    let object = stage.run(&format!("{good} --out M.nsm --json")).json();
    assert_eq!((&object["squarings"], &object["calibration_images"]), (&3.into(), &20.into()));
    assert!(object["golden_max_error"].as_f64().unwrap() < 1e-5, "{object}");
    let first = std::fs::read(stage.path("M.nsm")).unwrap();
    assert_eq!(object["package_bytes"], first.len());
    stage.run(&format!("{good} --out M.nsm --json")).json();
    assert_eq!(first, std::fs::read(stage.path("M.nsm")).unwrap(), "the same import, the same bytes");
    let fixed = stage.run(&format!("{good} --out N.nsm --bits 12 --json")).json();
    assert_eq!(fixed["weight_bits"], serde_json::json!([12, 12]));
    assert_ne!(fixed["model_id"], object["model_id"]);
}

#[cfg(not(feature = "train"))]
#[test]
fn train_says_how_to_build_with_the_trainer() {
    let ended = Stage::new().run("train recipe.toml --data folder --out M.nsm");
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    assert!(ended.err.contains("cargo build --release --features train"), "{}", ended.err);
}

#[cfg(feature = "train")]
#[test]
fn train_says_what_is_wrong_before_it_begins() {
    let stage = Stage::new();
    files::digits(&stage, 64);
    files::bad_inputs(&stage);
    let recipe = "name = \"tiny\"\n[data]\nheld_out = 8\nclasses = 10\n[[layer]]\ntype = \"flatten\"\n[[layer]]\n\
                  type = \"dense\"\nout = 10\n[train]\nepochs = 1\n";
    stage.write("good.toml", recipe.as_bytes());
    stage.write("misspelt.toml", recipe.replace("epochs", "epocs").as_bytes());
    stage.write("range.toml", format!("{recipe}warm_up = 3.0\n").as_bytes());
    stage.write("M.md", b"notes of mine");
    stage.write("taught.toml", format!("{recipe}[teacher]\nepochs = 1\n").as_bytes());
    let other = recipe.replace("[data]", "[data]\nmean = [0.5]\nstd = [0.5]");
    stage.write("normalised.toml", format!("{other}[teacher]\nepochs = 1\n").as_bytes());
    stage.write("tables.toml", format!("{recipe}[tables]\nbits = 6\n").as_bytes());
    stage.write("wide.toml", format!("{recipe}[tables]\nbits = 7\n").as_bytes());
    stage.write("both.toml", format!("{recipe}[tables]\n[quantise]\n").as_bytes());
    let teacher = concat!("--teacher ", env!("CARGO_MANIFEST_DIR"), "/models/mnist-best.nsm");
    let colour = concat!("--teacher ", env!("CARGO_MANIFEST_DIR"), "/models/cifar10.nsm");
    let tables = if cfg!(feature = "exact") { (65, "tables is a section") } else { (78, "feature `exact`") };
    let data = "--data images.idx --labels labels.idx";
    for (line, code, told) in [
        (format!("train none.toml {data} --out N.nsm"), 66, "none.toml: cannot read"),
        (format!("train folder {data} --out N.nsm"), 65, "expected a recipe"),
        (format!("train misspelt.toml {data} --out N.nsm"), 65, "unknown field `epocs`"),
        (format!("train range.toml {data} --out N.nsm"), 65, "train.warm_up is 3, expected 0 to 0.9"),
        ("train good.toml --data none --out N.nsm".to_owned(), 66, "none"),
        ("train good.toml --data images.idx --out N.nsm".to_owned(), 65, "found no labels"),
        ("train good.toml --data images.idx --labels two-labels.idx --out N.nsm".to_owned(), 65, "two-labels.idx"),
        ("train good.toml --data images.idx --labels label-12.idx --out N.nsm".to_owned(), 65, "12"),
        (format!("train good.toml {data} --test small.idx --out N.nsm"), 65, "small.idx"),
        (format!("train good.toml {data} --test images.idx --test-labels label-12.idx --out N.nsm"), 65, "one of 10"),
        (format!("train good.toml {data} --encrypted-images 8 --out N.nsm"), 65, "number of test images is 0"),
        (format!("train good.toml {data} --ladder --out N.nsm"), 65, "number of test images is 0"),
        (format!("train good.toml {data} --out N.nsm {teacher}"), 65, "section [teacher] is missing, expected one"),
        (
            format!("train taught.toml {data} --out N.nsm {colour}"),
            65,
            "cifar10.nsm: teacher: shape of its images is [3, 32, 32], expected [1, 28, 28]",
        ),
        (
            format!("train normalised.toml {data} --out N.nsm {teacher}"),
            65,
            "teacher: normalisation of its images is mean",
        ),
        (format!("train taught.toml {data} --out N.nsm --teacher tiny.json"), 65, "expected --teacher-weights FILE"),
        (format!("train taught.toml {data} --out N.nsm --teacher images.idx"), 65, "images.idx"),
        (format!("train wide.toml {data} --out N.nsm"), 65, "tables.bits is 7, expected 4 to 6"),
        (format!("train both.toml {data} --out N.nsm"), 65, "quantise is a section, expected none beside [tables]"),
        (
            format!(
                "train tables.toml {data} --test images.idx --test-labels labels.idx --encrypted-images 2 --out N.nsm"
            ),
            tables.0,
            tables.1,
        ),
        (
            format!("train tables.toml {data} --test images.idx --test-labels labels.idx --ladder --out N.nsm"),
            65,
            "none for a ladder",
        ),
        (format!("train good.toml {data} --out none/N.nsm"), 73, "none/N.nsm: cannot create"),
        (format!("train good.toml {data} --out text.txt"), 73, "text.txt: found something other than a model package"),
        (format!("train good.toml {data} --out M.nsm"), 73, "M.md: found something other than a model card"),
        (format!("train good.toml {data} --out N.nsm --log text.txt"), 73, "text.txt: found something other than"),
    ] {
        let ended = stage.run(&line);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{line}: {}", ended.err);
        assert!(ended.err.contains(told), "{line}: {}", ended.err);
        assert!(stage.names(".").iter().all(|name| !name.starts_with("N.")), "{line} left a file");
    }
    assert_eq!(std::fs::read(stage.path("M.md")).unwrap(), b"notes of mine");
    if !cfg!(feature = "train-wgpu") {
        let ended = stage.run(&format!("train good.toml {data} --out N.nsm --device gpu"));
        assert_eq!(ended.code, 78, "{}", ended.err);
        assert!(ended.err.contains("`train-wgpu`") && ended.err.contains("--features train-wgpu"), "{}", ended.err);
    }
}

#[test]
fn the_reference_models_import() {
    let Some(shared) = files::shared() else { return };
    let stage = Stage::new();
    for (name, squarings) in [("mnist_cn_element", 945), ("fashion-mnist_f3_element", 4800)] {
        let folder = shared.join("reference").join(name);
        let file = |file: &str| folder.join(file).display().to_string();
        let (spec, weights, golden) = (file("model.json"), file("weights.safetensors"), file("golden.safetensors"));
        let line = format!("model import --spec {spec} --weights {weights} --golden {golden} --out {name}.nsm --json");
        let object = stage.run(&line).json();
        assert_eq!(object["model"], name);
        let found = object["squarings"].as_u64().unwrap();
        assert!(found > squarings * 9 / 10 && found <= squarings, "{object}");
        assert!(object["golden_max_error"].as_f64().unwrap() < 1e-3, "{object}");
    }
}

#[test]
fn inspect_describes_and_checks() {
    let mut stage = Stage::new();
    files::bad_inputs(&stage);
    for (line, code) in [
        ("inspect none", 66),
        ("inspect folder", 65),
        ("inspect text.txt", 65),
        ("inspect empty", 65),
        ("inspect cut.nsm", 65),
        ("inspect flipped.nsm", 65),
        ("inspect newer.nsm", 76),
        ("inspect other-kind.nsm", 76),
    ] {
        assert_eq!(stage.say(line).code, code, "{line}");
    }
    stage.write("bad.toml", b"schema = \"nightshift.job/1\"\njob_id = 3\n");
    stage.write("newer.toml", b"schema = \"nightshift.job/9\"\n");
    stage.write("newer.json", b"{\"schema\": \"nightshift.receipt/9\"}\n");
    assert_eq!(stage.say("inspect bad.toml").code, 65);
    assert_eq!(stage.say("inspect newer.toml").code, 76);
    assert_eq!(stage.say("inspect newer.json").code, 76);
    stage.expect("inspect");

    let object = stage.run("inspect MODEL --json").json();
    assert_eq!((&object["kind"], &object["verified"]), (&"model".into(), &true.into()));
    assert_eq!(object["file_bytes"], std::fs::metadata(harness::MODEL).unwrap().len());
    assert_eq!(object["provenance"]["calibration_images"], "1000");
    assert_eq!(object["circuit_form"], "made from the network");
    let sections = object["sections"].as_array().unwrap();
    assert!(sections.iter().any(|section| section["name"] == "lowering.json"));
    let full = stage.run(concat!("inspect ", env!("CARGO_MANIFEST_DIR"), "/tests/data/full-form.nsm --json")).json();
    assert_eq!(full["circuit_form"], "stored");
    let sections = full["sections"].as_array().unwrap();
    assert!(sections.iter().any(|section| section["name"] == "circuit.weights" && section["bytes"] == 105_980));
    assert!(stage.run("inspect MODEL").out.contains("conv2d + batchnorm 1x28x28"));
}

#[test]
fn completions_are_scripts() {
    let stage = Stage::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = stage.run(&format!("completions {shell}"));
        assert_eq!(script.code, 0);
        assert!(script.out.contains("nightshift") && script.out.contains("encrypt"), "{shell}");
        let object = stage.run(&format!("completions {shell} --json")).json();
        assert_eq!(object["script"].as_str(), Some(script.out.as_str()), "{shell}");
        let script = stage.run(&format!("worker completions {shell}"));
        assert!(script.code == 0 && script.out.contains("memory-limit"), "{shell}");
    }
}

/// Keys, a job of 64 images and its results in `keys`, `job`; other keys in `other`.
fn finished_job(stage: &Stage) {
    files::digits(stage, 64);
    for line in ["keygen --model MODEL --out keys --json", "keygen --model MODEL --out other --json"] {
        assert_eq!(stage.run(line).json()["ring_degree"], 8192);
    }
    let line = "encrypt --key keys/secret.key --model MODEL --images images.idx --out job --json";
    let encrypted = stage.run(line).json();
    assert_eq!(
        (&encrypted["images"], &encrypted["batches"], &encrypted["canaries"]),
        (&64.into(), &1.into(), &4.into())
    );
    let ran = stage.run("worker run job/job.toml --json").json();
    assert_eq!((&ran["images"], &ran["already_done"]), (&64.into(), &false.into()));
}

#[test]
fn a_job_from_keys_to_labels_and_what_can_be_wrong_with_it() {
    let mut stage = Stage::new();
    finished_job(&stage);
    files::bad_inputs(&stage);

    let result = std::fs::read(stage.path("job/batch-0000.out.nsc")).unwrap();
    let again = stage.run("worker run job/job.toml --json").json();
    assert_eq!(again["already_done"], true);
    assert_eq!(result, std::fs::read(stage.path("job/batch-0000.out.nsc")).unwrap());

    let decrypt = "decrypt --key keys/secret.key --job job/job.toml";
    let report = stage.run(&format!("{decrypt} --out labels.csv --json")).json();
    assert_eq!((&report["images"], &report["canaries"]), (&64.into(), &4.into()));
    // Errors of known answers in whole bits, margins with a score's decimals: the rest would be the key's noise.
    let bits = report["canary_bits"].as_i64().unwrap();
    assert!((10..40).contains(&bits) && report.get("canary_max_error").is_none(), "{report}");
    let (margin, decimals) =
        (report["smallest_margin"].as_f64().unwrap(), report["precision_bits"].as_f64().unwrap() * 0.301);
    let units = margin * 10_f64.powf(decimals.floor());
    assert!((units - units.round()).abs() < 1e-6, "{report}");
    assert_eq!(mode(&stage, "labels.csv"), 0o600);
    let labels = std::fs::read_to_string(stage.path("labels.csv")).unwrap();
    let truth = std::fs::read(stage.path("labels.idx")).unwrap()[8..].to_vec();
    let right = labels.lines().skip(1).zip(&truth).filter(|(line, truth)| line.ends_with(&format!(",{truth}"))).count();
    assert!(labels.starts_with("index,label\n0,") && labels.lines().count() == 65, "{labels}");
    assert!(right >= 60, "{right} of 64 labels are right");
    stage.run(&format!("{decrypt} --out scores.csv --scores --json")).json();
    let scores = std::fs::read_to_string(stage.path("scores.csv")).unwrap();
    assert_eq!(scores.lines().nth(1).map(|line| line.split(',').count()), Some(12), "{scores}");

    for file in ["keys/public.key", "keys/eval.key", "job/batch-0000.in.nsc", "job/batch-0000.out.nsc"] {
        assert_eq!(stage.run(&format!("inspect {file} --json")).json()["verified"], true, "{file}");
    }
    let job = stage.run("inspect job/job.toml --json").json();
    assert_eq!(
        (&job["inputs_verified"], &job["model_file"], &job["receipt"]),
        (&1.into(), &"verified".into(), &"there".into())
    );
    let receipt = stage.run("inspect job/receipt.json --json").json();
    assert_eq!((&receipt["outcome"], &receipt["outputs"]), (&"done".into(), &"verified".into()));
    let secret = stage.run("inspect keys/secret.key --json").json();
    let keys: Vec<&String> = secret.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["file_bytes", "key_id", "kind", "verified", "version"], "nothing more is told of a secret");

    set_mode(&stage, "other/secret.key", 0o644);
    std::fs::create_dir(stage.path("full")).unwrap();
    stage.write("full/notes", b"");
    std::fs::copy(stage.path("job/job.toml"), stage.path("alone.toml")).unwrap();
    for (line, code) in [
        ("keygen --model none.nsm --out k", 66),
        ("keygen --model keys/public.key --out k", 76),
        ("keygen --model MODEL --out keys", 73),
        ("keygen --model MODEL --out text.txt", 73),
        ("encrypt --key none --model MODEL --images images.idx --out j", 66),
        ("encrypt --key text.txt --model MODEL --images images.idx --out j", 65),
        ("encrypt --key keys/eval.key --model MODEL --images images.idx --out j", 76),
        ("encrypt --key keys/public.key --model none.nsm --images images.idx --out j", 66),
        ("encrypt --key keys/public.key --model MODEL --images images.idx --labels-only --out j", 64),
        ("encrypt --key keys/public.key --model MODEL --images none.idx --out j", 66),
        ("encrypt --key keys/public.key --model MODEL --images small.idx --out j", 65),
        ("encrypt --key keys/public.key --model MODEL --images folder --out j", 65),
        ("encrypt --key keys/public.key --model MODEL --images images.idx --out full", 73),
        ("encrypt --key keys/public.key --model MODEL --images images.idx --out text.txt", 73),
        ("encrypt --key other/secret.key --model MODEL --images images.idx --out j", 77),
        ("worker run none.toml", 66),
        ("worker run text.txt", 65),
        ("worker run keys", 65),
        ("worker run alone.toml", 66),
        ("decrypt --key none --job job/job.toml --out l.csv", 66),
        ("decrypt --key keys/public.key --job job/job.toml --out l.csv", 76),
        ("decrypt --key other/secret.key --job job/job.toml --out l.csv", 77),
        ("decrypt --key keys/secret.key --job none.toml --out l.csv", 66),
        ("decrypt --key keys/secret.key --job alone.toml --out l.csv", 66),
        ("decrypt --key keys/secret.key --job job/job.toml --out none/l.csv", 73),
        ("decrypt --key keys/secret.key --job job/job.toml --out l.csv --scores --digits 9", 64),
        ("inspect other/secret.key", 77),
    ] {
        let ended = stage.say(line);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{line}: {}", ended.err);
    }
    set_mode(&stage, "other/secret.key", 0o600);
    assert_eq!(stage.say("decrypt --key other/secret.key --job job/job.toml --out l.csv").code, 76);

    let mut flipped = result;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    stage.write("job/batch-0000.out.nsc", &flipped);
    assert_eq!(stage.say("decrypt --key keys/secret.key --job job/job.toml --out l.csv").code, 65);
    assert_eq!(stage.run("inspect job/batch-0000.out.nsc").code, 65);
    assert_eq!(stage.say("inspect job/receipt.json").code, 65);
    std::fs::remove_file(stage.path("job/receipt.json")).unwrap();
    assert_eq!(stage.say("decrypt --key keys/secret.key --job job/job.toml --out l.csv").code, 66);
    assert_eq!(stage.say("worker run job/job.toml --model cut.nsm").code, 76);
    assert_eq!(stage.say("worker run job/job.toml --eval-key other/eval.key").code, 76);
    assert_eq!(stage.run("worker run job/job.toml --memory-limit 1MB").code, 78);
    let mut input = std::fs::read(stage.path("job/batch-0000.in.nsc")).unwrap();
    let middle = input.len() / 2;
    input[middle] ^= 1;
    stage.write("job/batch-0000.in.nsc", &input);
    assert_eq!(stage.say("worker run job/job.toml").code, 65);
    assert_eq!(stage.say("inspect job/job.toml").code, 65);
    let manifest = std::fs::read(stage.path("job/job.toml")).unwrap();
    stage.write("job/away.toml", &files::edited(&manifest, b"batch-0000.in.nsc", b"../../etc/passwd0"));
    assert_eq!(stage.say("worker run job/away.toml").code, 65);
    stage.expect("job");

    assert!(!stage.path("l.csv").exists() && !stage.path("j").exists() && !stage.path("k").exists());
    for folder in [".", "job", "keys"] {
        assert!(stage.names(folder).iter().all(|name| !name.starts_with('.')), "{folder}: a temporary file is left");
    }
}

fn mode(stage: &Stage, name: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(stage.path(name)).unwrap().permissions().mode() & 0o777
}

fn set_mode(stage: &Stage, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(stage.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_demo_ends_with_its_table_and_leaves_nothing() {
    let mut stage = Stage::new();
    files::bad_inputs(&stage);
    std::fs::create_dir(stage.path("mine")).unwrap();
    stage.write("mine/model.nsm", b"a model of my own");
    for (line, code) in [
        ("demo --model none.nsm", 66),
        ("demo --data none", 66),
        ("demo --data folder", 66),
        ("demo --workdir text.txt", 73),
        ("demo --workdir mine", 73),
    ] {
        assert_eq!(stage.say(line).code, code, "{line}");
    }
    stage.expect("demo");
    assert_eq!(std::fs::read(stage.path("mine/model.nsm")).unwrap(), b"a model of my own");
    assert_eq!(stage.names("mine"), ["model.nsm"]);

    let object = stage.run("demo --images 64 --workdir kept --json").json();
    for key in ["accuracy_encrypted", "accuracy_clear", "agreement_float"] {
        assert!(object[key].as_f64().unwrap() > 0.9, "{key}: {object}");
    }
    assert_eq!(
        (&object["images"], &object["slots"], &object["security_bits"]),
        (&64.into(), &8192.into(), &128.into())
    );
    let ties = object["ties"].as_array().unwrap().len() as f64;
    assert_eq!(object["agreement_integer"].as_f64().unwrap(), 1.0 - ties / 64.0);
    assert!(object["precision_bits"].as_f64().unwrap() >= 10.0, "{object}");
    for key in ["encrypt_images_per_second", "images_per_second", "decrypt_images_per_second", "peak_bytes", "threads"]
    {
        assert!(object[key].as_f64().unwrap() > 0.0, "{key}: {object}");
    }
    for key in ["log_qp", "upload_bytes_per_image", "result_bytes_per_image", "isa"] {
        assert!(!object[key].is_null(), "{key}: {object}");
    }
    assert!(object["seconds"]["run"].as_f64().unwrap() > 0.0);
    assert_eq!(stage.names("kept"), ["job", "keys", "model.nsm"]);
    assert_eq!(stage.say("demo --images 64 --workdir kept").code, 73, "keys are never replaced");
}
