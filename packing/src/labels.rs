//! From logits back to labels: the largest score wins, and the first of equals.
//!
//! ```text
//! logits [classes][slots] f64, occupancy -> Prediction { index, label, scores [classes] } per used slot
//! ```
//!
//! `read` reads the true labels of a test set, `write` writes predictions. Scores are never rounded in memory, only
//! when written.

pub(crate) mod read;
pub(crate) mod write;

use crate::error::PackingError;

/// What a network says about one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Position of the image in its set, from 0.
    pub index: usize,
    /// Class with the largest score.
    pub label: u16,
    /// Score (logit) of each class.
    pub scores: Vec<f64>,
}

impl Prediction {
    /// From the scores `[classes]` of image `index`.
    ///
    /// # Errors
    /// `Usage` for no classes or more than 65536, `NotFinite` for a score that is no finite number.
    pub fn new(index: usize, scores: Vec<f64>) -> Result<Self, PackingError> {
        if let Some((class, &found)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(PackingError::NotFinite { index, class, found });
        }
        match argmax(&scores).map(u16::try_from) {
            Some(Ok(label)) => Ok(Self { index, label, scores }),
            _ => Err(PackingError::usage("classes", scores.len(), "1 to 65536")),
        }
    }
}

/// Index of the largest score, the lowest one among equals; `None` without scores. Scores must be numbers.
#[must_use]
pub fn argmax(scores: &[f64]) -> Option<usize> {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    (!scores.is_empty()).then_some(best)
}

/// Predictions of the first `occupancy` slots of a batch whose first image is `first_index`; `logits` is
/// `[classes][slots]`.
///
/// # Errors
/// `Usage` for no classes, or a class with fewer slots than `occupancy`; `NotFinite` as for [`Prediction::new`].
pub fn predictions_from_slots(
    first_index: usize,
    logits: &[Vec<f64>],
    occupancy: usize,
) -> Result<Vec<Prediction>, PackingError> {
    if let Some(short) = logits.iter().find(|slots| slots.len() < occupancy) {
        return Err(PackingError::usage("slots of the logits", short.len(), format!("at least {occupancy}")));
    }
    (0..occupancy)
        .map(|slot| Prediction::new(first_index + slot, logits.iter().map(|slots| slots[slot]).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[-0.0, 0.0]), Some(0));
        assert_eq!(argmax(&[-5.0]), Some(0));
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn slots_become_rows() {
        let logits = [vec![1.0, 5.0, 9.0, 0.0], vec![2.0, 4.0, 8.0, 0.0]];
        let predictions = predictions_from_slots(8192, &logits, 3).unwrap();
        assert_eq!(
            predictions.iter().map(|p| (p.index, p.label)).collect::<Vec<_>>(),
            [(8192, 1), (8193, 0), (8194, 0)]
        );
        assert_eq!(predictions[2].scores, [9.0, 8.0]);
    }

    #[test]
    fn broken_logits_are_refused() {
        let broken = predictions_from_slots(10, &[vec![1.0, 2.0], vec![1.0, f64::NAN]], 2).unwrap_err();
        assert!(matches!(broken, PackingError::NotFinite { index: 11, class: 1, .. }), "{broken}");
        let unused = predictions_from_slots(10, &[vec![1.0, f64::NAN]], 1).unwrap();
        assert_eq!(unused.len(), 1, "unused slots are not looked at");
        assert!(predictions_from_slots(0, &[vec![1.0]], 2).is_err());
        assert!(predictions_from_slots(0, &[], 1).is_err());
    }
}
