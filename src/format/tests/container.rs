//! Round trips, damage, and what a writer leaves behind.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype as TensorType;

use super::*;
use crate::format::{ALIGNMENT, ErrorKind, decode};

/// The header of the toy file, character for character: pins the spelling against upgrades of the libraries.
const GOLDEN_JSON: &str = concat!(
    r#"{"__metadata__":{"#,
    r#""nightshift.digest.a":"87fcf07cac5be3c91735b34e535c67286e4e7a63bf152d95f2cf4cd1a244758b","#,
    r#""nightshift.digest.b":"d6c5dcc484f91a898b90dbf3536e864e4c56b4c892e6ad0adb299a51cc747f0e","#,
    r#""nightshift.digest.header":"32aa4988b55aa910ed8b858f92041bc0bb1c13dde3a067aad379c6e9129875b3","#,
    r#""nightshift.key_id":"k\"\né","nightshift.kind":"results","nightshift.version":"1"},"#,
    r#""a":{"dtype":"U8","shape":[2,5],"data_offsets":[0,10]},"#,
    r#""pad.0":{"dtype":"U8","shape":[4086],"data_offsets":[10,4096]},"#,
    r#""b":{"dtype":"F32","shape":[3],"data_offsets":[4096,4108]}}"#
);

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let written = write_toy(&path, Kind::Results).unwrap();
    let container = Container::open(&path, Some(Kind::Results), &OpenLimits::default()).unwrap();
    container.verify().unwrap();
    assert_eq!((written.file_bytes, container.file_bytes()), (4096 + 4096 + 12, 8204));
    assert_eq!(container.content_id(), written.content_id);
    assert_eq!(container.metadata("key_id").unwrap(), "k\"\n\u{e9}");
    container.expect_metadata("key_id", "k\"\n\u{e9}").unwrap();
    assert_eq!(container.expect_metadata("key_id", "other").unwrap_err().kind(), ErrorKind::Mismatch);
    assert!(
        matches!(container.metadata("plan_id").unwrap_err().root(), FormatError::NoMetadata { key } if key == "plan_id")
    );
    let a = container.section_shaped("a", DType::U8, &[2, 5]).unwrap();
    assert_eq!(a.bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(decode::<f32>(container.section("b").unwrap().bytes).unwrap(), [1.5, -2.0, 0.25]);
    assert!(container.section_shaped("a", DType::U8, &[5, 2]).is_err());
    assert!(matches!(container.section("c").unwrap_err().root(), FormatError::NoSection { name } if name == "c"));
    for section in container.sections() {
        assert_eq!(section.bytes.as_ptr().addr() % ALIGNMENT, 0, "{}", section.name);
    }
    assert_eq!(container.file_digest(), blake3::hash(&fs::read(&path).unwrap()).to_hex().as_str());
}

#[test]
fn the_spelling_is_pinned_and_any_safetensors_reader_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let written = write_toy(&path, Kind::Results).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()), 4088);
    assert_eq!(std::str::from_utf8(&bytes[8..4096]).unwrap().trim_end_matches(' '), GOLDEN_JSON);

    // The header digest as a stranger computes it: the header's bytes with its own 64 digits replaced by zeros.
    let text = String::from_utf8(bytes[8..4096].to_vec()).unwrap();
    let mut blanked = bytes[..8].to_vec();
    blanked.extend(text.replace(&written.content_id, &"0".repeat(64)).bytes());
    assert_eq!(blake3::hash(&blanked).to_hex().as_str(), written.content_id);

    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let b = tensors.tensor("b").unwrap();
    assert_eq!((b.dtype(), b.shape()), (TensorType::F32, &[3][..]));
    assert_eq!(decode::<f32>(b.data()).unwrap(), [1.5, -2.0, 0.25]);
}

#[test]
fn python_reads_it() {
    let python = |script: &str, path: &Path| Command::new("python3").arg("-c").arg(script).arg(path).output();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    write_toy(&path, Kind::Results).unwrap();
    if !python("import safetensors", &path).is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with safetensors is not installed");
        return;
    }
    let script = "import safetensors, sys
