//! Sound inputs of every target, made by the program's own writers, or by hand where it has none.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use jobs::manifest::{Batch, FileRef, InputRef, JobManifest, ModelRef};
use jobs::metrics::Metrics;
use jobs::metrics::families::{Ended, JOB_SECONDS};
use jobs::receipt::{BatchReceipt, Cost, Outcome, Timing};
use jobs::signing::Purpose;
use jobs::{Digest, ExitCode, FileStamp, Receipt, SigningKey, manifest, receipt};
use nightshift::format::ciphertexts::{
    BatchHeader, BatchPlace, BatchWriter, Encryption, EncryptionKind, ResultHeader, write_results,
};
use nightshift::format::tensors::{Tensor, Values, write_tensors};
use nightshift::format::{ModelPackage, keys, secret};
use nightshift::fuzz::{TOY_INPUT, TOY_JOB, TOY_SCALE, spec_networks, toy};
use nightshift::net::calibration::Ranges;
use nightshift::net::sample::{random_images, random_network};
use nightshift::net::{LowerOptions, Lowering};
use packing::{NpyContent, Prediction, write_npy};

/// At least two for each target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "container" => [packages(), secret_keys()].concat(),
        "model" => packages(),
        "secret_key" => secret_keys(),
        "public_key" => written(&|path, _| {
            let key = toy().key.public_key(&toy().context).unwrap();
            drop(keys::write_public_key(path, &toy().header, &toy().context, &key).unwrap());
        }),
        "evaluation_key" => written(&|path, _| {
            let key = toy().key.evaluation_key(&toy().context).unwrap();
            drop(keys::write_evaluation_key(path, &toy().header, &toy().context, &key).unwrap());
        }),
        "ciphertexts" => written(&batch),
        "results" => written(&result),
        "tensors" => written(&|path, index| {
            let tensor = Tensor { shape: vec![2, 3 + index], values: Values::F32(vec![0.5; 2 * (3 + index)]) };
            write_tensors(path, &BTreeMap::from([("0.weight".to_owned(), tensor.clone()), ("b".to_owned(), tensor)]))
                .unwrap();
        }),
        "model_spec" => spec_networks().iter().map(|(_, spec)| spec.json.clone().into_bytes()).collect(),
        "manifest" => manifests(),
        "receipt" => receipts(),
        "signature" => {
            let key = SigningKey::from_seed(&[7; 32]);
            let signature = |purpose, expires| key.sign(purpose, b"a document", expires).to_text().into_bytes();
            vec![signature(Purpose::Request, Some(1_700_000_000)), signature(Purpose::Receipt, None)]
        }
        "trusted_keys" => {
            let key = |fill| SigningKey::from_seed(&[fill; 32]).verifying_key();
            let list = format!("# clients\n{} clinic-7\n{} lab # new\n{}\n", key(1), key(2), key(3));
            vec![list.into_bytes(), format!("{}\n", key(1)).into_bytes()]
        }
        "metrics_text" => {
            let metrics = Metrics::new();
            metrics.set_build("0.1.0", None, "portable");
            metrics.job_done(Ended::Done, &manifest_of(2), &receipt_of(2), 1_700_000_000);
            let one = metrics.render();
            metrics.job_failed(ExitCode::Io, 1_700_000_001);
            metrics.observe(&JOB_SECONDS, &[], 1e9);
            vec![one.into_bytes(), metrics.render().into_bytes()]
        }
        "http_request" => vec![
            b"GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\nAccept: */*\r\n\r\n".to_vec(),
            b"GET /metrics?a=b HTTP/1.0\r\n\r\n".to_vec(),
        ],
        "images" => images(),
        "labels" => {
            let mut npy = Vec::new();
            let predictions =
                [Prediction::new(0, vec![0.5, 1.0]).unwrap(), Prediction::new(1, vec![2.0, 1.0]).unwrap()];
            write_npy(&mut npy, &predictions, NpyContent::Labels).unwrap();
            let idx = [&[0, 0, 8, 1, 0, 0, 0, 3][..], &[1, 2, 9]].concat();
            vec![gzip(&idx), idx, npy, b"index,label\n0,3\n1,7\n".to_vec(), b"a.png,cat\nb.png,dog\n".to_vec()]
        }
        "arguments" => {
            let key = SigningKey::from_seed(&[1; 32]).verifying_key().to_string();
            ["2GiB", "500MB", "1.5TiB", "12h", "7d", &key].map(|text| text.as_bytes().to_vec()).into()
        }
        other => panic!("no corpus for {other}"),
    }
}

