//! Arguments about signatures: making keys, signing requests, demanding signatures of others.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::ValueError;

/// Arguments of `signing-keygen`, in both commands.
#[derive(Args, Debug)]
pub struct SigningKeygenArgs {
    /// Signing key to write, mode 0600; its public half goes beside it as FILE.pub. Neither is ever replaced
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `sign`.
#[derive(Args, Debug)]
pub struct SignArgs {
    /// The job's manifest, JOB/job.toml
    #[arg(value_name = "JOB/job.toml")]
    pub job: PathBuf,
    /// How to sign.
    #[command(flatten)]
    pub signing: RequiredSigning,
}

/// The key to sign a request with.
#[derive(Args, Debug)]
pub struct RequiredSigning {
    /// Key to sign with, made by signing-keygen
    #[arg(long, value_name = "FILE")]
    pub signing_key: PathBuf,
    /// How long the signature is good for, such as 12h or 7d [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub valid_for: Option<Validity>,
}

/// As [`RequiredSigning`], where a signature is a choice.
#[derive(Args, Debug)]
pub struct OptionalSigning {
    /// Sign the request with this key, made by signing-keygen
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// How long the signature is good for, such as 12h or 7d [default: for ever]
    #[arg(long, value_name = "TIME", requires = "signing_key")]
    pub valid_for: Option<Validity>,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The job's manifest, JOB/job.toml
    #[arg(value_name = "JOB/job.toml")]
    pub job: PathBuf,
    /// Whose signature is trusted.
    #[command(flatten)]
    pub worker_key: WorkerKey,
}

/// Whose receipts are believed.
#[derive(Args, Debug)]
pub struct WorkerKey {
    /// Demand a receipt signed by a key of this file, or of the *.pub files of this folder [default: no signature is demanded]
    #[arg(long, value_name = "FILE|DIR")]
    pub worker_key: Option<PathBuf>,
}

/// What a worker demands of requests, and how it answers for itself.
#[derive(Args, Debug, Default)]
pub struct TrustArgs {
    /// Sign receipts with this key, made by signing-keygen
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Take only requests signed for their tenant by a key of this file, or of the TENANT.pub files of this folder
    #[arg(long, value_name = "FILE|DIR")]
    pub require_signed_by: Option<PathBuf>,
    /// Folder that remembers the jobs taken, so that no job id comes back with another content
    #[arg(long, value_name = "DIR")]
    pub ledger: Option<PathBuf>,
}

/// A length of time, at least a second. Text: a whole number and one of s, m, h, d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(u64);

impl Validity {
    /// Whole seconds.
    #[must_use]
    pub fn secs(self) -> u64 {
        self.0
    }
}

impl FromStr for Validity {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::Validity { found: text.to_owned() };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let secs = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_secs));
        // A thousand years: what is added to the time now stays far from overflow.
        secs.filter(|secs| (1..=365_000 * 86_400).contains(secs)).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, secs) in [("1s", 1), ("90m", 5400), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(text.parse::<Validity>().map(Validity::secs), Ok(secs), "{text}");
        }
        for text in ["", "7", "d", "0s", "7w", "-1d", "1.5h", "7 d", "7D", "99999999999999999999s", "400000d"] {
            assert!(text.parse::<Validity>().is_err(), "{text}");
        }
    }
}
