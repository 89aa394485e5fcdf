//! Handwritten-looking digits, drawn by the program for the demo when no data set is given.
//!
//! Images are 28 x 28 bytes (0 paper, 255 ink), made as MNIST's were: the digit fills a 20 x 20 box and is then moved so
//! that its centre of mass is the middle of the image. A skeleton from `glyphs` is bent, slanted, turned and stretched,
//! drawn with a round pen by distance to its segments, and inked unevenly. The same seed gives the same bytes on one
//! machine (sine and root come from the platform). It is no data set: it measures nothing about real handwriting, and
//! its generator is for drawing, never for keys.

// Tables of points: a path a line.
#[rustfmt::skip]
mod glyphs;

use glyphs::{GLYPHS, Path};

/// Height and width of an image in pixels.
pub const SIDE: usize = 28;
/// Bytes of one image.
pub const PIXELS: usize = SIDE * SIDE;

/// Side of the box that the digit fills before it is centred, in pixels.
const BOX: usize = 20;
/// Straight segments that stand for the curve between two neighbouring points of a path.
const SUBDIVISIONS: usize = 7;

/// Draws `count` digits: their pixels, image-major (image i at `i * PIXELS`, one channel, rows from the top), and their
/// labels 0..=9.
///
/// Each label occurs `count / 10` times, or once more; their order is shuffled. Takes 786 bytes an image, which
/// the caller bounds, and about 20 microseconds.
#[must_use]
pub fn render_digits(count: usize, seed: u64) -> (Vec<u8>, Vec<u16>) {
    let mut labels: Vec<u16> = (0..10).cycle().take(count).collect();
    let mut order = Draws::new(seed, u64::MAX);
    for i in (1..count).rev() {
        labels.swap(i, order.below(i as u64 + 1) as usize);
    }
    let mut pixels = vec![0; count * PIXELS];
    for (index, (image, &label)) in pixels.chunks_exact_mut(PIXELS).zip(&labels).enumerate() {
        render_into(image, label, &mut Draws::new(seed, index as u64));
    }
    (pixels, labels)
}

/// Draws one digit over the `PIXELS` zeros of `image`.
fn render_into(image: &mut [u8], label: u16, draws: &mut Draws) {
    let strokes = bent_strokes(pick_paths(label, draws), draws);
    let radius = (1.32 + 0.34 * draws.normal()).clamp(0.75, 2.2);
    let strokes = fitted(strokes, radius);
    let ink = ink_box(&strokes, radius, draws);
    centre_into(image, &ink);
}

fn pick_paths(label: u16, draws: &mut Draws) -> &'static [Path] {
    let glyphs = GLYPHS[usize::from(label)];
    let total: u32 = glyphs.iter().map(|glyph| glyph.weight).sum();
    let mut left = draws.below(u64::from(total)) as u32;
    for glyph in glyphs {
        if left < glyph.weight {
            return glyph.paths;
        }
        left -= glyph.weight;
    }
    &[]
}

/// The paths as polylines, written by one hand: points jittered (a point shared by two paths moves once), proportions
/// shifted, a slow wobble over the whole, then slant, turn and stretch. Units: the digit's height, about.
fn bent_strokes(paths: &[Path], draws: &mut Draws) -> Vec<Vec<(f32, f32)>> {
    let jitter_key = draws.next_word();
    let waist = 0.08 * draws.normal();
    let taper = 0.2 * draws.normal();
    let wobble = [Wave::draw(draws), Wave::draw(draws)];
    let slant = 0.12 + 0.2 * draws.normal();
    let (sin, cos) = (0.11 * draws.normal()).sin_cos();
    let stretch = (0.2 * draws.normal()).exp();

    let place = |x: f32, y: f32| {
        let x = 0.3 + (x - 0.3) * (1.0 + taper * (y - 0.5));
        let y = y + waist * (std::f32::consts::PI * y).sin();
        let (x, y) = wobble.iter().fold((x, y), |at, wave| wave.moved(at));
        let x = x * stretch - slant * y;
        (cos * x - sin * y, sin * x + cos * y)
    };
    let jittered = |&(x, y): &(f32, f32)| {
        let mut own = Draws::new(jitter_key, (u64::from(x.to_bits()) << 32) | u64::from(y.to_bits()));
        (x + 0.024 * own.normal(), y + 0.024 * own.normal())
    };
    paths
        .iter()
        .map(|path| {
            let knots: Vec<_> = path.iter().map(jittered).collect();
            smooth(&knots).into_iter().map(|(x, y)| place(x, y)).collect()
        })
        .collect()
}

