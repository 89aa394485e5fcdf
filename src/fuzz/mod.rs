//! Every parser of bytes from outside as a function of bytes: what `fuzz/` (cargo-fuzz) and `tests/fuzz.rs` (a driver for stable
//! compilers) call. A target must neither panic nor allocate what a file merely claims; what it takes must hold up downstream.
//!
//! Not for programs: these write scratch files, and panic where a promise is broken.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use jobs::signing::Signature;
use jobs::{LoadedJob, Receipt, TrustedKeys, manifest, metrics};
use packing::{Limits, read_images, read_labels};
use zeroize::Zeroizing;

use crate::ckks::secret::SecretKey;
use crate::ckks::{Context, Parameters, ParametersLiteral};
use crate::cli::args::{ByteSize, Validity};
use crate::format::ciphertexts::{EncryptedBatch, ExpectedBatch, ExpectedResult, ResultBatch};
use crate::format::keys::{read_evaluation_key, read_public_key};
use crate::format::secret::{key_id_text, read_secret_key};
use crate::format::tensors::read_tensors;
use crate::format::{Container, Expected, Header, ModelPackage, OpenLimits};
use crate::net::sample::random_network;
use crate::net::{Network, Spec};
use crate::plan::{Requirements, scales};
use crate::ring::kernels::Kernel;
use crate::ring::primes;

mod reseal;

pub use reseal::reseal;

/// A parser.
pub struct Target {
    /// Name of its file in `fuzz/fuzz_targets/`.
    pub name: &'static str,
    /// Whether it takes the bytes.
    pub takes: fn(&[u8]) -> bool,
    /// Whether they are a container, whose digests `reseal` mends so that what is behind them is reached.
    pub is_container: bool,
    /// Most bytes it may ask for at once, whatever the input says.
    pub allocation_limit_bytes: usize,
}

const MB: usize = 1 << 20;

const fn target(name: &'static str, takes: fn(&[u8]) -> bool) -> Target {
    Target { name, takes, is_container: false, allocation_limit_bytes: 64 * MB }
}

const fn container(name: &'static str, takes: fn(&[u8]) -> bool) -> Target {
    Target { is_container: true, ..target(name, takes) }
}

/// All of them.
pub static TARGETS: [Target; 18] = [
    container("container", takes_container),
    // A package's circuit is made of its network: by up to 2^27 weights, counted before they are spent.
    Target { allocation_limit_bytes: 4096 * MB, ..container("model", takes_model) },
    container("secret_key", |data| in_file(data, "key", |path| read_secret_key(path, &toy().expected()).is_ok())),
    container("public_key", |data| in_file(data, "key", |path| read_public_key(path, &toy().expected()).is_ok())),
    container("evaluation_key", |data| {
        in_file(data, "key", |path| read_evaluation_key(path, &toy().expected()).is_ok())
    }),
    container("ciphertexts", takes_ciphertexts),
    container("results", takes_results),
    target("tensors", |data| in_file(data, "safetensors", |path| read_tensors(path).is_ok())),
    target("model_spec", takes_model_spec),
    target("manifest", takes_manifest),
    target("receipt", takes_receipt),
    target("signature", takes_signature),
    target("trusted_keys", |data| in_file(data, "list", |path| TrustedKeys::load(path).is_ok())),
    target("metrics_text", takes_metrics_text),
    target("http_request", |data| metrics::listen::respond(data, &metrics::Metrics::new()).0.starts_with("200")),
    target("images", |data| in_file(data, "images", |path| read_images(path, &limits()).is_ok())),
    target("labels", takes_labels),
    target("arguments", takes_arguments),
];

/// The target of this name, on these bytes.
///
/// # Panics
/// There is none, or it found a fault.
pub fn run(name: &str, data: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.takes)(data)
}

/// The smallest ring of the security table and a fixed key: what toy files are made of.
pub struct Toy {
    /// Parameters.
    pub context: Context,
    /// The key of 32 bytes 0x07.
    pub key: SecretKey,
    /// What its files say of themselves.
    pub header: Header,
}

