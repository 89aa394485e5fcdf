//! AMX: 16 x 64 signed bytes times 64 x 16 unsigned bytes, summed in 16 x 16 32-bit integers (`tdpbsud`).
//!
//! Rust has no stable intrinsics for it, so this is inline assembly. Tile registers are written and read within one assembly block each; between blocks
//! only the configuration stands, and it is released before the call returns. Linux gives the registers to a process that asks.

use super::bytes::{Line, SUM_LINES};
use core::arch::asm;
use std::sync::OnceLock;

#[cfg(all(test, target_os = "linux"))]
mod emulated;

/// Rows of a group: those of a tile register.
pub(super) const GROUP_ROWS: usize = 16;
/// Lines of a unit in one step: 64 columns.
const STEP_LINES: usize = 16;

/// Exists only where the CPU has AMX with 8-bit integers and the system lets this process use it, or where tests emulate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(());

impl Token {
    pub fn detect() -> Option<Self> {
        static GRANTED: OnceLock<bool> = OnceLock::new();
        GRANTED.get_or_init(|| cpu_has_amx_int8() && system_grants()).then_some(Self(()))
    }
}

/// CPUID leaf 7: AMX-TILE and AMX-INT8. (Every CPU with AVX-512 has that leaf.)
fn cpu_has_amx_int8() -> bool {
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    if !is_x86_feature_detected!("avx512f") {
        return false;
    }
    let features: u32;
    // SAFETY: `cpuid` changes four registers; rbx, which the compiler keeps to itself, is restored.
    unsafe {
        asm!(
            "mov {rbx}, rbx",
            "cpuid",
            "mov rbx, {rbx}",
            rbx = out(reg) _,
            inout("eax") 7 => _,
            inout("ecx") 0 => _,
            lateout("edx") features,
            options(nostack, nomem),
        );
    }
    features & TILE != 0 && features & INT8 != 0
}

/// Asks Linux for the tile data state, for the whole process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`. A system without it says no.
#[cfg(target_os = "linux")]
fn system_grants() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let mut status = ARCH_PRCTL;
    // SAFETY: the call takes two numbers and touches no memory of ours; `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") status,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    status == 0
}

#[cfg(not(target_os = "linux"))]
fn system_grants() -> bool {
    false
}

/// The 64 bytes that `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tile registers 0 to 3 for sums, 4 and 5 for weights, all of `rows` rows, and 6 and 7 for units; released on drop.
struct Configured(());

