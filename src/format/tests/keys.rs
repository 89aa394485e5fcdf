//! Keys: round trips, other keys, plans and parameters, damage, forged residues, loose modes.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::ckks::secret::SecretKey;
use crate::ckks::{Context, Parameters, ParametersLiteral};
use crate::format::keys::{kind_of, read_evaluation_key, read_public_key, write_evaluation_key, write_public_key};
use crate::format::secret::{key_id_text, read_secret_key, write_secret_key};
use crate::format::{ErrorKind, Expected, Header};
use crate::ring::kernels::Kernel;
use crate::ring::primes;

/// The smallest ring of the security table: three primes of about `bits` bits together.
pub(super) fn context(bits: [u32; 3]) -> Context {
    let mut used = Vec::new();
    for width in bits {
        used.push(primes::nearest(1 << width, 4096, &used).unwrap());
    }
    let special = used.split_off(2);
    let literal = ParametersLiteral { degree: 4096, moduli: used, special, digit_limbs: 1 };
    Context::new(Parameters::new(literal).unwrap(), Kernel::detect()).unwrap()
}

pub(super) fn header(key: &SecretKey) -> Header {
    Header { key_id: key_id_text(key), plan_id: "5a".repeat(32), model_name: "toy".into() }
}

struct Keys {
    folder: tempfile::TempDir,
    context: Context,
    key: SecretKey,
    header: Header,
}

impl Keys {
    fn new() -> Self {
        let context = context([34, 35, 35]);
        let key = SecretKey::generate(&context).unwrap();
        let header = header(&key);
        Self { folder: tempfile::tempdir().unwrap(), context, key, header }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn expected(&self) -> Expected<'_> {
        Expected { plan_id: &self.header.plan_id, key_id: None, context: &self.context }
    }
}

#[test]
fn all_three_keys_come_back() {
    let keys = Keys::new();
    let (public, evaluation) =
        (keys.key.public_key(&keys.context).unwrap(), keys.key.evaluation_key(&keys.context).unwrap());
    let [secret_path, public_path, eval_path] = ["secret.key", "public.key", "eval.key"].map(|name| keys.path(name));
    write_secret_key(&secret_path, &keys.header, &keys.context, &keys.key).unwrap();
    write_public_key(&public_path, &keys.header, &keys.context, &public).unwrap();
    let written = write_evaluation_key(&eval_path, &keys.header, &keys.context, &evaluation).unwrap();

    let bytes = fs::read(&eval_path).unwrap();
    assert_eq!((written.file_bytes, written.digest), (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()));
    let (header, key) = read_secret_key(&secret_path, &keys.expected()).unwrap();
    assert_eq!((&header, key.seed()), (&keys.header, keys.key.seed()));
    assert_eq!(read_public_key(&public_path, &keys.expected()).unwrap(), (keys.header.clone(), public.clone()));
    let known = Expected { key_id: Some(&keys.header.key_id), ..keys.expected() };
    assert_eq!(read_evaluation_key(&eval_path, &known).unwrap(), (keys.header.clone(), evaluation));

    assert_eq!(kind_of(&secret_path).unwrap(), Kind::SecretKey);
    assert_eq!(kind_of(&public_path).unwrap(), Kind::PublicKey);
    assert_eq!(fs::metadata(&secret_path).unwrap().permissions().mode() & 0o777, 0o600);
    for path in [&secret_path, &public_path] {
        assert_eq!(read_evaluation_key(path, &keys.expected()).unwrap_err().kind(), ErrorKind::Mismatch);
    }
    // A key is never replaced.
    let again = write_public_key(&public_path, &keys.header, &keys.context, &public).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Create);
    assert_eq!(fs::read_dir(keys.folder.path()).unwrap().count(), 3, "nothing else is left");
}

#[test]
fn another_key_plan_or_parameter_is_a_mismatch() {
    let keys = Keys::new();
    let path = keys.path("public.key");
    write_public_key(&path, &keys.header, &keys.context, &keys.key.public_key(&keys.context).unwrap()).unwrap();
    let other_context = context([34, 35, 36]);
    let other_id = "0".repeat(32);
    let other_plan = "6b".repeat(32);
    for (part, expected) in [
        ("key_id", Expected { key_id: Some(&other_id), ..keys.expected() }),
        ("plan_id", Expected { plan_id: &other_plan, ..keys.expected() }),
        ("parameters", Expected { context: &other_context, ..keys.expected() }),
    ] {
        let error = read_public_key(&path, &expected).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.root().to_string().starts_with(&format!("{part} mismatch: found ")), "{error}");
    }
}

