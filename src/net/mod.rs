//! The model: layers as trained, their exact folding, and the integer circuit that everything downstream reads.
//!
//! A [`Network`] is what a user trained (floats, layers in order). [`lower`](lower::lower) turns it into a
//! [`Circuit`]: integer linear maps over values and squares of values, nothing else. The clear
//! oracle evaluates the first, the integer oracle the second. No cryptography is known here.
//!
//! Quantisation-aware training reads the circuit's pre-activations through a [`Shadow`](shadow::Shadow).
//!
//! Buffers of images are entry-major, `[entry][image]`: all images' values of one entry lie together, as in a ciphertext.

mod balance;
mod batch;
pub mod bits;
mod blocks;
pub mod calibration;
pub mod circuit;
mod clear;
mod draft;
mod error;
mod export;
mod forms;
mod gains;
mod integer;
pub mod lower;
pub mod lowering;
pub mod network;
pub mod observe;
mod panel;
pub mod ranges;
#[doc(hidden)]
pub mod sample;
pub mod shadow;
mod shapes;
mod spec;
pub mod tables;

pub use bits::{BitChoice, choose_bits};
pub use calibration::Calibration;
pub use circuit::Circuit;
pub use error::NetError;
pub use export::{Spec, SpecTensor};
pub use lower::{LowerOptions, lower};
pub use lowering::{Lowering, LoweringLimits};
pub use network::Network;
pub use observe::StageObservation;
pub use ranges::{RangeObservation, RangeReport};
pub use tables::TableCircuit;

#[cfg(test)]
mod tests;
