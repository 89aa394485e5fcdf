//! `demo`: every step in order, from a model to labels, and what each took. The worker is called in this process, but is
//! given the job folder only.

mod compare;
mod steps;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use packing::{ImageSet, Limits, Pixels, Split, open_dataset_dir};

use super::{Context, Report, run};
use crate::cli::args::DemoArgs;
use crate::cli::digits::{SIDE, render_digits};
use crate::cli::error::CliError;
use crate::cli::oracles;
use crate::client::{self, DecryptReport, DecryptRequest, EncryptReport, EncryptRequest, KeygenReport};
use crate::format::ModelPackage;
use crate::plan::{Plan, Requirements, scales};
use crate::ring::kernels::Kernel;
use crate::worker::{self, CHECKPOINT_AFTER, RunReport, RunRequest};
use compare::{Comparison, compare};
use steps::Figures;
pub(super) use steps::Steps;

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
    let plan = scales::plan(&package.circuit, &Requirements::default())?;
    steps.end("plan");

    let set = images(args, &package)?;
    let Some(truth) = set.labels.clone() else {
        return Err(CliError::NoLabels { path: args.data.clone().unwrap_or_default() });
    };
    steps.end(if args.data.is_some() { "read" } else { "draw" });

    let journey = journey(&model_path, &package, &plan, &set, &truth, &folder, &mut steps, context)?;
    journey.refuse_disagreement()?;
    let drawn = args.data.is_none();
    Ok(Figures {
        model: &package.network.name,
        drawn,
        plan: &plan,
        made: &journey.made,
        encrypted: &journey.encrypted,
        ran: &journey.ran,
        decrypted: &journey.decrypted,
        comparison: &journey.comparison,
        kept: args.workdir.as_deref(),
        steps: &steps,
    }
    .report())
}

/// What the way from keys to the comparison gave.
pub(super) struct Journey {
    made: KeygenReport,
    encrypted: EncryptReport,
    ran: RunReport,
    decrypted: DecryptReport,
    /// Decrypted logits against both oracles and the true labels.
    pub(super) comparison: Comparison,
}

impl Journey {
    /// Labels other than the integer oracle's, although their logits are not close, are a bug and told as one.
    pub(super) fn refuse_disagreement(&self) -> Result<(), CliError> {
        let Some(first) = self.comparison.wrong.first() else { return Ok(()) };
        Err(CliError::Disagreement {
            images: self.comparison.wrong.len(),
            image: first.image,
            found: first.encrypted,
            expected: first.integer,
            gap: first.gap,
            precision_bits: self.comparison.precision_bits,
        })
    }
}

/// Keys, encryption, worker, decryption, and the comparison with both oracles, all in `folder`.
///
/// # Errors
/// Those of the single commands.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one thing that the whole way needs; a type would only rename them"
)]
pub(super) fn journey(
    model_path: &Path,
    package: &ModelPackage,
    plan: &Plan,
    set: &ImageSet,
    truth: &[u16],
    folder: &Path,
    steps: &mut Steps,
    context: &Context,
) -> Result<Journey, CliError> {
    let requirements = Requirements::default();
    let kernel = Kernel::detect();
    let keys = folder.join("keys");
    context.progress.begin("making keys", 0);
    let made = client::keygen(package, &requirements, &keys, kernel)?;
    context.progress.end();
    steps.end("keygen");

    let job = folder.join("job");
    let batches = set.count.div_ceil(plan.slots());
    context.progress.begin("encrypting", (batches * set.entries()) as u64);
    let encrypt = EncryptRequest {
        key_path: &made.secret_key.path,
        model_path,
        model: package,
        images: set,
        out_dir: &job,
        eval_key_path: None,
        threads: context.threads,
        kernel,
        limit: None,
        requirements: &requirements,
        created: &jobs::time::format(SystemTime::now()),
        tenant: None,
        queue: None,
        signing: None,
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
        rates: None,
        checkpoint_after: CHECKPOINT_AFTER,
    };
    let ran = worker::run(&request, &run::observer(&*context.progress))?;
    context.progress.end();
    steps.end("run");

    context.progress.begin("decrypting", (batches * package.circuit.classes()) as u64);
    let decrypt = DecryptRequest {
        key_path: &made.secret_key.path,
        job_path: &job_path,
        model_path: None,
        worker_keys: None,
        threads: context.threads,
        kernel,
        requirements: &requirements,
    };
    let decrypted = client::decrypt(&decrypt, &|_| context.progress.advance(1))?;
    context.progress.end();
    steps.end("decrypt");

    context.progress.begin("comparing", set.count as u64);
    let advance = |images| context.progress.advance(images);
    let oracles = oracles::run(&package.network, &package.circuit, set, context.threads.get(), &advance)?;
    context.progress.end();
    let logits: Vec<f64> = decrypted.predictions.iter().flat_map(|one| one.scores.iter().copied()).collect();
    let comparison = compare(&logits, &oracles, truth, encrypted.promised_bits, package.score_limit());
    steps.end("compare");
    Ok(Journey { made, encrypted, ran, decrypted: decrypted.report, comparison })
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
