//! The one error of the commands: what each room below refused, and what the commands refuse themselves. Each has an
//! exit code of `jobs::ExitCode` and, where there is something to do about it, a line of advice.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jobs::{ExitCode, JobsError};
use packing::PackingError;

use crate::client::ClientError;
use crate::format::{self, FormatError};
use crate::net::NetError;
use crate::plan::PlanError;
use crate::worker::WorkerError;

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Images or labels.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// A container, key, package or tensor file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A manifest, a receipt or a file they name.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// A network or circuit.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A network, and the file it was read from.
    #[error("{}: {error}", path.display())]
    NetFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<NetError>,
    },
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Keys, encryption or decryption. Code and advice are settled when it is made, so that a binary which makes none holds
    /// no function of the client's.
    #[error("{error}")]
    Client {
        /// What it said.
        error: Box<dyn std::error::Error + Send + Sync>,
        /// The code it ends with.
        code: ExitCode,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// The worker's run.
    #[error(transparent)]
    Worker(Box<WorkerError>),
    /// The trainer. Code and advice are settled when it is made, so that this enum is the same in builds without one.
    #[error("{error}")]
    Train {
        /// What it said.
        error: Box<dyn std::error::Error + Send + Sync>,
        /// The code it ends with.
        code: ExitCode,
        /// What to do about it.
        advice: Option<String>,
    },
    /// A build without the trainer was asked to train.
    #[error("found a build without the cargo feature `train`, expected one with it")]
    NoTrainer,
    /// An audit that would take longer than allowed.
    #[error("{images} images would take about {estimate_secs:.0} s, expected at most {limit_secs:.0} s")]
    TooLong {
        /// Of the sample.
        images: usize,
        /// By bootstraps measured on this machine.
        estimate_secs: f64,
        /// The limit.
        limit_secs: f64,
    },
    /// An option that does not fit what it is used on.
    #[error("found {option} with {used_on}, expected {expected}")]
    Option {
        /// As typed.
        option: &'static str,
        /// What was named beside it.
        used_on: &'static str,
        /// What it is for.
        expected: &'static str,
    },
    /// A build without the exact engine was given work for it.
    #[error("found a build without the cargo feature `exact`, expected one with it")]
    NoExactEngine,
    /// A kernel that this machine cannot run.
    #[error("kernel: found {found}, expected {expected} on this machine")]
    Kernel {
        /// As asked.
        found: &'static str,
        /// Those there are.
        expected: String,
    },
    /// Nowhere to keep this machine's rates.
    #[error("found neither XDG_CACHE_HOME nor HOME in the environment, expected a folder to keep rates in")]
    NoCache,
    /// No figures can be offered at an address.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// An input cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An output cannot be created.
    #[error("{}: cannot create: {source}", path.display())]
    Create {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An output would replace what is not its like.
    #[error("{}: found something other than a {kind}, expected a free name or an earlier {kind}", path.display())]
    Replace {
        /// The output.
        path: PathBuf,
        /// What may be replaced.
        kind: &'static str,
    },
    /// A job in a queue is not over yet.
    #[error("job {job}: found {found}, expected it to be over")]
    Unfinished {
        /// The queue's name of it.
        job: String,
        /// State and tasks done.
        found: String,
    },
    /// A job in a queue ended without results, or a worker's task did.
    #[error("{what}: {reason}")]
    Ended {
        /// Job or task.
        what: String,
        /// The queue's reason.
        reason: String,
        /// The code that says what kind of reason.
        code: ExitCode,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// The system refuses something that is no file: a thread, a handler of signals.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// What `doctor` found wrong; it has been printed.
    #[error("{failed} of {checks} checks failed, the first: {first}")]
    Unwell {
        /// How many failed.
        failed: usize,
        /// How many there were.
        checks: usize,
        /// The first that failed.
        first: String,
        /// Its code.
        code: ExitCode,
    },
    /// A command panicked: a bug. The panic itself has been told where it happened.
    #[error("found a panic, expected none")]
    Panicked,
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    /// A file's content, with the value found and the one expected.
    #[error("{}: {what} is {found}, expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which value.
        what: String,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// The golden outputs do not come out again.
    #[error(
        "{}: output of layer {layer:?} for golden image {image}, class {class}: found {found:.6}, expected {expected:.6} \
         (difference {:.2e}, at most {limit:.2e})",
        path.display(),
        (found - expected).abs()
    )]
    Golden {
        /// The golden file.
        path: PathBuf,
        /// The layer whose outputs they are.
        layer: String,
        /// Image with the largest difference.
        image: usize,
        /// Its class.
        class: usize,
        /// Logit computed.
        found: f64,
        /// Logit in the file.
        expected: f64,
        /// Largest difference accepted.
        limit: f64,
    },
    /// Labels are needed and neither given nor carried by the images.
    #[error("{}: found no labels, expected some with the images or in a file of their own", path.display())]
    NoLabels {
        /// The images.
        path: PathBuf,
    },
    /// More decimals than mean something.
    #[error("decimals of scores: found {found}, expected at most {limit} ({promised_bits:.1} bits are promised)")]
    Digits {
        /// As asked.
        found: u8,
        /// What the precision carries.
        limit: u8,
        /// The precision.
        promised_bits: f64,
    },
    /// Decrypted labels that are not the integer oracle's, although the logits are not close: something is broken.
    #[error(
        "{images} image(s) with another label than the integer oracle's, image {image} first: found {found}, expected \
         {expected} (logits {gap:.4} apart, precision {precision_bits:.1} bits)"
    )]
    Disagreement {
        /// How many.
        images: usize,
        /// The first.
        image: usize,
        /// Its label when decrypted.
        found: u16,
        /// Its label by the oracle.
        expected: u16,
        /// Distance of the two logits.
        gap: f64,
        /// Precision of all logits.
        precision_bits: f64,
    },
}

