//! Verification without a key of the scheme: whether a job's receipt answers its manifest, by which worker it was signed, and whether
//! the results are the ones it names. What a signature cannot say is that the worker computed the right thing.

use std::path::{Path, PathBuf};

use jobs::manifest::{self, LoadedJob};
use jobs::signing::{Purpose, Signature};
use jobs::trust::Signed;
use jobs::{Receipt, TrustedKeys, VerifyingKey};

use super::ClientError;

/// What was held to what.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyReport {
    /// The job.
    pub job_id: String,
    /// Whose job it is.
    pub tenant: Option<String>,
    /// Who signed the request, where it is signed; the signature is of the manifest's very bytes.
    pub request_key: Option<VerifyingKey>,
    /// Who signed the receipt, and what is known of them.
    pub receipt_signed: Signed,
    /// The receipt's file.
    pub receipt_path: PathBuf,
    /// The receipt.
    pub receipt: Receipt,
}

/// A job with the receipt that answers it: signature, then each field, then every result's size and digest.
///
/// # Errors
/// [`ClientError::Jobs`] for what does not fit together, is not there, failed, or is signed by nobody that `worker_keys` lists.
pub(super) fn answered(
    job_path: &Path,
    worker_keys: Option<&TrustedKeys>,
) -> Result<(LoadedJob, Receipt, Signed), ClientError> {
    let job = manifest::load(job_path)?;
    let (receipt, signed) = Receipt::load_signed(&job.receipt_path()?, worker_keys)?;
    receipt.verify(&job)?;
    Ok((job, receipt, signed))
}

/// All that can be said of a finished job without its key.
///
/// # Errors
/// As the job's first fault: [`ClientError::Jobs`]. A request's signature that is there must be one of the manifest's bytes.
pub fn verify(job_path: &Path, worker_keys: Option<&TrustedKeys>) -> Result<VerifyReport, ClientError> {
    let (job, receipt, receipt_signed) = answered(job_path, worker_keys)?;
    let request_key = match Signature::load_beside(job_path)? {
        None => None,
        Some(signature) => {
            signature.verify(job_path, job.document().as_bytes(), Purpose::Request)?;
            Some(*signature.key())
        }
    };
    let manifest = job.manifest();
    Ok(VerifyReport {
        job_id: manifest.job_id.clone(),
        tenant: manifest.tenant.clone(),
        request_key,
        receipt_signed,
        receipt_path: job.receipt_path()?,
        receipt,
    })
}
