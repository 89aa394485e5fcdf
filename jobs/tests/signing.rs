//! Signatures: known answers of another implementation, keys on disk, who may ask for what, and every damaged byte refused.

mod common;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{sample_manifest, sample_receipt, write_job};
use jobs::signing::{Purpose, Signature, signature_path};
use jobs::trust::{Ledger, Signed, check_receipt};
use jobs::{JobsError, Receipt, SigningKey, TrustedKeys, VerifyingKey, manifest};

const NOW: u64 = 1_700_000_000;

fn key(fill: u8) -> SigningKey {
    SigningKey::from_seed(&[fill; 32])
}

fn list(folder: &Path, name: &str, text: &str) -> TrustedKeys {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    TrustedKeys::load(&path).unwrap()
}

/// Admission of the manifest that lies at `path`, with the signature beside it.
fn admit(trusted: &TrustedKeys, path: &Path, now: u64) -> Result<VerifyingKey, JobsError> {
    let job = manifest::load(path)?;
    let signature = Signature::load_beside(path)?;
    trusted.admit(path, job.document().as_bytes(), job.manifest().tenant.as_deref(), signature.as_ref(), now)
}

/// Made with Python's `cryptography` 45 (OpenSSL) from the seed of 32 bytes 0x07; FORMATS.md has the first.
#[test]
fn signatures_are_those_of_another_implementation() {
    let public = "ed25519:ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    assert_eq!(key(7).verifying_key().to_string(), public);
    let path = Path::new("x.sig");
    for (purpose, expires, document, hex) in [
        (
            Purpose::Receipt,
            None,
            "{}\n",
            "5e359c8b983504863b29822090e7438a0e5d40a1a77bf4a8ef8b13273b7656a2d539aec5520c996911e018c4e003ad8c411f438d5bc474eba4eb05a6578f220f",
        ),
        (
            Purpose::Request,
            Some(NOW),
            "x = 1\n",
            "149ba038f6d1b7b3aec95effe940cfb49eb0012b880a26193db7e427db88f4913bc585c9391822359dc15b910459ecd186d345b0b231513cd098a5fffbe2aa00",
        ),
    ] {
        let expires_text = expires.map_or_else(|| "null".to_owned(), |secs| secs.to_string());
        let text = format!(
            "{{\"schema\":\"nightshift.signature/1\",\"purpose\":\"{purpose}\",\"key\":\"{public}\",\
             \"expires_unix_secs\":{expires_text},\"signature\":\"{hex}\"}}\n"
        );
        let signature = Signature::parse(path, &text).unwrap();
        signature.verify(path, document.as_bytes(), purpose).unwrap();
        assert_eq!(key(7).sign(purpose, document.as_bytes(), expires), signature);
        assert_eq!(signature.to_text(), text);
    }
}

#[test]
fn signing_keys_are_their_owner_s_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.key");
    let public_path = key(1).write_new(&path).unwrap();
    assert_eq!(public_path, folder.path().join("worker.key.pub"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&public_path).unwrap(), format!("{}\n", key(1).verifying_key()));
    assert_eq!(SigningKey::load(&path).unwrap().verifying_key(), key(1).verifying_key());
    assert_eq!(key(2).write_new(&path).unwrap_err().exit_code().code(), 73);
    fs::remove_file(&path).unwrap();
    assert_eq!(key(2).write_new(&path).unwrap_err().exit_code().code(), 73, "its public half stands");
    assert!(!path.exists());
    fs::remove_file(&public_path).unwrap();
    key(1).write_new(&path).unwrap();

    for mode in [0o640, 0o604, 0o700, 0o620] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refused = SigningKey::load(&path).err().unwrap();
        assert!(matches!(refused, JobsError::LooseMode { found, .. } if found == mode), "{refused}");
        assert_eq!(refused.exit_code().code(), 77);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    SigningKey::load(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let sound = fs::read(&path).unwrap();
    for cut in 0..sound.len() {
        fs::write(&path, &sound[..cut]).unwrap();
        let refused = SigningKey::load(&path).err().unwrap().to_string();
        assert!(refused.contains("not a signing key") && !refused.contains("0101"), "{cut}: {refused}");
    }
    for spoilt in [[&sound[..], b"x"].concat(), sound.to_ascii_uppercase(), vec![0xff; 90], vec![b'0'; 4096]] {
        fs::write(&path, spoilt).unwrap();
        assert_eq!(SigningKey::load(&path).err().unwrap().exit_code().code(), 65);
    }
    assert_eq!(SigningKey::load(folder.path()).err().unwrap().exit_code().code(), 65);
    assert_eq!(SigningKey::load(&folder.path().join("none")).err().unwrap().exit_code().code(), 66);
}

