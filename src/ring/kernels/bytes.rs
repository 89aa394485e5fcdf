//! Block products on byte digits: what the AVX-512 VNNI and the AMX tier share. Where weights do not fit a byte, the VNNI tier multiplies 16-bit words instead.
//!
//! A residue below 2^(8 P) is P unsigned bytes, a weight one to three signed bytes. The tiers' micro-kernels sum products of one
//! byte of each in 32-bit integers; here residues are split before, and sums are put together and reduced after.
//!
//! A *quad* is four columns of the block, a *strip* 16 neighbouring residues of every column. A *unit* is one byte plane of a strip:
//! `[quad][residue][4]`, a line a quad. Units are ordered `[strip][plane]`. *Sums* are `[group][unit][row of 16][residue]`, 32-bit.
//!
//! Of words, planes are of as many bits, 10 to 15, as leave room for the products of the row with most weight; a line is `[residue][2]`, two columns.

use super::avx512ifma::{self, LANES, Wide, load, load_start, store};
use super::block::{BlockOperands, BlockScratch, BlockWork, Magnitudes};
use super::{Kernel, Modulus, Tier, amx, avx512vnni};
use core::arch::x86_64::*;

/// Residues of a strip.
const STRIP: usize = 16;
/// Strips computed together.
const STRIPS: usize = 2;
/// Most columns whose byte products fit 32-bit sums: 255 * 128 * 65793 < 2^31.
const MOST_COLUMNS: usize = 65_793;
/// Sums of this many planes, put together, are below 2^48 in magnitude.
const LOW_PLANES: usize = 3;
/// The same of planes of up to 15 bits; the others, three at most, are below 2^62.
const LOW_SHORT_PLANES: usize = 2;
/// Lines of a unit's sums: 16 rows.
pub(super) const SUM_LINES: usize = 16;

/// A cache line of bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

/// The micro-kernel of a tier.
#[derive(Clone, Copy, Debug)]
enum Micro {
    Vnni(avx512vnni::Token),
    /// On 16-bit words, with planes of so many bits.
    Shorts(avx512vnni::Token, u32),
    Amx(amx::Token),
}

impl Micro {
    /// Rows of a group at most, groups computed at once, columns of a step.
    fn shape(self) -> (usize, usize, usize) {
        match self {
            Self::Vnni(_) => (avx512vnni::GROUP_ROWS, 1, 4),
            Self::Shorts(..) => (avx512vnni::GROUP_ROWS, 1, 2),
            Self::Amx(_) => (amx::GROUP_ROWS, 2, 64),
        }
    }

    /// Bits of a plane, and bytes of a weight.
    fn digits(self) -> (u32, usize) {
        match self {
            Self::Shorts(_, bits) => (bits, 2),
            _ => (8, 1),
        }
    }
}

/// A dense block's weights as signed bytes.
#[derive(Clone, Debug)]
pub(super) struct PackedBytes {
    wide: avx512ifma::Token,
    micro: Micro,
    pub rows: usize,
    pub columns: usize,
    layout: Layout,
    /// No sum of products of one digit is further from zero than so many times the largest residue.
    largest_row: u64,
    /// Digits counting 1, 2^8, ..: groups of [`Layout::group_lines`] lines.
    digits: Vec<Vec<Line>>,
}

/// Weights of a group are `[step][row][column of the step]`; rows, columns and the group's last line are filled up with zeros.
#[derive(Clone, Copy, Debug)]
struct Layout {
    groups: usize,
    group_rows: usize,
    steps: usize,
    step_columns: usize,
    weight_bytes: usize,
}

impl Layout {
    fn new(micro: Micro, rows: usize, columns: usize) -> Self {
        let (most_rows, _, step_columns) = micro.shape();
        // Rows that fill up the last group are computed for nothing, and half as many in a group need hardly more time each.
        let group_rows = match micro {
            Micro::Vnni(_) | Micro::Shorts(..) => {
                (most_rows / 2..=most_rows).rev().min_by_key(|&of| rows.next_multiple_of(of))
            }
            Micro::Amx(_) => None,
        };
        let groups = rows.div_ceil(group_rows.unwrap_or(most_rows));
        let (_, weight_bytes) = micro.digits();
        let steps = columns.div_ceil(step_columns);
        Self { groups, group_rows: rows.div_ceil(groups.max(1)), steps, step_columns, weight_bytes }
    }

