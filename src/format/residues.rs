//! Residues packed to whole bytes: residue i occupies bytes `i * width .. (i + 1) * width`, little-endian.
//!
//! Widths are 1 to 8 bytes; a residue modulo q takes the bytes of q - 1 ([`width_bytes`]). Values are `u64`.
//! Not here: which modulus belongs to which limb, and compression below a byte.

use super::FormatError;

/// Residues handled at once: 8 of them fill a whole number of 8-byte words at every width.
const GROUP: usize = 8;

/// Bytes that hold every residue modulo `modulus`, 1 to 8.
pub fn width_bytes(modulus: u64) -> usize {
    let bits = u64::BITS - modulus.saturating_sub(1).leading_zeros();
    bits.div_ceil(8).max(1) as usize
}

/// Packs `residues` into `packed`, which is `residues.len() * width` bytes.
///
/// Errors: a width outside 1 to 8, a length that does not fit, a residue of more than `width` bytes (`packed` then
/// holds unspecified bytes).
pub fn pack_into(residues: &[u64], width: usize, packed: &mut [u8]) -> Result<(), FormatError> {
    check_lengths(residues.len(), width, packed.len())?;
    match width {
        1 => pack::<1>(residues, packed),
        2 => pack::<2>(residues, packed),
        3 => pack::<3>(residues, packed),
        4 => pack::<4>(residues, packed),
        5 => pack::<5>(residues, packed),
        6 => pack::<6>(residues, packed),
        7 => pack::<7>(residues, packed),
        _ => pack::<8>(residues, packed),
    }
    let all_bits = residues.iter().fold(0, |bits, residue| bits | residue);
    if all_bits > low_mask(width) { Err(first_at_least(residues, low_mask(width) + 1)) } else { Ok(()) }
}

/// Unpacks `packed` into `residues`; any bytes are accepted. Errors: a width outside 1 to 8, a length that does not fit.
pub fn unpack_into(packed: &[u8], width: usize, residues: &mut [u64]) -> Result<(), FormatError> {
    check_lengths(residues.len(), width, packed.len())?;
    match width {
        1 => unpack::<1>(packed, residues),
        2 => unpack::<2>(packed, residues),
        3 => unpack::<3>(packed, residues),
        4 => unpack::<4>(packed, residues),
        5 => unpack::<5>(packed, residues),
        6 => unpack::<6>(packed, residues),
        7 => unpack::<7>(packed, residues),
        _ => unpack::<8>(packed, residues),
    }
    Ok(())
}

/// As [`unpack_into`], and refuses the first residue that is not below `modulus` (`residues` is filled all the same).
pub fn unpack_checked_into(packed: &[u8], width: usize, residues: &mut [u64], modulus: u64) -> Result<(), FormatError> {
    unpack_into(packed, width, residues)?;
    let unreduced = residues.iter().fold(false, |unreduced, &residue| unreduced | (residue >= modulus));
    if unreduced { Err(first_at_least(residues, modulus)) } else { Ok(()) }
}

/// Largest value of `width` bytes.
fn low_mask(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

fn check_lengths(residues: usize, width: usize, packed_bytes: usize) -> Result<(), FormatError> {
    if !(1..=8).contains(&width) {
        return Err(FormatError::Width { found: width });
    }
    if residues.checked_mul(width) != Some(packed_bytes) {
        return Err(FormatError::invalid("packed bytes", packed_bytes, format!("{residues} residues of {width}")));
    }
    Ok(())
}

/// The error for the first residue that is not below `limit` (called only when there is one).
#[cold]
fn first_at_least(residues: &[u64], limit: u64) -> FormatError {
    let index = residues.iter().position(|&residue| residue >= limit).unwrap_or(0);
    FormatError::Residue { index, found: residues.get(index).copied().unwrap_or(0), limit }
}

fn pack<const WIDTH: usize>(residues: &[u64], packed: &mut [u8]) {
    let mut groups = residues.chunks_exact(GROUP);
    let mut outputs = packed.chunks_exact_mut(GROUP * WIDTH);
    for (group, output) in (&mut groups).zip(&mut outputs) {
        for (residue, bytes) in group.iter().zip(output.chunks_exact_mut(WIDTH)) {
            bytes.copy_from_slice(&residue.to_le_bytes()[..WIDTH]);
        }
    }
    for (residue, bytes) in groups.remainder().iter().zip(outputs.into_remainder().chunks_exact_mut(WIDTH)) {
        bytes.copy_from_slice(&residue.to_le_bytes()[..WIDTH]);
    }
}

fn unpack<const WIDTH: usize>(packed: &[u8], residues: &mut [u64]) {
    let groups = packed.chunks_exact(GROUP * WIDTH);
    let tail = groups.remainder();
    let mut outputs = residues.chunks_exact_mut(GROUP);
    for (group, output) in groups.zip(&mut outputs) {
        for (index, residue) in output.iter_mut().enumerate() {
            // One unaligned 8-byte load that stays inside the group: near its end it starts earlier, and the bytes of
            // the residues before are shifted out.
            let load_at = (index * WIDTH).min(GROUP * WIDTH - 8);
            let shift_bits = 8 * (index * WIDTH - load_at);
            let mut word = [0; 8];
            word.copy_from_slice(&group[load_at..load_at + 8]);
            *residue = (u64::from_le_bytes(word) >> shift_bits) & low_mask(WIDTH);
        }
    }
    for (bytes, residue) in tail.chunks_exact(WIDTH).zip(outputs.into_remainder()) {
        let mut word = [0; 8];
        word[..WIDTH].copy_from_slice(bytes);
        *residue = u64::from_le_bytes(word);
    }
}
