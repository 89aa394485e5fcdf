//! One phase: a model fitted to the images for a number of epochs.
//!
//! Each step takes a batch in equal shards. A shard varies its images, asks the teacher, runs forward and backward; the
//! gradients of all shards are added in their order, then one step of the optimiser is taken.

use super::augment::Augmenter;
use super::data::TrainingData;
use super::error::TrainError;
use super::events::{EpochRecord, Event, Observer, Phase};
use super::loss::{LossWeights, loss};
use super::model::{Forward, Mode, Model, Running, host};
use super::optimiser::{Rates, State, learning_rate};
use super::parallel::Lanes;
use super::random::Stream;
use burn::tensor::{Device, Tensor};

/// Images evaluated at once.
const EVALUATED_IMAGES: usize = 250;
/// A loss beyond this does not come back.
const EXPLODED: f64 = 1e5;
/// Steps between two events.
const REPORTED_STEPS: usize = 10;
/// Batches over which batch normalisation is measured again for averaged weights.
const MEASURED_BATCHES: usize = 60;

/// A network that only answers.
pub(super) struct Frozen {
    pub(super) model: Model,
    pub(super) values: Vec<Tensor<1>>,
    pub(super) running: Vec<Running>,
}

/// The engine's integers for a batch: from images `[image][entry]`, in the layout of [`Mode::integers`].
pub(super) type Integers<'a> = dyn Fn(&State, usize) -> Result<Box<dyn IntegerForward>, TrainError> + Sync + 'a;

/// The integers of one set of weights.
pub(super) trait IntegerForward: Sync {
    /// `[activation, logits last][image][entry]` for normalised images `[image][entry]`.
    fn run(&self, images: &[f32], count: usize) -> Result<Vec<Vec<f32>>, TrainError>;
}

/// What a phase does.
pub(super) struct Fit<'a> {
    pub(super) phase: Phase,
    pub(super) model: &'a Model,
    pub(super) data: &'a TrainingData,
    pub(super) device: &'a Device,
    pub(super) augmenter: &'a Augmenter,
    pub(super) lanes: &'a Lanes,
    pub(super) seed: u64,
    pub(super) epochs: usize,
    /// Steps of one epoch.
    pub(super) epoch_steps: usize,
    pub(super) batch: usize,
    pub(super) shards: usize,
    pub(super) warm_up: f64,
    pub(super) blend: f64,
    pub(super) rates: Rates,
    pub(super) weights: LossWeights,
    pub(super) teacher: Option<&'a Frozen>,
    /// Integers in the forward direction, made anew from the weights at every step.
    pub(super) integers: Option<&'a Integers<'a>>,
}

/// Mean and (biased) variance of a batch normalisation, one a channel, and how many numbers a channel they are over.
type Statistics = (Vec<f32>, Vec<f32>, usize);

/// Is told the state and the record of an epoch.
type AfterEpoch<'a> = dyn FnMut(&State, &EpochRecord, &mut dyn Observer) -> Result<(), TrainError> + 'a;

struct ShardResult {
    gradients: Vec<Option<Tensor<1>>>,
    statistics: Vec<Statistics>,
    loss: f64,
    right: usize,
}