/// A Catmull-Rom curve through `knots`, `SUBDIVISIONS` segments a span; a closed path has no kink where it closes.
fn smooth(knots: &[(f32, f32)]) -> Vec<(f32, f32)> {
    let last = knots.len() - 1;
    let closed = last > 1 && knots[0] == knots[last];
    let mirrored = |a: (f32, f32), b: (f32, f32)| (2.0 * a.0 - b.0, 2.0 * a.1 - b.1);
    let mut curve = Vec::with_capacity(last * SUBDIVISIONS + 1);
    for span in 0..last {
        let (from, to) = (knots[span], knots[span + 1]);
        let before = match span {
            0 if closed => knots[last - 1],
            0 => mirrored(from, to),
            _ => knots[span - 1],
        };
        let after = if span + 2 <= last {
            knots[span + 2]
        } else if closed {
            knots[1]
        } else {
            mirrored(to, from)
        };
        for step in 0..SUBDIVISIONS {
            let t = step as f32 / SUBDIVISIONS as f32;
            let at = |p: f32, q: f32, r: f32, s: f32| {
                q + 0.5 * t * (r - p + t * (2.0 * p - 5.0 * q + 4.0 * r - s + t * (3.0 * (q - r) + s - p)))
            };
            curve.push((at(before.0, from.0, to.0, after.0), at(before.1, from.1, to.1, after.1)));
        }
    }
    curve.push(knots[last]);
    curve
}

/// The strokes scaled, without change of shape, so that with a pen of `radius` pixels they just fill the box.
fn fitted(mut strokes: Vec<Vec<(f32, f32)>>, radius: f32) -> Vec<Vec<(f32, f32)>> {
    let mut low = (f32::MAX, f32::MAX);
    let mut high = (f32::MIN, f32::MIN);
    for &(x, y) in strokes.iter().flatten() {
        low = (low.0.min(x), low.1.min(y));
        high = (high.0.max(x), high.1.max(y));
    }
    let (width, height) = (high.0 - low.0, high.1 - low.1);
    let scale = (BOX as f32 - 2.0 * radius) / width.max(height);
    let middle = BOX as f32 / 2.0;
    for (x, y) in strokes.iter_mut().flatten() {
        *x = middle + (*x - low.0 - width / 2.0) * scale;
        *y = middle + (*y - low.1 - height / 2.0) * scale;
    }
    strokes
}

