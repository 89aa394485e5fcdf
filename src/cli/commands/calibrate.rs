//! `nightshift-worker calibrate`: measures this machine's kernels and keeps the rates, so that `plan` and `run` foretell times well.

use serde_json::{Map, Value, json};

use super::run::kernel;
use super::{Context, Report};
use crate::cli::args::CalibrateArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table};
use crate::plan::rates::{Rates, Unit};
use crate::ring::kernels::Kernel;
use crate::worker::rates;

/// Measures, writes, and shows the figures that matter most.
///
/// # Errors
/// A kernel that this machine lacks, no place to write to, memory or threads that cannot be had.
pub fn run(args: &CalibrateArgs, context: &Context) -> Result<Report, CliError> {
    let path = args.rates.clone().or_else(rates::default_path).ok_or(CliError::NoCache)?;
    let kernels = match args.isa {
        Some(isa) => vec![kernel(isa)?],
        None => Kernel::present(),
    };
    context.progress.begin("measuring", kernels.len() as u64);
    let found = rates::calibrate(&path, &kernels, context.threads.get(), args.stand_alone, &|kernel| {
        tracing::debug!("measuring {}", kernel.name());
        context.progress.advance(1);
    });
    context.progress.end();
    let found = found?;
    let columns = ["", "products/s", "transform", "key-switch residue", "a thread costs the others"];
    let aligned = columns.map(|name| (name, if name.is_empty() { Align::Left } else { Align::Right }));
    let mut table = Table::new(&aligned);
    for rates in &found {
        let secs = |unit: Unit| rates.unit_secs.get(unit);
        table.row([
            rates.kernel.name(),
            &format!("{:.1} G", 1e-9 / products_secs(rates)),
            &format!("{:.1} us", secs(Unit::Butterfly) * 53_248.0 * 1e6),
            &format!("{:.2} ns", secs(Unit::Pointwise) * 1e9),
            &format!("{:.1} %", 100.0 * rates.thread_loss),
        ]);
    }
    let kernels: Vec<Value> = found.iter().map(object).collect();
    Ok(Report {
        text: format!("{table}rates in {}\n", path.display()),
        json: json!({ "rates": path.to_string_lossy(), "machine": rates::machine(), "kernels": kernels }),
    })
}

/// Seconds of a product in the form that large blocks take, on residues of 40 bits.
fn products_secs(rates: &Rates) -> f64 {
    match rates.kernel.name() {
        "amx" | "avx512vnni" => 5.0 * rates.unit_secs.get(Unit::ByteProduct),
        // Three planes of words, which count as two bytes.
        "avx2" => 6.0 * rates.unit_secs.get(Unit::ByteProduct),
        _ => rates.unit_secs.get(Unit::WordProduct),
    }
}

fn object(rates: &Rates) -> Value {
    let units: Map<String, Value> =
        Unit::ALL.into_iter().map(|unit| (unit.name().to_owned(), json!(rates.unit_secs.get(unit)))).collect();
    json!({
        "isa": rates.kernel.name(),
        "threads": rates.threads,
        "thread_loss": rates.thread_loss,
        "unit_secs": units,
    })
}
