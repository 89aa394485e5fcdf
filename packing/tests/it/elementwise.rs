//! Slot vectors against the definition: slot s of entry e in batch b is pixel e of image b * slots + s, normalised.

use packing::{Batches, ErrorKind, ImageSet, Normalisation, PackingError, Pixels};
use proptest::prelude::*;

fn normalisation(channels: usize) -> Normalisation {
    let mean: Vec<f64> = (0..channels).map(|channel| 0.1 + 0.2 * channel as f64).collect();
    let std: Vec<f64> = (0..channels).map(|channel| 0.3 + 0.1 * channel as f64).collect();
    Normalisation::new(&mean, &std).unwrap()
}

fn byte_images(count: usize, shape: [usize; 3]) -> ImageSet {
    let values = count * shape.iter().product::<usize>();
    ImageSet::new(shape, Pixels::Bytes((0..values).map(|i| (i * 131 % 251) as u8).collect())).unwrap()
}

#[test]
fn a_partial_last_batch_has_zeros_and_canaries_from_the_end() {
    let images = byte_images(5, [1, 1, 2]);
    let constants = normalisation(1);
    let canaries = vec![vec![9.0, 10.0], vec![19.0, 20.0], vec![29.0, 30.0], vec![39.0, 40.0]];
    let batches = Batches::new(&images, &constants, 4).unwrap().with_canaries(canaries).unwrap();
    assert_eq!((batches.batches(), batches.occupancy(0), batches.occupancy(1), batches.occupancy(2)), (2, 4, 1, 0));
    assert_eq!(batches.canary_slots(0), []);
    assert_eq!(batches.canary_slots(1), [(3, 0), (2, 1), (1, 2)]);
    assert_eq!(batches.canary_slots(2), []);
    let mut out = [f64::NAN; 4];
    batches.entry_into(1, 1, &mut out).unwrap();
    assert_eq!(out[1..], [30.0, 20.0, 10.0]);

    let plain = Batches::new(&images, &constants, 4).unwrap();
    plain.entry_into(1, 1, &mut out).unwrap();
    let last_pixel = (9 * 131 % 251) as f64;
    assert_eq!(out, [(last_pixel / 255.0 - 0.1) / 0.3, 0.0, 0.0, 0.0]);
}

#[test]
fn floats_are_clamped_and_counted() {
    let constants = normalisation(2);
    let (low, high) = constants.range(1).unwrap();
    let rounding = (high * (1.0 + 1e-7)) as f32;
    let floats = vec![0.25, 100.0, -100.0, high as f32, 0.125, 0.5, 0.0, rounding];
    let images = ImageSet::new([2, 1, 2], Pixels::Floats(floats)).unwrap();
    let batches = Batches::new(&images, &constants, 2).unwrap();
    assert_eq!(batches.clamped(), 2, "rounding to f32 does not count");
    let mut out = [f64::NAN; 8];
    batches.entries_into(0, 0..4, &mut out).unwrap();
    let (_, first_high) = constants.range(0).unwrap();
    let nearly_high = f64::from(high as f32).min(high);
    assert_eq!(out, [0.25, 0.125, first_high, 0.5, low, 0.0, nearly_high, high]);
    assert_eq!(Batches::new(&byte_images(3, [2, 1, 1]), &constants, 2).unwrap().clamped(), 0);
}

#[test]
fn wrong_requests_are_errors() {
    let images = byte_images(5, [1, 1, 2]);
    let constants = normalisation(1);
    let usage = |result: Result<(), PackingError>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Usage);
    for slots in [0, 3, 6] {
        usage(Batches::new(&images, &constants, slots).map(|_| ()));
    }
    usage(Batches::new(&images, &normalisation(3), 4).map(|_| ()));
    let batches = Batches::new(&images, &constants, 4).unwrap();
    usage(batches.clone().with_canaries(vec![vec![1.0]]).map(|_| ()));
    usage(batches.clone().with_canaries(vec![vec![1.0, f64::NAN]]).map(|_| ()));
    let mut out = [0.0; 8];
    usage(batches.entries_into(2, 0..2, &mut out));
    usage(batches.entries_into(0, 1..3, &mut out));
    usage(batches.entries_into(0, 0..1, &mut out));
    usage(batches.entry_into(0, usize::MAX, &mut out));
    let mut lying = images.clone();
    lying.count = 6;
    assert_eq!(Batches::new(&lying, &constants, 4).unwrap_err().kind(), ErrorKind::BadData);
    lying.count = usize::MAX;
    assert_eq!(Batches::new(&lying, &constants, 4).unwrap_err().kind(), ErrorKind::BadData);
    assert!(ImageSet::new([1, 1, 2], Pixels::Floats(vec![0.0, f32::NAN])).is_err());
    assert!(ImageSet::new([1, 1, 2], Pixels::Bytes(vec![1, 2, 3])).is_err());
    assert!(ImageSet::new([0, 1, 2], Pixels::Bytes(vec![])).is_err());
    assert!(ImageSet::new([usize::MAX, 2, 2], Pixels::Bytes(vec![1])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn slots_are_images(
        count in 1usize..150,
        shape in [1usize..4, 1usize..7, 1usize..14],
        log_slots in 0u32..8,
        floats in any::<bool>(),
        cut in (0.0f64..=1.0, 0.0f64..=1.0),
    ) {
        let bytes = byte_images(count, shape);
        let images = match (&bytes.pixels, floats) {
            (Pixels::Bytes(bytes), true) => {
                let values = bytes.iter().map(|byte| f32::from(*byte) / 256.0 - 0.25).collect();
                ImageSet::new(shape, Pixels::Floats(values)).unwrap()
            }
            _ => bytes,
        };
        let constants = normalisation(shape[0]);
        let slots = 1usize << log_slots;
        let batches = Batches::new(&images, &constants, slots).unwrap();
        let entries = images.entries();
        let ends = [(cut.0 * entries as f64) as usize, (cut.1 * entries as f64) as usize];
        let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let mut seen = 0;
        for batch in 0..batches.batches() {
            let mut out = vec![f64::NAN; range.len() * slots];
            batches.entries_into(batch, range.clone(), &mut out).unwrap();
            for (row, entry) in out.chunks(slots).zip(range.clone()) {
                for (slot, value) in row.iter().enumerate() {
                    let image = batch * slots + slot;
                    let channel = entry / (shape[1] * shape[2]);
                    let (low, high) = constants.range(channel).unwrap();
                    let expected = match &images.pixels {
                        _ if image >= count => 0.0,
                        Pixels::Bytes(bytes) => {
                            let mean = 0.1 + 0.2 * channel as f64;
                            (f64::from(bytes[image * entries + entry]) / 255.0 - mean) / (0.3 + 0.1 * channel as f64)
                        }
                        Pixels::Floats(floats) => f64::from(floats[image * entries + entry]).clamp(low, high),
                    };
                    prop_assert_eq!(*value, expected);
                }
            }
            if let Some(entry) = range.clone().last() {
                let mut one = vec![f64::NAN; slots];
                batches.entry_into(batch, entry, &mut one).unwrap();
                prop_assert_eq!(&one, &out[out.len() - slots..]);
            }
            seen += batches.occupancy(batch);
        }
        prop_assert_eq!(seen, count);
    }
}
