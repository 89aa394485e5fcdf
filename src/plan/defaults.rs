//! Rates of a core with each kernel, as `nightshift-worker calibrate` found them: what estimates rest on where nothing was measured. They are only
//! as good as machines are alike: all are a Zen 4 core's but AMX's. Those are a Sapphire-Rapids-class core's; of what became faster since no such core was at hand, the old
//! figures times what was won on the Zen 4 core: masks a third, squares two thirds, word products,
//! their outputs and what a key switch does besides 0.8 to 0.9, transforms 0.7.

use super::rates::{Rates, Unit, Work};
use crate::ring::kernels::Kernel;

/// Picoseconds a unit, in the order of [`Unit::ALL`], by kernel.
const PICOSECONDS: [(&str, [f64; 20]); 5] = [
    (
        "portable",
        [
            419.0, 2210.0, 2800.0, 1100.0, 1100.0, 1100.0, 2430.0, 414.0, 7360.0, 6190.0, 2880.0, 2890.0, 9030.0,
            842.0, 4390.0, 203.0, 1710.0, 2270.0, 2.17e4, 3e8,
        ],
    ),
    (
        "avx2",
        [
            303.0, 1240.0, 2890.0, 6.46, 53.5, 426.0, 424.0, 1090.0, 2800.0, 1890.0, 3190.0, 787.0, 3000.0, 853.0,
            5090.0, 203.0, 1710.0, 8310.0, 7190.0, 3e8,
        ],
    ),
    (
        "avx512ifma",
        [
            36.1, 150.0, 716.0, 6.46, 128.0, 128.0, 284.0, 658.0, 1500.0, 774.0, 1100.0, 409.0, 1280.0, 159.0, 237.0,
            203.0, 1710.0, 2250.0, 1.0e4, 3e8,
        ],
    ),
    (
        "avx512vnni",
        [
            27.6, 138.0, 770.0, 4.65, 22.3, 155.0, 261.0, 612.0, 1500.0, 719.0, 1090.0, 365.0, 1210.0, 162.0, 253.0,
            203.0, 1710.0, 1.1e4, 1.0e4, 3e8,
        ],
    ),
    (
        "amx",
        [
            23.3, 194.0, 1010.0, 0.444, 50.2, 309.0, 339.0, 667.0, 900.0, 718.0, 1510.0, 502.0, 656.0, 188.0, 560.0,
            127.0, 804.0, 6790.0, 1.46e4, 3e8,
        ],
    ),
];

/// Picoseconds of a square's and of a mask's residue in loops that do nothing else, on the same cores: `calibrate --stand-alone`.
const LOOP_PICOSECONDS: [(&str, [f64; 2]); 5] = [
    ("portable", [2400.0, 2700.0]),
    ("avx2", [392.0, 2960.0]),
    ("avx512ifma", [241.0, 924.0]),
    ("avx512vnni", [241.0, 924.0]),
    ("amx", [313.0, 1280.0]),
];

/// What a thread costs the others.
const THREAD_LOSS: f64 = 0.05;

/// Seconds of a residue of squares ([`Unit::Square`]) and of masks ([`Unit::Expand`]) alone, on the cores of the default rates: what tells how much faster
/// or slower another one is.
#[must_use]
pub fn loop_secs(kernel: Kernel) -> [f64; 2] {
    of_kernel(&LOOP_PICOSECONDS, kernel).1.map(|picoseconds| picoseconds * 1e-12)
}

fn of_kernel<T>(list: &'static [(&str, T)], kernel: Kernel) -> &'static (&'static str, T) {
    list.iter().find(|(name, _)| *name == kernel.name()).unwrap_or(&list[0])
}

/// The default rates of a kernel, on so many threads.
#[must_use]
pub fn defaults(kernel: Kernel, threads: usize) -> Rates {
    let (_, picoseconds) = of_kernel(&PICOSECONDS, kernel);
    let mut unit_secs = Work::default();
    for (unit, picoseconds) in Unit::ALL.into_iter().zip(picoseconds) {
        unit_secs.set(unit, picoseconds * 1e-12);
    }
    Rates { kernel, threads, unit_secs, thread_loss: THREAD_LOSS }
}
