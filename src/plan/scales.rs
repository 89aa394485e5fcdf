//! Primes, levels and scales from the circuit's noise gains and ranges.
//!
//! Each place where noise enters (fresh encryption, each rescale) gets an equal share of the promised error; its scale follows from the gain
//! with which noise there reaches the logits. Each rescale prime is then the prime nearest to (scale after the linear map) /
//! (scale wanted), or one that fills the bytes that hold it where that multiplies fewer bytes and keeps the promise, and the last stage's modulus is as large as the logits' range needs. Every exact scale is carried forward from
//! the primes really found.

use super::switching::{self, Candidate, Shape};
use super::{After, Lift, Plan, PlanError, Precision, Requirements, StagePlan, cost};
use crate::ckks::{CkksError, Parameters, ParametersLiteral, noise, security};
use crate::net::circuit::{Circuit, FeatureKind, Source, Stage, StageStats};
use crate::ring::primes::Primes;

/// Widest ciphertext prime: 8-bit weights (up to 127) times a residue then fit the 52-bit multiplier's low half.
pub(super) const WIDEST: f64 = (1u64 << 45) as f64 * 0.999;
/// Bits by which the nearest prime may be off its target.
const BITS_BELOW_TARGET: f64 = 0.02;
/// A prime that five bytes hold.
const WHOLE_BYTES: f64 = (1u64 << 40) as f64 * 0.999;
/// Times that every rescale prime's size is tried anew.
const ROUNDS: usize = 3;
/// Widest rescale prime where precision needs more than that: slower kernels, still on the transform's fast path.
const WIDEST_RESCALE: f64 = (1u64 << 49) as f64;
/// Shares by which a rescale prime may be smaller than wanted: each is tried.
const NARROWINGS: [f64; 4] = [32.0, 1.0, 512.0, 8192.0];
/// Most primes of a plan.
const MOST_PRIMES: usize = 60;
/// Narrowest prime, safely above the transform's 2^33.
pub(super) const NARROWEST: f64 = (1u64 << 34) as f64;
/// Key switches may take so many times the work where post-quantum security is kept by that.
const MOST_WORK_FOR_QUANTUM: f64 = 1.25;
/// Standard deviations in "worst" for a Gaussian error.
const SIGMAS: f64 = 6.0;
/// The same for a rounding error, which the secret multiplies slot by slot: the product of two Gaussians has a longer tail (beyond twelve
/// deviations about one in a million).
const SIGMAS_OF_PRODUCT: f64 = 12.0;
/// The same for what public-key encryption adds, nearly all of it such products in every slot of every input: beyond these about three in 10^9.
const SIGMAS_OF_PUBLIC: f64 = 18.0;
/// Times that the input's scale is adjusted to the precision that a plan turned out to have.
const REFINEMENTS: usize = 8;
/// Values are at least so many times the noise added to them, however little they matter to the logits.
const SMALLEST_SIGNAL: f64 = 256.0;
/// A multiplier of this many bits more than the promised precision rounds with a negligible relative error.
const FINE_MULTIPLIER_BITS: f64 = 12.0;
/// Weight scales that a circuit may have; biases and calibration figures lie between its inverse and itself.
const LARGEST_FIGURE: f64 = (1u64 << 40) as f64;
/// No scale of a real plan comes near it.
const LARGEST_SCALE: f64 = 1e150;
/// Bits of the modulus beyond what the largest values need.
const SPARE_BITS: f64 = 1.0;
/// So many of them may be given up for primes of a byte less.
const SPARE_BITS_FOR_A_BYTE: f64 = 0.5;
/// Bits by which a plan may miss the promise (primes are near their targets, not on them).
const PROMISE_TOLERANCE_BITS: f64 = 0.02;
/// A scale raised to what a prime needs is raised by this much more, so that no rounding lands below.
const CLEARANCE: f64 = 1.01;

