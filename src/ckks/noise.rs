//! Standard deviations of the errors of each operation, in slots, in units of the ciphertext's integers (divide by the scale).
//!
//! Slot k of an element with independent coefficients of variance v is `a_0 + 2 sum a_i cos(..)`: variance `2 N v`. A product with
//! the ternary secret (variance 2/3) has coefficients of variance `2 N (2/3) v`. Central limit estimates, as usual for CKKS.

use crate::ring::sampling::ERROR_VARIANCE;

const ROUNDING_VARIANCE: f64 = 1.0 / 12.0;
const SECRET_VARIANCE: f64 = 2.0 / 3.0;

/// Coefficient variance to slot standard deviation.
fn in_slots(degree: usize, coefficient_variance: f64) -> f64 {
    (2.0 * degree as f64 * coefficient_variance).sqrt()
}

/// Fresh encryption with the secret key: the error and the encoder's rounding.
#[must_use]
pub fn fresh_secret(degree: usize) -> f64 {
    in_slots(degree, ERROR_VARIANCE + ROUNDING_VARIANCE)
}

/// Dividing a two-component ciphertext by primes: the rounding of c0, and of c1 times the secret.
#[must_use]
pub fn rescale(degree: usize) -> f64 {
    in_slots(degree, ROUNDING_VARIANCE * (1.0 + 2.0 * degree as f64 * SECRET_VARIANCE))
}

/// Fresh encryption with the public key, after division by the special primes of product `special`: `e u + e0 + e1 s` over `special`, its
/// rounding, and the encoder's.
#[must_use]
pub fn fresh_public(degree: usize, special: f64) -> f64 {
    let products = 2.0 * 2.0 * degree as f64 * SECRET_VARIANCE * ERROR_VARIANCE;
    let before = in_slots(degree, products + ERROR_VARIANCE) / special;
    (before.powi(2) + rescale(degree).powi(2) + in_slots(degree, ROUNDING_VARIANCE).powi(2)).sqrt()
}

/// Key switching: sum over digits of (digit, uniform of size `digit`) times (key error), over the primes divided out (product `divisor`).
#[must_use]
pub fn key_switch(degree: usize, digits: &[f64], divisor: f64) -> f64 {
    let variance: f64 =
        digits.iter().map(|d| (d / divisor).powi(2) / 12.0 * 2.0 * degree as f64 * ERROR_VARIANCE).sum();
    in_slots(degree, variance)
}
