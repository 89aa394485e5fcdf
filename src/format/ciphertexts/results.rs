//! Encrypted results: one ciphertext a logit, in coefficient form, so that a client needs no number-theoretic transform.
//!
//! `[output][component][limb][N]` residues; component i of limb j of all outputs is section `c{i}.limb{j}` U8 `[outputs, N, width_j]`.
//! The message is `c0 + c1 s (+ c2 s^2)` modulo the product of the first `limbs` primes, divided by `scale`.

use std::path::Path;

use super::place::{BatchPlace, add_scale, expect_scale};
use super::writer::component_specs;
use crate::ckks::Context;
use crate::format::identity::{Expected, Header, check_hex, pack_limb_into, width_of};
use crate::format::residues::{unpack_checked_into, width_bytes};
use crate::format::{Container, ContainerWriter, FormatError, Kind, OpenLimits, Written};

/// What results say about themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultHeader {
    /// Whose they are.
    pub header: Header,
    /// Which part of which job, as the inputs say it.
    pub place: BatchPlace,
    /// BLAKE3 of the file of inputs, 64 lower-case hexadecimal digits.
    pub input_digest: String,
}

/// What a client asks of results.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedResult<'a> {
    /// Parameters and roots.
    pub context: &'a Context,
    /// Plan.
    pub plan_id: &'a str,
    /// Key.
    pub key_id: &'a str,
    /// Job.
    pub job_id: &'a str,
    /// Number of the batch.
    pub index: usize,
    /// Image in slot 0.
    pub first_image: u64,
    /// Slots that carry images.
    pub occupancy: usize,
    /// BLAKE3 of the inputs' file.
    pub input_digest: &'a str,
    /// Ciphertexts: logits.
    pub outputs: usize,
    /// 2 or 3.
    pub components: usize,
    /// Primes.
    pub limbs: usize,
    /// Scale, to the bit.
    pub scale: f64,
}

/// Writes results, `[output][component][limb][N]` in coefficient form, replacing a file of that name.
///
/// # Errors
/// A header or sizes that [`ResultBatch::open`] would refuse, residues that are not reduced, and those of [`ContainerWriter`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is a plain number of the layout, checked against the residues' length"
)]
pub fn write_results(
    path: &Path,
    header: &ResultHeader,
    context: &Context,
    outputs: usize,
    components: usize,
    limbs: usize,
    scale: f64,
    residues: &[u64],
) -> Result<Written, FormatError> {
    let write = || {
        let n = context.degree();
        check_layout(context, components, limbs)?;
        let expected = outputs.checked_mul(components * limbs * n);
        if expected != Some(residues.len()) {
            let expected = format!("{outputs} x {components} x {limbs} x {n}");
            return Err(FormatError::invalid("residues of results", residues.len(), expected));
        }
        check_hex("input_digest", &header.input_digest, 64..=64)?;
        let mut metadata = header.header.metadata(context)?;
        header.place.add_metadata(n, &mut metadata)?;
        add_scale(scale, &mut metadata)?;
        for (key, value) in [
            ("input_digest", header.input_digest.clone()),
            ("outputs", outputs.to_string()),
            ("level", (limbs - 1).to_string()),
            ("components", components.to_string()),
            ("form", "coefficient".to_owned()),
        ] {
            metadata.insert(key.to_owned(), value);
        }
        let specs = component_specs(context, &[outputs, context.degree()], components, limbs);
        let writer = ContainerWriter::create(path, Kind::Results, &metadata, &specs)?;
        let mut buffer = vec![0; 8 * n];
        for (at, limb) in residues.chunks_exact(n).enumerate() {
            let (output, section) = (at / specs.len(), at % specs.len());
            let packed = &mut buffer[..n * width_of(context, section % limbs)];
            pack_limb_into(context, section % limbs, limb, packed)?;
            writer.write_at(&specs[section].name, (output * packed.len()) as u64, packed)?;
        }
        writer.finish()
    };
    write().map_err(|error: FormatError| error.in_file(path))
}

/// Open results. Shared freely between threads.
#[derive(Debug)]
pub struct ResultBatch {
    degree: usize,
    moduli: Vec<u64>,
    container: Container,
    header: ResultHeader,
    outputs: usize,
    components: usize,
}

