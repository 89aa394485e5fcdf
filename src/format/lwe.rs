//! Files of the exact engine: the worker's key, encrypted images, results. `FORMATS.md` lists their sections.
//!
//! Numbers modulo 2^64 or a smaller power of two are little-endian bytes; any value is valid, so nothing but lengths can be
//! wrong. Not here: the secret key, what the numbers mean.

use std::path::Path;

use super::ciphertexts::BatchPlace;
use super::identity::{Header, LweExpected, check_hex, same};
use super::{Container, ContainerWriter, DType, FormatError, Kind, OpenLimits, SectionSpec, Written};
use crate::net::TableCircuit;

/// Bytes of a seed of masks.
pub const MASK_SEED_BYTES: usize = 16;

/// What results without the metadata `answer` are.
const SCORES: &str = "scores";

/// Sizes of the worker's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// n, levels, 2, N.
    pub bootstrap: [usize; 4],
    /// N, levels.
    pub keyswitch: [usize; 2],
}

/// The worker's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// Of the bootstrapping key's masks.
    pub bootstrap_seed: [u8; MASK_SEED_BYTES],
    /// `KeyShape::bootstrap` numbers.
    pub bootstrap: Vec<u64>,
    /// Of the key-switching key's masks.
    pub keyswitch_seed: [u8; MASK_SEED_BYTES],
    /// `KeyShape::keyswitch` numbers.
    pub keyswitch: Vec<u64>,
}

/// Sizes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Images that a batch may hold.
    pub slots: usize,
    /// Bytes of an image.
    pub entries: usize,
    /// Seeds of an image.
    pub seeds: usize,
    /// Logits of an image.
    pub classes: usize,
    /// Coefficients of a logit.
    pub coefficients: usize,
}

/// Writes the worker's key; refuses to replace a file.
///
/// # Errors
/// Another number of numbers than the shape says, and those of [`ContainerWriter`].
pub fn write_key(
    path: &Path,
    header: &Header,
    parameters: &str,
    shape: &KeyShape,
    key: &KeyParts,
) -> Result<Written, FormatError> {
    let write = || {
        let writer =
            ContainerWriter::create(path, Kind::EvaluationKey, &header.lwe_metadata(parameters)?, &shape.specs())?;
        writer.write_at("bootstrap.bodies", 0, &bytes_of(&key.bootstrap))?;
        writer.write_at("bootstrap.seed", 0, &key.bootstrap_seed)?;
        writer.write_at("keyswitch.bodies", 0, &bytes_of(&key.keyswitch))?;
        writer.write_at("keyswitch.seed", 0, &key.keyswitch_seed)?;
        writer.finish_new()
    };
    write().map_err(|error: FormatError| error.in_file(path))
}

/// Reads the worker's key and checks all of it.
///
/// # Errors
/// [`FormatError::Mismatch`] for another engine, plan, key or parameters; the rest for damage.
pub fn read_key(path: &Path, expected: &LweExpected<'_>, shape: &KeyShape) -> Result<(Header, KeyParts), FormatError> {
    let read = || {
        let container = Container::open(path, Some(Kind::EvaluationKey), &OpenLimits::default())?;
        let header = Header::read_lwe(&container, expected)?;
        container.expect_sections(&shape.specs())?;
        container.verify()?;
        let seed = |name: &str| -> Result<[u8; MASK_SEED_BYTES], FormatError> {
            let mut seed = [0; MASK_SEED_BYTES];
            seed.copy_from_slice(container.section(name)?.bytes);
            Ok(seed)
        };
        let parts = KeyParts {
            bootstrap_seed: seed("bootstrap.seed")?,
            bootstrap: numbers_of(container.section("bootstrap.bodies")?.bytes),
            keyswitch_seed: seed("keyswitch.seed")?,
            keyswitch: numbers_of(container.section("keyswitch.bodies")?.bytes),
        };
        Ok((header, parts))
    };
    read().map_err(|error: FormatError| error.in_file(path))
}

impl KeyShape {
    /// For a small key of n bits, a ring of degree N, and so many levels.
    #[must_use]
    pub fn new(n: usize, bootstrap_levels: usize, degree: usize, keyswitch_levels: usize) -> Self {
        Self { bootstrap: [n, bootstrap_levels, 2, degree], keyswitch: [degree, keyswitch_levels] }
    }

