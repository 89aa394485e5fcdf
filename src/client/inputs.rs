//! Some of a job's own images, decrypted again from its encrypted batches: what an audit runs another engine on, so that nobody
//! has to find the pictures that went into the job.

use std::collections::BTreeMap;
use std::path::Path;

use jobs::manifest::{self, LoadedJob};
use zeroize::Zeroizing;

use super::decrypt::DecryptRequest;
use super::{ClientError, Setup};
use crate::ckks::secret::{Decryptor, SecretKey};
use crate::format::ciphertexts::{EncryptedBatch, ExpectedBatch};
use crate::format::{Expected, ModelPackage, secret};
use crate::net::network::InputSpec;

/// Normalised images, in the order asked for; zeroed when dropped.
pub type Images = Zeroizing<Vec<Vec<f64>>>;

/// Decrypts the images with these numbers (counted over the job, none twice). `progress` is called with the entries done, of the batches
/// that hold any of them.
///
/// # Errors
/// As [`decrypt`](super::decrypt()), but that no receipt is needed; [`ClientError::Mismatch`] for a number beyond the last image.
pub fn decrypt_inputs(
    request: &DecryptRequest<'_>,
    images: &[u64],
    progress: &dyn Fn(u64),
) -> Result<Images, ClientError> {
    let job = manifest::load(request.job_path)?;
    let model = ModelPackage::open(&job.verify_model(request.model_path)?)?;
    let setup = Setup::new(&model, request.requirements, request.kernel)?;
    let manifest = job.manifest();
    if manifest.plan_id != setup.plan_id {
        return Err(ClientError::mismatch("plan_id of the job", &manifest.plan_id, &setup.plan_id));
    }
    let expected = Expected { plan_id: &setup.plan_id, key_id: Some(&manifest.key_id), context: &setup.context };
    let (_, key) = secret::read_secret_key(request.key_path, &expected)?;
    // Batch -> (slot, place in the answer).
    let mut wanted: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (place, &image) in images.iter().enumerate() {
        if image >= manifest.images {
            return Err(ClientError::mismatch("image asked for", image, format!("below {}", manifest.images)));
        }
        let batch = manifest.batches.partition_point(|batch| batch.first_image <= image).saturating_sub(1);
        let slot = (image - manifest.batches[batch].first_image) as usize;
        wanted.entry(batch).or_default().push((slot, place));
    }
    let mut found: Images = Zeroizing::new(vec![Vec::new(); images.len()]);
    let mut done = 0;
    for (batch, slots) in wanted {
        let input = open(&job, batch, &setup, model.circuit.inputs())?;
        let mut reader = Reader::new(&setup, &key, &model.network.input);
        for entry in 0..input.entries() {
            let values = reader.entry(&input, entry)?;
            for &(slot, place) in &slots {
                found[place].push(values[slot]);
            }
            done += 1;
            progress(done);
        }
    }
    Ok(found)
}

fn open(job: &LoadedJob, index: usize, setup: &Setup, entries: usize) -> Result<EncryptedBatch, ClientError> {
    let manifest = job.manifest();
    let batch = &manifest.batches[index];
    let path = job.input_path(batch)?;
    manifest::check_digest(jobs::FileRole::Input(index), Path::new(&path), batch.input.digest)?;
    let expected = ExpectedBatch {
        context: &setup.context,
        input_scale: setup.plan.input_scale,
        plan_id: &setup.plan_id,
        key_id: &manifest.key_id,
        job_id: &manifest.job_id,
        entries,
    };
    Ok(EncryptedBatch::open(&path, &expected)?)
}

/// Memory for one entry at a time.
struct Reader<'a> {
    setup: &'a Setup,
    key: &'a SecretKey,
    decryptor: Decryptor,
    residues: Zeroizing<Vec<u64>>,
    values: Zeroizing<Vec<f64>>,
    limit: f64,
}

impl<'a> Reader<'a> {
    fn new(setup: &'a Setup, key: &'a SecretKey, input: &InputSpec) -> Self {
        let (limbs, n) = (setup.context.limbs(), setup.context.degree());
        let ends = input.mean.iter().zip(&input.std).flat_map(|(mean, std)| [mean / std, (1.0 - mean) / std]);
        // No coefficient of an encoding exceeds its largest slot; canaries are images too.
        let limit = 4.0 * ends.fold(1.0, |most: f64, end| most.max(end.abs()));
        Self {
            setup,
            key,
            decryptor: Decryptor::new(&setup.context),
            residues: Zeroizing::new(vec![0; 2 * limbs * n]),
            values: Zeroizing::new(vec![0.0; n]),
            limit,
        }
    }

    /// All slots of an entry.
    fn entry(&mut self, input: &EncryptedBatch, entry: usize) -> Result<&[f64], ClientError> {
        let context = &self.setup.context;
        let (limbs, n) = (context.limbs(), context.degree());
        for (at, limb) in self.residues.chunks_exact_mut(n).enumerate() {
            let (component, prime) = (at / limbs, at % limbs);
            input.load_into(component, prime, entry, 0, limb)?;
            context.ntt(prime).inverse_assign(limb);
        }
        let scale = self.setup.plan.input_scale;
        let (decryptor, values) = (&mut self.decryptor, &mut self.values);
        self.key.decrypt_into(context, &mut self.residues, limbs, scale, self.limit, decryptor, values)?;
        Ok(values)
    }
}
