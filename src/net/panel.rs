//! A panel: the features of one dense block for one block of images, and its product with a matrix of weights.
//!
//! Values come as `[entry][width]` (width images, a multiple of [`TILE`]); inside, features lie as
//! `[width / TILE][columns][TILE]` so that the product streams through memory. Sums run over columns in ascending order
//! for every image, so a result does not depend on how images are blocked. No threads, no instruction-set code.

/// Images multiplied together in registers.
pub(super) const TILE: usize = 8;

/// Features of one block; reused from block to block.
#[derive(Default)]
pub(super) struct Panel {
    data: Vec<f64>,
    pairs: Vec<[f64; 2]>,
    columns: usize,
    width: usize,
}

impl Panel {
    /// Makes room for `columns` features of `width` images; every column must then be set.
    pub(super) fn reset(&mut self, columns: usize, width: usize) {
        self.data.resize(columns * width, 0.0);
        self.columns = columns;
        self.width = width;
    }

    /// Sets a column to `map` of the values of one entry.
    pub(super) fn set(&mut self, column: usize, values: &[f64], map: impl Fn(f64) -> f64) {
        let places = self.data.chunks_exact_mut(self.columns * TILE);
        for (tile, source) in places.zip(values.chunks_exact(TILE)) {
            for (place, &value) in tile[column * TILE..(column + 1) * TILE].iter_mut().zip(source) {
                *place = map(value);
            }
        }
    }

    /// Sets a column to zero.
    pub(super) fn set_zero(&mut self, column: usize) {
        for tile in self.data.chunks_exact_mut(self.columns * TILE) {
            tile[column * TILE..(column + 1) * TILE].fill(0.0);
        }
    }

    /// `sums[r][image] = sum over columns of weights[r][column] * feature[column][image]`; `weights` is row-major with
    /// a multiple of the panel's columns, `sums` is resized to `[rows][width]`.
    pub(super) fn multiply_into<W: Copy + Into<f64>>(&mut self, weights: &[W], sums: &mut Vec<f64>) {
        let (columns, width) = (self.columns, self.width);
        let rows = weights.len() / columns.max(1);
        sums.clear();
        sums.resize(rows * width, 0.0);
        for (row, out) in (0..rows).step_by(2).zip(sums.chunks_mut(2 * width)) {
            let first = &weights[row * columns..(row + 1) * columns];
            // An odd last row is multiplied twice and stored once.
            let second = if row + 1 < rows { &weights[(row + 1) * columns..(row + 2) * columns] } else { first };
            self.pairs.clear();
            self.pairs.extend(first.iter().zip(second).map(|(&upper, &lower)| [upper.into(), lower.into()]));
            let (upper_out, lower_out) = out.split_at_mut(width);
            for (index, tile) in self.data.chunks_exact(columns * TILE).enumerate() {
                let [upper, lower] = tile_product(&self.pairs, tile);
                let images = index * TILE..(index + 1) * TILE;
                upper_out[images.clone()].copy_from_slice(&upper);
                if !lower_out.is_empty() {
                    lower_out[images].copy_from_slice(&lower);
                }
            }
        }
    }
}

/// Two rows times one tile of images.
fn tile_product(pairs: &[[f64; 2]], tile: &[f64]) -> [[f64; TILE]; 2] {
    let mut upper = [0.0; TILE];
    let mut lower = [0.0; TILE];
    for (&[upper_weight, lower_weight], features) in pairs.iter().zip(tile.as_chunks::<TILE>().0) {
        for lane in 0..TILE {
            upper[lane] += upper_weight * features[lane];
            lower[lane] += lower_weight * features[lane];
        }
    }
    [upper, lower]
}
