//! Whose a file is: key id, plan id, model name and ring parameters, in the metadata of every key, ciphertext and result.
//!
//! `parameters` is JSON: `{"degree","moduli","special","digit_limbs","gammas"}`, gammas being the root of unity of each prime,
//! special ones last, which fixes the order of residues in the NTT domain. Reading puts them through the security table before anything
//! else is believed. Not here: how keys and ciphertexts lie in their sections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::package::ENGINE;
use super::residues::{pack_into, unpack_checked_into, width_bytes};
use super::{Container, EngineKind, FormatError};
use crate::ckks::{Context, Parameters, ParametersLiteral};

const KEY_ID_CHARS: usize = 32;
const PLAN_ID_CHARS: usize = 64;
const MODEL_NAME_CHARS_CAP: usize = 128;
/// Longest `parameters` text read: 68 primes and roots take a tenth.
const PARAMETERS_CAP_BYTES: usize = 16 << 10;

/// What a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `SecretKey::id`, 32 lower-case hexadecimal digits.
    pub key_id: String,
    /// `Plan::id`, 64 lower-case hexadecimal digits.
    pub plan_id: String,
    /// For people, 1 to 128 printable characters.
    pub model_name: String,
}

/// What a reader asks of a key file.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Plan that the key must be for.
    pub plan_id: &'a str,
    /// Key that it must be, if that is known.
    pub key_id: Option<&'a str>,
    /// Parameters and roots that it must have.
    pub context: &'a Context,
}

/// What a reader asks of a file of the exact engine.
#[derive(Clone, Copy, Debug)]
pub struct LweExpected<'a> {
    /// Plan that it must be for.
    pub plan_id: &'a str,
    /// Key that it must be or belong to, if that is known.
    pub key_id: Option<&'a str>,
    /// Parameters in their one spelling.
    pub parameters: &'a str,
}

/// `parameters` as it is spelled.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersJson {
    degree: usize,
    moduli: Vec<u64>,
    special: Vec<u64>,
    digit_limbs: usize,
    gammas: Vec<u64>,
}

impl Header {
    /// The metadata of a file with this header and these parameters. Errors: a field that no reader would take.
    pub(super) fn metadata(&self, context: &Context) -> Result<BTreeMap<String, String>, FormatError> {
        self.check()?;
        let p = context.parameters();
        let json = ParametersJson {
            degree: p.degree(),
            moduli: p.moduli().to_vec(),
            special: p.special().to_vec(),
            digit_limbs: p.digit_limbs(),
            gammas: gammas(context),
        };
        let parameters = serde_json::to_string(&json).map_err(|error| FormatError::Header(error.to_string()))?;
        let entries = [
            ("key_id", self.key_id.clone()),
            ("plan_id", self.plan_id.clone()),
            ("model_name", self.model_name.clone()),
            ("parameters", parameters),
        ];
        Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Reads and checks the header of an open file: parameters inside the security table, then plan, parameters, roots, key.
    pub(super) fn read(container: &Container, expected: &Expected<'_>) -> Result<Self, FormatError> {
        EngineKind::Ckks.expect(container)?;
        let header = Self::read_ids(container)?;
        let (found, roots) = read_parameters(container)?;
        same("plan_id", &header.plan_id, expected.plan_id)?;
        if found != *expected.context.parameters() {
            return Err(FormatError::Mismatch {
                what: "parameters".into(),
                found: describe(&found),
                expected: describe(expected.context.parameters()),
            });
        }
        same("gammas", format_args!("{roots:?}"), format_args!("{:?}", gammas(expected.context)))?;
        if let Some(key_id) = expected.key_id {
            same("key_id", &header.key_id, key_id)?;
        }
        Ok(header)
    }

    /// As the file has them, each by itself sound.
    fn read_ids(container: &Container) -> Result<Self, FormatError> {
        let header = Self {
            key_id: container.metadata("key_id")?.to_owned(),
            plan_id: container.metadata("plan_id")?.to_owned(),
            model_name: container.metadata("model_name")?.to_owned(),
        };
        header.check()?;
        Ok(header)
    }

    /// The metadata of a file of the exact engine, whose parameters have one spelling.
    pub(super) fn lwe_metadata(&self, parameters: &str) -> Result<BTreeMap<String, String>, FormatError> {
        self.check()?;
        let entries = [
            (ENGINE, EngineKind::Tfhe.name()),
            ("key_id", &self.key_id),
            ("plan_id", &self.plan_id),
            ("model_name", &self.model_name),
            ("parameters", parameters),
        ];
        Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// Reads and checks the header of an open file of the exact engine: engine, plan, parameters, key.
    pub(super) fn read_lwe(container: &Container, expected: &LweExpected<'_>) -> Result<Self, FormatError> {
        EngineKind::Tfhe.expect(container)?;
        let header = Self::read_ids(container)?;
        same("plan_id", &header.plan_id, expected.plan_id)?;
        same("parameters", container.metadata("parameters")?, expected.parameters)?;
        if let Some(key_id) = expected.key_id {
            same("key_id", &header.key_id, key_id)?;
        }
        Ok(header)
    }

    fn check(&self) -> Result<(), FormatError> {
        for (what, text, chars) in [("key_id", &self.key_id, KEY_ID_CHARS), ("plan_id", &self.plan_id, PLAN_ID_CHARS)] {
            check_hex(what, text, chars..=chars)?;
        }
        let name = &self.model_name;
        if !(1..=MODEL_NAME_CHARS_CAP).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            let expected = format!("1 to {MODEL_NAME_CHARS_CAP} printable characters");
            return Err(FormatError::invalid("model_name", format!("{name:.150?}"), expected));
        }
        Ok(())
    }
}

/// Refuses a text that is not so many lower-case hexadecimal digits.
pub(super) fn check_hex(what: &str, text: &str, chars: std::ops::RangeInclusive<usize>) -> Result<(), FormatError> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_hex && chars.contains(&text.len()) {
        return Ok(());
    }
    let expected = format!("{} to {} lower-case hexadecimal digits", chars.start(), chars.end());
    Err(FormatError::invalid(what, format!("{text:.150?}"), expected))
}

