//! The reference: plain Rust, one residue at a time. Every other tier equals it word for word.
//!
//! Inlined, so that a wider tier can compile the same text with its own instructions.

use super::block::{BlockOperands, GROUP_ROWS, HALF_BITS, PackedWords, columns_per_reduction, weight};
pub(super) use super::cosine::cosine_rows_assign;
use super::{Extending, Modulus, ProductSums, ShoupFactor, ShoupTable, Strided, WORD_BITS, Zero};

#[inline(always)]
pub(super) fn mul_into(m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
        *o = m.mul(x, y);
    }
}

#[inline(always)]
pub(super) fn mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    for ((o, &x), &y) in acc.iter_mut().zip(a).zip(b) {
        *o = m.add(*o, m.mul(x, y));
    }
}

#[inline(always)]
pub(super) fn scale_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor) {
    for r in x {
        *r = m.mul_shoup(*r, w);
    }
}

#[inline(always)]
pub(super) fn reduce_words_assign(m: &Modulus, x: &mut [u64]) -> bool {
    let limit = m.word_limit();
    let mut refused = false;
    for x in x {
        let word = u64::from_le(*x);
        refused |= word >= limit;
        *x = if word < limit { m.reduce(word) } else { u64::MAX };
    }
    refused
}

#[inline(always)]
pub(super) fn count_blocks_into(high: u64, first: u64, blocks: &mut [[u8; 16]]) {
    for (block, low) in blocks.iter_mut().zip(first..) {
        *block = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn unpack_into(width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
    let mut largest = 0;
    for (o, bytes) in out.iter_mut().zip(packed.chunks_exact(width)) {
        let mut word = [0; 8];
        word[..width].copy_from_slice(bytes);
        *o = u64::from_le_bytes(word);
        largest = largest.max(*o);
    }
    largest
}

#[inline(always)]
pub(super) fn fold_twist_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let n = x.len();
    x[0] = m.mul_shoup(x[0], t.get(0));
    fold_twist_range(m, x, w, t, 1..n / 2 + 1);
}

/// Pairs (j, N - j) for j in the range, which lies in `1..=N/2`.
#[inline(always)]
pub(super) fn fold_twist_range(
    m: &Modulus,
    x: &mut [u64],
    w: ShoupFactor,
    t: &ShoupTable,
    range: core::ops::Range<usize>,
) {
    let n = x.len();
    for j in range {
        let (front, back) = (x[j], x[n - j]);
        x[j] = m.mul_shoup(front + m.mul_shoup(back, w), t.get(j));
        x[n - j] = m.mul_shoup(back + m.mul_shoup(front, w), t.get(n - j));
    }
}

#[inline(always)]
pub(super) fn untwist_unfold_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let n = x.len();
    let y = m.mul_shoup(x[0], t.get(0));
    x[0] = m.add(y, y);
    untwist_unfold_range(m, x, w, t, 1..n / 2 + 1);
}

/// Pairs (j, N - j) for j in the range, which lies in `1..=N/2`.
#[inline(always)]
pub(super) fn untwist_unfold_range(
    m: &Modulus,
    x: &mut [u64],
    w: ShoupFactor,
    t: &ShoupTable,
    range: core::ops::Range<usize>,
) {
    let n = x.len();
    for j in range {
        let front = m.mul_shoup(x[j], t.get(j));
        let back = m.mul_shoup(x[n - j], t.get(n - j));
        x[j] = m.add(front, m.mul_shoup(back, w));
        x[n - j] = m.add(back, m.mul_shoup(front, w));
    }
}

#[inline(always)]
pub(super) fn square_into(m: &Modulus, c0: &[u64], c1: &[u64], out: [&mut [u64]; 3]) {
    let [o0, o1, o2] = out;
    let nonzero = |r: u64| if r == 0 { m.value() } else { r };
    for i in 0..c0.len() {
        let cross = m.mul(c0[i], c1[i]);
        o0[i] = nonzero(m.mul(c0[i], c0[i]));
        o1[i] = nonzero(m.add(cross, cross));
        o2[i] = nonzero(m.mul(c1[i], c1[i]));
    }
}

