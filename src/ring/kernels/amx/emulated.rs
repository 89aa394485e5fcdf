//! The six AMX instructions of this tier in software, for tests on a CPU without them.
//!
//! There each raises SIGILL. The handler decodes it, carries it out on tile registers of the thread as Intel's manual has it (Software Developer's
//! Manual, volume 2), and goes on behind it. A use that the manual gives an exception for, or that the tier has no business with, aborts the process
//! with a reason; any other illegal instruction ends it as it would have. Addressing is decoded as far as the tier uses it: a base, for loads and
//! stores an index, a displacement. Nothing here allocates or takes a lock: it runs wherever a thread was interrupted.

use super::{GROUP_ROWS, Line, SUM_LINES, Token, cpu_has_amx_int8, sums_into};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::{mem, ptr};
use std::sync::OnceLock;

/// Tile registers of palette 1, their rows and the bytes of each row.
const TILES: usize = 8;
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// General registers by their number in an instruction, as indices into a signal context.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

thread_local! {
    static STATE: UnsafeCell<TileState> = const { UnsafeCell::new(TileState::INITIAL) };
}

impl Token {
    /// On emulated instructions; `None` where the CPU has its own.
    pub fn emulated() -> Option<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        INSTALLED.get_or_init(|| !cpu_has_amx_int8() && handle_illegal_instructions()).then_some(Self(()))
    }
}

fn handle_illegal_instructions() -> bool {
    // SAFETY: a zeroed action is a valid one, with an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = on_illegal_instruction as *const () as usize;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does nothing that a signal handler must not.
    unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) == 0 }
}

