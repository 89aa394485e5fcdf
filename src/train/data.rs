//! The images and labels of a run, checked once: bytes, one shape, labels below the number of classes, no class empty.
//!
//! Images are image-major, `[image][channel][row][column]`, pixels 0 to 255. Not here: reading files (see `packing`).

use super::error::TrainError;
use super::recipe::DataRecipe;
use crate::net::network::InputSpec;

/// Training images with labels.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingData {
    pub(super) shape: [usize; 3],
    pub(super) pixels: Vec<u8>,
    pub(super) labels: Vec<u16>,
    pub(super) classes: usize,
    pub(super) input: InputSpec,
    /// Images that are trained on, in order of the files.
    pub(super) used: Vec<u32>,
    /// Images that only the numbers shown while training see.
    pub(super) held_out: Vec<u32>,
}
