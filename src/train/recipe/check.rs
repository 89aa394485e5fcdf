//! Ranges of a recipe's settings, as far as they can be told without data: each refusal names the key.

use std::collections::HashSet;
use std::hash::Hash;

use super::{Bits, DataRecipe, LadderRecipe, LayerRecipe, Recipe};
use crate::train::error::TrainError;

/// Most layers, as a network may have.
const MOST_LAYERS: f64 = 1024.0;
/// Largest side, channel count, step or padding, as a network may have.
const LARGEST_DIMENSION: f64 = 65_536.0;

impl Recipe {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if !name_ok(&self.name) {
            return Err(TrainError::setting("name", &self.name, "1 to 64 letters, digits, '-' or '_'"));
        }
        within("length of dataset", self.dataset.len() as f64, 0.0, 256.0)?;
        within("number of layers", self.layers.len() as f64, 1.0, MOST_LAYERS)?;
        check_layers("layer", &self.layers)?;
        self.data.check()?;
        let train = &self.train;
        within("train.epochs", train.epochs as f64, 1.0, 100_000.0)?;
        within("train.batch", train.batch as f64, 2.0, 65_536.0)?;
        within("train.shards", train.shards as f64, 1.0, 64.0)?;
        if !train.batch.is_multiple_of(train.shards) || train.batch / train.shards < 2 {
            return Err(TrainError::setting(
                "train.batch",
                train.batch,
                format!("{} equal parts of at least 2 images", train.shards),
            ));
        }
        within("train.learning_rate", train.learning_rate, 1e-9, 1.0)?;
        within("train.weight_decay", train.weight_decay, 0.0, 1.0)?;
        within("train.warm_up", train.warm_up, 0.0, 0.9)?;
        within("train.clip", train.clip, 1e-6, 1e6)?;
        within("train.label_smoothing", train.label_smoothing, 0.0, 0.9)?;
        within("train.range_penalty", train.range_penalty, 0.0, 1e3)?;
        within("train.range_limit", train.range_limit, 0.1, 1e3)?;
        within("train.range_images", train.range_images as f64, 1.0, 65_536.0)?;
        within("train.blend", train.blend, 0.0, 0.95)?;
        within("train.average", train.average, 0.0, 0.99999)?;
        within("activation.least_a", self.activation.least_a, 0.0, 1.0)?;
        within("activation.rate", self.activation.rate, 0.0, 100.0)?;
        for value in self.activation.init {
            within("activation.init", value, -10.0, 10.0)?;
        }
        let [a, ..] = self.activation.init;
        if a.abs() < self.activation.least_a {
            let expected = format!("at least activation.least_a = {} in magnitude", self.activation.least_a);
            return Err(TrainError::setting("activation.init[0]", a, expected));
        }
        let augment = &self.augment;
        within("augment.shift", augment.shift as f64, 0.0, 64.0)?;
        within("augment.rotate", augment.rotate, 0.0, 180.0)?;
        within("augment.scale", augment.scale, 0.0, 0.9)?;
        within("augment.shear", augment.shear, 0.0, 0.9)?;
        within("augment.cutout", augment.cutout as f64, 0.0, LARGEST_DIMENSION)?;
        within("augment.elastic", augment.elastic, 0.0, 16.0)?;
        within("augment.elastic_sigma", augment.elastic_sigma, 0.0, 32.0)?;
        if augment.elastic > 0.0 && augment.elastic_sigma < 0.5 {
            return Err(TrainError::setting("augment.elastic_sigma", augment.elastic_sigma, "at least 0.5 pixels"));
        }
        if let Some(teacher) = &self.teacher {
            within("number of layers of the teacher", teacher.layers.len() as f64, 0.0, MOST_LAYERS)?;
            check_layers("teacher.layer", &teacher.layers)?;
            within("teacher.epochs", teacher.epochs as f64, 1.0, 100_000.0)?;
            within("teacher.temperature", teacher.temperature, 0.1, 100.0)?;
            within("teacher.alpha", teacher.alpha, 0.0, 1.0)?;
            within("teacher.features", teacher.features, 0.0, 1e3)?;
            if let Some(rate) = teacher.learning_rate {
                within("teacher.learning_rate", rate, 1e-9, 1.0)?;
            }
        }
        if let Some(quantise) = &self.quantise {
            within("quantise.steps", quantise.steps as f64, 0.0, 1e6)?;
            within("quantise.learning_rate", quantise.learning_rate, 1e-9, 1.0)?;
            let bits = match &quantise.bits {
                Bits::All(bits) => std::slice::from_ref(bits),
                Bits::Stages(bits) => bits,
            };
            if bits.is_empty() {
                return Err(TrainError::setting("quantise.bits", "an empty list", "one number, or one for each stage"));
            }
            for &bits in bits {
                within("quantise.bits", f64::from(bits), 4.0, 16.0)?;
            }
        }
        self.check_tables()?;
        self.ladder.check()
    }

    /// A network that keeps its ReLUs has nothing of what only quadratics have.
    fn check_tables(&self) -> Result<(), TrainError> {
        let Some(tables) = &self.tables else { return Ok(()) };
        within("tables.bits", f64::from(tables.bits), 4.0, 6.0)?;
        if self.quantise.is_some() {
            let expected = "none beside [tables], whose integers are chosen when the tables are filled";
            return Err(TrainError::setting("quantise", "a section", expected));
        }
        if self.train.blend > 0.0 {
            return Err(TrainError::setting("train.blend", self.train.blend, "0 beside [tables]: ReLUs stay ReLUs"));
        }
        let shared = |layer: &LayerRecipe| matches!(layer, LayerRecipe::Activation { granularity: Some(_) });
        match self.layers.iter().position(shared) {
            Some(index) => {
                let setting = format!("layer {}: granularity", index + 1);
                Err(TrainError::setting(&setting, "given", "none beside [tables]: a ReLU has no coefficients"))
            }
            None => Ok(()),
        }
    }
}

