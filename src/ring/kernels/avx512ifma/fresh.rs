//! What fresh ciphertexts are made with: encoding, errors, signed coefficients as residues, a message less the product of mask and secret.

use super::super::CosinePlan;
use super::super::portable::{self, DRAWN_AGAINST, DRAWN_BITS, DRAWN_HALF};
use super::{LANES, Modulus, Token, Wide, load, store};
use core::arch::x86_64::*;

entry!(subtract_product_from_assign => subtract_product_from(m: &Modulus, x: &mut [u64], factors: &[u64], from: &[u64]));
entry!(lift_into => lift(m: &Modulus, x: &[i64], out: &mut [u64]));
entry!(cosine_rows_assign => cosine_rows(plan: &CosinePlan, rows: &mut [f64], scratch: &mut [f64]));
entry!(add_binomials_assign => add_binomials(blocks: &[[u8; 16]], x: &mut [i64]));

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn subtract_product_from(m: &Modulus, x: &mut [u64], factors: &[u64], from: &[u64]) {
    let wide = Wide::new(m);
    let even = x.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let product = wide.mul(load(x, i), load(factors, i));
        let difference = _mm512_sub_epi64(load(from, i), product);
        store(x, i, _mm512_min_epu64(difference, _mm512_add_epi64(difference, wide.q)));
    }
    portable::subtract_product_from_assign(m, &mut x[even..], &factors[even..], &from[even..]);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_signed(x: &[i64; LANES]) -> __m512i {
    // SAFETY: the array is eight words; the load has no alignment requirement.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn lift(m: &Modulus, x: &[i64], out: &mut [u64]) {
    let wide = Wide::new(m);
    let (runs, rest) = x.as_chunks::<LANES>();
    let mut outs = out.chunks_exact_mut(LANES);
    for (run, out) in runs.iter().zip(&mut outs) {
        let x = load_signed(run);
        let magnitude = wide.reduce(_mm512_abs_epi64(x));
        let signed = _mm512_mask_sub_epi64(magnitude, _mm512_movepi64_mask(x), wide.q, magnitude);
        store(out, 0, wide.fold(signed));
    }
    portable::lift_into(m, rest, outs.into_remainder());
}

#[target_feature(enable = "avx512f,avx512bw")]
fn add_binomials(blocks: &[[u8; 16]], x: &mut [i64]) {
    /// Blocks of a vector.
    const TOGETHER: usize = LANES / 2;
    let (against, counted) = (_mm512_set1_epi64(DRAWN_AGAINST as i64), _mm512_set1_epi64(DRAWN_BITS as i64));
    let half = _mm512_set1_epi64(i64::from(DRAWN_HALF));
    let nibble = _mm512_set1_epi8(0x0f);
    // Bits of the numbers 0 to 15, the highest byte first.
    let counts = _mm512_broadcast_i32x4(_mm_set_epi8(4, 3, 3, 2, 3, 2, 2, 1, 3, 2, 2, 1, 2, 1, 1, 0));
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    let (drawn, _) = blocks.as_chunks::<TOGETHER>();
    for (x, drawn) in runs.iter_mut().zip(drawn) {
        // SAFETY: four blocks are 64 bytes; the load has no alignment requirement.
        let words = unsafe { _mm512_loadu_si512(drawn.as_ptr().cast()) };
        let bits = _mm512_and_si512(_mm512_xor_si512(words, against), counted);
        let low = _mm512_shuffle_epi8(counts, _mm512_and_si512(bits, nibble));
        let high = _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16::<4>(bits), nibble));
        let ones = _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
        let sums = _mm512_add_epi64(load_signed(x), _mm512_sub_epi64(ones, half));
        // SAFETY: the array is eight words; the store has no alignment requirement.
        unsafe { _mm512_storeu_si512(x.as_mut_ptr().cast(), sums) }
    }
    portable::add_binomials_assign(&blocks[runs.len() * TOGETHER..], rest);
}

/// The reference text.
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn cosine_rows(plan: &CosinePlan, rows: &mut [f64], scratch: &mut [f64]) {
    portable::cosine_rows_assign(plan, rows, scratch);
}