/// Ink in 0..=1 of the box's pixels, row-major.
fn ink_box(strokes: &[Vec<(f32, f32)>], radius: f32, draws: &mut Draws) -> [f32; BOX * BOX] {
    // Distance from each pixel's centre to the pen's edge, negative inside the stroke.
    let mut edge = [f32::MAX; BOX * BOX];
    let reach = radius * 1.15 + 1.0;
    for stroke in strokes {
        // Pressure changes slowly along a stroke.
        let (pressure, phase) = (0.1 * draws.unit(), draws.between(0.0, std::f32::consts::TAU));
        for (i, segment) in stroke.windows(2).enumerate() {
            let (from, to) = (segment[0], segment[1]);
            let along = (to.0 - from.0, to.1 - from.1);
            let length_squared = (along.0 * along.0 + along.1 * along.1).max(1e-9);
            let pen = radius * (1.0 + pressure * (0.12 * i as f32 + phase).sin());
            let (left, right) = pixel_range(from.0.min(to.0) - reach, from.0.max(to.0) + reach);
            let (top, bottom) = pixel_range(from.1.min(to.1) - reach, from.1.max(to.1) + reach);
            for row in top..bottom {
                for column in left..right {
                    let (dx, dy) = (column as f32 + 0.5 - from.0, row as f32 + 0.5 - from.1);
                    let t = ((dx * along.0 + dy * along.1) / length_squared).clamp(0.0, 1.0);
                    let (gx, gy) = (dx - t * along.0, dy - t * along.1);
                    let distance = (gx * gx + gy * gy).sqrt() - pen;
                    let slot = &mut edge[row * BOX + column];
                    *slot = slot.min(distance);
                }
            }
        }
    }
    let softness = draws.between(0.9, 1.4);
    let roughness = draws.between(0.0, 0.14);
    let strength = draws.between(0.97, 1.04);
    edge.map(|distance| {
        if distance > softness {
            return 0.0;
        }
        let rough = distance + roughness * draws.normal();
        let cover = (0.5 - rough / softness).clamp(0.0, 1.0);
        let grain = 1.0 + 0.02 * draws.normal();
        (cover * strength * grain).min(1.0)
    })
}

/// Indices of the box's pixels between two coordinates, as a half-open range.
fn pixel_range(low: f32, high: f32) -> (usize, usize) {
    let side = BOX as f32;
    (low.floor().clamp(0.0, side) as usize, high.ceil().clamp(0.0, side) as usize)
}

/// Copies the box into the image so that the ink's centre of mass is, to the nearest pixel, the image's middle.
fn centre_into(image: &mut [u8], ink: &[f32; BOX * BOX]) {
    let (mut mass, mut moment_x, mut moment_y) = (0.0_f32, 0.0, 0.0);
    for (i, &value) in ink.iter().enumerate() {
        mass += value;
        moment_x += value * (i % BOX) as f32;
        moment_y += value * (i / BOX) as f32;
    }
    let middle = SIDE as f32 / 2.0;
    let shift = |moment: f32| (middle - moment / mass.max(1e-6)).round() as isize;
    let (right, down) = (shift(moment_x), shift(moment_y));
    for (i, &value) in ink.iter().enumerate() {
        let column = (i % BOX).checked_add_signed(right).filter(|&column| column < SIDE);
        let row = (i / BOX).checked_add_signed(down).filter(|&row| row < SIDE);
        if let (Some(row), Some(column)) = (row, column) {
            image[row * SIDE + column] = (value * 255.0).round() as u8;
        }
    }
}

/// A slow sine displacement over the digit's box.
struct Wave {
    direction: (f32, f32),
    phase: f32,
    amplitude: (f32, f32),
}

impl Wave {
    fn draw(draws: &mut Draws) -> Self {
        let turns = 3.4;
        Self {
            direction: (turns * draws.normal(), turns * draws.normal()),
            phase: draws.between(0.0, std::f32::consts::TAU),
            amplitude: (0.032 * draws.normal(), 0.032 * draws.normal()),
        }
    }

