//! Files that one command makes: removed again unless the command ends well. Knows nothing of what they hold.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ClientError;

/// A folder being filled. Dropped before [`Outputs::keep`], it removes what it made and nothing else.
#[derive(Debug)]
pub(super) struct Outputs {
    folder: PathBuf,
    made_folder: bool,
    files: Vec<PathBuf>,
}

impl Outputs {
    /// Opens `folder`, making it (and its parents) with mode `mode` if it is not there.
    pub(super) fn open(folder: &Path, mode: u32) -> Result<Self, ClientError> {
        let create = |source| ClientError::Create { path: folder.to_owned(), source };
        let mut outputs = Self { folder: folder.to_owned(), made_folder: false, files: Vec::new() };
        match DirBuilder::new().mode(mode).create(folder) {
            Ok(()) => outputs.made_folder = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                fs::create_dir_all(parent).map_err(create)?;
                DirBuilder::new().mode(mode).create(folder).map_err(create)?;
                outputs.made_folder = true;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => return Err(create(error)),
        }
        Ok(outputs)
    }

    /// Refuses a folder that has anything in it.
    pub(super) fn expect_empty(&self) -> Result<(), ClientError> {
        let entries = fs::read_dir(&self.folder);
        let first = entries.and_then(|mut entries| entries.next().transpose());
        match first.map_err(|source| ClientError::Create { path: self.folder.clone(), source })? {
            None => Ok(()),
            Some(entry) => {
                let found = format!("{:?} in it", entry.file_name().to_string_lossy());
                Err(ClientError::Exists { path: self.folder.clone(), found, expected: "an empty folder or none" })
            }
        }
    }

    /// The path of `name`, which must not be there yet.
    pub(super) fn free_path(&self, name: &str) -> Result<PathBuf, ClientError> {
        let path = self.folder.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(ClientError::Exists {
                path,
                found: "a file".into(),
                expected: "none: files are never replaced",
            });
        }
        Ok(path)
    }

    /// From now on `path`, which this command has made, is removed if the command fails.
    pub(super) fn made(&mut self, path: &Path) {
        self.files.push(path.to_owned());
    }

    /// Brings a copy of a file in under `name`: never a link, so that whoever changes the job folder cannot change the original.
    pub(super) fn bring(&mut self, source: &Path, name: &str) -> Result<PathBuf, ClientError> {
        let path = self.free_path(name)?;
        let write = |source| ClientError::Write { path: path.clone(), source };
        let create = |source| ClientError::Create { path: path.clone(), source };
        let mut original = File::open(source).map_err(|error| self.cannot_read(source, error))?;
        let mut copy = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.folder)
            .map_err(create)?;
        io::copy(&mut original, &mut copy).map_err(write)?;
        copy.as_file().sync_all().map_err(write)?;
        copy.persist_noclobber(&path).map_err(|error| create(error.error))?;
        self.made(&path);
        Ok(path)
    }

    fn cannot_read(&self, path: &Path, source: io::Error) -> ClientError {
        jobs::JobsError::Read { path: path.to_owned(), source }.into()
    }

    /// The command ended well: everything stays.
    pub(super) fn keep(mut self) {
        self.files.clear();
        self.made_folder = false;
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.made_folder {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
