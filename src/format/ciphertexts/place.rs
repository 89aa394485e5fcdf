//! Which part of which job a file of ciphertexts is, and the metadata that inputs and results share.

use std::collections::BTreeMap;

use crate::format::identity::{check_hex, number, same};
use crate::format::{Container, FormatError};

const CANARIES_CAP_BYTES: usize = 64 << 10;

/// How inputs were encrypted; decides the precision that the plan promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionKind {
    /// With the secret key: c1 is a seed.
    Secret,
    /// With the public key: both components are stored.
    Public,
}

impl EncryptionKind {
    /// The word in `nightshift.encryption`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
        }
    }
}

/// A batch's place in its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// 16 to 64 lower-case hexadecimal digits.
    pub job_id: String,
    /// Number of the batch, from 0.
    pub index: usize,
    /// Image in slot 0, counted over the whole job.
    pub first_image: u64,
    /// Slots that carry images: 1 to N, from slot 0 on.
    pub occupancy: usize,
    /// (slot, number of the package's canary) for unused slots that carry canaries; distinct slots.
    pub canaries: Vec<(usize, usize)>,
    /// How the inputs were encrypted.
    pub encryption: EncryptionKind,
}

impl BatchPlace {
    /// Adds the entries of this place; `slots` is N.
    pub(in crate::format) fn add_metadata(
        &self,
        slots: usize,
        metadata: &mut BTreeMap<String, String>,
    ) -> Result<(), FormatError> {
        self.check(slots)?;
        let canaries = serde_json::to_string(&self.canaries).map_err(|error| FormatError::Header(error.to_string()))?;
        for (key, value) in [
            ("job_id", self.job_id.clone()),
            ("batch", self.index.to_string()),
            ("first_image", self.first_image.to_string()),
            ("occupancy", self.occupancy.to_string()),
            ("canaries", canaries),
            ("encryption", self.encryption.name().to_owned()),
            ("slots", slots.to_string()),
        ] {
            metadata.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// Reads and checks them; the file must have `slots` slots.
    pub(in crate::format) fn read(container: &Container, slots: usize) -> Result<Self, FormatError> {
        same("slots", container.metadata("slots")?, slots)?;
        let text = container.metadata("canaries")?;
        if text.len() > CANARIES_CAP_BYTES {
            let (found, limit) = (text.len() as u64, CANARIES_CAP_BYTES as u64);
            return Err(FormatError::TooLarge { what: "bytes of canaries".into(), found, limit });
        }
        let canaries = serde_json::from_str(text)
            .map_err(|error| FormatError::Json { section: "metadata canaries".into(), reason: error.to_string() })?;
        let encryption = match container.metadata("encryption")? {
            "secret" => EncryptionKind::Secret,
            "public" => EncryptionKind::Public,
            other => return Err(FormatError::invalid("encryption", format!("{other:.40?}"), "secret or public")),
        };
        let place = Self {
            job_id: container.metadata("job_id")?.to_owned(),
            index: number(container, "batch")? as usize,
            first_image: number(container, "first_image")?,
            occupancy: number(container, "occupancy")? as usize,
            canaries,
            encryption,
        };
        place.check(slots)?;
        Ok(place)
    }

    fn check(&self, slots: usize) -> Result<(), FormatError> {
        check_hex("job_id", &self.job_id, 16..=64)?;
        if !(1..=slots).contains(&self.occupancy) {
            return Err(FormatError::invalid("occupancy", self.occupancy, format!("1 to {slots} slots")));
        }
        let mut taken: Vec<usize> = self.canaries.iter().map(|&(slot, _)| slot).collect();
        taken.sort_unstable();
        if let Some(slot) = taken.iter().find(|slot| !(self.occupancy..slots).contains(slot)) {
            return Err(FormatError::invalid("slot of a canary", slot, format!("{} to {}", self.occupancy, slots - 1)));
        }
        match taken.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(FormatError::invalid("slot of a canary", format!("{} twice", pair[0]), "distinct slots")),
            None => Ok(()),
        }
    }
}

/// The exact scale: 16 hexadecimal digits of the double's bits, and its decimal form for people.
pub(super) fn add_scale(scale: f64, metadata: &mut BTreeMap<String, String>) -> Result<(), FormatError> {
    if !(scale.is_finite() && scale >= 1.0) {
        return Err(FormatError::invalid("scale", scale, "a finite number of at least 1"));
    }
    metadata.insert("scale".into(), format!("{:016x}", scale.to_bits()));
    metadata.insert("scale_decimal".into(), format!("{scale:?}"));
    Ok(())
}

/// Requires the exact scale, in both spellings.
pub(super) fn expect_scale(container: &Container, scale: f64) -> Result<(), FormatError> {
    container.expect_metadata("scale", &format!("{:016x}", scale.to_bits()))?;
    container.expect_metadata("scale_decimal", &format!("{scale:?}"))
}
