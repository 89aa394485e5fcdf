//! BLAKE3 of a file whose first bytes are known last: of its other pieces as they come, put together as the hash's own tree has them (BLAKE3
//! paper, section 2.1). Not here: files.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Bytes of a piece: a power of two, so that pieces are subtrees, and more than a header has.
pub(super) const PIECE_BYTES: usize = 2 << 20;

/// A file's pieces but the first.
#[derive(Debug, Default)]
pub(super) struct LaterPieces {
    /// Of whole pieces.
    values: Vec<ChainingValue>,
    /// The piece that has begun.
    hasher: Hasher,
}

impl LaterPieces {
    /// The file's next bytes; those of the first call follow the first piece.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let hashed = self.hasher.count() as usize;
            if hashed == 0 {
                let before = self.values.len() + 1;
                self.hasher.set_input_offset((before * PIECE_BYTES) as u64);
            }
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - hashed));
            self.hasher.update(now);
            if hashed + now.len() == PIECE_BYTES {
                self.values.push(self.hasher.finalize_non_root());
                self.hasher = Hasher::new();
            }
            rest = later;
        }
    }

    /// The digest of the file. `first` has taken its first piece, whole if there is another.
    pub(super) fn finish(mut self, first: &Hasher) -> Hash {
        if self.hasher.count() > 0 {
            self.values.push(self.hasher.finalize_non_root());
        }
        if self.values.is_empty() {
            return first.finalize();
        }
        self.values.insert(0, first.finalize_non_root());
        let (left, right) = self.values.split_at(left_of(self.values.len()));
        merge_subtrees_root(&merged(left), &merged(right), Mode::Hash)
    }
}

/// Pieces on the left of a tree of two or more: the largest power of two that leaves one for the right.
fn left_of(pieces: usize) -> usize {
    pieces.next_power_of_two() / 2
}

fn merged(values: &[ChainingValue]) -> ChainingValue {
    if let [value] = values {
        return *value;
    }
    let (left, right) = values.split_at(left_of(values.len()));
    merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_file() {
        let file: Vec<u8> = (0..7 * PIECE_BYTES + 5000).map(|i| (i % 251) as u8).collect();
        let ends = (0..8).flat_map(|pieces| [0, 1, 5000].map(|more| pieces * PIECE_BYTES + more));
        for end in ends {
            let file = &file[..end];
            let (first, later) = file.split_at(end.min(PIECE_BYTES));
            for update_bytes in [300_000, 5 * PIECE_BYTES] {
                let mut pieces = LaterPieces::default();
                later.chunks(update_bytes).for_each(|bytes| pieces.update(bytes));
                assert_eq!(pieces.finish(Hasher::new().update(first)), blake3::hash(file), "{end} bytes");
            }
        }
    }
}
