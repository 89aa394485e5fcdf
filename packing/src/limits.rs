//! How much a reader may take in before it refuses.

use std::path::Path;

use crate::error::PackingError;

/// Upper bounds that every reader enforces before it reserves memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most images in one set (and most labels in one label file).
    pub max_images: usize,
    /// Most bytes of decoded pixels in one set: one byte a value for bytes, four for floats.
    pub max_decoded_bytes: u64,
    /// Most channels, rows or columns of one image.
    pub max_side: usize,
}

impl Default for Limits {
    /// 16 Mi images, 4 GiB of pixels, sides up to 4096.
    fn default() -> Self {
        Self { max_images: 1 << 24, max_decoded_bytes: 4 << 30, max_side: 4096 }
    }
}

impl Limits {
    /// Checks a claimed tensor of `count` images of `shape` (C, H, W) with `value_bytes` each; returns its bytes.
    ///
    /// # Errors
    /// `TooLarge` naming the first bound exceeded; `Malformed` for a zero dimension or no images.
    pub(crate) fn check(
        &self,
        path: &Path,
        count: u64,
        shape: [u64; 3],
        value_bytes: u64,
    ) -> Result<(usize, [usize; 3], u64), PackingError> {
        let names = ["channels", "rows", "columns"];
        let mut sides = [0usize; 3];
        for ((side, name), target) in shape.iter().zip(names).zip(&mut sides) {
            if *side == 0 {
                return Err(PackingError::malformed(path, format!("found 0 {name}, expected at least 1")));
            }
            bound(path, name, *side, self.max_side as u64)?;
            *target = usize::try_from(*side).map_err(|_| too_large(path, name, *side, self.max_side as u64))?;
        }
        if count == 0 {
            return Err(PackingError::Empty { path: path.to_owned(), what: "images" });
        }
        bound(path, "images", count, self.max_images as u64)?;
        // Saturation keeps an overflowing claim above any limit below u64::MAX; the conversion below catches the rest.
        let bytes = shape.iter().fold(count.saturating_mul(value_bytes), |product, side| product.saturating_mul(*side));
        bound(path, "decoded bytes", bytes, self.max_decoded_bytes)?;
        match (usize::try_from(count), isize::try_from(bytes)) {
            (Ok(count), Ok(_)) => Ok((count, sides, bytes)),
            _ => Err(too_large(path, "decoded bytes", bytes, isize::MAX as u64)),
        }
    }
}

/// `TooLarge` when `found` is above `limit`.
pub(crate) fn bound(path: &Path, what: &'static str, found: u64, limit: u64) -> Result<(), PackingError> {
    if found > limit { Err(too_large(path, what, found, limit)) } else { Ok(()) }
}

fn too_large(path: &Path, what: &'static str, found: u64, limit: u64) -> PackingError {
    PackingError::TooLarge { path: path.to_owned(), what, found, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflowing_claim_is_refused() {
        let limits = Limits { max_images: usize::MAX, max_decoded_bytes: u64::MAX, max_side: usize::MAX };
        let claim = limits.check(Path::new("x"), u64::MAX, [u64::MAX; 3], 4);
        assert!(matches!(claim, Err(PackingError::TooLarge { what: "decoded bytes", .. })), "{claim:?}");
    }

    #[test]
    fn each_bound_names_itself() {
        let limits = Limits { max_images: 10, max_decoded_bytes: 100, max_side: 5 };
        let path = Path::new("x");
        let what = |count, shape| match limits.check(path, count, shape, 1) {
            Err(PackingError::TooLarge { what, found, limit, .. }) => (what, found, limit),
            other => panic!("{other:?}"),
        };
        assert_eq!(what(1, [6, 1, 1]), ("channels", 6, 5));
        assert_eq!(what(1, [1, 7, 1]), ("rows", 7, 5));
        assert_eq!(what(11, [1, 1, 1]), ("images", 11, 10));
        assert_eq!(what(9, [1, 3, 4]), ("decoded bytes", 108, 100));
        assert_eq!(limits.check(path, 10, [1, 2, 5], 1).unwrap(), (10, [1, 2, 5], 100));
        assert!(matches!(limits.check(path, 0, [1, 1, 1], 1), Err(PackingError::Empty { .. })));
    }
}