#[test]
fn weak_and_misspelt_public_keys_are_none() {
    let sound = key(1).verifying_key().to_string();
    assert_eq!(sound.parse::<VerifyingKey>().unwrap(), key(1).verifying_key());
    // The neutral element: it takes one signature for every message.
    let weak = format!("ed25519:01{}", "0".repeat(62));
    for text in [
        &weak,
        &sound[8..],
        &sound.to_uppercase(),
        &format!("{sound}0"),
        "ed25519:",
        "",
        &sound.replace("25519", "448"),
    ] {
        assert!(text.parse::<VerifyingKey>().is_err(), "{text} was taken");
    }
}

#[test]
fn a_request_is_taken_from_its_tenant_s_key_only_and_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_job(folder.path(), &sample_manifest(&[16]));
    let document = fs::read(&path).unwrap();
    let (known, other) = (key(1), key(2));
    let line = |key: &SigningKey, tenant: &str| format!("{} {tenant} # a comment\n", key.verifying_key());
    let trusted =
        list(folder.path(), "list", &format!("# keys\n\n{}{}", line(&known, "clinic-7"), line(&other, "lab")));
    let code = |trusted: &TrustedKeys, now: u64| admit(trusted, &path, now).map_err(|error| error.exit_code().code());

    assert_eq!(code(&trusted, NOW), Err(77), "not signed");
    known.sign(Purpose::Request, &document, Some(NOW)).write_beside(&path).unwrap();
    assert_eq!(code(&trusted, NOW - 1), Ok(known.verifying_key()));
    let late = admit(&trusted, &path, NOW).unwrap_err();
    assert!(matches!(late, JobsError::Expired { expired_unix_secs: NOW, now_unix_secs: NOW, .. }), "{late}");
    assert_eq!(late.exit_code().code(), 77);

    for (signature, code_expected, why) in [
        (other.sign(Purpose::Request, &document, None), 77, "another tenant's key"),
        (key(3).sign(Purpose::Request, &document, None), 77, "a key of nobody"),
        (known.sign(Purpose::Receipt, &document, None), 65, "a receipt's signature"),
        (known.sign(Purpose::Request, &document[1..], None), 65, "of another text"),
    ] {
        signature.write_beside(&path).unwrap();
        assert_eq!(code(&trusted, NOW), Err(code_expected), "{why}");
    }
    // A later end than the one signed.
    let text = known.sign(Purpose::Request, &document, Some(NOW)).to_text().replace("1700000000", "1800000000");
    fs::write(signature_path(&path), text).unwrap();
    assert_eq!(code(&trusted, NOW), Err(65));

    known.sign(Purpose::Request, &document, None).write_beside(&path).unwrap();
    assert_eq!(code(&trusted, u64::MAX), Ok(known.verifying_key()));
    let any = list(folder.path(), "no tenant", &format!("{}\n", known.verifying_key()));
    assert_eq!(code(&any, NOW), Err(77), "a key bound to no tenant speaks for none");
    let keys = folder.path().join("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("clinic-7.pub"), format!("{}\n", known.verifying_key())).unwrap();
    fs::write(keys.join("notes.txt"), "not a key").unwrap();
    assert_eq!(code(&TrustedKeys::load(&keys).unwrap(), NOW), Ok(known.verifying_key()));
    fs::rename(keys.join("clinic-7.pub"), keys.join("lab.pub")).unwrap();
    assert_eq!(code(&TrustedKeys::load(&keys).unwrap(), NOW), Err(77));

    // A manifest without a tenant asks for a key without one.
    let mut manifest = sample_manifest(&[16]);
    manifest.tenant = None;
    fs::write(&path, manifest.to_toml(&path).unwrap()).unwrap();
    known.sign(Purpose::Request, &fs::read(&path).unwrap(), None).write_beside(&path).unwrap();
    assert_eq!(code(&any, NOW), Ok(known.verifying_key()));
    assert_eq!(code(&trusted, NOW), Err(77));
}

