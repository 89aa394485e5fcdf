//! Threads of the trainer: every piece of work runs on a pool of one thread, so that the libraries below never split it.
//! Pieces and their order are given by the caller; so results do not depend on how many run at once.

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::error::TrainError;

/// One-thread pools.
pub(super) struct Lanes {
    pools: Vec<ThreadPool>,
}

impl Lanes {
    pub(super) fn new(threads: NonZeroUsize) -> Result<Lanes, TrainError> {
        let pools: Result<Vec<_>, _> =
            (0..threads.get()).map(|_| ThreadPoolBuilder::new().num_threads(1).build()).collect();
        pools.map(|pools| Lanes { pools }).map_err(|error| TrainError::setting("threads", error, "threads to start"))
    }

    /// `work(0) .. work(pieces - 1)`, in this order in the result; lane k does the pieces k, k + lanes, ...
    pub(super) fn map<T: Send>(&self, pieces: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let lanes = self.pools.len().min(pieces).max(1);
        let mut done: Vec<Option<T>> = (0..pieces).map(|_| None).collect();
        let work = &work;
        std::thread::scope(|scope| {
            let handles: Vec<_> = self.pools[..lanes]
                .iter()
                .enumerate()
                .map(|(lane, pool)| {
                    scope.spawn(move || {
                        pool.install(|| {
                            (lane..pieces).step_by(lanes).map(|piece| (piece, work(piece))).collect::<Vec<_>>()
                        })
                    })
                })
                .collect();
            for handle in handles {
                match handle.join() {
                    Ok(results) => results.into_iter().for_each(|(piece, result)| done[piece] = Some(result)),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        done.into_iter().flatten().collect()
    }
}
