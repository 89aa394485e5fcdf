//! Packed residues, four at a time: a shuffle of bytes spreads two to each half of a vector.

use super::super::portable;
use super::Token;
use core::arch::x86_64::*;

/// Residues of a vector, and of half of one.
const LANES: usize = 4;
const HALF: usize = 2;
/// Widths of which half a vector's bytes hold two, whose residues compare as signed words too.
const WIDEST: usize = 7;

pub(in crate::ring::kernels) fn unpack_into(_: Token, width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
    // SAFETY: a `Token` exists only if `Token::detect` found every feature that the callee enables.
    unsafe { unpack(width, packed, out) }
}

pub(in crate::ring::kernels) fn unpack_pieces_into(
    _: Token,
    width: usize,
    packed: &[u8],
    stride: usize,
    piece: usize,
    _announced: usize,
    out: &mut [u64],
) {
    for (k, out) in out.chunks_exact_mut(piece).enumerate() {
        // SAFETY: as above.
        unsafe { unpack(width, &packed[k * stride..][..piece * width], out) };
    }
}

#[target_feature(enable = "avx2")]
fn unpack(width: usize, packed: &[u8], out: &mut [u64]) -> u64 {
    if width > WIDEST {
        return portable::unpack_into(width, packed, out);
    }
    // Bytes that are not of a residue are zero: of a shuffle's indices, those with the highest bit.
    let mut spread = [0x80u8; 16];
    for (residue, bytes) in spread.chunks_exact_mut(8).enumerate() {
        for (byte, index) in bytes[..width].iter_mut().enumerate() {
            *index = (residue * width + byte) as u8;
        }
    }
    // SAFETY: the array is 16 bytes; the load has no alignment requirement.
    let spread = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(spread.as_ptr().cast()) });
    let half = |first: usize| {
        let bytes: &[u8] = &packed[first * width..first * width + 16];
        // SAFETY: the slice holds 16 bytes; the load has no alignment requirement.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    // More bytes are read than the residues have: the last ones are left.
    let vectors = (packed.len().saturating_sub(16 - HALF * width) / (LANES * width)).min(out.len() / LANES);
    let mut largest = _mm256_setzero_si256();
    for (vector, out) in out[..vectors * LANES].chunks_exact_mut(LANES).enumerate() {
        let first = vector * LANES;
        let bytes = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(half(first)), half(first + HALF));
        let residues = _mm256_shuffle_epi8(bytes, spread);
        largest = _mm256_blendv_epi8(largest, residues, _mm256_cmpgt_epi64(residues, largest));
        // SAFETY: the slice holds 32 bytes; the store has no alignment requirement.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), residues) }
    }
    let mut lanes = [0u64; LANES];
    // SAFETY: the array is 32 bytes; the store has no alignment requirement.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) }
    let done = vectors * LANES;
    let rest = portable::unpack_into(width, &packed[done * width..], &mut out[done..]);
    lanes.into_iter().fold(rest, u64::max)
}
