//! Vectors of the transform: arithmetic in their low 52 bits, factors, and the levels within sixteen neighbouring residues.

use super::super::{LANES, Modulus, ShoupFactor, ShoupTable, load, store};
use core::arch::x86_64::*;

/// A factor in every lane, or one for each.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    value: __m512i,
    quotient: __m512i,
}

/// Eight times the same factor.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn same(w: ShoupFactor) -> Factor {
    Factor { value: _mm512_set1_epi64(w.value as i64), quotient: _mm512_set1_epi64(w.quotient as i64) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn at_node(table: &ShoupTable, node: usize) -> Factor {
    same(table.get(node))
}

/// Factors of two neighbouring nodes in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn of_two(table: &ShoupTable, node: usize) -> Factor {
    let (values, quotients) = (&table.values[node..node + 2], &table.quotients[node..node + 2]);
    // SAFETY: the slices hold two words; the loads have no alignment requirement.
    let (value, quotient) =
        unsafe { (_mm_loadu_si128(values.as_ptr().cast()), _mm_loadu_si128(quotients.as_ptr().cast())) };
    Factor { value: _mm512_broadcast_i64x2(value), quotient: _mm512_broadcast_i64x2(quotient) }
}

/// Factors of four neighbouring nodes in turn.
#[inline]
#[target_feature(enable = "avx512f")]
fn of_four(table: &ShoupTable, node: usize) -> Factor {
    let (values, quotients) = (&table.values[node..node + 4], &table.quotients[node..node + 4]);
    // SAFETY: the slices hold four words; the loads have no alignment requirement.
    let (value, quotient) =
        unsafe { (_mm256_loadu_si256(values.as_ptr().cast()), _mm256_loadu_si256(quotients.as_ptr().cast())) };
    Factor { value: _mm512_broadcast_i64x4(value), quotient: _mm512_broadcast_i64x4(quotient) }
}

/// Factors of eight neighbouring nodes.
#[inline]
#[target_feature(enable = "avx512f")]
fn of_eight(table: &ShoupTable, node: usize) -> Factor {
    Factor { value: load(&table.values, node), quotient: load(&table.quotients, node) }
}

/// Broadcast constants of the prime.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    q: __m512i,
    q2: __m512i,
    /// `2^52 - q`
    pub(super) minus_q: __m512i,
    mask: __m512i,
    /// `floor(2^52 / q)`
    estimate: __m512i,
}

impl Constants {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(m: &Modulus) -> Self {
        let q = m.value() as i64;
        Self {
            q: _mm512_set1_epi64(q),
            q2: _mm512_set1_epi64(2 * q),
            minus_q: _mm512_set1_epi64((1 << 52) - q),
            mask: _mm512_set1_epi64((1 << 52) - 1),
            estimate: _mm512_set1_epi64((1 << 52) / q),
        }
    }

    /// `a + x w`, above that by less than 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn add_product(&self, a: __m512i, x: __m512i, w: Factor) -> __m512i {
        let quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), x, w.quotient);
        _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(a, x, w.value), quotient, self.minus_q)
    }

    /// `(a + b w, a - b w)`
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn split(&self, a: __m512i, b: __m512i, w: Factor) -> (__m512i, __m512i) {
        let sum = self.add_product(a, b, w);
        let twice = _mm512_add_epi64(_mm512_add_epi64(a, a), self.q2);
        (sum, _mm512_sub_epi64(twice, sum))
    }

    /// `(a + b, (a - b) w)` for `b` below `multiple`, itself one of q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn join(&self, a: __m512i, b: __m512i, w: Factor, multiple: __m512i) -> (__m512i, __m512i) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(a, multiple), b);
        (_mm512_add_epi64(a, b), self.add_product(_mm512_setzero_si512(), difference, w))
    }

    /// To `[0, q)` from below 2^52: the estimate is at most one below the quotient.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce(&self, x: __m512i) -> __m512i {
        let quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), x, self.estimate);
        self.once(_mm512_and_si512(_mm512_madd52lo_epu64(x, quotient, self.minus_q), self.mask))
    }

    /// To `[0, q)` from below 2q.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn once(&self, x: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.q))
    }

    /// `x w` in `[0, q)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn product(&self, x: __m512i, w: Factor) -> __m512i {
        self.once(_mm512_and_si512(self.add_product(_mm512_setzero_si512(), x, w), self.mask))
    }

    /// `2^power q`
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn multiple(&self, power: u32) -> __m512i {
        _mm512_sll_epi64(self.q, _mm_cvtsi64_si128(i64::from(power)))
    }
}

