//! From pixel bytes to the numbers a network was trained on: value = (byte / 255 - mean) / std, channel by channel.
//!
//! The 256 values of a channel are computed once in f64. Floats that come in normalised are clamped to the same range,
//! so nothing outside the training range can reach a polynomial activation.

use crate::error::PackingError;

/// Input normalisation of a network: a 256-entry table and a range per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    tables: Vec<[f64; 256]>,
}

impl Normalisation {
    /// From the mean and standard deviation of each channel, in units of byte / 255.
    ///
    /// # Errors
    /// `Usage` when the lengths differ or are zero, a number is not finite, a deviation is not above zero, or the
    /// normalised values overflow.
    pub fn new(mean: &[f64], std: &[f64]) -> Result<Self, PackingError> {
        if mean.is_empty() || mean.len() != std.len() {
            let found = format!("{} means and {} deviations", mean.len(), std.len());
            return Err(PackingError::usage("normalisation", found, "one of each per channel"));
        }
        let mut tables = Vec::with_capacity(mean.len());
        for (channel, (&mean, &std)) in mean.iter().zip(std).enumerate() {
            let mut table = [0.0; 256];
            for (byte, value) in table.iter_mut().enumerate() {
                *value = (byte as f64 / 255.0 - mean) / std;
            }
            let usable =
                mean.is_finite() && std.is_finite() && std > 0.0 && table.iter().all(|value| value.is_finite());
            if !usable {
                let found = format!("mean {mean} and deviation {std} for channel {channel}");
                return Err(PackingError::usage("normalisation", found, "finite numbers and a deviation above 0"));
            }
            tables.push(table);
        }
        Ok(Self { tables })
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.tables.len()
    }

    /// The 256 values of a channel, indexed by byte; `None` beyond the last channel.
    #[must_use]
    pub fn table(&self, channel: usize) -> Option<&[f64; 256]> {
        self.tables.get(channel)
    }

    /// The values of byte 0 and of byte 255: the range of all inputs of a channel; `None` beyond the last channel.
    #[must_use]
    pub fn range(&self, channel: usize) -> Option<(f64, f64)> {
        self.table(channel).map(|table| (table[0], table[255]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_formula() {
        let normalisation = Normalisation::new(&[0.13066, 0.5], &[0.308108, 0.25]).unwrap();
        assert_eq!(normalisation.channels(), 2);
        assert_eq!(normalisation.range(0), Some((-0.13066 / 0.308108, (1.0 - 0.13066) / 0.308108)));
        assert_eq!(normalisation.table(1).unwrap()[51], (0.2 - 0.5) / 0.25);
        assert_eq!(normalisation.range(2), None);
    }

    #[test]
    fn unusable_constants_are_refused() {
        for (mean, std) in [
            (&[][..], &[][..]),
            (&[0.1], &[0.1, 0.2]),
            (&[0.1], &[0.0]),
            (&[0.1], &[-1.0]),
            (&[f64::NAN], &[1.0]),
            (&[0.1], &[f64::INFINITY]),
            (&[0.1], &[1e-310]),
        ] {
            let refused = Normalisation::new(mean, std).unwrap_err();
            assert_eq!(refused.kind(), crate::ErrorKind::Usage, "{mean:?} {std:?}");
        }
    }
}
