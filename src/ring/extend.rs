//! Base extension: from residues modulo a few primes to residues modulo others, through the centred representative.
//!
//! For `x` modulo `B = b_1 .. b_m`, `y_i = x (B / b_i)^-1 mod b_i`, the centred representative is
//! `sum y_i (B / b_i) - v B` with `v = round(sum y_i / b_i)` (Halevi, Polyakov, Shoup, eprint 2018/117, section 2.2). `v` is
//! computed in double precision in a fixed order, so the result is the same bits everywhere; where the sum is within rounding
//! error of a half either neighbour is a valid, nearly centred representative.

use super::kernels::{Extending, ExtensionTarget, Kernel};
use super::modulus::ShoupFactor;
use super::{Modulus, Ntt};

/// Constants for one (source primes, target primes) pair.
#[derive(Clone, Debug)]
pub struct Extension {
    kernel: Kernel,
    from: Vec<Modulus>,
    /// `(B / b_i)^-1 mod b_i`
    inverses: Vec<ShoupFactor>,
    reciprocals: Vec<f64>,
    targets: Vec<(Modulus, ExtensionTarget)>,
}

impl Extension {
    /// Prepares constants. Source primes must be distinct; at most 8 of them.
    #[must_use]
    pub fn new(kernel: Kernel, from: &[Modulus], to: &[Modulus]) -> Self {
        let cofactor_mod = |i: usize, m: &Modulus| {
            from.iter().enumerate().filter(|&(j, _)| j != i).fold(1, |p, (_, b)| m.mul(p, m.reduce(b.value())))
        };
        let inverses = from.iter().enumerate().map(|(i, b)| b.shoup(b.inv(cofactor_mod(i, b)))).collect();
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
        let reciprocals = from.iter().map(|b| 1.0 / b.value() as f64).collect();
        Self { kernel, from: from.to_vec(), inverses, reciprocals, targets }
    }

    /// Multiplies each source limb by `(B / b_i)^-1`, in place: the digits that [`Self::forward_into`] reads.
    pub fn prepare_assign(&self, limbs: &mut [&mut [u64]]) {
        for ((limb, m), &w) in limbs.iter_mut().zip(&self.from).zip(&self.inverses) {
            if w.value != 1 {
                self.kernel.scale_assign(m, limb, w);
            }
        }
    }

    /// The residues modulo target `t`, whose transform `ntt` is, of the centred representative, from prepared limbs; in the NTT domain.
    pub fn forward_into(&self, limbs: &[&[u64]], t: usize, ntt: &Ntt, out: &mut [u64]) {
        let (m, target) = &self.targets[t];
        debug_assert_eq!(m, ntt.modulus());
        ntt.forward_extended_into(&Extending { limbs, reciprocals: &self.reciprocals, target }, out);
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
            let extension = Extension::new(kernel, from, to);
            let mut values = vec![0, 1, -1, base / 100 * 49, -base / 100 * 49, base / 3, -base / 5, 123_456_789];
            values.extend((1..249).map(|i| (base / 601) * i - base / 5 + i * i * i));
            assert_eq!(values.len(), 256);
            let mut limbs: Vec<Vec<u64>> =
                from.iter().map(|m| values.iter().map(|&x| m.from_i128(x)).collect()).collect();
            let mut views: Vec<&mut [u64]> = limbs.iter_mut().map(Vec::as_mut_slice).collect();
            extension.prepare_assign(&mut views);
            let views: Vec<&[u64]> = limbs.iter().map(Vec::as_slice).collect();
            for (t, m) in to.iter().enumerate() {
                // Through the transform and back.
                let ntt = Ntt::new(values.len(), m.value(), kernel).unwrap();
                let mut out = vec![0; values.len()];
                extension.forward_into(&views, t, &ntt, &mut out);
                ntt.inverse_assign(&mut out);
                for (&x, &o) in values.iter().zip(&out) {
                    assert_eq!(o, m.from_i128(x), "{}: {x} from {sources} primes mod {}", kernel.name(), m.value());
                }
            }
        }
    }
}
