//! The receipt: what was computed, from what, by which code and at what cost. JSON, written once the outputs stand under
//! their final names. A client holds it against its own manifest and the files before it decrypts. A worker that has a key
//! signs it (see [`crate::signing`]): that says who computed; that the computation is right it cannot say.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, FileStamp};
use crate::error::{FileRole, JobsError, Result};
use crate::exit::ExitCode;
use crate::manifest::{BATCHES_LIMIT, JobManifest, LoadedJob, check, check_digest, check_size};
use crate::signing::{Purpose, SigningKey};
use crate::trust::{Signed, TrustedKeys};
use crate::{atomic, document, paths, signing, trust};

/// The schema this program writes and reads.
pub const SCHEMA: &str = "nightshift.receipt/1";
/// Most bytes of a receipt.
pub const RECEIPT_LIMIT_BYTES: u64 = 16 << 20;
/// Most timings in one list.
pub const TIMINGS_LIMIT: usize = 4096;
/// Most characters of a failure's reason.
pub const REASON_LIMIT_CHARS: usize = 2000;

/// What a worker answers to a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`SCHEMA`].
    pub schema: String,
    /// The manifest's job id.
    pub job_id: String,
    /// The manifest's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Done or failed.
    pub outcome: Outcome,
    /// The plan that was run.
    pub plan_id: String,
    /// The key of inputs and outputs.
    pub key_id: String,
    /// BLAKE3 of the model package.
    pub model: Digest,
    /// BLAKE3 of the evaluation key.
    pub eval_key: Digest,
    /// Images in all batches of the manifest together.
    pub images: u64,
    /// Slots of a ciphertext.
    pub slots: u32,
    /// Version of the program that ran.
    pub code_version: String,
    /// The commit it was built from, 40 or 64 hexadecimal digits, where that was known when it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_commit: Option<String>,
    /// Which attempt at the job this was, from 1.
    #[serde(default = "first_attempt")]
    pub attempts: u32,
    /// Kernels that ran, by instruction set.
    pub isa: String,
    /// Threads that ran.
    pub threads: u32,
    /// Finished batches, in the manifest's order: all of them when done, the first ones when failed.
    pub batches: Vec<BatchReceipt>,
    /// Seconds a step, over the whole job.
    pub totals: Vec<Timing>,
    /// What the plan foretold; absent when the job failed before there was a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Cost>,
    /// What it took.
    pub measured: Cost,
}

/// How the job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// Every output stands.
    Done,
    /// It stopped.
    Failed {
        /// The error's words.
        reason: String,
        /// The exit code, not [`ExitCode::Done`].
        exit_code: ExitCode,
    },
}

/// One finished batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchReceipt {
    /// BLAKE3 of the encrypted images that were read.
    pub input: Digest,
    /// The manifest's path of the result.
    pub output: String,
    /// Digest and size of the result.
    pub output_stamp: FileStamp,
    /// Slots in use.
    pub occupancy: u32,
    /// Index of the image in slot 0.
    pub first_image: u64,
    /// Seconds a stage.
    pub stages: Vec<Timing>,
}

/// Seconds spent under one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Stage or step.
    pub name: String,
    /// Seconds, finite and not negative.
    pub secs: f64,
}

/// What a job takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Seconds from start to receipt, finite and not negative.
    pub elapsed_secs: f64,
    /// Most bytes of memory at one time.
    pub peak_bytes: u64,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
}

fn first_attempt() -> u32 {
    1
}

impl Outcome {
    /// A failure whose reason is cut to what a receipt may hold.
    pub fn failed(reason: &str, exit_code: ExitCode) -> Self {
        let printable = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self::Failed { reason: printable.take(REASON_LIMIT_CHARS).collect(), exit_code }
    }
}