/// Vectors at places a fixed distance apart.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_apart<const V: usize>(x: &[u64], at: usize, apart: usize) -> [__m512i; V] {
    let mut lanes = [_mm512_setzero_si512(); V];
    for (i, lanes) in lanes.iter_mut().enumerate() {
        *lanes = load(x, at + i * apart);
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_apart<const V: usize>(x: &mut [u64], at: usize, apart: usize, lanes: [__m512i; V]) {
    for (i, &lanes) in lanes.iter().enumerate() {
        store(x, at + i * apart, lanes);
    }
}

/// Which of sixteen neighbouring residues lie in the lanes of two vectors: as stored, and so that butterflies four, two and one apart are
/// between the two, with their nodes in turn.
const STORED: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const FOUR_APART: [u8; 16] = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15];
const TWO_APART: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
const ONE_APART: [u8; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];

/// Where the lanes of one arrangement lie in another.
const fn route(from: [u8; 16], to: [u8; 16]) -> [u64; 16] {
    let mut route = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        let mut at = 0;
        while from[at] != to[lane] {
            at += 1;
        }
        route[lane] = at as u64;
        lane += 1;
    }
    route
}

static STORED_TO_FOUR: [u64; 16] = route(STORED, FOUR_APART);
static FOUR_TO_TWO: [u64; 16] = route(FOUR_APART, TWO_APART);
static TWO_TO_ONE: [u64; 16] = route(TWO_APART, ONE_APART);
static ONE_TO_STORED: [u64; 16] = route(ONE_APART, STORED);
static STORED_TO_ONE: [u64; 16] = route(STORED, ONE_APART);
static ONE_TO_TWO: [u64; 16] = route(ONE_APART, TWO_APART);
static TWO_TO_FOUR: [u64; 16] = route(TWO_APART, FOUR_APART);
static FOUR_TO_STORED: [u64; 16] = route(FOUR_APART, STORED);

/// Two vectors of neighbouring residues.
pub(super) type Pair = (__m512i, __m512i);

#[inline]
#[target_feature(enable = "avx512f")]
fn rearrange((a, b): Pair, route: &[u64; 16]) -> Pair {
    (_mm512_permutex2var_epi64(a, load(route, 0), b), _mm512_permutex2var_epi64(a, load(route, LANES), b))
}

/// The last three levels of sixteen neighbouring residues, of N `n`, and the reduction; `pair` counts the sixteens.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn split_pair(c: &Constants, table: &ShoupTable, n: usize, pair: usize, (a, b): Pair) -> Pair {
    let (a, b) = rearrange((a, b), &STORED_TO_FOUR);
    let (a, b) = rearrange(c.split(a, b, of_two(table, n / 8 + 2 * pair)), &FOUR_TO_TWO);
    let (a, b) = rearrange(c.split(a, b, of_four(table, n / 4 + 4 * pair)), &TWO_TO_ONE);
    let (a, b) = c.split(a, b, of_eight(table, n / 2 + 8 * pair));
    rearrange((c.reduce(a), c.reduce(b)), &ONE_TO_STORED)
}

/// The reverse, of residues in `[0, q)`: lanes below 8q.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn join_pair(c: &Constants, table: &ShoupTable, n: usize, pair: usize, (a, b): Pair) -> Pair {
    let (a, b) = rearrange((a, b), &STORED_TO_ONE);
    let (a, b) = rearrange(c.join(a, b, of_eight(table, n / 2 + 8 * pair), c.q), &ONE_TO_TWO);
    let (a, b) = rearrange(c.join(a, b, of_four(table, n / 4 + 4 * pair), c.q2), &TWO_TO_FOUR);
    rearrange(c.join(a, b, of_two(table, n / 8 + 2 * pair), c.multiple(2)), &FOUR_TO_STORED)
}
