//! Tells the program which commit it is built from, for receipts and metrics: `NIGHTSHIFT_COMMIT` where it is set, else, in
//! release builds, what `.git` says. Reads files only: neither git nor a checkout is needed, and without either nothing is told.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NIGHTSHIFT_COMMIT");
    // Test builds are made between commits: they would be made again after each one.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = std::env::var("NIGHTSHIFT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = match given {
        Some(given) if !is_commit(&given) => {
            println!("cargo:warning=NIGHTSHIFT_COMMIT is {given:?}, expected 40 or 64 lower-case hexadecimal digits");
            std::process::exit(1);
        }
        Some(given) => Some(given),
        None if is_release => checked_out(),
        None => None,
    };
    // Empty is "not known", whatever the environment of the compiler says.
    println!("cargo:rustc-env=NIGHTSHIFT_COMMIT={}", commit.unwrap_or_default());
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

/// The commit of `HEAD`, by the files that git keeps (gitrepository-layout): a loose reference, a packed one, or a bare id.
fn checked_out() -> Option<String> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?).join(".git");
    // In a worktree `.git` is a file that names the folder.
    let folder = match fs::read_to_string(&root) {
        Ok(text) => PathBuf::from(text.strip_prefix("gitdir: ")?.trim_end()),
        Err(_) => root,
    };
    let common = match fs::read_to_string(folder.join("commondir")) {
        Ok(text) => folder.join(text.trim_end()),
        Err(_) => folder.clone(),
    };
    let head = watched(&folder.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head).filter(|id| is_commit(id)) };
    let loose = watched(&common.join(name));
    loose
        .or_else(|| {
            let packed = watched(&common.join("packed-refs"))?;
            let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, found)| found == name))?;
            Some(line.split_once(' ')?.0.to_owned())
        })
        .filter(|id| is_commit(id))
}

fn watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text.trim_end().to_owned())
}
