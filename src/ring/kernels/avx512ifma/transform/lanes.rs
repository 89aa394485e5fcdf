//! Vectors of the transform: arithmetic in their low 52 bits, factors, and the last six levels.

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

/// Factors of V nodes, side by side. Numbers of nodes that are known when compiling are not held against the bounds when running.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Nodes<const V: usize> {
    values: [u64; V],
    quotients: [u64; V],
}

impl<const V: usize> Nodes<V> {
    /// Those below node `top` level by level, itself first: as many whole levels as there is room for.
    #[inline]
    pub(super) fn below(table: &ShoupTable, top: usize) -> Self {
        let mut nodes = Self { values: [0; V], quotients: [0; V] };
        let mut count = 1;
        while 2 * count - 1 <= V {
            let (of, at) = (top * count..top * count + count, count - 1..2 * count - 1);
            nodes.values[at.clone()].copy_from_slice(&table.values[of.clone()]);
            nodes.quotients[at].copy_from_slice(&table.quotients[of]);
            count *= 2;
        }
        nodes
    }

    /// Those of butterflies of neighbouring lanes, pair of vectors by pair, in the order that they have then.
    fn of_lanes(table: &ShoupTable, first: usize) -> Self {
        let place = |i: usize| first + i / LANES * LANES + STORED_TO_ONE[i % LANES] as usize / 2;
        let part = |words: &[u64]| std::array::from_fn(|i| words[place(i)]);
        Self { values: part(&table.values), quotients: part(&table.quotients) }
    }

    /// Neighbours from one on.
    fn from(table: &ShoupTable, first: usize) -> Self {
        let part = |words: &[u64]| std::array::from_fn(|i| words[first + i]);
        Self { values: part(&table.values), quotients: part(&table.quotients) }
    }

    /// Factor of one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn one(&self, node: usize) -> Factor {
        same(ShoupFactor { value: self.values[node], quotient: self.quotients[node] })
    }

    /// Factors of two neighbours, the second in the quarters named.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn two<const SECOND: i32>(&self, node: usize) -> Factor {
        let (values, quotients) = (&self.values[node..node + 2], &self.quotients[node..node + 2]);
        // SAFETY: the slices hold two words; the loads have no alignment requirement.
        let (value, quotient) =
            unsafe { (_mm_loadu_si128(values.as_ptr().cast()), _mm_loadu_si128(quotients.as_ptr().cast())) };
        Factor {
            value: one_of_two::<SECOND>(_mm512_broadcast_i64x2(value)),
            quotient: one_of_two::<SECOND>(_mm512_broadcast_i64x2(quotient)),
        }
    }

    /// Factors of four neighbours: the first, third, second and fourth in a quarter each.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn four(&self, node: usize) -> Factor {
        let (values, quotients) = (&self.values[node..node + 4], &self.quotients[node..node + 4]);
        // SAFETY: the slices hold four words; the loads have no alignment requirement.
        let (value, quotient) =
            unsafe { (_mm256_loadu_si256(values.as_ptr().cast()), _mm256_loadu_si256(quotients.as_ptr().cast())) };
        Factor {
            value: one_of_two::<SECOND_HALF>(_mm512_broadcast_i64x4(value)),
            quotient: one_of_two::<SECOND_HALF>(_mm512_broadcast_i64x4(quotient)),
        }
    }

    /// Factors of eight lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn eight(&self, node: usize) -> Factor {
        Factor { value: load(&self.values, node), quotient: load(&self.quotients, node) }
    }
}

/// All factors of the last six levels below one node, side by side: one stream instead of twelve.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Lowest {
    /// Of the first three levels, and room.
    pub(super) nodes: Nodes<8>,
    twos: Nodes<8>,
    fours: Nodes<16>,
    eights: Nodes<32>,
}

impl Lowest {
    pub(super) fn new(table: &ShoupTable, node: usize) -> Self {
        Self {
            nodes: Nodes::below(table, node),
            twos: Nodes::from(table, 8 * node),
            fours: Nodes::from(table, 16 * node),
            eights: Nodes::of_lanes(table, 32 * node),
        }
    }
}

/// Broadcast constants of the prime.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    q: __m512i,
    q2: __m512i,
    /// `2^52 - q`
    minus_q: __m512i,
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

    /// `(a + b w, a - b w)` for `a` of at least 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn split(&self, a: __m512i, b: __m512i, w: Factor) -> (__m512i, __m512i) {
        let sum = self.add_product(a, b, w);
        (sum, _mm512_sub_epi64(_mm512_add_epi64(a, a), sum))
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

// Butterflies of the last three levels are between lanes of one vector, so two vectors' lanes change places until they are between the two. Halves, quarters
// and every other lane of two vectors change places beside the multiplier's work; an arbitrary choice of lanes (`vpermt2q`) is made in its place on Zen 4, and only once.

/// Where the sixteen residues of two vectors lie when butterflies are of neighbours: vector and lane, each among those as stored.
static STORED_TO_ONE: [u64; 16] = [0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15];
static ONE_TO_STORED: [u64; 16] = {
    let mut back = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        back[STORED_TO_ONE[lane] as usize] = lane as u64;
        lane += 1;
    }
    back
};

/// The second half's quarters.
const SECOND_HALF: i32 = 0b1100;
/// Every other quarter.
const ODD_QUARTERS: i32 = 0b1010;

/// Of each quarter's two lanes the first one twice, or the second in the quarters named.
#[inline]
#[target_feature(enable = "avx512f")]
fn one_of_two<const SECOND: i32>(x: __m512i) -> __m512i {
    let x = _mm512_castsi512_pd(x);
    _mm512_castpd_si512(if SECOND == SECOND_HALF {
        _mm512_permute_pd::<0b11_11_00_00>(x)
    } else {
        _mm512_permute_pd::<0b11_00_11_00>(x)
    })
}

