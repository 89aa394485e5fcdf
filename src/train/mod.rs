//! The trainer: networks with trained quadratics, taught by ReLU networks, for the integers that the engine uses.
//!
//! ```text
//! Recipe + TrainingData -> teacher (ReLU) -> student (quadratics) -> integers in the forward direction -> Trained
//! ```
//!
//! One description serves everybody: a recipe becomes a [`Network`](crate::net::Network), the trainer makes its tensors
//! from it and writes trained weights back into it. Deterministic: the same recipe and data give the same bits for any
//! number of threads. Not here: files of data, packages, plans (the command does those), any cryptography.

mod augment;
#[doc(hidden)]
pub mod bench;
mod build;
mod checkpoint;
mod data;
mod device;
mod error;
pub mod events;
mod fit;
mod loss;
mod model;
mod optimiser;
mod parallel;
mod quantise;
mod random;
pub mod recipe;
mod run;

pub use data::TrainingData;
pub use device::Compute;
pub use error::TrainError;
pub use events::{EpochRecord, Event, Observer, Phase};
pub use recipe::Recipe;
pub use run::{RunOptions, Rung, Trained, ladder, train};

#[cfg(test)]
mod tests;
