//! Ranges of random networks against figures computed one value at a time; chunks, merging, refusals.

use super::observation::{bin, upper_edge};
use super::*;
use crate::net::Calibration;
use crate::net::calibration::Ranges;
use crate::net::sample::{random_images, random_network};

const IMAGES: usize = 200;

fn sample(seed: u64) -> (Network, Calibration, Vec<f64>) {
    let network = random_network(seed, 2, false);
    let images = random_images(&network, IMAGES, seed);
    let few = random_images(&network, 20, seed + 1);
    let limits = Ranges::measure(&network, &few).unwrap().limits();
    (network, images, limits)
}

/// Images `range` of `[entry][image]` values.
fn part(images: &Calibration, range: std::ops::Range<usize>) -> Vec<f64> {
    images.x.chunks_exact(IMAGES).flat_map(|row| row[range.clone()].to_vec()).collect()
}

/// All values a layer reads, `[image][entry]`; the logits for a layer beyond the last.
fn values(network: &Network, images: &Calibration, layer: usize) -> Vec<Vec<f64>> {
    let mut all = vec![Vec::new(); IMAGES];
    for (image, values) in all.iter_mut().enumerate() {
        let logits = network
            .evaluate_traced(&part(images, image..image + 1), 1, &mut |index, input, width, _| {
                if index == layer {
                    *values = input.chunks_exact(width).map(|row| row[0]).collect();
                }
            })
            .unwrap();
        if layer == network.layers.len() {
            *values = logits;
        }
    }
    all
}

#[test]
fn figures_are_those_of_every_value() {
    for seed in 0..12 {
        let (network, images, limits) = sample(seed);
        let report = network.observe_ranges(&images.x, IMAGES, 0, &limits).unwrap().report();
        report.validate(&network).unwrap();
        assert_eq!((report.images, report.layers.len()), (IMAGES as u64, 2));
        let logits = [(network.layers.len(), &report.logits)];
        let layers = report.layers.iter().map(|range| (range.layer, &range.values)).chain(logits);
        for ((layer, found), limit) in layers.zip(limits) {
            let values = values(&network, &images, layer);
            let largest = |values: &Vec<f64>| values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
            let mut magnitudes: Vec<f64> = values.iter().flatten().map(|value| value.abs()).collect();
            let rms = (magnitudes.iter().map(|x| x * x).sum::<f64>() / magnitudes.len() as f64).sqrt();
            magnitudes.sort_by(f64::total_cmp);
            let exact = magnitudes[(0.999 * magnitudes.len() as f64).ceil() as usize - 1];
            assert_eq!(found.min, values.iter().flatten().fold(f64::MAX, |least, &value| least.min(value)));
            assert_eq!(found.max, values.iter().flatten().fold(f64::MIN, |most, &value| most.max(value)));
            assert!((found.rms / rms - 1.0).abs() < 1e-12, "rms {} is not {rms}", found.rms);
            assert!(found.quantile >= exact && found.quantile <= exact * (1.0 + 1.0 / 64.0), "{found:?}: {exact}");
            assert_eq!(found.limit, limit);
            let beyond = values.iter().filter(|values| largest(values) > limit).count() as u64;
            assert_eq!(found.images_beyond, beyond);
            let mut worst: Vec<usize> = (0..IMAGES).collect();
            worst.sort_by(|&a, &b| largest(&values[b]).total_cmp(&largest(&values[a])).then(a.cmp(&b)));
            let named: Vec<usize> = found.worst.iter().map(|worst| worst.image as usize).collect();
            assert_eq!(named, worst[..WORST_IMAGES]);
            for worst in &found.worst {
                assert!(values[worst.image as usize].contains(&worst.value));
            }
        }
    }
}

#[test]
fn chunks_merge_to_the_whole() {
    let (network, images, limits) = sample(3);
    let whole = network.observe_ranges(&images.x, IMAGES, 100, &limits).unwrap();
    let cuts = [0, 64, 65, 130, IMAGES];
    let mut merged: Option<RangeObservation> = None;
    for pair in cuts.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let chunk = network.observe_ranges(&part(&images, from..to), to - from, 100 + from as u64, &limits).unwrap();
        match &mut merged {
            None => merged = Some(chunk),
            Some(merged) => merged.merge(&chunk).unwrap(),
        }
    }
    let (mut found, expected) = (merged.unwrap().report(), whole.report());
    for (found, expected) in found.layers.iter_mut().zip(&expected.layers) {
        assert!((found.values.rms / expected.values.rms - 1.0).abs() < 1e-12);
        found.values.rms = expected.values.rms;
    }
    found.logits.rms = expected.logits.rms;
    assert_eq!(found, expected);
    assert!(expected.logits.worst.iter().all(|worst| (100..300).contains(&worst.image)));
}

