//! The inner loops, one implementation per instruction set, all equal word for word.
//!
//! [`Kernel`] is a capability: a value naming a tier exists only where the CPU has its instructions, so the calls behind it
//! are safe. Detect once ([`Kernel::detect`]), pass the token down. This folder holds all per-instruction-set code and,
//! with the file mapping, all `unsafe` of the project.
//!
//! Residues are `u64` in `[0, q)` unless a function says otherwise. *Tile* operands of [`PackedBlock::mul_add_into`] are in
//! `[1, q]`: zero is written `q`, which lets a kernel keep negative weights as 52-bit two's complement.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512ifma;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod block;
#[cfg(target_arch = "x86_64")]
mod bytes;
mod cosine;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx512ifma::Transform;
pub use block::{BlockOperands, BlockScratch, BlockWork, Magnitudes, PackedBlock, Start};
pub use cosine::CosinePlan;

use super::modulus::{Modulus, ShoupFactor};

/// Constant factors for a whole polynomial, value and Shoup quotient in separate arrays.
#[derive(Clone, Debug, Default)]
pub struct ShoupTable {
    /// Factors below q.
    pub values: Vec<u64>,
    /// Their quotients, see [`ShoupFactor`].
    pub quotients: Vec<u64>,
}

impl ShoupTable {
    /// Prepares factors.
    #[must_use]
    pub fn new(m: &Modulus, factors: impl Iterator<Item = u64>) -> Self {
        let (values, quotients) = factors.map(|w| m.shoup(w)).map(|f| (f.value, f.quotient)).unzip();
        Self { values, quotients }
    }

    /// Factor `i`.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> ShoupFactor {
        ShoupFactor { value: self.values[i], quotient: self.quotients[i] }
    }
}

/// What one target prime of a base extension needs; see [`extend`](super::extend).
#[derive(Clone, Debug)]
pub struct ExtensionTarget {
    /// `B / b_i` modulo the target, one for each source prime.
    pub cofactors: Vec<ShoupFactor>,
    /// `-v B` modulo the target, for a quotient v of at most 15.
    pub overshoot: [u64; 16],
}

/// How zero is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Residues are in `[0, q)`.
    Itself,
    /// Residues are in `[1, q]`.
    Modulus,
}

/// Bits of a word that digits of a base extension are below, and that multipliers of 52 bits see.
const WORD_BITS: u32 = 52;

/// What a base extension reads: digits of a few source primes, and constants of them and of one target.
#[derive(Clone, Copy, Debug)]
pub struct Extending<'a> {
    /// Digits, below 2^52; if there are several limbs, the first one's quotients above that: [`Kernel::mark_quotients_assign`].
    pub limbs: &'a [&'a [u64]],
    /// The least digit of a single limb whose quotient is 1, not 0.
    pub rounded_up_from: u64,
    /// Constants of the target. From a single prime, which the target's is not, the cofactor is 1.
    pub target: &'a ExtensionTarget,
}

/// Words of several rows, each `stride` words after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// From the first word of the first row on.
    pub words: &'a [u64],
    /// At least as many as are read of a row.
    pub stride: usize,
}