#[inline(always)]
pub(super) fn square_rows_into(m: &Modulus, columns: usize, x: &[u64], zero: Zero, out: &mut [u64]) {
    for (x, out) in x.chunks_exact(2 * columns).zip(out.chunks_exact_mut(3 * columns)) {
        let (c0, c1) = x.split_at(columns);
        let (o0, rest) = out.split_at_mut(columns);
        let (o1, o2) = rest.split_at_mut(columns);
        square_into(m, c0, c1, [o0, o1, o2]);
    }
    if zero == Zero::Itself {
        out.iter_mut().for_each(|r| *r = if *r == m.value() { 0 } else { *r });
    }
}

#[inline(always)]
pub(super) fn nonzero_assign(m: &Modulus, x: &mut [u64]) {
    for r in x {
        *r = if *r == 0 { m.value() } else { *r };
    }
}

#[inline(always)]
pub(super) fn nonzero_pieces_into(m: &Modulus, x: &[u64], columns: usize, stride: usize, out: &mut [u64]) {
    for (k, piece) in x.chunks_exact(columns).enumerate() {
        let out = &mut out[k * stride..][..columns];
        out.copy_from_slice(piece);
        nonzero_assign(m, out);
    }
}

/// One residue of a base extension.
#[inline(always)]
pub(super) fn extended(m: &Modulus, from: &Extending<'_>, i: usize) -> u64 {
    let &Extending { limbs, rounded_up_from, target } = from;
    let first = limbs[0][i];
    let quotient = if limbs.len() == 1 { usize::from(first >= rounded_up_from) } else { (first >> WORD_BITS) as usize };
    limbs.iter().zip(&target.cofactors).fold(target.overshoot[quotient], |sum, (limb, &w)| {
        m.add(sum, m.mul_shoup(limb[i] & ((1 << WORD_BITS) - 1), w))
    })
}

#[inline(always)]
pub(super) fn mark_quotients_assign(reciprocals: &[f64], limbs: &mut [u64]) {
    mark_quotients_range(reciprocals, limbs, 0..limbs.len() / reciprocals.len());
}

#[inline(always)]
pub(super) fn mark_quotients_range(reciprocals: &[f64], limbs: &mut [u64], range: core::ops::Range<usize>) {
    let n = limbs.len() / reciprocals.len();
    for i in range {
        let sum = reciprocals.iter().enumerate().fold(0.0, |sum, (s, r)| sum + limbs[s * n + i] as f64 * r);
        limbs[i] |= ((sum + 0.5) as u64) << WORD_BITS;
    }
}

#[inline(always)]
pub(super) fn extend_twist_into(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]) {
    extend_twist_range(m, from, w, t, out, 0..out.len() / 2 + 1);
}

/// Coefficient 0 and pairs (j, N - j) for j in the range, which lies in `0..=N/2`.
#[inline(always)]
pub(super) fn extend_twist_range(
    m: &Modulus,
    from: &Extending<'_>,
    w: ShoupFactor,
    t: &ShoupTable,
    out: &mut [u64],
    range: core::ops::Range<usize>,
) {
    let n = out.len();
    for j in range {
        if j == 0 {
            out[0] = m.mul_shoup(extended(m, from, 0), t.get(0));
            continue;
        }
        let (front, back) = (extended(m, from, j), extended(m, from, n - j));
        out[j] = m.mul_shoup(front + m.mul_shoup(back, w), t.get(j));
        out[n - j] = m.mul_shoup(back + m.mul_shoup(front, w), t.get(n - j));
    }
}

#[inline(always)]
pub(super) fn sum_products_into(m: &Modulus, sums: &ProductSums<'_>, [first, second]: [&mut [u64]; 2]) {
    for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
        [*first, *second] = [0, 1].map(|c| product_sum(m, sums, c, i));
    }
}