impl ResultBatch {
    /// Maps results and checks their header, metadata and layout, not the sections' digests (see [`Self::verify`]).
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] for another plan, key, job, place, input, layout or scale; the rest for damage.
    pub fn open(path: &Path, expected: &ExpectedResult<'_>) -> Result<Self, FormatError> {
        Self::open_unnamed(path, expected).map_err(|error| error.in_file(path))
    }

    fn open_unnamed(path: &Path, expected: &ExpectedResult<'_>) -> Result<Self, FormatError> {
        let ExpectedResult { context, plan_id, key_id, outputs, components, limbs, .. } = *expected;
        check_layout(context, components, limbs)?;
        let container = Container::open(path, Some(Kind::Results), &OpenLimits::default())?;
        let header = Header::read(&container, &Expected { plan_id, key_id: Some(key_id), context })?;
        container.expect_metadata("job_id", expected.job_id)?;
        container.expect_metadata("form", "coefficient")?;
        container.expect_metadata("outputs", &outputs.to_string())?;
        container.expect_metadata("components", &components.to_string())?;
        container.expect_metadata("level", &(limbs - 1).to_string())?;
        expect_scale(&container, expected.scale)?;
        let input_digest = container.metadata("input_digest")?.to_owned();
        let header = ResultHeader { header, place: BatchPlace::read(&container, context.degree())?, input_digest };
        header.expect(expected.index, expected.first_image, expected.occupancy, expected.input_digest)?;
        container.expect_sections(&component_specs(context, &[outputs, context.degree()], components, limbs))?;
        let moduli = context.parameters().moduli()[..limbs].to_vec();
        Ok(Self { degree: context.degree(), moduli, container, header, outputs, components })
    }

    /// Checks every section's digest.
    ///
    /// # Errors
    /// [`FormatError::Digest`].
    pub fn verify(&self) -> Result<(), FormatError> {
        self.container.verify()
    }

    /// What they say about themselves.
    #[must_use]
    pub fn header(&self) -> &ResultHeader {
        &self.header
    }

    /// Residues of one output: components x limbs x N.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.components * self.moduli.len() * self.degree
    }

    /// One output, `[component][limb][N]`, coefficient form, each residue checked to be below its prime.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] for another output or length, [`FormatError::Residue`].
    pub fn read_output_into(&self, output: usize, residues: &mut [u64]) -> Result<(), FormatError> {
        if output >= self.outputs || residues.len() != self.output_len() {
            let found = format!("output {output}, {} residues", residues.len());
            let expected = format!("{} outputs, {} residues", self.outputs, self.output_len());
            return Err(FormatError::invalid("output asked for", found, expected));
        }
        for (section, limb) in residues.chunks_exact_mut(self.degree).enumerate() {
            let q = self.moduli[section % self.moduli.len()];
            let packed_bytes = limb.len() * width_bytes(q);
            let bytes = self.container.section_bytes(section);
            let packed = bytes.get(output * packed_bytes..(output + 1) * packed_bytes).unwrap_or_default();
            unpack_checked_into(packed, width_bytes(q), limb, q)
                .map_err(|error| error.in_file(self.container.path()))?;
        }
        Ok(())
    }

    /// All outputs, `[output][component][limb][N]`.
    ///
    /// # Errors
    /// [`FormatError::Residue`].
    pub fn read(&self) -> Result<Vec<u64>, FormatError> {
        let mut residues = vec![0; self.outputs * self.output_len()];
        for (output, part) in residues.chunks_exact_mut(self.output_len()).enumerate() {
            self.read_output_into(output, part)?;
        }
        Ok(residues)
    }
}

fn check_layout(context: &Context, components: usize, limbs: usize) -> Result<(), FormatError> {
    if (2..=3).contains(&components) && (1..=context.limbs()).contains(&limbs) {
        return Ok(());
    }
    let expected = format!("2 or 3 components, 1 to {} limbs", context.limbs());
    Err(FormatError::invalid("layout of results", format!("{components} components, {limbs} limbs"), expected))
}
