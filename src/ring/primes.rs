//! Finding primes `q = 1 mod 4N` near a target.

use super::RingError;
use std::cell::RefCell;
use std::collections::HashMap;

/// The first primes. An odd number that passes Miller-Rabin to the first few of them is prime if it is below [`ENOUGH`]'s limit for so many.
const WITNESSES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
/// The least composite number that passes to so many of the first primes (OEIS A014233; Jaeschke 1993, Jiang and Deng 2014). All twelve
/// suffice for any word (Sorenson and Webster 2015).
const ENOUGH: [(u64, usize); 4] =
    [(2_152_302_898_747, 5), (3_474_749_660_383, 6), (341_550_071_728_321, 7), (3_825_123_056_546_413_051, 9)];

/// Deterministic Miller-Rabin for 64-bit integers.
#[must_use]
pub fn is_prime(n: u64) -> bool {
    if n < 2 {
        return false;
    }
    for p in WITNESSES {
        if n.is_multiple_of(p) {
            return n == p;
        }
    }
    let enough = ENOUGH.iter().find(|&&(limit, _)| n < limit).map_or(WITNESSES.len(), |&(_, count)| count);
    let montgomery = Montgomery::new(n);
    let (one, minus_one) = (montgomery.one, n - montgomery.one);
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    'witness: for &a in &WITNESSES[..enough] {
        let mut x = one;
        let (mut square, mut exponent) = (montgomery.image(a), odd);
        while exponent > 0 {
            if exponent & 1 == 1 {
                x = montgomery.mul(x, square);
            }
            square = montgomery.mul(square, square);
            exponent >>= 1;
        }
        if x == one || x == minus_one {
            continue;
        }
        for _ in 1..twos {
            x = montgomery.mul(x, x);
            if x == minus_one {
                continue 'witness;
            }
        }
        return false;
    }
    true
}

/// Products modulo any odd number above 1 without a division; `a` stands as its image `2^64 a` (Montgomery 1985). A plan asks for thousands of primes.
struct Montgomery {
    n: u64,
    /// `1 / n` modulo 2^64
    inverse: u64,
    /// The image of 1.
    one: u64,
}

impl Montgomery {
    fn new(n: u64) -> Self {
        // Of an odd n, n is its own inverse to three bits; each step doubles them.
        let inverse = (0..5).fold(n, |x, _| x.wrapping_mul(2u64.wrapping_sub(n.wrapping_mul(x))));
        Self { n, inverse, one: (u64::MAX % n + 1) % n }
    }

    fn image(&self, a: u64) -> u64 {
        (u128::from(a) * u128::from(self.one) % u128::from(self.n)) as u64
    }

    /// Of two images below n, that of the product.
    fn mul(&self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        let quotient = (product as u64).wrapping_mul(self.inverse);
        let taken = ((u128::from(quotient) * u128::from(self.n)) >> 64) as u64;
        let (difference, below) = ((product >> 64) as u64).overflowing_sub(taken);
        if below { difference.wrapping_add(self.n) } else { difference }
    }
}

/// Primes that were looked for, by the numbers tried: a search for parameters asks for the same ones hundreds of times.
#[derive(Debug, Default)]
pub struct Primes {
    tried: RefCell<HashMap<u64, bool>>,
}

impl Primes {
    fn is_prime(&self, n: u64) -> bool {
        *self.tried.borrow_mut().entry(n).or_insert_with(|| is_prime(n))
    }

