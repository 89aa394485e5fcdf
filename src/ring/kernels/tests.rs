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

/// Primes near the edges of the widths used, and two of which an estimate of a quotient misses by two soonest: their `2^(bits + 50) / q` is cut off most.
fn edge_primes() -> Vec<Modulus> {
    let mut list = Vec::new();
    for bits in [34u32, 38, 40, 44, 45, 48, 49, 50] {
        for target in [(1u64 << (bits - 1)) + (1 << 17), (1 << bits) - (1 << 17)] {
            list.push(Modulus::new(primes::nearest(target, 1 << 13, &[]).unwrap()).unwrap());
        }
    }
    list.extend([562_949_936_939_009, 1_125_899_874_041_857].map(|q| Modulus::new(q).unwrap()));
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
                let (mut a, mut b, c) = (words.residues(q, len), words.residues(q, len), words.residues(q, len));
                // Products of remainder 1, 2, .. and q - 1, q - 2, ..: whose quotients an estimate misses first. And twice a product is one.
                for (i, (&x, y)) in a.iter().zip(&mut b).enumerate().filter(|(i, _)| i % 2 == 0) {
                    let remainder = if i % 4 == 0 { m.neg(1 + i as u64 / 4) } else { 1 + i as u64 / 8 };
                    *y = m.mul(m.inv(x), if i % 8 < 4 { remainder } else { m.mul(remainder, q.div_ceil(2)) });
                }
                // Factors may be q itself.
                (a[1], b[1], a[3], b[5]) = (q, q, q, q);
                for k in 0..3 {
                    (a[k + 5], b[k + 5]) = (q - 1, q - k as u64);
                }
                let mut out = vec![0; len];
                kernel.mul_into(&m, &a, &b, &mut out);
                let mut acc = c.clone();
                kernel.mul_add_assign(&m, &mut acc, &a, &b);
                let w = words.next() % q;
                let mut scaled = a.clone();
                kernel.scale_assign(&m, &mut scaled, m.shoup(w));
                let [mut s0, mut s1, mut s2] = [vec![0; len], vec![0; len], vec![0; len]];
                kernel.square_into(&m, &a, &b, [&mut s0, &mut s1, &mut s2]);
                let mut rows = vec![0; 3 * len];
                let squares = [&s0[..], &s1, &s2].concat();
                kernel.square_rows_into(&m, len, &[&a[..], &b].concat(), Zero::Modulus, &mut rows);
                assert_eq!(rows, squares, "{} rows", kernel.name());
                kernel.square_rows_into(&m, len, &[&a[..], &b].concat(), Zero::Itself, &mut rows);
                let below: Vec<u64> = squares.iter().map(|&r| r % q).collect();
                assert_eq!(rows, below, "{} rows below q", kernel.name());
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
            let q = m.value();
            let limit = u64::MAX / q * q;
            let mut drawn: Vec<u64> = (0..75).map(|_| words.next() % limit).collect();
            // At the edges of the quotient, in vectors and behind them.
            for at in [0, 8, 72] {
                drawn[at..at + 3].copy_from_slice(&[limit - 1, 0, q]);
            }
            for refused in [&[][..], &[5, 30], &[74]] {
                let mut x = drawn.clone();
                for &at in refused {
                    x[at] = if at == 5 { limit } else { u64::MAX };
                }
                x.iter_mut().for_each(|x| *x = x.to_le());
                assert_eq!(kernel.reduce_words_assign(&m, &mut x), !refused.is_empty(), "{}", kernel.name());
                for (at, (&found, word)) in x.iter().zip(&drawn).enumerate() {
                    let expected = if refused.contains(&at) { u64::MAX } else { word % q };
                    assert_eq!(found, expected, "{} {word} mod {q}", kernel.name());
                }
            }
        }
        for (high, first, len) in [(0, 0, 0), (7, 3, 1), (1 << 40 | 9, 8, 4), (u64::MAX, u64::MAX - 66, 66)] {
            let mut blocks = vec![[0xee; 16]; len];
            kernel.count_blocks_into(high, first, &mut blocks);
            for (i, &block) in blocks.iter().enumerate() {
                let expected = u128::from(high) << 64 | u128::from(first + i as u64);
                assert_eq!(u128::from_le_bytes(block), expected, "{} block {i}", kernel.name());
            }
        }
        for (columns, stride) in [(16, 16), (64, 100), (5, 7)] {
            let m = edge_primes()[0];
            let x: Vec<u64> = (0..3 * columns as u64).map(|i| if i % 3 == 0 { 0 } else { i }).collect();
            let mut out = vec![11; 3 * stride];
            kernel.nonzero_pieces_into(&m, &x, columns, stride, &mut out);
            for (k, out) in out.chunks_exact(stride).enumerate() {
                let piece = x[k * columns..][..columns].iter().map(|&r| if r == 0 { m.value() } else { r });
                let expected: Vec<u64> = piece.chain(std::iter::repeat_n(11, stride - columns)).collect();
                assert_eq!(out, expected, "{}: pieces of {columns}", kernel.name());
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
                let mut again = vec![0; packed.len()];
                kernel.pack_into(width, &out, &mut again);
                assert_eq!(again, packed, "{} width {width}", kernel.name());
            }
            // Pieces with something between them, which stays as it is.
            for (piece, stride, announced) in [(16, 16 * width, 0), (16, 16 * width + 5, 300), (7, 100, 70)] {
                let spaced: Vec<u8> = (0..5 * stride).map(|_| words.next() as u8).collect();
                let mut out = vec![0; 5 * piece];
                kernel.unpack_pieces_into(width, &spaced, stride, piece, announced, &mut out);
                let mut again = vec![0xee; spaced.len()];
                kernel.pack_pieces_into(width, &out, stride, piece, &mut again);
                for (k, out) in out.chunks_exact(piece).enumerate() {
                    let mut expected = vec![0; piece];
                    kernel.unpack_into(width, &spaced[k * stride..][..piece * width], &mut expected);
                    assert_eq!(out, expected, "{} width {width}", kernel.name());
                    let (bytes, between) = again[k * stride..][..stride].split_at(piece * width);
                    assert_eq!(bytes, &spaced[k * stride..][..piece * width], "{} width {width}", kernel.name());
                    assert!(between.iter().all(|&b| b == 0xee), "{} width {width}", kernel.name());
                }
            }
        }
    }
}

