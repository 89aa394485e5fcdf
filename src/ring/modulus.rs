//! Arithmetic modulo one prime `q` of 34 to 50 bits: the word-sized reference that every kernel must equal.
//!
//! Not constant-time with respect to `q` (which is public); products and reductions have no data-dependent branches
//! beyond compare-and-select.

use super::RingError;

/// Bits of a machine word that the fused multiply kernels use.
pub const WORD_BITS: u32 = 52;

/// A prime modulus with its reduction constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    q: u64,
    bits: u32,
    barrett: u64,
    two_to_64: u64,
    positive_offset: u64,
}

impl Modulus {
    /// Checks the range (not primality: see [`primes`](super::primes)) and precomputes the constants.
    ///
    /// # Errors
    /// [`RingError::ModulusRange`] unless `2^33 <= q < 2^50`, the range in which the transform library takes its fast
    /// path on every machine and in which all reductions here are proved.
    pub fn new(q: u64) -> Result<Self, RingError> {
        if !(1 << 33..1 << 50).contains(&q) || q.is_multiple_of(2) {
            return Err(RingError::ModulusRange { found: q });
        }
        let bits = 64 - q.leading_zeros();
        let barrett = ((1u128 << (bits + 50)) / u128::from(q)) as u64;
        let two_to_64 = ((1u128 << 64) % u128::from(q)) as u64;
        let positive_offset = (1u64 << 62).div_ceil(q) * q;
        Ok(Self { q, bits, barrett, two_to_64, positive_offset })
    }

    /// The prime itself.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.q
    }

    /// Bit length of the prime.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// `floor(2^(bits + 50) / q)`, below 2^52: the Barrett constant of [`Self::mul`] and [`Self::reduce`].
    #[must_use]
    pub fn barrett(&self) -> u64 {
        self.barrett
    }

    /// `2^64 mod q`.
    #[must_use]
    pub fn two_to_64(&self) -> u64 {
        self.two_to_64
    }

    /// A multiple of q of at least 2^62: added to a sum of magnitude below 2^62 it makes it a positive 64-bit word.
    #[must_use]
    pub fn positive_offset(&self) -> u64 {
        self.positive_offset
    }

    /// `x mod q` for any word.
    ///
    /// Barrett: with `h = floor(x / 2^(bits-2))` the estimate `floor(h * barrett / 2^52)` is at most 2 below the quotient.
    #[inline]
    #[must_use]
    pub fn reduce(&self, x: u64) -> u64 {
        let high = x >> (self.bits - 2);
        let quotient = ((u128::from(high) * u128::from(self.barrett)) >> WORD_BITS) as u64;
        self.fold_3q(x.wrapping_sub(quotient.wrapping_mul(self.q)))
    }

    /// `x mod q` for `x` below `3 q`.
    #[inline]
    fn fold_3q(&self, x: u64) -> u64 {
        let x = x.min(x.wrapping_sub(2 * self.q));
        x.min(x.wrapping_sub(self.q))
    }

    /// The largest multiple of q below 2^64: words below it are as uniform modulo q as they are themselves.
    #[must_use]
    pub fn word_limit(&self) -> u64 {
        self.two_to_64.wrapping_neg()
    }

    /// `x mod q` for 128-bit `x`.
    #[inline]
    #[must_use]
    pub fn reduce_u128(&self, x: u128) -> u64 {
        let high = self.reduce((x >> 64) as u64);
        self.add(self.mul(high, self.two_to_64), self.reduce(x as u64))
    }

    /// The representative of a signed word.
    #[inline]
    #[must_use]
    pub fn from_i64(&self, x: i64) -> u64 {
        let r = self.reduce(x.unsigned_abs());
        if x < 0 { self.neg(r) } else { r }
    }

    /// The representative of a signed 128-bit integer.
    #[inline]
    #[must_use]
    pub fn from_i128(&self, x: i128) -> u64 {
        let r = self.reduce_u128(x.unsigned_abs());
        if x < 0 { self.neg(r) } else { r }
    }

    /// `round(x)` modulo q for a finite float of any size: exact, since a float is an integer times a power of two.
    #[must_use]
    pub fn from_f64(&self, x: f64) -> u64 {
        let rounded = x.round();
        if rounded.abs() < 9.0e18 {
            return self.from_i64(rounded as i64);
        }
        let bits = rounded.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) - 1075;
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        let magnitude = self.mul(self.reduce(mantissa), self.pow(2, exponent));
        if rounded < 0.0 { self.neg(magnitude) } else { magnitude }
    }

    /// `a + b`, both below q.
    #[inline]
    #[must_use]
    pub fn add(&self, a: u64, b: u64) -> u64 {
        let sum = a + b;
        sum.min(sum.wrapping_sub(self.q))
    }

    /// `a - b`, both below q.
    #[inline]
    #[must_use]
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        let difference = a.wrapping_sub(b);
        difference.min(difference.wrapping_add(self.q))
    }

    /// `-a`, below q.
    #[inline]
    #[must_use]
    pub fn neg(&self, a: u64) -> u64 {
        self.sub(0, a)
    }

    /// `a * b`, both at most q.
    #[inline]
    #[must_use]
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        let high = (product >> (self.bits - 2)) as u64;
        let quotient = ((u128::from(high) * u128::from(self.barrett)) >> WORD_BITS) as u64;
        self.fold_3q((product as u64).wrapping_sub(quotient.wrapping_mul(self.q)))
    }

    /// `base^exponent`.
    #[must_use]
    pub fn pow(&self, base: u64, mut exponent: u64) -> u64 {
        let mut square = self.reduce(base);
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, square);
            }
            square = self.mul(square, square);
            exponent >>= 1;
        }
        result
    }

    /// Multiplicative inverse of a non-zero residue (Fermat).
    #[must_use]
    pub fn inv(&self, a: u64) -> u64 {
        self.pow(a, self.q - 2)
    }

    /// Prepares a constant factor below q for [`Self::mul_shoup`]: `floor(w * 2^52 / q)`.
    ///
    /// Tables hold thousands: no division, but an estimate `floor(w * barrett / 2^(bits-2))`, which is at most 4 below.
    #[inline]
    #[must_use]
    pub fn shoup(&self, w: u64) -> ShoupFactor {
        debug_assert!(w < self.q, "a factor of {w} modulo {}", self.q);
        let estimate = ((u128::from(w) * u128::from(self.barrett)) >> (self.bits - 2)) as u64;
        let rest = (w << WORD_BITS).wrapping_sub(estimate.wrapping_mul(self.q));
        let missed = (1..=4).map(|times| u64::from(rest >= times * self.q)).sum::<u64>();
        ShoupFactor { value: w, quotient: estimate + missed }
    }

    /// `x * w` for a prepared `w`; `x` below 2^52.
    #[inline]
    #[must_use]
    pub fn mul_shoup(&self, x: u64, w: ShoupFactor) -> u64 {
        let quotient = ((u128::from(x) * u128::from(w.quotient)) >> WORD_BITS) as u64;
        let remainder = x.wrapping_mul(w.value).wrapping_sub(quotient.wrapping_mul(self.q));
        remainder.min(remainder.wrapping_sub(self.q))
    }
}

