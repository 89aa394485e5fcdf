//! Where a stage's outputs lie: packed residues of rows, in memory of large pages.
//!
//! `[group of rows][limb][tile][row of the group][component][column]`, each residue in the bytes of its prime, low byte first. A tile writes one
//! piece a group; a key switch has its group's rows in one piece; a later stage's tile finds neighbouring rows side by side. Limbs may hold
//! different components: what is kept for later stages (c0 and c1 of the limbs that remain) lies apart from what a key switch uses up.

use crate::ckks::Context;
use crate::ckks::keyswitch::Ciphertexts;
use crate::format::Bytes;
use crate::plan::cost::{SWITCHED_TOGETHER, width_bytes};
use crate::ring::Lines;
use crate::ring::kernels::{self, Kernel};
use std::ops::Range;

/// Rows of a group: read together, they lie together.
const GROUP_ROWS: usize = SWITCHED_TOGETHER;

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
        Self { rows, degree, tile_columns, limbs, row_bytes }
    }

    /// All rows.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// A full group; the last may be smaller.
    pub fn group_bytes(&self) -> usize {
        GROUP_ROWS * self.row_bytes
    }

    /// Rows of group number `group`.
    pub fn rows_of(&self, group: usize) -> usize {
        GROUP_ROWS.min(self.rows - group * GROUP_ROWS)
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
        let groups = self.rows.div_ceil(GROUP_ROWS);
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
        let (group, in_group) = (row / GROUP_ROWS, row % GROUP_ROWS);
        let group = &bytes[group * self.group_bytes()..][..self.bytes_of(group)];
        self.unpack_limb(kernel, group, [in_group, component, limb], 1, out);
    }

    /// First byte of a row's limb within a group of `rows` rows, and how far its tiles are apart.
    fn pieces(&self, rows: usize, row: usize, component: usize, limb: usize) -> (usize, usize) {
        let place = &self.limbs[limb];
        let stride = rows * place.components * self.tile_columns * place.width;
        (self.piece(rows, row, component, limb, 0).start, stride)
    }

    /// A whole limb out of one group's bytes: row, component, limb. So many neighbouring polynomials are read from memory, itself first.
    fn unpack_limb(
        &self,
        kernel: Kernel,
        group: &[u8],
        [row, component, limb]: [usize; 3],
        neighbours: usize,
        out: &mut [u64],
    ) {
        let (first, stride) = self.pieces(group.len() / self.row_bytes, row, component, limb);
        let (width, columns) = (self.limbs[limb].width, self.tile_columns);
        kernel.unpack_pieces_into(width, &group[first..], stride, columns, neighbours * columns * width, out);
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

    /// Where an entry lies.
    ///
    /// # Panics
    /// If the entry was not stored (a bug: what a stage reads is computed before).
    pub fn find(&self, entry: usize) -> StoredRows {
        let (pass, row) = self.places[entry].expect("a stage's features are stored before it");
        let (pass, row) = (pass as usize, row as usize);
        let packing = &self.passes[pass].packing;
        let group = row / GROUP_ROWS;
        StoredRows {
            pass,
            group_start: group * packing.group_bytes(),
            group_rows: packing.rows_of(group),
            first: row % GROUP_ROWS,
            count: 1,
        }
    }

    /// The pass's bytes and layout, and the first of the rows' bytes from some column on.
    fn locate(&self, rows: &StoredRows, limb: usize, first: usize) -> (&Bytes, &Packing, usize) {
        let StoredPass { packing, bytes } = &self.passes[rows.pass];
        let piece = packing.piece(rows.group_rows, rows.first, 0, limb, first);
        (bytes, packing, rows.group_start + piece.start)
    }

    /// Columns `first ..` of components 0 and 1 of some rows to `out`, `[row][component][column]`.
    pub fn load_into(&self, kernel: Kernel, rows: &StoredRows, limb: usize, first: usize, out: &mut [u64]) {
        let columns = out.len() / (2 * rows.count);
        let (bytes, packing, start) = self.locate(rows, limb, first);
        let width = packing.limbs[limb].width;
        if columns == packing.tile_columns {
            kernel.unpack_into(width, &bytes[start..][..out.len() * width], out);
            return;
        }
        // Written in wider or narrower tiles.
        let run = columns.min(packing.tile_columns);
        for (polynomial, out) in out.chunks_exact_mut(columns).enumerate() {
            let (row, component) = (rows.first + polynomial / 2, polynomial % 2);
            for (at, out) in out.chunks_exact_mut(run).enumerate() {
                let piece = packing.piece(rows.group_rows, row, component, limb, first + at * run);
                kernel.unpack_into(width, &bytes[rows.group_start + piece.start..][..run * width], out);
            }
        }
    }

    /// Announces a [`Self::load_into`] of the same rows, so many columns of each; of several tiles, the first. A hint.
    pub fn prefetch(&self, rows: &StoredRows, limb: usize, first: usize, columns: usize) {
        let (bytes, packing, start) = self.locate(rows, limb, first);
        let polynomial = packing.tile_columns * packing.limbs[limb].width;
        let announce = |at: usize, len: usize| kernels::prefetch(bytes.get(at..at + len).unwrap_or_default());
        if columns >= packing.tile_columns {
            announce(start, 2 * rows.count * polynomial);
        } else {
            let wanted = columns * packing.limbs[limb].width;
            (0..2 * rows.count).for_each(|at| announce(start + at * polynomial, wanted));
        }
    }
}

/// Neighbouring rows of one group, found once for all tiles that read them.
#[derive(Clone, Copy)]
pub(super) struct StoredRows {
    pass: usize,
    /// First byte of the group, and rows in it.
    group_start: usize,
    group_rows: usize,
    first: usize,
    pub count: usize,
}

