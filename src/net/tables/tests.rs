//! Quantising random networks against the clear oracle; look-ups at and beyond the edges; refusals.

use super::*;
use crate::net::calibration::Calibration;
use crate::net::network::{Network, Op};
use crate::net::sample::{Random, random_network, with_relus};

/// Finer than any engine's, so that what is left is rounding.
fn fine() -> TableOptions {
    TableOptions { bits: 8, input_weight_bits: 14, margin: 0.1, output_noise: 0.0 }
}

/// Images of random bytes: the bytes, and normalised `[entry][image]`.
fn images(network: &Network, count: usize, seed: u64) -> (Vec<Vec<u8>>, Calibration) {
    let [_, rows, columns] = network.input.shape;
    let entries: usize = network.input.shape.iter().product();
    let mut random = Random::new(seed);
    let bytes: Vec<Vec<u8>> = (0..count).map(|_| (0..entries).map(|_| random.below(256) as u8).collect()).collect();
    let value = |entry: usize, image: &Vec<u8>| {
        let channel = entry / (rows * columns);
        (f64::from(image[entry]) / 255.0 - network.input.mean[channel]) / network.input.std[channel]
    };
    let x = (0..entries).flat_map(|entry| bytes.iter().map(move |image| (entry, image)));
    let x = x.map(|(entry, image)| value(entry, image)).collect();
    (bytes, Calibration { images: count, x })
}

fn reads_past_an_activation(network: &Network) -> bool {
    let activation = |op: &Op| matches!(op, Op::Relu | Op::Poly2 { .. });
    network.layers.iter().enumerate().any(|(index, layer)| match layer.op {
        Op::Add { with } => network.layers[with..index].iter().any(|between| activation(&between.op)),
        _ => false,
    })
}

#[test]
fn tables_follow_relus_and_quadratics_closely() {
    let mut served = 0;
    for seed in 0..60 {
        for relus in [true, false] {
            let quadratic = random_network(seed, 1 + seed as usize % 2, false);
            let network = if relus { with_relus(quadratic) } else { quadratic };
            let (bytes, calibration) = images(&network, 60, seed);
            if reads_past_an_activation(&network) {
                continue;
            }
            let (circuit, report) = quantise(&network, &calibration, &fine()).unwrap();
            assert_eq!(report.weight_bits.len(), circuit.stages.len() + 1);
            assert_eq!(circuit.neurons() + report.constant_neurons, network.activations().unwrap());
            let float = network.evaluate_batch(&calibration.x, bytes.len()).unwrap();
            let most = float.iter().fold(0.0, |most: f64, logit| most.max(logit.abs()));
            let mut square = 0.0;
            for (image, bytes) in bytes.iter().enumerate() {
                for (class, logit) in circuit.evaluate(bytes).unwrap().into_iter().enumerate() {
                    square += (logit - float[class * 60 + image]).powi(2) / float.len() as f64;
                }
                let inside = |(stage, sums): (&TableStage, &Vec<i64>)| {
                    sums.iter().enumerate().all(|(row, &sum)| stage.look_up(row, sum).inside)
                };
                assert!(circuit.stages.iter().zip(&circuit.trace(bytes).unwrap().sums).all(inside));
            }
            assert!(square.sqrt() < 0.02 * most, "seed {seed}: {} of {most}", square.sqrt());
            served += 1;
        }
    }
    assert!(served > 40, "{served}");
}

#[test]
fn noise_calls_for_narrower_integers_and_is_part_of_the_predicted_error() {
    let network = with_relus(random_network(5, 1, false));
    let (_, calibration) = images(&network, 60, 1);
    let of = |output_noise| quantise(&network, &calibration, &TableOptions { output_noise, ..fine() }).unwrap();
    let [(quiet, quiet_report), (loud, loud_report)] = [of(0.0), of(1e-3)];
    assert!(loud_report.weight_bits[1] < quiet_report.weight_bits[1], "{loud_report:?}");
    assert!(loud_report.sum_errors[1] > quiet_report.sum_errors[1]);
    assert_eq!(quiet.stages[0].rows, loud.stages[0].rows);
    assert_eq!(quiet_report.sum_errors[0], loud_report.sum_errors[0]);
}

