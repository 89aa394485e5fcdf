//! Manifests: what is written is what is read, and everything else is refused with the field, found and expected.

#[expect(dead_code, reason = "each test binary uses a part of the shared samples")]
mod common;

use std::fs;

use common::{SLOTS, sample_manifest, write_job};
use jobs::manifest::{self, Batch, JobManifest, Terms};
use jobs::{ExitCode, FileRole, JobsError};
use proptest::prelude::*;

fn load_text(text: &str) -> Result<JobManifest, JobsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    fs::write(&path, text).unwrap();
    manifest::load(&path).map(|job| job.manifest().clone())
}

fn sample_json() -> serde_json::Value {
    serde_json::to_value(sample_manifest(&[16, 16, 5])).unwrap()
}

fn refusal(change: impl FnOnce(&mut JobManifest)) -> String {
    let mut manifest = sample_manifest(&[16, 16, 5]);
    change(&mut manifest);
    let error = manifest.validate().unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::BadData);
    error.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn toml_and_json_come_back_equal(
        occupancies in prop::collection::vec(1..=SLOTS, 1..40),
        tenant in prop::option::of("[A-Za-z0-9._-]{1,20}"),
        model_path in prop::option::of("[a-z]{1,8}/m [é\"'=#]{1,8}"),
        model_name in "[^\\p{Cc}]{1,40}",
        created in "[ -~]{1,64}",
        options in prop::collection::btree_map("[a-z_]{1,10}", "\\PC{0,40}", 0..5),
    ) {
        let mut written = sample_manifest(&occupancies);
        written.tenant = tenant;
        written.model.path = model_path;
        written.model.name = model_name;
        written.created = created;
        written.options = options;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.toml");
        written.write(&path).unwrap();
        let from_toml = manifest::load(&path).unwrap();
        prop_assert_eq!(from_toml.manifest(), &written);
        prop_assert_eq!(load_text(&serde_json::to_string_pretty(&written).unwrap()).unwrap(), written);
    }

    #[test]
    fn no_text_makes_loading_panic(text in "\\PC{0,300}", cut in 0_usize..1500) {
        let whole = sample_manifest(&[16, 3]).to_toml("job.toml".as_ref()).unwrap();
        let mut cut = cut.min(whole.len() - 1);
        while !whole.is_char_boundary(cut) {
            cut -= 1;
        }
        let spliced = format!("{}{text}", &whole[..cut]);
        for hostile in [text.as_str(), &spliced] {
            if let Err(error) = load_text(hostile) {
                prop_assert!(matches!(error.exit_code(), ExitCode::BadData | ExitCode::Mismatch));
            }
        }
    }
}

