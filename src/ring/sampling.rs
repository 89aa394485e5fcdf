//! Random polynomials: seeds from the operating system, expanded by AES-256 in counter mode with random access.
//!
//! A *stream* is AES-256 keyed by a 32-byte seed. Block `(entry, limb, index)` is the encryption of the little-endian 16 bytes
//! `index: u64 | limb: u32 | entry: u32`. Where a draw lies depends on no other, so any tile can make its own part. A seed is used for one purpose
//! only; several purposes of one master seed are separated by BLAKE3 key derivation ([`derive_seed`]).
//!
//! - uniform modulo q: residue i is word i mod 2 of block i div 2, modulo q, if it is below the largest multiple of q that a word holds (exactly
//!   uniform then). Of others, one in 2^14 at most, it is block i of limb + 2^31, a little-endian 128-bit integer, modulo q (distance below 2^-78);
//! - ternary: `floor(3 w / 2^64) - 1`, w the block's first little-endian word (distance below 2^-62), constant time;
//! - error: centred binomial with variance 21/2 (sigma 3.24): the difference of the bit counts of two 21-bit halves, constant time. The
//!   constant coefficient is the sum of two, so that the error is spherical in this ring's geometry (ENGINE section 7).

use super::Modulus;
use super::kernels::{Kernel, blocks_of};
use aes::Aes256;
use aes::cipher::consts::U16;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;
/// Variance of an error coefficient.
pub const ERROR_VARIANCE: f64 = 10.5;
/// Blocks encrypted at once: enough that preparing the cipher's round keys for vectors does not count.
const BLOCKS: usize = 512;
/// Words of uniform polynomials made at once; they stay in the first-level cache from step to step.
const WORDS: usize = 2 * BLOCKS;
/// Added to a limb's number: second draws, where a word was refused.
const REFUSED: u32 = 1 << 31;

type Block = Array<u8, U16>;

/// A seed that is public (masks) or secret (keys, errors); zeroed on drop either way.
pub type Seed = Zeroizing<[u8; SEED_BYTES]>;

/// The operating system could not give randomness.
#[derive(Debug, thiserror::Error)]
#[error("no randomness from the operating system: {0}")]
pub struct EntropyError(String);

/// A fresh seed from the operating system.
///
/// # Errors
/// [`EntropyError`] if the system's generator fails.
pub fn fresh_seed() -> Result<Seed, EntropyError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    getrandom::fill(seed.as_mut_slice()).map_err(|e| EntropyError(e.to_string()))?;
    Ok(seed)
}

/// An independent seed for one purpose: BLAKE3 in key-derivation mode, `context` fixed per purpose and version.
#[must_use]
pub fn derive_seed(context: &str, master: &[u8; SEED_BYTES]) -> Seed {
    Zeroizing::new(blake3::derive_key(context, master))
}

/// Random-access expansion of one seed.
pub struct Stream {
    cipher: Aes256,
    kernel: Kernel,
}

impl Stream {
    /// The stream of a seed, read by the reference kernel.
    #[must_use]
    pub fn new(seed: &[u8; SEED_BYTES]) -> Self {
        Self::with_kernel(seed, Kernel::portable())
    }

    /// The same stream, read faster.
    #[must_use]
    pub fn with_kernel(seed: &[u8; SEED_BYTES], kernel: Kernel) -> Self {
        let key: &Array<u8, _> = seed.into();
        Self { cipher: Aes256::new(key), kernel }
    }

    /// Blocks from number `first` on.
    #[inline]
    fn blocks_into(&self, entry: u32, limb: u32, first: u64, blocks: &mut [Block]) {
        self.count_into(entry, limb, first, blocks);
        self.cipher.encrypt_blocks(blocks);
    }

    /// The same before encryption.
    #[inline]
    fn count_into(&self, entry: u32, limb: u32, first: u64, blocks: &mut [Block]) {
        let high = u64::from(entry) << 32 | u64::from(limb);
        self.kernel.count_blocks_into(high, first, Block::cast_slice_to_core_mut(blocks));
    }

