//! One model: training, integers, package, accuracy on the test images, curve and card.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use packing::ImageSet;
use serde_json::{Value, json};

use super::card::{CARD_MARK, Card, EncryptedFigures};
use super::curve::{CURVE_MARK, draw};
use super::data::{Data, refuse_other, test_images};
use super::errors::Places;
use super::pack::{Body, CircuitBody, Packed, pack};
use super::teacher::{self, GivenTeacher};
use super::watch::{Log, Watch, in_percent};
use crate::cli::args::{TrainArgs, TrainDevice};
use crate::cli::commands::{Context, Report, demo};
use crate::cli::error::CliError;
use crate::cli::packaging::{read_text, refuse_foreign};
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::train::{self, Compute, Recipe, RunOptions, TrainError, Trained, TrainingData};

/// Longest recipe read.
const RECIPE_CAP_BYTES: u64 = 1 << 20;

/// What a run needs before it begins: everything was read and looked at, nothing was written but an opened log.
pub(super) struct Prepared<'a> {
    pub(super) places: Places<'a>,
    pub(super) recipe: Recipe,
    pub(super) recipe_text: String,
    /// In place of one trained here.
    pub(super) teacher: Option<GivenTeacher>,
    pub(super) data: Data,
    pub(super) training: TrainingData,
    /// Number of test images, if there are some.
    pub(super) test_count: Option<usize>,
    pub(super) watch: Watch<'a>,
}

impl<'a> Prepared<'a> {
    /// Reads recipe and data. `checkpoint` is where the run's state will be.
    ///
    /// # Errors
    /// What cannot be read or does not fit.
    pub(super) fn new(args: &'a TrainArgs, checkpoint: &'a Path, context: &'a Context) -> Result<Self, CliError> {
        let recipe_text = read_text(&args.recipe, RECIPE_CAP_BYTES, "a recipe", "TOML in UTF-8")?;
        let places = Places { recipe: &args.recipe, data: &args.data, teacher: args.teacher.as_deref(), checkpoint };
        let mut recipe = Recipe::parse(&recipe_text).map_err(|error| places.told(error))?;
        compute(args).check().map_err(|error| places.told(error))?;
        let teacher = teacher::read(args)?;
        // A place that cannot be written should be known now, not after hours.
        let folder = match args.out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        tempfile::tempfile_in(folder).map_err(|source| CliError::Create { path: args.out.clone(), source })?;
        context.progress.begin("reading images", 0);
        let data = Data::open(args, &recipe)?;
        // A teacher of other images is refused when the run begins.
        if let Some(given) = teacher.as_ref().filter(|given| given.network.input.shape == data.set.shape) {
            recipe.normalise_for(&given.network.input);
        }
        // Looked at for shape and labels only, and dropped: the run knows their number and nothing else.
        let test_count = test_images(args, &data, data.classes(&recipe))?.map(|set| set.count);
        let drawn = data.drawn.as_ref().map(|(set, labels)| (set, labels.as_slice()));
        let training = TrainingData::new(&data.set, &data.labels, drawn, &recipe.data, recipe.seed)
            .map_err(|error| places.told(error))?;
        context.progress.end();
        let log = args.log.as_ref().map(|path| Log::create(path, args.resume)).transpose()?;
        let mut watch = Watch::new(&*context.progress, log);
        watch.line(
            "run",
            &json!({
                "nightshift_version": env!("CARGO_PKG_VERSION"),
                "ladder": args.ladder,
                "recipe": recipe,
                "seed": recipe.seed,
                "teacher_blake3": teacher.as_ref().map(|given| &given.digest),
                "data_blake3": data.digest,
                "training_images": data.set.count,
                "drawn_images": recipe.data.rendered_digits,
                "test_images": test_count,
            }),
        )?;
        Ok(Prepared { places, recipe, recipe_text, teacher, data, training, test_count, watch })
    }

    /// What the run came to; an error of the command's own, met while it listened, goes before the trainer's.
    ///
    /// # Errors
    /// The run's.
    pub(super) fn ended<T>(&mut self, outcome: Result<T, TrainError>) -> Result<T, CliError> {
        let own = self.watch.end();
        match own {
            Some(own) => Err(own),
            None => outcome.map_err(|error| self.places.told(error)),
        }
    }
}

