//! Arguments of `nightshift`, the command of the client and the model's owner.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::values::parse_time;
use super::{
    AuditArgs, ByteSize, FetchArgs, Global, Isa, OptionalSigning, SignArgs, SigningKeygenArgs, SubmitArgs, TableOut,
    TrainArgs, VerifyArgs, WeightBits, WorkerKey,
};

/// Encrypted batch inference: one image a slot, one ciphertext a pixel
#[derive(Parser, Debug)]
#[command(name = "nightshift", version, after_help = "Example: nightshift demo --images 8192")]
pub struct Client {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// The client's commands.
#[derive(Subcommand, Debug)]
pub enum ClientCommand {
    /// Make model packages
    #[command(subcommand)]
    Model(ModelCommand),
    /// Train a network with quadratic activations and pack it; needs a build with the cargo feature `train`
    #[command(after_help = "Example: nightshift train models/recipes/mnist-cryptonets.toml --data mnist/ --out M.nsm")]
    Train(TrainArgs),
    /// Run a model in the clear, with floats and with the integers the worker will use
    #[command(after_help = "Example: nightshift evaluate --model M.nsm --images t10k-images-idx3-ubyte.gz \
                            --labels t10k-labels-idx1-ubyte.gz")]
    Evaluate(EvaluateArgs),
    /// Show the parameters, program, sizes and times that a model leads to
    #[command(after_help = "Example: nightshift plan --model M.nsm --batch 8192 --explain")]
    Plan(PlanArgs),
    /// Make a secret, a public and an evaluation key for a model
    #[command(after_help = "Example: nightshift keygen --model M.nsm --out KEYS/")]
    Keygen(KeygenArgs),
    /// Encrypt images into a job folder for the worker
    #[command(after_help = "Example: nightshift encrypt --key KEYS/secret.key --model M.nsm \
                            --images t10k-images-idx3-ubyte.gz --out JOB/")]
    Encrypt(EncryptArgs),
    /// Put a job folder into a queue: uploads what its store lacks, then enqueues it
    #[command(after_help = "Example: nightshift submit JOB/ --queue spool:/srv/nightshift")]
    Submit(SubmitArgs),
    /// Bring a finished job's results and receipt back into its folder
    #[command(after_help = "Example: nightshift fetch JOB/ --queue spool:/srv/nightshift && nightshift decrypt ..")]
    Fetch(FetchArgs),
    /// Check a finished job without its key: receipt, signatures, results
    #[command(after_help = "Example: nightshift verify JOB/job.toml --worker-key WORKER.pub")]
    Verify(VerifyArgs),
    /// Check a finished job and decrypt its labels
    #[command(
        after_help = "Example: nightshift decrypt --key KEYS/secret.key --job JOB/job.toml --out labels.csv --scores"
    )]
    Decrypt(DecryptArgs),
    /// Run some of a job's images through exact activations as well; needs a build with the cargo feature `exact`
    #[command(after_help = "Example: nightshift audit --key KEYS/secret.key --job JOB/job.toml --exact X.nsm \
                            --sample 20 --sheet differing.png")]
    Audit(AuditArgs),
    /// Make a key to sign requests with
    #[command(after_help = "Example: nightshift signing-keygen --out client-signing.key")]
    SigningKeygen(SigningKeygenArgs),
    /// Sign a job's manifest for a worker that demands it
    #[command(after_help = "Example: nightshift sign JOB/job.toml --signing-key client-signing.key --valid-for 7d")]
    Sign(SignArgs),
    /// Describe any file of Nightshift: kind, version, shape, digests
    #[command(after_help = "Example: nightshift inspect KEYS/eval.key")]
    Inspect(InspectArgs),
    /// Do every step on real or self-drawn digits and show a table of what it took
    #[command(after_help = "Example: nightshift demo --data mnist/ --images 10000 --json")]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example: nightshift completions bash > /etc/bash_completion.d/nightshift")]
    Completions {
        /// Shell to complete in
        shell: Shell,
    },
}

/// Commands on model packages.
#[derive(Subcommand, Debug)]
pub enum ModelCommand {
    /// Check a trained network against its golden outputs and pack it
    #[command(after_help = "Example: nightshift model import --spec model.json --weights weights.safetensors \
                            --golden golden.safetensors --out M.nsm")]
    Import(ImportArgs),
}

