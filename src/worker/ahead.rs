//! The next batch's file, mapped and hashed while something else runs: the first one while model and key are checked, later ones while the
//! batch before is computed. What was hashed is the very mapping that is read later. When the batch's turn comes, all threads hash what is left.
//!
//! Where the job may use one thread only, nothing runs ahead. A file that cannot be opened is an error when its turn comes, not before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use crate::engine::Engine;
use crate::format::ciphertexts::MappedBatch;
use crate::format::{FormatError, PartDigest};

/// A batch that is on its way.
pub(super) enum Ahead<'scope> {
    /// A thread maps and hashes it until it is told to stop.
    Running(ScopedJoinHandle<'scope, Result<(MappedBatch, PartDigest), FormatError>>, Arc<AtomicBool>),
    /// It waits for its turn.
    Waiting(PathBuf),
}

impl<'scope> Ahead<'scope> {
    /// Begins with a file, on a thread of its own if the job has more than one. `stop` ends it early.
    pub fn begin(scope: &'scope Scope<'scope, '_>, path: PathBuf, threads: usize, stop: &'scope AtomicBool) -> Self {
        if threads < 2 {
            return Self::Waiting(path);
        }
        let turn_came = Arc::new(AtomicBool::new(false));
        let enough = Arc::clone(&turn_came);
        let thread = scope.spawn(move || {
            let batch = MappedBatch::open(&path)?;
            let digest = batch.begin_digest(&|| stop.load(Ordering::Relaxed) || enough.load(Ordering::Relaxed));
            Ok((batch, digest))
        });
        Self::Running(thread, turn_came)
    }

    /// The batch and its digest, hexadecimal; what nothing hashed ahead is hashed by the engine's threads.
    ///
    /// # Errors
    /// [`FormatError`] if the file cannot be opened or is no container.
    pub fn finish(self, engine: &Engine) -> Result<(MappedBatch, String), FormatError> {
        let (batch, part) = match self {
            Self::Running(thread, turn_came) => {
                turn_came.store(true, Ordering::Relaxed);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
            }
            Self::Waiting(path) => (MappedBatch::open(&path)?, PartDigest::default()),
        };
        let digest = engine.install(|| batch.finish_digest_in_parallel(part));
        Ok((batch, digest))
    }
}
