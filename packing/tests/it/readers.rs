//! Each array format gives back the images that were written into it.

use packing::{ErrorKind, ImageSet, Limits, Pixels, Split, open_dataset_dir, read_images};
use proptest::prelude::*;

use crate::support::{Folder, cifar, gzip, idx, npy, npz, xz};

fn read(folder: &Folder, name: &str, bytes: &[u8]) -> ImageSet {
    read_images(&folder.put(name, bytes), &Limits::default()).unwrap()
}

#[test]
fn idx_of_rank_3_and_4() {
    let folder = Folder::new();
    let pixels: Vec<u8> = (0..24).collect();
    let grey = read(&folder, "grey", &idx(&[0x803, 2, 3, 4], &pixels));
    assert_eq!((grey.count, grey.shape), (2, [1, 3, 4]));
    assert_eq!(grey.pixels, Pixels::Bytes(pixels.clone()));
    let colour = read(&folder, "colour", &idx(&[0x804, 2, 3, 2, 2], &pixels));
    assert_eq!((colour.count, colour.shape, colour.labels), (2, [3, 2, 2], None));
}

#[test]
fn cifar_in_each_compression() {
    let folder = Folder::new();
    let file = cifar(&[3, 9, 0]);
    let plain = read(&folder, "a.bin", &file);
    assert_eq!((plain.count, plain.shape), (3, [3, 32, 32]));
    assert_eq!(plain.labels.as_deref(), Some(&[3, 9, 0][..]));
    let Pixels::Bytes(pixels) = &plain.pixels else { panic!("expected bytes") };
    assert_eq!((pixels[0], pixels[1], pixels[3072], pixels[2 * 3072 + 3071]), (0, 7, 1, ((3071 * 7 + 2) % 256) as u8));
    assert_eq!(read(&folder, "b.bin.gz", &gzip(&file)), plain);
    assert_eq!(read(&folder, "c.bin.xz", &xz(&file)), plain);
}

#[test]
fn cifar_that_starts_like_idx_is_cifar_by_its_name() {
    let mut file = cifar(&[0]);
    file[..4].copy_from_slice(&[0, 0, 8, 3]);
    assert_eq!(read(&Folder::new(), "test_batch.bin", &file).shape, [3, 32, 32]);
}

#[test]
fn npy_bytes_and_floats() {
    let folder = Folder::new();
    let bytes = read(&folder, "bytes.npy", &npy("|u1", "False", "(2, 2, 3)", &[9; 12]));
    assert_eq!((bytes.count, bytes.shape), (2, [1, 2, 3]));
    let values = [0.5f32, -1.25, 3.0, 4.0, 5.0, -6.5];
    let little: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let big: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    for (descr, data) in [("<f4", little), (">f4", big)] {
        let floats = read(&folder, "floats.npy", &npy(descr, "False", "(1, 3, 2, 1)", &data));
        assert_eq!((floats.count, floats.shape), (1, [3, 2, 1]));
        assert_eq!(floats.pixels, Pixels::Floats(values.to_vec()), "{descr}");
    }
}

