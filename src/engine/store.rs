//! Where a stage's outputs lie: packed residues of rows, in memory of large pages.
//!
//! `[group of rows][limb][tile][row of the group][component][column]`, each residue in the bytes of its prime, low byte first. A tile writes one
//! piece a group; a key switch has its group's rows in one piece; a later stage's tile finds neighbouring rows side by side. Limbs may hold
//! different components: what is kept for later stages (c0 and c1 of the limbs that remain) lies apart from what a key switch uses up.

use crate::ckks::Context;
use crate::ckks::keyswitch::Ciphertexts;
use crate::format::Bytes;
use crate::plan::cost::{SWITCHED_TOGETHER, width_bytes};
use crate::ring::kernels::{self, Kernel};
use std::ops::Range;

/// Most rows of a group: fewer pieces for the tiles of wide stages.
const MOST_GROUP_ROWS: usize = 32;
/// Groups that there should be at least, so that threads share them evenly.
const GROUPS: usize = 24;
/// Which components of one limb are held, and their bytes.
#[derive(Clone, Copy, Debug)]
struct LimbPlace {
    width: usize,
    first_component: usize,
    components: usize,
    /// Bytes of one row before this limb's.
    row_start: usize,
}

/// The layout of a number of rows.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    rows: usize,
    group_rows: usize,
    degree: usize,
    tile_columns: usize,
    limbs: Vec<LimbPlace>,
    row_bytes: usize,
}

impl Packing {
    /// `components(limb)` is held of each of the first `limbs` limbs.
    pub fn new(
        context: &Context,
        rows: usize,
        tile_columns: usize,
        limbs: usize,
        components: impl Fn(usize) -> Range<usize>,
    ) -> Self {
        let degree = context.degree();
        let mut row_bytes = 0;
        let limbs = (0..limbs)
            .map(|limb| {
                let (width, held) = (width_bytes(context.modulus(limb).value()), components(limb));
                let place =
                    LimbPlace { width, first_component: held.start, components: held.len(), row_start: row_bytes };
                row_bytes += held.len() * degree * width;
                place
            })
            .collect();
        let group_rows = (rows / GROUPS).clamp(1, MOST_GROUP_ROWS).next_multiple_of(SWITCHED_TOGETHER);
        Self { rows, group_rows, degree, tile_columns, limbs, row_bytes }
    }

    /// All rows.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// A full group; the last may be smaller.
    pub fn group_bytes(&self) -> usize {
        self.group_rows * self.row_bytes
    }

    /// Rows of group number `group`.
    pub fn rows_of(&self, group: usize) -> usize {
        self.group_rows.min(self.rows - group * self.group_rows)
    }

    /// Bytes of group number `group`.
    pub fn bytes_of(&self, group: usize) -> usize {
        self.rows_of(group) * self.row_bytes
    }

    /// Bytes of a piece within its group of `rows` rows: columns `first ..` of one component, at most to the end of their tile.
    fn piece(&self, rows: usize, row: usize, component: usize, limb: usize, first: usize) -> Range<usize> {
        let place = &self.limbs[limb];
        let (tile, in_tile) = (first / self.tile_columns, first % self.tile_columns);
        let polynomial = (tile * rows + row) * place.components + (component - place.first_component);
        let start = rows * place.row_start + (polynomial * self.tile_columns + in_tile) * place.width;
        start..start + (self.tile_columns - in_tile) * place.width
    }

