//! Key switching from (c0, c1, c2) to (c0, c1), jointly with division by the special primes and, if asked, the last prime.
//!
//! c2 is cut into digits of a few limbs, each extended to all other primes (centred), multiplied with the key, and the sum is divided
//! by P q_l at once: one rounding, 2L + 2 transforms instead of 4L + 2 (ENGINE section 7). The hybrid method of Han and Ki
//! (eprint 2019/688), with the rescale merged.

use super::keys::EvaluationKey;
use super::{CkksError, Context};
use crate::ring::Modulus;
use crate::ring::extend::Extension;
use crate::ring::modulus::ShoupFactor;
use std::ops::Range;
use zeroize::Zeroizing;

/// The key with its masks expanded, ready for use at any level.
pub struct KeySwitchKey {
    a: Vec<u64>,
    b: Vec<u64>,
}

impl KeySwitchKey {
    /// Expands the masks.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] if the key has not one pair per digit and prime.
    pub fn new(context: &Context, key: EvaluationKey) -> Result<Self, CkksError> {
        let expected = context.parameters().digits() * context.all_limbs() * context.degree();
        if key.b.len() != expected {
            return Err(CkksError::Parameters {
                what: "residues in the evaluation key",
                found: key.b.len().to_string(),
                expected: expected.to_string(),
            });
        }
        Ok(Self { a: key.expand_masks(context), b: key.b })
    }
}

/// One digit: its limbs and their extension to the other primes in use.
struct Digit {
    limbs: Range<usize>,
    extension: Extension,
    /// Context prime numbers that the extension reaches, in its order.
    targets: Vec<usize>,
}

/// Division of a component by some primes, the result modulo the remaining ones.
pub struct ModDown {
    /// Context prime numbers divided out.
    dropped: Vec<usize>,
    extension: Extension,
    /// Inverse of the dropped product modulo each kept prime (kept primes are 0..).
    inverses: Vec<ShoupFactor>,
}

impl ModDown {
    /// Divides by the primes `dropped` and keeps primes `0..kept`.
    #[must_use]
    pub fn new(context: &Context, dropped: Vec<usize>, kept: usize) -> Self {
        let modulus = |i: usize| *context.modulus(i);
        let from: Vec<Modulus> = dropped.iter().map(|&i| modulus(i)).collect();
        let to: Vec<Modulus> = (0..kept).map(modulus).collect();
        let inverses =
            to.iter().map(|m| m.shoup(m.inv(from.iter().fold(1, |p, d| m.mul(p, m.reduce(d.value())))))).collect();
        Self { dropped, extension: Extension::new(context.kernel(), &from, &to), inverses }
    }

    /// `out = round(x / dropped)`. `x` holds the component in the NTT domain, `limb_of(i)` being the place of prime i in it; its dropped limbs
    /// are overwritten. `out` is `[kept][N]` in the NTT domain.
    pub fn apply(
        &self,
        context: &Context,
        x: &mut [u64],
        limb_of: impl Fn(usize) -> usize,
        scratch: &mut Scratch,
        out: &mut [u64],
    ) {
        let n = context.degree();
        for &prime in &self.dropped {
            context.ntt(prime).inverse_assign(&mut x[limb_of(prime) * n..][..n]);
        }
        let mut sources = disjoint_limbs(x, n, self.dropped.iter().map(|&p| limb_of(p)));
        self.extension.prepare_assign(&mut sources);
        let sources: Vec<&[u64]> = sources.into_iter().map(|s| &*s).collect();
        self.extension.quotients_into(&sources, &mut scratch.quotients);
        let quotients = &scratch.quotients;
        for (t, out) in out.chunks_exact_mut(n).enumerate() {
            self.extension.extend_into(&sources, quotients, t, out);
            context.ntt(t).forward_assign(out);
        }
        for (t, out) in out.chunks_exact_mut(n).enumerate() {
            let value = &x[limb_of(t) * n..][..n];
            context.kernel().subtract_from_scaled_assign(context.modulus(t), out, value, self.inverses[t]);
        }
    }
}

/// Distinct limbs of a limb-major buffer, in the order asked for.
fn disjoint_limbs(x: &mut [u64], n: usize, limbs: impl Iterator<Item = usize>) -> Vec<&mut [u64]> {
    let mut all: Vec<Option<&mut [u64]>> = x.chunks_exact_mut(n).map(Some).collect();
    limbs.filter_map(|l| all[l].take()).collect()
}

/// Working memory of one key switch, reused by one thread.
pub struct Scratch {
    /// c2 as coefficients: `[limb][N]`
    coefficients: Vec<u64>,
    /// `[prime in use][N]`, two components
    sums: [Vec<u64>; 2],
    /// A bit or two of every coefficient: public-key encryption wants them gone afterwards.
    quotients: Zeroizing<Vec<u64>>,
    extended: Vec<u64>,
}

impl Scratch {
    /// Large enough for the top level.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let n = context.degree();
        let all = vec![0; context.all_limbs() * n];
        Self {
            coefficients: vec![0; context.limbs() * n],
            sums: [all.clone(), all],
            quotients: Zeroizing::new(vec![0; n]),
            extended: vec![0; n],
        }
    }

    /// Bytes held with so many limbs at the top level, special ones included in `all_limbs`.
    #[must_use]
    pub fn bytes(limbs: usize, all_limbs: usize, degree: usize) -> u64 {
        ((limbs + 2 * all_limbs + 2) * degree * 8) as u64
    }
}

