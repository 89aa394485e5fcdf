//! `decrypt`: a finished job's labels, and rounded scores where they are asked for, as a table on disk.
//!
//! The table appears whole or not at all. Scores never have more decimals than the precision promised carries: the
//! digits below are noise, and noise of this kind must not be shared (eprint 2020/1533). So the known answers' error is told
//! in whole bits, and the smallest margin with as many decimals as a score. The table's mode is 0600.

use std::io::Write;
use std::time::Instant;

use packing::{NpyContent, PackingError, Prediction, TextOptions, write_csv, write_json, write_npy};
use serde_json::json;

use super::{Context, Report, exact, verify};
use crate::cli::args::{DecryptArgs, TableFormat};
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_duration, human_rate};
use crate::client::{self, DecryptRequest};
use crate::format::{EngineKind, FormatError, Kind, keys};
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;

/// Verifies, decrypts, writes.
///
/// # Errors
/// A job without its receipt, files that are not the ones named, another key; a table that cannot be written.
pub fn run(args: &DecryptArgs, context: &Context) -> Result<Report, CliError> {
    let start = Instant::now();
    // Told before the file's mode is: a public key may be readable by all, and is the wrong key.
    let kind = keys::kind_of(&args.key)?;
    if kind != Kind::SecretKey {
        let error = FormatError::Kind { found: kind.to_string(), expected: Kind::SecretKey.to_string() };
        return Err(error.in_file(&args.key).into());
    }
    if jobs::manifest::load(&args.job)?.manifest().engine == EngineKind::Tfhe.name() {
        return exact::decrypt(args, context);
    }
    let worker_keys = verify::worker_keys(&args.worker_key)?;
    context.progress.begin("decrypting", 0);
    let request = DecryptRequest {
        key_path: &args.key,
        job_path: &args.job,
        model_path: None,
        worker_keys: worker_keys.as_ref(),
        threads: context.threads,
        kernel: Kernel::detect(),
        requirements: &Requirements::default(),
    };
    // The number told is how many outputs are done; each call tells of one more.
    let decrypted = client::decrypt(&request, &|_| context.progress.advance(1))?;
    context.progress.end();
    let report = &decrypted.report;
    let decimals = args.digits.unwrap_or(report.decimals);
    if decimals > report.decimals {
        return Err(CliError::Digits { found: decimals, limit: report.decimals, promised_bits: report.promised_bits });
    }
    let mut bytes = Vec::new();
    table_into(&mut bytes, &decrypted.predictions, args.out.format(), args.scores.then_some(decimals))?;
    jobs::atomic::write_atomic_private(args.out.path(), &bytes)?;
    let elapsed = start.elapsed();

    let images = report.images as u64;
    let close = report.too_close.len();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["labels", &args.out.path().display().to_string()]);
    table.row(["images", &images.to_string()]);
    table.row(["precision promised", &format!("{:.1} bits", report.promised_bits)]);
    let checked = match report.canary_bits() {
        Some(bits) => format!("{} came out, to {bits} bits", report.canaries),
        None => "none: no slot was free".to_owned(),
    };
    table.row(["known answers", &checked]);
    table.row(["receipt's signature", &verify::told(&report.receipt_signed)]);
    let (signature, signed_by) = verify::signed(&report.receipt_signed);
    table.row(["too close to tell", &format!("{close} image(s)")]);
    let beyond = match report.beyond.len() {
        0 => "none".to_owned(),
        images => format!("{images} image(s), no precision is promised"),
    };
    table.row(["beyond the calibration", &beyond]);
    table.row(["time", &format!("{} ({})", human_duration(elapsed), human_rate(images, elapsed, "images"))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "labels": args.out.path().to_string_lossy(),
            "job_id": report.job_id,
            "key_id": report.key_id,
            "plan_id": report.plan_id,
            "images": images,
            "batches": report.batches,
            "precision_bits": report.promised_bits,
            "decimals": args.scores.then_some(decimals),
            "canaries": report.canaries,
            "canary_bits": report.canary_bits(),
            "smallest_margin": report.shown_margin(),
            "too_close": report.too_close,
            "beyond_calibration": report.beyond,
            "result_bytes": report.result_bytes,
            "receipt_signature": signature,
            "receipt_key": signed_by,
            "seconds": elapsed.as_secs_f64(),
        }),
    })
}

