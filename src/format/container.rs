//! Reading a container: a mapped safetensors file in which every byte is covered by a check.
//!
//! [`Container::open`] checks length, header (digest and the one accepted spelling), layout, padding, kind, version;
//! [`Container::verify`] checks the digests of the sections, the only part whose cost grows with the file. A file that
//! passes both is the file that was written, unless someone forged it digests and all: these are checks against damage
//! and mix-ups, not signatures. Not here: what sections mean (see `FORMATS.md`), and writing (see `ContainerWriter`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;

use super::header::{
    ALIGNMENT, DIGEST_CHARS, DIGEST_PREFIX, HEADER_CAP_BYTES, HEADER_DIGEST, HeaderLayout, KEY_PREFIX, PlacedSection,
    is_pad, too_large_header,
};
use super::map::MappedFile;
use super::{DType, FormatError, Kind, SectionSpec, VERSION};

/// How much a reader is willing to handle; exceeded limits are refused before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// Longest file. The file is mapped, not read, so this bounds time rather than memory.
    pub file_bytes: u64,
    /// Most sections.
    pub sections: usize,
}

impl Default for OpenLimits {
    /// 2^50 bytes, 1024 sections.
    fn default() -> Self {
        Self { file_bytes: 1 << 50, sections: 1024 }
    }
}

/// A section of an open container.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number type.
    pub dtype: DType,
    /// Row-major shape.
    pub shape: &'a [usize],
    /// `shape` product times `dtype` size bytes, little-endian, beginning on a page boundary.
    pub bytes: &'a [u8],
}

/// The digest of a file's first bytes.
#[derive(Debug, Default)]
pub struct PartDigest {
    hasher: blake3::Hasher,
}

/// An open container. Shared freely between threads.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    kind: Kind,
    metadata: BTreeMap<String, String>,
    layout: HeaderLayout,
    header_bytes: usize,
    mapping: MappedFile,
}

impl Container {
    /// Maps a file and checks everything but the section digests.
    ///
    /// A secret kind is refused when its file mode is looser than 0600, asked for or not. Errors name the file; see
    /// [`FormatError::kind`] for their classes. The file must not be truncated while it is open (the process would die
    /// of SIGBUS); its length is checked here, once.
    pub fn open(path: &Path, expected_kind: Option<Kind>, limits: &OpenLimits) -> Result<Self, FormatError> {
        Self::open_unnamed(path, expected_kind, limits).map_err(|error| error.in_file(path))
    }

    fn open_unnamed(path: &Path, expected_kind: Option<Kind>, limits: &OpenLimits) -> Result<Self, FormatError> {
        // Looked at before opening, because opening a pipe waits for its writer.
        check_regular(&fs::metadata(path).map_err(FormatError::Read)?)?;
        let file = File::open(path).map_err(FormatError::Read)?;
        let status = file.metadata().map_err(FormatError::Read)?;
        check_regular(&status)?;
        let mode = status.permissions().mode() & 0o7777;
        let check_mode = |kind: Kind| {
            if kind.is_secret() && mode & !0o600 != 0 { Err(FormatError::LooseMode { found: mode }) } else { Ok(()) }
        };

        let file_bytes = status.len();
        if file_bytes > limits.file_bytes {
            return Err(FormatError::TooLarge {
                what: "file bytes".into(),
                found: file_bytes,
                limit: limits.file_bytes,
            });
        }
        let header = read_header(&file, file_bytes)?;
        let parsed: Metadata = serde_json::from_slice(header.get(8..).unwrap_or_default())
            .map_err(|error| FormatError::Header(error.to_string()))?;
        let metadata: BTreeMap<String, String> = parsed.metadata().iter().flatten().map(own).collect();
        let kind = check_kind(&metadata, expected_kind)?;
        check_mode(kind)?;
        let layout = check_layout(&parsed, limits)?;
        let expected_bytes = header.len() as u64 + layout.data_bytes as u64;
        if file_bytes != expected_bytes {
            return Err(FormatError::Length { found_bytes: file_bytes, expected_bytes });
        }
        check_header(&header, &metadata, &layout)?;

        let mapping = MappedFile::new(&file, file_bytes).map_err(FormatError::Read)?;
        let header_bytes = header.len();
        let container = Self { path: path.to_path_buf(), kind, metadata, layout, header_bytes, mapping };
        container.check_padding()?;
        Ok(container)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.mapping.bytes().len() as u64
    }

