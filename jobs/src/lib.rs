//! The shape of the work: job manifests, receipts and the promises around them. No cryptography but digests and signatures
//! of its own documents, and no other crate of ours: it names, digests and places files it cannot read.
//!
//! - [`manifest`]: `job.toml`, what is to be computed, checked whole before anything is opened;
//! - [`receipt`]: what was computed, by whom and at what cost, and whether it answers a given manifest;
//! - [`rates`]: how fast a machine was found to be;
//! - [`signing`], [`trust`]: signatures of manifests and receipts, and whose count;
//! - [`metrics`]: what was done, as figures for Prometheus;
//! - [`paths`]: manifest paths stay inside the manifest's folder;
//! - [`digest`]: BLAKE3 of files in constant memory;
//! - [`atomic`]: files appear whole under their final name, or not at all;
//! - [`time`]: times of day as text;
//! - [`exit`]: the exit codes every command answers with;
//! - [`queue`]: who works on which batch: claims, leases, commits, on a folder, a bucket or PostgreSQL;
//! - [`store`]: the payloads that a queue's messages refer to;
//! - [`submit`], [`fetch`]: a job's folder into a queue and its results out of it;
//! - [`runner`]: a worker's loop over a queue: claim, bring down, compute, commit;
//! - [`mod@failpoint`]: named places where tests make things go wrong.
//!
//! Not here: anything that knows what a ciphertext is.

pub mod atomic;
pub mod digest;
pub mod error;
pub mod exit;
pub mod failpoint;
pub mod fetch;
pub mod manifest;
pub mod metrics;
pub mod paths;
pub mod queue;
pub mod rates;
pub mod receipt;
pub mod runner;
pub mod signing;
pub mod store;
pub mod submit;
pub mod time;
pub mod trust;

mod document;

pub use digest::{Digest, FileStamp};
pub use error::{FileRole, JobsError, Result};
pub use exit::ExitCode;
pub use manifest::{JobManifest, LoadedJob};
pub use receipt::Receipt;
pub use signing::{SigningKey, VerifyingKey};
pub use trust::TrustedKeys;