impl Fit<'_> {
    /// Runs epochs from where `state` stands; `after_epoch` is told the state and the record of each.
    pub(super) fn run(
        &self,
        state: &mut State,
        observer: &mut dyn Observer,
        after_epoch: &mut AfterEpoch,
    ) -> Result<(), TrainError> {
        let steps = self.epochs * self.epoch_steps;
        let mut going = observer.observe(&Event::Phase { phase: self.phase, steps, done_steps: state.steps });
        let first_epoch = state.steps / self.epoch_steps;
        for epoch in first_epoch..self.epochs {
            let order = self.order(epoch);
            let (mut loss_sum, mut right, mut norm_sum) = (0.0, 0, 0.0);
            let (mut told_loss, mut told_steps) = (0.0, 0);
            for step in 0..self.epoch_steps {
                if !going {
                    return Err(TrainError::Stopped { phase: self.phase.name(), epoch: epoch + 1 });
                }
                let at = step * self.batch;
                let (loss, step_right, norm) = self.step(state, &order[at..at + self.batch], epoch, steps)?;
                // A single image far outside may have a huge gradient, which clipping makes harmless; no number is not.
                for (what, found, most) in [("loss", loss, EXPLODED), ("norm of the gradient", norm, f64::MAX)] {
                    if !(found.is_finite() && found < most) {
                        let (epoch, step, what) = (epoch + 1, step + 1, what.to_owned());
                        return Err(TrainError::Diverged { phase: self.phase.name(), epoch, step, what, found });
                    }
                }
                (loss_sum, right, norm_sum) = (loss_sum + loss, right + step_right, norm_sum + norm);
                (told_loss, told_steps) = (told_loss + loss, told_steps + 1);
                if told_steps == REPORTED_STEPS || step + 1 == self.epoch_steps {
                    let loss = told_loss / told_steps as f64;
                    going = observer.observe(&Event::Steps { steps: told_steps, loss });
                    (told_loss, told_steps) = (0.0, 0);
                }
            }
            if epoch + 1 == self.epochs && state.average.is_some() {
                self.measure_average(state, epoch)?;
            }
            let (values, running) = state.kept();
            let relu_share = self.relu_share(state.steps.saturating_sub(1), steps);
            let held_out = &self.data.held_out;
            let measured = match held_out.is_empty() {
                true => None,
                false => Some(evaluate(
                    self.model,
                    values,
                    running,
                    relu_share,
                    self.data,
                    held_out,
                    self.device,
                    self.augmenter,
                    self.lanes,
                )),
            };
            let record = EpochRecord {
                phase: self.phase,
                epoch: epoch + 1,
                epochs: self.epochs,
                loss: loss_sum / self.epoch_steps as f64,
                train_accuracy: right as f64 / (self.epoch_steps * self.batch) as f64,
                held_out_accuracy: measured.as_ref().map(|measured| measured.accuracy),
                learning_rate: learning_rate(
                    self.rates.learning_rate,
                    self.warm_up,
                    state.steps.saturating_sub(1),
                    steps,
                ),
                relu_share: f64::from(relu_share),
                largest_input: measured.as_ref().map(|measured| measured.largest_input),
                gradient_norm: norm_sum / self.epoch_steps as f64,
            };
            after_epoch(state, &record, observer)?;
            going = observer.observe(&Event::Epoch(&record)) && going;
        }
        // Asked for after the last step: the phase is done and kept, what would follow is not begun.
        if going { Ok(()) } else { Err(TrainError::Stopped { phase: self.phase.name(), epoch: self.epochs }) }
    }

    fn relu_share(&self, step: usize, steps: usize) -> f32 {
        let blended = self.blend * steps as f64;
        if blended > 0.0 { (1.0 - step as f64 / blended).max(0.0) as f32 } else { 0.0 }
    }

    /// The training images in the order of an epoch.
    fn order(&self, epoch: usize) -> Vec<u32> {
        let mut order = self.data.used.clone();
        Stream::new("order", [self.seed, self.phase as u64, epoch as u64]).shuffle(&mut order);
        // An epoch may be longer than the images are many (a fixed number of steps).
        let wanted = self.epoch_steps * self.batch;
        order.iter().copied().cycle().take(wanted).collect()
    }

    /// Loss, images with the right label, norm of the gradient.
    pub(super) fn step(
        &self,
        state: &mut State,
        images: &[u32],
        epoch: usize,
        steps: usize,
    ) -> Result<(f64, usize, f64), TrainError> {
        let share = self.relu_share(state.steps, steps);
        let integers = self.integers.map(|make| make(state, state.steps)).transpose()?;
        let part = self.batch / self.shards;
        let snapshot: &State = state;
        let results = self.lanes.map(self.shards, |shard| {
            self.shard(snapshot, &images[shard * part..(shard + 1) * part], epoch, share, integers.as_deref())
        });
        let results: Vec<ShardResult> = results.into_iter().collect::<Result<_, _>>()?;
        let scale = 1.0 / self.shards as f64;
        let loss = results.iter().map(|result| result.loss).sum::<f64>() * scale;
        let right = results.iter().map(|result| result.right).sum();
        let mut results = results.into_iter();
        let Some(mut sum) = results.next() else { return Ok((loss, right, 0.0)) };
        for result in results {
            for (total, gradient) in sum.gradients.iter_mut().zip(result.gradients) {
                *total = match (total.take(), gradient) {
                    (Some(total), Some(gradient)) => Some(total + gradient),
                    (total, gradient) => total.or(gradient),
                };
            }
            for (total, (mean, var, _)) in sum.statistics.iter_mut().zip(result.statistics) {
                total.0.iter_mut().zip(mean).for_each(|(total, mean)| *total += mean);
                total.1.iter_mut().zip(var).for_each(|(total, var)| *total += var);
            }
        }
        for gradient in &mut sum.gradients {
            *gradient = gradient.take().map(|gradient| gradient * scale);
        }
        for (mean, var, _) in &mut sum.statistics {
            mean.iter_mut().chain(var.iter_mut()).for_each(|value| *value *= scale as f32);
        }
        let mut rates = self.rates;
        rates.learning_rate = learning_rate(rates.learning_rate, self.warm_up, state.steps, steps);
        let norm = state.step(&self.model.slots, sum.gradients, &sum.statistics, &rates);
        Ok((loss, right, norm))
    }

    /// Normalised, varied images `[image][entry]` and their labels.
    fn images(&self, images: &[u32], epoch: usize) -> (Vec<f32>, Vec<u16>) {
        let entries: usize = self.data.shape.iter().product();
        let mut pixels = vec![0.0; images.len() * entries];
        for (&image, pixels) in images.iter().zip(pixels.chunks_exact_mut(entries)) {
            let round = (self.phase as u64) << 32 | epoch as u64;
            self.augmenter.varied_into(self.data.image(image), self.seed, round, image, pixels);
        }
        (pixels, images.iter().map(|&image| self.data.labels[image as usize]).collect())
    }

    fn shard(
        &self,
        state: &State,
        images: &[u32],
        epoch: usize,
        relu_share: f32,
        integers: Option<&dyn IntegerForward>,
    ) -> Result<ShardResult, TrainError> {
        let (pixels, labels) = self.images(images, epoch);
        let exact = integers.map(|integers| integers.run(&pixels, images.len())).transpose()?;
        let x = self.model.images(pixels, self.device);
        let taught = self.teacher.map(|teacher| {
            let mode = Mode { running: Some(&teacher.running), relu_share: 0.0, integers: None };
            teacher.model.forward(&teacher.values, x.clone(), mode)
        });
        let leaves: Vec<Tensor<1>> = state.values.iter().map(|value| value.clone().autodiff().require_grad()).collect();
        let mode = Mode {
            // Integers are those of the folded network, so batch normalisation stands still with them.
            running: exact.is_some().then_some(state.running.as_slice()),
            relu_share,
            integers: exact.as_deref(),
        };
        let forward = self.model.forward(&leaves, x.autodiff(), mode);
        let total = loss(&forward, &labels, taught.as_ref(), &self.weights);
        let value: f32 = total.clone().inner().into_scalar();
        let right = right_labels(&forward, &labels);
        let gradients = total.backward();
        Ok(ShardResult {
            gradients: leaves.iter().map(|leaf| leaf.grad(&gradients)).collect(),
            statistics: forward
                .statistics
                .into_iter()
                .map(|(mean, var, count)| (host(mean), host(var), count))
                .collect(),
            loss: f64::from(value),
            right,
        })
    }

    /// Measures the batch normalisations of the averaged weights over some batches, as training images are varied: the
    /// running ones were measured with other weights (Izmailov et al., arXiv 1803.05407, section 3.2).
    fn measure_average(&self, state: &mut State, epoch: usize) -> Result<(), TrainError> {
        let order = self.order(epoch);
        let batches = self.epoch_steps.min(MEASURED_BATCHES);
        let Some((values, running)) = &mut state.average else { return Ok(()) };
        let found = self.lanes.map(batches, |batch| {
            let (pixels, _) = self.images(&order[batch * self.batch..(batch + 1) * self.batch], epoch);
            let x = self.model.images(pixels, self.device);
            let forward = self.model.forward(values, x, Mode { running: None, relu_share: 0.0, integers: None });
            let host_all = |(mean, var, count)| (host(mean), host(var), count);
            forward.statistics.into_iter().map(host_all).collect::<Vec<Statistics>>()
        });
        for (index, running) in running.iter_mut().enumerate() {
            for channel in 0..running.mean.len() {
                let mean = |pick: &dyn Fn(&Statistics) -> f64| {
                    found.iter().map(|batch| pick(&batch[index])).sum::<f64>() / batches as f64
                };
                running.mean[channel] = mean(&|batch| f64::from(batch.0[channel])) as f32;
                running.var[channel] =
                    mean(&|(_, var, count)| f64::from(var[channel]) * *count as f64 / (*count as f64 - 1.0).max(1.0))
                        as f32;
            }
        }
        Ok(())
    }
}

