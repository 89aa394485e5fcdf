//! The state of a run in one file, replaced as a whole after every epoch, so that a run that is cut off goes on to the
//! same bits.
//!
//! Layout: safetensors, all F32. `KEPT.SLOT` with KEPT one of `value`, `moment1`, `moment2`, `average`; `running.K.mean`, `.var` and
//! `average_running.K.mean`, `.var`; `teacher.SLOT`, `teacher_running.K...` of the finished teacher. Metadata: a JSON object under `run`
//! (version, digests of recipe, data and tensors, phase, steps, counts of the moments, records of the epochs so far).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::events::{EpochRecord, Phase};
use super::model::{Running, Slot, host};
use super::optimiser::State;

/// Layout version.
const VERSION: u32 = 1;
/// Largest file read.
const FILE_CAP_BYTES: u64 = 4 << 30;

/// Values and running statistics of a network, in order of its slots.
pub(super) type Weights = (Vec<Vec<f32>>, Vec<Running>);

/// Where a run stands.
pub(super) struct Checkpoint {
    pub(super) phase: Phase,
    pub(super) state: State,
    pub(super) history: Vec<EpochRecord>,
    /// The finished teacher.
    pub(super) teacher: Option<Weights>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    recipe: String,
    data: String,
    phase: Phase,
    steps: usize,
    averaged: bool,
    moment_steps: Vec<Option<usize>>,
    history: Vec<EpochRecord>,
    teacher: bool,
    /// BLAKE3, hexadecimal, of every tensor's name, length and bytes in order of names: a flipped bit must not resume.
    tensors: String,
}

