//! The trainer's errors as the command ends with them: a code, the file that a setting stands in, a line of advice.

use std::path::Path;

use jobs::ExitCode;

use crate::cli::error::CliError;
use crate::train::TrainError;

/// Where a run keeps what errors speak of.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) recipe: &'a Path,
    pub(super) data: &'a Path,
    pub(super) teacher: Option<&'a Path>,
    pub(super) checkpoint: &'a Path,
}

/// An error with the file it is about in front.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {text}")]
struct At {
    place: String,
    text: String,
}

impl Places<'_> {
    /// Code and advice of `error`.
    pub(super) fn told(&self, error: TrainError) -> CliError {
        let code = code(&error);
        let advice = self.advice(&error);
        let at = |path: &Path, text: String| Box::new(At { place: path.display().to_string(), text });
        let error: Box<dyn std::error::Error + Send + Sync> = match error {
            TrainError::Recipe(text) => at(self.recipe, one_sentence(&text)),
            TrainError::Setting { .. } | TrainError::Net(_) => at(self.recipe, error.to_string()),
            TrainError::Data { .. } => at(self.data, error.to_string()),
            TrainError::Teacher { .. } => at(self.teacher.unwrap_or(self.recipe), error.to_string()),
            error => Box::new(error),
        };
        CliError::Train { error, code, advice }
    }

    fn advice(&self, error: &TrainError) -> Option<String> {
        let checkpoint = self.checkpoint.display();
        let kept = self.checkpoint.is_file();
        let text = match error {
            TrainError::Recipe(_) => "the keys of a recipe and their defaults: src/train/recipe.rs".to_owned(),
            TrainError::Setting { .. } | TrainError::Net(_) => "correct the recipe".to_owned(),
            TrainError::Data { .. } => {
                "every class needs images and every image a label below the number of classes (data.classes)".to_owned()
            }
            TrainError::Teacher { .. } => {
                "give a teacher of these images and classes; data.mean and data.std of the recipe are to be the teacher's, or \
                 left out"
                    .to_owned()
            }
            TrainError::NoGpu => {
                "leave --device out, or build it in a checkout: cargo build --release --features train-wgpu"
                    .to_owned()
            }
            TrainError::Diverged { .. } => {
                let kept = if kept { format!("; the last good epoch is in {checkpoint}") } else { String::new() };
                format!("lower train.learning_rate, or raise train.warm_up or train.range_penalty{kept}")
            }
            TrainError::Checkpoint { .. } => {
                "resume with the recipe and data it was made with, or begin anew without --resume".to_owned()
            }
            TrainError::Stopped { .. } if kept => "the same command with --resume goes on from there".to_owned(),
            TrainError::Io { source, .. } if ExitCode::on_create(source) == ExitCode::Io && kept => {
                format!("make room and go on with --resume: {checkpoint} is whole")
            }
            TrainError::Io { source, .. } if ExitCode::on_create(source) == ExitCode::Io => "make room".to_owned(),
            TrainError::Io { source, .. } if ExitCode::on_create(source) == ExitCode::Permission => {
                "check who owns the file and folder, and their modes".to_owned()
            }
            TrainError::Io { .. } => "choose a place that exists and is free".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}

fn code(error: &TrainError) -> ExitCode {
    match error {
        TrainError::Recipe(_)
        | TrainError::Setting { .. }
        | TrainError::Data { .. }
        | TrainError::Teacher { .. }
        | TrainError::Net(_) => ExitCode::BadData,
        TrainError::Diverged { .. } | TrainError::NoGpu => ExitCode::Config,
        TrainError::Checkpoint { .. } => ExitCode::Mismatch,
        TrainError::Io { source, .. } => ExitCode::on_create(source),
        TrainError::Stopped { .. } => ExitCode::TryLater,
    }
}

/// A parser's message without the drawing of the line between its first and last words.
fn one_sentence(text: &str) -> String {
    let is_drawing = |line: &str| line.split_once('|').is_some_and(|(left, _)| left.trim().parse::<usize>().is_ok());
    let lines =
        text.lines().map(str::trim).filter(|line| !(line.is_empty() || line.starts_with('|') || is_drawing(line)));
    lines.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    fn places(checkpoint: &Path) -> Places<'_> {
        Places { recipe: Path::new("r.toml"), data: Path::new("d"), teacher: None, checkpoint }
    }

    /// Exit code, text and advice where there is no checkpoint.
    fn told(error: TrainError) -> (u8, String, Option<String>) {
        let told = places(Path::new("none.checkpoint")).told(error);
        (told.exit_code().code(), told.to_string(), told.advice())
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = "name = \"a\"\n[[layer]]\ntype = \"flatten\"\n[train]\nepocs = 3\nepochs = 3\n";
        let (code, text, advice) = told(Recipe::parse(text).unwrap_err());
        assert_eq!(code, 65);
        assert!(text.starts_with("r.toml: TOML parse error at line 5, column 1: unknown field `epocs`"), "{text}");
        assert!(!text.contains('\n') && advice.is_some(), "{text}");
    }

    #[test]
    fn a_full_disk_is_74_and_a_missing_folder_73() {
        let io = |raw: i32| TrainError::Io { path: "c".into(), source: std::io::Error::from_raw_os_error(raw) };
        assert_eq!([28, 2, 13].map(|raw| told(io(raw)).0), [74, 73, 77]);
        assert!(told(io(28)).2.unwrap().starts_with("make room"));
    }

    #[test]
    fn divergence_says_what_to_change_and_where_the_last_good_epoch_is() {
        let diverged =
            || TrainError::Diverged { phase: "student", epoch: 3, step: 7, what: "loss".to_owned(), found: f64::NAN };
        let (code, text, advice) = told(diverged());
        assert_eq!(code, 78);
        assert_eq!(text, "training diverged in student, epoch 3, step 7: loss is NaN");
        assert!(!advice.unwrap().contains("last good"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let advice = places(file.path()).told(diverged()).advice().unwrap();
        assert!(advice.contains("learning_rate") && advice.contains(&file.path().display().to_string()), "{advice}");
    }
}
