//! From a trained network to a table circuit: ranges measured on images, weights rounded, tables filled. Deterministic.
//!
//! Every neuron has its own scale: its range over the calibration images, widened by a margin, fills the boxes of its table.
//! Every column has its own unit: the largest value of a table is [`LARGEST_VALUE`], so that a stage's integers serve all of
//! them alike. The width of a stage's integers is a choice between two errors: of rounding (few bits) and of the noise that
//! bootstrapped values carry, which the integers multiply (many bits); the sum of both is predicted from the calibration
//! images' second moments and the width with the least taken. The first stage reads fresh ciphertexts, nearly free of noise.

use super::{LogitStage, Rows, TABLE_BITS, TableCircuit, TableStage};
use crate::net::calibration::Calibration;
use crate::net::draft::{Draft, draft_tables};
use crate::net::error::{NetError, all_finite};
use crate::net::forms::Forms;
use crate::net::lowering::{Budget, LoweringLimits};
use crate::net::network::{InputSpec, Network, Op};

/// Largest magnitude of a table's values.
const LARGEST_VALUE: f64 = 1023.0;
/// Widths of integers tried where noise counts.
const NOISY_WEIGHT_BITS: std::ops::RangeInclusive<u32> = 2..=10;
/// Room above the largest logit seen.
const LOGIT_HEADROOM: f64 = 1.3;

/// How to quantise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableOptions {
    /// Boxes of a table are 2^bits.
    pub bits: u32,
    /// Width of the first stage's integers, sign included.
    pub input_weight_bits: u32,
    /// By which share of its range a neuron's range is widened, on either side.
    pub margin: f64,
    /// Standard deviation of a bootstrapped value's noise, in shares of the torus.
    pub output_noise: f64,
}

/// What quantising found.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// Width of each map's integers, sign included, the logits' last.
    pub weight_bits: Vec<u32>,
    /// Predicted error of a sum of each map, root mean square over its rows: in boxes, for the logits in shares of their range.
    pub sum_errors: Vec<f64>,
    /// Neurons left out because they give the same for every image.
    pub constant_neurons: usize,
}

/// Makes the table circuit of a network.
///
/// Errors: options out of range, an invalid network, images of another size, a stage that reads what is not the output of the
/// one before (named), a network without a weight that counts.
pub fn quantise(
    network: &Network,
    calibration: &Calibration,
    options: &TableOptions,
) -> Result<(TableCircuit, TableReport), NetError> {
    options.check()?;
    let seen = Seen::measure(network, calibration)?;
    let constant = |layer: usize, row: usize, x: f64| seen.layers[layer].activation(network, layer, row).at(x);
    let draft = draft_tables(network, &mut Budget::new(LoweringLimits::OWN), &constant)?;
    let mut columns = Read::pixels(&network.input, calibration)?;
    let mut report = TableReport { weight_bits: Vec::new(), sum_errors: Vec::new(), constant_neurons: 0 };
    let mut stages = Vec::with_capacity(draft.quadratics.len());
    for (stage, &layer) in draft.quadratics.iter().enumerate() {
        let neurons = seen.layers[layer].neurons(network, layer, &draft.stages[stage].forms, options.margin);
        report.constant_neurons += draft.stages[stage].forms.rows() - neurons.len();
        let real = columns.real_rows(&draft, stage, neurons.iter().map(|neuron| neuron.row))?;
        let spans: Vec<f64> = neurons.iter().map(|neuron| neuron.high - neuron.low).collect();
        let first = stage == 0;
        let noise = if first { 0.0 } else { options.output_noise };
        let bits = if first { options.input_weight_bits..=options.input_weight_bits } else { NOISY_WEIGHT_BITS };
        let choice = choose(&real, &spans, options.bits, noise, bits, &columns, &draft.stages[stage].name)?;
        let boxes = 1_i64 << options.bits;
        let (mut rows, mut values) = (choice.rows, Vec::with_capacity(neurons.len() << options.bits));
        for (row, neuron) in neurons.iter().enumerate() {
            let scale = choice.scales[row];
            rows.bias[row] = ((real.constants[row] - neuron.low) * scale).round() as i64;
            let box_width = (1_i64 << choice.log2_box) as f64;
            let centre = |place: i64| neuron.low + (place as f64 + 0.5) * box_width / scale;
            values.extend((0..boxes).map(|place| (neuron.activation.at(centre(place)) / neuron.unit).round() as i16));
        }
        report.weight_bits.push(choice.weight_bits);
        report.sum_errors.push(choice.error);
        let name = draft.stages[stage].name.clone();
        stages.push(TableStage { name, rows, bits: options.bits, log2_box: choice.log2_box, values });
        columns = Read::values(&neurons, draft.stages[stage].forms.rows(), stage + 1);
    }
    let logits = logit_stage(&draft, &columns, &seen, options, stages.is_empty(), &mut report)?;
    let circuit = TableCircuit { input_shape: network.input.shape, stages, logits };
    circuit.validate()?;
    Ok((circuit, report))
}