/// Derives the plan in the smallest ring that carries it.
///
/// # Errors
/// [`PlanError`] if requirements or calibration figures are out of range or no secure ring is large enough.
pub fn plan(circuit: &Circuit, requirements: &Requirements) -> Result<Plan, PlanError> {
    check(circuit, requirements)?;
    let candidates = switching::candidates(circuit);
    let primes = &Primes::default();
    let mut too_deep = None;
    for row in security::TABLE {
        let (degree, candidates) = (row.degree, &*candidates);
        let search = Search { circuit, requirements, degree, check_parameters: Parameters::new, candidates, primes };
        match plan_in_ring(&search)? {
            Ok(plan) => return Ok(plan),
            Err(found_bits) => {
                too_deep = Some(PlanError::TooDeep { found_bits, limit_bits: row.classical_bits, degree: row.degree });
            }
        }
    }
    Err(too_deep.expect("the security table is not empty"))
}

/// A plan in a ring outside the security table: test builds only.
///
/// # Errors
/// As [`plan`].
#[cfg(test)]
pub(crate) fn insecure_plan(circuit: &Circuit, requirements: &Requirements, degree: usize) -> Result<Plan, PlanError> {
    check(circuit, requirements)?;
    let too_deep = |found_bits| PlanError::TooDeep { found_bits, limit_bits: 0, degree };
    let candidates = switching::candidates(circuit);
    let (check_parameters, candidates): (ParameterCheck, _) = (Parameters::insecure, &*candidates);
    let primes = &Primes::default();
    plan_in_ring(&Search { circuit, requirements, degree, check_parameters, candidates, primes })?.map_err(too_deep)
}

fn check(circuit: &Circuit, requirements: &Requirements) -> Result<(), PlanError> {
    let Requirements { promised_bits, headroom } = *requirements;
    if !(2.0..=30.0).contains(&promised_bits) {
        return Err(PlanError::Requirement { what: "precision in bits", found: promised_bits, expected: "2 to 30" });
    }
    if !(1.0..=1e6).contains(&headroom) {
        return Err(PlanError::Requirement { what: "headroom", found: headroom, expected: "1 to 1000000" });
    }
    let named = circuit.stages.iter().map(|s| (s.name.as_str(), &s.stats));
    for (name, stats) in std::iter::once(("input", &circuit.input_stats)).chain(named) {
        let StageStats { max_abs, max_rms, noise_gain, noise_gain_worst } = *stats;
        for (what, found) in [
            ("largest magnitude", max_abs),
            ("root mean square", max_rms),
            ("noise gain", noise_gain),
            ("worst noise gain", noise_gain_worst),
        ] {
            if !(1.0 / LARGEST_FIGURE..LARGEST_FIGURE).contains(&found) {
                return Err(PlanError::Stats { stage: name.to_owned(), what, found });
            }
        }
    }
    if circuit.stages.len() > MOST_PRIMES {
        return Err(PlanError::Stages { found: circuit.stages.len(), limit: MOST_PRIMES });
    }
    for (k, stage) in circuit.stages.iter().enumerate() {
        let named = |what, found| PlanError::Stats { stage: stage.name.clone(), what, found };
        if !(1.0 / LARGEST_FIGURE..LARGEST_FIGURE).contains(&stage.map.weight_scale) {
            return Err(named("weight scale", stage.map.weight_scale));
        }
        // Written so that NaN is found too.
        if let Some(&bias) = stage.map.bias.iter().find(|bias| !(-LARGEST_FIGURE..LARGEST_FIGURE).contains(*bias)) {
            return Err(named("a bias", bias));
        }
        let squares = stage.features.iter().filter(|f| f.kind == FeatureKind::Square).count();
        if k == 0 && circuit.stages.len() > 1 && squares > 0 {
            return Err(named("number of squared inputs, which only a circuit of one stage may have,", squares as f64));
        }
    }
    Ok(())
}