extern "C" fn on_illegal_instruction(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's context, and nobody else's while its handler runs.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let mut is_first = true;
    // Instructions of ours that follow are carried out at once: a signal takes longer than most of them.
    loop {
        let at = registers[libc::REG_RIP as usize] as *const u8;
        // SAFETY: bytes are read one by one, each only where those before it are the beginning of an instruction that the thread has come to.
        let mut bytes = (0..).map(|i| unsafe { *at.add(i) });
        let Some((instruction, length)) = decode(&mut bytes) else { break };
        // SAFETY: only this handler names the thread's state, and SIGILL is blocked while it runs. The memory is what the instruction may use.
        let outcome = STATE.with(|state| unsafe { (*state.get()).carry_out(instruction, registers) });
        if let Err(reason) = outcome {
            die_of(reason);
        }
        registers[libc::REG_RIP as usize] += length as i64;
        is_first = false;
    }
    if is_first {
        // SAFETY: as above; the instruction is met again, and nobody catches it.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
}

fn die_of(reason: &str) -> ! {
    for text in ["emulated AMX: ", reason, "\n"] {
        // SAFETY: the buffer is as long as it says; both calls may be made from a signal handler.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: as above.
    unsafe { libc::abort() }
}

/// An operand in memory: general registers by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    base: usize,
    /// Its value is multiplied with `2^shift`.
    index: Option<usize>,
    shift: u32,
    displacement: i64,
}

impl Place {
    fn start(&self, registers: &[i64]) -> *mut u8 {
        (registers[GENERAL[self.base] as usize].wrapping_add(self.displacement)) as *mut u8
    }

    /// What the index adds: from row to row of a tile.
    fn stride(&self, registers: &[i64]) -> isize {
        self.index.map_or(0, |index| (registers[GENERAL[index] as usize] << self.shift) as isize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Configure(Place),
    Release,
    Zero(usize),
    Load(usize, Place),
    Store(usize, Place),
    Product { sums: usize, signed: usize, unsigned: usize },
}

/// The instruction that the bytes begin with, and its length; `None` if it is none of ours. No byte behind it is read.
fn decode(bytes: &mut dyn Iterator<Item = u8>) -> Option<(Instruction, usize)> {
    /// Mandatory prefixes, as VEX has them.
    const NONE: u8 = 0;
    const F3: u8 = 2;
    const F2: u8 = 3;
    let mut length = 0;
    let mut next = || {
        length += 1;
        bytes.next()
    };
    if next()? != 0xc4 {
        return None;
    }
    let (first, second) = (next()?, next()?);
    // Bits 4 to the registers' numbers and the third operand are written inverted. Map 0F38, W and L zero.
    let [r, x, b] = [7, 6, 5].map(|bit| usize::from(!first >> bit & 1) << 3);
    let third = usize::from(!second >> 3 & 15);
    if first & 31 != 2 || second & 0b1000_0100 != 0 {
        return None;
    }
    let (opcode, modrm) = (next()?, next()?);
    let (mode, reg, low) = (modrm >> 6, r | usize::from(modrm >> 3 & 7), modrm & 7);
    let mut place = || {
        let (base, index, shift) = if low == 4 {
            let sib = next()?;
            // The stack pointer's number means none.
            let index = Some(x | usize::from(sib >> 3 & 7)).filter(|&index| index != 4);
            (b | usize::from(sib & 7), index, u32::from(sib >> 6))
        } else {
            (b | usize::from(low), None, 0)
        };
        let displacement = match mode {
            // The base pointer's number means an address without it.
            0 if base & 7 == 5 => return None,
            0 => 0,
            1 => i64::from(next()? as i8),
            _ => i64::from(i32::from_le_bytes([next()?, next()?, next()?, next()?])),
        };
        Some(Place { base, index, shift, displacement })
    };
    let instruction = match (opcode, second & 3, mode) {
        (0x5e, F3, 3) => Instruction::Product { sums: reg, signed: b | usize::from(low), unsigned: third },
        _ if third != 0 => return None,
        (0x49, NONE, 3) if reg == 0 && low == 0 => Instruction::Release,
        (0x49, NONE, 0..=2) if reg == 0 => Instruction::Configure(place()?),
        (0x49, F2, 3) if low == 0 => Instruction::Zero(reg),
        (0x4b, F2, 0..=2) => Instruction::Load(reg, place().filter(|place| place.index.is_some())?),
        (0x4b, F3, 0..=2) => Instruction::Store(reg, place().filter(|place| place.index.is_some())?),
        _ => return None,
    };
    Some((instruction, length))
}

type Outcome = Result<(), &'static str>;

fn require(condition: bool, otherwise: &'static str) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// Rows and bytes of a row; a register without rows is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    row_bytes: usize,
}

type Tile = [[u8; ROW_BYTES]; ROWS];

/// A thread's tile registers. What a register holds beyond its shape is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TileState {
    shapes: [Shape; TILES],
    tiles: [Tile; TILES],
}

impl TileState {
    const INITIAL: Self =
        Self { shapes: [Shape { rows: 0, row_bytes: 0 }; TILES], tiles: [[[0; ROW_BYTES]; ROWS]; TILES] };

    /// # Safety
    /// The memory that the instruction names with these registers may be read, and written where it stores.
    unsafe fn carry_out(&mut self, instruction: Instruction, registers: &[i64]) -> Outcome {
        match instruction {
            Instruction::Configure(place) => {
                let start = place.start(registers).wrapping_offset(place.stride(registers));
                // SAFETY: by the caller's promise; 64 bytes of any alignment.
                self.configure(&unsafe { start.cast::<[u8; 64]>().read_unaligned() })
            }
            Instruction::Release => {
                *self = Self::INITIAL;
                Ok(())
            }
            Instruction::Zero(tile) => self.shape(tile).map(|_| self.tiles[tile] = [[0; ROW_BYTES]; ROWS]),
            Instruction::Load(tile, place) => {
                let shape = self.shape(tile)?;
                let rows = rows_at(&place, registers);
                self.tiles[tile] = [[0; ROW_BYTES]; ROWS];
                for (row, from) in self.tiles[tile][..shape.rows].iter_mut().zip(rows) {
                    // SAFETY: by the caller's promise; a register's row holds at least `row_bytes`.
                    unsafe { ptr::copy_nonoverlapping(from, row.as_mut_ptr(), shape.row_bytes) };
                }
                Ok(())
            }
            Instruction::Store(tile, place) => {
                let shape = self.shape(tile)?;
                for (row, to) in self.tiles[tile][..shape.rows].iter().zip(rows_at(&place, registers)) {
                    // SAFETY: as for a load.
                    unsafe { ptr::copy_nonoverlapping(row.as_ptr(), to, shape.row_bytes) };
                }
                Ok(())
            }
            Instruction::Product { sums, signed, unsigned } => self.add_product(sums, signed, unsigned),
        }
    }

    fn configure(&mut self, bytes: &[u8; 64]) -> Outcome {
        require(bytes[0] == 1, "a palette other than 1")?;
        require(bytes[1..16].iter().all(|&byte| byte == 0), "a start row, or reserved bytes that are not zero")?;
        let shape = |tile: usize| Shape {
            rows: usize::from(bytes[48 + tile]),
            row_bytes: usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]])),
        };
        let all: [Shape; 16] = core::array::from_fn(shape);
        let (used, beyond) = all.split_at(TILES);
        require(beyond.iter().all(|shape| shape.rows == 0 && shape.row_bytes == 0), "a shape for a ninth register")?;
        for shape in used {
            require(shape.rows <= ROWS && shape.row_bytes <= ROW_BYTES, "a shape larger than a register")?;
            require((shape.rows == 0) == (shape.row_bytes == 0), "rows without bytes, or bytes without rows")?;
        }
        *self = Self::INITIAL;
        self.shapes.copy_from_slice(used);
        Ok(())
    }

    fn shape(&self, tile: usize) -> Result<Shape, &'static str> {
        let shape = self.shapes.get(tile).ok_or("a register beyond the eighth")?;
        require(shape.rows > 0, "a register that is not configured").map(|()| *shape)
    }

    /// `sums[m][n] += sum_k signed[m][k] unsigned[k][n]`: rows of four bytes a column k, sums of 32 bits that wrap around.
    fn add_product(&mut self, sums: usize, signed: usize, unsigned: usize) -> Outcome {
        require(sums != signed && sums != unsigned && signed != unsigned, "a product with a register named twice")?;
        let (c, a, b) = (self.shape(sums)?, self.shape(signed)?, self.shape(unsigned)?);
        require([a, b, c].iter().all(|shape| shape.row_bytes.is_multiple_of(4)), "a product with a part of a word")?;
        require(a.rows == c.rows, "a product whose sums have other rows than the signed bytes")?;
        require(a.row_bytes == 4 * b.rows, "a product of matrices that do not fit")?;
        require(b.row_bytes == c.row_bytes, "a product whose sums have other columns than the unsigned bytes")?;
        let (left, right) = (self.tiles[signed], self.tiles[unsigned]);
        for (out, left) in self.tiles[sums][..c.rows].iter_mut().zip(&left) {
            let mut row = [0; ROW_BYTES / 4];
            for (sum, word) in row.iter_mut().zip(out.as_chunks().0) {
                *sum = i32::from_le_bytes(*word);
            }
            for (left, right) in left[..a.row_bytes].as_chunks::<4>().0.iter().zip(&right) {
                for (sum, right) in row.iter_mut().zip(right.as_chunks::<4>().0) {
                    for (&s, &u) in left.iter().zip(right) {
                        *sum = sum.wrapping_add(i32::from(s as i8) * i32::from(u));
                    }
                }
            }
            for (word, sum) in out.as_chunks_mut().0.iter_mut().zip(row) {
                *word = sum.to_le_bytes();
            }
        }
        Ok(())
    }
}