#[inline(always)]
pub(super) fn subtract_from_products_assign(
    m: &Modulus,
    sums: &ProductSums<'_>,
    w: ShoupFactor,
    [first, second]: [&mut [u64]; 2],
) {
    for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
        for (c, x) in [first, second].into_iter().enumerate() {
            *x = m.mul_shoup(product_sum(m, sums, c, i) + m.value() - *x, w);
        }
    }
}

/// Word i of component c.
#[inline(always)]
pub(super) fn product_sum(m: &Modulus, sums: &ProductSums<'_>, c: usize, i: usize) -> u64 {
    let ProductSums { count, factors, keys, start } = *sums;
    // Products are below 2^100: thousands of them fit.
    let started = start.map_or(0, |(w, before)| u128::from(before[c][i]) * u128::from(w.value));
    let word = |rows: Strided<'_>, j: usize| u128::from(rows.words[j * rows.stride + i]);
    m.reduce_u128((0..count).fold(started, |sum, j| sum + word(factors, j) * word(keys[c], j)))
}

#[inline(always)]
pub(super) fn pack_into(width: usize, residues: &[u64], packed: &mut [u8]) {
    // Copies of a length that the compiler knows are no calls.
    match width {
        5 => pack::<5>(residues, packed),
        6 => pack::<6>(residues, packed),
        7 => pack::<7>(residues, packed),
        _ => {
            for (bytes, residue) in packed.chunks_exact_mut(width).zip(residues) {
                bytes.copy_from_slice(&residue.to_le_bytes()[..width]);
            }
        }
    }
}

#[inline(always)]
fn pack<const WIDTH: usize>(residues: &[u64], packed: &mut [u8]) {
    for (bytes, residue) in packed.chunks_exact_mut(WIDTH).zip(residues) {
        bytes.copy_from_slice(&residue.to_le_bytes()[..WIDTH]);
    }
}

#[inline(always)]
pub(super) fn unpack_pieces_into(
    width: usize,
    packed: &[u8],
    stride: usize,
    piece: usize,
    _announced: usize,
    out: &mut [u64],
) {
    for (k, out) in out.chunks_exact_mut(piece).enumerate() {
        unpack_into(width, &packed[k * stride..][..piece * width], out);
    }
}

#[inline(always)]
pub(super) fn pack_pieces_into(width: usize, residues: &[u64], stride: usize, piece: usize, packed: &mut [u8]) {
    for (k, residues) in residues.chunks_exact(piece).enumerate() {
        pack_into(width, residues, &mut packed[k * stride..][..piece * width]);
    }
}

#[inline(always)]
pub(super) fn subtract_from_scaled_assign(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor) {
    for (r, &minuend) in x.iter_mut().zip(from) {
        *r = m.mul_shoup(minuend + m.value() - *r, w);
    }
}

#[inline(always)]
pub(super) fn subtract_product_from_assign(m: &Modulus, x: &mut [u64], factors: &[u64], from: &[u64]) {
    for ((r, &factor), &minuend) in x.iter_mut().zip(factors).zip(from) {
        *r = m.sub(minuend, m.mul(*r, factor));
    }
}

#[inline(always)]
pub(super) fn lift_into(m: &Modulus, x: &[i64], out: &mut [u64]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = m.from_i64(x);
    }
}

/// Bits that count for a binomial draw, and as many against it.
pub(super) const DRAWN_HALF: u32 = 21;
/// Both.
pub(super) const DRAWN_BITS: u64 = (1 << (2 * DRAWN_HALF)) - 1;
/// Those against it.
pub(super) const DRAWN_AGAINST: u64 = DRAWN_BITS ^ ((1 << DRAWN_HALF) - 1);

