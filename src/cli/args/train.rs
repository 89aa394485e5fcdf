//! Arguments of `train`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Network, run and seed (models/recipes/ has some)
    #[arg(value_name = "RECIPE.toml")]
    pub recipe: PathBuf,
    /// Training images with labels: folder of MNIST or CIFAR-10 files, folder of class folders of PNG or JPEG (or of
    /// train/ and test/ with such), IDX, npy or npz
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Labels of the training images, unless their files carry them
    #[arg(long, value_name = "PATH")]
    pub labels: Option<PathBuf>,
    /// Images that the finished model is measured on, never trained on [default: the test images found in --data]
    #[arg(long, value_name = "PATH")]
    pub test: Option<PathBuf>,
    /// Labels of the test images, unless their files carry them
    #[arg(long, value_name = "PATH", requires = "test")]
    pub test_labels: Option<PathBuf>,
    /// Network that teaches, in place of one trained here: a package, or a specification with --teacher-weights. Images are
    /// normalised as it expects, unless the recipe says how; the recipe's section teacher says how much it counts
    #[arg(long, value_name = "M.nsm|SPEC.json")]
    pub teacher: Option<PathBuf>,
    /// Weights of the teacher's specification
    #[arg(long, value_name = "W.safetensors", requires = "teacher")]
    pub teacher_weights: Option<PathBuf>,
    /// Where to compute: `gpu` needs a build with the cargo feature train-wgpu, and may give other bytes each time
    #[arg(long, value_enum, default_value_t = TrainDevice::Cpu)]
    pub device: TrainDevice,
    /// Model package to write; the training curve (M.svg) and the model card (M.md) go beside it
    #[arg(long, value_name = "M.nsm")]
    pub out: PathBuf,
    /// Train every granularity with every seed of the recipe's ladder section and write tables (M.ladder.md, M.ladder.json)
    /// instead of a package
    #[arg(long, conflicts_with = "encrypted_images")]
    pub ladder: bool,
    /// Go on from the checkpoint of an earlier run, if there is one
    #[arg(long)]
    pub resume: bool,
    /// State of the run, written after every epoch [default: M.checkpoint, removed when the package is there]
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Write what happens as JSON, one object a line; with --resume at the end of what is there
    #[arg(long, value_name = "FILE.jsonl")]
    pub log: Option<PathBuf>,
    /// Encrypt the first N test images, run them as a worker does, decrypt, and put the accuracy into the card
    #[arg(long, value_name = "N")]
    pub encrypted_images: Option<NonZeroUsize>,
}

/// Where a run computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrainDevice {
    /// The CPU: the same recipe, the same bytes
    Cpu,
    /// The GPU
    Gpu,
}
