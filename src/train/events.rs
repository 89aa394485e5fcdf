//! What a run tells while it goes on: phases, steps, epochs with their numbers.

use serde::{Deserialize, Serialize};

/// Part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The ReLU network.
    Teacher,
    /// The network with quadratics.
    Student,
    /// The same with the engine's integers in the forward direction.
    Quantise,
}

impl Phase {
    /// As written in logs and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Teacher => "teacher",
            Phase::Student => "student",
            Phase::Quantise => "quantisation",
        }
    }
}

/// The numbers of one epoch (of the quantisation phase: of all its steps).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which part of the run.
    pub phase: Phase,
    /// From 1.
    pub epoch: usize,
    /// Epochs of this phase.
    pub epochs: usize,
    /// Mean training loss, all terms.
    pub loss: f64,
    /// Share of training images (as varied) with the right label, 0 to 1.
    pub train_accuracy: f64,
    /// Share of held-out images with the right label, 0 to 1; `None` where nothing is held out.
    pub held_out_accuracy: Option<f64>,
    /// Learning rate at the end.
    pub learning_rate: f64,
    /// Share of ReLU still blended in, 1 to 0.
    pub relu_share: f64,
    /// Largest |x| read by any activation in the held-out images; `None` where nothing is held out.
    pub largest_input: Option<f64>,
    /// Norm of the gradient before clipping, mean over the steps.
    pub gradient_norm: f64,
}

/// What an [`Observer`] is told.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A phase begins (or is resumed at `done_steps`).
    Phase {
        /// Which.
        phase: Phase,
        /// Steps in all.
        steps: usize,
        /// Of these already done by an earlier run.
        done_steps: usize,
    },
    /// Steps done since the last event of this kind.
    Steps {
        /// How many.
        steps: usize,
        /// Mean loss of these.
        loss: f64,
    },
    /// An epoch is over.
    Epoch(&'a EpochRecord),
    /// A checkpoint was written.
    Checkpoint(&'a std::path::Path),
}

/// Listens to a run. Returning `false` asks it to stop at the next step, with a checkpoint where one was asked for.
pub trait Observer {
    /// Is told each event, in order, on the calling thread.
    fn observe(&mut self, event: &Event) -> bool;
}
