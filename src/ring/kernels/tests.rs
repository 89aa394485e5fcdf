//! One suite that every tier present must pass: equality with exact arithmetic, at the edges of every width.

use super::*;
use crate::ring::primes;

struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Residues with many zeros and many q - 1.
    fn residues(&mut self, q: u64, len: usize) -> Vec<u64> {
        (0..len)
            .map(|_| match self.next() % 8 {
                0 => 0,
                1 => q - 1,
                _ => self.next() % q,
            })
            .collect()
    }
}

/// Smallest and largest primes of each width used.
fn edge_primes() -> Vec<Modulus> {
    let mut list = Vec::new();
    for bits in [34u32, 38, 40, 44, 45, 48, 50] {
        for target in [(1u64 << (bits - 1)) + (1 << 17), (1 << bits) - (1 << 17)] {
            list.push(Modulus::new(primes::nearest(target, 1 << 13, &[]).unwrap()).unwrap());
        }
    }
    list
}

fn big(x: u64) -> i128 {
    i128::from(x)
}

#[test]
fn pointwise_operations_are_exact() {
    let mut words = Words(1);
    for kernel in Kernel::present() {
        for m in edge_primes() {
            let q = m.value();
            for len in [8, 64, 67] {
                let (a, b, c) = (words.residues(q, len), words.residues(q, len), words.residues(q, len));
                let mut out = vec![0; len];
                kernel.mul_into(&m, &a, &b, &mut out);
                let mut acc = c.clone();
                kernel.mul_add_assign(&m, &mut acc, &a, &b);
                let w = words.next() % q;
                let mut scaled = a.clone();
                kernel.scale_assign(&m, &mut scaled, m.shoup(w));
                let [mut s0, mut s1, mut s2] = [vec![0; len], vec![0; len], vec![0; len]];
                kernel.square_into(&m, &a, &b, [&mut s0, &mut s1, &mut s2]);
                for i in 0..len {
                    let (x, y) = (big(a[i]), big(b[i]));
                    assert_eq!(big(out[i]), x * y % big(q), "{} mul {x} {y} mod {q}", kernel.name());
                    assert_eq!(big(acc[i]), (x * y + big(c[i])) % big(q), "{} mul_add", kernel.name());
                    assert_eq!(big(scaled[i]), x * big(w) % big(q), "{} scale", kernel.name());
                    let nonzero = |r: i128| if r == 0 { big(q) } else { r };
                    assert_eq!(big(s0[i]), nonzero(x * x % big(q)), "{} c0^2", kernel.name());
                    assert_eq!(big(s1[i]), nonzero(2 * x * y % big(q)), "{} 2 c0 c1", kernel.name());
                    assert_eq!(big(s2[i]), nonzero(y * y % big(q)), "{} c1^2", kernel.name());
                }
            }
        }
    }
}

#[test]
fn wide_words_and_packed_bytes_are_read_exactly() {
    let mut words = Words(5);
    for kernel in Kernel::present() {
        for m in edge_primes() {
            let mut pairs: Vec<u64> = (0..2 * 75).map(|_| words.next()).collect();
            pairs[..8].copy_from_slice(&[u64::MAX, u64::MAX, 0, 0, u64::MAX, 0, 0, u64::MAX]);
            let mut out = vec![0; 75];
            kernel.reduce_pairs_into(&m, &pairs, &mut out);
            for (pair, &found) in pairs.chunks_exact(2).zip(&out) {
                let wide = u128::from(pair[1]) << 64 | u128::from(pair[0]);
                assert_eq!(u128::from(found), wide % u128::from(m.value()), "{} {wide}", kernel.name());
            }
        }
        for width in 1..=8 {
            for len in [1, 8, 64, 77] {
                let packed: Vec<u8> = (0..len * width).map(|_| words.next() as u8).collect();
                let mut out = vec![0; len];
                let largest = kernel.unpack_into(width, &packed, &mut out);
                for (i, &found) in out.iter().enumerate() {
                    let bytes = packed[i * width..][..width].iter().rev();
                    assert_eq!(found, bytes.fold(0, |x, &b| x << 8 | u64::from(b)), "{} width {width}", kernel.name());
                }
                assert_eq!(Some(&largest), out.iter().max(), "{} width {width}", kernel.name());
            }
        }
    }
}

