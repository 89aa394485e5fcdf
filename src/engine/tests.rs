//! The engine against the integer oracle, on random networks of every layer kind in small rings.

use super::{Checkpoints, Engine, EngineError, Event, Inputs, Piece, Results, State};
use crate::ckks::Context;
use crate::ckks::secret::{Decryptor, SecretEncryptor, SecretKey};
use crate::format::FormatError;
use crate::net::sample::{dense_network, random_images, random_network};
use crate::net::{Calibration, Circuit, LowerOptions, lower};
use crate::plan::{After, Plan, Requirements, scales};
use crate::ring::kernels::{BlockWork, Kernel, Magnitudes};
use crate::ring::sampling::Stream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// An encrypted batch in memory.
pub(crate) struct MemoryBatch<'a> {
    context: &'a Context,
    c0: Vec<Vec<u64>>,
    masks: Stream,
}

impl<'a> MemoryBatch<'a> {
    /// Encrypts entry-major `[entry][slot]` values.
    pub(crate) fn encrypt(context: &'a Context, key: &SecretKey, scale: f64, x: &[f64]) -> Self {
        let n = context.degree();
        let encryptor = SecretEncryptor::new(context, key, scale).unwrap();
        let mut scratch = encryptor.scratch();
        let c0 = x
            .chunks_exact(n)
            .enumerate()
            .map(|(entry, slots)| {
                let mut out = vec![0; context.limbs() * n];
                encryptor.encrypt_into(entry as u32, &mut slots.to_vec(), &mut scratch, &mut out).unwrap();
                out
            })
            .collect();
        Self { context, c0, masks: Stream::new(encryptor.mask_seed()) }
    }
}

impl Inputs for MemoryBatch<'_> {
    fn load_into(
        &self,
        component: usize,
        limb: usize,
        entry: usize,
        first: usize,
        out: &mut [u64],
    ) -> Result<(), FormatError> {
        if component == 0 {
            out.copy_from_slice(&self.c0[entry][limb * self.context.degree() + first..][..out.len()]);
        } else {
            self.masks.uniform_into(self.context.modulus(limb), entry as u32, limb as u32, first, out);
        }
        Ok(())
    }
}

/// Logits `[class][slot]` of results.
fn decrypt(context: &Context, key: &SecretKey, plan: &Plan, results: &Results) -> Vec<f64> {
    let n = context.degree();
    let mut decryptor = Decryptor::new(context);
    let words = results.components * results.limbs * n;
    let scale = plan.output().output_scale;
    let mut logits = vec![0.0; results.outputs * n];
    for (ciphertext, out) in results.residues.chunks_exact(words).zip(logits.chunks_exact_mut(n)) {
        let mut residues = ciphertext.to_vec();
        key.decrypt_into(context, &mut residues, results.limbs, scale, plan.output_limit(), &mut decryptor, out)
            .unwrap();
    }
    logits
}