/// Writes the sound public key again with one metadata entry or one section changed, all digests right.
fn forge(keys: &Keys, key: &str, change: &dyn Fn(&str) -> String, section: &str, bytes: &dyn Fn(&mut [u8])) -> PathBuf {
    let (sound, forged) = (keys.path("sound.key"), keys.path("forged.key"));
    if !sound.exists() {
        write_public_key(&sound, &keys.header, &keys.context, &keys.key.public_key(&keys.context).unwrap()).unwrap();
    }
    let container = open(&sound).unwrap();
    let own = |key: &str| key != "kind" && key != "version" && !key.starts_with("digest.");
    let metadata = container
        .metadata_entries()
        .filter(|(name, _)| own(name))
        .map(|(name, value)| (name.to_owned(), if name == key { change(value) } else { value.to_owned() }))
        .collect();
    let specs: Vec<_> = container.sections().map(|s| SectionSpec::new(s.name, s.dtype, s.shape)).collect();
    let writer = ContainerWriter::create(&forged, Kind::PublicKey, &metadata, &specs).unwrap();
    for part in container.sections() {
        let mut content = part.bytes.to_vec();
        if part.name == section {
            bytes(&mut content);
        }
        writer.write_at(part.name, 0, &content).unwrap();
    }
    writer.finish().unwrap();
    forged
}

#[test]
fn forgeries_with_right_digests_are_refused() {
    let keys = Keys::new();
    let refusal = |path: PathBuf| read_public_key(&path, &keys.expected()).unwrap_err();
    let metadata = |key: &str, change: &dyn Fn(&str) -> String| refusal(forge(&keys, key, change, "", &|_| {}));

    let unreduced = refusal(forge(&keys, "", &|_| String::new(), "b.limb1", &|bytes| bytes[5 * 7..5 * 8].fill(0xff)));
    assert!(matches!(unreduced.root(), FormatError::Residue { index: 7, .. }), "{unreduced}");

    let gamma = keys.context.ntt(0).gamma();
    let error = metadata("parameters", &|text| text.replace(&gamma.to_string(), &(gamma + 1).to_string()));
    assert!(error.to_string().contains("gammas mismatch") && error.kind() == ErrorKind::Mismatch, "{error}");
    // More modulus than the degree carries: the security table looks before anything else does.
    let more = primes::nearest(1 << 49, 4096, &[]).unwrap();
    let error = metadata("parameters", &|text| text.replacen("\"moduli\":[", &format!("\"moduli\":[{more},"), 1));
    assert!(error.to_string().contains("at most 106 bits are secure"), "{error}");
    assert_eq!(error.kind(), ErrorKind::BadData);
    for (from, to) in [("4096", "0"), ("4096", "18446744073709551615"), ("\"degree\"", "\"more\":1,\"degree\"")] {
        let error = metadata("parameters", &|text| text.replacen(from, to, 1));
        assert_eq!(error.kind(), ErrorKind::BadData, "{from} -> {to}: {error}");
    }
    assert!(metadata("parameters", &|text| " ".repeat(20_000) + text).to_string().contains("bytes of parameters"));
    assert!(metadata("model_name", &|_| "x\n".into()).to_string().contains("printable"));
    assert!(metadata("key_id", &|id| id.to_uppercase() + "F").to_string().contains("key_id: found"));
}

#[test]
fn damage_is_refused() {
    let keys = Keys::new();
    let path = keys.path("eval.key");
    let evaluation = keys.key.evaluation_key(&keys.context).unwrap();
    write_evaluation_key(&path, &keys.header, &keys.context, &evaluation).unwrap();
    let sound = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // A prime step, so that header, all sections, padding and the last byte are met.
    for at in (0..sound.len()).step_by(4999).chain([sound.len() - 1]) {
        file.write_all_at(&[sound[at] ^ 4], at as u64).unwrap();
        assert!(read_evaluation_key(&path, &keys.expected()).is_err(), "byte {at} flipped");
        file.write_all_at(&[sound[at]], at as u64).unwrap();
    }
    file.set_len(sound.len() as u64 - 1).unwrap();
    assert!(read_evaluation_key(&path, &keys.expected()).is_err(), "truncated");
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let keys = Keys::new();
    let path = keys.path("secret.key");
    write_secret_key(&path, &keys.header, &keys.context, &keys.key).unwrap();
    for (mode, ok) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match read_secret_key(&path, &keys.expected()) {
            Ok(_) => assert!(ok, "{mode:o}"),
            Err(error) => assert!(!ok && error.kind() == ErrorKind::Permission, "{mode:o}: {error}"),
        }
        assert_eq!(kind_of(&path).is_ok(), ok);
    }
    let stranger = Header { key_id: "0".repeat(32), ..keys.header.clone() };
    assert!(write_secret_key(&keys.path("other.key"), &stranger, &keys.context, &keys.key).is_err());
}
