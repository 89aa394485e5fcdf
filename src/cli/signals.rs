//! SIGTERM and SIGINT, counted: the first asks a worker to finish what it does, the second to leave at once. A third ends the process
//! as if nobody listened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Listens from now on, on a thread of its own.
///
/// # Errors
/// The system's, when it takes no handler or gives no thread.
pub(super) fn count() -> io::Result<Arc<AtomicUsize>> {
    let counted = Arc::new(AtomicUsize::new(0));
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let shared = Arc::clone(&counted);
    let listen = move || {
        for signal in signals.forever() {
            if shared.fetch_add(1, Ordering::AcqRel) >= 2 {
                // Only for signals that have none, which these are not.
                let _ended = emulate_default_handler(signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
    Ok(counted)
}