/// Everything that one network is checked for; the measured precision in bits.
fn check_network(circuit: &Circuit, images: &Calibration, degree: usize, what: &str) -> f64 {
    let plan = scales::insecure_plan(circuit, &Requirements::default(), degree).unwrap();
    let kernels = Kernel::present();
    let context = Context::new(plan.parameters.clone(), *kernels.last().unwrap()).unwrap();
    let key = SecretKey::generate(&context).unwrap();
    let evaluation_key = key.evaluation_key(&context).unwrap();
    let batch = MemoryBatch::encrypt(&context, &key, plan.input_scale, &images.x);
    let expected = circuit.evaluate_stages_batch(&images.x, degree).unwrap();

    let engine = |kernel, threads| {
        Engine::new(circuit.clone(), plan.clone(), Some(evaluation_key.clone()), kernel, threads).unwrap()
    };
    // Stored stages, decrypted at the level and scale that the plan says: another scale would be off by far more than noise.
    let stored = Mutex::new(Vec::new());
    let results = engine(*kernels.last().unwrap(), 2)
        .run_watched(
            &batch,
            &|_| {},
            &AtomicBool::new(false),
            Some(&mut |stage, row, polynomial| {
                assert_eq!(plan.stages[stage].after, After::KeySwitch);
                stored.lock().unwrap().push((stage, row, polynomial.to_vec()));
            }),
            None,
        )
        .unwrap();
    for (stage, row, polynomial) in stored.into_inner().unwrap() {
        let stage_plan = &plan.stages[stage];
        assert_eq!(polynomial.len(), 2 * stage_plan.output_limbs * degree, "{what}: level of stage {stage}");
        let mut coefficients = polynomial;
        for (at, limb) in coefficients.chunks_exact_mut(degree).enumerate() {
            context.ntt(at % stage_plan.output_limbs).inverse_assign(limb);
        }
        let limbs = stage_plan.output_limbs.min(2);
        let per = stage_plan.output_limbs * degree;
        let mut low: Vec<u64> =
            [0, 1].iter().flat_map(|c| coefficients[c * per..][..limbs * degree].to_vec()).collect();
        let mut values = vec![0.0; degree];
        let powered = |x: f64| if stage_plan.squared { x * x } else { x };
        key.decrypt_into(
            &context,
            &mut low,
            limbs,
            powered(stage_plan.output_scale),
            powered(stage_plan.range),
            &mut Decryptor::new(&context),
            &mut values,
        )
        .unwrap();
        for (slot, value) in values.iter().enumerate() {
            let oracle = powered(expected[stage][row * degree + slot]);
            assert!(
                (value - oracle).abs() < 0.02,
                "{what}: stage {stage} row {row} slot {slot}: {value} against {oracle}"
            );
        }
    }
    for &kernel in &kernels {
        for threads in [1, 2] {
            assert_eq!(
                engine(kernel, threads).run(&batch, &|_| {}).unwrap(),
                results,
                "{what}: {} x {threads}",
                kernel.name()
            );
        }
    }
    check_states(&engine(kernels[0], 2), &batch, &results, what);
    let logits = decrypt(&context, &key, &plan, &results);
    let oracle = expected.last().unwrap();
    let worst = logits.iter().zip(oracle).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let bits = -worst.log2();
    assert!(
        bits >= plan.precision.promised_bits,
        "{what}: {bits:.2} bits measured, {:.2} promised",
        plan.precision.promised_bits
    );
    bits
}

/// States kept in memory; the first is gone on with.
#[derive(Default)]
struct Kept {
    states: Vec<(usize, Vec<Piece<Vec<u8>>>)>,
    goes_on: bool,
}

impl Checkpoints for Kept {
    fn next(&self) -> Option<usize> {
        self.goes_on.then(|| self.states[0].0)
    }

    fn load_into(&self, stage: usize, pass: usize, out: &mut [u8]) -> Result<(), FormatError> {
        let piece = self.states[0].1.iter().find(|piece| (piece.stage, piece.pass) == (stage, pass)).unwrap();
        out.copy_from_slice(&piece.bytes);
        Ok(())
    }

    fn offer(&mut self, state: &State<'_>) {
        let pieces = state.pieces.iter();
        let pieces = pieces.map(|&Piece { stage, pass, bytes }| Piece { stage, pass, bytes: bytes.to_vec() });
        self.states.push((state.next, pieces.collect()));
    }
}

/// Every state is as long as its layout says, and goes on to the same words and the same later states.
fn check_states(engine: &Engine, batch: &MemoryBatch, results: &Results, what: &str) {
    let never = AtomicBool::new(false);
    let mut kept = Kept::default();
    assert_eq!(&engine.run_kept(batch, &|_| {}, &never, &mut kept).unwrap(), results, "{what}");
    let switched = engine.plan.stages.iter().filter(|stage| stage.after == After::KeySwitch).count();
    assert_eq!(kept.states.len(), switched, "{what}");
    while !kept.states.is_empty() {
        let (next, pieces) = &kept.states[0];
        let sizes = pieces.iter().map(|piece| Piece { stage: piece.stage, pass: piece.pass, bytes: piece.bytes.len() });
        assert_eq!(engine.layout(*next), Some(sizes.collect()), "{what}: before stage {next}");
        let mut again = Kept { states: vec![kept.states.remove(0)], goes_on: true };
        let done = Mutex::new((0, 0));
        let observe = |event: Event<'_>| {
            if let Event::Done { ciphertexts, total } = event {
                *done.lock().unwrap() = (ciphertexts, total);
            }
        };
        assert_eq!(&engine.run_kept(batch, &observe, &never, &mut again).unwrap(), results, "{what}");
        assert_eq!(again.states[1..], kept.states, "{what}");
        let (done, total) = *done.lock().unwrap();
        assert_eq!(done, total, "{what}");
    }
    assert_eq!((engine.layout(0), engine.layout(engine.plan.stages.len())), (None, None));
}

