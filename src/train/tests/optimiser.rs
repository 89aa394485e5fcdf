//! One step of the optimiser: what decays, what is kept apart from zero, what stays, and the means kept beside.

use super::super::model::{Part, Role, Running, Slot};
use super::super::optimiser::{Rates, State, learning_rate};
use super::*;

const RATES: Rates =
    Rates { learning_rate: 0.01, weight_decay: 0.0, coefficient_rate: 1.0, clip: 1e6, least_a: 0.02, average: 0.0 };

fn slot(part: Part, role: Role) -> Slot {
    Slot { name: format!("0.{part:?}"), layer: 0, part, role }
}

/// One slot of each role.
fn slots() -> Vec<Slot> {
    vec![
        slot(Part::Weight, Role::Weight),
        slot(Part::Bias, Role::Offset),
        slot(Part::A, Role::Square),
        slot(Part::B, Role::Coefficient),
        slot(Part::C, Role::Frozen),
    ]
}

fn state(values: &[Vec<f32>], average: bool) -> State {
    State::new(values, &[], average, &Device::flex())
}

fn values(state: &State) -> Vec<Vec<f32>> {
    state.values.iter().map(|value| host(value.clone())).collect()
}

fn gradients(values: &[Vec<f32>]) -> Vec<Option<Tensor<1>>> {
    values.iter().map(|values| Some(tensor(values))).collect()
}

