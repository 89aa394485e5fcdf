//! Base extension and the division after it.

use super::super::{ExtensionTarget, portable};
use super::{LANES, Modulus, ShoupFactor, Token, Wide, load, store};
use core::arch::x86_64::*;

entry!(quotients_into => quotients(limbs: &[&[u64]], reciprocals: &[f64], out: &mut [u64]));
entry!(extend_into => extend(m: &Modulus, limbs: &[&[u64]], target: &ExtensionTarget, quotients: &[u64], out: &mut [u64]));
entry!(subtract_from_scaled_assign => subtract_scaled(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor));

/// The same products and sums in the same order as the reference, none of them fused.
#[target_feature(enable = "avx512f,avx512dq")]
fn quotients(limbs: &[&[u64]], reciprocals: &[f64], out: &mut [u64]) {
    let even = out.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let mut sum = _mm512_setzero_pd();
        for (limb, &reciprocal) in limbs.iter().zip(reciprocals) {
            let digit = _mm512_cvtepu64_pd(load(limb, i));
            sum = _mm512_add_pd(sum, _mm512_mul_pd(digit, _mm512_set1_pd(reciprocal)));
        }
        store(out, i, _mm512_cvttpd_epu64(_mm512_add_pd(sum, _mm512_set1_pd(0.5))));
    }
    portable::quotients_range(limbs, reciprocals, out, even..out.len());
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn extend(m: &Modulus, limbs: &[&[u64]], target: &ExtensionTarget, quotients: &[u64], out: &mut [u64]) {
    match *limbs {
        [a] => extend_from(m, [a], target, quotients, out),
        [a, b] => extend_from(m, [a, b], target, quotients, out),
        [a, b, c] => extend_from(m, [a, b, c], target, quotients, out),
        _ => portable::extend_into(m, limbs, target, quotients, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn extend_from<const S: usize>(
    m: &Modulus,
    limbs: [&[u64]; S],
    target: &ExtensionTarget,
    quotients: &[u64],
    out: &mut [u64],
) {
    let wide = Wide::new(m);
    let (low, high) = (load(&target.overshoot, 0), load(&target.overshoot, LANES));
    let cofactors: [_; S] = core::array::from_fn(|s| {
        let ShoupFactor { value, quotient } = target.cofactors[s];
        (_mm512_set1_epi64(value as i64), _mm512_set1_epi64(quotient as i64))
    });
    let even = out.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let mut sum = _mm512_permutex2var_epi64(low, load(quotients, i), high);
        for (limb, &(value, quotient)) in limbs.iter().zip(&cofactors) {
            sum = wide.add(sum, wide.mul_shoup(load(limb, i), value, quotient));
        }
        store(out, i, sum);
    }
    portable::extend_range(m, &limbs, target, quotients, out, even..out.len());
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn subtract_scaled(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor) {
    let wide = Wide::new(m);
    let (value, quotient) = (_mm512_set1_epi64(w.value as i64), _mm512_set1_epi64(w.quotient as i64));
    let even = x.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        // In (0, 2q), below the 2^52 of the product.
        let difference = _mm512_add_epi64(_mm512_sub_epi64(load(from, i), load(x, i)), wide.q);
        store(x, i, wide.mul_shoup(difference, value, quotient));
    }
    portable::subtract_from_scaled_assign(m, &mut x[even..], &from[even..], w);
}
