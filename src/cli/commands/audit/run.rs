//! The audit itself.

use std::time::{Duration, Instant};

use jobs::{Receipt, manifest};
use packing::{argmax, encode_png};
use serde_json::json;
use zeroize::Zeroizing;

use super::share::{draw, wilson};
use crate::cli::args::AuditArgs;
use crate::cli::commands::{Context, Report};
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes, human_duration, percent};
use crate::cli::sheet::{Sheet, Tile};
use crate::client::{self, ClientError, DecryptRequest};
use crate::exact::secret::SecretKey;
use crate::exact::{Answer, Engine, ExactError, Noise};
use crate::format::{ModelPackage, TablePackage};
use crate::net::sample::Random;
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;
use crate::ring::sampling::fresh_seed;

/// One image of the sample.
struct Compared {
    image: u64,
    bytes: Zeroizing<Vec<u8>>,
    polynomial: u16,
    exact: u16,
    /// What the tables give without noise.
    oracle: u16,
    /// Whether noise alone can make the exact label of the oracle's logits.
    explained: bool,
}

/// Draws, decrypts, encrypts anew, runs, compares.
///
/// # Errors
/// A job that is not finished or not of the polynomial engine, another key, a package that does not fit the job's images, a sample that
/// would take longer than allowed.
pub fn run(args: &AuditArgs, context: &Context) -> Result<Report, CliError> {
    let package = TablePackage::open(&args.exact)?;
    let request = DecryptRequest {
        key_path: &args.key,
        job_path: &args.job,
        model_path: None,
        worker_keys: None,
        threads: context.threads,
        kernel: Kernel::detect(),
        requirements: &Requirements::default(),
    };
    let job = manifest::load(&args.job)?;
    let polynomial = ModelPackage::open(&job.verify_model(None)?)?;
    check_fit(args, &polynomial, &package)?;
    // Before the long part, so that a wrong key is told at once.
    context.progress.begin("decrypting the job's labels", 0);
    let labels = client::decrypt(&request, &|_| {})?.predictions;
    context.progress.end();
    let receipt = Receipt::load(&job.receipt_path()?)?;

    let mut random = Random::new(match args.seed {
        Some(seed) => seed,
        None => seed_of_system()?,
    });
    let images = draw(args.sample, job.manifest().images, &mut random);

    context.progress.begin("making keys", 0);
    let secret = SecretKey::generate().map_err(exact_error)?;
    let key = secret.evaluation_key().map_err(exact_error)?;
    let key_bytes = 8 * (key.bootstrap.len() + key.keyswitch.len()) as u64;
    let engine = Engine::new(package.circuit.clone(), &key, context.threads.get()).map_err(exact_error)?;
    drop(key);
    let estimate_secs = engine.image_secs().of(Answer::Scores) * images.len() as f64;
    context.progress.end();
    let limit_secs = (60 * args.time_limit) as f64;
    if estimate_secs > limit_secs && !args.yes {
        return Err(CliError::TooLong { images: images.len(), estimate_secs, limit_secs });
    }
    let estimate = Duration::try_from_secs_f64(estimate_secs).unwrap_or_default();
    context.progress.note(&format!("{} images, about {}", images.len(), human_duration(estimate)));

    context.progress.begin("reading the drawn images back", 0);
    let values = client::decrypt_inputs(&request, &images, &|_| {})?;
    context.progress.end();
    let noise = Noise::of(&package.circuit);
    context.progress.begin("running", (images.len() * package.circuit.neurons()) as u64);
    let start = Instant::now();
    let mut compared = Vec::with_capacity(images.len());
    for (&image, values) in images.iter().zip(values.iter()) {
        let input = &polynomial.network.input;
        let bytes: Vec<u8> = values.iter().enumerate().map(|(entry, &value)| input.byte(entry, value)).collect();
        let bytes = Zeroizing::new(bytes);
        let encrypted = secret.encrypt(&package.circuit, &bytes).map_err(exact_error)?;
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Scores, &|| context.progress.advance(1));
        let sums = secret.decrypt(&package.circuit, &results.map_err(exact_error)?).map_err(exact_error)?;
        let trace = package.circuit.trace(&bytes)?;
        let label = |sums: &[i64]| argmax(&package.circuit.scores(sums)).unwrap_or(0) as u16;
        let exact = label(&sums);
        compared.push(Compared {
            image,
            polynomial: labels.get(image as usize).map_or(0, |prediction| prediction.label),
            exact,
            oracle: label(&trace.logits),
            explained: noise.odds(&package.circuit, &trace).explains(&trace.logits, exact.into(), Answer::Scores),
            bytes,
        });
    }
    let elapsed = start.elapsed();
    context.progress.end();
    let sheet = draw_sheet(args, &package, &compared)?;
    Ok(report(&Facts {
        compared: &compared,
        package: &package,
        polynomial: &polynomial,
        receipt: &receipt,
        estimate,
        elapsed,
        key_bytes,
        sheet,
        args,
    }))
}

