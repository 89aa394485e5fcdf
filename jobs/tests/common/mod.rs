//! A small honest job on disk, and the receipt that answers it. Each test binary uses a part of this.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jobs::digest::{Digest, FileStamp};
use jobs::manifest::{self, Batch, FileRef, InputRef, JobManifest, ModelRef, Terms};
use jobs::receipt::{self, BatchReceipt, Cost, Outcome, Receipt, Timing};

/// Slots of the sample's batches.
pub const SLOTS: u32 = 16;

/// Batches of these occupancies, with contents made from their index.
pub fn sample_manifest(occupancies: &[u32]) -> JobManifest {
    let mut first_image = 0;
    let mut batches = Vec::new();
    for (index, &occupancy) in occupancies.iter().enumerate() {
        let content = input_content(index);
        let input = InputRef {
            path: format!("inputs/{index:04}.nsc"),
            digest: Digest::of(&content),
            bytes: content.len() as u64,
        };
        batches.push(Batch { output: format!("outputs/{index:04}.nsc"), occupancy, first_image, input });
        first_image += u64::from(occupancy);
    }
    JobManifest {
        schema: manifest::SCHEMA.to_owned(),
        job_id: "00112233445566778899aabbccddeeff".to_owned(),
        tenant: Some("clinic-7".to_owned()),
        created: "2026-01-02T03:04:05Z".to_owned(),
        engine: manifest::ENGINE.to_owned(),
        plan_id: "9f".repeat(32),
        key_id: "51".repeat(16),
        images: first_image,
        slots: SLOTS,
        receipt: "receipt.json".to_owned(),
        options: BTreeMap::from([("threads".to_owned(), "2".to_owned())]),
        queue: Some(Terms {
            idempotency_key: Some("night-1".to_owned()),
            priority: Some(-3),
            deadline: Some("2026-01-03T00:00:00Z".to_owned()),
            memory_limit_bytes: Some(1 << 31),
        }),
        model: ModelRef { name: "mnist".to_owned(), digest: Digest::of(b"model"), path: Some("model.nsm".to_owned()) },
        eval_key: FileRef { path: "eval.key".to_owned(), digest: Digest::of(b"eval key") },
        batches,
    }
}

/// The receipt of a worker that did all of `manifest`.
pub fn sample_receipt(manifest: &JobManifest) -> Receipt {
    let stages = vec![Timing { name: "conv1".to_owned(), secs: 0.5 }, Timing { name: "dense".to_owned(), secs: 0.25 }];
    let finished = |(index, batch): (usize, &Batch)| BatchReceipt {
        input: batch.input.digest,
        output: batch.output.clone(),
        output_stamp: stamp_of(&output_content(index)),
        occupancy: batch.occupancy,
        first_image: batch.first_image,
        stages: stages.clone(),
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
        attempts: 1,
        isa: "avx512".to_owned(),
        threads: 2,
        batches: manifest.batches.iter().enumerate().map(finished).collect(),
        totals: vec![Timing { name: "verify".to_owned(), secs: 0.125 }],
        predicted: Some(Cost { elapsed_secs: 2.0, peak_bytes: 1000, output_bytes: 64 }),
        measured: Cost { elapsed_secs: 1.75, peak_bytes: 900, output_bytes: 64 },
    }
}

/// Writes the manifest and every file it names, outputs included; the manifest's path.
pub fn write_job(folder: &Path, manifest: &JobManifest) -> PathBuf {
    for sub in ["inputs", "outputs"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    for (index, batch) in manifest.batches.iter().enumerate() {
        fs::write(folder.join(&batch.input.path), input_content(index)).unwrap();
        fs::write(folder.join(&batch.output), output_content(index)).unwrap();
    }
    fs::write(folder.join("model.nsm"), b"model").unwrap();
    fs::write(folder.join("eval.key"), b"eval key").unwrap();
    let path = folder.join("job.toml");
    manifest.write(&path).unwrap();
    path
}

/// The bytes standing for a batch's encrypted images.
pub fn input_content(index: usize) -> Vec<u8> {
    format!("encrypted images {index}").into_bytes()
}

/// The bytes standing for a batch's encrypted logits.
pub fn output_content(index: usize) -> Vec<u8> {
    format!("encrypted logits {index}").into_bytes()
}

fn stamp_of(content: &[u8]) -> FileStamp {
    FileStamp { digest: Digest::of(content), bytes: content.len() as u64 }
}
