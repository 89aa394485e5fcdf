//! AVX-512 with 52-bit fused multiply-add: eight residues at a time.
//!
//! Of a product of two residues (q below 2^50), `vpmadd52lo` keeps the low 52 bits; `vpmadd52hi` of shifted operands gives what the reference's Barrett
//! step begins with. Products with weights (|w| q below 2^52) need the low half only.

use super::{BlockOperands, Modulus, ShoupFactor, ShoupTable, portable, prefetch};
use core::arch::x86_64::*;

pub(super) const LANES: usize = 8;
/// Bits of the largest primes of which the quotient of a doubled product is estimated one too low at most.
const TIGHT_BITS: u32 = 48;
/// Bytes by which reading is announced before it happens.
const BYTES_AHEAD: usize = 2048;

/// Exists only on a CPU with AVX-512 F, DQ, VL, BW, VBMI and IFMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(());

impl Token {
    pub fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512ifma");
        all.then_some(Self(()))
    }
}

/// Declares the safe entry `$name(Token, ...)` of the unsafe-to-call `$inner`.
macro_rules! entry {
    ($name:ident => $inner:ident ( $($arg:ident : $ty:ty),* )) => {
        pub(in crate::ring::kernels) fn $name(_: Token, $($arg: $ty),*) {
            // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
            unsafe { $inner($($arg),*) }
        }
    };
}

mod extend;
mod fresh;
mod squares;
mod transform;
mod words;

pub(super) use extend::{
    extend_twist_into, mark_quotients_assign, subtract_from_products_assign, subtract_from_scaled_assign,
    sum_products_into,
};
pub(super) use fresh::{add_binomials_assign, cosine_rows_assign, lift_into, subtract_product_from_assign};
pub(super) use squares::{square_into, square_rows_into};
pub use transform::Transform;
pub(super) use words::{multiplies_whole, words_mul_add};

entry!(mul_into => mul(m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]));
entry!(mul_add_assign => mul_add(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]));
entry!(scale_assign => scale(m: &Modulus, x: &mut [u64], w: ShoupFactor));
entry!(fold_twist_assign => fold_twist(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable));
entry!(untwist_unfold_assign => untwist_unfold(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable));
entry!(nonzero_assign => nonzero(m: &Modulus, x: &mut [u64]));
entry!(nonzero_pieces_into => nonzero_pieces(m: &Modulus, x: &[u64], columns: usize, stride: usize, out: &mut [u64]));
entry!(count_blocks_into => count_blocks(high: u64, first: u64, blocks: &mut [[u8; 16]]));

/// Broadcast constants of one modulus.
#[derive(Clone, Copy)]
pub(super) struct Wide {
    q: __m512i,
    q2: __m512i,
    /// `2^52 - q`
    minus_q: __m512i,
    /// Whether the estimate of a quotient can be two too low, of a doubled product at least.
    loose: bool,
    barrett: __m512i,
    mask: __m512i,
    /// By which a word is divided for the estimate.
    right: __m128i,
    /// By which a residue fills 52 bits.
    left: __m128i,
}

impl Wide {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn new(m: &Modulus) -> Self {
        let bits = i64::from(m.bits());
        Self {
            q: _mm512_set1_epi64(m.value() as i64),
            q2: _mm512_set1_epi64(2 * m.value() as i64),
            minus_q: _mm512_set1_epi64((1 << 52) - m.value() as i64),
            loose: m.bits() > TIGHT_BITS,
            barrett: _mm512_set1_epi64(m.barrett() as i64),
            mask: _mm512_set1_epi64((1 << 52) - 1),
            right: _mm_cvtsi64_si128(bits - 2),
            left: _mm_cvtsi64_si128(52 - bits),
        }
    }

