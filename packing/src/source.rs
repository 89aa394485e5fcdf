//! Opening a file and decoding its compression, with memory that grows only with the bytes that really arrive.
//!
//! Layers undone here, by content: gzip (all members) and xz (all streams). What is inside is the readers' business.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::PackingError;

/// No deflate stream grows by more than this (RFC 1951: 258 bytes from two bits), so a reservation up to this is
/// earned.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Memory an xz decoder may take for its dictionary, KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 96 * 1024;

/// A decoded byte stream that knows its path and counts what it has handed out.
pub(crate) struct Source<'a> {
    path: &'a Path,
    reader: Box<dyn Read + 'a>,
    /// Decoded bytes read so far.
    read_bytes: u64,
    /// Most decoded bytes that may be reserved ahead of reading.
    reservable_bytes: u64,
}

impl<'a> Source<'a> {
    /// Opens a regular file and undoes gzip or xz if its first bytes say so.
    pub(crate) fn open(path: &'a Path) -> Result<Self, PackingError> {
        let (mut file, file_bytes) = open_file(path)?;
        let head = file.fill_buf().map_err(|error| PackingError::read(path, error))?;
        let (reader, ratio): (Box<dyn Read>, u64) = if head.starts_with(&[0x1f, 0x8b]) {
            (Box::new(MultiGzDecoder::new(file)), DEFLATE_MAX_RATIO)
        } else if head.starts_with(b"\xfd7zXZ\0") {
            (Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB)), DEFLATE_MAX_RATIO)
        } else {
            (Box::new(file), 1)
        };
        Ok(Self::over(path, reader, file_bytes.saturating_mul(ratio)))
    }

    /// Wraps a reader (an archive member); `reservable_bytes` is as for a file.
    pub(crate) fn over(path: &'a Path, reader: Box<dyn Read + 'a>, reservable_bytes: u64) -> Self {
        Self { path, reader: Box::new(BufReader::with_capacity(1 << 16, reader)), read_bytes: 0, reservable_bytes }
    }

    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// Reads `wanted` bytes or as many as there are, growing the buffer as they come.
    pub(crate) fn read_up_to(&mut self, wanted: u64) -> Result<Vec<u8>, PackingError> {
        let mut bytes = Vec::new();
        let earned = wanted.min(self.reservable_bytes).min(isize::MAX as u64) as usize;
        bytes.try_reserve_exact(earned).map_err(|_| {
            PackingError::malformed(self.path, format!("found {earned} bytes to decode, which do not fit in memory"))
        })?;
        let found = self.reader.by_ref().take(wanted).read_to_end(&mut bytes);
        self.read_bytes += found.map_err(|error| PackingError::read(self.path, error))? as u64;
        Ok(bytes)
    }

    /// Reads exactly `wanted` bytes.
    pub(crate) fn read_exactly(&mut self, wanted: u64) -> Result<Vec<u8>, PackingError> {
        let before = self.read_bytes;
        let bytes = self.read_up_to(wanted)?;
        if (bytes.len() as u64) < wanted {
            let expected_bytes = before.saturating_add(wanted);
            return Err(PackingError::Truncated {
                path: self.path.to_owned(),
                found_bytes: self.read_bytes,
                expected_bytes,
            });
        }
        Ok(bytes)
    }

    /// Reads `N` header bytes.
    pub(crate) fn header<const N: usize>(&mut self) -> Result<[u8; N], PackingError> {
        let bytes = self.read_exactly(N as u64)?;
        let mut header = [0u8; N];
        header.copy_from_slice(&bytes);
        Ok(header)
    }

    /// Requires the end of the stream; decoders check their checksums when they reach it.
    pub(crate) fn finish(mut self) -> Result<(), PackingError> {
        let expected_bytes = self.read_bytes;
        if self.read_up_to(1)?.is_empty() {
            Ok(())
        } else {
            Err(PackingError::Trailing { path: self.path.to_owned(), expected_bytes })
        }
    }

    /// The rest as a plain `Read`, for parsers that stream.
    pub(crate) fn into_reader(self) -> Box<dyn Read + 'a> {
        self.reader
    }
}

/// Opens a regular file for buffered reading; its length in bytes comes along.
pub(crate) fn open_file(path: &Path) -> Result<(BufReader<File>, u64), PackingError> {
    let metadata = std::fs::metadata(path).map_err(|error| PackingError::read(path, error))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(PackingError::Unrecognised {
            path: path.to_owned(),
            found: found.to_owned(),
            expected: "a regular file",
        });
    }
    let file = File::open(path).map_err(|error| PackingError::read(path, error))?;
    Ok((BufReader::with_capacity(1 << 16, file), metadata.len()))
}

/// The first decoded bytes of a file (at most `wanted`), to tell its format.
pub(crate) fn decoded_head(path: &Path, wanted: u64) -> Result<Vec<u8>, PackingError> {
    Source::open(path)?.read_up_to(wanted)
}

/// The lower-case extensions of a file name with compression endings dropped: `a.bin.gz` -> `bin`.
pub(crate) fn inner_extension(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".xz")).unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_file_can_hold_is_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        std::fs::write(&path, [7u8; 100]).unwrap();
        let plain = Source::open(&path).unwrap().read_up_to(1 << 50).unwrap();
        assert_eq!(plain, [7u8; 100]);
        assert!(plain.capacity() < 1 << 16, "{}", plain.capacity());

        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut file, &[7u8; 100]).unwrap();
        std::fs::write(&path, file.finish().unwrap()).unwrap();
        let unpacked = Source::open(&path).unwrap().read_up_to(1 << 50).unwrap();
        assert_eq!(unpacked, [7u8; 100]);
        assert!(unpacked.capacity() < 1 << 16, "{}", unpacked.capacity());
    }

    #[test]
    fn the_inner_extension_ignores_compression() {
        let extension = |name: &str| inner_extension(Path::new(name));
        assert_eq!(extension("a/B.BIN.GZ").as_deref(), Some("bin"));
        assert_eq!(extension("x.tar.xz").as_deref(), Some("tar"));
        assert_eq!(extension("t10k-images-idx3-ubyte.gz"), None);
    }
}
