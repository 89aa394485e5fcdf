//! The transform of the conjugate-invariant ring: fold, twist, and the negacyclic transform of `tfhe-ntt`; or a kernel's own.
//!
//! With `gamma` a primitive 4N-th root of unity, `I = -gamma^N` (so `I^2 = -1`) an element `a` folds to
//! `c_0 = a_0, c_j = a_j - I a_{N-j}`, a polynomial modulo `X^N - I`; multiplied by `gamma^j` it is one whose negacyclic transform gives the values
//! of the ring element (Kim and Song, eprint 2018/952). A kernel's own transform needs no such twist: it splits `X^N - I`.
//!
//! **Order, pinned by tests and written to every file:** residue `k` of the NTT domain is the element's value at
//! `X = gamma^(4 brv(k) + 3)`, `brv` reversing log2(N) bits. `gamma` is the smaller square root of the primitive 2N-th
//! root that the transform library uses; files carry it, so that no library upgrade changes their meaning unseen.
//!
//! This is the only door to `tfhe-ntt`. Only its forward and inverse transforms are used, only for primes below 2^50, and each
//! plan is checked when it is made.

use super::kernels::{Extending, Kernel, ShoupTable, Transform};
use super::modulus::ShoupFactor;
use super::{Modulus, RingError, primes};

/// Smallest ring degree (tests); real parameters begin at 4096.
pub const MIN_DEGREE: usize = 16;
/// Largest ring degree in the security table.
pub const MAX_DEGREE: usize = 65_536;

/// Forward and inverse transform for one prime.
pub struct Ntt {
    degree: usize,
    modulus: Modulus,
    gamma: u64,
    kernel: Kernel,
    engine: Engine,
}

/// Who transforms.
enum Engine {
    /// The kernel tier.
    Kernel(Box<Transform>),
    Library(Box<Library>),
}

/// The library's negacyclic transform, folded and twisted into.
struct Library {
    plan: tfhe_ntt::prime64::Plan,
    /// `-I`, the weight of the mirrored coefficient on the way in.
    fold: ShoupFactor,
    /// `I`, on the way back.
    unfold: ShoupFactor,
    /// `gamma^j`
    twist: ShoupTable,
    /// `gamma^-j / 2N`
    untwist: ShoupTable,
}

impl std::fmt::Debug for Ntt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ntt(degree {}, modulus {})", self.degree(), self.modulus.value())
    }
}

