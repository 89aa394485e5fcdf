//! The integer oracle of a table circuit: the very integers that the engine computes on ciphertexts, but for its noise.
//!
//! Single-threaded, an image at a time.

use super::{Rows, TableCircuit, TableStage};
use crate::net::error::{NetError, same_len};

/// All sums of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `[hidden stage][row]`
    pub sums: Vec<Vec<i64>>,
    /// `[class]`
    pub logits: Vec<i64>,
}

/// What a table gave for a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The table's value, negated outside the boxes.
    pub value: i64,
    /// Whether the sum was in one of the boxes.
    pub inside: bool,
}

impl TableStage {
    /// Looks a row's sum up. Outside the boxes the table goes on with its negative, and after that with itself.
    #[must_use]
    pub fn look_up(&self, row: usize, sum: i64) -> Observed {
        let boxes = self.boxes() as i64;
        let index = sum >> self.log2_box;
        let place = index.rem_euclid(2 * boxes);
        let value = self.table(row).get((place % boxes) as usize).copied().map_or(0, i64::from);
        Observed { value: if place < boxes { value } else { -value }, inside: (0..boxes).contains(&index) }
    }
}

impl Rows {
    /// All sums over `values`, which are as many as the columns allow.
    fn sums(&self, values: &[i64]) -> Vec<i64> {
        let sum = |row: usize| self.row(row).map(|(column, weight)| weight * values[column]).sum::<i64>();
        (0..self.len()).map(|row| self.bias[row] + sum(row)).collect()
    }
}

impl TableCircuit {
    /// All sums for an image's bytes, of a circuit that is valid.
    ///
    /// Errors: another number of bytes than the circuit reads.
    pub fn trace(&self, bytes: &[u8]) -> Result<Trace, NetError> {
        same_len("table circuit", "bytes of an image", bytes.len(), self.inputs())?;
        let mut values: Vec<i64> = bytes.iter().copied().map(i64::from).collect();
        let mut sums = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let read = stage.rows.sums(&values);
            values = read.iter().enumerate().map(|(row, &sum)| stage.look_up(row, sum).value).collect();
            sums.push(read);
        }
        let range = 1_i64 << self.logits.log2_range;
        let wrap = |sum: i64| (sum + range).rem_euclid(2 * range) - range;
        Ok(Trace { sums, logits: self.logits.rows.sums(&values).into_iter().map(wrap).collect() })
    }

    /// Logits for an image's bytes, in real units.
    ///
    /// Errors: as [`TableCircuit::trace`].
    pub fn evaluate(&self, bytes: &[u8]) -> Result<Vec<f64>, NetError> {
        Ok(self.scores(&self.trace(bytes)?.logits))
    }

    /// Sums of the last map in real units.
    #[must_use]
    pub fn scores(&self, sums: &[i64]) -> Vec<f64> {
        sums.iter().map(|&sum| sum as f64 * self.logits.unit).collect()
    }
}
