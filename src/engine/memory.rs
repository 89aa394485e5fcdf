//! Working memory kept from stage to stage and from batch to batch.
//!
//! Pages that the system gives anew are cleared first, and a virtual machine's host may have to find them: that has taken a fifth of a batch's
//! processor time. Not here: what the bytes mean. They are not cleared again: whoever takes them writes before reading.

use super::EngineError;
use crate::format::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is taken may be larger than asked for by one in so many parts, so that little is wasted.
const WASTE: usize = 8;

/// Buffers that nobody uses at the moment.
#[derive(Default)]
pub(super) struct Memory(Mutex<Vec<Bytes>>);

impl Memory {
    fn idle(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least so many bytes, of any content. Where no idle buffer is of about that size, idle ones are given back to the system first: what
    /// is held exceeds what was in use at once by an eighth at most.
    pub fn take(&self, bytes: usize) -> Result<Bytes, EngineError> {
        let mut idle = self.idle();
        let fits = |held: &Bytes| (bytes..=bytes + bytes / WASTE).contains(&held.len());
        let best = (0..idle.len()).filter(|&at| fits(&idle[at])).min_by_key(|&at| idle[at].len());
        if let Some(at) = best {
            return Ok(idle.swap_remove(at));
        }
        idle.sort_unstable_by_key(|held| held.len());
        let mut freed = 0;
        while freed < bytes
            && let Some(largest) = idle.pop()
        {
            freed += largest.len();
        }
        drop(idle);
        Bytes::zeroed(bytes).map_err(|e| EngineError::Memory { bytes, reason: e.to_string() })
    }

    /// Keeps a buffer for the next who asks.
    pub fn give(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.idle().push(bytes);
        }
    }

    /// Gives all idle buffers back to the system.
    pub fn release(&self) {
        self.idle().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(memory: &Memory) -> Vec<usize> {
        let mut lengths: Vec<usize> = memory.idle().iter().map(|bytes| bytes.len()).collect();
        lengths.sort_unstable();
        lengths
    }

    #[test]
    fn buffers_of_about_the_size_are_taken_again_and_others_make_room() {
        let memory = Memory::default();
        let mut first = memory.take(1000).unwrap();
        first[7] = 3;
        memory.give(first);
        memory.give(memory.take(4000).unwrap());
        // The larger one had to go first.
        assert_eq!(held(&memory), [4000]);
        memory.give(Bytes::zeroed(1000).unwrap());
        memory.give(Bytes::zeroed(1100).unwrap());
        let smallest = memory.take(990).unwrap();
        assert_eq!((smallest.len(), held(&memory)), (1000, vec![1100, 4000]));
        // Far too large is none: it is given back instead.
        assert_eq!((memory.take(2000).unwrap().len(), held(&memory)), (2000, vec![1100]));
        memory.give(memory.take(0).unwrap());
        assert_eq!(held(&memory), [1100]);
        memory.release();
        assert!(held(&memory).is_empty());
    }

    #[test]
    fn content_stays_for_whoever_writes_before_reading() {
        let memory = Memory::default();
        let mut bytes = memory.take(64).unwrap();
        bytes.fill(9);
        memory.give(bytes);
        assert!(memory.take(64).unwrap().iter().all(|&byte| byte == 9));
    }
}
