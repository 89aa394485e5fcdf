//! Decrypted logits held against the two oracles and the true labels. Numbers only: no files, no keys.

use serde_json::{Value, json};

use crate::cli::oracles::{Oracles, labels, max_difference, same, share};
use crate::client::exceeds;

/// Least difference told apart, so that a precision is a finite number of bits.
const FINEST_DIFFERENCE: f64 = 1e-18;

/// How decrypted results compare.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Comparison {
    pub(in crate::cli) images: usize,
    /// Shares of images, 0 to 1.
    pub(in crate::cli) accuracy_encrypted: f64,
    /// Of the network as trained.
    pub(in crate::cli) accuracy_clear: f64,
    pub(in crate::cli) agreement_integer: f64,
    pub(in crate::cli) agreement_float: f64,
    /// -log2 of the largest difference from the integer oracle, over the images that precision is promised for.
    pub(in crate::cli) precision_bits: f64,
    /// Images with scores beyond those of all calibration images, by the integer oracle: no precision is promised for them.
    pub(in crate::cli) beyond: Vec<usize>,
    /// The same difference over these; none where there are none.
    pub(in crate::cli) precision_beyond_bits: Option<f64>,
    /// Images whose label differs from the integer oracle's and whose two logits are too close to tell, or beyond the calibration.
    pub(in crate::cli) ties: Vec<Tie>,
    /// Images whose label differs although their logits are not close.
    pub(in crate::cli) wrong: Vec<Tie>,
}

/// An image whose decrypted label is not the integer oracle's.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Tie {
    pub(in crate::cli) image: usize,
    pub(in crate::cli) encrypted: u16,
    pub(in crate::cli) integer: u16,
    /// The oracle's logit of its own label less that of the other.
    pub(in crate::cli) gap: f64,
}

impl Tie {
    pub(super) fn json(&self) -> Value {
        json!({ "image": self.image, "encrypted": self.encrypted, "integer": self.integer, "gap": self.gap })
    }
}

/// Compares `decrypted` = `[image][class]`. Each logit is promised to 2^-`promised_bits`, so two that lie closer than twice
/// that may change places; of an image with scores beyond `score_limit` nothing is promised.
pub(super) fn compare(
    decrypted: &[f64],
    oracles: &Oracles,
    truth: &[u16],
    promised_bits: f64,
    score_limit: f64,
) -> Comparison {
    let classes = oracles.classes;
    let found = labels(decrypted, classes);
    let (float, integer) = (oracles.float_labels(), oracles.integer_labels());
    let limit = 2.0 * (-promised_bits).exp2();
    let mut beyond = Vec::new();
    let (mut largest, mut largest_beyond) = (0.0, 0.0);
    let images = decrypted.chunks_exact(classes).zip(oracles.integer.chunks_exact(classes));
    for (image, (decrypted, exact)) in images.enumerate() {
        let difference = max_difference(decrypted, exact);
        // By what should have come out: what came out may be wrong.
        if exceeds(exact, score_limit) {
            beyond.push(image);
            largest_beyond = difference.max(largest_beyond);
        } else {
            largest = difference.max(largest);
        }
    }
    let bits = |difference: f64| -difference.max(FINEST_DIFFERENCE).log2();
    let differing = found.iter().zip(&integer).enumerate().filter(|(_, (found, integer))| found != integer);
    let (ties, wrong) = differing
        .map(|(image, (&encrypted, &integer))| {
            let logit = |label: u16| oracles.integer[image * classes + usize::from(label)];
            Tie { image, encrypted, integer, gap: logit(integer) - logit(encrypted) }
        })
        .partition(|tie| tie.gap < limit || beyond.contains(&tie.image));
    let images = found.len();
    Comparison {
        images,
        accuracy_encrypted: share(same(&found, truth), images),
        accuracy_clear: share(same(&float, truth), images),
        agreement_integer: share(same(&found, &integer), images),
        agreement_float: share(same(&found, &float), images),
        precision_bits: bits(largest),
        precision_beyond_bits: (!beyond.is_empty()).then(|| bits(largest_beyond)),
        beyond,
        ties,
        wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_is_told_from_a_wrong_label() {
        let integer = vec![1.0, 0.0, 0.5, 0.4999, 0.0, 2.0, 3.0, 1.0];
        let float = vec![1.0, 0.0, 0.4, 0.5, 0.0, 2.0, 3.0, 1.0];
        let oracles = Oracles { classes: 2, float, integer: integer.clone() };
        let mut decrypted = integer.clone();
        decrypted[3] += 1.0 / 4096.0;
        let comparison = compare(&decrypted, &oracles, &[0, 1, 1, 1], 10.0, 8.0);
        assert_eq!(comparison.precision_bits, 12.0);
        assert_eq!((comparison.images, comparison.accuracy_encrypted, comparison.accuracy_clear), (4, 0.75, 0.75));
        assert_eq!((comparison.agreement_integer, comparison.agreement_float), (0.75, 1.0));
        assert_eq!(comparison.ties.len(), 1);
        assert_eq!((comparison.ties[0].image, comparison.ties[0].encrypted, comparison.ties[0].integer), (1, 1, 0));
        assert!(comparison.wrong.is_empty());

        decrypted[6] = 0.0;
        let comparison = compare(&decrypted, &oracles, &[0, 1, 1, 1], 10.0, 8.0);
        assert_eq!((comparison.ties.len(), comparison.wrong.len()), (1, 1));
        assert_eq!((comparison.wrong[0].image, comparison.wrong[0].gap), (3, 2.0));
        assert!(comparison.precision_bits < 0.0);
    }

    #[test]
    fn images_beyond_the_calibration_are_counted_apart() {
        let integer = vec![9.0, -1.0, 1.0, 2.0];
        let oracles = Oracles { classes: 2, float: integer.clone(), integer: integer.clone() };
        let decrypted = vec![9.0, 11.0, 1.0, 2.25];
        let comparison = compare(&decrypted, &oracles, &[0, 1], 1.5, 8.0);
        assert_eq!((comparison.precision_bits, comparison.precision_beyond_bits), (2.0, Some(-12f64.log2())));
        assert_eq!(comparison.beyond, [0]);
        // Its label is told, and is no bug.
        assert_eq!((comparison.ties.len(), comparison.wrong.len()), (1, 0));
        assert_eq!((comparison.ties[0].image, comparison.agreement_integer), (0, 0.5));
        let comparison = compare(&decrypted, &oracles, &[0, 1], 1.5, 16.0);
        assert_eq!((comparison.wrong.len(), comparison.precision_beyond_bits), (1, None));
        assert!(comparison.beyond.is_empty());
        // Wrong results do not excuse themselves.
        let comparison = compare(&[9.0, -1.0, 100.0, 2.0], &oracles, &[0, 1], 1.5, 16.0);
        assert_eq!((comparison.wrong.len(), comparison.beyond.len()), (1, 0));
    }

    #[test]
    fn equal_logits_have_a_finite_precision() {
        let logits = vec![0.25, 0.5];
        let oracles = Oracles { classes: 2, float: logits.clone(), integer: logits.clone() };
        let comparison = compare(&logits, &oracles, &[1], 10.0, 8.0);
        assert!(comparison.precision_bits.is_finite() && comparison.precision_bits > 50.0);
        assert_eq!(comparison.agreement_integer, 1.0);
    }
}
