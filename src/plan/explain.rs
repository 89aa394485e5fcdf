//! The plan as text, stage by stage: what `plan --explain` prints.

use super::cost::Cost;
use super::{After, Plan};
use crate::ckks::security;
use std::fmt::Write as _;

/// Renders parameters, stages with operation counts, precision, sizes and time.
#[must_use]
pub fn explain(plan: &Plan, cost: &Cost) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, so the results are dropped.
    let _ = write_parameters(&mut text, plan);
    for (k, (stage, c)) in plan.stages.iter().zip(&cost.stages).enumerate() {
        let after = match stage.after {
            After::Fused => "recomputed inside the tiles of the stages that read it".to_owned(),
            After::KeySwitch => {
                let rescaled = if stage.components == 3 { "relinearise + rescale" } else { "rescale" };
                let squared = if stage.squared { ", square + relinearise" } else { "" };
                let what = match c.key_switches {
                    0 => rescaled.to_owned(),
                    count => format!("{count} key switches ({rescaled}{squared})"),
                };
                format!(
                    "{what}, {} transforms -> {} limbs, scale 2^{:.2}",
                    c.transforms,
                    stage.output_limbs,
                    if stage.squared { 2.0 } else { 1.0 } * stage.output_scale.log2()
                )
            }
            After::Output => format!("results of {} components, {} transforms", stage.components, c.transforms),
        };
        let _ = writeln!(
            text,
            "stage {k}: {}\n  level {} ({} limbs), features at scale 2^{:.2}, products at 2^{:.2}\n  {} squares, {} scalar products of {} \
             components, {} pass(es), about {:.3} s\n  {after}\n  mean |value| up to {:.3} cannot wrap ({:.1} bits to spare)",
            stage.name,
            stage.limbs - 1,
            stage.limbs,
            stage.feature_scale.log2(),
            stage.product_scale.log2(),
            c.squares,
            c.products,
            stage.components,
            c.passes,
            c.tiles_secs + c.polynomials_secs,
            stage.range,
            stage.spare_bits,
        );
    }
    let precision = &plan.precision;
    let _ = writeln!(
        text,
        "precision of logits: typically {:.1} bits, promised {:.1} (public-key encryption: {:.1})",
        precision.typical_bits, precision.promised_bits, precision.promised_public_bits
    );
    let slots = plan.slots() as u64;
    let _ = writeln!(
        text,
        "bytes: encrypted batch {} ({} an image; public-key {}), results {} ({} an image), evaluation key {}, public key {}",
        cost.input_bytes,
        cost.input_bytes / slots,
        cost.public_input_bytes,
        cost.result_bytes,
        cost.result_bytes / slots,
        cost.evaluation_key_bytes,
        cost.public_key_bytes
    );
    let _ = writeln!(
        text,
        "estimate for one batch on this machine: {:.3} s ({:.0} images a second), peak memory {} MiB",
        cost.batch_secs,
        slots as f64 / cost.batch_secs,
        cost.peak_bytes >> 20
    );
    text
}

fn write_parameters(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let p = &plan.parameters;
    let widths = |list: &[u64]| -> String {
        list.iter().map(|&q| format!("{:.2}", (q as f64).log2())).collect::<Vec<_>>().join(" + ")
    };
    writeln!(text, "ring degree {} = {} real slots", p.degree(), plan.slots())?;
    writeln!(text, "primes, bits: {} | special {}", widths(p.moduli()), widths(p.special()))?;
    if let Ok(row) = security::row(p.degree()) {
        writeln!(
            text,
            "log2(QP) = {:.2}: {}-bit classical security up to {}, post-quantum up to {}",
            p.log_qp_bits(),
            security::SECURITY_BITS,
            row.classical_bits,
            row.quantum_bits
        )?;
    }
    writeln!(text, "key-switch digits of {} limb(s); inputs at scale 2^{:.2}", p.digit_limbs(), plan.input_scale.log2())
}