/// Scale of the toy's ciphertexts.
pub const TOY_SCALE: f64 = 1_234_567.890_625;
/// Job of the toy's ciphertexts.
pub const TOY_JOB: &str = "abababababababababababababababab";
/// Digest of the input of the toy's results.
pub const TOY_INPUT: &str = "3333333333333333333333333333333333333333333333333333333333333333";

impl Toy {
    fn expected(&self) -> Expected<'_> {
        Expected { plan_id: &self.header.plan_id, key_id: Some(&self.header.key_id), context: &self.context }
    }

    /// A batch of one entry.
    #[must_use]
    pub fn expected_batch(&self) -> ExpectedBatch<'_> {
        let Header { plan_id, key_id, .. } = &self.header;
        ExpectedBatch { context: &self.context, input_scale: TOY_SCALE, plan_id, key_id, job_id: TOY_JOB, entries: 1 }
    }

    fn expected_result(&self) -> ExpectedResult<'_> {
        ExpectedResult {
            context: &self.context,
            plan_id: &self.header.plan_id,
            key_id: &self.header.key_id,
            job_id: TOY_JOB,
            index: 0,
            first_image: 0,
            occupancy: 4000,
            input_digest: TOY_INPUT,
            outputs: 1,
            components: 3,
            limbs: 1,
            scale: TOY_SCALE,
        }
    }
}

/// Made once.
pub fn toy() -> &'static Toy {
    static TOY: OnceLock<Toy> = OnceLock::new();
    TOY.get_or_init(|| {
        let mut used = Vec::new();
        for width in [34, 37, 34] {
            used.push(primes::nearest(1 << width, 4096, &used).expect("there are such primes"));
        }
        let special = used.split_off(2);
        let literal = ParametersLiteral { degree: 4096, moduli: used, special, digit_limbs: 1 };
        let parameters = Parameters::new(literal).expect("they are inside the table");
        let context = Context::new(parameters, Kernel::detect()).expect("they have transforms");
        let key = SecretKey::from_seed(&context, Zeroizing::new([7; 32]));
        let header = Header { key_id: key_id_text(&key), plan_id: "5a".repeat(32), model_name: "toy".to_owned() };
        Toy { context, key, header }
    })
}

/// Little enough that a bomb of a few kilobytes is over soon.
fn limits() -> Limits {
    Limits { max_decoded_bytes: MB as u64, ..Limits::default() }
}

/// Puts the bytes into a file of this thread's (mode 0600, as a secret key's must be) and hands over its path.
fn in_file(data: &[u8], name: &str, read: impl FnOnce(&Path) -> bool) -> bool {
    thread_local! {
        static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a temporary folder"));
        let path = folder.path().join(name);
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(_) => create_private(&path),
        };
        file.set_len(data.len() as u64).and_then(|()| file.write_all_at(data, 0)).expect("a file that can be written");
        drop(file);
        read(&path)
    })
}

fn create_private(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path).expect("a file in a new folder")
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn takes_container(data: &[u8]) -> bool {
    in_file(data, "container", |path| {
        let Ok(container) = Container::open(path, None, &OpenLimits::default()) else { return false };
        let sections: usize = container.sections().map(|section| section.bytes.len()).sum();
        assert!(sections <= data.len(), "sections are parts of the file");
        container.verify().is_ok()
    })
}

fn takes_model(data: &[u8]) -> bool {
    in_file(data, "model", |path| {
        let Ok(package) = ModelPackage::open(path) else { return false };
        let id = package.model_id().expect("a package that opens has an id");
        // What is taken must hold up: plans may be refused, not crash; numbers come out; written again it is the same.
        drop(scales::plan(&package.circuit, &Requirements::default()));
        if package.circuit.total_macs() < 1 << 20 {
            let logits = package.circuit.evaluate_batch(&vec![0.0; package.circuit.inputs()], 1);
            assert_eq!(logits.expect("inputs of the right number").len(), package.circuit.classes());
        }
        let again = path.with_extension("again");
        assert_eq!(package.write(&again).expect("what was read can be written"), id);
        true
    })
}

