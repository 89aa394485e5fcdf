//! What the two commands accept and refuse.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;

use super::*;

fn client(line: &str) -> Result<Client, NotRun> {
    parse(line.split_whitespace())
}

fn worker(line: &str) -> Result<Worker, NotRun> {
    parse(line.split_whitespace())
}

#[test]
fn clap_finds_no_contradiction_in_the_types() {
    Client::command().debug_assert();
    Worker::command().debug_assert();
}

#[test]
fn bad_usage_is_64_and_help_is_0() {
    for (line, code) in [
        ("nightshift", 64),
        ("nightshift frobnicate", 64),
        ("nightshift model", 64),
        ("nightshift plan", 64),
        ("nightshift plan --model", 64),
        ("nightshift plan --model M.nsm --batch 0", 64),
        ("nightshift plan --model M.nsm --precision 1", 64),
        ("nightshift plan --model M.nsm --precision 31", 64),
        ("nightshift plan --model M.nsm --threads 0", 64),
        ("nightshift plan --model M.nsm --threads 1025", 64),
        ("nightshift plan --model M.nsm --threads many", 64),
        ("nightshift plan --model M.nsm --quiet --verbose", 64),
        ("nightshift encrypt --key K --model M --images I --out J --limit 0", 64),
        ("nightshift decrypt --key K --job J --out labels.txt", 64),
        ("nightshift decrypt --key K --job J --out labels", 64),
        ("nightshift decrypt --key K --job J --out labels.csv --digits 3", 64),
        ("nightshift demo --images 0", 64),
        ("nightshift demo --images 1000001", 64),
        ("nightshift demo --data D --seed 3", 64),
        ("nightshift train", 64),
        ("nightshift train r.toml --data d", 64),
        ("nightshift train r.toml --data d --out M.nsm --test-labels l", 64),
        ("nightshift train r.toml --data d --out M.nsm --teacher-weights w", 64),
        ("nightshift train r.toml --data d --out M.nsm --encrypted-images 0", 64),
        ("nightshift train r.toml --data d --out M.nsm --ladder --encrypted-images 8", 64),
        ("nightshift inspect", 64),
        ("nightshift inspect a b", 64),
        ("nightshift completions cmd.exe", 64),
        ("nightshift submit --queue spool:q", 64),
        ("nightshift submit JOB/", 64),
        ("nightshift fetch JOB/", 64),
        ("nightshift encrypt --key K --model M --images I --out J --priority 1001", 64),
        ("nightshift encrypt --key K --model M --images I --out J --deadline tomorrow", 64),
        ("nightshift submit --help", 0),
        ("nightshift model import --spec s --weights w --golden g --out o --bits 3", 64),
        ("nightshift model import --spec s --weights w --golden g --out o --bits 17", 64),
        ("nightshift model import --spec s --weights w --golden g --out o --labels l", 64),
        ("nightshift --help", 0),
        ("nightshift --version", 0),
        ("nightshift help plan", 0),
        ("nightshift model import --help", 0),
    ] {
        assert_eq!(client(line).expect_err(line).exit_code(), code, "{line}");
    }
    for (line, code) in [
        ("nightshift-worker", 64),
        ("nightshift-worker run", 64),
        ("nightshift-worker run job.toml --isa neon", 64),
        ("nightshift-worker run job.toml --memory-limit 2XB", 64),
        ("nightshift-worker run job.toml --key secret.key", 64),
        ("nightshift-worker decrypt", 64),
        ("nightshift-worker work", 64),
        ("nightshift-worker work --queue spool:q --once --drain", 64),
        ("nightshift-worker work --queue spool:q --once --concurrency 2", 64),
        ("nightshift-worker work --queue spool:q --concurrency 0", 64),
        ("nightshift-worker work --queue spool:q --grace 0s", 64),
        ("nightshift-worker work --queue spool:q --grace soon", 64),
        ("nightshift-worker status --queue spool:q --state asleep", 64),
        ("nightshift-worker cancel --queue spool:q", 64),
        ("nightshift-worker requeue abc --queue spool:q", 64),
        ("nightshift-worker doctor", 64),
        ("nightshift-worker work --help", 0),
        ("nightshift-worker --help", 0),
        ("nightshift-worker -V", 0),
    ] {
        assert_eq!(worker(line).expect_err(line).exit_code(), code, "{line}");
    }
}

