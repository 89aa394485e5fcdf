//! The floor test: reads every source file of the workspace and holds it to ARCHITECTURE.md, who may import whom, one
//! door for each outside crate, `unsafe` in two places, no secret in the worker. Test code is exempt.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/scan.rs"]
mod scan;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_house_keeps_its_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "packing/src", "jobs/src"] {
        rust_files(&root.join(folder), &mut files);
    }
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    let sources: Vec<(String, String)> = files.iter().map(read).collect();
    for room in ["src/ring/", "src/ckks/", "src/net/", "src/format/", "src/bin/", "packing/src/", "jobs/src/"] {
        assert!(sources.iter().any(|(path, _)| path.starts_with(room)), "no file found in {room}");
    }
    let test_only: BTreeSet<String> =
        sources.iter().flat_map(|(path, text)| rules::test_only_files(path, text)).collect();
    let is_test = |path: &str| {
        test_only.iter().any(|place| path == place || place.ends_with('/') && path.starts_with(place.as_str()))
    };
    let violations: Vec<String> =
        sources.iter().filter(|(path, _)| !is_test(path)).flat_map(|(path, text)| rules::check(path, text)).collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// File, text planted in it, and what the one line of complaint must hold.
const PLANTED: [(&str, &str, &str); 50] = [
    (
        "src/net/balance.rs",
        "fn f(x: f64) -> f64 { x.powf(0.5) }",
        "room `net` names `powf`; allowed: + - * / sqrt and round",
    ),
    ("src/ring/ntt.rs", "use crate::ckks::Context;", ":1: room `ring` imports `ckks`; allowed: nothing of ours"),
    ("src/ring/ntt.rs", "\n\nfn f() { crate::net::g() }", "src/ring/ntt.rs:3: room `ring` imports `net`"),
    ("src/ring/mod.rs", "use super::ckks::Context;", "`ring` imports `ckks`"),
    ("src/ring/kernels/avx.rs", "use super::super::super::plan;", "`ring` imports `plan`"),
    ("src/ring/mod.rs", "mod inner { use super::super::ckks; }", "`ring` imports `ckks`"),
    ("src/ring/mod.rs", "use self::super::net::Layer;", "`ring` imports `net`"),
    ("src/ring/mod.rs", "use super::*;", "imports the whole of `crate`"),
    ("src/ring/mod.rs", "use crate as root;", "imports the whole of `crate`"),
    ("src/ring/mod.rs", "use crate::{ring::ntt, format::{map, pack}};", "`ring` imports `format`"),
    ("src/ckks/keys.rs", "use packing::Batch;", "`ckks` imports `packing`; allowed: ring"),
    ("src/ckks/keys.rs", "fn f() -> ::packing::Batch { todo() }", "`ckks` imports `packing`"),
    ("src/ckks/keys.rs", "#[derive(serde::Serialize)] struct K;", "`ckks` imports `serde`"),
    ("src/ckks/keys.rs", "use rayon::prelude::*;", "`ckks` imports `rayon`; allowed: src/engine/, src/exact/"),
    ("src/ckks/keys.rs", "extern crate rayon;", "`ckks` imports `rayon`"),
    ("src/ckks/keys.rs", "use std::{io, fs::File};", "`ckks` imports `std::fs`"),
    ("src/ckks/keys.rs", "use std as s; fn f() { s::fs::read(p); }", "`ckks` imports `std::fs`"),
    ("src/net/lower.rs", "fn f() { let x = std::fs::read(p); }", "`net` imports `std::fs`"),
    ("src/net/lower.rs", "use crate::ring::Modulus;", "`net` imports `ring`; allowed: packing"),
    ("src/net/lower.rs", "use jobs::Digest;", "`net` imports `jobs`"),
    ("src/train/fit.rs", "use crate::engine::Run;", "`train` imports `engine`"),
    ("src/plan/cost.rs", "use crate::ckks::secret::SecretKey;", "`plan` imports `ckks::secret`"),
    ("src/plan/cost.rs", "use crate::ckks::secret_seed;", "`plan` imports `ckks::secret_seed`"),
    ("src/plan/cost.rs", "use crate::ckks::{self}; fn f(k: ckks::keys::EvalKey) {}", "`plan` imports `ckks::keys`"),
    ("src/plan/cost.rs", "use crate::ckks as scheme; type K = scheme::keys::K;", "`plan` imports `ckks::keys`"),
    ("src/plan/cost.rs", "fn f() { std::time::Instant::now(); }", "`plan` imports `std::time`"),
    ("src/plan/cost.rs", "use crate::format::map;", "`plan` imports `format`"),
    ("src/format/pack.rs", "use crate::engine::Tile;", "`format` imports `engine`"),
    ("src/format/pack.rs", "use memmap2::Mmap;", "`format` imports `memmap2`; allowed: src/format/map.rs"),
    ("src/engine/tile.rs", "use crate::client::keygen;", "`engine` imports `client`"),
    ("src/engine/tile.rs", "use crate::ckks::SecretKey;", "`engine` names `SecretKey`"),
    ("src/engine/tile.rs", "fn f(secret_key: u8) {}", "`engine` names `secret_key`"),
    ("src/engine/tile.rs", "use safetensors::SafeTensors;", "`engine` imports `safetensors`; allowed: src/format/"),
    ("src/exact/engine.rs", "use super::secret::SecretKey;", "`exact` names `secret`"),
    ("src/exact/keys.rs", "use crate::format::lwe;", "`exact` imports `format`; allowed: net, ring"),
    ("src/worker/exact.rs", "use crate::exact::secret::SecretKey;", "`worker` imports `exact::secret`"),
    ("src/worker/exact.rs", "use tfhe::core_crypto::prelude::*;", "`worker` imports `tfhe`; allowed: src/exact/"),
    ("src/format/lwe.rs", "use crate::exact::PARAMETERS;", "`format` imports `exact`"),
    ("src/worker/run.rs", "fn f() { info!(\"{}\", crate::client::g()); }", "`worker` imports `client`"),
    ("src/worker/run.rs", "use crate::train::fit;", "`worker` imports `train`"),
    ("src/client/decrypt.rs", "use crate::worker::run;", "`client` imports `worker`"),
    ("src/client/decrypt.rs", "use crate::engine::Run;", "`client` imports `engine`"),
    ("src/client/decrypt.rs", "use clap::Parser;", "`client` imports `clap`; allowed: src/cli/, src/bin/"),
    ("src/cli/table.rs", "use tracing_subscriber::fmt;", "`cli` imports `tracing_subscriber`"),
    ("src/cli/table.rs", "fn f() { unsafe { g() } }", ":1: `unsafe`; allowed: src/ring/kernels/, src/format/map.rs"),
    ("src/ring/extend.rs", "use tfhe_ntt::prime64::Plan;", "`ring` imports `tfhe_ntt`; allowed: src/ring/ntt.rs"),
    ("src/bin/nightshift-worker.rs", "use nightshift::ckks::secret::SecretKey;", "names `secret`"),
    ("packing/src/lib.rs", "use jobs::Digest;", "`packing` imports `jobs`; allowed: nothing of ours"),
    ("jobs/src/receipt.rs", "use nightshift::ring;", "`jobs` imports `ring`"),
    ("src/helpers.rs", "", "room `helpers` is not in the table"),
];