impl Configured {
    fn new(_: Token, rows: usize) -> Self {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(64);
        config.rows[..6].fill(rows as u8);
        config.rows[6..8].fill(STEP_LINES as u8);
        // SAFETY: a `Token` exists only where the registers may be used; the configuration is 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as in `new`; no block of assembly keeps anything in the registers.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Sums of one or two groups of `rows` rows (weights `[group][step][row][64]`) with all units, `quads` lines each: `[group][unit][16][16]`. Sum rows from
/// `rows` on are left as they are.
///
/// # Panics
/// If a group has more than [`GROUP_ROWS`] rows, or a slice does not fit the others.
pub(super) fn sums_into(token: Token, rows: usize, weights: &[Line], units: &[Line], quads: usize, sums: &mut [Line]) {
    let steps = quads / STEP_LINES;
    let count = units.len() / quads;
    assert!(
        (1..=GROUP_ROWS).contains(&rows) && steps > 0 && quads.is_multiple_of(STEP_LINES),
        "{rows} rows, {quads} quads"
    );
    let groups = weights.len() / (steps * rows);
    assert!((1..=2).contains(&groups) && weights.len() == groups * steps * rows, "{} lines of weights", weights.len());
    assert!(sums.len() >= groups * count * SUM_LINES, "{} lines of sums", sums.len());
    let _configured = Configured::new(token, rows);
    let row_bytes = rows * 64;
    // Past the last unit it is computed again.
    let at = |u: usize| u.min(count - 1);
    let unit = |u: usize| units[at(u) * quads..][..quads].as_ptr();
    let weights_of = |group: usize| weights[group * steps * rows..][..steps * rows].as_ptr();
    if groups == 2 {
        for u in (0..count).step_by(2) {
            let places = [at(u), at(u + 1), count + at(u), count + at(u + 1)];
            let out = places.map(|place| sums[place * SUM_LINES..][..SUM_LINES].as_mut_ptr());
            // SAFETY: both groups hold `steps` steps of `rows` lines, both units `steps` steps of 16 lines, each output holds 16 lines, and the
            // registers are configured for that.
            unsafe { two_by_two(steps, row_bytes, [weights_of(0), weights_of(1)], [unit(u), unit(u + 1)], &out) };
        }
    } else {
        for u in (0..count).step_by(4) {
            let four = [u, u + 1, u + 2, u + 3];
            let out = four.map(|u| sums[at(u) * SUM_LINES..][..SUM_LINES].as_mut_ptr());
            // SAFETY: as above, for one group and four units.
            unsafe { one_by_four(steps, row_bytes, weights_of(0), four.map(unit), &out) };
        }
    }
}

/// Two groups times two units; outputs are (group 0, unit 0), (0, 1), (1, 0), (1, 1).
///
/// # Safety
/// The registers are configured; each group holds `steps * row_bytes` bytes, each unit 1024 a step, each output 1024.
unsafe fn two_by_two(
    steps: usize,
    row_bytes: usize,
    groups: [*const Line; 2],
    units: [*const Line; 2],
    out: &[*mut Line; 4],
) {
    // SAFETY: by the caller's promise every address read or written lies within the buffers.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {a0}, {row_bytes}",
            "add {a1}, {row_bytes}",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "mov {a0}, [{out}]",
            "tilestored [{a0} + {line}], tmm0",
            "mov {a0}, [{out} + 8]",
            "tilestored [{a0} + {line}], tmm1",
            "mov {a0}, [{out} + 16]",
            "tilestored [{a0} + {line}], tmm2",
            "mov {a0}, [{out} + 24]",
            "tilestored [{a0} + {line}], tmm3",
            a0 = inout(reg) groups[0] => _,
            a1 = inout(reg) groups[1] => _,
            b0 = inout(reg) units[0] => _,
            b1 = inout(reg) units[1] => _,
            steps = inout(reg) steps => _,
            row_bytes = in(reg) row_bytes,
            line = in(reg) size_of::<Line>(),
            out = in(reg) out.as_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// One group times four units.
///
/// # Safety
/// As [`two_by_two`].
unsafe fn one_by_four(
    steps: usize,
    row_bytes: usize,
    group: *const Line,
    units: [*const Line; 4],
    out: &[*mut Line; 4],
) {
    // SAFETY: by the caller's promise every address read or written lies within the buffers.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b2} + {line}]",
            "tdpbsud tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b3} + {line}]",
            "tdpbsud tmm3, tmm4, tmm7",
            "add {a}, {row_bytes}",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {b2}, 1024",
            "add {b3}, 1024",
            "dec {steps}",
            "jnz 2b",
            "mov {a}, [{out}]",
            "tilestored [{a} + {line}], tmm0",
            "mov {a}, [{out} + 8]",
            "tilestored [{a} + {line}], tmm1",
            "mov {a}, [{out} + 16]",
            "tilestored [{a} + {line}], tmm2",
            "mov {a}, [{out} + 24]",
            "tilestored [{a} + {line}], tmm3",
            a = inout(reg) group => _,
            b0 = inout(reg) units[0] => _,
            b1 = inout(reg) units[1] => _,
            b2 = inout(reg) units[2] => _,
            b3 = inout(reg) units[3] => _,
            steps = inout(reg) steps => _,
            row_bytes = in(reg) row_bytes,
            line = in(reg) size_of::<Line>(),
            out = in(reg) out.as_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
