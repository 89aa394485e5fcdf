//! The command line: argument types, commands, progress, logs, tables and the demo's own images.
//!
//! What the two binaries share and what is not cryptography lives here. Nothing below imports it: rooms further down
//! take progress as a closure or a trait object and return values; only this room writes to the terminal.

pub mod args;
pub mod commands;
pub mod completions;
mod decrypted;
pub mod digits;
mod error;
pub mod figures;
mod images;
pub mod logging;
#[cfg(feature = "train")]
mod observe;
mod oracles;
mod packaging;
pub mod progress;
pub mod report;
#[cfg(feature = "exact")]
mod sheet;
mod signals;
mod tables;

pub use error::CliError;