    /// [`nearest`], remembering what is prime.
    ///
    /// # Errors
    /// As [`nearest`].
    pub fn nearest(&self, target: u64, degree: usize, used: &[u64]) -> Result<u64, RingError> {
        let order = 4 * degree as u64;
        let centre = target / order;
        let good = |k: u64| {
            let q = k.checked_mul(order)?.checked_add(1)?;
            ((1 << 33..1 << 50).contains(&q) && !used.contains(&q) && self.is_prime(q)).then_some(q)
        };
        for distance in 0..=centre / 2 {
            let below = good(centre.saturating_sub(distance));
            let above = good(centre + distance);
            match (below, above) {
                (Some(b), Some(a)) => return Ok(if a.abs_diff(target) < b.abs_diff(target) { a } else { b }),
                (Some(q), None) | (None, Some(q)) => return Ok(q),
                (None, None) => {}
            }
        }
        Err(RingError::NoPrime { target, order })
    }
}

/// The prime nearest to `target`, to within one step of `4 * degree`, that is 1 mod `4 * degree`, lies in `[2^33, 2^50)` and is not in `used`. Of two at
/// as many steps the nearer, then the smaller.
///
/// # Errors
/// [`RingError::NoPrime`] if there is none within a factor of two of the target.
pub fn nearest(target: u64, degree: usize, used: &[u64]) -> Result<u64, RingError> {
    Primes::default().nearest(target, degree, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primality_of_known_numbers() {
        for p in [2, 3, 37, 41, 65537, 1_099_511_480_321, 18_446_744_073_709_551_557] {
            assert!(is_prime(p), "{p}");
        }
        // Carmichael numbers, strong pseudoprimes to several bases, squares.
        for c in [0, 1, 561, 41041, 3_215_031_751, 3_825_123_056_546_413_051, 65537 * 65537, 18_446_744_073_709_551_615]
        {
            assert!(!is_prime(c), "{c}");
        }
    }

    #[test]
    fn numbers_that_pass_to_too_few_witnesses_are_found() {
        for (least_liar, _) in ENOUGH {
            assert!(!is_prime(least_liar), "{least_liar}");
        }
        // Around each limit and among the primes that plans use: the twelve witnesses decide alike.
        let all_witnesses = |n: u64| {
            WITNESSES.iter().all(|&a| {
                let wide = |x: u64, y: u64| (u128::from(x) * u128::from(y) % u128::from(n)) as u64;
                let pow = |base: u64, exponent: u64| {
                    (0..64).rev().fold(1, |x, bit| {
                        let square = wide(x, x);
                        if exponent >> bit & 1 == 1 { wide(square, base) } else { square }
                    })
                };
                let twos = (n - 1).trailing_zeros();
                let first = pow(a, (n - 1) >> twos);
                first == 1 || (0..twos).any(|k| pow(first, 1 << k) == n - 1)
            })
        };
        let starts = ENOUGH.map(|(limit, _)| limit - 2 * 200).into_iter().chain([(1 << 40) + 1, (1 << 45) + 1]);
        for n in starts.flat_map(|start| (0..400).map(move |i| start + 2 * i)) {
            let expected = !WITNESSES.iter().any(|&p| n.is_multiple_of(p)) && all_witnesses(n);
            assert_eq!(is_prime(n), expected, "{n}");
        }
    }

    #[test]
    fn nearest_is_nearest_and_distinct() {
        let (degree, target) = (1usize << 13, (1u64 << 40) + 12345);
        let mut used = Vec::new();
        for _ in 0..6 {
            let q = nearest(target, degree, &used).unwrap();
            assert!(is_prime(q) && q % (4 * degree as u64) == 1 && !used.contains(&q));
            used.push(q);
        }
        let distances: Vec<u64> = used.iter().map(|q| q.abs_diff(target)).collect();
        assert!(distances.windows(2).all(|w| w[0] <= w[1] + 4 * degree as u64), "{distances:?}");
        let brute = (1..).map(|d| (target / 32768 * 32768 + 1 - d * 32768).max(2)).find(|&q| is_prime(q)).unwrap();
        assert!(used[0].abs_diff(target) <= brute.abs_diff(target));
    }

    #[test]
    fn no_prime_is_an_error() {
        assert!(matches!(nearest(1 << 20, 8192, &[]), Err(RingError::NoPrime { .. })));
    }
}
