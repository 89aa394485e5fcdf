//! Files that appear whole under their final name, or not at all: a temporary file in the same folder, written, synced,
//! renamed, and the folder synced. The temporary file is removed when any step fails; after a crash one named
//! `.NAME.*.tmp` may remain, never a half-written NAME. Does not create folders.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{JobsError, Result};
use crate::failpoint;

/// Permission bits of a finished file, before the process's mask: readable by all, as any file a program writes.
const MODE: u32 = 0o666;
/// Permission bits of a private file: its owner's alone.
const PRIVATE_MODE: u32 = 0o600;

/// Writes `bytes` under `path`, replacing what is there. A link standing there is replaced, not followed.
///
/// # Errors
/// [`JobsError::Create`] when the file cannot be made or renamed, [`JobsError::Write`] when writing or syncing fails.
/// After an error `path` holds what it held before, unless only the sync of the folder failed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, MODE)
}

/// As [`write_atomic`], with mode 0600 from the start whatever the mask: for what only its owner should read.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_atomic_private(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, PRIVATE_MODE)
}

/// Writes `bytes` under `path` if nothing is there yet; two writers at once cannot both succeed.
///
/// # Errors
/// As [`write_atomic`]; when something is there, [`JobsError::Create`] whose source is `AlreadyExists`.
pub fn create_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    create(path, bytes, MODE)
}

/// As [`create_atomic`], with mode 0600 from the start whatever the mask.
///
/// # Errors
/// As [`create_atomic`].
pub fn create_atomic_private(path: &Path, bytes: &[u8]) -> Result<()> {
    create(path, bytes, PRIVATE_MODE)
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let create_error = |source| JobsError::Create { path: path.to_owned(), source };
    let temporary = write_temporary(path, bytes, mode)?;
    failpoint!("atomic.before-create", create_error);
    temporary.persist_noclobber(path).map_err(|refused| create_error(refused.error))?;
    sync_folder(path)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    rename(write_temporary(path, bytes, mode)?, path)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile> {
    let mut temporary = temporary_with(path, mode)?;
    write_all(&mut temporary, bytes).map_err(|source| JobsError::Write { path: path.to_owned(), source })?;
    sync_file(&temporary, path)?;
    Ok(temporary)
}

/// An empty temporary file beside `path`, to be written and given to [`finish`]; dropping it removes it.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile> {
    temporary_with(path, MODE)
}

/// Syncs a temporary file and puts it under `path`, replacing what is there.
pub(crate) fn finish(temporary: NamedTempFile, path: &Path) -> Result<()> {
    sync_file(&temporary, path)?;
    rename(temporary, path)
}

fn temporary_with(path: &Path, mode: u32) -> Result<NamedTempFile> {
    let create_error = |source| JobsError::Create { path: path.to_owned(), source };
    failpoint!("atomic.create", create_error);
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(path))
        .map_err(create_error)
}

/// Writes all bytes; under a failpoint, half of them and then an error, as a full disk does.
fn write_all(file: &mut NamedTempFile, bytes: &[u8]) -> io::Result<()> {
    if let Some(error) = failpoint::hit("atomic.write") {
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(error);
    }
    file.write_all(bytes)
}

fn sync_file(temporary: &NamedTempFile, path: &Path) -> Result<()> {
    let write_error = |source| JobsError::Write { path: path.to_owned(), source };
    failpoint!("atomic.sync-file", write_error);
    temporary.as_file().sync_all().map_err(write_error)
}

fn rename(temporary: NamedTempFile, path: &Path) -> Result<()> {
    let create_error = |source| JobsError::Create { path: path.to_owned(), source };
    failpoint!("atomic.before-rename", create_error);
    temporary.persist(path).map_err(|refused| create_error(refused.error))?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<()> {
    failpoint!("atomic.sync-folder", |source| JobsError::Write { path: path.to_owned(), source });
    let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    synced.map_err(|source| JobsError::Write { path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_replaces_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names_in(folder.path()), ["receipt.json"]);
        let other_bits = fs::metadata(&path).unwrap().permissions().mode() & 0o111;
        assert_eq!(other_bits, 0, "a finished file is not executable");
    }

    #[test]
    fn a_private_file_is_its_owner_s_even_where_a_public_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        write_atomic(&path, b"public").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_atomic_private(&path, b"private").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"private");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn create_refuses_what_exists_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("done");
        create_atomic(&path, b"first").unwrap();
        let refused = create_atomic(&path, b"second").unwrap_err();
        assert!(matches!(&refused, JobsError::Create { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(refused.exit_code().code(), 73);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names_in(folder.path()), ["done"]);
    }

    #[test]
    fn a_failed_rename_removes_the_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inner"), b"x").unwrap();
        let refused = write_atomic(&path, b"bytes").unwrap_err();
        assert_eq!(refused.exit_code().code(), 73, "{refused}");
        assert_eq!(names_in(folder.path()), ["taken"]);
    }

    #[test]
    fn a_missing_folder_or_no_name_cannot_be_created_in() {
        let folder = tempfile::tempdir().unwrap();
        let refused = write_atomic(&folder.path().join("none/file"), b"x").unwrap_err();
        assert_eq!(refused.exit_code().code(), 73, "{refused}");
        assert!(write_atomic(&folder.path().join(".."), b"x").is_err());
        assert!(names_in(folder.path()).is_empty());
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        let link = folder.path().join("link");
        fs::write(&target, b"untouched").unwrap();
        symlink(&target, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"untouched");
        assert_eq!(fs::read(&link).unwrap(), b"new");
    }
}
