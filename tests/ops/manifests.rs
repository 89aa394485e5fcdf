//! Kubernetes manifests, the container file: the parts without which a cluster refuses them or does the wrong thing, checked against the
//! published schemas' rules (batch/v1 Job, keda.sh/v1alpha1); and exit codes, each of which is treated in one way.

use std::collections::BTreeMap;

use jobs::ExitCode;
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use super::read;

/// The documents of a YAML file. A key twice, an alias to nothing and the like are errors of the parser.
pub fn documents(file: &str) -> Vec<Value> {
    let documents = YamlLoader::load_from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    documents.iter().map(|document| value(file, document)).collect()
}

fn value(file: &str, yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => text.as_str().into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Boolean(truth) => (*truth).into(),
        Yaml::Real(number) => number.parse::<f64>().expect("the parser said so").into(),
        Yaml::Null => Value::Null,
        Yaml::Array(list) => list.iter().map(|item| value(file, item)).collect(),
        Yaml::Hash(pairs) => {
            let pair = |(key, item): (&Yaml, &Yaml)| {
                (key.as_str().unwrap_or_else(|| panic!("{file}: key {key:?}")).to_owned(), value(file, item))
            };
            Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>())
        }
        other => panic!("{file}: {other:?}"),
    }
}

/// How a policy treats each code that it names.
fn actions(policy: &Value, containers: &[&str]) -> BTreeMap<u8, String> {
    let mut actions = BTreeMap::new();
    for rule in policy["rules"].as_array().expect("rules") {
        let action = rule["action"].as_str().unwrap();
        assert!(["FailJob", "Ignore", "Count", "FailIndex"].contains(&action), "{rule}");
        let conditions = rule.get("onPodConditions").is_some();
        assert!(conditions != rule.get("onExitCodes").is_some(), "one of the two: {rule}");
        if conditions {
            assert_eq!(rule["onPodConditions"][0]["type"], "DisruptionTarget");
            continue;
        }
        let on = &rule["onExitCodes"];
        assert_eq!(on["operator"], "In");
        assert!(containers.contains(&on["containerName"].as_str().unwrap()), "{on}");
        for code in on["values"].as_array().unwrap() {
            let code = u8::try_from(code.as_u64().unwrap()).unwrap();
            assert_ne!(code, 0, "0 in a rule with In is refused by the server");
            assert!(ExitCode::from_code(code).is_some(), "{code} is no exit code of ours");
            assert_eq!(actions.insert(code, action.to_owned()), None, "{code} is named twice");
        }
    }
    actions
}

