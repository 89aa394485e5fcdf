//! Squares of ciphertexts of two components.

use super::super::{Zero, portable};
use super::{LANES, Modulus, Token, Wide, load, store};

entry!(square_into => square(m: &Modulus, c0: &[u64], c1: &[u64], out: [&mut [u64]; 3]));
entry!(square_rows_into => square_rows(m: &Modulus, columns: usize, x: &[u64], zero: Zero, out: &mut [u64]));

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn square(m: &Modulus, c0: &[u64], c1: &[u64], [o0, o1, o2]: [&mut [u64]; 3]) {
    let wide = Wide::new(m);
    let even = c0.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let [s0, s1, s2] = wide.squares(load(c0, i), load(c1, i));
        store(o0, i, wide.nonzero(s0));
        store(o1, i, wide.nonzero(s1));
        store(o2, i, wide.nonzero(s2));
    }
    portable::square_into(m, &c0[even..], &c1[even..], [&mut o0[even..], &mut o1[even..], &mut o2[even..]]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn square_rows(m: &Modulus, columns: usize, x: &[u64], zero: Zero, out: &mut [u64]) {
    if !columns.is_multiple_of(LANES) {
        return portable::square_rows_into(m, columns, x, zero, out);
    }
    match zero {
        Zero::Itself => square_whole_rows::<false>(m, columns, x, out),
        Zero::Modulus => square_whole_rows::<true>(m, columns, x, out),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn square_whole_rows<const NONZERO: bool>(m: &Modulus, columns: usize, x: &[u64], out: &mut [u64]) {
    let wide = Wide::new(m);
    for (x, out) in x.chunks_exact(2 * columns).zip(out.chunks_exact_mut(3 * columns)) {
        for i in (0..columns).step_by(LANES) {
            let squares = wide.squares(load(x, i), load(x, columns + i));
            // A loop: a closure given to `for_each` would be compiled without the features.
            for (c, square) in squares.into_iter().enumerate() {
                store(out, c * columns + i, if NONZERO { wide.nonzero(square) } else { square });
            }
        }
    }
}