#[test]
fn twists_equal_their_definition() {
    let mut words = Words(2);
    for kernel in Kernel::present() {
        for m in edge_primes() {
            let q = m.value();
            for n in [16, 64, 256] {
                let (x, t) = (words.residues(q, n), words.residues(q, n));
                let w = words.next() % q;
                let table = ShoupTable::new(&m, t.iter().copied());
                let mut folded = x.clone();
                kernel.fold_twist_assign(&m, &mut folded, m.shoup(w), &table);
                let mut unfolded = x.clone();
                kernel.untwist_unfold_assign(&m, &mut unfolded, m.shoup(w), &table);
                let y: Vec<u64> = x.iter().zip(&t).map(|(&a, &b)| m.mul(a, b)).collect();
                assert_eq!(folded[0], y[0]);
                assert_eq!(unfolded[0], m.add(y[0], y[0]));
                for j in 1..n {
                    assert_eq!(folded[j], m.mul(m.add(x[j], m.mul(w, x[n - j])), t[j]), "{} fold {j}", kernel.name());
                    assert_eq!(unfolded[j], m.add(y[j], m.mul(w, y[n - j])), "{} unfold {j}", kernel.name());
                }
            }
        }
    }
}

/// Extreme weights and residues, the largest K of a chunk and one more, every group size, both digit counts.
#[test]
fn block_products_are_exact() {
    let mut words = Words(3);
    for m in edge_primes() {
        let q = m.value();
        for (rows, columns, bits) in
            [(1, 1, 8), (5, 25, 8), (8, 64, 8), (13, 100, 8), (3, 2100, 8), (9, 40, 16), (2, 4200, 8), (4, 300, 12)]
        {
            let limit = (1i32 << (bits - 1)) - 1;
            for extreme in [true, false] {
                let weights: Vec<i16> = (0..rows * columns)
                    .map(|_| {
                        let any = (words.next() % (2 * limit as u64 + 1)) as i32 - limit;
                        let lowest = if bits == 8 { -128 } else { -limit };
                        (if extreme { [lowest, limit][any.unsigned_abs() as usize % 2] } else { any }) as i16
                    })
                    .collect();
                let row_words = 40;
                let x: Vec<u64> = (0..(columns + 3) * row_words)
                    .map(|_| if extreme { [1, q][words.next() as usize % 2] } else { words.next() % q + 1 })
                    .collect();
                let column_rows: Vec<u32> = (0..columns as u32).map(|k| (k * 7 + 3) % (columns as u32 + 3)).collect();
                let out_rows: Vec<u32> = (0..rows as u32).rev().collect();
                let start = words.residues(q, rows * row_words);
                let block = PackedBlock::new(rows, columns, &weights);
                let operands = BlockOperands { x: &x, columns: &column_rows, rows: &out_rows, row_words };
                for kernel in Kernel::present() {
                    let mut out = start.clone();
                    kernel.block_mul_add(&m, &block, &operands, &mut out);
                    for r in 0..rows {
                        for v in 0..row_words {
                            let at = out_rows[r] as usize * row_words + v;
                            let mut expected = big(start[at]);
                            for k in 0..columns {
                                let input = big(x[column_rows[k] as usize * row_words + v]);
                                expected += i128::from(weights[r * columns + k]) * input;
                            }
                            let expected = expected.rem_euclid(big(q)) as u64;
                            assert_eq!(out[at], expected, "{} {rows}x{columns} {bits} bits mod {q}", kernel.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn names_select_tiers() {
    for kernel in Kernel::present() {
        assert_eq!(Kernel::by_name(kernel.name()), Some(kernel));
    }
    assert_eq!(Kernel::by_name("abacus"), None);
    assert_eq!(Kernel::present()[0], Kernel::portable());
}
