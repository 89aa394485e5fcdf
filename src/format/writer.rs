//! Writing a container: sized in advance, filled in any order, given its name only when complete.
//!
//! The bytes go to a temporary file in the same folder; [`ContainerWriter::finish`] hashes the sections, writes the
//! header, syncs, renames, and syncs the folder. Dropped before that, the temporary file is removed (after a kill it
//! stays, as `.<name>.<random>.tmp`). Padding is zeros: what was not written to reads as such.
//! Unix only. Not here: threads (callers may share `&ContainerWriter` among theirs), and what sections mean.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::header::{DIGEST_CHARS, DIGEST_PREFIX, HEADER_DIGEST, HeaderLayout, KEY_PREFIX, is_name};
use super::pieces::{LaterPieces, PIECE_BYTES};
use super::{FormatError, Kind, SectionSpec, VERSION};

/// Bytes hashed at a time, twice, so few enough to stay in the cache.
const HASH_CHUNK_BYTES: usize = 256 << 10;

/// Bytes of zeros written at a time, and so of a page at most. Of pages of 2 MiB there are fewer still to map, but ext4 looks through all blocks of a page
/// whenever a piece is written into it: encryption took a tenth more processor time, and now and then twice as long.
const FILL_BYTES: usize = 128 << 10;
/// Largest file that is filled with zeros first.
const MOST_FILLED_BYTES: u64 = 256 << 20;

/// What a finished container is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `nightshift.digest.header`: hexadecimal BLAKE3 that commits to metadata, layout and, through the section
    /// digests in it, to all content.
    pub content_id: String,
    /// BLAKE3 of the whole file, hexadecimal.
    pub digest: String,
    /// Length of the file.
    pub file_bytes: u64,
}

/// A file on its way to the disk.
#[derive(Debug)]
pub struct Flush {
    file: File,
    path: PathBuf,
}

impl Flush {
    /// Waits until what was written so far is on the disk. A failure told here may not be told by [`ContainerWriter::finish`] again: the file is bad
    /// then. Errors: the operating system's.
    pub fn wait(self) -> Result<(), FormatError> {
        self.file.sync_data().map_err(|error| FormatError::Write(error).in_file(&self.path))
    }
}

/// A container being written. Each byte of each section is to be written exactly once, in any order, from any thread.
#[derive(Debug)]
pub struct ContainerWriter {
    temporary: NamedTempFile,
    final_path: PathBuf,
    layout: HeaderLayout,
    metadata: BTreeMap<String, String>,
    header_bytes: u64,
    written_bytes: Vec<AtomicU64>,
}

impl ContainerWriter {
    /// Creates the temporary file beside `final_path` and sizes it.
    ///
    /// `metadata` keys are without the `nightshift.` prefix, 1 to 64 of `a-z 0-9 _ .`; `kind`, `version` and `digest.*`
    /// are the container's own. Secret kinds get mode 0600 from the start, others what the umask leaves of 0666.
    ///
    /// Errors: bad names or shapes, a header above 1 MiB ([`BadData`](super::ErrorKind::BadData)); a folder that is
    /// absent or not writable ([`Create`](super::ErrorKind::Create)). A disk that is too small is found here by most
    /// file systems, by the others in [`ContainerWriter::write_at`].
    pub fn create(
        final_path: &Path,
        kind: Kind,
        metadata: &BTreeMap<String, String>,
        sections: &[SectionSpec],
    ) -> Result<Self, FormatError> {
        Self::create_unnamed(final_path, kind, metadata, sections).map_err(|error| error.in_file(final_path))
    }

    fn create_unnamed(
        final_path: &Path,
        kind: Kind,
        metadata: &BTreeMap<String, String>,
        sections: &[SectionSpec],
    ) -> Result<Self, FormatError> {
        let layout = HeaderLayout::new(sections.to_vec())?;
        let mut full_metadata = BTreeMap::new();
        for (key, value) in metadata {
            if !is_name(key) || key == "kind" || key == "version" || key.starts_with(DIGEST_PREFIX) {
                let expected = "1 to 64 of a-z 0-9 _ . other than kind, version and digest.*";
                return Err(FormatError::invalid("metadata key", format!("{key:?}"), expected));
            }
            full_metadata.insert(format!("{KEY_PREFIX}{key}"), value.clone());
        }
        full_metadata.insert(format!("{KEY_PREFIX}kind"), kind.name().into());
        full_metadata.insert(format!("{KEY_PREFIX}version"), VERSION.into());
        let digest_names = sections.iter().map(|section| format!("{DIGEST_PREFIX}{}", section.name));
        for key in digest_names.chain([HEADER_DIGEST.into()]) {
            full_metadata.insert(format!("{KEY_PREFIX}{key}"), "0".repeat(DIGEST_CHARS));
        }
        let header_bytes = layout.render(&full_metadata)?.len() as u64;

        let temporary = temporary_beside(final_path, if kind.is_secret() { 0o600 } else { 0o666 })?;
        size(temporary.as_file(), header_bytes + layout.data_bytes as u64).map_err(FormatError::Create)?;
        let written_bytes = layout.sections.iter().map(|_| AtomicU64::new(0)).collect();
        let final_path = final_path.to_path_buf();
        Ok(Self { temporary, final_path, layout, metadata: full_metadata, header_bytes, written_bytes })
    }

