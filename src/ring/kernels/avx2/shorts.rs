//! Block products on 16-bit words: two products of signed words and their sum in each 32-bit lane (`vpmaddwd`), with AVX-VNNI added to a third in the
//! same instruction (`vpdpwssd`).
//!
//! A residue is cut into *planes* of as many bits, 10 to 15, as leave room in 32 bits for the products of the row with most weight. A *strip* is 16
//! neighbouring residues of every column; a strip's plane is a line for each pair of columns, `[residue][column of the pair]`.

use super::super::block::{BlockOperands, BlockScratch, BlockWork, Magnitudes};
use super::super::bytes::Line;
use super::super::portable::lift;
use super::super::{Kernel, Modulus, Tier};
use super::{Token, Words};
use crate::ring::modulus::ShoupFactor;
use core::arch::x86_64::*;

/// Residues of a strip.
const STRIP: usize = 16;
/// Rows of a group at most: with a line of residues that is twelve sums in sixteen registers.
const GROUP_ROWS: usize = 6;
/// Residues of up to 50 bits in planes of 10.
const MOST_PLANES: usize = 5;
/// Sums of this many planes, put together, are below 2^47 in magnitude; the others, three at most, are below 2^62.
const LOW_PLANES: usize = 2;

/// Sums of a group's rows in one plane.
type Sums = [[i32; STRIP]; GROUP_ROWS];

/// A dense block's weights as pairs of words.
#[derive(Clone, Debug)]
pub(in crate::ring::kernels) struct PackedShorts {
    token: Token,
    pub rows: usize,
    pub columns: usize,
    plane_bits: u32,
    /// No sum of products is further from zero than so many times the largest residue.
    largest_row: u64,
    group_rows: usize,
    /// `[group][pair of columns][row][column of the pair]`; rows and columns are filled up with zeros.
    weights: Vec<i32>,
}

impl PackedShorts {
    /// Packs weights if the kernel multiplies words so, and does so faster than whole residues.
    pub fn where_faster(kernel: Kernel, rows: usize, columns: usize, weights: &[i16]) -> Option<Self> {
        let magnitudes = Magnitudes::new(columns, weights);
        let (token, plane_bits) = shape(kernel, rows, columns, magnitudes)?;
        let group_rows = group_rows(rows);
        let pairs = columns.div_ceil(2);
        let mut packed = vec![0; rows.div_ceil(group_rows) * group_rows * pairs];
        for (i, &weight) in weights.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let at = (row / group_rows * pairs + column / 2) * group_rows + row % group_rows;
            packed[at] |= i32::from(weight as u16) << (column % 2 * 16);
        }
        let largest_row = magnitudes.largest_row;
        Some(Self { token, rows, columns, plane_bits, largest_row, group_rows, weights: packed })
    }

    /// See [`super::super::PackedBlock::mul_add_into`].
    pub fn mul_add_into(&self, m: &Modulus, operands: &BlockOperands<'_>, scratch: &mut BlockScratch, out: &mut [u64]) {
        // SAFETY: a `Token` exists only where every feature is that the callee enables.
        unsafe { self.multiply(m, operands, scratch, out) }
    }

    #[target_feature(enable = "avx2,bmi2")]
    fn multiply(&self, m: &Modulus, operands: &BlockOperands<'_>, scratch: &mut BlockScratch, out: &mut [u64]) {
        let planes = m.bits().div_ceil(self.plane_bits) as usize;
        let pairs = self.columns.div_ceil(2);
        if scratch.units.len() < planes * pairs {
            scratch.units.resize(planes * pairs, Line([0; 64]));
        }
        let units = &mut scratch.units[..planes * pairs];
        let mut sums: [Sums; MOST_PLANES] = [[[0; STRIP]; GROUP_ROWS]; MOST_PLANES];
        let ending = Ending::new(self, m);
        let product = product(self.token, self.group_rows);
        for first in (0..operands.row_words).step_by(STRIP) {
            split(operands, first, self.plane_bits, planes, units);
            for (weights, rows) in
                self.weights.chunks_exact(pairs * self.group_rows).zip(operands.rows.chunks(self.group_rows))
            {
                for (unit, sums) in units.chunks_exact(pairs).zip(&mut sums) {
                    // SAFETY: the product is the token's, which exists only where the product's features are.
                    unsafe { product(weights, unit, sums) }
                }
                let sums = &sums[..planes];
                for (row, &out_row) in rows.iter().enumerate() {
                    let place = Place { row, out_row, first };
                    if ending.one_word && first + STRIP <= operands.row_words {
                        ending.store_strip(operands, sums, place, out);
                    } else {
                        ending.store(operands, sums, place, out);
                    }
                }
            }
        }
    }
}

