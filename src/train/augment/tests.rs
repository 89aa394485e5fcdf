use super::*;

/// Rows and columns of the test images: not square, no symmetry.
const SHAPE: [usize; 3] = [2, 7, 9];
const PLANE: usize = 7 * 9;

fn input(shape: [usize; 3]) -> InputSpec {
    let mean = (0..shape[0]).map(|channel| 0.13 + 0.2 * channel as f64).collect();
    let std = (0..shape[0]).map(|channel| 0.31 + 0.05 * channel as f64).collect();
    InputSpec { shape, mean, std }
}

fn augmenter(recipe: AugmentRecipe) -> Augmenter {
    Augmenter::new(&recipe, &input(SHAPE)).unwrap()
}

/// Bytes without pattern.
fn image(entries: usize) -> Vec<u8> {
    (0..entries).map(|place| (place * place * 31 + place * 7 + 3) as u8).collect()
}

fn drawn(augmenter: &Augmenter, pixels: &[u8], seed: u64, round: u64, index: u32) -> Vec<f32> {
    let mut out = vec![f32::NAN; pixels.len()];
    augmenter.varied_into(pixels, seed, round, index, &mut out);
    out
}

fn normalised(augmenter: &Augmenter, pixels: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; pixels.len()];
    augmenter.plain_into(pixels, &mut out);
    out
}

/// One change through the resampling path, whatever the recipe.
fn resampled(augmenter: &Augmenter, pixels: &[u8], change: &Change) -> Vec<f32> {
    let (mut scratch, mut out) = (Scratch::default(), vec![f32::NAN; pixels.len()]);
    augmenter.places_into(change, &mut Stream::new("test", [0; 3]), &mut scratch);
    augmenter.resample_into(pixels, &mut scratch, &mut out);
    out
}

fn moved(augmenter: &Augmenter, pixels: &[u8], change: &Change) -> Vec<f32> {
    let mut out = vec![f32::NAN; pixels.len()];
    augmenter.move_into(pixels, change, &mut out);
    out
}

const STILL: Change = Change { flip: false, shift: [0, 0], inverse: None, cutout: None };

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "place {place}: found {found}, expected {expected}");
    }
}

#[test]
fn nothing_asked_for_is_plain_normalisation_to_the_bit() {
    let plain = augmenter(AugmentRecipe::default());
    let pixels = image(2 * PLANE);
    let wanted: Vec<f32> = (0..2 * PLANE)
        .map(|place| {
            let (mean, std) = if place < PLANE { (0.13, 0.31) } else { (0.13 + 0.2, 0.31 + 0.05) };
            ((f64::from(pixels[place]) / 255.0 - mean) / std) as f32
        })
        .collect();
    assert_eq!(normalised(&plain, &pixels), wanted);
    assert_eq!(drawn(&plain, &pixels, 1, 2, 3), wanted);
}

#[test]
fn a_shift_moves_whole_pixels_and_pixel_0_comes_in() {
    let augmenter = augmenter(AugmentRecipe::default());
    let pixels = image(2 * PLANE);
    let plain = normalised(&augmenter, &pixels);
    let black = normalised(&augmenter, &[0; 2 * PLANE]);
    for shift in [[0, 0], [2, -3], [-6, 8], [6, -8], [-1, 0]] {
        let wanted: Vec<f32> = (0..2 * PLANE)
            .map(|place| {
                let (channel, row, column) = (place / PLANE, place % PLANE / 9, place % 9);
                let (row, column) = (row as isize - shift[0], column as isize - shift[1]);
                let inside = (0..7).contains(&row) && (0..9).contains(&column);
                if inside { plain[channel * PLANE + row as usize * 9 + column as usize] } else { black[place] }
            })
            .collect();
        let change = Change { shift, ..STILL };
        assert_eq!(moved(&augmenter, &pixels, &change), wanted, "{shift:?}");
        assert_close(&resampled(&augmenter, &pixels, &change), &wanted);
    }
}