/// How a model does on some images.
pub(super) struct Measured {
    /// Share with the right label.
    pub(super) accuracy: f64,
    /// Largest magnitude read by an activation.
    pub(super) largest_input: f64,
}

/// Runs images of the data, unvaried.
#[expect(clippy::too_many_arguments, reason = "a plain function of all it reads")]
pub(super) fn evaluate(
    model: &Model,
    values: &[Tensor<1>],
    running: &[Running],
    relu_share: f32,
    data: &TrainingData,
    images: &[u32],
    device: &Device,
    augmenter: &Augmenter,
    lanes: &Lanes,
) -> Measured {
    let entries: usize = data.shape.iter().product();
    let pieces: Vec<&[u32]> = images.chunks(EVALUATED_IMAGES).collect();
    let results = lanes.map(pieces.len(), |piece| {
        let images = pieces[piece];
        let mut pixels = vec![0.0; images.len() * entries];
        for (&image, pixels) in images.iter().zip(pixels.chunks_exact_mut(entries)) {
            augmenter.plain_into(data.image(image), pixels);
        }
        let labels: Vec<u16> = images.iter().map(|&image| data.labels[image as usize]).collect();
        let mode = Mode { running: Some(running), relu_share, integers: None };
        let forward = model.forward(values, model.images(pixels, device), mode);
        let largest = forward.inputs.iter().map(|input| {
            let largest: f32 = input.clone().abs().max().into_scalar();
            f64::from(largest)
        });
        (right_labels(&forward, &labels), largest.fold(0.0, f64::max))
    });
    let right: usize = results.iter().map(|(right, _)| right).sum();
    Measured {
        accuracy: right as f64 / images.len().max(1) as f64,
        largest_input: results.iter().fold(0.0, |largest, (_, found)| largest.max(*found)),
    }
}

fn right_labels(forward: &Forward, labels: &[u16]) -> usize {
    let classes = forward.logits.dims()[1];
    let logits = host(forward.logits.clone().inner());
    let best = |row: &[f32]| (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
    logits.chunks_exact(classes).zip(labels).filter(|(row, label)| best(row) == usize::from(**label)).count()
}