/// Rows of a group: those that fill up the last one are computed for nothing.
fn group_rows(rows: usize) -> usize {
    let most = (GROUP_ROWS / 2..=GROUP_ROWS).rev().min_by_key(|&of| rows.next_multiple_of(of)).unwrap_or(GROUP_ROWS);
    rows.clamp(1, most)
}

/// The kernel's token and the bits of planes, where it is the faster way for a block of this shape.
fn shape(kernel: Kernel, rows: usize, columns: usize, magnitudes: Magnitudes) -> Option<(Token, u32)> {
    let Tier::Avx2(token) = kernel.0 else { return None };
    let (r, k) = (rows as f64, columns as f64);
    // Cycles that 16 residues of every row take in 3 planes, as `calibrate --stand-alone` finds on Zen 4: products, cutting, putting together; and products of
    // whole residues.
    let is_faster = 2.1 * r * k + 17.0 * k + 69.0 * r < 16.6 * r * k;
    let bits = magnitudes.short_bits()?;
    is_faster.then_some((token, bits))
}

/// See [`BlockWork::new`]; `None` where the block is multiplied as whole residues.
pub(in crate::ring::kernels) fn work(
    kernel: Kernel,
    rows: usize,
    columns: usize,
    magnitudes: Magnitudes,
    modulus_bits: u32,
) -> Option<BlockWork> {
    let (_, bits) = shape(kernel, rows, columns, magnitudes)?;
    let planes = u64::from(modulus_bits.div_ceil(bits));
    let padded = rows.next_multiple_of(group_rows(rows)) * columns.next_multiple_of(2);
    Some(BlockWork {
        // A product of words counts as two of bytes.
        byte_products: planes * padded as u64 * 2,
        split_bytes: planes * columns as u64 * 2,
        joined_bytes: planes * rows as u64,
        ..BlockWork::default()
    })
}

/// Four words from a place on.
#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[u64; STRIP], at: usize) -> __m256i {
    let words: &[u64] = &x[at..at + 4];
    // SAFETY: the slice holds 32 bytes; the load has no alignment requirement.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Residues `first ..` of every column to planes, `[plane][pair]`.
#[target_feature(enable = "avx2")]
fn split(operands: &BlockOperands<'_>, first: usize, bits: u32, planes: usize, units: &mut [Line]) {
    let &BlockOperands { x, columns, row_words, .. } = operands;
    let len = STRIP.min(row_words - first);
    let pairs = columns.len().div_ceil(2);
    let mask = _mm256_set1_epi64x((1 << bits) - 1);
    let none = [0u64; STRIP];
    let (mut short_a, mut short_b) = (none, none);
    for (pair, columns) in columns.chunks(2).enumerate() {
        let row = |column: u32| &x[column as usize * row_words + first..][..len];
        let (a, b): (&[u64; STRIP], &[u64; STRIP]) = if len == STRIP {
            // Whole: these are so many words.
            let row = |column: u32| row(column).first_chunk().unwrap_or(&none);
            (row(columns[0]), columns.get(1).map_or(&none, |&column| row(column)))
        } else {
            short_a[..len].copy_from_slice(row(columns[0]));
            short_b[..len].copy_from_slice(columns.get(1).map_or(&none[..len], |&column| row(column)));
            (&short_a, &short_b)
        };
        for half in 0..2 {
            let at = half * STRIP / 2;
            let (a0, a1, b0, b1) = (load(a, at), load(a, at + 4), load(b, at), load(b, at + 4));
            for plane in 0..planes {
                let shift = _mm_cvtsi32_si128((bits * plane as u32) as i32);
                let both = |a, b| {
                    let a = _mm256_and_si256(_mm256_srl_epi64(a, shift), mask);
                    let b = _mm256_and_si256(_mm256_srl_epi64(b, shift), mask);
                    _mm256_castsi256_ps(_mm256_or_si256(a, _mm256_slli_epi64::<16>(b)))
                };
                // The low halves of eight words, in their order.
                let low = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(both(a0, b0), both(a1, b1)));
                let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(low);
                let line = &mut units[plane * pairs + pair].0[half * 32..half * 32 + 32];
                // SAFETY: the slice holds 32 bytes; the store has no alignment requirement.
                unsafe { _mm256_storeu_si256(line.as_mut_ptr().cast(), low) }
            }
        }
    }
}

