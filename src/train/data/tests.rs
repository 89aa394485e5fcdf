use super::*;

/// `count` images of 2 x 3 pixels in `channels` channels, bytes without pattern.
fn images(count: usize, channels: usize) -> ImageSet {
    let pixels = (0..count * channels * 6).map(|place| (place * place * 13 + place * 5) as u8).collect();
    ImageSet::new([channels, 2, 3], Pixels::Bytes(pixels)).unwrap()
}

/// Labels 0, 1, .. classes - 1, and again.
fn cycle(count: usize, classes: u16) -> Vec<u16> {
    (0..classes).cycle().take(count).collect()
}

fn recipe(held_out: usize) -> DataRecipe {
    DataRecipe { held_out, ..DataRecipe::default() }
}

fn refused(set: &ImageSet, labels: &[u16], recipe: &DataRecipe) -> String {
    TrainingData::new(set, labels, None, recipe, 1).unwrap_err().to_string()
}

#[test]
fn every_image_is_used_or_held_out_and_never_both() {
    let (set, extra) = (images(60, 1), images(12, 1));
    let (labels, extra_labels) = (cycle(60, 3), cycle(12, 3));
    let data = TrainingData::new(&set, &labels, Some((&extra, &extra_labels)), &recipe(15), 7).unwrap();
    assert_eq!((data.count(), data.used_count(), data.held_out_count(), data.classes()), (72, 57, 15, 3));
    let mut all: Vec<u32> = data.used.iter().chain(&data.held_out).copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..72).collect::<Vec<_>>());
    assert!(data.held_out.iter().all(|image| *image < 60), "extra images are never held out");
    assert!(data.held_out.is_sorted() && data.used.is_sorted());
    for class in 0..3 {
        assert_eq!(data.held_out.iter().filter(|image| **image % 3 == class).count(), 5);
    }
    assert_eq!(data.image(60), &data.pixels[360..366]);
    let Pixels::Bytes(extra_pixels) = &extra.pixels else { panic!("expected bytes") };
    assert_eq!(data.image(60), &extra_pixels[..6]);
}

#[test]
fn the_draw_is_the_seeds_and_in_proportion_to_the_classes() {
    let set = images(100, 1);
    // 80 of class 0, 15 of class 1, 5 of class 2, in no order.
    let labels: Vec<u16> =
        (0..100).map(|image| [0, 1, 2][usize::from(image % 20 > 15) + usize::from(image % 20 == 19)]).collect();
    let counts: Vec<usize> = (0..3).map(|class| labels.iter().filter(|label| **label == class).count()).collect();
    assert_eq!(counts, [80, 15, 5]);
    let draw = |seed| TrainingData::new(&set, &labels, None, &recipe(20), seed).unwrap();
    let one = draw(1);
    let of_class = |class| one.held_out.iter().filter(|image| labels[**image as usize] == class).count();
    assert_eq!([0, 1, 2].map(of_class), [16, 3, 1]);
    assert_eq!(one, draw(1));
    assert_ne!(one.held_out, draw(2).held_out);
    assert_ne!(one.digest(), draw(2).digest());
}

#[test]
fn a_class_keeps_an_image_to_train_on() {
    let set = images(10, 1);
    let labels = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    let data = TrainingData::new(&set, &labels, None, &recipe(8), 3).unwrap();
    let kept: Vec<u16> = data.used.iter().map(|image| labels[*image as usize]).collect();
    assert_eq!(kept, [0, 1]);
    let error = refused(&set, &labels, &recipe(9));
    assert_eq!(error, "data.held_out is 9, expected at most 8 (10 images, and each class keeps one)");
    assert_eq!(TrainingData::new(&set, &labels, None, &recipe(0), 3).unwrap().held_out_count(), 0);
}

#[test]
fn mean_and_deviation_are_those_of_the_real_images_trained_on() {
    let (set, labels) = (images(40, 2), cycle(40, 2));
    let extra = ImageSet::new([2, 2, 3], Pixels::Bytes(vec![255; 24])).unwrap();
    let data = TrainingData::new(&set, &labels, Some((&extra, &[0, 1])), &recipe(10), 1).unwrap();
    for channel in 0..2 {
        let used = data.used.iter().filter(|image| **image < 40);
        let values: Vec<f64> = used
            .flat_map(|image| &data.image(*image)[channel * 6..(channel + 1) * 6])
            .map(|byte| f64::from(*byte) / 255.0)
            .collect();
        assert_eq!(values.len(), 30 * 6);
        let mean = values.iter().sum::<f64>() / 180.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 180.0;
        assert!((data.input().mean[channel] - mean).abs() < 1e-12);
        assert!((data.input().std[channel] - variance.sqrt()).abs() < 1e-12);
    }
    assert_eq!(data.input().shape, [2, 2, 3]);
}

