//! Plans of hand-made circuits: security, exact scales, headroom, passes that lose nothing.

use super::defaults::defaults;
use super::passes::{Live, Pass, last_reads, passes};
use super::rates::{Rates, Unit};
use super::{After, PlanError, Requirements, cost, scales};
use crate::ckks::security;
use crate::net::circuit::{Block, Circuit, Feature, FeatureKind, LinearMap, Source, Stage, StageStats};
use crate::ring::kernels::Kernel;

/// Fully connected layers of the widths given, squares between them.
pub(crate) fn dense_circuit(widths: &[usize]) -> Circuit {
    let stats = |gain: f64| StageStats { max_abs: 4.0, max_rms: 1.0, noise_gain: gain / 3.0, noise_gain_worst: gain };
    let stages = (1..widths.len())
        .map(|k| {
            let (inputs, outputs) = (widths[k - 1], widths[k]);
            let (source, kind) = match k {
                1 => (Source::Input, FeatureKind::Value),
                _ => (Source::Stage(k - 2), FeatureKind::Square),
            };
            let weights = (0..inputs * outputs).map(|i| ((i * 37) % 255) as i16 - 127).collect();
            Stage {
                name: format!("dense {inputs} -> {outputs}"),
                features: (0..inputs as u32).map(|entry| Feature { source, kind, entry }).collect(),
                map: LinearMap {
                    outputs,
                    blocks: vec![Block {
                        rows: (0..outputs as u32).collect(),
                        columns: (0..inputs as u32).collect(),
                        weights,
                    }],
                    bias: vec![0.25; outputs],
                    weight_scale: 150.0 * inputs as f64,
                    weight_bits: 8,
                },
                stats: stats(6.0),
            }
        })
        .collect();
    Circuit { input_shape: [1, 1, widths[0]], input_stats: stats(4.0), stages }
}

