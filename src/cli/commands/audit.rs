//! `audit`: some of a job's own images, drawn at random, through a network with exact activations as well; how often the two agree,
//! and what the exact way took.
//!
//! The client's machine does it all: labels of the job are decrypted, the drawn images are decrypted from the job's own batches,
//! encrypted again under a fresh key that is forgotten afterwards, run by the exact engine and decrypted.

#[cfg(feature = "exact")]
mod run;
#[cfg(feature = "exact")]
mod share;

#[cfg(feature = "exact")]
pub use run::run;

/// Refused: this build has no exact engine.
///
/// # Errors
/// [`CliError::NoExactEngine`](crate::cli::CliError::NoExactEngine), always.
#[cfg(not(feature = "exact"))]
pub fn run(_: &crate::cli::args::AuditArgs, _: &super::Context) -> Result<super::Report, crate::cli::CliError> {
    Err(crate::cli::CliError::NoExactEngine)
}
