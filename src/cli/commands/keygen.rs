//! `keygen`: secret, public and evaluation key for a model; for one of the exact engine see `exact`.

use serde_json::json;

use super::{Context, Report, exact};
use crate::cli::args::KeygenArgs;
use crate::cli::error::CliError;
use crate::cli::report::{Align, Table, human_bytes};
use crate::client;
use crate::format::ModelPackage;
use crate::plan::Requirements;
use crate::ring::kernels::Kernel;

/// Makes the keys; never replaces any.
///
/// # Errors
/// A package that cannot be read or planned; a folder that cannot be written or holds keys already.
pub fn run(args: &KeygenArgs, context: &Context) -> Result<Report, CliError> {
    if exact::serves(&args.model)? {
        return exact::keygen(args, context);
    }
    let package = ModelPackage::open(&args.model)?;
    context.progress.begin("making keys", 0);
    let made = client::keygen(&package, &Requirements::default(), &args.out, Kernel::detect())?;
    context.progress.end();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["model", &made.model_name]);
    table.row(["key id", &made.key_id]);
    table.row(["plan id", &made.plan_id]);
    let security = format!("{} bits: degree {}, log2(QP) {:.1}", made.security_bits, made.degree, made.log_qp_bits);
    table.row(["security", &security]);
    for (name, file, note) in [
        ("secret key", &made.secret_key, "keep it: whoever has it reads the images"),
        ("public key", &made.public_key, "encrypts, at twice the upload"),
        ("evaluation key", &made.evaluation_key, "for the worker"),
    ] {
        table.row([name, &format!("{}, {} ({note})", file.path.display(), human_bytes(file.file_bytes))]);
    }
    let file = |file: &client::KeyFile| json!({ "path": file.path.to_string_lossy(), "bytes": file.file_bytes });
    Ok(Report {
        text: table.to_string(),
        json: json!({
            "model": made.model_name,
            "key_id": made.key_id,
            "plan_id": made.plan_id,
            "ring_degree": made.degree,
            "log_qp": made.log_qp_bits,
            "security_bits": made.security_bits,
            "secret_key": file(&made.secret_key),
            "public_key": file(&made.public_key),
            "evaluation_key": file(&made.evaluation_key),
        }),
    })
}
