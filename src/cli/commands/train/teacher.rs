//! A teacher that the user gives: the network of a package of either engine, or of a specification with its weights.

use std::path::Path;

use jobs::digest::digest_file;

use crate::cli::args::TrainArgs;
use crate::cli::commands::exact;
use crate::cli::error::CliError;
use crate::cli::packaging::import_network;
use crate::format::{ModelPackage, TablePackage};
use crate::net::Network;

/// A network trained elsewhere.
pub(super) struct GivenTeacher {
    pub(super) network: Network,
    /// BLAKE3, hexadecimal, of the file that its weights stand in.
    pub(super) digest: String,
}

/// The teacher of `--teacher`, if there is one.
///
/// # Errors
/// Files that cannot be read or are not what they should be, a specification without weights.
pub(super) fn read(args: &TrainArgs) -> Result<Option<GivenTeacher>, CliError> {
    let Some(path) = &args.teacher else { return Ok(None) };
    let (network, file) = match &args.teacher_weights {
        Some(weights) => (import_network(path, weights)?.0, weights),
        None if path.extension().is_some_and(|ending| ending == "json") => {
            return Err(CliError::content(path, "weights of the specification", "missing", "--teacher-weights FILE"));
        }
        None => (packaged(path)?, path),
    };
    Ok(Some(GivenTeacher { network, digest: digest_file(file)?.to_string() }))
}

fn packaged(path: &Path) -> Result<Network, CliError> {
    match exact::serves(path)? {
        true => Ok(TablePackage::open(path)?.network),
        false => Ok(ModelPackage::open(path)?.network),
    }
}
