//! Measures this machine's rates for the plan's estimates: a millisecond of each inner loop, in cache, one thread.

use crate::ckks::CkksError;
use crate::plan::cost::Rates;
use crate::ring::kernels::{BlockOperands, BlockScratch, Kernel, PackedBlock, Start};
use crate::ring::sampling::Stream;
use crate::ring::{Modulus, Ntt, primes};
use std::time::Instant;

/// Repeats `work` (of `units` units) for at least `MEASURE_SECS` and returns units a second.
fn rate(units: usize, mut work: impl FnMut()) -> f64 {
    const MEASURE_SECS: f64 = 0.001;
    work();
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed().as_secs_f64() < MEASURE_SECS {
        work();
        rounds += 1;
    }
    (units * rounds) as f64 / start.elapsed().as_secs_f64()
}

/// Some five milliseconds.
///
/// # Errors
/// [`CkksError::Ring`] if the transform fails its self-test.
pub fn measure(kernel: Kernel, threads: usize) -> Result<Rates, CkksError> {
    let degree = 8192;
    let q = primes::nearest(1 << 43, degree, &[])?;
    let ntt = Ntt::new(degree, q, kernel)?;
    let m = Modulus::new(q)?;

    let (rows, columns, row_words) = (96, 256, 96);
    let weights: Vec<i16> = (0..rows * columns).map(|i| ((i * 37) % 255) as i16 - 127).collect();
    let block = PackedBlock::new(kernel, rows, columns, &weights);
    let mut x = vec![0; columns * row_words];
    let stream = Stream::with_kernel(&[0; 32], kernel);
    stream.uniform_into(&m, 0, 0, 0, &mut x);
    x.iter_mut().for_each(|r| *r = (*r).max(1));
    let (column_rows, out_rows): (Vec<u32>, Vec<u32>) = ((0..columns as u32).collect(), (0..rows as u32).collect());
    let operands = BlockOperands { x: &x, columns: &column_rows, rows: &out_rows, row_words, start: Start::Held };
    let mut scratch = BlockScratch::default();
    let mut out = vec![0; rows * row_words];
    let products_per_sec =
        rate(rows * columns * row_words, || block.mul_add_into(&m, &operands, &mut scratch, &mut out));

    let [mut s0, mut s1, mut s2] = [vec![0; 1024], vec![0; 1024], vec![0; 1024]];
    let squares_per_sec =
        rate(3 * 1024, || kernel.square_into(&m, &x[..1024], &x[1024..2048], [&mut s0, &mut s1, &mut s2]));
    let loads_per_sec = rate(1024, || stream.uniform_into(&m, 1, 0, 0, &mut s0));
    let mut polynomial = vec![1; degree];
    let transforms_per_sec = rate(1, || ntt.forward_assign(&mut polynomial));
    // A transform in a key switch comes with the products and additions around it.
    Ok(Rates { products_per_sec, squares_per_sec, transform_secs: 1.3 / transforms_per_sec, loads_per_sec, threads })
}