/// Rounds a positive number up to 12 significant bits. Powers and logarithms may differ in their last bit from one system's mathematics library
/// to another's; primes and scales, which the plan's id covers, must not.
pub(super) fn coarse(x: f64) -> f64 {
    const DROPPED: u64 = (1 << (52 - 12)) - 1;
    f64::from_bits((x.to_bits() + DROPPED) & !DROPPED)
}

/// Scales wanted where noise enters: input first, then after the key switch of stage k.
struct Wanted {
    input: f64,
    /// By how much a rescale prime may be smaller than wanted.
    narrowing: f64,
    /// What the first rescale prime needs the input's scale to be.
    least_input: f64,
    rescales: Vec<f64>,
    /// Sizes of rescale primes that are not left to the scales wanted; all are where it is empty.
    widths: Vec<Option<f64>>,
    /// Scales after a key switch below which noise is no longer small beside the values.
    least_rescales: Vec<f64>,
}

impl Wanted {
    fn new(circuit: &Circuit, requirements: &Requirements, degree: usize) -> Self {
        let switched = circuit.stages.len().saturating_sub(2);
        let share = 2f64.powf(-requirements.promised_bits) / ((switched + 1) as f64).sqrt();
        // The gain is a derivative: it holds only while the noise is small beside the values it is added to.
        let least = |noise: f64, stats: &StageStats| noise * SMALLEST_SIGNAL / stats.max_rms;
        let scale = |noise: f64, sigmas: f64, stats: &StageStats| {
            (noise * sigmas * stats.noise_gain_worst / share).max(least(noise, stats))
        };
        // A key switch adds a little to its rescale: the special prime is chosen so that it is at most a half.
        let rescale = noise::rescale(degree) * 1.25f64.sqrt();
        let after = || circuit.stages.iter().skip(1).take(switched);
        let mut wanted = Self {
            input: scale(noise::fresh_secret(degree), SIGMAS, &circuit.input_stats),
            narrowing: NARROWINGS[0],
            least_input: 0.0,
            rescales: after().map(|s| scale(rescale, SIGMAS_OF_PRODUCT, &s.stats)).collect(),
            widths: Vec::new(),
            least_rescales: after().map(|s| coarse(least(rescale, &s.stats))).collect(),
        };
        // Each rescale prime must be at least the narrowest one: raise the scale before it if need be.
        for k in (0..wanted.rescales.len()).rev() {
            let needed = CLEARANCE * (NARROWEST * wanted.rescales[k] / circuit.stages[k + 1].map.weight_scale).sqrt();
            match k {
                0 => wanted.least_input = coarse(needed / circuit.stages[0].map.weight_scale),
                _ => wanted.rescales[k - 1] = wanted.rescales[k - 1].max(needed),
            }
        }
        wanted.input = coarse(wanted.input).max(wanted.least_input);
        wanted.rescales.iter_mut().for_each(|scale| *scale = coarse(*scale));
        wanted
    }
}

/// Multipliers that bring all features of a stage to one scale of about `smallest` at least, and that scale. One that is not 1 is at least `fine`.
fn align(stage: &Stage, input_scale: f64, scales: &[f64], smallest: f64, fine: f64) -> (Vec<Lift>, f64) {
    let mut groups: Vec<(Source, FeatureKind)> = stage.features.iter().map(|f| (f.source, f.kind)).collect();
    groups.sort_unstable();
    groups.dedup();
    let own = |source: Source, kind: FeatureKind| {
        let scale = match source {
            Source::Input => input_scale,
            Source::Stage(k) => scales[k],
        };
        if kind == FeatureKind::Square { scale * scale } else { scale }
    };
    let all: Vec<f64> = groups.iter().map(|&(s, k)| own(s, k)).collect();
    let own_largest = all.iter().copied().fold(0.0, f64::max);
    let largest = if smallest > CLEARANCE * own_largest { smallest } else { own_largest };
    // A ratio that is not one must be large enough to round well; if one is not, all are raised together.
    let rounds_well = |&scale: &f64| largest == scale || largest / scale >= fine;
    let common = if all.iter().all(rounds_well) { largest } else { largest * fine };
    let lifts = groups
        .iter()
        .zip(&all)
        .map(|(&(source, kind), &scale)| Lift { source, kind, multiplier: (common / scale).round() })
        .collect();
    (lifts, common)
}

