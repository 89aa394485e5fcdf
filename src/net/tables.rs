//! The table circuit: integer linear maps over bytes, and one look-up table a neuron. What the exact engine runs.
//!
//! Stage 0 reads the image's bytes (0 to 255, channel-major), stage k the table values of stage k - 1, the last map all of
//! that and gives the logits. A hidden neuron computes `s = bias + sum w v` in integers, takes the box `floor(s / 2^log2_box)`
//! of `2^bits` boxes, and gives its table's value there. So any activation is exact up to the width of a box: a ReLU, a
//! quadratic. One definition, three readings: the integer oracle (`oracle`), the engine on ciphertexts, the package.
//!
//! Outside its boxes a sum wraps as the torus does (the table continues with its negative): ranges are measured on many
//! images and widened so that this stays rare, and the oracle wraps likewise. Sums are far below 2^53.
//!
//! Not here: how a network becomes one (`quantise`), noise and probabilities (the room `exact`), bytes on disk (`format`).

mod oracle;
mod quantise;

pub use oracle::{Observed, Trace};
pub use quantise::{TableOptions, TableReport, quantise};

use super::error::{NetError, at_most, same_len};
use super::shapes::checked_entries;

/// Widths of a table: 2^bits boxes.
pub const TABLE_BITS: std::ops::RangeInclusive<u32> = 2..=8;
/// Width of a box, and of the logits' range, as log2.
const LOG2_BOX: std::ops::RangeInclusive<u32> = 0..=30;
const LOG2_RANGE: std::ops::RangeInclusive<u32> = 1..=40;
/// Most hidden stages: each adds noise to the next one's sums, and a network with more has no business here.
const MAX_STAGES: usize = 64;
/// Most neurons of all stages: at milliseconds each, more are hours an image.
pub const MAX_NEURONS: usize = 1 << 20;
/// Most weights of a stage.
const MAX_WEIGHTS: usize = 1 << 26;

/// Sparse integer rows (CSR): row r reads `columns[starts[r]..starts[r + 1]]`, strictly ascending, with those weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// One more than there are rows, the first 0.
    pub starts: Vec<u32>,
    /// Indices into the bytes or values that the stage reads.
    pub columns: Vec<u32>,
    /// Not zero.
    pub weights: Vec<i16>,
    /// One a row, in units of its sum.
    pub bias: Vec<i64>,
}

/// A linear map and the tables of its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStage {
    /// For people: which layers these are.
    pub name: String,
    /// The sums.
    pub rows: Rows,
    /// A table has 2^bits boxes.
    pub bits: u32,
    /// A box is 2^log2_box integers wide.
    pub log2_box: u32,
    /// `[row][box]`
    pub values: Vec<i16>,
}

/// The last linear map.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitStage {
    /// For people.
    pub name: String,
    /// The sums, one a class.
    pub rows: Rows,
    /// Sums are below 2^log2_range in magnitude, or wrap.
    pub log2_range: u32,
    /// A logit is its sum times this.
    pub unit: f64,
}

/// A network as integers and tables.
#[derive(Clone, Debug, PartialEq)]
pub struct TableCircuit {
    /// Channels, rows, columns of an image.
    pub input_shape: [usize; 3],
    /// Hidden stages in order; may be empty.
    pub stages: Vec<TableStage>,
    /// What the last of them goes into.
    pub logits: LogitStage,
}

