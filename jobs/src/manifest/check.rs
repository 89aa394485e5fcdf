//! The rules a manifest must keep, field by field and then together. Looks at no file.

use std::collections::BTreeMap;
use std::path::Path;

use super::{BATCHES_LIMIT, ENGINES, INPUT_LIMIT_BYTES, JobManifest, SCHEMA, SLOTS_LIMIT};
use crate::error::{JobsError, Result};
use crate::paths;

/// Most options, and most bytes of an option's value.
const OPTIONS_LIMIT: usize = 64;
const OPTION_LIMIT_BYTES: usize = 1024;

pub(super) fn check_manifest(manifest: &JobManifest) -> Result<()> {
    exactly("schema", &manifest.schema, SCHEMA)?;
    check_engine(&manifest.engine)?;
    check_job_id("job_id", &manifest.job_id)?;
    if let Some(tenant) = &manifest.tenant {
        check_name("tenant", tenant)?;
    }
    check_text("created", &manifest.created, 64)?;
    check_name("plan_id", &manifest.plan_id)?;
    check_name("key_id", &manifest.key_id)?;
    check_text("model.name", &manifest.model.name, 128)?;
    check_options(&manifest.options)?;
    if let Some(terms) = &manifest.queue {
        terms.check()?;
    }
    check_batches(manifest)?;
    check_paths(manifest)?;
    manifest.batches.iter().try_for_each(|batch| paths::check_relative_output(&batch.output))?;
    // Its signature's name is the longer one.
    paths::check_relative_output(&format!("{}.sig", manifest.receipt))
}

/// No path of the manifest may be the manifest itself or its signature: an output would replace it.
pub(super) fn check_own_name(manifest: &JobManifest, path: &Path) -> Result<()> {
    let own_name = path.file_name().and_then(|name| name.to_str());
    let signature = own_name.map(|name| format!("{name}.sig"));
    let taken = |relative: &str| Some(relative) == own_name || Some(relative) == signature.as_deref();
    match named_paths(manifest).find(|(_, relative)| taken(relative)) {
        None => Ok(()),
        Some((field, relative)) => Err(JobsError::PathTwice {
            field,
            path: relative.to_owned(),
            first: "the manifest or its signature".to_owned(),
        }),
    }
}

pub(crate) fn check_engine(engine: &str) -> Result<()> {
    if ENGINES.contains(&engine) {
        return Ok(());
    }
    Err(JobsError::field("engine", format_args!("{engine:?}"), format!("one of {ENGINES:?}")))
}

fn check_batches(manifest: &JobManifest) -> Result<()> {
    let slots = manifest.slots;
    if slots == 0 || slots > SLOTS_LIMIT {
        return Err(JobsError::field("slots", slots, format!("1 to {SLOTS_LIMIT}")));
    }
    let count = manifest.batches.len();
    if count == 0 || count > BATCHES_LIMIT {
        return Err(JobsError::field("batches", format_args!("{count} batches"), format!("1 to {BATCHES_LIMIT}")));
    }
    // At most BATCHES_LIMIT * SLOTS_LIMIT = 2^36, so the sum cannot overflow.
    let mut next_image = 0_u64;
    for (index, batch) in manifest.batches.iter().enumerate() {
        if batch.occupancy == 0 || batch.occupancy > slots {
            let expected = format!("1 to {slots} (slots)");
            return Err(JobsError::field(format!("batches[{index}].occupancy"), batch.occupancy, expected));
        }
        if batch.first_image != next_image {
            let expected = format!("{next_image}, right after the batch before");
            return Err(JobsError::field(format!("batches[{index}].first_image"), batch.first_image, expected));
        }
        if batch.input.bytes == 0 || batch.input.bytes > INPUT_LIMIT_BYTES {
            let expected = format!("1 to {INPUT_LIMIT_BYTES}");
            return Err(JobsError::field(format!("batches[{index}].input.bytes"), batch.input.bytes, expected));
        }
        next_image += u64::from(batch.occupancy);
    }
    if manifest.images != next_image {
        let expected = format!("{next_image}, the sum of all occupancies");
        return Err(JobsError::field("images", manifest.images, expected));
    }
    Ok(())
}

/// Every path once and well formed. A path has one written form, so equal paths are equal texts.
fn check_paths(manifest: &JobManifest) -> Result<()> {
    let signature = format!("{}.sig", manifest.receipt);
    let mut seen: BTreeMap<&str, String> = BTreeMap::from([(signature.as_str(), "the receipt's signature".to_owned())]);
    for (field, relative) in named_paths(manifest) {
        paths::check_relative(relative)?;
        if let Some(first) = seen.get(relative) {
            return Err(JobsError::PathTwice { field, path: relative.to_owned(), first: first.clone() });
        }
        seen.insert(relative, field);
    }
    Ok(())
}

fn named_paths(manifest: &JobManifest) -> impl Iterator<Item = (String, &str)> {
    let model = manifest.model.path.as_deref().map(|path| ("model.path".to_owned(), path));
    let batches = manifest.batches.iter().enumerate().flat_map(|(index, batch)| {
        let input = (format!("batches[{index}].input.path"), batch.input.path.as_str());
        let output = (format!("batches[{index}].output"), batch.output.as_str());
        [input, output]
    });
    let single = [
        ("eval_key.path".to_owned(), manifest.eval_key.path.as_str()),
        ("receipt".to_owned(), manifest.receipt.as_str()),
    ];
    model.into_iter().chain(single).chain(batches)
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    if options.len() > OPTIONS_LIMIT {
        let found = format_args!("{} options", options.len()).to_string();
        return Err(JobsError::field("options", found, format!("at most {OPTIONS_LIMIT}")));
    }
    for (name, value) in options {
        check_name("options", name)?;
        if value.len() > OPTION_LIMIT_BYTES {
            let expected = format!("at most {OPTION_LIMIT_BYTES}");
            return Err(JobsError::field(format!("options.{name}"), format_args!("{} bytes", value.len()), expected));
        }
    }
    Ok(())
}

fn exactly(field: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(JobsError::field(field, format_args!("{found:?}"), format!("{expected:?}")))
}

/// 16 to 64 lower-case hex digits.
pub(crate) fn check_job_id(field: &str, job_id: &str) -> Result<()> {
    let is_hex = job_id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && (16..=64).contains(&job_id.len()) {
        return Ok(());
    }
    Err(JobsError::field(field, format_args!("{job_id:?}"), "16 to 64 lower-case hex digits"))
}

/// 40 or 64 lower-case hex digits.
pub(crate) fn check_commit(field: &str, commit: &str) -> Result<()> {
    let is_hex = commit.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && matches!(commit.len(), 40 | 64) {
        return Ok(());
    }
    Err(JobsError::field(field, format_args!("{commit:?}"), "40 or 64 lower-case hex digits"))
}

/// 1 to 128 of `A-Z a-z 0-9 . _ -`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<()> {
    let is_plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'));
    if is_plain && (1..=128).contains(&name.len()) {
        return Ok(());
    }
    Err(JobsError::field(field, format_args!("{name:?}"), "1 to 128 of A-Z a-z 0-9 . _ -"))
}

/// 1 to `limit_chars` characters, none of control.
pub(crate) fn check_text(field: &str, text: &str, limit_chars: usize) -> Result<()> {
    let is_printable = !text.chars().any(char::is_control);
    if is_printable && (1..=limit_chars).contains(&text.chars().count()) {
        return Ok(());
    }
    Err(JobsError::field(field, format_args!("{text:?}"), format!("1 to {limit_chars} printable characters")))
}
