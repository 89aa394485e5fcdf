//! The ladder: the same network with quadratics shared ever less, several seeds each, as a table with standard errors.
//!
//! Accuracies are those on the test images at the end of runs whose settings were fixed beforehand, in the recipe.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::data::{refuse_other, test_images};
use super::model::{Prepared, compute};
use super::pack::trained_bits;
use crate::cli::args::TrainArgs;
use crate::cli::commands::{Context, Report};
use crate::cli::error::CliError;
use crate::cli::oracles::{self, same, share};
use crate::cli::packaging::{CALIBRATION_IMAGES, integers};
use crate::cli::report::{Align, Table};
use crate::train::recipe::Sharing;
use crate::train::{self, RunOptions};

/// Near the beginning of both files.
const LADDER_MARK: &str = "nightshift train --ladder";

/// One run, measured on the test images.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    granularity: Sharing,
    seed: u64,
    /// Shares, 0 to 1.
    float: f64,
    integer: f64,
    /// Without the teacher's, which serves several runs.
    secs: Option<f64>,
}

/// A mean and its standard error over seeds; none for a single seed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    mean: f64,
    error: Option<f64>,
}

impl Mean {
    /// Standard error: the sample's standard deviation over the root of its size.
    fn of(values: &[f64]) -> Mean {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Mean { mean, error: (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()) }
    }

    /// In percent or points.
    fn shown(self) -> String {
        match self.error {
            Some(error) => format!("{:.2} ± {:.2}", 100.0 * self.mean, 100.0 * error),
            None => format!("{:.2}", 100.0 * self.mean),
        }
    }

    fn json(self) -> Value {
        json!({ "mean": self.mean, "standard_error": self.error })
    }
}

/// Runs the ladder and writes its tables.
///
/// # Errors
/// See [`super::run`]; no test images.
pub(super) fn run(args: &TrainArgs, context: &Context) -> Result<Report, CliError> {
    let (markdown_path, json_path) = (args.out.with_extension("ladder.md"), args.out.with_extension("ladder.json"));
    for path in [&markdown_path, &json_path] {
        refuse_other(path, LADDER_MARK, "ladder's table")?;
    }
    // Ladders keep no checkpoints; a name is needed for errors to speak of.
    let checkpoint = args.out.with_extension("checkpoint");
    let mut prepared = Prepared::new(args, &checkpoint, context)?;
    if prepared.test_count.is_none() {
        return Err(CliError::content(&args.data, "number of test images", 0, "some, to compare by"));
    }
    let teacher = prepared.teacher.as_ref().map(|given| &given.network);
    let options =
        RunOptions { compute: compute(args), threads: context.threads, checkpoint: None, resume: false, teacher };
    let outcome = train::ladder(&prepared.recipe, &prepared.training, &options, &mut prepared.watch);
    let rungs = prepared.ended(outcome)?;
    let secs = prepared.watch.student_secs().to_vec();

    let Some(set) = test_images(args, &prepared.data, prepared.data.classes(&prepared.recipe))? else {
        return Err(CliError::NoLabels { path: args.data.clone() });
    };
    let truth = set.labels.as_deref().unwrap_or_default();
    context.progress.begin("measuring", (rungs.len() * set.count) as u64);
    let mut runs = Vec::with_capacity(rungs.len());
    for (index, rung) in rungs.iter().enumerate() {
        let network = &rung.trained.network;
        let calibration = prepared.data.calibration(&network.input, CALIBRATION_IMAGES)?;
        let choice = integers(network, &calibration, trained_bits(&rung.trained).as_ref())?;
        let advance = |images| context.progress.advance(images);
        let oracles = oracles::run(network, &choice.circuit, &set, context.threads.get(), &advance)?;
        let run = Run {
            granularity: rung.granularity,
            seed: rung.seed,
            float: share(same(&oracles.float_labels(), truth), set.count),
            integer: share(same(&oracles.integer_labels(), truth), set.count),
            // Students are trained in the order of the rungs.
            secs: secs.get(index).copied().filter(|_| secs.len() == rungs.len()),
        };
        prepared.watch.line(
            "rung",
            &json!({
                "granularity": run.granularity, "seed": run.seed,
                "accuracy_float": run.float, "accuracy_integer": run.integer,
            }),
        )?;
        runs.push(run);
    }
    context.progress.end();

    let ladder = Ladder { name: &prepared.recipe.name, test_images: set.count, runs: &runs };
    let mut object = ladder.json();
    object["seed_of_data"] = prepared.recipe.seed.into();
    object["data_blake3"] = prepared.data.digest.clone().into();
    object["recipe"] = serde_json::to_value(&prepared.recipe).unwrap_or_default();
    object["nightshift_version"] = env!("CARGO_PKG_VERSION").into();
    let markdown = ladder.markdown(&prepared.recipe_text);
    jobs::atomic::write_atomic(&markdown_path, markdown.as_bytes())?;
    // The mark comes first, whatever the order of an object's keys.
    let fields = object.to_string();
    let text = format!("{{\"made_by\":\"{LADDER_MARK}\",{}\n", fields.strip_prefix('{').unwrap_or(&fields));
    jobs::atomic::write_atomic(&json_path, text.as_bytes())?;
    Ok(Report { text: ladder.table(&markdown_path), json: object })
}

