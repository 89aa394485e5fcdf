//! The program: passes of tiles, key-switch passes, results.

use super::EngineError;
use super::prepare::PreparedPass;
use super::tile::{BandPlace, TileScratch, Tiles};
use crate::ckks::Context;
use crate::ckks::keys::EvaluationKey;
use crate::ckks::keyswitch::{KeySwitch, KeySwitchKey, Scratch};
use crate::format::{FormatError, Words};
use crate::net::circuit::Circuit;
use crate::plan::cost::last_reader;
use crate::plan::passes::passes;
use crate::plan::{After, Plan};
use crate::ring::kernels::Kernel;
use rayon::prelude::*;
use std::sync::Mutex;

/// An encrypted batch as the engine reads it.
pub trait Inputs: Sync {
    /// Residues modulo prime `limb` of component `component` of ciphertext `entry`, NTT positions `first .. first + out.len()`, each below q.
    ///
    /// # Errors
    /// [`FormatError`] if a stored residue is not below q.
    fn load_into(
        &self,
        component: usize,
        limb: usize,
        entry: usize,
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError>;

    /// Announces that `count` residues from position `first` on, of both components, will be loaded soon. A hint.
    fn prefetch(&self, limb: usize, entry: usize, first: usize, count: usize) {
        let _ = (limb, entry, first, count);
    }
}

/// What the engine is doing, for progress and timings; told from the thread that called [`Engine::run`] or from workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A stage's tiles begin.
    Tiles {
        /// Stage number.
        stage: usize,
        /// Its name.
        name: &'a str,
    },
    /// A stage's key switches (or, for the last stage, inverse transforms) begin.
    Polynomials {
        /// Stage number.
        stage: usize,
        /// Its name.
        name: &'a str,
    },
    /// Output ciphertexts of the whole program finished so far.
    Done {
        /// Finished.
        ciphertexts: usize,
        /// In all.
        total: usize,
    },
}

/// Encrypted logits in coefficient form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// Logits.
    pub outputs: usize,
    /// 2 or 3.
    pub components: usize,
    /// Limbs of each.
    pub limbs: usize,
    /// `[output][component][limb][N]`, residues in `[0, q)`, coefficients.
    pub residues: Vec<u64>,
}

/// Stored outputs of key-switched stages: per entry `[component][limb][N]`, NTT domain.
pub(super) struct Kept {
    degree: usize,
    limbs: Vec<usize>,
    stages: Vec<Vec<Vec<u64>>>,
}

impl Kept {
    pub fn component(&self, stage: usize, entry: usize, component: usize, limb: usize) -> &[u64] {
        &self.stages[stage][entry][(component * self.limbs[stage] + limb) * self.degree..][..self.degree]
    }
}

/// Working memory that no thread uses at the moment: as much as threads ever used at once, however work is split.
struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Spare<T> {
    fn with<R>(&self, make: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        let held = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = held().pop();
        let mut scratch = found.unwrap_or_else(make);
        let result = work(&mut scratch);
        held().push(scratch);
        result
    }
}

/// A plan ready to run on any number of batches.
pub struct Engine {
    context: Context,
    circuit: Circuit,
    plan: Plan,
    key: Option<KeySwitchKey>,
    pool: rayon::ThreadPool,
}

