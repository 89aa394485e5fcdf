//! Images to batches to slots, and logits back to labels.
//!
//! ```text
//! files -> ImageSet [count][C][H][W] -> Normalisation -> Batches: entry (c, y, x) -> [slots] f64
//! logits [classes][slots] f64 -> Prediction per image -> CSV, JSON, npy
//! ```
//!
//! Packing is element-wise: slot = image, one slot vector per pixel ("entry"). What this crate does not do:
//! cryptography, network access, threads, or writing under a final file name (writers take a `Write`; the caller
//! renames).
//!
//! Everything read is treated as hostile: sizes are checked against [`Limits`] before memory is reserved, a file must
//! be exactly as long as its header says, and every refusal is a [`PackingError`] that names the file.

mod elementwise;
mod error;
mod images;
mod labels;
mod limits;
mod normalise;
mod picture;
mod source;

pub use elementwise::Batches;
pub use error::{ErrorKind, PackingError};
pub use images::dataset::{Split, open_dataset_dir};
pub use images::{ImageSet, Pixels, read_images};
pub use labels::read::{Labels, read_labels};
pub use labels::write::{NpyContent, TextOptions, write_csv, write_json, write_npy};
pub use labels::{Prediction, argmax, predictions_from_slots};
pub use limits::Limits;
pub use normalise::Normalisation;
pub use picture::encode_png;
