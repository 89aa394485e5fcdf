//! The ring's transform for primes below 2^45: no twist, and folding is part of its first pass.
//!
//! Folded, an element is a polynomial modulo `X^N - I` (see [`crate::ring::ntt`]), and the butterflies split that modulus as it is: node `i` of level `l`
//! stands for `X^(N / 2^l) - gamma^((4 brv_l(i) + 3) N / 2^l)`. Their factors lie in heap order, node `i` of level `l` at `2^l + i`, so a node's
//! descendants are found by shifts, and neighbouring nodes are neighbours; those of the last six levels, most of all, in one piece a node ([`Lowest`]).
//!
//! **Bounds.** Only the low 52 bits of a lane count until it is reduced: the multiplier sees no others, and sums are exact modulo 2^52. Forward, a level
//! moves what a lane stands for by less than 2q, up or down: lifted by 2q for every level as they are folded ([`lift`]), lanes never fall below zero, and from below 3q,
//! or (2 S + 3) q extended from S primes, they come to (4 log2(N) + 2 S + 3) q at most, 77q for 16 levels and 5 primes. Back, every pass is given
//! lanes below 8q, which its sums double level by level; those above 8q again at its end are reduced. So all stays below 128q, that is 2^52.

use super::super::{Extending, portable};
use super::extend::Lanes;
use super::{LANES, Modulus, ShoupFactor, ShoupTable, Token, Wide, load, reverse, store};
use core::arch::x86_64::{_mm512_add_epi64, _mm512_set1_epi64, _mm512_setzero_si512};
use lanes::{Constants, Lowest, Nodes, join_first, load_apart, same, split_last, store_apart};

mod lanes;

/// Bits of the largest prime.
const MOST_BITS: u32 = 45;
/// Three levels, then blocks of eight vectors.
const LEAST_DEGREE: usize = 512;

/// Constants of the transform for one prime.
#[derive(Clone, Debug)]
pub struct Transform {
    token: Token,
    modulus: Modulus,
    forward: Factors,
    inverse: Factors,
    /// `-I`
    fold: ShoupFactor,
    /// `I`
    unfold: ShoupFactor,
    /// `1 / 2N`
    scale: u64,
}

/// Of one direction.
#[derive(Clone, Debug)]
struct Factors {
    /// Of all levels but the last six, in heap order.
    upper: ShoupTable,
    /// Of the last six, a node of the first of them each.
    lowest: Vec<Lowest>,
}

impl Factors {
    fn new(m: &Modulus, degree: usize, node: impl Fn(usize) -> u64) -> Self {
        let all = ShoupTable::new(m, (0..degree).map(node));
        let first = degree / (8 * LANES);
        let lowest = (first..2 * first).map(|node| Lowest::new(&all, node)).collect();
        let upper = ShoupTable { values: all.values[..first].to_vec(), quotients: all.quotients[..first].to_vec() };
        Self { upper, lowest }
    }
}

impl Transform {
    /// Where the prime and the degree suit it. `gamma` is a primitive 4N-th root of unity.
    pub(in crate::ring::kernels) fn new(token: Token, m: &Modulus, degree: usize, gamma: u64) -> Option<Self> {
        if m.bits() > MOST_BITS || degree < LEAST_DEGREE {
            return None;
        }
        let mut powers = vec![1; 2 * degree + 1];
        for i in 1..powers.len() {
            powers[i] = m.mul(powers[i - 1], gamma);
        }
        // gamma^(2N) = -1
        let node = |at: usize, back: bool| -> u64 {
            let Some(level) = at.checked_ilog2() else { return 0 };
            let reversed = crate::ring::ntt::reversed_bits(at - (1 << level), 1 << level);
            let exponent = (4 * reversed + 3) * (degree >> (level + 1));
            if back { m.neg(powers[2 * degree - exponent]) } else { powers[exponent] }
        };
        let imaginary = m.neg(powers[degree]);
        Some(Self {
            token,
            modulus: *m,
            forward: Factors::new(m, degree, |at| node(at, false)),
            inverse: Factors::new(m, degree, |at| node(at, true)),
            fold: m.shoup(m.neg(imaginary)),
            unfold: m.shoup(imaginary),
            scale: m.inv(2 * degree as u64),
        })
    }

