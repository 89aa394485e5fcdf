//! `keygen`, `encrypt` and `decrypt` for models of the exact engine.

use std::path::Path;
use std::time::{Instant, SystemTime};

use jobs::JobManifest;
use packing::Split;
use serde_json::json;

use crate::cli::args::{DecryptArgs, EncryptArgs, KeygenArgs};
use crate::cli::commands::decrypt::table_into;
use crate::cli::commands::encrypt::Asked;
use crate::cli::commands::{Context, Report, verify};
use crate::cli::error::CliError;
use crate::cli::images;
use crate::cli::report::{Align, Table, human_bytes, human_duration, human_rate};
use crate::client::exact::{self, ExactEncryptRequest};
use crate::exact::{Answer, PARAMETERS};
use crate::format::TablePackage;
use crate::worker::ExactPlanned;

/// Makes the keys; never replaces any.
///
/// # Errors
/// A package that cannot be read; a folder that cannot be written or holds keys already.
pub(in crate::cli::commands) fn keygen(args: &KeygenArgs, context: &Context) -> Result<Report, CliError> {
    let package = TablePackage::open(&args.model)?;
    context.progress.begin("making keys", 0);
    let made = exact::keygen(&package, &args.out)?;
    context.progress.end();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &made.model_name]);
    table.row(["engine", "tfhe"]);
    table.row(["key id", &made.key_id]);
    table.row(["plan id", &made.plan_id]);
    table.row(["parameters", PARAMETERS.name]);
    for (name, file, note) in [
        ("secret key", &made.secret_key, "keep it: whoever has it reads the images"),
        ("evaluation key", &made.evaluation_key, "for the worker"),
    ] {
        table.row([name, &format!("{}, {} ({note})", file.path.display(), human_bytes(file.file_bytes))]);
    }
    let file = |file: &crate::client::KeyFile| json!({ "path": file.path.to_string_lossy(), "bytes": file.file_bytes });
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": made.model_name,
            "engine": "tfhe",
            "key_id": made.key_id,
            "plan_id": made.plan_id,
            "parameters": PARAMETERS.name,
            "secret_key": file(&made.secret_key),
            "evaluation_key": file(&made.evaluation_key),
        }),
    })
}

