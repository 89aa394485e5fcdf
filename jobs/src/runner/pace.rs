//! The thread that keeps one lease alive while its task is worked on. It asks the queue and sleeps, and does nothing else, so
//! that no computation can starve it; what it learns it says through [`Stop`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::queue::{Lease, Pulse, Queue};

/// Heartbeats in the life of a lease.
const BEATS: u32 = 3;

/// Why work is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The lease is somebody else's: write nothing.
    Lost = 1,
    /// The result is not wanted.
    Cancelled = 2,
    /// The worker is leaving: hand the task back.
    Draining = 3,
}

/// Tells work to stop. The first reason stands.
#[derive(Debug, Default)]
pub(super) struct Stop {
    flag: AtomicBool,
    why: AtomicU8,
}

impl Stop {
    pub(super) fn set(&self, why: Why) {
        let _earlier = self.why.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.flag.store(true, Ordering::Release);
    }

    pub(super) fn why(&self) -> Option<Why> {
        match self.why.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Why::Lost),
            2 => Some(Why::Cancelled),
            _ => Some(Why::Draining),
        }
    }

    /// For those who need no reason.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }
}

/// Keeps a lease alive until it is dropped.
pub(super) struct Pace {
    /// Closed to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pace {
    /// Starts beating. Where no thread can be had the lease is not kept, and the work is told so at once.
    pub(super) fn start(queue: &Arc<dyn Queue>, lease: &Lease, stop: &Arc<Stop>) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let (queue, lease, beating) = (Arc::clone(queue), lease.clone(), Arc::clone(stop));
        let work = move || {
            let ttl = queue.lease_ttl();
            let mut alive_until = Instant::now() + ttl;
            let mut pause = ttl / BEATS;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let asked = Instant::now();
                match queue.heartbeat(&lease) {
                    Ok(Pulse::Alive) => {
                        // From before the question: the queue cannot have counted from earlier than that.
                        alive_until = asked + ttl;
                        pause = ttl / BEATS;
                    }
                    Ok(Pulse::Cancelled) => return beating.set(Why::Cancelled),
                    Ok(Pulse::Lost) => return beating.set(Why::Lost),
                    Err(_) if Instant::now() >= alive_until => return beating.set(Why::Lost),
                    Err(_) => pause = (ttl / (4 * BEATS)).max(Duration::from_millis(1)),
                }
            }
        };
        match std::thread::Builder::new().name("heartbeat".to_owned()).spawn(work) {
            Ok(thread) => Self { end: Some(end), thread: Some(thread) },
            Err(_) => {
                stop.set(Why::Draining);
                Self { end: None, thread: None }
            }
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It ends at the latest when the heartbeat under way does; a panic in it has been told.
            let _panicked = thread.join();
        }
    }
}
