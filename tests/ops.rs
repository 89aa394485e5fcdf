//! What operators are given, held to the program: units, manifests, alerts, dashboards and texts in `ops/` name only commands,
//! options, exit codes and figures that there are; and signatures and figures through the real binaries.

#[path = "ops/capacity.rs"]
mod capacity;
#[path = "ops/commands.rs"]
mod commands;
#[path = "ops/figures.rs"]
mod figures;
#[path = "ops/job.rs"]
mod job;
#[path = "ops/manifests.rs"]
mod manifests;
#[path = "ops/trust.rs"]
mod trust;
#[path = "ops/units.rs"]
mod units;

use std::path::{Path, PathBuf};

fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops")
}

fn read(name: &str) -> String {
    let path = ops().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
