//! Encoding: N real slots to N integer coefficients and back, by a cosine transform.
//!
//! Slot k is the element at `X = exp(i pi (2k+1) / 2N)`: `z_k = a_0 + 2 sum_i a_i cos(pi (2k+1) i / 2N)` (a DCT-III), inverse
//! `a_i = (1/N) sum_k z_k cos(pi (2k+1) i / 2N)` (a DCT-II). No rotations exist, so slot order is the natural one.

use super::CkksError;
use rustdct::{DctPlanner, TransformType2And3};
use std::sync::Arc;

/// A prepared cosine transform.
#[derive(Clone)]
pub struct Encoder {
    transform: Arc<dyn TransformType2And3<f64>>,
}

/// Coefficients stay below this, so that adding errors cannot overflow.
const LARGEST: f64 = (1u64 << 62) as f64;

impl Encoder {
    /// For ring degree `degree`.
    #[must_use]
    pub fn new(degree: usize) -> Self {
        Self { transform: DctPlanner::new().plan_dct2(degree) }
    }

    /// Length of the scratch that the transforms need.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.transform.get_scratch_len()
    }

    /// Rounds `scale * values` to coefficients; `values` is overwritten.
    ///
    /// # Errors
    /// [`CkksError::Encode`] if a coefficient is not below 2^62 (NaN included).
    pub fn encode_into(
        &self,
        values: &mut [f64],
        scratch: &mut [f64],
        scale: f64,
        out: &mut [i64],
    ) -> Result<(), CkksError> {
        self.transform.process_dct2_with_scratch(values, scratch);
        let factor = scale / values.len() as f64;
        for (o, &v) in out.iter_mut().zip(&*values) {
            let coefficient = v * factor;
            // False for NaN too.
            let fits = coefficient.abs() < LARGEST;
            if !fits {
                return Err(CkksError::Encode { value: v / values.len() as f64, log_scale: scale.log2() });
            }
            // Adding and subtracting 1.5 * 2^52 rounds to nearest even, exact below 2^51, and is faster than `round`.
            const SHIFT: f64 = 6_755_399_441_055_744.0;
            *o = if coefficient.abs() < 2.0e15 { ((coefficient + SHIFT) - SHIFT) as i64 } else { coefficient as i64 };
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let encoder = Encoder::new(n);
            let mut scratch = vec![0.0; encoder.scratch_len()];
            let values: Vec<f64> = (0..n).map(|k| ((k * 37 % 101) as f64 - 50.0) / 17.0).collect();
            let scale = (1u64 << 40) as f64;
            let mut coefficients = vec![0; n];
            encoder.encode_into(&mut values.clone(), &mut scratch, scale, &mut coefficients).unwrap();
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
    fn what_does_not_fit_is_refused() {
        let encoder = Encoder::new(16);
        let mut scratch = vec![0.0; encoder.scratch_len()];
        for bad in [1e10, f64::NAN, f64::INFINITY] {
            let found = encoder.encode_into(&mut [bad; 16], &mut scratch, (1u64 << 40) as f64, &mut [0; 16]);
            assert!(matches!(found, Err(CkksError::Encode { .. })), "{bad}");
        }
    }
}
