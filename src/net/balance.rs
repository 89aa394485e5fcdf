//! Balancing: every root z may be scaled freely (row times t, its square's column divided by t^2, its value's by t). One
//! integer scale serves a whole stage, so a row much smaller than the largest would be rounded coarsely, and so would a
//! column of the next stage. t evens out both (Nagel et al., Data-free quantization through weight equalization,
//! arXiv 1906.04721, with the cube root that a square calls for). Only + - * / and comparisons: the same bits everywhere.
//!
//! Logit rms error of the reference models at 8 bits, rows left alone -> all rows equally large -> balanced: CryptoNets
//! 0.096, 0.285, 0.111; 16 maps 0.057, 0.120, 0.059; two convolutions 0.072, 0.152, 0.060; Fashion 0.0301, 0.0672, 0.0299;
//! CIFAR 0.033, 0.113, 0.026.

use super::circuit::FeatureKind;
use super::draft::Draft;

/// Largest rescaling of a row, up or down.
const LARGEST_FACTOR: f64 = 16.0;

/// Rescales the roots of all stages but the last. `alive[stage][row]`: rows that anything reads.
pub(super) fn balance(draft: &mut Draft, alive: &[Vec<bool>]) {
    let mut factors = vec![1.0; draft.columns.len()];
    for stage in 0..draft.stages.len() - 1 {
        let needs = column_needs(draft, alive, stage);
        let forms = &mut draft.stages[stage].forms;
        for (weight, column) in forms.weights.iter_mut().zip(&forms.columns) {
            *weight *= factors[*column as usize];
        }
        let row_max: Vec<f64> = (0..forms.rows())
            .map(|row| forms.row(row).fold(0.0, |largest: f64, (_, weight)| largest.max(weight.abs())))
            .collect();
        let largest =
            row_max.iter().zip(&alive[stage]).filter(|(_, alive)| **alive).fold(0.0, |l: f64, (&m, _)| l.max(m));
        let most = needs.iter().fold(0.0, |largest: f64, &need| largest.max(need));
        for row in 0..forms.rows() {
            if !alive[stage][row] || row_max[row] == 0.0 || needs[row] == 0.0 {
                continue;
            }
            let wanted = cube_root(largest / row_max[row] * (needs[row] / most));
            let t = wanted.clamp(1.0 / LARGEST_FACTOR, LARGEST_FACTOR);
            let range = forms.range(row);
            forms.weights[range].iter_mut().for_each(|weight| *weight *= t);
            forms.constants[row] *= t;
            factors[draft.columns.column(stage + 1, FeatureKind::Value, row) as usize] = 1.0 / t;
            factors[draft.columns.column(stage + 1, FeatureKind::Square, row) as usize] = 1.0 / (t * t);
        }
    }
    if let Some(last) = draft.stages.last_mut() {
        for (weight, column) in last.forms.weights.iter_mut().zip(&last.forms.columns) {
            *weight *= factors[*column as usize];
        }
    }
}

/// Per root of `stage`: the largest weight of its columns in later stages, each relative to the largest of its row.
fn column_needs(draft: &Draft, alive: &[Vec<bool>], stage: usize) -> Vec<f64> {
    let mut needs = vec![0.0f64; draft.stages[stage].forms.rows()];
    for (later, alive) in draft.stages.iter().zip(alive).skip(stage + 1) {
        for row in (0..later.forms.rows()).filter(|&row| alive[row]) {
            let row_max = later.forms.row(row).fold(0.0, |largest: f64, (_, weight)| largest.max(weight.abs()));
            if row_max == 0.0 {
                continue;
            }
            for (column, weight) in later.forms.row(row) {
                let (buffer, _, entry) = draft.columns.place(column);
                if buffer == stage + 1 {
                    needs[entry] = needs[entry].max(weight.abs() / row_max);
                }
            }
        }
    }
    needs
}

/// Newton's iteration from 1; exact to rounding within 1e-6 .. 1e6, which the caller's cap makes enough.
fn cube_root(number: f64) -> f64 {
    let number = number.clamp(1e-6, 1e6);
    let mut root = 1.0;
    for _ in 0..60 {
        root = (2.0 * root + number / (root * root)) / 3.0;
    }
    root
}
