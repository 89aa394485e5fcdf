//! Block products on byte digits: what the AVX-512 VNNI and the AMX tier share.
//!
//! A residue below 2^(8 P) is P unsigned bytes, a weight one to three signed bytes. The tiers' micro-kernels sum products of one
//! byte of each in 32-bit integers; here residues are split before, and sums are put together and reduced after.
//!
//! A *quad* is four columns of the block, a *strip* 16 neighbouring residues of every column. A *unit* is one byte plane of a strip:
//! `[quad][residue][4]`, a line a quad. Units are ordered `[strip][plane]`. *Sums* are `[group][unit][row of 16][residue]`, 32-bit.

use super::avx512ifma::{self, LANES, Wide, load, load_start, store};
use super::block::{BlockOperands, BlockScratch, BlockWork};
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
    Amx(amx::Token),
}

impl Micro {
    /// Rows of a group at most, groups computed at once, columns of a step.
    fn shape(self) -> (usize, usize, usize) {
        match self {
            Self::Vnni(_) => (avx512vnni::GROUP_ROWS, 1, 4),
            Self::Amx(_) => (amx::GROUP_ROWS, 2, 64),
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
}

impl Layout {
    fn new(micro: Micro, rows: usize, columns: usize) -> Self {
        let (most_rows, _, step_columns) = micro.shape();
        // Rows that fill up the last group are computed for nothing, and half as many in a group need hardly more time each.
        let group_rows = match micro {
            Micro::Vnni(_) => (most_rows / 2..=most_rows).rev().min_by_key(|&of| rows.next_multiple_of(of)),
            Micro::Amx(_) => None,
        };
        let groups = rows.div_ceil(group_rows.unwrap_or(most_rows));
        Self { groups, group_rows: rows.div_ceil(groups.max(1)), steps: columns.div_ceil(step_columns), step_columns }
    }

    /// Quads of a unit.
    fn quads(&self) -> usize {
        self.steps * self.step_columns / 4
    }

    fn group_lines(&self) -> usize {
        (self.steps * self.group_rows * self.step_columns).div_ceil(64)
    }

    /// One digit of row-major weights.
    fn pack(&self, columns: usize, digits: impl Iterator<Item = i8>) -> Vec<Line> {
        let mut lines = vec![Line([0; 64]); self.groups * self.group_lines()];
        for (i, digit) in digits.enumerate() {
            let (row, column) = (i / columns, i % columns);
            let (group, in_group) = (row / self.group_rows, row % self.group_rows);
            let (step, in_step) = (column / self.step_columns, column % self.step_columns);
            let at = (step * self.group_rows + in_group) * self.step_columns + in_step;
            lines[group * self.group_lines() + at / 64].0[at % 64] = digit as u8;
        }
        lines
    }
}

impl PackedBytes {
    /// Packs weights if the kernel multiplies bytes, and does so faster than words.
    pub fn where_faster(kernel: Kernel, rows: usize, columns: usize, weights: &[i16]) -> Option<Self> {
        let (wide, micro) = micro_for(kernel, rows, columns)?;
        let layout = Layout::new(micro, rows, columns);
        let mut rest: Vec<i32> = weights.iter().map(|&w| i32::from(w)).collect();
        let mut digits = Vec::new();
        while digits.is_empty() || rest.iter().any(|&w| w != 0) {
            // The low byte as a signed digit; what is left is a multiple of 2^8.
            digits.push(layout.pack(columns, rest.iter().map(|&w| w as i8)));
            rest.iter_mut().for_each(|w| *w = (*w - i32::from(*w as i8)) >> 8);
        }
        Some(Self { wide, micro, rows, columns, layout, digits })
    }

    /// See [`super::PackedBlock::mul_add_into`].
    pub fn mul_add_into(&self, m: &Modulus, operands: &BlockOperands<'_>, scratch: &mut BlockScratch, out: &mut [u64]) {
        let planes = m.bits().div_ceil(8) as usize;
        let quads = self.layout.quads();
        let (_, groups_at_once, _) = self.micro.shape();
        let strips = operands.row_words.div_ceil(STRIP);
        let units = grow(&mut scratch.units, strips * planes * quads);
        split_into(self.wide, operands, planes, quads, units);
        let sums = grow(&mut scratch.sums, groups_at_once * STRIPS * planes * SUM_LINES);
        let group_rows = self.layout.group_rows;
        let group_lines = self.layout.group_lines();
        for (digit, weights) in self.digits.iter().enumerate() {
            let operands = if digit == 0 { *operands } else { operands.held() };
            let epilogue = Epilogue { m, planes, digit, operands };
            for (at, units) in units.chunks(STRIPS * planes * quads).enumerate() {
                let unit_count = units.len() / quads;
                for (pair, weights) in weights.chunks(groups_at_once * group_lines).enumerate() {
                    match self.micro {
                        Micro::Vnni(token) => avx512vnni::sums_into(token, group_rows, weights, units, quads, sums),
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

/// The micro-kernel of a kernel that multiplies bytes, where it is the faster way for a block of this shape.
fn micro_for(kernel: Kernel, rows: usize, columns: usize) -> Option<(avx512ifma::Token, Micro)> {
    let (wide, micro) = match kernel.0 {
        Tier::Avx512Vnni(wide, token) => (wide, Micro::Vnni(token)),
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
    largest_weight: u16,
    modulus_bits: u32,
) -> Option<BlockWork> {
    let (_, micro) = micro_for(kernel, rows, columns)?;
    let layout = Layout::new(micro, rows, columns);
    let planes = u64::from(modulus_bits.div_ceil(8));
    // Signed digits: one reaches 127, two 127 * 256 + 127.
    let digits = match largest_weight {
        0..=127 => 1,
        128..=32_639 => 2,
        _ => 3,
    };
    let padded = (layout.groups * layout.group_rows * layout.steps * layout.step_columns) as u64;
    Some(BlockWork {
        byte_products: digits * planes * padded,
        split_bytes: planes * columns as u64,
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
        Micro::Vnni(_) => 0.15 * PLANES * r * k,
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

fn split_into(_: avx512ifma::Token, operands: &BlockOperands<'_>, planes: usize, quads: usize, units: &mut [Line]) {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { split(operands, planes, quads, units) }
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
    digit: usize,
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
        // All planes of a sum of products w x, |w| <= 128, x <= q, in one word?
        let columns = self.operands.columns.len() as u64;
        let one_word = (128 * self.m.value()).checked_mul(columns).is_some_and(|sum| sum < 1 << 62);
        match (self.planes, one_word) {
            (5, true) => self.add_planes::<5, true>(sums, rows, first, out),
            (6, true) => self.add_planes::<6, true>(sums, rows, first, out),
            (7, true) => self.add_planes::<7, true>(sums, rows, first, out),
            (5, false) => self.add_planes::<5, false>(sums, rows, first, out),
            (6, false) => self.add_planes::<6, false>(sums, rows, first, out),
            _ => self.add_planes::<7, false>(sums, rows, first, out),
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn add_planes<const P: usize, const ONE_WORD: bool>(
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
        let (high_value, high_quotient) = factor(8 * LOW_PLANES as u32);
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
                            sum = _mm512_add_epi64(_mm512_slli_epi64::<8>(sum), plane(p));
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
                        let high = reduce(join(LOW_PLANES..P));
                        wide.add(reduce(join(0..LOW_PLANES)), wide.mul_shoup(high, high_value, high_quotient))
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
