//! Whose signatures count: a list of public keys, each bound to a tenant, that a worker demands of requests and a client
//! of receipts; and the memory of which job ids were taken, so that an id cannot come back with another content.
//!
//! A list is a file, or a folder of `*.pub` files. A line is `ed25519:HEX` and, where the key speaks for one, a tenant; `#`
//! begins a comment. In a folder a line without a tenant speaks for the tenant that the file is named after.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{JobsError, Result};
use crate::manifest::{LoadedJob, check};
use crate::signing::{Purpose, Signature, VerifyingKey};
use crate::{atomic, document};

/// Most bytes of a list.
const LIST_LIMIT_BYTES: u64 = 1 << 20;
/// Most files of a folder of lists.
const FILES_LIMIT: usize = 4096;

/// Public keys that are trusted, each for one tenant or for work of none.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    place: PathBuf,
    entries: Vec<(VerifyingKey, Option<String>)>,
}

/// What is known of who signed a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By this key, which is on the list given.
    Trusted(VerifyingKey),
    /// By this key, and no list was given to hold it to: anybody may have made it.
    Unchecked(VerifyingKey),
    /// Not at all, and no list was given.
    Not,
}

impl TrustedKeys {
    /// Reads a file, or every `*.pub` file of a folder.
    ///
    /// # Errors
    /// [`JobsError::Read`], [`JobsError::TooLarge`]; [`JobsError::Syntax`] for a line that is no key, and for a list without any.
    pub fn load(path: &Path) -> Result<Self> {
        let read_error = |source| JobsError::Read { path: path.to_owned(), source };
        let mut entries = Vec::new();
        if fs::metadata(path).map_err(read_error)?.is_dir() {
            for file in fs::read_dir(path).map_err(read_error)?.take(FILES_LIMIT) {
                let file = file.map_err(read_error)?.path();
                let tenant = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                if file.extension().is_some_and(|ending| ending == "pub") {
                    read_list(&file, tenant.as_deref(), &mut entries)?;
                }
            }
        } else {
            read_list(path, None, &mut entries)?;
        }
        if entries.is_empty() {
            return Err(JobsError::Syntax { path: path.to_owned(), detail: "no public key in it".to_owned() });
        }
        Ok(Self { place: path.to_owned(), entries })
    }

    /// How many lines it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: a list without keys is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// That a request was signed, for this very tenant, by a key of the list, and that its time is not over. `path` and `document`
    /// are the manifest's.
    ///
    /// # Errors
    /// [`JobsError::Unsigned`], [`JobsError::Untrusted`], [`JobsError::WrongSignature`], [`JobsError::Expired`].
    pub fn admit(
        &self,
        path: &Path,
        document: &[u8],
        tenant: Option<&str>,
        signature: Option<&Signature>,
        now_unix_secs: u64,
    ) -> Result<VerifyingKey> {
        let signature = self.present(path, signature)?;
        let expected = match tenant {
            Some(tenant) => format!("a key of {} bound to tenant {tenant}", self.place.display()),
            None => format!("a key of {} bound to no tenant", self.place.display()),
        };
        self.expect(path, signature, &expected, |bound| bound == tenant)?;
        signature.verify(path, document, Purpose::Request)?;
        match signature.expires_unix_secs() {
            Some(expired_unix_secs) if now_unix_secs >= expired_unix_secs => {
                Err(JobsError::Expired { path: path.to_owned(), expired_unix_secs, now_unix_secs })
            }
            _ => Ok(*signature.key()),
        }
    }

    fn present<'a>(&self, path: &Path, signature: Option<&'a Signature>) -> Result<&'a Signature> {
        signature.ok_or_else(|| JobsError::Unsigned { path: path.to_owned(), place: self.place.clone() })
    }

    fn expect(
        &self,
        path: &Path,
        signature: &Signature,
        expected: &str,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> Result<()> {
        let key = signature.key();
        if self.entries.iter().any(|(known, tenant)| known == key && fits(tenant.as_deref())) {
            return Ok(());
        }
        Err(JobsError::Untrusted { path: path.to_owned(), found: key.to_string(), expected: expected.to_owned() })
    }
}

