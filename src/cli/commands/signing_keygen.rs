//! `signing-keygen`: an Ed25519 key to sign requests or receipts with. None of the scheme's keys: it opens nothing.

use jobs::SigningKey;
use serde_json::json;

use super::{Context, Report};
use crate::ckks::CkksError;
use crate::cli::args::SigningKeygenArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table};
use crate::ring::sampling::fresh_seed;
use crate::worker::WorkerError;

/// Makes the key; never replaces one.
///
/// # Errors
/// No randomness; files that are there already or cannot be written.
pub fn run(args: &SigningKeygenArgs, _context: &Context) -> Result<Report, CliError> {
    let seed = fresh_seed().map_err(|error| WorkerError::Ckks(CkksError::from(error)))?;
    let key = SigningKey::from_seed(&seed);
    let public_path = key.write_new(&args.out)?;
    let public = key.verifying_key().to_string();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["signing key", &format!("{} (keep it: whoever has it signs in your name)", args.out.display())]);
    table.row(["public key", &format!("{} (for those who check)", public_path.display())]);
    table.row(["key", &public]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "signing_key": args.out.to_string_lossy(),
            "public_key": public_path.to_string_lossy(),
            "key": public,
        }),
    })
}