    /// Coefficients to NTT domain; residues in `[0, q)` before and after.
    pub fn forward_assign(&self, x: &mut [u64]) {
        forward_assign(self.token, self, x);
    }

    /// The same of a base extension's result.
    pub fn forward_extended_into(&self, from: &Extending<'_>, out: &mut [u64]) {
        forward_extended_into(self.token, self, from, out);
    }

    /// NTT domain to coefficients times `factor`; residues in `[0, q)` before and after.
    pub fn inverse_scaled_assign(&self, x: &mut [u64], factor: u64) {
        let scale = self.modulus.shoup(self.modulus.mul(self.scale, factor));
        inverse_assign(self.token, self, scale, x);
    }

    /// How many levels each pass between the first and the last has: of several cuts, those that were fastest.
    fn passes(degree: usize) -> &'static [u32] {
        match degree.ilog2() - LEAST_DEGREE.ilog2() {
            0 => &[],
            1 => &[1],
            2 => &[2],
            3 => &[3],
            4 => &[4],
            5 => &[3, 2],
            6 => &[3, 3],
            _ => &[4, 3],
        }
    }
}

entry!(forward_assign => forward(t: &Transform, x: &mut [u64]));
entry!(forward_extended_into => forward_extended(t: &Transform, from: &Extending<'_>, out: &mut [u64]));
entry!(inverse_assign => inverse(t: &Transform, scale: ShoupFactor, x: &mut [u64]));

/// Butterflies between registers with fixed numbers, each group with its node's factor.
macro_rules! split {
    ($c:ident, $x:ident, $w:expr, $($node:literal => $(($i:literal, $k:literal)),+);+) => {
        $(
            let w = $w.one($node);
            $(($x[$i], $x[$k]) = $c.split($x[$i], $x[$k], w);)+
        )+
    };
}

macro_rules! join {
    ($c:ident, $x:ident, $w:expr, $multiple:expr, $($node:literal => $(($i:literal, $k:literal)),+);+) => {
        let multiple = $multiple;
        $(
            let w = $w.one($node);
            $(($x[$i], $x[$k]) = $c.join($x[$i], $x[$k], w, multiple);)+
        )+
    };
}

/// All levels of as many vectors as are named, `w` being [`Nodes::below`] theirs; of twice eight, butterfly by butterfly in turn, since of eight too few are
/// independent of each other. (Macros, since vectors in arguments and results of functions that are
/// not inlined pass through memory.)
macro_rules! split_all {
    (2, $c:ident, $w:expr, $x:ident) => {
        split!($c, $x, $w, 0 => (0, 1));
    };
    (4, $c:ident, $w:expr, $x:ident) => {
        split!($c, $x, $w, 0 => (0, 2), (1, 3));
        split!($c, $x, $w, 1 => (0, 1); 2 => (2, 3));
    };
    (8, $c:ident, $w:expr, $x:ident) => {
        split!($c, $x, $w, 0 => (0, 4), (1, 5), (2, 6), (3, 7));
        split!($c, $x, $w, 1 => (0, 2), (1, 3); 2 => (4, 6), (5, 7));
        split!($c, $x, $w, 3 => (0, 1); 4 => (2, 3); 5 => (4, 5); 6 => (6, 7));
    };
    (8 8, $c:ident, $w:expr, $x:ident) => {
        split!($c, $x, $w, 0 => (0, 4), (8, 12), (1, 5), (9, 13), (2, 6), (10, 14), (3, 7), (11, 15));
        split!($c, $x, $w, 1 => (0, 2), (8, 10), (1, 3), (9, 11); 2 => (4, 6), (12, 14), (5, 7), (13, 15));
        split!($c, $x, $w,
            3 => (0, 1), (8, 9); 4 => (2, 3), (10, 11); 5 => (4, 5), (12, 13); 6 => (6, 7), (14, 15));
    };
    (16, $c:ident, $w:expr, $x:ident) => {
        split!($c, $x, $w, 0 => (0, 8), (1, 9), (2, 10), (3, 11), (4, 12), (5, 13), (6, 14), (7, 15));
        split!($c, $x, $w, 1 => (0, 4), (1, 5), (2, 6), (3, 7); 2 => (8, 12), (9, 13), (10, 14), (11, 15));
        split!($c, $x, $w,
            3 => (0, 2), (1, 3); 4 => (4, 6), (5, 7); 5 => (8, 10), (9, 11); 6 => (12, 14), (13, 15));
        split!($c, $x, $w,
            7 => (0, 1); 8 => (2, 3); 9 => (4, 5); 10 => (6, 7); 11 => (8, 9); 12 => (10, 11); 13 => (12, 13); 14 => (14, 15));
    };
}

/// The reverse, for lanes below 8q, to lanes below 8q.
macro_rules! join_all {
    (2, $c:ident, $w:expr, $x:ident) => {
        join!($c, $x, $w, $c.multiple(3), 0 => (0, 1));
        $x[0] = $c.reduce($x[0]);
    };
    (4, $c:ident, $w:expr, $x:ident) => {
        join!($c, $x, $w, $c.multiple(3), 1 => (0, 1); 2 => (2, 3));
        join!($c, $x, $w, $c.multiple(4), 0 => (0, 2), (1, 3));
        $x[0] = $c.reduce($x[0]);
    };
    (8, $c:ident, $w:expr, $x:ident) => {
        join!($c, $x, $w, $c.multiple(3), 3 => (0, 1); 4 => (2, 3); 5 => (4, 5); 6 => (6, 7));
        join!($c, $x, $w, $c.multiple(4), 1 => (0, 2), (1, 3); 2 => (4, 6), (5, 7));
        join!($c, $x, $w, $c.multiple(5), 0 => (0, 4), (1, 5), (2, 6), (3, 7));
        $x[0] = $c.reduce($x[0]);
    };
    (8 8, $c:ident, $w:expr, $x:ident) => {
        join!($c, $x, $w, $c.multiple(3),
            3 => (0, 1), (8, 9); 4 => (2, 3), (10, 11); 5 => (4, 5), (12, 13); 6 => (6, 7), (14, 15));
        join!($c, $x, $w, $c.multiple(4),
            1 => (0, 2), (8, 10), (1, 3), (9, 11); 2 => (4, 6), (12, 14), (5, 7), (13, 15));
        join!($c, $x, $w, $c.multiple(5), 0 => (0, 4), (8, 12), (1, 5), (9, 13), (2, 6), (10, 14), (3, 7), (11, 15));
        $x[0] = $c.reduce($x[0]);
        $x[8] = $c.reduce($x[8]);
    };
    (16, $c:ident, $w:expr, $x:ident) => {
        join!($c, $x, $w, $c.multiple(3),
            7 => (0, 1); 8 => (2, 3); 9 => (4, 5); 10 => (6, 7); 11 => (8, 9); 12 => (10, 11); 13 => (12, 13); 14 => (14, 15));
        join!($c, $x, $w, $c.multiple(4),
            3 => (0, 2), (1, 3); 4 => (4, 6), (5, 7); 5 => (8, 10), (9, 11); 6 => (12, 14), (13, 15));
        join!($c, $x, $w, $c.multiple(5),
            1 => (0, 4), (1, 5), (2, 6), (3, 7); 2 => (8, 12), (9, 13), (10, 14), (11, 15));
        join!($c, $x, $w, $c.multiple(6),
            0 => (0, 8), (1, 9), (2, 10), (3, 11), (4, 12), (5, 13), (6, 14), (7, 15));
        $x[0] = $c.reduce($x[0]);
        $x[1] = $c.reduce($x[1]);
    };
}

/// Declares a pass between the first and the last, forward or back: `nodes` nodes, so many vectors of each at a time.
macro_rules! pass {
    ($name:ident, $network:ident, $vectors:tt) => {
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn $name(c: &Constants, table: &ShoupTable, nodes: usize, x: &mut [u64]) {
            let block = x.len() / nodes;
            let apart = block / $vectors;
            for (i, x) in x.chunks_exact_mut(block).enumerate() {
                let w = Nodes::<{ $vectors - 1 }>::below(table, nodes + i);
                for column in (0..apart).step_by(LANES) {
                    let mut lanes = load_apart::<$vectors>(x, column, apart);
                    $network!($vectors, c, w, lanes);
                    store_apart(x, column, apart, lanes);
                }
            }
        }
    };
}

pass!(split_by_2, split_all, 2);
pass!(split_by_4, split_all, 4);
pass!(split_by_8, split_all, 8);
pass!(split_by_16, split_all, 16);
pass!(join_by_2, join_all, 2);
pass!(join_by_4, join_all, 4);
pass!(join_by_8, join_all, 8);
pass!(join_by_16, join_all, 16);

/// Every eighth of a polynomial from coefficient 0 on: those mirror each other. In the low 52 bits of each word.
fn column(x: &[u64]) -> [u64; 8] {
    std::array::from_fn(|i| x[i * x.len() / 8] & ((1 << 52) - 1))
}

fn set_column(x: &mut [u64], column: [u64; 8]) {
    let apart = x.len() / 8;
    column.into_iter().enumerate().for_each(|(i, word)| x[i * apart] = word);
}

/// Folds a [`column()`] and splits it thrice.
fn split_column(t: &Transform, x: [u64; 8]) -> [u64; 8] {
    let m = &t.modulus;
    let x = x.map(|word| m.reduce(word));
    let mut y = x;
    for i in 1..8 {
        y[i] = m.add(x[i], m.mul_shoup(x[8 - i], t.fold));
    }
    for (level, half) in [4, 2, 1].into_iter().enumerate() {
        for (i, block) in y.chunks_exact_mut(2 * half).enumerate() {
            let w = t.forward.upper.get((1 << level) + i);
            for k in 0..half {
                let (a, b) = (block[k], m.mul_shoup(block[k + half], w));
                (block[k], block[k + half]) = (m.add(a, b), m.sub(a, b));
            }
        }
    }
    y
}

/// The reverse, times a factor.
fn join_column(t: &Transform, scale: ShoupFactor, x: [u64; 8]) -> [u64; 8] {
    let m = &t.modulus;
    let mut y = x.map(|word| m.reduce(word));
    for (level, half) in [(2, 1), (1, 2), (0, 4)] {
        for (i, block) in y.chunks_exact_mut(2 * half).enumerate() {
            let w = t.inverse.upper.get((1 << level) + i);
            for k in 0..half {
                let (a, b) = (block[k], block[k + half]);
                (block[k], block[k + half]) = (m.add(a, b), m.mul_shoup(m.sub(a, b), w));
            }
        }
    }
    let mut x = [m.mul_shoup(m.add(y[0], y[0]), scale); 8];
    for i in 1..8 {
        x[i] = m.mul_shoup(m.add(y[i], m.mul_shoup(y[8 - i], t.unfold)), scale);
    }
    x
}

/// What folded lanes are lifted by.
fn lift(t: &Transform, degree: usize) -> u64 {
    2 * u64::from(degree.ilog2()) * t.modulus.value()
}

/// The eighths of a polynomial: of rows of one length, bounds are checked once.
fn eighths(x: &mut [u64]) -> [&mut [u64]; 8] {
    let mut eighths = x.chunks_exact_mut(x.len() / 8);
    std::array::from_fn(|_| eighths.next().unwrap_or_default())
}

/// Folds and splits thrice all but the first column. Columns `1 ..= N / 16` go with those that mirror them; column `N / 16` mirrors itself and is
/// computed twice.
#[target_feature(enable = "avx512f,avx512ifma")]
fn split_first(t: &Transform, c: &Constants, x: &mut [u64]) {
    let apart = x.len() / 8;
    let (fold, w) = (same(t.fold), Nodes::<7>::below(&t.forward.upper, 1));
    let lift = _mm512_set1_epi64(lift(t, x.len()) as i64);
    let rows = eighths(x);
    for column in (1..=apart / 2).step_by(LANES) {
        let mirror = apart - column - (LANES - 1);
        let mut both = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            let (a, b) = (load(rows[i], column), load(rows[7 - i], mirror));
            both[i] = c.add_product(_mm512_add_epi64(a, lift), reverse(b), fold);
            both[15 - i] = c.add_product(_mm512_add_epi64(b, lift), reverse(a), fold);
        }
        split_all!(8 8, c, w, both);
        for i in 0..8 {
            store(rows[i], column, both[i]);
            store(rows[i], mirror, both[8 + i]);
        }
    }
}

/// Joins thrice, unfolds and scales.
#[target_feature(enable = "avx512f,avx512ifma")]
fn join_last(t: &Transform, c: &Constants, scale: ShoupFactor, x: &mut [u64]) {
    let apart = x.len() / 8;
    let (unfold, scale, w) = (same(t.unfold), same(scale), Nodes::<7>::below(&t.inverse.upper, 1));
    let rows = eighths(x);
    for column in (1..=apart / 2).step_by(LANES) {
        let mirror = apart - column - (LANES - 1);
        let mut both = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            both[i] = load(rows[i], column);
            both[8 + i] = load(rows[i], mirror);
        }
        join_all!(8 8, c, w, both);
        for i in 0..8 {
            let (a, b) = (both[i], both[15 - i]);
            let (front, back) = (c.add_product(a, reverse(b), unfold), c.add_product(b, reverse(a), unfold));
            store(rows[i], column, c.product(front, scale));
            store(rows[7 - i], mirror, c.product(back, scale));
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn forward(t: &Transform, x: &mut [u64]) {
    let c = &Constants::new(&t.modulus);
    let first = split_column(t, column(x));
    split_first(t, c, x);
    let lift = lift(t, x.len());
    set_column(x, first.map(|word| word + lift));
    let mut nodes = 8;
    for &levels in Transform::passes(x.len()) {
        match levels {
            1 => split_by_2(c, &t.forward.upper, nodes, x),
            2 => split_by_4(c, &t.forward.upper, nodes, x),
            3 => split_by_8(c, &t.forward.upper, nodes, x),
            _ => split_by_16(c, &t.forward.upper, nodes, x),
        }
        nodes <<= levels;
    }
    split_last(c, &t.forward.lowest, x);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn forward_extended(t: &Transform, from: &Extending<'_>, out: &mut [u64]) {
    match *from.limbs {
        [a] => extend(t, [a], from, out),
        [a, b] => extend(t, [a, b], from, out),
        [a, b, c] => extend(t, [a, b, c], from, out),
        [a, b, c, d] => extend(t, [a, b, c, d], from, out),
        [a, b, c, d, e] => extend(t, [a, b, c, d, e], from, out),
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = portable::extended(&t.modulus, from, i);
            }
        }
    }
    forward(t, out);
}

/// In a pass of its own: limbs lie powers of two apart, so that the cache could not hold what the transform's first pass would read of them.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn extend<const S: usize>(t: &Transform, limbs: [&[u64]; S], from: &Extending<'_>, out: &mut [u64]) {
    let lanes = Lanes::new(Wide::new(&t.modulus), limbs, from);
    for i in (0..out.len()).step_by(LANES) {
        let extended = lanes.extended_above(i);
        store(out, i, extended);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse(t: &Transform, scale: ShoupFactor, x: &mut [u64]) {
    let c = &Constants::new(&t.modulus);
    join_first(c, &t.inverse.lowest, x);
    let mut nodes = x.len() / 64;
    for &levels in Transform::passes(x.len()).iter().rev() {
        nodes >>= levels;
        match levels {
            1 => join_by_2(c, &t.inverse.upper, nodes, x),
            2 => join_by_4(c, &t.inverse.upper, nodes, x),
            3 => join_by_8(c, &t.inverse.upper, nodes, x),
            _ => join_by_16(c, &t.inverse.upper, nodes, x),
        }
    }
    let first = join_column(t, scale, column(x));
    join_last(t, c, scale, x);
    set_column(x, first);
}
