//! The state of a batch between two stages: what later stages still read, as bytes. Whoever goes on from it comes to the same words.

use super::run::{Engine, Inputs, Results};
use super::store::{Packing, StoredPass, StoredStage};
use super::{EngineError, Event};
use crate::format::FormatError;
use crate::plan::After;
use crate::plan::cost::last_reader;
use crate::plan::passes::{Pass, passes};
use std::sync::atomic::AtomicBool;

/// How pieces lie inside: raised whenever that changes, since their lengths may stay as they are. (Builds outside a repository cannot be told apart by
/// their commit.)
pub const LAYOUT: u32 = 3;

/// What one pass stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// The stage.
    pub stage: usize,
    /// Number of its pass.
    pub pass: usize,
    /// Its packed residues, or how many bytes they are.
    pub bytes: T,
}

/// Everything that stages from `next` on read of the ones before.
#[derive(Clone, Debug)]
pub struct State<'a> {
    /// The stage to go on with.
    pub next: usize,
    /// By stage and pass.
    pub pieces: Vec<Piece<&'a [u8]>>,
}

/// Where states are kept.
pub trait Checkpoints {
    /// The stage that the kept state goes on with, if there is one: one of which [`Engine::layout`] knows.
    fn next(&self) -> Option<usize>;

    /// A piece of the kept state, as long as [`Engine::layout`] says.
    ///
    /// # Errors
    /// [`FormatError`] if it cannot be read.
    fn load_into(&self, stage: usize, pass: usize, out: &mut [u8]) -> Result<(), FormatError>;

    /// Called after every stage that others follow. Whether it can be kept is no trouble of the batch's.
    fn offer(&mut self, state: &State<'_>);
}

impl Engine {
    /// As [`Self::run_until`], from the kept state on if there is one, and offering every later one.
    ///
    /// # Errors
    /// As [`Self::run_until`]; also those of reading the state.
    pub fn run_kept(
        &self,
        inputs: &dyn Inputs,
        observe: &(dyn Fn(Event<'_>) + Sync),
        stop: &AtomicBool,
        checkpoints: &mut dyn Checkpoints,
    ) -> Result<Results, EngineError> {
        self.run_watched(inputs, observe, stop, None, Some(checkpoints))
    }

    /// The pieces of a state that goes on with stage `next`, with their bytes; `None` where no state can.
    #[must_use]
    pub fn layout(&self, next: usize) -> Option<Vec<Piece<usize>>> {
        let is_one =
            (1..self.plan.stages.len()).contains(&next) && self.plan.stages[next - 1].after == After::KeySwitch;
        let pieces = |stage: usize| {
            let passes = self.passes(stage).into_iter().enumerate();
            passes.map(move |(pass, found)| Piece { stage, pass, bytes: self.kept_packing(stage, &found).bytes() })
        };
        is_one.then(|| self.read_from(next).flat_map(pieces).collect())
    }

    /// Key-switched stages before `next` that it or later ones read.
    fn read_from(&self, next: usize) -> impl Iterator<Item = usize> {
        (0..next)
            .filter(move |&j| self.plan.stages[j].after == After::KeySwitch && last_reader(&self.circuit, j) >= next)
    }

    fn passes(&self, stage: usize) -> Vec<Pass> {
        passes(&self.circuit, &self.plan, stage, &self.live)
    }

    /// How a pass's part of what later stages read lies in memory.
    fn kept_packing(&self, stage: usize, pass: &Pass) -> Packing {
        let limbs = self.plan.stages[stage].output_limbs;
        let columns = pass.tile_columns.min(self.context.degree());
        Packing::new(&self.context, pass.rows.len(), columns, limbs, |_| 0..2)
    }

    /// Stored stages as they were before stage `next`.
    pub(super) fn restore(&self, next: usize, kept: &dyn Checkpoints) -> Result<Vec<StoredStage>, EngineError> {
        let mut stored: Vec<StoredStage> = Vec::new();
        stored.resize_with(self.circuit.stages.len(), StoredStage::default);
        for stage in self.read_from(next) {
            stored[stage].places = vec![None; self.circuit.stages[stage].map.outputs];
            for (number, pass) in self.passes(stage).into_iter().enumerate() {
                let packing = self.kept_packing(stage, &pass);
                let mut bytes = self.memory.take(packing.bytes())?;
                kept.load_into(stage, number, &mut bytes[..packing.bytes()])?;
                stored[stage].add(&pass.rows, StoredPass { packing, bytes });
            }
        }
        Ok(stored)
    }

    /// What is stored before stage `next`.
    pub(super) fn state<'a>(&self, next: usize, stored: &'a [StoredStage]) -> State<'a> {
        let pieces = self.read_from(next).flat_map(|stage| {
            let passes = stored[stage].passes.iter().enumerate();
            passes.map(move |(pass, found)| Piece { stage, pass, bytes: &found.bytes[..found.packing.bytes()] })
        });
        State { next, pieces: pieces.collect() }
    }
}
