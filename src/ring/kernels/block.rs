//! Weights of a dense block, packed once for all tiles in the form that the tier's product wants.

#[cfg(target_arch = "x86_64")]
use super::avx2::{self, PackedShorts};
#[cfg(target_arch = "x86_64")]
use super::bytes::PackedBytes;
use super::{Kernel, Modulus, Zero};

/// Rows that share one pass over the inputs, in the words form.
pub(super) const GROUP_ROWS: usize = 8;
/// Where a residue is cut when its product with a weight needs more than a word.
pub(super) const HALF_BITS: u32 = 26;
const MASK_52: u64 = (1 << 52) - 1;

/// A dense block of signed weights of up to 16 bits.
#[derive(Clone, Debug)]
pub struct PackedBlock {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Words(PackedWords),
    #[cfg(target_arch = "x86_64")]
    Bytes(PackedBytes),
    #[cfg(target_arch = "x86_64")]
    Shorts(PackedShorts),
}

/// Weights as 52-bit two's complement words in groups of eight rows: group-major, then column, then row within the group.
#[derive(Clone, Debug)]
pub(super) struct PackedWords {
    kernel: Kernel,
    pub rows: usize,
    pub columns: usize,
    /// Bits of the largest magnitude of a weight.
    pub largest_bits: u32,
    /// Negative weights of each row.
    #[cfg(target_arch = "x86_64")]
    pub negatives: Vec<u64>,
    pub words: Vec<u64>,
}

/// Where a block's operands lie in a tile.
#[derive(Clone, Copy, Debug)]
pub struct BlockOperands<'a> {
    /// The tile's inputs, `row_words` residues a row, each in `[1, q]`.
    pub x: &'a [u64],
    /// Input row of each of the block's columns.
    pub columns: &'a [u32],
    /// Output row of each of the block's rows.
    pub rows: &'a [u32],
    /// Residues per row: components times the tile's columns, a multiple of 8.
    pub row_words: usize,
    /// What the products are added to.
    pub start: Start<'a>,
}

/// What a block's products are added to.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// What the output rows hold.
    Held,
    /// A constant of each output row in its first `columns` words (a multiple of 8), zero in the others; what the rows hold is overwritten.
    Constants {
        /// By output row.
        values: &'a [u64],
        /// Words of component 0.
        columns: usize,
    },
}

impl BlockOperands<'_> {
    /// What word `v` of an output row begins as, where that is not what it holds.
    #[inline(always)]
    pub(super) fn constant(&self, out_row: u32, v: usize) -> Option<u64> {
        match self.start {
            Start::Held => None,
            Start::Constants { values, columns } => Some(if v < columns { values[out_row as usize] } else { 0 }),
        }
    }

    /// The same operands once the output rows hold something.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn held(&self) -> Self {
        Self { start: Start::Held, ..*self }
    }
}

/// Magnitudes of a block's weights, by which it is decided how they are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Magnitudes {
    /// Of a weight, the largest.
    pub largest: u16,
    /// Of a row's weights together, the largest: no sum of products is further from zero than so many times the largest factor.
    pub largest_row: u64,
}

impl Magnitudes {
    /// Of row-major weights.
    #[must_use]
    pub fn new(columns: usize, weights: &[i16]) -> Self {
        let of_row = |row: &[i16]| row.iter().map(|w| u64::from(w.unsigned_abs())).sum();
        Self {
            largest: weights.iter().map(|w| w.unsigned_abs()).max().unwrap_or(0),
            largest_row: weights.chunks(columns.max(1)).map(of_row).max().unwrap_or(0),
        }
    }

    /// Bits of planes of 16-bit words of which every sum of a block's products fits 32 bits; `None` if they are too few to be worth it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn short_bits(self) -> Option<u32> {
        let room = i32::MAX as u64 / self.largest_row.max(1);
        // The largest digit is 2^bits - 1.
        let bits = (room + 1).ilog2().min(15);
        (bits >= 10).then_some(bits)
    }
}

/// What a block product takes for one residue of each of its rows: counts that estimates of time multiply with measured speeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockWork {
    /// Products of a weight and a whole residue.
    pub word_products: u64,
    /// Products of a weight and a residue in two halves.
    pub half_products: u64,
    /// Residues that words are reduced to.
    pub word_outputs: u64,
    /// Products of a byte of a weight and a byte of a residue, those that fill up a step included.
    pub byte_products: u64,
    /// Bytes that residues are split into.
    pub split_bytes: u64,
    /// Sums of bytes that are put together and reduced.
    pub joined_bytes: u64,
}

impl BlockWork {
    /// On a kernel, with weights of these magnitudes, modulo a prime of so many bits.
    #[must_use]
    pub fn new(kernel: Kernel, rows: usize, columns: usize, magnitudes: Magnitudes, modulus_bits: u32) -> Self {
        #[cfg(target_arch = "x86_64")]
        for work in [super::bytes::work, avx2::work] {
            if let Some(work) = work(kernel, rows, columns, magnitudes, modulus_bits) {
                return work;
            }
        }
        let products = (rows * columns) as u64;
        let largest_bits = u16::BITS - magnitudes.largest.max(1).leading_zeros();
        let whole = kernel.multiplies_whole(largest_bits, modulus_bits);
        Self {
            word_products: if whole { products } else { 0 },
            half_products: if whole { 0 } else { products },
            word_outputs: rows as u64,
            ..Self::default()
        }
    }
}