fn takes_ciphertexts(data: &[u8]) -> bool {
    in_file(data, "ciphertexts", |path| {
        let Ok(batch) = EncryptedBatch::open(path, &toy().expected_batch()) else { return false };
        let mut residues = vec![0; toy().context.degree()];
        // The worker checks a digest from elsewhere: residues must be refused or be below their prime whatever that says.
        for (component, limb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            if batch.load_into(component, limb, 0, 0, &mut residues).is_ok() {
                let q = toy().context.modulus(limb).value();
                assert!(residues.iter().all(|&residue| residue < q), "residues are below their prime");
            }
        }
        batch.verify().is_ok()
    })
}

fn takes_results(data: &[u8]) -> bool {
    in_file(data, "results", |path| {
        let Ok(results) = ResultBatch::open(path, &toy().expected_result()) else { return false };
        let read = results.read();
        results.verify().is_ok() && read.is_ok()
    })
}

/// Networks whose specifications are sound: a mutated one finds its tensors under the name it had.
pub fn spec_networks() -> &'static [(String, Spec)] {
    static NETWORKS: OnceLock<Vec<(String, Spec)>> = OnceLock::new();
    NETWORKS.get_or_init(|| {
        let networks = [3, 4, 8].map(|seed| random_network(seed, 2, false));
        networks.map(|network| (network.name.clone(), network.to_spec().expect("a sound network"))).into()
    })
}

fn takes_model_spec(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let known = spec_networks().iter().find(|(name, _)| text.contains(name.as_str()));
    let Some((_, spec)) = known else { return false };
    let source = |name: &str| {
        let tensor = spec.tensors.iter().find(|tensor| tensor.name == name)?;
        Some((tensor.shape.clone(), tensor.values.clone()))
    };
    Network::import(text, &source).is_ok()
}

fn takes_manifest(data: &[u8]) -> bool {
    in_file(data, "job.toml", |path| {
        let Ok(job) = manifest::load(path) else { return false };
        assert_eq!(job.document().as_bytes(), data);
        for batch in &job.manifest().batches {
            // Nothing lies there; what matters is that nothing outside is looked for.
            if let Ok(found) = job.output_path(batch) {
                assert!(found.starts_with(job.root()), "{}", found.display());
            }
        }
        let toml = job.manifest().to_toml(path).expect("what was taken can be written");
        let again = path.with_file_name("again.toml");
        std::fs::write(&again, toml).expect("a file beside the first");
        // A path of the manifest may be this second name, which is refused and rightly so.
        assert!(
            manifest::load(&again).is_ok_and(|again| again.manifest() == job.manifest()) || uses(&job, "again.toml")
        );
        true
    })
}

fn uses(job: &LoadedJob, name: &str) -> bool {
    job.document().contains(name)
}

fn takes_receipt(data: &[u8]) -> bool {
    let path = Path::new("receipt.json");
    let Some(Ok(receipt)) = text(data).map(|text| Receipt::parse(path, text)) else { return false };
    let again = receipt.to_text(path).expect("what was taken can be written");
    assert_eq!(Receipt::parse(path, &again).expect("and read"), receipt);
    true
}

fn takes_signature(data: &[u8]) -> bool {
    let path = Path::new("a.sig");
    let Some(Ok(signature)) = text(data).map(|text| Signature::parse(path, text)) else { return false };
    assert_eq!(signature.to_text().as_bytes(), data, "a signature has one spelling");
    true
}

fn takes_metrics_text(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let once = metrics::textfile::rewritten(text);
    assert_eq!(metrics::textfile::rewritten(&once), once, "what is written is read again");
    !once.is_empty()
}

fn takes_labels(data: &[u8]) -> bool {
    let binary = in_file(data, "labels", |path| read_labels(path, &limits()).is_ok());
    let table = in_file(data, "labels.csv", |path| read_labels(path, &limits()).is_ok());
    binary || table
}

fn takes_arguments(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let size = text.parse::<ByteSize>().is_ok_and(|size| size.bytes() > 0);
    let time = text.parse::<Validity>().is_ok_and(|time| time.secs() > 0);
    size || time || text.parse::<jobs::VerifyingKey>().is_ok_and(|key| key.to_string() == text)
}
