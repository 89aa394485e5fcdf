//! The few things asked of an object store, as blocking calls: create if absent, put, get with a limit, list, delete. On a
//! folder they run on the calling thread; on a bucket, in a small runtime owned here. Names are `/`-joined and plain;
//! everything lies under one prefix.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::PART_BYTES;
use crate::digest::{Digest, FileStamp};
use crate::error::{JobsError, Result, clip};
use crate::exit::ExitCode;

/// Most objects of one listing.
const LISTING_LIMIT: usize = 4_000_000;
/// Requests to a bucket that are under way at the same time.
const REQUESTS_AT_ONCE: usize = 16;

/// A prefix of an object store.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    address: String,
    folder: Option<PathBuf>,
    #[cfg(feature = "cloud")]
    runtime: Option<tokio::runtime::Runtime>,
}

/// An object as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name behind the prefix of these objects.
    pub(crate) name: String,
    /// Differs whenever the object was written anew.
    pub(crate) mark: String,
    /// When it was written, in milliseconds since 1970 by the store's clock.
    pub(crate) written_unix_ms: u64,
}

impl Objects {
    /// A folder, made if it is not there. What is written is synced, files and folders, before a call returns.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self> {
        let create_error = |source| JobsError::Create { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(create_error)?;
        let folder = folder.canonicalize().map_err(create_error)?;
        let address = format!("spool:{}", folder.display());
        let local = LocalFileSystem::new_with_prefix(&folder).map_err(|error| translate(&address, &error))?;
        let mut objects = Self::over(Arc::new(local.with_fsync(true)), ObjectPath::default(), address);
        objects.folder = Some(folder);
        Ok(objects)
    }

    /// Any store that answers without a runtime: one in memory, or a wrapper around one.
    pub(crate) fn over(store: Arc<dyn ObjectStore>, prefix: ObjectPath, address: String) -> Self {
        Self {
            store,
            prefix,
            address,
            folder: None,
            #[cfg(feature = "cloud")]
            runtime: None,
        }
    }

