//! `verify`: what can be said of a finished job without its key. Says what was checked and what was not: without `--worker-key`
//! nobody knows whose the receipt is.

use jobs::TrustedKeys;
use jobs::trust::Signed;
use serde_json::json;

use super::Report;
use crate::cli::args::{VerifyArgs, WorkerKey};
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes};
use crate::client;

/// Checks manifest, receipt, signatures and results.
///
/// # Errors
/// The first thing that does not fit, is missing, or is signed by nobody trusted.
pub fn run(args: &VerifyArgs) -> Result<Report, CliError> {
    let trusted = worker_keys(&args.worker_key)?;
    let verified = client::verify(&args.job, trusted.as_ref())?;
    let receipt = &verified.receipt;
    let output_bytes: u64 = receipt.batches.iter().map(|batch| batch.output_stamp.bytes).sum();
    let request_key = verified.request_key.map(|key| key.to_string());
    let (state, key) = signed(&verified.receipt_signed);
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["job id", &verified.job_id]);
    table.row(["tenant", verified.tenant.as_deref().unwrap_or("none")]);
    table.row([
        "request",
        &match &request_key {
            Some(key) => format!("signed by {key} over these very bytes"),
            None => "not signed".to_owned(),
        },
    ]);
    table.row(["receipt", "answers this manifest and says done"]);
    table.row(["receipt's signature", &told(&verified.receipt_signed)]);
    table.row([
        "results",
        &format!("{} file(s), {}, as the receipt says", receipt.batches.len(), human_bytes(output_bytes)),
    ]);
    table.row(["computed by", &format!("version {}, {}", receipt.code_version, receipt.isa)]);
    table.row(["not checked", "that the labels are right: decrypt compares known answers"]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "job_id": verified.job_id,
            "tenant": verified.tenant,
            "request_key": request_key,
            "receipt": verified.receipt_path.to_string_lossy(),
            "receipt_signature": state,
            "receipt_key": key,
            "results": receipt.batches.len(),
            "result_bytes": output_bytes,
            "code_version": receipt.code_version,
            "code_commit": receipt.code_commit,
            "isa": receipt.isa,
            "attempts": receipt.attempts,
        }),
    })
}

/// The keys that the option names.
pub(super) fn worker_keys(args: &WorkerKey) -> Result<Option<TrustedKeys>, CliError> {
    Ok(args.worker_key.as_deref().map(TrustedKeys::load).transpose()?)
}

/// For programs: `trusted`, `unchecked` or `none`, and the key.
pub(super) fn signed(signed: &Signed) -> (&'static str, Option<String>) {
    match signed {
        Signed::Trusted(key) => ("trusted", Some(key.to_string())),
        Signed::Unchecked(key) => ("unchecked", Some(key.to_string())),
        Signed::Not => ("none", None),
    }
}

/// For people.
pub(super) fn told(signed: &Signed) -> String {
    match signed {
        Signed::Trusted(key) => format!("by {key}, which is trusted"),
        Signed::Unchecked(key) => format!("by {key}, NOT CHECKED against a worker's key (--worker-key)"),
        Signed::Not => "none: anybody may have written it".to_owned(),
    }
}
