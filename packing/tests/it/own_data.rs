//! A user's own data set in a folder: pictures by class folder or with a CSV file, npz and npy; both splits number their
//! classes alike.

use image::{GrayImage, ImageFormat, Luma};
use packing::{ErrorKind, ImageSet, Limits, PackingError, Pixels, Split, open_dataset_dir};

use crate::support::{Folder, gzip, npy, npz, picture};

/// A grey picture of 3 x 2 with one value.
fn png(value: u8) -> Vec<u8> {
    picture(&GrayImage::from_pixel(3, 2, Luma([value])).into(), ImageFormat::Png)
}

fn open(folder: &Folder, split: Split) -> Result<ImageSet, PackingError> {
    open_dataset_dir(folder.path(), split, &Limits::default())
}

/// First pixel, label and class name of each image.
fn rows(set: &ImageSet) -> Vec<(u8, u16, &str)> {
    let Pixels::Bytes(pixels) = &set.pixels else { panic!("expected bytes") };
    let names = set.class_names.as_ref().unwrap();
    let labels = set.labels.as_ref().unwrap();
    assert_eq!(labels.len(), set.count);
    let firsts = pixels.chunks_exact(set.entries()).map(|image| image[0]);
    firsts.zip(labels).map(|(first, &label)| (first, label, names[usize::from(label)].as_str())).collect()
}

#[test]
fn class_folders_of_both_splits_agree() {
    let folder = Folder::new();
    for (name, value) in
        [("train/ant/1.png", 1), ("train/ant/2.png", 2), ("train/bee/1.png", 3), ("train/cow/1.png", 4)]
    {
        folder.put(name, &png(value));
    }
    // No ant here: alone, bee would be class 0.
    folder.put("test/cow/9.png", &png(6));
    folder.put("test/bee/7.png", &png(5));
    let train = open(&folder, Split::Train).unwrap();
    assert_eq!(rows(&train), [(1, 0, "ant"), (2, 0, "ant"), (3, 1, "bee"), (4, 2, "cow")]);
    assert_eq!(train.shape, [1, 2, 3]);
    let test = open(&folder, Split::Test).unwrap();
    assert_eq!(rows(&test), [(5, 1, "bee"), (6, 2, "cow")]);
    assert_eq!(test.class_names, train.class_names);
    assert_eq!(test.names.unwrap(), ["bee/7.png", "cow/9.png"]);

    folder.put("test/dog/1.png", &png(7));
    let error = open(&folder, Split::Test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(
        error.to_string().ends_with("test: found class \"dog\", expected one of [\"ant\", \"bee\", \"cow\"]"),
        "{error}"
    );
}

#[test]
fn pictures_with_a_csv_of_names() {
    let folder = Folder::new();
    for (name, value) in [("train/a.png", 1), ("train/b.png", 2), ("train/c.png", 3), ("test/a.png", 4)] {
        folder.put(name, &png(value));
    }
    folder.put("train.csv", b"file,label\nc.png,rose\na.png,rose\nb.png,\"lily, white\"\n");
    folder.put("test.csv", b"a.png, rose\n");
    let train = open(&folder, Split::Train).unwrap();
    assert_eq!(rows(&train), [(1, 1, "rose"), (2, 0, "lily, white"), (3, 1, "rose")]);
    assert_eq!(rows(&open(&folder, Split::Test).unwrap()), [(4, 1, "rose")]);
    folder.put("test.csv", b"a.png,tulip\n");
    let error = open(&folder, Split::Test).unwrap_err().to_string();
    assert!(error.contains("test.csv: found class \"tulip\", expected one of"), "{error}");
}

#[test]
fn pictures_with_a_csv_of_numbers() {
    let folder = Folder::new();
    folder.put("train/a.png", &png(1));
    folder.put("train/b.png", &png(2));
    folder.put("train.csv.gz", &gzip(b"b.png,0\na.png,1\n"));
    let train = open(&folder, Split::Train).unwrap();
    assert_eq!((train.labels.as_deref(), &train.class_names), (Some(&[1, 0][..]), &None));
    folder.put("train/c.png", &png(3));
    let error = open(&folder, Split::Train).unwrap_err().to_string();
    assert!(error.ends_with("found 2 labels, expected 3"), "{error}");
    let error = open(&folder, Split::Test).unwrap_err();
    assert!(matches!(error, PackingError::NoDataset { .. }), "{error}");
    assert!(error.to_string().contains("test/CLASS/*.png, test/*.png with test.csv"), "{error}");
}

#[test]
fn pictures_without_labels_are_no_data_set() {
    let folder = Folder::new();
    folder.put("train/a.png", &png(1));
    folder.put("test/a.png", &png(1));
    for split in [Split::Train, Split::Test] {
        assert!(matches!(open(&folder, split), Err(PackingError::NoDataset { .. })));
    }
    folder.put("other/readme.txt", b"no pictures");
    let empty = open_dataset_dir(&folder.path().join("other"), Split::Train, &Limits::default());
    assert!(matches!(empty, Err(PackingError::NoDataset { .. })));
}

#[test]
fn arrays_named_after_their_split() {
    let folder = Folder::new();
    let images = npy("|u1", "False", "(2, 1, 2)", &[1, 2, 3, 4]);
    let labels = npy("|u1", "False", "(2,)", &[1, 0]);
    folder.put("train.npz", &npz(&[("images.npy", &images), ("labels.npy", &labels)]));
    folder.put("test.npy.gz", &gzip(&images));
    let train = open(&folder, Split::Train).unwrap();
    assert_eq!((train.shape, train.labels.as_deref()), ([1, 1, 2], Some(&[1, 0][..])));
    let error = open(&folder, Split::Test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.to_string().ends_with("test.csv: not found"), "{error}");
    folder.put("test.csv", b"0,3\n1,1\n");
    assert_eq!(open(&folder, Split::Test).unwrap().labels.as_deref(), Some(&[3, 1][..]));
    folder.put("test-labels.npy", &labels);
    let test = open(&folder, Split::Test).unwrap();
    assert_eq!((test.pixels, test.labels.as_deref()), (train.pixels, Some(&[1, 0][..])));
    folder.put("test-labels.npy", &npy("|u1", "False", "(3,)", &[1, 0, 0]));
    assert!(open(&folder, Split::Test).unwrap_err().to_string().ends_with("found 3 labels, expected 2"));
}