impl TableOptions {
    fn check(&self) -> Result<(), NetError> {
        let place = "table options";
        if !TABLE_BITS.contains(&self.bits) {
            let expected = format!("{} to {}", TABLE_BITS.start(), TABLE_BITS.end());
            return Err(NetError::mismatch(place, "bits of a table", self.bits, expected));
        }
        if !(4..=14).contains(&self.input_weight_bits) {
            return Err(NetError::mismatch(place, "bits of the first weights", self.input_weight_bits, "4 to 14"));
        }
        for (what, value) in [("margin", self.margin), ("output noise", self.output_noise)] {
            if !(0.0..1.0).contains(&value) {
                return Err(NetError::mismatch(place, what, value, "0 to 1"));
            }
        }
        Ok(())
    }
}

/// What an activation computes.
#[derive(Clone, Copy, Debug)]
enum Activation {
    Relu,
    Quadratic { a: f64, b: f64, c: f64 },
}

impl Activation {
    fn at(self, x: f64) -> f64 {
        match self {
            Activation::Relu => x.max(0.0),
            Activation::Quadratic { a, b, c } => (a * x + b) * x + c,
        }
    }
}

/// A neuron that depends on the image.
struct Neuron {
    /// Its row of the draft.
    row: usize,
    activation: Activation,
    low: f64,
    high: f64,
    /// Real value of 1 in its table.
    unit: f64,
    /// Mean square of its table's values over the calibration images.
    square: f64,
}

/// What one layer's activations read and gave, per entry.
#[derive(Default)]
struct LayerSeen {
    low: Vec<f64>,
    high: Vec<f64>,
    mean_square: Vec<f64>,
    per_channel: usize,
}

impl LayerSeen {
    fn activation(&self, network: &Network, layer: usize, entry: usize) -> Activation {
        match &network.layers[layer].op {
            Op::Poly2 { granularity, a, b, c } => {
                let index = granularity.index(entry, entry / self.per_channel.max(1));
                Activation::Quadratic { a: a[index].into(), b: b[index].into(), c: c[index].into() }
            }
            _ => Activation::Relu,
        }
    }

    /// Those of the rows that have a weight, ranges widened.
    fn neurons(&self, network: &Network, layer: usize, forms: &Forms, margin: f64) -> Vec<Neuron> {
        let alive = (0..forms.rows()).filter(|&row| forms.row(row).any(|(_, weight)| weight != 0.0));
        let neuron = |row: usize| {
            let activation = self.activation(network, layer, row);
            let (low, high) = (self.low[row], self.high[row]);
            // A neuron that was the same on all images still gets boxes of some width.
            let span = (high - low).max(1e-3 * (low.abs().max(high.abs()) + 1.0));
            let (low, high) = (low - margin * span, high + margin * span);
            let vertex = match activation {
                Activation::Quadratic { a, b, .. } if a != 0.0 => (-b / (2.0 * a)).clamp(low, high),
                _ => low,
            };
            let most = [low, high, vertex].into_iter().fold(0.0, |most: f64, x| most.max(activation.at(x).abs()));
            // One that gave nothing but 0 has any unit; its square below must be a number all the same.
            let unit = if most > 0.0 { most } else { 1.0 } / LARGEST_VALUE;
            Neuron { row, activation, low, high, unit, square: self.mean_square[row] / (unit * unit) }
        };
        alive.map(neuron).collect()
    }
}

/// What was seen over the calibration images.
struct Seen {
    layers: Vec<LayerSeen>,
    largest_logit: f64,
}

impl Seen {
    fn measure(network: &Network, calibration: &Calibration) -> Result<Seen, NetError> {
        network.validate()?;
        calibration.check(network.input.shape.iter().product())?;
        let shapes = network.value_shapes()?;
        let mut layers: Vec<LayerSeen> = network.layers.iter().map(|_| LayerSeen::default()).collect();
        let logits =
            network.evaluate_traced(&calibration.x, calibration.images, &mut |layer, input, width, images| {
                if !crate::net::draft::has_tables(&network.layers[layer].op) {
                    return;
                }
                let entries = input.len() / width;
                let seen = &mut layers[layer];
                if seen.low.is_empty() {
                    seen.low = vec![f64::INFINITY; entries];
                    seen.high = vec![f64::NEG_INFINITY; entries];
                    seen.mean_square = vec![0.0; entries];
                    seen.per_channel = shapes[layer][1..].iter().product();
                }
                for (entry, row) in input.chunks_exact(width).enumerate() {
                    let activation = seen.activation(network, layer, entry);
                    for &x in &row[..images] {
                        seen.low[entry] = seen.low[entry].min(x);
                        seen.high[entry] = seen.high[entry].max(x);
                        let given = activation.at(x);
                        seen.mean_square[entry] += given * given / calibration.images as f64;
                    }
                }
            })?;
        all_finite("calibration", "logits", logits.iter().copied())?;
        for (layer, seen) in network.layers.iter().zip(&layers) {
            all_finite(&layer.name, "squares of values", seen.mean_square.iter().copied())?;
        }
        let largest_logit = logits.iter().fold(0.0, |most: f64, logit| most.max(logit.abs()));
        Ok(Seen { layers, largest_logit })
    }
}

