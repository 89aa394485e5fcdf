//! Who may import whom, as tables: read them beside ARCHITECTURE.md. The engine is a function of a path and a text, so
//! that the tests can plant a violation and see it caught.

use crate::scan::{NamedPath, scan};

/// Lines a source file may have.
const LINES_LIMIT: usize = 600;

/// Room -> rooms below it that it may name. `*` in the list means all of ours.
const ROOMS: [(&str, &[&str]); 16] = [
    ("packing", &[]),
    ("jobs", &[]),
    ("ring", &[]),
    ("ckks", &["ring"]),
    ("net", &["packing"]),
    ("plan", &["net", "ckks", "ring", "packing"]),
    ("format", &["net", "ckks", "ring", "packing"]),
    ("engine", &["plan", "format", "net", "ckks", "ring", "packing"]),
    ("exact", &["net", "ring"]),
    ("train", &["net", "packing"]),
    ("client", &["exact", "plan", "format", "net", "ckks", "ring", "packing", "jobs"]),
    ("worker", &["engine", "exact", "plan", "format", "net", "ckks", "ring", "packing", "jobs"]),
    ("cli", &["*"]),
    ("fuzz", &["*"]),
    ("bin", &["*"]),
    ("lib", &["*"]),
];

/// Outside path -> the files and folders that may name it.
const DOORS: [(&str, &[&str]); 16] = [
    ("tfhe", &["src/exact/"]),
    ("tfhe_ntt", &["src/ring/ntt.rs"]),
    ("ed25519_dalek", &["jobs/src/signing.rs"]),
    ("memmap2", &["src/format/map.rs"]),
    ("rayon", &["src/engine/", "src/exact/", "src/train/"]),
    ("clap", &["src/cli/", "src/bin/"]),
    ("clap_complete", &["src/cli/", "src/bin/"]),
    ("tracing_subscriber", &["src/bin/", "src/cli/logging.rs"]),
    ("safetensors", &["src/format/", "src/train/checkpoint.rs"]),
    ("indicatif", &["src/cli/"]),
    ("rustix", &["src/format/writer.rs", "src/worker/memory.rs"]),
    ("signal_hook", &["src/cli/signals.rs"]),
    ("object_store", &["jobs/src/store/", "jobs/src/queue/bucket.rs"]),
    ("sqlx", &["jobs/src/queue/postgres.rs", "jobs/src/queue/postgres/"]),
    ("tokio", &["jobs/src/store/objects.rs", "jobs/src/queue/postgres.rs"]),
    ("rustls", &["jobs/src/queue/bucket.rs"]),
];

/// Outside path -> rooms that may not name it.
const CLOSED: [(&str, &[&str]); 3] =
    [("serde", &["ring", "ckks"]), ("std::fs", &["ring", "ckks", "net", "plan"]), ("std::time", &["plan"])];

/// The only files and folders where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["src/ring/kernels/", "src/format/map.rs"];

/// Where no identifier may begin with `secret`: what ends up in the worker's binary.
const NO_SECRET: [&str; 4] = ["src/engine/", "src/exact/engine.rs", "src/worker/", "src/bin/nightshift-worker.rs"];

/// What `src/net/` may not call: functions of the mathematics library, whose last bits differ between machines. Packages
/// rely on a lowering that gives the same bits everywhere.
const INEXACT: [&str; 19] = [
    "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "powf", "powi", "cbrt", "hypot", "sin", "cos",
    "sin_cos", "tan", "atan", "atan2", "tanh",
];

