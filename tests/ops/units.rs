//! systemd units: read by systemd itself where it is installed, their exit codes by ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use jobs::ExitCode;

use super::read;

const SERVICES: [&str; 2] = ["nightshift-worker.service", "nightshift-drain.service"];

fn setting(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn codes(text: &str, name: &str) -> BTreeSet<u8> {
    let codes = setting(text, name).unwrap_or_default();
    codes.split_whitespace().map(|code| code.parse().unwrap_or_else(|_| panic!("{name}: {code}"))).collect()
}

#[test]
fn exit_codes_of_units_are_ours() {
    for service in SERVICES {
        let text = read(&format!("systemd/{service}"));
        let success = codes(&text, "SuccessExitStatus");
        assert_eq!(success, BTreeSet::from([ExitCode::TryLater.code()]), "{service}");
        let prevented = codes(&text, "RestartPreventExitStatus");
        for code in &prevented {
            assert!(ExitCode::from_code(*code).is_some(), "{service}: {code}");
        }
        if setting(&text, "Restart").is_some() {
            let permanent = ExitCode::ALL.into_iter().filter(|code| {
                !matches!(
                    code,
                    ExitCode::Done | ExitCode::Unavailable | ExitCode::Bug | ExitCode::Io | ExitCode::TryLater
                )
            });
            assert_eq!(prevented, permanent.map(ExitCode::code).collect(), "{service}");
        }
        // systemd waits longer than the worker takes to hand back.
        let grace = text.split("--grace ").nth(1).and_then(|rest| rest.split('s').next()).unwrap();
        let stop = setting(&text, "TimeoutStopSec").unwrap();
        assert!(stop.trim_end_matches('s').parse::<u64>().unwrap() > grace.parse().unwrap(), "{service}");
        // Variables come from the file that the unit reads.
        let variables = read("systemd/worker.env");
        for name in text.split("${").skip(1).filter_map(|rest| rest.split('}').next()) {
            assert!(setting(&variables, name).is_some(), "{service}: {name} is not in worker.env");
        }
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn analyze(arguments: &[&str], folder: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).current_dir(folder).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("skipped: no systemd-analyze (Debian: apt-get install systemd)");
            None
        }
    }
}

#[test]
fn systemd_takes_the_units_and_finds_them_confined() {
    // Units name the installed binary, which has to be there: the one built here stands for it.
    let folder = tempfile::tempdir().unwrap();
    for name in [&SERVICES[..], &["nightshift-drain.timer"]].concat() {
        let text = read(&format!("systemd/{name}"));
        let text = text.replace("/usr/local/bin/nightshift-worker", env!("CARGO_BIN_EXE_nightshift-worker"));
        fs::write(folder.path().join(name), text).unwrap();
    }
    for service in SERVICES {
        let Some(verified) = analyze(&["verify", "--man=no", service], folder.path()) else { return };
        let said = String::from_utf8_lossy(&verified.stderr);
        // Complaints about other units of this machine are not ours.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("nightshift")).collect();
        assert!(ours.is_empty(), "{service}: {ours:#?}");
        // Exposure, in tenths: "OK" begins at 50, and 14 is where these stand.
        let Some(secure) = analyze(&["security", "--offline=true", "--threshold=20", service], folder.path()) else {
            return;
        };
        assert!(secure.status.success(), "{service}: {}", String::from_utf8_lossy(&secure.stdout));
    }
    let Some(verified) = analyze(&["verify", "--man=no", "nightshift-drain.timer"], folder.path()) else { return };
    assert!(!String::from_utf8_lossy(&verified.stderr).contains("nightshift"), "{verified:?}");
    let Some(calendar) = analyze(&["calendar", "*:0/5"], folder.path()) else { return };
    assert!(calendar.status.success() && read("systemd/nightshift-drain.timer").contains("OnCalendar=*:0/5\n"));
}
