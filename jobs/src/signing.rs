//! Ed25519 signatures (RFC 8032) of whole documents: a client signs its request (`job.toml`), a worker its receipt. A
//! signature lies beside its document in `DOCUMENT.sig` and covers the document's exact bytes. The keys are none of the
//! scheme's: who has a signing key can speak in its owner's name and can decrypt nothing.
//!
//! Layouts are in FORMATS.md. Not here: whose key is trusted with what (see [`crate::trust`]).

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::Signer;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::digest::regular_file_bytes;
use crate::error::{JobsError, Result, clip};
use crate::{atomic, document};

/// The schema of a `.sig` file, and the first words of what is signed.
pub const SCHEMA: &str = "nightshift.signature/1";
/// Most bytes of a `.sig` file.
pub const SIGNATURE_LIMIT_BYTES: u64 = 4096;
/// Bytes of the seed that a signing key is made of.
pub const SEED_BYTES: usize = 32;
/// First word of a signing key's file.
const SIGNING_KEY_WORD: &str = "nightshift.signing-key/1";
/// Before the hexadecimal digits of a public key.
const KEY_PREFIX: &str = "ed25519:";
/// Permission bits that a signing key's file may not have.
const OTHERS: u32 = 0o177;

/// What a document is; a signature of one kind is none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A client's manifest: please compute this.
    Request,
    /// A worker's receipt: I computed this.
    Receipt,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Receipt => "receipt",
        })
    }
}

/// The public half: says whether a signature is its key's. Written `ed25519:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KEY_PREFIX)?;
        self.0.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("public key {0:?}, expected ed25519: and 64 lower-case hexadecimal digits of a point on the curve")]
pub struct KeySyntax(String);

impl FromStr for VerifyingKey {
    type Err = KeySyntax;

    fn from_str(text: &str) -> std::result::Result<Self, KeySyntax> {
        let bytes = text.strip_prefix(KEY_PREFIX).and_then(from_hex::<32>);
        let key = bytes.and_then(|bytes| ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok());
        // A point of small order would let anyone sign anything.
        key.filter(|key| !key.is_weak()).map(Self).ok_or_else(|| KeySyntax(clip(text)))
    }
}

/// The private half; zeroed when dropped. Neither printed nor copied, and written by [`write_new`](Self::write_new) only.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a seed, which comes from the operating system.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads a signing key, which nobody but its owner may read or write.
    ///
    /// # Errors
    /// [`JobsError::LooseMode`]; [`JobsError::Read`], [`JobsError::NotAFile`], [`JobsError::TooLarge`]; [`JobsError::Syntax`],
    /// which quotes nothing of the file.
    pub fn load(path: &Path) -> Result<Self> {
        let read_error = |source| JobsError::Read { path: path.to_owned(), source };
        regular_file_bytes(path)?;
        let mut file = File::open(path).map_err(read_error)?;
        let found = file.metadata().map_err(read_error)?.permissions().mode() & 0o7777;
        if found & OTHERS != 0 {
            return Err(JobsError::LooseMode { path: path.to_owned(), found });
        }
        // Room for the whole file from the start: a vector that grows leaves copies behind.
        let mut text = Zeroizing::new([0_u8; 128]);
        let mut length = 0;
        while length < text.len() {
            match file.read(&mut text[length..]).map_err(read_error)? {
                0 => break,
                more => length += more,
            }
        }
        let syntax = || JobsError::Syntax {
            path: path.to_owned(),
            detail: format!("not a signing key: expected {SIGNING_KEY_WORD} and 64 hexadecimal digits on one line"),
        };
        let text = std::str::from_utf8(&text[..length]).map_err(|_| syntax())?;
        let digits = text.strip_prefix(SIGNING_KEY_WORD).and_then(|rest| rest.strip_prefix(' '));
        let digits = digits.and_then(|rest| rest.strip_suffix('\n')).ok_or_else(syntax)?;
        let mut seed = from_hex::<SEED_BYTES>(digits).ok_or_else(syntax)?;
        let key = Self::from_seed(&seed);
        seed.zeroize();
        Ok(key)
    }

    /// Writes the key under `path` with mode 0600, and its public half under `path` with `.pub` behind. Replaces neither.
    ///
    /// # Errors
    /// As [`atomic::create_atomic`].
    pub fn write_new(&self, path: &Path) -> Result<PathBuf> {
        let public_path = with_ending(path, ".pub");
        for path in [path, &public_path] {
            if path.symlink_metadata().is_ok() {
                let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
                return Err(JobsError::Create { path: path.to_owned(), source });
            }
        }
        let mut text = Zeroizing::new(String::with_capacity(128));
        text.push_str(SIGNING_KEY_WORD);
        text.push(' ');
        for byte in self.0.as_bytes() {
            for nibble in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
        text.push('\n');
        atomic::create_atomic(&public_path, format!("{}\n", self.verifying_key()).as_bytes())?;
        // The private half last: without it the other is of no use, and a next try says that it is there.
        atomic::create_atomic_private(path, text.as_bytes()).inspect_err(|_| drop(fs::remove_file(&public_path)))?;
        Ok(public_path)
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs a document's bytes. From `expires_unix_secs` on, where given, the signature is good for nothing.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, document: &[u8], expires_unix_secs: Option<u64>) -> Signature {
        let signature = self.0.sign(&signed_bytes(purpose, expires_unix_secs, document)).to_bytes();
        Signature { purpose, key: self.verifying_key(), expires_unix_secs, signature }
    }
}

