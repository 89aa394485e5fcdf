//! `encrypt`: images into a job folder that can be handed to a worker as it is.

use std::time::{Instant, SystemTime};

use packing::Split;
use serde_json::json;

use super::{Context, Report};
use crate::cli::args::EncryptArgs;
use crate::cli::error::CliError;
use crate::cli::images;
use crate::cli::report::{Align, Table, human_bytes, human_duration, human_rate};
use crate::cli::time::rfc3339;
use crate::client::{self, EncryptRequest};
use crate::format::ModelPackage;
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;

/// Encrypts a file of images, a folder of pictures, or the test split of a data set's folder.
///
/// # Errors
/// Images of another shape, keys of another plan, a folder that is not empty or cannot be written.
pub fn run(args: &EncryptArgs, context: &Context) -> Result<Report, CliError> {
    let package = ModelPackage::open(&args.model)?;
    let limit = args.limit.map(usize::from);
    let set = images::load(&args.images, None, Split::Test, limit, &package.network.input)?;
    let start = Instant::now();
    let requirements = Requirements::default();
    let slots = scales::plan(&package.circuit, &requirements)?.slots();
    context.progress.begin("encrypting", (set.count.div_ceil(slots) * set.entries()) as u64);
    let request = EncryptRequest {
        key_path: &args.key,
        model_path: &args.model,
        model: &package,
        images: &set,
        out_dir: &args.out,
        eval_key_path: None,
        threads: context.threads,
        kernel: Kernel::detect(),
        limit: None,
        requirements: &requirements,
        created: &rfc3339(SystemTime::now()),
    };
    // The number told is how many entries are done; each call tells of one more.
    let done = client::encrypt(&request, &|_| context.progress.advance(1))?;
    context.progress.end();
    let elapsed = start.elapsed();
    if done.clamped > 0 {
        tracing::warn!("{} values lay outside the range of pixels and were clamped to it", done.clamped);
    }

    let images = done.images as u64;
    let manifest = args.out.join("job.toml");
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["job", &manifest.display().to_string()]);
    table.row(["job id", &done.job_id]);
    table.row(["key id", &done.key_id]);
    table.row(["images", &format!("{images} in {} batch(es) of {} slots", done.batches, done.slots)]);
    let each = human_bytes(done.upload_bytes / images.max(1));
    table.row(["upload", &format!("{}, {each} an image", human_bytes(done.upload_bytes))]);
    table.row(["precision promised", &format!("{:.1} bits", done.promised_bits)]);
    table.row(["known answers", &format!("{} in unused slots", done.canaries)]);
    table.row(["time", &format!("{} ({})", human_duration(elapsed), human_rate(images, elapsed, "images"))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "job": manifest.to_string_lossy(),
            "job_id": done.job_id,
            "key_id": done.key_id,
            "plan_id": done.plan_id,
            "images": images,
            "batches": done.batches,
            "slots": done.slots,
            "encryption": done.encryption.name(),
            "precision_bits": done.promised_bits,
            "canaries": done.canaries,
            "clamped": done.clamped,
            "upload_bytes": done.upload_bytes,
            "upload_bytes_per_image": done.upload_bytes as f64 / images as f64,
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}