/// What a key switch sums for both components modulo one prime: of word i, `sum_j factors[j][i] keys[c][j][i]`, and `before[c][i]` times a factor. Words are at
/// most q.
#[derive(Clone, Copy, Debug)]
pub struct ProductSums<'a> {
    /// Rows of factors and of either key.
    pub count: usize,
    /// The same for both components.
    pub factors: Strided<'a>,
    /// Of each component.
    pub keys: [Strided<'a>; 2],
    /// A factor, and what is multiplied by it for each component.
    pub start: Option<(ShoupFactor, [&'a [u64]; 2])>,
}

/// No tier here has one.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Debug)]
pub enum Transform {}

#[cfg(not(target_arch = "x86_64"))]
impl Transform {
    /// Never called.
    pub fn forward_assign(&self, _: &mut [u64]) {
        match *self {}
    }

    /// Never called.
    pub fn forward_extended_into(&self, _: &Extending<'_>, _: &mut [u64]) {
        match *self {}
    }

    /// Never called.
    pub fn inverse_scaled_assign(&self, _: &mut [u64], _: u64) {
        match *self {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Token),
    #[cfg(target_arch = "x86_64")]
    Avx512Ifma(avx512ifma::Token),
    /// Block products on bytes, all else as the tier before.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512ifma::Token, avx512vnni::Token),
    #[cfg(target_arch = "x86_64")]
    Amx(avx512ifma::Token, amx::Token),
}

/// A usable kernel tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Tier);

macro_rules! dispatch {
    ($self:ident, $name:ident ( $($arg:expr),* )) => {
        match $self.0 {
            Tier::Portable => portable::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(token) => avx2::$name(token, $($arg),*),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Ifma(token) | Tier::Avx512Vnni(token, _) | Tier::Amx(token, _) => {
                avx512ifma::$name(token, $($arg),*)
            }
        }
    };
}

impl Kernel {
    /// The fastest tier this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self::present().pop().unwrap_or(Self::portable())
    }

    /// Plain Rust, everywhere.
    #[must_use]
    pub fn portable() -> Self {
        Self(Tier::Portable)
    }

    /// All tiers this CPU has, slowest first.
    #[must_use]
    pub fn present() -> Vec<Self> {
        let mut tiers = Self::vector_tiers();
        tiers.insert(0, Self::portable());
        tiers
    }

    /// The AMX tier on emulated instructions, for tests: where the CPU has no AMX, but all else that the tier needs.
    #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn emulated_amx() -> Option<Self> {
        Some(Self(Tier::Amx(avx512ifma::Token::detect()?, amx::Token::emulated()?)))
    }

    #[cfg(all(test, not(all(target_os = "linux", target_arch = "x86_64"))))]
    pub(crate) fn emulated_amx() -> Option<Self> {
        None
    }

    /// The AVX2 tier with what other ways of multiplying words this CPU has, for tests.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn other_avx2() -> Vec<Self> {
        avx2::Token::others().into_iter().map(|token| Self(Tier::Avx2(token))).collect()
    }

    #[cfg(all(test, not(target_arch = "x86_64")))]
    pub(crate) fn other_avx2() -> Vec<Self> {
        Vec::new()
    }

    #[cfg(target_arch = "x86_64")]
    fn vector_tiers() -> Vec<Self> {
        let mut tiers: Vec<Self> = avx2::Token::detect().map(|token| Self(Tier::Avx2(token))).into_iter().collect();
        if let Some(wide) = avx512ifma::Token::detect() {
            tiers.push(Self(Tier::Avx512Ifma(wide)));
            tiers.extend(avx512vnni::Token::detect().map(|token| Self(Tier::Avx512Vnni(wide, token))));
            tiers.extend(amx::Token::detect().map(|token| Self(Tier::Amx(wide, token))));
        }
        tiers
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn vector_tiers() -> Vec<Self> {
        Vec::new()
    }

    /// The tier of that name, if this CPU has it.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::present().into_iter().find(|k| k.name() == name)
    }

    /// `portable`, `avx2`, `avx512ifma`, `avx512vnni` or `amx`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Tier::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Ifma(_) => "avx512ifma",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni(..) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Tier::Amx(..) => "amx",
        }
    }

    /// This tier's own transform, where it has one for such primes and degrees. `gamma` is a primitive 4N-th root of unity.
    #[must_use]
    pub fn transform(&self, m: &Modulus, degree: usize, gamma: u64) -> Option<Transform> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Ifma(token) | Tier::Avx512Vnni(token, _) | Tier::Amx(token, _) => {
                Transform::new(token, m, degree, gamma)
            }
            _ => {
                let _ = (m, degree, gamma);
                None
            }
        }
    }

    /// `out[i] = a[i] * b[i]`; operands may be `q` itself.
    pub fn mul_into(&self, m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]) {
        dispatch!(self, mul_into(m, a, b, out));
    }

    /// `acc[i] += a[i] * b[i]`.
    pub fn mul_add_assign(&self, m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
        dispatch!(self, mul_add_assign(m, acc, a, b));
    }

    /// `x[i] = x[i] * w`; `x` below 2^52.
    pub fn scale_assign(&self, m: &Modulus, x: &mut [u64], w: ShoupFactor) {
        dispatch!(self, scale_assign(m, x, w));
    }

    /// Each word, little-endian in memory, modulo q; `u64::MAX` where it is not below [`Modulus::word_limit`], and then the return value is true.
    #[must_use]
    pub fn reduce_words_assign(&self, m: &Modulus, x: &mut [u64]) -> bool {
        dispatch!(self, reduce_words_assign(m, x))
    }

    /// Block `i` is the little-endian integer `high 2^64 + first + i`; `first + i` below 2^64.
    pub fn count_blocks_into(&self, high: u64, first: u64, blocks: &mut [[u8; 16]]) {
        dispatch!(self, count_blocks_into(high, first, blocks));
    }

    /// `out[i]` is the little-endian integer of bytes `width i .. width (i + 1)`, for a width of 1 to 8 and `packed` of `width * out.len()`
    /// bytes; the return value is the largest of them.
    pub fn unpack_into(&self, width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
        dispatch!(self, unpack_into(width, packed, out))
    }

    /// The way into the NTT: `x[j] = (x[j] + w x[N-j]) t[j]` for `0 < j < N`, `x[0] = x[0] t[0]`.
    pub fn fold_twist_assign(&self, m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
        dispatch!(self, fold_twist_assign(m, x, w, t));
    }

    /// The way back: `y[j] = x[j] t[j]`, then `x[j] = y[j] + w y[N-j]` for `0 < j < N` and `x[0] = 2 y[0]`.
    pub fn untwist_unfold_assign(&self, m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable) {
        dispatch!(self, untwist_unfold_assign(m, x, w, t));
    }

    /// Squares a two-component ciphertext pointwise: `(c0^2, 2 c0 c1, c1^2)`. Operands in `[0, q]`, results in `[1, q]`.
    pub fn square_into(&self, m: &Modulus, c0: &[u64], c1: &[u64], out: [&mut [u64]; 3]) {
        dispatch!(self, square_into(m, c0, c1, out));
    }

    /// [`Self::square_into`] for many rows: of `[component][columns]`, two components in `x` and three in `out`.
    pub fn square_rows_into(&self, m: &Modulus, columns: usize, x: &[u64], zero: Zero, out: &mut [u64]) {
        dispatch!(self, square_rows_into(m, columns, x, zero, out));
    }

    /// Writes zero as `q`.
    pub fn nonzero_assign(&self, m: &Modulus, x: &mut [u64]) {
        dispatch!(self, nonzero_assign(m, x));
    }

    /// Pieces of `columns` residues of `x`, zero written as `q`: the k-th goes to word `k * stride` of `out`.
    pub fn nonzero_pieces_into(&self, m: &Modulus, x: &[u64], columns: usize, stride: usize, out: &mut [u64]) {
        dispatch!(self, nonzero_pieces_into(m, x, columns, stride, out));
    }

    /// Puts the quotients of a base extension where its multipliers do not see them. `limbs` are digits below 2^52, `[prime][N]`; to digit i of the first
    /// prime is added `2^52 v`, `v = floor(1/2 + sum_j limbs[j][i] reciprocals[j])`, products and sums rounded one by one from the first on; `v` below 16.
    pub fn mark_quotients_assign(&self, reciprocals: &[f64], limbs: &mut [u64]) {
        dispatch!(self, mark_quotients_assign(reciprocals, limbs));
    }

    /// Extends and then does as [`Self::fold_twist_assign`]: of digits `limbs[j][i]` with quotient v, `x[i] = sum_j limbs[j][i] cofactors[j] + overshoot[v]`.
    pub fn extend_twist_into(
        &self,
        m: &Modulus,
        from: &Extending<'_>,
        w: ShoupFactor,
        t: &ShoupTable,
        out: &mut [u64],
    ) {
        dispatch!(self, extend_twist_into(m, from, w, t, out));
    }

    /// Both sums.
    pub fn sum_products_into(&self, m: &Modulus, sums: &ProductSums<'_>, out: [&mut [u64]; 2]) {
        dispatch!(self, sum_products_into(m, sums, out));
    }

    /// Both sums, less what `x` holds, times `w`.
    pub fn subtract_from_products_assign(
        &self,
        m: &Modulus,
        sums: &ProductSums<'_>,
        w: ShoupFactor,
        x: [&mut [u64]; 2],
    ) {
        dispatch!(self, subtract_from_products_assign(m, sums, w, x));
    }

    /// `packed` is `out.len()` residues of `width` bytes each, low byte first, for a width of 5 to 7: the reverse of [`Self::unpack_into`]. Residues are
    /// below `2^(8 width)`.
    pub fn pack_into(&self, width: usize, residues: &[u64], packed: &mut [u8]) {
        dispatch!(self, pack_into(width, residues, packed));
    }

    /// [`Self::unpack_into`] for pieces of `piece` residues: the k-th begins at byte `k * stride` of `packed`. From there on `announced` bytes are fetched
    /// well before, for this call and others soon after; none where they are in the cache already.
    pub fn unpack_pieces_into(
        &self,
        width: usize,
        packed: &[u8],
        stride: usize,
        piece: usize,
        announced: usize,
        out: &mut [u64],
    ) {
        dispatch!(self, unpack_pieces_into(width, packed, stride, piece, announced, out));
    }

    /// [`Self::pack_into`] for pieces of `piece` residues: the k-th goes to byte `k * stride` of `packed`.
    pub fn pack_pieces_into(&self, width: usize, residues: &[u64], stride: usize, piece: usize, packed: &mut [u8]) {
        dispatch!(self, pack_pieces_into(width, residues, stride, piece, packed));
    }

    /// `x[i] = (from[i] - x[i]) * w`.
    pub fn subtract_from_scaled_assign(&self, m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor) {
        dispatch!(self, subtract_from_scaled_assign(m, x, from, w));
    }

    /// `x[i] = from[i] - x[i] * factors[i]`
    pub fn subtract_product_from_assign(&self, m: &Modulus, x: &mut [u64], factors: &[u64], from: &[u64]) {
        dispatch!(self, subtract_product_from_assign(m, x, factors, from));
    }

    /// `out[i]` is the representative of the signed word `x[i]`.
    pub fn lift_into(&self, m: &Modulus, x: &[i64], out: &mut [u64]) {
        dispatch!(self, lift_into(m, x, out));
    }

    /// Adds to `x[i]` a draw of the centred binomial of variance 21/2: how many of word i's 21 low bits are set, less how many of the next 21. A
    /// block is two little-endian words, and `blocks` at least as many as are needed. Constant time.
    pub fn add_binomials_assign(&self, blocks: &[[u8; 16]], x: &mut [i64]) {
        dispatch!(self, add_binomials_assign(blocks, x));
    }

    /// Cosine transforms of [`CosinePlan::TOGETHER`] polynomials of the plan's length, one after the other in `rows`: of each
    /// `sum_k x[k] cos(pi (2k+1) i / 2N)`. `scratch` is [`CosinePlan::scratch_len`] values. No products and sums are fused.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn cosine_rows_assign(&self, plan: &CosinePlan, rows: &mut [f64], scratch: &mut [f64]) {
        dispatch!(self, cosine_rows_assign(plan, rows, scratch));
    }

    /// Whether products of weights and residues of so many bits are summed whole, or as two halves.
    fn multiplies_whole(&self, weight_bits: u32, modulus_bits: u32) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Ifma(_) | Tier::Avx512Vnni(..) | Tier::Amx(..) => {
                avx512ifma::multiplies_whole(weight_bits, modulus_bits)
            }
            _ => portable::multiplies_whole(weight_bits, modulus_bits),
        }
    }

    /// [`PackedBlock::mul_add_into`] on words.
    fn words_mul_add(&self, m: &Modulus, block: &block::PackedWords, operands: &BlockOperands<'_>, out: &mut [u64]) {
        dispatch!(self, words_mul_add(m, block, operands, out));
    }
}

/// The same memory as 16-byte blocks, two words each; of an odd number, the last word is left out.
pub fn blocks_of(words: &mut [u64]) -> &mut [[u8; 16]] {
    // SAFETY: the blocks lie within the words, bytes have no alignment, and any bytes are a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() / 2) }
}

/// Asks for bytes that will be read soon to be brought into the second-level cache.
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: every x86-64 CPU has SSE; a prefetch reads nothing, and its address lies in a slice.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[cfg(test)]
mod tests;
