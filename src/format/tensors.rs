//! Plain safetensors files (weights, golden values), read and written whole. Types: F32, F64, I64, U8.
//!
//! Files of ours go through [`Container`](super::Container), which checks every byte; this reads what other programs
//! wrote, and only checks that header, shapes and offsets agree. Half-precision types are refused, not widened. Written
//! are weights for other programs and for a later import: the same tensors give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::FormatError;
use super::map::MappedFile;
use super::numbers::encode;
use super::writer::{sync_folder_of, temporary_beside};

/// Longest file accepted.
pub const TENSORS_CAP_BYTES: u64 = 1 << 30;
/// Longest header accepted.
const TENSORS_HEADER_CAP_BYTES: u64 = 16 << 20;

/// Values of a tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// F32.
    F32(Vec<f32>),
    /// F64.
    F64(Vec<f64>),
    /// I64.
    I64(Vec<i64>),
    /// U8.
    U8(Vec<u8>),
}

/// A tensor with its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Row-major; empty for a single number.
    pub shape: Vec<usize>,
    /// As many as the shape's product.
    pub values: Values,
}

/// All tensors of a safetensors file, by name.
///
/// # Errors
/// A file that cannot be read, is above 1 GiB, is no safetensors file, or has a tensor of another type.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, FormatError> {
    read_unnamed(path).map_err(|error| error.in_file(path))
}

fn read_unnamed(path: &Path) -> Result<BTreeMap<String, Tensor>, FormatError> {
    let status = std::fs::metadata(path).map_err(FormatError::Read)?;
    if !status.is_file() {
        return Err(FormatError::NotAFile { found: if status.is_dir() { "a folder" } else { "a special file" } });
    }
    let file = File::open(path).map_err(FormatError::Read)?;
    let file_bytes = status.len();
    let too_large = |what: &str, found, limit| Err(FormatError::TooLarge { what: what.into(), found, limit });
    if file_bytes > TENSORS_CAP_BYTES {
        return too_large("file bytes", file_bytes, TENSORS_CAP_BYTES);
    }
    if file_bytes < 8 {
        return Err(FormatError::Length { found_bytes: file_bytes, expected_bytes: 8 });
    }
    let mapping = MappedFile::new(&file, file_bytes).map_err(FormatError::Read)?;
    let bytes = mapping.bytes();
    let header_bytes = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    if header_bytes > TENSORS_HEADER_CAP_BYTES {
        return too_large("header bytes", header_bytes, TENSORS_HEADER_CAP_BYTES);
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| FormatError::Header(error.to_string()))?;
    let mut all = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => Values::F32(data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
            Dtype::F64 => Values::F64(data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()),
            Dtype::I64 => Values::I64(data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()),
            Dtype::U8 => Values::U8(data.to_vec()),
            other => {
                let what = format!("type of tensor {name:?}");
                return Err(FormatError::invalid(what, format!("{other:?}"), "F32, F64, I64 or U8"));
            }
        };
        all.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(all)
}

/// Writes a safetensors file, replacing `path` in one step.
///
/// # Errors
/// Values that do not fill their shape, a file above 1 GiB, and the operating system's.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), FormatError> {
    write_unnamed(path, tensors).map_err(|error| error.in_file(path))
}

fn write_unnamed(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), FormatError> {
    let encoded: Vec<(Dtype, Vec<u8>)> = tensors.values().map(|tensor| tensor.values.encode()).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), (dtype, bytes)) in tensors.iter().zip(&encoded) {
        let view = TensorView::new(*dtype, tensor.shape.clone(), bytes)
            .map_err(|error| FormatError::Header(format!("tensor {name:?}: {error}")))?;
        views.push((name.as_str(), view));
    }
    let file_bytes = safetensors::serialize(views, None).map_err(|error| FormatError::Header(error.to_string()))?;
    if file_bytes.len() as u64 > TENSORS_CAP_BYTES {
        let what = "file bytes".into();
        return Err(FormatError::TooLarge { what, found: file_bytes.len() as u64, limit: TENSORS_CAP_BYTES });
    }
    let mut temporary = temporary_beside(path, 0o666)?;
    temporary.write_all(&file_bytes).map_err(FormatError::Write)?;
    temporary.as_file().sync_all().map_err(FormatError::Write)?;
    temporary.persist(path).map_err(|error| FormatError::Create(error.error))?;
    sync_folder_of(path)
}

