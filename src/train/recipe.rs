//! The recipe: everything that decides a training run except the data, as TOML. Unknown keys are refused by name, because
//! a misspelt setting that is ignored is a model that nobody asked for.
//!
//! ```toml
//! name = "mnist-cryptonets"          # letters, digits, '-', '_'
//! dataset = "MNIST"                  # for people
//! seed = 1
//!
//! [[layer]]
//! type = "conv2d"                    # out, kernel, stride, padding, groups
//! out = 5
//! kernel = 5
//! stride = 2
//! padding = [0, 1, 1, 0]             # top, left, bottom, right; or one number for all sides
//! [[layer]]
//! type = "batchnorm"
//! [[layer]]
//! type = "activation"                # a quadratic; its teacher's place is a ReLU
//! [[layer]]
//! type = "flatten"
//! [[layer]]
//! type = "dense"
//! out = 10
//!
//! [train]
//! epochs = 20
//! ```
//!
//! What a section leaves out has the default written at its field. Checked here: ranges of numbers and what can be told
//! without data; shapes are checked when the network is built (see `build`).

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use crate::net::network::{Granularity, InputSpec};

mod check;

/// Longest recipe read.
const RECIPE_CAP_BYTES: usize = 1 << 20;

/// A checked recipe; only [`Recipe::parse`] makes one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the model: letters, digits, '-', '_'.
    pub name: String,
    /// Name of the data set, for people.
    #[serde(default)]
    pub dataset: String,
    /// Decides initial weights, order and augmentation of the images.
    #[serde(default = "one")]
    pub seed: u64,
    /// Which images.
    #[serde(default)]
    pub data: DataRecipe,
    /// How they are varied.
    #[serde(default)]
    pub augment: AugmentRecipe,
    /// The network, first layer first.
    #[serde(rename = "layer")]
    pub layers: Vec<LayerRecipe>,
    /// The quadratics.
    #[serde(default)]
    pub activation: ActivationRecipe,
    /// The run.
    pub train: TrainRecipe,
    /// A ReLU network that teaches; without this section there is none.
    pub teacher: Option<TeacherRecipe>,
    /// Training of the engine's own integers; without this section weights are only rounded.
    pub quantise: Option<QuantiseRecipe>,
    /// Tables for the exact engine: with this section the network keeps its ReLUs. Without it they are quadratics.
    pub tables: Option<TablesRecipe>,
    /// What `--ladder` compares.
    #[serde(default)]
    pub ladder: LadderRecipe,
}

/// Which images a run sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Training images held out for the numbers shown while training; they are never trained on.
    pub held_out: usize,
    /// Of the training images, how many are used (0: all), the first ones.
    pub limit: usize,
    /// Drawn digits (see `nightshift demo`) added to the training images, 28x28 grey only.
    pub rendered_digits: usize,
    /// Number of classes; 0: one more than the largest label.
    pub classes: usize,
    /// Per channel, of pixels in 0 to 1; empty: measured on the training images.
    pub mean: Vec<f64>,
    /// Per channel; empty: measured on the training images.
    pub std: Vec<f64>,
}

impl Default for DataRecipe {
    fn default() -> DataRecipe {
        DataRecipe { held_out: 2000, limit: 0, rendered_digits: 0, classes: 0, mean: vec![], std: vec![] }
    }
}

/// Random changes of every training image, drawn anew each epoch. Zero or false: not done.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentRecipe {
    /// Largest shift in pixels, each direction, whole pixels; below every side. What comes in from outside the image is
    /// pixel 0, here and in all that follow: black, as the paper of digits is, and within the range of real pixels.
    pub shift: usize,
    /// Largest rotation, degrees.
    pub rotate: f64,
    /// Largest relative change of size, below 1.
    pub scale: f64,
    /// Largest shear (tangent), below 1.
    pub shear: f64,
    /// Elastic deformation: root mean square displacement in pixels.
    pub elastic: f64,
    /// Elastic deformation: smoothness (standard deviation of the Gaussian) in pixels.
    pub elastic_sigma: f64,
    /// Mirrored left to right for every second image on average.
    pub flip: bool,
    /// Side of a square, wholly inside the image, set to zero of normalised space (the mean colour, which tells nothing)
    /// at a random place (DeVries and Taylor, arXiv 1708.04552).
    pub cutout: usize,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum LayerRecipe {
    /// Convolution (cross-correlation) without bias of its own unless `bias`.
    Conv2d {
        /// Output channels.
        out: usize,
        /// Rows and columns of the kernel.
        kernel: usize,
        /// Both directions.
        #[serde(default = "one_usize")]
        stride: usize,
        /// Zeros around the image.
        #[serde(default)]
        padding: Padding,
        /// Groups of channels.
        #[serde(default = "one_usize")]
        groups: usize,
    },
    /// Batch normalisation of each channel (or of each entry after `flatten`).
    BatchNorm {},
    /// A quadratic (in the teacher, and with `[tables]`, a ReLU).
    Activation {
        /// Who shares coefficients; as `[activation]` says where absent.
        granularity: Option<Sharing>,
    },
    /// Mean over squares of `kernel` entries.
    AvgPool2d {
        /// Rows and columns.
        kernel: usize,
        /// Both directions; the kernel where absent.
        stride: Option<usize>,
    },
    /// Channels, rows and columns become one list.
    Flatten {},
    /// A matrix.
    Dense {
        /// Outputs.
        out: usize,
    },
    /// Adds an earlier value: 0 is the image, k the output of the k-th layer.
    Add {
        /// Which.
        with: usize,
    },
}

