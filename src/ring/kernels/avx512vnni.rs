//! AVX-512 VNNI: four products of an unsigned and a signed byte (`vpdpbusd`), or two of signed 16-bit words (`vpdpwssd`), summed in each 32-bit lane.

use super::bytes::{Line, SUM_LINES};
use core::arch::x86_64::*;

/// Rows of a group at most: with two units that is 24 sums in registers.
pub(super) const GROUP_ROWS: usize = 12;

/// Exists only on a CPU with AVX-512 F and VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(());

impl Token {
    pub fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        all.then_some(Self(()))
    }
}

/// Sums of one group of `rows` rows (weights `[line][row]`, four bytes each) with all units, `quads` lines each: `[unit][16][16]`. With `SHORTS` weights and
/// residues are two 16-bit words where they are four bytes otherwise.
///
/// # Panics
/// If a group has more than [`GROUP_ROWS`] rows, or a slice is too short.
pub(super) fn sums_into<const SHORTS: bool>(
    _: Token,
    rows: usize,
    weights: &[Line],
    units: &[Line],
    quads: usize,
    sums: &mut [Line],
) {
    let (pair, odd) = match rows {
        1 => both::<1, SHORTS>(),
        2 => both::<2, SHORTS>(),
        3 => both::<3, SHORTS>(),
        4 => both::<4, SHORTS>(),
        5 => both::<5, SHORTS>(),
        6 => both::<6, SHORTS>(),
        7 => both::<7, SHORTS>(),
        8 => both::<8, SHORTS>(),
        9 => both::<9, SHORTS>(),
        10 => both::<10, SHORTS>(),
        11 => both::<11, SHORTS>(),
        12 => both::<12, SHORTS>(),
        _ => panic!("group of {rows} rows"),
    };
    assert!(weights.len() * 16 >= quads * rows, "{} lines of weights for {quads} quads", weights.len());
    for (units, sums) in units.chunks(2 * quads).zip(sums.chunks_mut(2 * SUM_LINES)) {
        let product = if units.len() > quads { pair } else { odd };
        // SAFETY: a `Token` exists only where the features are; weights hold `rows` words a quad, as was just asserted.
        unsafe { product(weights, units, quads, sums) }
    }
}

/// Weights, units, lines of a unit, sums.
type Product = unsafe fn(&[Line], &[Line], usize, &mut [Line]);

/// The products of R rows with two units, and with one.
fn both<const R: usize, const SHORTS: bool>() -> (Product, Product) {
    (products::<R, 2, SHORTS>, products::<R, 1, SHORTS>)
}

/// # Panics
/// If there are not U units, or not their sums.
///
/// # Safety
/// `weights` holds R 32-bit words for each line of a unit.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn products<const R: usize, const U: usize, const SHORTS: bool>(
    weights: &[Line],
    units: &[Line],
    quads: usize,
    out: &mut [Line],
) {
    let words: *const i32 = weights.as_ptr().cast();
    let units: [&[Line]; U] = core::array::from_fn(|u| &units[u * quads..][..quads]);
    let mut sums = [[_mm512_setzero_si512(); U]; R];
    for quad in 0..quads {
        // SAFETY: every unit has as many lines; they are 64 bytes, aligned to 64.
        let lines = units.map(|unit| unsafe { _mm512_load_si512((&raw const unit.get_unchecked(quad).0).cast()) });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller has R words a quad.
            let weight = _mm512_set1_epi32(unsafe { *words.add(quad * R + row) });
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = if SHORTS {
                    _mm512_dpwssd_epi32(*sum, line, weight)
                } else {
                    _mm512_dpbusd_epi32(*sum, line, weight)
                };
            }
        }
    }
    for (unit, out) in out[..U * SUM_LINES].chunks_exact_mut(SUM_LINES).enumerate() {
        for (out, sums) in out.iter_mut().zip(&sums) {
            // SAFETY: a line is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512((&raw mut out.0).cast(), sums[unit]) }
        }
    }
}
