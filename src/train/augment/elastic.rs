//! Elastic deformation: a smooth random displacement of every pixel (Simard, Steinkraus and Platt, "Best practices for
//! convolutional neural networks applied to visual document analysis", ICDAR 2003, section 2).
//!
//! Uniform noise, one number a pixel and direction, is convolved with a Gaussian and scaled so that the displacements of
//! each image have the root mean square asked for. The convolution goes around the edges: so the field is as strong
//! at the border as in the middle, and a Gaussian wider than the image costs no more than the image has columns.

use crate::train::random::Stream;

/// The Gaussian is cut off at this many standard deviations.
const REACH: f64 = 3.0;

/// Makes fields for images of one size.
#[derive(Clone, Debug)]
pub(super) struct Elastic {
    rows: usize,
    columns: usize,
    /// Root mean square length of a displacement, pixels.
    rms: f32,
    across: Ring,
    along: Ring,
}

/// A Gaussian on a ring: out[i] = sum over k of weights[k] * in[(i + first + k) mod side].
#[derive(Clone, Debug)]
struct Ring {
    side: usize,
    /// Below `side`.
    first: usize,
    weights: Vec<f32>,
}

impl Ring {
    fn new(side: usize, sigma: f64) -> Ring {
        let reach = (REACH * sigma).ceil() as isize;
        let weight = |distance: isize| (-0.5 * (distance as f64 / sigma).powi(2)).exp();
        let taps = 2 * reach as usize + 1;
        let (first, mut weights) = if taps <= side {
            (side - reach as usize, (-reach..=reach).map(weight).collect::<Vec<f64>>())
        } else {
            // Wider than the ring: all weights that meet at a place are added.
            let mut folded = vec![0.0; side];
            for distance in -reach..=reach {
                folded[distance.rem_euclid(side as isize) as usize] += weight(distance);
            }
            (0, folded)
        };
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Ring { side, first: first % side, weights: weights.into_iter().map(|weight| weight as f32).collect() }
    }
}

impl Elastic {
    /// For images of `rows` x `columns`; `rms` and `sigma` in pixels, both above 0.
    pub(super) fn new(rows: usize, columns: usize, rms: f64, sigma: f64) -> Elastic {
        Elastic { rows, columns, rms: rms as f32, across: Ring::new(columns, sigma), along: Ring::new(rows, sigma) }
    }

    /// Draws a field: displacements to the right and down, each `[row][column]`, pixels.
    pub(super) fn field(&self, stream: &mut Stream) -> [Vec<f32>; 2] {
        let mut noise = vec![0.0; self.rows * self.columns];
        let [mut right, mut down] = [(); 2].map(|()| {
            stream.fill_symmetric(&mut noise);
            self.smoothed(&mut noise)
        });
        let power: f32 = right.iter().zip(&down).map(|(x, y)| x * x + y * y).sum();
        let found = (power / (self.rows * self.columns) as f32).sqrt();
        // Noise that is zero everywhere (an image of few pixels) has no direction: it stays zero.
        let factor = if found > 0.0 { self.rms / found } else { 0.0 };
        right.iter_mut().chain(&mut down).for_each(|value| *value *= factor);
        [right, down]
    }

    /// `noise` smoothed along its rows (in place), then along its columns. Loops run over neighbouring values, tap by tap.
    fn smoothed(&self, noise: &mut [f32]) -> Vec<f32> {
        let Ring { side: columns, first, weights } = &self.across;
        // A row continued around the edge.
        let mut line = vec![0.0; columns + weights.len()];
        for row in noise.chunks_exact_mut(*columns) {
            for (place, value) in line.iter_mut().enumerate() {
                *value = row[(first + place) % columns];
            }
            row.fill(0.0);
            for (tap, &weight) in weights.iter().enumerate() {
                add_scaled(row, &line[tap..tap + columns], weight);
            }
        }
        let mut field = vec![0.0; self.rows * columns];
        let Ring { side: rows, first, weights } = &self.along;
        for (row, out) in field.chunks_exact_mut(*columns).enumerate() {
            for (tap, &weight) in weights.iter().enumerate() {
                let source = (row + first + tap) % rows;
                add_scaled(out, &noise[source * columns..(source + 1) * columns], weight);
            }
        }
        field
    }
}

/// out += weight * values
fn add_scaled(out: &mut [f32], values: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += weight * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(elastic: &Elastic, image: u64) -> [Vec<f32>; 2] {
        elastic.field(&mut Stream::new("test", [0, 0, image]))
    }

    #[test]
    fn the_displacements_have_the_strength_asked_for() {
        for (rows, columns, rms, sigma) in [(28, 28, 1.5, 4.0), (9, 17, 0.25, 1.0), (5, 6, 3.0, 20.0), (1, 1, 1.0, 2.0)]
        {
            let [right, down] = field(&Elastic::new(rows, columns, rms, sigma), 1);
            assert_eq!((right.len(), down.len()), (rows * columns, rows * columns));
            let power: f64 = right.iter().zip(&down).map(|(x, y)| f64::from(x * x + y * y)).sum();
            let found = (power / (rows * columns) as f64).sqrt();
            assert!((found - rms).abs() < 1e-4 * rms, "{rows}x{columns}: found {found}, expected {rms}");
        }
    }

    #[test]
    fn a_field_is_as_smooth_as_its_gaussian() {
        // Noise smoothed with deviation s correlates over a distance d as exp(-d^2 / 4 s^2).
        let (side, sigma, distance) = (32, 2.0, 2);
        let (mut product, mut power) = (0.0, 0.0);
        for image in 0..200 {
            let [right, _] = field(&Elastic::new(side, side, 1.0, sigma), image);
            for (place, value) in right.iter().enumerate() {
                let (row, column) = (place / side, place % side);
                product += f64::from(value * right[row * side + (column + distance) % side]);
                product += f64::from(value * right[(row + distance) % side * side + column]);
                power += 2.0 * f64::from(value * value);
            }
        }
        let expected = (-((distance * distance) as f64) / (4.0 * sigma * sigma)).exp();
        assert!((product / power - expected).abs() < 0.02, "found {}, expected {expected}", product / power);
    }

    #[test]
    fn a_gaussian_wider_than_the_ring_adds_up_to_one_and_flattens() {
        let ring = Ring::new(5, 40.0);
        assert_eq!(ring.weights.len(), 5);
        assert!(ring.weights.iter().all(|weight| (weight - 0.2).abs() < 0.005), "{:?}", ring.weights);
        let narrow = Ring::new(28, 1.0);
        assert_eq!((narrow.first, narrow.weights.len()), (25, 7));
        assert!((narrow.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(narrow.weights[3] > narrow.weights[2] && narrow.weights[2] == narrow.weights[4]);
    }
}
