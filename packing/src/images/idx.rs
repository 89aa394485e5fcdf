//! IDX, the format of MNIST: big-endian header words, then bytes.
//!
//! `0x00000803, count, rows, columns` and `0x00000804, count, channels, rows, columns` are images; `0x00000801, count`
//! labels. Other element types and ranks are refused.

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels};
use crate::limits::{Limits, bound};
use crate::source::Source;

const LABELS_MAGIC: u32 = 0x0801;
const GREY_MAGIC: u32 = 0x0803;
const CHANNELS_MAGIC: u32 = 0x0804;

/// Reads an image file of rank 3 (grey) or 4.
pub(crate) fn read_images(mut source: Source<'_>, limits: &Limits) -> Result<ImageSet, PackingError> {
    let magic = word(&mut source)?;
    if magic != GREY_MAGIC && magic != CHANNELS_MAGIC {
        let expected = "expected 0x00000803 or 0x00000804 (IDX images)";
        return Err(PackingError::malformed(source.path(), format!("found magic {magic:#010x}, {expected}")));
    }
    let count = u64::from(word(&mut source)?);
    let channels = if magic == CHANNELS_MAGIC { u64::from(word(&mut source)?) } else { 1 };
    let rows = u64::from(word(&mut source)?);
    let columns = u64::from(word(&mut source)?);
    let (count, shape, bytes) = limits.check(source.path(), count, [channels, rows, columns], 1)?;
    let pixels = source.read_exactly(bytes)?;
    source.finish()?;
    Ok(ImageSet { count, shape, pixels: Pixels::Bytes(pixels), labels: None, class_names: None, names: None })
}

/// Reads a label file: one byte a label.
pub(crate) fn read_labels(mut source: Source<'_>, limits: &Limits) -> Result<Vec<u16>, PackingError> {
    let magic = word(&mut source)?;
    if magic != LABELS_MAGIC {
        let what = format!("found magic {magic:#010x}, expected 0x00000801 (IDX labels)");
        return Err(PackingError::malformed(source.path(), what));
    }
    let count = u64::from(word(&mut source)?);
    bound(source.path(), "labels", count, limits.max_images as u64)?;
    let labels = source.read_exactly(count)?;
    source.finish()?;
    Ok(labels.into_iter().map(u16::from).collect())
}

fn word(source: &mut Source<'_>) -> Result<u32, PackingError> {
    Ok(u32::from_be_bytes(source.header::<4>()?))
}
