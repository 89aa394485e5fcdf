//! `train`: a recipe and labelled images become a package with its training curve and model card, or a ladder of
//! granularities becomes a table. Test images are measured on at the end and see nothing before it.
//!
//! Built with the cargo feature `train` only; without it the command is there and says how to get it.

#[cfg(feature = "train")]
mod card;
#[cfg(feature = "train")]
mod curve;
#[cfg(feature = "train")]
mod data;
#[cfg(feature = "train")]
mod errors;
#[cfg(feature = "train")]
mod ladder;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod pack;
#[cfg(feature = "train")]
mod teacher;
#[cfg(feature = "train")]
mod watch;

use super::{Context, Report};
use crate::cli::args::TrainArgs;
use crate::cli::error::CliError;

/// Tells how to build a `nightshift` that trains.
///
/// # Errors
/// Always [`CliError::NoTrainer`].
#[cfg(not(feature = "train"))]
pub fn run(_args: &TrainArgs, _context: &Context) -> Result<Report, CliError> {
    Err(CliError::NoTrainer)
}

/// Trains, packs, measures and writes.
///
/// # Errors
/// A recipe or images that cannot be used, a run that diverges or is stopped, a network that no secure ring carries, an
/// output that cannot be written or would replace something other than its like.
#[cfg(feature = "train")]
pub fn run(args: &TrainArgs, context: &Context) -> Result<Report, CliError> {
    if args.ladder { ladder::run(args, context) } else { model::run(args, context) }
}