    /// Lines of a unit.
    fn quads(&self) -> usize {
        self.steps * self.step_columns * self.weight_bytes / 4
    }

    fn group_lines(&self) -> usize {
        (self.steps * self.group_rows * self.step_columns * self.weight_bytes).div_ceil(64)
    }

    /// One digit of row-major weights.
    fn pack(&self, columns: usize, digits: impl Iterator<Item = i16>) -> Vec<Line> {
        let mut lines = vec![Line([0; 64]); self.groups * self.group_lines()];
        for (i, digit) in digits.enumerate() {
            let (row, column) = (i / columns, i % columns);
            let (group, in_group) = (row / self.group_rows, row % self.group_rows);
            let (step, in_step) = (column / self.step_columns, column % self.step_columns);
            let at = ((step * self.group_rows + in_group) * self.step_columns + in_step) * self.weight_bytes;
            let line = &mut lines[group * self.group_lines() + at / 64].0;
            line[at % 64..][..self.weight_bytes].copy_from_slice(&digit.to_le_bytes()[..self.weight_bytes]);
        }
        lines
    }
}

impl PackedBytes {
    /// Packs weights if the kernel multiplies bytes, and does so faster than words.
    pub fn where_faster(kernel: Kernel, rows: usize, columns: usize, weights: &[i16]) -> Option<Self> {
        let magnitudes = Magnitudes::new(columns, weights);
        let fit_bytes = weights.iter().all(|&w| i8::try_from(w).is_ok());
        let (wide, micro) = micro_for(kernel, rows, columns, (!fit_bytes).then_some(magnitudes))?;
        let layout = Layout::new(micro, rows, columns);
        let mut digits = Vec::new();
        if let Micro::Shorts(..) = micro {
            digits.push(layout.pack(columns, weights.iter().copied()));
        }
        let mut rest: Vec<i32> = weights.iter().map(|&w| i32::from(w)).collect();
        while digits.is_empty() || layout.weight_bytes == 1 && rest.iter().any(|&w| w != 0) {
            // The low byte as a signed digit; what is left is a multiple of 2^8.
            digits.push(layout.pack(columns, rest.iter().map(|&w| i16::from(w as i8))));
            rest.iter_mut().for_each(|w| *w = (*w - i32::from(*w as i8)) >> 8);
        }
        // A digit reaches 128.
        let largest_row = if digits.len() > 1 { 128 * columns as u64 } else { magnitudes.largest_row };
        Some(Self { wide, micro, rows, columns, layout, largest_row, digits })
    }

    /// See [`super::PackedBlock::mul_add_into`].
    pub fn mul_add_into(&self, m: &Modulus, operands: &BlockOperands<'_>, scratch: &mut BlockScratch, out: &mut [u64]) {
        let (plane_bits, _) = self.micro.digits();
        let planes = m.bits().div_ceil(plane_bits) as usize;
        let quads = self.layout.quads();
        let (_, groups_at_once, _) = self.micro.shape();
        let strips = operands.row_words.div_ceil(STRIP);
        let units = grow(&mut scratch.units, strips * planes * quads);
        split_into(self.wide, self.micro, operands, planes, quads, units);
        let sums = grow(&mut scratch.sums, groups_at_once * STRIPS * planes * SUM_LINES);
        let group_rows = self.layout.group_rows;
        let group_lines = self.layout.group_lines();
        for (digit, weights) in self.digits.iter().enumerate() {
            let operands = if digit == 0 { *operands } else { operands.held() };
            let epilogue = Epilogue { m, planes, plane_bits, digit, largest_row: self.largest_row, operands };
            for (at, units) in units.chunks(STRIPS * planes * quads).enumerate() {
                let unit_count = units.len() / quads;
                for (pair, weights) in weights.chunks(groups_at_once * group_lines).enumerate() {
                    match self.micro {
                        Micro::Vnni(token) => {
                            avx512vnni::sums_into::<false>(token, group_rows, weights, units, quads, sums);
                        }
                        Micro::Shorts(token, _) => {
                            avx512vnni::sums_into::<true>(token, group_rows, weights, units, quads, sums);
                        }
                        Micro::Amx(token) => amx::sums_into(token, group_rows, weights, units, quads, sums),
                    }
                    let first_row = pair * groups_at_once * group_rows;
                    let group_sums = sums.chunks(unit_count * SUM_LINES);
                    for (sums, rows) in
                        group_sums.zip(operands.rows[first_row..].chunks(group_rows)).take(groups_at_once)
                    {
                        epilogue_add(self.wide, &epilogue, sums, rows, at * STRIPS * STRIP, out);
                    }
                }
            }
        }
    }
}

