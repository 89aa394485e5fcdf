//! A model's ranges over a whole set of images, on several threads: what its quadratics read, and its integer circuit's own
//! values, which the planner's headroom starts from. Blocks are merged in the images' order: the figures do not depend on
//! the number of threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use packing::{Batches, ImageSet};

use super::error::CliError;
use super::images;
use crate::net::calibration::Ranges;
use crate::net::observe::StageObservation;
use crate::net::ranges::{RangeObservation, RangeReport};
use crate::net::{Circuit, Network};

/// Images observed together; a power of two.
const BLOCK: usize = 512;

type Observed = (RangeObservation, StageObservation);

/// Observes `set`, widens the circuit's figures by what was seen, and reports. `ranges` are those of the calibration images:
/// beyond them an image counts as outside.
///
/// # Errors
/// A network or circuit that is not valid, images that do not fit it, values that are not finite.
pub(super) fn widen(
    network: &Network,
    circuit: &mut Circuit,
    ranges: &Ranges,
    set: &ImageSet,
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<RangeReport, CliError> {
    let normalisation = images::normalisation(&network.input)?;
    let batches = Batches::new(set, &normalisation, BLOCK)?;
    let limits = ranges.limits();
    let found: Mutex<Vec<Option<Observed>>> = Mutex::new((0..batches.batches()).map(|_| None).collect());
    let next = AtomicUsize::new(0);
    let seen: &Circuit = circuit;
    let work = || -> Result<(), CliError> {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= batches.batches() {
                return Ok(());
            }
            let (count, x) = images::block(&batches, block)?;
            let first = (block * BLOCK) as u64;
            let observed = (network.observe_ranges(&x, count, first, &limits)?, seen.observe(&x, count, first)?);
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[block] = Some(observed);
            advance(count as u64);
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(batches.batches())).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(own, Result::and)
    })?;
    let mut blocks = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().flatten();
    let Some((mut values, mut stages)) = blocks.next() else {
        return Err(CliError::Packing(packing::PackingError::Empty { path: "images".into(), what: "images" }));
    };
    for (next_values, next_stages) in blocks {
        values.merge(&next_values)?;
        stages.merge(&next_stages)?;
    }
    circuit.widen(&stages)?;
    Ok(values.report())
}