#[test]
fn random_networks_equal_the_integer_oracle() {
    let degree = 64;
    for seed in 0..24 {
        let squarings = [2, 1, 3, 0][seed as usize % 4];
        let network = random_network(seed, squarings, seed % 3 == 0);
        let images = random_images(&network, degree, seed + 1000);
        let options = LowerOptions { default_bits: [8, 6, 12, 16][seed as usize / 2 % 4], ..LowerOptions::default() };
        let circuit = lower(&network, &options, &images).unwrap();
        check_network(&circuit, &images, degree, &format!("network {seed}, {squarings} squarings"));
    }
}

/// Neurons whose every weight is zero: what is left computes the same, and nothing is made of them.
#[test]
fn pruned_networks_equal_the_integer_oracle() {
    let degree = 64;
    let mut pruned = 0;
    for seed in [0, 2, 6] {
        let network = random_network(seed, 2, false);
        let images = random_images(&network, degree, seed + 500);
        let mut circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
        for stage in &mut circuit.stages[1..] {
            // One feature in three, but none without which a row would have no weight left.
            for feature in (0..stage.features.len() as u32).step_by(3) {
                let mut map = stage.map.clone();
                for block in &mut map.blocks {
                    let columns = block.columns.len();
                    let Some(column) = block.columns.iter().position(|&c| c == feature) else { continue };
                    block.weights.chunks_exact_mut(columns).for_each(|row| row[column] = 0);
                }
                let alive = (0..map.outputs as u32).all(|row| {
                    map.blocks.iter().any(|block| {
                        let at = block.rows.iter().position(|&r| r == row);
                        let weights = at.map(|at| &block.weights[at * block.columns.len()..][..block.columns.len()]);
                        weights.is_some_and(|weights| weights.iter().any(|&w| w != 0))
                    })
                });
                if alive {
                    stage.map = map;
                    pruned += 1;
                }
            }
        }
        check_network(&circuit, &images, degree, &format!("pruned network {seed}"));
    }
    assert!(pruned > 6, "{pruned}");
}

/// Layers that are wider than what they read: squares are relinearised and stored, and the layers only rescaled. Two in a row, and a lazy one after them.
#[test]
fn eager_stages_equal_the_integer_oracle() {
    let degree = 64;
    for (seed, widths) in [(1, &[9, 6, 8, 21, 3][..]), (2, &[9, 6, 5, 14, 40, 7, 3])] {
        let network = dense_network(seed, widths);
        let images = random_images(&network, degree, seed + 2000);
        let circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
        let plan = scales::insecure_plan(&circuit, &Requirements::default(), degree).unwrap();
        let squared: Vec<usize> = (0..plan.stages.len()).filter(|&k| plan.stages[k].squared).collect();
        assert_eq!(squared, [&[1][..], &[1, 2]][seed as usize - 1], "network {seed}");
        check_network(&circuit, &images, degree, &format!("eager network {seed}"));
    }
}

