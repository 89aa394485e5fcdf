//! npy arrays and npz archives of them: images as u8 or f32, labels as any integer type.
//!
//! Images are `[N][H][W]` or `[N][C][H][W]` in C order. The header's Python literal is parsed by npyz, but only after a
//! guard has made it harmless: short, shallow, and with too few digits for any product of its numbers to overflow. Not
//! read: Fortran order, records, pickles, strings, other float widths.

use std::path::Path;

use npyz::{DType, NpyHeader, Order};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::PackingError;
use crate::images::{ImageSet, Pixels, require_finite};
use crate::limits::{Limits, bound};
use crate::source::{Source, open_file};

/// NumPy pads headers of plain arrays to 128 bytes.
const MAX_HEADER_BYTES: u64 = 4096;
/// 10^19 < 2^64: the product of all dimensions cannot overflow.
const MAX_HEADER_DIGITS: usize = 19;
const MAX_HEADER_BRACKETS: usize = 8;

/// Shape and element type of an array.
struct Header {
    shape: Vec<u64>,
    /// Kind and width as NumPy writes them without the byte order: `u1`, `f4`, ...
    element: String,
    big_endian: bool,
}

/// Reads an array of images.
pub(crate) fn read_images(mut source: Source<'_>, limits: &Limits) -> Result<ImageSet, PackingError> {
    let path = source.path();
    let header = read_header(&mut source)?;
    let (count, shape) = match header.shape[..] {
        [count, rows, columns] => (count, [1, rows, columns]),
        [count, channels, rows, columns] => (count, [channels, rows, columns]),
        _ => {
            let what = format!("found shape {:?}, expected [N, H, W] or [N, C, H, W]", header.shape);
            return Err(PackingError::malformed(path, what));
        }
    };
    let value_bytes = match header.element.as_str() {
        "u1" => 1,
        "f4" => 4,
        other => {
            let what = format!("found element type {other}, expected u1 (bytes) or f4 (normalised floats)");
            return Err(PackingError::malformed(path, what));
        }
    };
    let (count, shape, bytes) = limits.check(path, count, shape, value_bytes)?;
    let data = source.read_exactly(bytes)?;
    source.finish()?;
    let pixels = if value_bytes == 1 {
        Pixels::Bytes(data)
    } else {
        let decode = if header.big_endian { f32::from_be_bytes } else { f32::from_le_bytes };
        let floats: Vec<f32> = data.as_chunks::<4>().0.iter().map(|chunk| decode(*chunk)).collect();
        require_finite(path, &floats, shape.iter().product())?;
        Pixels::Floats(floats)
    };
    Ok(ImageSet { count, shape, pixels, labels: None, class_names: None, names: None })
}

/// Reads a one-dimensional array of integers from 0 to 65535.
pub(crate) fn read_labels(mut source: Source<'_>, limits: &Limits) -> Result<Vec<u16>, PackingError> {
    let path = source.path();
    let header = read_header(&mut source)?;
    let [count] = header.shape[..] else {
        let what = format!("found shape {:?}, expected [N] (labels)", header.shape);
        return Err(PackingError::malformed(path, what));
    };
    let (signed, value_bytes) = match header.element.as_str() {
        "i1" | "i2" | "i4" | "i8" => (true, header.element.as_bytes()[1] - b'0'),
        "u1" | "u2" | "u4" | "u8" => (false, header.element.as_bytes()[1] - b'0'),
        other => {
            let what = format!("found element type {other}, expected an integer type (labels)");
            return Err(PackingError::malformed(path, what));
        }
    };
    bound(path, "labels", count, limits.max_images as u64)?;
    let data = source.read_exactly(count.saturating_mul(u64::from(value_bytes)))?;
    source.finish()?;
    let mut labels = Vec::with_capacity(data.len() / usize::from(value_bytes));
    for (index, chunk) in data.chunks_exact(usize::from(value_bytes)).enumerate() {
        let value = integer(chunk, signed, header.big_endian);
        let label = u16::try_from(value).map_err(|_| {
            PackingError::malformed(path, format!("found label {value} at index {index}, expected 0 to 65535"))
        })?;
        labels.push(label);
    }
    Ok(labels)
}