    /// Calls `use_block(i, block)` for the `count` blocks from the first on.
    fn for_blocks(&self, entry: u32, limb: u32, count: usize, mut use_block: impl FnMut(usize, u128)) {
        let mut blocks = [Block::default(); BLOCKS];
        for start in (0..count).step_by(BLOCKS) {
            let len = BLOCKS.min(count - start);
            self.blocks_into(entry, limb, start as u64, &mut blocks[..len]);
            for (i, block) in blocks[..len].iter().enumerate() {
                use_block(start + i, u128::from_le_bytes((*block).into()));
            }
        }
        // The key stream of a secret seed must not stay on the stack; `black_box` keeps the writes.
        blocks.fill(Block::default());
        std::hint::black_box(&blocks);
    }

    /// Residues `first ..` of the uniform polynomial `entry` modulo limb number `limb`, in `[0, q)`. Uniform polynomials are public.
    pub fn uniform_into(&self, m: &Modulus, entry: u32, limb: u32, first: usize, out: &mut [u64]) {
        self.uniform_rows_into(m, &[entry], limb, first, out);
    }

    /// [`Self::uniform_into`] for several polynomials, `[entry][residue]`: what is short apart is expanded together.
    ///
    /// # Panics
    /// If `out` is not as many residues for each of the entries.
    pub fn uniform_rows_into(&self, m: &Modulus, entries: &[u32], limb: u32, first: usize, out: &mut [u64]) {
        let columns = out.len() / entries.len().max(1);
        assert_eq!(columns * entries.len(), out.len(), "residues of {} entries", entries.len());
        if columns == 0 {
            return;
        }
        let (before, even) = (first % 2, (columns - first % 2) / 2 * 2);
        let pairs_alone = before == 0 && even == columns;
        if pairs_alone && columns <= WORDS / 2 {
            let together = WORDS / columns;
            for (entries, out) in entries.chunks(together).zip(out.chunks_mut(together * columns)) {
                self.expand_pairs(m, entries, limb, first, out);
            }
            return;
        }
        for (&entry, out) in entries.iter().zip(out.chunks_exact_mut(columns)) {
            let (alone, out) = out.split_at_mut(before);
            let (pairs, last) = out.split_at_mut(even);
            for (run, out) in pairs.chunks_mut(WORDS).enumerate() {
                self.expand_pairs(m, &[entry], limb, first + before + run * WORDS, out);
            }
            // Halves of a block whose other half is not asked for.
            for (out, index) in alone.iter_mut().zip([first]).chain(last.iter_mut().zip([first + columns - 1])) {
                let mut pair = [0; 2];
                self.expand_pairs(m, &[entry], limb, index / 2 * 2, &mut pair);
                *out = pair[index % 2];
            }
        }
    }

    /// Residues of whole blocks: `first` and the number of an entry's residues are even. Counted, encrypted and reduced where they are to be.
    fn expand_pairs(&self, m: &Modulus, entries: &[u32], limb: u32, first: usize, out: &mut [u64]) {
        let columns = out.len() / entries.len();
        let blocks = Block::cast_slice_from_core_mut(blocks_of(out));
        for (&entry, blocks) in entries.iter().zip(blocks.chunks_exact_mut(columns / 2)) {
            self.count_into(entry, limb, first as u64 / 2, blocks);
        }
        self.cipher.encrypt_blocks(blocks);
        if self.kernel.reduce_words_assign(m, out) {
            self.draw_refused(m, entries, limb, first, out);
        }
    }

    #[cold]
    fn draw_refused(&self, m: &Modulus, entries: &[u32], limb: u32, first: usize, out: &mut [u64]) {
        let columns = out.len() / entries.len();
        for (i, out) in out.iter_mut().enumerate().filter(|(_, out)| **out == u64::MAX) {
            let index = (first + i % columns) as u64;
            let mut block = [Block::default()];
            self.blocks_into(entries[i / columns], limb | REFUSED, index, &mut block);
            *out = m.reduce_u128(u128::from_le_bytes(block[0].into()));
        }
    }

