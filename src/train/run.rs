//! The run: teacher, student, integers; and the ladder of runs.

use std::num::NonZeroUsize;
use std::path::Path;

use burn::tensor::Device;

use super::augment::Augmenter;
use super::build::{Activations, Draft, build};
use super::checkpoint::{self, Checkpoint, Owner, Weights};
use super::data::TrainingData;
use super::device::Compute;
use super::error::TrainError;
use super::events::{EpochRecord, Event, Observer, Phase};
use super::fit::{Fit, Frozen};
use super::loss::LossWeights;
use super::model::{Model, Running, Slot, host, write_back};
use super::optimiser::{Rates, State};
use super::parallel::Lanes;
use super::quantise;
use super::recipe::{Recipe, Sharing, TeacherRecipe};
use crate::net::Network;
use crate::net::network::InputSpec;

/// How to run; on the CPU none of it but a given teacher changes the result.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// Where to compute; only the CPU gives the same bits again.
    pub compute: Compute,
    /// Threads used at once.
    pub threads: NonZeroUsize,
    /// File that holds the state of the run, written after every epoch and replaced as a whole; `None`: none is written.
    pub checkpoint: Option<&'a Path>,
    /// Go on from the checkpoint, if it is there.
    pub resume: bool,
    /// Teacher to use instead of training one; the recipe's `[teacher]` says how much it counts.
    pub teacher: Option<&'a Network>,
}

/// What a run ends with.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network: with quadratics, or with ReLUs where the recipe has tables.
    pub network: Network,
    /// The ReLU network, where there was one.
    pub teacher: Option<Network>,
    /// Every epoch, in order.
    pub history: Vec<EpochRecord>,
    /// Bits of each stage's integers that the network was trained for; empty where it was not.
    pub stage_bits: Vec<u32>,
}

/// One run of a ladder.
#[derive(Clone, Debug)]
pub struct Rung {
    /// Who shares the quadratics.
    pub granularity: Sharing,
    /// Of the recipe.
    pub seed: u64,
    /// The result.
    pub trained: Trained,
}

/// Runs a recipe on data, from first weights (or a checkpoint) to the trained network.
///
/// The result depends on recipe, data and a given teacher only, not on threads, nor on whether the run was interrupted.
///
/// # Errors
/// A recipe whose layers do not fit each other or the data, a given teacher of other images or classes, a run that diverges,
/// a checkpoint that cannot be read or written or belongs to another run, a stop asked for by the observer.
pub fn train(
    recipe: &Recipe,
    data: &TrainingData,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    let run = Run::new(recipe, data, options)?;
    run.run(observer)
}

