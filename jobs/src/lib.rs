//! The shape of the work: job manifests, receipts and the promises around them. No cryptography, and no other crate of
//! ours: it names, digests and places files it cannot read.
//!
//! - [`manifest`]: `job.toml`, what is to be computed, checked whole before anything is opened;
//! - [`receipt`]: what was computed, by whom and at what cost, and whether it answers a given manifest;
//! - [`paths`]: manifest paths stay inside the manifest's folder;
//! - [`digest`]: BLAKE3 of files in constant memory;
//! - [`atomic`]: files appear whole under their final name, or not at all;
//! - [`exit`]: the exit codes every command answers with.
//!
//! Not here: queues and leases, and anything that knows what a ciphertext is.

pub mod atomic;
pub mod digest;
pub mod error;
pub mod exit;
pub mod manifest;
pub mod paths;
pub mod receipt;

mod document;

pub use digest::{Digest, FileStamp};
pub use error::{FileRole, JobsError, Result};
pub use exit::ExitCode;
pub use manifest::{JobManifest, LoadedJob};
pub use receipt::Receipt;