/// The runs of a ladder, to be told.
struct Ladder<'a> {
    name: &'a str,
    test_images: usize,
    runs: &'a [Run],
}

impl Ladder<'_> {
    /// Granularities in the order of the runs.
    fn granularities(&self) -> Vec<Sharing> {
        let mut found = Vec::new();
        for run in self.runs {
            if !found.contains(&run.granularity) {
                found.push(run.granularity);
            }
        }
        found
    }

    fn of(&self, granularity: Sharing) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.granularity == granularity)
    }

    fn mean(&self, granularity: Sharing, value: fn(&Run) -> f64) -> Mean {
        Mean::of(&self.of(granularity).map(value).collect::<Vec<_>>())
    }

    /// Seconds a run; none where a run's are not known.
    fn secs(&self, granularity: Sharing) -> Option<f64> {
        let secs: Option<Vec<f64>> = self.of(granularity).map(|run| run.secs).collect();
        secs.filter(|secs| !secs.is_empty()).map(|secs| Mean::of(&secs).mean)
    }

    /// Element-wise less channel-wise, seed by seed: both runs of a seed share teacher, first weights and order of the
    /// images, so that differences vary less than accuracies.
    fn gain(&self, value: fn(&Run) -> f64) -> Option<Mean> {
        let of_seed = |granularity, seed| self.of(granularity).find(|run| run.seed == seed).map(value);
        let differences: Vec<f64> = self
            .of(Sharing::Element)
            .filter_map(|run| Some(value(run) - of_seed(Sharing::Channel, run.seed)?))
            .collect();
        (!differences.is_empty()).then(|| Mean::of(&differences))
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let row = |granularity: Sharing| {
            let secs = self.secs(granularity).map_or_else(|| "-".to_owned(), |secs| format!("{secs:.0}"));
            let [float, integer] =
                [self.mean(granularity, |run| run.float).shown(), self.mean(granularity, |run| run.integer).shown()];
            [granularity.name().to_owned(), self.of(granularity).count().to_string(), integer, float, secs]
        };
        self.granularities().into_iter().map(row).collect()
    }

    /// The sentence below the table.
    fn sentence(&self) -> Option<String> {
        let (integer, float) = (self.gain(|run| run.integer)?, self.gain(|run| run.float)?);
        Some(format!(
            "element less channel, same seed: {} points with integers, {} with floats",
            integer.shown(),
            float.shown()
        ))
    }

    fn table(&self, path: &Path) -> String {
        let mut table = Table::new(&[
            ("quadratics", Align::Left),
            ("seeds", Align::Right),
            ("integers, %", Align::Right),
            ("floats, %", Align::Right),
            ("seconds", Align::Right),
        ]);
        for row in self.rows() {
            table.row(row);
        }
        let gain = self.sentence().map_or_else(String::new, |sentence| format!("{sentence}\n"));
        format!(
            "{table}\n{gain}accuracy on {} test images, mean and standard error over seeds: {}\n",
            self.test_images,
            path.display()
        )
    }

    fn markdown(&self, recipe_text: &str) -> String {
        let mut text = format!(
            "<!-- {LADDER_MARK} -->\n# Ladder: {}\n\nAccuracy in percent on {} test images, mean ± standard error over \
             seeds. Settings were fixed beforehand, in the recipe\nbelow; the test images were first looked at when all \
             runs were over. Seconds are a run's, without its teacher's.\n\n\
             | quadratics | seeds | integers | floats | seconds |\n|---|---|---|---|---|\n",
            self.name, self.test_images
        );
        for row in self.rows() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        if let Some(sentence) = self.sentence() {
            let _ = write!(text, "\nIn percentage points, {sentence}.\n");
        }
        text += "\n| quadratics | seed | integers | floats |\n|---|---|---|---|\n";
        for run in self.runs {
            let (integer, float) = (100.0 * run.integer, 100.0 * run.float);
            let _ = writeln!(text, "| {} | {} | {integer:.2} | {float:.2} |", run.granularity.name(), run.seed);
        }
        let _ = write!(text, "\n```toml\n{}\n```\n", recipe_text.trim_end());
        text
    }

    fn json(&self) -> Value {
        let rung = |granularity: Sharing| {
            json!({
                "granularity": granularity.name(),
                "seeds": self.of(granularity).count(),
                "accuracy_integer": self.mean(granularity, |run| run.integer).json(),
                "accuracy_float": self.mean(granularity, |run| run.float).json(),
                "seconds": self.secs(granularity),
            })
        };
        let run = |run: &Run| {
            json!({
                "granularity": run.granularity.name(), "seed": run.seed, "accuracy_integer": run.integer,
                "accuracy_float": run.float, "seconds": run.secs,
            })
        };
        json!({
            "model": self.name,
            "test_images": self.test_images,
            "rungs": self.granularities().into_iter().map(rung).collect::<Vec<_>>(),
            "element_less_channel_integer": self.gain(|run| run.integer).map(Mean::json),
            "element_less_channel_float": self.gain(|run| run.float).map(Mean::json),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(granularity: Sharing, seed: u64, integer: f64) -> Run {
        Run { granularity, seed, float: integer + 0.01, integer, secs: Some(2.0 * seed as f64) }
    }

    #[test]
    fn standard_errors_are_those_of_the_sample() {
        // Deviations -1, 0, 1: sample variance 1, over three values.
        let mean = Mean::of(&[1.0, 2.0, 3.0]);
        assert_eq!(mean.mean, 2.0);
        assert!((mean.error.unwrap() - (1.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Mean::of(&[0.5]), Mean { mean: 0.5, error: None });
        assert_eq!(Mean::of(&[0.5]).shown(), "50.00");
    }

    #[test]
    fn the_gain_is_paired_by_seed() {
        let runs = [
            run(Sharing::Channel, 1, 0.70),
            run(Sharing::Element, 1, 0.72),
            run(Sharing::Channel, 2, 0.80),
            run(Sharing::Element, 2, 0.82),
            run(Sharing::Element, 3, 0.10),
        ];
        let ladder = Ladder { name: "net", test_images: 1000, runs: &runs };
        let gain = ladder.gain(|run| run.integer).unwrap();
        // Both seeds gain two points: no error, though the accuracies lie ten apart. Seed 3 has no pair.
        assert!((gain.mean - 0.02).abs() < 1e-12 && gain.error.unwrap() < 1e-12, "{gain:?}");
        assert!(ladder.mean(Sharing::Channel, |run| run.integer).error.unwrap() > 0.04);
        let markdown = ladder.markdown("name = \"net\"\n");
        assert!(markdown.contains("| channel | 2 | 75.00 ± 5.00 | 76.00 ± 5.00 | 3 |"), "{markdown}");
        assert!(markdown.contains("2.00 ± 0.00 points with integers"), "{markdown}");
        assert_eq!(ladder.json()["rungs"][0]["seconds"], 3.0);
        let table = ladder.table(Path::new("M.ladder.md"));
        assert!(table.contains("element") && table.contains("M.ladder.md"), "{table}");
    }

    #[test]
    fn a_ladder_without_the_pair_has_no_gain() {
        let runs = [run(Sharing::Square, 1, 0.70)];
        let ladder = Ladder { name: "net", test_images: 10, runs: &runs };
        assert!(ladder.sentence().is_none() && ladder.json()["element_less_channel_float"].is_null());
    }
}