/// Two files by one writer.
fn written(write: &dyn Fn(&Path, usize)) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let file = |index| {
        let path = folder.path().join(format!("{index}"));
        write(&path, index);
        fs::read(path).unwrap()
    };
    vec![file(0), file(1)]
}

fn secret_keys() -> Vec<Vec<u8>> {
    written(&|path, _| drop(secret::write_secret_key(path, &toy().header, &toy().context, &toy().key).unwrap()))
}

fn place(encryption: EncryptionKind) -> BatchPlace {
    let canaries = vec![(4095, 0), (4094, 1)];
    BatchPlace { job_id: TOY_JOB.to_owned(), index: 0, first_image: 0, occupancy: 4000, canaries, encryption }
}

fn batch(path: &Path, index: usize) {
    let encryption = [Encryption::Secret { mask_seed: [9; 32] }, Encryption::Public][index];
    let header = BatchHeader { header: toy().header.clone(), place: place(encryption.kind()), scale: TOY_SCALE };
    let writer = BatchWriter::create(path, &header, &toy().context, 1, &encryption).unwrap();
    let residues: Vec<u64> = (0..2 * 4096).map(|i| i * i * 3).collect();
    for component in 0..=index {
        writer.write_entry(0, component, &residues).unwrap();
    }
    writer.finish().unwrap();
}

fn result(path: &Path, index: usize) {
    let place = place([EncryptionKind::Secret, EncryptionKind::Public][index]);
    let header = ResultHeader { header: toy().header.clone(), place, input_digest: TOY_INPUT.to_owned() };
    let residues: Vec<u64> = (0..3 * 4096).map(|i| i * i * 3).collect();
    write_results(path, &header, &toy().context, 1, 3, 1, TOY_SCALE, &residues).unwrap();
}

/// Compact and in full, with and without residual sums.
fn packages() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nsm");
    let mut packages = Vec::new();
    for seed in 0..40 {
        let network = random_network(seed, seed as usize % 3, seed % 5 == 0);
        let images = random_images(&network, 20, seed);
        let lowered = Ranges::measure(&network, &images).and_then(|ranges| {
            let lowering = Lowering::decide(&network, &LowerOptions::default(), &ranges)?;
            Ok((lowering.measured_circuit(&network, &images)?, lowering))
        });
        let Ok((circuit, lowering)) = lowered else { continue };
        let lowering = (seed % 2 == 0).then_some(lowering);
        let provenance = BTreeMap::from([("made_by".to_owned(), "a test".to_owned())]);
        let package = ModelPackage { network, circuit, lowering, canaries: Vec::new(), ranges: None, provenance };
        package.write(&path).unwrap();
        packages.push(fs::read(&path).unwrap());
        if packages.len() == 6 {
            break;
        }
    }
    packages
}

