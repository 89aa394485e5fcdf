//! Sections `lowering.*`: what makes the circuit of the network again, in place of the circuit's own sections.
//!
//! `lowering.json` has the width of every stage's integers and the calibration figures, which are measured and not made
//! again; `lowering.kept` and `lowering.units` the neurons whose squares were not completed. Not here: whether decisions fit
//! the network (`Lowering::circuit`), whether the circuit is the one that was written (the model id).

use serde::{Deserialize, Serialize};

use super::json::StatsJson;
use super::sections::{PackedSection, Sections, json, numbers};
use crate::format::FormatError;
use crate::net::circuit::Circuit;
use crate::net::lowering::{KeptNeuron, Lowering, LoweringLimits};
use crate::net::network::Network;

const NAME: &str = "lowering.json";
const KEPT: &str = "lowering.kept";
const UNITS: &str = "lowering.units";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoweringJson {
    stage_bits: Vec<u32>,
    input_stats: StatsJson,
    /// One a stage of the circuit.
    stats: Vec<StatsJson>,
}

pub(super) fn encode_lowering(
    lowering: &Lowering,
    circuit: &Circuit,
    packed: &mut Vec<PackedSection>,
) -> Result<(), FormatError> {
    let value = LoweringJson {
        stage_bits: lowering.stage_bits().to_vec(),
        input_stats: (&circuit.input_stats).into(),
        stats: circuit.stages.iter().map(|stage| (&stage.stats).into()).collect(),
    };
    let kept: Vec<u32> = lowering.kept().iter().flat_map(|kept| [kept.layer, kept.entry]).collect();
    let units: Vec<i8> = lowering.kept().iter().map(|kept| kept.log2_unit).collect();
    packed.push(json(NAME, &value)?);
    packed.push(numbers(KEPT, &[units.len(), 2], &kept));
    packed.push(numbers(UNITS, &[units.len()], &units));
    Ok(())
}

/// The circuit that lowering makes of the network, with the figures of `of`. Errors: those of [`Lowering::circuit`].
pub(super) fn lower_again(network: &Network, lowering: &Lowering, of: &Circuit) -> Result<Circuit, FormatError> {
    let mut circuit = lowering.circuit(network, &LoweringLimits::FOREIGN)?;
    circuit.input_stats = of.input_stats;
    for (stage, of) in circuit.stages.iter_mut().zip(&of.stages) {
        stage.stats = of.stats;
    }
    Ok(circuit)
}

/// The decisions, and the circuit that they make of the network; `None` where the package has its circuit in full.
///
/// The network has been checked. Time and memory are bounded by [`LoweringLimits::FOREIGN`], whatever the file says.
pub(super) fn decode_lowering(
    sections: &mut Sections<'_>,
    network: &Network,
) -> Result<Option<(Lowering, Circuit)>, FormatError> {
    let Some(LoweringJson { stage_bits, input_stats, stats }) = sections.json_opt(NAME)? else { return Ok(None) };
    let mut units = sections.numbers::<i8>(UNITS, &[])?;
    let mut places = sections.numbers::<u32>(KEPT, &[2])?;
    let units: Vec<i8> = units.rest()?;
    let places: Vec<u32> = places.rest()?;
    if places.len() / 2 != units.len() {
        return Err(FormatError::invalid(format!("numbers in section {UNITS:?}"), units.len(), places.len() / 2));
    }
    let kept = places.chunks_exact(2).zip(units);
    let kept = kept.map(|(place, log2_unit)| KeptNeuron { layer: place[0], entry: place[1], log2_unit }).collect();
    let lowering = Lowering::new(stage_bits, kept);
    let mut circuit = lowering.circuit(network, &LoweringLimits::FOREIGN)?;
    if stats.len() != circuit.stages.len() {
        return Err(FormatError::invalid(format!("stats in section {NAME:?}"), stats.len(), circuit.stages.len()));
    }
    circuit.input_stats = (&input_stats).into();
    for (stage, stats) in circuit.stages.iter_mut().zip(&stats) {
        stage.stats = stats.into();
    }
    Ok(Some((lowering, circuit)))
}
