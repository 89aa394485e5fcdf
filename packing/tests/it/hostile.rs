//! Files that lie, are cut, or explode: each is refused with the right case, and never by allocating what it claims.

use packing::{ErrorKind, Limits, PackingError, read_images, read_labels};
use proptest::prelude::*;

use crate::support::{Folder, cifar, gzip, idx, npy, npz, xz};

fn refuse(name: &str, bytes: &[u8]) -> PackingError {
    refuse_within(name, bytes, &Limits::default())
}

fn refuse_within(name: &str, bytes: &[u8], limits: &Limits) -> PackingError {
    let folder = Folder::new();
    let path = folder.put(name, bytes);
    let error = read_images(&path, limits).expect_err(name);
    assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    error
}

#[test]
fn headers_that_claim_too_much() {
    let huge = refuse("huge", &idx(&[0x803, u32::MAX, 28, 28], &[]));
    assert!(matches!(huge, PackingError::TooLarge { what: "images", found: 0xffff_ffff, .. }), "{huge}");
    let wide = refuse("wide", &idx(&[0x803, 1, 5000, 28], &[]));
    assert!(matches!(wide, PackingError::TooLarge { what: "rows", found: 5000, limit: 4096, .. }), "{wide}");
    let heavy = refuse("heavy", &idx(&[0x804, 1 << 20, 3, 4096, 4096], &[]));
    assert!(matches!(heavy, PackingError::TooLarge { what: "decoded bytes", .. }), "{heavy}");
    // Within the limits (4 GB) but not there: only what is there is reserved.
    let absent = refuse("absent", &idx(&[0x803, 250, 4096, 4096], &[1, 2, 3]));
    let expected = 16 + 250 * 4096 * 4096;
    assert!(
        matches!(absent, PackingError::Truncated { found_bytes: 19, expected_bytes, .. } if expected_bytes == expected),
        "{absent}"
    );
    let absent = refuse("absent.gz", &gzip(&idx(&[0x803, 250, 4096, 4096], &[1, 2, 3])));
    assert!(matches!(absent, PackingError::Truncated { found_bytes: 19, .. }), "{absent}");
}

#[test]
fn zero_dimensions_and_nothing_at_all() {
    assert!(matches!(refuse("none", &idx(&[0x803, 0, 28, 28], &[])), PackingError::Empty { what: "images", .. }));
    assert!(refuse("flat", &idx(&[0x803, 1, 0, 28], &[])).to_string().contains("found 0 rows"));
    assert!(matches!(refuse("e.bin", &[]), PackingError::Empty { .. }));
    assert!(refuse("empty", &[]).to_string().contains("found an empty file, expected IDX"));
    assert!(refuse("text", b"hello, world").to_string().contains("found first bytes 68 65 6c 6c 6f"));
    assert!(refuse("labels", &idx(&[0x801, 1], &[3])).to_string().contains("expected IDX images"));
}

#[test]
fn trailing_bytes_in_each_layer() {
    let images = idx(&[0x803, 1, 2, 2], &[1, 2, 3, 4]);
    let trailing = |name: &str, bytes: Vec<u8>| refuse(name, &bytes);
    let longer = [images.as_slice(), &[0]].concat();
    assert!(matches!(trailing("a", longer.clone()), PackingError::Trailing { expected_bytes: 20, .. }));
    assert!(matches!(trailing("a.gz", gzip(&longer)), PackingError::Trailing { .. }));
    assert!(matches!(trailing("a.xz", xz(&longer)), PackingError::Trailing { .. }));
    // Bytes after the compressed stream are no stream.
    trailing("b.gz", [gzip(&images).as_slice(), b"junk"].concat());
    trailing("b.xz", [xz(&images).as_slice(), b"junk"].concat());
    assert!(trailing("c.bin", [cifar(&[1]).as_slice(), &[0]].concat()).to_string().contains("multiple of 3073"));
    assert!(matches!(trailing("d.npy", npy("|u1", "False", "(1, 1, 1)", &[1, 2])), PackingError::Trailing { .. }));
}

#[test]
fn flipped_bits_are_caught_by_checksums() {
    let images = idx(&[0x803, 1, 8, 8], &[7; 64]);
    let mut file = gzip(&images);
    let crc = file.len() - 8;
    file[crc] ^= 1;
    refuse("crc.gz", &file);
    let mut file = xz(&images);
    let middle = file.len() / 2;
    file[middle] ^= 0x10;
    refuse("check.xz", &file);
    let mut file = npz(&[("images.npy", &npy("|u1", "False", "(1, 1, 4)", &[1, 2, 3, 4]))]);
    let data = file.windows(4).position(|window| window == b"\x93NUM").unwrap_or(60);
    file[data] ^= 1;
    refuse("check.npz", &file);
}