/// What is wrong with this file, one readable line each: `file:line: room `x` imports `y`; allowed: ..`.
pub fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_LIMIT {
        found.push(format!("{path}:{lines}: {lines} lines; allowed: {LINES_LIMIT}"));
    }
    let room = room_of(path);
    let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        let known = ROOMS.map(|(name, _)| name).join(", ");
        found.push(format!("{path}:1: room `{room}` is not in the table; known: {known}"));
        return found;
    };
    let scan = match scan(text, &module_of(path)) {
        Ok(scan) => scan,
        Err(problem) => {
            found.push(format!("{path}:1: {problem}"));
            return found;
        }
    };
    for (line, ident) in &scan.idents {
        if ident == "unsafe" && !is_under(path, &UNSAFE) {
            found.push(format!("{path}:{line}: `unsafe`; allowed: {}", UNSAFE.join(", ")));
        }
        if room == "net" && INEXACT.contains(&ident.as_str()) {
            found.push(format!("{path}:{line}: room `net` names `{ident}`; allowed: + - * / sqrt and round"));
        }
        if ident.to_lowercase().starts_with("secret") && is_under(path, &NO_SECRET) {
            found.push(format!("{path}:{line}: room `{room}` names `{ident}`; allowed: nothing secret"));
        }
    }
    for named in &scan.paths {
        let problem = room_problem(&room, below, named).or_else(|| door_problem(path, &room, named));
        if let Some(problem) = problem {
            found.push(format!("{path}:{}: {problem}", named.line));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Module files that only tests compile, as paths under `src/`.
pub fn test_only_files(path: &str, text: &str) -> Vec<String> {
    let modules = scan(text, &module_of(path)).map(|scan| scan.test_modules).unwrap_or_default();
    let source = path.find("src/").map_or("", |at| &path[..at + 4]);
    let files = |module: Vec<String>| {
        let stem = format!("{source}{}", module.join("/"));
        [format!("{stem}.rs"), format!("{stem}/")]
    };
    modules.into_iter().flat_map(files).collect()
}

fn room_problem(room: &str, below: &[&str], named: &NamedPath) -> Option<String> {
    let (target, inner) = target_of(named)?;
    let allowed = if below.is_empty() { "nothing of ours".to_owned() } else { below.join(", ") };
    if below.contains(&"*") || target == room {
        return None;
    }
    if target.is_empty() {
        return named.in_use.then(|| format!("room `{room}` imports the whole of `crate`; allowed: {allowed}"));
    }
    let is_room = ROOMS.iter().any(|(name, _)| *name == target);
    if is_room && !below.contains(&target) {
        return Some(format!("room `{room}` imports `{target}`; allowed: {allowed}"));
    }
    let is_secret = inner.is_some_and(|inner| inner.to_lowercase().starts_with("secret"));
    let is_keys = target == "ckks" && inner == Some("keys");
    if ["plan", "engine", "worker"].contains(&room) && is_secret || room == "plan" && is_keys {
        let inner = inner.unwrap_or_default();
        return Some(format!("room `{room}` imports `{target}::{inner}`; allowed: `{target}` without it"));
    }
    None
}

/// The room of ours a path leads to and the name behind it; the room is empty for the crate's root.
fn target_of(named: &NamedPath) -> Option<(&str, Option<&str>)> {
    let names: Vec<&str> = named.segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["crate" | "nightshift"] => Some(("", None)),
        ["crate" | "nightshift", room, rest @ ..] => Some((room, rest.first().copied())),
        [room @ ("packing" | "jobs"), rest @ ..] => Some((room, rest.first().copied())),
        _ => None,
    }
}

fn door_problem(path: &str, room: &str, named: &NamedPath) -> Option<String> {
    let full = named.segments.join("::");
    let is_in = |outside: &str| full == outside || full.starts_with(&format!("{outside}::"));
    for (outside, doors) in DOORS {
        if is_in(outside) && !is_under(path, doors) {
            return Some(format!("room `{room}` imports `{outside}`; allowed: {}", doors.join(", ")));
        }
    }
    for (outside, closed) in CLOSED {
        if is_in(outside) && closed.contains(&room) {
            return Some(format!("room `{room}` imports `{outside}`; allowed: everywhere but {}", closed.join(", ")));
        }
    }
    None
}

fn is_under(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

/// `src/ring/ntt.rs` -> `ring`; the crates beside `src` are one room each.
fn room_of(path: &str) -> String {
    let inside = match path.split_once("/src/") {
        Some((member, _)) => return member.to_owned(),
        None => path.strip_prefix("src/").unwrap_or(path),
    };
    let first = inside.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// `src/ring/ntt.rs` -> `[ring, ntt]`; a crate's root and the mains are empty.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.rsplit_once("src/").map_or(path, |(_, inside)| inside);
    if inside.starts_with("bin/") {
        return Vec::new();
    }
    let stem = inside.strip_suffix(".rs").unwrap_or(inside);
    let names = stem.split('/').filter(|name| !["mod", "lib"].contains(name));
    names.map(str::to_owned).collect()
}
