//! One training step at a time, for the benchmark: a shard's images, forward, backward, the sum over shards, AdamW.
//!
//! The steps are those of a run's student without a teacher and without integers, on the same few images again and again.

use std::num::NonZeroUsize;

use burn::tensor::Device;

use super::augment::Augmenter;
use super::build::{Activations, build};
use super::data::TrainingData;
use super::error::TrainError;
use super::events::Phase;
use super::fit::Fit;
use super::loss::LossWeights;
use super::model::Model;
use super::optimiser::{Rates, State};
use super::parallel::Lanes;
use super::recipe::Recipe;

/// Steps that the learning rate's course is made for.
const STEPS: usize = 1_000_000;

/// A network that is trained step by step.
pub struct Stepper {
    recipe: Recipe,
    data: TrainingData,
    augmenter: Augmenter,
    lanes: Lanes,
    model: Model,
    state: State,
}

impl Stepper {
    /// The recipe's student with first weights; every step takes the first `train.batch` images trained on.
    ///
    /// # Errors
    /// As [`train`](super::train), except for divergence and checkpoints.
    pub fn new(recipe: Recipe, data: TrainingData, threads: NonZeroUsize) -> Result<Stepper, TrainError> {
        data.expect_batch(recipe.train.batch)?;
        let draft = build(&recipe, &recipe.layers, Activations::Quadratic, &data.input, data.classes, recipe.seed)?;
        let (model, values) = Model::new(&draft.network, &draft.trained_quadratics)?;
        let averaged = recipe.train.average > 0.0;
        Ok(Stepper {
            augmenter: Augmenter::new(&recipe.augment, &data.input)?,
            lanes: Lanes::new(threads)?,
            state: State::new(&values, &model.first_running, averaged, &Device::flex()),
            model,
            recipe,
            data,
        })
    }

    /// One step; its loss.
    ///
    /// # Errors
    /// None without integers.
    pub fn step(&mut self) -> Result<f64, TrainError> {
        let train = &self.recipe.train;
        let device = Device::flex();
        let fit = Fit {
            phase: Phase::Student,
            model: &self.model,
            data: &self.data,
            device: &device,
            augmenter: &self.augmenter,
            lanes: &self.lanes,
            seed: self.recipe.seed,
            epochs: 1,
            epoch_steps: STEPS,
            batch: train.batch,
            shards: train.shards,
            warm_up: train.warm_up,
            blend: train.blend,
            rates: Rates::of(&self.recipe),
            weights: LossWeights::of(train),
            teacher: None,
            integers: None,
        };
        let images = &self.data.used[..train.batch];
        let (loss, _, _) = fit.step(&mut self.state, images, 0, STEPS)?;
        Ok(loss)
    }
}