    /// The header's digest, hexadecimal: commits to all metadata, the layout and every section's content.
    pub fn content_id(&self) -> &str {
        self.metadata_opt(HEADER_DIGEST).unwrap_or_default()
    }

    /// A metadata entry by its key without `nightshift.`; an error if absent.
    pub fn metadata(&self, key: &str) -> Result<&str, FormatError> {
        self.metadata_opt(key).ok_or_else(|| FormatError::NoMetadata { key: key.into() }.in_file(&self.path))
    }

    /// A metadata entry by its key without `nightshift.`.
    pub fn metadata_opt(&self, key: &str) -> Option<&str> {
        self.metadata.get(&format!("{KEY_PREFIX}{key}")).map(String::as_str)
    }

    /// All metadata in order of key, keys without `nightshift.`, digests included.
    pub fn metadata_entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(key, value)| (key.strip_prefix(KEY_PREFIX).unwrap_or(key), value.as_str()))
    }

    /// Refuses, as a mismatch, a file whose entry `key` is not `expected`.
    pub fn expect_metadata(&self, key: &str, expected: &str) -> Result<(), FormatError> {
        let found = self.metadata(key)?;
        if found == expected {
            return Ok(());
        }
        let error = FormatError::Mismatch { what: key.into(), found: found.into(), expected: expected.into() };
        Err(error.in_file(&self.path))
    }

    /// Sections in file order.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        self.layout.sections.iter().map(|placed| self.view(placed))
    }

    /// A section by name; an error if absent.
    pub fn section(&self, name: &str) -> Result<Section<'_>, FormatError> {
        self.section_opt(name).ok_or_else(|| FormatError::NoSection { name: name.into() }.in_file(&self.path))
    }

    /// A section by name.
    pub fn section_opt(&self, name: &str) -> Option<Section<'_>> {
        self.layout.sections.iter().find(|placed| placed.spec.name == name).map(|placed| self.view(placed))
    }

    /// A section that must have the given type and shape.
    pub fn section_shaped(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<Section<'_>, FormatError> {
        let section = self.section(name)?;
        if section.dtype == dtype && section.shape == shape {
            return Ok(section);
        }
        let found = format!("{:?} {:?}", section.dtype, section.shape);
        Err(FormatError::invalid(format!("section {name:?}"), found, format!("{dtype:?} {shape:?}"))
            .in_file(&self.path))
    }

    /// Requires exactly these sections, in this order, of these types and shapes.
    pub fn expect_sections(&self, specs: &[SectionSpec]) -> Result<(), FormatError> {
        for spec in specs {
            self.section_shaped(&spec.name, spec.dtype, &spec.shape)?;
        }
        let names = |specs: &mut dyn Iterator<Item = &SectionSpec>| {
            specs.map(|spec| spec.name.clone()).collect::<Vec<_>>().join(" ")
        };
        let found = names(&mut self.layout.sections.iter().map(|placed| &placed.spec));
        let expected = names(&mut specs.iter());
        if found == expected {
            return Ok(());
        }
        Err(FormatError::invalid("sections", found, expected).in_file(&self.path))
    }

    /// Content of section number `index` in file order; empty if there is none. For inner loops.
    pub(super) fn section_bytes(&self, index: usize) -> &[u8] {
        self.layout.sections.get(index).map_or(&[], |placed| self.view(placed).bytes)
    }

    /// Checks one section's digest. Sections may be checked from several threads.
    pub fn verify_section(&self, name: &str) -> Result<(), FormatError> {
        let section = self.section(name)?;
        let expected = self.metadata(&format!("{DIGEST_PREFIX}{name}"))?;
        let found = blake3::hash(section.bytes).to_hex();
        if found.as_str() == expected {
            return Ok(());
        }
        let (section, found) = (name.to_string(), found.to_string());
        Err(FormatError::Digest { section, found, expected: expected.into() }.in_file(&self.path))
    }

    /// Checks every section's digest, in file order.
    pub fn verify(&self) -> Result<(), FormatError> {
        self.layout.sections.iter().try_for_each(|placed| self.verify_section(&placed.spec.name))
    }

    /// BLAKE3 of the whole file, hexadecimal, by all threads of the pool that the caller runs in.
    pub fn file_digest_in_parallel(&self) -> String {
        self.finish_digest_in_parallel(PartDigest::default())
    }

    /// BLAKE3 of the whole file by this thread, as far as it gets before `stop` says so; [`Self::finish_digest_in_parallel`] goes on.
    pub fn begin_digest(&self, stop: &dyn Fn() -> bool) -> PartDigest {
        // A tenth of a millisecond: so long may others wait for this thread.
        const PIECE_BYTES: usize = 512 << 10;
        let mut part = PartDigest::default();
        for piece in self.mapping.bytes().chunks(PIECE_BYTES) {
            if stop() {
                break;
            }
            part.hasher.update(piece);
        }
        part
    }

    /// The rest of a digest, by all threads of the pool that the caller runs in; hexadecimal.
    pub fn finish_digest_in_parallel(&self, part: PartDigest) -> String {
        let mut hasher = part.hasher;
        let rest = self.mapping.bytes().get(hasher.count() as usize..).unwrap_or_default();
        hasher.update_rayon(rest).finalize().to_hex().to_string()
    }

    /// BLAKE3 of the whole file, hexadecimal.
    pub fn file_digest(&self) -> String {
        blake3::hash(self.mapping.bytes()).to_hex().to_string()
    }

    /// Hints to the kernel that the whole file is about to be read.
    pub fn read_ahead(&self) {
        self.mapping.will_be_read();
    }

    fn view<'a>(&'a self, placed: &'a PlacedSection) -> Section<'a> {
        let begin = self.header_bytes + placed.begin;
        // In bounds: the mapping is header and data long, checked when it was opened.
        let bytes = self.mapping.bytes().get(begin..begin + placed.len_bytes).unwrap_or_default();
        Section { name: &placed.spec.name, dtype: placed.spec.dtype, shape: &placed.spec.shape, bytes }
    }

    fn check_padding(&self) -> Result<(), FormatError> {
        for placed in &self.layout.sections {
            let begin = self.header_bytes + placed.begin + placed.len_bytes;
            let padding = self.mapping.bytes().get(begin..begin + placed.pad_bytes).unwrap_or_default();
            if let Some(index) = padding.iter().position(|&byte| byte != 0) {
                let (section, found) = (placed.spec.name.clone(), padding[index]);
                return Err(FormatError::Padding { section, offset_bytes: (begin + index) as u64, found });
            }
        }
        Ok(())
    }
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn check_regular(status: &fs::Metadata) -> Result<(), FormatError> {
    if status.is_file() {
        return Ok(());
    }
    Err(FormatError::NotAFile { found: if status.is_dir() { "a folder" } else { "a special file" } })
}

