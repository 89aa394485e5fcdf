//! `sign`: a client's signature beside the manifest of a job, for workers that demand one.

use std::time::SystemTime;

use jobs::manifest;
use jobs::signing::{Purpose, SigningKey, signature_path};
use serde_json::json;

use super::Report;
use crate::cli::args::SignArgs;
use crate::cli::error::CliError;
use crate::cli::figures::unix_secs;
use crate::cli::report::{Align, Table};

/// Signs the manifest's bytes, replacing an earlier signature.
///
/// # Errors
/// A manifest or key that cannot be read or is none; a folder that cannot be written.
pub fn run(args: &SignArgs) -> Result<Report, CliError> {
    let job = manifest::load(&args.job)?;
    let key = SigningKey::load(&args.signing.signing_key)?;
    let now = SystemTime::now();
    let valid_secs = args.signing.valid_for.map(|valid| valid.secs());
    let expires = valid_secs.map(|secs| unix_secs(now).saturating_add(secs));
    key.sign(Purpose::Request, job.document().as_bytes(), expires).write_beside(&args.job)?;
    let signature = signature_path(&args.job);
    let manifest = job.manifest();
    let until = valid_secs.map(|secs| jobs::time::format(now + std::time::Duration::from_secs(secs)));
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["signature", &signature.display().to_string()]);
    table.row(["job id", &manifest.job_id]);
    table.row(["tenant", manifest.tenant.as_deref().unwrap_or("none")]);
    table.row(["signed by", &key.verifying_key().to_string()]);
    table.row(["good until", until.as_deref().unwrap_or("for ever")]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "signature": signature.to_string_lossy(),
            "job_id": manifest.job_id,
            "tenant": manifest.tenant,
            "key": key.verifying_key().to_string(),
            "expires_unix_secs": expires,
        }),
    })
}