impl DataRecipe {
    fn check(&self) -> Result<(), TrainError> {
        if self.classes != 0 {
            within("data.classes", self.classes as f64, 2.0, 65_536.0)?;
        }
        if self.limit != 0 && self.held_out >= self.limit {
            let expected = format!("less than data.limit = {}", self.limit);
            return Err(TrainError::setting("data.held_out", self.held_out, expected));
        }
        within("data.rendered_digits", self.rendered_digits as f64, 0.0, 1e7)?;
        if self.mean.len() != self.std.len() {
            let expected = format!("{}, as many as data.mean", self.mean.len());
            return Err(TrainError::setting("number of data.std", self.std.len(), expected));
        }
        for (&mean, &std) in self.mean.iter().zip(&self.std) {
            within("data.mean", mean, 0.0, 1.0)?;
            within("data.std", std, 1e-3, 100.0)?;
        }
        Ok(())
    }
}

impl LadderRecipe {
    fn check(&self) -> Result<(), TrainError> {
        distinct("ladder.granularities", &self.granularities)?;
        distinct("ladder.seeds", &self.seeds)?;
        for (setting, epochs) in [("ladder.epochs", self.epochs), ("ladder.teacher_epochs", self.teacher_epochs)] {
            if let Some(epochs) = epochs {
                within(setting, epochs as f64, 1.0, 100_000.0)?;
            }
        }
        Ok(())
    }
}

/// Numbers of each layer; `list` is the key that the layers stand under. Whether shapes fit is told when the network is
/// built.
fn check_layers(list: &str, layers: &[LayerRecipe]) -> Result<(), TrainError> {
    for (index, layer) in layers.iter().enumerate() {
        let number = index + 1;
        let dimension = |key: &str, found: usize, least: f64| {
            within(&format!("{list} {number}: {key}"), found as f64, least, LARGEST_DIMENSION)
        };
        match layer {
            LayerRecipe::Conv2d { out, kernel, stride, padding, groups } => {
                for (key, found) in [("out", *out), ("kernel", *kernel), ("stride", *stride), ("groups", *groups)] {
                    dimension(key, found, 1.0)?;
                }
                for side in padding.sides() {
                    dimension("padding", side, 0.0)?;
                }
                if !out.is_multiple_of(*groups) {
                    let setting = format!("{list} {number}: groups");
                    return Err(TrainError::setting(&setting, groups, format!("a divisor of out = {out}")));
                }
            }
            LayerRecipe::AvgPool2d { kernel, stride } => {
                dimension("kernel", *kernel, 1.0)?;
                dimension("stride", stride.unwrap_or(*kernel), 1.0)?;
            }
            LayerRecipe::Dense { out } => dimension("out", *out, 1.0)?,
            LayerRecipe::Add { with } if *with > index => {
                let setting = format!("{list} {number}: with");
                let expected = format!("0 (the image) to {index} (an earlier layer)");
                return Err(TrainError::setting(&setting, with, expected));
            }
            LayerRecipe::Add { .. }
            | LayerRecipe::BatchNorm {}
            | LayerRecipe::Activation { .. }
            | LayerRecipe::Flatten {} => {}
        }
    }
    Ok(())
}

/// A list of at least one element, none twice.
fn distinct<T: Hash + Eq + std::fmt::Debug>(setting: &str, list: &[T]) -> Result<(), TrainError> {
    if list.is_empty() {
        return Err(TrainError::setting(setting, "an empty list", "at least one"));
    }
    let mut seen = HashSet::new();
    match list.iter().find(|element| !seen.insert(*element)) {
        Some(twice) => Err(TrainError::setting(setting, format!("{twice:?} twice"), "each once")),
        None => Ok(()),
    }
}

/// A number, not NaN, from `least` to `most`.
fn within(setting: &str, found: f64, least: f64, most: f64) -> Result<(), TrainError> {
    if found >= least && found <= most {
        Ok(())
    } else {
        Err(TrainError::setting(setting, found, format!("{least} to {most}")))
    }
}
