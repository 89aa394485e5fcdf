//! The payload store: manifests, models, keys, encrypted batches and results, beside a queue that only refers to them. A
//! folder or a bucket, through `object_store`. What lies where (FORMATS.md has the bytes):
//!
//! - `blobs/DIGEST`: content-addressed and therefore written once; checked against its digest whenever it is brought down;
//! - `results/JOB/BATCH/EPOCH/PART`: a task's result under the epoch of its lease, create-only, so that a worker that lost its
//!   lease cannot overwrite another's;
//! - `documents/NAME`: small create-only documents such as receipts.
//!
//! Shared by reference between threads; calls block. Nothing is deleted here, and nothing is read that was not asked for
//! with a limit.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use crate::digest::{Digest, FileStamp, stamp_file};
use crate::error::{JobsError, Result};
use crate::manifest::check;
use crate::queue::TaskId;

pub(crate) mod objects;
#[cfg(test)]
mod tests;

use objects::Objects;

/// Bytes of a result's part, and of the pieces in which a blob goes up.
pub const PART_BYTES: u64 = 32 << 20;
/// Most bytes of a document.
pub const DOCUMENT_LIMIT_BYTES: u64 = 64 << 20;

/// A payload store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<Objects>,
}

impl Store {
    pub(crate) fn new(objects: Arc<Objects>) -> Self {
        Self { objects }
    }

    /// Where it is, for people: no credentials.
    pub fn address(&self) -> &str {
        self.objects.address()
    }

    /// The folder behind a `spool:` store, in which names are paths; `None` for a bucket.
    pub fn folder(&self) -> Option<&Path> {
        self.objects.folder()
    }

    /// The file that holds a blob, where the store is a folder and the blob is there. Its bytes are not checked, and it must
    /// not be changed.
    pub fn blob_path(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.folder()?.join(blob_name(digest));
        path.is_file().then_some(path)
    }

    /// The size of a blob, `None` when it is not there.
    ///
    /// # Errors
    /// [`JobsError::Storage`].
    pub fn blob_bytes(&self, digest: Digest) -> Result<Option<u64>> {
        self.objects.size(&blob_name(digest))
    }

