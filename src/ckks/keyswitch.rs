//! Key switching from (c0, c1, c2) to (c0, c1), jointly with division by the special primes and, if asked, the last prime.
//!
//! c2 is cut into digits of a few limbs, each extended to all other primes (centred), multiplied with the key, and the sum is divided
//! by P q_l at once: one rounding, 2L + 2 transforms instead of 4L + 2 (ENGINE section 7). The hybrid method of Han and Ki
//! (eprint 2019/688), with the rescale merged.
//!
//! Several ciphertexts go together, prime by prime: a prime's part of the key is then read once for all of them, and what a prime adds to
//! a ciphertext is summed, divided and stored while it lies in the cache.

use super::keys::EvaluationKey;
use super::{CkksError, Context};
use crate::ring::extend::Extension;
use crate::ring::kernels::{ProductSums, Strided};
use crate::ring::modulus::ShoupFactor;
use crate::ring::{Lines, Modulus};
use std::ops::Range;

/// The key with its masks expanded, ready for use at any level.
pub struct KeySwitchKey {
    /// `[digit][prime][N]`, NTT domain
    a: Lines,
    b: Lines,
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
        let a = key.expand_masks(context);
        Ok(Self { a, b: key.b.as_slice().into() })
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
        Self { dropped, extension: Extension::new(&from, &to), inverses }
    }

    /// `out = round(x / dropped)` for dropped primes that follow the kept ones and each other. `x` holds the component, `[prime][N]` in the NTT domain; its
    /// dropped limbs are overwritten. `out` is `[kept][N]` in the NTT domain.
    pub fn apply(&self, context: &Context, x: &mut [u64], out: &mut [u64]) {
        let n = context.degree();
        debug_assert!(self.dropped.iter().copied().eq(self.inverses.len()..x.len() / n), "{:?}", self.dropped);
        let (kept, sources) = x.split_at_mut(self.inverses.len() * n);
        for ((source, &prime), x) in self.dropped.iter().enumerate().zip(sources.chunks_exact_mut(n)) {
            self.extension.prepare_assign(source, context.ntt(prime), x);
        }
        self.extension.finish_assign(context.kernel(), sources);
        let sources: Vec<&[u64]> = sources.chunks_exact(n).collect();
        for ((t, out), value) in out.chunks_exact_mut(n).enumerate().zip(kept.chunks_exact(n)) {
            self.extension.forward_into(&sources, t, context.ntt(t), out);
            context.kernel().subtract_from_scaled_assign(context.modulus(t), out, value, self.inverses[t]);
        }
    }
}

/// Ciphertexts that are switched together, wherever and however their residues lie.
///
/// A limb of c0 and c1 is loaded before it is stored and not again: results may take the place of what they come from. Component 1 of a limb is
/// loaded next after component 0; component 2 not after they are stored.
pub trait Ciphertexts {
    /// How many.
    fn count(&self) -> usize;

    /// Residues of a limb of component 0, 1 or 2 in the NTT domain; those of c0 and c1 of a ciphertext that is relinearised may be `q` itself.
    fn load_into(&mut self, ciphertext: usize, component: usize, limb: usize, out: &mut [u64]);

    /// The same of all ciphertexts, at least one, each `apart` words after the one before.
    fn load_all_into(&mut self, component: usize, limb: usize, apart: usize, out: &mut [u64]) {
        let degree = out.len() - (self.count() - 1) * apart;
        for ciphertext in 0..self.count() {
            self.load_into(ciphertext, component, limb, &mut out[ciphertext * apart..][..degree]);
        }
    }

    /// Takes a limb of component 0 or 1 of the result, in the NTT domain.
    fn store(&mut self, ciphertext: usize, component: usize, limb: usize, residues: &[u64]);
}

/// One ciphertext in plain buffers, `[limb][N]` each.
struct Plain<'a> {
    degree: usize,
    components: [&'a [u64]; 3],
    out: [&'a mut [u64]; 2],
}

impl Ciphertexts for Plain<'_> {
    fn count(&self) -> usize {
        1
    }

    fn load_into(&mut self, _: usize, component: usize, limb: usize, out: &mut [u64]) {
        out.copy_from_slice(&self.components[component][limb * self.degree..][..self.degree]);
    }

    fn store(&mut self, _: usize, component: usize, limb: usize, residues: &[u64]) {
        self.out[component][limb * self.degree..][..self.degree].copy_from_slice(residues);
    }
}