/// Where the rows of a tile in memory begin.
fn rows_at(place: &Place, registers: &[i64]) -> impl Iterator<Item = *mut u8> + use<> {
    let (start, stride) = (place.start(registers), place.stride(registers));
    (0..ROWS as isize).map(move |row| start.wrapping_offset(row.wrapping_mul(stride)))
}

/// As an assembler writes them.
#[test]
fn instructions_are_decoded() {
    let place = |base, index, shift, displacement| Place { base, index, shift, displacement };
    let product = |sums, signed, unsigned| Instruction::Product { sums, signed, unsigned };
    let known: [(&[u8], Instruction); 14] = [
        // ldtilecfg [rax], [r12], [r13], [rsp + 0x40], [rbp - 0x100], [rax + 8 rbx + 1]
        (&[0xc4, 0xe2, 0x78, 0x49, 0x00], Instruction::Configure(place(0, None, 0, 0))),
        (&[0xc4, 0xc2, 0x78, 0x49, 0x04, 0x24], Instruction::Configure(place(12, None, 0, 0))),
        (&[0xc4, 0xc2, 0x78, 0x49, 0x45, 0x00], Instruction::Configure(place(13, None, 0, 0))),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x44, 0x24, 0x40], Instruction::Configure(place(4, None, 0, 0x40))),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x85, 0, 0xff, 0xff, 0xff], Instruction::Configure(place(5, None, 0, -0x100))),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x44, 0xd8, 0x01], Instruction::Configure(place(0, Some(3), 3, 1))),
        // tilerelease; tilezero tmm3
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xd8], Instruction::Zero(3)),
        // tileloadd tmm4, [r9 + r14]; tmm7, [r13 + 4 rcx - 8]; tmm0, [rax + r12 + 0x12345]
        (&[0xc4, 0x82, 0x7b, 0x4b, 0x24, 0x31], Instruction::Load(4, place(9, Some(14), 0, 0))),
        (&[0xc4, 0xc2, 0x7b, 0x4b, 0x7c, 0x8d, 0xf8], Instruction::Load(7, place(13, Some(1), 2, -8))),
        (
            &[0xc4, 0xa2, 0x7b, 0x4b, 0x84, 0x20, 0x45, 0x23, 0x01, 0x00],
            Instruction::Load(0, place(0, Some(12), 0, 0x12345)),
        ),
        // tilestored [rsp + 2 rbp], tmm2
        (&[0xc4, 0xe2, 0x7a, 0x4b, 0x14, 0x6c], Instruction::Store(2, place(4, Some(5), 1, 0))),
        // tdpbsud tmm0, tmm4, tmm7; tmm3, tmm5, tmm6
        (&[0xc4, 0xe2, 0x42, 0x5e, 0xc4], product(0, 4, 7)),
        (&[0xc4, 0xe2, 0x4a, 0x5e, 0xdd], product(3, 5, 6)),
    ];
    for (bytes, instruction) in known {
        let mut rest = bytes.iter().copied().chain([0x90]);
        assert_eq!(decode(&mut rest), Some((instruction, bytes.len())), "{bytes:02x?}");
        assert_eq!(rest.next(), Some(0x90), "{bytes:02x?}");
    }
    let others: [&[u8]; 12] = [
        // ud2; ldtilecfg [rip + 8]; sttilecfg [rax]; tileloaddt1 tmm0, [rax + rbx]; tileloadd tmm0, [rax]
        &[0x0f, 0x0b],
        &[0xc4, 0xe2, 0x78, 0x49, 0x05, 0x08, 0, 0, 0],
        &[0xc4, 0xe2, 0x79, 0x49, 0x00],
        &[0xc4, 0xe2, 0x79, 0x4b, 0x04, 0x18],
        &[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x20],
        // tdpbssd, tdpbusd, tdpbuud, tdpbf16ps tmm0, tmm4, tmm7
        &[0xc4, 0xe2, 0x43, 0x5e, 0xc4],
        &[0xc4, 0xe2, 0x41, 0x5e, 0xc4],
        &[0xc4, 0xe2, 0x40, 0x5e, 0xc4],
        &[0xc4, 0xe2, 0x42, 0x5c, 0xc4],
        // tilezero tmm3 with a third operand, with W, with L
        &[0xc4, 0xe2, 0x43, 0x49, 0xd8],
        &[0xc4, 0xe2, 0xfb, 0x49, 0xd8],
        &[0xc4, 0xe2, 0x7f, 0x49, 0xd8],
    ];
    for bytes in others {
        assert_eq!(decode(&mut bytes.iter().copied()), None, "{bytes:02x?}");
    }
}

