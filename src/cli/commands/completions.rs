//! `completions`: the script that completes a command in a shell. With
//! `--json` it is a field of the object.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::Report;
use crate::cli::completions::write_completions;
use crate::cli::error::CliError;

/// The script for the command `C`.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn run<C: CommandFactory>(shell: Shell) -> Result<Report, CliError> {
    let mut script = Vec::new();
    write_completions::<C>(shell, &mut script).map_err(CliError::Stdout)?;
    let text = String::from_utf8_lossy(&script).into_owned();
    Ok(Report { json: json!({ "shell": shell.to_string(), "script": text }), text })
}