/// Sums of a group's rows with one plane of a strip.
type Product = unsafe fn(&[i32], &[Line], &mut Sums);

/// The product of groups of so many rows.
fn product(token: Token, rows: usize) -> Product {
    match token.0 {
        Words::Multiplied => multiplied::product(rows),
        Words::Summed => summed::product(rows),
        #[cfg(test)]
        Words::SummedWide => summed_wide::product(rows),
    }
}

/// Products by one instruction set: `$add` is a sum of eight lanes, words of a plane, words of weights.
macro_rules! products {
    ($name:ident, $features:literal, $add:expr) => {
        mod $name {
            use super::*;

            pub fn product(rows: usize) -> Product {
                match rows {
                    1 => products::<1>,
                    2 => products::<2>,
                    3 => products::<3>,
                    4 => products::<4>,
                    5 => products::<5>,
                    6 => products::<6>,
                    _ => panic!("group of {rows} rows"),
                }
            }

            /// Sums of R rows with one plane of a strip.
            #[target_feature(enable = $features)]
            fn products<const R: usize>(weights: &[i32], unit: &[Line], out: &mut Sums) {
                let mut sums = [[_mm256_setzero_si256(); 2]; R];
                for (weights, line) in weights.chunks_exact(R).zip(unit) {
                    let half = |at: usize| {
                        let bytes: &[u8] = &line.0[at..at + 32];
                        // SAFETY: the slice holds 32 bytes; the load has no alignment requirement.
                        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
                    };
                    let halves = [half(0), half(32)];
                    for (sums, &weight) in sums.iter_mut().zip(weights) {
                        let weight = _mm256_set1_epi32(weight);
                        for (sum, half) in sums.iter_mut().zip(halves) {
                            *sum = $add(*sum, half, weight);
                        }
                    }
                }
                for (out, sums) in out.iter_mut().zip(&sums) {
                    for (out, &sum) in out.chunks_exact_mut(8).zip(sums) {
                        // SAFETY: the slice holds 32 bytes; the store has no alignment requirement.
                        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) }
                    }
                }
            }
        }
    };
}

products!(multiplied, "avx2", |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)));
products!(summed, "avx2,avxvnni", _mm256_dpwssd_avx_epi32);
// The same instruction in AVX-512's encoding, for tests on the many machines that have it in no other.
#[cfg(test)]
products!(summed_wide, "avx2,avx512vl,avx512vnni", _mm256_dpwssd_epi32);

/// Which row's sums go where.
#[derive(Clone, Copy)]
struct Place {
    /// In the group.
    row: usize,
    out_row: u32,
    /// Number of the first residue.
    first: usize,
}

/// How sums become residues.
struct Ending<'a> {
    m: &'a Modulus,
    plane_bits: u32,
    /// Whether all planes of a sum of products fit a word, and quotients 32 bits.
    one_word: bool,
    /// What the planes above the low ones count.
    power: ShoupFactor,
}

impl<'a> Ending<'a> {
    fn new(block: &PackedShorts, m: &'a Modulus) -> Self {
        let one_word = m.value().checked_mul(block.largest_row).is_some_and(|sum| sum < 1 << 62);
        let power = m.shoup(m.reduce(1 << (block.plane_bits * LOW_PLANES as u32)));
        Self { m, plane_bits: block.plane_bits, one_word, power }
    }

