//! Signed requests and receipts as the commands handle them: who may ask, who answered, what is said of it, and with which exit code.

use std::fs;

use super::job::{Bench, names};

#[test]
fn a_worker_takes_signed_requests_and_signs_what_it_did() {
    let bench = Bench::new();
    for (program, name) in [("", "client.key"), ("worker ", "worker.key"), ("", "stranger.key")] {
        let made = bench.run(&format!("{program}signing-keygen --out {name} --json")).json();
        let public = fs::read_to_string(bench.path(&format!("{name}.pub"))).unwrap();
        assert_eq!(made["key"], public.trim_end());
        let told = fs::read_to_string(bench.path(name)).unwrap();
        let seed = told.split_whitespace().nth(1).unwrap().to_owned();
        assert!(!made.to_string().contains(&seed) && seed.len() == 64, "the seed is told to nobody");
        bench.refuse(&format!("{program}signing-keygen --out {name}"), 73, "cannot create");
    }
    fs::create_dir(bench.path("clients")).unwrap();
    fs::copy(bench.path("client.key.pub"), bench.path("clients/clinic-7.pub")).unwrap();
    let before = names(&bench.path("job"));
    let run = "worker run job/job.toml --signing-key worker.key --require-signed-by clients --ledger ledger --json";

    bench.refuse(run, 77, "found no signature beside it");
    bench.run("sign job/job.toml --signing-key stranger.key --json").json();
    bench.refuse(run, 77, "bound to tenant clinic-7");
    fs::remove_file(bench.path("job/job.toml.sig")).unwrap();
    assert_eq!(names(&bench.path("job")), before, "a refused request leaves nothing behind");
    let signed = bench.run("sign job/job.toml --signing-key client.key --valid-for 1h --json").json();
    assert_eq!(signed["tenant"], "clinic-7");
    assert!(signed["expires_unix_secs"].as_u64().unwrap() > 1_700_000_000, "{signed}");

    // Altered after it was signed; the same id with another content; too late.
    let sound = fs::read_to_string(bench.path("job/job.toml")).unwrap();
    let later = sound.replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    fs::write(bench.path("job/job.toml"), &later).unwrap();
    bench.refuse(run, 65, "the signature beside it is none of this request");
    fs::write(bench.path("job/job.toml"), &sound).unwrap();
    let done = bench.run(run).json();
    assert_eq!((&done["already_done"], &done["images"]), (&false.into(), &20.into()));
    assert_eq!(bench.run(run).json()["already_done"], true, "its own signature says that it was done");
    bench.copy("replayed");
    for name in ["receipt.json", "receipt.json.sig"] {
        fs::remove_file(bench.path("replayed").join(name)).unwrap();
    }
    fs::write(bench.path("replayed/job.toml"), &later).unwrap();
    bench.run("sign replayed/job.toml --signing-key client.key --json").json();
    bench.refuse(&run.replace("job/", "replayed/"), 77, "with which this id was taken before");
    bench.run("sign job/job.toml --signing-key client.key --valid-for 1s --json").json();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    bench.refuse(run, 77, "signature expired at");
    bench.run("sign job/job.toml --signing-key client.key --json").json();

    let verified = bench.run("verify job/job.toml --worker-key worker.key.pub --json").json();
    let public = fs::read_to_string(bench.path("worker.key.pub")).unwrap();
    assert_eq!(
        (&verified["receipt_signature"], &verified["receipt_key"]),
        (&"trusted".into(), &public.trim_end().into())
    );
    assert_eq!((&verified["attempts"], &verified["results"]), (&1.into(), &1.into()));
    let client = fs::read_to_string(bench.path("client.key.pub")).unwrap();
    assert_eq!(verified["request_key"], client.trim_end());
    let unchecked = bench.run("verify job/job.toml");
    assert!(unchecked.code == 0 && unchecked.out.contains("NOT CHECKED"), "{unchecked:?}");
    assert_eq!(bench.run("inspect job/receipt.json.sig --json").json()["purpose"], "receipt");

    let decrypt = "decrypt --key keys/secret.key --job job/job.toml --out labels.csv --json";
    let opened = bench.run(&format!("{decrypt} --worker-key worker.key.pub")).json();
    assert_eq!((&opened["images"], &opened["receipt_signature"]), (&20.into(), &"trusted".into()));
    fs::remove_file(bench.path("labels.csv")).unwrap();
    bench.refuse(&format!("{decrypt} --worker-key stranger.key.pub"), 77, "expected a key of stranger.key.pub");
    bench.refuse("verify job/job.toml --worker-key stranger.key.pub", 77, "signed by ed25519:");
    bench.refuse(&format!("{decrypt} --worker-key worker.key"), 65, "public key");

    // A receipt that was changed in a place that nothing else notices.
    let receipt = fs::read_to_string(bench.path("job/receipt.json")).unwrap();
    let other = receipt.replace("\"attempts\": 1", "\"attempts\": 2");
    assert_ne!(receipt, other);
    fs::write(bench.path("job/receipt.json"), &other).unwrap();
    for line in [decrypt, "verify job/job.toml", "verify job/job.toml --worker-key worker.key.pub"] {
        bench.refuse(line, 65, "the signature beside it is none of this receipt");
    }
    fs::remove_file(bench.path("job/receipt.json.sig")).unwrap();
    assert_eq!(bench.run("verify job/job.toml --json").json()["receipt_signature"], "none");
    bench.refuse(&format!("{decrypt} --worker-key worker.key.pub"), 77, "found no signature beside it");
    assert!(!bench.path("labels.csv").exists(), "nothing was decrypted");

    // Not its own signature: the worker with a key does the work again, the one without takes it as it is.
    assert_eq!(bench.run("worker run job/job.toml --json").json()["already_done"], true);
    assert_eq!(bench.run(run).json()["already_done"], false);
    bench.run(&format!("{decrypt} --worker-key worker.key.pub")).json();
}

#[test]
fn a_job_can_be_signed_as_it_is_encrypted() {
    let bench = Bench::new();
    bench.run("signing-keygen --out client.key --json").json();
    fs::write(bench.path("images.idx"), bench.black_images(3)).unwrap();
    let line = "encrypt --key keys/secret.key --model model.nsm --images images.idx --out signed --tenant lab --json";
    let made = bench.run(&format!("{line} --signing-key client.key --valid-for 7d")).json();
    let public = fs::read_to_string(bench.path("client.key.pub")).unwrap();
    assert_eq!((&made["tenant"], &made["signed_by"]), (&"lab".into(), &public.trim_end().into()));
    fs::write(bench.path("list"), format!("{} lab\n", public.trim_end())).unwrap();
    bench.run("worker run signed/job.toml --require-signed-by list --json").json();
    bench.refuse(&line.replace("--tenant lab", "--tenant a/b"), 73, "expected an empty folder");
    bench.refuse(&line.replace("--out signed --tenant lab", "--out other --tenant a/b"), 65, "tenant");
    assert!(!bench.path("other").exists(), "a job that could not be written leaves nothing");
}