    /// From `[0, 2q)` to `[0, q)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn fold(&self, x: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.q))
    }

    /// From `[0, 4q)` to `[0, q)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn fold_4q(&self, x: __m512i) -> __m512i {
        self.fold(_mm512_min_epu64(x, _mm512_sub_epi64(x, self.q2)))
    }

    /// `x - quotient * q` where the difference is known to lie in `[0, 2^52)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn remainder(&self, x: __m512i, quotient: __m512i) -> __m512i {
        _mm512_and_si512(_mm512_madd52lo_epu64(x, quotient, self.minus_q), self.mask)
    }

    /// Product of residues, given also as `a 2^(52 - bits)` and `4 b`, whose product's high half is `h = floor(a b / 2^(bits - 2))`.
    ///
    /// The estimate of the quotient lacks less than `1 + 2^(bits - 2) / q + h / 2^52`: of primes of up to [`TIGHT_BITS`] less than 2, even where `a b`
    /// is twice a product of residues, and of larger ones less than 3 where it is not.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn product(&self, (a, filled): (__m512i, __m512i), (b, fourfold): (__m512i, __m512i)) -> __m512i {
        let zero = _mm512_setzero_si512();
        let low = _mm512_madd52lo_epu64(zero, a, b);
        let high = _mm512_madd52hi_epu64(zero, filled, fourfold);
        let product = self.remainder(low, _mm512_madd52hi_epu64(zero, high, self.barrett));
        if self.loose { self.fold_4q(product) } else { self.fold(product) }
    }

    /// `x 2^(52 - bits)`
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn filled(&self, x: __m512i) -> __m512i {
        _mm512_sll_epi64(x, self.left)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn mul(&self, a: __m512i, b: __m512i) -> __m512i {
        self.product((a, self.filled(a)), (b, _mm512_slli_epi64::<2>(b)))
    }

    /// `(a^2, 2 a b, b^2)` of residues.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn squares(&self, a: __m512i, b: __m512i) -> [__m512i; 3] {
        let (filled_a, filled_b) = (self.filled(a), self.filled(b));
        let cross = if self.loose {
            let once = self.mul(a, b);
            self.add(once, once)
        } else {
            self.product((a, filled_a), (_mm512_add_epi64(b, b), _mm512_slli_epi64::<3>(b)))
        };
        let (fourfold_a, fourfold_b) = (_mm512_slli_epi64::<2>(a), _mm512_slli_epi64::<2>(b));
        [self.product((a, filled_a), (a, fourfold_a)), cross, self.product((b, filled_b), (b, fourfold_b))]
    }

    /// Any word modulo q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn reduce(&self, x: __m512i) -> __m512i {
        self.fold(self.reduce_to_2q(x))
    }

    /// The same, below 2q: of a word, `h` (see [`Self::product`]) is below 2^(66 - bits), and the quotient lacks less than 2 for every prime.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn reduce_to_2q(&self, x: __m512i) -> __m512i {
        let top = _mm512_srl_epi64(x, self.right);
        let quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), top, self.barrett);
        self.remainder(x, quotient)
    }

    /// Shoup product of words below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn mul_shoup(&self, x: __m512i, value: __m512i, quotient: __m512i) -> __m512i {
        self.fold(self.product_above(x, (value, quotient)))
    }

    /// The same, below 2q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn product_above(&self, x: __m512i, (value, quotient): (__m512i, __m512i)) -> __m512i {
        let zero = _mm512_setzero_si512();
        let estimate = _mm512_madd52hi_epu64(zero, x, quotient);
        self.remainder(_mm512_madd52lo_epu64(zero, x, value), estimate)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn add(&self, a: __m512i, b: __m512i) -> __m512i {
        self.fold(_mm512_add_epi64(a, b))
    }

    /// From `[0, q)` to `[1, q]`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn nonzero(&self, x: __m512i) -> __m512i {
        _mm512_mask_mov_epi64(x, _mm512_testn_epi64_mask(x, x), self.q)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(x: &[u64], at: usize) -> __m512i {
    let lanes: &[u64] = &x[at..at + LANES];
    // SAFETY: the slice holds eight words; the load has no alignment requirement.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(x: &mut [u64], at: usize, value: __m512i) {
    let lanes: &mut [u64] = &mut x[at..at + LANES];
    // SAFETY: the slice holds eight words; the store has no alignment requirement.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), value) }
}

