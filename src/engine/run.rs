//! The program: passes of tiles, key-switch passes, results.

use super::EngineError;
use super::checkpoint::Checkpoints;
use super::memory::Memory;
use super::prepare::PreparedPass;
use super::store::{Packing, SquaredLimb, SquaredRows, StoredPass, StoredStage, SwitchedRows};
use super::tile::{BandPlace, TileScratch, Tiles};
use crate::ckks::Context;
use crate::ckks::keys::EvaluationKey;
use crate::ckks::keyswitch::{KeySwitch, KeySwitchKey, Scratch};
use crate::format::{Bytes, FormatError};
use crate::net::circuit::Circuit;
use crate::plan::cost::last_reader;
use crate::plan::passes::{Live, Pass, last_reads, passes};
use crate::plan::{After, Plan};
use crate::ring::kernels::Kernel;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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

    /// [`Self::load_into`] for several ciphertexts, `[entry][residue]`: as many residues of each.
    ///
    /// # Errors
    /// As [`Self::load_into`].
    fn load_rows_into(
        &self,
        component: usize,
        limb: usize,
        entries: &[u32],
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        let columns = out.len() / entries.len().max(1);
        let mut rows = entries.iter().zip(out.chunks_exact_mut(columns.max(1)));
        rows.try_for_each(|(&entry, out)| self.load_into(component, limb, entry as usize, first, out))
    }

    /// Announces that `count` residues from position `first` on, of both components of these ciphertexts, will be loaded soon. A hint.
    fn prefetch(&self, limb: usize, entries: &[u32], first: usize, count: usize) {
        let _ = (limb, entries, first, count);
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

/// Pieces of work that a thread takes at once: what it has taken nobody else can, and of hundreds it would take dozens.
const ONE: usize = 1;

/// Shown every stored row as it is made: stage, row, `[component][limb][N]`.
type Watch<'a> = &'a mut dyn FnMut(usize, usize, &[u64]);

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
    pub(super) context: Context,
    pub(super) circuit: Circuit,
    pub(super) live: Live,
    pub(super) plan: Plan,
    key: Option<KeySwitchKey>,
    pool: rayon::ThreadPool,
    pub(super) memory: Memory,
}

