//! A small real job: a random network, real keys, encrypted images, and the binaries to run and check it with.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use nightshift::client::{self, EncryptRequest};
use nightshift::format::{Canary, ModelPackage};
use nightshift::net::sample::{Random, random_network};
use nightshift::net::{Calibration, LowerOptions, lower};
use nightshift::plan::Requirements;
use nightshift::ring::kernels::Kernel;
use packing::{Batches, ImageSet, Normalisation, Pixels};

/// A folder with `model.nsm`, `keys/`, and `job/` of tenant `clinic-7`.
pub struct Bench {
    folder: tempfile::TempDir,
    side: usize,
}

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The one JSON object on standard output.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        // One channel, so that an IDX file holds its images.
        let networks = (24..).map(|seed| random_network(seed, 1, false));
        let mut network = networks.into_iter().find(|network| network.input.shape[0] == 1).unwrap();
        network.name = "tiny".to_owned();
        let shape = network.input.shape;
        let mut random = Random::new(9);
        let mut images = |count: usize| {
            let bytes = (0..count * shape.iter().product::<usize>()).map(|_| random.below(256) as u8).collect();
            ImageSet::new(shape, Pixels::Bytes(bytes)).unwrap()
        };
        let normalisation = Normalisation::new(&network.input.mean, &network.input.std).unwrap();
        let known = images(64);
        let batches = Batches::new(&known, &normalisation, 64).unwrap();
        let mut x = vec![0.0; batches.entries() * 64];
        batches.entries_into(0, 0..batches.entries(), &mut x).unwrap();
        let circuit = lower(&network, &LowerOptions::default(), &Calibration { images: 64, x: x.clone() }).unwrap();
        let input: Vec<f32> = x.chunks_exact(64).map(|entry| entry[0] as f32).collect();
        let exact: Vec<f64> = input.iter().copied().map(f64::from).collect();
        let canaries = vec![Canary { logits: circuit.evaluate_batch(&exact, 1).unwrap(), input }];
        let provenance = BTreeMap::new();
        let model = ModelPackage { network, circuit, lowering: None, canaries, ranges: None, provenance };
        let path = |name: &str| folder.path().join(name);
        model.write(&path("model.nsm")).unwrap();
        client::keygen(&model, &Requirements::default(), &path("keys"), Kernel::detect()).unwrap();
        let request = EncryptRequest {
            key_path: &path("keys/secret.key"),
            model_path: &path("model.nsm"),
            model: &model,
            images: &images(20),
            out_dir: &path("job"),
            eval_key_path: None,
            threads: NonZeroUsize::MIN,
            kernel: Kernel::detect(),
            limit: None,
            requirements: &Requirements::default(),
            created: "2026-01-01T00:00:00Z",
            tenant: Some("clinic-7"),
            queue: None,
            signing: None,
        };
        client::encrypt(&request, &|_| {}).unwrap();
        Bench { folder, side: shape[1] }
    }

    /// An IDX file of some black images of the model's shape.
    pub fn black_images(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 3];
        for dimension in [count, self.side, self.side] {
            bytes.extend((dimension as u32).to_be_bytes());
        }
        bytes.resize(bytes.len() + count * self.side * self.side, 0);
        bytes
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of `job/` under another name.
    pub fn copy(&self, name: &str) {
        std::fs::create_dir(self.path(name)).unwrap();
        for entry in std::fs::read_dir(self.path("job")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), self.path(name).join(entry.file_name())).unwrap();
        }
    }

    /// Runs `nightshift ARGS`, or `nightshift-worker ARGS` where the line begins with `worker `.
    pub fn run(&self, line: &str) -> Ended {
        let (program, args) = match line.strip_prefix("worker ") {
            Some(args) => (env!("CARGO_BIN_EXE_nightshift-worker"), args),
            None => (env!("CARGO_BIN_EXE_nightshift"), line),
        };
        let command = Command::new(program).args(args.split_whitespace()).current_dir(&self.folder).output();
        let output = command.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// As [`run`](Self::run), and that it ended with this code, saying this.
    pub fn refuse(&self, line: &str, code: i32, told: &str) {
        let ended = self.run(line);
        assert_eq!(ended.code, code, "{line}: {ended:?}");
        assert!(ended.err.contains(told), "{line}: {told:?} is not in {ended:?}");
    }
}

/// Names of the files in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