/// Every object of the document, as JSON pointers: a field missing or added anywhere must be noticed.
fn objects(value: &serde_json::Value, pointer: &str, found: &mut Vec<(String, Vec<String>)>) {
    match value {
        serde_json::Value::Object(fields) => {
            found.push((pointer.to_owned(), fields.keys().cloned().collect()));
            fields.iter().for_each(|(name, inner)| objects(inner, &format!("{pointer}/{name}"), found));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| objects(inner, &format!("{pointer}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn every_required_field_is_missed_and_every_unknown_one_refused() {
    let whole = sample_json();
    assert!(load_text(&whole.to_string()).is_ok());
    let mut found = Vec::new();
    objects(&whole, "", &mut found);
    let mut missed = 0;
    for (pointer, names) in found.iter().filter(|(pointer, _)| pointer != "/options") {
        let mut added = whole.clone();
        added.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("colour".into(), "red".into());
        let error = load_text(&added.to_string()).unwrap_err();
        assert!(error.to_string().contains("unknown field `colour`"), "{pointer}: {error}");
        for name in names {
            let mut lacking = whole.clone();
            lacking.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            let optional = pointer == "/queue"
                || ["/tenant", "/engine", "/options", "/queue", "/model/path"]
                    .contains(&format!("{pointer}/{name}").as_str());
            match load_text(&lacking.to_string()) {
                Ok(_) => assert!(optional, "{pointer}/{name} was not missed"),
                Err(error) => {
                    assert!(error.to_string().contains(&format!("missing field `{name}`")), "{pointer}: {error}");
                    assert_eq!(error.exit_code(), ExitCode::BadData);
                    missed += 1;
                }
            }
        }
    }
    assert_eq!(missed, 11 + 2 + 2 + 3 * (4 + 3), "required fields of job, model, eval_key and three batches");
}

#[test]
fn schemas_are_told_apart_before_fields_are_read() {
    let with_schema = |schema: &str| load_text(&format!("schema = {schema:?}\nnovelty = 1\n")).unwrap_err();
    let newer = with_schema("nightshift.job/2");
    assert_eq!(newer.exit_code(), ExitCode::Mismatch);
    assert!(newer.to_string().ends_with("schema nightshift.job/2, newer than the nightshift.job/1 this program reads"));
    for foreign in ["nightshift.job/0", "nightshift.receipt/1", "other.job/2", "nightshift.job", ""] {
        let error = with_schema(foreign);
        assert!(matches!(error, JobsError::ForeignSchema { .. }), "{foreign}: {error}");
        assert_eq!(error.exit_code(), ExitCode::BadData);
    }
    assert!(load_text("").unwrap_err().to_string().contains("missing field `schema`"));
}

#[test]
fn syntax_errors_give_line_and_column() {
    let error = load_text("schema = \"nightshift.job/1\"\nslots = = 3\n").unwrap_err().to_string();
    assert!(error.contains("at line 2 column"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    let error = load_text("{\n \"schema\": }").unwrap_err().to_string();
    assert!(error.contains("line 2 column"), "{error}");
}

#[test]
fn counts_must_fit_together() {
    let cases: [(&str, String); 10] = [
        ("batches[1].occupancy: 0, expected 1 to 16 (slots)", refusal(|m| m.batches[1].occupancy = 0)),
        ("batches[0].occupancy: 17, expected 1 to 16", refusal(|m| m.batches[0].occupancy = 17)),
        ("batches[0].first_image: 1, expected 0", refusal(|m| m.batches[0].first_image = 1)),
        ("batches[2].first_image: 31, expected 32", refusal(|m| m.batches[2].first_image = 31)),
        ("images: 38, expected 37", refusal(|m| m.images = 38)),
        ("images: 18446744073709551615, expected 37", refusal(|m| m.images = u64::MAX)),
        ("slots: 0, expected 1 to 1048576", refusal(|m| m.slots = 0)),
        ("slots: 4294967295, expected 1 to 1048576", refusal(|m| m.slots = u32::MAX)),
        ("batches: 0 batches, expected 1 to 65536", refusal(|m| m.batches.clear())),
        ("batches[0].input.bytes: 0, expected 1 to", refusal(|m| m.batches[0].input.bytes = 0)),
    ];
    for (expected, found) in cases {
        assert!(found.starts_with(expected), "{found}");
    }
    let mut crowded = sample_manifest(&[1]);
    let one: Batch = crowded.batches[0].clone();
    crowded.batches = vec![one; manifest::BATCHES_LIMIT + 1];
    assert!(crowded.validate().unwrap_err().to_string().starts_with("batches: 65537 batches, expected 1 to 65536"));
}

#[test]
fn names_ids_and_digests_have_one_form() {
    for bad in ["", "0011", "00112233445566778899AABBCCDDEEFF", "../../../../etc/passwd"] {
        assert!(refusal(|m| m.job_id = bad.to_owned()).contains("expected 16 to 64 lower-case hex digits"));
    }
    assert!(refusal(|m| m.tenant = Some("a b".to_owned())).starts_with("tenant: \"a b\", expected 1 to 128"));
    assert!(refusal(|m| m.key_id = String::new()).starts_with("key_id: \"\""));
    assert!(refusal(|m| m.plan_id = "x".repeat(129)).starts_with("plan_id:"));
    assert!(refusal(|m| m.created = "now\n".to_owned()).starts_with("created: \"now\\n\""));
    assert!(
        refusal(|m| m.engine = "bfv".to_owned()).starts_with("engine: \"bfv\", expected one of [\"ckks\", \"tfhe\"]")
    );
    assert!(refusal(|m| m.model.name = "\u{7}".to_owned()).starts_with("model.name:"));
    let text = sample_json().to_string();
    let digest = sample_manifest(&[1]).model.digest.to_string();
    for bad in [digest.to_uppercase(), digest[1..].to_owned(), format!("0x{}", &digest[2..])] {
        let error = load_text(&text.replace(&digest, &bad)).unwrap_err().to_string();
        assert!(error.contains("expected 64 lower-case hex digits"), "{error}");
    }
}

#[test]
fn an_engine_that_is_not_named_is_the_first_one_and_the_other_has_a_name() {
    let mut json = sample_json();
    json.as_object_mut().unwrap().remove("engine");
    assert_eq!(load_text(&json.to_string()).unwrap().engine, manifest::ENGINE);
    json["engine"] = "tfhe".into();
    assert_eq!(load_text(&json.to_string()).unwrap().engine, "tfhe");
}

#[test]
fn options_are_bounded_and_unknown_ones_refused() {
    let manifest = sample_manifest(&[1]);
    assert!(manifest.refuse_unknown_options(&["threads"]).is_ok());
    let error = manifest.refuse_unknown_options(&["memory_bytes"]).unwrap_err().to_string();
    assert_eq!(error, "options: threads, expected one of [\"memory_bytes\"]");
    assert!(refusal(|m| drop(m.options.insert("a".into(), "x".repeat(1025)))).starts_with("options.a: 1025 bytes"));
    let many = |m: &mut JobManifest| m.options = (0..65).map(|i| (format!("o{i}"), String::new())).collect();
    assert!(refusal(many).starts_with("options: 65 options, expected at most 64"));
}

#[test]
fn names_of_outputs_leave_room_for_temporary_ones() {
    let (longest, longer) = ("n".repeat(240), "n".repeat(241));
    let mut manifest = sample_manifest(&[1]);
    manifest.batches[0].output = format!("outputs/{longest}");
    manifest.receipt = "r".repeat(236);
    manifest.batches[0].input.path = "i".repeat(255);
    manifest.validate().unwrap();
    let problem = "has an output's name longer than 240 bytes";
    assert!(refusal(|m| m.batches[1].output = format!("outputs/{longer}")).contains(problem));
    assert!(refusal(|m| m.receipt = "r".repeat(237)).contains(problem), "its signature's name is longer by four");
}

#[test]
fn a_path_serves_once_and_never_the_manifest_itself() {
    let twice = refusal(|m| m.batches[2].output = "outputs/0000.nsc".to_owned());
    assert_eq!(twice, "batches[2].output: path \"outputs/0000.nsc\" is already used by batches[0].output");
    assert!(refusal(|m| m.batches[0].output = "eval.key".to_owned()).contains("already used by eval_key.path"));
    assert!(refusal(|m| m.receipt = "inputs/0001.nsc".to_owned()).contains("already used by receipt"));
    let mut own = sample_manifest(&[1]);
    own.receipt = "job.toml".to_owned();
    let error = load_text(&serde_json::to_string(&own).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "receipt: path \"job.toml\" is already used by the manifest or its signature");
    let mut own = sample_manifest(&[1]);
    own.batches[0].output = "job.toml.sig".to_owned();
    let error = load_text(&serde_json::to_string(&own).unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("path \"job.toml.sig\" is already used by the manifest or its signature"), "{error}");
    let taken = refusal(|m| m.batches[1].output = "receipt.json.sig".to_owned());
    assert!(taken.ends_with("is already used by the receipt's signature"), "{taken}");
}

#[test]
fn oversized_and_foreign_bytes_are_refused_before_parsing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
    let error = manifest::load(&path).unwrap_err();
    assert!(matches!(error, JobsError::TooLarge { found_bytes: 5_368_709_120, limit_bytes: 1_048_576, .. }), "{error}");
    fs::write(&path, b"schema\xff").unwrap();
    assert!(manifest::load(&path).unwrap_err().to_string().contains("byte 6 is not UTF-8"));
    assert_eq!(manifest::load(folder.path()).unwrap_err().exit_code(), ExitCode::BadData);
    assert_eq!(manifest::load(&folder.path().join("none")).unwrap_err().exit_code(), ExitCode::InputMissing);
    let deep = "[".repeat(100_000);
    for text in [format!("a = {deep}"), format!("{{\"schema\": {deep}")] {
        assert!(matches!(load_text(&text), Err(JobsError::Syntax { .. })));
    }
    let huge = sample_manifest(&vec![1; 8000]);
    assert!(matches!(huge.to_toml(&path), Err(JobsError::TooLarge { .. })));
}

#[test]
fn a_manifest_is_not_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    sample_manifest(&[1]).write(&path).unwrap();
    assert_eq!(sample_manifest(&[2]).write(&path).unwrap_err().exit_code(), ExitCode::CannotCreate);
    assert_eq!(manifest::load(&path).unwrap().manifest().images, 1);
}

#[test]
fn files_are_held_to_size_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let job = manifest::load(&write_job(folder.path(), &sample_manifest(&[16, 5]))).unwrap();
    job.verify_inputs().unwrap();
    assert_eq!(job.verify_model(None).unwrap(), job.root().join("model.nsm"));
    assert_eq!(job.verify_eval_key(None).unwrap(), job.root().join("eval.key"));

    let second = folder.path().join("inputs/0001.nsc");
    let mut content = fs::read(&second).unwrap();
    content[3] ^= 1;
    fs::write(&second, &content).unwrap();
    let flipped = job.verify_inputs().unwrap_err();
    assert!(matches!(flipped, JobsError::WrongDigest { role: FileRole::Input(1), .. }), "{flipped}");
    assert_eq!(flipped.exit_code(), ExitCode::BadData);
    content.pop();
    fs::write(&second, &content).unwrap();
    let short = job.verify_inputs().unwrap_err();
    assert!(short.to_string().starts_with("batch 1 input: 17 bytes in"), "{short}");
    fs::remove_file(&second).unwrap();
    assert_eq!(job.verify_inputs().unwrap_err().exit_code(), ExitCode::InputMissing);

    let other = folder.path().join("other.key");
    fs::write(&other, b"another evaluation key").unwrap();
    assert_eq!(job.verify_eval_key(Some(&other)).unwrap_err().exit_code(), ExitCode::Mismatch);
    fs::write(&other, b"eval key").unwrap();
    assert_eq!(job.verify_eval_key(Some(&other)).unwrap(), other);
}

#[test]
fn a_model_without_a_path_must_be_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = sample_manifest(&[1]);
    manifest.model.path = None;
    let job = manifest::load(&write_job(folder.path(), &manifest)).unwrap();
    let error = job.verify_model(None).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputMissing);
    assert!(error.to_string().starts_with("model \"mnist\""), "{error}");
    let given = folder.path().join("model.nsm");
    assert_eq!(job.verify_model(Some(&given)).unwrap(), given);
}

#[test]
fn terms_of_a_queue_are_checked_and_an_engine_left_out_is_the_one_there_is() {
    fn terms(change: impl FnOnce(&mut Terms)) -> String {
        refusal(|manifest| change(manifest.queue.as_mut().unwrap()))
    }
    assert!(terms(|t| t.idempotency_key = Some("two words".into())).starts_with("queue.idempotency_key: "));
    assert!(terms(|t| t.idempotency_key = Some(String::new())).starts_with("queue.idempotency_key: "));
    assert_eq!(terms(|t| t.priority = Some(1001)), "queue.priority: 1001, expected -1000 to 1000");
    assert!(terms(|t| t.priority = Some(i16::MIN)).starts_with("queue.priority: -32768"));
    assert!(
        terms(|t| t.deadline = Some("tomorrow".into())).starts_with("queue.deadline: tomorrow, expected a UTC time")
    );
    assert!(terms(|t| t.memory_limit_bytes = Some(0)).starts_with("queue.memory_limit_bytes: 0"));
    let mut json = sample_json();
    json.as_object_mut().unwrap().remove("engine");
    assert_eq!(load_text(&json.to_string()).unwrap().engine, manifest::ENGINE);
}