    fn specs(&self) -> [SectionSpec; 4] {
        let ([n, levels, two, degree], [rows, digits]) = (self.bootstrap, self.keyswitch);
        [
            SectionSpec::new("bootstrap.bodies", DType::U8, &[n, levels, two, degree, 8]),
            SectionSpec::new("bootstrap.seed", DType::U8, &[MASK_SEED_BYTES]),
            SectionSpec::new("keyswitch.bodies", DType::U8, &[rows, digits, 8]),
            SectionSpec::new("keyswitch.seed", DType::U8, &[MASK_SEED_BYTES]),
        ]
    }
}

impl BatchShape {
    /// Of a circuit, for a small key of n bits and a ring of degree N.
    #[must_use]
    pub fn new(circuit: &TableCircuit, slots: usize, n: usize, degree: usize) -> Self {
        let (entries, classes) = (circuit.inputs(), circuit.classes());
        Self { slots, entries, seeds: entries.div_ceil(degree), classes, coefficients: n + 1 }
    }

    fn input_specs(&self, images: usize) -> [SectionSpec; 2] {
        [
            SectionSpec::new("seeds", DType::U8, &[images, self.seeds, MASK_SEED_BYTES]),
            SectionSpec::new("bodies", DType::U8, &[images, self.entries, 4]),
        ]
    }

    fn result_specs(&self, images: usize) -> [SectionSpec; 1] {
        [SectionSpec::new("results", DType::U8, &[images, self.classes, self.coefficients, 2])]
    }
}

/// Encrypted images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LweImages {
    /// `[image][seed]`
    pub seeds: Vec<[u8; MASK_SEED_BYTES]>,
    /// `[image][byte]`: the upper halves of bodies.
    pub bodies: Vec<u32>,
}

/// Writes a batch of encrypted images; refuses to replace a file.
///
/// # Errors
/// Another number of seeds or bodies than the shape says, and those of [`ContainerWriter`].
pub fn write_images(
    path: &Path,
    header: &Header,
    parameters: &str,
    shape: &BatchShape,
    place: &BatchPlace,
    images: &LweImages,
) -> Result<Written, FormatError> {
    let write = || {
        let mut metadata = header.lwe_metadata(parameters)?;
        place.add_metadata(shape.slots, &mut metadata)?;
        metadata.insert("entries".to_owned(), shape.entries.to_string());
        let writer = ContainerWriter::create(path, Kind::Ciphertexts, &metadata, &shape.input_specs(place.occupancy))?;
        writer.write_at("seeds", 0, images.seeds.as_flattened())?;
        let bodies: Vec<u8> = images.bodies.iter().flat_map(|body| body.to_le_bytes()).collect();
        writer.write_at("bodies", 0, &bodies)?;
        writer.finish_new()
    };
    write().map_err(|error: FormatError| error.in_file(path))
}

/// An open batch of encrypted images.
#[derive(Debug)]
pub struct LweBatch {
    container: Container,
    header: Header,
    place: BatchPlace,
    shape: BatchShape,
}

impl LweBatch {
    /// Maps a batch and checks its header, metadata and layout, not the sections' digests (the caller holds the whole file
    /// to the manifest's).
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] for another engine, plan, key, parameters, job or number of bytes; the rest for damage.
    pub fn open(
        path: &Path,
        expected: &LweExpected<'_>,
        job_id: &str,
        shape: &BatchShape,
    ) -> Result<Self, FormatError> {
        let open = || {
            let container = Container::open(path, Some(Kind::Ciphertexts), &OpenLimits::default())?;
            let header = Header::read_lwe(&container, expected)?;
            container.expect_metadata("job_id", job_id)?;
            container.expect_metadata("entries", &shape.entries.to_string())?;
            let place = BatchPlace::read(&container, shape.slots)?;
            container.expect_sections(&shape.input_specs(place.occupancy))?;
            Ok(Self { container, header, place, shape: *shape })
        };
        open().map_err(|error: FormatError| error.in_file(path))
    }

    /// Whose it is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which part of its job it is.
    #[must_use]
    pub fn place(&self) -> &BatchPlace {
        &self.place
    }

    /// BLAKE3 of the whole file, hexadecimal, by all threads of the pool that the caller runs in.
    #[must_use]
    pub fn file_digest_in_parallel(&self) -> String {
        self.container.file_digest_in_parallel()
    }

    /// Seeds and bodies of an image.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] for an image beyond the last.
    pub fn image(&self, image: usize) -> Result<LweImages, FormatError> {
        if image >= self.place.occupancy {
            let expected = format!("less than {}", self.place.occupancy);
            return Err(FormatError::invalid("image asked for", image, expected).in_file(self.container.path()));
        }
        let part = |name: &str, each: usize| -> Result<&[u8], FormatError> {
            Ok(self.container.section(name)?.bytes.get(image * each..(image + 1) * each).unwrap_or_default())
        };
        let seeds = part("seeds", self.shape.seeds * MASK_SEED_BYTES)?;
        let bodies = part("bodies", self.shape.entries * 4)?;
        Ok(LweImages {
            seeds: seeds.as_chunks().0.to_vec(),
            bodies: bodies.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
        })
    }
}