/// What a stage reads: for each column of the draft's buffer its integer's place, unit, offset and mean square.
struct Read {
    buffer: usize,
    /// `None` for a neuron that was left out.
    places: Vec<Option<u32>>,
    /// Real value of the integer 1, and of the integer 0.
    units: Vec<f64>,
    offsets: Vec<f64>,
    squares: Vec<f64>,
}

/// Rows in real units over the integers read.
struct RealRows {
    /// `[row]` -> (place, real weight of the integer 1)
    terms: Vec<Vec<(u32, f64)>>,
    constants: Vec<f64>,
}

impl Read {
    fn pixels(input: &InputSpec, calibration: &Calibration) -> Result<Read, NetError> {
        let entries: usize = input.shape.iter().product();
        let per_channel = input.shape[1] * input.shape[2];
        let channel = |entry: usize| entry / per_channel;
        let units: Vec<f64> = (0..entries).map(|entry| 1.0 / (255.0 * input.std[channel(entry)])).collect();
        let offsets: Vec<f64> =
            (0..entries).map(|entry| -input.mean[channel(entry)] / input.std[channel(entry)]).collect();
        all_finite("input", "units", units.iter().chain(&offsets).copied())?;
        let images = calibration.x.chunks_exact(calibration.images.max(1));
        let squares = images.zip(units.iter().zip(&offsets)).map(|(row, (unit, offset))| {
            let byte = |x: &f64| (x - offset) / unit;
            row.iter().map(|x| byte(x) * byte(x)).sum::<f64>() / calibration.images.max(1) as f64
        });
        let squares = squares.collect();
        Ok(Read { buffer: 0, places: (0..entries as u32).map(Some).collect(), units, offsets, squares })
    }

    fn values(neurons: &[Neuron], rows: usize, buffer: usize) -> Read {
        let mut places = vec![None; rows];
        for (place, neuron) in neurons.iter().enumerate() {
            places[neuron.row] = Some(place as u32);
        }
        let units = neurons.iter().map(|neuron| neuron.unit).collect();
        let squares = neurons.iter().map(|neuron| neuron.square).collect();
        Read { buffer, places, units, offsets: vec![0.0; neurons.len()], squares }
    }

    /// The draft's rows `picked` of a stage over these integers.
    fn real_rows(
        &self,
        draft: &Draft,
        stage: usize,
        picked: impl Iterator<Item = usize>,
    ) -> Result<RealRows, NetError> {
        let drafted = &draft.stages[stage];
        let mut real = RealRows { terms: Vec::new(), constants: Vec::new() };
        for row in picked {
            let (mut terms, mut constant) = (Vec::new(), drafted.forms.constants[row]);
            for (column, weight) in drafted.forms.row(row).filter(|&(_, weight)| weight != 0.0) {
                let (buffer, _, entry) = draft.columns.place(column);
                let place = self.places.get(entry).copied().flatten().filter(|_| buffer == self.buffer);
                let Some(place) = place else {
                    let found = if buffer == 0 { "the image".to_owned() } else { format!("stage {}", buffer - 1) };
                    let expected = "the activations right before it (no skip past one)";
                    return Err(NetError::mismatch(&drafted.name, "values read", found, expected));
                };
                constant += weight * self.offsets[place as usize];
                terms.push((place, weight * self.units[place as usize]));
            }
            real.terms.push(terms);
            real.constants.push(constant);
        }
        Ok(real)
    }
}

/// Integers for rows.
struct Choice {
    /// Bias still 0.
    rows: Rows,
    /// Integers of one real unit, `[row]`.
    scales: Vec<f64>,
    log2_box: u32,
    weight_bits: u32,
    error: f64,
}