fn manifest_of(batches: u64) -> JobManifest {
    let batch = |index: u64| Batch {
        output: format!("batch-{index:04}.out.nsc"),
        occupancy: 16,
        first_image: 16 * index,
        input: InputRef { path: format!("batch-{index:04}.in.nsc"), digest: Digest::of(&[index as u8]), bytes: 100 },
    };
    JobManifest {
        schema: manifest::SCHEMA.to_owned(),
        job_id: "00112233445566778899aabbccddeeff".to_owned(),
        tenant: (batches > 1).then(|| "clinic-7".to_owned()),
        created: "2026-01-02T03:04:05Z".to_owned(),
        engine: manifest::ENGINE.to_owned(),
        queue: None,
        plan_id: "9f".repeat(32),
        key_id: "51".repeat(16),
        images: 16 * batches,
        slots: 16,
        receipt: "receipt.json".to_owned(),
        options: BTreeMap::from([("colour".to_owned(), "red".to_owned())]),
        model: ModelRef { name: "mnist".to_owned(), digest: Digest::of(b"model"), path: Some("model.nsm".to_owned()) },
        eval_key: FileRef { path: "eval.key".to_owned(), digest: Digest::of(b"key") },
        batches: (0..batches).map(batch).collect(),
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let path = Path::new("job.toml");
    let json = serde_json::to_vec_pretty(&manifest_of(2)).unwrap();
    vec![manifest_of(1).to_toml(path).unwrap().into_bytes(), manifest_of(3).to_toml(path).unwrap().into_bytes(), json]
}

fn receipt_of(batches: u64) -> Receipt {
    let manifest = manifest_of(batches);
    let finished = |batch: &Batch| BatchReceipt {
        input: batch.input.digest,
        output: batch.output.clone(),
        output_stamp: FileStamp { digest: Digest::of(b"result"), bytes: 6 },
        occupancy: batch.occupancy,
        first_image: batch.first_image,
        stages: vec![Timing { name: "stage 0: tiles".to_owned(), secs: 0.5 }],
    };
    Receipt {
        schema: receipt::SCHEMA.to_owned(),
        job_id: manifest.job_id.clone(),
        tenant: manifest.tenant.clone(),
        outcome: Outcome::Done,
        plan_id: manifest.plan_id.clone(),
        key_id: manifest.key_id.clone(),
        model: manifest.model.digest,
        eval_key: manifest.eval_key.digest,
        images: manifest.images,
        slots: manifest.slots,
        code_version: "0.1.0".to_owned(),
        code_commit: Some("c0".repeat(20)),
        attempts: 2,
        isa: "portable".to_owned(),
        threads: 2,
        batches: manifest.batches.iter().map(finished).collect(),
        totals: vec![Timing { name: "check".to_owned(), secs: 0.125 }],
        predicted: Some(Cost { elapsed_secs: 2.0, peak_bytes: 1000, output_bytes: 12 }),
        measured: Cost { elapsed_secs: 1.75, peak_bytes: 900, output_bytes: 12 },
    }
}

fn receipts() -> Vec<Vec<u8>> {
    let path = Path::new("receipt.json");
    let mut failed = receipt_of(1);
    failed.outcome = Outcome::failed("batch 0: damaged", ExitCode::BadData);
    failed.batches.clear();
    failed.predicted = None;
    [receipt_of(2), failed].map(|receipt| receipt.to_text(path).unwrap().into_bytes()).into()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// IDX, npy, PNG and JPEG, each of one or two small grey images.
fn images() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..128).map(|pixel| pixel * 2).collect();
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 8][..], &pixels].concat();
    let text = format!("{:<117}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8), }");
    let npy = [&b"\x93NUMPY\x01\x00"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes(), &pixels].concat();
    vec![gzip(&idx), idx, npy, png(), jpeg()]
}

/// PNG specification, third edition: signature, IHDR, IDAT, IEND; 4x4 grey.
fn png() -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    for row in 0..4_u8 {
        zlib.write_all(&[0, row, 2 * row, 3 * row, 4 * row]).unwrap();
    }
    let data = zlib.finish().unwrap();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", &[0, 0, 0, 4, 0, 0, 0, 4, 8, 0, 0, 0, 0][..]), (b"IDAT", &data), (b"IEND", &[])] {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(body);
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(kind.iter().chain(body));
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

/// ITU-T T.81, baseline: one 8x8 block of grey whose every coefficient is zero; each table has one code.
fn jpeg() -> Vec<u8> {
    let table = |class: u8| [&[0xff, 0xc4, 0, 20, class, 1][..], &[0; 15], &[0]].concat();
    [
        &[0xff, 0xd8, 0xff, 0xdb, 0, 67, 0][..],
        &[1; 64],
        &[0xff, 0xc0, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0],
        &table(0x00),
        &table(0x10),
        &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0x3f, 0xff, 0xd9],
    ]
    .concat()
}
