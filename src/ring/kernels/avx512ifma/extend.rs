//! Base extension, what follows it in a key switch, and the division at its end.

use super::super::{Extending, portable};
use super::{LANES, Modulus, ShoupFactor, ShoupTable, Token, Wide, load, reverse, store};
use core::arch::x86_64::*;

entry!(extend_twist_into => extend_twist(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]));
entry!(sum_products_into => sum_products(
    m: &Modulus, factors: &[&[u64]], keys: &[&[u64]], start: Option<(&[u64], ShoupFactor)>, out: &mut [u64]
));
entry!(subtract_from_scaled_assign => subtract_scaled(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor));

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(w: ShoupFactor) -> (__m512i, __m512i) {
    (_mm512_set1_epi64(w.value as i64), _mm512_set1_epi64(w.quotient as i64))
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn extend_twist(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]) {
    match *from.limbs {
        [a] => extend_twist_from(m, [a], from, w, t, out),
        [a, b] => extend_twist_from(m, [a, b], from, w, t, out),
        [a, b, c] => extend_twist_from(m, [a, b, c], from, w, t, out),
        [a, b, c, d] => extend_twist_from(m, [a, b, c, d], from, w, t, out),
        _ => portable::extend_twist_into(m, from, w, t, out),
    }
}

/// Constants of an extension from S primes, in registers. (Loops, not closures given to library functions: those are compiled without the
/// features and would not be inlined.)
pub(super) struct Lanes<'a, const S: usize> {
    wide: Wide,
    limbs: [&'a [u64]; S],
    reciprocals: [__m512d; S],
    cofactors: [(__m512i, __m512i); S],
    overshoot: (__m512i, __m512i),
}

impl<'a, const S: usize> Lanes<'a, S> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn new(wide: Wide, limbs: [&'a [u64]; S], from: &Extending<'_>) -> Self {
        let mut reciprocals = [_mm512_setzero_pd(); S];
        let mut cofactors = [(_mm512_setzero_si512(), _mm512_setzero_si512()); S];
        for s in 0..S {
            reciprocals[s] = _mm512_set1_pd(from.reciprocals[s]);
            cofactors[s] = broadcast(from.target.cofactors[s]);
        }
        let overshoot = (load(&from.target.overshoot, 0), load(&from.target.overshoot, LANES));
        Self { wide, limbs, reciprocals, cofactors, overshoot }
    }

    /// What is added for the digits' quotients. The same products and sums of doubles in the same order as the reference, none of them fused.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn correction(&self, at: usize) -> __m512i {
        let mut quotients = _mm512_setzero_pd();
        for s in 0..S {
            let digits = _mm512_cvtepu64_pd(load(self.limbs[s], at));
            quotients = _mm512_add_pd(quotients, _mm512_mul_pd(digits, self.reciprocals[s]));
        }
        let quotients = _mm512_cvttpd_epu64(_mm512_add_pd(quotients, _mm512_set1_pd(0.5)));
        _mm512_permutex2var_epi64(self.overshoot.0, quotients, self.overshoot.1)
    }

    /// Eight extended residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn extended(&self, at: usize) -> __m512i {
        let mut sum = self.correction(at);
        for s in 0..S {
            let (value, quotient) = self.cofactors[s];
            sum = self.wide.add(sum, self.wide.mul_shoup(load(self.limbs[s], at), value, quotient));
        }
        sum
    }

    /// [`Self::extended`] in the low 52 bits, above that by less than 2 S q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn extended_above(&self, at: usize) -> __m512i {
        let mut sum = self.correction(at);
        for s in 0..S {
            let (value, quotient) = self.cofactors[s];
            let digits = load(self.limbs[s], at);
            let estimate = _mm512_madd52hi_epu64(_mm512_setzero_si512(), digits, quotient);
            let product = _mm512_madd52lo_epu64(sum, digits, value);
            sum = _mm512_madd52lo_epu64(product, estimate, self.wide.minus_q);
        }
        sum
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn extend_twist_from<const S: usize>(
    m: &Modulus,
    limbs: [&[u64]; S],
    from: &Extending<'_>,
    w: ShoupFactor,
    t: &ShoupTable,
    out: &mut [u64],
) {
    let wide = Wide::new(m);
    let (value, quotient) = broadcast(w);
    let lanes = Lanes::new(wide, limbs, from);
    let n = out.len();
    portable::extend_twist_range(m, from, w, t, out, 0..1);
    let mut j = 1;
    while j + LANES <= n / 2 {
        let mirror = n - j - (LANES - 1);
        let (front, back) = (lanes.extended(j), reverse(lanes.extended(mirror)));
        let new_front = _mm512_add_epi64(front, wide.mul_shoup(back, value, quotient));
        let new_back = reverse(_mm512_add_epi64(back, wide.mul_shoup(front, value, quotient)));
        store(out, j, wide.mul_shoup(new_front, load(&t.values, j), load(&t.quotients, j)));
        store(out, mirror, wide.mul_shoup(new_back, load(&t.values, mirror), load(&t.quotients, mirror)));
        j += LANES;
    }
    portable::extend_twist_range(m, from, w, t, out, j..n / 2 + 1);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn sum_products(
    m: &Modulus,
    factors: &[&[u64]],
    keys: &[&[u64]],
    start: Option<(&[u64], ShoupFactor)>,
    out: &mut [u64],
) {
    /// High halves are below 2^48: a sum of this many is one word of the multiplier. As many low halves and a residue are one word of the lane.
    const MOST_TERMS: usize = 16;
    let wide = Wide::new(m);
    let power = broadcast(m.shoup(m.reduce(1 << 52)));
    let reduce_high = factors.len() + 1 > MOST_TERMS;
    let even = out.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        if let Some((x, w)) = start {
            let (a, b) = (load(x, i), _mm512_set1_epi64(w.value as i64));
            (low, high) = (_mm512_madd52lo_epu64(low, a, b), _mm512_madd52hi_epu64(high, a, b));
        }
        for (factor, key) in factors.iter().zip(keys) {
            let (a, b) = (load(factor, i), load(key, i));
            (low, high) = (_mm512_madd52lo_epu64(low, a, b), _mm512_madd52hi_epu64(high, a, b));
        }
        if reduce_high {
            high = wide.reduce(high);
        }
        store(out, i, wide.reduce(_mm512_add_epi64(low, wide.product_above(high, power))));
    }
    portable::sum_products_range(m, factors, keys, start, out, even..out.len());
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn subtract_scaled(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor) {
    let wide = Wide::new(m);
    let (value, quotient) = broadcast(w);
    let even = x.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        // In (0, 2q), below the 2^52 of the product.
        let difference = _mm512_add_epi64(_mm512_sub_epi64(load(from, i), load(x, i)), wide.q);
        store(x, i, wide.mul_shoup(difference, value, quotient));
    }
    portable::subtract_from_scaled_assign(m, &mut x[even..], &from[even..], w);
}
