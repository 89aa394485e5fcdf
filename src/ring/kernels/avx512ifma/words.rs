//! Block products on words: up to eight rows and 32 residues at a time in registers.

use super::super::block::{BlockOperands, GROUP_ROWS, HALF_BITS, PackedWords};
use super::{LANES, Modulus, Token, Wide, load, load_start, store};
use core::arch::x86_64::*;

entry!(words_mul_add => words_mul(m: &Modulus, block: &PackedWords, operands: &BlockOperands<'_>, out: &mut [u64]));

/// See [`super::super::Kernel::multiplies_whole`].
pub(in crate::ring::kernels) fn multiplies_whole(weight_bits: u32, modulus_bits: u32) -> bool {
    weight_bits + modulus_bits <= 52
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn words_mul(m: &Modulus, block: &PackedWords, operands: &BlockOperands<'_>, out: &mut [u64]) {
    let low_half_suffices = multiplies_whole(block.largest_bits, m.bits());
    for first in (0..block.rows).step_by(GROUP_ROWS) {
        let words = &block.words[first * block.columns..];
        let rows = &operands.rows[first..block.rows.min(first + GROUP_ROWS)];
        let negatives = &block.negatives[first..];
        let group = Group { m, block, words, negatives, operands, rows };
        match rows.len() {
            1 => group.run::<1>(low_half_suffices, out),
            2 => group.run::<2>(low_half_suffices, out),
            3 => group.run::<3>(low_half_suffices, out),
            4 => group.run::<4>(low_half_suffices, out),
            5 => group.run::<5>(low_half_suffices, out),
            6 => group.run::<6>(low_half_suffices, out),
            7 => group.run::<7>(low_half_suffices, out),
            _ => group.run::<8>(low_half_suffices, out),
        }
    }
}

/// Up to eight rows over all columns of the tile.
struct Group<'a> {
    m: &'a Modulus,
    block: &'a PackedWords,
    words: &'a [u64],
    negatives: &'a [u64],
    operands: &'a BlockOperands<'a>,
    rows: &'a [u32],
}

impl Group<'_> {
    /// Not inlined: all of them in one function spill each other's registers.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn run<const R: usize>(&self, low_half_suffices: bool, out: &mut [u64]) {
        if low_half_suffices { self.whole::<R>(out) } else { self.halves::<R>(out) }
    }

    /// Products that fit 52 bits.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn whole<const R: usize>(&self, out: &mut [u64]) {
        let mut v = 0;
        // As many sums as the 32 registers hold beside inputs and a weight.
        while R <= 6 && v + 4 * LANES <= self.operands.row_words {
            self.whole_strip::<R, 4>(v, out);
            v += 4 * LANES;
        }
        while v + 3 * LANES <= self.operands.row_words {
            self.whole_strip::<R, 3>(v, out);
            v += 3 * LANES;
        }
        while v < self.operands.row_words {
            self.whole_strip::<R, 1>(v, out);
            v += LANES;
        }
    }

    /// R rows times C vectors of eight residues: R * C accumulators in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn whole_strip<const R: usize, const C: usize>(&self, v: usize, out: &mut [u64]) {
        let columns = self.operands.columns;
        let step = self.block.columns_per_reduction(self.m.bits());
        if columns.len() <= step {
            // No loop around this call: only then do the sums stay in registers.
            let negatives = |r: usize| self.negatives[r];
            return self.whole_chunk::<R, C>(v, columns, self.words, self.operands, negatives, out);
        }
        let mut operands = *self.operands;
        for (columns, words) in columns.chunks(step).zip(self.words.chunks(step * R)) {
            let negatives = |r: usize| words[..columns.len() * R].chunks_exact(R).map(|weights| weights[r] >> 51).sum();
            self.whole_chunk::<R, C>(v, columns, words, &operands, negatives, out);
            operands = operands.held();
        }
    }

    /// As many columns of a strip as are summed before a reduction; `negatives` of them have a negative weight in a row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    #[expect(clippy::needless_range_loop, reason = "constant indices keep the sums in registers")]
    fn whole_chunk<const R: usize, const C: usize>(
        &self,
        v: usize,
        columns: &[u32],
        words: &[u64],
        operands: &BlockOperands<'_>,
        negatives: impl Fn(usize) -> u64,
        out: &mut [u64],
    ) {
        const { assert!(R <= GROUP_ROWS && GROUP_ROWS == 8, "rows that are written out below") };
        let &BlockOperands { x, row_words, .. } = operands;
        let wide = Wide::new(self.m);
        let mut sums = [[_mm512_setzero_si512(); C]; R];
        for (&column, weights) in columns.iter().zip(words.chunks_exact(R)) {
            let row = &x[column as usize * row_words + v..][..C * LANES];
            // A loop here and below: closures given to library functions are compiled without the features.
            let mut inputs = [_mm512_setzero_si512(); C];
            for c in 0..C {
                inputs[c] = load(row, c * LANES);
            }
            for r in 0..R {
                let weight = _mm512_set1_epi64(weights[r] as i64);
                for c in 0..C {
                    sums[r][c] = _mm512_madd52lo_epu64(sums[r][c], inputs[c], weight);
                }
            }
        }
        // Written out row by row: a loop would be kept, its sums addressed by a counter and so put into memory.
        macro_rules! finish {
            ($($r:literal)*) => {
                $(if $r < R {
                    let row = self.rows[$r];
                    // A negative weight -w was multiplied as 2^52 - w, and the low half kept 2^52 - w x (x is never zero).
                    let correction = _mm512_set1_epi64(self.m.positive_offset().wrapping_sub(negatives($r) << 52) as i64);
                    for c in 0..C {
                        // The sum is below 2^62 in magnitude: a residue more still fits a word. (The index is below R where this is compiled.)
                        let sum = _mm512_add_epi64(sums[$r % R][c], correction);
                        let start = load_start(operands, row, v + c * LANES, out);
                        store(out, row as usize * row_words + v + c * LANES, wide.reduce(_mm512_add_epi64(sum, start)));
                    }
                })*
            };
        }
        finish!(0 1 2 3 4 5 6 7);
    }

    /// Larger products: the halves of each residue are summed apart, in signed 64-bit words.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn halves<const R: usize>(&self, out: &mut [u64]) {
        let &BlockOperands { x, columns, row_words, .. } = self.operands;
        let wide = Wide::new(self.m);
        let offset = _mm512_set1_epi64(self.m.positive_offset() as i64);
        let power = self.m.shoup(1 << HALF_BITS);
        let (value, quotient) = (_mm512_set1_epi64(power.value as i64), _mm512_set1_epi64(power.quotient as i64));
        let mask = _mm512_set1_epi64((1 << HALF_BITS) - 1);
        let step = self.block.columns_per_reduction(HALF_BITS);
        for v in (0..row_words).step_by(LANES) {
            let mut operands = *self.operands;
            for (chunk_columns, chunk_words) in columns.chunks(step).zip(self.words.chunks(step * R)) {
                let mut sums = [[_mm512_setzero_si512(); 2]; R];
                for (&column, weights) in chunk_columns.iter().zip(chunk_words.chunks_exact(R)) {
                    let input = load(x, column as usize * row_words + v);
                    let (low, high) = (_mm512_and_si512(input, mask), _mm512_srli_epi64(input, HALF_BITS));
                    for r in 0..R {
                        // Signed products of the low 32 bits of each word.
                        let weight = _mm512_set1_epi64(weights[r] as i64);
                        sums[r][0] = _mm512_add_epi64(sums[r][0], _mm512_mul_epi32(low, weight));
                        sums[r][1] = _mm512_add_epi64(sums[r][1], _mm512_mul_epi32(high, weight));
                    }
                }
                for (&row, &[low, high]) in self.rows.iter().zip(&sums) {
                    let low = wide.reduce(_mm512_add_epi64(low, offset));
                    let high = wide.reduce(_mm512_add_epi64(high, offset));
                    let reduced = wide.add(low, wide.mul_shoup(high, value, quotient));
                    let total = wide.add(load_start(&operands, row, v, out), reduced);
                    store(out, row as usize * row_words + v, total);
                }
                operands = operands.held();
            }
        }
    }
}