    /// Cuts all rows into what bands of `band_columns` columns write: `[limb][band][group]`.
    pub fn bands<'a>(&self, bytes: &'a mut [u8], band_columns: usize) -> Vec<Vec<&'a mut [u8]>> {
        let bands = self.degree / band_columns;
        let groups = self.rows.div_ceil(self.group_rows);
        let mut lists: Vec<Vec<&mut [u8]>> = Vec::new();
        lists.resize_with(self.limbs.len() * bands, || Vec::with_capacity(groups));
        // A layout may hold nothing.
        for (group, mut rest) in bytes[..self.bytes()].chunks_mut(self.group_bytes().max(1)).enumerate() {
            for (limb, place) in self.limbs.iter().enumerate() {
                let band_bytes = self.rows_of(group) * place.components * band_columns * place.width;
                for list in &mut lists[limb * bands..][..bands] {
                    let (band, after) = rest.split_at_mut(band_bytes);
                    list.push(band);
                    rest = after;
                }
            }
        }
        lists
    }

    /// Packs a tile's words, `[row][component of all][column]`, into its band's pieces. `tile` counts within the band.
    pub fn pack_tile(
        &self,
        kernel: Kernel,
        limb: usize,
        tile: usize,
        components: usize,
        words: &[u64],
        band: &mut [&mut [u8]],
    ) {
        let Some(place) = self.limbs.get(limb).filter(|place| place.components > 0) else { return };
        let columns = self.tile_columns;
        let piece_bytes = columns * place.width;
        let mut rows = words.chunks_exact(components * columns);
        for (group, band) in band.iter_mut().enumerate() {
            let count = self.rows_of(group);
            let tile_bytes = count * place.components * piece_bytes;
            let pieces = band[tile * tile_bytes..][..tile_bytes].chunks_exact_mut(place.components * piece_bytes);
            for (out, row) in pieces.zip(&mut rows) {
                let held = &row[place.first_component * columns..][..place.components * columns];
                kernel.pack_into(place.width, held, out);
            }
        }
    }

    /// A whole limb of row number `row` out of all rows.
    pub fn unpack_row_limb(
        &self,
        kernel: Kernel,
        bytes: &[u8],
        row: usize,
        component: usize,
        limb: usize,
        out: &mut [u64],
    ) {
        let (group, in_group) = (row / self.group_rows, row % self.group_rows);
        let group = &bytes[group * self.group_bytes()..][..self.bytes_of(group)];
        self.unpack_limb(kernel, group, in_group, component, limb, out);
    }

    /// First byte of a row's limb within a group of `rows` rows, and how far its tiles are apart.
    fn pieces(&self, rows: usize, row: usize, component: usize, limb: usize) -> (usize, usize) {
        let place = &self.limbs[limb];
        let stride = rows * place.components * self.tile_columns * place.width;
        (self.piece(rows, row, component, limb, 0).start, stride)
    }

    /// A whole limb out of one group's bytes.
    fn unpack_limb(&self, kernel: Kernel, group: &[u8], row: usize, component: usize, limb: usize, out: &mut [u64]) {
        let (first, stride) = self.pieces(group.len() / self.row_bytes, row, component, limb);
        kernel.unpack_pieces_into(self.limbs[limb].width, &group[first..], stride, self.tile_columns, out);
    }

    /// The reverse.
    fn pack_limb(&self, kernel: Kernel, group: &mut [u8], row: usize, component: usize, limb: usize, residues: &[u64]) {
        let (first, stride) = self.pieces(group.len() / self.row_bytes, row, component, limb);
        kernel.pack_pieces_into(self.limbs[limb].width, residues, stride, self.tile_columns, &mut group[first..]);
    }
}

/// Outputs of one pass that later stages read: components 0 and 1.
pub(super) struct StoredPass {
    pub packing: Packing,
    pub bytes: Bytes,
}

/// Outputs of one key-switched stage.
#[derive(Default)]
pub(super) struct StoredStage {
    pub passes: Vec<StoredPass>,
    /// Pass and row in it, by entry; `None` where nothing reads the entry.
    pub places: Vec<Option<(u32, u32)>>,
}

impl StoredStage {
    /// Adds what a pass stored, of these rows.
    pub fn add(&mut self, rows: &[u32], pass: StoredPass) {
        let number = self.passes.len() as u32;
        for (at, &row) in (0..).zip(rows) {
            self.places[row as usize] = Some((number, at));
        }
        self.passes.push(pass);
    }

    fn group(&self, entry: usize) -> Option<(&Packing, &[u8], usize)> {
        let (pass, row) = self.places.get(entry).copied().flatten()?;
        let StoredPass { packing, bytes } = &self.passes[pass as usize];
        let (group, row) = (row as usize / packing.group_rows, row as usize % packing.group_rows);
        let start = group * packing.group_bytes();
        Some((packing, &bytes[start..][..packing.bytes_of(group)], row))
    }

    /// Columns `first ..` of components 0 and 1 of an entry to `out`, `[component][column]`.
    ///
    /// # Panics
    /// If the entry was not stored (a bug: what a stage reads is computed before).
    pub fn load_into(&self, kernel: Kernel, entry: usize, limb: usize, first: usize, out: &mut [u64]) {
        let (packing, group, row) = self.group(entry).expect("a stage's features are stored before it");
        let columns = out.len() / 2;
        let (rows, width) = (group.len() / packing.row_bytes, packing.limbs[limb].width);
        for (component, out) in out.chunks_exact_mut(columns).enumerate() {
            let run = columns.min(packing.tile_columns);
            for (at, out) in out.chunks_exact_mut(run).enumerate() {
                let piece = packing.piece(rows, row, component, limb, first + at * run);
                kernel.unpack_into(width, &group[piece.start..][..run * width], out);
            }
        }
    }

