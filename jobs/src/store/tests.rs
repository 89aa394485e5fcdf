//! The payload store on a folder: what comes back is what its name says, and nothing is written over.

use std::fs;
use std::sync::Arc;

use super::objects::Objects;
use super::{PART_BYTES, Store};
use crate::digest::{Digest, FileStamp};
use crate::error::JobsError;
use crate::queue::{JobId, TaskId};

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::of_folder(&folder.path().join("store")).unwrap();
        Self { store: Store::new(Arc::new(objects)), folder }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn bytes_of(count: u64) -> Vec<u8> {
    (0..count).map(|index| (index * index % 251) as u8).collect()
}

#[test]
fn blobs_of_every_size_come_back() {
    let place = Place::new();
    for count in [0, 1, 1000, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5] {
        let content = bytes_of(count);
        let path = place.file("in", &content);
        let stamp = place.store.put_blob(&path).unwrap();
        assert_eq!(stamp, FileStamp { digest: Digest::of(&content), bytes: count });
        assert_eq!(place.store.put_blob(&path).unwrap(), stamp, "the same again");
        assert_eq!(place.store.blob_bytes(stamp.digest).unwrap(), Some(count));
        let to = place.folder.path().join("out");
        assert_eq!(place.store.get_blob(stamp.digest, count, &to).unwrap(), stamp);
        assert_eq!(fs::read(&to).unwrap(), content, "{count} bytes");
        assert_eq!(fs::read(place.store.blob_path(stamp.digest).unwrap()).unwrap(), content);
        if count > 0 {
            let refused = place.store.get_blob(stamp.digest, count - 1, &to).unwrap_err();
            assert!(matches!(refused, JobsError::TooLarge { .. }), "{refused}");
        }
    }
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let place = Place::new();
    let stamp = place.store.put_blob_bytes(b"content").unwrap();
    let to = place.folder.path().join("out");
    fs::write(place.store.blob_path(stamp.digest).unwrap(), b"contenT").unwrap();
    for refused in [
        place.store.get_blob(stamp.digest, 100, &to).unwrap_err(),
        place.store.get_blob_bytes(stamp.digest, 100).unwrap_err(),
    ] {
        assert!(matches!(refused, JobsError::StoredDigest { .. }), "{refused}");
        assert_eq!(refused.exit_code().code(), 65);
    }
    assert!(!to.exists(), "refused and yet written");
    fs::write(place.store.blob_path(stamp.digest).unwrap(), b"longer than it was").unwrap();
    assert!(place.store.put_blob_bytes(b"content").is_err(), "another size under the same digest");
}

#[test]
fn what_is_missing_is_told() {
    let place = Place::new();
    let refused = place.store.get_blob(Digest::of(b"x"), 100, &place.folder.path().join("out")).unwrap_err();
    assert!(matches!(refused, JobsError::NotStored { .. }), "{refused}");
    assert_eq!(refused.exit_code().code(), 66);
    assert_eq!(place.store.blob_bytes(Digest::of(b"x")).unwrap(), None);
    assert_eq!(place.store.get_document("none").unwrap(), None);
    assert_eq!(place.store.put_blob(&place.folder.path().join("none")).unwrap_err().exit_code().code(), 66);
}

#[test]
fn results_are_kept_by_epoch_and_never_written_over() {
    let place = Place::new();
    let task = TaskId { job: JobId::of("t", "k"), batch: 3 };
    let to = place.folder.path().join("out");
    for (epoch, count) in [(1, 0), (2, 77), (3, PART_BYTES + 9)] {
        let content = bytes_of(count);
        let path = place.file("result", &content);
        let stamp = place.store.put_result(task, epoch, &path).unwrap();
        assert_eq!(place.store.put_result(task, epoch, &path).unwrap(), stamp, "the same again");
        place.store.get_result(task, epoch, stamp, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), content);
    }
    let other = place.file("other", b"another result");
    assert!(matches!(place.store.put_result(task, 2, &other).unwrap_err(), JobsError::StoredDigest { .. }));
    let stamp = FileStamp { digest: Digest::of(&bytes_of(77)), bytes: 77 };
    place.store.get_result(task, 2, stamp, &to).unwrap();
    let wrong = FileStamp { digest: Digest::of(b"another"), bytes: 77 };
    assert!(place.store.get_result(task, 2, wrong, &to).is_err());
}

#[test]
fn documents_are_created_once() {
    let place = Place::new();
    assert!(place.store.create_document("receipts/a.json", b"first").unwrap());
    assert!(place.store.create_document("receipts/a.json", b"first").unwrap(), "the same again");
    assert!(!place.store.create_document("receipts/a.json", b"second").unwrap());
    assert_eq!(place.store.get_document("receipts/a.json").unwrap().unwrap(), b"first");
    for bad in ["", "../a", "/a", "a//b", "a b", "a/..", "é"] {
        assert_eq!(place.store.create_document(bad, b"x").unwrap_err().exit_code().code(), 65, "{bad:?}");
    }
}

#[test]
fn a_folder_passes_the_probe_and_keeps_nothing_of_it() {
    let place = Place::new();
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let [first, second] = [(); 2].map(|()| place.store.probe(7).unwrap());
    // The folder's clock is this machine's, though it may be read a tick earlier.
    assert!((before - 1_000..before + 600_000).contains(&first) && first <= second, "{before} {first} {second}");
    let left = fs::read_dir(place.folder.path().join("store/probe")).unwrap().count();
    assert_eq!(left, 0);
}