/// Holds a receipt's bytes to the signature beside them. With a list the signature must be there and of one of its keys, whatever
/// tenant that is bound to; without one a signature that is there must still be of these bytes.
///
/// # Errors
/// As [`TrustedKeys::admit`], and those of reading the signature.
pub fn check_receipt(path: &Path, document: &[u8], trusted: Option<&TrustedKeys>) -> Result<Signed> {
    let signature = Signature::load_beside(path)?;
    let Some(trusted) = trusted else {
        let Some(signature) = signature else { return Ok(Signed::Not) };
        signature.verify(path, document, Purpose::Receipt)?;
        return Ok(Signed::Unchecked(*signature.key()));
    };
    let signature = trusted.present(path, signature.as_ref())?;
    trusted.expect(path, signature, &format!("a key of {}", trusted.place.display()), |_| true)?;
    signature.verify(path, document, Purpose::Receipt)?;
    Ok(Signed::Trusted(*signature.key()))
}

/// A folder that remembers which content a job id was first taken with, by tenant.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// The folder, made if it is not there. Whoever can write to it can make it forget.
    ///
    /// # Errors
    /// [`JobsError::Create`].
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| JobsError::Create { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes a job: remembers its id and content, or finds that they are the ones remembered. The same content may come again, since
    /// it leads to the same bytes; of two contents that come at once one is refused.
    ///
    /// # Errors
    /// [`JobsError::Replayed`] where the id was taken with another content; those of reading and writing.
    pub fn take(&self, job: &LoadedJob) -> Result<()> {
        let manifest = job.manifest();
        // A job id has no dot, so no two pairs share a name; both are plain names of bounded length.
        let name = match &manifest.tenant {
            Some(tenant) => format!("{}.{tenant}", manifest.job_id),
            None => manifest.job_id.clone(),
        };
        let path = self.folder.join(name);
        let found = Digest::of(job.document().as_bytes());
        match atomic::create_atomic(&path, format!("{found}\n").as_bytes()) {
            Err(JobsError::Create { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        let text = document::read_capped(&path, 128)?;
        let expected = text.trim_end().parse().map_err(|_| JobsError::Syntax {
            path: path.clone(),
            detail: "not a digest: expected 64 hexadecimal digits".to_owned(),
        })?;
        if found == expected {
            return Ok(());
        }
        Err(JobsError::Replayed { job_id: manifest.job_id.clone(), found, expected })
    }
}

fn read_list(path: &Path, default: Option<&str>, entries: &mut Vec<(VerifyingKey, Option<String>)>) -> Result<()> {
    let text = document::read_capped(path, LIST_LIMIT_BYTES)?;
    parse_list(path, &text, default, entries)
}

/// One key a line, see the top of this file.
fn parse_list(
    path: &Path,
    text: &str,
    default: Option<&str>,
    entries: &mut Vec<(VerifyingKey, Option<String>)>,
) -> Result<()> {
    for (number, line) in text.lines().enumerate() {
        let wrong = |detail: String| JobsError::Syntax {
            path: path.to_owned(),
            detail: format!("line {}: {detail}", number + 1),
        };
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(key) = words.next() else { continue };
        let key: VerifyingKey = key.parse().map_err(|error: crate::signing::KeySyntax| wrong(error.to_string()))?;
        let tenant = words.next().or(default);
        if let Some(tenant) = tenant {
            check::check_name("tenant", tenant).map_err(|error| wrong(error.to_string()))?;
        }
        if words.next().is_some() {
            return Err(wrong("more than a key and a tenant".to_owned()));
        }
        entries.push((key, tenant.map(str::to_owned)));
    }
    Ok(())
}
