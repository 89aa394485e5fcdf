//! Key generation: a model's plan, then `secret.key`, `public.key` and `eval.key` in one folder.

use std::path::{Path, PathBuf};

use super::outputs::Outputs;
use super::{ClientError, Setup};
use crate::ckks::secret::SecretKey;
use crate::ckks::security;
use crate::format::{ModelPackage, Written, keys, secret};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;

/// A key that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Where.
    pub path: PathBuf,
    /// Length.
    pub file_bytes: u64,
}

/// What key generation did.
#[derive(Clone, Debug, PartialEq)]
pub struct KeygenReport {
    /// Public identifier of the key, 32 hexadecimal digits.
    pub key_id: String,
    /// The plan that the key is for, 64 hexadecimal digits.
    pub plan_id: String,
    /// The network's name.
    pub model_name: String,
    /// N.
    pub degree: usize,
    /// log2 of all primes.
    pub log_qp_bits: f64,
    /// Security by the table, classical.
    pub security_bits: u32,
    /// `secret.key`, mode 0600.
    pub secret_key: KeyFile,
    /// `public.key`.
    pub public_key: KeyFile,
    /// `eval.key`.
    pub evaluation_key: KeyFile,
}

/// Makes the three keys for a model in `out_dir` (made with mode 0700 if it is not there).
///
/// # Errors
/// [`ClientError::Exists`] where one of them is there already; those of planning, randomness and writing. On error none of them is
/// left.
pub fn keygen(
    model: &ModelPackage,
    requirements: &Requirements,
    out_dir: &Path,
    kernel: Kernel,
) -> Result<KeygenReport, ClientError> {
    let setup = Setup::new(model, requirements, kernel)?;
    let context = &setup.context;
    let mut outputs = Outputs::open(out_dir, 0o700)?;
    // All three names first, so that no work is done in vain.
    let [secret_path, public_path, evaluation_path] =
        [outputs.free_path("secret.key")?, outputs.free_path("public.key")?, outputs.free_path("eval.key")?];
    let key = SecretKey::generate(context)?;
    let header = setup.header(&secret::key_id_text(&key));
    let file = |path: PathBuf, written: Written| KeyFile { path, file_bytes: written.file_bytes };

    let evaluation_key = key.evaluation_key(context)?;
    let written = keys::write_evaluation_key(&evaluation_path, &header, context, &evaluation_key)?;
    outputs.made(&evaluation_path);
    let evaluation_key = file(evaluation_path, written);
    let written = keys::write_public_key(&public_path, &header, context, &key.public_key(context)?)?;
    outputs.made(&public_path);
    let public_key = file(public_path, written);
    // The secret comes last: nothing after it can fail, so it is never removed again.
    let written = secret::write_secret_key(&secret_path, &header, context, &key)?;
    let secret_key = file(secret_path, written);
    outputs.keep();
    Ok(KeygenReport {
        key_id: header.key_id,
        plan_id: header.plan_id,
        model_name: header.model_name,
        degree: context.degree(),
        log_qp_bits: context.parameters().log_qp_bits(),
        security_bits: security::SECURITY_BITS,
        secret_key,
        public_key,
        evaluation_key,
    })
}
