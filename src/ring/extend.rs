//! Base extension: from residues modulo a few primes to residues modulo others, through the centred representative.
//!
//! For `x` modulo `B = b_1 .. b_m`, `y_i = x (B / b_i)^-1 mod b_i`, the centred representative is
//! `sum y_i (B / b_i) - v B` with `v = round(sum y_i / b_i)` (Halevi, Polyakov, Shoup, eprint 2018/117, section 2.2). `v` is
//! computed in double precision in a fixed order, so the result is the same bits everywhere; where the sum is within rounding
//! error of a half either neighbour is a valid, nearly centred representative.

use super::kernels::{Extending, ExtensionTarget, Kernel};
use super::{Modulus, Ntt};

/// Constants for one (source primes, target primes) pair.
#[derive(Clone, Debug)]
pub struct Extension {
    /// `(B / b_i)^-1 mod b_i`
    inverses: Vec<u64>,
    reciprocals: Vec<f64>,
    /// Of a single source prime, the least digit whose quotient is 1.
    rounded_up_from: u64,
    targets: Vec<(Modulus, ExtensionTarget)>,
}

impl Extension {
    /// Prepares constants. Source primes must be distinct; at most 8 of them.
    #[must_use]
    pub fn new(from: &[Modulus], to: &[Modulus]) -> Self {
        let cofactor_mod = |i: usize, m: &Modulus| {
            from.iter().enumerate().filter(|&(j, _)| j != i).fold(1, |p, (_, b)| m.mul(p, m.reduce(b.value())))
        };
        let inverses = from.iter().enumerate().map(|(i, b)| b.inv(cofactor_mod(i, b))).collect();
        let targets = to
            .iter()
            .map(|m| {
                let product = from.iter().fold(1, |p, b| m.mul(p, m.reduce(b.value())));
                let target = ExtensionTarget {
                    cofactors: (0..from.len()).map(|i| m.shoup(cofactor_mod(i, m))).collect(),
                    // v is at most the number of source primes: a table of multiples avoids a product.
                    overshoot: std::array::from_fn(|v| m.neg(m.mul(m.reduce(v as u64), product))),
                };
                (*m, target)
            })
            .collect();
        let reciprocals: Vec<f64> = from.iter().map(|b| 1.0 / b.value() as f64).collect();
        let rounded_up_from = if let ([b], [reciprocal]) = (from, &reciprocals[..]) {
            // Rounding keeps order: where the quotient becomes 1 is found by bisection.
            let is_rounded_up = |digit: u64| digit as f64 * reciprocal + 0.5 >= 1.0;
            let (mut below, mut from) = (0, b.value());
            while from - below > 1 {
                let middle = below + (from - below) / 2;
                *(if is_rounded_up(middle) { &mut from } else { &mut below }) = middle;
            }
            from
        } else {
            0
        };
        Self { inverses, reciprocals, rounded_up_from, targets }
    }

    /// From residues modulo source prime `source` in the NTT domain, whose transform `ntt` is, to digits: coefficients times `(B / b_i)^-1`.
    pub fn prepare_assign(&self, source: usize, ntt: &Ntt, x: &mut [u64]) {
        ntt.inverse_scaled_assign(x, self.inverses[source]);
    }

    /// Of digits of all source primes, `[prime][N]`, finds the quotients v, once for all targets; then they are what [`Self::forward_into`] reads.
    pub fn finish_assign(&self, kernel: Kernel, limbs: &mut [u64]) {
        if self.reciprocals.len() > 1 {
            kernel.mark_quotients_assign(&self.reciprocals, limbs);
        }
    }

