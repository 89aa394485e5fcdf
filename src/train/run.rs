//! The run: teacher, student, integers; and the ladder of runs.

use std::num::NonZeroUsize;
use std::path::Path;

use super::data::TrainingData;
use super::error::TrainError;
use super::events::{EpochRecord, Observer};
use super::recipe::{Recipe, Sharing};
use crate::net::Network;

/// How to run; none of it changes the result.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// Threads used at once.
    pub threads: NonZeroUsize,
    /// File that holds the state of the run, written after every epoch and replaced as a whole; `None`: none is written.
    pub checkpoint: Option<&'a Path>,
    /// Go on from the checkpoint, if it is there.
    pub resume: bool,
    /// Teacher to use instead of training one.
    pub teacher: Option<&'a Network>,
}

/// What a run ends with.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network with quadratics.
    pub network: Network,
    /// The ReLU network, where there was one.
    pub teacher: Option<Network>,
    /// Every epoch, in order.
    pub history: Vec<EpochRecord>,
    /// Bits of each stage's integers that the network was trained for; empty where it was not.
    pub stage_bits: Vec<u32>,
}

/// One run of a ladder.
#[derive(Clone, Debug)]
pub struct Rung {
    /// Who shares the quadratics.
    pub granularity: Sharing,
    /// Of the recipe.
    pub seed: u64,
    /// The result.
    pub trained: Trained,
}
