//! The reference: plain Rust, one residue at a time. Every other tier equals it word for word.

use super::block::{BlockOperands, GROUP_ROWS, PackedBlock, digit, positive_offset};
use super::{Modulus, ShoupFactor, ShoupTable};

pub(super) fn mul_into(m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
        *o = m.mul(x, y);
    }
}

pub(super) fn mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    for ((o, &x), &y) in acc.iter_mut().zip(a).zip(b) {
        *o = m.add(*o, m.mul(x, y));
    }
}

pub(super) fn scale_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor) {
    for r in x {
        *r = m.mul_shoup(*r, w);
    }
}

pub(super) fn reduce_pairs_into(m: &Modulus, words: &[u64], out: &mut [u64]) {
    for (o, pair) in out.iter_mut().zip(words.chunks_exact(2)) {
        *o = m.reduce_u128(u128::from(pair[1]) << 64 | u128::from(pair[0]));
    }
}

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

pub(super) fn fold_twist_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let n = x.len();
    x[0] = m.mul_shoup(x[0], t.get(0));
    fold_twist_range(m, x, w, t, 1..n / 2 + 1);
}

/// Pairs (j, N - j) for j in the range, which lies in `1..=N/2`.
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

pub(super) fn untwist_unfold_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let n = x.len();
    let y = m.mul_shoup(x[0], t.get(0));
    x[0] = m.add(y, y);
    untwist_unfold_range(m, x, w, t, 1..n / 2 + 1);
}

/// Pairs (j, N - j) for j in the range, which lies in `1..=N/2`.
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

/// Inlined so that a wider tier can compile the same text with its own instructions.
#[inline(always)]
pub(super) fn block_mul_add(m: &Modulus, block: &PackedBlock, operands: &BlockOperands<'_>, out: &mut [u64]) {
    const LANES: usize = 32;
    let &BlockOperands { x, columns, rows, row_words } = operands;
    let offset = positive_offset(m.value());
    for plane in &block.planes {
        let step = plane.columns_per_reduction(m.value());
        let power = m.shoup(1 << plane.shift);
        for (r, &out_row) in rows.iter().enumerate() {
            let group = r / GROUP_ROWS;
            let group_rows = GROUP_ROWS.min(block.rows - group * GROUP_ROWS);
            let words = &plane.words[group * GROUP_ROWS * block.columns..];
            let word = |k: usize| words[k * group_rows + r % GROUP_ROWS];
            for v in (0..row_words).step_by(LANES) {
                let lanes = LANES.min(row_words - v);
                let target = &mut out[out_row as usize * row_words + v..][..lanes];
                for chunk in (0..block.columns).step_by(step) {
                    let mut sums = [0i64; LANES];
                    for k in chunk..block.columns.min(chunk + step) {
                        let weight = digit(word(k));
                        let inputs = &x[columns[k] as usize * row_words + v..][..lanes];
                        for (sum, &residue) in sums.iter_mut().zip(inputs) {
                            *sum += weight * residue as i64;
                        }
                    }
                    for (t, &sum) in target.iter_mut().zip(&sums) {
                        let reduced = m.reduce((sum as u64).wrapping_add(offset));
                        *t = m.add(*t, m.mul_shoup(reduced, power));
                    }
                }
            }
        }
    }
}