/// A configuration with the shapes of the first registers.
fn configuration(shapes: &[(u8, u8)]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for (tile, &(rows, row_bytes)) in shapes.iter().enumerate() {
        (bytes[48 + tile], bytes[16 + 2 * tile]) = (rows, row_bytes);
    }
    bytes
}

#[test]
fn wrong_uses_are_refused() {
    let mut state = TileState::INITIAL;
    assert_eq!(state.shape(0), Err("a register that is not configured"));
    for (byte, value) in [(0, 0), (0, 2), (1, 1), (2, 1), (15, 1), (17, 1), (16, 65), (48, 17), (48, 0), (16, 0)] {
        let mut bytes = configuration(&[(16, 64)]);
        bytes[byte] = value;
        assert!(state.configure(&bytes).is_err(), "byte {byte} is {value}");
    }
    assert!(state.configure(&configuration(&[(16, 64); 9])).is_err());
    assert_eq!(state, TileState::INITIAL);
    // Sums 0, signed bytes 1, unsigned bytes 2; then registers that fit none of them.
    state.configure(&configuration(&[(3, 20), (3, 8), (2, 20), (4, 20), (3, 12), (2, 16), (3, 6), (0, 0)])).unwrap();
    assert_eq!(state.add_product(0, 1, 2), Ok(()));
    for (sums, signed, unsigned) in [(3, 1, 2), (0, 4, 2), (0, 1, 5), (0, 6, 2), (0, 1, 7), (8, 1, 2), (0, 0, 2)] {
        assert!(state.add_product(sums, signed, unsigned).is_err(), "{sums} += {signed} {unsigned}");
    }
    let same = [(2, 8); 8];
    state.configure(&configuration(&same)).unwrap();
    assert_eq!(state.add_product(0, 1, 2), Ok(()));
    for (sums, signed, unsigned) in [(0, 0, 1), (0, 1, 0), (1, 0, 0)] {
        assert!(state.add_product(sums, signed, unsigned).is_err(), "{sums} += {signed} {unsigned}");
    }
}