tensors = dict(safetensors.deserialize(open(sys.argv[1], 'rb').read()))
assert bytes(tensors['a']['data']) == bytes(range(10)), tensors
assert tensors['b']['shape'] == [3] and tensors['b']['dtype'] == 'F32', tensors";
    let output = python(script, &path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_flipped_byte_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let len = write_toy(&path, Kind::Results).unwrap().file_bytes;
    let sound = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for at in 0..len {
        let byte = sound[at as usize];
        for flip in [1 << (at % 8), 0xff, byte ^ b' ', byte ^ b'0'] {
            if flip == 0 {
                continue;
            }
            file.write_all_at(&[byte ^ flip], at).unwrap();
            let error = open_and_verify(&path).expect_err(&format!("byte {at} flipped by {flip} was accepted"));
            assert!(matches!(error.kind(), ErrorKind::BadData | ErrorKind::Mismatch), "byte {at}: {error}");
        }
        file.write_all_at(&[byte], at).unwrap();
    }
    open_and_verify(&path).unwrap();
}

#[test]
fn every_truncation_and_an_appended_byte_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let len = write_toy(&path, Kind::Results).unwrap().file_bytes;
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(len + 1).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        matches!(error.root(), FormatError::Length { found_bytes: 8205, expected_bytes: 8204 }),
        "an appended byte: {error}"
    );
    for shorter in (0..len).rev() {
        file.set_len(shorter).unwrap();
        let error = open(&path).expect_err(&format!("{shorter} of {len} bytes were accepted"));
        assert!(matches!(error.root(), FormatError::Length { .. }), "{shorter} bytes: {error}");
    }
}

#[test]
fn padding_and_sections_say_where_they_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    write_toy(&path, Kind::Results).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[7], 5000).unwrap();
    let error = open(&path).unwrap_err();
    let where_it_is = |error: &FormatError| matches!(error, FormatError::Padding { section, offset_bytes: 5000, found: 7 } if section == "a");
    assert!(where_it_is(error.root()), "{error}");
    file.write_all_at(&[0], 5000).unwrap();
    // A digit of the header's own digest: still well spelled, no longer true.
    let sound = fs::read(&path).unwrap();
    let digits = sound.windows(27).position(|window| window == b"nightshift.digest.header\":\"").unwrap() + 27;
    file.write_all_at(if sound[digits] == b'0' { b"1" } else { b"0" }, digits as u64).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error.root(), FormatError::Digest { section, .. } if section == "header"), "{error}");
    file.write_all_at(&sound[digits..=digits], digits as u64).unwrap();
    file.write_all_at(&[0], 8192).unwrap();
    file.write_all_at(&[1], 8193).unwrap();
    let container = open(&path).unwrap();
    container.verify_section("a").unwrap();
    let error = container.verify().unwrap_err();
    assert!(matches!(error.root(), FormatError::Digest { section, .. } if section == "b"), "{error}");
}

#[test]
fn two_writes_are_identical() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    write_toy(&first, Kind::Results).unwrap();
    write_toy(&second, Kind::Results).unwrap();
    assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
}

#[test]
fn an_interrupted_writer_leaves_nothing_and_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let section = [SectionSpec::new("a", DType::U8, &[8])];
    let create = || ContainerWriter::create(&path, Kind::Results, &BTreeMap::new(), &section).unwrap();
    let entries = || fs::read_dir(folder.path()).unwrap().count();

    let writer = create();
    assert_eq!((entries(), path.exists()), (1, false));
    writer.write_at("a", 0, &[1; 4]).unwrap();
    drop(writer);
    assert_eq!(entries(), 0);

    let writer = create();
    writer.write_at("a", 0, &[1; 4]).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().ends_with("bytes written to \"a\": found 4, expected 8"), "{error}");
    assert_eq!(entries(), 0);

    let writer = create();
    assert!(writer.write_at("a", 5, &[1; 4]).is_err());
    assert!(writer.write_at("a", u64::MAX, &[1; 4]).is_err());
    assert!(writer.write_at("b", 0, &[1]).is_err());
    drop(writer);

    write_toy(&path, Kind::Results).unwrap();
    let sound = fs::read(&path).unwrap();
    let writer = create();
    writer.write_at("a", 0, &[1; 8]).unwrap();
    assert_eq!(writer.finish_new().unwrap_err().kind(), ErrorKind::Create);
    assert_eq!((fs::read(&path).unwrap(), entries()), (sound, 1));
    let writer = create();
    writer.write_at("a", 0, &[1; 8]).unwrap();
    writer.finish().unwrap();
    assert_eq!(open(&path).unwrap().section("a").unwrap().bytes, [1; 8]);
}

