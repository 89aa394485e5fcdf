//! Whole runs: the same bits for any number of threads and after any interruption, a plain square that stays one, and a
//! run that diverges.

use std::num::NonZeroUsize;
use std::path::Path;

use super::super::recipe::AugmentRecipe;
use super::super::{Compute, Phase, RunOptions, TrainError, Trained, train};
use super::*;
use crate::net::network::Op;

/// Everything that a run can have: batch normalisation, blending, teacher with all its terms, weight averaging, augmentation,
/// integers; 32 steps in all.
pub(super) fn full() -> Recipe {
    let list =
        layers(&["conv2d out = 3; kernel = 3; stride = 2", "batchnorm", "activation", "flatten", "dense out = 3"]);
    recipe(
        &list,
        "[augment]\nshift = 1\n\
         [train]\nepochs = 2\nbatch = 24\nshards = 3\nlearning_rate = 0.02\nblend = 0.5\naverage = 0.9\nlabel_smoothing = 0.05\n\
         [teacher]\nepochs = 2\nfeatures = 0.1\nwarm_start = true\n\
         [quantise]\nbits = 6\nsteps = 12\n",
    )
}

pub(super) fn options(threads: usize, checkpoint: Option<&Path>) -> RunOptions<'_> {
    let threads = NonZeroUsize::new(threads).unwrap();
    RunOptions { compute: Compute::Cpu, threads, checkpoint, resume: true, teacher: None }
}

/// Stops at the event of this number, and says no to all after it. Counts the events.
pub(super) struct StopAt {
    pub(super) event: usize,
    pub(super) heard: usize,
}

impl Observer for StopAt {
    fn observe(&mut self, _: &Event) -> bool {
        self.heard += 1;
        self.heard <= self.event
    }
}