#[test]
fn both_ways_agree_on_mirrored_and_shifted_images() {
    let augmenter = augmenter(AugmentRecipe::default());
    let pixels = image(2 * PLANE);
    for shift in [[0, 0], [1, 2], [-3, -4]] {
        let change = Change { flip: true, shift, ..STILL };
        assert_close(&resampled(&augmenter, &pixels, &change), &moved(&augmenter, &pixels, &change));
    }
}

#[test]
fn a_mirrored_image_mirrored_again_is_the_image() {
    let augmenter = augmenter(AugmentRecipe::default());
    let pixels = image(2 * PLANE);
    let change = Change { flip: true, ..STILL };
    let mirrored: Vec<u8> = pixels.chunks_exact(9).flat_map(|row| row.iter().rev().copied()).collect();
    assert_ne!(pixels, mirrored);
    assert_eq!(moved(&augmenter, &pixels, &change), normalised(&augmenter, &mirrored));
    assert_eq!(moved(&augmenter, &mirrored, &change), normalised(&augmenter, &pixels));
}

#[test]
fn every_second_image_is_mirrored() {
    let augmenter = augmenter(AugmentRecipe { flip: true, ..AugmentRecipe::default() });
    let pixels = image(2 * PLANE);
    let plain = normalised(&augmenter, &pixels);
    let kept = (0..1000).filter(|&image| drawn(&augmenter, &pixels, 5, 0, image) == plain).count();
    assert!((430..570).contains(&kept), "{kept} of 1000 were not mirrored");
}

#[test]
fn a_quarter_turn_moves_right_to_bottom() {
    let shape = [1, 6, 6];
    let augmenter = Augmenter::new(&AugmentRecipe::default(), &input(shape)).unwrap();
    let pixels = image(36);
    let change = Change { inverse: Some(inverse_of(90.0, 1.0, 0.0)), ..STILL };
    // (x, y) about the centre goes to (-y, x): row r, column c goes to row c, column 5 - r.
    let mut turned = vec![0; 36];
    for (place, &pixel) in pixels.iter().enumerate() {
        let (row, column) = (place / 6, place % 6);
        turned[column * 6 + 5 - row] = pixel;
    }
    assert_close(&resampled(&augmenter, &pixels, &change), &normalised(&augmenter, &turned));
}

#[test]
fn an_image_of_half_size_is_read_at_every_second_place() {
    let shape = [1, 5, 5];
    let augmenter = Augmenter::new(&AugmentRecipe::default(), &input(shape)).unwrap();
    let pixels = image(25);
    let change = Change { inverse: Some(inverse_of(0.0, 0.5, 0.0)), ..STILL };
    let mut small = vec![0; 25];
    for (row, column) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)] {
        small[row * 5 + column] = pixels[(2 * row - 2) * 5 + 2 * column - 2];
    }
    assert_close(&resampled(&augmenter, &pixels, &change), &normalised(&augmenter, &small));
}

#[test]
fn the_inverse_undoes_shear_scale_and_turn() {
    let (degrees, size, shear) = (33.0_f64, 1.3_f64, 0.4_f64);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let [[xx, xy], [yx, yy]] = inverse_of(degrees, size, shear).map(|row| row.map(f64::from));
    let (x, y) = (2.0, -3.0);
    let (sheared_x, sheared_y) = (size * (x + shear * y), size * y);
    let (turned_x, turned_y) = (cos * sheared_x - sin * sheared_y, sin * sheared_x + cos * sheared_y);
    let back = (xx * turned_x + xy * turned_y, yx * turned_x + yy * turned_y);
    assert!((back.0 - x).abs() < 1e-5 && (back.1 - y).abs() < 1e-5, "{back:?}");
}

#[test]
fn halfway_between_pixels_is_their_mean() {
    let augmenter = Augmenter::new(&AugmentRecipe::default(), &input([1, 1, 4])).unwrap();
    let mut scratch = Scratch { right: vec![0.5, 2.5, 3.5, 40.0], down: vec![0.0; 4], framed: vec![] };
    let mut out = [f32::NAN; 4];
    augmenter.resample_into(&[10, 20, 200, 100], &mut scratch, &mut out);
    let wanted = [15.0, 150.0, 50.0, 0.0].map(|pixel: f64| ((pixel / 255.0 - 0.13) / 0.31) as f32);
    assert_close(&out, &wanted);
}

