//! Weights of a dense block, packed once for all tiles and tiers.

/// Rows that share one pass over the inputs.
pub(super) const GROUP_ROWS: usize = 8;
/// Low digit of a weight of more than 8 bits: `[-64, 63]`.
const DIGIT_BITS: u32 = 7;
const MASK_52: u64 = (1 << 52) - 1;

/// One digit of every weight of a block.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    /// The digit counts `2^shift`.
    pub shift: u32,
    /// Largest magnitude of a digit, at least 1.
    pub largest: u64,
    /// Group-major, then column, then row within the group: 52-bit two's complement.
    pub words: Vec<u64>,
}

/// A dense block of signed weights of up to 16 bits, as 52-bit two's complement words in groups of eight rows.
#[derive(Clone, Debug)]
pub struct PackedBlock {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) planes: Vec<Plane>,
}

/// Where a block's operands lie in a tile.
#[derive(Clone, Copy, Debug)]
pub struct BlockOperands<'a> {
    /// The tile's inputs, `row_words` residues a row.
    pub x: &'a [u64],
    /// Input row of each of the block's columns.
    pub columns: &'a [u32],
    /// Output row of each of the block's rows.
    pub rows: &'a [u32],
    /// Residues per row: components times the tile's columns, a multiple of 8.
    pub row_words: usize,
}

impl PackedBlock {
    /// Packs row-major `rows x columns` weights.
    ///
    /// # Panics
    /// If `weights` does not have `rows * columns` entries (a caller's bug: blocks are validated when a model is read).
    #[must_use]
    pub fn new(rows: usize, columns: usize, weights: &[i16]) -> Self {
        assert_eq!(weights.len(), rows * columns, "block of {rows} x {columns} weights");
        let wide = weights.iter().any(|&w| !(-128..=127).contains(&w));
        let plane = |shift: u32, digit: &dyn Fn(i32) -> i32| {
            let mut words = Vec::with_capacity(weights.len());
            let mut largest = 1;
            for group in (0..rows).step_by(GROUP_ROWS) {
                for column in 0..columns {
                    for row in group..rows.min(group + GROUP_ROWS) {
                        let d = i64::from(digit(i32::from(weights[row * columns + column])));
                        largest = largest.max(d.unsigned_abs());
                        words.push(d as u64 & MASK_52);
                    }
                }
            }
            Plane { shift, largest, words }
        };
        let half = 1 << (DIGIT_BITS - 1);
        let low = |w: i32| ((w + half) & (2 * half - 1)) - half;
        let planes = if wide {
            vec![plane(0, &low), plane(DIGIT_BITS, &|w| (w - low(w)) >> DIGIT_BITS)]
        } else {
            vec![plane(0, &|w| w)]
        };
        Self { rows, columns, planes }
    }
}

impl Plane {
    /// Columns that may be accumulated before a reduction: their sum stays below 2^62 in magnitude.
    pub fn columns_per_reduction(&self, q: u64) -> usize {
        ((1u64 << 62) / (self.largest * q)) as usize
    }
}

/// The digit behind a packed word.
pub(super) fn digit(word: u64) -> i64 {
    (word << 12) as i64 >> 12
}

/// A multiple of q of at least 2^62: added to a sum of magnitude below 2^62 it makes it a positive 64-bit word.
pub(super) fn positive_offset(q: u64) -> u64 {
    (1u64 << 62).div_ceil(q) * q
}