    /// Adds a row's sums to what its residues begin as.
    #[target_feature(enable = "avx2,bmi2")]
    fn store(&self, operands: &BlockOperands<'_>, sums: &[Sums], place: Place, out: &mut [u64]) {
        let m = self.m;
        let Place { row, out_row, first } = place;
        let len = STRIP.min(operands.row_words - first);
        let out = &mut out[out_row as usize * operands.row_words + first..][..len];
        let join = |planes: &[Sums], i: usize| {
            planes.iter().rev().fold(0, |sum, plane| (sum << self.plane_bits) + i64::from(plane[row][i]))
        };
        for (i, out) in out.iter_mut().enumerate() {
            let start = operands.constant(out_row, first + i).unwrap_or(*out);
            *out = if self.one_word {
                // Below 2^62 in magnitude: a residue more still fits a word.
                m.reduce(lift(m, join(sums, i) + start as i64))
            } else {
                let (low, high) = sums.split_at(LOW_PLANES.min(sums.len()));
                let high = m.mul_shoup(m.reduce(lift(m, join(high, i))), self.power);
                m.add(m.reduce(lift(m, join(low, i) + start as i64)), high)
            };
        }
    }

    /// The same of a whole strip whose sums fit a word. The nearest multiple of q is found in double precision, where the quotient, at most
    /// [`PackedShorts::largest_row`] and so below 2^21, is wrong by far less than a half: what remains is between -q and q, and with the start below 2q.
    #[target_feature(enable = "avx2,bmi2")]
    fn store_strip(&self, operands: &BlockOperands<'_>, sums: &[Sums], place: Place, out: &mut [u64]) {
        /// Lanes.
        const FOUR: usize = 4;
        const HALF_BITS: u32 = 31;
        let Place { row, out_row, first } = place;
        let q = self.m.value();
        let [low, high] = [q & ((1 << HALF_BITS) - 1), q >> HALF_BITS].map(|half| _mm256_set1_epi64x(half as i64));
        let (zero, modulus) = (_mm256_setzero_si256(), _mm256_set1_epi64x(q as i64));
        let reciprocal = _mm256_set1_pd(1.0 / q as f64);
        let power = _mm256_set1_pd((1u64 << self.plane_bits) as f64);
        let shift = _mm_cvtsi32_si128(self.plane_bits as i32);
        let out = &mut out[out_row as usize * operands.row_words + first..][..STRIP];
        for (four, out) in out.chunks_exact_mut(FOUR).enumerate() {
            let (mut sum, mut nearly) = (zero, _mm256_setzero_pd());
            for plane in sums.iter().rev() {
                let words: &[i32] = &plane[row][four * FOUR..four * FOUR + FOUR];
                // SAFETY: the slice holds 16 bytes; the load has no alignment requirement.
                let words = unsafe { _mm_loadu_si128(words.as_ptr().cast()) };
                sum = _mm256_add_epi64(_mm256_sll_epi64(sum, shift), _mm256_cvtepi32_epi64(words));
                nearly = _mm256_add_pd(_mm256_mul_pd(nearly, power), _mm256_cvtepi32_pd(words));
            }
            let quotient = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(_mm256_mul_pd(nearly, reciprocal)));
            let multiple = _mm256_slli_epi64::<{ HALF_BITS as i32 }>(_mm256_mul_epi32(quotient, high));
            let rest = _mm256_sub_epi64(_mm256_sub_epi64(sum, multiple), _mm256_mul_epi32(quotient, low));
            let start = match operands.constant(out_row, first + four * FOUR) {
                Some(constant) => _mm256_set1_epi64x(constant as i64),
                // SAFETY: the slice holds 32 bytes; the load has no alignment requirement.
                None => unsafe { _mm256_loadu_si256(out.as_ptr().cast()) },
            };
            let rest = _mm256_add_epi64(rest, start);
            let rest = _mm256_add_epi64(rest, _mm256_and_si256(_mm256_cmpgt_epi64(zero, rest), modulus));
            let less = _mm256_sub_epi64(rest, modulus);
            let residues = _mm256_blendv_epi8(less, rest, _mm256_cmpgt_epi64(zero, less));
            // SAFETY: the slice holds 32 bytes; the store has no alignment requirement.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), residues) }
        }
    }
}
