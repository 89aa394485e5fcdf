//! One model: training, integers, package, accuracy on the test images, curve and card.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use packing::ImageSet;
use serde_json::json;

use super::card::{CARD_MARK, Card, EncryptedFigures, TestFigures};
use super::curve::{CURVE_MARK, draw};
use super::data::{Data, refuse_other, test_images};
use super::errors::Places;
use super::watch::{Log, Watch, in_percent};
use crate::cli::args::TrainArgs;
use crate::cli::commands::{Context, Report, demo};
use crate::cli::error::CliError;
use crate::cli::observe;
use crate::cli::oracles::{self, same, share};
use crate::cli::packaging::{canaries, integers, read_text, refuse_foreign, warn_of_lost_labels};
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::format::ModelPackage;
use crate::net::LowerOptions;
use crate::net::calibration::Ranges;
use crate::plan::cost::cost;
use crate::plan::{Plan, Requirements, scales};
use crate::ring::kernels::Kernel;
use crate::train::{self, Recipe, RunOptions, TrainError, Trained, TrainingData};
use crate::worker::rates;

/// Longest recipe read.
const RECIPE_CAP_BYTES: u64 = 1 << 20;

/// What a run needs before it begins: everything was read and looked at, nothing was written but an opened log.
pub(super) struct Prepared<'a> {
    pub(super) places: Places<'a>,
    pub(super) recipe: Recipe,
    pub(super) recipe_text: String,
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
        let places = Places { recipe: &args.recipe, data: &args.data, checkpoint };
        let recipe = Recipe::parse(&recipe_text).map_err(|error| places.told(error))?;
        // A place that cannot be written should be known now, not after hours.
        let folder = match args.out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        tempfile::tempfile_in(folder).map_err(|source| CliError::Create { path: args.out.clone(), source })?;
        context.progress.begin("reading images", 0);
        let data = Data::open(args, &recipe)?;
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
                "data_blake3": data.digest,
                "training_images": data.set.count,
                "drawn_images": recipe.data.rendered_digits,
                "test_images": test_count,
            }),
        )?;
        Ok(Prepared { places, recipe, recipe_text, data, training, test_count, watch })
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
    let resumed = args.resume && outputs.checkpoint.is_file();
    let start = Instant::now();
    let options = RunOptions {
        threads: context.threads,
        checkpoint: Some(&outputs.checkpoint),
        resume: args.resume,
        teacher: None,
    };
    let outcome = train::train(&prepared.recipe, &prepared.training, &options, &mut prepared.watch);
    let trained = prepared.ended(outcome)?;
    let elapsed = start.elapsed();

    jobs::atomic::write_atomic(&outputs.curve, draw(&prepared.recipe.name, &trained.history).as_bytes())?;
    let test = test_images(args, &prepared.data, prepared.data.classes(&prepared.recipe))?;
    let packed = pack(args, &prepared, &trained, test.as_ref(), context)?;
    let encrypted = match (args.encrypted_images, test) {
        (Some(count), Some(set)) => Some(encrypted(args, &packed, set, count.get(), context)?),
        _ => None,
    };

    let (rates, _) = rates::find(None, Kernel::detect(), context.threads.get())?;
    let batch_secs = cost(&packed.package.circuit, &packed.plan, &rates).batch_secs;
    let images_per_second = packed.plan.slots() as f64 / batch_secs;
    let card = Card {
        package: &packed.package,
        model_id: &packed.model_id,
        file: &file_name(&args.out),
        curve: &file_name(&outputs.curve),
        recipe: &prepared.recipe,
        recipe_text: &prepared.recipe_text,
        created: &jobs::time::format(SystemTime::now()),
        training_images: prepared.data.set.count,
        drawn_images: prepared.recipe.data.rendered_digits,
        class_names: prepared.data.set.class_names.as_deref(),
        data_digest: &prepared.data.digest,
        history: &trained.history,
        elapsed,
        resumed,
        threads: context.threads.get(),
        test: packed.test,
        encrypted,
        plan: &packed.plan,
        images_per_second,
    };
    jobs::atomic::write_atomic(&outputs.card, card.markdown().as_bytes())?;
    if args.checkpoint.is_none() {
        // All it could give is in the package now. Where it cannot go, it stays.
        let _stays = std::fs::remove_file(&outputs.checkpoint);
    }
    let done = json!({
        "model_id": packed.model_id,
        "weight_bits": packed.stage_bits,
        "test_images": packed.test.map(|test| test.images),
        "accuracy_float": packed.test.map(|test| test.float),
        "accuracy_integer": packed.test.map(|test| test.integer),
    });
    prepared.watch.line("done", &done)?;
    report(args, &outputs, &prepared, &trained, &packed, encrypted, elapsed, images_per_second)
}

/// The package as written, and what was measured of it.
struct Packed {
    package: ModelPackage,
    model_id: String,
    plan: Plan,
    stage_bits: Vec<u32>,
    test: Option<TestFigures>,
}

