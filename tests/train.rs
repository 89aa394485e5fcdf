//! README's section "Train your own model", word for word: its recipe and its commands, on pictures drawn here.

#![cfg(feature = "train")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use nightshift::net::sample::Random;

const README: &str = include_str!("../README.md");
const SIDE: usize = 16;

/// The fenced block after `fence` in the section on training.
fn block(fence: &str) -> &'static str {
    let (_, section) = README.split_once("## Train your own model").expect("README has the section");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let (_, block) = section.split_once(&format!("\n```{fence}\n")).expect("the section has the block");
    block.split_once("\n```").expect("the block ends").0
}

/// Runs one line of the README in `folder` and gives its standard output.
fn run(line: &str, folder: &Path) -> String {
    let mut words = line.split_whitespace();
    let program = match words.next() {
        Some("nightshift") => env!("CARGO_BIN_EXE_nightshift"),
        Some("nightshift-worker") => env!("CARGO_BIN_EXE_nightshift-worker"),
        other => panic!("{other:?} is no program of ours: {line}"),
    };
    let output = Command::new(program).args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_folder_of_pictures_is_trained_encrypted_run_and_decrypted_as_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(7);
    for (split, count) in [("train", 240), ("test", 40)] {
        for class in ["crosses", "rings"] {
            let place = folder.join("shapes").join(split).join(class);
            fs::create_dir_all(&place).unwrap();
            for index in 0..count {
                fs::write(place.join(format!("{index:03}.png")), png(&picture(class, &mut random))).unwrap();
            }
        }
    }
    fs::write(folder.join("shapes.toml"), block("toml")).unwrap();
    let commands = block("sh");
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run(line, folder);
    }

    let labels = fs::read_to_string(folder.join("labels.csv")).unwrap();
    let found: Vec<&str> = labels.lines().skip(1).map(|line| line.split(',').next_back().unwrap()).collect();
    assert_eq!(found.len(), 80, "{labels}");
    let right =
        found.iter().enumerate().filter(|(index, label)| **label == if *index < 40 { "0" } else { "1" }).count();
    assert!(right >= 76, "{right} of 80 labels are right: {labels}");
    let card = fs::read_to_string(folder.join("shapes.md")).unwrap();
    assert!(card.contains("crosses, rings") && card.contains("On 80 test images"), "{card}");
    assert!(fs::read_to_string(folder.join("shapes.svg")).unwrap().ends_with("</svg>\n"));
    assert!(!folder.join("shapes.checkpoint").exists());

    // Taught by that model in place of a teacher trained here; the package says by which.
    let taught = format!("{}\n[teacher]\nepochs = 1\n", block("toml"));
    fs::write(folder.join("taught.toml"), taught).unwrap();
    let line =
        "nightshift train taught.toml --data shapes/ --out taught.nsm --teacher shapes.nsm --log taught.jsonl --json";
    let report: serde_json::Value = serde_json::from_str(&run(line, folder)).unwrap();
    assert!(report["accuracy_integer"].as_f64().unwrap() >= 0.95, "{report}");
    let log = fs::read_to_string(folder.join("taught.jsonl")).unwrap();
    assert!(log.contains(r#""phase":"student""#) && !log.contains(r#""phase":"teacher""#), "{log}");
    let digest = blake3::hash(&fs::read(folder.join("shapes.nsm")).unwrap()).to_hex();
    let card = fs::read_to_string(folder.join("taught.md")).unwrap();
    assert!(card.contains(&format!("| teacher, given | shapes, BLAKE3 of its file `{digest}` |")), "{card}");
    assert!(fs::read(folder.join("shapes.nsm")).unwrap() != fs::read(folder.join("taught.nsm")).unwrap());

    // The card tells the commit that the program is of; the package's bytes do not depend on it.
    let commit = card.lines().find(|line| line.starts_with("| nightshift |")).unwrap();
    let commit = commit.trim_end_matches(" |").rsplit(", commit ").next().unwrap();
    let is_hex = |text: &str| text.len() == 40 && text.chars().all(|digit| digit.is_ascii_hexdigit());
    assert!(commit == "unknown" || is_hex(commit), "{commit}");
    if is_hex(commit) {
        let package = fs::read(folder.join("taught.nsm")).unwrap();
        assert!(!package.windows(40).any(|bytes| bytes == commit.as_bytes()), "the package holds the commit");
    }

    // Same recipe, same seed: same bytes, for any number of threads.
    run("nightshift train shapes.toml --data shapes/ --out again.nsm --threads 1", folder);
    assert!(fs::read(folder.join("shapes.nsm")).unwrap() == fs::read(folder.join("again.nsm")).unwrap());
}

/// A cross or a ring at a random place, of random size, with noise; grey, row by row.
fn picture(class: &str, random: &mut Random) -> Vec<u8> {
    let mut draw = |low: f64, high: f64| low + (high - low) * (random.signed() + 1.0) / 2.0;
    let (x, y, radius) = (draw(6.0, 9.0), draw(6.0, 9.0), draw(3.0, 5.5));
    let mut pixels = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (dx, dy) = ((column as f64 - x).abs(), (row as f64 - y).abs());
            let ink = match class {
                "rings" => (dx.hypot(dy) - radius).abs() < 1.0,
                _ => dx.min(dy) < 1.0 && dx.max(dy) < radius,
            };
            let value = if ink { 200.0 } else { 40.0 } + draw(-40.0, 40.0);
            pixels.push(value as u8);
        }
    }
    pixels
}