/// What a block's products for word `v` of an output row are added to.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_start(operands: &BlockOperands<'_>, row: u32, v: usize, out: &[u64]) -> __m512i {
    match operands.constant(row, v) {
        None => load(out, row as usize * operands.row_words + v),
        Some(constant) => _mm512_set1_epi64(constant as i64),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn reverse(x: __m512i) -> __m512i {
    _mm512_permutexvar_epi64(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), x)
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn mul(m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
    let wide = Wide::new(m);
    let even = out.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        store(out, i, wide.mul(load(a, i), load(b, i)));
    }
    portable::mul_into(m, &a[even..], &b[even..], &mut out[even..]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn mul_add(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    let wide = Wide::new(m);
    let even = acc.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let sum = wide.add(load(acc, i), wide.mul(load(a, i), load(b, i)));
        store(acc, i, sum);
    }
    portable::mul_add_assign(m, &mut acc[even..], &a[even..], &b[even..]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn scale(m: &Modulus, x: &mut [u64], w: ShoupFactor) {
    let wide = Wide::new(m);
    let (value, quotient) = (_mm512_set1_epi64(w.value as i64), _mm512_set1_epi64(w.quotient as i64));
    let even = x.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let product = wide.mul_shoup(load(x, i), value, quotient);
        store(x, i, product);
    }
    portable::scale_assign(m, &mut x[even..], w);
}

#[target_feature(enable = "avx512f")]
fn count_blocks(high: u64, first: u64, blocks: &mut [[u8; 16]]) {
    /// Blocks of a vector.
    const TOGETHER: usize = 4;
    let (high_lanes, first_lanes) = (high as i64, first as i64);
    let counting = _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0);
    let mut next = _mm512_mask_set1_epi64(_mm512_set1_epi64(high_lanes), 0b0101_0101, first_lanes);
    next = _mm512_add_epi64(next, counting);
    let step = _mm512_maskz_set1_epi64(0b0101_0101, TOGETHER as i64);
    let mut runs = blocks.chunks_exact_mut(TOGETHER);
    let mut counted = first;
    for run in &mut runs {
        // SAFETY: four blocks are 64 bytes; the store has no alignment requirement.
        unsafe { _mm512_storeu_si512(run.as_mut_ptr().cast(), next) };
        next = _mm512_add_epi64(next, step);
        counted += TOGETHER as u64;
    }
    portable::count_blocks_into(high, counted, runs.into_remainder());
}

pub(super) fn reduce_words_assign(_: Token, m: &Modulus, x: &mut [u64]) -> bool {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { reduce_words(m, x) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn reduce_words(m: &Modulus, x: &mut [u64]) -> bool {
    let wide = Wide::new(m);
    let limit = _mm512_set1_epi64(m.word_limit() as i64);
    let mut refused: __mmask8 = 0;
    let mut runs = x.chunks_exact_mut(LANES);
    for run in &mut runs {
        let words = load(run, 0);
        let beyond = _mm512_cmpge_epu64_mask(words, limit);
        refused |= beyond;
        store(run, 0, _mm512_mask_set1_epi64(wide.reduce(words), beyond, -1));
    }
    let rest = portable::reduce_words_assign(m, runs.into_remainder());
    refused != 0 || rest
}

pub(super) fn unpack_into(_: Token, width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { unpack(width, packed, out) }
}

/// For each width, the byte of eight packed residues that goes to each byte of a vector of them.
static SPREAD: [[u8; 64]; 9] = tables(true);
/// For each width, the byte of a vector of eight residues that goes to each byte of them packed.
static GATHERED: [[u8; 64]; 9] = tables(false);

const fn tables(spread: bool) -> [[u8; 64]; 9] {
    let mut tables = [[0; 64]; 9];
    let mut width = 1;
    while width <= 8 {
        let mut residue = 0;
        while residue < LANES {
            let mut byte = 0;
            while byte < width {
                let (word, packed) = (residue * 8 + byte, residue * width + byte);
                if spread {
                    tables[width][word] = packed as u8;
                } else {
                    tables[width][packed] = word as u8;
                }
                byte += 1;
            }
            residue += 1;
        }
        width += 1;
    }
    tables
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_table(table: &[u8; 64]) -> __m512i {
    // SAFETY: the table is 64 bytes; the load has no alignment requirement.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}

/// How residues of one width are unpacked. Eight are `8 * width` bytes, at most one vector: a byte permutation spreads them to lanes.
#[derive(Clone, Copy)]
struct Unpacking {
    width: usize,
    spread: __m512i,
    /// The low `width` bytes of every word.
    kept: u64,
    /// The bytes of eight residues.
    present: u64,
}

impl Unpacking {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(width: usize) -> Self {
        let kept = 0x0101_0101_0101_0101 * (0xff >> (8 - width));
        Self { width, spread: load_table(&SPREAD[width]), kept, present: u64::MAX >> (64 - LANES * width) }
    }

    /// The largest of each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn run(&self, packed: &[u8], out: &mut [u64]) -> __m512i {
        let group = LANES * self.width;
        let mut largest = _mm512_setzero_si512();
        let mut rest = packed;
        for out in out.chunks_exact_mut(LANES) {
            let (bytes, after) = rest.split_at(group);
            // SAFETY: the mask selects the first `group` bytes, the length of `bytes`; masked-out bytes are not touched.
            let loaded = unsafe { _mm512_maskz_loadu_epi8(self.present, bytes.as_ptr().cast()) };
            let residues = _mm512_maskz_permutexvar_epi8(self.kept, self.spread, loaded);
            largest = _mm512_max_epu64(largest, residues);
            store(out, 0, residues);
            rest = after;
        }
        largest
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack(width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
    let largest = _mm512_reduce_max_epu64(Unpacking::new(width).run(packed, out));
    let even = out.len() / LANES * LANES;
    if even == out.len() {
        return largest;
    }
    largest.max(portable::unpack_into(width, &packed[even * width..], &mut out[even..]))
}

pub(super) fn unpack_pieces_into(
    _: Token,
    width: usize,
    packed: &[u8],
    stride: usize,
    piece: usize,
    announced: usize,
    out: &mut [u64],
) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { unpack_pieces(width, packed, stride, piece, announced, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_pieces(width: usize, packed: &[u8], stride: usize, piece: usize, announced: usize, out: &mut [u64]) {
    if !piece.is_multiple_of(LANES) {
        return portable::unpack_pieces_into(width, packed, stride, piece, announced, out);
    }
    let unpacking = Unpacking::new(width);
    let pieces_ahead = BYTES_AHEAD.div_ceil(announced.max(1));
    for (k, out) in out.chunks_exact_mut(piece).enumerate() {
        // Pieces lie too far apart for the processor to see where it goes.
        let ahead = (k + pieces_ahead) * stride;
        prefetch(packed.get(ahead..ahead + announced).unwrap_or_default());
        unpacking.run(&packed[k * stride..][..piece * width], out);
    }
}

pub(super) fn pack_pieces_into(
    _: Token,
    width: usize,
    residues: &[u64],
    stride: usize,
    piece: usize,
    packed: &mut [u8],
) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { pack_pieces(width, residues, stride, piece, packed) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn pack_pieces(width: usize, residues: &[u64], stride: usize, piece: usize, packed: &mut [u8]) {
    if !piece.is_multiple_of(LANES) {
        return portable::pack_pieces_into(width, residues, stride, piece, packed);
    }
    let packing = Packing::new(width);
    for (k, residues) in residues.chunks_exact(piece).enumerate() {
        packing.run(residues, &mut packed[k * stride..][..piece * width]);
    }
}

pub(super) fn pack_into(_: Token, width: usize, residues: &[u64], packed: &mut [u8]) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { pack(width, residues, packed) }
}

/// The reverse of [`Unpacking`].
#[derive(Clone, Copy)]
struct Packing {
    width: usize,
    gathered: __m512i,
}

impl Packing {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(width: usize) -> Self {
        Self { width, gathered: load_table(&GATHERED[width]) }
    }

    /// Whole vectors are stored where they fit: what is too much is overwritten by the next one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn run(&self, residues: &[u64], packed: &mut [u8]) {
        let group = LANES * self.width;
        let mut rest = packed;
        for residues in residues.chunks_exact(LANES) {
            let together = _mm512_permutexvar_epi8(self.gathered, load(residues, 0));
            if let Some(vector) = rest.get_mut(..64) {
                // SAFETY: the slice holds 64 bytes; the store has no alignment requirement.
                unsafe { _mm512_storeu_si512(vector.as_mut_ptr().cast(), together) }
            } else {
                // Words under a mask: stores under a mask of bytes take many cycles on some processors.
                let last: &mut [u8] = &mut rest[..group];
                // SAFETY: the mask selects the first `width` words, the length of `last`; masked-out words are not touched.
                unsafe { _mm512_mask_storeu_epi64(last.as_mut_ptr().cast(), 0xff >> (8 - self.width), together) }
            }
            rest = &mut rest[group..];
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn pack(width: usize, residues: &[u64], packed: &mut [u8]) {
    let even = residues.len() / LANES * LANES;
    Packing::new(width).run(&residues[..even], packed);
    if even < residues.len() {
        portable::pack_into(width, &residues[even..], &mut packed[even * width..]);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn fold_twist(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let wide = Wide::new(m);
    let (value, quotient) = (_mm512_set1_epi64(w.value as i64), _mm512_set1_epi64(w.quotient as i64));
    let n = x.len();
    x[0] = m.mul_shoup(x[0], t.get(0));
    let mut j = 1;
    while j + LANES <= n / 2 {
        let mirror = n - j - (LANES - 1);
        let (front, back) = (load(x, j), reverse(load(x, mirror)));
        let new_front = _mm512_add_epi64(front, wide.mul_shoup(back, value, quotient));
        let new_back = reverse(_mm512_add_epi64(back, wide.mul_shoup(front, value, quotient)));
        store(x, j, wide.mul_shoup(new_front, load(&t.values, j), load(&t.quotients, j)));
        store(x, mirror, wide.mul_shoup(new_back, load(&t.values, mirror), load(&t.quotients, mirror)));
        j += LANES;
    }
    portable::fold_twist_range(m, x, w, t, j..n / 2 + 1);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn untwist_unfold(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
    let wide = Wide::new(m);
    let (value, quotient) = (_mm512_set1_epi64(w.value as i64), _mm512_set1_epi64(w.quotient as i64));
    let n = x.len();
    let y = m.mul_shoup(x[0], t.get(0));
    x[0] = m.add(y, y);
    let mut j = 1;
    while j + LANES <= n / 2 {
        let mirror = n - j - (LANES - 1);
        let front = wide.mul_shoup(load(x, j), load(&t.values, j), load(&t.quotients, j));
        let back = wide.mul_shoup(load(x, mirror), load(&t.values, mirror), load(&t.quotients, mirror));
        let back = reverse(back);
        store(x, j, wide.add(front, wide.mul_shoup(back, value, quotient)));
        store(x, mirror, reverse(wide.add(back, wide.mul_shoup(front, value, quotient))));
        j += LANES;
    }
    portable::untwist_unfold_range(m, x, w, t, j..n / 2 + 1);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn nonzero(m: &Modulus, x: &mut [u64]) {
    let wide = Wide::new(m);
    let even = x.len() / LANES * LANES;
    for i in (0..even).step_by(LANES) {
        let written = wide.nonzero(load(x, i));
        store(x, i, written);
    }
    portable::nonzero_assign(m, &mut x[even..]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn nonzero_pieces(m: &Modulus, x: &[u64], columns: usize, stride: usize, out: &mut [u64]) {
    if !columns.is_multiple_of(LANES) {
        return portable::nonzero_pieces_into(m, x, columns, stride, out);
    }
    let wide = Wide::new(m);
    for (k, piece) in x.chunks_exact(columns).enumerate() {
        let out = &mut out[k * stride..][..columns];
        for (x, out) in piece.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES)) {
            store(out, 0, wide.nonzero(load(x, 0)));
        }
    }
}
