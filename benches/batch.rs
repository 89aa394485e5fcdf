//! The worker's whole run on one full batch, file to file (page cache warm): the amortised throughput that this project exists for.
//!
//! `cargo bench --bench batch`: the bundled model on digits drawn by the demo's renderer, every kernel tier present, one thread and all. With
//! `NIGHTSHIFT_MODEL=M.nsm` another model, on random pixels. Criterion prints images a second as `elem/s`; the peak memory of the
//! process and the bytes an image are printed beside it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput};
use nightshift::cli::digits::render_digits;
use nightshift::client::{self, EncryptRequest};
use nightshift::format::ModelPackage;
use nightshift::net::sample::Random;
use nightshift::plan::{Requirements, scales};
use nightshift::ring::kernels::Kernel;
use nightshift::worker::{self, CHECKPOINT_AFTER, RunRequest};
use packing::{ImageSet, Pixels};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn model_path() -> PathBuf {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/models/mnist-cryptonets.nsm");
    std::env::var_os("NIGHTSHIFT_MODEL").map_or(PathBuf::from(bundled), PathBuf::from)
}

/// A full batch for the model: digits where they fit, else random pixels.
fn images(shape: [usize; 3], count: usize) -> Outcome<ImageSet> {
    let pixels = if shape == [1, 28, 28] {
        render_digits(count, 1).0
    } else {
        let mut random = Random::new(1);
        (0..count * shape.iter().product::<usize>()).map(|_| random.below(256) as u8).collect()
    };
    Ok(ImageSet::new(shape, Pixels::Bytes(pixels))?)
}

/// Keys and an encrypted job of one full batch; its manifest.
fn prepare(folder: &Path, model: &ModelPackage, slots: usize, threads: NonZeroUsize) -> Outcome<PathBuf> {
    let keys = folder.join("keys");
    client::keygen(model, &Requirements::default(), &keys, Kernel::detect())?;
    let job = folder.join("job");
    let request = EncryptRequest {
        key_path: &keys.join("secret.key"),
        model_path: &model_path(),
        model,
        images: &images(model.circuit.input_shape, slots)?,
        out_dir: &job,
        eval_key_path: None,
        threads,
        kernel: Kernel::detect(),
        limit: None,
        requirements: &Requirements::default(),
        created: "2026-01-01T00:00:00Z",
        tenant: None,
        queue: None,
        signing: None,
    };
    client::encrypt(&request, &|_| {})?;
    Ok(job.join("job.toml"))
}

#[expect(clippy::print_stdout, reason = "figures that Criterion has no place for")]
fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let model = ModelPackage::open(&model_path())?;
    let plan = scales::plan(&model.circuit, &Requirements::default())?;
    let folder = tempfile::tempdir()?;
    let cores = std::thread::available_parallelism()?;
    let job_path = prepare(folder.path(), &model, plan.slots(), cores)?;

    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(plan.slots() as u64));
    let mut counts = vec![1, cores.get()];
    counts.dedup();
    for kernel in Kernel::present() {
        for &threads in &counts {
            let (log_n, limbs) = (plan.slots().ilog2(), plan.input_limbs());
            let name =
                format!("logN={log_n}/limbs={limbs}/isa={}/threads={threads}/{}", kernel.name(), model.network.name);
            let request = RunRequest {
                job_path: job_path.clone(),
                model: None,
                eval_key: None,
                threads,
                memory_limit_bytes: None,
                kernel,
                rates: None,
                checkpoint_after: CHECKPOINT_AFTER,
            };
            group.bench_function(&name, |bencher| {
                bencher.iter(|| {
                    // A finished job is not run again: take its receipt away, as if it had never run.
                    let report = worker::run(&request, &|_| {}).expect("the job was made by this program");
                    std::fs::remove_file(&report.receipt_path).expect("the receipt was just written");
                    assert!(!report.already_done);
                });
            });
        }
    }
    group.finish();
    let input = std::fs::metadata(job_path.with_file_name("batch-0000.in.nsc"))?.len();
    let slots = plan.slots() as u64;
    println!(
        "upload {} bytes an image; peak memory of this process {} MB",
        input / slots,
        worker::peak_bytes() / 1_000_000
    );
    criterion.final_summary();
    Ok(())
}