impl Engine {
    /// Prepares transforms, the key's masks and a thread pool. `key` may be absent where the plan switches none.
    ///
    /// # Errors
    /// [`EngineError`] if circuit, plan and key are not of each other.
    pub fn new(
        circuit: Circuit,
        plan: Plan,
        key: Option<EvaluationKey>,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, EngineError> {
        circuit.validate()?;
        if plan.stages.len() != circuit.stages.len() {
            return Err(EngineError::Plan { found: plan.stages.len(), expected: circuit.stages.len() });
        }
        let context = Context::new(plan.parameters.clone(), kernel)?;
        let switches = plan.stages.iter().filter(|s| s.after == After::KeySwitch).count();
        let key = match key {
            Some(key) => Some(KeySwitchKey::new(&context, key)?),
            None if switches > 0 => return Err(EngineError::KeyMissing { switches }),
            None => None,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("engine-{i}"))
            .build()
            .map_err(|e| EngineError::Threads { threads, reason: e.to_string() })?;
        Ok(Self { context, circuit, plan, key, pool })
    }

    /// Runs something else on the engine's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Parameters and transforms.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Ciphertexts that one batch computes: outputs of all stages that are stored or written.
    #[must_use]
    pub fn ciphertexts(&self) -> usize {
        let stored = self.plan.stages.iter().zip(&self.circuit.stages).filter(|(plan, _)| plan.after != After::Fused);
        stored.map(|(_, stage)| stage.map.outputs).sum()
    }

    /// Evaluates one batch.
    ///
    /// # Errors
    /// [`EngineError::Input`] if the inputs cannot be read or hold a residue that is not below its prime.
    pub fn run(&self, inputs: &dyn Inputs, observe: &(dyn Fn(Event<'_>) + Sync)) -> Result<Results, EngineError> {
        self.run_watched(inputs, observe, &mut |_, _, _| {})
    }

    /// As [`Self::run`], showing `watch` every stored stage's entries as they are made (tests compare them with the integer oracle).
    pub(super) fn run_watched(
        &self,
        inputs: &dyn Inputs,
        observe: &(dyn Fn(Event<'_>) + Sync),
        watch: &mut dyn FnMut(usize, usize, &[u64]),
    ) -> Result<Results, EngineError> {
        let count = self.circuit.stages.len();
        let mut kept = Kept {
            degree: self.context.degree(),
            limbs: self.plan.stages.iter().map(|s| s.output_limbs).collect(),
            stages: vec![Vec::new(); count],
        };
        let output = self.plan.output();
        let mut results = Results {
            outputs: self.circuit.stages[count - 1].map.outputs,
            components: output.components,
            limbs: output.limbs,
            residues: Vec::new(),
        };
        let total = self.ciphertexts();
        let mut done = 0;
        for k in 0..count {
            let stage_plan = &self.plan.stages[k];
            if stage_plan.after == After::Fused {
                continue;
            }
            let name = &stage_plan.name;
            let mut finished: Vec<Vec<u64>> = vec![Vec::new(); self.circuit.stages[k].map.outputs];
            for pass in passes(&self.circuit, &self.plan, k) {
                let pass = PreparedPass::new(&self.context, &self.circuit, &self.plan, pass);
                observe(Event::Tiles { stage: k, name });
                let products = self.tiles(&pass, inputs, &kept)?;
                observe(Event::Polynomials { stage: k, name });
                let polynomials = match stage_plan.after {
                    After::KeySwitch => self.switch_keys(&pass, &products)?,
                    _ => self.to_coefficients(&pass, &products),
                };
                for (&row, polynomial) in pass.rows.iter().zip(polynomials) {
                    watch(k, row as usize, &polynomial);
                    finished[row as usize] = polynomial;
                }
                done += pass.rows.len();
                observe(Event::Done { ciphertexts: done, total });
            }
            if stage_plan.after == After::Output {
                results.residues = finished.concat();
            } else {
                kept.stages[k] = finished;
            }
            for (j, stage) in kept.stages.iter_mut().enumerate().take(k) {
                if last_reader(&self.circuit, j) <= k {
                    *stage = Vec::new();
                }
            }
        }
        Ok(results)
    }

    /// All tiles of a pass: `[limb][column block][row][component][column]`, so that each tile writes one contiguous piece.
    fn tiles(&self, pass: &PreparedPass, inputs: &dyn Inputs, kept: &Kept) -> Result<Words, EngineError> {
        let bands = self.context.degree() / pass.band_columns;
        let band_words = pass.rows.len() * pass.components * pass.band_columns;
        let words = pass.limbs * bands * band_words;
        let mut products = Words::zeroed(words).map_err(|e| EngineError::Memory { words, reason: e.to_string() })?;
        let tiles = Tiles { context: &self.context, pass, inputs, kept };
        let spare = Spare::default();
        self.pool.install(|| {
            products.par_chunks_exact_mut(band_words).enumerate().try_for_each(|(band, out)| {
                let place = BandPlace { limb: band / bands, first: band % bands * pass.band_columns };
                spare.with(TileScratch::default, |scratch| tiles.band_into(place, scratch, out))
            })
        })?;
        Ok(products)
    }

    /// One row's polynomials out of the tiles: `[component][limb][N]`.
    fn gather_into(&self, pass: &PreparedPass, products: &[u64], row: usize, out: &mut [u64]) {
        let n = self.context.degree();
        let columns = pass.tile_columns;
        let blocks = n / columns;
        for (at, polynomial) in out.chunks_exact_mut(n).enumerate() {
            let (component, limb) = (at / pass.limbs, at % pass.limbs);
            for (block, piece) in polynomial.chunks_exact_mut(columns).enumerate() {
                let start = (((limb * blocks + block) * pass.rows.len() + row) * pass.components + component) * columns;
                piece.copy_from_slice(&products[start..start + columns]);
            }
        }
    }

    fn switch_keys(&self, pass: &PreparedPass, products: &[u64]) -> Result<Vec<Vec<u64>>, EngineError> {
        let n = self.context.degree();
        let switch = KeySwitch::new(&self.context, pass.limbs, true)?;
        let key = self.key.as_ref().ok_or(EngineError::KeyMissing { switches: pass.rows.len() })?;
        let words = switch.output_limbs() * n;
        let spare = Spare::default();
        Ok(self.pool.install(|| {
            (0..pass.rows.len())
                .into_par_iter()
                .map(|row| {
                    // A two-component product (no squares in the stage) leaves c2 zero.
                    let make = || (Scratch::new(&self.context), vec![0; 3 * pass.limbs * n]);
                    spare.with(make, |(scratch, gathered)| {
                        self.gather_into(pass, products, row, &mut gathered[..pass.components * pass.limbs * n]);
                        let components = [0, 1, 2].map(|c| &gathered[c * pass.limbs * n..][..pass.limbs * n]);
                        let mut out = vec![0; 2 * words];
                        let (o0, o1) = out.split_at_mut(words);
                        switch.apply(&self.context, key, components, scratch, [o0, o1]);
                        out
                    })
                })
                .collect()
        }))
    }

    fn to_coefficients(&self, pass: &PreparedPass, products: &[u64]) -> Vec<Vec<u64>> {
        let n = self.context.degree();
        self.pool.install(|| {
            (0..pass.rows.len())
                .into_par_iter()
                .map(|row| {
                    let mut out = vec![0; pass.components * pass.limbs * n];
                    self.gather_into(pass, products, row, &mut out);
                    for (at, polynomial) in out.chunks_exact_mut(n).enumerate() {
                        self.context.ntt(at % pass.limbs).inverse_assign(polynomial);
                    }
                    out
                })
                .collect()
        })
    }
}
