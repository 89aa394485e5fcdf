//! What the commands do with models of the exact engine. `evaluate` and `inspect` need no cryptography and are the same in
//! every build; the rest is compiled with the cargo feature `exact` and refused without it.

mod evaluate;
#[cfg(feature = "exact")]
mod keys;
mod quantise;

use std::path::Path;

pub(super) use evaluate::evaluate;
#[cfg(feature = "exact")]
pub(super) use keys::{decrypt, encrypt, keygen, needs};
pub(super) use quantise::import;

use crate::cli::error::CliError;
use crate::format::{EngineKind, Kind};
use crate::net::Network;
use crate::net::network::Op;

/// Whether the package is one of the exact engine.
///
/// # Errors
/// A file that is no package.
pub(super) fn serves(model: &Path) -> Result<bool, CliError> {
    Ok(EngineKind::of_file(model, Some(Kind::Model))? == EngineKind::Tfhe)
}

/// Whether only the exact engine can serve the network.
pub(super) fn is_needed(network: &Network) -> bool {
    network.layers.iter().any(|layer| matches!(layer.op, Op::Relu))
}

#[cfg(not(feature = "exact"))]
mod absent {
    use std::path::Path;

    use jobs::JobManifest;

    use crate::cli::args::{DecryptArgs, EncryptArgs, KeygenArgs};
    use crate::cli::commands::{Context, Report};
    use crate::cli::error::CliError;

    pub(in crate::cli::commands) fn keygen(_: &KeygenArgs, _: &Context) -> Result<Report, CliError> {
        Err(CliError::NoExactEngine)
    }

    pub(in crate::cli::commands) fn encrypt(_: &EncryptArgs, _: &Context) -> Result<Report, CliError> {
        Err(CliError::NoExactEngine)
    }

    pub(in crate::cli::commands) fn needs(_: &Path, _: &JobManifest, _: usize) -> Result<(u64, u64), CliError> {
        Err(CliError::NoExactEngine)
    }

    pub(in crate::cli::commands) fn decrypt(_: &DecryptArgs, _: &Context) -> Result<Report, CliError> {
        Err(CliError::NoExactEngine)
    }
}
#[cfg(not(feature = "exact"))]
pub(super) use absent::{decrypt, encrypt, keygen, needs};
