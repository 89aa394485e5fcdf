//! Sparse affine forms: rows of (column, weight) plus a constant, over one numbered space of features.
//!
//! A column number stands for a feature: buffer 0 is the input, buffer k + 1 stage k; within a buffer come all values,
//! then all squares. So ascending columns are ascending [`Feature`]s. Weights are f64. A column may be present with
//! weight 0: it belongs to the pattern of its row, by which rows are grouped into dense blocks.

use super::circuit::{Feature, FeatureKind, Source};
use super::error::{NetError, at_most};
use super::lowering::Budget;

/// Largest number of (row, column) pairs of a stage.
const MAX_NONZEROS: usize = 1 << 27;

/// What a form's place in the list and its constant count for, in weights.
const FORM_SIZE: usize = 4;

/// Which feature a column number stands for.
pub(super) struct Columns {
    /// Per buffer: first column and number of entries.
    buffers: Vec<(u32, u32)>,
}

impl Columns {
    /// The input alone.
    pub(super) fn new(input_entries: usize) -> Result<Columns, NetError> {
        let mut columns = Columns { buffers: Vec::new() };
        columns.push(input_entries)?;
        Ok(columns)
    }

    /// Adds the next stage's buffer.
    pub(super) fn push(&mut self, entries: usize) -> Result<(), NetError> {
        let first = self.len();
        let end = first as u128 + 2 * entries as u128;
        at_most("circuit", "number of features", end, u32::MAX.into())?;
        self.buffers.push((first as u32, entries as u32));
        Ok(())
    }

    /// One more than the last column.
    pub(super) fn len(&self) -> usize {
        self.buffers.last().map_or(0, |&(first, entries)| first as usize + 2 * entries as usize)
    }

    /// The column of a value or square in a buffer (0 the input, k + 1 stage k).
    pub(super) fn column(&self, buffer: usize, kind: FeatureKind, entry: usize) -> u32 {
        let (first, entries) = self.buffers[buffer];
        let offset = if kind == FeatureKind::Square { entries } else { 0 };
        first + offset + entry as u32
    }

    /// (buffer, kind, entry) of a column.
    pub(super) fn place(&self, column: u32) -> (usize, FeatureKind, usize) {
        let buffer = self.buffers.partition_point(|&(first, _)| first <= column) - 1;
        let (first, entries) = self.buffers[buffer];
        let offset = column - first;
        match offset.checked_sub(entries) {
            Some(entry) => (buffer, FeatureKind::Square, entry as usize),
            None => (buffer, FeatureKind::Value, offset as usize),
        }
    }

    /// The feature of a column, entries not yet compacted.
    pub(super) fn feature(&self, column: u32) -> Feature {
        let (buffer, kind, entry) = self.place(column);
        let source = if buffer == 0 { Source::Input } else { Source::Stage(buffer - 1) };
        Feature { source, kind, entry: entry as u32 }
    }
}

/// Rows of sparse affine forms (CSR); columns of a row strictly ascending.
#[derive(Clone, Default)]
pub(super) struct Forms {
    starts: Vec<usize>,
    pub(super) columns: Vec<u32>,
    pub(super) weights: Vec<f64>,
    /// One per row.
    pub(super) constants: Vec<f64>,
}

impl Forms {
    pub(super) fn new() -> Forms {
        Forms { starts: vec![0], ..Forms::default() }
    }

    pub(super) fn rows(&self) -> usize {
        self.constants.len()
    }

    /// Weights, and four for what each form takes itself: what a [`Budget`] counts.
    pub(super) fn size(&self) -> usize {
        self.weights.len() + FORM_SIZE * self.rows()
    }