/// Errors, lifts and masks taken off, of every length around a vector's.
#[test]
fn what_fresh_ciphertexts_are_made_with_is_exact() {
    let mut words = Words(9);
    for kernel in Kernel::present() {
        for m in edge_primes() {
            let q = m.value();
            for len in [1, 7, 8, 67] {
                let (a, b, c) = (words.residues(q, len), words.residues(q, len), words.residues(q, len));
                let mut difference = a.clone();
                kernel.subtract_product_from_assign(&m, &mut difference, &b, &c);
                for (i, &found) in difference.iter().enumerate() {
                    let expected = (big(c[i]) - big(a[i]) * big(b[i])).rem_euclid(big(q));
                    assert_eq!(big(found), expected, "{} {} - {} {}", kernel.name(), c[i], a[i], b[i]);
                }
                let ends = [0, -1, q as i64, -(q as i64), i64::MAX, i64::MIN, -(1 << 62)];
                let signed: Vec<i64> = ends.into_iter().chain((0..).map(|_| words.next() as i64)).take(len).collect();
                let mut lifted = vec![0; len];
                kernel.lift_into(&m, &signed, &mut lifted);
                for (&x, &found) in signed.iter().zip(&lifted) {
                    assert_eq!(big(found), i128::from(x).rem_euclid(big(q)), "{} {x} mod {q}", kernel.name());
                }
            }
        }
        for len in [0, 1, 2, 7, 8, 9, 75] {
            let mut drawn: Vec<u64> = (0..len + 1).map(|_| words.next()).collect();
            let ends = [0, u64::MAX, (1 << 21) - 1, u64::MAX << 21];
            for (word, end) in drawn.iter_mut().zip(ends) {
                *word = end;
            }
            let bytes: Vec<u8> = drawn.iter().flat_map(|word| word.to_le_bytes()).collect();
            let before: Vec<i64> = (0..len).map(|_| words.next() as i64 >> 2).collect();
            let mut after = before.clone();
            kernel.add_binomials_assign(bytes.as_chunks().0, &mut after);
            for (i, (&before, &after)) in before.iter().zip(&after).enumerate() {
                let bits = |range: std::ops::Range<u32>| range.filter(|bit| drawn[i] >> bit & 1 == 1).count() as i64;
                assert_eq!(after - before, bits(0..21) - bits(21..42), "{} draw {i} of {len}", kernel.name());
            }
        }
    }
}

