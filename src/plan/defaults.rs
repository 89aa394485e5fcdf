//! Rates of a core with each kernel, as `nightshift-worker calibrate` found them: what estimates rest on where nothing was measured. They are only
//! as good as machines are alike: those of AVX-512 VNNI are a Zen 4 core's (processors of Intel's that are as new have AMX), all others a
//! Sapphire-Rapids-class core's. Transforms and what goes with them in a key switch became faster since; where no such core was at hand (IFMA and AMX) their rates
//! are the old ones times what was won on the Zen 4 core, 0.65 and 0.73. Products of words and squares became faster since, by a quarter to a third, and are not
//! measured again.

use super::rates::{Rates, Unit, Work};
use crate::ring::kernels::Kernel;

/// Picoseconds a unit, in the order of [`Unit::ALL`], by kernel.
const PICOSECONDS: [(&str, [f64; 20]); 5] = [
    (
        "portable",
        [
            548.0, 2190.0, 1880.0, 1090.0, 1090.0, 1090.0, 1990.0, 344.0, 7200.0, 7410.0, 7100.0, 2690.0, 7810.0,
            822.0, 4570.0, 128.0, 804.0, 1840.0, 1.86e4, 4.52e9,
        ],
    ),
    (
        "avx2",
        [
            311.0, 1120.0, 2450.0, 1120.0, 1120.0, 1120.0, 2130.0, 537.0, 6510.0, 7120.0, 1.12e4, 2340.0, 6970.0,
            721.0, 4220.0, 128.0, 804.0, 1820.0, 1.49e4, 4.52e9,
        ],
    ),
    (
        "avx512ifma",
        [
            25.9, 180.0, 1010.0, 5.47, 109.0, 109.0, 436.0, 631.0, 900.0, 892.0, 3950.0, 435.0, 900.0, 292.0, 525.0,
            126.0, 804.0, 1830.0, 1.39e4, 4.52e9,
        ],
    ),
    (
        "avx512vnni",
        [
            30.8, 133.0, 918.0, 4.4, 29.6, 159.0, 390.0, 653.0, 1500.0, 734.0, 3280.0, 357.0, 1660.0, 209.0, 321.0,
            200.0, 1210.0, 7760.0, 1.53e4, 1.04e9,
        ],
    ),
    (
        "amx",
        [
            26.0, 194.0, 1200.0, 0.444, 66.6, 317.0, 506.0, 667.0, 900.0, 718.0, 4540.0, 502.0, 900.0, 242.0, 711.0,
            127.0, 804.0, 6790.0, 1.46e4, 4.52e9,
        ],
    ),
];

/// What a thread costs the others.
const THREAD_LOSS: f64 = 0.1;

/// The default rates of a kernel, on so many threads.
#[must_use]
pub fn defaults(kernel: Kernel, threads: usize) -> Rates {
    let (_, picoseconds) = PICOSECONDS.iter().find(|(name, _)| *name == kernel.name()).unwrap_or(&PICOSECONDS[0]);
    let mut unit_secs = Work::default();
    for (unit, picoseconds) in Unit::ALL.into_iter().zip(picoseconds) {
        unit_secs.set(unit, picoseconds * 1e-12);
    }
    Rates { kernel, threads, unit_secs, thread_loss: THREAD_LOSS }
}
