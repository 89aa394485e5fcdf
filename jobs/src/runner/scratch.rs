//! Scratch: where a worker keeps files while it works. Several workers may share a folder.
//!
//! ```text
//! SCRATCH/cache/DIGEST             models and keys, by content; brought down once
//! SCRATCH/checkpoints/JOB-BATCH    the state of a batch that takes long, for whoever goes on with it
//! SCRATCH/run-XXXXXX/lock          held as long as the worker lives
//! SCRATCH/run-XXXXXX/JOB-BATCH-EPOCH/   one task's files
//! ```
//! A folder whose lock nobody holds is a killed worker's: the next worker that starts removes it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::digest::{Digest, digest_file};
use crate::error::{JobsError, Result};
use crate::queue::{Lease, TaskId};
use crate::store::Store;

/// Cached files that nobody used for so long are removed.
const CACHE_AGE: Duration = Duration::from_secs(30 * 86_400);
/// States that nobody went on from for so long are removed.
const CHECKPOINT_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Temporary files and half-made folders of so long ago are nobody's.
const REMAINS_AGE: Duration = Duration::from_secs(86_400);

/// A worker's part of a scratch folder. Removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    cache: PathBuf,
    checkpoints: PathBuf,
    run: PathBuf,
    /// Locked; the lock ends with the process, however that ends.
    _lock: File,
    /// Cached files whose digests this process has seen itself.
    checked: Mutex<BTreeSet<Digest>>,
    /// A folder of this worker alone, removed with it.
    _own: Option<tempfile::TempDir>,
}

/// One task's folder; removed when dropped.
#[derive(Debug)]
pub(super) struct TaskFolder(PathBuf);

impl Scratch {
    /// A part of `folder`, which is made if it is not there, for its owner alone. What killed workers left is removed.
    ///
    /// # Errors
    /// [`JobsError::Create`] and [`JobsError::Write`].
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_in(folder, None)
    }

    /// A folder of its own among the system's temporary ones, removed at the end: nothing is kept for the next worker.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn temporary() -> Result<Self> {
        let parent = std::env::temp_dir();
        let own = tempfile::Builder::new().prefix("nightshift-").tempdir_in(&parent);
        let own = own.map_err(|source| JobsError::Create { path: parent, source })?;
        let folder = own.path().to_owned();
        Self::open_in(&folder, Some(own))
    }

    fn open_in(folder: &Path, own: Option<tempfile::TempDir>) -> Result<Self> {
        let create = |path: &Path| {
            let path = path.to_owned();
            move |source| JobsError::Create { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(create(folder))?;
        let [cache, checkpoints] = ["cache", "checkpoints"].map(|name| folder.join(name));
        for (inner, age) in [(&cache, CACHE_AGE), (&checkpoints, CHECKPOINT_AGE)] {
            DirBuilder::new().recursive(true).mode(0o700).create(inner).map_err(create(inner))?;
            remove_old(inner, age);
        }
        remove_remains(folder);
        // Under another name until its lock is held: a folder `run-..` without a holder is a dead worker's.
        let new = tempfile::Builder::new().prefix("new-").tempdir_in(folder).map_err(create(folder))?.keep();
        let lock_path = new.join("lock");
        let lock = File::create(&lock_path).map_err(create(&lock_path))?;
        let name = new.file_name().and_then(|name| name.to_str()).unwrap_or_default().replacen("new-", "run-", 1);
        let run = folder.join(name);
        let placed = lock.lock().and_then(|()| fs::rename(&new, &run));
        placed.map_err(|source| JobsError::Write { path: lock_path, source })?;
        Ok(Self { cache, checkpoints, run, _lock: lock, checked: Mutex::default(), _own: own })
    }

    /// This worker's folder.
    pub fn folder(&self) -> &Path {
        &self.run
    }

    /// An empty folder for the task.
    pub(super) fn task_folder(&self, lease: &Lease) -> Result<TaskFolder> {
        let name = format!("{}-{}-{}", lease.task.job, lease.task.batch, lease.epoch);
        let path = self.run.join(name);
        let create = |source| JobsError::Create { path: path.clone(), source };
        match fs::create_dir(&path) {
            // A lease is worked on once; what is there is this worker's own and of no use.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).map_err(create)?;
            }
            made => made.map_err(create)?,
        }
        Ok(TaskFolder(path))
    }

    /// Where the state of a task may be kept.
    pub(super) fn checkpoint(&self, task: TaskId) -> PathBuf {
        self.checkpoints.join(format!("{}-{}", task.job, task.batch))
    }

    /// The cached file of this digest, brought down where it is not there or not what it should be.
    pub(super) fn cached(&self, store: &Store, digest: Digest, limit_bytes: u64) -> Result<PathBuf> {
        let path = self.cache.join(digest.to_string());
        let mut checked = self.checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_there = path.is_file();
        if !is_there || !(checked.contains(&digest) || digest_file(&path).is_ok_and(|found| found == digest)) {
            store.get_blob(digest, limit_bytes, &path)?;
        }
        checked.insert(digest);
        // Only its age is at stake.
        let _old = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next worker removes.
        let _left = fs::remove_dir_all(&self.run);
    }
}

