//! Kinds of work, how much of each a program has, and what one unit takes on a machine: from these the planner foretells seconds.
//!
//! Only numbers: who measures them is the engine (`engine::rates`), where they are kept the worker (`worker::rates`). Nothing that is
//! computed depends on them.

use crate::ring::kernels::{BlockWork, Kernel};

/// A kind of work. Each has a unit that is counted and a time a unit on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A weight times a whole residue.
    WordProduct,
    /// A weight times a residue in two halves.
    HalfProduct,
    /// A residue that sums of words are reduced to.
    WordOutput,
    /// A byte of a weight times a byte of a residue.
    ByteProduct,
    /// A byte that a residue is split into.
    SplitByte,
    /// A sum of bytes, put together and reduced.
    JoinedByte,
    /// A residue of a square.
    Square,
    /// A residue of a feature that is copied or lifted in the tile.
    Copy,
    /// A residue of a stored stage that a tile reads.
    KeptRead,
    /// A residue unpacked from a batch.
    Unpack,
    /// A residue expanded from a seed.
    Expand,
    /// A residue that a tile writes.
    Store,
    /// A residue gathered from tiles into a polynomial.
    Gather,
    /// A butterfly of a transform: N/2 log2 N of them are one.
    Butterfly,
    /// A residue of the pointwise passes of a key switch.
    Pointwise,
    /// A byte of a batch whose digest is taken.
    DigestByte,
    /// A byte of results, packed, written, synced and read again.
    ResultByte,
    /// A weight packed for a pass.
    Weight,
    /// A residue of key and tables made ready.
    KeyResidue,
    /// What every batch takes besides: opening, creating, syncing, renaming.
    Batch,
}

impl Unit {
    /// All, in the order of [`Work`].
    pub const ALL: [Self; 20] = [
        Self::WordProduct,
        Self::HalfProduct,
        Self::WordOutput,
        Self::ByteProduct,
        Self::SplitByte,
        Self::JoinedByte,
        Self::Square,
        Self::Copy,
        Self::KeptRead,
        Self::Unpack,
        Self::Expand,
        Self::Store,
        Self::Gather,
        Self::Butterfly,
        Self::Pointwise,
        Self::DigestByte,
        Self::ResultByte,
        Self::Weight,
        Self::KeyResidue,
        Self::Batch,
    ];

    /// As files spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WordProduct => "word_product",
            Self::HalfProduct => "half_product",
            Self::WordOutput => "word_output",
            Self::ByteProduct => "byte_product",
            Self::SplitByte => "split_byte",
            Self::JoinedByte => "joined_byte",
            Self::Square => "square",
            Self::Copy => "copy",
            Self::KeptRead => "kept_read",
            Self::Unpack => "unpack",
            Self::Expand => "expand",
            Self::Store => "store",
            Self::Gather => "gather",
            Self::Butterfly => "butterfly",
            Self::Pointwise => "pointwise",
            Self::DigestByte => "digest_byte",
            Self::ResultByte => "result_byte",
            Self::Weight => "weight",
            Self::KeyResidue => "key_residue",
            Self::Batch => "batch",
        }
    }
}

/// Counts of units, or seconds a unit: one number for each of [`Unit::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work([f64; Unit::ALL.len()]);

impl Work {
    /// Of one kind.
    #[must_use]
    pub fn get(&self, unit: Unit) -> f64 {
        self.0[unit as usize]
    }

    /// Sets one kind.
    pub fn set(&mut self, unit: Unit, value: f64) {
        self.0[unit as usize] = value;
    }

    /// Counts `count` units more.
    pub fn add(&mut self, unit: Unit, count: u64) {
        self.0[unit as usize] += count as f64;
    }

    /// Counts a block product on `residues` residues of each row.
    pub fn add_block(&mut self, work: &BlockWork, residues: u64) {
        for (unit, count) in [
            (Unit::WordProduct, work.word_products),
            (Unit::HalfProduct, work.half_products),
            (Unit::WordOutput, work.word_outputs),
            (Unit::ByteProduct, work.byte_products),
            (Unit::SplitByte, work.split_bytes),
            (Unit::JoinedByte, work.joined_bytes),
        ] {
            self.add(unit, count * residues);
        }
    }

    /// Seconds that these counts take at so many seconds a unit.
    #[must_use]
    pub fn secs(&self, unit_secs: &Self) -> f64 {
        self.0.iter().zip(&unit_secs.0).map(|(count, secs)| count * secs).sum()
    }
}

/// Speeds of a machine with one kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The kernel that they are of: it decides how a block is multiplied.
    pub kernel: Kernel,
    /// Threads that will compute.
    pub threads: usize,
    /// Seconds a unit, on one thread.
    pub unit_secs: Work,
    /// What each thread beyond the first costs all of them, as a share of its work: memory and caches are shared.
    pub thread_loss: f64,
}

impl Rates {
    /// Seconds of work that all threads share.
    #[must_use]
    pub fn shared_secs(&self, work: &Work) -> f64 {
        let threads = self.threads.max(1) as f64;
        work.secs(&self.unit_secs) * (1.0 + self.thread_loss * (threads - 1.0)) / threads
    }

    /// Seconds of work that one thread does.
    #[must_use]
    pub fn alone_secs(&self, work: &Work) -> f64 {
        work.secs(&self.unit_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_stand_in_their_order_under_different_names() {
        for (at, unit) in Unit::ALL.into_iter().enumerate() {
            assert_eq!(unit as usize, at);
            assert_eq!(Unit::ALL.iter().filter(|other| other.name() == unit.name()).count(), 1, "{}", unit.name());
        }
    }

    #[test]
    fn seconds_are_counts_times_seconds_shared_by_threads() {
        let mut unit_secs = Work::default();
        unit_secs.set(Unit::Square, 2.0);
        unit_secs.set(Unit::Copy, 0.5);
        let mut work = Work::default();
        work.add(Unit::Square, 3);
        work.add(Unit::Copy, 4);
        work.add(Unit::Copy, 4);
        let rates = |threads| Rates { kernel: Kernel::portable(), threads, unit_secs, thread_loss: 0.1 };
        assert_eq!(rates(1).shared_secs(&work), 10.0);
        assert!((rates(2).shared_secs(&work) - 5.5).abs() < 1e-12);
        assert_eq!(rates(2).alone_secs(&work), 10.0);
    }
}