impl Rows {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bias.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bias.is_empty()
    }

    /// Columns and weights of a row; none for a row that is not there.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, i64)> {
        let at = |index: usize| self.starts.get(index).map_or(0, |&start| start as usize);
        let (columns, weights) = (self.columns.get(at(row)..at(row + 1)), self.weights.get(at(row)..at(row + 1)));
        let pairs = columns.unwrap_or_default().iter().zip(weights.unwrap_or_default());
        pairs.map(|(&column, &weight)| (column as usize, i64::from(weight)))
    }

    /// Sum of a row's squared weights: what independent noise in its columns is multiplied by.
    #[must_use]
    pub fn norm_squared(&self, row: usize) -> f64 {
        self.row(row).map(|(_, weight)| (weight * weight) as f64).sum()
    }

    fn check(&self, place: &str, inputs: usize) -> Result<(), NetError> {
        let rows = self.len();
        at_most(place, "rows", rows as u128, MAX_NEURONS as u128)?;
        at_most(place, "weights", self.weights.len() as u128, MAX_WEIGHTS as u128)?;
        same_len(place, "starts", self.starts.len(), rows + 1)?;
        same_len(place, "columns", self.columns.len(), self.weights.len())?;
        let ends = (self.starts.first().copied(), self.starts.last().map(|&last| last as usize));
        if rows == 0 || ends != (Some(0), Some(self.weights.len())) {
            let expected = format!("0 to {}, at least one row", self.weights.len());
            return Err(NetError::mismatch(place, "starts of rows", format!("{ends:?}"), expected));
        }
        for (row, pair) in self.starts.windows(2).enumerate() {
            // An empty row would be a ciphertext that anyone can read.
            if pair[0] >= pair[1] || pair[1] as usize > self.weights.len() {
                return Err(NetError::mismatch(place, format!("weights of row {row}"), "none", "at least one"));
            }
            let columns = &self.columns[pair[0] as usize..pair[1] as usize];
            let ascending = columns.windows(2).all(|pair| pair[0] < pair[1]);
            let last = columns.last().map_or(0, |&last| last as usize);
            if !ascending || last >= inputs {
                let found = format!("up to {last}{}", if ascending { "" } else { ", out of order" });
                let what = format!("columns of row {row}");
                return Err(NetError::mismatch(place, what, found, format!("ascending, below {inputs}")));
            }
        }
        if let Some(at) = self.weights.iter().position(|&weight| weight == 0) {
            return Err(NetError::mismatch(place, format!("weight {at}"), 0, "not zero"));
        }
        match self.bias.iter().find(|bias| bias.unsigned_abs() > 1 << 52) {
            Some(bias) => Err(NetError::mismatch(place, "bias", bias, "at most 2^52 in magnitude")),
            None => Ok(()),
        }
    }
}

impl TableStage {
    /// Boxes of a table.
    #[must_use]
    pub fn boxes(&self) -> usize {
        1 << self.bits
    }

    /// The table of a row.
    #[must_use]
    pub fn table(&self, row: usize) -> &[i16] {
        self.values.get(row * self.boxes()..(row + 1) * self.boxes()).unwrap_or_default()
    }
}

impl TableCircuit {
    /// Bytes of an image.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.input_shape.iter().product()
    }

    /// Number of logits.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.logits.rows.len()
    }

    /// Tables looked up for an image: bootstraps.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.stages.iter().map(|stage| stage.rows.len()).sum()
    }

    /// Multiply-accumulates of an image.
    #[must_use]
    pub fn macs(&self) -> u64 {
        let stages = self.stages.iter().map(|stage| &stage.rows);
        stages.chain([&self.logits.rows]).map(|rows| rows.weights.len() as u64).sum()
    }

    /// What each linear map reads comes in units of 2^this of a 64-bit torus: maps in order, the logits' last.
    #[must_use]
    pub fn log2_units(&self) -> Vec<u32> {
        let hidden = self.stages.iter().map(|stage| 63 - stage.bits - stage.log2_box);
        hidden.chain([63 - self.logits.log2_range]).collect()
    }

    /// Checks sizes, indices and widths, so that nothing that reads it needs to. Errors name the stage, found and expected.
    pub fn validate(&self) -> Result<(), NetError> {
        let mut inputs = checked_entries("input", "shape", &self.input_shape)?;
        at_most("table circuit", "hidden stages", self.stages.len() as u128, MAX_STAGES as u128)?;
        at_most("table circuit", "neurons", self.neurons() as u128, MAX_NEURONS as u128)?;
        let within = |place: &str, what: &str, found: u32, limits: std::ops::RangeInclusive<u32>| {
            let expected = format!("{} to {}", limits.start(), limits.end());
            if limits.contains(&found) { Ok(()) } else { Err(NetError::mismatch(place, what, found, expected)) }
        };
        for stage in &self.stages {
            within(&stage.name, "bits of a table", stage.bits, TABLE_BITS)?;
            within(&stage.name, "log2 of a box", stage.log2_box, LOG2_BOX)?;
            stage.rows.check(&stage.name, inputs)?;
            same_len(&stage.name, "values of all tables", stage.values.len(), stage.rows.len() << stage.bits)?;
            inputs = stage.rows.len();
        }
        let logits = &self.logits;
        within(&logits.name, "log2 of the range", logits.log2_range, LOG2_RANGE)?;
        if !(logits.unit.is_finite() && logits.unit > 0.0) {
            return Err(NetError::mismatch(&logits.name, "unit", logits.unit, "a positive number"));
        }
        logits.rows.check(&logits.name, inputs)
    }
}

#[cfg(test)]
mod tests;