/// Size of a rescale prime for a wanted quotient: smaller by up to `narrowing` where that keeps it on the fast kernels (the scale then stays
/// larger than wanted, which is only more precise, but the stages after it need more modulus).
fn rescale_target(quotient: f64, narrowing: f64) -> f64 {
    let narrowed = if quotient < narrowing * WIDEST { quotient.min(WIDEST) } else { quotient };
    narrowed.clamp(NARROWEST, WIDEST_RESCALE)
}

type ParameterCheck = fn(ParametersLiteral) -> Result<Parameters, CkksError>;

/// What stays the same while plans are tried.
struct Search<'a> {
    circuit: &'a Circuit,
    requirements: &'a Requirements,
    degree: usize,
    check_parameters: ParameterCheck,
    /// By stage: may it be eager?
    candidates: &'a [Option<Candidate>],
    primes: &'a Primes,
}

/// The plan at one degree, or the modulus bits that were too many: the cheapest of several ways to size the rescale primes.
fn plan_in_ring(search: &Search<'_>) -> Result<Result<Plan, f64>, PlanError> {
    let mut best = refined_plan(search, NARROWINGS[0]);
    for narrowing in &NARROWINGS[1..] {
        let other = refined_plan(search, *narrowing);
        let better = match (&best, &other) {
            (Ok(Ok(best)), Ok(Ok(other))) => price(search.circuit, other) < price(search.circuit, best),
            (_, Ok(Ok(_))) => true,
            _ => false,
        };
        if better {
            best = other;
        }
    }
    if let Ok(Ok(plan)) = &best {
        let cheaper = in_whole_bytes(search, plan)?;
        best = cheaper.map_or(best, |plan| Ok(Ok(plan)));
    }
    best
}

/// A plan cheaper than `best` whose rescale primes fill the bytes that hold them: some take what others then need not. One prime is changed
/// at a time.
fn in_whole_bytes(search: &Search<'_>, best: &Plan) -> Result<Option<Plan>, PlanError> {
    let mut wanted = Wanted::new(search.circuit, search.requirements, search.degree);
    let rescales = wanted.rescales.len();
    wanted.widths = vec![None; rescales];
    let mut cheapest: Option<Plan> = None;
    for _ in 0..ROUNDS {
        let mut found = false;
        for (k, width) in (0..rescales).flat_map(|k| [(k, Some(WHOLE_BYTES)), (k, Some(WIDEST)), (k, None)]) {
            let held = std::mem::replace(&mut wanted.widths[k], width);
            if held == width {
                continue;
            }
            let than = cheapest.as_ref().unwrap_or(best);
            match fit_input(search, &mut wanted, than)? {
                Some(plan) => (cheapest, found) = (Some(plan), true),
                None => wanted.widths[k] = held,
            }
        }
        if !found {
            break;
        }
    }
    Ok(cheapest)
}

/// The plan cheaper than `than` with the least scale of the inputs that keeps the promise, by the secant: every bit there is one or more of
/// precision.
fn fit_input(search: &Search<'_>, wanted: &mut Wanted, than: &Plan) -> Result<Option<Plan>, PlanError> {
    let mut fitting: Option<Plan> = None;
    let (mut input_bits, mut slope) = (than.input_scale.log2(), 2.0);
    let mut before: Option<(f64, f64)> = None;
    for _ in 0..REFINEMENTS {
        wanted.input = coarse(2f64.powf(input_bits)).max(wanted.least_input);
        let Ok(plan) = plan_for(search, wanted)? else { break };
        if price(search.circuit, &plan) >= price(search.circuit, fitting.as_ref().unwrap_or(than)) {
            break;
        }
        let found_bits = plan.precision.promised_bits;
        let excess = found_bits - search.requirements.promised_bits;
        if let Some((bits, precision)) = before.replace((input_bits, found_bits))
            && bits != input_bits
        {
            slope = ((found_bits - precision) / (input_bits - bits)).clamp(1.0, 64.0);
        }
        if excess >= 0.0 {
            fitting = Some(plan);
        }
        if (0.0..PROMISE_TOLERANCE_BITS).contains(&excess) {
            break;
        }
        input_bits -= (excess - PROMISE_TOLERANCE_BITS / 2.0) / slope;
    }
    Ok(fitting)
}