/// What to do about a build without the exact engine.
const EXACT_BUILD: &str = "build it in a checkout: cargo build --release --features exact";

impl From<WorkerError> for CliError {
    fn from(error: WorkerError) -> Self {
        Self::Worker(Box::new(error))
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let advice = match error {
            ClientError::Format(error) => return error.into(),
            ClientError::Packing(error) => return error.into(),
            ClientError::Jobs(error) => return error.into(),
            ClientError::Plan(error) => return error.into(),
            ClientError::Exists { .. } => Some("name another folder: keys and jobs are never replaced"),
            ClientError::Mismatch { .. } => Some("key, model and job must belong together"),
            ClientError::Canary { .. } => Some("do not use these results, and tell whoever runs the worker"),
            ClientError::Undecryptable { .. } => Some("check that this key encrypted the job"),
            _ => None,
        };
        CliError::Client { code: error.exit_code(), advice, error: Box::new(error) }
    }
}

impl CliError {
    /// [`CliError::Content`] from displayable values.
    pub(super) fn content(
        path: &Path,
        what: impl Into<String>,
        found: impl ToString,
        expected: impl ToString,
    ) -> CliError {
        let (found, expected) = (found.to_string(), expected.to_string());
        CliError::Content { path: path.to_owned(), what: what.into(), found, expected }
    }

