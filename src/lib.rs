//! Nightshift: encrypted batch inference. One image per slot, one ciphertext per pixel.
//!
//! The rooms and who may import whom are described in `ARCHITECTURE.md`; `tests/architecture.rs` enforces it.

pub mod ckks;
pub mod cli;
pub mod client;
pub mod engine;
pub mod format;
pub mod net;
pub mod plan;
pub mod ring;
#[cfg(feature = "train")]
pub mod train;
pub mod worker;