/// Writes results, `[image][class][coefficient]`, replacing a file of that name. `answer` is what the job asked for, where it did not
/// ask for scores.
///
/// # Errors
/// Another number of them than the shape says, and those of [`ContainerWriter`].
pub fn write_results(
    path: &Path,
    batch: &LweBatch,
    parameters: &str,
    input_digest: &str,
    answer: Option<&str>,
    results: &[u16],
) -> Result<Written, FormatError> {
    let write = || {
        check_hex("input_digest", input_digest, 64..=64)?;
        let mut metadata = batch.header.lwe_metadata(parameters)?;
        batch.place.add_metadata(batch.shape.slots, &mut metadata)?;
        metadata.insert("input_digest".to_owned(), input_digest.to_owned());
        metadata.insert("outputs".to_owned(), batch.shape.classes.to_string());
        metadata.extend(answer.map(|answer| ("answer".to_owned(), answer.to_owned())));
        let specs = batch.shape.result_specs(batch.place.occupancy);
        let writer = ContainerWriter::create(path, Kind::Results, &metadata, &specs)?;
        let bytes: Vec<u8> = results.iter().flat_map(|number| number.to_le_bytes()).collect();
        writer.write_at("results", 0, &bytes)?;
        writer.finish()
    };
    write().map_err(|error: FormatError| error.in_file(path))
}

/// What a client asks of results, beside header and shape.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedLweResult<'a> {
    /// Job.
    pub job_id: &'a str,
    /// Number of the batch.
    pub index: usize,
    /// First image, counted over the job.
    pub first_image: u64,
    /// Images.
    pub occupancy: usize,
    /// BLAKE3 of the inputs' file.
    pub input_digest: &'a str,
    /// What the job asked for; `None`: scores.
    pub answer: Option<&'a str>,
}

/// Reads results, `[image][class][coefficient]`, and checks all of them.
///
/// # Errors
/// [`FormatError::Mismatch`] for another engine, plan, key, parameters, job, place or input; the rest for damage.
pub fn read_results(
    path: &Path,
    expected: &LweExpected<'_>,
    result: &ExpectedLweResult<'_>,
    shape: &BatchShape,
) -> Result<Vec<u16>, FormatError> {
    let read = || {
        let container = Container::open(path, Some(Kind::Results), &OpenLimits::default())?;
        Header::read_lwe(&container, expected)?;
        container.expect_metadata("job_id", result.job_id)?;
        container.expect_metadata("outputs", &shape.classes.to_string())?;
        let place = BatchPlace::read(&container, shape.slots)?;
        same("batch", place.index, result.index)?;
        same("first_image", place.first_image, result.first_image)?;
        same("occupancy", place.occupancy, result.occupancy)?;
        container.expect_metadata("input_digest", result.input_digest)?;
        same("answer", container.metadata_opt("answer").unwrap_or(SCORES), result.answer.unwrap_or(SCORES))?;
        container.expect_sections(&shape.result_specs(place.occupancy))?;
        container.verify()?;
        let bytes = container.section("results")?.bytes;
        Ok(bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect())
    };
    read().map_err(|error: FormatError| error.in_file(path))
}

fn bytes_of(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers_of(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}
