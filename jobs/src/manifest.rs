//! `job.toml`: what is to be computed. Names one model, one evaluation key and any number of batches by path and
//! digest; every path is relative to the manifest's own folder, the job root. TOML, or JSON with the same fields.
//! A loaded manifest has been checked whole; nothing it names has been opened yet. Not here: results (see
//! [`crate::receipt`]), queues, and what is inside the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, digest_file, regular_file_bytes};
use crate::error::{FileRole, JobsError, Result};
use crate::{atomic, document, paths};

pub(crate) mod check;
mod terms;

pub use terms::{PRIORITY_LIMIT, Terms};

/// The schema this program writes and reads.
pub const SCHEMA: &str = "nightshift.job/1";
/// The engine of a manifest that names none.
pub const ENGINE: &str = "ckks";
/// The engines there are.
pub const ENGINES: [&str; 2] = [ENGINE, "tfhe"];
/// Most bytes of a manifest.
pub const MANIFEST_LIMIT_BYTES: u64 = 1 << 20;
/// Most batches in a job.
pub const BATCHES_LIMIT: usize = 65_536;
/// Most slots in a batch.
pub const SLOTS_LIMIT: u32 = 1 << 20;
/// Most bytes one input may claim to have: 1 PiB.
pub const INPUT_LIMIT_BYTES: u64 = 1 << 50;

/// A job as written down. Build it, then [`write`](Self::write) it; or [`load`] one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobManifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Random, 16 to 64 lower-case hex digits.
    pub job_id: String,
    /// Whose job it is, where a worker serves several; 1 to 128 of `A-Z a-z 0-9 . _ -`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was written, for people; RFC 3339 is customary.
    pub created: String,
    /// One of [`ENGINES`]; [`ENGINE`] where absent.
    #[serde(default = "default_engine")]
    pub engine: String,
    /// The plan the inputs were encrypted for.
    pub plan_id: String,
    /// The key they were encrypted under.
    pub key_id: String,
    /// Images in all batches together.
    pub images: u64,
    /// Slots of a ciphertext: the most images a batch can hold.
    pub slots: u32,
    /// Where the receipt goes.
    pub receipt: String,
    /// Wishes to the worker, by name; see [`JobManifest::refuse_unknown_options`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What a queue is asked for; absent means none of it. One-shot runs look at the memory limit alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Terms>,
    /// The network to run.
    pub model: ModelRef,
    /// The key to run it with.
    pub eval_key: FileRef,
    /// The batches, in the order of their images; at least one.
    pub batches: Vec<Batch>,
}

pub(crate) fn default_engine() -> String {
    ENGINE.to_owned()
}

/// A model package by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// Its name, for people.
    pub name: String,
    /// BLAKE3 of the package.
    pub digest: Digest,
    /// Where it lies; absent when the worker brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A file by path and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Where it lies.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
}

/// A file by path, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRef {
    /// Where it lies.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

/// One batch: encrypted images in, encrypted logits out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Where the result goes.
    pub output: String,
    /// Slots in use, 1 to `slots`.
    pub occupancy: u32,
    /// Index of the image in slot 0 among all images of the job.
    pub first_image: u64,
    /// The encrypted images.
    pub input: InputRef,
}

impl JobManifest {
    /// Checks every field and how they fit together.
    ///
    /// # Errors
    /// [`JobsError::Field`], [`JobsError::PathForm`] or [`JobsError::PathTwice`], naming the first field that is wrong.
    pub fn validate(&self) -> Result<()> {
        check::check_manifest(self)
    }

    /// A wish to the worker, held to what it may say; `None` where nothing is said.
    ///
    /// # Errors
    /// [`JobsError::Field`] for another value.
    pub fn option(&self, name: &str, values: &[&str]) -> Result<Option<&str>> {
        match self.options.get(name) {
            Some(value) if !values.contains(&value.as_str()) => {
                Err(JobsError::field(format!("options.{name}"), value, format!("one of {values:?}, or nothing")))
            }
            value => Ok(value.map(String::as_str)),
        }
    }

    /// Refuses options the worker does not know, so that a misspelt wish is not silently ignored.
    ///
    /// # Errors
    /// [`JobsError::Field`] naming the option and the known ones.
    pub fn refuse_unknown_options(&self, known: &[&str]) -> Result<()> {
        match self.options.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(JobsError::field("options", name, format!("one of {known:?}"))),
        }
    }

    /// The manifest as TOML, validated.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`JobsError::TooLarge`] when no reader would take it.
    pub fn to_toml(&self, path: &Path) -> Result<String> {
        self.validate()?;
        let text = toml::to_string(self)
            .map_err(|error| JobsError::Syntax { path: path.to_owned(), detail: error.to_string() })?;
        let found_bytes = text.len() as u64;
        if found_bytes > MANIFEST_LIMIT_BYTES {
            return Err(JobsError::TooLarge { path: path.to_owned(), found_bytes, limit_bytes: MANIFEST_LIMIT_BYTES });
        }
        Ok(text)
    }

    /// Writes the manifest as TOML under `path`, whole or not at all, and not over another.
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml) and [`atomic::create_atomic`].
    pub fn write(&self, path: &Path) -> Result<()> {
        check::check_own_name(self, path)?;
        atomic::create_atomic(path, self.to_toml(path)?.as_bytes())
    }
}

