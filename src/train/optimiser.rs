//! AdamW over all parameters, the learning rate's course, clipping, and the running means that are kept beside them.

use burn::optim::{AdamW, AdamWConfig, AdamWState, Optimizer};
use burn::tensor::{Device, Tensor, TensorData};

use super::model::{Role, Running, Slot, host};
use super::recipe::Recipe;

/// Share of a new batch in the running statistics.
const MOMENTUM: f32 = 0.1;

/// Everything that changes while training.
#[derive(Clone)]
pub(super) struct State {
    /// On the plain device, in order of the model's slots.
    pub(super) values: Vec<Tensor<1>>,
    pub(super) moments: Vec<Option<AdamWState<1>>>,
    pub(super) running: Vec<Running>,
    /// Exponential means of values and running statistics.
    pub(super) average: Option<(Vec<Tensor<1>>, Vec<Running>)>,
    /// Steps done.
    pub(super) steps: usize,
}

/// What a step may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    /// Of the coefficients of quadratics, relative to the others.
    pub(super) coefficient_rate: f64,
    pub(super) clip: f64,
    pub(super) least_a: f64,
    /// Factor of the exponential mean; 0: none.
    pub(super) average: f64,
}

impl Rates {
    /// As a recipe's run says.
    pub(super) fn of(recipe: &Recipe) -> Rates {
        let train = &recipe.train;
        Rates {
            learning_rate: train.learning_rate,
            weight_decay: train.weight_decay,
            coefficient_rate: recipe.activation.rate,
            clip: train.clip,
            least_a: recipe.activation.least_a,
            average: train.average,
        }
    }
}

impl State {
    pub(super) fn new(values: &[Vec<f32>], running: &[Running], average: bool, device: &Device) -> State {
        let values: Vec<Tensor<1>> =
            values.iter().map(|values| Tensor::from_data(TensorData::from(values.as_slice()), device)).collect();
        State {
            moments: vec![None; values.len()],
            average: average.then(|| (values.clone(), running.to_vec())),
            values,
            running: running.to_vec(),
            steps: 0,
        }
    }

    /// What is kept of the run so far: the means where there are some.
    pub(super) fn kept(&self) -> (&[Tensor<1>], &[Running]) {
        match &self.average {
            Some((values, running)) => (values, running),
            None => (&self.values, &self.running),
        }
    }

    /// One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101). `gradients` per slot, `statistics` per batch
    /// normalisation: mean, biased variance and numbers a channel. Returns the gradient's norm before clipping.
    pub(super) fn step(
        &mut self,
        slots: &[Slot],
        mut gradients: Vec<Option<Tensor<1>>>,
        statistics: &[(Vec<f32>, Vec<f32>, usize)],
        rates: &Rates,
    ) -> f64 {
        let squares = gradients.iter().flatten().map(|gradient| {
            let sum: f32 = (gradient.clone() * gradient.clone()).sum().into_scalar();
            f64::from(sum)
        });
        let norm = squares.sum::<f64>().sqrt();
        let shrink = if norm > rates.clip { rates.clip / norm } else { 1.0 };
        let decaying = adamw(rates.weight_decay);
        let plain = adamw(0.0);
        for (index, slot) in slots.iter().enumerate() {
            let Some(gradient) = gradients[index].take() else { continue };
            if slot.role == Role::Frozen {
                continue;
            }
            let gradient = if shrink < 1.0 { gradient * shrink } else { gradient };
            let (optimiser, rate) = match slot.role {
                Role::Weight => (&decaying, rates.learning_rate),
                Role::Offset | Role::Frozen => (&plain, rates.learning_rate),
                Role::Square | Role::Coefficient => (&plain, rates.learning_rate * rates.coefficient_rate),
            };
            let (value, moments) =
                optimiser.step(rate, self.values[index].clone(), gradient, self.moments[index].take());
            self.moments[index] = moments;
            self.values[index] =
                if slot.role == Role::Square { kept_apart_from_zero(value, rates.least_a as f32) } else { value };
        }
        for (running, (mean, var, count)) in self.running.iter_mut().zip(statistics) {
            let unbiased = *count as f32 / (*count as f32 - 1.0).max(1.0);
            for (channel, mean) in mean.iter().enumerate() {
                running.mean[channel] += MOMENTUM * (mean - running.mean[channel]);
                running.var[channel] += MOMENTUM * (var[channel] * unbiased - running.var[channel]);
            }
        }
        self.steps += 1;
        if let Some((values, running)) = &mut self.average {
            // Early means forget faster, or the first weights would stay in them.
            let factor = rates.average.min((1.0 + self.steps as f64) / (10.0 + self.steps as f64));
            for (mean, value) in values.iter_mut().zip(&self.values) {
                *mean = mean.clone() * factor + value.clone() * (1.0 - factor);
            }
            for (mean, now) in running.iter_mut().zip(&self.running) {
                let blend = |mean: &mut Vec<f32>, now: &[f32]| {
                    for (mean, now) in mean.iter_mut().zip(now) {
                        *mean += (1.0 - factor as f32) * (now - *mean);
                    }
                };
                blend(&mut mean.mean, &now.mean);
                blend(&mut mean.var, &now.var);
            }
        }
        norm
    }
}

fn adamw(weight_decay: f64) -> AdamW {
    AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(weight_decay as f32).build()
}

/// |a| at least `least`, with its sign (plus for zero).
fn kept_apart_from_zero(a: Tensor<1>, least: f32) -> Tensor<1> {
    let device = a.device();
    let values: Vec<f32> = host(a).into_iter().map(|a| if a.abs() >= least { a } else { least.copysign(a) }).collect();
    Tensor::from_data(TensorData::from(values.as_slice()), &device)
}

/// Learning rate of step `step` of `steps`: a straight rise, then half a cosine down to a hundredth.
pub(super) fn learning_rate(largest: f64, warm_up: f64, step: usize, steps: usize) -> f64 {
    let rise = (warm_up * steps as f64).round();
    let step = step as f64;
    if step < rise {
        return largest * (step + 1.0) / rise;
    }
    let done = (step - rise) / (steps as f64 - rise).max(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
    largest * (0.01 + 0.99 * cosine)
}
