//! CIFAR-10 binary: records of one label byte (0 to 9) and 3 planes (red, green, blue) of 32x32 bytes, no header.

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels};
use crate::limits::{Limits, bound};
use crate::source::Source;

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const RECORD: usize = 1 + PIXELS;
const CLASSES: u8 = 10;

/// Reads a batch file to its end; it must hold whole records.
pub(crate) fn read(mut source: Source<'_>, limits: &Limits) -> Result<ImageSet, PackingError> {
    let path = source.path();
    bound(path, "rows", 32, limits.max_side as u64)?;
    let most_records = (limits.max_decoded_bytes / PIXELS as u64).min(limits.max_images as u64);
    // One byte more than the limit is enough to see that there is more.
    let most_bytes = most_records.saturating_mul(RECORD as u64);
    let mut bytes = source.read_up_to(most_bytes.saturating_add(1))?;
    bound(path, "bytes of CIFAR-10 records or more", bytes.len() as u64, most_bytes)?;
    if bytes.is_empty() {
        return Err(PackingError::Empty { path: path.to_owned(), what: "images" });
    }
    if !bytes.len().is_multiple_of(RECORD) {
        let what = format!("found {} decoded bytes, expected a multiple of {RECORD} (CIFAR-10 records)", bytes.len());
        return Err(PackingError::malformed(path, what));
    }
    let count = bytes.len() / RECORD;
    let mut labels = Vec::with_capacity(count);
    for image in 0..count {
        let label = bytes[image * RECORD];
        if label >= CLASSES {
            let what = format!("found label {label} at image {image}, expected 0 to 9 (CIFAR-10)");
            return Err(PackingError::malformed(path, what));
        }
        labels.push(u16::from(label));
        let pixels = image * RECORD + 1;
        bytes.copy_within(pixels..pixels + PIXELS, image * PIXELS);
    }
    bytes.truncate(count * PIXELS);
    Ok(ImageSet {
        count,
        shape: SHAPE,
        pixels: Pixels::Bytes(bytes),
        labels: Some(labels),
        class_names: None,
        names: None,
    })
}
