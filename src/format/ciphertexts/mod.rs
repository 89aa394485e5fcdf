//! Ciphertexts on disk: a batch of inputs on its way to the worker, and its results on their way back.
//!
//! Inputs ([`EncryptedBatch`], [`BatchWriter`]) are two-component ciphertexts in the NTT domain, one an entry of the image; results
//! ([`ResultBatch`], [`write_results`]) are two- or three-component ones in *coefficient* form, one a logit. Both say in their metadata
//! whose they are ([`Header`](super::Header)) and which part of which job ([`BatchPlace`]). Not here: encryption, decryption, threads.

mod batch;
mod place;
mod results;
mod writer;

pub use batch::{EncryptedBatch, ExpectedBatch, MappedBatch};
pub use place::{BatchPlace, EncryptionKind};
pub use results::{ExpectedResult, ResultBatch, ResultHeader, write_results};
pub(crate) use writer::Blocks;
pub use writer::{BatchHeader, BatchWriter, Encryption, EntryRun};
