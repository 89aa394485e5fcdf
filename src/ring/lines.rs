//! Words that begin at a cache line: vectors of 64 bytes that straddle two lines are read and written more slowly, and a large allocation
//! begins 16 bytes into a page.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Words before the first line begins, at most.
const MOST_SKEW: usize = LINE_BYTES / size_of::<u64>() - 1;

/// A buffer that grows to what is asked of it.
#[derive(Debug, Default)]
pub struct Lines {
    words: Vec<u64>,
    /// Where the first line begins.
    start: usize,
}

impl Lines {
    /// The first so many words, of any content.
    pub fn first(&mut self, len: usize) -> &mut [u64] {
        if self.words.len() < self.start + len {
            self.words.resize(len + MOST_SKEW, 0);
            self.start = self.words.as_ptr().align_offset(LINE_BYTES).min(MOST_SKEW);
        }
        &mut self.words[self.start..][..len]
    }

    /// All of them, which may be more than were asked for.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words[self.start..]
    }
}

impl From<&[u64]> for Lines {
    fn from(words: &[u64]) -> Self {
        let mut lines = Self::default();
        lines.first(words.len()).copy_from_slice(words);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_at_a_line_whatever_they_grow_to() {
        let mut lines = Lines::default();
        assert!(lines.words().is_empty());
        for len in [3, 1000, 10, 1008, 100_000] {
            let words = lines.first(len);
            assert_eq!((words.len(), words.as_ptr().align_offset(64)), (len, 0));
            words[len - 1] = 7;
            assert_eq!(lines.words()[len - 1], 7);
        }
        let copied = Lines::from(&[1, 2, 3][..]);
        assert_eq!((&copied.words()[..3], copied.words().as_ptr().align_offset(64)), (&[1, 2, 3][..], 0));
    }
}