/// A manifest that has been read and checked, and where it lies.
#[derive(Clone, Debug)]
pub struct LoadedJob {
    manifest: JobManifest,
    document: String,
    path: PathBuf,
    root: PathBuf,
}

/// Reads and checks a manifest.
///
/// # Errors
/// [`JobsError::Read`], [`JobsError::NotAFile`], [`JobsError::TooLarge`]; [`JobsError::Syntax`] for a missing, unknown
/// or mistyped field; [`JobsError::NewerSchema`], [`JobsError::ForeignSchema`]; and those of [`JobManifest::validate`].
pub fn load(path: &Path) -> Result<LoadedJob> {
    let text = document::read_capped(path, MANIFEST_LIMIT_BYTES)?;
    let manifest = parse(path, &text)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(LoadedJob { manifest, document: text, path: path.to_owned(), root: paths::canonical(folder)? })
}

/// Reads and checks a manifest's text; `path` is its own name, for errors and because no path in it may be that.
///
/// # Errors
/// As [`load`], but for those of reading.
pub fn parse(path: &Path, text: &str) -> Result<JobManifest> {
    let manifest: JobManifest = document::parse(path, text, SCHEMA)?;
    manifest.validate()?;
    check::check_own_name(&manifest, path)?;
    Ok(manifest)
}

impl LoadedJob {
    /// The manifest.
    pub fn manifest(&self) -> &JobManifest {
        &self.manifest
    }

    /// The text it was read from, to the byte: what a signature covers.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// Where it was read from, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder, links resolved: where every path of it starts.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a batch's encrypted images lie. Its digest is not looked at.
    ///
    /// # Errors
    /// As [`paths::resolve_input`].
    pub fn input_path(&self, batch: &Batch) -> Result<PathBuf> {
        paths::resolve_input(&self.root, &batch.input.path)
    }

    /// Where a batch's result goes.
    ///
    /// # Errors
    /// As [`paths::resolve_output`].
    pub fn output_path(&self, batch: &Batch) -> Result<PathBuf> {
        paths::resolve_output(&self.root, &batch.output)
    }

    /// Where the receipt goes.
    ///
    /// # Errors
    /// As [`paths::resolve_output`].
    pub fn receipt_path(&self) -> Result<PathBuf> {
        paths::resolve_output(&self.root, &self.manifest.receipt)
    }

    /// Checks every input's size, then every input's digest; reads all of them once.
    ///
    /// # Errors
    /// [`JobsError::WrongSize`], [`JobsError::WrongDigest`], and those of [`input_path`](Self::input_path).
    pub fn verify_inputs(&self) -> Result<()> {
        let mut found = Vec::with_capacity(self.manifest.batches.len());
        for (index, batch) in self.manifest.batches.iter().enumerate() {
            let path = self.input_path(batch)?;
            check_size(FileRole::Input(index), &path, batch.input.bytes)?;
            found.push((path, batch.input.digest));
        }
        for (index, (path, digest)) in found.into_iter().enumerate() {
            check_digest(FileRole::Input(index), &path, digest)?;
        }
        Ok(())
    }

    /// The model package to use, its digest checked: `given` on the command line, else the manifest's own.
    ///
    /// # Errors
    /// [`JobsError::NoModel`] when neither is there, [`JobsError::WrongDigest`], and those of [`paths::resolve_input`].
    pub fn verify_model(&self, given: Option<&Path>) -> Result<PathBuf> {
        let model = &self.manifest.model;
        let path = match (given, &model.path) {
            (Some(given), _) => given.to_owned(),
            (None, Some(relative)) => paths::resolve_input(&self.root, relative)?,
            (None, None) => return Err(JobsError::NoModel { name: model.name.clone(), digest: model.digest }),
        };
        check_digest(FileRole::Model, &path, model.digest)?;
        Ok(path)
    }

    /// The evaluation key to use, its digest checked: `given` on the command line, else the manifest's own.
    ///
    /// # Errors
    /// [`JobsError::WrongDigest`], and those of [`paths::resolve_input`].
    pub fn verify_eval_key(&self, given: Option<&Path>) -> Result<PathBuf> {
        let path = match given {
            Some(given) => given.to_owned(),
            None => paths::resolve_input(&self.root, &self.manifest.eval_key.path)?,
        };
        check_digest(FileRole::EvalKey, &path, self.manifest.eval_key.digest)?;
        Ok(path)
    }
}

/// Holds a file's size to the one promised.
///
/// # Errors
/// [`JobsError::WrongSize`]; [`JobsError::Read`] and [`JobsError::NotAFile`] when it cannot be looked at.
pub fn check_size(role: FileRole, path: &Path, expected_bytes: u64) -> Result<()> {
    let found_bytes = regular_file_bytes(path)?;
    if found_bytes == expected_bytes {
        return Ok(());
    }
    Err(JobsError::WrongSize { role, path: path.to_owned(), found_bytes, expected_bytes })
}

/// Holds a file's digest to the one promised, in constant memory.
///
/// # Errors
/// [`JobsError::WrongDigest`], and those of [`digest_file`].
pub fn check_digest(role: FileRole, path: &Path, expected: Digest) -> Result<()> {
    let found = digest_file(path)?;
    if found == expected {
        return Ok(());
    }
    Err(JobsError::WrongDigest { role, path: path.to_owned(), found, expected })
}