/// The digest of [`Header::tensors`].
pub(super) fn tensors_digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in tensors {
        for part in [name.as_bytes(), bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What a checkpoint belongs to: BLAKE3 of recipe and data, hexadecimal.
pub(super) struct Owner {
    pub(super) recipe: String,
    pub(super) data: String,
}

/// Writes beside `path` and renames: what stood there stays until the new one is whole on disk.
pub(super) fn write(
    path: &Path,
    owner: &Owner,
    phase: Phase,
    state: &State,
    slots: &[Slot],
    history: &[EpochRecord],
    teacher: Option<(&[Slot], &Weights)>,
) -> Result<(), TrainError> {
    let mut tensors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut add_running = |prefix: &str, running: &[Running]| {
        for (index, running) in running.iter().enumerate() {
            tensors.insert(format!("{prefix}.{index}.mean"), running.mean.clone());
            tensors.insert(format!("{prefix}.{index}.var"), running.var.clone());
        }
    };
    add_running("running", &state.running);
    if let Some((_, running)) = &state.average {
        add_running("average_running", running);
    }
    if let Some((_, (_, running))) = teacher {
        add_running("teacher_running", running);
    }
    for (index, slot) in slots.iter().enumerate() {
        tensors.insert(format!("value.{}", slot.name), host(state.values[index].clone()));
        if let Some(AdamWState { momentum }) = &state.moments[index] {
            tensors.insert(format!("moment1.{}", slot.name), host(momentum.moment_1.clone()));
            tensors.insert(format!("moment2.{}", slot.name), host(momentum.moment_2.clone()));
        }
        if let Some((values, _)) = &state.average {
            tensors.insert(format!("average.{}", slot.name), host(values[index].clone()));
        }
    }
    if let Some((slots, (values, _))) = teacher {
        for (slot, values) in slots.iter().zip(values) {
            tensors.insert(format!("teacher.{}", slot.name), values.clone());
        }
    }
    let bytes: BTreeMap<String, Vec<u8>> = tensors
        .into_iter()
        .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let header = Header {
        version: VERSION,
        recipe: owner.recipe.clone(),
        data: owner.data.clone(),
        phase,
        steps: state.steps,
        averaged: state.average.is_some(),
        moment_steps: state.moments.iter().map(|moment| moment.as_ref().map(|state| state.momentum.time)).collect(),
        history: history.to_vec(),
        teacher: teacher.is_some(),
        tensors: tensors_digest(bytes.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))),
    };
    let header = serde_json::to_string(&header).map_err(|error| wrong(path, "header", error, "numbers"))?;
    let views: Result<Vec<(&String, TensorView)>, _> = bytes
        .iter()
        .map(|(name, bytes)| TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (name, view)))
        .collect();
    let views = views.map_err(|error| wrong(path, "tensors", error, "flat lists"))?;
    let file = safetensors::serialize(views, Some(HashMap::from([("run".to_owned(), header)])))
        .map_err(|error| wrong(path, "tensors", error, "a safetensors file"))?;

    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    temporary.write_all(&file).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Reads a checkpoint of this recipe and data, for a model of these slots with their lengths (those of its phase; and of
/// the teacher).
///
/// # Errors
/// A file that cannot be read, is none, or belongs to another recipe or other data.
pub(super) fn read(
    path: &Path,
    owner: &Owner,
    device: &Device,
    slots_of: &dyn Fn(Phase) -> (Vec<(Slot, usize)>, Vec<Running>),
) -> Result<Checkpoint, TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_CAP_BYTES {
        return Err(wrong(path, "length", length, format!("at most {FILE_CAP_BYTES} bytes")));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let not_one = |error: safetensors::SafeTensorError| wrong(path, "content", error, "a checkpoint");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(not_one)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(not_one)?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get("run"));
    let header = header.ok_or_else(|| wrong(path, "metadata `run`", "missing", "a checkpoint's"))?;
    let header: Header =
        serde_json::from_str(header).map_err(|error| wrong(path, "metadata `run`", error, "a checkpoint's"))?;
    if header.version != VERSION {
        return Err(wrong(path, "version", header.version, VERSION));
    }
    for (what, found, expected) in
        [("recipe digest", &header.recipe, &owner.recipe), ("data digest", &header.data, &owner.data)]
    {
        if found != expected {
            return Err(wrong(path, what, found, expected));
        }
    }
    let mut names = tensors.names();
    names.sort_unstable();
    let mut contents = Vec::with_capacity(names.len());
    for name in names {
        contents.push((name, tensors.tensor(name).map_err(not_one)?.data()));
    }
    let found = tensors_digest(contents.into_iter());
    if found != header.tensors {
        return Err(wrong(path, "digest of the tensors", found, &header.tensors));
    }

    let fetch = |name: &str| -> Result<Vec<f32>, TrainError> {
        let view = tensors.tensor(name).map_err(|error| wrong(path, name, error, "a tensor"))?;
        if view.dtype() != Dtype::F32 {
            return Err(wrong(path, name, format!("{:?}", view.dtype()), "F32"));
        }
        Ok(view
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect())
    };
    let fetch_running = |prefix: &str, like: &[Running]| -> Result<Vec<Running>, TrainError> {
        let mut all = Vec::new();
        for (index, like) in like.iter().enumerate() {
            let (mean, var) = (fetch(&format!("{prefix}.{index}.mean"))?, fetch(&format!("{prefix}.{index}.var"))?);
            if mean.len() != like.mean.len() || var.len() != like.var.len() {
                return Err(wrong(path, &format!("{prefix}.{index}"), mean.len(), like.mean.len()));
            }
            all.push(Running { layer: like.layer, mean, var });
        }
        Ok(all)
    };
    let tensor = |values: Vec<f32>| Tensor::<1>::from_data(TensorData::from(values.as_slice()), device);
    let (slots, running_like) = slots_of(header.phase);
    let fetch_slot = |prefix: &str, (slot, length): &(Slot, usize)| -> Result<Vec<f32>, TrainError> {
        let name = format!("{prefix}.{}", slot.name);
        let values = fetch(&name)?;
        if values.len() != *length {
            return Err(wrong(path, &format!("length of {name}"), values.len(), length));
        }
        Ok(values)
    };
    let fetch_all = |prefix: &str, slots: &[(Slot, usize)]| -> Result<Vec<Vec<f32>>, TrainError> {
        slots.iter().map(|slot| fetch_slot(prefix, slot)).collect()
    };
    let values: Vec<Tensor<1>> = fetch_all("value", &slots)?.into_iter().map(tensor).collect();
    if header.moment_steps.len() != slots.len() {
        return Err(wrong(path, "number of moments", header.moment_steps.len(), slots.len()));
    }
    let mut moments = Vec::new();
    for (slot, steps) in slots.iter().zip(&header.moment_steps) {
        moments.push(match steps {
            None => None,
            Some(steps) => {
                let first = tensor(fetch_slot("moment1", slot)?);
                let second = tensor(fetch_slot("moment2", slot)?);
                Some(AdamWState { momentum: AdaptiveMomentumState::new(*steps, first, second) })
            }
        });
    }
    let average = match header.averaged {
        false => None,
        true => {
            let values = fetch_all("average", &slots)?.into_iter().map(tensor).collect();
            Some((values, fetch_running("average_running", &running_like)?))
        }
    };
    let teacher = match header.teacher {
        false => None,
        true => {
            let (slots, like) = slots_of(Phase::Teacher);
            Some((fetch_all("teacher", &slots)?, fetch_running("teacher_running", &like)?))
        }
    };
    let state =
        State { values, moments, running: fetch_running("running", &running_like)?, average, steps: header.steps };
    Ok(Checkpoint { phase: header.phase, state, history: header.history, teacher })
}

fn wrong(path: &Path, what: &str, found: impl ToString, expected: impl ToString) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        what: what.to_owned(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}