    /// Uploads a file as a blob unless the store has it, and says which it is. The file is read once to know its digest, and again
    /// if it goes up; a file that changes in between is refused.
    ///
    /// # Errors
    /// [`JobsError::Read`], [`JobsError::Storage`]; [`JobsError::StoredDigest`] when the file changed while it was read, or
    /// when the store has another number of bytes under its digest.
    pub fn put_blob(&self, path: &Path) -> Result<FileStamp> {
        let stamp = stamp_file(path)?;
        let name = blob_name(stamp.digest);
        match self.objects.size(&name)? {
            Some(found_bytes) if found_bytes == stamp.bytes => return Ok(stamp),
            Some(found_bytes) => return Err(wrong_size(&name, found_bytes, stamp.digest)),
            None => {}
        }
        let read_error = |source| JobsError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read_error)?;
        crate::failpoint!("store.blob.before-put", JobsError::storage_io(&name));
        if stamp.bytes <= PART_BYTES {
            let bytes = read_part(&mut file, stamp.bytes).map_err(read_error)?;
            let found = Digest::of(&bytes);
            if found != stamp.digest {
                return Err(JobsError::StoredDigest {
                    place: path.display().to_string(),
                    found,
                    found_bytes: bytes.len() as u64,
                    expected: stamp.digest,
                });
            }
            self.objects.put_new(&name, bytes)?;
        } else {
            self.objects.put_stream(&name, path, &mut file, stamp)?;
        }
        crate::failpoint!("store.blob.after-put", JobsError::storage_io(&name));
        Ok(stamp)
    }

    /// As [`put_blob`](Self::put_blob), of bytes in memory.
    ///
    /// # Errors
    /// As [`put_blob`](Self::put_blob).
    pub fn put_blob_bytes(&self, bytes: &[u8]) -> Result<FileStamp> {
        let stamp = FileStamp { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
        let name = blob_name(stamp.digest);
        match self.objects.size(&name)? {
            Some(found_bytes) if found_bytes == stamp.bytes => {}
            Some(found_bytes) => return Err(wrong_size(&name, found_bytes, stamp.digest)),
            None => self.objects.put_new(&name, bytes.to_vec())?,
        }
        Ok(stamp)
    }

    /// Brings a blob down to `to`, whole or not at all: streamed to a temporary file beside it, digested on the way, synced and
    /// renamed. Replaces what is there.
    ///
    /// # Errors
    /// [`JobsError::NotStored`]; [`JobsError::TooLarge`] when it has more than `limit_bytes`; [`JobsError::StoredDigest`] when it is
    /// not what its name says; [`JobsError::Create`], [`JobsError::Write`], [`JobsError::Storage`].
    pub fn get_blob(&self, digest: Digest, limit_bytes: u64, to: &Path) -> Result<FileStamp> {
        let name = blob_name(digest);
        let mut hashing = HashingFile::beside(to)?;
        let found = self.objects.read_to(&name, limit_bytes, &mut hashing)?;
        found.ok_or_else(|| JobsError::NotStored { place: self.objects.place(&name) })?;
        hashing.finish(&name, digest)
    }

    /// A small blob's bytes, checked against its digest.
    ///
    /// # Errors
    /// As [`get_blob`](Self::get_blob).
    pub fn get_blob_bytes(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        let bytes = self.objects.get(&name, limit_bytes)?;
        let bytes = bytes.ok_or_else(|| JobsError::NotStored { place: self.objects.place(&name) })?;
        let found = Digest::of(&bytes);
        if found == digest {
            return Ok(bytes);
        }
        Err(JobsError::StoredDigest { place: name, found, found_bytes: bytes.len() as u64, expected: digest })
    }

    /// Uploads a task's result under the epoch of its lease. Create-only, in parts of [`PART_BYTES`]: a part that is there
    /// must have the same bytes, so the same worker may repeat this and nobody can overwrite.
    ///
    /// # Errors
    /// [`JobsError::Read`], [`JobsError::Storage`]; [`JobsError::StoredDigest`] when other bytes are there already.
    pub fn put_result(&self, task: TaskId, epoch: u32, path: &Path) -> Result<FileStamp> {
        let stamp = stamp_file(path)?;
        let read_error = |source| JobsError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read_error)?;
        for (part, bytes) in parts_of(stamp.bytes) {
            let name = result_name(task, epoch, part);
            let payload = read_part(&mut file, bytes).map_err(read_error)?;
            crate::failpoint!("store.result.before-part", JobsError::storage_io(&name));
            self.objects.put_new(&name, payload)?;
        }
        crate::failpoint!("store.result.after-put", JobsError::storage_io("results"));
        Ok(stamp)
    }

    /// Brings a committed result down to `to`, whole or not at all, checked against the stamp that its commit recorded.
    ///
    /// # Errors
    /// As [`get_blob`](Self::get_blob).
    pub fn get_result(&self, task: TaskId, epoch: u32, stamp: FileStamp, to: &Path) -> Result<()> {
        let mut hashing = HashingFile::beside(to)?;
        for (part, bytes) in parts_of(stamp.bytes) {
            let name = result_name(task, epoch, part);
            let found = self.objects.read_to(&name, bytes, &mut hashing)?;
            found.ok_or_else(|| JobsError::NotStored { place: self.objects.place(&name) })?;
        }
        hashing.finish(&result_name(task, epoch, 0), stamp.digest).map(drop)
    }

    /// Writes a small document under `documents/NAME` if there is none; true when it was written, or has these very
    /// bytes. `name` is `/`-joined names of `A-Z a-z 0-9 . _ -`.
    ///
    /// # Errors
    /// [`JobsError::Storage`], [`JobsError::Field`].
    pub fn create_document(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let name = document_name(name)?;
        crate::failpoint!("store.document.before-create", JobsError::storage_io(&name));
        let created = self.objects.create(&name, bytes.to_vec())?;
        crate::failpoint!("store.document.after-create", JobsError::storage_io(&name));
        Ok(created)
    }

    /// A document's bytes; `None` when there is none.
    ///
    /// # Errors
    /// [`JobsError::Storage`], [`JobsError::Field`]; [`JobsError::TooLarge`] beyond [`DOCUMENT_LIMIT_BYTES`].
    pub fn get_document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.objects.get(&document_name(name)?, DOCUMENT_LIMIT_BYTES)
    }

    /// Tries on the real store what the protocol rests on: an object that is there refuses a second create, what was written is read
    /// back, shows up in a listing and can be removed. Leaves nothing behind. Returns when that was, in milliseconds since 1970 by the store's
    /// own clock, which may tell whole seconds only.
    ///
    /// # Errors
    /// [`JobsError::Storage`] naming the first thing that does not hold.
    pub fn probe(&self, nonce: u64) -> Result<u64> {
        self.objects.probe(nonce)
    }
}

/// (index, bytes) of the parts of a result; an empty result has one empty part.
fn parts_of(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = bytes.div_ceil(PART_BYTES).max(1);
    (0..count).map(move |part| (part, (bytes - part * PART_BYTES).min(PART_BYTES)))
}

/// Reads exactly `bytes`, at most a part: a file that became shorter since it was measured is an error.
fn read_part(file: &mut File, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(bytes.min(PART_BYTES)).read_to_end(&mut part)?;
    if part.len() as u64 == bytes { Ok(part) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

fn wrong_size(name: &str, found_bytes: u64, expected: Digest) -> JobsError {
    let detail = format!("{found_bytes} bytes, not those of digest {expected}: remove it from the store");
    JobsError::QueueRecord { place: name.to_owned(), detail }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/{digest}")
}

fn result_name(task: TaskId, epoch: u32, part: u64) -> String {
    format!("results/{}/{:05}/{epoch:06}/{part:06}", task.job, task.batch)
}

fn document_name(name: &str) -> Result<String> {
    crate::paths::check_relative(name)?;
    for piece in name.split('/') {
        check::check_name("document", piece)?;
    }
    Ok(format!("documents/{name}"))
}

/// A temporary file beside its final name, digested as it is written.
struct HashingFile {
    to: PathBuf,
    file: NamedTempFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashingFile {
    fn beside(to: &Path) -> Result<Self> {
        let file = crate::atomic::temporary(to)?;
        Ok(Self { to: to.to_owned(), file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    /// Compares, syncs, renames.
    fn finish(self, name: &str, expected: Digest) -> Result<FileStamp> {
        let stamp = FileStamp { digest: Digest::from_bytes(*self.hasher.finalize().as_bytes()), bytes: self.bytes };
        if stamp.digest != expected {
            let (place, found) = (name.to_owned(), stamp.digest);
            return Err(JobsError::StoredDigest { place, found, found_bytes: stamp.bytes, expected });
        }
        crate::atomic::finish(self.file, &self.to)?;
        Ok(stamp)
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