    fn moved(&self, (x, y): (f32, f32)) -> (f32, f32) {
        let height = (self.direction.0 * x + self.direction.1 * y + self.phase).sin();
        (x + self.amplitude.0 * height, y + self.amplitude.1 * height)
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, figure 17).
struct Draws(u64);

impl Draws {
    /// One stream a (seed, stream) pair, so that an image does not depend on how many are drawn.
    fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self(seed);
        let key = start.next_word();
        let mut mixed = Self(key ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(mixed.next_word())
    }

    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, by the high half of a product; `bound` is above 0.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_word()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next_word() >> 40) as f32 / (1_u32 << 24) as f32
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Nearly normal, mean 0, deviation 1, never beyond 3.5: the sum of four uniform draws.
    fn normal(&mut self) -> f32 {
        let word = self.next_word();
        let sum: u64 = (0..4).map(|quarter| (word >> (16 * quarter)) & 0xFFFF).sum();
        (sum as f32 / 65536.0 - 2.0) * 3.0_f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ink's centre of mass as (x, y), in pixel indices.
    fn centre_of_mass(image: &[u8]) -> (f64, f64) {
        let mass: f64 = image.iter().map(|&ink| f64::from(ink)).sum();
        let moment = |index: fn(usize) -> usize| -> f64 {
            image.iter().enumerate().map(|(i, &ink)| f64::from(ink) * index(i) as f64).sum()
        };
        (moment(|i| i % SIDE) / mass, moment(|i| i / SIDE) / mass)
    }

    #[test]
    fn a_seed_fixes_every_byte_and_another_seed_changes_them() {
        let (pixels, labels) = render_digits(200, 7);
        assert_eq!((pixels.clone(), labels.clone()), render_digits(200, 7));
        let (other_pixels, other_labels) = render_digits(200, 8);
        assert_ne!(pixels, other_pixels);
        assert_ne!(labels, other_labels);
    }

    #[test]
    fn counts_that_are_no_multiple_of_ten_stay_balanced() {
        for count in [0, 1, 9, 10, 1234] {
            let (pixels, labels) = render_digits(count, 3);
            assert_eq!(pixels.len(), count * PIXELS);
            assert_eq!(labels.len(), count);
            for digit in 0..10 {
                let seen = labels.iter().filter(|&&label| label == digit).count();
                assert!(seen == count / 10 || seen == count / 10 + 1, "digit {digit}: {seen} of {count}");
            }
        }
    }

    #[test]
    fn the_order_of_labels_is_shuffled() {
        let (_, labels) = render_digits(1000, 1);
        let in_step = labels.windows(2).filter(|pair| (pair[0] + 1) % 10 == pair[1]).count();
        assert!(in_step < 200, "{in_step} of 999 neighbours count up");
    }

    #[test]
    fn ink_is_as_mnist_has_it() {
        let (pixels, _) = render_digits(2000, 5);
        let values = || pixels.iter().map(|&pixel| f64::from(pixel) / 255.0);
        let mean = values().sum::<f64>() / pixels.len() as f64;
        let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt();
        // MNIST's test images: mean 0.1325, deviation 0.3105.
        assert!((0.10..0.17).contains(&mean), "mean {mean}");
        assert!((0.27..0.35).contains(&deviation), "deviation {deviation}");
        for image in pixels.chunks_exact(PIXELS) {
            let mean = image.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / (255.0 * PIXELS as f64);
            assert!((0.02..0.40).contains(&mean), "an image of mean {mean}");
        }
    }

    #[test]
    fn each_digit_is_centred_by_mass_and_fits() {
        let (pixels, labels) = render_digits(2000, 11);
        for (image, label) in pixels.chunks_exact(PIXELS).zip(labels) {
            let (x, y) = centre_of_mass(image);
            assert!((x - 14.0).abs() < 0.51 && (y - 14.0).abs() < 0.51, "digit {label} at ({x}, {y})");
            let columns: Vec<_> = (0..SIDE).filter(|x| (0..SIDE).any(|y| image[y * SIDE + x] > 0)).collect();
            let rows: Vec<_> = (0..SIDE).filter(|y| (0..SIDE).any(|x| image[y * SIDE + x] > 0)).collect();
            let long_side = rows.len().max(columns.len());
            assert!((18..=BOX).contains(&long_side), "digit {label} is {long_side} pixels long");
        }
    }

    #[test]
    fn images_of_one_digit_differ() {
        let (pixels, labels) = render_digits(400, 2);
        for digit in 0..10 {
            let images: Vec<_> = pixels
                .chunks_exact(PIXELS)
                .zip(&labels)
                .filter(|&(_, &label)| label == digit)
                .map(|(i, _)| i)
                .collect();
            for (i, image) in images.iter().enumerate() {
                for other in &images[..i] {
                    let apart = image.iter().zip(*other).filter(|&(&a, &b)| a.abs_diff(b) > 64).count();
                    assert!(apart > 5, "two images of digit {digit} differ in {apart} pixels only");
                }
            }
        }
    }
}
