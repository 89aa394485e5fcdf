//! Base extension, what follows it in a key switch, and the division at its end.

use super::super::{Extending, ProductSums, WORD_BITS, portable};
use super::{LANES, Modulus, ShoupFactor, ShoupTable, Token, Wide, load, reverse, store};
use core::arch::x86_64::*;

entry!(extend_twist_into => extend_twist(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]));
entry!(mark_quotients_assign => mark_quotients(reciprocals: &[f64], limbs: &mut [u64]));
entry!(sum_products_into => sum_products(m: &Modulus, sums: &ProductSums<'_>, out: [&mut [u64]; 2]));
entry!(subtract_from_products_assign => subtract_from_products(
    m: &Modulus, sums: &ProductSums<'_>, w: ShoupFactor, x: [&mut [u64]; 2]
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
fn sum_products(m: &Modulus, sums: &ProductSums<'_>, out: [&mut [u64]; 2]) {
    // No factor is asked for.
    let w = ShoupFactor { value: 0, quotient: 0 };
    match sums.count {
        1 => sum_some_products::<1, false>(m, sums, w, out),
        2 => sum_some_products::<2, false>(m, sums, w, out),
        3 => sum_some_products::<3, false>(m, sums, w, out),
        _ => sum_some_products::<0, false>(m, sums, w, out),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn subtract_from_products(m: &Modulus, sums: &ProductSums<'_>, w: ShoupFactor, x: [&mut [u64]; 2]) {
    match sums.count {
        1 => sum_some_products::<1, true>(m, sums, w, x),
        2 => sum_some_products::<2, true>(m, sums, w, x),
        3 => sum_some_products::<3, true>(m, sums, w, x),
        _ => sum_some_products::<0, true>(m, sums, w, x),
    }
}

/// Both sums, or those less what is there, times `w`.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn sum_some_products<const COUNT: usize, const SUBTRACTED_FROM: bool>(
    m: &Modulus,
    sums: &ProductSums<'_>,
    w: ShoupFactor,
    [first, second]: [&mut [u64]; 2],
) {
    let summing = Summing::<COUNT, SUBTRACTED_FROM>::new(m, sums, w);
    let even = first.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let (a, b) = summing.halves(i);
        summing.finish(a, first, i);
        summing.finish(b, second, i);
    }
    for i in even..first.len() {
        for (c, x) in [&mut first[i], &mut second[i]].into_iter().enumerate() {
            let sum = portable::product_sum(m, sums, c, i);
            *x = if SUBTRACTED_FROM { m.mul_shoup(sum + m.value() - *x, w) } else { sum };
        }
    }
}

/// Halves of a sum of products of one component.
type Halves = (__m512i, __m512i);

/// Sums of `COUNT` products and perhaps a first one, or of any number where it is zero.
///
/// Of few products of residues below 2^45 the high half is `h = sum_j floor(a_j b_j / 2^bits)`; each term lacks less than 1, that is `2^bits <= 2q`, so the
/// quotient `floor(4 h barrett / 2^52)` lacks less than 2 for each and 2 more: what remains is below `(2 terms + 3) q`, and only the low 52 bits of the low
/// half count. Otherwise the high half is above 2^52, and both are reduced.
struct Summing<'a, const COUNT: usize, const SUBTRACTED_FROM: bool> {
    sums: &'a ProductSums<'a>,
    wide: Wide,
    /// Whether the quotient is found from the high half.
    few: bool,
    /// 2^52
    power: (__m512i, __m512i),
    started: Option<(__m512i, [&'a [u64]; 2])>,
    estimate: __m512i,
    factor: (__m512i, __m512i),
}

impl<'a, const COUNT: usize, const SUBTRACTED_FROM: bool> Summing<'a, COUNT, SUBTRACTED_FROM> {
    /// High halves are below 2^48: a sum of this many is one word of the multiplier. As many low halves and a residue are one word of the lane.
    const MOST_TERMS: usize = 16;
    /// So many at most, the first one included.
    const FEW_TERMS: usize = 4;
    const FEW_BITS: u32 = 45;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn new(m: &Modulus, sums: &'a ProductSums<'a>, w: ShoupFactor) -> Self {
        let few = COUNT > 0 && COUNT < Self::FEW_TERMS && m.bits() <= Self::FEW_BITS;
        Self {
            sums,
            wide: Wide::new(m),
            few,
            power: broadcast(m.shoup(m.reduce(1 << WORD_BITS))),
            started: sums.start.map(|(w, before)| (_mm512_set1_epi64(w.value as i64), before)),
            estimate: _mm512_set1_epi64(((1 << WORD_BITS) / m.value()) as i64),
            factor: broadcast(w),
        }
    }

    /// Both sums at a place.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn halves(&self, i: usize) -> (Halves, Halves) {
        let ProductSums { count, factors, keys, .. } = *self.sums;
        let count = if COUNT > 0 { COUNT } else { count };
        let zero = _mm512_setzero_si512();
        let (mut a, mut b): (Halves, Halves) = ((zero, zero), (zero, zero));
        if let Some((w, [first, second])) = self.started {
            let filled = self.filled(w);
            (a, b) = (add_halves(a, (w, filled), load(first, i)), add_halves(b, (w, filled), load(second, i)));
        }
        for j in 0..count {
            let factor = load(factors.words, j * factors.stride + i);
            let factor = (factor, self.filled(factor));
            a = add_halves(a, factor, load(keys[0].words, j * keys[0].stride + i));
            b = add_halves(b, factor, load(keys[1].words, j * keys[1].stride + i));
        }
        if !self.few && count + 1 > Self::MOST_TERMS {
            (a.1, b.1) = (self.wide.reduce(a.1), self.wide.reduce(b.1));
        }
        (a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn filled(&self, factor: __m512i) -> __m512i {
        if self.few { self.wide.filled(factor) } else { factor }
    }

    /// Of a sum the residue, or what else is asked for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn finish(&self, (low, high): Halves, x: &mut [u64], i: usize) {
        let zero = _mm512_setzero_si512();
        let mut sum = if self.few {
            let quotient = _mm512_madd52hi_epu64(zero, _mm512_slli_epi64::<2>(high), self.wide.barrett);
            self.wide.remainder(low, quotient)
        } else {
            self.wide.reduce(_mm512_add_epi64(low, self.wide.product_above(high, self.power)))
        };
        if SUBTRACTED_FROM {
            // Below the 2^52 of a product.
            let difference = _mm512_add_epi64(_mm512_sub_epi64(sum, load(x, i)), self.wide.q);
            sum = self.wide.mul_shoup(difference, self.factor.0, self.factor.1);
        } else if self.few {
            let quotient = _mm512_madd52hi_epu64(zero, sum, self.estimate);
            sum = self.wide.fold(self.wide.remainder(sum, quotient));
        }
        store(x, i, sum);
    }
}

/// Adds the low and the high half of a product, the latter of its first factor as it is given for that.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_halves((low, high): Halves, (a, filled): (__m512i, __m512i), b: __m512i) -> Halves {
    (_mm512_madd52lo_epu64(low, a, b), _mm512_madd52hi_epu64(high, filled, b))
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