fn near(found: f32, expected: f64) {
    assert!((f64::from(found) - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{found} is not {expected}");
}

#[test]
fn the_rate_rises_to_its_largest_and_falls_to_a_hundredth() {
    let rates: Vec<f64> = (0..=200).map(|step| learning_rate(0.5, 0.15, step, 200)).collect();
    assert!((rates[0] - 0.5 / 30.0).abs() < 1e-15);
    assert!(rates[..30].windows(2).all(|pair| (pair[1] - pair[0] - 0.5 / 30.0).abs() < 1e-12));
    assert_eq!((rates[29], rates[30]), (0.5, 0.5));
    assert!(rates[30..].windows(2).all(|pair| pair[1] < pair[0]));
    // Half way down a half cosine: the middle of both ends.
    assert!((rates[115] - 0.5 * 0.505).abs() < 1e-12, "{}", rates[115]);
    assert!((rates[200] - 0.005).abs() < 1e-15);
    assert_eq!(learning_rate(0.5, 0.0, 0, 200), 0.5);
    assert!(learning_rate(0.5, 0.0, 1, 1).is_finite());
}

#[test]
fn only_weights_decay() {
    let first = vec![vec![1.0, -2.0]; 5];
    let mut state = state(&first, false);
    let rates = Rates { weight_decay: 0.5, ..RATES };
    state.step(&slots(), gradients(&vec![vec![0.0; 2]; 5]), &[], &rates);
    let found = values(&state);
    near(found[0][0], 1.0 - 0.01 * 0.5);
    near(found[0][1], -2.0 + 2.0 * 0.01 * 0.5);
    assert_eq!(found[1..], first[1..]);
}

#[test]
fn coefficients_have_their_own_rate_and_the_frozen_stay() {
    // The first step of Adam is the rate against the sign of the gradient.
    let first = vec![vec![1.0, -2.0]; 5];
    let mut state = state(&first, false);
    let rates = Rates { coefficient_rate: 0.25, ..RATES };
    state.step(&slots(), gradients(&vec![vec![3.0, -0.5]; 5]), &[], &rates);
    let found = values(&state);
    for (index, rate) in [(0, 0.01), (1, 0.01), (2, 0.0025), (3, 0.0025)] {
        near(found[index][0], 1.0 - rate);
        near(found[index][1], -2.0 + rate);
    }
    assert_eq!(found[4], first[4]);
    assert!(state.moments[4].is_none() && state.moments[0].is_some());
    assert_eq!(state.steps, 1);
}

#[test]
fn squares_are_kept_apart_from_zero_with_their_sign() {
    let slots = [slot(Part::A, Role::Square), slot(Part::B, Role::Coefficient)];
    let mut state = state(&vec![vec![0.025, -0.025, 0.3, 0.021]; 2], false);
    state.step(&slots, gradients(&vec![vec![1.0, -1.0, 1.0, -1.0]; 2]), &[], &RATES);
    let found = values(&state);
    for (found, expected) in found[0].iter().zip([0.02, -0.02, 0.29, 0.031]) {
        near(*found, expected);
    }
    for (found, expected) in found[1].iter().zip([0.015, -0.015, 0.29, 0.031]) {
        near(*found, expected);
    }
    let mut random = Random::new(4);
    for _ in 0..100 {
        let gradient: Vec<f32> = (0..4).map(|_| random.signed() as f32).collect();
        state.step(&slots, gradients(&[gradient.clone(), gradient]), &[], &Rates { learning_rate: 0.05, ..RATES });
        let a = &values(&state)[0];
        assert!(a.iter().all(|a| a.abs() >= 0.02), "{a:?}");
    }
}

#[test]
fn the_norm_of_all_gradients_is_clipped_and_told_as_it_was() {
    let slots = [slot(Part::Weight, Role::Weight), slot(Part::Bias, Role::Offset)];
    let mut clipped = state(&[vec![0.0], vec![0.0]], false);
    let norm = clipped.step(&slots, gradients(&[vec![30.0], vec![-40.0]]), &[], &Rates { clip: 5.0, ..RATES });
    assert!((norm - 50.0).abs() < 1e-4);
    // First moments after one step: a tenth of the gradient, which was shrunk to 5 / 50.
    for (moments, expected) in clipped.moments.iter().zip([0.3, -0.4]) {
        near(host(moments.as_ref().unwrap().momentum.moment_1.clone())[0], expected);
    }
    let mut within = state(&[vec![0.0], vec![0.0]], false);
    within.step(&slots, gradients(&[vec![0.3], vec![-0.4]]), &[], &Rates { clip: 5.0, ..RATES });
    near(host(within.moments[0].as_ref().unwrap().momentum.moment_1.clone())[0], 0.03);
}

#[test]
fn means_follow_the_values_and_forget_the_first_ones_soon() {
    let slots = [slot(Part::Weight, Role::Weight)];
    let mut state = state(&[vec![1.0]], true);
    let mut expected = 1.0;
    for step in 1..=200 {
        let gradient = if step % 3 == 0 { -1.0 } else { 2.0 };
        let rates = Rates { average: 0.95, ..RATES };
        state.step(&slots, gradients(&[vec![gradient]]), &[], &rates);
        let factor = f64::min(0.95, (1.0 + f64::from(step)) / (10.0 + f64::from(step)));
        expected = factor * expected + (1.0 - factor) * f64::from(values(&state)[0][0]);
        let (kept, _) = state.kept();
        let found = host(kept[0].clone())[0];
        assert!((f64::from(found) - expected).abs() < 1e-5, "step {step}: {found} is not {expected}");
    }
    assert!((f64::from(values(&state)[0][0]) - expected).abs() > 1e-3, "the mean is not the last value");
}

#[test]
fn running_statistics_take_a_tenth_of_each_batch_unbiased() {
    let running = Running { layer: 0, mean: vec![1.0, 0.0], var: vec![2.0, 1.0] };
    let mut state = State::new(&[], &[running], true, &Device::flex());
    state.step(&[], vec![], &[(vec![3.0, -1.0], vec![4.0, 0.0], 5)], &Rates { average: 0.5, ..RATES });
    let now = &state.running[0];
    for (found, expected) in now.mean.iter().chain(&now.var).zip([1.2, -0.1, 2.0 + 0.1 * (5.0 - 2.0), 0.9]) {
        near(*found, expected);
    }
    // Means of the running ones: (1 + 1) / (10 + 1) of the old after one step.
    let (_, kept) = state.kept();
    near(kept[0].mean[0], (2.0 * 1.0 + 9.0 * 1.2) / 11.0);
}