/// Arguments of `model import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Layers in order, layout and normalisation (model.json)
    #[arg(long, value_name = "FILE")]
    pub spec: PathBuf,
    /// Trained weights (safetensors, float32)
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Inputs with the outputs that must come out again (safetensors)
    #[arg(long, value_name = "FILE")]
    pub golden: PathBuf,
    /// Model package to write
    #[arg(long, value_name = "M.nsm")]
    pub out: PathBuf,
    /// Calibration images, of which 1000 are used [default: the golden inputs]
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// Labels of the calibration images, unless their file carries them
    #[arg(long, value_name = "PATH", requires = "images")]
    pub labels: Option<PathBuf>,
    /// Bits a weight: auto, or 4 to 16
    #[arg(long, value_name = "BITS", default_value = "auto")]
    pub bits: WeightBits,
    /// Make tables for the exact engine, as networks with a ReLU always get
    #[arg(long)]
    pub tables: bool,
    /// Bits of a table: 2^bits boxes over a neuron's range
    #[arg(long, value_name = "BITS", default_value_t = 6, value_parser = clap::value_parser!(u8).range(4..=6))]
    pub table_bits: u8,
}

/// Arguments of `evaluate`.
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// Model package
    #[arg(long, value_name = "M.nsm")]
    pub model: PathBuf,
    /// Images: IDX, CIFAR-10 binary, npy or npz, or a folder of PNG or JPEG
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// Labels, unless the images' file carries them
    #[arg(long, value_name = "PATH")]
    pub labels: Option<PathBuf>,
    /// Hold the labels that decrypt wrote (.csv), of the first of these images, to those of the integers
    #[arg(long, value_name = "LABELS.csv")]
    pub decrypted: Option<PathBuf>,
    /// They are of a job encrypted with --labels-only, whose scores were compared by the worker
    #[arg(long, requires = "decrypted")]
    pub labels_only: bool,
}

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// Model package
    #[arg(long, value_name = "M.nsm")]
    pub model: PathBuf,
    /// Images to run; more than the ring's slots make several batches [default: one full batch]
    #[arg(long, value_name = "B")]
    pub batch: Option<NonZeroUsize>,
    /// Show the program stage by stage with its homomorphic operations
    #[arg(long)]
    pub explain: bool,
    /// Least precision of the scores, in bits, 2 to 30 [default: 10, as keys and jobs have it]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(2..=30))]
    pub precision: Option<u8>,
    /// Rates that nightshift-worker calibrate wrote [default: those in the user's cache]
    #[arg(long, value_name = "FILE")]
    pub rates: Option<PathBuf>,
    /// Kernel that the worker would compute with
    #[arg(long, value_enum, env = "NIGHTSHIFT_ISA", default_value_t)]
    pub isa: Isa,
}

/// Arguments of `keygen`.
#[derive(Args, Debug)]
pub struct KeygenArgs {
    /// Model package that the keys are for
    #[arg(long, value_name = "M.nsm")]
    pub model: PathBuf,
    /// Folder for secret.key, public.key and eval.key; keys in it are never replaced
    #[arg(long, value_name = "KEYS/")]
    pub out: PathBuf,
}

/// Arguments of `encrypt`.
#[derive(Args, Debug)]
pub struct EncryptArgs {
    /// secret.key (half the upload) or public.key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Model package, for the plan and the normalisation
    #[arg(long, value_name = "M.nsm")]
    pub model: PathBuf,
    /// Images: IDX, CIFAR-10 binary, npy or npz, or a folder of PNG or JPEG
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// Job folder to write: encrypted batches and job.toml
    #[arg(long, value_name = "JOB/")]
    pub out: PathBuf,
    /// Encrypt only the first N images
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// Whose job it is, where a worker serves several
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The results tell each image's label and no scores; models of the exact engine only
    #[arg(long)]
    pub labels_only: bool,
    /// In a queue: larger ones are claimed first, -1000 to 1000 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub priority: Option<i16>,
    /// In a queue: no batch is begun after this UTC time, such as 2026-01-31T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub deadline: Option<String>,
    /// In a queue: jobs of a tenant with the same key are one job [default: the job's random id]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Refuse to run the job where a batch takes more memory, such as 2GiB
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<ByteSize>,
    /// Whether to sign the request.
    #[command(flatten)]
    pub signing: OptionalSigning,
}

/// Arguments of `decrypt`.
#[derive(Args, Debug)]
pub struct DecryptArgs {
    /// secret.key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The job's manifest, JOB/job.toml
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// Table to write; its ending (.csv, .json, .npy) is its format
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(TableOut::new))]
    pub out: TableOut,
    /// Write rounded scores beside the labels
    #[arg(long)]
    pub scores: bool,
    /// Decimal digits of the scores [default: what the plan's precision carries]
    #[arg(long, value_name = "N", requires = "scores", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub digits: Option<u8>,
    /// Whose signature is trusted.
    #[command(flatten)]
    pub worker_key: WorkerKey,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// File to describe
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Folder with MNIST's test images and labels [default: digits drawn by the program]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Images to run
    #[arg(long, value_name = "N", default_value_t = 8192,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub images: usize,
    /// Folder for keys and job, kept afterwards [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Model package [default: the bundled one]
    #[arg(long, value_name = "M.nsm")]
    pub model: Option<PathBuf>,
    /// Seed of the drawn digits; keys are always random
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "data")]
    pub seed: u64,
}
