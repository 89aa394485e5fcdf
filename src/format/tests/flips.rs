//! Every flipped byte, every truncation and every splice with another valid file, for each kind of file and by its own reader: refused
//! before anything is computed with it.
//!
//! Headers, paddings and the first and last bytes of sections are gone through whole; of a section's inside every 37th byte, or with
//! `NIGHTSHIFT_FLIPS=all` every one. `NIGHTSHIFT_SAMPLES` counts the damages done to real-sized files (200 unless given).

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use super::keys::{context, header};
use super::*;
use crate::ckks::Context;
use crate::ckks::secret::SecretKey;
use crate::format::ciphertexts::{
    BatchHeader, BatchPlace, BatchWriter, EncryptedBatch, Encryption, ExpectedBatch, ExpectedResult, ResultBatch,
    ResultHeader, write_results,
};
use crate::format::keys::{read_evaluation_key, read_public_key, write_evaluation_key, write_public_key};
use crate::format::secret::{read_secret_key, write_secret_key};
use crate::format::{ALIGNMENT, ErrorKind, Expected, Header, ModelPackage};
use crate::net::calibration::Ranges;
use crate::net::lowering::Lowering;
use crate::net::sample::{Random, random_images, random_network};
use crate::net::{LowerOptions, NetError};
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;

const SCALE: f64 = 1234567.890625;

/// Two keys in one small ring, and files of both.
struct Toy {
    folder: tempfile::TempDir,
    context: Context,
    keys: [SecretKey; 2],
}

impl Toy {
    fn new() -> Toy {
        let context = context([34, 37, 34]);
        let keys = [(); 2].map(|()| SecretKey::generate(&context).unwrap());
        Toy { folder: tempfile::tempdir().unwrap(), context, keys }
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("file-{index}"))
    }

    fn header(&self, index: usize) -> Header {
        header(&self.keys[index])
    }

    /// Damages file 0 in every way; `read` must refuse it each time. File 1 is as valid, but another key's or model's.
    fn spoil(&self, read: &dyn Fn(&Path) -> Result<(), FormatError>) {
        let path = self.path(0);
        let (sound, other) = (fs::read(&path).unwrap(), fs::read(self.path(1)).unwrap());
        read(&path).unwrap();
        let refused = |what: &str| {
            let error = read(&path).expect_err(&format!("{} was taken with {what}", path.display()));
            assert!(matches!(error.kind(), ErrorKind::BadData | ErrorKind::Mismatch), "{what}: {error}");
        };
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let places = places(&path, sound.len());
        for &at in &places {
            let flip = if at % 3 == 0 { 0xff } else { 1 << (at % 8) };
            file.write_all_at(&[sound[at] ^ flip], at as u64).unwrap();
            refused(&format!("byte {at} flipped by {flip}"));
            file.write_all_at(&[sound[at]], at as u64).unwrap();
        }
        for &length in places.iter().rev() {
            file.set_len(length as u64).unwrap();
            refused(&format!("its first {length} bytes only"));
        }
        file.set_len(0).unwrap();
        for &cut in &places {
            for (head, tail) in [(&sound, &other), (&other, &sound)] {
                let tail = tail.get(cut..).unwrap_or_default();
                let spliced = [&head[..cut.min(head.len())], tail].concat();
                if spliced != sound {
                    file.set_len(spliced.len() as u64).unwrap();
                    file.write_all_at(&spliced, 0).unwrap();
                    refused(&format!("another's bytes spliced at {cut}"));
                }
            }
        }
        file.set_len(sound.len() as u64).unwrap();
        file.write_all_at(&sound, 0).unwrap();
        read(&path).unwrap();
    }
}

