//! PNG and JPEG files: one, a folder of them, or a folder of class folders of them.
//!
//! 8-bit grey becomes 1 channel and 8-bit colour 3; all files must agree. An opaque alpha channel is dropped; a
//! translucent one and 16-bit samples are refused rather than guessed at. Files with other endings and names starting
//! with a dot are passed over. Nothing is resized and links are followed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageReader};

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels};
use crate::limits::{Limits, bound};
use crate::source::{inner_extension, open_file};

/// What a decoder may take beside the pixels it hands out.
const DECODER_BYTES: u64 = 16 << 20;
/// Longest file of one picture.
const PICTURE_CAP_BYTES: u64 = 64 << 20;

/// Reads a folder; labels and class names come from subfolders when the images are in those.
pub(crate) fn read(folder: &Path, limits: &Limits) -> Result<ImageSet, PackingError> {
    let (files, folders) = list(folder)?;
    let mut set = Builder::new(limits);
    if !files.is_empty() {
        for name in &files {
            set.push(&folder.join(name), name.to_string_lossy().into_owned())?;
        }
        return set.finish(folder);
    }
    bound(folder, "class folders", folders.len() as u64, u64::from(u16::MAX) + 1)?;
    let mut labels = Vec::new();
    for (class, class_name) in folders.iter().enumerate() {
        let class_folder = folder.join(class_name);
        for name in &list(&class_folder)?.0 {
            let shown = format!("{}/{}", class_name.to_string_lossy(), name.to_string_lossy());
            set.push(&class_folder.join(name), shown)?;
            labels.push(class as u16);
        }
    }
    let mut set = set.finish(folder)?;
    set.labels = Some(labels);
    set.class_names = Some(folders.iter().map(|name| name.to_string_lossy().into_owned()).collect());
    Ok(set)
}

/// Reads a single picture as a set of one.
pub(crate) fn read_one(path: &Path, limits: &Limits) -> Result<ImageSet, PackingError> {
    let mut set = Builder::new(limits);
    set.push(path, path.file_name().unwrap_or_default().to_string_lossy().into_owned())?;
    set.finish(path)
}

/// What a folder holds, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Pictures; subfolders are not looked at.
    Pictures,
    /// Class folders by these names, in byte order; whether they hold pictures is not known.
    Classes(Vec<String>),
    /// Neither.
    Nothing,
}

/// Looks into a folder.
pub(crate) fn content(folder: &Path) -> Result<Content, PackingError> {
    let (files, folders) = list(folder)?;
    Ok(if !files.is_empty() {
        Content::Pictures
    } else if !folders.is_empty() {
        Content::Classes(folders.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    } else {
        Content::Nothing
    })
}

/// Whether a file is taken for a picture, by its ending.
pub(crate) fn is_picture(path: &Path) -> bool {
    matches!(inner_extension(path).as_deref(), Some("png" | "jpg" | "jpeg"))
}

/// The picture files and the subfolders of a folder, each sorted by name.
fn list(folder: &Path) -> Result<(Vec<OsString>, Vec<OsString>), PackingError> {
    let entries = std::fs::read_dir(folder).map_err(|error| PackingError::read(folder, error))?;
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries {
        let name = entry.map_err(|error| PackingError::read(folder, error))?.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = folder.join(&name);
        let metadata = std::fs::metadata(&path).map_err(|error| PackingError::read(&path, error))?;
        if metadata.is_dir() {
            folders.push(name);
        } else if is_picture(&path) {
            files.push(name);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

struct Builder<'a> {
    limits: &'a Limits,
    shape: Option<[usize; 3]>,
    pixels: Vec<u8>,
    names: Vec<String>,
}

impl<'a> Builder<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, shape: None, pixels: Vec::new(), names: Vec::new() }
    }

    fn push(&mut self, path: &Path, name: String) -> Result<(), PackingError> {
        let (file, file_bytes) = open_file(path)?;
        bound(path, "bytes of a picture file", file_bytes, self.limits.max_decoded_bytes.min(PICTURE_CAP_BYTES))?;
        let reader = ImageReader::new(file).with_guessed_format().map_err(|error| PackingError::read(path, error))?;
        let mut reader = reader;
        let mut decoder_limits = image::Limits::no_limits();
        let side = u32::try_from(self.limits.max_side).unwrap_or(u32::MAX);
        decoder_limits.max_image_width = Some(side);
        decoder_limits.max_image_height = Some(side);
        // Alpha may double the channels that are kept.
        decoder_limits.max_alloc = Some(self.limits.max_decoded_bytes.saturating_mul(2).saturating_add(DECODER_BYTES));
        reader.limits(decoder_limits);

        let decoder = reader.into_decoder().map_err(|error| image_error(path, error))?;
        let channels = match decoder.color_type() {
            ColorType::L8 | ColorType::La8 => 1,
            ColorType::Rgb8 | ColorType::Rgba8 => 3,
            other => {
                let what = format!("found colour type {other:?}, expected 8-bit grey or 8-bit RGB");
                return Err(PackingError::malformed(path, what));
            }
        };
        let (columns, rows) = decoder.dimensions();
        let count = self.names.len() as u64 + 1;
        let (_, shape, _) = self.limits.check(path, count, [channels, u64::from(rows), u64::from(columns)], 1)?;
        let expected = *self.shape.get_or_insert(shape);
        if shape != expected {
            return Err(PackingError::Shape { path: path.to_owned(), found: shape, expected });
        }

        let picture = DynamicImage::from_decoder(decoder).map_err(|error| image_error(path, error))?;
        let (interleaved, stored) = match picture {
            DynamicImage::ImageLuma8(grey) => (grey.into_raw(), 1),
            DynamicImage::ImageLumaA8(grey) => (grey.into_raw(), 2),
            DynamicImage::ImageRgb8(colour) => (colour.into_raw(), 3),
            DynamicImage::ImageRgba8(colour) => (colour.into_raw(), 4),
            other => {
                let what = format!("found decoded colour {:?}, expected 8-bit grey or RGB", other.color());
                return Err(PackingError::malformed(path, what));
            }
        };
        if stored > shape[0] && interleaved.chunks_exact(stored).any(|pixel| pixel[stored - 1] != 255) {
            return Err(PackingError::malformed(path, "found translucent pixels, expected opaque ones"));
        }
        for channel in 0..shape[0] {
            self.pixels.extend(interleaved.iter().skip(channel).step_by(stored));
        }
        self.names.push(name);
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<ImageSet, PackingError> {
        let Some(shape) = self.shape else {
            return Err(PackingError::Empty { path: PathBuf::from(path), what: "PNG or JPEG images" });
        };
        Ok(ImageSet {
            count: self.names.len(),
            shape,
            pixels: Pixels::Bytes(self.pixels),
            labels: None,
            class_names: None,
            names: Some(self.names),
        })
    }
}

fn image_error(path: &Path, error: ImageError) -> PackingError {
    match error {
        ImageError::IoError(error) => PackingError::read(path, error),
        other => PackingError::malformed(path, other.to_string()),
    }
}
