//! Every byte on disk: containers, packed residues, model packages. `FORMATS.md` specifies the same for other languages.
//!
//! All files are safetensors files with extra rules ([`container`]): string metadata under `nightshift.*`, sections on
//! 4096-byte boundaries, and a check over every single byte. What a section means is said by the file of its kind:
//! [`package`], [`keys`], [`secret`], [`ciphertexts`] (inputs and results).
//!
//! Not here: encryption, authentication (digests find damage and mix-ups, they do not stop a forger), threads.

pub mod ciphertexts;
pub mod container;
mod error;
mod header;
mod identity;
pub mod keys;
pub mod lwe;
mod map;
mod numbers;
pub mod package;
mod pieces;
pub mod residues;
pub mod secret;
pub mod secret_lwe;
pub mod tensors;
mod writer;

#[cfg(test)]
mod tests;

pub use container::{Container, OpenLimits, PartDigest, Section};
pub use error::{ErrorKind, FormatError};
pub use header::{ALIGNMENT, DType, HEADER_CAP_BYTES, Kind, SectionSpec, VERSION};
pub use identity::{Expected, Header, LweExpected};
pub use map::Bytes;
pub use numbers::{Element, decode, encode};
pub use package::{Canary, EngineKind, ModelPackage, TablePackage};
pub use writer::{ContainerWriter, Flush, Written};
