//! The engine against the integer oracle, neuron by neuron and logit by logit; parameters; refusals.

use super::secret::SecretKey;
use super::*;
use crate::net::network::{InputSpec, Layer, Op};
use crate::net::sample::Random;
use crate::net::tables::{Rows, TableOptions, quantise};
use crate::net::{Calibration, Network, TableCircuit};
use crate::ring::sampling::Seed;

const IMAGES: usize = 4;

/// 40 bytes, `hidden` neurons in each hidden stage, 3 classes.
fn network(hidden: &[usize]) -> Network {
    let mut random = Random::new(hidden.len() as u64);
    let mut layers = vec![Layer { name: "0 flatten".to_owned(), op: Op::Flatten }];
    let mut width = 40;
    for (index, &out) in hidden.iter().chain(&[3]).enumerate() {
        let size = (3.0 / width as f64).sqrt();
        let mut tensor = |len: usize| (0..len).map(|_| (random.signed() * size) as f32).collect();
        let op = Op::Dense { weight: tensor(out * width), weight_shape: [out, width], bias: tensor(out) };
        layers.push(Layer { name: format!("{} dense", layers.len()), op });
        if index < hidden.len() {
            layers.push(Layer { name: format!("{} relu", layers.len()), op: Op::Relu });
        }
        width = out;
    }
    let input = InputSpec { shape: [2, 4, 5], mean: vec![0.4, 0.5], std: vec![0.3, 0.25] };
    Network { name: "dense".to_owned(), dataset: "random".to_owned(), input, layers }
}

fn images(count: usize) -> (Vec<Vec<u8>>, Calibration) {
    let mut random = Random::new(7);
    let bytes: Vec<Vec<u8>> = (0..count).map(|_| (0..40).map(|_| random.below(256) as u8).collect()).collect();
    let (mean, std) = ([0.4, 0.5], [0.3, 0.25]);
    let values = (0..40).flat_map(|entry| bytes.iter().map(move |image| (entry, image)));
    let x = values.map(|(entry, image)| (f64::from(image[entry]) / 255.0 - mean[entry / 20]) / std[entry / 20]);
    let x = x.collect();
    (bytes, Calibration { images: count, x })
}

fn circuit(hidden: &[usize], bits: u32) -> (TableCircuit, Vec<Vec<u8>>) {
    let (bytes, calibration) = images(400);
    let options = TableOptions { bits, input_weight_bits: 10, margin: 0.1, output_noise: Noise::bootstrapped() };
    (quantise(&network(hidden), &calibration, &options).unwrap().0, bytes)
}

#[test]
fn the_noise_is_what_tfhes_own_formula_asks_for_132_bits() {
    use tfhe::core_crypto::commons::noise_formulas::secure_noise::minimal_lwe_bound_for_132_bits_security_tuniform;
    use tfhe::core_crypto::prelude::LweDimension;
    let least = |dimension| minimal_lwe_bound_for_132_bits_security_tuniform(LweDimension(dimension), 64_f64.exp2());
    assert_eq!(least(PARAMETERS.lwe_dimension), PARAMETERS.lwe_noise_log2);
    assert_eq!(least(PARAMETERS.polynomial_size), PARAMETERS.ring_noise_log2);
    const { assert!(PARAMETERS.log2_failure < -128.0) };
}

#[test]
fn tables_give_the_oracles_values_but_at_edges_and_logits_follow() {
    let (circuit, bytes) = circuit(&[30], 5);
    let secret = SecretKey::generate().unwrap();
    let engine = Engine::new(circuit.clone(), &secret.evaluation_key().unwrap(), 2).unwrap();
    let noise = Noise::of(&circuit);
    let unit = circuit.log2_units()[1];
    let (mut moved, mut expected, mut off) = (0, 0.0, 0);
    for image in &bytes[..IMAGES] {
        let trace = circuit.trace(image).unwrap();
        let odds = noise.odds(&circuit, &trace);
        expected += odds.moved;
        let encrypted = secret.encrypt(&circuit, image).unwrap();
        for (row, value) in engine.hidden_values(&encrypted.seeds, &encrypted.bodies).iter().enumerate() {
            let stage = &circuit.stages[0];
            let sum = trace.sums[0][row];
            let found = (secret.phase(value) as i64) as f64 / (1_i64 << unit) as f64;
            let box_width = 1_i64 << stage.log2_box;
            let near = [-1, 0, 1].map(|side| (found - stage.look_up(row, sum + side * box_width).value as f64).abs());
            // Noise of a bootstrapped value, in integers of the table.
            let tolerance = 6.0 * Noise::bootstrapped() * f64::from(64 - unit).exp2();
            assert!(near.iter().any(|&distance| distance <= tolerance), "{near:?} {tolerance}");
            moved += usize::from(near[1] > tolerance);
        }
        let done = std::sync::atomic::AtomicUsize::new(0);
        let count = || {
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Scores, &count).unwrap();
        assert_eq!(done.into_inner(), 30);
        let logits = secret.decrypt(&circuit, &results).unwrap();
        for ((found, wanted), reach) in logits.iter().zip(&trace.logits).zip(&odds.reach) {
            assert!((found - wanted).abs() as f64 <= *reach, "{found} {wanted} {reach}");
            off += usize::from(found != wanted);
        }
    }
    // A Poisson number with that mean: within five deviations, and a test that edges exist.
    assert!(expected > 2.0 && (moved as f64 - expected).abs() < 5.0 * expected.sqrt() + 2.0, "{moved} of {expected}");
    assert!(off > 0);
}

