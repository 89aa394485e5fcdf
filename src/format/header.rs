//! The header of a container: kinds, section types, and the one spelling of a header that is accepted.
//!
//! A header is `u64` little-endian length n, then n bytes of JSON padded with spaces, 8 + n a multiple of 4096:
//! `{"__metadata__":{..},"first":{"dtype":..,"shape":..,"data_offsets":[begin,end]},"pad.0":..,"second":..}` without
//! white space, metadata keys sorted, tensors in file order. Writer and reader both derive it from (metadata, sections)
//! by [`HeaderLayout::new`] and [`HeaderLayout::render`]; the reader refuses a file whose bytes differ from its own rendering,
//! so there is no second spelling to hide anything in. Not here: files, mappings, section bytes.

use std::collections::BTreeMap;
use std::fmt;

use safetensors::Dtype as TensorType;
use safetensors::tensor::TensorInfo;

use super::FormatError;

/// Version of the container, in `nightshift.version`.
pub const VERSION: &str = "1";
/// Sections begin at multiples of this many bytes in the file.
pub const ALIGNMENT: usize = 4096;
/// Largest header, in bytes, length word included.
pub const HEADER_CAP_BYTES: u64 = 1 << 20;
/// Start of every metadata key.
pub(super) const KEY_PREFIX: &str = "nightshift.";
/// Start of digest keys, after the prefix.
pub(super) const DIGEST_PREFIX: &str = "digest.";
/// Digest of the header itself, after the prefix.
pub(super) const HEADER_DIGEST: &str = "digest.header";
/// Characters of a digest: BLAKE3, 32 bytes, hexadecimal.
pub(super) const DIGEST_CHARS: usize = 64;
/// Start of the names of padding tensors.
const PAD_PREFIX: &str = "pad.";
const LENGTH_WORD_BYTES: usize = 8;
const RANK_CAP: usize = 8;
const NAME_CHARS_CAP: usize = 64;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A secret key; created with mode 0600 and refused with a looser one.
    SecretKey,
    /// A public key.
    PublicKey,
    /// Key-switch keys for the worker.
    EvaluationKey,
    /// Encrypted inputs.
    Ciphertexts,
    /// Encrypted outputs.
    Results,
    /// A model package.
    Model,
    /// A batch's state between two stages.
    Checkpoint,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::SecretKey,
        Self::PublicKey,
        Self::EvaluationKey,
        Self::Ciphertexts,
        Self::Results,
        Self::Model,
        Self::Checkpoint,
    ];

    /// The word in `nightshift.kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SecretKey => "secret-key",
            Self::PublicKey => "public-key",
            Self::EvaluationKey => "evaluation-key",
            Self::Ciphertexts => "ciphertexts",
            Self::Results => "results",
            Self::Model => "model",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// The kind of a word, if it is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether others must not read it.
    pub fn is_secret(self) -> bool {
        self == Self::SecretKey
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Number type of a section, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Bytes.
    U8,
    /// 8-bit two's complement.
    I8,
    /// 16-bit two's complement.
    I16,
    /// 32-bit unsigned.
    U32,
    /// IEEE 754 single.
    F32,
    /// IEEE 754 double.
    F64,
}

impl DType {
    const ALL: [Self; 6] = [Self::U8, Self::I8, Self::I16, Self::U32, Self::F32, Self::F64];

    /// Bytes of one number.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn tensor_type(self) -> TensorType {
        match self {
            Self::U8 => TensorType::U8,
            Self::I8 => TensorType::I8,
            Self::I16 => TensorType::I16,
            Self::U32 => TensorType::U32,
            Self::F32 => TensorType::F32,
            Self::F64 => TensorType::F64,
        }
    }

    pub(super) fn from_tensor_type(tensor_type: TensorType) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.tensor_type() == tensor_type)
    }
}

/// Name, type and shape of a section to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionSpec {
    /// 1 to 64 of `a-z 0-9 _ .`, not `header`, not beginning with `pad.`.
    pub name: String,
    /// Number type.
    pub dtype: DType,
    /// Row-major; 1 to 8 dimensions, none zero.
    pub shape: Vec<usize>,
}

impl SectionSpec {
    /// A section of the given name, type and shape.
    pub fn new(name: impl Into<String>, dtype: DType, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec() }
    }

    /// Bytes of the section; checks name and shape.
    fn checked_bytes(&self) -> Result<usize, FormatError> {
        if !is_name(&self.name) || self.name.starts_with(PAD_PREFIX) || self.name == "header" {
            let expected = "1 to 64 of a-z 0-9 _ . other than header and pad.*";
            return Err(FormatError::invalid("section name", format!("{:?}", self.name), expected));
        }
        let what = || format!("shape of section {:?}", self.name);
        if !(1..=RANK_CAP).contains(&self.shape.len()) || self.shape.contains(&0) {
            let expected = "1 to 8 dimensions, none zero";
            return Err(FormatError::invalid(what(), format!("{:?}", self.shape), expected));
        }
        let bytes = self.shape.iter().try_fold(self.dtype.size_bytes(), |bytes, &side| bytes.checked_mul(side));
        bytes
            .filter(|&bytes| bytes <= i64::MAX as usize)
            .ok_or_else(|| FormatError::invalid(what(), format!("{:?}", self.shape), "a size that fits in 63 bits"))
    }
}

