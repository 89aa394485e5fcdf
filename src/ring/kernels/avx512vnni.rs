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
    let product = match rows {
        1 => products::<1, SHORTS>,
        2 => products::<2, SHORTS>,
        3 => products::<3, SHORTS>,
        4 => products::<4, SHORTS>,
        5 => products::<5, SHORTS>,
        6 => products::<6, SHORTS>,
        7 => products::<7, SHORTS>,
        8 => products::<8, SHORTS>,
        9 => products::<9, SHORTS>,
        10 => products::<10, SHORTS>,
        11 => products::<11, SHORTS>,
        12 => products::<12, SHORTS>,
        _ => panic!("group of {rows} rows"),
    };
    assert!(weights.len() * 16 >= quads * rows, "{} lines of weights for {quads} quads", weights.len());
    for (pair, sums) in units.chunks(2 * quads).zip(sums.chunks_mut(2 * SUM_LINES)) {
        // An odd last unit is computed twice.
        let (first, second) = (&pair[..quads], &pair[pair.len() - quads..]);
        let (sums_first, sums_second) = sums.split_at_mut(SUM_LINES);
        let sums_second = if pair.len() > quads { sums_second } else { &mut [] };
        // SAFETY: a `Token` exists only where the features are; weights hold `rows` words a quad, as was just asserted.
        unsafe { product(weights, [first, second], sums_first, sums_second) }
    }
}

/// # Safety
/// `weights` holds R 32-bit words for each line of a unit.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn products<const R: usize, const SHORTS: bool>(
    weights: &[Line],
    units: [&[Line]; 2],
    first: &mut [Line],
    second: &mut [Line],
) {
    let words: *const i32 = weights.as_ptr().cast();
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    for (quad, (a, b)) in units[0].iter().zip(units[1]).enumerate() {
        // SAFETY: lines are 64 bytes, aligned to 64.
        let lines = unsafe { [_mm512_load_si512((&raw const a.0).cast()), _mm512_load_si512((&raw const b.0).cast())] };
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
    for (row, sums) in sums.iter().enumerate() {
        for (out, &sum) in [&mut *first, &mut *second].into_iter().zip(sums) {
            if let Some(line) = out.get_mut(row) {
                // SAFETY: a line is 64 bytes, aligned to 64.
                unsafe { _mm512_store_si512((&raw mut line.0).cast(), sum) }
            }
        }
    }
}