#[test]
fn lists_that_say_nothing_or_too_much_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    let public = key(1).verifying_key();
    for text in ["", "# nothing\n", "ed25519:00\n", &format!("{public} a b\n"), &format!("{public} a/b\n"), "\u{feff}"]
    {
        fs::write(&path, text).unwrap();
        let refused = TrustedKeys::load(&path).unwrap_err();
        assert_eq!(refused.exit_code().code(), 65, "{text:?}: {refused}");
    }
    assert_eq!(TrustedKeys::load(&folder.path().join("none")).unwrap_err().exit_code().code(), 66);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(TrustedKeys::load(&empty).unwrap_err().exit_code().code(), 65);
}

#[test]
fn a_job_id_comes_back_with_the_same_content_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_job(folder.path(), &sample_manifest(&[16]));
    let ledger = Ledger::open(&folder.path().join("ledger/taken")).unwrap();
    let take = || ledger.take(&manifest::load(&path).unwrap());
    take().unwrap();
    take().unwrap();
    let edit = |change: &dyn Fn(&mut manifest::JobManifest)| {
        let mut manifest = sample_manifest(&[16]);
        change(&mut manifest);
        fs::write(&path, manifest.to_toml(&path).unwrap()).unwrap();
    };
    edit(&|manifest| manifest.created = "2026-01-02T03:04:06Z".to_owned());
    let refused = take().unwrap_err();
    assert!(matches!(refused, JobsError::Replayed { .. }), "{refused}");
    assert_eq!(refused.exit_code().code(), 77);
    edit(&|manifest| manifest.tenant = Some("lab".to_owned()));
    take().unwrap();
    edit(&|manifest| manifest.tenant = None);
    take().unwrap();
    edit(&|_| {});
    take().unwrap();
    let names = fs::read_dir(folder.path().join("ledger/taken")).unwrap().count();
    assert_eq!(names, 3, "one a tenant");
    // What cannot be read says nothing for the job.
    let place = folder.path().join("ledger/taken").join(format!("{}.clinic-7", sample_manifest(&[16]).job_id));
    fs::write(&place, "forgotten").unwrap();
    assert_eq!(take().unwrap_err().exit_code().code(), 65);
}

#[test]
fn receipts_carry_their_signature_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    let receipt = sample_receipt(&sample_manifest(&[16]));
    let trusted = list(folder.path(), "list", &format!("{} clinic-7\n", key(1).verifying_key()));
    receipt.write_signed(&path, Some(&key(1))).unwrap();
    let (back, signed) = Receipt::load_signed(&path, Some(&trusted)).unwrap();
    assert_eq!((back, signed), (receipt.clone(), Signed::Trusted(key(1).verifying_key())));
    let (_, signed) = Receipt::load_signed(&path, None).unwrap();
    assert_eq!(
        signed,
        Signed::Unchecked(key(1).verifying_key()),
        "a key that nobody vouches for is not trusted silently"
    );

    receipt.write_signed(&path, Some(&key(2))).unwrap();
    let refused = Receipt::load_signed(&path, Some(&trusted)).unwrap_err();
    assert!(matches!(refused, JobsError::Untrusted { .. }), "{refused}");
    receipt.write_signed(&path, None).unwrap();
    assert!(!signature_path(&path).exists(), "another receipt's signature does not stay");
    assert_eq!(Receipt::load_signed(&path, None).unwrap().1, Signed::Not);
    let refused = Receipt::load_signed(&path, Some(&trusted)).unwrap_err();
    assert!(matches!(refused, JobsError::Unsigned { .. }), "{refused}");
    key(1).sign(Purpose::Request, &fs::read(&path).unwrap(), None).write_beside(&path).unwrap();
    assert_eq!(
        Receipt::load_signed(&path, Some(&trusted)).unwrap_err().exit_code().code(),
        65,
        "a request's signature"
    );
}