/// Loads, a product that wraps around and a store, by hand: rows beyond the shape are zeroed, bytes beyond it in memory left alone.
#[test]
fn instructions_follow_the_manual() {
    let mut state = TileState::INITIAL;
    state.configure(&configuration(&[(1, 8), (1, 4), (1, 8)])).unwrap();
    state.tiles[0] = [[0xff; ROW_BYTES]; ROWS];
    let place = Place { base: 0, index: Some(3), shift: 1, displacement: 1 };
    let mut registers = [0; 23];
    registers[libc::REG_RBX as usize] = 16;
    let mut with_memory = |state: &mut TileState, memory: &mut [u8], instruction| {
        registers[libc::REG_RAX as usize] = memory.as_mut_ptr() as i64;
        // SAFETY: one row of eight bytes at most is read or written, from the second byte on.
        unsafe { state.carry_out(instruction, &registers) }.unwrap();
    };
    let mut start = [0xee; 9];
    start[1..].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f, 5, 0, 0, 0]);
    with_memory(&mut state, &mut start, Instruction::Load(0, place));
    assert_eq!(state.tiles[0][1..], [[0; ROW_BYTES]; ROWS - 1]);
    with_memory(&mut state, &mut [0xee, 0x80, 1, 0, 0], Instruction::Load(1, place));
    with_memory(&mut state, &mut [0xee, 255, 3, 9, 9, 0, 0x80, 9, 9], Instruction::Load(2, place));
    state.add_product(0, 1, 2).unwrap();
    let mut found = [0xee; 10];
    with_memory(&mut state, &mut found, Instruction::Store(0, place));
    assert_eq!((found[0], found[9]), (0xee, 0xee));
    assert_eq!(found[1..5], (i32::MAX - 128 * 255 + 3).to_le_bytes());
    assert_eq!(found[5..9], (5 + 128i32).to_le_bytes());
    // One step back: 2^31 - 1 + 1.
    state.tiles[0][0][..4].copy_from_slice(&i32::MAX.to_le_bytes());
    state.tiles[1][0][..4].copy_from_slice(&[1, 0, 0, 0]);
    state.tiles[2][0][..4].copy_from_slice(&[1, 0, 0, 0]);
    state.add_product(0, 1, 2).unwrap();
    assert_eq!(state.tiles[0][0][..4], i32::MIN.to_le_bytes());
    with_memory(&mut state, &mut [], Instruction::Zero(0));
    assert_eq!(state.tiles[0], [[0; ROW_BYTES]; ROWS]);
    with_memory(&mut state, &mut [], Instruction::Release);
    assert_eq!(state, TileState::INITIAL);
}