/// The label; `None` for an image that is undecided, whose label is the number of no class.
fn known(prediction: &Prediction) -> Option<u16> {
    (usize::from(prediction.label) < prediction.scores.len()).then_some(prediction.label)
}

/// The table; `decimals` of the scores, or labels only: empty, null or 65535 where an image is undecided.
pub(super) fn table_into(
    out: &mut Vec<u8>,
    predictions: &[Prediction],
    format: TableFormat,
    decimals: Option<u8>,
) -> Result<(), CliError> {
    let failed = |source| CliError::Packing(PackingError::Write { source });
    match (format, decimals) {
        (TableFormat::Csv, Some(decimals)) => {
            write_csv(out, predictions, &TextOptions { decimals, class_names: None })?;
        }
        (TableFormat::Json, Some(decimals)) => {
            write_json(out, predictions, &TextOptions { decimals, class_names: None })?;
        }
        (TableFormat::Npy, Some(decimals)) => write_npy(out, predictions, NpyContent::Scores { decimals })?,
        (TableFormat::Npy, None) => write_npy(out, predictions, NpyContent::Labels)?,
        (TableFormat::Csv, None) => {
            writeln!(out, "index,label").map_err(failed)?;
            for prediction in predictions {
                let label = known(prediction).map_or(String::new(), |label| label.to_string());
                writeln!(out, "{},{label}", prediction.index).map_err(failed)?;
            }
        }
        (TableFormat::Json, None) => {
            let classes = predictions.first().map_or(0, |first| first.scores.len());
            let rows = predictions.iter().map(|one| json!({ "index": one.index, "label": known(one) }));
            let rows: Vec<_> = rows.collect();
            writeln!(out, "{}", json!({ "classes": classes, "predictions": rows })).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(format: TableFormat, decimals: Option<u8>) -> Vec<u8> {
        let predictions =
            [Prediction::new(0, vec![0.126, -1.0]).unwrap(), Prediction::new(1, vec![2.0, 3.25]).unwrap()];
        let mut out = Vec::new();
        table_into(&mut out, &predictions, format, decimals).unwrap();
        out
    }

    #[test]
    fn labels_stand_alone_unless_scores_are_asked_for() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(table(TableFormat::Csv, None)), "index,label\n0,0\n1,1\n");
        assert_eq!(text(table(TableFormat::Csv, Some(1))), "index,label,score_0,score_1\n0,0,0.1,-1.0\n1,1,2.0,3.2\n");
        let json: serde_json::Value = serde_json::from_slice(&table(TableFormat::Json, None)).unwrap();
        assert_eq!(json["predictions"][1], json!({ "index": 1, "label": 1 }));
        let json: serde_json::Value = serde_json::from_slice(&table(TableFormat::Json, Some(2))).unwrap();
        assert_eq!(json["predictions"][0]["scores"], json!([0.13, -1.0]));
        let undecided = [Prediction { index: 0, label: u16::MAX, scores: vec![0.0; 2] }];
        let told = [TableFormat::Csv, TableFormat::Json].map(|format| {
            let mut out = Vec::new();
            table_into(&mut out, &undecided, format, None).unwrap();
            text(out)
        });
        assert_eq!(told[0], "index,label\n0,\n");
        assert!(told[1].contains(r#"{"index":0,"label":null}"#), "{}", told[1]);
        assert!(table(TableFormat::Npy, Some(0)).len() > table(TableFormat::Npy, None).len());
    }
}