fn everything() -> AugmentRecipe {
    AugmentRecipe {
        shift: 2,
        rotate: 15.0,
        scale: 0.1,
        shear: 0.1,
        elastic: 0.8,
        elastic_sigma: 2.0,
        flip: true,
        cutout: 3,
    }
}

#[test]
fn the_same_draw_gives_the_same_bits_and_others_differ() {
    let augmenter = augmenter(everything());
    let pixels = image(2 * PLANE);
    let one = drawn(&augmenter, &pixels, 1, 2, 3);
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)] {
        assert_ne!(one, drawn(&augmenter, &pixels, other.0, other.1, other.2), "{other:?}");
    }
    // Whatever was drawn in between.
    drawn(&augmenter, &pixels, 1, 2, 7);
    assert_eq!(one, drawn(&augmenter, &pixels, 1, 2, 3));
}

#[test]
fn values_stay_in_the_range_of_real_pixels() {
    let augmenter = augmenter(AugmentRecipe { cutout: 0, ..everything() });
    let pixels: Vec<u8> = (0..2 * PLANE).map(|place| if place % 3 == 0 { 255 } else { 0 }).collect();
    let (low, high) = (normalised(&augmenter, &[0; 2 * PLANE]), normalised(&augmenter, &[255; 2 * PLANE]));
    for image in 0..50 {
        let values = drawn(&augmenter, &pixels, 1, 0, image);
        for (place, value) in values.iter().enumerate() {
            assert!((low[place]..=high[place]).contains(value), "image {image}, place {place}: {value}");
        }
    }
}

#[test]
fn cutout_zeroes_one_whole_square_in_every_channel() {
    let augmenter = augmenter(AugmentRecipe { cutout: 3, ..AugmentRecipe::default() });
    let pixels = vec![200; 2 * PLANE];
    let plain = normalised(&augmenter, &pixels);
    let mut corners = std::collections::HashSet::new();
    for image in 0..400 {
        let cut = drawn(&augmenter, &pixels, 1, 0, image);
        let first = cut.iter().position(|value| *value == 0.0).unwrap();
        let (top, left) = (first / 9, first % 9);
        for (place, value) in cut.iter().enumerate() {
            let (row, column) = (place % PLANE / 9, place % 9);
            let inside = (top..top + 3).contains(&row) && (left..left + 3).contains(&column);
            assert_eq!(*value, if inside { 0.0 } else { plain[place] }, "image {image}, place {place}");
        }
        corners.insert((top, left));
    }
    assert_eq!(corners.len(), 5 * 7, "every place occurs");
}

#[test]
fn shifts_reach_as_far_as_asked_and_no_further() {
    let augmenter = augmenter(AugmentRecipe { shift: 2, ..AugmentRecipe::default() });
    let mut shifts = std::collections::HashSet::new();
    for image in 0..500 {
        shifts.insert(augmenter.draw(&mut Stream::new("augment", [1, 0, image])).shift);
    }
    assert_eq!(shifts.len(), 25);
    assert!(shifts.iter().flatten().all(|shift| shift.abs() <= 2));
}

#[test]
fn what_does_not_fit_the_image_is_refused() {
    let refuse = |recipe| Augmenter::new(&recipe, &input(SHAPE)).unwrap_err().to_string();
    let cutout = refuse(AugmentRecipe { cutout: 8, ..AugmentRecipe::default() });
    assert_eq!(cutout, "augment.cutout is 8, expected at most 7 for images of 7x9");
    let shift = refuse(AugmentRecipe { shift: 7, ..AugmentRecipe::default() });
    assert_eq!(shift, "augment.shift is 7, expected less than 7 for images of 7x9");
    let narrow = InputSpec { mean: vec![0.5], ..input(SHAPE) };
    let error = Augmenter::new(&AugmentRecipe::default(), &narrow).unwrap_err().to_string();
    assert_eq!(error, "training data: normalisation is 1 means and 2 deviations, expected 2 of each, one a channel");
}