    /// Coefficients in {-1, 0, 1}, each with probability one third.
    pub fn ternary_into(&self, entry: u32, out: &mut [i64]) {
        self.for_blocks(entry, 0, out.len(), |i, block| {
            let word = block as u64;
            out[i] = ((u128::from(word) * 3) >> 64) as i64 - 1;
        });
    }

    /// Error coefficients of variance 10.5, the constant one of variance 21.
    pub fn error_into(&self, entry: u32, out: &mut [i64]) {
        out.fill(0);
        self.add_error_assign(entry, out);
    }

    /// Adds those of [`Self::error_into`].
    pub fn add_error_assign(&self, entry: u32, x: &mut [i64]) {
        // Bytes, and not blocks: only those are cleared by wide stores.
        let mut blocks = [[0; 16]; BLOCKS];
        let mut add_draws = |limb, first: usize, x: &mut [i64]| {
            // A block holds two draws.
            let blocks = &mut blocks[..x.len().div_ceil(2)];
            self.blocks_into(entry, limb, first as u64, Block::cast_slice_from_core_mut(blocks));
            self.kernel.add_binomials_assign(blocks, x);
        };
        for (run, x) in x.chunks_mut(2 * BLOCKS).enumerate() {
            add_draws(0, run * BLOCKS, x);
        }
        add_draws(1, 0, &mut x[..1]);
        // As in `for_blocks`.
        blocks.fill([0; 16]);
        std::hint::black_box(&blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::primes;

    #[test]
    fn expansion_is_pinned() {
        // NIST SP 800-38A has no zero-key vector; AES-256 of zero under the zero key is the well-known dc95c078 a2408989 ad48a214 92842087.
        let stream = Stream::new(&[0; 32]);
        let mut block = 0;
        stream.for_blocks(0, 0, 1, |_, b| block = b);
        assert_eq!(block.to_le_bytes()[..4], [0xdc, 0x95, 0xc0, 0x78]);
        assert_eq!(block.to_le_bytes()[12..], [0x92, 0x84, 0x20, 0x87]);
    }

    #[test]
    fn access_is_random_and_domains_differ() {
        let m = Modulus::new(primes::nearest(1 << 44, 8192, &[]).unwrap()).unwrap();
        let stream = Stream::new(&[7; 32]);
        let mut whole = vec![0; 1000];
        stream.uniform_into(&m, 5, 2, 0, &mut whole);
        let mut part = vec![0; 300];
        stream.uniform_into(&m, 5, 2, 333, &mut part);
        assert_eq!(part, whole[333..633]);
        for (columns, entries) in [(1, 700), (2, 700), (64, 19), (65, 3), (300, 4), (512, 2), (700, 2), (2050, 1)] {
            let entries: Vec<u32> = (0..entries).map(|i| (i * 7 + 5) % 23).collect();
            for first in [200, 201] {
                let mut rows = vec![0; columns * entries.len()];
                stream.uniform_rows_into(&m, &entries, 2, first, &mut rows);
                for (&entry, row) in entries.iter().zip(rows.chunks_exact(columns)) {
                    let mut alone = vec![0; first + columns];
                    stream.uniform_into(&m, entry, 2, 0, &mut alone);
                    assert_eq!(row, &alone[first..], "{columns} residues of entry {entry} from {first} on");
                }
            }
        }
        stream.uniform_rows_into(&m, &[], 0, 0, &mut []);
        for (entry, limb) in [(6, 2), (5, 1)] {
            let mut other = vec![0; 1000];
            stream.uniform_into(&m, entry, limb, 0, &mut other);
            assert_ne!(other, whole);
        }
        assert_ne!(*derive_seed("a", &[7; 32]), *derive_seed("b", &[7; 32]));
        assert!(whole.iter().all(|&x| x < m.value()));
    }

    /// Word by word, the second draws of refused ones among them.
    #[test]
    fn uniform_residues_are_what_the_specification_says() {
        let stream = Stream::new(&[3; 32]);
        // Of all primes of 50 bits one of those that refuse most: nearly 2^-14 of all words.
        let m = Modulus::new(primes::nearest((1 << 50) - (3 << 34), 8192, &[]).unwrap()).unwrap();
        let q = m.value();
        let limit = u64::MAX / q * q;
        let n = 200_000;
        let mut words = Vec::new();
        stream.for_blocks(4, 1, n / 2, |_, block| words.extend([block as u64, (block >> 64) as u64]));
        let mut second = Vec::new();
        stream.for_blocks(4, 1 + (1 << 31), n, |_, block| second.push((block % u128::from(q)) as u64));
        let expected: Vec<u64> =
            words.iter().zip(second).map(|(word, second)| if *word < limit { word % q } else { second }).collect();
        assert!(
            words.iter().any(|&word| word >= limit),
            "no word was refused: 2^64 mod q is {}",
            0u64.wrapping_sub(limit)
        );
        for kernel in Kernel::present() {
            let mut found = vec![0; n];
            Stream::with_kernel(&[3; 32], kernel).uniform_into(&m, 4, 1, 0, &mut found);
            assert_eq!(found, expected, "{}", kernel.name());
        }
    }

    #[test]
    fn errors_are_their_definition() {
        let half = |bits: u64| i64::from((bits & 0x1f_ffff).count_ones());
        let draw = |bits: u64| half(bits) - half(bits >> 21);
        for kernel in Kernel::present() {
            let stream = Stream::with_kernel(&[8; 32], kernel);
            for len in [1, 2, 17, 1024, 1025, 5000] {
                let mut expected = vec![0; len];
                stream.for_blocks(7, 0, len.div_ceil(2), |i, block| {
                    for (x, word) in expected[2 * i..].iter_mut().zip([block as u64, (block >> 64) as u64]) {
                        *x = draw(word);
                    }
                });
                stream.for_blocks(7, 1, 1, |_, block| expected[0] += draw(block as u64));
                let mut found = vec![3; len];
                stream.error_into(7, &mut found);
                assert_eq!(found, expected, "{} {len}", kernel.name());
                stream.add_error_assign(7, &mut found);
                expected.iter_mut().for_each(|e| *e *= 2);
                assert_eq!(found, expected, "{} {len}, added", kernel.name());
            }
        }
    }

    #[test]
    fn distributions_have_their_moments() {
        let stream = Stream::new(&[9; 32]);
        let n = 1 << 16;
        let mut e = vec![0; n];
        stream.error_into(3, &mut e);
        let mean = e.iter().sum::<i64>() as f64 / n as f64;
        let variance = e.iter().map(|&x| (x * x) as f64).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.08 && (variance - ERROR_VARIANCE).abs() < 0.35, "mean {mean}, variance {variance}");
        assert!(e[1..].iter().all(|x| x.abs() <= 21));
        let mut t = vec![0; n];
        stream.ternary_into(0, &mut t);
        for value in [-1, 0, 1] {
            let share = t.iter().filter(|&&x| x == value).count() as f64 / n as f64;
            assert!((share - 1.0 / 3.0).abs() < 0.01, "{value}: {share}");
        }
        // The constant coefficient has twice the variance: average over many polynomials.
        let first: f64 = (0..4000)
            .map(|entry| {
                let mut short = [0; 2];
                stream.error_into(entry, &mut short);
                (short[0] * short[0]) as f64
            })
            .sum();
        assert!((first / 4000.0 - 2.0 * ERROR_VARIANCE).abs() < 2.5, "{}", first / 4000.0);
    }

    #[test]
    fn fresh_seeds_differ() {
        assert_ne!(*fresh_seed().unwrap(), *fresh_seed().unwrap());
    }
}