/// Working memory of key switches, reused by one thread. Grows to what is asked of it.
#[derive(Default)]
pub struct Scratch {
    /// c2 as coefficients, ready to be extended: `[ciphertext][limb][N]`
    coefficients: Lines,
    /// Sums modulo the primes divided out, ready to be extended: `[ciphertext][component][prime][N]`
    dropped: Lines,
    /// c2 modulo one prime, a digit each: `[digit][N]`
    digits: Lines,
    /// c0 and c1 modulo one prime.
    limb: Lines,
    /// What is divided out modulo one prime: `[component][N]`
    extended: Lines,
}

impl Scratch {
    /// Bytes held for so many ciphertexts at once, of so many limbs, with so many special primes and digits.
    #[must_use]
    pub fn bytes(ciphertexts: usize, limbs: usize, special: usize, digits: usize, degree: usize) -> u64 {
        ((ciphertexts * (limbs + 2 * (special + 1)) + digits + 4) * degree * 8) as u64
    }
}

/// Relinearisation at one level with or without the rescale, or the rescale alone.
pub struct KeySwitch {
    limbs: usize,
    digits: Vec<Digit>,
    mod_down: ModDown,
    /// P modulo the primes of the ciphertext.
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
                Digit { limbs: group, extension: Extension::new(&from, &to), targets }
            })
            .collect();
        let mut dropped: Vec<usize> = specials.collect();
        dropped.extend(kept..limbs);
        let special_product = (0..limbs).map(|i| context.modulus(i).shoup(context.special_product(i))).collect();
        Ok(Self { limbs, digits, mod_down: ModDown::new(context, dropped, kept), special_product })
    }

    /// The rescale alone, of ciphertexts of two components and `limbs` limbs: no key is used.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] if there are not that many limbs, or none would be left.
    pub fn rescale(context: &Context, limbs: usize) -> Result<Self, CkksError> {
        if !(2..=context.limbs()).contains(&limbs) {
            let expected = format!("2 to {}", context.limbs());
            return Err(CkksError::Parameters { what: "limbs of a rescale", found: limbs.to_string(), expected });
        }
        let mod_down = ModDown::new(context, vec![limbs - 1], limbs - 1);
        Ok(Self { limbs, digits: Vec::new(), mod_down, special_product: Vec::new() })
    }

    /// Limbs of the results.
    #[must_use]
    pub fn output_limbs(&self) -> usize {
        self.mod_down.inverses.len()
    }

    /// Transforms that a ciphertext takes.
    #[must_use]
    pub fn transforms(&self) -> usize {
        let kept = self.output_limbs();
        self.digits.iter().map(|digit| digit.limbs.len()).sum::<usize>()
            + self.digits.iter().map(|digit| digit.targets.len()).sum::<usize>()
            + 2 * (self.mod_down.dropped.len() + kept)
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
        self.apply_all(context, key, &mut Plain { degree: context.degree(), components, out }, scratch);
    }

    /// Switches all ciphertexts to two components of [`Self::output_limbs`] limbs each.
    pub fn apply_all(
        &self,
        context: &Context,
        key: &KeySwitchKey,
        ciphertexts: &mut dyn Ciphertexts,
        scratch: &mut Scratch,
    ) {
        let n = context.degree();
        let count = ciphertexts.count();
        if count == 0 {
            return;
        }
        let dropped_primes = self.mod_down.dropped.len();
        let words = if self.digits.is_empty() { 0 } else { self.limbs * n };
        let coefficients = scratch.coefficients.first(count * words);
        for digit in &self.digits {
            for (source, limb) in digit.limbs.clone().enumerate() {
                let all = limb * n..(count - 1) * words + (limb + 1) * n;
                ciphertexts.load_all_into(2, limb, words, &mut coefficients[all]);
                for coefficients in coefficients.chunks_exact_mut(words) {
                    digit.extension.prepare_assign(source, context.ntt(limb), &mut coefficients[limb * n..][..n]);
                }
            }
            for coefficients in coefficients.chunks_exact_mut(words) {
                let of_digit = digit.limbs.start * n..digit.limbs.end * n;
                digit.extension.finish_assign(context.kernel(), &mut coefficients[of_digit]);
            }
        }
        let coefficients = &*coefficients;
        let dropped = scratch.dropped.first(count * 2 * dropped_primes * n);
        let digits = scratch.digits.first(self.digits.len() * n);
        let limb = scratch.limb.first(2 * n);
        let extended = scratch.extended.first(2 * n);
        let kernel = context.kernel();

        // The primes to be divided out come first: what is left of them is subtracted from each of the others.
        for (at, &prime) in self.mod_down.dropped.iter().enumerate() {
            for (ciphertext, dropped) in dropped.chunks_exact_mut(2 * dropped_primes * n).enumerate() {
                let (first, second) = dropped.split_at_mut(dropped_primes * n);
                let [a, b] = [first, second].map(|part| &mut part[at * n..][..n]);
                let coefficients = &coefficients[ciphertext * words..][..words];
                self.load(context, ciphertexts, ciphertext, prime, coefficients, [&mut *digits, &mut *limb]);
                if self.digits.is_empty() {
                    a.copy_from_slice(&limb[..n]);
                    b.copy_from_slice(&limb[n..]);
                } else {
                    let sums = self.sums(context, key, prime, digits, limb);
                    kernel.sum_products_into(context.modulus(prime), &sums, [&mut *a, &mut *b]);
                }
                for sum in [a, b] {
                    self.mod_down.extension.prepare_assign(at, context.ntt(prime), sum);
                }
            }
        }
        for dropped in dropped.chunks_exact_mut(dropped_primes * n) {
            self.mod_down.extension.finish_assign(kernel, dropped);
        }
        for prime in 0..self.output_limbs() {
            let (m, inverse) = (context.modulus(prime), self.mod_down.inverses[prime]);
            for (ciphertext, dropped) in dropped.chunks_exact(2 * dropped_primes * n).enumerate() {
                for (dropped, out) in dropped.chunks_exact(dropped_primes * n).zip(extended.chunks_exact_mut(n)) {
                    let sources: Vec<&[u64]> = dropped.chunks_exact(n).collect();
                    self.mod_down.extension.forward_into(&sources, prime, context.ntt(prime), out);
                }
                let (a, b) = extended.split_at_mut(n);
                let coefficients = &coefficients[ciphertext * words..][..words];
                self.load(context, ciphertexts, ciphertext, prime, coefficients, [&mut *digits, &mut *limb]);
                if self.digits.is_empty() {
                    kernel.subtract_from_scaled_assign(m, a, &limb[..n], inverse);
                    kernel.subtract_from_scaled_assign(m, b, &limb[n..], inverse);
                } else {
                    let sums = self.sums(context, key, prime, digits, limb);
                    kernel.subtract_from_products_assign(m, &sums, inverse, [&mut *a, &mut *b]);
                }
                for (component, out) in [a, b].into_iter().enumerate() {
                    ciphertexts.store(ciphertext, component, prime, out);
                }
            }
        }
    }

    /// The digits of c2 modulo a prime, from its coefficients, prepared, or from where it lies; and c0 and c1.
    fn load(
        &self,
        context: &Context,
        ciphertexts: &mut dyn Ciphertexts,
        ciphertext: usize,
        prime: usize,
        coefficients: &[u64],
        [digits, limb]: [&mut [u64]; 2],
    ) {
        let n = context.degree();
        for (digit, out) in self.digits.iter().zip(digits.chunks_exact_mut(n)) {
            match digit.targets.iter().position(|&target| target == prime) {
                Some(target) => {
                    let range = digit.limbs.start * n..digit.limbs.end * n;
                    let sources: Vec<&[u64]> = coefficients[range].chunks_exact(n).collect();
                    digit.extension.forward_into(&sources, target, context.ntt(prime), out);
                }
                None => ciphertexts.load_into(ciphertext, 2, prime, out),
            }
        }
        // Special primes have no residues of the ciphertext, and P is zero modulo each of them.
        if prime < self.limbs {
            for (component, out) in limb.chunks_exact_mut(n).enumerate() {
                ciphertexts.load_into(ciphertext, component, prime, out);
            }
        }
    }

    /// `P c + sum over digits of (digit, key)` modulo one prime, for both components.
    fn sums<'a>(
        &self,
        context: &Context,
        key: &'a KeySwitchKey,
        prime: usize,
        digits: &'a [u64],
        limb: &'a [u64],
    ) -> ProductSums<'a> {
        let n = context.degree();
        let keys =
            [&key.b, &key.a].map(|part| Strided { words: &part.words()[prime * n..], stride: context.all_limbs() * n });
        ProductSums {
            count: self.digits.len(),
            factors: Strided { words: digits, stride: n },
            keys,
            start: self.special_product.get(prime).map(|&product| (product, [&limb[..n], &limb[n..]])),
        }
    }
}
