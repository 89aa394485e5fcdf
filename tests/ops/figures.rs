//! Dashboard and alerts ask for figures that the worker really gives: names, labels and label values of every query are looked for in
//! the text of real runs, read from the file and over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use jobs::metrics::families::{CLAIMS, LEASE_LOSSES, QUEUE_JOBS, QUEUE_LEASES, QUEUE_OLDEST, TASKS_RUNNING};
use jobs::metrics::{FAMILIES, Listener, Metrics};
use serde_json::Value;

use super::job::Bench;
use super::manifests::documents;
use super::read;

/// Name -> label -> values.
type Figures = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn figures(text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (head, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
        let entry = figures.entry(name.to_owned()).or_default();
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            entry.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    figures
}

/// What a query names: figures with their matchers, and labels to sum by.
#[derive(Debug, Default)]
struct Query {
    figures: Vec<(String, Vec<(String, String)>)>,
    by: Vec<String>,
}

fn query(text: &str) -> Query {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut query = Query::default();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if name == "by" {
            let (list, after) = rest.trim_start().strip_prefix('(').unwrap().split_once(')').unwrap();
            query.by.extend(list.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if name.starts_with("nightshift_") {
            let mut matchers = Vec::new();
            if let Some(inside) = rest.strip_prefix('{') {
                let (inside, after) = inside.split_once('}').unwrap();
                for matcher in inside.split(',') {
                    let (label, value) = matcher.split_once('=').unwrap();
                    matchers.push((label.trim().to_owned(), value.trim_matches(['~', '"']).to_owned()));
                }
                rest = after;
            }
            query.figures.push((name.to_owned(), matchers));
        }
    }
    query
}

/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];

fn problems(text: &str, legend: &str, figures: &Figures) -> Vec<String> {
    let query = query(text);
    let mut problems = Vec::new();
    if query.figures.is_empty() {
        problems.push("asks for nothing of ours".to_owned());
    }
    let mut labels: BTreeSet<&str> = ADDED.into();
    for (name, matchers) in &query.figures {
        let Some(found) = figures.get(name) else {
            problems.push(format!("{name} is given by no worker"));
            continue;
        };
        labels.extend(found.keys().map(String::as_str));
        for (label, wanted) in matchers.iter().filter(|(label, _)| !ADDED.contains(&label.as_str())) {
            match found.get(label) {
                None => problems.push(format!("{name} has no label {label}")),
                Some(values) => problems.extend(
                    wanted
                        .split('|')
                        .filter(|value| !values.contains(*value))
                        .map(|value| format!("{name} never has {label}={value}")),
                ),
            }
        }
    }
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    for label in query.by.iter().map(String::as_str).chain(shown) {
        if !labels.contains(label) {
            problems.push(format!("label {label} is on none of its figures"));
        }
    }
    problems
}

/// The queue's figures as its runner sets them; those of jobs come from real runs.
fn queue(metrics: &Metrics) {
    for state in ["queued", "running", "done", "failed", "cancelled"] {
        metrics.set(&QUEUE_JOBS, &[state], 1.0);
    }
    metrics.set(&QUEUE_OLDEST, &[], 1.0);
    metrics.set(&QUEUE_LEASES, &[], 1.0);
    metrics.set(&TASKS_RUNNING, &[], 1.0);
    metrics.add(&CLAIMS, &[], 1.0);
    metrics.add(&LEASE_LOSSES, &[], 1.0);
}

fn over_http(metrics: Metrics) -> String {
    let listener = Listener::start("127.0.0.1:0".parse().unwrap(), Arc::new(metrics)).unwrap();
    let mut stream = TcpStream::connect(listener.address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn dashboard_and_alerts_ask_for_what_real_runs_give() {
    let bench = Bench::new();
    let run = "worker run job/job.toml --metrics-textfile figures.prom --metrics-listen 127.0.0.1:0";
    assert_eq!(bench.run(&format!("{run} --memory-limit 1kB")).code, 78);
    assert_eq!(bench.run(run).code, 0);
    let once = fs::read_to_string(bench.path("figures.prom")).unwrap();
    assert_eq!(bench.run(run).code, 0);
    let text = fs::read_to_string(bench.path("figures.prom")).unwrap();
    for line in [
        "nightshift_jobs_total{outcome=\"done\",code=\"done\"} 1",
        "nightshift_jobs_total{outcome=\"nothing\",code=\"done\"} 1",
        "nightshift_jobs_total{outcome=\"failed\",code=\"config\"} 1",
        "nightshift_images_total 20",
        "nightshift_batches_total 1",
        "nightshift_attempts_total 1",
        "nightshift_job_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(once.contains("nightshift_images_total 20\n") && !once.contains("outcome=\"nothing\""), "{once}");
    // Nothing that a tenant chose is in it: its name, its files, the job, the model.
    let receipt = bench.run("inspect job/receipt.json --json").json();
    for word in ["clinic-7", "batch-", "job.toml", "tiny", receipt["job_id"].as_str().unwrap()] {
        assert!(!text.contains(word), "{word} is in\n{text}");
    }

    let metrics = Metrics::new();
    queue(&metrics);
    let mut given = figures(&text);
    given.extend(figures(&over_http(metrics)));
    let mut asked = BTreeSet::new();
    let mut check = |place: &str, text: &str, legend: &str| {
        let problems = problems(text, legend, &given);
        assert!(problems.is_empty(), "{place}: {text}: {problems:#?}");
        asked.extend(query(text).figures.into_iter().map(|(name, _)| name));
    };
    let dashboard: Value = serde_json::from_str(&read("grafana/nightshift.json")).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        for target in panel["targets"].as_array().unwrap() {
            check(title, target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
        }
    }
    for rule in rules() {
        check(rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap(), "");
    }
    // Every figure is asked for somewhere, or it would be there in vain.
    for family in FAMILIES {
        assert!(asked.iter().any(|name| name.starts_with(family.name)), "nobody asks for {}", family.name);
    }

    for (text, told) in [
        ("sum(nightshift_job_total)", "given by no worker"),
        ("nightshift_jobs_total{code=\"bad\"}", "never has code=bad"),
        ("nightshift_jobs_total{tenant=\"a\"}", "no label tenant"),
        ("sum by (stage) (nightshift_images_total)", "label stage is on none"),
        ("up", "nothing of ours"),
    ] {
        assert!(problems(text, "", &given).concat().contains(told), "{text}");
    }
}

fn rules() -> Vec<Value> {
    let documents = documents("prometheus/alerts.yaml");
    let groups = documents[0]["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_alert_has_its_place_in_the_runbook_and_the_other_way() {
    let runbook = read("runbook.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let rules = rules();
    let alerts: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(sections, alerts);
    for rule in &rules {
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
        assert!(rule["annotations"]["summary"].as_str().unwrap().ends_with('.'), "{rule}");
    }
}

#[test]
fn the_runbook_knows_every_exit_code_and_no_other() {
    let runbook = read("runbook.md");
    let table: String = runbook.lines().filter(|line| line.starts_with("| ")).collect();
    let known: BTreeSet<u8> = jobs::ExitCode::ALL.map(jobs::ExitCode::code).into();
    let words = table.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.parse().ok());
    assert_eq!(words.collect::<BTreeSet<u8>>(), known);
}