#[test]
fn a_sum_outside_its_boxes_meets_the_tables_negative() {
    let rows = Rows { starts: vec![0, 1], columns: vec![0], weights: vec![1], bias: vec![0] };
    let stage = TableStage { name: "s".to_owned(), rows, bits: 2, log2_box: 3, values: vec![10, 20, 30, 40] };
    let found = |sum: i64| {
        let Observed { value, inside } = stage.look_up(0, sum);
        (value, inside)
    };
    assert_eq!([0, 7, 8, 31].map(found), [(10, true), (10, true), (20, true), (40, true)]);
    assert_eq!([32, 63, 64, -1, -32, -33].map(found).map(|(value, _)| value), [-10, -40, 10, -40, -10, 40]);
    assert!([32, 64, -1].map(found).iter().all(|&(_, inside)| !inside));
}

#[test]
fn a_skip_past_an_activation_is_refused_by_name_and_others_are_served() {
    let (mut refused, mut served) = (0, 0);
    for seed in 0..40 {
        let network = with_relus(random_network(seed, 2, false));
        let (_, calibration) = images(&network, 20, seed);
        let outcome = quantise(&network, &calibration, &fine());
        if reads_past_an_activation(&network) {
            if let Err(error) = outcome {
                assert!(error.to_string().contains("no skip past one"), "{error}");
                refused += 1;
            }
        } else {
            outcome.unwrap();
            served += 1;
        }
    }
    assert!(refused > 3 && served > 3, "{refused} {served}");
}

#[test]
fn what_is_not_sound_is_refused() {
    let network = with_relus(random_network(5, 1, false));
    let (bytes, calibration) = images(&network, 20, 1);
    let (circuit, _) = quantise(&network, &calibration, &fine()).unwrap();
    circuit.validate().unwrap();
    assert!(circuit.trace(&bytes[0][1..]).is_err());
    let broken = |change: &dyn Fn(&mut TableCircuit)| {
        let mut circuit = circuit.clone();
        change(&mut circuit);
        circuit.validate().unwrap_err().to_string()
    };
    for (expected, change) in [
        ("bits of a table", &(|c: &mut TableCircuit| c.stages[0].bits = 9) as &dyn Fn(&mut TableCircuit)),
        ("log2 of a box", &|c| c.stages[0].log2_box = 31),
        ("values of all tables", &|c| c.stages[0].values.truncate(7)),
        ("columns of row 0", &|c| c.stages[0].rows.columns.swap(0, 1)),
        ("columns of row 0", &|c| c.stages[0].rows.columns[0] = u32::MAX),
        ("starts", &|c| c.stages[0].rows.starts[0] = 1),
        ("weights of row 0", &|c| c.stages[0].rows.starts[1] = 0),
        ("weights of row 0", &|c| c.stages[0].rows.starts[1] = u32::MAX),
        ("weight 0", &|c| c.stages[0].rows.weights[0] = 0),
        ("bias", &|c| c.stages[0].rows.bias[0] = i64::MIN),
        ("unit", &|c| c.logits.unit = f64::NAN),
        ("log2 of the range", &|c| c.logits.log2_range = 0),
        ("columns of row", &|c| {
            let rows = &mut c.logits.rows;
            rows.columns[rows.starts[1] as usize - 1] = 1 << 20;
        }),
        ("shape", &|c| c.input_shape = [0, 1, 1]),
    ] {
        let found = broken(change);
        assert!(found.contains(expected), "{found}: {expected}");
    }
    for options in [
        TableOptions { bits: 1, ..fine() },
        TableOptions { input_weight_bits: 15, ..fine() },
        TableOptions { margin: -0.1, ..fine() },
        TableOptions { output_noise: f64::NAN, ..fine() },
    ] {
        assert!(quantise(&network, &calibration, &options).is_err(), "{options:?}");
    }
}
