//! Known answers of `FORMATS.md`: what a reader in another language must find.

use std::process::Command;

use super::keys::{context, header};
use crate::ckks::secret::{Decryptor, SecretEncryptor, SecretKey};
use crate::format::ciphertexts::{BatchPlace, EncryptionKind, ResultHeader, write_results};
use crate::format::decode;
use crate::format::secret::write_secret_key;
use crate::ring::sampling::{Seed, Stream, derive_seed};

#[test]
fn known_answers() {
    let context = context([34, 35, 35]);
    let seed = [7; 32];
    let key = SecretKey::from_seed(&context, Seed::new(seed));
    let mut ternary = vec![0; 12];
    Stream::new(&derive_seed("nightshift 1 secret key: ternary coefficients", &seed)).ternary_into(0, &mut ternary);
    let q = context.modulus(1);
    let mut uniform = vec![0; 2];
    Stream::new(&seed).uniform_into(q, 3, 1, 0, &mut uniform);
    let text = format!(
        "key_id {}\nsecret {ternary:?}\nmoduli {:?}\ngammas {:?}\nuniform entry 3 limb 1 {uniform:?}\n",
        crate::format::secret::key_id_text(&key),
        context.parameters().moduli(),
        [context.ntt(0).gamma(), context.ntt(1).gamma()],
    );
    // The very lines stand in the specification.
    let specification = include_str!("../../../FORMATS.md");
    assert!(specification.contains(&text), "FORMATS.md does not have:\n{text}");
}

/// Squares of a secret-key encryption: three components, two limbs, decrypted here and by `tests/python/decrypt.py`.
#[test]
fn a_stranger_decrypts_with_the_specification_alone() {
    let python = std::env::var_os("NIGHTSHIFT_PYTHON").unwrap_or_else(|| "python3".into());
    let imports = "import numpy, safetensors, blake3, cryptography";
    let has_packages = Command::new(&python).args(["-c", imports]).output().is_ok_and(|output| output.status.success());
    if !has_packages {
        println!("skipped: {} lacks one of numpy, safetensors, blake3, cryptography", python.display());
        return;
    }
    let context = context([34, 37, 34]);
    let (n, limbs) = (context.degree(), context.limbs());
    let key = SecretKey::generate(&context).unwrap();
    let scale = 2f64.powi(26) + 0.5;
    let encryptor = SecretEncryptor::new(&context, &key, scale).unwrap();
    let values: Vec<f64> = (0..n).map(|k| ((k * 7919) % 2001) as f64 / 1000.0 - 1.0).collect();
    let mut c0 = vec![0; limbs * n];
    encryptor.encrypt_into(0, &mut values.clone(), &mut encryptor.scratch(), &mut c0).unwrap();
    let mut residues = vec![0; 3 * limbs * n];
    for limb in 0..limbs {
        let m = context.modulus(limb);
        let mut c1 = vec![0; n];
        Stream::new(encryptor.mask_seed()).uniform_into(m, 0, limb as u32, 0, &mut c1);
        let mut square = [vec![0; n], vec![0; n], vec![0; n]];
        let [s0, s1, s2] = &mut square;
        context.kernel().square_into(m, &c0[limb * n..][..n], &c1, [s0, s1, s2]);
        for (component, part) in square.iter_mut().enumerate() {
            part.iter_mut().for_each(|residue| *residue %= m.value());
            context.ntt(limb).inverse_assign(part);
            residues[(component * limbs + limb) * n..][..n].copy_from_slice(part);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let [key_path, results_path, slots_path] =
        ["secret.key", "results.nsc", "slots"].map(|name| folder.path().join(name));
    let header = header(&key);
    write_secret_key(&key_path, &header, &context, &key).unwrap();
    let place = BatchPlace {
        job_id: "ab".repeat(16),
        index: 0,
        first_image: 0,
        occupancy: n,
        canaries: Vec::new(),
        encryption: EncryptionKind::Secret,
    };
    let header = ResultHeader { header, place, input_digest: "0".repeat(64) };
    let square_scale = scale * scale;
    write_results(&results_path, &header, &context, 1, 3, limbs, square_scale, &residues).unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/decrypt.py");
    let run = Command::new(&python).arg(script).args([&key_path, &results_path, &slots_path]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found: Vec<f64> = decode(&std::fs::read(&slots_path).unwrap()).unwrap();
    let mut own = vec![0.0; n];
    let mut decryptor = Decryptor::new(&context);
    key.decrypt_into(&context, &mut residues, limbs, square_scale, 4.0, &mut decryptor, &mut own).unwrap();
    assert_eq!(found.len(), n);
    for (slot, ((found, own), value)) in found.iter().zip(&own).zip(&values).enumerate() {
        assert!((found - own).abs() < 1e-9, "slot {slot}: {found} there, {own} here");
        assert!((found - value * value).abs() < 1e-3, "slot {slot}: {found}, not {}", value * value);
    }
}
