//! A sheet of pictures with two answers under each: what an audit shows of the images on which two models differ.

/// Pixels of a picture's pixel.
const ZOOM: usize = 4;
/// Pixels of a digit's pixel, and the empty ones around things.
const INK: usize = 2;
const GAP: usize = 8;
/// Pictures in a row.
const ACROSS: usize = 8;
const DIGIT: [usize; 2] = [5, 7];
const BACKGROUND: [u8; 3] = [255, 255, 255];
/// Of the first answer, and of the second.
const COLOURS: [[u8; 3]; 2] = [[178, 34, 34], [0, 90, 156]];

/// The digits, a byte a row, five pixels from the left in the low bits.
const DIGITS: [[u8; 7]; 10] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];

/// One picture: its bytes, channel-major, and both answers.
pub(super) struct Tile<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) answers: [u16; 2],
}

/// A picture of all tiles.
pub(super) struct Sheet {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Three bytes a pixel, rows from the top.
    pub(super) rgb: Vec<u8>,
}

impl Sheet {
    /// Draws tiles of images of `shape` (channels, rows, columns; one channel is grey, of more the first three are shown).
    pub(super) fn draw(shape: [usize; 3], tiles: &[Tile<'_>]) -> Sheet {
        let [channels, rows, columns] = shape;
        let digits = DIGIT[1] * INK;
        let (tile_width, tile_height) = (columns * ZOOM + GAP, rows * ZOOM + 2 * GAP + digits);
        let across = tiles.len().clamp(1, ACROSS);
        let width = across * tile_width + GAP;
        let height = tiles.len().div_ceil(across).max(1) * tile_height + GAP;
        let rgb = BACKGROUND.repeat(width * height);
        let mut sheet = Sheet { width: width as u32, height: height as u32, rgb };
        for (index, tile) in tiles.iter().enumerate() {
            let (left, top) = (GAP + index % across * tile_width, GAP + index / across * tile_height);
            for place in 0..rows * columns {
                let value = |channel: usize| tile.bytes.get(channel * rows * columns + place).copied().unwrap_or(0);
                let colour = if channels < 3 { [value(0); 3] } else { [value(0), value(1), value(2)] };
                let (x, y) = (left + place % columns * ZOOM, top + place / columns * ZOOM);
                sheet.fill(x, y, ZOOM, colour);
            }
            for (answer, colour) in tile.answers.iter().zip(COLOURS) {
                let x = left + if colour == COLOURS[0] { 0 } else { columns * ZOOM / 2 };
                sheet.number(x, top + rows * ZOOM + GAP / 2, *answer, colour);
            }
        }
        sheet
    }

    fn number(&mut self, left: usize, top: usize, number: u16, colour: [u8; 3]) {
        for (at, digit) in number.to_string().bytes().enumerate() {
            let rows = DIGITS[usize::from(digit - b'0')];
            let left = left + at * (DIGIT[0] + 1) * INK;
            for (y, row) in rows.into_iter().enumerate() {
                for x in (0..DIGIT[0]).filter(|x| row >> (DIGIT[0] - 1 - x) & 1 == 1) {
                    self.fill(left + x * INK, top + y * INK, INK, colour);
                }
            }
        }
    }

    /// A square, cut at the sheet's edges.
    fn fill(&mut self, left: usize, top: usize, side: usize, colour: [u8; 3]) {
        let (width, height) = (self.width as usize, self.height as usize);
        for y in top..(top + side).min(height) {
            for x in left..(left + side).min(width) {
                self.rgb[3 * (y * width + x)..][..3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_stand_side_by_side_with_both_answers_below() {
        let bytes = [0, 255, 10, 20];
        let tile = Tile { bytes: &bytes, answers: [1, 8] };
        let sheet = Sheet::draw([1, 2, 2], &[tile]);
        let at = |x: usize, y: usize| {
            let start = 3 * (y * sheet.width as usize + x);
            [sheet.rgb[start], sheet.rgb[start + 1], sheet.rgb[start + 2]]
        };
        assert_eq!(sheet.rgb.len(), (sheet.width * sheet.height * 3) as usize);
        assert_eq!([at(GAP, GAP), at(GAP + ZOOM, GAP), at(GAP + ZOOM, GAP + ZOOM)], [[0; 3], [255; 3], [20; 3]]);
        let count = |colour: [u8; 3]| sheet.rgb.as_chunks::<3>().0.iter().filter(|&&pixel| pixel == colour).count();
        // The 8 hangs over the sheet's right edge, the 1 does not.
        assert_eq!(count(COLOURS[0]) % (INK * INK), 0);
        assert!(count(COLOURS[0]) > 0 && count(COLOURS[1]) > 0);
        let colour = Sheet::draw([3, 1, 1], &[Tile { bytes: &[1, 2, 3], answers: [12, 3] }]);
        assert_eq!(colour.rgb.as_chunks::<3>().0[GAP * colour.width as usize + GAP], [1, 2, 3]);
        assert!(Sheet::draw([1, 2, 2], &[]).width > 0);
    }
}
