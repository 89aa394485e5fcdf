//! A share found in a sample, with its confidence interval; and drawing the sample.

use std::collections::BTreeSet;

use crate::net::sample::Random;

/// Standard normal quantile of a two-sided interval of 95 %.
const Z: f64 = 1.959_964;

/// The Wilson interval (J. Amer. Stat. Assoc. 22, 1927) of `part` out of `whole`, at 95 %; it stays within 0 to 1 and is
/// sound for few and for all.
pub(super) fn wilson(part: usize, whole: usize) -> (f64, f64) {
    if whole == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (whole as f64, part as f64 / whole as f64);
    let squared = Z * Z / n;
    let centre = (share + squared / 2.0) / (1.0 + squared);
    let half = Z / (1.0 + squared) * (share * (1.0 - share) / n + squared / (4.0 * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// `count` different numbers below `below` (all, where there are fewer), ascending: Floyd's algorithm.
pub(super) fn draw(count: usize, below: u64, random: &mut Random) -> Vec<u64> {
    let count = (count as u64).min(below);
    let mut drawn = BTreeSet::new();
    for last in below - count..below {
        let pick = random.below((last + 1) as usize) as u64;
        if !drawn.insert(pick) {
            drawn.insert(last);
        }
    }
    drawn.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        let near = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 5e-4 && (high - expected.1).abs() < 5e-4, "{low} {high}");
        };
        // 20 of 20 and 19 of 20, as tables have them.
        near(wilson(20, 20), (0.8389, 1.0));
        near(wilson(19, 20), (0.7639, 0.9911));
        near(wilson(0, 20), (0.0, 0.1611));
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn draws_are_different_numbers_in_order_and_each_is_possible() {
        let mut seen = [0; 10];
        for seed in 0..200 {
            let drawn = draw(3, 10, &mut Random::new(seed));
            assert_eq!(drawn.len(), 3);
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn[2] < 10);
            drawn.iter().for_each(|&image| seen[image as usize] += 1);
        }
        assert!(seen.iter().all(|&times| (30..90).contains(&times)), "{seen:?}");
        assert_eq!(draw(20, 4, &mut Random::new(1)), [0, 1, 2, 3]);
    }
}
