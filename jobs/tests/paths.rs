//! Confinement: hostile spellings, links that lead out, and what honest paths resolve to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jobs::paths::{NAME_LIMIT_BYTES, PATH_LIMIT_BYTES, check_relative, resolve, resolve_input, resolve_output};
use jobs::{ExitCode, JobsError};
use proptest::prelude::*;

#[test]
fn hostile_spellings_are_refused() {
    let long_name = "n".repeat(NAME_LIMIT_BYTES + 1);
    let long_path = "d/".repeat(PATH_LIMIT_BYTES / 2) + "f";
    let cases = [
        ("", "is empty"),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("..", "has a \"..\""),
        ("a/../../b", "has a \"..\""),
        ("a/..", "has a \"..\""),
        (".", "has a \".\""),
        ("./a", "has a \".\""),
        ("a//b", "has an empty name"),
        ("a/", "has an empty name"),
        ("a\0b", "has a control character"),
        ("a\nb", "has a control character"),
        ("s3://bucket/key", "has a scheme or a drive letter"),
        ("file:/etc/passwd", "has a scheme or a drive letter"),
        ("HTTP+x-1.0:a", "has a scheme or a drive letter"),
        ("C:/Windows", "has a scheme or a drive letter"),
        ("c:x", "has a scheme or a drive letter"),
        ("\\\\?\\C:\\x", "has a backslash"),
        ("a\\..\\b", "has a backslash"),
        (&long_name, "has a name longer than 255 bytes"),
        (&long_path, "is longer than 1024 bytes"),
    ];
    for (path, expected) in cases {
        match check_relative(path) {
            Err(error @ JobsError::PathForm { problem, .. }) => {
                assert_eq!(problem, expected, "{path:?}");
                assert_eq!(error.exit_code(), ExitCode::BadData);
                assert!(!error.to_string().contains(['\0', '\n']), "{path:?} is not escaped");
            }
            other => panic!("{path:?}: {other:?}"),
        }
        assert!(resolve(Path::new("/"), path).is_err(), "{path:?} resolved");
    }
}

#[test]
fn plain_names_of_any_script_are_taken() {
    for path in ["a", "a/b/c.nsc", "...", "..a/b..", "a b", "été/写真", "dir/a:b", "1:2", "%2e%2e/a", "-rf", "~"] {
        check_relative(path).unwrap();
    }
}

proptest! {
    #[test]
    fn whatever_is_taken_stays_inside(path in "[a./:\\\\~]{1,12}") {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/aa")).unwrap();
        symlink("..", root.join("aa")).unwrap();
        symlink("a/aa", root.join("aaa")).unwrap();
        if let Ok(resolved) = resolve(&root, &path) {
            prop_assert!(resolved.starts_with(&root), "{:?} -> {:?}", path, resolved);
            prop_assert!(!resolved.components().any(|part| part.as_os_str() == ".."));
        }
    }
}

#[test]
fn links_may_turn_inside_and_never_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"x").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    fs::create_dir(root.join("inner")).unwrap();
    fs::write(root.join("inner/file"), b"y").unwrap();
    symlink("inner", root.join("turn")).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    symlink(outside.path().join("secret"), root.join("leak")).unwrap();
    symlink("../..", root.join("inner/up")).unwrap();
    symlink(outside.path().join("not-yet"), root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();

    assert_eq!(resolve_input(&root, "turn/file").unwrap(), root.join("inner/file"));
    for (path, expected) in [
        ("out/secret", "has a link that leads out"),
        ("out/new-file", "has a link that leads out"),
        ("leak", "has a link that leads out"),
        ("inner/up/x", "has a link that leads out"),
        ("dangling", "has a link that leads nowhere"),
        ("loop", "has a link that leads nowhere"),
        ("inner/file/x", "goes through a file as if it were a folder"),
    ] {
        for resolved in [resolve_input(&root, path), resolve_output(&root, path)] {
            match resolved {
                Err(error @ JobsError::PathEscapes { problem, .. }) => {
                    assert_eq!(problem, expected, "{path}");
                    assert_eq!(error.exit_code(), ExitCode::BadData);
                }
                other => panic!("{path}: {other:?}"),
            }
        }
    }
    assert!(!outside.path().join("not-yet").exists());
}

#[test]
fn a_root_that_is_itself_a_link_is_a_root() {
    let folder = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(folder.path()).unwrap().join("real");
    fs::create_dir(&real).unwrap();
    let link = folder.path().join("link");
    symlink(&real, &link).unwrap();
    assert_eq!(resolve_output(&link, "result").unwrap(), real.join("result"));
    assert_eq!(resolve(&folder.path().join("none"), "a").unwrap_err().exit_code(), ExitCode::InputMissing);
}

#[test]
fn inputs_must_be_files_and_outputs_need_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    assert_eq!(resolve_input(&root, "missing").unwrap_err().exit_code(), ExitCode::InputMissing);
    assert!(matches!(resolve_input(&root, "sub"), Err(JobsError::NotAFile { found: "folder", .. })));
    assert!(matches!(resolve_output(&root, "sub"), Err(JobsError::NotAFile { found: "folder", .. })));
    assert_eq!(resolve_output(&root, "sub/new").unwrap(), root.join("sub/new"));
    assert_eq!(resolve_output(&root, "none/new").unwrap_err().exit_code(), ExitCode::CannotCreate);
}