impl StoredRows {
    /// Takes in the rows that follow these, if the others do.
    pub fn take_in(&mut self, others: &StoredRows) -> bool {
        let follow =
            (self.pass, self.group_start, self.first + self.count) == (others.pass, others.group_start, others.first);
        self.count += if follow { others.count } else { 0 };
        follow
    }
}

/// The rows of one group, to be switched in place.
pub(super) struct SwitchedRows<'a> {
    pub kernel: Kernel,
    /// How many.
    pub rows: usize,
    /// c0 and c1 of the limbs that remain: read, then overwritten.
    pub kept: (&'a Packing, &'a mut [u8]),
    /// The rest.
    pub used: (&'a Packing, &'a [u8]),
}

impl SwitchedRows<'_> {
    /// Where a component of a limb lies.
    fn place_of(&self, component: usize, limb: usize) -> (&Packing, &[u8]) {
        if component < 2 && limb < self.kept.0.limbs.len() { (self.kept.0, &*self.kept.1) } else { self.used }
    }

    fn load_with_neighbours(
        &self,
        ciphertext: usize,
        component: usize,
        limb: usize,
        neighbours: usize,
        out: &mut [u64],
    ) {
        let (packing, bytes) = self.place_of(component, limb);
        packing.unpack_limb(self.kernel, bytes, [ciphertext, component, limb], neighbours, out);
    }
}

impl Ciphertexts for SwitchedRows<'_> {
    fn count(&self) -> usize {
        self.rows
    }

    fn load_into(&mut self, ciphertext: usize, component: usize, limb: usize, out: &mut [u64]) {
        // c1 is asked for after c0, beside which it lies.
        self.load_with_neighbours(ciphertext, component, limb, [2, 0, 1][component], out);
    }

    fn load_all_into(&mut self, component: usize, limb: usize, apart: usize, out: &mut [u64]) {
        let count = self.rows;
        let degree = out.len() - (count - 1) * apart;
        // The first has the memory of all read, tile by tile.
        let all = count * self.place_of(component, limb).0.limbs[limb].components;
        for ciphertext in 0..count {
            let neighbours = if ciphertext == 0 { all } else { 0 };
            let out = &mut out[ciphertext * apart..][..degree];
            self.load_with_neighbours(ciphertext, component, limb, neighbours, out);
        }
    }

    fn store(&mut self, ciphertext: usize, component: usize, limb: usize, residues: &[u64]) {
        let (packing, bytes) = &mut self.kept;
        packing.pack_limb(self.kernel, bytes, ciphertext, component, limb, residues);
    }
}

/// The squares of one group's stored rows, to be relinearised in place.
pub(super) struct SquaredRows<'a> {
    pub context: &'a Context,
    /// How many.
    pub rows: usize,
    /// c0 and c1 of all limbs: squared as they are read, then overwritten.
    pub kept: (&'a Packing, &'a mut [u8]),
    pub held: &'a mut SquaredLimb,
}

/// One limb of a row and of its square.
#[derive(Default)]
pub(super) struct SquaredLimb {
    c0: Lines,
    c1: Lines,
    /// Twice their product.
    crossed: Lines,
    c1_squared: Lines,
}

impl Ciphertexts for SquaredRows<'_> {
    fn count(&self) -> usize {
        self.rows
    }

    fn load_into(&mut self, ciphertext: usize, component: usize, limb: usize, out: &mut [u64]) {
        let (kernel, m) = (self.context.kernel(), self.context.modulus(limb));
        let SquaredLimb { c0, c1, crossed, c1_squared } = &mut *self.held;
        let [c0, c1, crossed, c1_squared] = [c0, c1, crossed, c1_squared].map(|held| held.first(out.len()));
        let (packing, bytes) = &self.kept;
        match component {
            0 => {
                packing.unpack_limb(kernel, bytes, [ciphertext, 0, limb], 2, c0);
                packing.unpack_limb(kernel, bytes, [ciphertext, 1, limb], 0, c1);
                kernel.square_into(m, c0, c1, [out, crossed, c1_squared]);
            }
            // Asked for after component 0 of the same.
            1 => out.copy_from_slice(crossed),
            _ => {
                packing.unpack_limb(kernel, bytes, [ciphertext, 1, limb], 1, c1);
                // Unlike the others below q, never q itself: it is transformed.
                kernel.mul_into(m, c1, c1, out);
            }
        }
    }

    fn store(&mut self, ciphertext: usize, component: usize, limb: usize, residues: &[u64]) {
        let (packing, bytes) = &mut self.kept;
        packing.pack_limb(self.context.kernel(), bytes, ciphertext, component, limb, residues);
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
            let mut runs: Vec<StoredRows> = Vec::new();
            for row in 0..rows {
                let found = stored.find(row);
                if !runs.last_mut().is_some_and(|run| run.take_in(&found)) {
                    runs.push(found);
                }
            }
            assert_eq!(runs.len(), rows.div_ceil(GROUP_ROWS), "{rows} rows");
            assert!(!runs[0].clone().take_in(&stored.find(0)), "rows that do not follow");
            for columns in [16, 64] {
                let mut row = 0;
                for run in &runs {
                    let mut words = vec![0; run.count * 2 * columns];
                    stored.load_into(kernel, run, 1, 128, &mut words);
                    for words in words.chunks_exact(2 * columns) {
                        let expected: Vec<u64> =
                            (0..2 * columns).map(|i| value(1, row, i / columns, 128 + i % columns)).collect();
                        assert_eq!(words, expected, "{rows} rows, row {row}, {columns} columns");
                        row += 1;
                    }
                }
                assert_eq!(row, rows);
            }
        }
    }
}