/// [`FormatError::Mismatch`] unless both read the same.
pub(super) fn same(what: &str, found: impl ToString, expected: impl ToString) -> Result<(), FormatError> {
    let (found, expected) = (found.to_string(), expected.to_string());
    if found == expected { Ok(()) } else { Err(FormatError::Mismatch { what: what.into(), found, expected }) }
}

/// A metadata entry that is a number without sign, leading zero or plus.
pub(super) fn number(container: &Container, key: &str) -> Result<u64, FormatError> {
    let text = container.metadata(key)?;
    match text.parse::<u64>() {
        Ok(value) if value.to_string() == text => Ok(value),
        _ => Err(FormatError::invalid(key, format!("{text:.40?}"), "a whole number")),
    }
}

fn gammas(context: &Context) -> Vec<u64> {
    (0..context.all_limbs()).map(|prime| context.ntt(prime).gamma()).collect()
}

/// Parameters that passed the security table, and the roots that came with them.
fn read_parameters(container: &Container) -> Result<(Parameters, Vec<u64>), FormatError> {
    let text = container.metadata("parameters")?;
    if text.len() > PARAMETERS_CAP_BYTES {
        let (found, limit) = (text.len() as u64, PARAMETERS_CAP_BYTES as u64);
        return Err(FormatError::TooLarge { what: "bytes of parameters".into(), found, limit });
    }
    let json: ParametersJson = serde_json::from_str(text)
        .map_err(|error| FormatError::Json { section: "metadata parameters".into(), reason: error.to_string() })?;
    let ParametersJson { degree, moduli, special, digit_limbs, gammas } = json;
    if !(1..=1 << 20).contains(&degree) {
        return Err(FormatError::invalid("ring degree", degree, "1 to 2^20"));
    }
    let parameters =
        Parameters::new(ParametersLiteral { degree, moduli, special, digit_limbs }).map_err(FormatError::Parameters)?;
    Ok((parameters, gammas))
}

fn describe(p: &Parameters) -> String {
    format!(
        "degree {}, moduli {:?}, special {:?}, digit limbs {}",
        p.degree(),
        p.moduli(),
        p.special(),
        p.digit_limbs()
    )
}

/// Packs one limb of `context`'s prime `prime` into `packed`; refuses residues that are not below it.
pub(super) fn pack_limb_into(
    context: &Context,
    prime: usize,
    limb: &[u64],
    packed: &mut [u8],
) -> Result<(), FormatError> {
    check_limb(context, prime, limb)?;
    pack_into(limb, width_of(context, prime), packed)
}

/// Refuses residues that are not below `context`'s prime `prime`.
pub(super) fn check_limb(context: &Context, prime: usize, limb: &[u64]) -> Result<(), FormatError> {
    let q = context.modulus(prime).value();
    // The top bit of one of the two is set by every residue of q or more, and by no other: no branches, plain vectors.
    let top_bits = limb.iter().fold(0, |bits, &residue| bits | residue | (q - 1).wrapping_sub(residue));
    if top_bits >> 63 == 0 {
        return Ok(());
    }
    let index = limb.iter().position(|&residue| residue >= q).unwrap_or_default();
    Err(FormatError::Residue { index, found: limb[index], limit: q })
}

/// The inverse of [`pack_limb_into`].
pub(super) fn unpack_limb_into(
    context: &Context,
    prime: usize,
    packed: &[u8],
    limb: &mut [u64],
) -> Result<(), FormatError> {
    let q = context.modulus(prime).value();
    unpack_checked_into(packed, width_bytes(q), limb, q)
}

/// Packed bytes of one residue of prime `prime`.
pub(super) fn width_of(context: &Context, prime: usize) -> usize {
    width_bytes(context.modulus(prime).value())
}