#[test]
fn constants_of_the_recipe_replace_the_measured_ones() {
    let (set, labels) = (images(10, 2), cycle(10, 2));
    let with = |mean: &[f64], std: &[f64]| DataRecipe { mean: mean.to_vec(), std: std.to_vec(), ..recipe(0) };
    let data = TrainingData::new(&set, &labels, None, &with(&[0.5, 0.25], &[0.1, 0.2]), 1).unwrap();
    assert_eq!((data.input.mean.as_slice(), data.input.std.as_slice()), (&[0.5, 0.25][..], &[0.1, 0.2][..]));
    let error = refused(&set, &labels, &with(&[0.5], &[0.1]));
    assert_eq!(error, "data.mean is a list of 1, expected 2, one a channel (or neither mean nor std, to measure them)");
    assert!(refused(&set, &labels, &with(&[], &[0.1, 0.2])).starts_with("data.mean is a list of 0"));
    assert!(refused(&set, &labels, &with(&[0.1, 0.2], &[])).starts_with("data.std is a list of 0"));
    assert!(refused(&set, &labels, &with(&[0.5, f64::NAN], &[0.1, 0.2])).contains("mean of channel 1 is NaN"));
    let error = refused(&set, &labels, &with(&[0.5, 0.5], &[0.1, 0.0]));
    assert!(error.contains("standard deviation of channel 1 is 0, expected a finite number above 0"), "{error}");
    let flat = ImageSet::new([1, 1, 2], Pixels::Bytes(vec![9; 8])).unwrap();
    assert!(refused(&flat, &cycle(4, 2), &recipe(0)).contains("standard deviation of channel 0 is 0"));
}

#[test]
fn bad_data_is_refused_with_what_was_found() {
    let (set, labels) = (images(10, 1), cycle(10, 2));
    let floats = ImageSet::new([1, 2, 3], Pixels::Floats(vec![0.5; 60])).unwrap();
    assert!(refused(&floats, &labels, &recipe(0)).contains("pixel type of the images is float, expected bytes"));
    let error = refused(&set, &labels[..9], &recipe(0));
    assert_eq!(error, "training data: number of labels of the images is 9, expected 10, one an image");
    let ten = DataRecipe { classes: 2, ..recipe(0) };
    let error = refused(&set, &[0, 1, 0, 1, 0, 1, 0, 2, 0, 1], &ten);
    assert_eq!(error, "training data: label of image 7 is 2, expected below 2");
    let gap = [0, 2, 0, 2, 0, 2, 0, 2, 0, 2];
    assert_eq!(refused(&set, &gap, &recipe(0)), "training data: number of images of class 1 is 0, expected at least 1");
    assert!(refused(&set, &labels, &DataRecipe { classes: 3, ..recipe(0) }).contains("images of class 2 is 0"));
    assert!(refused(&set, &[0; 10], &recipe(0)).contains("number of classes is 1, expected 2 to 65536"));
    let error = refused(&set, &labels, &DataRecipe { limit: 11, ..recipe(0) });
    assert_eq!(error, "data.limit is 11, expected at most 10 images");
    let lying = ImageSet { count: 11, ..set.clone() };
    assert!(refused(&lying, &cycle(11, 2), &recipe(0)).contains("number of pixels of the images is 60, expected 66"));
    let huge = ImageSet { shape: [usize::MAX, 2, 3], ..set.clone() };
    assert!(refused(&huge, &labels, &recipe(0)).contains("number of pixels of the images is 60"));
    let empty = ImageSet { count: 0, pixels: Pixels::Bytes(vec![]), ..set.clone() };
    assert!(refused(&empty, &[], &recipe(0)).contains("number of pixels of the images is 0"));
    let other = images(4, 2);
    let error = TrainingData::new(&set, &labels, Some((&other, &[0, 1, 0, 1])), &recipe(0), 1).unwrap_err().to_string();
    assert_eq!(error, "training data: shape of the extra images is [2, 2, 3], expected [1, 2, 3]");
}

#[test]
fn a_limit_takes_the_first_images() {
    let (set, labels) = (images(10, 1), cycle(10, 2));
    let data = TrainingData::new(&set, &labels, None, &DataRecipe { limit: 4, ..recipe(2) }, 1).unwrap();
    assert_eq!((data.count(), data.used_count(), data.labels()), (4, 2, &[0, 1, 0, 1][..]));
    let Pixels::Bytes(pixels) = &set.pixels else { panic!("expected bytes") };
    assert_eq!(data.pixels, pixels[..24]);
    assert!(data.expect_batch(2).is_ok());
    let error = data.expect_batch(3).unwrap_err().to_string();
    assert_eq!(error, "train.batch is 3, expected at most the 2 images trained on (data.held_out takes 2 more)");
}

#[test]
fn the_digest_covers_everything() {
    let (set, labels) = (images(12, 1), cycle(12, 2));
    let data = TrainingData::new(&set, &labels, None, &recipe(4), 1).unwrap();
    let digest = data.digest();
    assert_eq!((digest.len(), &digest), (64, &data.clone().digest()));
    let changed: [fn(&mut TrainingData); 6] = [
        |data| data.pixels[5] ^= 1,
        |data| data.labels[3] ^= 1,
        |data| data.classes += 1,
        |data| data.input.mean[0] += 1e-9,
        |data| data.shape = [1, 3, 2],
        |data| data.held_out[0] += 1,
    ];
    for (number, change) in changed.into_iter().enumerate() {
        let mut other = data.clone();
        change(&mut other);
        assert_ne!(digest, other.digest(), "change {number}");
    }
}
