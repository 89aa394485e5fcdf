//! Toy models with real keys, real ciphertexts and parameters inside the security table: one whose batch takes milliseconds, and
//! one that takes long enough to be caught at it.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jobs::manifest::{self, JobManifest, Terms};
use jobs::{Digest, FileStamp};
use nightshift::client::{self, EncryptRequest};
use nightshift::format::{Canary, ModelPackage};
use nightshift::net::network::{InputSpec, Layer, Network, Op};
use nightshift::net::sample::{Random, random_network};
use nightshift::net::{Calibration, LowerOptions, lower};
use nightshift::plan::{Requirements, scales};
use nightshift::ring::kernels::Kernel;
use nightshift::worker::{self, CHECKPOINT_AFTER, RunRequest};
use packing::{Batches, ImageSet, Normalisation, Pixels};

const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A model, its keys, and encrypted jobs with their results of a quiet run.
pub struct Toy {
    folder: tempfile::TempDir,
    model: ModelPackage,
    slots: usize,
}

/// One encrypted job: its folder, and what a one-shot run of it gives.
pub struct ToyJob {
    pub folder: PathBuf,
    pub manifest: JobManifest,
    /// Stamps of the results, in the order of the batches.
    pub expected: Vec<FileStamp>,
}

impl Toy {
    /// Two pixels, one dense layer: milliseconds.
    pub fn fast() -> Self {
        let weight = vec![0.5, -0.25, 0.125, 0.75];
        let layers = vec![
            Layer { name: "flatten".to_owned(), op: Op::Flatten },
            Layer { name: "dense".to_owned(), op: Op::Dense { weight, weight_shape: [2, 2], bias: vec![0.1, -0.2] } },
        ];
        let input = InputSpec { shape: [1, 1, 2], mean: vec![0.5], std: vec![0.25] };
        Self::of(Network { name: "toy".to_owned(), dataset: "none".to_owned(), input, layers })
    }

    /// Two squarings on some sixty pixels.
    pub fn slow() -> Self {
        let mut network = random_network(21, 2, false);
        network.name = "toy-slow".to_owned();
        Self::of(network)
    }

    fn of(network: Network) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration { images: 256, x: normalised(&network, &byte_images(network.input.shape, 256)) };
        let circuit = lower(&network, &LowerOptions::default(), &calibration).unwrap();
        let input: Vec<f32> = calibration.x.chunks_exact(256).map(|entry| entry[0] as f32).collect();
        let exact: Vec<f64> = input.iter().copied().map(f64::from).collect();
        let canaries = vec![Canary { logits: circuit.evaluate_batch(&exact, 1).unwrap(), input }];
        let provenance = BTreeMap::new();
        let model = ModelPackage { network, circuit, lowering: None, canaries, ranges: None, provenance };
        model.write(&folder.path().join("model.nsm")).unwrap();
        let requirements = Requirements::default();
        client::keygen(&model, &requirements, &folder.path().join("keys"), Kernel::detect()).unwrap();
        let slots = scales::plan(&model.circuit, &requirements).unwrap().slots();
        Self { folder, model, slots }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn secret_key(&self) -> PathBuf {
        self.path("keys/secret.key")
    }

    /// Encrypts a job of so many batches, the last one partial, and runs a copy of it.
    pub fn job(&self, name: &str, batches: usize, tenant: Option<&str>, queue: Option<&Terms>) -> ToyJob {
        let folder = self.path(name);
        let images = byte_images(self.model.circuit.input_shape, (batches - 1) * self.slots + 7);
        let request = EncryptRequest {
            key_path: &self.secret_key(),
            model_path: &self.path("model.nsm"),
            model: &self.model,
            images: &images,
            out_dir: &folder,
            eval_key_path: None,
            threads: THREADS,
            kernel: Kernel::detect(),
            limit: None,
            requirements: &Requirements::default(),
            created: "2026-01-01T00:00:00Z",
            tenant,
            queue,
            signing: None,
        };
        client::encrypt(&request, &|_| {}).unwrap();
        let quiet = self.path(&format!("{name}-quiet"));
        copy_folder(&folder, &quiet);
        // What a queue is asked for changes no byte, and may be what the quiet run would refuse.
        let mut manifest = manifest::load(&folder.join("job.toml")).unwrap().manifest().clone();
        manifest.queue = None;
        fs::write(quiet.join("job.toml"), manifest.to_toml("job.toml".as_ref()).unwrap()).unwrap();
        let request = RunRequest {
            job_path: quiet.join("job.toml"),
            model: None,
            eval_key: None,
            threads: 1,
            memory_limit_bytes: None,
            kernel: Kernel::detect(),
            rates: None,
            checkpoint_after: CHECKPOINT_AFTER,
        };
        worker::run(&request, &|_| {}).unwrap();
        let manifest = manifest::load(&folder.join("job.toml")).unwrap().manifest().clone();
        let expected = manifest.batches.iter().map(|batch| {
            let bytes = fs::read(quiet.join(&batch.output)).unwrap();
            FileStamp { digest: Digest::of(&bytes), bytes: bytes.len() as u64 }
        });
        ToyJob { expected: expected.collect(), folder, manifest }
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn byte_images(shape: [usize; 3], count: usize) -> ImageSet {
    let mut random = Random::new(9);
    let bytes = (0..count * shape.iter().product::<usize>()).map(|_| random.below(256) as u8).collect();
    ImageSet::new(shape, Pixels::Bytes(bytes)).unwrap()
}

/// `[entry][slot]`, as many slots as the next power of two.
fn normalised(network: &Network, images: &ImageSet) -> Vec<f64> {
    let normalisation = Normalisation::new(&network.input.mean, &network.input.std).unwrap();
    let slots = images.count.next_power_of_two();
    let batches = Batches::new(images, &normalisation, slots).unwrap();
    let mut x = vec![0.0; batches.entries() * slots];
    batches.entries_into(0, 0..batches.entries(), &mut x).unwrap();
    x
}