/// The micro-kernel of a kernel that multiplies bytes, where it is the faster way for a block of this shape. `wide_weights` are the magnitudes of weights that do
/// not fit bytes.
fn micro_for(
    kernel: Kernel,
    rows: usize,
    columns: usize,
    wide_weights: Option<Magnitudes>,
) -> Option<(avx512ifma::Token, Micro)> {
    let (wide, micro) = match kernel.0 {
        Tier::Avx512Vnni(wide, token) => {
            let shorts = wide_weights.and_then(Magnitudes::short_bits);
            (wide, shorts.map_or(Micro::Vnni(token), |bits| Micro::Shorts(token, bits)))
        }
        Tier::Amx(wide, token) => (wide, Micro::Amx(token)),
        _ => return None,
    };
    (columns <= MOST_COLUMNS && is_faster(micro, rows, columns)).then_some((wide, micro))
}

/// See [`BlockWork::new`]; `None` where the block is multiplied as words.
pub(super) fn work(
    kernel: Kernel,
    rows: usize,
    columns: usize,
    magnitudes: Magnitudes,
    modulus_bits: u32,
) -> Option<BlockWork> {
    let (_, micro) = micro_for(kernel, rows, columns, (magnitudes.largest > 127).then_some(magnitudes))?;
    let layout = Layout::new(micro, rows, columns);
    let (plane_bits, weight_bytes) = micro.digits();
    let planes = u64::from(modulus_bits.div_ceil(plane_bits));
    // Signed digits: one reaches 127, two 127 * 256 + 127. Words need no second one.
    let digits = match magnitudes.largest {
        _ if weight_bytes == 2 => 1,
        0..=127 => 1,
        128..=32_639 => 2,
        _ => 3,
    };
    let padded = (layout.groups * layout.group_rows * layout.steps * layout.step_columns) as u64;
    Some(BlockWork {
        // A product of words takes the time of two of bytes.
        byte_products: digits * planes * padded * weight_bytes as u64,
        split_bytes: planes * columns as u64 * weight_bytes as u64,
        joined_bytes: digits * planes * rows as u64,
        ..BlockWork::default()
    })
}

/// Compares what 16 residues of every row cost as bytes (products, splitting the inputs, reducing the outputs) and as words: cycles as measured
/// on a Sapphire Rapids server. Which form computes changes no result.
fn is_faster(micro: Micro, rows: usize, columns: usize) -> bool {
    const PLANES: f64 = 5.0;
    let (r, k) = (rows as f64, columns as f64);
    let products = match micro {
        // Words by the measure of bytes: whole residues would be multiplied as two halves.
        Micro::Vnni(_) | Micro::Shorts(..) => 0.15 * PLANES * r * k,
        Micro::Amx(_) => 1.3 * PLANES * r * columns.div_ceil(64) as f64,
    };
    products + 6.0 * k + 24.0 * r < 1.67 * r * k
}

fn grow(buffer: &mut Vec<Line>, lines: usize) -> &mut [Line] {
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 64]));
    }
    &mut buffer[..lines]
}

fn split_into(
    _: avx512ifma::Token,
    micro: Micro,
    operands: &BlockOperands<'_>,
    planes: usize,
    quads: usize,
    units: &mut [Line],
) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callees enable.
    unsafe {
        match micro {
            Micro::Shorts(_, bits) => split_shorts(operands, bits, planes, quads, units),
            _ => split(operands, planes, quads, units),
        }
    }
}

/// Residues to units of words, planes of so many bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn split_shorts(operands: &BlockOperands<'_>, bits: u32, planes: usize, lines: usize, units: &mut [Line]) {
    match planes {
        0..=4 => split_shorts_into::<1>(operands, bits, planes, lines, units),
        _ => split_shorts_into::<2>(operands, bits, planes, lines, units),
    }
}