#[test]
fn npz_by_name_or_alone() {
    let folder = Folder::new();
    let images = npy("|u1", "False", "(2, 1, 2)", &[1, 2, 3, 4]);
    let labels = npy("<i8", "False", "(2,)", &[7, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
    let named = npz(&[("other.npy", &labels), ("images.npy", &images), ("labels.npy", &labels)]);
    let named = read(&folder, "named.npz", &named);
    assert_eq!((named.count, named.labels.as_deref()), (2, Some(&[7, 257][..])));
    let alone = read(&folder, "alone.npz", &npz(&[("x.npy", &images)]));
    assert_eq!((alone.pixels, alone.labels), (Pixels::Bytes(vec![1, 2, 3, 4]), None));
    let two = folder.put("two.npz", &npz(&[("x.npy", &images), ("y.npy", &labels)]));
    let error = read_images(&two, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("expected one named images"), "{error}");
}

#[test]
fn known_layouts_are_found_with_their_labels() {
    let folder = Folder::new();
    folder.put("m/t10k-images-idx3-ubyte.gz", &gzip(&idx(&[0x803, 2, 1, 1], &[5, 6])));
    folder.put("m/t10k-labels-idx1-ubyte", &idx(&[0x801, 2], &[1, 4]));
    let test = open_dataset_dir(&folder.path().join("m"), Split::Test, &Limits::default()).unwrap();
    assert_eq!((test.count, test.labels.as_deref()), (2, Some(&[1, 4][..])));
    let train = open_dataset_dir(&folder.path().join("m"), Split::Train, &Limits::default()).unwrap_err();
    assert_eq!(train.kind(), ErrorKind::Missing);
    assert!(train.to_string().contains("no train split found"), "{train}");

    for batch in 1..=5u8 {
        folder.put(&format!("c/data_batch_{batch}.bin"), &cifar(&[batch, 0]));
    }
    folder.put("c/batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    let train = open_dataset_dir(&folder.path().join("c"), Split::Train, &Limits::default()).unwrap();
    assert_eq!((train.count, train.pixels.len()), (10, 10 * 3072));
    assert_eq!(train.labels.as_deref(), Some(&[1, 0, 2, 0, 3, 0, 4, 0, 5, 0][..]));
    assert_eq!(train.class_names.unwrap()[9], "j");
    let few = Limits { max_images: 9, ..Limits::default() };
    let many = open_dataset_dir(&folder.path().join("c"), Split::Train, &few).unwrap_err();
    assert_eq!(many.kind(), ErrorKind::BadData, "the limit holds for the five files together");
}

#[test]
fn labels_must_match_the_images_of_a_data_set() {
    let folder = Folder::new();
    folder.put("t10k-images-idx3-ubyte", &idx(&[0x803, 2, 1, 1], &[5, 6]));
    folder.put("t10k-labels-idx1-ubyte", &idx(&[0x801, 3], &[1, 4, 4]));
    let error = open_dataset_dir(folder.path(), Split::Test, &Limits::default()).unwrap_err();
    assert!(error.to_string().ends_with("found 3 labels, expected 2"), "{error}");
}

#[test]
fn a_set_can_be_cut_short() {
    let folder = Folder::new();
    let mut set = read(&folder, "a.bin", &cifar(&[3, 9, 0]));
    set.truncate(2);
    assert_eq!((set.count, set.pixels.len(), set.labels.as_deref()), (2, 2 * 3072, Some(&[3, 9][..])));
    set.truncate(5);
    assert_eq!(set.count, 2);
    assert!(set.expect_shape([3, 32, 32]).is_ok());
    let error = set.expect_shape([1, 28, 28]).unwrap_err().to_string();
    assert_eq!(error, "images: found shape [3, 32, 32], expected [1, 28, 28] (channels, rows, columns)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_format_holds_the_same_images(
        count in 1usize..6, shape in [1usize..4, 1usize..6, 1usize..6], seed in any::<u8>(),
    ) {
        let [channels, rows, columns] = shape;
        let pixels: Vec<u8> =
            (0..count * channels * rows * columns).map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed)).collect();
        let expected = ImageSet::new(shape, Pixels::Bytes(pixels.clone())).unwrap();
        prop_assert_eq!(expected.count, count);
        let words = [0x804, count as u32, channels as u32, rows as u32, columns as u32];
        let array = npy("|u1", "False", &format!("({count}, {channels}, {rows}, {columns})"), &pixels);
        let folder = Folder::new();
        prop_assert_eq!(&read(&folder, "i", &idx(&words, &pixels)), &expected);
        prop_assert_eq!(&read(&folder, "i.gz", &gzip(&idx(&words, &pixels))), &expected);
        prop_assert_eq!(&read(&folder, "n.npy", &array), &expected);
        prop_assert_eq!(&read(&folder, "n.npy.xz", &xz(&array)), &expected);
        prop_assert_eq!(&read(&folder, "n.npz", &npz(&[("images.npy", &array)])), &expected);
    }
}