    /// Writes zeros everywhere, in large pieces, before sections are written in small ones: file systems that keep files in pages as large as what is
    /// written then keep this one in large ones, and whoever maps it has many times fewer to map. Nothing happens beyond 256 MiB: where memory
    /// is short the disk would write twice. Errors: the operating system's.
    pub fn fill(&self) -> Result<(), FormatError> {
        let file_bytes = self.header_bytes + self.layout.data_bytes as u64;
        if file_bytes > MOST_FILLED_BYTES {
            return Ok(());
        }
        let zeros = vec![0; FILL_BYTES.min(file_bytes as usize)];
        for at in (0..file_bytes).step_by(FILL_BYTES) {
            let bytes = &zeros[..zeros.len().min((file_bytes - at) as usize)];
            let written = self.temporary.as_file().write_all_at(bytes, at).map_err(FormatError::Write);
            written.map_err(|error| error.in_file(&self.final_path))?;
        }
        Ok(())
    }

    /// Writes `bytes` at `byte_offset` of a section. Errors: unknown section, a range outside it, and the operating
    /// system's, a full disk among them.
    pub fn write_at(&self, section: &str, byte_offset: u64, bytes: &[u8]) -> Result<(), FormatError> {
        self.write_at_unnamed(section, byte_offset, bytes).map_err(|error| error.in_file(&self.final_path))
    }

