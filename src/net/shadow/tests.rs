//! Shadows of random networks: near the floats at many bits, the circuit itself at few.

use super::*;
use crate::net::sample::{random_images, random_network};
use crate::net::{Calibration, NetError, lower};

const IMAGES: usize = 70;

fn samples() -> impl Iterator<Item = (Network, Calibration)> {
    (0..60u64).map(|seed| {
        let network = random_network(seed, seed as usize % 4, seed % 3 == 0);
        let images = random_images(&network, IMAGES, seed + 1000);
        (network, images)
    })
}

fn options(bits: u32) -> LowerOptions {
    LowerOptions { default_bits: bits, ..LowerOptions::default() }
}

/// What each quadratic layer reads in floats, `[layer][entry][image]`.
fn float_inputs(network: &Network, images: &Calibration) -> Vec<Vec<f64>> {
    let mut inputs = Vec::new();
    let shapes = network.value_shapes().unwrap();
    for (index, shape) in shapes.iter().enumerate().take(network.layers.len()) {
        if !matches!(network.layers[index].op, Op::Poly2 { .. }) {
            continue;
        }
        let mut rows = vec![Vec::new(); shape.iter().product()];
        let mut see = |layer: usize, values: &[f64], width: usize, count: usize| {
            if layer == index {
                rows.iter_mut().zip(values.chunks_exact(width)).for_each(|(row, values)| row.extend(&values[..count]));
            }
        };
        network.evaluate_traced(&images.x, images.images, &mut see).unwrap();
        inputs.push(rows.concat());
    }
    inputs
}

/// Largest difference where there is something to compare, relative to the layer's largest magnitude.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected).filter(|(found, _)| !found.is_nan());
    pairs.fold(0.0, |most: f64, (found, expected)| most.max((found - expected).abs())) / size
}

#[test]
fn inputs_of_quadratics_are_near_the_floats_at_16_bits_and_farther_at_4() {
    let (mut fine, mut coarse, mut compared) = (0.0, 0.0, 0);
    for (network, images) in samples() {
        let ranges = Ranges::measure(&network, &images).unwrap();
        let expected = float_inputs(&network, &images);
        let at = |bits| Shadow::new(&network, &options(bits), &ranges);
        let shadow = at(16).unwrap();
        let values = shadow.evaluate(&images.x, IMAGES).unwrap();
        assert_eq!(values.inputs.len(), network.squarings());
        for (layer, expected) in expected.iter().enumerate() {
            let error = distance(&values.inputs[layer], expected);
            assert!(error < 2e-3, "{}: quadratic {layer} is off by {error:e} at 16 bits", network.name);
            fine += error;
            let places = &shadow.layers()[layer].places;
            compared += places.iter().filter(|place| matches!(place, Place::Row { .. })).count();
            for (place, row) in places.iter().zip(values.inputs[layer].chunks_exact(IMAGES)) {
                assert_eq!(*place == Place::Unread, row[0].is_nan());
            }
        }
        // At 4 bits a logit may lose all its weights, which is refused.
        if let Ok(rough) = at(4) {
            let values = rough.evaluate(&images.x, IMAGES).unwrap();
            assert_eq!(values.logits, rough.circuit().evaluate_batch(&images.x, IMAGES).unwrap());
            coarse +=
                values.inputs.iter().zip(&expected).map(|(found, expected)| distance(found, expected)).sum::<f64>();
        }
    }
    assert!(compared > 2000, "only {compared} neurons were compared");
    assert!(coarse > 100.0 * fine, "12 bits fewer make errors {} times larger", coarse / fine);
}

#[test]
fn a_shadow_is_the_circuit_that_lowering_gives() {
    for (network, images) in samples().step_by(7) {
        for bits in [5, 8, 12] {
            let ranges = Ranges::measure(&network, &images).unwrap();
            let (Ok(shadow), Ok(mut circuit)) =
                (Shadow::new(&network, &options(bits), &ranges), lower(&network, &options(bits), &images))
            else {
                continue;
            };
            for (stage, own) in circuit.stages.iter_mut().zip(&shadow.circuit().stages) {
                stage.stats = own.stats;
            }
            circuit.input_stats = shadow.circuit().input_stats;
            assert_eq!(*shadow.circuit(), circuit, "{} at {bits} bits", network.name);
            let stages = circuit.evaluate_stages_batch(&images.x, IMAGES).unwrap();
            let values = shadow.evaluate(&images.x, IMAGES).unwrap();
            for (layer, inputs) in shadow.layers().iter().zip(&values.inputs) {
                for (place, x) in layer.places.iter().zip(inputs.chunks_exact(IMAGES)) {
                    if let Place::Row { stage, row, factor, shift } = *place {
                        let z = stages[stage][row * IMAGES + 69];
                        assert_eq!(z / factor - shift, x[69]);
                    }
                }
            }
        }
    }
}

#[test]
fn neurons_that_vanish_say_so() {
    let mut places = Vec::new();
    for (network, images) in samples() {
        let ranges = Ranges::measure(&network, &images).unwrap();
        let Ok(shadow) = Shadow::new(&network, &options(4), &ranges) else { continue };
        places.extend(shadow.layers().iter().flat_map(|layer| layer.places.clone()));
    }
    let has = |kind: fn(&Place) -> bool| places.iter().filter(|place| kind(place)).count();
    assert!(has(|place| matches!(place, Place::Constant(_))) > 0, "no neuron rounded to a constant");
    assert!(has(|place| *place == Place::Unread) > 0, "no neuron lost its readers");
    assert!(has(|place| matches!(place, Place::Row { shift, .. } if *shift == 0.0)) > 0, "no neuron read by value");
}

#[test]
fn ranges_of_another_network_and_broken_weights_are_refused() {
    let (network, other) = (random_network(5, 2, false), random_network(6, 2, false));
    let images = random_images(&network, 8, 1);
    let ranges = Ranges::measure(&other, &random_images(&other, 8, 1)).unwrap();
    assert!(Shadow::new(&network, &options(8), &ranges).unwrap_err().to_string().contains("ranges"));
    let ranges = Ranges::measure(&network, &images).unwrap();
    let shadow = Shadow::new(&network, &options(8), &ranges).unwrap();
    assert!(matches!(shadow.evaluate(&images.x[1..], 8), Err(NetError::Mismatch { .. })));
    let mut broken = network;
    for layer in &mut broken.layers {
        if let Op::Poly2 { b, .. } = &mut layer.op {
            b[0] = f32::NAN;
        }
    }
    assert!(matches!(Shadow::new(&broken, &options(8), &ranges), Err(NetError::NotFinite { .. })));
}
