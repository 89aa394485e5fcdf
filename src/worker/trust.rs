//! Whose requests a worker takes, and in whose name it answers. Refusals come before anything that a request names is looked
//! at. The key that signs receipts is none of the scheme's: it opens nothing.

use std::path::Path;

use jobs::signing::Signature;
use jobs::trust::{Ledger, Signed};
use jobs::{LoadedJob, Receipt, SigningKey, TrustedKeys};

use super::WorkerError;

/// Commit that this program was built from, where that was known when it was built.
pub const CODE_COMMIT: Option<&str> = match option_env!("NIGHTSHIFT_COMMIT") {
    Some(commit) if !commit.is_empty() => Some(commit),
    _ => None,
};

/// Nothing of it is demanded by default.
#[derive(Clone, Copy, Default)]
pub struct Trust<'a> {
    /// Keys of which one must have signed a request, for its tenant.
    pub requests: Option<&'a TrustedKeys>,
    /// Memory of the jobs taken.
    pub ledger: Option<&'a Ledger>,
    /// Signs receipts.
    pub signing: Option<&'a SigningKey>,
    /// The time, seconds since 1970.
    pub now_unix_secs: u64,
}

impl Trust<'_> {
    /// Whether this job may be worked on: signed for its tenant and in time where that is demanded, and its id not taken with another
    /// content.
    ///
    /// # Errors
    /// [`WorkerError::Jobs`], most of them with exit code 77.
    pub fn admit(&self, job: &LoadedJob) -> Result<(), WorkerError> {
        if let Some(trusted) = self.requests {
            let signature = Signature::load_beside(job.path())?;
            let tenant = job.manifest().tenant.as_deref();
            trusted.admit(job.path(), job.document().as_bytes(), tenant, signature.as_ref(), self.now_unix_secs)?;
        }
        if let Some(ledger) = self.ledger {
            ledger.take(job)?;
        }
        Ok(())
    }

    /// The receipt that stands, where it counts: a worker with a key takes only its own signature for having done the work.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn standing_receipt(&self, path: &Path) -> Result<Option<Receipt>, WorkerError> {
        let (receipt, signed) = Receipt::load_signed(path, None)?;
        let Some(key) = self.signing else { return Ok(Some(receipt)) };
        Ok((signed == Signed::Unchecked(key.verifying_key())).then_some(receipt))
    }
}