/// One way to size the rescale primes. Where rescales turned out more precise than wanted, the input takes their share of the error.
fn refined_plan(search: &Search<'_>, narrowing: f64) -> Result<Result<Plan, f64>, PlanError> {
    let mut wanted = Wanted::new(search.circuit, search.requirements, search.degree);
    wanted.narrowing = narrowing;
    let mut best = plan_for(search, &wanted)?;
    let keeps = |plan: &Plan| plan.precision.promised_bits >= search.requirements.promised_bits;
    let mut step = 1.0;
    for _ in 0..REFINEMENTS {
        let Ok(plan) = &best else { break };
        let excess_bits = plan.precision.promised_bits - search.requirements.promised_bits;
        wanted.input = coarse(plan.input_scale * 2f64.powf(-step * excess_bits)).max(wanted.least_input);
        let Ok(refined) = plan_for(search, &wanted)? else { break };
        // A plan that keeps the promise gives way only to a cheaper one that keeps it too; else the step was too long.
        if keeps(plan) && !(keeps(&refined) && price(search.circuit, &refined) <= price(search.circuit, plan)) {
            step *= 0.5;
        } else {
            best = Ok(refined);
        }
    }
    match best {
        Ok(plan) if plan.precision.promised_bits < search.requirements.promised_bits - PROMISE_TOLERANCE_BITS => {
            Err(PlanError::Precision {
                found_bits: plan.precision.promised_bits,
                wanted_bits: search.requirements.promised_bits,
            })
        }
        other => Ok(other),
    }
}

/// What a plan costs, to compare two: primes that are too wide for the fast kernels first, then bytes multiplied, then the ciphertexts' modulus.
/// (Special primes are there to save work, not to be saved.)
fn price(circuit: &Circuit, plan: &Plan) -> (usize, u64, f64) {
    let moduli = plan.parameters.moduli();
    let wide = moduli.iter().filter(|&&q| q as f64 > WIDEST * 1.01).count();
    let bytes = |limbs: usize| moduli[..limbs].iter().map(|&q| cost::width_bytes(q) as u64).sum::<u64>();
    let products = |stage: &Stage| stage.map.blocks.iter().map(|block| block.weights.len() as u64).sum::<u64>();
    // As if all were lazy: what eager stages save, key switches take in part.
    let components = |k: usize| if k > 0 && plan.stages[k - 1].squared { 3 } else { plan.stages[k].components };
    let multiplied = plan.stages.iter().zip(&circuit.stages).enumerate();
    let multiplied =
        multiplied.map(|(k, (plan, stage))| products(stage) * components(k) as u64 * bytes(plan.limbs)).sum();
    (wide, multiplied, moduli.iter().map(|&q| (q as f64).log2()).sum())
}

/// Size of the primes that share so many bits: products of bytes take the time of whole bytes.
pub(super) fn base_width(bits: f64, primes: usize) -> f64 {
    let each = bits / primes as f64 + BITS_BELOW_TARGET;
    let bytes = 8.0 * (each / 8.0).floor();
    // A prime near the power of two may be either side of it.
    let whole = bytes - BITS_BELOW_TARGET;
    let fits = (each - whole) * primes as f64 <= SPARE_BITS_FOR_A_BYTE && bytes >= NARROWEST.log2();
    2f64.powf(if fits { whole } else { each })
}

