//! The exact engine's side of the client: keys, encrypted images and labels, one image at a time.
//!
//! Same folders, manifests and receipts as the other engine; a batch is a file of so many images that nothing packs together.
//! There is no public key: data providers hold the secret key. Not here: the command line, the engine.

mod decrypt;
mod encrypt;

use std::path::Path;

pub use decrypt::{ExactDecrypted, UNDECIDED, decrypt};
pub use encrypt::{EncryptedJob, ExactEncryptRequest, encrypt, image_bytes};

use super::ClientError;
use super::keygen::KeyFile;
use super::outputs::Outputs;
use crate::exact::secret::SecretKey;
use crate::exact::{EvaluationKey, PARAMETERS, plan_id};
use crate::format::lwe::{self, BatchShape, KeyParts, KeyShape};
use crate::format::{FormatError, Header, LweExpected, TablePackage, secret_lwe};
use crate::net::TableCircuit;

/// Images of a batch, when it is full.
pub const BATCH_IMAGES: usize = 256;

/// Keys that were made.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactKeys {
    /// Public identifier of the key, 32 hexadecimal digits.
    pub key_id: String,
    /// The plan that the key is for, 64 hexadecimal digits.
    pub plan_id: String,
    /// The network's name.
    pub model_name: String,
    /// `secret.key`, mode 0600.
    pub secret_key: KeyFile,
    /// `eval.key`.
    pub evaluation_key: KeyFile,
}

/// Ids of a model, and the one spelling of the parameters.
struct ExactSetup {
    plan_id: String,
    model_name: String,
    model_id: String,
    parameters: String,
}

impl ExactSetup {
    fn new(model: &TablePackage) -> Result<Self, ClientError> {
        let model_id = model.model_id()?;
        let model_name = model.network.name.clone();
        Ok(Self { plan_id: plan_id(&model_id), model_name, model_id, parameters: PARAMETERS.text() })
    }

    fn header(&self, key_id: &str) -> Header {
        Header { key_id: key_id.to_owned(), plan_id: self.plan_id.clone(), model_name: self.model_name.clone() }
    }

    fn expected<'a>(&'a self, key_id: Option<&'a str>) -> LweExpected<'a> {
        LweExpected { plan_id: &self.plan_id, key_id, parameters: &self.parameters }
    }

    /// The key of `path`, whose id must be that of its seed.
    fn read_secret(&self, path: &Path, key_id: Option<&str>) -> Result<SecretKey, ClientError> {
        let (header, seed) = secret_lwe::read_secret_seed(path, &self.expected(key_id))?;
        let key = SecretKey::from_seed(seed);
        if header.key_id != key.id() {
            return Err(FormatError::invalid("key_id", &header.key_id, key.id()).in_file(path).into());
        }
        Ok(key)
    }
}

fn key_shape() -> KeyShape {
    let p = &PARAMETERS;
    KeyShape::new(p.lwe_dimension, p.bootstrap_levels, p.polynomial_size, p.keyswitch_levels)
}

fn batch_shape(circuit: &TableCircuit, slots: usize) -> BatchShape {
    BatchShape::new(circuit, slots, PARAMETERS.lwe_dimension, PARAMETERS.polynomial_size)
}

/// Makes both keys for a model in `out_dir` (made with mode 0700 if it is not there).
///
/// # Errors
/// [`ClientError::Exists`] where one of them is there already; those of randomness and writing. On error neither is left.
pub fn keygen(model: &TablePackage, out_dir: &Path) -> Result<ExactKeys, ClientError> {
    let setup = ExactSetup::new(model)?;
    let mut outputs = Outputs::open(out_dir, 0o700)?;
    let [secret_path, evaluation_path] = [outputs.free_path("secret.key")?, outputs.free_path("eval.key")?];
    let key = SecretKey::generate()?;
    let header = setup.header(&key.id());
    let EvaluationKey { bootstrap_seed, bootstrap, keyswitch_seed, keyswitch } = key.evaluation_key()?;
    let parts = KeyParts { bootstrap_seed, bootstrap, keyswitch_seed, keyswitch };
    let evaluation = lwe::write_key(&evaluation_path, &header, &setup.parameters, &key_shape(), &parts)?;
    outputs.made(&evaluation_path);
    // The secret comes last: nothing after it can fail, so it is never removed again.
    let secret = secret_lwe::write_secret_seed(&secret_path, &header, &setup.parameters, key.seed())?;
    outputs.keep();
    Ok(ExactKeys {
        key_id: header.key_id,
        plan_id: header.plan_id,
        model_name: header.model_name,
        secret_key: KeyFile { path: secret_path, file_bytes: secret.file_bytes },
        evaluation_key: KeyFile { path: evaluation_path, file_bytes: evaluation.file_bytes },
    })
}