    /// The residues modulo target `t`, whose transform `ntt` is, of the centred representative, from finished limbs; in the NTT domain.
    pub fn forward_into(&self, limbs: &[&[u64]], t: usize, ntt: &Ntt, out: &mut [u64]) {
        let (m, target) = &self.targets[t];
        debug_assert_eq!(m, ntt.modulus());
        ntt.forward_extended_into(&Extending { limbs, rounded_up_from: self.rounded_up_from, target }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::primes;

    #[test]
    fn extends_the_centred_representative() {
        let mut used = Vec::new();
        let list: Vec<Modulus> = [40u32, 44, 36, 49, 34, 44]
            .iter()
            .map(|&bits| {
                let q = primes::nearest(1 << bits, 8192, &used).unwrap();
                used.push(q);
                Modulus::new(q).unwrap()
            })
            .collect();
        for (sources, kernel) in (1..=3).flat_map(|sources| Kernel::present().into_iter().map(move |k| (sources, k))) {
            let (from, to) = list.split_at(sources);
            let base: i128 = from.iter().map(|m| i128::from(m.value())).product();
            let extension = Extension::new(from, to);
            let mut values = vec![0, 1, -1, base / 100 * 49, -base / 100 * 49, base / 3, -base / 5, 123_456_789];
            values.extend((1..1017).map(|i| (base / 2400) * i - base / 5 + i * i * i));
            assert_eq!(values.len(), 1024);
            let ntt = |m: &Modulus| Ntt::new(values.len(), m.value(), kernel).unwrap();
            let limb = |(source, m): (usize, &Modulus)| {
                let mut limb: Vec<u64> = values.iter().map(|&x| m.from_i128(x)).collect();
                ntt(m).forward_assign(&mut limb);
                extension.prepare_assign(source, &ntt(m), &mut limb);
                limb
            };
            let mut limbs: Vec<u64> = from.iter().enumerate().flat_map(limb).collect();
            extension.finish_assign(kernel, &mut limbs);
            let views: Vec<&[u64]> = limbs.chunks_exact(values.len()).collect();
            for (t, m) in to.iter().enumerate() {
                // Through the transform and back.
                let ntt = ntt(m);
                let mut out = vec![0; values.len()];
                extension.forward_into(&views, t, &ntt, &mut out);
                ntt.inverse_assign(&mut out);
                for (&x, &o) in values.iter().zip(&out) {
                    assert_eq!(o, m.from_i128(x), "{}: {x} from {sources} primes mod {}", kernel.name(), m.value());
                }
            }
        }
    }

    /// From as many primes as a plan may ask for and more, at degrees with and without a kernel's own transform, every kernel gives the
    /// same words.
    #[test]
    fn kernels_extend_alike() {
        let mut used = Vec::new();
        let list: Vec<Modulus> = [34u32, 35, 38, 40, 41, 43, 44, 34, 44, 49]
            .iter()
            .map(|&bits| {
                let q = primes::nearest(1 << bits, 2048, &used).unwrap();
                used.push(q);
                Modulus::new(q).unwrap()
            })
            .collect();
        let (from, to) = list.split_at(7);
        for (sources, degree) in (1..=from.len()).flat_map(|sources| [(sources, 256), (sources, 2048)]) {
            let from = &from[..sources];
            let extension = Extension::new(from, to);
            let digit = |(at, m): (usize, &Modulus)| -> Vec<u64> {
                let mut state = at as u64 + 5;
                let mut next = || {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    state >> 9
                };
                let edge = [0, m.value() - 1, m.value() / 2, m.value() / 2 + 1];
                (0..degree).map(|i| if i < 64 { edge[(i >> at) % 4] } else { next() % m.value() }).collect()
            };
            let digits: Vec<u64> = from.iter().enumerate().flat_map(digit).collect();
            for (t, m) in to.iter().enumerate() {
                let extended = |kernel: Kernel| {
                    let (mut out, mut digits) = (vec![0; degree], digits.clone());
                    extension.finish_assign(kernel, &mut digits);
                    let views: Vec<&[u64]> = digits.chunks_exact(degree).collect();
                    extension.forward_into(&views, t, &Ntt::new(degree, m.value(), kernel).unwrap(), &mut out);
                    out
                };
                let expected = extended(Kernel::portable());
                for kernel in Kernel::present() {
                    assert!(extended(kernel) == expected, "{}: from {sources} primes, degree {degree}", kernel.name());
                }
            }
        }
    }
}
