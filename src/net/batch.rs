//! Cutting a batch into blocks of images: `[entry][image]` in, blocks `[entry][width]` in between, `[output][image]` out.
//! Width is at most [`BLOCK`] and a multiple of [`TILE`]; images beyond the last are zeros whose results are dropped.

use super::error::{NetError, same_len};
use super::panel::TILE;

/// Images evaluated together.
pub(super) const BLOCK: usize = 64;

/// Runs `evaluate(block, width, images)` over all images; it returns `[outputs][width]`, of which the first `images`
/// count. The result is `[outputs][image]`.
///
/// Errors: `x` is not `entries * images` numbers, or `evaluate`'s own.
pub(super) fn for_blocks(
    x: &[f64],
    entries: usize,
    images: usize,
    outputs: usize,
    mut evaluate: impl FnMut(Vec<f64>, usize, usize) -> Result<Vec<f64>, NetError>,
) -> Result<Vec<f64>, NetError> {
    same_len("images", "values", x.len(), entries.saturating_mul(images))?;
    let mut out = vec![0.0; outputs * images];
    for start in (0..images).step_by(BLOCK) {
        let count = BLOCK.min(images - start);
        let block = take_block(x, images, start, count);
        let width = count.next_multiple_of(TILE);
        let result = evaluate(block, width, count)?;
        for (row, values) in out.chunks_exact_mut(images).zip(result.chunks_exact(width)) {
            row[start..start + count].copy_from_slice(&values[..count]);
        }
    }
    Ok(out)
}

/// Images `start..start + count` as `[entry][width]`, zeros beyond.
pub(super) fn take_block(x: &[f64], images: usize, start: usize, count: usize) -> Vec<f64> {
    let width = count.next_multiple_of(TILE);
    let mut block = vec![0.0; x.len() / images.max(1) * width];
    for (to, from) in block.chunks_exact_mut(width).zip(x.chunks_exact(images.max(1))) {
        to[..count].copy_from_slice(&from[start..start + count]);
    }
    block
}
