//! Mappings: read-only files, and large working memory. The one door to `memmap2`, and the one file of this room with `unsafe`.
//!
//! Bytes of a file are `[u8]` of the length it had when it was mapped. Not here: any reading of what the bytes mean.

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

/// A file mapped for reading.
///
/// The length is fixed at mapping. If another process truncates the file while it is mapped, touching the lost pages
/// ends this process with SIGBUS; if it rewrites bytes in place, later reads see the new ones. Files of ours are
/// written under a temporary name and renamed, never changed afterwards, so neither happens unless someone edits them
/// by hand; readers that must not fail on a hostile writer copy the file to a folder of their own first.
#[derive(Debug)]
pub(super) struct MappedFile {
    mapping: Mmap,
}

impl MappedFile {
    /// Maps the first `len_bytes` of `file`. Errors are the operating system's, or `InvalidInput` for a length that
    /// is zero or beyond the file's end.
    pub(super) fn new(file: &File, len_bytes: u64) -> io::Result<Self> {
        let file_bytes = file.metadata()?.len();
        let len = usize::try_from(len_bytes).unwrap_or(0);
        if len == 0 || len_bytes > file_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot map {len_bytes} bytes of a file of {file_bytes}"),
            ));
        }
        // SAFETY: the mapping is private to reading and at most as long as the file (checked above). That nobody
        // truncates or rewrites the file meanwhile is the documented contract of this type: files of ours are created
        // under another name and renamed, never modified; every value read from a mapping is used as plain bytes, for
        // which any content is valid.
        let mapping = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Self { mapping })
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.mapping
    }

    /// Asks the kernel to read ahead over the whole mapping; a hint, so a refusal is ignored.
    pub(super) fn will_be_read(&self) {
        let _ = self.mapping.advise(Advice::WillNeed);
    }
}

/// Zeroed working memory, in 2 MiB pages where the system has them: a large buffer that is written once is otherwise spent on page faults.
#[derive(Debug)]
pub struct Bytes {
    mapping: MmapMut,
    len: usize,
}

impl Bytes {
    /// `len` bytes. Errors are the operating system's.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        // The system maps no empty region.
        let mapping = MmapOptions::new().len(len.max(1)).map_anon()?;
        #[cfg(target_os = "linux")]
        let _ = mapping.advise(Advice::HugePage);
        Ok(Self { mapping, len })
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping[..self.len]
    }
}

impl std::ops::DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.mapping[..self.len]
    }
}
