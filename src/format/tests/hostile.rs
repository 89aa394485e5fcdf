//! Headers made to mislead: each is refused for the reason it should be, none panics, none allocates what it claims.

use std::fs;

use super::*;
use crate::format::ErrorKind;

const DIGITS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Metadata in order, with the given digest names and extra text before the kind.
fn metadata(digests: &[&str], extra: &str) -> String {
    let digests: String = digests.iter().map(|name| format!(r#""nightshift.digest.{name}":"{DIGITS}","#)).collect();
    format!(
        r#""__metadata__":{{{digests}"nightshift.digest.header":"HEADER",{extra}"nightshift.kind":"results","nightshift.version":"1"}}"#
    )
}

/// A file with this header and `data_bytes` zeros; `HEADER` becomes the digest that makes the header consistent.
fn write_raw(path: &Path, json: &str, data_bytes: usize) {
    let header = |digest: &str| {
        let mut bytes = vec![0; 8];
        bytes.extend(json.replace("HEADER", digest).bytes());
        bytes.resize(bytes.len().next_multiple_of(4096), b' ');
        let len = bytes.len() as u64 - 8;
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let mut file = header(blake3::hash(&header(DIGITS)).to_hex().as_str());
    file.resize(file.len() + data_bytes, 0);
    fs::write(path, file).unwrap();
}

fn refusal(json: &str, data_bytes: usize) -> FormatError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    write_raw(&path, json, data_bytes);
    match open(&path) {
        Err(FormatError::InFile { error, .. }) => *error,
        Err(other) => panic!("does not name the file: {other}"),
        Ok(_) => panic!("accepted: {json:.300}"),
    }
}

#[test]
fn the_helper_makes_acceptable_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound");
    let tensor = r#""a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]}"#;
    write_raw(&path, &format!("{{{},{tensor}}}", metadata(&["a"], "")), 10);
    let container = open(&path).unwrap();
    assert_eq!(container.section("a").unwrap().bytes, [0; 10]);
    assert!(matches!(container.verify().unwrap_err().root(), FormatError::Digest { section, .. } if section == "a"));
}

#[test]
fn shapes_and_offsets_that_lie() {
    let tensors = |text: &str| format!("{{{},{text}}}", metadata(&["a"], ""));
    let one = |dtype: &str, shape: &str, offsets: &str| {
        tensors(&format!(r#""a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#))
    };
    let header = |json: &str, data_bytes: usize, part: &str| {
        let error = refusal(json, data_bytes);
        assert!(matches!(&error, FormatError::Header(reason) if reason.contains(part)), "{part}: {error}");
    };
    // Ends beyond any file: sums with the header's length, or sizes in bits, overflow 64 bits.
    header(&one("U8", "[18446744073709551615]", "[0,18446744073709551615]"), 10, "overflow");
    header(&one("U8", "[4611686018427387904]", "[0,4611686018427387904]"), 10, "overflow");
    let large = one("U8", "[1152921504606846976]", "[0,1152921504606846976]");
    assert!(matches!(refusal(&large, 10), FormatError::Length { expected_bytes: 1_152_921_504_606_851_072, .. }));
    let longer = one("U8", "[1099511627776]", "[0,1099511627776]");
    let error = refusal(&longer, 10);
    assert!(
        matches!(error, FormatError::Length { found_bytes: 4106, expected_bytes: 1_099_511_631_872 }),
        "a terabyte claimed: {error}"
    );
    header(&one("U8", "[4294967296,4294967296,2]", "[0,10]"), 10, "overflow");
    header(&one("F64", "[2305843009213693952]", "[0,0]"), 0, "overflow");
    header(&one("U8", "[-10]", "[0,10]"), 10, "invalid value");
    header(&one("U8", "[10]", "[10,0]"), 10, "offset");
    header(&one("U8", "[9]", "[0,10]"), 10, "shape");
    header(&one("U8", "[1e3]", "[0,1000]"), 1000, "invalid type");
    header(&one("Q7", "[10]", "[0,10]"), 10, "unknown variant");
    assert!(matches!(refusal(&one("BF16", "[5]", "[0,10]"), 10), FormatError::Invalid { .. }));
    assert!(matches!(refusal(&one("U8", "[0]", "[0,0]"), 0), FormatError::Invalid { .. }));
    assert!(matches!(refusal(&one("U8", "[1,1,1,1,1,1,1,1,10]", "[0,10]"), 10), FormatError::Invalid { .. }));
    assert!(matches!(refusal(&one("U8", "[10]", "[0,10]"), 9), FormatError::Length { .. }));
    // An unknown field, white space and a foreign order parse, but are not the one spelling.
    header(&tensors(r#""a":{"dtype":"U8","shape":[10],"data_offsets":[0,10],"x":1}"#), 10, "accepted spelling");
    header(&tensors(r#""a":{"shape":[10],"dtype":"U8","data_offsets":[0,10]}"#), 10, "accepted spelling");
}

#[test]
fn sections_that_overlap_repeat_or_stray() {
    let two = |digests: &[&str], first: &str, second: &str| format!("{{{},{first},{second}}}", metadata(digests, ""));
    let tensor = |name: &str, begin: usize, end: usize| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
    };
    let overlap = two(&["a", "b"], &tensor("a", 0, 10), &tensor("b", 5, 15));
    assert!(matches!(refusal(&overlap, 15), FormatError::Header(reason) if reason.contains("offset")));
    let hole = two(&["a", "b"], &tensor("a", 0, 10), &tensor("b", 4096, 4100));
    assert!(matches!(refusal(&hole, 4100), FormatError::Header(reason) if reason.contains("offset")));
    let unaligned = two(&["a", "b"], &tensor("a", 0, 10), &tensor("b", 10, 15));
    assert!(matches!(refusal(&unaligned, 15), FormatError::Invalid { what, .. } if what.contains("offset")));
    // The parser keeps the last of two; the spelling check sees the first.
    let twice = two(&["a"], &tensor("a", 0, 10), &tensor("a", 0, 10));
    assert!(matches!(refusal(&twice, 10), FormatError::Header(reason) if reason.contains("accepted spelling")));
    let misnamed_pad = format!(
        "{{{},{},{},{}}}",
        metadata(&["a", "b"], ""),
        tensor("a", 0, 10),
        tensor("pad.7", 10, 4096),
        tensor("b", 4096, 4097)
    );
    assert!(
        matches!(refusal(&misnamed_pad, 4097), FormatError::Header(reason) if reason.contains("accepted spelling"))
    );
    let pad_at_end = two(&["a"], &tensor("a", 0, 10), &tensor("pad.0", 10, 4096));
    assert!(matches!(refusal(&pad_at_end, 4096), FormatError::Length { .. }));
    let only = |digests: &[&str]| format!("{{{},{}}}", metadata(digests, ""), tensor("a", 0, 10));
    assert!(matches!(refusal(&only(&[]), 10), FormatError::NoMetadata { key } if key == "digest.a"));
    assert!(matches!(refusal(&only(&["a", "b"]), 10), FormatError::NoSection { name } if name == "b"));
}

#[test]
fn many_sections_are_limited() {
    let count = 2000;
    let names: Vec<String> = (0..count).map(|index| format!("s{index}")).collect();
    let tensors: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!(
                r#","{name}":{{"dtype":"U8","shape":[4096],"data_offsets":[{},{}]}}"#,
                index * 4096,
                (index + 1) * 4096
            )
        })
        .collect();
    let error = refusal(&format!("{{{}{tensors}}}", metadata(&[], "")), 0);
    assert!(matches!(error, FormatError::TooLarge { found: 2000, limit: 1024, .. }), "{error}");
}

#[test]
fn headers_that_are_not_headers() {
    let error = refusal(&"[".repeat(500_000), 0);
    assert!(matches!(error, FormatError::Header(_)), "deep JSON: {error}");
    let deep = format!(r#"{{"a":{}0{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(matches!(refusal(&deep, 0), FormatError::Header(reason) if reason.contains("recursion")));
    assert!(matches!(refusal("", 0), FormatError::Header(_)));
    assert!(matches!(refusal("{}", 0), FormatError::Foreign { key: "version" }));
    let foreign = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let error = refusal(foreign, 4);
    assert_eq!(error.to_string(), "not a nightshift container: metadata has no nightshift.version");
    let newer = r#"{"__metadata__":{"nightshift.kind":"results","nightshift.version":"2"}}"#;
    let error = refusal(newer, 0);
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Mismatch, "found format version 2, expected 1".into()));
    let unknown = r#"{"__metadata__":{"nightshift.kind":"poem","nightshift.version":"1"}}"#;
    assert_eq!(refusal(unknown, 0).to_string(), "found a poem file, expected a known kind");
    let alien_key = format!("{{{}}}", metadata(&[], r#""a":"b","#));
    assert!(matches!(refusal(&alien_key, 0), FormatError::Invalid { what, .. } if what == "metadata key"));
    let not_text = r#"{"__metadata__":{"nightshift.kind":1}}"#;
    assert!(matches!(refusal(not_text, 0), FormatError::Header(_)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    let reason = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        open(&path).unwrap_err().root().to_string()
    };
    assert_eq!(reason(&[]), "found 0 bytes, expected 8");
    assert_eq!(reason(&[0xff; 16]), format!("header bytes: found {}, expected at most 1048576", u64::MAX));
    let mut claims = 1_048_569_u64.to_le_bytes().to_vec();
    assert_eq!(reason(&claims), "header bytes: found 1048577, expected at most 1048576");
    claims[0] -= 1;
    assert_eq!(reason(&claims), "found 8 bytes, expected 1048576");
    let mut not_utf8 = 12_u64.to_le_bytes().to_vec();
    not_utf8.extend(b"{\"\xff\xfe\":\"\xff\"}   ");
    assert!(reason(&not_utf8).starts_with("malformed header: invalid unicode"), "{}", reason(&not_utf8));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo is part of every Unix");
    assert!(matches!(open(&path).unwrap_err().root(), FormatError::NotAFile { found: "a special file" }));
}
