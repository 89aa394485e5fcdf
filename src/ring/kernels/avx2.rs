//! AVX2, FMA and BMI2: block products on 16-bit words (with AVX-VNNI where that is), packed residues by shuffles, squares in double precision; of all else
//! the reference text, compiled with four-word vectors and flag-free multiplies.

use super::block::{BlockOperands, PackedWords};
use super::{CosinePlan, Extending, Modulus, ProductSums, ShoupFactor, ShoupTable, portable};

mod packed;
mod shorts;
mod squares;

pub(super) use packed::{unpack_into, unpack_pieces_into};
pub(super) use shorts::{PackedShorts, work};
pub(super) use squares::square_rows_into;

/// Exists only on a CPU with AVX2, FMA and BMI2, and what its way with words needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(Words);

/// How products of 16-bit words are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// Two instructions.
    Multiplied,
    /// One, of AVX-VNNI.
    Summed,
    /// The same of AVX-512 VNNI.
    #[cfg(test)]
    SummedWide,
}

impl Token {
    pub fn detect() -> Option<Self> {
        let all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2");
        let words = if is_x86_feature_detected!("avxvnni") { Words::Summed } else { Words::Multiplied };
        all.then_some(Self(words))
    }

    /// What this CPU can do besides what is fastest.
    #[cfg(test)]
    pub fn others() -> Vec<Self> {
        let Some(Self(fastest)) = Self::detect() else { return Vec::new() };
        let wide = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni");
        let others = [(Words::Multiplied, fastest != Words::Multiplied), (Words::SummedWide, wide)];
        others.into_iter().filter_map(|(words, present)| present.then_some(Self(words))).collect()
    }
}

/// The reference function of that name, compiled for this tier.
macro_rules! compiled {
    ($name:ident ( $($arg:ident : $ty:ty),* ) $(-> $result:ty)?) => {
        pub(super) fn $name(_: Token, $($arg: $ty),*) $(-> $result)? {
            #[target_feature(enable = "avx2,bmi2")]
            fn inner($($arg: $ty),*) $(-> $result)? {
                portable::$name($($arg),*)
            }
            // SAFETY: a `Token` exists only where every feature is that the callee enables.
            unsafe { inner($($arg),*) }
        }
    };
}

compiled!(mul_into(m: &Modulus, a: &[u64], b: &[u64], out: &mut [u64]));
compiled!(mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]));
compiled!(scale_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor));
compiled!(reduce_words_assign(m: &Modulus, x: &mut [u64]) -> bool);
compiled!(count_blocks_into(high: u64, first: u64, blocks: &mut [[u8; 16]]));
compiled!(fold_twist_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable));
compiled!(untwist_unfold_assign(m: &Modulus, x: &mut [u64], w: ShoupFactor, t: &ShoupTable));
compiled!(square_into(m: &Modulus, c0: &[u64], c1: &[u64], out: [&mut [u64]; 3]));
compiled!(words_mul_add(m: &Modulus, block: &PackedWords, operands: &BlockOperands<'_>, out: &mut [u64]));
compiled!(nonzero_assign(m: &Modulus, x: &mut [u64]));
compiled!(nonzero_pieces_into(m: &Modulus, x: &[u64], columns: usize, stride: usize, out: &mut [u64]));
compiled!(extend_twist_into(m: &Modulus, from: &Extending<'_>, w: ShoupFactor, t: &ShoupTable, out: &mut [u64]));
compiled!(mark_quotients_assign(reciprocals: &[f64], limbs: &mut [u64]));
compiled!(sum_products_into(m: &Modulus, sums: &ProductSums<'_>, out: [&mut [u64]; 2]));
compiled!(subtract_from_products_assign(m: &Modulus, sums: &ProductSums<'_>, w: ShoupFactor, x: [&mut [u64]; 2]));
compiled!(pack_into(width: usize, residues: &[u64], packed: &mut [u8]));
compiled!(pack_pieces_into(width: usize, residues: &[u64], stride: usize, piece: usize, packed: &mut [u8]));
compiled!(subtract_from_scaled_assign(m: &Modulus, x: &mut [u64], from: &[u64], w: ShoupFactor));
compiled!(subtract_product_from_assign(m: &Modulus, x: &mut [u64], factors: &[u64], from: &[u64]));
compiled!(lift_into(m: &Modulus, x: &[i64], out: &mut [u64]));
compiled!(add_binomials_assign(blocks: &[[u8; 16]], x: &mut [i64]));
compiled!(cosine_rows_assign(plan: &CosinePlan, rows: &mut [f64], scratch: &mut [f64]));