#[test]
fn a_refused_value_says_found_and_expected() {
    let error = client("nightshift decrypt --key K --job J --out labels.txt").expect_err("txt").to_string();
    assert!(error.contains("labels.txt") && error.contains(".csv, .json or .npy"), "{error}");
    let error = worker("nightshift-worker run job.toml --memory-limit 2XB").expect_err("2XB").to_string();
    assert!(error.contains("\"XB\" is unknown") && error.contains("GiB"), "{error}");
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in [
        "nightshift --json --threads 3 -vv inspect F",
        "nightshift inspect F -v --json -v --threads 3",
        "nightshift --threads 3 inspect --json -vv F",
    ] {
        let global = client(line).expect(line).global;
        assert!(global.json && !global.quiet && !global.json_logs, "{line}");
        assert_eq!((global.verbose, global.threads), (2, Some(3)), "{line}");
    }
    let global = worker("nightshift-worker run job.toml -q --json-logs").expect("run").global;
    assert!(global.quiet && global.json_logs && !global.json && global.threads.is_none());
}

#[test]
fn import_takes_its_files_and_bits() {
    let line = "nightshift model import --spec s.json --weights w --golden g --out M.nsm";
    let ClientCommand::Model(ModelCommand::Import(import)) = client(line).expect(line).command else {
        panic!("{line} is another command");
    };
    assert_eq!(import.spec, Path::new("s.json"));
    assert_eq!(import.out, Path::new("M.nsm"));
    assert_eq!((import.bits, import.images, import.labels), (WeightBits::Auto, None, None));
    let line = format!("{line} --images i --labels l --bits 6");
    let ClientCommand::Model(ModelCommand::Import(import)) = client(&line).expect(&line).command else {
        panic!("{line} is another command");
    };
    assert_eq!((import.bits, import.labels), (WeightBits::Fixed(6), Some(PathBuf::from("l"))));
}