/// Every granularity and seed of the recipe's `[ladder]`, each seed's runs taught by the same teacher.
///
/// # Errors
/// As [`train`], and a recipe with tables, which has no quadratics to compare. No checkpoints are kept.
pub fn ladder(
    recipe: &Recipe,
    data: &TrainingData,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Vec<Rung>, TrainError> {
    if recipe.tables.is_some() {
        let expected = "none for a ladder: it compares quadratics";
        return Err(TrainError::setting("tables", "a section", expected));
    }
    let mut rungs = Vec::new();
    for &seed in &recipe.ladder.seeds {
        let mut teacher = options.teacher.cloned();
        for &granularity in &recipe.ladder.granularities {
            let mut rung = recipe.clone();
            rung.seed = seed;
            rung.activation.granularity = granularity;
            rung.train.epochs = recipe.ladder.epochs.unwrap_or(recipe.train.epochs);
            if let Some(of_rung) = &mut rung.teacher {
                of_rung.epochs = recipe.ladder.teacher_epochs.unwrap_or(of_rung.epochs);
            }
            let options = RunOptions { checkpoint: None, resume: false, teacher: teacher.as_ref(), ..*options };
            let trained = train(&rung, data, &options, observer)?;
            teacher = trained.teacher.clone();
            rungs.push(Rung { granularity, seed, trained });
        }
    }
    Ok(rungs)
}

/// A teacher reads the very images that the student reads, and tells the same classes apart.
fn expect_teacher_for(given: &Network, input: &InputSpec, classes: usize) -> Result<(), TrainError> {
    let normalised = |input: &InputSpec| format!("mean {:?}, std {:?}", input.mean, input.std);
    for (what, found, expected) in [
        ("shape of its images", format!("{:?}", given.input.shape), format!("{:?}", input.shape)),
        ("number of its classes", given.classes()?.to_string(), classes.to_string()),
        ("normalisation of its images", normalised(&given.input), normalised(input)),
    ] {
        if found != expected {
            return Err(TrainError::Teacher { what, found, expected });
        }
    }
    Ok(())
}

/// A network on its way: description, structure, first values.
struct Subject {
    network: Network,
    model: Model,
    values: Vec<Vec<f32>>,
}

impl Subject {
    fn new(draft: Draft) -> Result<Subject, TrainError> {
        let (model, values) = Model::new(&draft.network, &draft.trained_quadratics)?;
        Ok(Subject { network: draft.network, model, values })
    }

    fn trained(&self, weights: &Weights) -> Result<Network, TrainError> {
        let mut network = self.network.clone();
        write_back(&mut network, &self.model.slots, &weights.0, &weights.1);
        network.validate()?;
        Ok(network)
    }
}

struct Run<'a> {
    recipe: &'a Recipe,
    data: &'a TrainingData,
    options: &'a RunOptions<'a>,
    device: Device,
    lanes: Lanes,
    augmenter: Augmenter,
    teacher: Option<Subject>,
    student: Subject,
    owner: Owner,
    epoch_steps: usize,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a Recipe, data: &'a TrainingData, options: &'a RunOptions<'a>) -> Result<Run<'a>, TrainError> {
        let (input, classes, seed) = (&data.input, data.classes, recipe.seed);
        let activations = if recipe.tables.is_some() { Activations::Tables } else { Activations::Quadratic };
        let student = build(recipe, &recipe.layers, activations, input, classes, seed)?;
        let teacher = match (&recipe.teacher, options.teacher) {
            (None, None) => None,
            (None, Some(_)) => {
                let expected = "one for a given teacher: it says how much the teacher counts";
                return Err(TrainError::setting("section [teacher]", "missing", expected));
            }
            (Some(_), Some(given)) => {
                expect_teacher_for(given, input, classes)?;
                let trained_quadratics = vec![true; given.layers.len()];
                Some(Subject::new(Draft { network: given.clone(), trained_quadratics })?)
            }
            (Some(teacher), None) => {
                let layers = if teacher.layers.is_empty() { &recipe.layers } else { &teacher.layers };
                let mut draft = build(recipe, layers, Activations::Relu, input, classes, seed)?;
                draft.network.name = format!("{}-teacher", recipe.name);
                Some(Subject::new(draft)?)
            }
        };
        let epoch_steps = data.used.len() / recipe.train.batch;
        data.expect_batch(recipe.train.batch)?;
        let mut about = blake3::Hasher::new();
        about.update(recipe.to_toml()?.as_bytes());
        if let Some(given) = options.teacher {
            let spec = given.to_spec()?;
            about.update(spec.json.as_bytes());
            for value in spec.tensors.iter().flat_map(|tensor| &tensor.values) {
                about.update(&value.to_le_bytes());
            }
        }
        let owner = Owner { recipe: about.finalize().to_hex().to_string(), data: data.digest() };
        Ok(Run {
            recipe,
            data,
            options,
            device: options.compute.device()?,
            lanes: Lanes::new(options.threads)?,
            augmenter: Augmenter::new(&recipe.augment, &data.input)?,
            teacher,
            student: Subject::new(student)?,
            owner,
            epoch_steps,
        })
    }

    /// The slots of a phase with their lengths, and its batch normalisations.
    fn slots_of(&self, phase: Phase) -> (Vec<(Slot, usize)>, Vec<Running>) {
        let subject = match (phase, &self.teacher) {
            (Phase::Teacher, Some(teacher)) => teacher,
            _ => &self.student,
        };
        let lengths = subject.values.iter().map(Vec::len);
        (subject.model.slots.iter().cloned().zip(lengths).collect(), subject.model.first_running.clone())
    }

    fn run(&self, observer: &mut dyn Observer) -> Result<Trained, TrainError> {
        let mut history = Vec::new();
        let mut resumed: Option<Checkpoint> = None;
        if let Some(path) = self.options.checkpoint.filter(|path| self.options.resume && path.exists()) {
            let mut found = checkpoint::read(path, &self.owner, &self.device, &|phase| self.slots_of(phase))?;
            history = std::mem::take(&mut found.history);
            resumed = Some(found);
        }

        let taught = match (&self.teacher, &self.recipe.teacher) {
            (Some(subject), Some(recipe)) => Some(self.teach(subject, recipe, &mut resumed, &mut history, observer)?),
            _ => None,
        };
        let frozen = match (&self.teacher, &taught) {
            (Some(subject), Some(weights)) => Some(self.frozen(subject, weights)?),
            _ => None,
        };
        let averaged = self.recipe.train.average > 0.0;
        let device = &self.device;
        let mut state = match resumed {
            Some(Checkpoint { phase: Phase::Student | Phase::Quantise, .. }) => None,
            _ => {
                let mut first = (self.student.values.clone(), self.student.model.first_running.clone());
                if let (Some(weights), true) = (&taught, self.recipe.teacher.as_ref().is_some_and(|t| t.warm_start)) {
                    self.warm_start(&mut first, weights);
                }
                Some(State::new(&first.0, &first.1, averaged, device))
            }
        };
        let mut quantising = None;
        if let Some(found) = resumed {
            match found.phase {
                Phase::Student => state = Some(found.state),
                Phase::Quantise => quantising = Some(found.state),
                Phase::Teacher => {}
            }
        }
        let mut weights = None;
        if let Some(mut state) = state.filter(|_| quantising.is_none()) {
            let fit = self.student_fit(frozen.as_ref());
            let teacher = taught.as_ref();
            fit.run(&mut state, observer, &mut |state, record, observer| {
                history.push(record.clone());
                self.save(Phase::Student, state, &history, teacher, observer)
            })?;
            weights = Some(kept(&state));
        }

        let stages = self.student.network.squarings() + 1;
        let mut stage_bits = Vec::new();
        if let Some(quantise) = &self.recipe.quantise {
            stage_bits = quantise.bits.stages(stages);
            if stage_bits.len() != stages {
                return Err(TrainError::setting(
                    "quantise.bits",
                    format!("{} numbers", stage_bits.len()),
                    format!("{stages}, one a stage"),
                ));
            }
            if quantise.steps > 0 {
                let mut state = match (quantising, &weights) {
                    (Some(state), _) => state,
                    (None, Some((values, running))) => State::new(values, running, false, device),
                    (None, None) => return Err(TrainError::setting("checkpoint", "of no phase", "student or later")),
                };
                let mut fit = self.student_fit(frozen.as_ref());
                fit.phase = Phase::Quantise;
                (fit.epochs, fit.epoch_steps, fit.blend) = (1, quantise.steps, 0.0);
                (fit.rates.learning_rate, fit.rates.average) = (quantise.learning_rate, 0.0);
                let network = self.student.trained(&kept(&state))?;
                let exact =
                    quantise::Exact::new(network, &self.student.model.slots, &stage_bits, self.data, &self.augmenter)?;
                let make = |state: &State, _step: usize| exact.at(state);
                fit.integers = Some(&make);
                let teacher = taught.as_ref();
                fit.run(&mut state, observer, &mut |state, record, observer| {
                    history.push(record.clone());
                    self.save(Phase::Quantise, state, &history, teacher, observer)
                })?;
                weights = Some(kept(&state));
            }
        }
        let weights = weights.ok_or_else(|| TrainError::setting("checkpoint", "of no phase", "student or later"))?;
        let teacher = match (&self.teacher, &taught) {
            (Some(subject), Some(weights)) => Some(subject.trained(weights)?),
            _ => None,
        };
        Ok(Trained { network: self.student.trained(&weights)?, teacher, history, stage_bits })
    }

    /// The teacher's weights: given, from the checkpoint, or trained now.
    fn teach(
        &self,
        subject: &Subject,
        recipe: &TeacherRecipe,
        resumed: &mut Option<Checkpoint>,
        history: &mut Vec<EpochRecord>,
        observer: &mut dyn Observer,
    ) -> Result<Weights, TrainError> {
        if self.options.teacher.is_some() {
            return Ok((subject.values.clone(), subject.model.first_running.clone()));
        }
        if let Some(done) = resumed.as_mut().and_then(|resumed| resumed.teacher.take()) {
            return Ok(done);
        }
        let averaged = self.recipe.train.average > 0.0;
        let mut state = State::new(&subject.values, &subject.model.first_running, averaged, &self.device);
        if let Some(found) = resumed.take_if(|found| found.phase == Phase::Teacher) {
            state = found.state;
        }
        let mut fit = self.fit(Phase::Teacher, &subject.model);
        fit.epochs = recipe.epochs;
        fit.rates.learning_rate = recipe.learning_rate.unwrap_or(fit.rates.learning_rate);
        fit.weights.range_penalty = 0.0;
        fit.run(&mut state, observer, &mut |state, record, observer| {
            history.push(record.clone());
            self.save(Phase::Teacher, state, history, None, observer)
        })?;
        Ok(kept(&state))
    }

    fn frozen(&self, subject: &Subject, weights: &Weights) -> Result<Frozen, TrainError> {
        let quadratics = vec![true; subject.network.layers.len()];
        let (model, _) = Model::new(&subject.network, &quadratics)?;
        let state = State::new(&weights.0, &weights.1, false, &self.device);
        Ok(Frozen { model, values: state.values, running: state.running })
    }

    /// Takes the teacher's tensors where both networks have the same layer with the same size.
    fn warm_start(&self, first: &mut Weights, taught: &Weights) {
        let Some(teacher) = &self.teacher else { return };
        for (slot, values) in self.student.model.slots.iter().zip(&mut first.0) {
            let same = teacher.model.slots.iter().position(|other| other.name == slot.name);
            if let Some(found) = same.map(|index| &taught.0[index]).filter(|found| found.len() == values.len()) {
                values.clone_from(found);
            }
        }
        for running in &mut first.1 {
            let same = taught.1.iter().find(|other| other.layer == running.layer);
            if let Some(found) = same.filter(|found| found.mean.len() == running.mean.len()) {
                running.clone_from(found);
            }
        }
    }

    fn fit<'b>(&'b self, phase: Phase, model: &'b Model) -> Fit<'b> {
        let train = &self.recipe.train;
        Fit {
            phase,
            model,
            data: self.data,
            device: &self.device,
            augmenter: &self.augmenter,
            lanes: &self.lanes,
            seed: self.recipe.seed,
            epochs: train.epochs,
            epoch_steps: self.epoch_steps,
            batch: train.batch,
            shards: train.shards,
            warm_up: train.warm_up,
            blend: 0.0,
            rates: Rates::of(self.recipe),
            weights: LossWeights::of(train),
            teacher: None,
            integers: None,
        }
    }

    fn student_fit<'b>(&'b self, teacher: Option<&'b Frozen>) -> Fit<'b> {
        let mut fit = self.fit(Phase::Student, &self.student.model);
        fit.blend = self.recipe.train.blend;
        fit.teacher = teacher;
        if let Some(recipe) = &self.recipe.teacher {
            fit.weights.temperature = recipe.temperature;
            fit.weights.alpha = recipe.alpha;
            fit.weights.features = recipe.features;
        }
        fit
    }

    fn save(
        &self,
        phase: Phase,
        state: &State,
        history: &[EpochRecord],
        teacher: Option<&Weights>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Some(path) = self.options.checkpoint else { return Ok(()) };
        let model = match (phase, &self.teacher) {
            (Phase::Teacher, Some(subject)) => &subject.model,
            _ => &self.student.model,
        };
        let teacher =
            self.teacher.as_ref().zip(teacher).map(|(subject, weights)| (subject.model.slots.as_slice(), weights));
        checkpoint::write(path, &self.owner, phase, state, &model.slots, history, teacher)?;
        observer.observe(&Event::Checkpoint(path));
        Ok(())
    }
}

/// The weights that a phase keeps.
fn kept(state: &State) -> Weights {
    let (values, running) = state.kept();
    (values.iter().map(|value| host(value.clone())).collect(), running.to_vec())
}
