//! `submit`: a job folder into a queue. Needs no key: the folder holds ciphertexts only.

use std::time::Duration;

use jobs::queue::{JobSummary, Needs, Queue};
use jobs::submit::{submit, tenant_of};
use jobs::{FileRole, LoadedJob, manifest};
use serde_json::json;

use super::queue::{load_job, open};
use super::{Context, Report, exact, fetch};
use crate::cli::args::SubmitArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes};
use crate::format::{EngineKind, ModelPackage};
use crate::plan::cost::cost;
use crate::plan::defaults::defaults;
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;

/// Threads that a batch's memory is declared for: a worker with more needs some more, and checks that itself.
const THREADS: usize = 16;
/// How often a job that is waited for is looked at, at the least.
const LOOK: Duration = Duration::from_secs(5);

/// Uploads what the store lacks and enqueues; waits and fetches where that is asked for.
///
/// # Errors
/// A job of an engine that this build lacks; a folder whose files are not the manifest's; a queue that has another job under the same key, or does not answer.
pub fn run(args: &SubmitArgs, context: &Context) -> Result<Report, CliError> {
    let job = load_job(&args.job)?;
    let needs = needs(&job)?;
    let (queue, store) = open(&args.queue)?;
    let files = job.manifest().batches.len() as u64 + 2;
    context.progress.begin("uploading", files);
    let mut bytes = 0;
    let submitted = submit(&*queue, &store, &job, needs, &mut |file_bytes| {
        bytes += file_bytes;
        context.progress.advance(1);
    })?;
    context.progress.end();
    if args.wait {
        wait(&*queue, &job, context)?;
        return fetch::report(&*queue, &store, &job);
    }
    let manifest = job.manifest();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["queue job", &submitted.job.to_string()]);
    table.row(["tenant", tenant_of(manifest)]);
    table.row(["submitted", if submitted.is_new { "now" } else { "before: nothing to do" }]);
    table.row(["batches", &manifest.batches.len().to_string()]);
    table.row(["files", &format!("{} in the store", human_bytes(bytes))]);
    table.row(["a batch needs", &format!("{} of memory", human_bytes(needs.memory_bytes))]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "queue_job": submitted.job.to_string(),
            "job_id": manifest.job_id,
            "tenant": tenant_of(manifest),
            "is_new": submitted.is_new,
            "batches": manifest.batches.len(),
            "bytes": bytes,
            "memory_bytes": needs.memory_bytes,
            "scratch_bytes": needs.scratch_bytes,
        }),
    })
}

/// What a batch takes, by the plan's own figures. The package's digest is looked at when it is uploaded.
fn needs(job: &LoadedJob) -> Result<Needs, CliError> {
    let model_path = job.verify_model(None)?;
    let manifest = job.manifest();
    let (memory_bytes, result_bytes) = if manifest.engine == EngineKind::Tfhe.name() {
        exact::needs(&model_path, manifest, THREADS)?
    } else {
        let package = ModelPackage::open(&model_path)?;
        let plan = scales::plan(&package.circuit, &Requirements::default())?;
        // Speeds decide the seconds only, which nobody asks for here.
        let cost = cost(&package.circuit, &plan, &defaults(Kernel::detect(), THREADS));
        (cost.peak_bytes, cost.result_bytes)
    };
    let largest_input = manifest.batches.iter().map(|batch| batch.input.bytes).max().unwrap_or(0);
    let eval_key = jobs::paths::resolve_input(job.root(), &manifest.eval_key.path)?;
    let [model_bytes, key_bytes] = [&model_path, &eval_key].map(|path| file_bytes(path));
    // A container's header is a few thousand bytes; its sections begin at multiples of 4096.
    let scratch_bytes = largest_input + model_bytes? + key_bytes? + result_bytes + (1 << 20);
    for (index, batch) in manifest.batches.iter().enumerate() {
        manifest::check_size(FileRole::Input(index), &job.input_path(batch)?, batch.input.bytes)?;
    }
    Ok(Needs { memory_bytes, scratch_bytes })
}

fn file_bytes(path: &std::path::Path) -> Result<u64, CliError> {
    let metadata = std::fs::metadata(path);
    Ok(metadata.map_err(|source| CliError::Read { path: path.to_owned(), source })?.len())
}

/// Until the job is over and has its receipt.
fn wait(queue: &dyn Queue, job: &LoadedJob, context: &Context) -> Result<(), CliError> {
    context.progress.begin("batches", job.manifest().batches.len() as u64);
    let mut told = 0;
    loop {
        let summary: JobSummary = jobs::fetch::find(queue, job)?.summary;
        let done = u64::from(summary.done);
        context.progress.advance(done.saturating_sub(told));
        told = told.max(done);
        if summary.state.is_final() && summary.is_sealed {
            context.progress.end();
            return Ok(());
        }
        queue.wait(LOOK)?;
    }
}
