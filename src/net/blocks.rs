//! From sparse integer rows to dense blocks.
//!
//! Rows with the same column pattern (before zeros are dropped) share a block: a convolution gives one block per output
//! position and group, a dense layer one. A row whose pattern nobody shares is split by (source, kind), so that the part
//! it has in common with others stays dense and only the rest (a residual skip) is its own. All-zero rows and columns of a
//! block are dropped.

use std::collections::HashMap;

use super::circuit::{Block, FeatureKind};
use super::forms::Columns;

/// Integer rows over columns of the draft, kept with their zeros.
pub(super) struct IntegerRows<'a> {
    /// Per row: its output index.
    pub(super) outputs: Vec<u32>,
    /// Per row: columns, ascending.
    pub(super) columns: Vec<&'a [u32]>,
    /// Per row: one integer a column.
    pub(super) weights: Vec<&'a [i16]>,
}

/// A block still over columns of the draft.
struct Group {
    rows: Vec<usize>,
    columns: Vec<u32>,
}

/// Groups rows into blocks. Returns the used columns, ascending, and the blocks whose `columns` index into them.
pub(super) fn build_blocks(rows: &IntegerRows<'_>, space: &Columns) -> (Vec<u32>, Vec<Block>) {
    let mut trimmed: Vec<Group> = Vec::new();
    let mut by_pattern: HashMap<&[u32], usize> = HashMap::new();
    for (row, columns) in rows.columns.iter().enumerate() {
        let index = *by_pattern.entry(columns).or_insert_with(|| {
            trimmed.push(Group { rows: Vec::new(), columns: columns.to_vec() });
            trimmed.len() - 1
        });
        trimmed[index].rows.push(row);
    }
    let (mut groups, single): (Vec<Group>, Vec<Group>) = trimmed.into_iter().partition(|group| group.rows.len() > 1);
    groups.extend(split_singles(&single, space));

    let mut used = Vec::new();
    let mut dense = Vec::new();
    for group in &groups {
        if let Some((columns, block)) = trim(group, rows) {
            used.extend_from_slice(&columns);
            dense.push((columns, block));
        }
    }
    used.sort_unstable();
    used.dedup();
    let blocks = dense.into_iter().map(|(columns, mut block)| {
        block.columns = columns.iter().map(|column| used.partition_point(|other| other < column) as u32).collect();
        block
    });
    let blocks = blocks.collect();
    (used, blocks)
}

/// Rows with patterns of their own: cut by (source, kind), equal pieces put together, pieces of the same rows joined again.
fn split_singles(single: &[Group], space: &Columns) -> Vec<Group> {
    let mut pieces: Vec<Group> = Vec::new();
    let mut by_piece: HashMap<&[u32], usize> = HashMap::new();
    for group in single {
        let place = |column: &u32| -> (usize, FeatureKind) {
            let (buffer, kind, _) = space.place(*column);
            (buffer, kind)
        };
        for piece in group.columns.chunk_by(|left, right| place(left) == place(right)) {
            let index = *by_piece.entry(piece).or_insert_with(|| {
                pieces.push(Group { rows: Vec::new(), columns: piece.to_vec() });
                pieces.len() - 1
            });
            pieces[index].rows.extend_from_slice(&group.rows);
        }
    }
    let mut joined: Vec<Group> = Vec::new();
    let mut by_rows: HashMap<Vec<usize>, usize> = HashMap::new();
    for mut piece in pieces {
        piece.rows.sort_unstable();
        match by_rows.get(&piece.rows) {
            Some(&index) => {
                joined[index].columns.extend_from_slice(&piece.columns);
                joined[index].columns.sort_unstable();
            }
            None => {
                by_rows.insert(piece.rows.clone(), joined.len());
                joined.push(piece);
            }
        }
    }
    joined
}

/// The group's block without all-zero rows and columns, `columns` still to be numbered; `None` where nothing is left.
fn trim(group: &Group, source: &IntegerRows<'_>) -> Option<(Vec<u32>, Block)> {
    let width = group.columns.len();
    let mut matrix = Vec::with_capacity(group.rows.len() * width);
    let mut outputs = Vec::new();
    for &row in &group.rows {
        let start = matrix.len();
        if source.columns[row].len() == width {
            matrix.extend_from_slice(source.weights[row]);
        } else {
            let start = source.columns[row].partition_point(|column| *column < group.columns[0]);
            let mut own = source.columns[row][start..].iter().zip(&source.weights[row][start..]);
            for column in &group.columns {
                // Group columns are a subset of the row's, both ascending.
                matrix.push(own.find(|(other, _)| *other == column).map_or(0, |(_, &weight)| weight));
            }
        }
        if matrix[start..].iter().all(|&weight| weight == 0) {
            matrix.truncate(start);
        } else {
            outputs.push(source.outputs[row]);
        }
    }
    let mut kept = vec![false; width];
    for row in matrix.chunks_exact(width.max(1)) {
        kept.iter_mut().zip(row).for_each(|(kept, &weight)| *kept |= weight != 0);
    }
    let columns: Vec<u32> =
        group.columns.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(&column, _)| column).collect();
    if columns.is_empty() {
        return None;
    }
    let weights = matrix.chunks_exact(width).flat_map(|row| row.iter().zip(&kept).filter(|(_, kept)| **kept));
    let weights = weights.map(|(&weight, _)| weight).collect();
    Some((columns, Block { rows: outputs, columns: Vec::new(), weights }))
}
