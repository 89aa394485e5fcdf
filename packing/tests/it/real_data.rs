//! The published data sets, where they are at hand: counts, first labels, and the mean and deviation of the training
//! pixels.
//!
//! Looks in `NIGHTSHIFT_SHARED`, then beside the checkout; says so and passes when there is nothing.

use std::path::{Path, PathBuf};

use packing::{Labels, Limits, Pixels, Split, open_dataset_dir, read_images, read_labels};

fn data(set: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("NIGHTSHIFT_SHARED").map_or_else(beside, PathBuf::from).join("data").join(set);
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
    {
        eprintln!("skipped: no {set} under NIGHTSHIFT_SHARED");
    }
    None
}

/// Mean and population deviation of byte / 255 over plane `channel` of every image.
fn statistics(pixels: &Pixels, channels: usize, plane: usize, channel: usize) -> (f64, f64) {
    let Pixels::Bytes(bytes) = pixels else { panic!("expected bytes") };
    let (mut sum, mut squares, mut count) = (0u64, 0u64, 0u64);
    for values in bytes.chunks_exact(plane).skip(channel).step_by(channels) {
        for byte in values {
            sum += u64::from(*byte);
            squares += u64::from(*byte) * u64::from(*byte);
        }
        count += plane as u64;
    }
    let mean = sum as f64 / count as f64 / 255.0;
    (mean, (squares as f64 / count as f64 / 65025.0 - mean * mean).sqrt())
}

fn six_decimals(value: f64) -> String {
    format!("{value:.6}")
}

fn class_counts(labels: &[u16]) -> Vec<usize> {
    (0..10).map(|class| labels.iter().filter(|label| **label == class).count()).collect()
}

#[test]
fn mnist_and_fashion() {
    for (set, first_labels, mean, std) in
        [("mnist", [7, 2, 1, 0, 4], "0.130660", "0.308108"), ("fashion-mnist", [9, 2, 1, 1, 6], "0.286041", "0.353024")]
    {
        let Some(folder) = data(set) else { return };
        let test = open_dataset_dir(&folder, Split::Test, &Limits::default()).unwrap();
        assert_eq!((test.count, test.shape), (10_000, [1, 28, 28]));
        let labels = test.labels.unwrap();
        assert_eq!(labels[..5], first_labels, "{set}");
        if set == "mnist" {
            assert_eq!(class_counts(&labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
        } else {
            assert_eq!(class_counts(&labels), [1000; 10]);
        }
        let train = open_dataset_dir(&folder, Split::Train, &Limits::default()).unwrap();
        assert_eq!(train.count, 60_000);
        let found = statistics(&train.pixels, 1, 784, 0);
        assert_eq!((six_decimals(found.0).as_str(), six_decimals(found.1).as_str()), (mean, std), "{set}");

        let images = read_images(&folder.join("t10k-images-idx3-ubyte.gz"), &Limits::default()).unwrap();
        assert_eq!((&images.pixels, &images.labels), (&test.pixels, &None));
        let alone = read_labels(&folder.join("t10k-labels-idx1-ubyte.gz"), &Limits::default()).unwrap();
        assert_eq!(alone, Labels::ByPosition(labels));
    }
}

#[test]
fn cifar_10() {
    let Some(folder) = data("cifar-10") else { return };
    let test = open_dataset_dir(&folder, Split::Test, &Limits::default()).unwrap();
    assert_eq!((test.count, test.shape), (10_000, [3, 32, 32]));
    assert_eq!(test.class_names.as_ref().map(|names| names[3].as_str()), Some("cat"));
    let labels = test.labels.as_ref().unwrap();
    assert_eq!(labels[..5], [3, 8, 8, 0, 6]);
    assert_eq!(class_counts(labels), [1000; 10]);
    // The README's constants are of the training split; the test split is close to them.
    for (channel, mean) in [0.4914, 0.482158, 0.446531].into_iter().enumerate() {
        let found = statistics(&test.pixels, 3, 1024, channel).0;
        assert!((found - mean).abs() < 0.01, "channel {channel}: {found}");
    }
}
