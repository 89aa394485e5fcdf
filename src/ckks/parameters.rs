//! Scheme parameters: an unchecked literal and the checked value made of it.

use super::{CkksError, security};
use crate::ring::{Modulus, RingError, primes};

/// Parameters as written in a file or chosen by the planner; anything may be wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersLiteral {
    /// N, the number of slots.
    pub degree: usize,
    /// The ciphertext primes, prime 0 last to be dropped.
    pub moduli: Vec<u64>,
    /// The special primes of key switching; at least one.
    pub special: Vec<u64>,
    /// Limbs in one key-switch digit.
    pub digit_limbs: usize,
}

/// Checked parameters: distinct NTT primes, inside the security table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters(ParametersLiteral);

/// More limbs than any plan in the security table has.
const MAX_LIMBS: usize = 64;

impl Parameters {
    /// Checks a literal.
    ///
    /// # Errors
    /// [`CkksError::Insecure`] outside the security table; [`CkksError::Parameters`] and [`CkksError::Ring`] for counts and primes.
    pub fn new(literal: ParametersLiteral) -> Result<Self, CkksError> {
        let checked = Self::without_security(literal)?;
        security::check(checked.degree(), checked.log_qp_bits())?;
        Ok(checked)
    }

    /// The same checks but for the security table, for tests in small rings: this exists in test builds only.
    #[cfg(test)]
    pub(crate) fn insecure(literal: ParametersLiteral) -> Result<Self, CkksError> {
        Self::without_security(literal)
    }

    fn without_security(literal: ParametersLiteral) -> Result<Self, CkksError> {
        let wrong = |what, found: usize, expected: &str| {
            Err(CkksError::Parameters { what, found: found.to_string(), expected: expected.to_owned() })
        };
        let ParametersLiteral { degree, moduli, special, digit_limbs } = &literal;
        if !(1..=MAX_LIMBS).contains(&moduli.len()) {
            return wrong("number of primes", moduli.len(), "1 to 64");
        }
        if !(1..=4).contains(&special.len()) {
            return wrong("number of special primes", special.len(), "1 to 4");
        }
        if !(1..=special.len() + 1).contains(digit_limbs) {
            return wrong("limbs in a key-switch digit", *digit_limbs, "1 to one more than the special primes");
        }
        let all: Vec<u64> = moduli.iter().chain(special).copied().collect();
        let order = 4 * *degree as u64;
        for (i, &q) in all.iter().enumerate() {
            Modulus::new(q)?;
            if order == 0 || q % order != 1 || !primes::is_prime(q) {
                return Err(RingError::NotNttPrime { found: q, order }.into());
            }
            if all[..i].contains(&q) {
                return wrong("a prime twice", q as usize, "distinct primes");
            }
        }
        Ok(Self(literal))
    }

    /// N: ring degree and number of slots.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.0.degree
    }

    /// The ciphertext primes.
    #[must_use]
    pub fn moduli(&self) -> &[u64] {
        &self.0.moduli
    }

    /// The special primes.
    #[must_use]
    pub fn special(&self) -> &[u64] {
        &self.0.special
    }

    /// Limbs in a key-switch digit.
    #[must_use]
    pub fn digit_limbs(&self) -> usize {
        self.0.digit_limbs
    }

    /// Key-switch digits at the top level.
    #[must_use]
    pub fn digits(&self) -> usize {
        self.0.moduli.len().div_ceil(self.0.digit_limbs)
    }

    /// log2 of the product of all primes, special ones included: what the security table limits.
    #[must_use]
    pub fn log_qp_bits(&self) -> f64 {
        self.0.moduli.iter().chain(&self.0.special).map(|&q| (q as f64).log2()).sum()
    }

    /// The unchecked form, for writing.
    #[must_use]
    pub fn literal(&self) -> &ParametersLiteral {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ParametersLiteral {
        let mut used = Vec::new();
        for bits in [38, 38, 43, 44] {
            used.push(primes::nearest(1 << bits, 8192, &used).unwrap());
        }
        let special = used.split_off(3);
        ParametersLiteral { degree: 8192, moduli: used, special, digit_limbs: 1 }
    }

    #[test]
    fn each_check_can_fail() {
        let p = Parameters::new(good()).unwrap();
        assert!((p.log_qp_bits() - 163.0).abs() < 0.1);
        let change = |f: &dyn Fn(&mut ParametersLiteral)| {
            let mut literal = good();
            f(&mut literal);
            Parameters::new(literal).unwrap_err().to_string()
        };
        assert!(change(&|l| l.moduli.clear()).contains("number of primes"));
        assert!(change(&|l| l.special.clear()).contains("special primes"));
        assert!(change(&|l| l.digit_limbs = 3).contains("digit"));
        assert!(change(&|l| l.moduli[1] = l.moduli[0]).contains("twice"));
        assert!(change(&|l| l.moduli[1] += 2).contains("1 mod 32768"));
        assert!(change(&|l| l.moduli[1] = 65537).contains("2^33"));
        assert!(change(&|l| l.degree = 4096).contains("at most 106"));
        assert!(change(&|l| l.degree = 0).contains("1 mod 0"));
    }
}