/// Zeros around an image: one number for all sides, or top, left, bottom, right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding {
    /// The same on all sides.
    Same(usize),
    /// Top, left, bottom, right.
    Sides([usize; 4]),
}

impl Default for Padding {
    fn default() -> Padding {
        Padding::Same(0)
    }
}

impl Padding {
    /// Top, left, bottom, right.
    #[must_use]
    pub fn sides(self) -> [usize; 4] {
        match self {
            Padding::Same(side) => [side; 4],
            Padding::Sides(sides) => sides,
        }
    }
}

/// Who shares the coefficients of a quadratic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// The plain square x^2, nothing trained.
    Square,
    /// One quadratic a layer.
    Layer,
    /// One a channel.
    Channel,
    /// One a neuron.
    Element,
}

impl Sharing {
    /// As the network writes it; the plain square is a layer's quadratic that is not trained.
    #[must_use]
    pub fn granularity(self) -> Granularity {
        match self {
            Sharing::Square | Sharing::Layer => Granularity::Layer,
            Sharing::Channel => Granularity::Channel,
            Sharing::Element => Granularity::Element,
        }
    }

    /// As recipes write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sharing::Square => "square",
            Sharing::Layer => "layer",
            Sharing::Channel => "channel",
            Sharing::Element => "element",
        }
    }
}

/// The quadratics a x^2 + b x + c.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActivationRecipe {
    /// Who shares coefficients.
    pub granularity: Sharing,
    /// Starting values; the default is the least-squares fit of ReLU on N(0, 1).
    pub init: [f64; 3],
    /// |a| is kept at or above this: below it the square cannot be completed well.
    pub least_a: f64,
    /// Learning rate of a, b and c relative to that of the weights.
    pub rate: f64,
}

impl Default for ActivationRecipe {
    fn default() -> ActivationRecipe {
        ActivationRecipe { granularity: Sharing::Element, init: [0.1995, 0.5, 0.1995], least_a: 0.02, rate: 1.0 }
    }
}

/// The run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Equal parts of a batch that are computed apart, at most as many at once as there are threads. Part of the recipe,
    /// because batch normalisation sees one part at a time: so the result does not depend on the number of threads.
    #[serde(default = "default_shards")]
    pub shards: usize,
    /// Largest learning rate (AdamW), reached after the warm-up; then half a cosine down to a hundredth.
    #[serde(default = "default_learning_rate")]
    pub learning_rate: f64,
    /// AdamW's decay of the weights of convolutions and dense layers.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Share of the run in which the learning rate rises.
    #[serde(default = "default_warm_up")]
    pub warm_up: f64,
    /// Largest norm of the gradient of all parameters together.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Probability taken from the true class and spread over all.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Factor of the mean of relu(|x| - range_limit)^2 over all inputs x of activations.
    #[serde(default = "default_range_penalty")]
    pub range_penalty: f64,
    /// Magnitude up to which nothing is penalised.
    #[serde(default = "default_range_limit")]
    pub range_limit: f64,
    /// Images of each shard whose ranges are penalised: a few cost nothing and shape the bulk, all of them reach the tail.
    #[serde(default = "default_range_images")]
    pub range_images: usize,
    /// Share of the run in which ReLU is blended into the quadratic (0: quadratic from the start).
    #[serde(default)]
    pub blend: f64,
    /// Weight averaging: the network kept is the exponential mean of the trained ones with this factor a step; 0: the last.
    #[serde(default)]
    pub average: f64,
}