#[test]
fn every_planted_violation_is_caught() {
    for (path, text, expected) in PLANTED {
        let found = rules::check(path, text);
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text:?} gave {found:?}, not {expected:?}");
    }
    let long = "// a line\n".repeat(601);
    assert_eq!(rules::check("src/net/long.rs", &long), ["src/net/long.rs:601: 601 lines; allowed: 600"]);
    assert!(rules::check("src/net/x.rs", "fn f( {").iter().any(|line| line.contains("not Rust")));
}

/// Honest files that a coarser reader would complain about.
const HONEST: [(&str, &str); 16] = [
    ("src/ring/ntt.rs", "use tfhe_ntt::prime64::Plan; use super::modulus::Modulus; use crate::ring::Poly;"),
    ("src/ring/ntt.rs", "//! See crate::engine.\n/* use crate::net; */ /// [`crate::plan`]\nfn f() {}"),
    ("src/ring/ntt.rs", "const S: &str = \"use crate::net;\"; const R: &str = r#\"crate::ckks::\"x\"\"#;"),
    ("src/ring/ntt.rs", "#[cfg(test)]\nmod tests { use crate::ckks::Context; use std::fs; }"),
    ("src/ring/ntt.rs", "#[cfg(all(test, unix))]\n#[inline]\nfn f() { crate::net::g() }"),
    ("src/ring/kernels/avx.rs", "unsafe fn f() {} use super::super::modulus;"),
    ("src/ring/mod.rs", "pub(crate) mod a; pub(super) fn f() {} pub(in crate::ring) fn g() {}"),
    ("src/ring/mod.rs", "#![forbid(unsafe_code)] mod inner { use super::ntt; }"),
    ("src/format/map.rs", "use memmap2::Mmap; fn f() { unsafe { g() } } use std::fs::File;"),
    ("src/format/pack.rs", "use crate::ckks::secret::SecretSeed; use safetensors::View;"),
    ("src/engine/tile.rs", "/// Holds no secret.\nuse rayon::prelude::*; use crate::{plan::Program, ckks::keys};"),
    ("src/plan/cost.rs", "use crate::ckks::parameters::Parameters; use crate::net::circuit; use std::collections;"),
    ("src/worker/run.rs", "use jobs::{Receipt, manifest}; use crate::engine::Run; fn f<T>() -> impl Sized + use<T> {}"),
    ("src/client/decrypt.rs", "use crate::ckks::secret::SecretKey; use jobs::Receipt; use crate::plan;"),
    ("src/cli/logging.rs", "use tracing_subscriber::fmt; use clap::Parser; use crate::{client, worker};"),
    ("jobs/src/receipt.rs", "use crate::manifest; use std::fs; use serde::Serialize; mod a { use super::manifest; }"),
];

#[test]
fn honest_files_pass() {
    for (path, text) in HONEST {
        assert_eq!(rules::check(path, text), Vec::<String>::new(), "{path}: {text:?}");
    }
}

#[test]
fn a_cfg_test_item_hides_only_itself() {
    let text = "#[cfg(test)] use crate::net::A;\nuse crate::ckks::B;\n#[cfg(any(test, unix))] use crate::plan::C;";
    let found = rules::check("src/ring/a.rs", text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("a.rs:2: room `ring` imports `ckks`"), "{found:?}");
    assert!(found[1].contains("a.rs:3: room `ring` imports `plan`"), "{found:?}");
}

#[test]
fn files_of_test_modules_are_known_by_their_declaration() {
    let declared = rules::test_only_files("src/ckks/mod.rs", "mod keys; #[cfg(test)] mod tests; mod secret;");
    assert_eq!(declared, ["src/ckks/tests.rs", "src/ckks/tests/"]);
    assert_eq!(rules::test_only_files("jobs/src/lib.rs", "#[cfg(test)] mod samples;")[0], "jobs/src/samples.rs");
    assert!(rules::test_only_files("src/ckks/mod.rs", "mod tests;").is_empty());
}
