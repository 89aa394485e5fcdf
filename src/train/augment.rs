//! One training image from bytes to the numbers that the network reads, changed at random as the recipe says.
//!
//! ```text
//! pixels u8 [channel][row][column] -> (mirror, deform, shift: one resampling) -> normalise -> cutout -> f32, same order
//! ```
//!
//! What is drawn depends on (seed, round, image) and nothing else, so neither order nor threads change a bit; sine, root
//! and exponential come from the platform. Geometric changes are joined into one map from places of the result to places
//! of the image, so that several of them blur no more than one. Pixel 0 surrounds an image: it is the paper of digits
//! and a value that real images have, where the mean (zero of normalised space) would be a grey frame.
//!
//! Not here: which images, in which order, and batches.

use super::error::TrainError;
use super::random::Stream;
use super::recipe::AugmentRecipe;
use crate::net::network::InputSpec;

mod elastic;

use elastic::Elastic;

/// Memory for one image.
#[derive(Default)]
struct Scratch {
    /// `[row][column]`, pixels: the column of the image that each place of the result shows.
    right: Vec<f32>,
    /// Likewise the row.
    down: Vec<f32>,
    /// `[channel][row + 3][column + 3]`: the image as floats 0 to 255, one zero before each side and two after.
    framed: Vec<f32>,
}

/// Changes and normalises images of one shape.
#[derive(Clone, Debug)]
pub struct Augmenter {
    shape: [usize; 3],
    recipe: AugmentRecipe,
    /// Per channel, the value of each byte.
    tables: Vec<[f32; 256]>,
    /// Per channel (gain, offset): the value of a pixel between two bytes is gain * pixel + offset.
    lines: Vec<(f32, f32)>,
    elastic: Option<Elastic>,
}

/// The changes drawn for one image, besides the elastic field.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    /// Mirrored left to right, before all else.
    flip: bool,
    /// Down and right, pixels.
    shift: [isize; 2],
    /// From places of the result to places of the image, about the centre: `[[xx, xy], [yx, yy]]`; `None`: the identity.
    inverse: Option<[[f32; 2]; 2]>,
    /// Top row and left column of the square.
    cutout: Option<[usize; 2]>,
}