    /// A bucket.
    #[cfg(feature = "cloud")]
    pub(crate) fn of_bucket(store: Arc<dyn ObjectStore>, prefix: ObjectPath, address: String) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(JobsError::storage_io(&address))?;
        let mut objects = Self::over(store, prefix, address.clone());
        objects.runtime = Some(runtime);
        Ok(objects)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// An object's name for errors.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("{}: {name}", self.address)
    }

    /// Writes an object if there is none of this name. True when it is written, or was with these very bytes (an
    /// earlier try of ours whose answer was lost), so bytes must tell their writer wherever two may compete.
    pub(crate) fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let path = self.path(name);
        let payload = PutPayload::from(bytes.clone());
        match self.run(self.store.put_opts(&path, payload, PutMode::Create.into())) {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                match self.get(name, bytes.len() as u64) {
                    Ok(found) => Ok(found == Some(bytes)),
                    Err(JobsError::TooLarge { .. }) => Ok(false),
                    // Whose it is cannot be told now, so neither answer may be given.
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(self.error(name, &error)),
        }
    }

    /// As [`create`](Self::create), where anything else under the name is an error.
    pub(crate) fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let expected = Digest::of(&bytes);
        if self.create(name, bytes)? {
            return Ok(());
        }
        let there = self.get(name, PART_BYTES)?.unwrap_or_default();
        let (found, found_bytes) = (Digest::of(&there), there.len() as u64);
        Err(JobsError::StoredDigest { place: self.place(name), found, found_bytes, expected })
    }

    /// Writes an object, replacing what is there.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.path(name);
        let done = self.run(self.store.put(&path, PutPayload::from(bytes)));
        done.map(drop).map_err(|error| self.error(name, &error))
    }

    /// Uploads a large file in pieces; it appears whole at the end, and only when it still is what it was.
    pub(crate) fn put_stream(&self, name: &str, from: &Path, file: &mut File, stamp: FileStamp) -> Result<()> {
        let path = self.path(name);
        let read_error = |source| JobsError::Read { path: from.to_owned(), source };
        let mut upload = self.run(self.store.put_multipart(&path)).map_err(|error| self.error(name, &error))?;
        let mut hasher = blake3::Hasher::new();
        let mut left_bytes = stamp.bytes;
        let sent = loop {
            let mut piece = Vec::new();
            match file.take(PART_BYTES.min(left_bytes)).read_to_end(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(count) => left_bytes -= count as u64,
                Err(source) => break Err(read_error(source)),
            }
            hasher.update(&piece);
            if let Err(error) = self.run(upload.put_part(PutPayload::from(piece))) {
                break Err(self.error(name, &error));
            }
        };
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        let checked = sent.and_then(|()| {
            if left_bytes == 0 && found == stamp.digest {
                return Ok(());
            }
            let (place, found_bytes) = (from.display().to_string(), stamp.bytes - left_bytes);
            Err(JobsError::StoredDigest { place, found, found_bytes, expected: stamp.digest })
        });
        if let Err(problem) = checked {
            // What was sent stays invisible; the first problem is the one to tell.
            let _ = self.run(upload.abort());
            return Err(problem);
        }
        self.run(upload.complete()).map(drop).map_err(|error| self.error(name, &error))
    }

    /// An object's bytes, `None` when there is none.
    pub(crate) fn get(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        Ok(self.read_to(name, limit_bytes, &mut bytes)?.map(|_| bytes))
    }

    /// The bytes of many objects, several asked for at a time; `None` for each that is not there.
    pub(crate) fn get_many(&self, names: &[String], limit_bytes: u64) -> Result<Vec<Option<Vec<u8>>>> {
        if self.folder.is_some() {
            return names.iter().map(|name| self.get(name, limit_bytes)).collect();
        }
        let fetch = |name: &String| {
            let (name, path) = (name.clone(), self.path(name));
            async move {
                let found = match self.store.get(&path).await {
                    Ok(found) => found,
                    Err(StoreError::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(self.error(&name, &error)),
                };
                let found_bytes = found.meta.size;
                if found_bytes > limit_bytes {
                    let path = PathBuf::from(self.place(&name));
                    return Err(JobsError::TooLarge { path, found_bytes, limit_bytes });
                }
                found.bytes().await.map(|bytes| Some(bytes.to_vec())).map_err(|error| self.error(&name, &error))
            }
        };
        let fetched = futures_util::stream::iter(names.iter().map(fetch)).buffered(REQUESTS_AT_ONCE);
        self.run(fetched.try_collect())
    }

    /// Removes a folder that has become empty, where names are folders; without effect elsewhere or while it is not empty.
    pub(crate) fn remove_empty_folder(&self, name: &str) {
        if let Some(folder) = &self.folder {
            // Not empty, or gone: both are fine.
            let _ = std::fs::remove_dir(folder.join(name));
        }
    }

    /// Streams an object into `to`; its size, `None` when there is none.
    pub(crate) fn read_to(&self, name: &str, limit_bytes: u64, to: &mut dyn Write) -> Result<Option<u64>> {
        let too_large =
            |found_bytes| JobsError::TooLarge { path: PathBuf::from(self.place(name)), found_bytes, limit_bytes };
        let path = self.path(name);
        let found = match self.run(self.store.get(&path)) {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error(name, &error)),
        };
        if found.meta.size > limit_bytes {
            return Err(too_large(found.meta.size));
        }
        let mut stream = found.into_stream();
        let mut bytes = 0_u64;
        while let Some(piece) = self.run(stream.try_next()).map_err(|error| self.error(name, &error))? {
            bytes += piece.len() as u64;
            if bytes > limit_bytes {
                return Err(too_large(bytes));
            }
            to.write_all(&piece).map_err(JobsError::storage_io(&self.place(name)))?;
        }
        Ok(Some(bytes))
    }

    /// An object's size, `None` when there is none.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path(name);
        match self.run(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(name, &error)),
        }
    }

    /// All objects under a folder-like name, at any depth, in the order of their names.
    pub(crate) fn list(&self, under: &str) -> Result<Vec<Listed>> {
        let path = self.path(under);
        let prefix_bytes = self.prefix.as_ref().len() + usize::from(!self.prefix.as_ref().is_empty());
        let listing = self.store.list(Some(&path)).take(LISTING_LIMIT).map_ok(|meta| {
            let name = meta.location.as_ref().get(prefix_bytes..).unwrap_or_default().to_owned();
            let written = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
            let mark = format!("{} {} {written}", meta.e_tag.unwrap_or_default(), meta.size);
            Listed { name, mark, written_unix_ms: meta.last_modified.timestamp_millis().max(0).unsigned_abs() }
        });
        let found: std::result::Result<Vec<Listed>, StoreError> = self.run(listing.try_collect());
        let mut found = found.map_err(|error| self.error(under, &error))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes an object; one that is not there is no error.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match self.run(self.store.delete(&path)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, &error)),
        }
    }

    pub(crate) fn probe(&self, nonce: u64) -> Result<u64> {
        let name = format!("probe/{nonce:016x}");
        let broken = |detail: &str| {
            let (place, detail) = (self.place(&name), detail.to_owned());
            JobsError::Storage { place, detail, exit_code: ExitCode::Config }
        };
        let first = b"first".to_vec();
        if !self.create(&name, first.clone())? {
            return Err(broken("a new object could not be created: another one has its name"));
        }
        if self.create(&name, b"second".to_vec())? {
            return Err(broken("an object that exists was created again: conditional writes are ignored"));
        }
        if self.get(&name, 64)? != Some(first) {
            return Err(broken("what was written is not what is read back"));
        }
        let listed = self.list("probe")?.into_iter().find(|listed| listed.name == name);
        let listed = listed.ok_or_else(|| broken("what was written does not show up in a listing"))?;
        self.delete(&name)?;
        if self.size(&name)?.is_some() {
            return Err(broken("what was removed is still there"));
        }
        Ok(listed.written_unix_ms)
    }

    fn path(&self, name: &str) -> ObjectPath {
        ObjectPath::from_iter(self.prefix.parts().chain(ObjectPath::from(name).parts()))
    }

    fn error(&self, name: &str, error: &StoreError) -> JobsError {
        translate(&self.place(name), error)
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        #[cfg(feature = "cloud")]
        if let Some(runtime) = &self.runtime {
            return runtime.block_on(future);
        }
        block_on(future)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.address)
    }
}

/// Puts a store's error into our words: found by walking its sources for the system's error.
fn translate(place: &str, error: &StoreError) -> JobsError {
    let mut exit_code = match error {
        StoreError::NotFound { .. } => ExitCode::InputMissing,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => ExitCode::Permission,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => ExitCode::Config,
        _ => ExitCode::Unavailable,
    };
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut words: Vec<String> = Vec::new();
    while let Some(inner) = next {
        if let Some(system) = inner.downcast_ref::<std::io::Error>().filter(|io| io.raw_os_error().is_some()) {
            exit_code = ExitCode::on_write(system);
        }
        let said = inner.to_string();
        // Most errors repeat their source's words.
        if !words.iter().any(|before| before.contains(&said)) {
            words.push(said);
        }
        next = inner.source();
    }
    let detail = words.join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
    JobsError::Storage { place: place.to_owned(), detail: clip(&detail), exit_code }
}

/// Runs a future to its end on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
