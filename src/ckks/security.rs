//! The security table: how large a modulus a ring degree carries.
//!
//! Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption" (2024), ternary secret, sigma 3.19, 128 bits.
//! The whole modulus counts, special primes included.

use super::CkksError;

/// One row: degree, log2(QP) at 128-bit classical and at 128-bit post-quantum security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityRow {
    /// N.
    pub degree: usize,
    /// Limit that is enforced.
    pub classical_bits: u32,
    /// Limit that is shown beside it.
    pub quantum_bits: u32,
}

/// The table, smallest degree first.
pub const TABLE: [SecurityRow; 5] = [
    SecurityRow { degree: 4096, classical_bits: 106, quantum_bits: 101 },
    SecurityRow { degree: 8192, classical_bits: 214, quantum_bits: 202 },
    SecurityRow { degree: 16384, classical_bits: 430, quantum_bits: 411 },
    SecurityRow { degree: 32768, classical_bits: 868, quantum_bits: 827 },
    SecurityRow { degree: 65536, classical_bits: 1747, quantum_bits: 1663 },
];

/// The security level that the table's first column stands for.
pub const SECURITY_BITS: u32 = 128;

/// The row of a degree.
///
/// # Errors
/// [`CkksError::UnknownDegree`].
pub fn row(degree: usize) -> Result<SecurityRow, CkksError> {
    TABLE.into_iter().find(|r| r.degree == degree).ok_or(CkksError::UnknownDegree { found: degree })
}

/// Refuses a modulus of `log_qp_bits` bits that the degree does not carry.
///
/// # Errors
/// [`CkksError::Insecure`], [`CkksError::UnknownDegree`].
pub fn check(degree: usize, log_qp_bits: f64) -> Result<(), CkksError> {
    let limit_bits = row(degree)?.classical_bits;
    if log_qp_bits <= f64::from(limit_bits) {
        Ok(())
    } else {
        Err(CkksError::Insecure { found_bits: log_qp_bits, degree, limit_bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_enforced_to_the_bit() {
        assert!(check(8192, 214.0).is_ok());
        assert!(matches!(check(8192, 214.001), Err(CkksError::Insecure { limit_bits: 214, .. })));
        assert!(matches!(check(8192, f64::NAN), Err(CkksError::Insecure { .. })));
        assert!(check(16384, 430.0).is_ok() && check(16384, 438.0).is_err());
        assert!(matches!(check(2048, 10.0), Err(CkksError::UnknownDegree { found: 2048 })));
    }
}