/// An integer of 1 to 8 bytes.
fn integer(bytes: &[u8], signed: bool, big_endian: bool) -> i128 {
    let push = |value: i128, byte: &u8| value << 8 | i128::from(*byte);
    let value = if big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) };
    let bits = 8 * bytes.len();
    if signed && value >> (bits - 1) == 1 { value - (1i128 << bits) } else { value }
}

fn read_header(source: &mut Source<'_>) -> Result<Header, PackingError> {
    let path = source.path();
    let mut raw = source.header::<8>()?.to_vec();
    let text_bytes = match raw[6] {
        1 => {
            let length = source.header::<2>()?;
            raw.extend_from_slice(&length);
            u64::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let length = source.header::<4>()?;
            raw.extend_from_slice(&length);
            u64::from(u32::from_le_bytes(length))
        }
        version => {
            let what = format!("found npy version {version}, expected 1, 2 or 3");
            return Err(PackingError::malformed(path, what));
        }
    };
    bound(path, "bytes of npy header", text_bytes, MAX_HEADER_BYTES)?;
    let text = source.read_exactly(text_bytes)?;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let brackets = text.iter().filter(|byte| b"([{".contains(byte)).count();
    if digits > MAX_HEADER_DIGITS || brackets > MAX_HEADER_BRACKETS {
        let limits = format!("expected at most {MAX_HEADER_DIGITS} and {MAX_HEADER_BRACKETS}");
        let what = format!("found {digits} digits and {brackets} brackets in the npy header, {limits}");
        return Err(PackingError::malformed(path, what));
    }
    raw.extend_from_slice(&text);
    let header = NpyHeader::from_reader(raw.as_slice()).map_err(|error| PackingError::read(path, error))?;
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err(PackingError::malformed(path, "found Fortran order, expected C order"));
    }
    let DType::Plain(type_text) = header.dtype() else {
        return Err(PackingError::malformed(path, "found a record array, expected plain numbers"));
    };
    let type_text = type_text.to_string();
    let (byte_order, element) = match type_text.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), element)) => (order, element.to_owned()),
        _ => ("|", type_text.clone()),
    };
    Ok(Header { shape: header.shape().to_vec(), element, big_endian: byte_order == ">" })
}

/// Reads an archive: `images` (or the only array beside `labels`) and `labels` if there.
pub(crate) fn read_npz(path: &Path, limits: &Limits) -> Result<ImageSet, PackingError> {
    let (file, file_bytes) = open_file(path)?;
    let mut archive = ZipArchive::new(file).map_err(|error| zip_error(path, error))?;
    if archive.has_duplicate_names() {
        return Err(PackingError::malformed(path, "found two arrays of the same name in the archive"));
    }
    let arrays: Vec<String> =
        archive.file_names().flatten().filter_map(|name| name.strip_suffix(".npy").map(str::to_owned)).collect();
    let mut candidates = arrays.iter().filter(|name| *name != "labels");
    let images = match (arrays.iter().any(|name| name == "images"), candidates.next(), candidates.next()) {
        (true, ..) => "images",
        (false, Some(only), None) => only,
        _ => {
            let found: Vec<&str> = arrays.iter().take(8).map(String::as_str).collect();
            let what = format!("found arrays {found:?}, expected one named images, or a single one");
            return Err(PackingError::malformed(path, what));
        }
    };
    let mut set = read_images(member(&mut archive, path, images, file_bytes)?, limits)?;
    if arrays.iter().any(|name| name == "labels") {
        let labels = read_labels(member(&mut archive, path, "labels", file_bytes)?, limits)?;
        if labels.len() != set.count {
            let (found, expected) = (labels.len(), set.count);
            return Err(PackingError::Count { path: path.to_owned(), what: "labels", found, expected });
        }
        set.labels = Some(labels);
    }
    Ok(set)
}

type Archive = ZipArchive<std::io::BufReader<std::fs::File>>;

fn member<'a>(
    archive: &'a mut Archive,
    path: &'a Path,
    name: &str,
    file_bytes: u64,
) -> Result<Source<'a>, PackingError> {
    let entry = archive.by_name(&format!("{name}.npy")).map_err(|error| zip_error(path, error))?;
    let reservable_bytes = entry.size().min(file_bytes.saturating_mul(1032));
    Ok(Source::over(path, Box::new(entry), reservable_bytes))
}

fn zip_error(path: &Path, error: ZipError) -> PackingError {
    match error {
        ZipError::Io(error) => PackingError::read(path, error),
        other => PackingError::malformed(path, other.to_string()),
    }
}