impl Values {
    fn encode(&self) -> (Dtype, Vec<u8>) {
        match self {
            Values::F32(values) => (Dtype::F32, encode(values)),
            Values::F64(values) => (Dtype::F64, encode(values)),
            Values::I64(values) => (Dtype::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Values::U8(values) => (Dtype::U8, values.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ErrorKind;

    /// A safetensors file spelled by hand.
    fn file(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn every_type_comes_back_with_its_shape() {
        let header = r#"{"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "d":{"dtype":"F64","shape":[1,1],"data_offsets":[8,16]},"i":{"dtype":"I64","shape":[],"data_offsets":[16,24]},
            "u":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}}"#;
        let mut data = Vec::new();
        data.extend([1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
        data.extend(0.1_f64.to_le_bytes());
        data.extend((-7_i64).to_le_bytes());
        data.extend([1, 2, 255]);
        let tensors = read_tensors(file(header, &data).path()).unwrap();
        assert_eq!(tensors["f"], Tensor { shape: vec![2], values: Values::F32(vec![1.5, -2.0]) });
        assert_eq!(tensors["d"], Tensor { shape: vec![1, 1], values: Values::F64(vec![0.1]) });
        assert_eq!(tensors["i"], Tensor { shape: vec![], values: Values::I64(vec![-7]) });
        assert_eq!(tensors["u"].values, Values::U8(vec![1, 2, 255]));
        assert_eq!(tensors.len(), 4);
    }

    #[test]
    fn what_is_written_is_read_again_and_always_the_same_bytes() {
        let tensor = |shape: &[usize], values| Tensor { shape: shape.to_vec(), values };
        let tensors = BTreeMap::from([
            ("f".to_owned(), tensor(&[2, 1], Values::F32(vec![1.5e-42, -0.0]))),
            ("d".to_owned(), tensor(&[1], Values::F64(vec![0.1]))),
            ("i".to_owned(), tensor(&[], Values::I64(vec![i64::MIN]))),
            ("u".to_owned(), tensor(&[3], Values::U8(vec![1, 2, 255]))),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        write_tensors(&path, &tensors).unwrap();
        write_tensors(&again, &tensors).unwrap();
        write_tensors(&again, &tensors).unwrap();
        let found = read_tensors(&path).unwrap();
        assert_eq!(found, tensors);
        let Values::F32(floats) = &found["f"].values else { panic!("not floats") };
        assert!(floats[1].is_sign_negative());
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file was left");

        let short = BTreeMap::from([("s".to_owned(), tensor(&[3], Values::U8(vec![1])))]);
        let refused = write_tensors(&again, &short).unwrap_err().to_string();
        assert!(refused.contains("\"s\"") && refused.contains("b.safetensors"), "{refused}");
        assert_eq!(read_tensors(&again).unwrap(), tensors, "a refused write must leave the file as it was");
        assert_eq!(
            write_tensors(&folder.path().join("no/w.safetensors"), &tensors).unwrap_err().kind(),
            ErrorKind::Create
        );
    }

    #[test]
    fn hostile_files_are_refused_with_their_name() {
        let half = r#"{"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
        let long = r#"{"f":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}"#;
        for (header, data, says) in
            [(half, &[0_u8; 2][..], "F16"), (long, &[0; 4], "header"), ("{", &[], "header"), (half, &[], "header")]
        {
            let file = file(header, data);
            let error = read_tensors(file.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(&file.path().display().to_string()), "{text}");
        }
        let claim = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(claim.path(), u64::MAX.to_le_bytes()).unwrap();
        assert!(read_tensors(claim.path()).unwrap_err().to_string().contains("at most 16777216"));
        std::fs::write(claim.path(), b"short").unwrap();
        assert!(read_tensors(claim.path()).unwrap_err().to_string().contains("found 5 bytes"));
        assert_eq!(read_tensors(Path::new("/nowhere/at/all")).unwrap_err().kind(), ErrorKind::Missing);
        assert_eq!(read_tensors(Path::new("/")).unwrap_err().kind(), ErrorKind::BadData);
    }
}