/// An 8-bit grey PNG of SIDE x SIDE pixels.
fn png(pixels: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], body: &[u8]| {
        let named = [kind, body].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&named);
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(&named);
        file.extend(crc.sum().to_be_bytes());
    };
    let side = (SIDE as u32).to_be_bytes();
    chunk(b"IHDR", &[&side[..], &side[..], &[8, 0, 0, 0, 0]].concat());
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for row in pixels.chunks_exact(SIDE) {
        packed.write_all(&[0]).unwrap();
        packed.write_all(row).unwrap();
    }
    chunk(b"IDAT", &packed.finish().unwrap());
    chunk(b"IEND", &[]);
    file
}

/// A recipe with tables: its ReLUs stay, and the package is the exact engine's.
#[cfg(feature = "exact")]
#[test]
fn a_recipe_with_tables_becomes_a_package_of_the_exact_engine() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(8);
    for (split, count) in [("train", 120), ("test", 40)] {
        for class in ["crosses", "rings"] {
            let place = folder.join("shapes").join(split).join(class);
            fs::create_dir_all(&place).unwrap();
            for index in 0..count {
                fs::write(place.join(format!("{index:03}.png")), png(&picture(class, &mut random))).unwrap();
            }
        }
    }
    fs::write(folder.join("shapes.toml"), format!("{}\n[tables]\nbits = 5\n", block("toml"))).unwrap();
    let train = |name: &str, threads: usize| {
        let line = format!("nightshift train shapes.toml --data shapes/ --out {name} --threads {threads} --json");
        serde_json::from_str::<serde_json::Value>(&run(&line, folder)).unwrap()
    };
    let report = train("a.nsm", 2);
    // A convolution of 16x16 with a 5x5 kernel and stride 2: 6x6 places of 4 channels.
    assert_eq!((&report["engine"], &report["bootstraps"]), (&"tfhe".into(), &144.into()), "{report}");
    assert!(report["accuracy_integer"].as_f64().unwrap() >= 0.9, "{report}");
    assert!(report["moved_tables"].as_f64().unwrap() > 0.0, "{report}");
    let card = fs::read_to_string(folder.join("a.md")).unwrap();
    assert!(card.contains("| programmable bootstraps, one a ReLU | 144 |"), "{card}");
    let evaluated = run("nightshift evaluate --model a.nsm --images shapes/ --json", folder);
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    for key in ["engine", "model_id", "accuracy_float", "accuracy_integer", "unsure_labels", "moved_tables"] {
        assert_eq!(evaluated[key], report[key], "{key}");
    }
    assert_eq!(train("b.nsm", 1)["model_id"], report["model_id"]);
    assert!(fs::read(folder.join("a.nsm")).unwrap() == fs::read(folder.join("b.nsm")).unwrap());
}