/// The ReLU network that teaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// Passes over the training images; what is not said here is as in `[train]`.
    pub epochs: usize,
    /// Its layers; empty: the student's, with ReLU. Neither they nor `epochs` count for a given teacher.
    #[serde(default, rename = "layer")]
    pub layers: Vec<LayerRecipe>,
    /// Largest learning rate; as in `[train]` where absent.
    pub learning_rate: Option<f64>,
    /// Softmax temperature of the distillation loss (Hinton et al., arXiv 1503.02531).
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Share of the distillation loss; the rest is cross-entropy with the labels.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Factor of the mean squared difference between the outputs of the activations of both networks, each divided by the
    /// teacher's root mean square; only where the shapes agree.
    #[serde(default)]
    pub features: f64,
    /// Whether the student starts from the teacher's weights, where shapes agree.
    #[serde(default)]
    pub warm_start: bool,
}

/// Quantisation-aware training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantiseRecipe {
    /// Bits of every stage's integers, 4 to 16; or one number for each stage.
    #[serde(default = "default_bits")]
    pub bits: Bits,
    /// Training steps with the engine's integers in the forward direction.
    #[serde(default = "default_steps")]
    pub steps: usize,
    /// Largest learning rate of these steps.
    #[serde(default = "default_quantise_rate")]
    pub learning_rate: f64,
}

/// Look-up tables in place of the ReLUs, filled when the network is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablesRecipe {
    /// A table has 2^bits boxes: 4 to 6.
    #[serde(default = "default_table_bits")]
    pub bits: u32,
}

/// Bits of the integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bits {
    /// The same for all stages.
    All(u32),
    /// One a stage.
    Stages(Vec<u32>),
}

impl Bits {
    /// One a stage, first stage first; a single number is repeated.
    #[must_use]
    pub fn stages(&self, stages: usize) -> Vec<u32> {
        match self {
            Bits::All(bits) => vec![*bits; stages],
            Bits::Stages(bits) => bits.clone(),
        }
    }
}

/// What `--ladder` compares: the recipe, with each granularity and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LadderRecipe {
    /// The rungs.
    pub granularities: Vec<Sharing>,
    /// The seeds; at least two for a standard error.
    pub seeds: Vec<u64>,
    /// Epochs of each run; as in `[train]` where absent.
    pub epochs: Option<usize>,
    /// Epochs of the teacher, trained once for each seed; as in `[teacher]` where absent.
    pub teacher_epochs: Option<usize>,
}

impl Default for LadderRecipe {
    fn default() -> LadderRecipe {
        LadderRecipe {
            granularities: vec![Sharing::Square, Sharing::Layer, Sharing::Channel, Sharing::Element],
            seeds: vec![1, 2, 3],
            epochs: None,
            teacher_epochs: None,
        }
    }
}

fn one() -> u64 {
    1
}
fn one_usize() -> usize {
    1
}
fn default_batch() -> usize {
    128
}
fn default_shards() -> usize {
    2
}
fn default_learning_rate() -> f64 {
    2e-3
}
fn default_weight_decay() -> f64 {
    0.01
}
fn default_warm_up() -> f64 {
    0.15
}
fn default_clip() -> f64 {
    5.0
}
fn default_range_penalty() -> f64 {
    0.01
}
fn default_range_limit() -> f64 {
    4.0
}
fn default_range_images() -> usize {
    16
}
fn default_temperature() -> f64 {
    3.0
}
fn default_alpha() -> f64 {
    0.8
}
fn default_bits() -> Bits {
    Bits::All(8)
}
fn default_table_bits() -> u32 {
    6
}
fn default_steps() -> usize {
    300
}
fn default_quantise_rate() -> f64 {
    2e-4
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with line and column for text that is no recipe, an unknown or missing key;
    /// [`TrainError::Setting`] naming the key for a value out of range.
    pub fn parse(text: &str) -> Result<Recipe, TrainError> {
        if text.len() > RECIPE_CAP_BYTES {
            return Err(TrainError::setting(
                "length of the recipe",
                text.len(),
                format!("at most {RECIPE_CAP_BYTES} bytes"),
            ));
        }
        let recipe: Recipe = toml::from_str(text).map_err(|error| TrainError::Recipe(error.to_string()))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Has the images normalised as a given teacher expects them, unless the recipe says how, so that both read the same.
    pub fn normalise_for(&mut self, teacher: &InputSpec) {
        if self.data.mean.is_empty() && self.data.std.is_empty() {
            self.data.mean.clone_from(&teacher.mean);
            self.data.std.clone_from(&teacher.std);
        }
    }

    /// The recipe as TOML, every default written out.
    ///
    /// # Errors
    /// None for a recipe that was parsed.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|error| TrainError::Recipe(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