/// The plan for given wishes.
fn plan_for(search: &Search<'_>, wanted: &Wanted) -> Result<Result<Plan, f64>, PlanError> {
    let Search { circuit, requirements, degree, check_parameters, candidates, primes } = *search;
    let count = circuit.stages.len();
    let range = |stats: &StageStats| stats.max_abs * requirements.headroom;

    // Forward: exact scales, and one prime per key switch.
    let mut used = Vec::new();
    let mut scales = Vec::with_capacity(count);
    let mut stages: Vec<StagePlan> = Vec::with_capacity(count);
    for (k, stage) in circuit.stages.iter().enumerate() {
        // A stage without squares that is rescaled all the same needs a scale to give away.
        let rescaled = (k > 0).then(|| wanted.rescales.get(k - 1)).flatten();
        let smallest = rescaled.map_or(0.0, |wanted| NARROWEST * wanted / stage.map.weight_scale);
        let fine = 2f64.powf((requirements.promised_bits + FINE_MULTIPLIER_BITS).ceil());
        let (lifts, feature_scale) = align(stage, wanted.input, &scales, smallest, fine);
        let product_scale = feature_scale * stage.map.weight_scale;
        if !(1.0..LARGEST_SCALE).contains(&product_scale) {
            return Ok(Err(product_scale.log2()));
        }
        let after = match k {
            _ if k + 1 == count => After::Output,
            0 => After::Fused,
            _ => After::KeySwitch,
        };
        let output_scale = if after == After::KeySwitch {
            let target = match wanted.widths.get(k - 1).copied().flatten() {
                Some(width) => width,
                None => rescale_target(product_scale / wanted.rescales[k - 1], wanted.narrowing),
            };
            let prime = primes.nearest(target as u64, degree, &used)?;
            used.push(prime);
            let scale = product_scale / prime as f64;
            if scale < wanted.least_rescales[k - 1] && !wanted.widths.is_empty() {
                return Ok(Err(product_scale.log2()));
            }
            scale
        } else {
            product_scale
        };
        scales.push(output_scale);
        let squares = stage.features.iter().any(|f| f.kind == FeatureKind::Square);
        stages.push(StagePlan {
            name: stage.name.clone(),
            limbs: 0,
            lifts,
            feature_scale,
            product_scale,
            after,
            output_limbs: 0,
            output_scale,
            components: if squares { 3 } else { 2 },
            squared: false,
            range: range(&stage.stats),
            spare_bits: 0.0,
        });
    }

    // The modulus that is left for the last stage, and at least for each stage before its own rescale primes.
    let mut base_bits = 0.0f64;
    let mut dropped_bits = 0.0;
    for stage in &stages {
        let needed = 1.0 + SPARE_BITS + (stage.product_scale * stage.range).log2();
        let rescales_left: f64 = used.iter().map(|&q| (q as f64).log2()).sum::<f64>() - dropped_bits;
        base_bits = base_bits.max(needed - rescales_left);
        if stage.after == After::KeySwitch {
            dropped_bits += (stage.product_scale / stage.output_scale).log2();
        }
    }
    let base_primes = (base_bits / WIDEST.log2()).ceil().max(1.0) as usize;
    if base_primes.saturating_add(used.len()) > MOST_PRIMES {
        return Ok(Err(base_bits + used.iter().map(|&q| (q as f64).log2()).sum::<f64>()));
    }
    let base_width = coarse(base_width(base_bits, base_primes).clamp(NARROWEST, WIDEST));
    let mut moduli = Vec::new();
    let mut all = used.clone();
    for _ in 0..base_primes {
        let prime = primes.nearest(base_width as u64, degree, &all)?;
        all.push(prime);
        moduli.push(prime);
    }
    // The first key switch drops the last prime.
    moduli.extend(used.iter().rev());

    let mut limbs = moduli.len();
    for stage in &mut stages {
        stage.limbs = limbs;
        if stage.after == After::KeySwitch {
            limbs -= 1;
        }
        stage.output_limbs = limbs;
        let modulus_bits: f64 = moduli[..stage.limbs].iter().map(|&q| (q as f64).log2()).sum();
        stage.spare_bits = modulus_bits - 1.0 - (stage.product_scale * stage.range).log2();
    }

    let mut least_bits: f64 = moduli.iter().map(|&q| (q as f64).log2()).sum();
    let mut secure = None;
    let mut shapes = switching::shapes(circuit, candidates, &moduli, &stages, degree, &all, primes)?;
    // Security against quantum computers, where the moduli leave it, is not given up for little.
    if let Ok(row) = security::row(degree) {
        let modulus_bits = least_bits;
        let bits = |shape: &Shape| modulus_bits + shape.special.iter().map(|&p| (p as f64).log2()).sum::<f64>();
        let secure = shapes.iter().position(|shape| bits(shape) <= f64::from(row.quantum_bits));
        if let Some(at) = secure
            && shapes[at].work as f64 <= MOST_WORK_FOR_QUANTUM * shapes[0].work as f64
        {
            shapes.swap(0, at);
        }
    }
    for Shape { special, digit_limbs, eager, .. } in shapes {
        let literal = ParametersLiteral { degree, moduli: moduli.clone(), special, digit_limbs };
        match check_parameters(literal) {
            Ok(parameters) => {
                secure = Some((parameters, eager));
                break;
            }
            // A cheaper shape may need more special primes than the ring is secure with: the next one then.
            Err(CkksError::Insecure { found_bits, .. }) => least_bits = found_bits,
            Err(other) => return Err(other.into()),
        }
    }
    let Some((parameters, eager)) = secure else { return Ok(Err(least_bits)) };
    for stage in eager {
        stages[stage - 1].squared = true;
        stages[stage].components = 2;
    }
    let precision = predict(search, &parameters, wanted.input, &stages);
    Ok(Ok(Plan { parameters, input_scale: wanted.input, stages, precision }))
}

