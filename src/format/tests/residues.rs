//! Packed residues against byte-by-byte arithmetic.

use proptest::prelude::*;

use crate::format::FormatError;
use crate::format::residues::{pack_into, unpack_checked_into, unpack_into, width_bytes};

proptest! {
    #[test]
    fn packs_as_little_endian_bytes_and_back(
        width in 1_usize..=8,
        words in prop::collection::vec(any::<u64>(), 0..70),
    ) {
        let limit_bits = 8 * width as u32;
        let residues: Vec<u64> = words.iter().map(|word| word >> (64 - limit_bits)).collect();
        let expected: Vec<u8> = residues
            .iter()
            .flat_map(|&residue| (0..width).map(move |byte| (residue >> (8 * byte)) as u8))
            .collect();
        let mut packed = vec![0xaa; residues.len() * width];
        pack_into(&residues, width, &mut packed).unwrap();
        prop_assert_eq!(&packed, &expected);
        let mut unpacked = vec![u64::MAX; residues.len()];
        unpack_into(&packed, width, &mut unpacked).unwrap();
        prop_assert_eq!(&unpacked, &residues);
    }
}

#[test]
fn unreduced_residues_are_found() {
    let modulus = 0xff_ffff_c001;
    for index in [0, 7, 8, 20] {
        for found in [modulus, modulus + 5] {
            let mut residues = vec![modulus - 1; 21];
            residues[index] = found;
            let mut packed = vec![0; 21 * 5];
            pack_into(&residues, 5, &mut packed).unwrap();
            let error = unpack_checked_into(&packed, 5, &mut residues, modulus).unwrap_err();
            assert!(
                matches!(error, FormatError::Residue { index: at, found: value, limit } if (at, value, limit) == (index, found, modulus)),
                "{error}"
            );
            unpack_checked_into(&packed, 5, &mut residues, found + 1).unwrap();
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let error = pack_into(&[1, 1 << 32, 3], 4, &mut [0; 12]).unwrap_err();
    assert_eq!(error.to_string(), "residue 1: found 4294967296, expected less than 4294967296");
    pack_into(&[u64::MAX], 8, &mut [0; 8]).unwrap();
    for (residues, width, packed) in [(3, 4, 11), (3, 4, 13), (3, 0, 0), (3, 9, 27), (usize::MAX / 64, 8, 8)] {
        let mut words = vec![0; residues.min(3)];
        let result = unpack_into(&vec![0; packed], width, &mut words);
        assert!(result.is_err(), "{residues} residues of {width} bytes in {packed}");
    }
    let widths = [(2, 1), (256, 1), (257, 2), (1 << 32, 4), ((1 << 32) + 1, 5), (0xff_ffff_c001, 5), (u64::MAX, 8)];
    for (modulus, width) in widths {
        assert_eq!(width_bytes(modulus), width, "{modulus}");
    }
}