/// AMX, emulated where the CPU lacks it, on layers large enough to be multiplied as bytes.
#[test]
fn amx_gives_the_same_words() {
    let Some(amx) = Kernel::emulated_amx().or_else(|| Kernel::by_name("amx")) else { return };
    let degree = 64;
    let network = dense_network(3, &[9, 48, 40, 21, 3]);
    let images = random_images(&network, degree, 2003);
    for default_bits in [8, 12] {
        let options = LowerOptions { default_bits, ..LowerOptions::default() };
        let circuit = lower(&network, &options, &images).unwrap();
        let blocks = circuit.stages.iter().flat_map(|stage| &stage.map.blocks);
        let as_bytes = blocks.filter(|block| {
            let (rows, columns) = (block.rows.len(), block.columns.len());
            BlockWork::new(amx, rows, columns, Magnitudes::new(columns, &block.weights), 40).byte_products > 0
        });
        assert_eq!(as_bytes.count(), 2, "{default_bits} bits");
        let plan = scales::insecure_plan(&circuit, &Requirements::default(), degree).unwrap();
        let context = Context::new(plan.parameters.clone(), Kernel::portable()).unwrap();
        let key = SecretKey::generate(&context).unwrap();
        let evaluation_key = key.evaluation_key(&context).unwrap();
        let batch = MemoryBatch::encrypt(&context, &key, plan.input_scale, &images.x);
        let [expected, found] = [Kernel::portable(), amx].map(|kernel| {
            let engine = Engine::new(circuit.clone(), plan.clone(), Some(evaluation_key.clone()), kernel, 2).unwrap();
            engine.run(&batch, &|_| {}).unwrap()
        });
        assert_eq!(found, expected, "{default_bits} bits");
    }
}

#[test]
fn predictions_of_precision_are_neither_lucky_nor_idle() {
    let degree = 256;
    let network = random_network(5, 2, false);
    let images = random_images(&network, degree, 77);
    let circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
    let plan = scales::insecure_plan(&circuit, &Requirements::default(), degree).unwrap();
    let measured = check_network(&circuit, &images, degree, "precision");
    // Six sigma of the worst image are promised; the worst of a batch is a few bits better, not many.
    let promised = plan.precision.promised_bits;
    assert!((promised..promised + 4.0).contains(&measured), "measured {measured:.2}, promised {promised:.2}");
}

#[test]
fn progress_counts_every_ciphertext() {
    let degree = 64;
    let network = random_network(1, 2, false);
    let images = random_images(&network, degree, 1);
    let circuit = lower(&network, &LowerOptions::default(), &images).unwrap();
    let plan = scales::insecure_plan(&circuit, &Requirements::default(), degree).unwrap();
    let context = Context::new(plan.parameters.clone(), Kernel::portable()).unwrap();
    let key = SecretKey::generate(&context).unwrap();
    let batch = MemoryBatch::encrypt(&context, &key, plan.input_scale, &images.x);
    let evaluation_key = key.evaluation_key(&context).unwrap();
    let missing = Engine::new(circuit.clone(), plan.clone(), None, Kernel::portable(), 1).map(|_| ());
    assert!(missing.unwrap_err().to_string().contains("no evaluation key"));
    let engine = Engine::new(circuit, plan, Some(evaluation_key), Kernel::portable(), 1).unwrap();
    let last = Mutex::new((0, 0));
    engine
        .run(&batch, &|event| {
            if let Event::Done { ciphertexts, total } = event {
                *last.lock().unwrap() = (ciphertexts, total);
            }
        })
        .unwrap();
    let (done, total) = *last.lock().unwrap();
    assert!(done == total && total > 0);

    // Asked to stop at any event but the last, it gives up with nothing; asked after that, it is done.
    let events = Mutex::new(0);
    engine.run(&batch, &|_| *events.lock().unwrap() += 1).unwrap();
    let events = events.into_inner().unwrap();
    for last_wanted in 1..=events {
        let (seen, stop) = (Mutex::new(0), AtomicBool::new(false));
        let outcome = engine.run_until(
            &batch,
            &|_| {
                *seen.lock().unwrap() += 1;
                stop.store(*seen.lock().unwrap() >= last_wanted, Ordering::Relaxed);
            },
            &stop,
        );
        let is_stopped = matches!(outcome, Err(EngineError::Stopped));
        assert_eq!(is_stopped, last_wanted < events, "stopped at event {last_wanted} of {events}");
    }
}
