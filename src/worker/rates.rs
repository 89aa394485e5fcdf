//! This machine's rates on disk: where they are looked for, when they count, and how `calibrate` makes them.
//!
//! A file that was named must be right. The one in the user's cache is a convenience: what is wrong with it is told, and a quick measurement
//! takes its place. Estimates only: no result depends on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jobs::digest::stamp_file;
use jobs::rates::{KernelRates, RatesFile, SCHEMA};
use jobs::{JobsError, atomic};

use super::WorkerError;
use crate::engine::rates::{fit, quick};
use crate::plan::defaults::defaults;
use crate::plan::rates::{Rates, Unit};
use crate::ring::kernels::Kernel;

/// Where rates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RatesSource {
    /// Measured by `calibrate`.
    File(PathBuf),
    /// The program's own figures, scaled by a quick measurement: there is no file.
    Quick,
    /// The same, because the file in the cache does not count.
    Ignored {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// `nightshift/rates.json` in the user's cache folder (`XDG_CACHE_HOME`, or `.cache` in `HOME`), if the environment names one.
#[must_use]
pub fn default_path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("nightshift").join("rates.json"))
}

/// Rates of a kernel: from the file named, or the one in the cache if it is of this machine, or measured quickly.
///
/// # Errors
/// [`WorkerError::Jobs`] if a file that was named cannot be read, is damaged, or lacks the kernel or a unit.
pub fn find(named: Option<&Path>, kernel: Kernel, threads: usize) -> Result<(Rates, RatesSource), WorkerError> {
    if let Some(path) = named {
        let rates = of_file(&RatesFile::load(path)?, kernel, threads)?;
        return Ok((rates, RatesSource::File(path.to_owned())));
    }
    let Some(path) = default_path().filter(|path| path.exists()) else {
        return Ok((quick(kernel, threads), RatesSource::Quick));
    };
    let found = RatesFile::load(&path).map_err(|error| error.to_string()).and_then(|file| {
        if file.machine != machine() {
            return Err(format!("it is of {:?}, this is {:?}", file.machine, machine()));
        }
        of_file(&file, kernel, threads).map_err(|error| error.to_string())
    });
    Ok(match found {
        Ok(rates) => (rates, RatesSource::File(path)),
        Err(reason) => (quick(kernel, threads), RatesSource::Ignored { path, reason }),
    })
}

fn of_file(file: &RatesFile, kernel: Kernel, threads: usize) -> Result<Rates, JobsError> {
    let lacks = |field: &str, expected: String| JobsError::Field {
        field: field.to_owned(),
        found: "nothing of it".to_owned(),
        expected,
    };
    let found = file.kernel(kernel.name()).ok_or_else(|| lacks("kernels", format!("rates of {}", kernel.name())))?;
    let mut rates = defaults(kernel, threads);
    rates.thread_loss = found.thread_loss;
    for unit in Unit::ALL {
        let secs = found.unit_secs.get(unit.name());
        let secs = secs.ok_or_else(|| lacks("unit_secs", format!("seconds of {:?}", unit.name())))?;
        rates.unit_secs.set(unit, *secs);
    }
    Ok(rates)
}

/// The processor and how many cores of it there are, as far as the system tells.
#[must_use]
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name: String = name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).chars().take(128).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{name}, {cores} core(s)")
}

/// Measures kernels, one after the other, and writes what was found (see [`fit`] for `stand_alone`); `observe` hears of each kernel before it is measured.
///
/// # Errors
/// [`WorkerError::Setup`] if memory or threads cannot be had, [`WorkerError::Jobs`] if the file cannot be written.
pub fn calibrate(
    path: &Path,
    kernels: &[Kernel],
    threads: usize,
    stand_alone: bool,
    observe: &dyn Fn(Kernel),
) -> Result<Vec<Rates>, WorkerError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|source| JobsError::Create { path: folder.to_owned(), source })?;
    let FileSecs { byte: byte_secs, batch: batch_secs, digest_byte } = file_secs(folder)?;
    let mut found = Vec::new();
    for &kernel in kernels {
        observe(kernel);
        let mut rates = fit(kernel, threads, stand_alone).map_err(|error| WorkerError::Setup(Box::new(error)))?;
        rates.unit_secs.set(Unit::ResultByte, byte_secs);
        rates.unit_secs.set(Unit::Batch, batch_secs);
        if !stand_alone {
            rates.unit_secs.set(Unit::DigestByte, digest_byte);
        }
        found.push(rates);
    }
    let kernels = found.iter().map(|rates| KernelRates {
        isa: rates.kernel.name().to_owned(),
        threads: rates.threads as u32,
        thread_loss: rates.thread_loss,
        unit_secs: BTreeMap::from(Unit::ALL.map(|unit| (unit.name().to_owned(), rates.unit_secs.get(unit)))),
    });
    let file = RatesFile {
        schema: SCHEMA.to_owned(),
        machine: machine(),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernels: kernels.collect(),
    };
    file.write(path)?;
    Ok(found)
}

/// What files take.
struct FileSecs {
    /// A byte written, synced and read again.
    byte: f64,
    /// A file besides.
    batch: f64,
    /// A byte of a file in the page cache whose digest is taken, reading included.
    digest_byte: f64,
}

/// Measured on a small and a large file.
fn file_secs(folder: &Path) -> Result<FileSecs, JobsError> {
    const SMALL_BYTES: usize = 1 << 20;
    const LARGE_BYTES: usize = 9 << 20;
    /// More than most processors' caches hold.
    const DIGEST_BYTES: usize = 96 << 20;
    let path = folder.join(".rates.probe");
    let secs_of = |bytes: usize| -> Result<f64, JobsError> {
        let content = vec![1; bytes];
        let mut secs: Vec<f64> = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            // Results are packed and their sections' digests taken before they are written.
            std::hint::black_box(blake3::hash(&content));
            atomic::write_atomic(&path, &content)?;
            stamp_file(&path)?;
            secs.push(start.elapsed().as_secs_f64());
        }
        secs.sort_by(f64::total_cmp);
        Ok(secs[1])
    };
    let digest_secs = || -> Result<f64, JobsError> {
        atomic::write_atomic(&path, &vec![1; DIGEST_BYTES])?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            stamp_file(&path)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let found = secs_of(SMALL_BYTES).and_then(|small| Ok((small, secs_of(LARGE_BYTES)?, digest_secs()?)));
    // A probe that cannot be removed is replaced by the next one.
    let _stays = std::fs::remove_file(&path);
    let (small, large, digest) = found?;
    let byte = ((large - small) / (LARGE_BYTES - SMALL_BYTES) as f64).max(1e-11);
    let batch = (small - byte * SMALL_BYTES as f64).max(1e-5);
    Ok(FileSecs { byte, batch, digest_byte: digest / DIGEST_BYTES as f64 })
}