/// Where the run computes.
pub(super) fn compute(args: &TrainArgs) -> Compute {
    match args.device {
        TrainDevice::Cpu => Compute::Cpu,
        TrainDevice::Gpu => Compute::Gpu,
    }
}

/// Files beside the package.
struct Outputs {
    curve: PathBuf,
    card: PathBuf,
    checkpoint: PathBuf,
}

impl Outputs {
    fn new(args: &TrainArgs) -> Result<Outputs, CliError> {
        refuse_foreign(&args.out)?;
        let (curve, card) = (args.out.with_extension("svg"), args.out.with_extension("md"));
        refuse_other(&curve, CURVE_MARK, "training curve")?;
        refuse_other(&card, CARD_MARK, "model card")?;
        let checkpoint = args.checkpoint.clone().unwrap_or_else(|| args.out.with_extension("checkpoint"));
        Ok(Outputs { curve, card, checkpoint })
    }
}

/// Trains, packs, measures and writes.
///
/// # Errors
/// See [`super::run`].
pub(super) fn run(args: &TrainArgs, context: &Context) -> Result<Report, CliError> {
    let outputs = Outputs::new(args)?;
    let mut prepared = Prepared::new(args, &outputs.checkpoint, context)?;
    if args.encrypted_images.is_some() && prepared.test_count.is_none() {
        return Err(CliError::content(&args.data, "number of test images", 0, "some, for --encrypted-images"));
    }
    if prepared.recipe.tables.is_some() {
        // Known now, not after the training.
        if !cfg!(feature = "exact") {
            return Err(CliError::NoExactEngine);
        }
        if args.encrypted_images.is_some() {
            let expected = "none for --encrypted-images; encrypt and run some with the finished package";
            return Err(CliError::content(&args.recipe, "tables", "a section", expected));
        }
    }
    let resumed = args.resume && outputs.checkpoint.is_file();
    let start = Instant::now();
    let options = RunOptions {
        compute: compute(args),
        threads: context.threads,
        checkpoint: Some(&outputs.checkpoint),
        resume: args.resume,
        teacher: prepared.teacher.as_ref().map(|given| &given.network),
    };
    let outcome = train::train(&prepared.recipe, &prepared.training, &options, &mut prepared.watch);
    let trained = prepared.ended(outcome)?;
    let elapsed = start.elapsed();

    jobs::atomic::write_atomic(&outputs.curve, draw(&prepared.recipe.name, &trained.history).as_bytes())?;
    let test = test_images(args, &prepared.data, prepared.data.classes(&prepared.recipe))?;
    let packed = pack(args, &prepared, &trained, test.as_ref(), context)?;
    let encrypted = match (args.encrypted_images, test, &packed.body) {
        (Some(count), Some(set), Body::Circuit(body)) => Some(encrypted(args, body, set, count.get(), context)?),
        _ => None,
    };

    let card = Card {
        packed: &packed,
        file: &file_name(&args.out),
        curve: &file_name(&outputs.curve),
        recipe: &prepared.recipe,
        recipe_text: &prepared.recipe_text,
        teacher: prepared.teacher.as_ref(),
        created: &jobs::time::format(SystemTime::now()),
        training_images: prepared.data.set.count,
        drawn_images: prepared.recipe.data.rendered_digits,
        class_names: prepared.data.set.class_names.as_deref(),
        data_digest: &prepared.data.digest,
        history: &trained.history,
        elapsed,
        resumed,
        threads: context.threads.get(),
        encrypted,
    };
    jobs::atomic::write_atomic(&outputs.card, card.markdown().as_bytes())?;
    if args.checkpoint.is_none() {
        // All it could give is in the package now. Where it cannot go, it stays.
        let _stays = std::fs::remove_file(&outputs.checkpoint);
    }
    let done = json!({
        "model_id": packed.model_id,
        "weight_bits": packed.weight_bits(),
        "test_images": packed.test.map(|test| test.images),
        "accuracy_float": packed.test.map(|test| test.float),
        "accuracy_integer": packed.test.map(|test| test.integer),
    });
    prepared.watch.line("done", &done)?;
    report(args, &outputs, &prepared, &trained, &packed, encrypted, elapsed)
}