#[test]
fn plan_encrypt_and_decrypt_take_their_options() {
    let line = "nightshift plan --model M --batch 4096 --explain --precision 12";
    let ClientCommand::Plan(plan) = client(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((plan.batch.map(NonZeroUsize::get), plan.explain, plan.precision), (Some(4096), true, Some(12)));

    let line = "nightshift encrypt --key K --model M --images I --out JOB/ --limit 100";
    let ClientCommand::Encrypt(encrypt) = client(line).expect(line).command else {
        panic!("{line} is another command")
    };
    assert_eq!((encrypt.key, encrypt.images), (PathBuf::from("K"), PathBuf::from("I")));
    assert_eq!((encrypt.out, encrypt.limit.map(NonZeroUsize::get)), (PathBuf::from("JOB/"), Some(100)));

    let line = "nightshift decrypt --key K --job J --out dir.csv/labels.NPY --scores --digits 0";
    let ClientCommand::Decrypt(decrypt) = client(line).expect(line).command else {
        panic!("{line} is another command")
    };
    assert_eq!((decrypt.out.path(), decrypt.out.format()), (Path::new("dir.csv/labels.NPY"), TableFormat::Npy));
    assert_eq!((decrypt.scores, decrypt.digits), (true, Some(0)));
}

#[test]
fn demo_has_defaults() {
    let line = "nightshift demo";
    let ClientCommand::Demo(demo) = client(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((demo.images, demo.seed), (8192, 1));
    assert_eq!((demo.data, demo.workdir, demo.model), (None, None, None));
    let line = "nightshift demo --data mnist --images 10000";
    let ClientCommand::Demo(demo) = client(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((demo.images, demo.data), (10_000, Some(PathBuf::from("mnist"))));
}

#[test]
fn run_takes_memory_and_kernel() {
    let line = "nightshift-worker run J/job.toml";
    let WorkerCommand::Run(run) = worker(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((run.job, run.isa), (PathBuf::from("J/job.toml"), Isa::Auto));
    assert_eq!((run.model, run.eval_key, run.memory_limit), (None, None, None));
    let line = "nightshift-worker run J/job.toml --memory-limit 1.5GiB --isa avx512ifma --eval-key E --model M";
    let WorkerCommand::Run(run) = worker(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!(run.memory_limit.map(ByteSize::bytes), Some(1_610_612_736));
    assert_eq!((run.isa, run.eval_key), (Isa::Avx512Ifma, Some(PathBuf::from("E"))));
}

#[test]
fn work_has_defaults_and_takes_its_options() {
    let line = "nightshift-worker work --queue spool:q";
    let WorkerCommand::Work(work) = worker(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((work.once, work.drain, work.concurrency, work.grace), (false, false, 1, Duration::from_secs(30)));
    assert_eq!((work.memory_limit, work.scratch, work.name, work.isa), (None, None, None, Isa::Auto));
    let line = "nightshift-worker work --queue spool:q --drain --concurrency 8 --grace 2min --scratch /s --name w7";
    let WorkerCommand::Work(work) = worker(line).expect(line).command else { panic!("{line} is another command") };
    assert_eq!((work.queue.url.as_str(), work.drain, work.concurrency), ("spool:q", true, 8));
    assert_eq!((work.grace, work.name.as_deref()), (Duration::from_secs(120), Some("w7")));
    for (text, ms) in [("250ms", 250), ("5s", 5000), ("7", 7000), ("2m", 120_000), ("1h", 3_600_000)] {
        assert_eq!(values::parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "s", "0", "0ms", "1.5s", "-1s", "1d", "99999999999999999999", "18446744073709551615h"] {
        assert!(values::parse_duration(text).is_err(), "{text}");
    }
    let id = "0123456789abcdef0123456789abcdef";
    let line = format!("nightshift-worker requeue {id} --queue spool:q");
    let WorkerCommand::Requeue(jobs) = worker(&line).expect(&line).command else { panic!("{line} is another command") };
    assert_eq!(jobs.jobs[0].to_string(), id);
}

#[test]
fn encrypt_takes_what_a_queue_is_asked_for() {
    let line = "nightshift encrypt --key K --model M --images I --out J --tenant t --priority -5 \
                --deadline 2026-01-31T18:00:00Z --idempotency-key k --memory-limit 1GiB";
    let ClientCommand::Encrypt(encrypt) = client(line).expect(line).command else {
        panic!("{line} is another command")
    };
    assert_eq!((encrypt.tenant.as_deref(), encrypt.priority), (Some("t"), Some(-5)));
    assert_eq!(
        (encrypt.deadline.as_deref(), encrypt.idempotency_key.as_deref()),
        (Some("2026-01-31T18:00:00Z"), Some("k"))
    );
    assert_eq!(encrypt.memory_limit.map(ByteSize::bytes), Some(1 << 30));
}

#[test]
fn sizes_are_exact_in_both_families_of_units() {
    for (text, bytes) in [
        ("1", 1),
        ("4096", 4096),
        ("12 B", 12),
        ("500MB", 500_000_000),
        ("2GiB", 2_147_483_648),
        ("2 gib", 2_147_483_648),
        ("0.5kB", 500),
        ("1.5KiB", 1536),
        ("1TB", 1_000_000_000_000),
        ("0.000000001TiB", 1099),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{text}");
    }
    let size = |text: &str| text.parse::<ByteSize>();
    for text in ["", "GiB", ".5GB", "5.GB", "1.2.3MB", "0.0000000001TB", "1..2"] {
        assert_eq!(size(text), Err(ValueError::Size { found: text.to_owned() }), "{text:?}");
    }
    for (text, unit) in [("2G", "G"), ("-1", "-1"), ("1e9", "e9"), ("3 MiBs", "MiBs"), ("2µB", "µB")] {
        assert_eq!(size(text), Err(ValueError::Unit { found: unit.to_owned() }), "{text:?}");
    }
    for text in ["0", "0GB", "0.1B", "18446744073709551616", "17000000TiB", "99999999999999999999999GB"] {
        assert_eq!(size(text), Err(ValueError::SizeRange { found: text.to_owned() }), "{text:?}");
    }
}

#[test]
fn bits_are_auto_or_4_to_16() {
    assert_eq!("auto".parse(), Ok(WeightBits::Auto));
    for bits in 4..=16 {
        assert_eq!(bits.to_string().parse(), Ok(WeightBits::Fixed(bits)));
    }
    for text in ["", "3", "17", "300", "-4", "8.0", "Auto "] {
        assert_eq!(text.parse::<WeightBits>(), Err(ValueError::Bits { found: text.to_owned() }));
    }
}