/// One spoilt document or signature at a time; each must be refused with a code that says so.
fn every_spoilt_byte_is_refused(path: &Path, other: &[u8], check: &dyn Fn() -> Result<(), JobsError>) {
    check().unwrap();
    for file in [path.to_owned(), signature_path(path)] {
        let sound = fs::read(&file).unwrap();
        // In place: a file that is cut to nothing and written anew is flushed to the disk each time.
        let handle = OpenOptions::new().write(true).open(&file).unwrap();
        let write = |bytes: &[u8]| {
            handle.write_all_at(bytes, 0).unwrap();
            handle.set_len(bytes.len() as u64).unwrap();
        };
        let refused = |bytes: &[u8], what: &str| {
            write(bytes);
            let error = check().expect_err(&format!("{} was taken with {what}", file.display()));
            assert!([65, 76, 77].contains(&error.exit_code().code()), "{what}: {error}");
        };
        for at in 0..sound.len() {
            for flip in [1 << (at % 8), b' ' ^ sound[at]] {
                if flip != 0 {
                    let mut bytes = sound.clone();
                    bytes[at] ^= flip;
                    refused(&bytes, &format!("byte {at} flipped by {flip}"));
                }
            }
        }
        for cut in 0..sound.len() {
            refused(&sound[..cut], &format!("its first {cut} bytes only"));
        }
        for added in [&b"\n"[..], b" ", b"#", b"\0"] {
            refused(&[&sound, added].concat(), &format!("{added:?} behind it"));
            refused(&[added, &sound].concat(), &format!("{added:?} before it"));
        }
        if file == path {
            for cut in 0..sound.len().min(other.len()) {
                for (head, tail) in [(&sound[..], other), (other, &sound[..])] {
                    let spliced = [&head[..cut], &tail[cut..]].concat();
                    if spliced != sound {
                        refused(&spliced, &format!("another's bytes spliced at {cut}"));
                    }
                }
            }
        }
        write(&sound);
    }
    check().unwrap();
}

fn two_jobs(folder: &Path) -> (PathBuf, Vec<u8>) {
    let path = write_job(folder, &sample_manifest(&[16, 3]));
    let mut other = sample_manifest(&[16, 5]);
    other.created = "2027-01-02T03:04:05Z".to_owned();
    (path.clone(), other.to_toml(&path).unwrap().into_bytes())
}

#[test]
fn every_spoilt_byte_of_a_signed_request_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = two_jobs(folder.path());
    let trusted = list(folder.path(), "list", &format!("{} clinic-7\n", key(1).verifying_key()));
    key(1).sign(Purpose::Request, &fs::read(&path).unwrap(), Some(NOW + 1)).write_beside(&path).unwrap();
    every_spoilt_byte_is_refused(&path, &other, &|| admit(&trusted, &path, NOW).map(drop));
}

#[test]
fn every_spoilt_byte_of_a_signed_receipt_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    let receipt = sample_receipt(&sample_manifest(&[16, 3]));
    let other = sample_receipt(&sample_manifest(&[16, 5])).to_text(&path).unwrap();
    let trusted = list(folder.path(), "list", &format!("{}\n", key(1).verifying_key()));
    receipt.write_signed(&path, Some(&key(1))).unwrap();
    let check = |trusted: Option<&TrustedKeys>| Receipt::load_signed(&path, trusted).map(drop);
    every_spoilt_byte_is_refused(&path, other.as_bytes(), &|| check(Some(&trusted)));
    // Without a list, the signature still shows damage of the receipt; one that is exchanged whole it cannot show.
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        assert!(check_receipt(&path, &bytes, None).is_err(), "byte {at}");
    }
}
