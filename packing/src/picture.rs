//! Writing a picture: the one thing this crate makes rather than reads. Not here: what is on it.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::PackingError;

/// A PNG of `rgb`, rows from the top, three bytes a pixel.
///
/// # Errors
/// `Usage` for another number of bytes than width x height x 3.
pub fn encode_png(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>, PackingError> {
    let expected = u64::from(width) * u64::from(height) * 3;
    if rgb.len() as u64 != expected || expected == 0 {
        return Err(PackingError::Usage {
            what: "bytes of a picture",
            found: rgb.len().to_string(),
            expected: expected.to_string(),
        });
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| PackingError::Write { source: std::io::Error::other(error) })?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_and_a_wrong_length_does_not() {
        let rgb: Vec<u8> = (0..5 * 3 * 3).map(|index| (index * 5) as u8).collect();
        let png = encode_png(5, 3, &rgb).unwrap();
        let back = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!((back.width(), back.height(), back.into_raw()), (5, 3, rgb.clone()));
        assert!(encode_png(5, 4, &rgb).is_err());
        assert!(encode_png(0, 3, &[]).is_err());
    }
}