#[test]
fn a_file_filled_first_has_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // More than one piece of zeros, and none whole at the end.
    let bytes = (5 << 20) + 77;
    let sections = [SectionSpec::new("a", DType::U8, &[bytes]), SectionSpec::new("b", DType::U8, &[3])];
    let content: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let write = |name: &str, fill: bool, all: bool| {
        let path = folder.path().join(name);
        let writer = ContainerWriter::create(&path, Kind::Results, &BTreeMap::new(), &sections).unwrap();
        if fill {
            writer.fill().unwrap();
        }
        writer.write_at("a", 0, &content).unwrap();
        if all {
            writer.write_at("b", 0, &[1, 2, 3]).unwrap();
        }
        writer.finish().map(|_| fs::read(path).unwrap())
    };
    assert_eq!(write("filled", true, true).unwrap(), write("plain", false, true).unwrap());
    // What was only filled was not written.
    let error = write("lacking", true, false).unwrap_err();
    assert!(error.to_string().ends_with("bytes written to \"b\": found 0, expected 3"), "{error}");
}

#[test]
fn threads_may_share_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let sections = [SectionSpec::new("a", DType::U32, &[4, 5000]), SectionSpec::new("b", DType::U32, &[4, 5000])];
    let writer = ContainerWriter::create(&path, Kind::Results, &BTreeMap::new(), &sections).unwrap();
    std::thread::scope(|scope| {
        for row in 0..4_u32 {
            let writer = &writer;
            scope.spawn(move || {
                for (name, start) in [("a", 0), ("b", 1_000_000)] {
                    let values: Vec<u32> = (0..5000).map(|column| start + row * 5000 + column).collect();
                    writer.write_at(name, u64::from(row) * 20_000, &encode(&values)).unwrap();
                }
            });
        }
    });
    writer.finish().unwrap();
    let container = open(&path).unwrap();
    container.verify().unwrap();
    assert!(decode::<u32>(container.section("b").unwrap().bytes).unwrap().into_iter().eq(1_000_000..1_020_000));
}

#[test]
fn secrets_are_private_and_stay_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    write_toy(&path, Kind::SecretKey).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    open(&path).unwrap();
    for (mode, accepted) in
        [(0o644, false), (0o640, false), (0o602, false), (0o700, false), (0o400, true), (0o600, true)]
    {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for expected in [None, Some(Kind::SecretKey)] {
            let result = Container::open(&path, expected, &OpenLimits::default());
            assert_eq!(result.is_ok(), accepted, "mode {mode:o}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Permission);
                assert!(error.to_string().ends_with(&format!("found file mode {mode:04o}, expected 0600 or stricter")));
            }
        }
    }
    let shared = folder.path().join("public.key");
    write_toy(&shared, Kind::PublicKey).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o644)).unwrap();
    open(&shared).unwrap();
}

#[test]
fn errors_have_the_class_of_their_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::BadData);
    let nowhere = folder.path().join("absent/toy");
    assert_eq!(write_toy(&nowhere, Kind::Results).unwrap_err().kind(), ErrorKind::Create);
    write_toy(&path, Kind::Results).unwrap();
    let error = Container::open(&path, Some(Kind::Ciphertexts), &OpenLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: found a results file, expected ciphertexts", path.display()));
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let limits = OpenLimits { file_bytes: 8203, ..OpenLimits::default() };
    let error = Container::open(&path, None, &limits).unwrap_err();
    assert!(matches!(error.root(), FormatError::TooLarge { found: 8204, limit: 8203, .. }), "{error}");
    let full_disk = std::io::Error::from(std::io::ErrorKind::StorageFull);
    assert_eq!(FormatError::Create(full_disk).kind(), ErrorKind::Io);
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy");
    let create = |key: &str, value: &str, names: [&str; 2], shape: &[usize]| {
        let metadata = BTreeMap::from([(key.to_string(), value.to_string())]);
        let sections = names.map(|name| SectionSpec::new(name, DType::F64, shape));
        ContainerWriter::create(&path, Kind::Results, &metadata, &sections).map(drop)
    };
    create("key_id", "k", ["a", "b"], &[3]).unwrap();
    for key in ["kind", "version", "digest.a", "Key", "", "k k"] {
        assert!(create(key, "k", ["a", "b"], &[3]).is_err(), "key {key:?}");
    }
    for name in ["a", "", "pad.0", "header", "__metadata__\n", "A", "\u{e9}"] {
        assert!(create("key_id", "k", ["a", name], &[3]).is_err(), "section {name:?}");
    }
    for shape in [&[][..], &[0], &[3, 0], &[1; 9], &[usize::MAX, 2], &[1 << 61], &[1 << 59]] {
        assert!(create("key_id", "k", ["a", "b"], shape).is_err(), "shape {shape:?}");
    }
    let error = create("moduli", &"7".repeat(1 << 20), ["a", "b"], &[3]).unwrap_err();
    assert!(matches!(error.root(), FormatError::TooLarge { limit: 0x10_0000, .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