impl Ntt {
    /// Prepares the transform and checks it against its definition.
    ///
    /// # Errors
    /// [`RingError::Degree`], [`RingError::ModulusRange`], [`RingError::NotNttPrime`], or [`RingError::SelfTest`] if the library's
    /// transform, or the kernel's own, is not the documented one.
    pub fn new(degree: usize, q: u64, kernel: Kernel) -> Result<Self, RingError> {
        if !degree.is_power_of_two() || !(MIN_DEGREE..=MAX_DEGREE).contains(&degree) {
            return Err(RingError::Degree { found: degree, min: MIN_DEGREE, max: MAX_DEGREE });
        }
        let modulus = Modulus::new(q)?;
        let order = 4 * degree as u64;
        let not_prime = RingError::NotNttPrime { found: q, order };
        if q % order != 1 || !primes::is_prime(q) {
            return Err(not_prime);
        }
        let plan = tfhe_ntt::prime64::Plan::try_new(degree, q).ok_or(not_prime)?;
        let self_test = RingError::SelfTest { modulus: q, degree };

        // The transform of Y lists the library's evaluation points; the first must be its root psi.
        let mut points = vec![0; degree];
        points[1] = 1;
        plan.fwd(&mut points);
        let psi = points[0];
        let square = modulus.mul(psi, psi);
        let mut odd_powers = std::iter::successors(Some(psi), |&power| Some(modulus.mul(power, square))).zip(0..degree);
        let in_order = odd_powers.all(|(power, j)| points[reversed_bits(j, degree)] == power);
        if modulus.pow(psi, degree as u64) != q - 1 || !in_order {
            return Err(self_test);
        }
        let Some(gamma) = square_root(&modulus, psi, degree) else { return Err(self_test) };
        let powers = |base: u64, first: u64| {
            std::iter::successors(Some(first), move |&p| Some(modulus.mul(p, base))).take(degree)
        };
        let engine = match kernel.transform(&modulus, degree, gamma) {
            Some(transform) => Engine::Kernel(Box::new(transform)),
            None => {
                let imaginary = modulus.neg(modulus.pow(gamma, degree as u64));
                let (inverse_gamma, inverse_2n) = (modulus.inv(gamma), modulus.inv(2 * degree as u64));
                Engine::Library(Box::new(Library {
                    plan,
                    fold: modulus.shoup(modulus.neg(imaginary)),
                    unfold: modulus.shoup(imaginary),
                    twist: ShoupTable::new(&modulus, powers(gamma, 1)),
                    untwist: ShoupTable::new(&modulus, powers(inverse_gamma, inverse_2n)),
                }))
            }
        };
        let ntt = Self { degree, modulus, gamma, kernel, engine };
        // All values of X + 1/X by their definition, then a dense round trip: every butterfly of both directions.
        let mut x = vec![0; degree];
        x[1] = 1;
        ntt.forward_assign(&mut x);
        let inverse_gamma = modulus.inv(gamma);
        let steps = [gamma, inverse_gamma].map(|g| modulus.pow(g, 4));
        let (mut point, mut inverse) = (modulus.pow(gamma, 3), modulus.pow(inverse_gamma, 3));
        for j in 0..degree {
            if x[reversed_bits(j, degree)] != modulus.add(point, inverse) {
                return Err(self_test);
            }
            (point, inverse) = (modulus.mul(point, steps[0]), modulus.mul(inverse, steps[1]));
        }
        let original: Vec<u64> = powers(0x1234_5678_9abc_def1 % q, q - 1).collect();
        x.copy_from_slice(&original);
        ntt.forward_assign(&mut x);
        ntt.inverse_assign(&mut x);
        if x == original { Ok(ntt) } else { Err(self_test) }
    }

    /// Number of coefficients N.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The prime.
    #[must_use]
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// The primitive 4N-th root of unity that fixes the order of the NTT domain.
    #[must_use]
    pub fn gamma(&self) -> u64 {
        self.gamma
    }

    /// Coefficients to NTT domain; residues in `[0, q)` before and after.
    pub fn forward_assign(&self, x: &mut [u64]) {
        match &self.engine {
            Engine::Kernel(transform) => transform.forward_assign(x),
            Engine::Library(library) => {
                self.kernel.fold_twist_assign(&self.modulus, x, library.fold, &library.twist);
                library.plan.fwd(x);
            }
        }
    }

    /// [`Self::forward_assign`] of a base extension's result, which is folded as it is made.
    pub(super) fn forward_extended_into(&self, from: &Extending<'_>, out: &mut [u64]) {
        match &self.engine {
            Engine::Kernel(transform) => transform.forward_extended_into(from, out),
            Engine::Library(library) => {
                self.kernel.extend_twist_into(&self.modulus, from, library.fold, &library.twist, out);
                library.plan.fwd(out);
            }
        }
    }

    /// NTT domain to coefficients; residues in `[0, q)` before and after.
    pub fn inverse_assign(&self, x: &mut [u64]) {
        self.inverse_scaled_assign(x, 1);
    }

    /// [`Self::inverse_assign`], times a factor below q.
    pub fn inverse_scaled_assign(&self, x: &mut [u64], factor: u64) {
        match &self.engine {
            Engine::Kernel(transform) => transform.inverse_scaled_assign(x, factor),
            Engine::Library(library) => {
                library.plan.inv(x);
                self.kernel.untwist_unfold_assign(&self.modulus, x, library.unfold, &library.untwist);
                if factor != 1 {
                    self.kernel.scale_assign(&self.modulus, x, self.modulus.shoup(factor));
                }
            }
        }
    }
}