    /// The code that the command ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Packing(error) => packing_code(error),
            Self::Format(error) => format_code(error),
            Self::Jobs(error) => error.exit_code(),
            Self::Net(_) | Self::NetFile { .. } | Self::Content { .. } | Self::Golden { .. } => ExitCode::BadData,
            Self::NoLabels { .. } => ExitCode::BadData,
            Self::Digits { .. } | Self::NoTrainer | Self::TooLong { .. } | Self::Option { .. } => ExitCode::Usage,
            Self::Disagreement { .. } | Self::Panicked => ExitCode::Bug,
            Self::Replace { .. } => ExitCode::CannotCreate,
            Self::Client { code, .. } | Self::Train { code, .. } => *code,
            Self::Ended { code, .. } | Self::Unwell { code, .. } => *code,
            Self::Unfinished { .. } => ExitCode::TryLater,
            Self::System { .. } => ExitCode::Config,
            Self::Worker(error) => worker_code(error),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ExitCode::Permission,
            Self::Kernel { .. } | Self::Listen { .. } | Self::NoCache | Self::NoExactEngine => ExitCode::Config,
            Self::Plan(error) => plan_code(error),
            Self::Read { source, .. } => ExitCode::on_read(source),
            Self::Create { source, .. } => ExitCode::on_create(source),
            Self::Stdout(source) => ExitCode::on_write(source),
        }
    }

    /// One line on what to do about it, where there is something.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Format(error) => return format_advice(error),
            Self::Packing(error) => return packing_advice(error),
            Self::Jobs(error) => return jobs_advice(error),
            Self::Worker(error) => match &**error {
                WorkerError::Format(error) => return format_advice(error),
                WorkerError::Jobs(error) => return jobs_advice(error),
                WorkerError::Memory { .. } => "run it on a larger machine, or raise --memory-limit",
                WorkerError::NoExactEngine => EXACT_BUILD,
                WorkerError::Mismatch { .. } => "encrypt again with the model and version that the worker has",
                _ => return advice_by_code(self.exit_code()),
            },
            Self::NoExactEngine => EXACT_BUILD,
            Self::Kernel { .. } => "leave --isa out: the fastest kernel is chosen",
            Self::NoCache => "name the file: --rates FILE",
            Self::Client { advice: Some(advice), .. } | Self::Ended { advice: Some(advice), .. } => advice,
            Self::Unfinished { .. } => "try again later, or let submit --wait do it",
            Self::Listen { .. } => "choose a free address of this machine with --metrics-listen",
            Self::Train { advice: Some(advice), .. } => return Some(advice.clone()),
            Self::NoTrainer => "build it in a checkout: cargo build --release --features train",
            Self::Plan(PlanError::TooDeep { .. }) => "ask for less precision, or use a network with fewer squarings",
            Self::Golden { .. } => "spec, weights and golden file must come from the same training run and layout",
            Self::TooLong { .. } => "draw fewer images with --sample, raise --time-limit, or say --yes",
            Self::NoLabels { .. } => "give the labels with --labels",
            Self::Option { option, .. } => return Some(format!("leave {option} out")),
            _ => return advice_by_code(self.exit_code()),
        };
        Some(text.to_owned())
    }
}

/// What helps whatever it was that ended with this code.
fn advice_by_code(code: ExitCode) -> Option<String> {
    let text = match code {
        ExitCode::InputMissing => "check the path",
        ExitCode::CannotCreate => "choose a place that exists and is free",
        ExitCode::Permission => "check who owns the file and folder, and their modes",
        ExitCode::Bug => "this is a bug in nightshift: please report it with the command line",
        _ => return None,
    };
    Some(text.to_owned())
}

fn packing_advice(error: &PackingError) -> Option<String> {
    let text = match error {
        PackingError::NoDataset { .. } => "give a folder that holds the data set's own files",
        PackingError::Shape { .. } => "the images must have the shape the model was trained on",
        PackingError::Unrecognised { .. } => "convert the file to one of the formats named",
        PackingError::Truncated { .. } => "the file is damaged: copy it again from where it was made",
        error => return advice_by_code(packing_code(error)),
    };
    Some(text.to_owned())
}

