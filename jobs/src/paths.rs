//! Confinement: a path in a manifest is plain names joined by `/`, and stays inside the job's folder whatever links lie
//! on the way. Checks what is on disk at the moment of the call; it does not guard against someone who can rewrite the
//! folder while a job runs, so a job's folder belongs to the user the worker runs as.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::regular_file_bytes;
use crate::error::{JobsError, Result, clip};

/// Most bytes in a path.
pub const PATH_LIMIT_BYTES: usize = 1024;
/// Most bytes in one name of a path.
pub const NAME_LIMIT_BYTES: usize = 255;
/// Most bytes in the name of a file that is written: its temporary file's name is up to 15 bytes longer.
pub const OUTPUT_NAME_LIMIT_BYTES: usize = 240;

/// Checks the written form alone: relative, no empty name, no `.` or `..`, no control character or backslash, no
/// scheme or drive letter, within the limits. One file has one such form, so equal paths are equal texts.
///
/// # Errors
/// [`JobsError::PathForm`], saying which rule is broken.
pub fn check_relative(relative: &str) -> Result<()> {
    match form_problem(relative) {
        None => Ok(()),
        Some(problem) => Err(JobsError::PathForm { path: clip(relative), problem }),
    }
}

/// As [`check_relative`], for a file that will be written: its name leaves room for a temporary file's beside it.
///
/// # Errors
/// [`JobsError::PathForm`].
pub fn check_relative_output(relative: &str) -> Result<()> {
    check_relative(relative)?;
    let name = relative.rsplit('/').next().unwrap_or(relative);
    if name.len() > OUTPUT_NAME_LIMIT_BYTES {
        return Err(JobsError::PathForm {
            path: clip(relative),
            problem: "has an output's name longer than 240 bytes",
        });
    }
    Ok(())
}

fn form_problem(relative: &str) -> Option<&'static str> {
    if relative.is_empty() {
        return Some("is empty");
    }
    if relative.len() > PATH_LIMIT_BYTES {
        return Some("is longer than 1024 bytes");
    }
    if relative.starts_with('/') {
        return Some("is absolute");
    }
    if relative.contains('\\') {
        return Some("has a backslash");
    }
    if relative.chars().any(char::is_control) {
        return Some("has a control character");
    }
    if has_scheme(relative) {
        return Some("has a scheme or a drive letter");
    }
    relative.split('/').find_map(|name| match name {
        "" => Some("has an empty name"),
        "." => Some("has a \".\""),
        ".." => Some("has a \"..\""),
        _ if name.len() > NAME_LIMIT_BYTES => Some("has a name longer than 255 bytes"),
        _ => None,
    })
}

/// A scheme as RFC 3986 section 3.1 spells it, at the very front; a drive letter is a scheme of one letter.
fn has_scheme(relative: &str) -> bool {
    let Some((scheme, _)) = relative.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// The path of `relative` under `root`, links resolved as far as the path exists; the rest need not exist yet.
///
/// # Errors
/// [`JobsError::PathForm`] for a bad form, [`JobsError::PathEscapes`] for a link that leads out or nowhere or a file
/// used as a folder, [`JobsError::Read`] when `root` or a folder on the way cannot be looked at.
pub fn resolve(root: &Path, relative: &str) -> Result<PathBuf> {
    check_relative(relative)?;
    let escapes = |problem| JobsError::PathEscapes { path: relative.to_owned(), problem, root: root.to_owned() };
    let canonical_root = canonical(root)?;
    let mut resolved = canonical_root.clone();
    let mut names = relative.split('/').peekable();
    while let Some(name) = names.next() {
        let next = resolved.join(name);
        match fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_symlink() => {
                resolved = fs::canonicalize(&next).map_err(|_| escapes("has a link that leads nowhere"))?;
                if !resolved.starts_with(&canonical_root) {
                    return Err(escapes("has a link that leads out"));
                }
            }
            Ok(_) => resolved = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                resolved = next;
                resolved.extend(names);
                return Ok(resolved);
            }
            Err(source) => return Err(JobsError::Read { path: next, source }),
        }
        if names.peek().is_some() && !resolved.is_dir() {
            return Err(escapes("goes through a file as if it were a folder"));
        }
    }
    Ok(resolved)
}

/// As [`resolve`], for a file to be read: it must be there and be a regular file.
///
/// # Errors
/// Also [`JobsError::Read`] when it is missing and [`JobsError::NotAFile`] when it is something else.
pub fn resolve_input(root: &Path, relative: &str) -> Result<PathBuf> {
    let path = resolve(root, relative)?;
    regular_file_bytes(&path)?;
    Ok(path)
}

/// As [`resolve`], for a file to be written: if it is there it must be a regular file, and its folder must be there.
///
/// # Errors
/// Also [`JobsError::Create`] when its folder is missing and [`JobsError::NotAFile`] when something else is in its place.
pub fn resolve_output(root: &Path, relative: &str) -> Result<PathBuf> {
    let path = resolve(root, relative)?;
    if path.exists() {
        regular_file_bytes(&path)?;
    } else if !path.parent().is_some_and(Path::is_dir) {
        return Err(JobsError::Create { path, source: io::Error::from(io::ErrorKind::NotFound) });
    }
    Ok(path)
}

/// The folder with all links resolved.
pub(crate) fn canonical(root: &Path) -> Result<PathBuf> {
    fs::canonicalize(root).map_err(|source| JobsError::Read { path: root.to_owned(), source })
}