#[test]
fn the_worst_images_overall_are_the_largest_of_any_layer() {
    let (network, images, limits) = sample(5);
    let report = network.observe_ranges(&images.x, IMAGES, 0, &limits).unwrap().report();
    let worst = report.worst_images();
    assert_eq!(worst.len(), WORST_IMAGES);
    let mut largest = vec![0.0f64; IMAGES];
    for range in &report.layers {
        for (image, values) in values(&network, &images, range.layer).iter().enumerate() {
            largest[image] = values.iter().fold(largest[image], |most, value| most.max(value.abs()));
        }
    }
    let mut sorted = largest.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for ((_, worst), expected) in worst.iter().zip(sorted) {
        assert_eq!((worst.value.abs(), largest[worst.image as usize]), (expected, expected));
    }
}

#[test]
fn a_magnitude_lies_below_the_edge_of_its_bin_and_near_it() {
    for value in [1.0, 0.999_999, -3.7, 1e-9, 123_456.789, 2f64.powi(31)] {
        let edge = upper_edge(bin(value));
        assert!(value.abs() < edge && edge <= value.abs() * (1.0 + 1.0 / 64.0), "{value}: {edge}");
        assert!(upper_edge(bin(value) - 1) <= value.abs());
    }
    assert_eq!((bin(0.0), bin(1e-300), upper_edge(bin(1e300))), (0, 0, f64::INFINITY));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (network, images, limits) = sample(2);
    let observe = |x: &[f64], images, limits: &[f64]| network.observe_ranges(x, images, 0, limits);
    assert!(observe(&images.x, IMAGES, &limits[1..]).unwrap_err().to_string().contains("length of limits is 2"));
    assert!(observe(&images.x, IMAGES, &[-1.0, 1.0, 1.0]).unwrap_err().to_string().contains("limit is -1"));
    assert!(observe(&[], 0, &limits).unwrap_err().to_string().contains("images is 0"));
    assert!(observe(&images.x[1..], IMAGES, &limits).is_err());
    let mut huge = images.x.clone();
    huge[7] = 1e200;
    let refused = observe(&huge, IMAGES, &limits).unwrap_err().to_string();
    assert!(refused.contains("a value it reads is not finite"), "{refused}");
    let mut chunk = observe(&part(&images, 0..8), 8, &limits).unwrap();
    let again = chunk.clone();
    let refused = chunk.merge(&again).unwrap_err().to_string();
    assert!(refused.contains("first image of the next chunk is 0, expected 8"), "{refused}");
    let doubled: Vec<f64> = limits.iter().map(|limit| 2.0 * limit).collect();
    let other = network.observe_ranges(&part(&images, 8..16), 8, 8, &doubled).unwrap();
    assert!(chunk.merge(&other).is_err());
    assert_eq!(chunk, again, "a refused merge must change nothing");
}

/// Spoils one thing.
type Spoil = fn(&mut RangeReport);

#[test]
fn reports_that_contradict_themselves_are_refused() {
    let (network, images, limits) = sample(4);
    let good = network.observe_ranges(&images.x, IMAGES, 0, &limits).unwrap().report();
    let spoilt: [(&str, Spoil); 14] = [
        ("images is 0", |report| report.images = 0),
        ("quadratic layers", |report| report.layers[0].layer += 1),
        ("quadratic layers", |report| report.layers.truncate(1)),
        ("figures of the range[0] is NaN", |report| report.logits.min = f64::NAN),
        ("smallest value", |report| report.logits.min = report.logits.max + 1.0),
        ("root mean square", |report| report.layers[1].values.rms = 1e9),
        ("quantile", |report| report.layers[1].values.quantile = -1.0),
        ("limit", |report| report.logits.limit = -1.0),
        ("images beyond", |report| report.logits.images_beyond = 201),
        ("worst images", |report| report.layers[0].values.worst.truncate(7)),
        ("worst image is 200", |report| report.layers[0].values.worst[3].image = 200),
        ("twice", |report| report.layers[0].values.worst[3].image = report.layers[0].values.worst[5].image),
        ("order of the worst", |report| report.layers[0].values.worst.swap(2, 3)),
        ("worst value", |report| report.layers[0].values.worst[0].value *= 2.0),
    ];
    good.validate(&network).unwrap();
    for (what, spoil) in spoilt {
        let mut report = good.clone();
        spoil(&mut report);
        let error = report.validate(&network).unwrap_err().to_string();
        assert!(error.contains(what), "{error:?} does not say {what:?}");
    }
}
