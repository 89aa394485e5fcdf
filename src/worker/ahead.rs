//! The next batch's file, mapped and hashed while something else runs: the first one while model and key are checked, later ones while the
//! batch before is computed. What was hashed is the very mapping that is read later.
//!
//! Where the job may use one thread only, nothing runs ahead. A file that cannot be opened is an error when its turn comes, not before.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use crate::engine::Engine;
use crate::format::FormatError;
use crate::format::ciphertexts::MappedBatch;

/// A mapped batch and the digest of its file, hexadecimal.
type Hashed = Result<(MappedBatch, String), FormatError>;

/// A batch that is on its way.
pub(super) enum Ahead<'scope> {
    /// A thread maps and hashes it; without a digest if it was told to stop.
    Running(ScopedJoinHandle<'scope, Result<(MappedBatch, Option<String>), FormatError>>),
    /// It waits for its turn.
    Waiting(PathBuf),
}

impl<'scope> Ahead<'scope> {
    /// Begins with a file, on a thread of its own if the job has more than one. `stop` ends it early.
    pub fn begin(scope: &'scope Scope<'scope, '_>, path: PathBuf, threads: usize, stop: &'scope AtomicBool) -> Self {
        if threads < 2 {
            return Self::Waiting(path);
        }
        Self::Running(scope.spawn(move || {
            let batch = MappedBatch::open(&path)?;
            let digest = batch.file_digest_unless(&|| stop.load(Ordering::Relaxed));
            Ok((batch, digest))
        }))
    }

    /// The batch and its digest, by the engine's threads where nothing ran ahead.
    ///
    /// # Errors
    /// [`FormatError`] if the file cannot be opened or is no container.
    pub fn finish(self, engine: &Engine) -> Hashed {
        let (batch, digest) = match self {
            Self::Running(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            Self::Waiting(path) => (MappedBatch::open(&path)?, None),
        };
        let digest = digest.unwrap_or_else(|| engine.install(|| batch.file_digest_in_parallel()));
        Ok((batch, digest))
    }
}
