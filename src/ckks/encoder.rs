//! Encoding: N real slots to N integer coefficients and back, by a cosine transform.
//!
//! Slot k is the element at `X = exp(i pi (2k+1) / 2N)`: `z_k = a_0 + 2 sum_i a_i cos(pi (2k+1) i / 2N)` (a DCT-III), inverse
//! `a_i = (1/N) sum_k z_k cos(pi (2k+1) i / 2N)` (a DCT-II). No rotations exist, so slot order is the natural one.

use super::CkksError;
use crate::ring::kernels::{CosinePlan, Kernel};
use rustdct::{DctPlanner, TransformType2And3};
use std::sync::Arc;

/// A prepared cosine transform.
#[derive(Clone)]
pub struct Encoder {
    degree: usize,
    kernel: Kernel,
    /// Of one polynomial, both ways.
    transform: Arc<dyn TransformType2And3<f64>>,
    /// Of several, one way. The results are the same numbers.
    plan: Arc<CosinePlan>,
}

/// Coefficients stay below this, so that adding errors cannot overflow.
const LARGEST: f64 = (1u64 << 62) as f64;
/// Below this, coefficients are rounded, to even where two integers are as near; above it they are cut off.
const SMALL: f64 = 2.0e15;

impl Encoder {
    /// For ring degree `degree`.
    #[must_use]
    pub fn new(degree: usize, kernel: Kernel) -> Self {
        let transform = DctPlanner::new().plan_dct2(degree);
        Self { degree, kernel, transform, plan: Arc::new(CosinePlan::new(degree)) }
    }

    /// Length of the scratch that the transforms need.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.transform.get_scratch_len().max(self.plan.scratch_len())
    }

    /// The transform of encoding, of the slots of each of several polynomials, `[polynomial][N]`. Four and more take less time each than one.
    pub fn transform_assign(&self, values: &mut [f64], scratch: &mut [f64]) {
        let mut together = values.chunks_exact_mut(CosinePlan::TOGETHER * self.degree);
        for rows in &mut together {
            self.kernel.cosine_rows_assign(&self.plan, rows, scratch);
        }
        for row in together.into_remainder().chunks_exact_mut(self.degree) {
            self.transform.process_dct2_with_scratch(row, scratch);
        }
    }

    /// Rounds `scale` times what [`Self::transform_assign`] made of one polynomial's slots to its coefficients.
    ///
    /// # Errors
    /// [`CkksError::Encode`] if a coefficient is not below 2^62 (NaN included).
    pub fn round_into(&self, values: &[f64], scale: f64, out: &mut [i64]) -> Result<(), CkksError> {
        let factor = scale / values.len() as f64;
        if round_small_into(values, factor, out) {
            return Ok(());
        }
        for (o, &v) in out.iter_mut().zip(values) {
            let coefficient = v * factor;
            // False for NaN too.
            let fits = coefficient.abs() < LARGEST;
            if !fits {
                return Err(CkksError::Encode { value: v / values.len() as f64, log_scale: scale.log2() });
            }
            *o = if coefficient.abs() < SMALL { coefficient.round_ties_even() as i64 } else { coefficient as i64 };
        }
        Ok(())
    }

    /// Coefficients (already divided by the scale) to slot values, in place.
    pub fn decode_assign(&self, coefficients: &mut [f64], scratch: &mut [f64]) {
        self.transform.process_dct3_with_scratch(coefficients, scratch);
        for z in coefficients {
            *z *= 2.0;
        }
    }
}

