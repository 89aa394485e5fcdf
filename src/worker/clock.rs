//! Seconds spent under names, for receipts.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jobs::receipt::Timing;

/// One step at a time, begun from any thread; steps of one name add up, in order of first appearance.
#[derive(Default)]
pub(super) struct Clock(Mutex<Steps>);

#[derive(Default)]
struct Steps {
    ended: Vec<Timing>,
    running: Option<(String, Instant)>,
}

impl Clock {
    /// Ends the step before and begins this one.
    pub(super) fn begin(&self, name: impl Into<String>) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.end();
        steps.running = Some((name.into(), Instant::now()));
    }

    /// Ends the last step and gives all of them.
    pub(super) fn finish(self) -> Vec<Timing> {
        let mut steps = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        steps.end();
        steps.ended
    }
}

impl Steps {
    fn end(&mut self) {
        let Some((name, since)) = self.running.take() else { return };
        let secs = since.elapsed().as_secs_f64();
        match self.ended.iter_mut().find(|step| step.name == name) {
            Some(step) => step.secs += secs,
            None => self.ended.push(Timing { name, secs }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_one_name_are_one_timing() {
        let clock = Clock::default();
        for name in ["check", "run", "check"] {
            clock.begin(name);
        }
        let names: Vec<String> = clock.finish().into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["check", "run"]);
        assert!(Clock::default().finish().is_empty());
    }
}