/// A constant factor with its precomputed quotient (Shoup's method on 52-bit words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShoupFactor {
    /// The factor, below q.
    pub value: u64,
    /// `floor(value * 2^52 / q)`.
    pub quotient: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smallest and largest odd moduli of several widths; the reductions do not need primality.
    fn edge_moduli() -> Vec<Modulus> {
        let mut values = Vec::new();
        for bits in [34u32, 40, 44, 48, 50] {
            values.extend([(1u64 << (bits - 1)) + 1, (1 << bits) - 1, (1 << (bits - 1)) + 12345]);
        }
        values.into_iter().map(|q| Modulus::new(q).unwrap()).collect()
    }

    #[test]
    fn edges_equal_wide_arithmetic() {
        for m in edge_moduli() {
            let q = m.value();
            let words =
                [0, 1, 2, q - 1, q, q + 1, 2 * q, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 52) - 1, q / 2, q / 2 + 1];
            for &x in &words {
                assert_eq!(m.reduce(x), x % q, "{x} mod {q}");
                for &y in &words {
                    let wide = u128::from(x) << 64 | u128::from(y);
                    assert_eq!(m.reduce_u128(wide), (wide % u128::from(q)) as u64);
                    if x <= q && y <= q {
                        assert_eq!(
                            m.mul(x, y),
                            (u128::from(x) * u128::from(y) % u128::from(q)) as u64,
                            "{x} * {y} mod {q}"
                        );
                    }
                    if y < q {
                        let quotient = ((u128::from(y) << 52) / u128::from(q)) as u64;
                        assert_eq!(m.shoup(y), ShoupFactor { value: y, quotient }, "{y} of {q}");
                    }
                    if x < 1 << 52 && y < q {
                        let expected = (u128::from(x) * u128::from(y) % u128::from(q)) as u64;
                        assert_eq!(m.mul_shoup(x, m.shoup(y)), expected, "shoup {x} * {y} mod {q}");
                    }
                }
            }
        }
    }

    #[test]
    fn random_words_equal_wide_arithmetic() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ (state >> 29)
        };
        for m in edge_moduli() {
            let q = m.value();
            for _ in 0..20_000 {
                let (a, b) = (next() % q, next() % q);
                assert_eq!(m.mul(a, b), (u128::from(a) * u128::from(b) % u128::from(q)) as u64);
                assert_eq!(m.shoup(a).quotient, ((u128::from(a) << 52) / u128::from(q)) as u64);
                let x = next();
                assert_eq!(m.reduce(x), x % q);
                assert_eq!(m.add(a, b), (a + b) % q);
                assert_eq!(m.sub(a, b), (a + q - b) % q);
            }
        }
    }

    #[test]
    fn floats_and_signs() {
        let m = Modulus::new((1 << 40) - 87).unwrap();
        let q = i128::from(m.value());
        for x in [0i128, 1, -1, 5, -5, 1 << 62, -(1 << 70), (1 << 100) + (1 << 60), -(1 << 90)] {
            let expected = x.rem_euclid(q) as u64;
            assert_eq!(m.from_i128(x), expected);
            assert_eq!(m.from_f64(x as f64), expected, "{x}");
        }
        assert_eq!(m.from_f64(2.5), 3);
        assert_eq!(m.from_i64(-7), m.value() - 7);
        assert_eq!(m.mul(m.inv(12345), 12345), 1);
    }

    #[test]
    fn range_is_enforced() {
        for q in [0, 3, (1 << 32) - 5, (1 << 50) + 1, 1 << 40, u64::MAX] {
            assert_eq!(Modulus::new(q), Err(RingError::ModulusRange { found: q }));
        }
    }
}