/// Which bytes of a container are gone through, ascending.
fn places(path: &Path, length: usize) -> Vec<usize> {
    const STRIDE: usize = 37;
    const EDGE: usize = 3;
    let all = std::env::var("NIGHTSHIFT_FLIPS").is_ok_and(|value| value == "all");
    let container = open(path).unwrap();
    let sections: Vec<usize> = container.sections().map(|section| section.bytes.len()).collect();
    // Sections follow one another, each at the next multiple of the alignment; what lies before them is the header.
    let data: usize = sections.iter().rev().skip(1).map(|bytes| bytes.next_multiple_of(ALIGNMENT)).sum();
    let mut begin = length - data - sections.last().unwrap();
    let header = begin;
    let mut inside = vec![false; length];
    for bytes in sections {
        let from = begin + EDGE.min(bytes);
        inside[from..(begin + bytes - EDGE.min(bytes)).max(from)].fill(true);
        begin += bytes.next_multiple_of(ALIGNMENT);
    }
    (0..length).filter(|&at| all || at < header || !inside[at] || at % STRIDE == 0).collect()
}

#[test]
fn no_spoilt_secret_key_is_read() {
    let toy = Toy::new();
    for index in [0, 1] {
        write_secret_key(&toy.path(index), &toy.header(index), &toy.context, &toy.keys[index]).unwrap();
    }
    let own = toy.header(0);
    let expected = Expected { plan_id: &own.plan_id, key_id: Some(&own.key_id), context: &toy.context };
    toy.spoil(&|path| read_secret_key(path, &expected).map(drop));
    fs::set_permissions(toy.path(0), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(read_secret_key(&toy.path(0), &expected).err().unwrap().kind(), ErrorKind::Permission);
}

#[test]
fn no_spoilt_public_key_is_read() {
    let toy = Toy::new();
    for index in [0, 1] {
        let key = toy.keys[index].public_key(&toy.context).unwrap();
        write_public_key(&toy.path(index), &toy.header(index), &toy.context, &key).unwrap();
    }
    let own = toy.header(0);
    let expected = Expected { plan_id: &own.plan_id, key_id: Some(&own.key_id), context: &toy.context };
    toy.spoil(&|path| read_public_key(path, &expected).map(drop));
}

#[test]
fn no_spoilt_evaluation_key_is_read() {
    let toy = Toy::new();
    for index in [0, 1] {
        let key = toy.keys[index].evaluation_key(&toy.context).unwrap();
        write_evaluation_key(&toy.path(index), &toy.header(index), &toy.context, &key).unwrap();
    }
    let own = toy.header(0);
    let expected = Expected { plan_id: &own.plan_id, key_id: Some(&own.key_id), context: &toy.context };
    toy.spoil(&|path| read_evaluation_key(path, &expected).map(drop));
}

fn place() -> BatchPlace {
    let encryption = crate::format::ciphertexts::EncryptionKind::Secret;
    BatchPlace {
        job_id: "ab".repeat(16),
        index: 1,
        first_image: 4096,
        occupancy: 4000,
        canaries: vec![(4095, 0)],
        encryption,
    }
}

#[test]
fn no_spoilt_batch_is_read() {
    let toy = Toy::new();
    for index in [0, 1] {
        let header = BatchHeader { header: toy.header(index), place: place(), scale: SCALE };
        let encryption = Encryption::Secret { mask_seed: [index as u8; 32] };
        let writer = BatchWriter::create(&toy.path(index), &header, &toy.context, 1, &encryption).unwrap();
        let residues: Vec<u64> = (0..2 * 4096).map(|i| (i * i + index) as u64 * 7).collect();
        writer.write_entry(0, 0, &residues).unwrap();
        writer.finish().unwrap();
    }
    let own = toy.header(0);
    let job_id = place().job_id;
    let expected = ExpectedBatch {
        context: &toy.context,
        input_scale: SCALE,
        plan_id: &own.plan_id,
        key_id: &own.key_id,
        job_id: &job_id,
        entries: 1,
    };
    // The worker holds the file to the manifest's digest, which is stricter; the file alone must be enough.
    toy.spoil(&|path| EncryptedBatch::open(path, &expected)?.verify());
}

#[test]
fn no_spoilt_result_is_read() {
    let toy = Toy::new();
    let digest = "3".repeat(64);
    for index in [0, 1] {
        let header = ResultHeader { header: toy.header(index), place: place(), input_digest: digest.clone() };
        let residues: Vec<u64> = (0..3 * 4096).map(|i| (i * i + index) as u64 * 7).collect();
        write_results(&toy.path(index), &header, &toy.context, 1, 3, 1, SCALE, &residues).unwrap();
    }
    let own = toy.header(0);
    let job_id = place().job_id;
    let expected = ExpectedResult {
        context: &toy.context,
        plan_id: &own.plan_id,
        key_id: &own.key_id,
        job_id: &job_id,
        index: 1,
        first_image: 4096,
        occupancy: 4000,
        input_digest: &digest,
        outputs: 1,
        components: 3,
        limbs: 1,
        scale: SCALE,
    };
    toy.spoil(&|path| ResultBatch::open(path, &expected)?.verify());
}

/// A small random package, compact or in full.
fn package(seed: u64, full: bool) -> Result<ModelPackage, NetError> {
    let network = random_network(seed, 1, false);
    let images = random_images(&network, 20, seed);
    let lowering = Lowering::decide(&network, &LowerOptions::default(), &Ranges::measure(&network, &images)?)?;
    let circuit = lowering.measured_circuit(&network, &images)?;
    let lowering = (!full).then_some(lowering);
    Ok(ModelPackage { network, circuit, lowering, canaries: Vec::new(), ranges: None, provenance: BTreeMap::new() })
}

#[test]
fn no_spoilt_package_is_opened() {
    let toy = Toy::new();
    for full in [false, true] {
        let mut sound = (7..).filter_map(|seed| package(seed, full).ok());
        let id = sound.next().unwrap().write(&toy.path(0)).unwrap();
        sound.next().unwrap().write(&toy.path(1)).unwrap();
        // As client and worker do: a package is the one that a plan or a manifest speaks of.
        toy.spoil(&|path| {
            let found = ModelPackage::open(path)?.model_id()?;
            if found == id { Ok(()) } else { Err(FormatError::invalid("model_id", found, &id)) }
        });
    }
}

/// Sound files of a real size: the bundled model and an evaluation key for it.
#[test]
fn no_damage_to_real_files_goes_unseen() {
    let samples = std::env::var("NIGHTSHIFT_SAMPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(200_u64);
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-cryptonets.nsm");
    let model = ModelPackage::open(&bundled).unwrap();
    let plan = scales::plan(&model.circuit, &Requirements::default()).unwrap();
    let context = Context::new(plan.parameters, Kernel::detect()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key_path = folder.path().join("eval.key");
    let key = SecretKey::generate(&context).unwrap();
    let own = header(&key);
    write_evaluation_key(&key_path, &own, &context, &key.evaluation_key(&context).unwrap()).unwrap();
    let expected = Expected { plan_id: &own.plan_id, key_id: Some(&own.key_id), context: &context };
    let model_path = folder.path().join("model.nsm");
    fs::copy(&bundled, &model_path).unwrap();

    let read_key: &dyn Fn(&Path) -> Result<(), FormatError> = &|path| read_evaluation_key(path, &expected).map(drop);
    let read_model: &dyn Fn(&Path) -> Result<(), FormatError> = &|path| ModelPackage::open(path).map(drop);
    for (path, read, share) in [(&key_path, read_key, samples / 2), (&model_path, read_model, samples - samples / 2)] {
        let sound = fs::read(path).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let mut random = Random::new(samples ^ sound.len() as u64);
        for sample in 0..share {
            let at = random.below(sound.len());
            let mut length = sound.len();
            let mut part = sound[at..(at + 1 + random.below(64)).min(sound.len())].to_vec();
            match sample % 5 {
                0 => part.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
                1 => part[0] ^= 1 << random.below(8),
                2 => part.fill(0),
                3 => {
                    let from = random.below(sound.len() - part.len() + 1);
                    part = sound[from..from + part.len()].to_vec();
                }
                _ => length = at,
            }
            file.write_all_at(&part, at as u64).unwrap();
            file.set_len(length as u64).unwrap();
            if length == at || part != sound[at..][..part.len()] {
                let error = read(path).expect_err(&format!("{}: sample {sample} was taken", path.display()));
                assert!(matches!(error.kind(), ErrorKind::BadData | ErrorKind::Mismatch), "sample {sample}: {error}");
            }
            file.write_all_at(&sound[at..], at as u64).unwrap();
        }
        read(path).unwrap();
    }
}