/// The first halves of both, and the second ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves((a, b): (__m512i, __m512i)) -> (__m512i, __m512i) {
    (_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b))
}

/// The even quarters of both, and the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters((a, b): (__m512i, __m512i)) -> (__m512i, __m512i) {
    (_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
}

/// The even lanes of both in turn, and the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes((a, b): (__m512i, __m512i)) -> (__m512i, __m512i) {
    (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
}

/// Two vectors rearranged.
#[inline]
#[target_feature(enable = "avx512f")]
fn rearrange((a, b): (__m512i, __m512i), route: &[u64; 16]) -> (__m512i, __m512i) {
    (_mm512_permutex2var_epi64(a, load(route, 0), b), _mm512_permutex2var_epi64(a, load(route, LANES), b))
}

/// Eight neighbouring vectors.
pub(super) type Block = [__m512i; 8];

/// Which vectors of a block go together at the first three of its six levels, and the node whose factor they take. After them, vector `2 k` goes with
/// `2 k + 1`.
const TOGETHER: [[(usize, usize, usize); 4]; 3] = [
    [(0, 4, 0), (1, 5, 0), (2, 6, 0), (3, 7, 0)],
    [(0, 2, 1), (1, 3, 1), (4, 6, 2), (5, 7, 2)],
    [(0, 1, 3), (2, 3, 4), (4, 5, 5), (6, 7, 6)],
];

/// Butterfly `k` of four at one of a block's first three levels.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn split_vectors(c: &Constants, w: &Lowest, level: usize, k: usize, x: &mut Block) {
    let (i, j, node) = TOGETHER[level][k];
    (x[i], x[j]) = c.split(x[i], x[j], w.nodes.one(node));
    if level == 2 {
        (x[i], x[j]) = halves((x[i], x[j]));
    }
}

/// Butterfly `k` of four at one of its last three levels, with the reduction after the last.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn split_lanes(c: &Constants, w: &Lowest, level: usize, k: usize, x: &mut Block) {
    let (a, b) = (x[2 * k], x[2 * k + 1]);
    (x[2 * k], x[2 * k + 1]) = match level {
        0 => quarters(c.split(a, b, w.twos.two::<SECOND_HALF>(2 * k))),
        1 => lanes(c.split(a, b, w.fours.four(4 * k))),
        _ => {
            let (a, b) = c.split(a, b, w.eights.eight(8 * k));
            rearrange((c.reduce(a), c.reduce(b)), &ONE_TO_STORED)
        }
    };
}

/// The reverse of [`split_lanes`], of residues in `[0, q)`; lanes are below 8q in the end. Level 2 comes first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn join_lanes(c: &Constants, w: &Lowest, level: usize, k: usize, x: &mut Block) {
    let (a, b) = (x[2 * k], x[2 * k + 1]);
    (x[2 * k], x[2 * k + 1]) = match level {
        2 => {
            let (a, b) = rearrange((a, b), &STORED_TO_ONE);
            lanes(c.join(a, b, w.eights.eight(8 * k), c.q))
        }
        1 => halves(c.join(a, b, w.fours.four(4 * k), c.q2)),
        _ => quarters(c.join(a, b, w.twos.two::<ODD_QUARTERS>(2 * k), c.multiple(2))),
    };
}

/// The reverse of [`split_vectors`], to lanes below 8q. Level 2 comes first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn join_vectors(c: &Constants, w: &Lowest, level: usize, k: usize, x: &mut Block) {
    let (i, j, node) = TOGETHER[level][k];
    (x[i], x[j]) = c.join(x[i], x[j], w.nodes.one(node), c.multiple(5 - level as u32));
    if level == 0 && i == 0 {
        x[0] = c.reduce(x[0]);
    }
}

/// Declares the six levels of all blocks of a polynomial: three in a first half, three in a second. The second half of a block goes on beside the first half
/// of the next, butterfly by butterfly: a butterfly waits longer for its products than four take. (Each is written out: loops would not all be unrolled, and
/// vectors with numbers unknown when compiling lie in memory.)
macro_rules! six_levels {
    ($(#[$doc:meta])* $name:ident, $first_half:ident, $second_half:ident, $($level:literal $k:literal),+) => {
        $(#[$doc])*
        #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
        pub(super) fn $name(c: &Constants, lowest: &[Lowest], x: &mut [u64]) {
            let mut blocks = lowest.iter().zip(x.chunks_exact_mut(8 * LANES));
            let Some((mut w_before, mut x_before)) = blocks.next() else { return };
            let mut before: Block = load_apart(x_before, 0, LANES);
            $($first_half(c, w_before, $level, $k, &mut before);)+
            for (w, x) in blocks {
                let mut block: Block = load_apart(x, 0, LANES);
                $(
                    $first_half(c, w, $level, $k, &mut block);
                    $second_half(c, w_before, $level, $k, &mut before);
                )+
                store_apart(x_before, 0, LANES, before);
                (w_before, x_before, before) = (w, x, block);
            }
            $($second_half(c, w_before, $level, $k, &mut before);)+
            store_apart(x_before, 0, LANES, before);
        }
    };
}

six_levels!(
    /// The last six levels, and the reduction.
    split_last,
    split_vectors,
    split_lanes,
    0 0, 0 1, 0 2, 0 3, 1 0, 1 1, 1 2, 1 3, 2 0, 2 1, 2 2, 2 3
);
six_levels!(
    /// The reverse: the first six levels back, of residues in `[0, q)`, to lanes below 8q.
    join_first,
    join_lanes,
    join_vectors,
    2 0, 2 1, 2 2, 2 3, 1 0, 1 1, 1 2, 1 3, 0 0, 0 1, 0 2, 0 3
);
