//! Every command line in the files is one that the binaries understand: the command is in `--help`, its options in the command's.

use std::collections::BTreeMap;
use std::process::Command;

use super::manifests::documents;
use super::read;

/// A command line: file, binary, words.
pub struct Line {
    file: String,
    binary: &'static str,
    words: Vec<String>,
}

/// Command lines in running text: from the binary's name to the end of the shell's command or the code span.
fn in_text(file: &str) -> Vec<Line> {
    let mut text = read(file);
    if file.ends_with(".md") {
        // A code span may go over the end of a line: paragraphs are lines here.
        text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ") + "\n").collect();
    }
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# ") || line.contains("`")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let name = word.trim_start_matches(['`', '(']).rsplit(['/', '=']).next().unwrap_or_default();
            let Some(binary) = ["nightshift", "nightshift-worker"].into_iter().find(|binary| *binary == name) else {
                continue;
            };
            let mut own = Vec::new();
            for word in &words[at + 1..] {
                if ["||", "|", ";", "&&"].contains(word) {
                    break;
                }
                own.push(word.trim_end_matches(['`', '.', ',', ';', ')', ':']).trim_end_matches('`').to_owned());
                if word.contains('`') {
                    break;
                }
            }
            // In prose the name alone says nothing; a cron line's user has the command's name behind it.
            let is_command = own.first().is_some_and(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')
            });
            let in_code = word.trim_start_matches('(').starts_with('`') || !file.ends_with(".md");
            if is_command && in_code && !own[0].starts_with("nightshift") {
                lines.push(Line { file: file.to_owned(), binary, words: own });
            }
        }
    }
    lines
}

/// Arguments of containers.
fn in_manifests(file: &str) -> Vec<Line> {
    let mut found = Vec::new();
    for document in documents(file) {
        for pointer in ["/spec/template/spec/containers", "/spec/jobTargetRef/template/spec/containers"] {
            for container in document.pointer(pointer).and_then(|list| list.as_array()).into_iter().flatten() {
                let words = container["args"].as_array().expect("containers of ours have arguments").iter();
                let words = words.map(|word| word.as_str().expect("an argument is text").to_owned()).collect();
                found.push(Line { file: file.to_owned(), binary: "nightshift-worker", words });
            }
        }
    }
    found
}

fn help(binary: &str, words: &[&str]) -> String {
    let program =
        if binary == "nightshift" { env!("CARGO_BIN_EXE_nightshift") } else { env!("CARGO_BIN_EXE_nightshift-worker") };
    let output = Command::new(program).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{binary} {words:?} --help: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a help text has this word, and not only a longer one.
fn has(help: &str, wanted: &str) -> bool {
    help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == wanted)
}

#[test]
fn every_command_line_is_understood() {
    let mut lines = Vec::new();
    let texts = [
        ("systemd/nightshift-worker.service", 1),
        ("systemd/nightshift-drain.service", 1),
        ("cron/nightshift", 2),
        ("slurm/nightshift.sbatch", 1),
        ("runbook.md", 8),
    ];
    for (file, least) in texts {
        let found = in_text(file);
        assert!(found.len() >= least, "{file}: {} command lines found, expected {least}", found.len());
        lines.extend(found);
    }
    for file in ["kubernetes/job.yaml", "kubernetes/scaledjob.yaml"] {
        let found = in_manifests(file);
        assert_eq!(found.len(), 1, "{file}");
        lines.extend(found);
    }
    let mut helps: BTreeMap<(&str, String), String> = BTreeMap::new();
    let commands: BTreeMap<_, _> = ["nightshift", "nightshift-worker"].map(|binary| (binary, help(binary, &[]))).into();
    for Line { file, binary, words } in &lines {
        let command = words[0].as_str();
        assert!(has(&commands[binary], command), "{file}: {binary} has no command {command:?}");
        let help = helps.entry((binary, command.to_owned())).or_insert_with(|| help(binary, &[command]));
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let name = option.split('=').next().unwrap_or_default();
            assert!(has(help, name), "{file}: {binary} {command} has no option {name}");
        }
    }
}

#[test]
fn a_wrong_option_would_be_noticed() {
    let text = help("nightshift-worker", &["run"]);
    assert!(has(&text, "--memory-limit") && !has(&text, "--memory") && !has(&text, "--queue"), "{text}");
}