    /// Positions of a row in `columns` and `weights`.
    pub(super) fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row]..self.starts[row + 1]
    }

    /// Columns and weights of a row.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (u32, f64)> {
        let range = self.range(row);
        self.columns[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// Adds a row; its columns must ascend.
    pub(super) fn push(&mut self, terms: impl Iterator<Item = (u32, f64)>, constant: f64) -> Result<(), NetError> {
        for (column, weight) in terms {
            self.columns.push(column);
            self.weights.push(weight);
        }
        at_most("circuit", "weights of one stage", self.columns.len() as u128, MAX_NONZEROS as u128)?;
        self.starts.push(self.columns.len());
        self.constants.push(constant);
        Ok(())
    }
}

impl Forms {
    /// Rewrites every row in place. `rule(row, weights, constant)` gives the factor of its weights and its new constant, or
    /// `None` for a row to be emptied (constant 0).
    pub(super) fn rewrite_rows(&mut self, mut rule: impl FnMut(usize, &[f64], f64) -> Option<(f64, f64)>) {
        let (mut read, mut written) = (0, 0);
        for row in 0..self.rows() {
            let end = self.starts[row + 1];
            let rewritten = rule(row, &self.weights[read..end], self.constants[row]);
            if let Some((factor, _)) = rewritten {
                // The sum's first term is added to zero, so that no weight becomes -0.
                self.weights[read..end].iter_mut().for_each(|weight| *weight = 0.0 + factor * *weight);
                if written != read {
                    self.weights.copy_within(read..end, written);
                    self.columns.copy_within(read..end, written);
                }
                written += end - read;
            }
            self.constants[row] = rewritten.map_or(0.0, |(_, constant)| constant);
            self.starts[row + 1] = written;
            read = end;
        }
        self.weights.truncate(written);
        self.columns.truncate(written);
    }
}

/// Largest magnitude; 0 for none. Several maxima side by side: one alone would wait for itself at every number.
pub(super) fn largest_magnitude(numbers: &[f64]) -> f64 {
    let (chunks, rest) = numbers.as_chunks::<8>();
    let mut maxima = [0.0f64; 8];
    for chunk in chunks {
        for (most, number) in maxima.iter_mut().zip(chunk) {
            let magnitude = number.abs();
            *most = if magnitude > *most { magnitude } else { *most };
        }
    }
    maxima.iter().chain(rest).fold(0.0, |most: f64, number| most.max(number.abs()))
}

/// Adds up multiples of forms, one output row at a time.
pub(super) struct Combiner {
    weights: Vec<f64>,
    present: Vec<bool>,
    touched: Vec<u32>,
    constant: f64,
}

impl Combiner {
    /// For forms over `columns` columns.
    pub(super) fn new(columns: usize, budget: &mut Budget) -> Result<Combiner, NetError> {
        budget.step(columns)?;
        Ok(Combiner { weights: vec![0.0; columns], present: vec![false; columns], touched: Vec::new(), constant: 0.0 })
    }

    pub(super) fn add_constant(&mut self, constant: f64) {
        self.constant += constant;
    }

    /// Adds `factor` times a row.
    pub(super) fn add_row(
        &mut self,
        factor: f64,
        forms: &Forms,
        row: usize,
        budget: &mut Budget,
    ) -> Result<(), NetError> {
        budget.step(1 + forms.range(row).len())?;
        self.constant += factor * forms.constants[row];
        for (column, weight) in forms.row(row) {
            let index = column as usize;
            if !self.present[index] {
                self.present[index] = true;
                self.touched.push(column);
            }
            self.weights[index] += factor * weight;
        }
        Ok(())
    }

    /// Appends the sum to `out` and starts over.
    pub(super) fn finish(&mut self, out: &mut Forms, budget: &mut Budget) -> Result<(), NetError> {
        budget.make(FORM_SIZE + self.touched.len())?;
        if !self.touched.is_sorted() {
            self.touched.sort_unstable();
        }
        let (weights, present) = (&mut self.weights, &mut self.present);
        let terms = self.touched.iter().map(|&column| {
            present[column as usize] = false;
            (column, std::mem::take(&mut weights[column as usize]))
        });
        let result = out.push(terms, std::mem::take(&mut self.constant));
        self.touched.clear();
        result
    }
}