/// The header with its length word, read (not mapped), its length checked before it is allocated.
fn read_header(file: &File, file_bytes: u64) -> Result<Vec<u8>, FormatError> {
    let mut word = [0; 8];
    if file_bytes < 8 {
        return Err(FormatError::Length { found_bytes: file_bytes, expected_bytes: 8 });
    }
    let read = |buffer: &mut [u8], at: u64| match file.read_exact_at(buffer, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(FormatError::Header("the file ends inside it".into()))
        }
        other => other.map_err(FormatError::Read),
    };
    read(&mut word, 0)?;
    let header_bytes = u64::from_le_bytes(word).saturating_add(8);
    if header_bytes > HEADER_CAP_BYTES {
        return Err(too_large_header(header_bytes));
    }
    if header_bytes > file_bytes {
        return Err(FormatError::Length { found_bytes: file_bytes, expected_bytes: header_bytes });
    }
    let mut header = vec![0; header_bytes as usize];
    read(&mut header, 0)?;
    // A writer may have changed the word between the two reads; the spelling check would see it, but say so plainly.
    if header[..8] != word { Err(FormatError::Header("it changed while being read".into())) } else { Ok(header) }
}

fn check_kind(metadata: &BTreeMap<String, String>, expected: Option<Kind>) -> Result<Kind, FormatError> {
    let entry = |key: &'static str| metadata.get(&format!("{KEY_PREFIX}{key}")).ok_or(FormatError::Foreign { key });
    let (version, kind_name) = (entry("version")?, entry("kind")?);
    if version != VERSION {
        return Err(FormatError::Version { found: version.clone(), expected: VERSION });
    }
    let kind = Kind::from_name(kind_name);
    match (kind, expected) {
        (Some(kind), None) => Ok(kind),
        (Some(kind), Some(expected)) if kind == expected => Ok(kind),
        _ => Err(FormatError::Kind {
            found: kind_name.clone(),
            expected: expected.map_or("a known kind".into(), |kind| kind.name().into()),
        }),
    }
}