impl Receipt {
    /// Reads and checks a receipt. Whether it answers a manifest is [`verify_against`](Self::verify_against).
    ///
    /// # Errors
    /// As [`crate::manifest::load`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &document::read_capped(path, RECEIPT_LIMIT_BYTES)?)
    }

    /// As [`load`](Self::load), with what the signature beside it says of those very bytes.
    ///
    /// # Errors
    /// Also those of [`trust::check_receipt`].
    pub fn load_signed(path: &Path, trusted: Option<&TrustedKeys>) -> Result<(Self, Signed)> {
        let text = document::read_capped(path, RECEIPT_LIMIT_BYTES)?;
        let signed = trust::check_receipt(path, text.as_bytes(), trusted)?;
        Ok((Self::parse(path, &text)?, signed))
    }

    /// Reads and checks a receipt's text; `path` is for errors.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for those of reading.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let receipt: Self = document::parse_json(path, text, SCHEMA)?;
        receipt.validate()?;
        Ok(receipt)
    }

    /// Writes the receipt under `path`, whole or not at all, replacing an earlier one.
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`atomic::write_atomic`]; [`JobsError::TooLarge`] when no reader would take it.
    pub fn write(&self, path: &Path) -> Result<()> {
        atomic::write_atomic(path, self.to_text(path)?.as_bytes())
    }

    /// As [`write`](Self::write), with a signature beside it, which is written first: a receipt is never there without its own. What
    /// is left of an earlier one's signature is removed where there is no key.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_signed(&self, path: &Path, signing: Option<&SigningKey>) -> Result<()> {
        let text = self.to_text(path)?;
        match signing {
            Some(key) => key.sign(Purpose::Receipt, text.as_bytes(), None).write_beside(path)?,
            None => {
                let stale = signing::signature_path(path);
                if let Err(source) = std::fs::remove_file(&stale)
                    && source.kind() != std::io::ErrorKind::NotFound
                {
                    return Err(JobsError::Write { path: stale, source });
                }
            }
        }
        atomic::write_atomic(path, text.as_bytes())
    }

    /// The receipt as JSON, validated.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`JobsError::TooLarge`] when no reader would take it.
    pub fn to_text(&self, path: &Path) -> Result<String> {
        self.validate()?;
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| JobsError::Syntax { path: path.to_owned(), detail: error.to_string() })?;
        text.push('\n');
        let found_bytes = text.len() as u64;
        if found_bytes > RECEIPT_LIMIT_BYTES {
            return Err(JobsError::TooLarge { path: path.to_owned(), found_bytes, limit_bytes: RECEIPT_LIMIT_BYTES });
        }
        Ok(text)
    }

    /// Checks every field by itself.
    ///
    /// # Errors
    /// [`JobsError::Field`] or [`JobsError::PathForm`], naming the first field that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.schema != SCHEMA {
            return Err(JobsError::field("schema", format_args!("{:?}", self.schema), format!("{SCHEMA:?}")));
        }
        check::check_job_id("job_id", &self.job_id)?;
        if let Some(tenant) = &self.tenant {
            check::check_name("tenant", tenant)?;
        }
        check::check_name("plan_id", &self.plan_id)?;
        check::check_name("key_id", &self.key_id)?;
        check::check_text("code_version", &self.code_version, 128)?;
        check::check_text("isa", &self.isa, 64)?;
        if let Some(commit) = &self.code_commit {
            check::check_commit("code_commit", commit)?;
        }
        if self.attempts == 0 {
            return Err(JobsError::field("attempts", self.attempts, "at least 1"));
        }
        if let Outcome::Failed { reason, exit_code } = &self.outcome {
            check::check_text("outcome.failed.reason", reason, REASON_LIMIT_CHARS)?;
            if *exit_code == ExitCode::Done {
                return Err(JobsError::field("outcome.failed.exit_code", exit_code, "a code of failure"));
            }
        }
        if self.threads == 0 {
            return Err(JobsError::field("threads", self.threads, "at least 1"));
        }
        if self.batches.len() > BATCHES_LIMIT {
            let found = format_args!("{} batches", self.batches.len()).to_string();
            return Err(JobsError::field("batches", found, format!("at most {BATCHES_LIMIT}")));
        }
        for (index, batch) in self.batches.iter().enumerate() {
            paths::check_relative(&batch.output)?;
            check_timings(&format!("batches[{index}].stages"), &batch.stages)?;
        }
        check_timings("totals", &self.totals)?;
        for (field, cost) in [("predicted", self.predicted), ("measured", Some(self.measured))] {
            if let Some(cost) = cost {
                check_secs(&format!("{field}.elapsed_secs"), cost.elapsed_secs)?;
            }
        }
        Ok(())
    }

    /// Errs with the worker's reason unless the job is done.
    ///
    /// # Errors
    /// [`JobsError::JobFailed`], carrying the worker's exit code.
    pub fn require_done(&self) -> Result<()> {
        match &self.outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed { reason, exit_code } => {
                Err(JobsError::JobFailed { reason: reason.clone(), exit_code: *exit_code })
            }
        }
    }

    /// Holds the receipt to the manifest it answers: job, tenant, plan, key, model, evaluation key, counts, and each
    /// batch's input, output path, occupancy and place. Looks at no file and not at the outcome, except that a job that
    /// is done has all its batches.
    ///
    /// # Errors
    /// [`JobsError::ReceiptMismatch`] for the first field that differs.
    pub fn verify_against(&self, manifest: &JobManifest) -> Result<()> {
        fn no_tenant(tenant: &Option<String>) -> &str {
            tenant.as_deref().unwrap_or("none")
        }
        same("job_id", &self.job_id, &manifest.job_id)?;
        same("tenant", no_tenant(&self.tenant), no_tenant(&manifest.tenant))?;
        same("key_id", &self.key_id, &manifest.key_id)?;
        same("plan_id", &self.plan_id, &manifest.plan_id)?;
        same("model", &self.model, &manifest.model.digest)?;
        same("eval_key", &self.eval_key, &manifest.eval_key.digest)?;
        same("images", &self.images, &manifest.images)?;
        same("slots", &self.slots, &manifest.slots)?;
        let (found, expected) = (self.batches.len(), manifest.batches.len());
        if self.outcome == Outcome::Done || found > expected {
            same("number of batches", &found, &expected)?;
        }
        for (index, (found, expected)) in self.batches.iter().zip(&manifest.batches).enumerate() {
            same(&format!("batches[{index}].input"), &found.input, &expected.input.digest)?;
            same(&format!("batches[{index}].output"), &found.output, &expected.output)?;
            same(&format!("batches[{index}].occupancy"), &found.occupancy, &expected.occupancy)?;
            same(&format!("batches[{index}].first_image"), &found.first_image, &expected.first_image)?;
        }
        Ok(())
    }

    /// Holds the outputs on disk to the receipt: every size, then every digest; reads all of them once.
    ///
    /// # Errors
    /// [`JobsError::WrongSize`], [`JobsError::WrongDigest`], and those of [`paths::resolve_input`].
    pub fn verify_outputs(&self, root: &Path) -> Result<()> {
        let mut found = Vec::with_capacity(self.batches.len());
        for (index, batch) in self.batches.iter().enumerate() {
            let path = paths::resolve_input(root, &batch.output)?;
            check_size(FileRole::Output(index), &path, batch.output_stamp.bytes)?;
            found.push((path, batch.output_stamp.digest));
        }
        for (index, (path, digest)) in found.into_iter().enumerate() {
            check_digest(FileRole::Output(index), &path, digest)?;
        }
        Ok(())
    }

    /// All that a client asks before it decrypts, and a worker before it says that there is nothing to do: the receipt
    /// answers this manifest, says done, and the outputs are the ones it names.
    ///
    /// # Errors
    /// Those of [`verify_against`](Self::verify_against), [`require_done`](Self::require_done) and
    /// [`verify_outputs`](Self::verify_outputs), in this order.
    pub fn verify(&self, job: &LoadedJob) -> Result<()> {
        self.verify_against(job.manifest())?;
        self.require_done()?;
        self.verify_outputs(job.root())
    }
}

fn same<T: PartialEq + std::fmt::Display + ?Sized>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(JobsError::ReceiptMismatch { what: what.to_owned(), found: found.to_string(), expected: expected.to_string() })
}

fn check_timings(field: &str, timings: &[Timing]) -> Result<()> {
    if timings.len() > TIMINGS_LIMIT {
        let found = format!("{} timings", timings.len());
        return Err(JobsError::field(field, found, format!("at most {TIMINGS_LIMIT}")));
    }
    for (index, timing) in timings.iter().enumerate() {
        check::check_text(&format!("{field}[{index}].name"), &timing.name, 128)?;
        check_secs(&format!("{field}[{index}].secs"), timing.secs)?;
    }
    Ok(())
}

fn check_secs(field: &str, secs: f64) -> Result<()> {
    if secs.is_finite() && secs >= 0.0 {
        return Ok(());
    }
    Err(JobsError::field(field, secs, "finite and not negative"))
}