#[test]
fn bombs_stop_at_the_limit() {
    let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
    // 64 MiB of zeros are 64 KiB of gzip; as CIFAR-10 they would be valid records of class 0.
    let zeros = vec![0u8; 64 << 20];
    for (name, bytes) in [("z.bin.gz", gzip(&zeros)), ("z.bin.xz", xz(&zeros))] {
        let bomb = refuse_within(name, &bytes, &limits);
        assert!(matches!(bomb, PackingError::TooLarge { found: 1_047_894, limit: 1_047_893, .. }), "{bomb}");
    }
    let array = [npy("|u1", "False", "(1024, 256, 256)", &[]).as_slice(), &zeros].concat();
    let bomb = refuse_within("z.npz", &npz(&[("images.npy", &array)]), &limits);
    assert!(matches!(bomb, PackingError::TooLarge { what: "decoded bytes", found: 67_108_864, .. }), "{bomb}");
    // A header that says little with much behind it stops after one byte more.
    let array = [npy("|u1", "False", "(1, 1, 1)", &[]).as_slice(), &zeros].concat();
    let bomb = refuse_within("y.npz", &npz(&[("images.npy", &array)]), &limits);
    assert!(matches!(bomb, PackingError::Trailing { .. }), "{bomb}");
}

#[test]
fn an_xz_dictionary_of_gigabytes_is_not_allocated() {
    let mut file = xz(&idx(&[0x803, 1, 1, 1], &[1]));
    // Block header: size byte, flags, filter id 0x21, property size 1, dictionary size; 40 stands for 4 GiB - 1.
    let header_bytes = (usize::from(file[12]) + 1) * 4;
    assert_eq!(file[14..16], [0x21, 1]);
    file[16] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&file[12..12 + header_bytes - 4]);
    file[12 + header_bytes - 4..12 + header_bytes].copy_from_slice(&crc.sum().to_le_bytes());
    let error = refuse("big-dictionary.xz", &file);
    assert!(error.to_string().contains("memory too big"), "{error}");
}

#[test]
fn npy_headers_that_aim_at_the_parser() {
    let overflow = npy("|u1", "False", "(4294967296, 4294967296, 4294967296)", &[]);
    assert!(refuse("overflow.npy", &overflow).to_string().contains("31 digits"));
    let deep = npy("|u1", "False", &"(".repeat(3000), &[]);
    assert!(refuse("deep.npy", &deep).to_string().contains("brackets"));
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(refuse("long.npy", &long), PackingError::TooLarge { found: 0xffff_ffff, limit: 4096, .. }));
    let claims = npy("<f4", "False", "(16000000, 4, 4, 4)", &[0; 64]);
    assert!(matches!(refuse("claims.npy", &claims), PackingError::Truncated { .. }));
    for (shape, order, descr, wanted) in [
        ("(1, 2, 2)", "True", "|u1", "Fortran order"),
        ("(4,)", "False", "|u1", "expected [N, H, W] or [N, C, H, W]"),
        ("(1, 1, 4)", "False", "<f8", "element type f8"),
        ("(1, 1, 4)", "False", "|O", "element type O"),
        ("(1, -1, 4)", "False", "|u1", "negative"),
        ("(1, 0, 4)", "False", "|u1", "found 0 rows"),
        ("", "False", "|u1", "could not parse"),
    ] {
        let error = refuse("wrong.npy", &npy(descr, order, shape, &[0; 4])).to_string();
        assert!(error.contains(wanted), "{shape}: {error}");
    }
    let mut infinite = npy("<f4", "False", "(2, 1, 1)", &[0; 8]);
    let last = infinite.len() - 4;
    infinite[last..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(refuse("inf.npy", &infinite).to_string().contains("found inf in image 1"));
}

#[test]
fn cifar_labels_are_checked() {
    assert!(refuse("a.bin", &cifar(&[1, 10])).to_string().contains("found label 10 at image 1, expected 0 to 9"));
}

#[test]
fn paths_that_are_not_there_or_not_files() {
    let folder = Folder::new();
    let error = read_images(&folder.path().join("absent.npy"), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    let error = read_images(std::path::Path::new("/dev/zero"), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("expected a regular file"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is cut off or flipped, the answer is an error or a set that agrees with itself; never a panic.
    #[test]
    fn damaged_files_never_panic(kind in 0usize..8, cut in 0.0f64..1.0, flip in any::<(u16, u8)>()) {
        let images = idx(&[0x803, 2, 4, 4], &[9; 32]);
        let array = npy("|u1", "False", "(2, 4, 4)", &[9; 32]);
        let labels = npy("<i2", "False", "(3,)", &[1, 0, 2, 0, 3, 0]);
        let (name, mut bytes) = match kind {
            0 => ("a", images),
            1 => ("a.gz", gzip(&images)),
            2 => ("a.xz", xz(&images)),
            3 => ("a.npy", array),
            4 => ("a.npz", npz(&[("images.npy", &array)])),
            5 => ("a.bin.xz", xz(&cifar(&[1, 2]))),
            6 => ("l.npy", labels),
            _ => ("l.csv", b"file,label\na.png,3\nb.png,4\n".to_vec()),
        };
        let folder = Folder::new();
        let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
        let truncated = &bytes[..(bytes.len() as f64 * cut) as usize];
        let path = folder.put(name, truncated);
        if kind < 6 {
            prop_assert!(read_images(&path, &limits).is_err(), "a cut {} was taken", name);
        } else {
            let _ = read_labels(&path, &limits);
        }
        let position = usize::from(flip.0) % bytes.len();
        bytes[position] ^= flip.1;
        let path = folder.put(name, &bytes);
        if let Ok(set) = read_images(&path, &limits) {
            prop_assert_eq!(set.pixels.len(), set.count * set.entries());
        }
        let _ = read_labels(&path, &limits);
    }
}