/// `k` with its log2(degree) bits reversed.
#[must_use]
pub fn reversed_bits(k: usize, degree: usize) -> usize {
    // Of one residue there is nothing to reverse.
    k.reverse_bits().checked_shr(usize::BITS - degree.trailing_zeros()).unwrap_or(0)
}

/// The smaller square root of `psi`, a primitive 2N-th root of unity.
fn square_root(m: &Modulus, psi: u64, degree: usize) -> Option<u64> {
    // Any primitive 4N-th root g generates psi = g^(2 e) with e odd; then gamma = g^e.
    let order = 4 * degree as u64;
    let cofactor = (m.value() - 1) / order;
    let g = (2..1000).map(|x| m.pow(x, cofactor)).find(|&g| m.pow(g, order / 2) == m.value() - 1)?;
    let square = m.mul(g, g);
    let (mut power, step) = (g, square);
    let mut even_power = square;
    let twice = m.mul(square, square);
    for _ in 0..degree {
        if even_power == psi {
            return Some(power.min(m.neg(power)));
        }
        power = m.mul(power, step);
        even_power = m.mul(even_power, twice);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prime(degree: usize, bits: u32) -> u64 {
        primes::nearest(1 << bits, degree, &[]).unwrap()
    }

    /// Product in Z[X + 1/X] / (X^2N + 1) by its definition, over integers: expand to Laurent polynomials of degree < N, multiply,
    /// fold X^(2N) = -1, and read off the coefficients of X^0 .. X^(N-1).
    fn exact_product(a: &[i128], b: &[i128]) -> Vec<i128> {
        let n = a.len() as i64;
        let expand = |f: &[i128]| -> Vec<(i64, i128)> {
            let mut terms = vec![(0, f[0])];
            terms.extend((1..n).flat_map(|i| [(i, f[i as usize]), (-i, f[i as usize])]));
            terms
        };
        let mut full = vec![0i128; 4 * n as usize];
        for &(i, x) in &expand(a) {
            for &(j, y) in &expand(b) {
                full[(i + j + 2 * n) as usize] += x * y;
            }
        }
        let mut reduced = vec![0i128; 2 * n as usize];
        for (at, &value) in full.iter().enumerate() {
            let exponent = at as i64 - 2 * n;
            let sign = if exponent.div_euclid(2 * n) % 2 == 0 { 1 } else { -1 };
            reduced[exponent.rem_euclid(2 * n) as usize] += sign * value;
        }
        // Conjugation invariance: X^(2N - i) = -X^-i, and the coefficient of X^N vanishes.
        for i in 1..n as usize {
            assert_eq!(reduced[2 * n as usize - i], -reduced[i]);
        }
        assert_eq!(reduced[n as usize], 0);
        reduced[..n as usize].to_vec()
    }

    #[test]
    fn products_equal_exact_integer_arithmetic() {
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            i128::from((state >> 44) as i64 - (1 << 19))
        };
        for kernel in Kernel::present() {
            for degree in [16, 32, 64] {
                for bits in [34, 40, 44, 49] {
                    let ntt = Ntt::new(degree, prime(degree, bits), kernel).unwrap();
                    let m = *ntt.modulus();
                    let a: Vec<i128> = (0..degree).map(|_| next()).collect();
                    let b: Vec<i128> = (0..degree).map(|_| next()).collect();
                    let lift = |f: &[i128]| -> Vec<u64> { f.iter().map(|&x| m.from_i128(x)).collect() };
                    let (mut x, mut y) = (lift(&a), lift(&b));
                    ntt.forward_assign(&mut x);
                    ntt.forward_assign(&mut y);
                    let mut z = vec![0; degree];
                    kernel.mul_into(&m, &x, &y, &mut z);
                    ntt.inverse_assign(&mut z);
                    assert_eq!(z, lift(&exact_product(&a, &b)), "degree {degree}, {bits} bits");
                }
            }
        }
    }

    #[test]
    fn order_is_the_documented_one() {
        for degree in [16, 128] {
            let ntt = Ntt::new(degree, prime(degree, 40), Kernel::detect()).unwrap();
            let m = ntt.modulus();
            let a: Vec<u64> = (0..degree as u64).map(|i| i * i + 3).collect();
            let mut x = a.clone();
            ntt.forward_assign(&mut x);
            for (k, &found) in x.iter().enumerate() {
                let point = m.pow(ntt.gamma(), 4 * reversed_bits(k, degree) as u64 + 3);
                let inverse = m.inv(point);
                let value = (1..degree).fold(a[0], |sum, i| {
                    let pair = m.add(m.pow(point, i as u64), m.pow(inverse, i as u64));
                    m.add(sum, m.mul(a[i], pair))
                });
                assert_eq!(found, value, "residue {k} of degree {degree}");
            }
        }
    }

    /// A kernel's own transform is the library's, word for word, at all its degrees and at the smallest and largest primes.
    #[test]
    fn kernels_transform_as_the_library_does() {
        let mut state = 11u64;
        let mut next = move |q: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 13) % q
        };
        let degrees = (4..=16).map(|log| 1usize << log);
        for (degree, kernel) in degrees.flat_map(|n| Kernel::present().into_iter().map(move |kernel| (n, kernel))) {
            let below = |bits: u32| primes::nearest((1 << bits) - (1 << (bits - 6)), degree, &[]).unwrap();
            let largest = primes::nearest((1 << 45) - (1 << 24), degree, &[]).unwrap();
            assert!(largest < 1 << 45);
            for q in [prime(degree, 34), below(40), largest, below(49)] {
                let reference = Ntt::new(degree, q, Kernel::portable()).unwrap();
                let ntt = Ntt::new(degree, q, kernel).unwrap();
                let mut same = vec![q - 1; degree];
                let alternating: Vec<u64> = (0..degree as u64).map(|i| (q - 1) * (i % 2)).collect();
                let random: Vec<u64> = (0..degree).map(|_| next(q)).collect();
                same[0] = 0;
                for x in [same, alternating, random] {
                    let (mut found, mut expected) = (x.clone(), x.clone());
                    ntt.forward_assign(&mut found);
                    reference.forward_assign(&mut expected);
                    assert!(found == expected, "{}, degree {degree}, modulus {q}: forward", kernel.name());
                    let (mut found, mut expected) = (x.clone(), x);
                    ntt.inverse_scaled_assign(&mut found, q - 2);
                    reference.inverse_scaled_assign(&mut expected, q - 2);
                    assert!(found == expected, "{}, degree {degree}, modulus {q}: back", kernel.name());
                }
            }
        }
    }

    #[test]
    fn known_answers_pin_root_and_order() {
        let ntt = Ntt::new(8192, prime(8192, 40), Kernel::detect()).unwrap();
        let mut x: Vec<u64> = (0..8192).collect();
        ntt.forward_assign(&mut x);
        let found = (ntt.modulus().value(), ntt.gamma(), x[0], x[1], x[8191]);
        assert_eq!(found, KNOWN_ANSWER);
    }

    const KNOWN_ANSWER: (u64, u64, u64, u64, u64) =
        (1_099_511_922_689, 299_843_014_790, 453_242_314_820, 825_816_725_445, 63_456_726_384);

    #[test]
    fn bad_parameters_are_errors() {
        let q = prime(8192, 40);
        let new = |n, q| Ntt::new(n, q, Kernel::portable()).map(|_| ()).unwrap_err();
        assert!(matches!(new(100, q), RingError::Degree { found: 100, .. }));
        assert!(matches!(new(1 << 17, q), RingError::Degree { .. }));
        assert!(matches!(new(8192, (1 << 51) - 129), RingError::ModulusRange { .. }));
        assert!(matches!(new(8192, (1 << 40) + 15), RingError::NotNttPrime { .. }));
        assert!(matches!(new(65536, prime(8192, 40)), RingError::NotNttPrime { .. }));
    }
}