/// Relinearisation at one level, with or without the rescale.
pub struct KeySwitch {
    limbs: usize,
    digits: Vec<Digit>,
    mod_down: ModDown,
    special_product: Vec<ShoupFactor>,
}

impl KeySwitch {
    /// For ciphertexts of `limbs` limbs. `rescale` divides by the last of them as well.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] if there are not that many limbs, or none would be left.
    pub fn new(context: &Context, limbs: usize, rescale: bool) -> Result<Self, CkksError> {
        let kept = limbs - usize::from(rescale && limbs > 0);
        if limbs > context.limbs() || kept == 0 {
            let expected = format!("{} to {}", 1 + usize::from(rescale), context.limbs());
            return Err(CkksError::Parameters { what: "limbs of a key switch", found: limbs.to_string(), expected });
        }
        let specials = context.limbs()..context.all_limbs();
        let step = context.parameters().digit_limbs();
        let digits = (0..limbs)
            .step_by(step)
            .map(|first| {
                let group = first..limbs.min(first + step);
                let targets: Vec<usize> = (0..limbs).filter(|l| !group.contains(l)).chain(specials.clone()).collect();
                let modulus = |&i: &usize| *context.modulus(i);
                let from: Vec<Modulus> = group.clone().map(|i| modulus(&i)).collect();
                let to: Vec<Modulus> = targets.iter().map(modulus).collect();
                Digit { limbs: group, extension: Extension::new(context.kernel(), &from, &to), targets }
            })
            .collect();
        let mut dropped: Vec<usize> = specials.collect();
        dropped.extend(kept..limbs);
        let special_product = (0..limbs).map(|i| context.modulus(i).shoup(context.special_product(i))).collect();
        Ok(Self { limbs, digits, mod_down: ModDown::new(context, dropped, kept), special_product })
    }

    /// Limbs of the results.
    #[must_use]
    pub fn output_limbs(&self) -> usize {
        self.mod_down.inverses.len()
    }

    /// Switches `components` (c0, c1, c2), each `[limb][N]` in the NTT domain, to two components of [`Self::output_limbs`] limbs in `out`.
    pub fn apply(
        &self,
        context: &Context,
        key: &KeySwitchKey,
        components: [&[u64]; 3],
        scratch: &mut Scratch,
        out: [&mut [u64]; 2],
    ) {
        let n = context.degree();
        let kernel = context.kernel();
        let primes = context.all_limbs();
        // Special primes keep their context number in the sums; limbs above the level stay unused.
        let [c0, c1, c2] = components;
        for (sums, component) in scratch.sums.iter_mut().zip([c0, c1]) {
            sums[context.limbs() * n..].fill(0);
            for limb in 0..self.limbs {
                let sum = &mut sums[limb * n..][..n];
                sum.copy_from_slice(&component[limb * n..][..n]);
                kernel.scale_assign(context.modulus(limb), sum, self.special_product[limb]);
            }
        }
        for limb in 0..self.limbs {
            let coefficients = &mut scratch.coefficients[limb * n..][..n];
            coefficients.copy_from_slice(&c2[limb * n..][..n]);
            context.ntt(limb).inverse_assign(coefficients);
        }
        for (d, digit) in self.digits.iter().enumerate() {
            let key_of = |prime: usize| (d * primes + prime) * n..(d * primes + prime + 1) * n;
            let add_product = |sums: &mut [Vec<u64>; 2], prime: usize, factor: &[u64]| {
                let [s0, s1] = sums;
                let m = context.modulus(prime);
                kernel.mul_add_assign(m, &mut s0[prime * n..][..n], factor, &key.b[key_of(prime)]);
                kernel.mul_add_assign(m, &mut s1[prime * n..][..n], factor, &key.a[key_of(prime)]);
            };
            let range = digit.limbs.start * n..digit.limbs.end * n;
            let mut sources: Vec<&mut [u64]> = scratch.coefficients[range].chunks_exact_mut(n).collect();
            digit.extension.prepare_assign(&mut sources);
            let sources: Vec<&[u64]> = sources.into_iter().map(|s| &*s).collect();
            digit.extension.quotients_into(&sources, &mut scratch.quotients);
            for limb in digit.limbs.clone() {
                add_product(&mut scratch.sums, limb, &c2[limb * n..][..n]);
            }
            for (t, &prime) in digit.targets.iter().enumerate() {
                digit.extension.extend_into(&sources, &scratch.quotients, t, &mut scratch.extended);
                context.ntt(prime).forward_assign(&mut scratch.extended);
                add_product(&mut scratch.sums, prime, &scratch.extended);
            }
        }
        for (component, out) in out.into_iter().enumerate() {
            let mut sums = std::mem::take(&mut scratch.sums[component]);
            self.mod_down.apply(context, &mut sums, |prime| prime, scratch, out);
            scratch.sums[component] = sums;
        }
    }
}