/// `FOURS` times four planes at most: of each residue the words of four are cut out at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn split_shorts_into<const FOURS: usize>(
    operands: &BlockOperands<'_>,
    bits: u32,
    planes: usize,
    lines: usize,
    units: &mut [Line],
) {
    let &BlockOperands { x, columns, row_words, .. } = operands;
    let mask = _mm512_set1_epi16(((1i32 << bits) - 1) as i16);
    let zero = _mm512_setzero_si512();
    // Byte by byte of a word of four planes, the bit from which it is taken. None of a residue's planes begins beyond the word.
    let mut taken = [zero; FOURS];
    for (four, taken) in taken.iter_mut().enumerate() {
        let from = |byte: u64| (u64::from(bits) * (4 * four as u64 + byte / 2) + byte % 2 * 8) % 64;
        *taken = _mm512_set1_epi64((0..8).fold(0, |word, byte| word | from(byte) << (8 * byte)) as i64);
    }
    for (strip, units) in units.chunks_exact_mut(planes * lines).enumerate() {
        let first = strip * STRIP;
        let whole = first + STRIP <= row_words;
        let residues = |column: u32| {
            let start = column as usize * row_words + first;
            [load(x, start), if whole { load(x, start + LANES) } else { zero }]
        };
        for (line, pair) in columns.chunks(2).enumerate() {
            let a = residues(pair[0]);
            let b = if let &[_, column] = pair { residues(column) } else { [zero; 2] };
            for (four, &taken) in taken.iter().enumerate() {
                let digits = |x: __m512i| _mm512_and_si512(_mm512_multishift_epi64_epi8(taken, x), mask);
                // `[two residues][two planes][residue][column]`, planes 0 and 1, then 2 and 3.
                let planes_in_twos = |half: usize| {
                    let (a, b) = (digits(a[half]), digits(b[half]));
                    let (even, odd) = (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
                    [_mm512_unpacklo_epi32(even, odd), _mm512_unpackhi_epi32(even, odd)]
                };
                let (low, high) = (planes_in_twos(0), planes_in_twos(1));
                for plane in 4 * four..planes.min(4 * four + 4) {
                    let of_two = if plane % 2 == 0 { even_longs() } else { odd_longs() };
                    let two = plane % 4 / 2;
                    let digits = _mm512_permutex2var_epi64(low[two], of_two, high[two]);
                    store_line(&mut units[plane * lines + line], digits);
                }
            }
        }
    }
}

/// Residues to units, all strips of a tile.
#[target_feature(enable = "avx512f,avx512bw")]
fn split(operands: &BlockOperands<'_>, planes: usize, quads: usize, units: &mut [Line]) {
    match planes {
        5 => split_planes::<5>(operands, quads, units),
        6 => split_planes::<6>(operands, quads, units),
        _ => split_planes::<7>(operands, quads, units),
    }
}

/// Into P planes: of the residues' high words, which are below 2^(8 (P - 4)), only the bytes that they can have are looked for.
#[target_feature(enable = "avx512f,avx512bw")]
fn split_planes<const P: usize>(operands: &BlockOperands<'_>, quads: usize, units: &mut [Line]) {
    let &BlockOperands { x, columns, row_words, .. } = operands;
    for (strip, units) in units.chunks_exact_mut(P * quads).enumerate() {
        let first = strip * STRIP;
        let whole = first + STRIP <= row_words;
        for (quad, columns) in columns.chunks(4).enumerate() {
            // Low and high 32 bits of 16 residues of each column.
            let mut low = [_mm512_setzero_si512(); 4];
            let mut high = low;
            if let &[c0, c1, c2, c3] = columns
                && whole
            {
                for (at, column) in [c0, c1, c2, c3].into_iter().enumerate() {
                    let row = &x[column as usize * row_words + first..][..STRIP];
                    (low[at], high[at]) = words_apart(load(row, 0), load(row, LANES));
                }
            } else {
                for (at, &column) in columns.iter().enumerate() {
                    let start = column as usize * row_words + first;
                    let b = if whole { load(x, start + LANES) } else { _mm512_setzero_si512() };
                    (low[at], high[at]) = words_apart(load(x, start), b);
                }
            }
            for (plane, line) in transpose(low).into_iter().enumerate() {
                store_line(&mut units[plane * quads + quad], line);
            }
            match P {
                5 => store_line(&mut units[4 * quads + quad], lowest_bytes(high)),
                6 => {
                    let [fourth, fifth] = two_lowest_bytes(high);
                    store_line(&mut units[4 * quads + quad], fourth);
                    store_line(&mut units[5 * quads + quad], fifth);
                }
                _ => {
                    for (plane, line) in (4..P).zip(transpose(high)) {
                        store_line(&mut units[plane * quads + quad], line);
                    }
                }
            }
        }
        // Columns that fill up the last step.
        for unit in units.chunks_exact_mut(quads) {
            unit[columns.len().div_ceil(4)..].fill(Line([0; 64]));
        }
    }
}

/// Low and high 32 bits of eight words and eight more.
#[inline]
#[target_feature(enable = "avx512f")]
fn words_apart(a: __m512i, b: __m512i) -> (__m512i, __m512i) {
    (_mm512_permutex2var_epi32(a, even_words(), b), _mm512_permutex2var_epi32(a, odd_words(), b))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn even_words() -> __m512i {
    _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn odd_words() -> __m512i {
    _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn even_longs() -> __m512i {
    _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn odd_longs() -> __m512i {
    _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1)
}

/// In each 32-bit lane, byte `p` of result `r` is byte `r` of input `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(x: [__m512i; 4]) -> [__m512i; 4] {
    const ODD_PAIRS: u32 = 0xaaaa_aaaa;
    let ([e0, o0], [e1, o1]) = (interleave(x[0], x[1]), interleave(x[2], x[3]));
    let low = |a, b| _mm512_mask_blend_epi16(ODD_PAIRS, a, _mm512_slli_epi32::<16>(b));
    let high = |a, b| _mm512_mask_blend_epi16(ODD_PAIRS, _mm512_srli_epi32::<16>(a), b);
    [low(e0, e1), low(o0, o1), high(e0, e1), high(o0, o1)]
}

/// In each pair of bytes: both even ones, and both odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(a: __m512i, b: __m512i) -> [__m512i; 2] {
    const ODD_BYTES: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    [
        _mm512_mask_blend_epi8(ODD_BYTES, a, _mm512_slli_epi16::<8>(b)),
        _mm512_mask_blend_epi8(ODD_BYTES, _mm512_srli_epi16::<8>(a), b),
    ]
}

/// The first result of [`transpose`], of inputs below 2^8.
#[inline]
#[target_feature(enable = "avx512f")]
fn lowest_bytes(x: [__m512i; 4]) -> __m512i {
    let pair = |a, b| _mm512_or_si512(a, _mm512_slli_epi32::<8>(b));
    _mm512_or_si512(pair(x[0], x[1]), _mm512_slli_epi32::<16>(pair(x[2], x[3])))
}

/// The first two results of [`transpose`], of inputs below 2^16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn two_lowest_bytes(x: [__m512i; 4]) -> [__m512i; 2] {
    let pair = |a, b| _mm512_or_si512(a, _mm512_slli_epi32::<16>(b));
    interleave(pair(x[0], x[2]), pair(x[1], x[3]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_line(line: &mut Line, value: __m512i) {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_store_si512((&raw mut line.0).cast(), value) }
}

/// How sums of one digit become residues.
struct Epilogue<'a> {
    m: &'a Modulus,
    planes: usize,
    plane_bits: u32,
    digit: usize,
    /// See [`PackedBytes`].
    largest_row: u64,
    operands: BlockOperands<'a>,
}

/// Adds a group's sums to the outputs of its rows, from residue `first` of each row on.
fn epilogue_add(
    _: avx512ifma::Token,
    epilogue: &Epilogue<'_>,
    sums: &[Line],
    rows: &[u32],
    first: usize,
    out: &mut [u64],
) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { epilogue.add(sums, rows, first, out) }
}

impl Epilogue<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn add(&self, sums: &[Line], rows: &[u32], first: usize, out: &mut [u64]) {
        // All planes of a sum of products w x, x <= q, in one word?
        let shorts = self.plane_bits != 8;
        let one_word = self.m.value().checked_mul(self.largest_row).is_some_and(|sum| sum < 1 << 62);
        match (shorts, self.planes, one_word) {
            (false, 5, true) => self.add_planes::<5, true, false>(sums, rows, first, out),
            (false, 6, true) => self.add_planes::<6, true, false>(sums, rows, first, out),
            (false, 7, true) => self.add_planes::<7, true, false>(sums, rows, first, out),
            (false, 5, false) => self.add_planes::<5, false, false>(sums, rows, first, out),
            (false, 6, false) => self.add_planes::<6, false, false>(sums, rows, first, out),
            (false, _, false) => self.add_planes::<7, false, false>(sums, rows, first, out),
            (true, 3, true) => self.add_planes::<3, true, true>(sums, rows, first, out),
            (true, 4, true) => self.add_planes::<4, true, true>(sums, rows, first, out),
            (true, 5, true) => self.add_planes::<5, true, true>(sums, rows, first, out),
            (true, 3, false) => self.add_planes::<3, false, true>(sums, rows, first, out),
            (true, 4, false) => self.add_planes::<4, false, true>(sums, rows, first, out),
            (true, 5, false) => self.add_planes::<5, false, true>(sums, rows, first, out),
            (_, planes, _) => unreachable!("{planes} planes of {} bits", self.plane_bits),
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn add_planes<const P: usize, const ONE_WORD: bool, const SHORTS: bool>(
        &self,
        sums: &[Line],
        rows: &[u32],
        first: usize,
        out: &mut [u64],
    ) {
        let wide = Wide::new(self.m);
        let factor = |power: u32| {
            let f = self.m.shoup(self.m.reduce(1 << power));
            (_mm512_set1_epi64(f.value as i64), _mm512_set1_epi64(f.quotient as i64))
        };
        let low_planes = if SHORTS { LOW_SHORT_PLANES } else { LOW_PLANES };
        let (high_value, high_quotient) = factor(self.plane_bits * low_planes as u32);
        let plane_bits = _mm_cvtsi64_si128(self.plane_bits.into());
        let (digit_value, digit_quotient) = factor(8 * self.digit as u32);
        let offset = _mm512_set1_epi64(self.m.positive_offset() as i64);
        let reduce = |sum| wide.reduce(_mm512_add_epi64(sum, offset));
        for (strip, sums) in sums.chunks_exact(P * SUM_LINES).enumerate() {
            for (row, &out_row) in rows.iter().enumerate() {
                for half in 0..2 {
                    let v = first + strip * STRIP + half * LANES;
                    if v >= self.operands.row_words {
                        break;
                    }
                    let plane = |p: usize| load_sums(&sums[p * SUM_LINES + row], half);
                    // A loop: a closure given to `fold` would be compiled without the features.
                    let join = |planes: core::ops::Range<usize>| {
                        let mut sum = _mm512_setzero_si512();
                        for p in planes.rev() {
                            sum = if SHORTS { _mm512_sll_epi64(sum, plane_bits) } else { _mm512_slli_epi64::<8>(sum) };
                            sum = _mm512_add_epi64(sum, plane(p));
                        }
                        sum
                    };
                    let start = load_start(&self.operands, out_row, v, out);
                    let place = out_row as usize * self.operands.row_words + v;
                    if ONE_WORD && self.digit == 0 {
                        // Below 2^62 in magnitude: a residue more still fits a word.
                        store(out, place, reduce(_mm512_add_epi64(join(0..P), start)));
                        continue;
                    }
                    let mut residues = if ONE_WORD {
                        reduce(join(0..P))
                    } else {
                        let high = reduce(join(low_planes..P));
                        wide.add(reduce(join(0..low_planes)), wide.mul_shoup(high, high_value, high_quotient))
                    };
                    if self.digit > 0 {
                        residues = wide.mul_shoup(residues, digit_value, digit_quotient);
                    }
                    store(out, place, wide.add(start, residues));
                }
            }
        }
    }
}

/// Half a line of 32-bit sums, widened.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_sums(line: &Line, half: usize) -> __m512i {
    let bytes: &[u8] = &line.0[half * 32..half * 32 + 32];
    // SAFETY: the slice holds 32 bytes; the load has no alignment requirement.
    _mm512_cvtepi32_epi64(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}