/// Encrypts a file of images, a folder of pictures, or the test split of a data set's folder.
///
/// # Errors
/// Images of another shape, keys of another plan, a folder that is not empty or cannot be written.
pub(in crate::cli::commands) fn encrypt(args: &EncryptArgs, context: &Context) -> Result<Report, CliError> {
    let package = TablePackage::open(&args.model)?;
    let limit = args.limit.map(usize::from);
    let set = images::load(&args.images, None, Split::Test, limit, &package.network.input)?;
    let start = Instant::now();
    let now = SystemTime::now();
    let asked = Asked::of(args, now)?;
    context.progress.begin("encrypting", set.count as u64);
    let request = ExactEncryptRequest {
        key_path: &args.key,
        model_path: &args.model,
        model: &package,
        images: &set,
        out_dir: &args.out,
        eval_key_path: None,
        threads: context.threads,
        limit: None,
        created: &jobs::time::format(now),
        tenant: args.tenant.as_deref(),
        queue: Some(&asked.terms),
        signing: asked.signing(),
        answer: if args.labels_only { Answer::Label } else { Answer::Scores },
    };
    let done = exact::encrypt(&request, &|| context.progress.advance(1))?;
    context.progress.end();
    let elapsed = start.elapsed();
    let images = done.images as u64;
    let manifest = args.out.join("job.toml");
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["job", &manifest.display().to_string()]);
    table.row(["engine", "tfhe"]);
    table.row(["job id", &done.job_id]);
    table.row(["key id", &done.key_id]);
    let signed_by = asked.signed_by();
    if let Some(key) = &signed_by {
        table.row(["signed by", key]);
    }
    table.row(["images", &format!("{images} in {} batch(es) of at most {}", done.batches, done.slots)]);
    let each = human_bytes(done.upload_bytes / images.max(1));
    table.row(["upload", &format!("{}, {each} an image", human_bytes(done.upload_bytes))]);
    let each = package.circuit.neurons() + request.answer.bootstraps(package.circuit.classes());
    let bootstraps = images * each as u64;
    let told = if args.labels_only { "labels" } else { "scores" };
    table.row(["results tell", told]);
    table.row(["work", &format!("{bootstraps} bootstraps")]);
    table.row(["time", &format!("{} ({})", human_duration(elapsed), human_rate(images, elapsed, "images"))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "job": manifest.to_string_lossy(),
            "engine": "tfhe",
            "job_id": done.job_id,
            "key_id": done.key_id,
            "plan_id": done.plan_id,
            "tenant": args.tenant,
            "signed_by": signed_by,
            "images": images,
            "batches": done.batches,
            "slots": done.slots,
            "results": told,
            "bootstraps": bootstraps,
            "upload_bytes": done.upload_bytes,
            "upload_bytes_per_image": done.upload_bytes as f64 / images as f64,
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}

/// Bytes of memory that a batch of the job takes with so many threads, and of a full batch's results.
///
/// # Errors
/// A package that cannot be read, or is not the manifest's.
pub(in crate::cli::commands) fn needs(
    model: &Path,
    manifest: &JobManifest,
    threads: usize,
) -> Result<(u64, u64), CliError> {
    let planned = ExactPlanned::open(model, threads)?;
    planned.expect(manifest)?;
    Ok((planned.peak_bytes(manifest), planned.result_bytes(manifest)))
}

/// Verifies, decrypts, writes. Scores get as many decimals as their noise leaves.
///
/// # Errors
/// A job without its receipt, files that are not the ones named, another key; a table that cannot be written.
pub(in crate::cli::commands) fn decrypt(args: &DecryptArgs, context: &Context) -> Result<Report, CliError> {
    let start = Instant::now();
    context.progress.begin("decrypting", 0);
    let worker_keys = verify::worker_keys(&args.worker_key)?;
    let done = exact::decrypt(&args.key, &args.job, None, worker_keys.as_ref(), &|| context.progress.advance(1))?;
    context.progress.end();
    let labels_only = done.answer == Answer::Label;
    if labels_only && args.scores {
        let (used_on, expected) = ("a job of labels only", "a job whose results tell scores");
        return Err(CliError::Option { option: "--scores", used_on, expected });
    }
    let bits = -(4.0 * done.score_deviation).log2();
    let limit = (bits * std::f64::consts::LOG10_2).floor().clamp(0.0, 9.0) as u8;
    let decimals = args.digits.unwrap_or(limit);
    if decimals > limit {
        return Err(CliError::Digits { found: decimals, limit, promised_bits: bits });
    }
    let mut bytes = Vec::new();
    table_into(&mut bytes, &done.predictions, args.out.format(), args.scores.then_some(decimals))?;
    jobs::atomic::write_atomic_private(args.out.path(), &bytes)?;
    let elapsed = start.elapsed();
    let images = done.predictions.len() as u64;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["labels", &args.out.path().display().to_string()]);
    table.row(["engine", "tfhe"]);
    table.row(["images", &images.to_string()]);
    table.row(["receipt's signature", &verify::told(&done.receipt_signed)]);
    let (signature, signed_by) = verify::signed(&done.receipt_signed);
    let noise = if labels_only { "noise of a comparison" } else { "noise of a score" };
    table.row([noise, &format!("{:.3} (one deviation)", done.score_deviation)]);
    let close = if labels_only { "undecided" } else { "too close to tell" };
    table.row([close, &format!("{} image(s)", done.too_close.len())]);
    table.row(["time", &format!("{} ({})", human_duration(elapsed), human_rate(images, elapsed, "images"))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "labels": args.out.path().to_string_lossy(),
            "engine": "tfhe",
            "job_id": done.job_id,
            "key_id": done.key_id,
            "plan_id": done.plan_id,
            "images": images,
            "batches": done.batches,
            "results": if labels_only { "labels" } else { "scores" },
            "score_deviation": done.score_deviation,
            "decimals": args.scores.then_some(decimals),
            "too_close": done.too_close,
            "result_bytes": done.result_bytes,
            "receipt_signature": signature,
            "receipt_key": signed_by,
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}