impl TaskFolder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TaskFolder {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = path.symlink_metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > age))
}

/// Removes what killed workers left. What resists is left for another time.
fn remove_remains(folder: &Path) {
    for path in entries(folder) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_dead = if name.starts_with("run-") {
            File::open(path.join("lock"))
                .is_ok_and(|lock| lock.try_lock().is_ok_and(|()| fs::remove_dir_all(&path).is_ok()))
        } else {
            name.starts_with("new-") && is_older(&path, REMAINS_AGE)
        };
        if is_dead {
            let _left = fs::remove_dir_all(&path);
        }
    }
}

/// Removes files that nobody used for so long.
fn remove_old(folder: &Path, age: Duration) {
    for path in entries(folder) {
        let is_temporary = path.extension().is_some_and(|ending| ending == "tmp");
        if is_older(&path, if is_temporary { REMAINS_AGE } else { age }) {
            let _left = fs::remove_file(&path);
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_s_folder_goes_and_a_live_one_s_stays() {
        let folder = tempfile::tempdir().unwrap();
        let live = Scratch::open(folder.path()).unwrap();
        let dead = folder.path().join("run-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), b"").unwrap();
        fs::write(dead.join("batch.nsc"), b"left").unwrap();
        let second = Scratch::open(folder.path()).unwrap();
        assert!(!dead.exists() && live.folder().is_dir() && second.folder().is_dir());
        let path = live.folder().to_owned();
        drop(live);
        assert!(!path.exists() && second.folder().is_dir());
    }

    #[test]
    fn what_nobody_used_for_long_goes() {
        let folder = tempfile::tempdir().unwrap();
        drop(Scratch::open(folder.path()).unwrap());
        let old = SystemTime::now() - CHECKPOINT_AGE - Duration::from_secs(60);
        for (name, stays) in [("cache/model", true), ("checkpoints/state", false), ("checkpoints/.x.tmp", false)] {
            let path = folder.path().join(name);
            File::create(&path).unwrap().set_modified(old).unwrap();
            drop(Scratch::open(folder.path()).unwrap());
            assert_eq!(path.exists(), stays, "{name}");
        }
        let new = folder.path().join("checkpoints/new");
        fs::write(&new, b"state").unwrap();
        drop(Scratch::open(folder.path()).unwrap());
        assert!(new.exists());
    }

    #[test]
    fn a_temporary_one_leaves_nothing() {
        let scratch = Scratch::temporary().unwrap();
        let folder = scratch.folder().parent().unwrap().to_owned();
        assert!(folder.is_dir());
        drop(scratch);
        assert!(!folder.exists());
    }
}