/// The first `count` test images the whole way, as the demo goes it, in a folder that is removed afterwards.
fn encrypted(
    args: &TrainArgs,
    body: &CircuitBody,
    mut set: ImageSet,
    count: usize,
    context: &Context,
) -> Result<EncryptedFigures, CliError> {
    if set.count < count {
        tracing::warn!("there are {} test images, fewer than {count}", set.count);
    }
    set.truncate(count);
    let truth = set.labels.clone().unwrap_or_default();
    let made = tempfile::Builder::new().prefix("nightshift-train-").tempdir();
    let folder = made.map_err(|source| CliError::Create { path: std::env::temp_dir(), source })?;
    let mut steps = demo::Steps::new();
    let CircuitBody { package, plan, .. } = body;
    let journey = demo::journey(&args.out, package, plan, &set, &truth, folder.path(), &mut steps, context)?;
    journey.refuse_disagreement()?;
    let found = &journey.comparison;
    let (accuracy, agreement_integer) = (found.accuracy_encrypted, found.agreement_integer);
    Ok(EncryptedFigures { images: found.images, accuracy, agreement_integer })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn report(
    args: &TrainArgs,
    outputs: &Outputs,
    prepared: &Prepared,
    trained: &Trained,
    packed: &Packed,
    encrypted: Option<EncryptedFigures>,
    elapsed: Duration,
) -> Result<Report, CliError> {
    let package_bytes =
        std::fs::metadata(&args.out).map_err(|source| CliError::Read { path: args.out.clone(), source })?.len();
    let last = trained.history.last();
    let held_out = last.and_then(|record| record.held_out_accuracy);

    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &packed.network().name]);
    table.row(["training images", &prepared.data.set.count.to_string()]);
    table.row(["training time", &human_duration(elapsed)]);
    if let Some(share) = held_out {
        table.row(["accuracy, held out", &in_percent(share)]);
    }
    match packed.test {
        Some(test) => {
            table.row(["test images", &test.images.to_string()]);
            table.row(["accuracy, floats", &in_percent(test.float)]);
            table.row(["accuracy, integers", &in_percent(test.integer)]);
        }
        None => {
            table.row(["test images", "none"]);
        }
    }
    if let Some(found) = encrypted {
        table.row(["accuracy, encrypted", &format!("{} of {} images", in_percent(found.accuracy), found.images)]);
    }
    packed.rows_into(&mut table);
    table.row(["package", &format!("{}, {}", args.out.display(), human_bytes(package_bytes))]);
    table.row(["card, curve", &format!("{}, {}", outputs.card.display(), outputs.curve.display())]);
    table.row(["model id", &packed.model_id]);
    let mut object = packed.json();
    let general = json!({
            "model": packed.network().name,
            "model_id": packed.model_id,
            "path": args.out.to_string_lossy(),
            "package_bytes": package_bytes,
            "card": outputs.card.to_string_lossy(),
            "curve": outputs.curve.to_string_lossy(),
            "seed": prepared.recipe.seed,
            "data_blake3": prepared.data.digest,
            "training_images": prepared.data.set.count,
            "held_out_accuracy": held_out,
            "test_images": packed.test.map(|test| test.images),
            "accuracy_float": packed.test.map(|test| test.float),
            "accuracy_integer": packed.test.map(|test| test.integer),
            "agreement": packed.test.map(|test| test.agreement),
            "encrypted_images": encrypted.map(|found| found.images),
            "accuracy_encrypted": encrypted.map(|found| found.accuracy),
            "agreement_integer": encrypted.map(|found| found.agreement_integer),
            "weight_bits": packed.weight_bits(),
            "seconds": elapsed.as_secs_f64(),
    });
    if let (Some(object), Value::Object(general)) = (object.as_object_mut(), general) {
        object.extend(general);
    }
    Ok(Report { text: table.to_string(), json: object })
}