#[test]
fn two_hidden_stages_and_none() {
    for (hidden, bits) in [(&[6, 5][..], 4), (&[], 4)] {
        let (circuit, bytes) = circuit(hidden, bits);
        assert_eq!(circuit.stages.len(), hidden.len());
        let secret = SecretKey::generate().unwrap();
        let engine = Engine::new(circuit.clone(), &secret.evaluation_key().unwrap(), 1).unwrap();
        let noise = Noise::of(&circuit);
        let trace = circuit.trace(&bytes[0]).unwrap();
        let odds = noise.odds(&circuit, &trace);
        let encrypted = secret.encrypt(&circuit, &bytes[0]).unwrap();
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Scores, &|| {}).unwrap();
        let logits = secret.decrypt(&circuit, &results).unwrap();
        let range = (1_i64 << circuit.logits.log2_range) as f64;
        for (found, wanted) in logits.iter().zip(&trace.logits) {
            let limit = if hidden.is_empty() { 6.0 * odds.margin_deviation } else { 0.35 * range };
            assert!(((found - wanted).abs() as f64) < limit, "{logits:?} {:?} of {range}", trace.logits);
        }
        let other = SecretKey::generate().unwrap().decrypt(&circuit, &results).unwrap();
        assert_ne!(other, logits);
    }
}

#[test]
fn labels_alone_are_the_oracles_but_where_scores_are_close() {
    let (circuit, bytes) = circuit(&[30], 5);
    let secret = SecretKey::generate().unwrap();
    let engine = Engine::new(circuit.clone(), &secret.evaluation_key().unwrap(), 2).unwrap();
    engine.check_answer(Answer::Label).unwrap();
    let secs = engine.image_secs();
    assert!(secs.of(Answer::Label) > secs.of(Answer::Scores) && secs.of(Answer::Scores) > 0.0);
    let noise = Noise::of(&circuit);
    let (mut same, mut labels) = (0, [0; 3]);
    for image in &bytes[..2 * IMAGES] {
        let trace = circuit.trace(image).unwrap();
        let encrypted = secret.encrypt(&circuit, image).unwrap();
        let done = std::sync::atomic::AtomicUsize::new(0);
        let count = || {
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Label, &count).unwrap();
        assert_eq!(done.into_inner(), 30 + 3 + 3);
        assert_eq!(results.len(), 3 * PARAMETERS.result_len());
        let wanted = (0..3).rev().max_by_key(|&class| trace.logits[class]).unwrap();
        let odds = noise.odds(&circuit, &trace);
        assert!(odds.explains(&trace.logits, wanted, Answer::Label));
        if let Some(label) = secret.decrypt_label(&circuit, &results).unwrap() {
            assert!(odds.explains(&trace.logits, label, Answer::Label), "{label}: {:?}", trace.logits);
            same += usize::from(label == wanted);
            labels[label] += 1;
        }
    }
    assert!(same >= 2 * IMAGES - 1 && labels.iter().filter(|&&count| count > 0).count() > 1, "{same} {labels:?}");
}

#[test]
fn wins_are_counted_for_any_number_of_classes() {
    // One value a class, so that the scores are what the tables say: all orders of them, equals among them.
    let (mut circuit, bytes) = circuit(&[4], 4);
    let rows = &mut circuit.logits.rows;
    *rows = Rows { starts: vec![0, 1, 2, 3, 4], columns: vec![0, 1, 2, 3], weights: vec![1; 4], bias: vec![0; 4] };
    circuit.logits.log2_range = 10;
    let secret = SecretKey::generate().unwrap();
    let key = secret.evaluation_key().unwrap();
    for (scores, wanted) in [([300, 900, -400, 100], 1), ([-5, -700, -300, -900], 0), ([0, 10, 500, 900], 3)] {
        circuit.stages[0].values = scores.iter().flat_map(|&score| [score; 16]).collect();
        let engine = Engine::new(circuit.clone(), &key, 1).unwrap();
        // Sums outside their tables would take the negative values.
        let trace = circuit.trace(&bytes[0]).unwrap();
        assert_eq!(trace.logits, scores.map(i64::from));
        let encrypted = secret.encrypt(&circuit, &bytes[0]).unwrap();
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Label, &|| {}).unwrap();
        assert_eq!(secret.decrypt_label(&circuit, &results).unwrap(), Some(wanted));
    }
}

