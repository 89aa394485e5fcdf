//! Images for the commands: read with their labels from a file, a folder of pictures or a data set's own folder, and
//! handed to the oracles in blocks, normalised, `[entry][image]`.

use std::path::Path;

use packing::{
    Batches, ImageSet, Limits, Normalisation, PackingError, Split, open_dataset_dir, read_images, read_labels,
};

use super::error::CliError;
use crate::net::network::InputSpec;

/// Images handed over together; a power of two.
pub(super) const BLOCK: usize = 256;

/// Images of `path`: a data set's `split` where it is such a folder, or else a file or a folder of pictures. Labels of the
/// file `labels` replace those that came with the images.
///
/// # Errors
/// What cannot be read, labels that do not fit.
pub(super) fn open(path: &Path, labels: Option<&Path>, split: Split) -> Result<ImageSet, CliError> {
    let limits = Limits::default();
    let dataset = if path.is_dir() { Some(open_dataset_dir(path, split, &limits)) } else { None };
    let mut set = match dataset {
        None | Some(Err(PackingError::NoDataset { .. })) => read_images(path, &limits)?,
        Some(found) => found?,
    };
    if let Some(labels) = labels {
        let path = labels;
        let labels = read_labels(path, &limits)?;
        set.labels = Some(labels.for_images(&set).map_err(|error| match error {
            PackingError::Count { what, found, expected, .. } => {
                PackingError::Count { path: path.to_owned(), what, found, expected }
            }
            other => other,
        })?);
        set.class_names = labels.class_names().map(<[String]>::to_vec);
    }
    Ok(set)
}

/// The first `limit` images of [`open`], in the network's shape.
///
/// # Errors
/// As [`open`], and images of another shape.
pub(super) fn load(
    path: &Path,
    labels: Option<&Path>,
    split: Split,
    limit: Option<usize>,
    input: &InputSpec,
) -> Result<ImageSet, CliError> {
    let mut set = open(path, labels, split)?;
    if set.shape != input.shape {
        return Err(PackingError::Shape { path: path.to_owned(), found: set.shape, expected: input.shape }.into());
    }
    if let Some(limit) = limit {
        set.truncate(limit);
    }
    Ok(set)
}

/// The network's normalisation.
///
/// # Errors
/// Constants that do not normalise.
pub(super) fn normalisation(input: &InputSpec) -> Result<Normalisation, CliError> {
    Ok(Normalisation::new(&input.mean, &input.std)?)
}

/// Block `block` of `batches`, normalised: its number of images and their values `[entry][image]`.
///
/// # Errors
/// A block beyond the last.
pub(super) fn block(batches: &Batches<'_>, block: usize) -> Result<(usize, Vec<f64>), CliError> {
    let (entries, slots, images) = (batches.entries(), batches.slots(), batches.occupancy(block));
    let mut values = vec![0.0; entries * slots];
    batches.entries_into(block, 0..entries, &mut values)?;
    if images < slots {
        for entry in 0..entries {
            values.copy_within(entry * slots..entry * slots + images, entry * images);
        }
        values.truncate(entries * images);
    }
    Ok((images, values))
}