#[test]
fn every_depth_is_planned_or_refused_inside_the_table() {
    let mut degrees = Vec::new();
    for depth in 1..60 {
        let circuit = dense_circuit(&vec![4; depth + 1]);
        match scales::plan(&circuit, &Requirements::default()) {
            Ok(plan) => {
                let row = security::row(plan.slots()).unwrap();
                assert!(plan.parameters.log_qp_bits() <= f64::from(row.classical_bits));
                assert!(plan.precision.promised_bits >= 9.98, "depth {depth}: {:?}", plan.precision);
                assert!(plan.precision.typical_bits > plan.precision.promised_bits);
                assert!(plan.precision.promised_public_bits < plan.precision.promised_bits);
                degrees.push(plan.slots());
            }
            Err(PlanError::TooDeep { degree: 65536, .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(degrees.windows(2).all(|w| w[0] <= w[1]) && degrees[0] == 4096 && *degrees.last().unwrap() == 65536);
}

#[test]
fn scales_are_exact_and_nothing_wraps() {
    let circuit = dense_circuit(&[20, 16, 12, 8, 4]);
    let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
    let moduli = plan.parameters.moduli();
    assert_eq!(plan.stages[0].after, After::Fused);
    assert_eq!(plan.output().after, After::Output);
    let mut limbs = moduli.len();
    for (k, (stage, layer)) in plan.stages.iter().zip(&circuit.stages).enumerate() {
        assert_eq!(stage.limbs, limbs);
        let before = if k == 0 { plan.input_scale } else { plan.stages[k - 1].output_scale.powi(2) };
        assert_eq!(stage.feature_scale, before);
        assert_eq!(stage.product_scale, before * layer.map.weight_scale);
        let modulus: f64 = moduli[..limbs].iter().map(|&q| (q as f64).log2()).sum();
        assert!((stage.product_scale * stage.range).log2() < modulus - 1.0, "stage {k} wraps");
        assert!(stage.spare_bits > 0.0);
        if stage.after == After::KeySwitch {
            limbs -= 1;
            assert_eq!(stage.output_scale, stage.product_scale / moduli[limbs] as f64);
        }
        assert_eq!(stage.output_limbs, limbs);
    }
}

#[test]
fn more_precision_and_headroom_cost_modulus() {
    let circuit = dense_circuit(&[20, 16, 12]);
    let bits = |promised_bits, headroom| {
        scales::plan(&circuit, &Requirements { promised_bits, headroom }).unwrap().parameters.log_qp_bits()
    };
    assert!(bits(14.0, 8.0) > bits(10.0, 8.0) + 3.0);
    assert!(bits(10.0, 800.0) > bits(10.0, 8.0) + 5.0);
}

#[test]
fn bad_requirements_and_figures_are_refused() {
    let circuit = dense_circuit(&[4, 4, 4]);
    for (promised_bits, headroom) in [(f64::NAN, 8.0), (1.0, 8.0), (60.0, 8.0), (10.0, 0.5), (10.0, f64::INFINITY)] {
        let found = scales::plan(&circuit, &Requirements { promised_bits, headroom });
        assert!(matches!(found, Err(PlanError::Requirement { .. })));
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut circuit = circuit.clone();
        circuit.stages[1].stats.noise_gain_worst = bad;
        assert!(matches!(scales::plan(&circuit, &Requirements::default()), Err(PlanError::Stats { .. })));
    }
}

#[test]
fn base_primes_give_up_spare_bits_for_a_byte_and_no_more() {
    // 80.4 bits in two primes of five bytes: within half a spare bit. 80.6 are not.
    assert!(scales::base_width(80.4, 2) < (1u64 << 40) as f64);
    assert!((scales::base_width(80.6, 2).log2() - 40.32).abs() < 1e-9);
    // Nor are primes made wider, or narrower than the narrowest.
    assert!((scales::base_width(78.0, 2).log2() - 39.02).abs() < 1e-9);
    assert!(scales::base_width(64.2, 2) > (1u64 << 32) as f64);
}

#[test]
fn special_primes_are_several_where_they_save_work_and_spare_post_quantum_security() {
    let shape = |widths: &[usize], promised_bits: f64| {
        let requirements = Requirements { promised_bits, ..Requirements::default() };
        let plan = scales::plan(&dense_circuit(widths), &requirements).unwrap();
        let row = security::row(plan.slots()).unwrap();
        let parameters = &plan.parameters;
        assert!(plan.precision.promised_bits >= promised_bits - 0.02, "{widths:?}");
        let bits = parameters.log_qp_bits();
        assert!(bits <= f64::from(row.classical_bits), "{widths:?}");
        (parameters.special().len(), parameters.digit_limbs(), bits <= f64::from(row.quantum_bits))
    };
    // Deep enough for the ring of 16384, with room to spare: fewer, longer digits.
    let (special, digit_limbs, quantum) = shape(&[20, 16, 16, 12, 12, 8, 4], 10.0);
    assert!(special > 1 && digit_limbs > 1 && quantum, "{special} special primes, {digit_limbs} limbs a digit");
    // One switch of three limbs: two special primes would save a sixth of its work and cost post-quantum security.
    assert_eq!(shape(&[20, 16, 8, 4], 8.0), (1, 2, true));
}

/// The very plan of a circuit, so that no change of arithmetic or platform moves it unseen.
#[test]
fn a_plan_is_pinned() {
    let plan = scales::plan(&dense_circuit(&[20, 16, 12, 8, 4]), &Requirements::default()).unwrap();
    let found = (plan.slots(), plan.parameters.moduli().to_vec(), plan.parameters.special().to_vec(), plan.input_scale);
    let moduli = vec![395_606_425_601, 395_605_966_849, 35_149_187_645_441, 562_949_952_798_721];
    assert_eq!(found, (8192, moduli, vec![17_179_967_489], 10_719_232.0));
}

#[test]
fn absurd_circuits_are_refused_at_once() {
    let refused = |change: &dyn Fn(&mut Circuit)| {
        let mut circuit = dense_circuit(&[4, 4, 4, 4]);
        change(&mut circuit);
        scales::plan(&circuit, &Requirements::default()).map(|plan| plan.slots()).unwrap_err().to_string()
    };
    for scale in [1e300, 1e-300, 0.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&|c| c.stages[1].map.weight_scale = scale).contains("weight scale"), "{scale}");
        assert!(refused(&|c| c.stages[0].map.weight_scale = scale).contains("weight scale"), "{scale}");
    }
    for bias in [1e300, f64::NAN, f64::NEG_INFINITY] {
        assert!(refused(&|c| c.stages[2].map.bias[1] = bias).contains("bias"), "{bias}");
    }
    assert!(refused(&|c| c.stages[1].stats.max_rms = 1e-200).contains("root mean square"));
    assert!(refused(&|c| c.stages[0].features[2].kind = FeatureKind::Square).contains("squared inputs"));
    assert!(refused(&|c| c.stages = vec![c.stages[1].clone(); 5000]).contains("5000 stages"));
}

#[test]
fn ids_tell_plans_and_models_apart() {
    let circuit = dense_circuit(&[20, 16, 12]);
    let id = |bits, model| {
        let requirements = Requirements { promised_bits: bits, ..Requirements::default() };
        scales::plan(&circuit, &requirements).unwrap().id(&[model; 32])
    };
    assert_eq!(id(10.0, 1), id(10.0, 1));
    assert_ne!(id(10.0, 1), id(10.5, 1));
    assert_ne!(id(10.0, 1), id(10.0, 2));
}

/// Passes cover each output once and restate exactly the stage's products.
#[test]
fn passes_restate_the_map() {
    for widths in [&[20, 16, 12, 8][..], &[700, 3000, 3000, 10]] {
        let circuit = dense_circuit(widths);
        let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
        for (k, stage) in circuit.stages.iter().enumerate() {
            let list = passes(&circuit, &plan, k, &Live::new(&circuit));
            if plan.stages[k].after == After::Fused {
                assert!(list.is_empty());
                continue;
            }
            let mut rows: Vec<u32> = list.iter().flat_map(|p| p.rows.iter().copied()).collect();
            rows.sort_unstable();
            assert!(rows.into_iter().eq(0..stage.map.outputs as u32));
            let block = &stage.map.blocks[0];
            for pass in &list {
                assert!(pass.tile_columns >= 16 && pass.tile_columns.is_power_of_two());
                assert!(pass.band_columns >= pass.tile_columns && pass.band_columns.is_power_of_two());
                for local in &pass.blocks {
                    for (r, &row) in local.rows.iter().enumerate() {
                        let original = pass.rows[row as usize] as usize;
                        for (c, &column) in local.columns.iter().enumerate() {
                            let entry = pass.features[column as usize].entry as usize;
                            let weight = local.weights[r * local.columns.len() + c];
                            assert_eq!(weight, block.weights[original * block.columns.len() + entry]);
                        }
                    }
                }
                if k == 1 {
                    assert_eq!(pass.fused_rows.len(), widths[1]);
                    assert_eq!(pass.inputs.len(), widths[0]);
                }
            }
        }
    }
}

/// What nothing reads after a pass is free after it, and not before.
#[test]
fn memory_of_read_passes_is_free() {
    let circuit = dense_circuit(&[20, 8, 8, 8]);
    let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
    let whole = passes(&circuit, &plan, 2, &Live::new(&circuit)).remove(0);
    let reading = |entries: &[u32]| {
        let features = whole.features.iter().filter(|f| entries.contains(&f.entry)).copied().collect();
        Pass { features, ..whole.clone() }
    };
    let list = [reading(&[0, 1, 2]), reading(&[1, 2, 3]), reading(&[6])];
    // Rows of stage 1, two a pass; of the third pass nothing is read.
    let pass_of_row = |row: u32| Some(row as usize / 2);
    assert_eq!(last_reads(&list, 1, 4, pass_of_row), [1, 1, 0, 2]);
    assert_eq!(last_reads(&list, 0, 4, pass_of_row), [0; 4]);
}

/// Sets the weights of some columns of a stage's only block to zero, as pruning the neurons behind them does.
fn prune(circuit: &mut Circuit, stage: usize, columns: &[usize]) {
    let block = &mut circuit.stages[stage].map.blocks[0];
    for row in block.weights.chunks_exact_mut(block.columns.len()) {
        columns.iter().for_each(|&column| row[column] = 0);
    }
}

/// What only zeros connect is neither loaded nor computed nor switched, and costs nothing.
#[test]
fn pruned_neurons_vanish_from_passes() {
    let whole = dense_circuit(&[20, 16, 12, 8]);
    let mut pruned = whole.clone();
    prune(&mut pruned, 1, &[3, 7]);
    prune(&mut pruned, 2, &[5]);
    prune(&mut pruned, 0, &[11]);
    let plan = scales::plan(&pruned, &Requirements::default()).unwrap();
    let live = Live::new(&pruned);
    let without = |count: u32, gone: &[u32]| -> Vec<u32> { (0..count).filter(|row| !gone.contains(row)).collect() };
    assert_eq!(live.rows(0).collect::<Vec<_>>(), without(16, &[3, 7]));
    assert_eq!(live.rows(1).collect::<Vec<_>>(), without(12, &[5]));
    assert_eq!(live.rows(2).count(), 8);
    let [first, last] = [1, 2].map(|stage| passes(&pruned, &plan, stage, &live).remove(0));
    assert_eq!((first.rows, first.fused_rows), (without(12, &[5]), without(16, &[3, 7])));
    assert_eq!((first.features.len(), first.inputs), (14, without(20, &[11])));
    assert_eq!((last.rows.len(), last.features.len()), (8, 11));
    let rates = defaults(Kernel::portable(), 1);
    let [less, more] = [&pruned, &whole].map(|circuit| cost::cost(circuit, &plan, &rates));
    assert_eq!((less.stages[1].key_switches, more.stages[1].key_switches), (11, 12));
    assert!(less.batch_secs < more.batch_secs && less.peak_bytes < more.peak_bytes);
}

/// Seconds are those of the stages and what surrounds them, fewer on more threads, and a pure function of the rates.
#[test]
fn seconds_follow_the_rates() {
    let circuit = dense_circuit(&[200, 160, 120, 8]);
    let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
    let at = |change: &dyn Fn(&mut Rates)| {
        let mut rates = defaults(Kernel::portable(), 1);
        change(&mut rates);
        cost::cost(&circuit, &plan, &rates)
    };
    let base = at(&|_| {});
    let stages: f64 = base.stages.iter().map(|s| s.tiles_secs + s.polynomials_secs).sum();
    assert!((base.batch_secs - (base.check_secs + stages + base.write_secs)).abs() < 1e-12);
    assert_eq!(at(&|_| {}), base);
    let two = at(&|rates| rates.threads = 2);
    assert!(two.batch_secs < base.batch_secs && two.batch_secs > 0.5 * base.batch_secs);
    assert_eq!(two.write_secs, base.write_secs);
    for unit in [Unit::WordProduct, Unit::Square, Unit::Expand, Unit::Butterfly, Unit::Pointwise, Unit::DigestByte] {
        let slower = at(&|rates| rates.unit_secs.set(unit, 3.0 * rates.unit_secs.get(unit)));
        assert!(slower.batch_secs > base.batch_secs, "{}", unit.name());
    }
}

/// A layer with more outputs than squares has these relinearised, if it alone reads them and nothing but squares of them.
#[test]
fn squares_are_relinearised_first_where_that_is_less_work() {
    let circuit = dense_circuit(&[20, 64, 64, 200, 16, 4]);
    let plan = scales::plan(&circuit, &Requirements::default()).unwrap();
    let squared = |circuit: &Circuit| -> Vec<bool> {
        scales::plan(circuit, &Requirements::default()).unwrap().stages.iter().map(|stage| stage.squared).collect()
    };
    assert_eq!(squared(&circuit), [false, true, false, false, false]);
    assert_eq!(plan.stages.iter().map(|stage| stage.components).collect::<Vec<_>>(), [2, 3, 2, 3, 3]);
    assert!(plan.precision.promised_bits >= 9.98, "{:?}", plan.precision);
    let cost = cost::cost(&circuit, &plan, &defaults(Kernel::portable(), 1));
    assert_eq!(cost.stages.iter().map(|stage| stage.key_switches).collect::<Vec<_>>(), [0, 128, 0, 16, 0]);

    // It decides the bytes of results, so plans that differ by it alone have different ids.
    let mut lazy = plan.clone();
    lazy.stages[1].squared = false;
    assert_ne!(lazy.id(&[1; 32]), plan.id(&[1; 32]));
    let mut switched = plan.clone();
    switched.stages[2].components = 3;
    assert_ne!(switched.id(&[1; 32]), plan.id(&[1; 32]));

    let mut read_twice = circuit.clone();
    read_twice.stages[3].features[0] = Feature { source: Source::Stage(1), kind: FeatureKind::Square, entry: 0 };
    let mut as_value = circuit.clone();
    as_value.stages[2].features[0].kind = FeatureKind::Value;
    let mut mixed = circuit.clone();
    mixed.stages[2].features[0].source = Source::Stage(0);
    for (circuit, what) in [(read_twice, "read twice"), (as_value, "a value"), (mixed, "squares of two stages")] {
        assert_eq!(squared(&circuit), [false; 5], "{what}");
    }
}

#[test]
fn transforms_of_a_key_switch_are_the_known_counts() {
    // ENGINE section 4: 12, 20, 30 for two, three, four limbs and one special prime.
    let count = |limbs| cost::key_switch_transforms(limbs, 1, 1);
    assert_eq!([count(2), count(3), count(4)], [12, 20, 30]);
}