/// The definition, and on every tier the same bits.
#[test]
fn cosine_transforms_are_those_of_the_reference() {
    let mut words = Words(10);
    for n in [8, 16, 32, 64, 512, 8192] {
        let plan = CosinePlan::new(n);
        let rows: Vec<f64> = (0..4 * n).map(|_| (words.next() >> 11) as f64 / (1u64 << 51) as f64 - 2.0).collect();
        let mut scratch = vec![f64::NAN; plan.scratch_len()];
        let mut transformed = rows.clone();
        Kernel::portable().cosine_rows_assign(&plan, &mut transformed, &mut scratch);
        for (row, found) in rows.chunks_exact(n).zip(transformed.chunks_exact(n)) {
            for i in (0..n).step_by(n.div_ceil(64)) {
                let angle = std::f64::consts::PI * i as f64 / (2 * n) as f64;
                let sum: f64 = row.iter().enumerate().map(|(k, x)| x * (angle * (2 * k + 1) as f64).cos()).sum();
                assert!((sum - found[i]).abs() < 1e-9, "{i} of {n}: {} for {sum}", found[i]);
            }
        }
        for kernel in Kernel::present() {
            let mut again = rows.clone();
            kernel.cosine_rows_assign(&plan, &mut again, &mut scratch);
            let same = again.iter().zip(&transformed).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{} of {n}", kernel.name());
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

/// Sums of products for a key switch of few and of many digits, the largest there are among them.
#[test]
fn sums_of_products_are_exact() {
    let mut words = Words(7);
    for kernel in Kernel::present() {
        for m in edge_primes() {
            let q = m.value();
            let shapes =
                [(1, 67, false), (2, 64, false), (3, 64, false), (3, 16, true), (15, 16, true), (60, 24, true)];
            for (digits, len, largest) in shapes {
                let mut draw = || if largest { vec![q - 1; len] } else { words.residues(q, len) };
                let factors: Vec<Vec<u64>> = (0..digits).map(|_| draw()).collect();
                let keys: Vec<Vec<u64>> = (0..digits).map(|_| draw()).collect();
                let x = draw();
                let factor = m.shoup(x[1]);
                let (factors, keys) = (factors.concat(), keys.concat());
                // The second sum's keys are those of the first, each row moved on by one and the first word last.
                let moved: Vec<u64> = keys.iter().cycle().skip(1).take(keys.len()).copied().collect();
                let [rows, first, second] = [&factors, &keys, &moved].map(|words| Strided { words, stride: len });
                let before = [&x[..], &factors[..len]];
                for start in [None, Some((factor, before))] {
                    let sums = ProductSums { count: digits, factors: rows, keys: [first, second], start };
                    let expected = [&keys, &moved].map(|keys| {
                        let word = |i: usize| -> i128 {
                            (0..digits).map(|j| big(factors[j * len + i]) * big(keys[j * len + i])).sum()
                        };
                        (0..len).map(word).collect::<Vec<i128>>()
                    });
                    let begun = |c: usize, i: usize| start.map_or(0, |(w, before)| big(before[c][i]) * big(w.value));
                    let mut out = [vec![0; len], vec![0; len]];
                    let [a, b] = &mut out;
                    kernel.sum_products_into(&m, &sums, [a, b]);
                    let what = format!("{}, {digits} digits mod {q}", kernel.name());
                    let subtracted = [x.clone(), vec![q - 1; len]];
                    let mut divided = subtracted.clone();
                    let [a, b] = &mut divided;
                    kernel.subtract_from_products_assign(&m, &sums, factor, [a, b]);
                    for (c, i) in (0..2).flat_map(|c| (0..len).map(move |i| (c, i))) {
                        let sum = (expected[c][i] + begun(c, i)) % big(q);
                        assert_eq!(big(out[c][i]), sum, "{what}");
                        let scaled = (sum - big(subtracted[c][i])) * big(factor.value);
                        assert_eq!(big(divided[c][i]), scaled.rem_euclid(big(q)), "{what}, divided");
                    }
                }
            }
        }
    }
}

/// A base extension with its twist is the extension, residue by residue, and then the twist.
#[test]
fn twisted_extensions_equal_their_definition() {
    let mut words = Words(8);
    let list = edge_primes();
    for kernel in Kernel::present() {
        for (sources, m) in list.iter().enumerate().map(|(i, m)| (1 + i % 4, m)) {
            let (q, n) = (m.value(), 64);
            let from: Vec<Modulus> = list.iter().copied().filter(|p| p != m).take(sources).collect();
            let limbs: Vec<Vec<u64>> = from.iter().map(|p| words.residues(p.value(), n)).collect();
            let reciprocals: Vec<f64> = from.iter().map(|p| 1.0 / p.value() as f64).collect();
            let mut cofactors: Vec<ShoupFactor> = words.residues(q, sources).into_iter().map(|w| m.shoup(w)).collect();
            let mut prepared = limbs.concat();
            if sources == 1 {
                cofactors[0] = m.shoup(1);
            } else {
                kernel.mark_quotients_assign(&reciprocals, &mut prepared);
            }
            let views: Vec<&[u64]> = prepared.chunks_exact(n).collect();
            let target = ExtensionTarget { cofactors, overshoot: std::array::from_fn(|_| words.next() % q) };
            let (w, t) = (m.shoup(words.next() % q), ShoupTable::new(m, words.residues(q, n).into_iter()));
            let mut expected: Vec<u64> = (0..n)
                .map(|i| {
                    let v = limbs.iter().zip(&reciprocals).fold(0.0, |sum, (limb, r)| sum + limb[i] as f64 * r) + 0.5;
                    let sum: i128 =
                        limbs.iter().zip(&target.cofactors).map(|(limb, w)| big(limb[i]) * big(w.value)).sum();
                    ((sum + big(target.overshoot[v as usize])) % big(q)) as u64
                })
                .collect();
            Kernel::portable().fold_twist_assign(m, &mut expected, w, &t);
            let mut out = vec![0; n];
            let rounded_up_from = from[0].value().div_ceil(2);
            let extending = Extending { limbs: &views, rounded_up_from, target: &target };
            kernel.extend_twist_into(m, &extending, w, &t, &mut out);
            assert_eq!(out, expected, "{} from {sources} primes mod {q}", kernel.name());
        }
    }
}

/// What the weights and residues of a block product are drawn from.
#[derive(Clone, Copy, PartialEq)]
enum Draw {
    /// The lowest weight times the residue with the largest bytes, everywhere: the largest sums there are.
    Largest,
    /// Ends of the ranges.
    Ends,
    Any,
}

/// Every tier present, AMX emulated where the CPU lacks it, and AVX2 with products of words by one instruction and by two.
fn block_tiers() -> impl Iterator<Item = Kernel> {
    Kernel::present().into_iter().chain(Kernel::emulated_amx()).chain(Kernel::other_avx2())
}

/// Checks one block on every tier against exact arithmetic.
fn check_block(words: &mut Words, m: &Modulus, shape: (usize, usize, usize), bits: u32, draw: Draw) {
    let q = m.value();
    let (rows, columns, row_words) = shape;
    let lowest = if bits == 8 { -128 } else { -(1i32 << (bits - 1)) + 1 };
    let highest = (1i32 << (bits - 1)) - 1;
    let largest_bytes = (1u64 << (m.bits() - 1)) - 1;
    let mut pick = |ends: &[i64], low: i64, high: i64| match draw {
        Draw::Largest => ends[0],
        Draw::Ends => ends[words.next() as usize % ends.len()],
        Draw::Any => low + (words.next() % (high - low + 1) as u64) as i64,
    };
    let (low, high) = (i64::from(lowest), i64::from(highest));
    let weights: Vec<i16> = (0..rows * columns).map(|_| pick(&[low, high, 0], low, high) as i16).collect();
    let ends = [largest_bytes as i64, 1, q as i64, q as i64 - 1];
    let x: Vec<u64> = (0..(columns + 3) * row_words).map(|_| pick(&ends, 1, q as i64) as u64).collect();
    let column_rows: Vec<u32> = (0..columns as u32).map(|k| (k * 7 + 3) % (columns as u32 + 3)).collect();
    let out_rows: Vec<u32> = (0..rows as u32).rev().collect();
    let start = words.residues(q, rows * row_words);
    let mut expected = start.clone();
    for (r, weights) in weights.chunks_exact(columns).enumerate() {
        for v in 0..row_words {
            let at = out_rows[r] as usize * row_words + v;
            let products = weights.iter().zip(&column_rows);
            let sum: i128 = products.map(|(&w, &c)| i128::from(w) * big(x[c as usize * row_words + v])).sum();
            expected[at] = (big(start[at]) + sum).rem_euclid(big(q)) as u64;
        }
    }
    // The same products added to a constant of each row in its first words.
    let constants = words.residues(q, rows);
    let constant_columns = row_words / 3 / 8 * 8;
    let constant_at = |at: usize| if at % row_words < constant_columns { constants[at / row_words] } else { 0 };
    let on_constants: Vec<u64> = (0..expected.len())
        .map(|at| ((big(expected[at]) - big(start[at]) + big(constant_at(at))).rem_euclid(big(q))) as u64)
        .collect();
    let mut scratch = BlockScratch::default();
    for kernel in block_tiers() {
        let block = PackedBlock::new(kernel, rows, columns, &weights);
        let mut check = |start_with, expected: &[u64]| {
            let operands =
                BlockOperands { x: &x, columns: &column_rows, rows: &out_rows, row_words, start: start_with };
            let mut out = start.clone();
            block.mul_add_into(m, &operands, &mut scratch, &mut out);
            assert!(out == expected, "{} {shape:?} {bits} bits mod {q} {start_with:?}", kernel.name());
        };
        check(Start::Held, &expected);
        check(Start::Constants { values: &constants, columns: constant_columns }, &on_constants);
    }
}

/// Extreme weights and residues, group sizes and column counts around every step of every tier, one to three digits.
#[test]
fn block_products_are_exact() {
    let mut words = Words(3);
    for m in edge_primes() {
        for (rows, columns, row_words, bits) in [
            (1, 1, 40, 8),
            (5, 25, 40, 8),
            (8, 64, 40, 8),
            (13, 100, 40, 8),
            (16, 128, 16, 8),
            (24, 65, 48, 8),
            (33, 127, 56, 8),
            (47, 70, 24, 8),
            (3, 2100, 40, 8),
            (2, 4200, 40, 8),
            (9, 40, 40, 16),
            (21, 90, 40, 16),
            (4, 300, 40, 12),
            (17, 100, 72, 12),
            (24, 216, 48, 9),
            (13, 577, 24, 9),
            (5, 1100, 16, 9),
            // Rows of 65 535 leave planes of words 15 bits, rows of 65 790 only 14.
            (7, 257, 40, 9),
            (7, 258, 40, 9),
            (14, 131, 40, 10),
        ] {
            for draw in [Draw::Largest, Draw::Ends, Draw::Any] {
                check_block(&mut words, &m, (rows, columns, row_words), bits, draw);
            }
        }
    }
}

#[test]
fn magnitudes_are_of_all_rows() {
    let weights = [1, -2, 3, -32_768, 5, 0, 4, 4, 4];
    assert_eq!(Magnitudes::new(3, &weights), Magnitudes { largest: 32_768, largest_row: 32_773 });
    assert_eq!(Magnitudes::new(3, &weights[..3]), Magnitudes { largest: 3, largest_row: 6 });
    assert_eq!(Magnitudes::new(0, &[]), Magnitudes::default());
}

/// The most columns that 32-bit sums of bytes hold, and one more.
#[test]
fn block_products_of_most_columns_are_exact() {
    let mut words = Words(4);
    for m in edge_primes() {
        for columns in [65_793, 65_794] {
            check_block(&mut words, &m, (13, columns, 8), 8, Draw::Largest);
        }
    }
}

/// One group of rows of every size, and two.
#[test]
fn groups_of_every_size_are_exact() {
    let mut words = Words(6);
    let m = edge_primes()[0];
    for rows in 1..=33 {
        check_block(&mut words, &m, (rows, 260, 48), 8, Draw::Any);
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
