//! `encrypt`: images into a job folder that can be handed to a worker as it is.

use std::time::{Instant, SystemTime};

use jobs::SigningKey;
use jobs::manifest::Terms;
use packing::Split;
use serde_json::json;

use super::{Context, Report, exact};
use crate::cli::args::{ByteSize, EncryptArgs};
use crate::cli::error::CliError;
use crate::cli::figures::unix_secs;
use crate::cli::images;
use crate::cli::report::{Align, Table, human_bytes, human_duration, human_rate};
use crate::client::{self, EncryptRequest, RequestSigning};
use crate::format::ModelPackage;
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;

/// Encrypts a file of images, a folder of pictures, or the test split of a data set's folder.
///
/// # Errors
/// Images of another shape, keys of another plan, a folder that is not empty or cannot be written.
pub fn run(args: &EncryptArgs, context: &Context) -> Result<Report, CliError> {
    if exact::serves(&args.model)? {
        return exact::encrypt(args, context);
    }
    if args.labels_only {
        let (used_on, expected) =
            ("a model of the engine ckks", "a model of the exact engine, which can compare scores");
        return Err(CliError::Option { option: "--labels-only", used_on, expected });
    }
    let package = ModelPackage::open(&args.model)?;
    let limit = args.limit.map(usize::from);
    let set = images::load(&args.images, None, Split::Test, limit, &package.network.input)?;
    let start = Instant::now();
    let requirements = Requirements::default();
    let now = SystemTime::now();
    let asked = Asked::of(args, now)?;
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
        created: &jobs::time::format(now),
        tenant: args.tenant.as_deref(),
        queue: Some(&asked.terms),
        signing: asked.signing(),
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
    let signed_by = asked.signed_by();
    if let Some(key) = &signed_by {
        table.row(["signed by", key]);
    }
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
            "tenant": args.tenant,
            "signed_by": signed_by,
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

/// What the command line asks of whoever gets the job, whichever engine it is for.
pub(super) struct Asked {
    pub(super) terms: Terms,
    key: Option<SigningKey>,
    expires_unix_secs: Option<u64>,
}

impl Asked {
    pub(super) fn of(args: &EncryptArgs, now: SystemTime) -> Result<Self, CliError> {
        let valid_secs = args.signing.valid_for.map(|valid| valid.secs());
        Ok(Self {
            terms: terms(args),
            key: args.signing.signing_key.as_deref().map(SigningKey::load).transpose()?,
            expires_unix_secs: valid_secs.map(|secs| unix_secs(now).saturating_add(secs)),
        })
    }

    pub(super) fn signing(&self) -> Option<RequestSigning<'_>> {
        let expires_unix_secs = self.expires_unix_secs;
        self.key.as_ref().map(|key| RequestSigning { key, expires_unix_secs })
    }

    pub(super) fn signed_by(&self) -> Option<String> {
        self.key.as_ref().map(|key| key.verifying_key().to_string())
    }
}

/// What the command line asks of a queue; nothing where it is silent.
fn terms(args: &EncryptArgs) -> Terms {
    Terms {
        idempotency_key: args.idempotency_key.clone(),
        priority: args.priority,
        deadline: args.deadline.clone(),
        memory_limit_bytes: args.memory_limit.map(ByteSize::bytes),
    }
}
