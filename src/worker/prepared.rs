//! A model and an evaluation key made ready for batches: what all batches of a job have in common, and often those of
//! many jobs. Nothing of one job is kept here; a manifest is held against it before each use.

use std::path::{Path, PathBuf};

use jobs::{Digest, JobManifest};

use super::WorkerError;
use super::memory::available_bytes;
use super::rates::{self, RatesSource};
use crate::ckks::Context;
use crate::engine::Engine;
use crate::format::keys::read_evaluation_key;
use crate::format::{Expected, FormatError, ModelPackage};
use crate::plan::cost::{self, Cost};
use crate::plan::{Plan, Requirements, scales};
use crate::ring::kernels::Kernel;

/// What a machine gives to work.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Threads that compute.
    pub threads: usize,
    /// Kernel tier.
    pub kernel: Kernel,
    /// Refuse work that needs more.
    pub memory_limit_bytes: Option<u64>,
    /// This machine's rates, for the seconds foretold; `None`: those in the user's cache (see [`rates::find`]).
    pub rates: Option<PathBuf>,
}

/// A model and its plan; no key yet.
pub struct Planned {
    context: Context,
    model: ModelPackage,
    plan: Plan,
    plan_id: String,
    cost: Cost,
    machine: Machine,
}

impl Planned {
    /// Opens a package and plans it, with this machine's speeds.
    ///
    /// # Errors
    /// [`WorkerError::Format`], [`WorkerError::Plan`], [`WorkerError::Ckks`].
    pub fn open(model_path: &Path, machine: &Machine) -> Result<Self, WorkerError> {
        let (model, model_id) = ModelPackage::open_with_id(model_path)?;
        let plan = scales::plan(&model.circuit, &Requirements::default())?;
        let plan_id = plan_id(&plan, &model_id)?;
        let (rates, source) = rates::find(machine.rates.as_deref(), machine.kernel, machine.threads)?;
        if let RatesSource::Ignored { path, reason } = source {
            tracing::warn!("{}: {reason}; what is foretold rests on a quick measurement", path.display());
        }
        let cost = cost::cost(&model.circuit, &plan, &rates);
        let context = Context::new(plan.parameters.clone(), machine.kernel)?;
        Ok(Self { context, model, plan, plan_id, cost, machine: machine.clone() })
    }

    /// What one batch takes.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// The manifest's plan must be this one.
    ///
    /// # Errors
    /// [`WorkerError::Mismatch`].
    pub fn expect(&self, manifest: &JobManifest) -> Result<(), WorkerError> {
        expect(manifest, &self.plan_id, self.plan.slots(), &self.model.network.name)
    }

    /// Refuses what does not fit the limit given, the job's own or the machine.
    ///
    /// # Errors
    /// [`WorkerError::Memory`].
    pub fn check_memory(&self, manifest: &JobManifest) -> Result<(), WorkerError> {
        let needed_bytes = self.cost.peak_bytes;
        check_own_limit(manifest, needed_bytes)?;
        check_memory(needed_bytes, self.machine.memory_limit_bytes)
    }

    /// Reads the key and makes the engine.
    ///
    /// # Errors
    /// [`WorkerError::Format`] for another key, [`WorkerError::Setup`].
    pub fn with_key(self, eval_key_path: &Path, key_id: &str) -> Result<Prepared, WorkerError> {
        let Self { context, model, plan, plan_id, cost, machine } = self;
        let key = {
            let expected = Expected { plan_id: &plan_id, key_id: Some(key_id), context: &context };
            read_evaluation_key(eval_key_path, &expected)?.1
        };
        let entries = model.circuit.inputs();
        let (input_scale, output_scale, slots) = (plan.input_scale, plan.output().output_scale, plan.slots());
        let engine = Engine::with_context(context, model.circuit, plan, Some(key), machine.threads)
            .map_err(|error| WorkerError::Setup(Box::new(error)))?;
        let (model_name, key_id) = (model.network.name, key_id.to_owned());
        Ok(Prepared { engine, plan_id, key_id, model_name, slots, entries, input_scale, output_scale, cost })
    }
}

/// Ready to run batches, several at a time if need be.
pub struct Prepared {
    pub(super) engine: Engine,
    pub(super) plan_id: String,
    pub(super) key_id: String,
    model_name: String,
    slots: usize,
    pub(super) entries: usize,
    pub(super) input_scale: f64,
    pub(super) output_scale: f64,
    cost: Cost,
}

impl Prepared {
    /// The manifest's plan and key must be these.
    ///
    /// # Errors
    /// [`WorkerError::Mismatch`].
    pub fn expect(&self, manifest: &JobManifest) -> Result<(), WorkerError> {
        expect(manifest, &self.plan_id, self.slots, &self.model_name)?;
        same("key id", &manifest.key_id, &self.key_id)
    }

    /// What one batch takes.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// Ciphertexts that one batch computes.
    pub fn ciphertexts(&self) -> usize {
        self.engine.ciphertexts()
    }
}

/// The job may say how much a batch of it may take, wherever it runs.
pub(super) fn check_own_limit(manifest: &JobManifest, needed_bytes: u64) -> Result<(), WorkerError> {
    let own = manifest.queue.as_ref().and_then(|terms| terms.memory_limit_bytes);
    match own.filter(|&limit| needed_bytes > limit) {
        Some(limit_bytes) => {
            Err(WorkerError::Memory { needed_bytes, limit_bytes, limit: "allowed by the job's own manifest" })
        }
        None => Ok(()),
    }
}

/// Refuses what does not fit the limit given or the machine.
pub(super) fn check_memory(needed_bytes: u64, limit_bytes: Option<u64>) -> Result<(), WorkerError> {
    if let Some(limit_bytes) = limit_bytes.filter(|&limit| needed_bytes > limit) {
        return Err(WorkerError::Memory { needed_bytes, limit_bytes, limit: "allowed by the limit given" });
    }
    if let Some(limit_bytes) = available_bytes().filter(|&limit| needed_bytes > limit) {
        return Err(WorkerError::Memory { needed_bytes, limit_bytes, limit: "available on this machine" });
    }
    Ok(())
}

fn expect(manifest: &JobManifest, plan_id: &str, slots: usize, model_name: &str) -> Result<(), WorkerError> {
    same("plan id", &manifest.plan_id, plan_id)?;
    same("slots", &manifest.slots.to_string(), &slots.to_string())?;
    same("model name", &manifest.model.name, model_name)
}

pub(super) fn same(what: &'static str, found: &str, expected: &str) -> Result<(), WorkerError> {
    if found == expected {
        return Ok(());
    }
    Err(WorkerError::Mismatch { what, found: found.to_owned(), expected: expected.to_owned() })
}

fn plan_id(plan: &Plan, model_id: &str) -> Result<String, WorkerError> {
    let bytes = blake3::Hash::from_hex(model_id)
        .map_err(|error| FormatError::invalid("model_id", model_id, error.to_string()))?;
    Ok(Digest::from_bytes(plan.id(bytes.as_bytes())).to_string())
}
