//! The worker's binary contains no decryption: the symbols that the linker kept are read out of both binaries, and the
//! functions of the client and of the scheme's secret half are in `nightshift` and not in `nightshift-worker`. Debug
//! information is not searched, since it also names functions that were dropped; nor are instances of other crates'
//! functions and trait methods (drop glue, iterators), a few of which an unoptimised link keeps though nothing calls
//! them. Code that was inlined whole leaves no symbol; that the worker cannot name it is the floor test's part.

use std::fs;

/// Modules whose functions the worker must not have; a last name that ends in `*` may go on.
const FORBIDDEN: [&[&str]; 3] =
    [&["nightshift", "ckks", "secret*"], &["nightshift", "exact", "secret*"], &["nightshift", "client"]];

#[test]
fn the_worker_binary_contains_no_decryption() {
    let Some(worker) = symbols(env!("CARGO_BIN_EXE_nightshift-worker")) else {
        println!("skipped: the binaries here are not 64-bit little-endian ELF");
        return;
    };
    let client = symbols(env!("CARGO_BIN_EXE_nightshift")).expect("both binaries have one format");
    // A stripped binary would show nothing either way.
    assert!(count(&worker, &["nightshift", "worker"]) > 0, "the worker's own symbols are not in its binary");
    assert!(count(&worker, &["nightshift", "engine"]) > 0, "the engine's symbols are not in the worker's binary");
    for path in FORBIDDEN {
        let name = path.join("::");
        // A build without the exact engine has neither half of it.
        let is_built = cfg!(feature = "exact") || path[1] != "exact";
        assert!(!is_built || count(&client, path) > 0, "`{name}` is not found where it must be, in nightshift");
        let found = matching(&worker, path);
        assert!(found.is_empty(), "`{name}` is in nightshift-worker: {found:#?}");
    }
}

#[test]
fn mangled_names_of_both_schemes_are_recognised() {
    let secret = ["nightshift", "ckks", "secret*"];
    for name in [
        "_ZN10nightshift4ckks6secret9SecretKey7decrypt17h0123456789abcdefE",
        "_ZN10nightshift4ckks11secret_seed6expand17h0123456789abcdefE",
        "_RNvMNtNtCs1234_10nightshift4ckks6secretNtB2_9SecretKey7decrypt",
        "_RINvNtNtCs1234_10nightshift4ckks6secret6expandyE",
        "_RNCNvMNtNtCs1234_10nightshift4ckks6secretNtB4_9SecretKey7decrypt0",
    ] {
        assert!(names(name, &secret), "{name}");
    }
    for name in [
        "_ZN10nightshift4ckks6public9PublicKey7encrypt17h0123456789abcdefE",
        "_ZN10nightshift6engine6secret3run17h0123456789abcdefE",
        "_ZN10nightshift4ckks7unsecret3run17h0123456789abcdefE",
        "_RINvNtCs12_4core3ptr13drop_in_placeNtNtNtCs1234_10nightshift4ckks6secret9SecretKeyE",
        "_RNvXs_NtNtCs1234_10nightshift4ckks6secretNtB4_9SecretKeyNtNtNtCs12_4core3ops4drop4Drop4drop",
        "_ZN4core3ptr56drop_in_place$LT$nightshift..ckks..secret..SecretKey$GT$17h0123456789abcdefE",
        "_ZN10nightshift4ckks3secret17h0123456789abcdefE",
    ] {
        assert!(!names(name, &secret), "{name}");
    }
    assert!(names("_RNvNtCs1234_10nightshift6client7decrypt", &["nightshift", "client"]));
    assert!(!names("_ZN5hyper6client4send17h0123456789abcdefE", &["nightshift", "client"]));
}

fn count(symbols: &[String], path: &[&str]) -> usize {
    symbols.iter().filter(|symbol| names(symbol, path)).count()
}

fn matching(symbols: &[String], path: &[&str]) -> Vec<String> {
    symbols.iter().filter(|symbol| names(symbol, path)).take(10).cloned().collect()
}

/// Whether a mangled name is that of something defined under this path.
fn names(symbol: &str, path: &[&str]) -> bool {
    let Some(mut rest) = own_path(symbol) else { return false };
    path.iter().all(|wanted| match counted_name(rest) {
        Some((name, after)) => {
            rest = after;
            wanted.strip_suffix('*').map_or(name == *wanted, |beginning| name.starts_with(beginning))
        }
        None => false,
    })
}

/// From the defining crate's name on: behind `_ZN` in the legacy scheme, behind the first crate root (`Cs`, a number in
/// base 62, `_`) in v0 (RFC 2603), where `X` and `Y` before it mean a trait's method.
fn own_path(symbol: &str) -> Option<&str> {
    if let Some(legacy) = symbol.strip_prefix("_ZN") {
        return Some(legacy);
    }
    let (before, root) = symbol.strip_prefix("_R")?.split_once("Cs")?;
    if before.contains(['X', 'Y']) {
        return None;
    }
    root.split_once('_').map(|(_, path)| path)
}

/// `6secret..` -> (`secret`, `..`). The v0 scheme parts length and name by `_` where the name could be misread.
fn counted_name(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let length: usize = text[..digits].parse().ok()?;
    let rest = &text[digits..];
    let rest = if rest.get(..length)?.starts_with('_') { &rest[1..] } else { rest };
    Some((rest.get(..length)?, &rest[length..]))
}

/// The names in an ELF file's `.symtab` (System V ABI, chapter 4); `None` for another format.
fn symbols(path: &str) -> Option<Vec<String>> {
    const SHT_SYMTAB: u64 = 2;
    let bytes = fs::read(path).expect("cargo has built the binary");
    if bytes.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let number = |at: usize, width: usize| -> usize {
        bytes[at..at + width].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    };
    let (sections_at, section_bytes, section_count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    // Offset and length of a section's content, and the section it links to.
    let section = |index: usize| {
        let header = sections_at + index * section_bytes;
        (number(header + 4, 4) as u64, number(header + 0x18, 8), number(header + 0x20, 8), number(header + 0x28, 4))
    };
    let mut found = Vec::new();
    for (_, symbols_at, symbols_bytes, strings) in (0..section_count).map(section).filter(|s| s.0 == SHT_SYMTAB) {
        let (_, strings_at, strings_bytes, _) = section(strings);
        let table = &bytes[strings_at..strings_at + strings_bytes];
        for symbol_at in (symbols_at..symbols_at + symbols_bytes).step_by(24) {
            let name = &table[number(symbol_at, 4)..];
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            found.push(String::from_utf8_lossy(&name[..end]).into_owned());
        }
    }
    Some(found)
}