/// All that the report tells.
struct Facts<'a> {
    compared: &'a [Compared],
    package: &'a TablePackage,
    polynomial: &'a ModelPackage,
    receipt: &'a Receipt,
    estimate: Duration,
    elapsed: Duration,
    key_bytes: u64,
    sheet: bool,
    args: &'a AuditArgs,
}

fn report(facts: &Facts<'_>) -> Report {
    let Facts { compared, package, polynomial, receipt, estimate, elapsed, .. } = *facts;
    let count = compared.len();
    let agree = compared.iter().filter(|one| one.polynomial == one.exact).count();
    let oracle = compared.iter().filter(|one| one.oracle == one.exact).count();
    let unsure = compared.iter().filter(|one| one.oracle != one.exact && one.explained).count();
    let (low, high) = wilson(agree, count);
    let each = elapsed.as_secs_f64() / count.max(1) as f64;
    let job_each = receipt.measured.elapsed_secs / receipt.images.max(1) as f64;

    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["job", &format!("{}, {} images", polynomial.network.name, receipt.images)]);
    table.row(["against", &format!("{}, {} exact neurons", package.network.name, package.circuit.neurons())]);
    table.row(["drawn", &count.to_string()]);
    let interval = format!("{:.1} to {:.1} % with 95 % confidence", 100.0 * low, 100.0 * high);
    table.row(["same label", &format!("{} ({interval})", percent(agree as u64, count as u64))]);
    for one in compared.iter().filter(|one| one.polynomial != one.exact) {
        let text = format!("image {}: the job says {}, exact activations say {}", one.image, one.polynomial, one.exact);
        table.row(["differs", &text]);
    }
    if facts.sheet {
        let path = facts.args.sheet.as_ref().map(|path| path.display().to_string());
        table.row(["sheet", &path.unwrap_or_default()]);
    }
    let explained = format!("{}, {unsure} of the others within its noise", percent(oracle as u64, count as u64));
    table.row(["exact label is the oracle's", &explained]);
    let took = format!("{}, {each:.2} s an image; {} foretold", human_duration(elapsed), human_duration(estimate));
    table.row(["time, exact", &took]);
    table.row(["time, job", &format!("{:.2} ms an image, whole batches", 1e3 * job_each)]);
    table.row(["evaluation key, exact", &human_bytes(facts.key_bytes)]);
    let differing: Vec<_> = compared
        .iter()
        .filter(|one| one.polynomial != one.exact)
        .map(|one| json!({ "image": one.image, "job": one.polynomial, "exact": one.exact }))
        .collect();
    Report {
        text: table.to_string(),
        json: json!({
            "job_id": receipt.job_id,
            "model": polynomial.network.name,
            "exact_model": package.network.name,
            "bootstraps": package.circuit.neurons(),
            "images": count,
            "agreement": agree as f64 / count.max(1) as f64,
            "agreement_low": low,
            "agreement_high": high,
            "differing": differing,
            "oracle_agreement": oracle as f64 / count.max(1) as f64,
            "within_noise": unsure,
            "seconds": elapsed.as_secs_f64(),
            "seconds_foretold": estimate.as_secs_f64(),
            "seconds_per_image": each,
            "job_seconds_per_image": job_each,
            "evaluation_key_bytes": facts.key_bytes,
            "sheet": facts.sheet.then(|| facts.args.sheet.as_ref().map(|path| path.to_string_lossy().into_owned())),
        }),
    }
}

/// Both must read the same images and know the same number of classes.
fn check_fit(args: &AuditArgs, polynomial: &ModelPackage, package: &TablePackage) -> Result<(), CliError> {
    let (found, expected) = (package.circuit.input_shape, polynomial.circuit.input_shape);
    if found != expected {
        let (found, expected) = (format!("{found:?}"), format!("{expected:?} as in the job's model"));
        return Err(CliError::content(&args.exact, "input shape", found, expected));
    }
    let (found, expected) = (package.circuit.classes(), polynomial.circuit.classes());
    if found != expected {
        return Err(CliError::content(&args.exact, "classes", found, format!("{expected} as in the job's model")));
    }
    Ok(())
}

/// Whether there was anything to draw.
fn draw_sheet(args: &AuditArgs, package: &TablePackage, compared: &[Compared]) -> Result<bool, CliError> {
    let differ = compared.iter().filter(|one| one.polynomial != one.exact);
    let tiles: Vec<Tile<'_>> =
        differ.map(|one| Tile { bytes: &one.bytes, answers: [one.polynomial, one.exact] }).collect();
    let (Some(path), false) = (&args.sheet, tiles.is_empty()) else { return Ok(false) };
    let sheet = Sheet::draw(package.circuit.input_shape, &tiles);
    let png = encode_png(sheet.width, sheet.height, &sheet.rgb)?;
    jobs::atomic::write_atomic_private(path, &png)?;
    Ok(true)
}

fn seed_of_system() -> Result<u64, CliError> {
    let seed = fresh_seed().map_err(|error| exact_error(error.into()))?;
    let mut first = [0; 8];
    first.copy_from_slice(&seed[..8]);
    Ok(u64::from_le_bytes(first))
}

fn exact_error(error: ExactError) -> CliError {
    ClientError::from(error).into()
}