fn jobs_advice(error: &JobsError) -> Option<String> {
    let text = match error {
        JobsError::PathEscapes { .. } | JobsError::PathForm { .. } => {
            "every path of a manifest starts in the manifest's own folder and stays there"
        }
        JobsError::NewerSchema { .. } => "use the version of nightshift that wrote it",
        JobsError::ReceiptMismatch { .. } => "the receipt answers another job: run the worker on this one",
        JobsError::Unsigned { .. } => {
            "have it signed: a request by nightshift sign, a receipt by a worker with --signing-key"
        }
        JobsError::Untrusted { .. } => "if that key is to be trusted, add its line to the list of public keys",
        JobsError::WrongSignature { .. } => "it was changed after it was signed, or the signature is another file's",
        JobsError::Expired { .. } => "sign the request again: nightshift sign --valid-for",
        JobsError::Replayed { .. } => "a job id stands for one content: encrypt anew, which draws a new id",
        JobsError::LooseMode { path, .. } => return Some(format!("keep it to yourself: chmod 600 {}", path.display())),
        JobsError::NoModel { .. } => "give the model package with --model",
        JobsError::KeyReused { .. } => "encrypt again with another --idempotency-key: a job in a queue never changes",
        JobsError::NoSuchJob { .. } => "nightshift-worker status shows the jobs there are",
        JobsError::QueueUrl { .. } => {
            "a queue is spool:DIR, s3://BUCKET/PREFIX or postgres://USER@HOST/DB?store=spool:DIR"
        }
        JobsError::NotCompiledIn { .. } => {
            "build it with that feature: cargo build --release --features cloud,postgres"
        }
        JobsError::Storage { .. } | JobsError::Database { .. } => {
            "nightshift-worker doctor tells what the queue can do"
        }
        JobsError::Read { path, .. } if path.ends_with("receipt.json") => {
            "the job is not done: nightshift-worker run JOB/job.toml"
        }
        error => return advice_by_code(error.exit_code()),
    };
    Some(text.to_owned())
}

fn worker_code(error: &WorkerError) -> ExitCode {
    match error {
        WorkerError::Format(error) => format_code(error),
        WorkerError::Plan(error) => plan_code(error),
        error => error.exit_code(),
    }
}

fn plan_code(error: &PlanError) -> ExitCode {
    match error {
        PlanError::Requirement { .. } => ExitCode::Usage,
        PlanError::Stats { .. } => ExitCode::BadData,
        PlanError::Parameters(_) => ExitCode::Bug,
        _ => ExitCode::Config,
    }
}

fn packing_code(error: &PackingError) -> ExitCode {
    match error {
        PackingError::Io { source, .. } => ExitCode::on_read(source),
        PackingError::Write { source } => ExitCode::on_write(source),
        error => match error.kind() {
            packing::ErrorKind::BadData | packing::ErrorKind::Usage => ExitCode::BadData,
            packing::ErrorKind::Missing => ExitCode::InputMissing,
            packing::ErrorKind::Io => ExitCode::Io,
        },
    }
}

fn format_code(error: &FormatError) -> ExitCode {
    match error.kind() {
        format::ErrorKind::BadData => ExitCode::BadData,
        format::ErrorKind::Mismatch => ExitCode::Mismatch,
        format::ErrorKind::Missing => ExitCode::InputMissing,
        format::ErrorKind::Io => ExitCode::Io,
        format::ErrorKind::Create => match error.root() {
            FormatError::Create(source) => ExitCode::on_create(source),
            _ => ExitCode::CannotCreate,
        },
        format::ErrorKind::Permission => ExitCode::Permission,
    }
}

fn format_advice(error: &FormatError) -> Option<String> {
    let path = if let FormatError::InFile { path, .. } = error { Some(path) } else { None };
    let text = match error.root() {
        FormatError::LooseMode { .. } => match path {
            Some(path) => format!("keep it to yourself: chmod 600 {}", path.display()),
            None => "keep it to yourself: chmod 600".to_owned(),
        },
        FormatError::Version { .. } => "use the version of nightshift that wrote it, or write it anew".to_owned(),
        FormatError::Kind { .. } => "nightshift inspect FILE tells what a file is".to_owned(),
        FormatError::LoweredOtherwise { .. } => {
            "use the version of nightshift that made the package, or import the network again with this one".to_owned()
        }
        FormatError::Mismatch { .. } => {
            "key, model and job must belong together: nightshift inspect shows ids".to_owned()
        }
        FormatError::Digest { .. } | FormatError::Length { .. } | FormatError::Padding { .. } => {
            "the file is damaged: copy it again from where it was made".to_owned()
        }
        FormatError::Foreign { .. } => "the file was not written by nightshift".to_owned(),
        FormatError::Header(_) | FormatError::TooLarge { .. } => "the file is of another format, or damaged".to_owned(),
        _ => return advice_by_code(format_code(error)),
    };
    Some(text)
}