    fn write_at_unnamed(&self, name: &str, byte_offset: u64, bytes: &[u8]) -> Result<(), FormatError> {
        let placed = self.layout.sections.iter().zip(&self.written_bytes).find(|(placed, _)| placed.spec.name == name);
        let Some((section, written_bytes)) = placed else {
            return Err(FormatError::NoSection { name: name.into() });
        };
        let len_bytes = section.len_bytes as u64;
        let end = byte_offset.checked_add(bytes.len() as u64).filter(|&end| end <= len_bytes);
        if end.is_none() {
            let found = format!("{} bytes at {byte_offset}", bytes.len());
            return Err(FormatError::invalid(
                format!("write to section {name:?}"),
                found,
                format!("within {len_bytes}"),
            ));
        }
        let file_offset = self.header_bytes + section.begin as u64 + byte_offset;
        self.temporary.as_file().write_all_at(bytes, file_offset).map_err(FormatError::Write)?;
        written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// For bringing what was written to the disk while [`ContainerWriter::finish`] does the rest. Errors: the operating system's.
    pub fn flush(&self) -> Result<Flush, FormatError> {
        let path = self.final_path.clone();
        let file = self.temporary.as_file().try_clone();
        let file = file.map_err(|error| FormatError::Write(error).in_file(&path))?;
        Ok(Flush { file, path })
    }

    /// Completes the file and gives it its name, replacing what had it.
    ///
    /// Errors: a section not written in full (or written twice), and the operating system's. On error nothing is left.
    pub fn finish(self) -> Result<Written, FormatError> {
        self.finish_with(|temporary, path| temporary.persist(path).map_err(|error| error.error))
    }

    /// As [`ContainerWriter::finish`], but refuses (as [`FormatError::Create`], already exists) to replace a file.
    pub fn finish_new(self) -> Result<Written, FormatError> {
        self.finish_with(|temporary, path| temporary.persist_noclobber(path).map_err(|error| error.error))
    }

    fn finish_with(
        mut self,
        persist: impl FnOnce(NamedTempFile, &Path) -> io::Result<File>,
    ) -> Result<Written, FormatError> {
        let path = std::mem::take(&mut self.final_path);
        self.finish_unnamed(&path, persist).map_err(|error| error.in_file(&path))
    }

    fn finish_unnamed(
        mut self,
        path: &Path,
        persist: impl FnOnce(NamedTempFile, &Path) -> io::Result<File>,
    ) -> Result<Written, FormatError> {
        let file = self.temporary.as_file();
        for (section, written_bytes) in self.layout.sections.iter().zip(&mut self.written_bytes) {
            let (name, found) = (&section.spec.name, *written_bytes.get_mut());
            if found != section.len_bytes as u64 {
                return Err(FormatError::invalid(format!("bytes written to {name:?}"), found, section.len_bytes));
            }
        }
        // One reading for both digests: the file's own begins with the header, which holds those of the sections.
        let file_bytes = self.header_bytes as usize + self.layout.data_bytes;
        let mut reading = Reading::new(file, file_bytes);
        for section in &self.layout.sections {
            let begin = self.header_bytes as usize + section.begin;
            let digest = reading.digest(begin, section.len_bytes).map_err(FormatError::Write)?;
            let padding = reading.digest(begin + section.len_bytes, section.pad_bytes);
            padding.map_err(FormatError::Write)?;
            self.metadata.insert(format!("{KEY_PREFIX}{DIGEST_PREFIX}{}", section.spec.name), digest);
        }
        let (header, content_id) = self.layout.seal(&mut self.metadata)?;
        file.write_all_at(&header, 0).map_err(FormatError::Write)?;
        file.sync_all().map_err(FormatError::Write)?;
        let digest = reading.finish(file_bytes).map_err(FormatError::Write)?;
        persist(self.temporary, path).map_err(FormatError::Create)?;
        sync_folder_of(path)?;
        Ok(Written { content_id, digest, file_bytes: file_bytes as u64 })
    }
}

/// `.NAME.RANDOM.tmp` in the folder of `final_path`, with `mode` less the umask; removed when dropped.
pub(super) fn temporary_beside(final_path: &Path, mode: u32) -> Result<NamedTempFile, FormatError> {
    let file_name = final_path.file_name().ok_or_else(|| {
        FormatError::Create(io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"))
    })?;
    tempfile::Builder::new()
        .prefix(&format!(".{}.", file_name.to_string_lossy()))
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(final_path))
        .map_err(FormatError::Create)
}

/// Gives a file its size. Its place on the disk is taken at once where the system can: pieces that are written far apart then cost less.
fn size(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Err(error);
            }
            // Not every file system can.
            Err(_) => {}
        }
    }
    file.set_len(bytes)
}

/// Makes a rename in the folder of `path` lasting.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), FormatError> {
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(FormatError::Write)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's content read once, front to back, and its first piece again.
struct Reading<'a> {
    file: &'a File,
    later: LaterPieces,
    /// The sections of a secret key pass through it.
    chunk: Zeroizing<Vec<u8>>,
}

impl<'a> Reading<'a> {
    fn new(file: &'a File, file_bytes: usize) -> Self {
        let chunk = Zeroizing::new(vec![0; HASH_CHUNK_BYTES.min(file_bytes)]);
        Self { file, later: LaterPieces::default(), chunk }
    }

    /// BLAKE3 of the `len_bytes` from byte `begin` on, which follow what was read before; hexadecimal.
    fn digest(&mut self, begin: usize, len_bytes: usize) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        let later = &mut self.later;
        read_chunks(self.file, &mut self.chunk, begin..begin + len_bytes, |at, bytes| {
            hasher.update(bytes);
            later.update(bytes.get(PIECE_BYTES.saturating_sub(at)..).unwrap_or_default());
        })?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// BLAKE3 of all `file_bytes`, hexadecimal.
    fn finish(mut self, file_bytes: usize) -> io::Result<String> {
        let mut first = blake3::Hasher::new();
        read_chunks(self.file, &mut self.chunk, 0..PIECE_BYTES.min(file_bytes), |_, bytes| {
            first.update(bytes);
        })?;
        Ok(self.later.finish(&first).to_hex().to_string())
    }
}

/// Calls `use_bytes` for one part of the range after the other, with its place in the file.
fn read_chunks(
    file: &File,
    chunk: &mut [u8],
    range: Range<usize>,
    mut use_bytes: impl FnMut(usize, &[u8]),
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let part_bytes = chunk.len().min(range.end - at);
        let part = &mut chunk[..part_bytes];
        file.read_exact_at(part, at as u64)?;
        use_bytes(at, part);
        at += part_bytes;
    }
    Ok(())
}
