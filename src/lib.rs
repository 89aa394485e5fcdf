//! Nightshift: encrypted batch inference. One image per slot, one ciphertext per pixel.
//!
//! The rooms and who may import whom are described in `ARCHITECTURE.md`; `tests/architecture.rs` enforces it.

pub mod ckks;
pub mod cli;
pub mod client;
pub mod engine;
#[cfg(feature = "exact")]
pub mod exact;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod net;
pub mod plan;
pub mod ring;
#[cfg(feature = "train")]
pub mod train;
pub mod worker;
