//! Fuzzing for stable compilers: seeded mutations of sound files, for seconds in the suite and as long as one likes by hand. Each target
//! must neither panic nor ask for more memory at once than its limit, whatever a file claims.
//!
//! `NIGHTSHIFT_FUZZ_SECS` is the time of all targets together (10 unless given), `NIGHTSHIFT_FUZZ_TARGETS=NAME,NAME` takes some of
//! them (several processes are several cores), `NIGHTSHIFT_FUZZ_SEED` begins elsewhere,
//! `NIGHTSHIFT_FUZZ_CORPUS` names a folder that the sound files are written to, for cargo-fuzz. What makes a target fail is kept in
//! `target/fuzz-failures/`.

#[path = "fuzz/corpus.rs"]
mod corpus;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nightshift::fuzz::{TARGETS, Target, reseal};
use nightshift::net::sample::Random;

/// The system's allocator, and the largest request since [`LARGEST`] was last set to zero.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Words and numbers at which parsers turn.
const TOKENS: [&[u8]; 24] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b"\n",
    b"\\",
    b"\0",
    b"-",
    b"..",
    b"/",
    b"null",
    b"1e999",
    b"-1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"nightshift.job/2",
    b"\xff\xff\xff\xff",
    b"\xff\xfe",
    b"NaN",
    b"[[batches]]",
];

/// One to eight changes. `other` is another sound file of the target.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    // A container's header is a small part of it and decides most.
    let region = if random.below(2) == 0 { bytes.len().min(4096) } else { bytes.len() };
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            bytes.extend_from_slice(other);
            continue;
        }
        let at = random.below(region.min(bytes.len()).max(1));
        let run = 1 + random.below(16.min(bytes.len() - at));
        match random.below(12) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes[at] = bytes[at].wrapping_add([1, 255, 16, 240][random.below(4)]),
            3 => bytes[at..at + run].fill([0, 0xff, b' ', b'9'][random.below(4)]),
            4 => drop(bytes.drain(at..at + run)),
            5 => {
                let copy = bytes[at..at + run].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
            7 => {
                let token = TOKENS[random.below(TOKENS.len())];
                let end = (at + token.len()).min(bytes.len());
                bytes.splice(at..end, token.iter().copied());
            }
            8 => bytes.truncate(at),
            9 if other.len() > at => {
                let end = (at + run).min(other.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&other[at..end]);
            }
            10 if other.len() > at => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at..]);
            }
            _ => number(random, bytes, at),
        }
    }
}

/// Replaces the decimal number at or after a place, where there is one near.
fn number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let Some(begin) = bytes[at..].iter().take(64).position(u8::is_ascii_digit).map(|skip| at + skip) else { return };
    let end =
        bytes[begin..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |length| begin + length);
    let value: u64 = std::str::from_utf8(&bytes[begin..end]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let new = match random.below(6) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value.wrapping_mul(4096),
        3 => 0,
        4 => 1 << random.below(64),
        _ => random.next_u64(),
    };
    bytes.splice(begin..end, new.to_string().into_bytes());
}

/// Runs the target; a fault is kept on disk and told.
fn hold(target: &Target, seed: u64, bytes: &[u8]) -> bool {
    LARGEST.store(0, Ordering::Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.takes)(bytes)));
    let largest = LARGEST.load(Ordering::Relaxed);
    let allowed = target.allocation_limit_bytes;
    if let (Ok(taken), true) = (&outcome, largest <= allowed) {
        return *taken;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz-failures");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}-{seed}.bin", target.name));
    fs::write(&path, bytes).unwrap();
    let why =
        if outcome.is_err() { "panicked".to_owned() } else { format!("asked for {largest} bytes, at most {allowed}") };
    panic!("target {}, seed {seed}: {why}; the input is {}", target.name, path.display());
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn mutated_files_neither_crash_nor_claim_memory() {
    let secs = setting("NIGHTSHIFT_FUZZ_SECS").unwrap_or(10);
    let first_seed = setting("NIGHTSHIFT_FUZZ_SEED").unwrap_or(1);
    let kept = std::env::var_os("NIGHTSHIFT_FUZZ_CORPUS");
    let picked = std::env::var("NIGHTSHIFT_FUZZ_TARGETS").ok();
    let picked: Option<BTreeSet<&str>> = picked.as_deref().map(|names| names.split(',').collect());
    let targets: Vec<&Target> = match &picked {
        None => TARGETS.iter().collect(),
        Some(names) => TARGETS.iter().filter(|target| names.contains(target.name)).collect(),
    };
    assert_eq!(targets.len(), picked.map_or(TARGETS.len(), |names| names.len()), "a target that is none was asked for");
    for target in &targets {
        let corpus = corpus::of(target.name);
        assert!(corpus.len() >= 2, "{} begins from two sound files at least", target.name);
        for (index, sound) in corpus.iter().enumerate() {
            assert!(hold(target, 0, sound), "{}: sound file {index} is not taken", target.name);
            if let Some(folder) = &kept {
                let folder = Path::new(folder).join(target.name);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(index.to_string()), sound).unwrap();
            }
        }
        let (mut runs, mut taken) = (0_u64, 0_u64);
        let until = Instant::now() + Duration::from_secs(secs) / targets.len() as u32;
        let mut seed = first_seed;
        while runs == 0 || Instant::now() < until {
            // One seed, one input: a failure is found again by its number.
            let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
            let mut bytes = corpus[random.below(corpus.len())].clone();
            let other = &corpus[random.below(corpus.len())];
            mutate(&mut random, &mut bytes, other);
            if target.is_container && random.below(4) != 0 {
                reseal(&mut bytes);
            }
            taken += u64::from(hold(target, seed, &bytes));
            runs += 1;
            seed += 1;
        }
        println!("{:>16}: {runs} inputs, {taken} of them taken", target.name);
    }
}

#[test]
fn mended_digests_are_taken_and_others_left_alone() {
    let container = TARGETS.iter().find(|target| target.name == "container").unwrap();
    let sound = corpus::of("container").swap_remove(0);
    let mut mended = sound.clone();
    reseal(&mut mended);
    assert_eq!(mended, sound, "sound digests are as they should be");
    let last = sound.len() - 1;
    mended[last] ^= 1;
    assert!(!(container.takes)(&mended));
    reseal(&mut mended);
    assert!((container.takes)(&mended), "behind a mended digest lies what was changed");
    for mut bytes in [Vec::new(), vec![0xff; 40], b"{}".to_vec(), sound[..5000].to_vec()] {
        reseal(&mut bytes);
    }
}

#[test]
fn cargo_fuzz_has_every_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let listed: BTreeSet<&str> = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1)).collect();
    let named: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(listed, named);
    for name in named {
        let text = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("nightshift::fuzz::run(\"{name}\", data)")), "{name}");
    }
}
