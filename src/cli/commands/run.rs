//! `nightshift-worker run`: one job, one shot. Holds no secret.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use jobs::trust::Ledger;
use jobs::{SigningKey, TrustedKeys};
use serde_json::json;

use super::{Context, Report};
use crate::cli::args::{ByteSize, Isa, RunArgs, TrustArgs};
use crate::cli::error::CliError;
use crate::cli::figures::{Figures, unix_secs};
use crate::cli::progress::Progress;
use crate::cli::report::{Align, Table, human_bytes, human_duration};
use crate::ring::kernels::Kernel;
use crate::worker::{self, RunReport, RunRequest, Trust, WorkerEvent};

/// Runs the job; does nothing where its receipt stands.
///
/// # Errors
/// A job whose parts do not fit together, that does not fit this machine, or whose files cannot be read or written.
pub fn run(args: &RunArgs, context: &Context) -> Result<Report, CliError> {
    let kernel = kernel(args.isa)?;
    let request = RunRequest {
        job_path: args.job.clone(),
        model: args.model.clone(),
        eval_key: args.eval_key.clone(),
        threads: context.threads.get(),
        memory_limit_bytes: args.memory_limit.map(ByteSize::bytes),
        kernel,
        rates: args.rates.clone(),
        checkpoint_after: args.checkpoint_after,
    };
    let mut figures = Figures::start(&args.metrics, kernel.name())?;
    let outcome = run_trusted(&args.trust, &request, &*context.progress);
    figures.job_ended(&request, outcome.as_ref().map_err(CliError::exit_code));
    let done = outcome?;
    context.progress.end();
    let secs = std::time::Duration::try_from_secs_f64(done.elapsed_secs).unwrap_or_default();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["receipt", &done.receipt_path.display().to_string()]);
    if done.already_done {
        table.row(["done", "before: nothing to do"]);
    }
    table.row(["images", &format!("{} in {} batch(es)", done.images, done.batches)]);
    table.row(["time", &format!("{} ({:.0} images/s)", human_duration(secs), done.images_per_second)]);
    table.row(["peak memory", &human_bytes(done.peak_bytes)]);
    table.row(["results", &human_bytes(done.output_bytes)]);
    table.row(["computed with", &format!("{}, {} thread(s)", done.isa, done.threads)]);
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "receipt": done.receipt_path.to_string_lossy(),
            "already_done": done.already_done,
            "images": done.images,
            "batches": done.batches,
            "seconds": done.elapsed_secs,
            "images_per_second": done.images_per_second,
            "peak_bytes": done.peak_bytes,
            "result_bytes": done.output_bytes,
            "isa": done.isa,
            "threads": done.threads,
        }),
    })
}

/// Reads the keys that the options name, and runs.
fn run_trusted(args: &TrustArgs, request: &RunRequest, progress: &dyn Progress) -> Result<RunReport, CliError> {
    let signing = args.signing_key.as_deref().map(SigningKey::load).transpose()?;
    let requests = args.require_signed_by.as_deref().map(TrustedKeys::load).transpose()?;
    let ledger = args.ledger.as_deref().map(Ledger::open).transpose()?;
    let trust = Trust {
        requests: requests.as_ref(),
        ledger: ledger.as_ref(),
        signing: signing.as_ref(),
        now_unix_secs: unix_secs(SystemTime::now()),
    };
    Ok(worker::run_trusted(request, &trust, &observer(progress))?)
}

pub(super) fn kernel(isa: Isa) -> Result<Kernel, CliError> {
    let name = match isa {
        Isa::Auto => return Ok(Kernel::detect()),
        Isa::Portable => "portable",
        Isa::Avx2 => "avx2",
        Isa::Avx512Ifma => "avx512ifma",
        Isa::Avx512Vnni => "avx512vnni",
        Isa::Amx => "amx",
    };
    Kernel::by_name(name).ok_or_else(|| {
        let present: Vec<_> = Kernel::present().iter().map(Kernel::name).collect();
        CliError::Kernel { found: name, expected: present.join(" or ") }
    })
}

/// Hands the worker's events to the progress shown.
pub(super) fn observer(progress: &dyn Progress) -> impl Fn(WorkerEvent) + Sync {
    let told = AtomicU64::new(0);
    move |event| match event {
        WorkerEvent::Begin { batches, ciphertexts, predicted_secs } => {
            tracing::info!("{batches} batch(es), about {predicted_secs:.1} s");
            progress.begin("running", ciphertexts);
        }
        WorkerEvent::Progress { ciphertexts } => {
            // Threads may tell out of order: only what is more counts.
            let before = told.fetch_max(ciphertexts, Ordering::Relaxed);
            progress.advance(ciphertexts.saturating_sub(before));
        }
        WorkerEvent::Batch { index, secs } => tracing::debug!("batch {index} done in {secs:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Progress for Count {
        fn begin(&self, _what: &str, total: u64) {
            assert_eq!(total, 10);
        }
        fn note(&self, _text: &str) {}
        fn advance(&self, n: u64) {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
        fn end(&self) {}
    }

    #[test]
    fn running_totals_become_advances_in_any_order() {
        let count = Count::default();
        let observe = observer(&count);
        observe(WorkerEvent::Begin { batches: 1, ciphertexts: 10, predicted_secs: 0.5 });
        for ciphertexts in [2, 5, 4, 10] {
            observe(WorkerEvent::Progress { ciphertexts });
        }
        drop(observe);
        assert_eq!(count.0.into_inner(), 10);
    }

    #[test]
    fn a_kernel_is_the_one_named_or_an_error_of_configuration() {
        assert_eq!(kernel(Isa::Portable).unwrap().name(), "portable");
        assert_eq!(kernel(Isa::Auto).unwrap().name(), Kernel::detect().name());
        for (isa, name) in
            [(Isa::Avx2, "avx2"), (Isa::Avx512Ifma, "avx512ifma"), (Isa::Avx512Vnni, "avx512vnni"), (Isa::Amx, "amx")]
        {
            match kernel(isa) {
                Ok(kernel) => assert_eq!(kernel.name(), name),
                Err(error) => assert_eq!(error.exit_code().code(), 78, "{error}"),
            }
        }
    }
}
