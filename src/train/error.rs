//! What can go wrong while training. One enum for the room.

use std::path::PathBuf;

use crate::net::NetError;

/// Errors of the training room. Settings are keys of the recipe (`train.epochs`).
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The text is no recipe: not TOML, an unknown key, a missing one, a value of another type. Line and column inside.
    #[error("{0}")]
    Recipe(String),
    /// A setting outside what is possible.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// Key of the recipe.
        setting: String,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// Images or labels that cannot be trained on.
    #[error("training data: {what} is {found}, expected {expected}")]
    Data {
        /// Which property.
        what: String,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// A given teacher that cannot teach this network.
    #[error("teacher: {what} is {found}, expected {expected}")]
    Teacher {
        /// Which property.
        what: &'static str,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// A GPU was asked of a build that has no backend for one.
    #[error("found a build without the cargo feature `train-wgpu`, expected one with it")]
    NoGpu,
    /// The loss or a weight is no longer a number, or the loss has exploded.
    #[error("training diverged in {phase}, epoch {epoch}, step {step}: {what} is {found}")]
    Diverged {
        /// teacher, student, quantisation
        phase: &'static str,
        /// From 1.
        epoch: usize,
        /// In the epoch, from 1.
        step: usize,
        /// Loss or parameter.
        what: String,
        /// As found.
        found: f64,
    },
    /// A checkpoint that cannot be read, or belongs to another recipe or other data.
    #[error("{}: {what} is {found}, expected {expected}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Which property.
        what: String,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Stopped from outside; a checkpoint stands where one was asked for.
    #[error("training was stopped in {phase}, epoch {epoch}")]
    Stopped {
        /// teacher, student, quantisation
        phase: &'static str,
        /// From 1.
        epoch: usize,
    },
    /// The network that the recipe describes.
    #[error(transparent)]
    Net(Box<NetError>),
}

impl TrainError {
    pub(super) fn setting(setting: &str, found: impl ToString, expected: impl ToString) -> TrainError {
        TrainError::Setting { setting: setting.to_owned(), found: found.to_string(), expected: expected.to_string() }
    }

    pub(super) fn data(what: impl ToString, found: impl ToString, expected: impl ToString) -> TrainError {
        TrainError::Data { what: what.to_string(), found: found.to_string(), expected: expected.to_string() }
    }
}

impl From<NetError> for TrainError {
    fn from(error: NetError) -> TrainError {
        TrainError::Net(Box::new(error))
    }
}