#[test]
fn labels_alone_are_refused_where_they_cannot_be_told() {
    let (linear, bytes) = circuit(&[], 4);
    let noise = Noise::of(&linear);
    noise.check_answer(&linear, Answer::Scores).unwrap();
    assert!(matches!(noise.check_answer(&linear, Answer::Label), Err(ExactError::Answer { .. })));
    let secret = SecretKey::from_seed(Seed::new([7; 32]));
    let engine = Engine::new(linear.clone(), &secret.evaluation_key().unwrap(), 1).unwrap();
    let encrypted = secret.encrypt(&linear, &bytes[0]).unwrap();
    assert!(engine.run(&encrypted.seeds, &encrypted.bodies, Answer::Label, &|| {}).is_err());

    let (mut many, _) = circuit(&[4], 4);
    let mut classes = |count: u32| {
        many.logits.rows = Rows {
            starts: (0..=count).collect(),
            columns: vec![0; count as usize],
            weights: vec![1; count as usize],
            bias: vec![0; count as usize],
        };
        many.validate().unwrap();
        Noise::of(&many).check_answer(&many, Answer::Label)
    };
    assert!([2, 10, 32].map(&mut classes).iter().all(Result::is_ok));
    for count in [1, 100] {
        let refused = classes(count).unwrap_err().to_string();
        assert!(refused.contains(&format!("found {count} classes, expected 2 to ")), "{refused}");
    }
    // Results of scores, or damaged ones, are no labels.
    let (small, _) = circuit(&[4], 4);
    let quarter = vec![0x2000_u16; 3 * PARAMETERS.result_len()];
    let bodies = |values: [u16; 3]| {
        let mut results = vec![0; 3 * PARAMETERS.result_len()];
        values
            .iter()
            .enumerate()
            .for_each(|(class, &value)| results[(class + 1) * PARAMETERS.result_len() - 1] = value);
        secret.decrypt_label(&small, &results)
    };
    assert!(secret.decrypt_label(&small, &quarter[1..]).is_err());
    assert_eq!(bodies([0, 0x4000, 0]).unwrap(), Some(1));
    assert_eq!(bodies([0x0fff, 0xf001, 0x3001]).unwrap(), Some(2));
    assert_eq!(bodies([0; 3]).unwrap(), None);
    for broken in [[0x4000, 0x4000, 0], [0x8000, 0x4000, 0], [0, 0x4000, 0x2000]] {
        assert!(matches!(bodies(broken), Err(ExactError::Answer { .. })), "{broken:?}");
    }
}

#[test]
fn a_key_is_its_seed_and_what_does_not_fit_is_refused() {
    let key = SecretKey::from_seed(Seed::new([7; 32]));
    assert_eq!(key.id(), SecretKey::from_seed(Seed::new([7; 32])).id());
    assert_ne!(key.id(), SecretKey::from_seed(Seed::new([8; 32])).id());
    assert_eq!(key.id().len(), 32);
    let (circuit, bytes) = circuit(&[4], 4);
    assert!(key.encrypt(&circuit, &bytes[0][1..]).is_err());
    assert!(key.decrypt(&circuit, &[0; 5]).is_err());
    let [one, two] = [(); 2].map(|()| key.encrypt(&circuit, &bytes[0]).unwrap());
    assert_ne!((one.seeds, one.bodies), (two.seeds, two.bodies));
    let mut short = key.evaluation_key().unwrap();
    short.bootstrap.pop();
    assert!(matches!(Engine::new(circuit.clone(), &short, 1), Err(ExactError::Size { .. })));
    let mut fine = circuit.clone();
    fine.stages[0].bits = 9;
    assert!(matches!(Engine::new(fine, &short, 1), Err(ExactError::Circuit(_))));
}

#[test]
fn a_later_stage_with_wide_weights_would_drown_and_is_named() {
    let (mut circuit, _) = circuit(&[6, 5], 4);
    Noise::of(&circuit).check(&circuit).unwrap();
    circuit.stages[1].rows.weights.fill(30_000);
    let refused = Noise::of(&circuit).check(&circuit).unwrap_err();
    assert!(matches!(&refused, ExactError::Noise { stage, .. } if *stage == circuit.stages[1].name), "{refused}");
    let (mut circuit, _) = self::circuit(&[6], 4);
    circuit.logits.rows.weights.fill(30_000);
    assert!(Noise::of(&circuit).check(&circuit).unwrap_err().to_string().contains("logits' range"));
}