pub(super) fn assert_same(found: &Trained, expected: &Trained, what: &str) {
    assert_eq!(bits(&found.network), bits(&expected.network), "{what}");
    assert_eq!(found.teacher.as_ref().map(bits), expected.teacher.as_ref().map(bits), "{what}");
    assert_eq!(found.history, expected.history, "{what}");
    assert_eq!(found.stage_bits, expected.stage_bits, "{what}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let (recipe, data) = (full(), stripes(1));
    let one = train(&recipe, &data, &options(1, None), &mut Quiet).unwrap();
    assert_eq!(one.history.len(), 5);
    assert_eq!(one.stage_bits, [6, 6]);
    for threads in [2, 3] {
        let same = train(&recipe, &data, &options(threads, None), &mut Quiet).unwrap();
        assert_same(&same, &one, &format!("{threads} threads"));
    }
    let mut other = recipe.clone();
    other.seed = 4;
    let other = train(&other, &data, &options(2, None), &mut Quiet).unwrap();
    assert_ne!(bits(&other.network), bits(&one.network));
}

#[test]
fn a_run_learns() {
    let mut recipe = full();
    // A shift by one row would make classes alike.
    recipe.augment = AugmentRecipe::default();
    recipe.train.epochs = 12;
    recipe.teacher.as_mut().unwrap().epochs = 12;
    let trained = train(&recipe, &stripes(1), &options(2, None), &mut Quiet).unwrap();
    let last = trained.history.last().unwrap();
    assert_eq!(last.phase, Phase::Quantise);
    assert!(last.held_out_accuracy.unwrap() >= 0.95, "{last:?}");
}

/// Stopped at every single event, which lie before, within and after the epochs of all phases.
#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let (recipe, data) = (full(), stripes(1));
    let folder = tempfile::tempdir().unwrap();
    let whole_path = folder.path().join("whole");
    let mut all = StopAt { event: usize::MAX, heard: 0 };
    let whole = train(&recipe, &data, &options(2, Some(&whole_path)), &mut all).unwrap();
    let mut stops = Vec::new();
    for event in 0..all.heard {
        let path = folder.path().join(format!("stopped-{event}"));
        match train(&recipe, &data, &options(2, Some(&path)), &mut StopAt { event, heard: 0 }) {
            Err(TrainError::Stopped { phase, epoch }) => stops.push((phase, epoch)),
            // Nothing was left to do.
            Ok(trained) => assert_same(&trained, &whole, &format!("event {event}")),
            Err(error) => panic!("event {event}: {error}"),
        }
        let again = train(&recipe, &data, &options(2, Some(&path)), &mut Quiet).unwrap();
        assert_same(&again, &whole, &format!("stopped at event {event}"));
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&whole_path).unwrap(), "event {event}");
    }
    stops.dedup();
    let phases = [("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2), ("quantisation", 1)];
    assert_eq!(stops, phases);
}

#[test]
fn the_plain_square_stays_one_and_other_squares_stay_apart_from_zero() {
    let data = stripes(1);
    let quadratics = |granularity: &str, average: f64| {
        let list = layers(&["conv2d out = 2; kernel = 3", "activation", "flatten", "dense out = 3"]);
        let activation =
            format!("granularity = \"{granularity}\"\ninit = [0.05, 0.5, 0.1]\nleast_a = 0.04\nrate = 5.0");
        let run = format!("epochs = 3\nbatch = 24\nlearning_rate = 0.01\naverage = {average:?}");
        let recipe = recipe(&list, &format!("[activation]\n{activation}\n[train]\n{run}"));
        let network = train(&recipe, &data, &options(2, None), &mut Quiet).unwrap().network;
        let Op::Poly2 { a, b, c, .. } = &network.layers[1].op else { panic!("{:?}", network.layers[1]) };
        (a.clone(), b.clone(), c.clone())
    };
    for average in [0.0, 0.9] {
        assert_eq!(quadratics("square", average), (vec![1.0], vec![0.0], vec![0.0]));
    }
    let (a, b, c) = quadratics("element", 0.0);
    assert_eq!((a.len(), b.len(), c.len()), (32, 32, 32));
    assert!(a.iter().all(|a| a.abs() >= 0.04), "{a:?}");
    assert!(a.iter().any(|a| *a != 0.05) && b.iter().any(|b| *b != 0.5) && c.iter().any(|c| *c != 0.1));
}

/// A learning rate that rises to 1: the first epochs go well, later ones do not.
#[test]
fn a_diverging_run_stops_and_leaves_its_last_good_checkpoint() {
    /// Keeps what the checkpoint file held when it was last told of.
    struct Keeper(Vec<u8>, usize);
    impl Observer for Keeper {
        fn observe(&mut self, event: &Event) -> bool {
            if let Event::Checkpoint(path) = event {
                *self = Keeper(std::fs::read(path).unwrap(), self.1 + 1);
            }
            true
        }
    }
    let list = layers(&[
        "flatten",
        "dense out = 20",
        "activation",
        "dense out = 20",
        "activation",
        "dense out = 20",
        "activation",
        "dense out = 3",
    ]);
    let recipe = recipe(&list, "[train]\nepochs = 30\nbatch = 24\nlearning_rate = 1.0\nwarm_up = 0.9\nclip = 1e6");
    let data = stripes(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut keeper = Keeper(vec![], 0);
    let diverged = |result: Result<Trained, TrainError>| match result {
        Err(TrainError::Diverged { phase, epoch, step, what, found }) => {
            assert!(!found.is_finite() || found >= 1e5, "{what} of {found}");
            (phase, epoch, step, what)
        }
        other => panic!("{other:?}"),
    };
    let first = diverged(train(&recipe, &data, &options(2, Some(&path)), &mut keeper));
    assert_eq!((first.0, first.1), ("student", keeper.1 + 1));
    assert!(keeper.1 >= 1, "nothing was good");
    assert!(std::fs::read(&path).unwrap() == keeper.0);
    // The checkpoint is whole: the run goes on from it, to the same end.
    assert_eq!(diverged(train(&recipe, &data, &options(1, Some(&path)), &mut Quiet)), first);
    assert!(std::fs::read(&path).unwrap() == keeper.0);
}

/// Tables: the network keeps its ReLUs and learns; a given teacher is taken as it is, or refused by name.
#[test]
fn a_network_with_relus_is_taught_by_a_given_one() {
    let data = stripes(1);
    let list = layers(&["flatten", "dense out = 12", "batchnorm", "activation", "dense out = 3"]);
    let run = "epochs = 16\nbatch = 24\nlearning_rate = 0.02";
    let first = recipe(&list, &format!("[train]\n{run}\n[tables]"));
    let teacher = train(&first, &data, &options(1, None), &mut Quiet).unwrap().network;
    assert!(matches!(teacher.layers[3].op, Op::Relu), "{:?}", teacher.layers[3]);

    let taught = recipe(&list, &format!("[train]\n{run}\n[teacher]\nepochs = 1\n[tables]"));
    let given = RunOptions { teacher: Some(&teacher), ..options(2, None) };
    let trained = train(&taught, &data, &given, &mut Quiet).unwrap();
    assert_eq!(trained.teacher.as_ref().map(bits), Some(bits(&teacher)));
    assert!(trained.history.iter().all(|record| record.phase == Phase::Student));
    let last = trained.history.last().unwrap();
    assert!(last.held_out_accuracy.unwrap() >= 0.95, "{last:?}");
    assert_ne!(bits(&trained.network), bits(&teacher));

    let refused = |teacher: &Network| {
        let given = RunOptions { teacher: Some(teacher), ..options(2, None) };
        train(&taught, &data, &given, &mut Quiet).unwrap_err().to_string()
    };
    let mut other = teacher.clone();
    other.input.mean[0] += 0.25;
    assert!(refused(&other).starts_with("teacher: normalisation of its images is mean"), "{}", refused(&other));
    let four = recipe(&layers(&["flatten", "dense out = 4"]), "[train]\nepochs = 1\nbatch = 24");
    let other = build(&four, &four.layers, Activations::Relu, &data.input, 4, 1).unwrap().network;
    assert_eq!(refused(&other), "teacher: number of its classes is 4, expected 3");
    let without = train(&first, &data, &given, &mut Quiet).unwrap_err().to_string();
    assert!(without.starts_with("section [teacher] is missing"), "{without}");
}