fn check_job(spec: &Value) {
    let pod = &spec["template"]["spec"];
    // Required where there is a podFailurePolicy.
    assert_eq!(pod["restartPolicy"], "Never");
    let containers: Vec<&str> =
        pod["containers"].as_array().unwrap().iter().map(|container| container["name"].as_str().unwrap()).collect();
    let actions = actions(&spec["podFailurePolicy"], &containers);
    for code in ExitCode::ALL.into_iter().filter(|code| *code != ExitCode::Done) {
        let again = matches!(code, ExitCode::Unavailable | ExitCode::Io | ExitCode::TryLater);
        let action = actions.get(&code.code()).unwrap_or_else(|| panic!("nothing is said of exit code {code}"));
        assert_eq!(action != "FailJob", again, "{code} is treated by {action}");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 30, "longer than --grace");
    let volumes: Vec<&str> = pod["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    for container in pod["containers"].as_array().unwrap() {
        assert!(container["image"].as_str().unwrap().contains(':'), "an image has a tag");
        let context = &container["securityContext"];
        assert_eq!(
            (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
            (&true.into(), &false.into())
        );
        for mount in container["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(&mount["name"].as_str().unwrap()), "{mount}");
            assert!(mount["mountPath"].as_str().unwrap().starts_with('/'), "{mount}");
        }
        // What the worker may use stays below what the pod may.
        let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
        let limit: u64 = limit.strip_suffix("Gi").expect("limits are in Gi").parse().unwrap();
        let arguments = container["args"].as_array().unwrap().iter().filter_map(|word| word.as_str());
        let own = arguments.filter_map(|word| word.strip_prefix("--memory-limit=")?.strip_suffix("GiB")).next();
        assert!(own.unwrap().parse::<u64>().unwrap() < limit, "--memory-limit below the pod's");
    }
}

#[test]
fn a_job_is_one_that_a_cluster_takes() {
    let documents = documents("kubernetes/job.yaml");
    let [job] = documents.as_slice() else { panic!("one document") };
    assert_eq!((&job["apiVersion"], &job["kind"]), (&"batch/v1".into(), &"Job".into()));
    assert!(job["metadata"]["name"].is_string());
    check_job(&job["spec"]);
}

#[test]
fn a_scaled_job_is_one_that_keda_takes() {
    let documents = documents("kubernetes/scaledjob.yaml");
    let [authentication, scaled] = documents.as_slice() else { panic!("two documents") };
    assert_eq!(
        (&authentication["apiVersion"], &authentication["kind"]),
        (&"keda.sh/v1alpha1".into(), &"TriggerAuthentication".into())
    );
    assert_eq!(authentication["spec"]["secretTargetRef"][0]["parameter"], "connection");
    assert_eq!((&scaled["apiVersion"], &scaled["kind"]), (&"keda.sh/v1alpha1".into(), &"ScaledJob".into()));
    let spec = &scaled["spec"];
    check_job(&spec["jobTargetRef"]);
    let trigger = &spec["triggers"][0];
    assert_eq!(trigger["type"], "postgresql");
    // KEDA's metadata are strings, numbers among them.
    assert!(trigger["metadata"].as_object().unwrap().values().all(Value::is_string), "{trigger}");
    assert!(trigger["metadata"]["targetQueryValue"].as_str().unwrap().parse::<f64>().is_ok());
    check_query(trigger["metadata"]["query"].as_str().unwrap());
    assert_eq!(trigger["authenticationRef"]["name"], authentication["metadata"]["name"]);
    assert!(spec["minReplicaCount"].as_u64() <= spec["maxReplicaCount"].as_u64());
    // The environment that arguments name is there.
    let container = &spec["jobTargetRef"]["template"]["spec"]["containers"][0];
    let names: Vec<&str> = container["env"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    for argument in container["args"].as_array().unwrap() {
        if let Some((_, rest)) = argument.as_str().unwrap().split_once("$(") {
            assert!(names.contains(&rest.trim_end_matches(')')), "{argument}");
        }
    }
}

/// Tables and columns of the query are those of the queue's own schema.
#[expect(clippy::print_stderr, reason = "a skipped check says so")]
fn check_query(query: &str) {
    let words: Vec<&str> = query.split([' ', '(', ')', ',']).filter(|word| !word.is_empty()).collect();
    assert_eq!(words[..2], ["SELECT", "count"], "{query}");
    let read =
        |name: &str| std::fs::read_to_string(super::ops().parent().unwrap().join("jobs/src/queue/postgres").join(name));
    let (Ok(schema), Ok(later)) = (read("schema.sql"), read("schema-2.sql")) else {
        eprintln!("skipped: this tree has no queue on PostgreSQL");
        return;
    };
    let alias = |name: &str| {
        let at =
            words.windows(3).position(|three| three[1..] == ["AS", name]).unwrap_or_else(|| panic!("alias {name}"));
        words[at]
    };
    let named: Vec<_> = words.iter().filter_map(|word| word.split_once('.')).collect();
    assert!(named.len() >= 3, "{query}");
    for (name, column) in named {
        let table = alias(name);
        let body =
            schema.split(&format!("CREATE TABLE {table} (")).nth(1).unwrap_or_else(|| panic!("no table {table}"));
        let body = body.split(");").next().unwrap();
        let is_first = body.lines().any(|line| line.split_whitespace().next() == Some(column));
        let is_later = later.contains(&format!("ALTER TABLE {table} ADD COLUMN {column} "));
        assert!(is_first || is_later, "no column {table}.{column}");
    }
}

#[test]
fn the_container_copies_what_is_there_and_has_no_root() {
    let text = read("container/Containerfile");
    let lines: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect()).collect();
    let first = |word: &'static str| lines.iter().filter(move |line| line.first() == Some(&word));
    assert_eq!(first("FROM").count(), 2);
    let root = super::ops().parent().unwrap().to_owned();
    let mut copied = Vec::new();
    for copy in first("COPY") {
        let words = &copy[1..copy.len() - 1];
        if words[0].starts_with("--from=") {
            assert_eq!(words[1], "/source/target/release/nightshift-worker");
            continue;
        }
        for source in words {
            assert!(root.join(source).exists(), "COPY of {source}, which is not there");
            copied.push((*source).to_owned());
        }
    }
    // All that cargo reads of this package.
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "packing", "jobs", "benches"] {
        assert!(copied.iter().any(|source| source == needed), "{needed} is not copied");
    }
    assert_eq!(first("USER").next().unwrap()[1], "nonroot");
    let entry = first("ENTRYPOINT").next().unwrap()[1];
    assert_eq!(serde_json::from_str::<Vec<String>>(entry).unwrap(), ["/usr/local/bin/nightshift-worker"]);
}