/// A section's place.
#[derive(Clone, Debug)]
pub(super) struct PlacedSection {
    pub(super) spec: SectionSpec,
    /// Offset from the start of the data.
    pub(super) begin: usize,
    pub(super) len_bytes: usize,
    /// Zero bytes after it.
    pub(super) pad_bytes: usize,
}

/// Sections in file order with their places; the last one has no padding.
#[derive(Clone, Debug)]
pub(super) struct HeaderLayout {
    pub(super) sections: Vec<PlacedSection>,
    /// Bytes after the header.
    pub(super) data_bytes: usize,
}

impl HeaderLayout {
    /// Places sections one after the other on 4096-byte boundaries. Refuses bad names, duplicates, empty shapes, overflow.
    pub(super) fn new(specs: Vec<SectionSpec>) -> Result<Self, FormatError> {
        let count = specs.len();
        let mut names = std::collections::BTreeSet::new();
        let mut sections = Vec::with_capacity(count);
        let mut begin = 0_usize;
        for (index, spec) in specs.into_iter().enumerate() {
            let len_bytes = spec.checked_bytes()?;
            if !names.insert(spec.name.clone()) {
                return Err(FormatError::invalid("section name", format!("{:?} twice", spec.name), "distinct names"));
            }
            let last = index + 1 == count;
            let pad_bytes = if last { 0 } else { len_bytes.wrapping_neg() % ALIGNMENT };
            let end = begin
                .checked_add(len_bytes)
                .and_then(|end| end.checked_add(pad_bytes))
                .filter(|&end| end <= i64::MAX as usize / 2)
                .ok_or_else(|| FormatError::invalid("sections together", "an overflow", "at most 2^62 bytes"))?;
            sections.push(PlacedSection { spec, begin, len_bytes, pad_bytes });
            begin = end;
        }
        Ok(Self { sections, data_bytes: begin })
    }

    /// The whole header, length word and trailing spaces included. `metadata` has full keys.
    pub(super) fn render(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, FormatError> {
        let json = |result: serde_json::Result<String>| result.map_err(|error| FormatError::Header(error.to_string()));
        let mut text = String::from("{\"__metadata__\":");
        text += &json(serde_json::to_string(metadata))?;
        let mut entry = |name: &str, info: TensorInfo| -> Result<(), FormatError> {
            text.push(',');
            text += &json(serde_json::to_string(name))?;
            text.push(':');
            text += &json(serde_json::to_string(&info))?;
            Ok(())
        };
        for (index, section) in self.sections.iter().enumerate() {
            let end = section.begin + section.len_bytes;
            let (dtype, shape) = (section.spec.dtype.tensor_type(), section.spec.shape.clone());
            entry(&section.spec.name, TensorInfo { dtype, shape, data_offsets: (section.begin, end) })?;
            if section.pad_bytes > 0 {
                let shape = vec![section.pad_bytes];
                let data_offsets = (end, end + section.pad_bytes);
                entry(&format!("{PAD_PREFIX}{index}"), TensorInfo { dtype: TensorType::U8, shape, data_offsets })?;
            }
        }
        text.push('}');
        let header_bytes = (LENGTH_WORD_BYTES + text.len()).next_multiple_of(ALIGNMENT);
        if header_bytes as u64 > HEADER_CAP_BYTES {
            return Err(too_large_header(header_bytes as u64));
        }
        let mut header = Vec::with_capacity(header_bytes);
        header.extend_from_slice(&((header_bytes - LENGTH_WORD_BYTES) as u64).to_le_bytes());
        header.extend_from_slice(text.as_bytes());
        header.resize(header_bytes, b' ');
        Ok(header)
    }

    /// As [`HeaderLayout::render`], with `nightshift.digest.header` filled in; returns the digest too.
    pub(super) fn seal(&self, metadata: &mut BTreeMap<String, String>) -> Result<(Vec<u8>, String), FormatError> {
        let key = format!("{KEY_PREFIX}{HEADER_DIGEST}");
        metadata.insert(key.clone(), "0".repeat(DIGEST_CHARS));
        let digest = blake3::hash(&self.render(metadata)?).to_hex().to_string();
        metadata.insert(key, digest.clone());
        Ok((self.render(metadata)?, digest))
    }
}

pub(super) fn too_large_header(found: u64) -> FormatError {
    FormatError::TooLarge { what: "header bytes".into(), found, limit: HEADER_CAP_BYTES }
}

/// Whether a tensor name is that of padding.
pub(super) fn is_pad(name: &str) -> bool {
    name.starts_with(PAD_PREFIX)
}

/// 1 to 64 of `a-z 0-9 _ .`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_CAP).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte))
}