/// Rounds rows whose spans fill `2^table_bits` boxes, with the width of integers that errs least.
fn choose(
    real: &RealRows,
    spans: &[f64],
    table_bits: u32,
    noise: f64,
    bits: std::ops::RangeInclusive<u32>,
    columns: &Read,
    name: &str,
) -> Result<Choice, NetError> {
    // Largest real weight of a row that spans one unit.
    let steepest = real.terms.iter().zip(spans).fold(0.0, |most: f64, (terms, span)| {
        terms.iter().fold(most, |most, (_, weight)| most.max(weight.abs() / span))
    });
    if steepest.is_nan() || steepest <= 0.0 || steepest.is_infinite() {
        return Err(NetError::mismatch(name, "largest weight over range", steepest, "a positive number"));
    }
    let mut best: Option<Choice> = None;
    let mut tried = None;
    for weight_bits in bits {
        let largest = ((1_i64 << (weight_bits - 1)) - 1) as f64;
        // Boxes as wide as they can be with weights within their width.
        let fits = |log2_box: u32| steepest * (1_u64 << (table_bits + log2_box)) as f64 <= largest + 0.499;
        let Some(log2_box) = (0..=24).rev().find(|&log2_box| fits(log2_box)) else { continue };
        if tried == Some(log2_box) {
            continue;
        }
        tried = Some(log2_box);
        let whole = (1_u64 << (table_bits + log2_box)) as f64;
        let scales: Vec<f64> = spans.iter().map(|span| whole / span).collect();
        let (rows, rounding) = round_rows(real, &scales, columns);
        let torus = 2.0 * whole;
        let count = rows.len().max(1) as f64;
        let noisy =
            (0..rows.len()).map(|row| rows.norm_squared(row)).sum::<f64>() / count * (noise * torus) * (noise * torus);
        let error = (rounding / count + noisy).sqrt() / (1_u64 << log2_box) as f64;
        if best.as_ref().is_none_or(|best| error < best.error) {
            best = Some(Choice { rows, scales, log2_box, weight_bits, error });
        }
    }
    best.ok_or_else(|| {
        NetError::mismatch(name, "range of its neurons", "too narrow for integers", "wider or fewer bits")
    })
}

/// Weights times scales, rounded, and the sum over rows of the squared error that this is expected to make.
fn round_rows(real: &RealRows, scales: &[f64], columns: &Read) -> (Rows, f64) {
    let mut rows = Rows { starts: vec![0], bias: vec![0; scales.len()], ..Rows::default() };
    let mut error = 0.0;
    for (terms, &scale) in real.terms.iter().zip(scales) {
        let first = rows.weights.len();
        let mut largest = (0, 0.0);
        for &(place, weight) in terms {
            let exact = weight * scale;
            let integer = exact.round();
            error += (exact - integer) * (exact - integer) * columns.squares[place as usize];
            if exact.abs() > f64::abs(largest.1) {
                largest = (place, exact);
            }
            if integer != 0.0 {
                rows.columns.push(place);
                rows.weights.push(integer as i16);
            }
        }
        if rows.weights.len() == first {
            // A row that rounds to nothing keeps its largest weight: an empty one would be a transparent ciphertext.
            rows.columns.push(largest.0);
            rows.weights.push(if largest.1 < 0.0 { -1 } else { 1 });
        }
        rows.starts.push(rows.weights.len() as u32);
    }
    (rows, error)
}

/// The last map: one scale for all classes, so that sums compare as logits do.
fn logit_stage(
    draft: &Draft,
    columns: &Read,
    seen: &Seen,
    options: &TableOptions,
    linear: bool,
    report: &mut TableReport,
) -> Result<LogitStage, NetError> {
    let last = draft.stages.len() - 1;
    let (name, forms) = (draft.stages[last].name.clone(), &draft.stages[last].forms);
    let real = columns.real_rows(draft, last, 0..forms.rows())?;
    if let Some(class) = real.terms.iter().position(Vec::is_empty) {
        return Err(NetError::ConstantLogit { class, weight_bits: options.input_weight_bits });
    }
    let noise = if linear { 0.0 } else { options.output_noise };
    let bits = if linear { options.input_weight_bits..=options.input_weight_bits } else { NOISY_WEIGHT_BITS };
    // Two boxes: below zero and above.
    let spans = vec![2.0 * LOGIT_HEADROOM * seen.largest_logit.max(f64::MIN_POSITIVE); forms.rows()];
    // The whole torus is used, so one bit less than a table with its double.
    let mut choice = choose(&real, &spans, 0, noise / 2.0, bits, columns, &name)?;
    let scale = choice.scales.first().copied().unwrap_or(1.0);
    for (bias, constant) in choice.rows.bias.iter_mut().zip(&real.constants) {
        *bias = (constant * scale).round() as i64;
    }
    report.weight_bits.push(choice.weight_bits);
    report.sum_errors.push(choice.error);
    Ok(LogitStage { name, rows: choice.rows, log2_range: choice.log2_box.max(2) - 1, unit: 1.0 / scale })
}
