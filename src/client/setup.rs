//! From a model package to plan and parameters: what keygen, encrypt and decrypt each derive and compare by plan id.

use super::ClientError;
use crate::ckks::Context;
use crate::format::ciphertexts::EncryptionKind;
use crate::format::{FormatError, Header, ModelPackage};
use crate::plan::{Plan, Requirements, scales};
use crate::ring::kernels::Kernel;

/// A model's plan, its id, and the prepared parameters.
#[derive(Debug)]
pub struct Setup {
    /// The plan.
    pub plan: Plan,
    /// Its id with this model, 64 lower-case hexadecimal digits.
    pub plan_id: String,
    /// The parameters with their transforms.
    pub context: Context,
    /// The network's name.
    pub model_name: String,
    /// The package's id, 64 lower-case hexadecimal digits.
    pub model_id: String,
}

impl Setup {
    /// Plans the model's circuit.
    ///
    /// # Errors
    /// [`ClientError::Plan`], [`ClientError::Format`] for an inconsistent package, [`ClientError::Ckks`].
    pub fn new(model: &ModelPackage, requirements: &Requirements, kernel: Kernel) -> Result<Self, ClientError> {
        let model_id = model.model_id()?;
        let id_bytes = blake3::Hash::from_hex(&model_id)
            .map_err(|error| FormatError::invalid("model_id", &model_id, error.to_string()))?;
        let plan = scales::plan(&model.circuit, requirements)?;
        let plan_id = blake3::Hash::from_bytes(plan.id(id_bytes.as_bytes())).to_hex().to_string();
        let context = Context::new(plan.parameters.clone(), kernel)?;
        Ok(Self { plan, plan_id, context, model_name: model.network.name.clone(), model_id })
    }

    /// What files of this plan and that key say about themselves.
    #[must_use]
    pub fn header(&self, key_id: &str) -> Header {
        Header { key_id: key_id.to_owned(), plan_id: self.plan_id.clone(), model_name: self.model_name.clone() }
    }
}

/// Precision that the plan promises for inputs encrypted in this way, as -log2 of the error.
pub(super) fn promised_bits(plan: &Plan, encryption: EncryptionKind) -> f64 {
    match encryption {
        EncryptionKind::Secret => plan.precision.promised_bits,
        EncryptionKind::Public => plan.precision.promised_public_bits,
    }
}