/// Rounds `factor * values` where all are below [`SMALL`], and says whether they are. No branches and no conversions: plain vectors.
fn round_small_into(values: &[f64], factor: f64, out: &mut [i64]) -> bool {
    // Adding 1.5 * 2^52 rounds to nearest even, exact below 2^51, and the integer is what it changes in the bits.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let mut all_small = true;
    for (o, &v) in out.iter_mut().zip(values) {
        let coefficient = v * factor;
        all_small &= coefficient.abs() < SMALL;
        *o = (coefficient + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i64;
    }
    all_small
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(encoder: &Encoder, slots: &[f64], scale: f64) -> Result<Vec<i64>, CkksError> {
        let (mut values, mut scratch) = (slots.to_vec(), vec![0.0; encoder.scratch_len()]);
        let mut coefficients = vec![0; slots.len()];
        encoder.transform_assign(&mut values, &mut scratch);
        encoder.round_into(&values, scale, &mut coefficients)?;
        Ok(coefficients)
    }

    fn slots(coefficients: &[f64]) -> Vec<f64> {
        let n = coefficients.len();
        (0..n)
            .map(|k| {
                let angle = std::f64::consts::PI * (2 * k + 1) as f64 / (2 * n) as f64;
                coefficients[0] + 2.0 * (1..n).map(|i| coefficients[i] * (angle * i as f64).cos()).sum::<f64>()
            })
            .collect()
    }

    #[test]
    fn both_directions_equal_the_definition() {
        for n in [16, 64, 512] {
            let encoder = Encoder::new(n, Kernel::detect());
            let mut scratch = vec![0.0; encoder.scratch_len()];
            let values: Vec<f64> = (0..n).map(|k| ((k * 37 % 101) as f64 - 50.0) / 17.0).collect();
            let scale = (1u64 << 40) as f64;
            let coefficients = encode(&encoder, &values, scale).unwrap();
            let real: Vec<f64> = coefficients.iter().map(|&c| c as f64 / scale).collect();
            let by_definition = slots(&real);
            let mut decoded = real.clone();
            encoder.decode_assign(&mut decoded, &mut scratch);
            for k in 0..n {
                assert!((by_definition[k] - values[k]).abs() < 1e-9, "encode, slot {k} of {n}");
                assert!((decoded[k] - by_definition[k]).abs() < 1e-9, "decode, slot {k} of {n}");
            }
        }
    }

    #[test]
    fn coefficients_are_rounded_to_even() {
        let values = [0.5, 1.5, -0.5, -1.5, 2.5, -0.0, 0.49, -7.51, 1999999999999999.5, -1999999999999998.5];
        let mut out = [7; 10];
        assert!(round_small_into(&values, 1.0, &mut out));
        assert_eq!(out, values.map(|v: f64| v.round_ties_even() as i64));
        assert!(round_small_into(&values[..8], -0.125, &mut out));
        assert_eq!(out[..8], [0, 0, 0, 0, 0, 0, 0, 1]);
        for large in [2.0e15, -2.1e15, f64::NAN, f64::NEG_INFINITY] {
            assert!(!round_small_into(&[1.0, large], 1.0, &mut out), "{large}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let encoder = Encoder::new(16, Kernel::portable());
        for bad in [1e10, f64::NAN, f64::INFINITY] {
            let found = encode(&encoder, &[bad; 16], (1u64 << 40) as f64);
            assert!(matches!(found, Err(CkksError::Encode { .. })), "{bad}");
        }
        let large = encode(&encoder, &[1e5; 16], (1u64 << 45) as f64).unwrap();
        assert_eq!((large[0], large[1]), (100_000 << 45, 0));
    }

    #[test]
    fn one_or_several_are_the_same_numbers() {
        let mut state = 1u64;
        for n in [16, 32, 1024, 8192, 16384] {
            let values: Vec<f64> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .take(6 * n)
            .collect();
            let encoder = Encoder::new(n, Kernel::detect());
            let mut scratch = vec![0.0; encoder.scratch_len()];
            let (mut together, mut alone) = (values.clone(), values);
            encoder.transform_assign(&mut together, &mut scratch);
            alone.chunks_exact_mut(n).for_each(|row| encoder.transform_assign(row, &mut scratch));
            assert!(together == alone, "degree {n}");
        }
    }
}
