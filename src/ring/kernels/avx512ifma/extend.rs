//! Base extension, what follows it in a key switch, and the division at its end.

use super::super::{Extending, WORD_BITS, portable};
use super::{LANES, Modulus, ShoupFactor, ShoupTable, Token, Wide, load, reverse, store};
use core::arch::x86_64::*;

entry!(extend_twist_into => extend_twist(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]));
entry!(mark_quotients_assign => mark_quotients(reciprocals: &[f64], limbs: &mut [u64]));
entry!(sum_products_assign => sum_products(
    m: &Modulus, factors: &[&[u64]], keys: [&[&[u64]]; 2], start: Option<ShoupFactor>, sums: [&mut [u64]; 2]
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
    cofactors: [(__m512i, __m512i); S],
    rounded_up_from: __m512i,
    /// Of quotients up to 7: from S primes there are none above S.
    overshoot: __m512i,
}

impl<'a, const S: usize> Lanes<'a, S> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn new(wide: Wide, limbs: [&'a [u64]; S], from: &Extending<'_>) -> Self {
        const { assert!(S < LANES) };
        let mut cofactors = [(_mm512_setzero_si512(), _mm512_setzero_si512()); S];
        for (lanes, &cofactor) in cofactors.iter_mut().zip(&from.target.cofactors) {
            *lanes = broadcast(cofactor);
        }
        let rounded_up_from = _mm512_set1_epi64(from.rounded_up_from as i64);
        Self { wide, limbs, cofactors, rounded_up_from, overshoot: load(&from.target.overshoot, 0) }
    }

    /// What is added for the digits' quotients.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn correction(&self, at: usize) -> __m512i {
        let first = load(self.limbs[0], at);
        let quotients = if S == 1 {
            let rounded_up = _mm512_cmpge_epu64_mask(first, self.rounded_up_from);
            _mm512_maskz_set1_epi64(rounded_up, 1)
        } else {
            _mm512_srli_epi64::<WORD_BITS>(first)
        };
        _mm512_permutexvar_epi64(quotients, self.overshoot)
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

    /// [`Self::extended`] in the low 52 bits, above that by less than 2 S q; from a single prime, by less than that prime.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn extended_above(&self, at: usize) -> __m512i {
        let mut sum = self.correction(at);
        if S == 1 {
            return _mm512_add_epi64(sum, load(self.limbs[0], at));
        }
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

#[target_feature(enable = "avx512f,avx512dq")]
fn mark_quotients(reciprocals: &[f64], limbs: &mut [u64]) {
    match *reciprocals {
        [a, b] => mark_quotients_of([a, b], limbs),
        [a, b, c] => mark_quotients_of([a, b, c], limbs),
        [a, b, c, d] => mark_quotients_of([a, b, c, d], limbs),
        _ => portable::mark_quotients_assign(reciprocals, limbs),
    }
}

/// The same products and sums of doubles in the same order as the reference, none of them fused.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn mark_quotients_of<const S: usize>(reciprocals: [f64; S], limbs: &mut [u64]) {
    let n = limbs.len() / S;
    let even = n / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let mut quotients = _mm512_setzero_pd();
        for (s, &reciprocal) in reciprocals.iter().enumerate() {
            let digits = _mm512_cvtepu64_pd(load(limbs, s * n + i));
            quotients = _mm512_add_pd(quotients, _mm512_mul_pd(digits, _mm512_set1_pd(reciprocal)));
        }
        let quotients = _mm512_cvttpd_epu64(_mm512_add_pd(quotients, _mm512_set1_pd(0.5)));
        let marked = _mm512_or_si512(load(limbs, i), _mm512_slli_epi64::<WORD_BITS>(quotients));
        store(limbs, i, marked);
    }
    portable::mark_quotients_range(&reciprocals, limbs, even..n);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn sum_products(
    m: &Modulus,
    factors: &[&[u64]],
    keys: [&[&[u64]]; 2],
    start: Option<ShoupFactor>,
    sums: [&mut [u64]; 2],
) {
    match *factors {
        [a] => sum_some_products(m, &[a], keys, start, sums),
        [a, b] => sum_some_products(m, &[a, b], keys, start, sums),
        [a, b, c] => sum_some_products(m, &[a, b, c], keys, start, sums),
        _ => sum_some_products(m, factors, keys, start, sums),
    }
}

/// Inlined, where the number of factors is known.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn sum_some_products(
    m: &Modulus,
    factors: &[&[u64]],
    keys: [&[&[u64]]; 2],
    start: Option<ShoupFactor>,
    [first, second]: [&mut [u64]; 2],
) {
    /// High halves are below 2^48: a sum of this many is one word of the multiplier. As many low halves and a residue are one word of the lane.
    const MOST_TERMS: usize = 16;
    let wide = Wide::new(m);
    let power = broadcast(m.shoup(m.reduce(1 << WORD_BITS)));
    let reduce_high = factors.len() + 1 > MOST_TERMS;
    let started = start.map(|w| _mm512_set1_epi64(w.value as i64));
    let even = first.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let zero = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let (mut a, mut b) = (zero, zero);
        if let Some(w) = started {
            (a, b) = (add_halves(a, load(first, i), w), add_halves(b, load(second, i), w));
        }
        for (j, factor) in factors.iter().enumerate() {
            let factor = load(factor, i);
            (a, b) = (add_halves(a, factor, load(keys[0][j], i)), add_halves(b, factor, load(keys[1][j], i)));
        }
        if reduce_high {
            (a.1, b.1) = (wide.reduce(a.1), wide.reduce(b.1));
        }
        store(first, i, wide.reduce(_mm512_add_epi64(a.0, wide.product_above(a.1, power))));
        store(second, i, wide.reduce(_mm512_add_epi64(b.0, wide.product_above(b.1, power))));
    }
    portable::sum_products_range(m, factors, keys[0], start, first, even..first.len());
    portable::sum_products_range(m, factors, keys[1], start, second, even..second.len());
}

/// Adds the low and the high half of a product.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_halves((low, high): (__m512i, __m512i), a: __m512i, b: __m512i) -> (__m512i, __m512i) {
    (_mm512_madd52lo_epu64(low, a, b), _mm512_madd52hi_epu64(high, a, b))
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