/// Lowers with the bits that were trained for, or the fewest that keep the labels; measures; writes. What goes into the
/// package depends on recipe and data only.
fn pack(
    args: &TrainArgs,
    prepared: &Prepared,
    trained: &Trained,
    test: Option<&ImageSet>,
    context: &Context,
) -> Result<Packed, CliError> {
    let network = trained.network.clone();
    context.progress.begin("choosing integers", 0);
    let calibration = prepared.data.calibration(&network.input)?;
    let mut choice = integers(&network, &calibration, trained_bits(trained).as_ref())?;
    warn_of_lost_labels(&choice, &calibration);
    let canaries = canaries(&choice, &calibration)?;
    let stage_bits = choice.stage_bits();
    context.progress.end();

    context.progress.begin("ranges", prepared.data.set.count as u64);
    let advance = |images| context.progress.advance(images);
    let calibrated = Ranges::measure(&network, &calibration)?;
    let (set, threads) = (&prepared.data.set, context.threads.get());
    let ranges = observe::widen(&network, &mut choice.circuit, &calibrated, set, threads, &advance)?;
    context.progress.end();
    let plan = scales::plan(&choice.circuit, &Requirements::default())?;

    let test = match test {
        None => None,
        Some(set) => {
            context.progress.begin("measuring", set.count as u64);
            let advance = |images| context.progress.advance(images);
            let oracles = oracles::run(&network, &choice.circuit, set, context.threads.get(), &advance)?;
            context.progress.end();
            let truth = set.labels.as_deref().unwrap_or_default();
            let (float, integer) = (oracles.float_labels(), oracles.integer_labels());
            Some(TestFigures {
                images: set.count,
                float: share(same(&float, truth), set.count),
                integer: share(same(&integer, truth), set.count),
                agreement: share(same(&float, &integer), set.count),
            })
        }
    };

    let recipe_text = prepared.recipe.to_toml().map_err(|error| prepared.places.told(error))?;
    let mut provenance = BTreeMap::from([
        ("command", "nightshift train".to_owned()),
        ("nightshift_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("recipe", recipe_text),
        ("seed", prepared.recipe.seed.to_string()),
        ("data_blake3", prepared.data.digest.clone()),
        ("training_images", prepared.data.set.count.to_string()),
        ("drawn_images", prepared.recipe.data.rendered_digits.to_string()),
        ("calibration_images", calibration.images.to_string()),
        ("calibration_agreement", choice.agreement.to_string()),
        ("weight_bits", format!("{stage_bits:?}")),
    ]);
    if let Some(names) = &prepared.data.set.class_names {
        provenance.insert("class_names", names.join(", "));
    }
    if let Some(test) = test {
        provenance.insert("test_images", test.images.to_string());
        provenance.insert("test_accuracy_float", test.float.to_string());
        provenance.insert("test_accuracy_integer", test.integer.to_string());
    }
    let provenance = provenance.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let lowering = Some(choice.lowering);
    let package =
        ModelPackage { network, circuit: choice.circuit, lowering, canaries, ranges: Some(ranges), provenance };
    let model_id = package.write(&args.out)?;
    Ok(Packed { package, model_id, plan, stage_bits, test })
}

/// `None` where the network was not trained for integers.
pub(super) fn trained_bits(trained: &Trained) -> Option<LowerOptions> {
    let stage_bits = trained.stage_bits.clone();
    (!stage_bits.is_empty()).then(|| LowerOptions { stage_bits, ..LowerOptions::default() })
}

/// The first `count` test images the whole way, as the demo goes it, in a folder that is removed afterwards.
fn encrypted(
    args: &TrainArgs,
    packed: &Packed,
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
    let journey =
        demo::journey(&args.out, &packed.package, &packed.plan, &set, &truth, folder.path(), &mut steps, context)?;
    journey.refuse_disagreement()?;
    let found = &journey.comparison;
    let (accuracy, agreement_integer) = (found.accuracy_encrypted, found.agreement_integer);
    Ok(EncryptedFigures { images: found.images, accuracy, agreement_integer })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[expect(clippy::too_many_arguments, reason = "the report tells of everything that the run made")]
fn report(
    args: &TrainArgs,
    outputs: &Outputs,
    prepared: &Prepared,
    trained: &Trained,
    packed: &Packed,
    encrypted: Option<EncryptedFigures>,
    elapsed: Duration,
    images_per_second: f64,
) -> Result<Report, CliError> {
    let package_bytes =
        std::fs::metadata(&args.out).map_err(|source| CliError::Read { path: args.out.clone(), source })?.len();
    let circuit = &packed.package.circuit;
    let (macs, squarings) = (circuit.total_macs(), circuit.total_squares());
    let (degree, log_qp) = (packed.plan.parameters.degree(), packed.plan.parameters.log_qp_bits());
    let last = trained.history.last();
    let held_out = last.and_then(|record| record.held_out_accuracy);

    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &packed.package.network.name]);
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
    for (stage, bits) in circuit.stages.iter().zip(&packed.stage_bits) {
        table.row(["stage", &format!("{}, {bits}-bit integers", stage.name)]);
    }
    table.row(["operations an image", &format!("{macs} multiply-accumulates, {squarings} squares")]);
    table.row(["ring planned", &format!("degree {degree}, log2(QP) {log_qp:.1}")]);
    table.row(["planned here", &format!("{images_per_second:.0} images/s")]);
    table.row(["package", &format!("{}, {}", args.out.display(), human_bytes(package_bytes))]);
    table.row(["card, curve", &format!("{}, {}", outputs.card.display(), outputs.curve.display())]);
    table.row(["model id", &packed.model_id]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": packed.package.network.name,
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
            "weight_bits": packed.stage_bits,
            "macs": macs,
            "squarings": squarings,
            "ring_degree": degree,
            "log_qp": log_qp,
            "planned_images_per_second": images_per_second,
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}