/// Working memory of block products, reused by one thread.
#[derive(Debug, Default)]
pub struct BlockScratch {
    #[cfg(target_arch = "x86_64")]
    pub(super) units: Vec<super::bytes::Line>,
    #[cfg(target_arch = "x86_64")]
    pub(super) sums: Vec<super::bytes::Line>,
}

impl PackedBlock {
    /// Packs row-major `rows x columns` weights for a kernel.
    ///
    /// # Panics
    /// If `weights` does not have `rows * columns` entries (a caller's bug: blocks are validated when a model is read).
    #[must_use]
    pub fn new(kernel: Kernel, rows: usize, columns: usize, weights: &[i16]) -> Self {
        assert_eq!(weights.len(), rows * columns, "block of {rows} x {columns} weights");
        #[cfg(target_arch = "x86_64")]
        if let Some(bytes) = PackedBytes::where_faster(kernel, rows, columns, weights) {
            return Self { form: Form::Bytes(bytes) };
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(shorts) = PackedShorts::where_faster(kernel, rows, columns, weights) {
            return Self { form: Form::Shorts(shorts) };
        }
        Self { form: Form::Words(PackedWords::new(kernel, rows, columns, weights)) }
    }

    /// How it wants zero written in what it multiplies. It reads both where that is zero itself.
    #[must_use]
    pub fn zero(&self) -> Zero {
        match &self.form {
            Form::Words(_) => Zero::Modulus,
            #[cfg(target_arch = "x86_64")]
            Form::Bytes(_) | Form::Shorts(_) => Zero::Itself,
        }
    }

    /// `out[rows[r]] = start + sum_k w[r][k] x[columns[k]]` on rows of `row_words` residues each; `x` with zero as [`Self::zero`] says, `out` in `[0, q)`.
    ///
    /// # Panics
    /// If the operands' rows or columns are not as many as the block's, or `row_words` is no multiple of 8 (a caller's bug).
    pub fn mul_add_into(&self, m: &Modulus, operands: &BlockOperands<'_>, scratch: &mut BlockScratch, out: &mut [u64]) {
        let (rows, columns) = match &self.form {
            Form::Words(block) => (block.rows, block.columns),
            #[cfg(target_arch = "x86_64")]
            Form::Bytes(block) => (block.rows, block.columns),
            #[cfg(target_arch = "x86_64")]
            Form::Shorts(block) => (block.rows, block.columns),
        };
        assert_eq!((operands.rows.len(), operands.columns.len()), (rows, columns), "operands of another block");
        assert!(operands.row_words.is_multiple_of(8), "rows of {} words", operands.row_words);
        if columns == 0 {
            // No product to add to: only the start.
            for &row in operands.rows {
                for v in 0..operands.row_words {
                    let at = row as usize * operands.row_words + v;
                    out[at] = operands.constant(row, v).unwrap_or(out[at]);
                }
            }
            return;
        }
        match &self.form {
            Form::Words(block) => block.kernel.words_mul_add(m, block, operands, out),
            #[cfg(target_arch = "x86_64")]
            Form::Bytes(block) => block.mul_add_into(m, operands, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Form::Shorts(block) => block.mul_add_into(m, operands, scratch, out),
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = scratch;
    }
}

impl PackedWords {
    fn new(kernel: Kernel, rows: usize, columns: usize, weights: &[i16]) -> Self {
        let mut words = Vec::with_capacity(weights.len());
        for group in (0..rows).step_by(GROUP_ROWS) {
            for column in 0..columns {
                for row in group..rows.min(group + GROUP_ROWS) {
                    words.push(i64::from(weights[row * columns + column]) as u64 & MASK_52);
                }
            }
        }
        let largest = weights.iter().map(|w| w.unsigned_abs()).fold(1, u16::max);
        Self {
            kernel,
            rows,
            columns,
            largest_bits: u16::BITS - largest.leading_zeros(),
            #[cfg(target_arch = "x86_64")]
            negatives: weights
                .chunks(columns.max(1))
                .map(|row| row.iter().filter(|&&w| w < 0).count() as u64)
                .collect(),
            words,
        }
    }

    /// Columns that may be accumulated before a reduction, inputs being at most 2^bits: their sum stays below 2^62 in magnitude.
    pub fn columns_per_reduction(&self, bits: u32) -> usize {
        columns_per_reduction(self.largest_bits, bits)
    }
}

/// See [`PackedWords::columns_per_reduction`].
pub(super) fn columns_per_reduction(largest_bits: u32, bits: u32) -> usize {
    62u32.checked_sub(largest_bits + bits).map_or(0, |spare| 1 << spare)
}

/// The weight behind a packed word.
pub(super) fn weight(word: u64) -> i64 {
    (word << 12) as i64 >> 12
}
