//! PNG and JPEG files and folders: order, channels, class folders, and what is refused.

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use packing::{ErrorKind, Limits, PackingError, Pixels, read_images};

use crate::support::{Folder, picture};

fn grey(width: u32, height: u32, value: u8) -> DynamicImage {
    GrayImage::from_pixel(width, height, Luma([value])).into()
}

fn png(picture_: &DynamicImage) -> Vec<u8> {
    picture(picture_, ImageFormat::Png)
}

#[test]
fn a_folder_is_read_in_order_of_names_as_planes() {
    let folder = Folder::new();
    let colour = |base: u8| {
        let pixel = |x: u32, y: u32| Rgb([base + x as u8, base + 10 + y as u8, base + 20]);
        DynamicImage::from(RgbImage::from_fn(3, 2, pixel))
    };
    folder.put("b.PNG", &png(&colour(100)));
    folder.put("a.png", &png(&colour(0)));
    folder.put("notes.txt", b"not a picture");
    folder.put(".hidden.png", b"not a picture");
    let set = read_images(folder.path(), &Limits::default()).unwrap();
    assert_eq!((set.count, set.shape, &set.labels), (2, [3, 2, 3], &None));
    assert_eq!(set.names.unwrap(), ["a.png", "b.PNG"]);
    let Pixels::Bytes(pixels) = set.pixels else { panic!("expected bytes") };
    assert_eq!(pixels[..18], [0, 1, 2, 0, 1, 2, 10, 10, 10, 11, 11, 11, 20, 20, 20, 20, 20, 20]);
    assert_eq!(pixels[18], 100);
}

#[test]
fn class_folders_become_labels() {
    let folder = Folder::new();
    folder.put("dog/1.png", &png(&grey(2, 2, 1)));
    folder.put("cat/2.png", &png(&grey(2, 2, 2)));
    folder.put("cat/3.jpg", &picture(&grey(2, 2, 200), ImageFormat::Jpeg));
    let set = read_images(folder.path(), &Limits::default()).unwrap();
    assert_eq!(set.labels.as_deref(), Some(&[0, 0, 1][..]));
    assert_eq!(set.class_names.unwrap(), ["cat", "dog"]);
    assert_eq!(set.names.unwrap(), ["cat/2.png", "cat/3.jpg", "dog/1.png"]);
    let Pixels::Bytes(pixels) = set.pixels else { panic!("expected bytes") };
    assert!(pixels[4].abs_diff(200) <= 2, "JPEG keeps a flat grey to within rounding");
    assert_eq!((pixels[0], pixels[8]), (2, 1));
}

#[test]
fn one_picture_is_a_set_of_one() {
    let folder = Folder::new();
    let path = folder.put("digit", &png(&grey(5, 4, 9)));
    let set = read_images(&path, &Limits::default()).unwrap();
    assert_eq!((set.count, set.shape, set.pixels), (1, [1, 4, 5], Pixels::Bytes(vec![9; 20])));
}

#[test]
fn mixed_shapes_name_the_file() {
    let folder = Folder::new();
    folder.put("a.png", &png(&grey(3, 2, 1)));
    folder.put("b.png", &png(&grey(2, 3, 1)));
    let error = read_images(folder.path(), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(error.to_string().ends_with("b.png: found shape [1, 3, 2], expected [1, 2, 3] (channels, rows, columns)"));
}

#[test]
fn opaque_alpha_is_dropped_and_translucency_refused() {
    let folder = Folder::new();
    let with_alpha = |alpha| png(&RgbaImage::from_pixel(2, 1, Rgba([1, 2, 3, alpha])).into());
    let opaque = read_images(&folder.put("a.png", &with_alpha(255)), &Limits::default()).unwrap();
    assert_eq!(opaque.pixels, Pixels::Bytes(vec![1, 1, 2, 2, 3, 3]));
    let error = read_images(&folder.put("b.png", &with_alpha(254)), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("translucent"), "{error}");
    let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(2, 2, Luma([70u16])));
    let error = read_images(&folder.put("c.png", &png(&deep)), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("found colour type L16"), "{error}");
}

#[test]
fn pictures_beyond_the_limits_are_not_decoded() {
    let folder = Folder::new();
    folder.put("a.png", &png(&grey(64, 64, 1)));
    folder.put("b.png", &png(&grey(64, 64, 2)));
    let refuse = |limits| read_images(folder.path(), &limits).unwrap_err();
    let narrow = refuse(Limits { max_side: 63, ..Limits::default() });
    assert_eq!(narrow.kind(), ErrorKind::BadData, "{narrow}");
    let light = refuse(Limits { max_decoded_bytes: 8191, ..Limits::default() });
    assert!(matches!(light, PackingError::TooLarge { what: "decoded bytes", found: 8192, .. }), "{light}");
    let few = refuse(Limits { max_images: 1, ..Limits::default() });
    assert!(few.to_string().ends_with("b.png: found 2 images, limit 1"), "{few}");
    // A header that claims 50000 x 50000 in front of a few bytes.
    let mut bomb = png(&grey(64, 64, 1));
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let mut crc = flate2::Crc::new();
    crc.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let error = read_images(&folder.put("z/bomb.png", &bomb), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
}

#[test]
fn long_picture_files_are_not_decoded() {
    const CAP_BYTES: u64 = 64 << 20;
    let folder = Folder::new();
    let path = folder.put("a.png", &png(&grey(4, 4, 1)));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // What follows a picture is not read; only its length counts.
    file.set_len(CAP_BYTES).unwrap();
    assert_eq!(read_images(folder.path(), &Limits::default()).unwrap().count, 1);
    file.set_len(CAP_BYTES + 1).unwrap();
    let error = read_images(folder.path(), &Limits::default()).unwrap_err();
    assert!(error.to_string().ends_with("a.png: found 67108865 bytes of a picture file, limit 67108864"), "{error}");
    file.set_len(1000).unwrap();
    let tight = Limits { max_decoded_bytes: 999, ..Limits::default() };
    let error = read_images(folder.path(), &tight).unwrap_err();
    assert!(matches!(error, PackingError::TooLarge { found: 1000, limit: 999, .. }), "{error}");
}

#[test]
fn broken_pictures_and_empty_folders() {
    let folder = Folder::new();
    let whole = picture(&grey(16, 16, 77), ImageFormat::Png);
    folder.put("cut/a.png", &whole[..whole.len() / 2]);
    folder.put("junk/a.jpg", b"\xff\xd8\xff junk");
    folder.put("gif/a.png", b"GIF89a no such format here");
    folder.put("none/readme.md", b"text");
    for name in ["cut", "junk", "gif"] {
        let error = read_images(&folder.path().join(name), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData, "{name}: {error}");
        assert!(error.to_string().contains(&format!("{name}/a.")), "{error}");
    }
    let error = read_images(&folder.path().join("none"), &Limits::default()).unwrap_err();
    assert!(matches!(error, PackingError::Empty { what: "PNG or JPEG images", .. }), "{error}");
}