fn predict(search: &Search<'_>, parameters: &Parameters, input_scale: f64, stages: &[StagePlan]) -> Precision {
    let Search { circuit, degree, candidates, .. } = *search;
    let special: f64 = parameters.special().iter().map(|&q| q as f64).product();
    let rescale_variance = |gain: &dyn Fn(&StageStats) -> f64| -> f64 {
        let switched = stages.iter().zip(&circuit.stages).enumerate().filter(|(_, (s, _))| s.after == After::KeySwitch);
        switched
            .map(|(k, (plan, stage))| {
                let (moduli, digit_limbs) = (parameters.moduli(), parameters.digit_limbs());
                let eager = k > 0 && stages[k - 1].squared;
                let candidate = candidates[k].as_ref().filter(|_| eager);
                let error = switching::error(degree, candidate, plan, moduli, special, digit_limbs);
                (error / plan.output_scale * gain(&stage.stats)).powi(2)
            })
            .sum()
    };
    // Standard deviations of input and rescale errors, each with its own number of deviations.
    let bits = |fresh: f64, gain: &dyn Fn(&StageStats) -> f64, sigmas: f64, product_sigmas: f64| {
        let input = (sigmas * fresh / input_scale * gain(&circuit.input_stats)).powi(2);
        -(input + product_sigmas.powi(2) * rescale_variance(gain)).sqrt().log2()
    };
    let worst = |s: &StageStats| s.noise_gain_worst;
    let public = noise::fresh_public(degree, special);
    Precision {
        typical_bits: bits(noise::fresh_secret(degree), &|s| s.noise_gain, 1.0, 1.0),
        promised_bits: bits(noise::fresh_secret(degree), &worst, SIGMAS, SIGMAS_OF_PRODUCT),
        promised_public_bits: bits(public, &worst, SIGMAS_OF_PUBLIC, SIGMAS_OF_PRODUCT),
    }
}
