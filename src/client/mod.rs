//! The trusted wing: makes keys, encrypts images into a job folder, decrypts its results to labels.
//!
//! It meets the worker in files only. Callers give the time, the number of threads and the kernel; progress is a callback with the work done
//! so far. Everything written appears whole under its final name or not at all. Not here: the command line, the engine.

mod decrypt;
mod encrypt;
mod error;
#[cfg(feature = "exact")]
pub mod exact;
mod inputs;
mod keygen;
mod outputs;
mod setup;
mod verify;

pub use decrypt::{DecryptReport, DecryptRequest, Decrypted, decrypt, exceeds};
pub use encrypt::{EncryptReport, EncryptRequest, RequestSigning, encrypt};
pub use error::ClientError;
pub use inputs::{Images, decrypt_inputs};
pub use keygen::{KeyFile, KeygenReport, keygen};
pub use setup::Setup;
pub use verify::{VerifyReport, verify};

#[cfg(test)]
mod tests;