impl Engine {
    /// Prepares transforms, the key's masks and a thread pool. `key` may be absent where no stage is key-switched.
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
        let context = Context::new(plan.parameters.clone(), kernel)?;
        Self::with_context(context, circuit, plan, key, threads)
    }

    /// As [`Self::new`], with the plan's transforms as they were prepared.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_context(
        context: Context,
        circuit: Circuit,
        plan: Plan,
        key: Option<EvaluationKey>,
        threads: usize,
    ) -> Result<Self, EngineError> {
        circuit.validate()?;
        if plan.stages.len() != circuit.stages.len() || plan.parameters != *context.parameters() {
            return Err(EngineError::Plan { found: plan.stages.len(), expected: circuit.stages.len() });
        }
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
        let live = Live::new(&circuit);
        Ok(Self { context, circuit, live, plan, key, pool, memory: Memory::default() })
    }

    /// Runs something else on the engine's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs two other things, side by side if there are threads for both.
    pub fn both<A: Send, B: Send>(&self, a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
        self.pool.join(a, b)
    }

    /// Gives working memory back to the system that was kept for the next batch.
    pub fn release_memory(&self) {
        self.memory.release();
    }

    /// Parameters and transforms.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Ciphertexts that one batch computes: outputs of all stages that are stored or written.
    #[must_use]
    pub fn ciphertexts(&self) -> usize {
        self.ciphertexts_before(self.plan.stages.len())
    }

    /// Those of the stages before one.
    fn ciphertexts_before(&self, stage: usize) -> usize {
        let stored = self.plan.stages[..stage].iter().enumerate().filter(|(_, plan)| plan.after != After::Fused);
        stored.map(|(stage, _)| self.live.rows(stage).count()).sum()
    }

    /// Evaluates one batch.
    ///
    /// # Errors
    /// [`EngineError::Input`] if the inputs cannot be read or hold a residue that is not below its prime.
    pub fn run(&self, inputs: &dyn Inputs, observe: &(dyn Fn(Event<'_>) + Sync)) -> Result<Results, EngineError> {
        self.run_until(inputs, observe, &AtomicBool::new(false))
    }

    /// As [`Self::run`], giving up soon after `stop` is set: within a band of tiles or a few key switches.
    ///
    /// # Errors
    /// Also [`EngineError::Stopped`].
    pub fn run_until(
        &self,
        inputs: &dyn Inputs,
        observe: &(dyn Fn(Event<'_>) + Sync),
        stop: &AtomicBool,
    ) -> Result<Results, EngineError> {
        self.run_watched(inputs, observe, stop, None, None)
    }

    /// As [`Self::run`], from a kept state on, showing `watch` every stored stage's entries (tests compare them with the integer oracle).
    pub(super) fn run_watched(
        &self,
        inputs: &dyn Inputs,
        observe: &(dyn Fn(Event<'_>) + Sync),
        stop: &AtomicBool,
        mut watch: Option<Watch<'_>>,
        mut checkpoints: Option<&mut dyn Checkpoints>,
    ) -> Result<Results, EngineError> {
        let count = self.circuit.stages.len();
        let mut stored: Vec<StoredStage> = Vec::new();
        stored.resize_with(count, StoredStage::default);
        let mut first = 0;
        if let Some(kept) = &checkpoints
            && let Some(next) = kept.next()
        {
            stored = self.restore(next, &**kept)?;
            first = next;
        }
        let output = self.plan.output();
        let outputs = self.circuit.stages[count - 1].map.outputs;
        let words = output.components * output.limbs * self.context.degree();
        let mut results =
            Results { outputs, components: output.components, limbs: output.limbs, residues: vec![0; outputs * words] };
        // What tiles write and key switches use up: the same memory for all passes.
        let mut used = self.memory.take(0)?;
        let total = self.ciphertexts();
        let mut done = self.ciphertexts_before(first);
        for k in first..count {
            let stage_plan = &self.plan.stages[k];
            if stage_plan.after == After::Fused {
                continue;
            }
            let name = &stage_plan.name;
            stored[k].places = vec![None; self.circuit.stages[k].map.outputs];
            let list = passes(&self.circuit, &self.plan, k, &self.live);
            let mut finished: Vec<_> = (0..k).map(|j| self.read_for_good(k, &list, j, &stored[j])).collect();
            for (number, pass) in list.into_iter().enumerate() {
                observe(Event::Tiles { stage: k, name });
                let pass = PreparedPass::new(&self.context, &self.circuit, &self.plan, &stored, pass);
                let kept_limbs = if stage_plan.after == After::KeySwitch { stage_plan.output_limbs } else { 0 };
                let (rows, columns) = (pass.rows.len(), pass.tile_columns);
                let kept_packing = Packing::new(&self.context, rows, columns, kept_limbs, |_| 0..2);
                let used_packing = Packing::new(&self.context, rows, columns, pass.limbs, |limb| {
                    if limb < kept_limbs { 2..pass.components } else { 0..pass.components }
                });
                if used.len() < used_packing.bytes() {
                    // Given back before more is taken.
                    self.memory.give(std::mem::replace(&mut used, self.memory.take(0)?));
                    used = self.memory.take(used_packing.bytes())?;
                }
                let mut kept = self.memory.take(kept_packing.bytes())?;
                self.tiles(&pass, inputs, &stored, [(&kept_packing, &mut kept), (&used_packing, &mut used)], stop)?;
                observe(Event::Polynomials { stage: k, name });
                if kept_limbs > 0 {
                    self.switch_keys(&pass, (&kept_packing, &mut kept), (&used_packing, &used), stop)?;
                    if let Some(watch) = watch.as_mut() {
                        self.show(k, &pass, (&kept_packing, &kept), kept_limbs, watch);
                    }
                    stored[k].add(&pass.rows, StoredPass { packing: kept_packing, bytes: kept });
                } else {
                    self.to_coefficients(&pass, (&used_packing, &used), &mut results.residues, stop)?;
                    self.memory.give(kept);
                }
                done += pass.rows.len();
                observe(Event::Done { ciphertexts: done, total });
                for (stage, finished) in stored.iter_mut().zip(&mut finished) {
                    for pass in finished.remove(&number).into_iter().flatten() {
                        self.memory.give(std::mem::replace(&mut stage.passes[pass].bytes, self.memory.take(0)?));
                    }
                }
            }
            if let Some(checkpoints) = &mut checkpoints
                && stage_plan.after == After::KeySwitch
                && k + 1 < count
            {
                checkpoints.offer(&self.state(k + 1, &stored));
            }
        }
        self.memory.give(used);
        Ok(results)
    }

    /// For passes of stage `k`, numbers of the passes of stage `j` that nothing reads after them.
    fn read_for_good(&self, k: usize, list: &[Pass], j: usize, stored: &StoredStage) -> BTreeMap<usize, Vec<usize>> {
        let mut finished = BTreeMap::<_, Vec<_>>::new();
        if last_reader(&self.circuit, j) == k {
            let pass_of_row = |row: u32| Some(stored.places.get(row as usize).copied().flatten()?.0 as usize);
            for (pass, reader) in last_reads(list, j, stored.passes.len(), pass_of_row).into_iter().enumerate() {
                finished.entry(reader).or_default().push(pass);
            }
        }
        finished
    }

    /// All tiles of a pass, into memory of two layouts.
    fn tiles(
        &self,
        pass: &PreparedPass,
        inputs: &dyn Inputs,
        stored: &[StoredStage],
        [(kept, kept_bytes), (used, used_bytes)]: [(&Packing, &mut Bytes); 2],
        stop: &AtomicBool,
    ) -> Result<(), EngineError> {
        let bands = self.context.degree() / pass.band_columns;
        let tiles = Tiles { context: &self.context, pass, inputs, stored, packings: [kept, used] };
        let mut kept_bands = kept.bands(kept_bytes, pass.band_columns);
        // Limbs of which nothing is kept.
        kept_bands.resize_with(pass.limbs * bands, Vec::new);
        let used_bands = used.bands(used_bytes, pass.band_columns);
        let work: Vec<_> = kept_bands.into_iter().zip(used_bands).enumerate().collect();
        let spare = Spare::default();
        self.pool.install(|| {
            work.into_par_iter().with_max_len(ONE).try_for_each(|(band, (kept, used))| {
                go_on(stop)?;
                let place = BandPlace { limb: band / bands, first: band % bands * pass.band_columns };
                spare.with(TileScratch::default, |scratch| tiles.band_into(place, scratch, [kept, used]))
            })
        })
    }

    /// Switches or rescales all rows of a pass, in place; where their squares are stored, squares and switches them again while they are in the cache.
    fn switch_keys(
        &self,
        pass: &PreparedPass,
        (kept, kept_bytes): (&Packing, &mut Bytes),
        (used, used_bytes): (&Packing, &Bytes),
        stop: &AtomicBool,
    ) -> Result<(), EngineError> {
        let switch = match pass.components {
            2 => KeySwitch::rescale(&self.context, pass.limbs)?,
            _ => KeySwitch::new(&self.context, pass.limbs, true)?,
        };
        let squared = pass.squared.then(|| KeySwitch::new(&self.context, switch.output_limbs(), false)).transpose()?;
        let key = self.key.as_ref().ok_or(EngineError::KeyMissing { switches: pass.rows.len() })?;
        let kernel = self.context.kernel();
        let spare = Spare::default();
        self.pool.install(|| {
            let groups = kept_bytes[..kept.bytes()].par_chunks_mut(kept.group_bytes()).enumerate().with_max_len(ONE);
            groups.try_for_each(|(group, kept_bytes)| {
                let used_bytes = &used_bytes[group * used.group_bytes()..][..used.bytes_of(group)];
                go_on(stop)?;
                let mut switched = SwitchedRows {
                    kernel,
                    rows: kept.rows_of(group),
                    kept: (kept, kept_bytes),
                    used: (used, used_bytes),
                };
                spare.with(Default::default, |(scratch, held): &mut (Scratch, SquaredLimb)| {
                    switch.apply_all(&self.context, key, &mut switched, scratch);
                    if let Some(squared) = &squared {
                        let SwitchedRows { rows, kept, .. } = switched;
                        let mut rows = SquaredRows { context: &self.context, rows, kept, held };
                        squared.apply_all(&self.context, key, &mut rows, scratch);
                    }
                });
                Ok(())
            })
        })
    }

    /// Rows of the last stage to coefficient form, each to its place in the results.
    fn to_coefficients(
        &self,
        pass: &PreparedPass,
        (packing, bytes): (&Packing, &Bytes),
        residues: &mut [u64],
        stop: &AtomicBool,
    ) -> Result<(), EngineError> {
        let n = self.context.degree();
        let mut places: Vec<_> = residues.chunks_exact_mut(pass.components * pass.limbs * n).map(Some).collect();
        let rows: Vec<_> = pass.rows.iter().map(|&row| places[row as usize].take()).enumerate().collect();
        self.pool.install(|| {
            rows.into_par_iter().with_max_len(ONE).try_for_each(|(row, out)| {
                go_on(stop)?;
                for (at, polynomial) in out.into_iter().flat_map(|out| out.chunks_exact_mut(n)).enumerate() {
                    let (component, limb) = (at / pass.limbs, at % pass.limbs);
                    packing.unpack_row_limb(self.context.kernel(), bytes, row, component, limb, polynomial);
                    self.context.ntt(limb).inverse_assign(polynomial);
                }
                Ok(())
            })
        })
    }

    fn show(
        &self,
        stage: usize,
        pass: &PreparedPass,
        (packing, bytes): (&Packing, &Bytes),
        limbs: usize,
        watch: &mut Watch<'_>,
    ) {
        let n = self.context.degree();
        for (at, &row) in pass.rows.iter().enumerate() {
            let mut polynomials = vec![0; 2 * limbs * n];
            for (i, polynomial) in polynomials.chunks_exact_mut(n).enumerate() {
                packing.unpack_row_limb(self.context.kernel(), bytes, at, i / limbs, i % limbs, polynomial);
            }
            watch(stage, row as usize, &polynomials);
        }
    }
}

/// Nothing is shared through the flag but itself.
fn go_on(stop: &AtomicBool) -> Result<(), EngineError> {
    if stop.load(Ordering::Relaxed) { Err(EngineError::Stopped) } else { Ok(()) }
}