    /// Announces a [`Self::load_into`] of the same entry. A hint.
    pub fn prefetch(&self, entry: usize, limb: usize, first: usize, columns: usize) {
        let Some((packing, group, row)) = self.group(entry) else { return };
        let rows = group.len() / packing.row_bytes;
        for component in 0..2 {
            let piece = packing.piece(rows, row, component, limb, first);
            let run = columns.min(packing.tile_columns) * packing.limbs[limb].width;
            kernels::prefetch(group.get(piece.start..piece.start + run).unwrap_or_default());
        }
    }
}

/// A few rows of one group, to be switched in place.
pub(super) struct SwitchedRows<'a> {
    pub kernel: Kernel,
    pub rows: Range<usize>,
    /// c0 and c1 of the limbs that remain: read, then overwritten.
    pub kept: (&'a Packing, &'a mut [u8]),
    /// The rest.
    pub used: (&'a Packing, &'a [u8]),
    /// 2 where the stage has no squares: c2 is zero.
    pub components: usize,
}

impl Ciphertexts for SwitchedRows<'_> {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn load_into(&self, ciphertext: usize, component: usize, limb: usize, out: &mut [u64]) {
        if component >= self.components {
            out.fill(0);
            return;
        }
        let row = self.rows.start + ciphertext;
        let (kept, bytes) = &self.kept;
        if component < 2 && limb < kept.limbs.len() {
            kept.unpack_limb(self.kernel, bytes, row, component, limb, out);
        } else {
            self.used.0.unpack_limb(self.kernel, self.used.1, row, component, limb, out);
        }
    }

    fn store(&mut self, ciphertext: usize, component: usize, limb: usize, residues: &[u64]) {
        let row = self.rows.start + ciphertext;
        let (packing, bytes) = &mut self.kept;
        packing.pack_limb(self.kernel, bytes, row, component, limb, residues);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::{Parameters, ParametersLiteral};
    use crate::ring::primes;

    /// Every piece of every row lies where nothing else does, whichever way it is written.
    #[test]
    fn rows_come_back_from_tiles_and_from_whole_limbs() {
        let degree = 256;
        let mut moduli = Vec::new();
        for bits in [40u32, 44, 49] {
            moduli.push(primes::nearest(1 << bits, degree, &moduli).unwrap());
        }
        let special = vec![primes::nearest(1 << 45, degree, &moduli).unwrap()];
        let literal = ParametersLiteral { degree, moduli, special, digit_limbs: 1 };
        let context = Context::new(Parameters::insecure(literal).unwrap(), Kernel::detect()).unwrap();
        let kernel = context.kernel();
        for (rows, tile_columns, band_columns) in [(1, 16, 64), (7, 32, 32), (107, 16, 128), (100, 64, 128)] {
            let held = |limb: usize| if limb < 2 { 0..2 } else { 1..3 };
            let packing = Packing::new(&context, rows, tile_columns, 3, held);
            let value = |limb: usize, row: usize, component: usize, column: usize| {
                ((row * 3 + component) * 1000 + column) as u64 * 7_919 + limb as u64
            };
            let mut bytes = Bytes::zeroed(packing.bytes()).unwrap();
            let bands = degree / band_columns;
            for (at, mut band) in packing.bands(&mut bytes, band_columns).into_iter().enumerate() {
                let (limb, first) = (at / bands, at % bands * band_columns);
                for tile in 0..band_columns / tile_columns {
                    let words: Vec<u64> = (0..rows * 3 * tile_columns)
                        .map(|i| {
                            let (row, component) = (i / (3 * tile_columns), i / tile_columns % 3);
                            value(limb, row, component, first + tile * tile_columns + i % tile_columns)
                        })
                        .collect();
                    packing.pack_tile(kernel, limb, tile, 3, &words, &mut band);
                }
            }
            let mut out = vec![0; degree];
            for row in 0..rows {
                for (limb, component) in (0..3).flat_map(|limb| held(limb).map(move |component| (limb, component))) {
                    packing.unpack_row_limb(kernel, &bytes, row, component, limb, &mut out);
                    let expected: Vec<u64> = (0..degree).map(|column| value(limb, row, component, column)).collect();
                    assert_eq!(out, expected, "{rows} rows, row {row}, limb {limb}, component {component}");
                }
            }
            // A stage that reads wider or narrower tiles than were written.
            let stored = StoredStage {
                places: (0..rows as u32).map(|row| Some((0, row))).collect(),
                passes: vec![StoredPass { packing, bytes }],
            };
            for columns in [16, 64] {
                let mut pair = vec![0; 2 * columns];
                stored.load_into(kernel, rows - 1, 1, 128, &mut pair);
                let expected: Vec<u64> =
                    (0..2 * columns).map(|i| value(1, rows - 1, i / columns, 128 + i % columns)).collect();
                assert_eq!(pair, expected, "{rows} rows, {columns} columns");
            }
        }
    }
}
