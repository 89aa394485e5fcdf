//! A batch's state between two stages, on disk: a run that was killed or told to leave goes on where it was, and comes to the same bytes.
//!
//! Written only where at least so much time would be lost otherwise and the batch is not nearly done, whole or not at all, and removed when it is. What
//! is found is of this batch, this plan and this very program, complete and undamaged, or it is not used: then the batch begins anew. That
//! no state can be kept or used is never the batch's trouble.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::CODE_COMMIT;
use crate::engine::{Checkpoints, Engine, LAYOUT, Piece, State};
use crate::format::{Container, ContainerWriter, DType, FormatError, Kind, OpenLimits, SectionSpec};
use crate::plan::cost::Cost;

/// Work that may be lost, if nothing else is said.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// Not kept where what is left of the batch is foretold to take less than this share of [`CheckpointPlace::after`]: writing takes seconds too.
const NEARLY_DONE: f64 = 0.05;

/// Where one batch's state is kept.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPlace<'a> {
    /// Its file.
    pub path: &'a Path,
    /// Work that is not kept is lost: from so much of it on, it is kept.
    pub after: Duration,
}

/// Whose state it is.
pub(super) struct StateOwner<'a> {
    pub plan_id: &'a str,
    pub key_id: &'a str,
    pub job_id: &'a str,
    pub batch: usize,
    /// Hexadecimal, of the batch's file.
    pub input_digest: &'a str,
}

/// The state of one batch, on disk.
pub(super) struct FileCheckpoints<'a> {
    place: CheckpointPlace<'a>,
    metadata: BTreeMap<String, String>,
    found: Option<(usize, Container)>,
    /// Since when work would be lost.
    since: Instant,
    /// Foretold seconds of all stages from each on.
    rest_secs: Vec<f64>,
}

fn section(stage: usize, pass: usize) -> String {
    format!("stage{stage}.pass{pass}")
}

fn spec(piece: &Piece<usize>) -> SectionSpec {
    SectionSpec::new(section(piece.stage, piece.pass), DType::U8, &[piece.bytes])
}

impl<'a> FileCheckpoints<'a> {
    /// Looks for a state of this batch. What is there and cannot be used is removed.
    pub fn open(place: CheckpointPlace<'a>, owner: &StateOwner<'_>, engine: &Engine, cost: &Cost) -> Self {
        // How states lie in memory may change with the program.
        let code = format!("{} {}", env!("CARGO_PKG_VERSION"), CODE_COMMIT.unwrap_or("unknown"));
        let entries = [
            ("plan_id", owner.plan_id.to_owned()),
            ("key_id", owner.key_id.to_owned()),
            ("job_id", owner.job_id.to_owned()),
            ("batch", owner.batch.to_string()),
            ("input_digest", owner.input_digest.to_owned()),
            ("code", code),
            ("layout", LAYOUT.to_string()),
        ];
        let metadata = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let found = match read(place.path, &metadata, engine) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(path = %place.path.display(), %error, "state not used, the batch begins anew");
                remove(place.path);
                None
            }
        };
        let secs_from = |stage: usize| cost.stages[stage..].iter().map(|s| s.tiles_secs + s.polynomials_secs).sum();
        let rest_secs = (0..cost.stages.len()).map(secs_from).collect();
        Self { place, metadata, found, since: Instant::now(), rest_secs }
    }

    /// The batch is done.
    pub fn end(self) {
        remove(self.place.path);
    }

    fn write(&self, state: &State<'_>) -> Result<u64, FormatError> {
        let mut metadata = self.metadata.clone();
        metadata.insert("next".to_owned(), state.next.to_string());
        let specs: Vec<SectionSpec> =
            state.pieces.iter().map(|p| spec(&Piece { stage: p.stage, pass: p.pass, bytes: p.bytes.len() })).collect();
        let writer = ContainerWriter::create(self.place.path, Kind::Checkpoint, &metadata, &specs)?;
        for piece in &state.pieces {
            writer.write_at(&section(piece.stage, piece.pass), 0, piece.bytes)?;
        }
        Ok(writer.finish()?.file_bytes)
    }
}

/// The state in a file, if there is one: of its owner, of the engine's layout, its digests right.
fn read(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    engine: &Engine,
) -> Result<Option<(usize, Container)>, FormatError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let container = Container::open(path, Some(Kind::Checkpoint), &OpenLimits::default())?;
    for (key, value) in metadata {
        container.expect_metadata(key, value)?;
    }
    let text = container.metadata("next")?;
    let next = text.parse().ok();
    let Some((next, layout)) = next.and_then(|next| Some((next, engine.layout(next)?))) else {
        return Err(FormatError::invalid("next stage", text, "one that a stored stage comes before"));
    };
    container.expect_sections(&layout.iter().map(spec).collect::<Vec<_>>())?;
    container.verify()?;
    Ok(Some((next, container)))
}

/// Whether to keep a state when so much work would be lost and so much is left.
fn is_worth_keeping(after: Duration, lost: Duration, rest_secs: f64) -> bool {
    lost >= after && rest_secs >= NEARLY_DONE * after.as_secs_f64()
}

/// What cannot be removed is found unfit, or of use, the next time.
fn remove(path: &Path) {
    let _left = fs::remove_file(path);
}

impl Checkpoints for FileCheckpoints<'_> {
    fn next(&self) -> Option<usize> {
        let (next, _) = self.found.as_ref()?;
        tracing::info!(path = %self.place.path.display(), stage = next, "going on from a kept state");
        Some(*next)
    }

    fn load_into(&self, stage: usize, pass: usize, out: &mut [u8]) -> Result<(), FormatError> {
        let name = section(stage, pass);
        let Some((_, container)) = &self.found else { return Err(FormatError::NoSection { name }) };
        let bytes = container.section(&name)?.bytes;
        if bytes.len() != out.len() {
            return Err(FormatError::invalid(name, format!("{} bytes", bytes.len()), format!("{}", out.len())));
        }
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn offer(&mut self, state: &State<'_>) {
        // What was gone on from is not needed any more.
        self.found = None;
        if !is_worth_keeping(self.place.after, self.since.elapsed(), self.rest_secs[state.next]) {
            return;
        }
        match self.write(state) {
            Ok(bytes) => {
                tracing::info!(path = %self.place.path.display(), bytes, stage = state.next, "state kept");
            }
            Err(error) => tracing::warn!(%error, "state not kept"),
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_kept_of_much_work_with_some_left() {
        let kept = |lost, rest_secs| is_worth_keeping(Duration::from_secs(60), Duration::from_secs(lost), rest_secs);
        assert!(kept(60, 3.0) && kept(600, 20.0));
        assert!(!kept(59, 20.0), "too little to lose");
        assert!(!kept(600, 2.9), "nearly done");
        assert!(is_worth_keeping(Duration::ZERO, Duration::ZERO, 0.0), "all, if so asked");
    }
}