/// Draws of centred binomials. A half less another is the count of both, the other's bits flipped, less a half's.
#[inline(always)]
pub(super) fn add_binomials_assign(blocks: &[[u8; 16]], x: &mut [i64]) {
    let (words, _) = blocks.as_flattened().as_chunks::<8>();
    for (x, &word) in x.iter_mut().zip(words) {
        let counted = (u64::from_le_bytes(word) ^ DRAWN_AGAINST) & DRAWN_BITS;
        *x += i64::from(counted.count_ones()) - i64::from(DRAWN_HALF);
    }
}

/// Products with weights: sums of a chunk of columns in a word each, then one reduction. Where whole residues leave room for too few columns,
/// their halves are summed apart.
#[inline(always)]
pub(super) fn words_mul_add(m: &Modulus, block: &PackedWords, operands: &BlockOperands<'_>, out: &mut [u64]) {
    let step = block.columns_per_reduction(m.bits());
    if multiplies_whole(block.largest_bits, m.bits()) {
        let reduce = |sums: &[i64; LANES], lane: usize| m.reduce(lift(m, sums[lane]));
        chunks_mul_add(m, block, operands, step, out, |sums, weight, x| *sums += weight * x as i64, reduce);
    } else {
        let half = (1 << HALF_BITS) - 1;
        let power = m.shoup(1 << HALF_BITS);
        let reduce = |sums: &[[i64; 2]; LANES], lane: usize| {
            let [low, high] = sums[lane].map(|sum| m.reduce(lift(m, sum)));
            m.add(low, m.mul_shoup(high, power))
        };
        let accumulate = |[low, high]: &mut [i64; 2], weight: i64, x: u64| {
            *low += weight * (x & half) as i64;
            *high += weight * (x >> HALF_BITS) as i64;
        };
        chunks_mul_add(m, block, operands, block.columns_per_reduction(HALF_BITS), out, accumulate, reduce);
    }
}

/// See [`super::Kernel::multiplies_whole`].
pub(super) fn multiplies_whole(weight_bits: u32, modulus_bits: u32) -> bool {
    /// With fewer columns to a reduction than this, halves are cheaper.
    const FEWEST_COLUMNS: usize = 16;
    columns_per_reduction(weight_bits, modulus_bits) >= FEWEST_COLUMNS
}

/// Residues of a row that are summed together.
const LANES: usize = 32;

/// A sum below 2^62 in magnitude as a positive word of the same residue.
pub(super) fn lift(m: &Modulus, sum: i64) -> u64 {
    (sum as u64).wrapping_add(m.positive_offset())
}

#[inline(always)]
fn chunks_mul_add<S: Copy + Default>(
    m: &Modulus,
    block: &PackedWords,
    operands: &BlockOperands<'_>,
    step: usize,
    out: &mut [u64],
    accumulate: impl Fn(&mut S, i64, u64),
    reduce: impl Fn(&[S; LANES], usize) -> u64,
) {
    let &BlockOperands { x, columns, rows, row_words, .. } = operands;
    for (r, &out_row) in rows.iter().enumerate() {
        let group = r / GROUP_ROWS;
        let group_rows = GROUP_ROWS.min(block.rows - group * GROUP_ROWS);
        let words = &block.words[group * GROUP_ROWS * block.columns..];
        for v in (0..row_words).step_by(LANES) {
            let lanes = LANES.min(row_words - v);
            let target = &mut out[out_row as usize * row_words + v..][..lanes];
            for chunk in (0..block.columns).step_by(step) {
                let mut sums = [S::default(); LANES];
                for k in chunk..block.columns.min(chunk + step) {
                    let weight = weight(words[k * group_rows + r % GROUP_ROWS]);
                    let inputs = &x[columns[k] as usize * row_words + v..][..lanes];
                    for (sum, &residue) in sums.iter_mut().zip(inputs) {
                        accumulate(sum, weight, residue);
                    }
                }
                for (lane, t) in target.iter_mut().enumerate() {
                    let before = if chunk == 0 { operands.constant(out_row, v + lane).unwrap_or(*t) } else { *t };
                    *t = m.add(before, reduce(&sums, lane));
                }
            }
        }
    }
}
