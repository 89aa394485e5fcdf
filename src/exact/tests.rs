//! The engine against the integer oracle, neuron by neuron and logit by logit; parameters; refusals.

use super::secret::SecretKey;
use super::*;
use crate::net::network::{InputSpec, Layer, Op};
use crate::net::sample::Random;
use crate::net::tables::{TableOptions, quantise};
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
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, &count).unwrap();
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
        let results = engine.run(&encrypted.seeds, &encrypted.bodies, &|| {}).unwrap();
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