/// Every number of rows and units, one and two groups: more shapes than blocks have that are multiplied as bytes.
#[test]
fn sums_of_every_shape_are_exact() {
    let Some(token) = Token::emulated().or_else(Token::detect) else { return };
    let mut seed = 0u32;
    let mut lines = |count: usize| {
        let mut byte = || {
            seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            // Ends of both ranges in one byte of two.
            [0, 0x7f, 0x80, 0xff][(seed >> 22) as usize % 4] ^ if seed >> 31 == 0 { 0 } else { (seed >> 24) as u8 }
        };
        (0..count).map(|_| Line(core::array::from_fn(|_| byte()))).collect::<Vec<Line>>()
    };
    for (rows, groups, count) in (1..=GROUP_ROWS)
        .flat_map(|rows| (1..=2).flat_map(move |groups| (1..=9).map(move |count| (rows, groups, count))))
    {
        let steps = 1 + (rows + count) % 2;
        let quads = steps * super::STEP_LINES;
        let (weights, units) = (lines(groups * steps * rows), lines(count * quads));
        let mut sums = vec![Line([0xee; 64]); groups * count * SUM_LINES];
        sums_into(token, rows, &weights, &units, quads, &mut sums);
        for (at, found) in sums.iter().enumerate() {
            let (group, unit, row) = (at / SUM_LINES / count, at / SUM_LINES % count, at % SUM_LINES);
            let mut expected = [0xee; 64];
            for (residue, word) in expected.as_chunks_mut::<4>().0.iter_mut().enumerate().filter(|_| row < rows) {
                let columns = 0..steps * 64;
                let products = columns.map(|c| {
                    let w = weights[(group * steps + c / 64) * rows + row].0[c % 64] as i8;
                    i32::from(w) * i32::from(units[unit * quads + c / 4].0[4 * residue + c % 4])
                });
                *word = products.sum::<i32>().to_le_bytes();
            }
            assert_eq!(found.0, expected, "{rows} rows, {groups} groups, {count} units: row {row} of unit {unit}");
        }
    }
}

/// What an instruction dies of that is none of ours, or one of ours where it may not be; each in a process of its own.
#[test]
fn what_may_not_be_kills() {
    use core::arch::asm;
    use std::os::unix::process::ExitStatusExt;
    const CASE: &str = "NIGHTSHIFT_TEST_DEATH";
    if Token::emulated().is_none() {
        return;
    }
    match std::env::var(CASE).as_deref() {
        // SAFETY: never returned from.
        Ok("other") => unsafe { asm!("ud2") },
        // SAFETY: as above, no register being configured.
        Ok("ours") => unsafe { asm!("tilezero tmm0") },
        _ => {}
    }
    for (case, signal, reason) in
        [("other", libc::SIGILL, ""), ("ours", libc::SIGABRT, "emulated AMX: a register that is not configured\n")]
    {
        let name = concat!(module_path!(), "::what_may_not_be_kills").split_once("::").unwrap().1;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([name, "--exact", "--nocapture"]).env(CASE, case).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(signal), "{case}: {told}");
        assert!(told.ends_with(reason), "{case}: {told}");
    }
}
