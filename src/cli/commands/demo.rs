//! `demo`: every step in order, from a model to labels, and what each took. The worker is called in this process, but is
//! given the job folder only.

mod compare;
mod steps;

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use packing::{ImageSet, Limits, Pixels, Split, open_dataset_dir};

use super::{Context, Report, run};
use crate::cli::args::DemoArgs;
use crate::cli::digits::{SIDE, render_digits};
use crate::cli::error::CliError;
use crate::cli::oracles;
use crate::cli::time::rfc3339;
use crate::client::{self, DecryptRequest, EncryptRequest};
use crate::format::ModelPackage;
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;
use crate::worker::{self, RunRequest};
use compare::compare;
use steps::{Figures, Steps};

/// The model that comes with the program.
static BUNDLED: &[u8] = include_bytes!("../../../models/mnist-cryptonets.nsm");

/// Runs all steps, compares, and tells.
///
/// # Errors
/// Those of the single commands; labels that differ from the integer oracle's although the logits are not close.
pub fn run(args: &DemoArgs, context: &Context) -> Result<Report, CliError> {
    let (_temporary, folder) = workdir(args)?;
    let mut steps = Steps::new();
    let model_path = match &args.model {
        Some(path) => path.clone(),
        None => {
            let path = folder.join("model.nsm");
            // A folder that was given may hold the user's own file of this name.
            jobs::atomic::create_atomic(&path, BUNDLED)?;
            path
        }
    };
    let package = ModelPackage::open(&model_path)?;
    let requirements = Requirements::default();
    let plan = scales::plan(&package.circuit, &requirements)?;
    steps.end("plan");

    let set = images(args, &package)?;
    let Some(truth) = set.labels.clone() else {
        return Err(CliError::NoLabels { path: args.data.clone().unwrap_or_default() });
    };
    steps.end(if args.data.is_some() { "read" } else { "draw" });

    let kernel = Kernel::detect();
    let keys = folder.join("keys");
    context.progress.begin("making keys", 0);
    let made = client::keygen(&package, &requirements, &keys, kernel)?;
    context.progress.end();
    steps.end("keygen");

    let job = folder.join("job");
    let batches = set.count.div_ceil(plan.slots());
    context.progress.begin("encrypting", (batches * set.entries()) as u64);
    let encrypt = EncryptRequest {
        key_path: &made.secret_key.path,
        model_path: &model_path,
        model: &package,
        images: &set,
        out_dir: &job,
        eval_key_path: None,
        threads: context.threads,
        kernel,
        limit: None,
        requirements: &requirements,
        created: &rfc3339(SystemTime::now()),
    };
    let encrypted = client::encrypt(&encrypt, &|_| context.progress.advance(1))?;
    context.progress.end();
    steps.end("encrypt");

    let job_path = job.join("job.toml");
    let request = RunRequest {
        job_path: job_path.clone(),
        model: None,
        eval_key: None,
        threads: context.threads.get(),
        memory_limit_bytes: None,
        kernel,
    };
    let ran = worker::run(&request, &run::observer(&*context.progress))?;
    context.progress.end();
    steps.end("run");

    context.progress.begin("decrypting", (batches * package.circuit.classes()) as u64);
    let decrypt = DecryptRequest {
        key_path: &made.secret_key.path,
        job_path: &job_path,
        model_path: None,
        threads: context.threads,
        kernel,
        requirements: &requirements,
    };
    let decrypted = client::decrypt(&decrypt, &|_| context.progress.advance(1))?;
    context.progress.end();
    steps.end("decrypt");

    context.progress.begin("comparing", set.count as u64);
    let advance = |images| context.progress.advance(images);
    let oracles = oracles::run(&package.network, &package.circuit, &set, context.threads.get(), &advance)?;
    context.progress.end();
    let logits: Vec<f64> = decrypted.predictions.iter().flat_map(|one| one.scores.iter().copied()).collect();
    let comparison = compare(&logits, &oracles, &truth, encrypted.promised_bits);
    steps.end("compare");
    if let Some(first) = comparison.wrong.first() {
        return Err(CliError::Disagreement {
            images: comparison.wrong.len(),
            image: first.image,
            found: first.encrypted,
            expected: first.integer,
            gap: first.gap,
            precision_bits: comparison.precision_bits,
        });
    }
    let drawn = args.data.is_none();
    Ok(Figures {
        model: &package.network.name,
        drawn,
        plan: &plan,
        made: &made,
        encrypted: &encrypted,
        ran: &ran,
        decrypted: &decrypted.report,
        comparison: &comparison,
        kept: args.workdir.as_deref(),
        steps: &steps,
    }
    .report())
}

/// A folder for keys and job: the one given, made if it is not there, or a temporary one that goes with its guard.
fn workdir(args: &DemoArgs) -> Result<(Option<tempfile::TempDir>, PathBuf), CliError> {
    let create_error = |path: PathBuf| move |source| CliError::Create { path, source };
    if let Some(folder) = &args.workdir {
        std::fs::create_dir_all(folder).map_err(create_error(folder.clone()))?;
        return Ok((None, folder.clone()));
    }
    let made = tempfile::Builder::new().prefix("nightshift-demo-").tempdir();
    let temporary = made.map_err(create_error(std::env::temp_dir()))?;
    let folder = temporary.path().to_owned();
    Ok((Some(temporary), folder))
}

/// The test images of the folder given, at most as many as asked for, or digits drawn here.
fn images(args: &DemoArgs, package: &ModelPackage) -> Result<ImageSet, CliError> {
    let set = match &args.data {
        Some(folder) => {
            let mut set = open_dataset_dir(folder, Split::Test, &Limits::default())?;
            if set.count < args.images {
                tracing::warn!("{} has {} test images, fewer than {}", folder.display(), set.count, args.images);
            }
            set.truncate(args.images);
            set
        }
        None => {
            tracing::info!("drawing {} digits (seed {}); --data runs on real ones", args.images, args.seed);
            let (pixels, labels) = render_digits(args.images, args.seed);
            let mut set = ImageSet::new([1, SIDE, SIDE], Pixels::Bytes(pixels))?;
            set.labels = Some(labels);
            set
        }
    };
    set.expect_shape(package.network.input.shape)?;
    Ok(set)
}

/// Seconds since `start`.
fn secs_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}
