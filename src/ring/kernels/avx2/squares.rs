//! Squares of ciphertexts of two components, four residues at a time in double precision.

use super::super::{Zero, portable};
use super::{Modulus, Token};
use core::arch::x86_64::*;

const LANES: usize = 4;

pub(in crate::ring::kernels) fn square_rows_into(
    _: Token,
    m: &Modulus,
    columns: usize,
    x: &[u64],
    zero: Zero,
    out: &mut [u64],
) {
    if !columns.is_multiple_of(LANES) {
        return portable::square_rows_into(m, columns, x, zero, out);
    }
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callees enable.
    unsafe {
        match zero {
            Zero::Itself => square_whole_rows::<false>(m, columns, x, out),
            Zero::Modulus => square_whole_rows::<true>(m, columns, x, out),
        }
    }
}

/// Constants of one modulus.
///
/// Of a product of residues, `h` is the nearest double and `l = a b - h` exactly. The quotient's nearest integer is found from `h / q`, wrong by less than 0.4 for q below 2^50
/// (three roundings of a number below 2^50), so that `h - c q + l`, in which nothing is rounded, is between -q and q.
struct Doubles {
    q: __m256d,
    reciprocal: __m256d,
}

impl Doubles {
    /// `a b` in `[0, q)`, or in `[1, q]`, of integers from 0 to q.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn product<const NONZERO: bool>(&self, a: __m256d, b: __m256d) -> __m256d {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let high = _mm256_mul_pd(a, b);
        let low = _mm256_fmsub_pd(a, b, high);
        let quotient = _mm256_round_pd::<NEAREST>(_mm256_mul_pd(high, self.reciprocal));
        self.lifted::<NONZERO>(_mm256_add_pd(_mm256_fnmadd_pd(quotient, self.q, high), low))
    }

    /// From between -q and q.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn lifted<const NONZERO: bool>(&self, x: __m256d) -> __m256d {
        let zero = _mm256_setzero_pd();
        let below = if NONZERO { _mm256_cmp_pd::<_CMP_LE_OQ>(x, zero) } else { _mm256_cmp_pd::<_CMP_LT_OQ>(x, zero) };
        _mm256_add_pd(x, _mm256_and_pd(below, self.q))
    }
}

/// The bits of 2^52: added to an integer below, they are the double of both.
const TWO_TO_52: u64 = 0x4330_0000_0000_0000;

/// Four residues as doubles.
#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[u64], at: usize) -> __m256d {
    let words: &[u64] = &x[at..at + LANES];
    let magic = _mm256_set1_epi64x(TWO_TO_52 as i64);
    // SAFETY: the slice holds 32 bytes; the load has no alignment requirement.
    let words = _mm256_or_si256(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }, magic);
    _mm256_sub_pd(_mm256_castsi256_pd(words), _mm256_castsi256_pd(magic))
}

/// The reverse.
#[inline]
#[target_feature(enable = "avx2")]
fn store(x: &mut [u64], at: usize, residues: __m256d) {
    let words: &mut [u64] = &mut x[at..at + LANES];
    let magic = _mm256_castsi256_pd(_mm256_set1_epi64x(TWO_TO_52 as i64));
    let bits = _mm256_castpd_si256(_mm256_xor_pd(_mm256_add_pd(residues, magic), magic));
    // SAFETY: the slice holds 32 bytes; the store has no alignment requirement.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), bits) }
}

#[target_feature(enable = "avx2,fma")]
fn square_whole_rows<const NONZERO: bool>(m: &Modulus, columns: usize, x: &[u64], out: &mut [u64]) {
    let q = m.value() as f64;
    let doubles = Doubles { q: _mm256_set1_pd(q), reciprocal: _mm256_set1_pd(1.0 / q) };
    for (x, out) in x.chunks_exact(2 * columns).zip(out.chunks_exact_mut(3 * columns)) {
        for i in (0..columns).step_by(LANES) {
            let (a, b) = (load(x, i), load(x, columns + i));
            // From 0 to q, or from 1: twice that and q less is between -q and q, or q itself.
            let once = doubles.product::<NONZERO>(a, b);
            let twice = _mm256_sub_pd(_mm256_add_pd(once, once), doubles.q);
            store(out, i, doubles.product::<NONZERO>(a, a));
            store(out, columns + i, doubles.lifted::<NONZERO>(twice));
            store(out, 2 * columns + i, doubles.product::<NONZERO>(b, b));
        }
    }
}