/// The sections among the tensors, at the places where the rules put them.
fn check_layout(parsed: &Metadata, limits: &OpenLimits) -> Result<HeaderLayout, FormatError> {
    let mut specs = Vec::new();
    for name in parsed.offset_keys() {
        let Some(info) = parsed.info(&name) else { continue };
        if is_pad(&name) {
            continue;
        }
        if specs.len() == limits.sections {
            let (found, limit) = (parsed.offset_keys().len() as u64, limits.sections as u64);
            return Err(FormatError::TooLarge { what: "sections".into(), found, limit });
        }
        let dtype = DType::from_tensor_type(info.dtype).ok_or_else(|| {
            let found = format!("{:?}", info.dtype);
            FormatError::invalid(format!("type of section {name:?}"), found, "U8, I8, I16, U32, F32 or F64")
        })?;
        if info.data_offsets.0 % ALIGNMENT != 0 {
            let expected = format!("a multiple of {ALIGNMENT}");
            return Err(FormatError::invalid(format!("offset of section {name:?}"), info.data_offsets.0, expected));
        }
        specs.push(SectionSpec { name, dtype, shape: info.shape.clone() });
    }
    HeaderLayout::new(specs)
}

/// Digest of the header, and that it is spelled as this program spells it.
fn check_header(header: &[u8], metadata: &BTreeMap<String, String>, layout: &HeaderLayout) -> Result<(), FormatError> {
    if let Some(key) = metadata.keys().find(|key| !key.starts_with(KEY_PREFIX)) {
        return Err(FormatError::invalid("metadata key", format!("{key:?}"), "one that begins with nightshift."));
    }
    let mut digests = metadata.keys().filter_map(|key| key.strip_prefix(KEY_PREFIX)?.strip_prefix(DIGEST_PREFIX));
    let stray = digests.find(|&name| name != "header" && layout.sections.iter().all(|placed| placed.spec.name != name));
    if let Some(name) = stray {
        return Err(FormatError::NoSection { name: name.into() });
    }
    for name in layout.sections.iter().map(|placed| placed.spec.name.as_str()).chain(["header"]) {
        let key = format!("{DIGEST_PREFIX}{name}");
        let digest =
            metadata.get(&format!("{KEY_PREFIX}{key}")).ok_or_else(|| FormatError::NoMetadata { key: key.clone() })?;
        let is_hex = digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if digest.len() != DIGEST_CHARS || !is_hex {
            return Err(FormatError::invalid(key, format!("{digest:?}"), "64 lower-case hexadecimal digits"));
        }
    }
    let rendered = layout.render(metadata)?;
    if rendered != header {
        let differs = rendered.iter().zip(header).position(|(rendered, given)| rendered != given);
        let at = differs.unwrap_or(rendered.len().min(header.len()));
        return Err(FormatError::Header(format!("not in the accepted spelling from byte {at} on")));
    }
    let expected = metadata.get(&format!("{KEY_PREFIX}{HEADER_DIGEST}")).cloned().unwrap_or_default();
    let (_, found) = layout.seal(&mut metadata.clone())?;
    if found == expected { Ok(()) } else { Err(FormatError::Digest { section: "header".into(), found, expected }) }
}