impl Augmenter {
    /// For images of `input.shape` with the changes of a checked recipe.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a cutout larger than the image or a shift that may leave nothing of it;
    /// [`TrainError::Data`] for a normalisation without one mean and deviation a channel.
    pub fn new(recipe: &AugmentRecipe, input: &InputSpec) -> Result<Augmenter, TrainError> {
        let [channels, rows, columns] = input.shape;
        let least_side = rows.min(columns);
        if recipe.cutout > least_side {
            let expected = format!("at most {least_side} for images of {rows}x{columns}");
            return Err(TrainError::setting("augment.cutout", recipe.cutout, expected));
        }
        if recipe.shift > 0 && recipe.shift >= least_side {
            let expected = format!("less than {least_side} for images of {rows}x{columns}");
            return Err(TrainError::setting("augment.shift", recipe.shift, expected));
        }
        if input.mean.len() != channels || input.std.len() != channels {
            let found = format!("{} means and {} deviations", input.mean.len(), input.std.len());
            return Err(TrainError::data("normalisation", found, format!("{channels} of each, one a channel")));
        }
        let constants = || input.mean.iter().zip(&input.std);
        let tables = constants()
            .map(|(mean, std)| std::array::from_fn(|byte| ((byte as f64 / 255.0 - mean) / std) as f32))
            .collect();
        let lines = constants().map(|(mean, std)| ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32)).collect();
        let elastic = (recipe.elastic > 0.0).then(|| Elastic::new(rows, columns, recipe.elastic, recipe.elastic_sigma));
        Ok(Augmenter { shape: input.shape, recipe: recipe.clone(), tables, lines, elastic })
    }

    /// Normalises an image without changing it: (byte / 255 - mean) / std, computed in f64. Both `[channel][row][column]`
    /// of this augmenter's shape.
    pub fn plain_into(&self, pixels: &[u8], out: &mut [f32]) {
        let plane = self.shape[1] * self.shape[2];
        for ((pixels, out), table) in pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).zip(&self.tables) {
            for (value, &pixel) in out.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel)];
            }
        }
    }

    /// Changes an image at random and normalises it. Both `[channel][row][column]` of this augmenter's shape. The bits are
    /// decided by the image and by the run's `seed`, the `round` (epoch, over all phases) and the `index` of the image
    /// in the training data.
    pub fn varied_into(&self, pixels: &[u8], seed: u64, round: u64, index: u32, out: &mut [f32]) {
        if self.recipe == AugmentRecipe::default() {
            return self.plain_into(pixels, out);
        }
        let mut stream = Stream::new("augment", [seed, round, u64::from(index)]);
        let change = self.draw(&mut stream);
        if change.inverse.is_none() && self.elastic.is_none() {
            self.move_into(pixels, &change, out);
        } else {
            let mut scratch = Scratch::default();
            self.places_into(&change, &mut stream, &mut scratch);
            self.resample_into(pixels, &mut scratch, out);
        }
        self.cut_out(&change, out);
    }

    /// Draws the changes, those that are off not at all.
    fn draw(&self, stream: &mut Stream) -> Change {
        let recipe = &self.recipe;
        let mut change = Change { flip: false, shift: [0, 0], inverse: None, cutout: None };
        if recipe.flip {
            change.flip = stream.below(2) == 1;
        }
        if recipe.shift > 0 {
            change.shift = [(); 2].map(|()| stream.below(2 * recipe.shift + 1) as isize - recipe.shift as isize);
        }
        if recipe.rotate > 0.0 || recipe.scale > 0.0 || recipe.shear > 0.0 {
            let degrees = recipe.rotate * f64::from(stream.symmetric());
            let size = 1.0 + recipe.scale * f64::from(stream.symmetric());
            let shear = recipe.shear * f64::from(stream.symmetric());
            change.inverse = Some(inverse_of(degrees, size, shear));
        }
        if recipe.cutout > 0 {
            let [_, rows, columns] = self.shape;
            change.cutout = Some([rows, columns].map(|side| stream.below(side - recipe.cutout + 1)));
        }
        change
    }

    /// Mirror and shift: whole pixels, nothing interpolated.
    fn move_into(&self, pixels: &[u8], change: &Change, out: &mut [f32]) {
        let [_, rows, columns] = self.shape;
        let plane = rows * columns;
        let [down, right] = change.shift;
        // Columns of the result that the image covers; `first` and `end` are apart by at least one, the shift being
        // smaller than the side.
        let (first, end) = (right.max(0) as usize, (columns as isize + right.min(0)) as usize);
        let source_first = (first as isize - right) as usize;
        for ((pixels, out), table) in pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).zip(&self.tables) {
            let value = |pixel: &u8| table[usize::from(*pixel)];
            for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                out.fill(table[0]);
                let Some(source_row) = row.checked_add_signed(-down).filter(|row| *row < rows) else { continue };
                let source = &pixels[source_row * columns..][..columns];
                let covered = out[first..end].iter_mut();
                if change.flip {
                    let mirrored = source.iter().rev().skip(source_first);
                    covered.zip(mirrored).for_each(|(out, pixel)| *out = value(pixel));
                } else {
                    covered.zip(&source[source_first..]).for_each(|(out, pixel)| *out = value(pixel));
                }
            }
        }
    }

    /// For each place of the result its place in the image: column and row, both from 0, fractions between pixels.
    fn places_into(&self, change: &Change, stream: &mut Stream, scratch: &mut Scratch) {
        let [_, rows, columns] = self.shape;
        let Scratch { right, down, .. } = scratch;
        match &self.elastic {
            Some(elastic) => [*right, *down] = elastic.field(stream),
            None => [*right, *down] = [vec![0.0; rows * columns], vec![0.0; rows * columns]],
        }
        let [[xx, xy], [yx, yy]] = change.inverse.unwrap_or([[1.0, 0.0], [0.0, 1.0]]);
        let [shift_down, shift_right] = change.shift.map(|pixels| pixels as f32);
        let (middle_row, middle_column) = ((rows - 1) as f32 / 2.0, (columns - 1) as f32 / 2.0);
        let lines = right.chunks_exact_mut(columns).zip(down.chunks_exact_mut(columns));
        for (row, (right, down)) in lines.enumerate() {
            let y = row as f32 - middle_row - shift_down;
            for (column, (right, down)) in right.iter_mut().zip(down).enumerate() {
                let x = column as f32 - middle_column - shift_right;
                let source_column = middle_column + xx * x + xy * y + *right;
                *right = if change.flip { (columns - 1) as f32 - source_column } else { source_column };
                *down += middle_row + yx * x + yy * y;
            }
        }
    }

    /// Reads the image at the places in `scratch`, bilinearly between the centres of pixels, and normalises.
    fn resample_into(&self, pixels: &[u8], scratch: &mut Scratch, out: &mut [f32]) {
        let [channels, rows, columns] = self.shape;
        let (plane, stride) = (rows * columns, columns + 3);
        let framed_plane = (rows + 3) * stride;
        // One zero pixel before the first place and two after the last: any place, once clamped to one pixel outside the
        // image, has four neighbours.
        scratch.framed = vec![0.0; channels * framed_plane];
        for (framed, pixels) in scratch.framed.chunks_exact_mut(framed_plane).zip(pixels.chunks_exact(plane)) {
            for (framed, pixels) in framed.chunks_exact_mut(stride).skip(1).zip(pixels.chunks_exact(columns)) {
                framed[1..].iter_mut().zip(pixels).for_each(|(framed, &pixel)| *framed = f32::from(pixel));
            }
        }
        let places = || scratch.right.iter().zip(&scratch.down);
        let framed_planes = scratch.framed.chunks_exact(framed_plane);
        let normalisation = self.lines.iter().zip(&self.tables);
        for ((out, framed), (&(gain, offset), table)) in
            out.chunks_exact_mut(plane).zip(framed_planes).zip(normalisation)
        {
            let (least, most) = (table[0], table[255]);
            for (value, (&right, &down)) in out.iter_mut().zip(places()) {
                let x = (right + 1.0).clamp(0.0, (columns + 1) as f32);
                let y = (down + 1.0).clamp(0.0, (rows + 1) as f32);
                let (column, row) = (x as usize, y as usize);
                let (x, y) = (x - column as f32, y - row as f32);
                let corner = row * stride + column;
                let (above, below) = (&framed[corner..corner + 2], &framed[corner + stride..corner + stride + 2]);
                let upper = above[0] + x * (above[1] - above[0]);
                let lower = below[0] + x * (below[1] - below[0]);
                let pixel = upper + y * (lower - upper);
                *value = (gain * pixel + offset).clamp(least, most);
            }
        }
    }

    fn cut_out(&self, change: &Change, out: &mut [f32]) {
        let Some([top, left]) = change.cutout else { return };
        let [_, rows, columns] = self.shape;
        let side = self.recipe.cutout;
        for plane in out.chunks_exact_mut(rows * columns) {
            for row in plane.chunks_exact_mut(columns).skip(top).take(side) {
                row[left..left + side].fill(0.0);
            }
        }
    }
}

/// The inverse of: shear (x += shear * y), scale by `size`, turn by `degrees` from the x axis (right) to the y axis (down).
fn inverse_of(degrees: f64, size: f64, shear: f64) -> [[f32; 2]; 2] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    // Inverse turn and scale, then x -= shear * y.
    let [[xx, xy], [yx, yy]] = [[cos / size, sin / size], [-sin / size, cos / size]];
    [[xx - shear * yx, xy - shear * yy], [yx, yy]].map(|row| row.map(|value| value as f32))
}

#[cfg(test)]
mod tests;