/// A document's signature, detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    purpose: Purpose,
    key: VerifyingKey,
    expires_unix_secs: Option<u64>,
    signature: [u8; 64],
}

/// The fields of a `.sig` file, in the order they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureText {
    schema: String,
    purpose: Purpose,
    key: String,
    expires_unix_secs: Option<u64>,
    signature: String,
}

impl Signature {
    /// The key that it says it is of. Whether it is, [`verify`](Self::verify) says.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Seconds since 1970 from which on it is good for nothing.
    #[must_use]
    pub fn expires_unix_secs(&self) -> Option<u64> {
        self.expires_unix_secs
    }

    /// One line of JSON; the one spelling that is read back.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = SignatureText {
            schema: SCHEMA.to_owned(),
            purpose: self.purpose,
            key: self.key.to_string(),
            expires_unix_secs: self.expires_unix_secs,
            signature: self.signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        // Strings and numbers only: nothing that could fail to be written.
        serde_json::to_string(&text).unwrap_or_default() + "\n"
    }

    /// Reads what [`to_text`](Self::to_text) wrote, and no other spelling of it.
    ///
    /// # Errors
    /// [`JobsError::Syntax`], [`JobsError::NewerSchema`], [`JobsError::ForeignSchema`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let syntax = |detail: String| JobsError::Syntax { path: path.to_owned(), detail };
        let fields: SignatureText = document::parse_json(path, text, SCHEMA)?;
        let key = fields.key.parse().map_err(|error: KeySyntax| syntax(error.to_string()))?;
        let signature = from_hex(&fields.signature)
            .ok_or_else(|| syntax("signature: expected 128 lower-case hexadecimal digits".to_owned()))?;
        let expires_unix_secs = fields.expires_unix_secs;
        let parsed = Self { purpose: fields.purpose, key, expires_unix_secs, signature };
        if parsed.to_text() != text {
            return Err(syntax("not in the accepted spelling".to_owned()));
        }
        Ok(parsed)
    }

    /// The signature beside a document; none where there is no such file.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse) and of reading.
    pub fn load_beside(document_path: &Path) -> Result<Option<Self>> {
        let path = signature_path(document_path);
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        Self::load(&path).map(Some)
    }

    /// Reads a `.sig` file.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse) and of reading.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &document::read_capped(path, SIGNATURE_LIMIT_BYTES)?)
    }

    /// What it is of.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Writes it beside its document, whole or not at all, replacing an earlier one.
    ///
    /// # Errors
    /// As [`atomic::write_atomic`].
    pub fn write_beside(&self, document_path: &Path) -> Result<()> {
        atomic::write_atomic(&signature_path(document_path), self.to_text().as_bytes())
    }

    /// That it is its key's signature of these bytes for this purpose. Says nothing of whether the key is trusted, nor of time.
    ///
    /// # Errors
    /// [`JobsError::WrongSignature`].
    pub fn verify(&self, document_path: &Path, document: &[u8], purpose: Purpose) -> Result<()> {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        let bytes = signed_bytes(purpose, self.expires_unix_secs, document);
        // Strict: one signature has one spelling, and no weak key is taken (Chalkias et al., eprint 2020/1244).
        if self.purpose == purpose && self.key.0.verify_strict(&bytes, &signature).is_ok() {
            return Ok(());
        }
        let (path, key) = (document_path.to_owned(), self.key.to_string());
        Err(JobsError::WrongSignature { path, purpose, key })
    }
}

/// Where a document's signature lies: its path with `.sig` behind.
#[must_use]
pub fn signature_path(document_path: &Path) -> PathBuf {
    with_ending(document_path, ".sig")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// `SCHEMA PURPOSE`, `expires NUMBER` or `expires never`, a line each, then the document.
fn signed_bytes(purpose: Purpose, expires_unix_secs: Option<u64>, document: &[u8]) -> Vec<u8> {
    let expires = expires_unix_secs.map_or_else(|| "never".to_owned(), |secs| secs.to_string());
    let mut bytes = format!("{SCHEMA} {purpose}\nexpires {expires}\n").into_bytes();
    bytes.extend_from_slice(document);
    bytes
}

/// Exactly `2 N` lower-case digits.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}
