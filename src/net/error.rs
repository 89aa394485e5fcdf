//! What can be wrong with a model, a circuit or the images given to them. One enum for the whole room.

/// Errors of the network room. Places are layers (`2 conv2d`), stages (`stage 1`) or fields of the specification.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NetError {
    /// The specification is not JSON.
    #[error("model specification is not valid json: {0}")]
    Json(String),
    /// A field, layer kind or option nobody here knows.
    #[error("{place}: unknown {what} \"{found}\", known: {known}")]
    Unknown {
        /// Layer or field.
        place: String,
        /// What kind of thing is unknown.
        what: &'static str,
        /// As found.
        found: String,
        /// All that are known.
        known: String,
    },
    /// Something required is absent.
    #[error("{place}: {what} is missing")]
    Missing {
        /// Layer or field.
        place: String,
        /// What is absent.
        what: String,
    },
    /// A value that contradicts another.
    #[error("{place}: {what} is {found}, expected {expected}")]
    Mismatch {
        /// Layer, stage or field.
        place: String,
        /// Which property.
        what: String,
        /// As found.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// NaN or infinity where a number is needed.
    #[error("{place}: {what}[{index}] is {found}, expected a finite number")]
    NotFinite {
        /// Layer or stage.
        place: String,
        /// Tensor or field.
        what: String,
        /// Position in it.
        index: usize,
        /// As found.
        found: f64,
    },
    /// Beyond what is accepted, refused before any allocation.
    #[error("{place}: {what} is {found}, at most {limit}")]
    TooLarge {
        /// Layer, stage or field.
        place: String,
        /// Which size.
        what: String,
        /// As found.
        found: u128,
        /// Largest accepted.
        limit: u128,
    },
    /// A layer that is no polynomial and so cannot become a circuit.
    #[error("{place}: a {kind} has no polynomial circuit; only teachers have one")]
    NoCircuit {
        /// Layer.
        place: String,
        /// Its kind.
        kind: &'static str,
    },
    /// A class whose logit depends on no pixel: its ciphertext would be transparent.
    #[error("logit of class {class} has no non-zero weight at {weight_bits} bits, expected at least one")]
    ConstantLogit {
        /// Index of the class.
        class: usize,
        /// Width of the integers it was rounded to.
        weight_bits: u32,
    },
}

impl NetError {
    pub(super) fn mismatch(
        place: impl Into<String>,
        what: impl Into<String>,
        found: impl ToString,
        expected: impl ToString,
    ) -> NetError {
        NetError::Mismatch {
            place: place.into(),
            what: what.into(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(super) fn missing(place: impl Into<String>, what: impl Into<String>) -> NetError {
        NetError::Missing { place: place.into(), what: what.into() }
    }
}

/// `Err` naming the value when it is above the limit.
pub(super) fn at_most(place: &str, what: &str, found: u128, limit: u128) -> Result<(), NetError> {
    if found > limit {
        return Err(NetError::TooLarge { place: place.to_owned(), what: what.to_owned(), found, limit });
    }
    Ok(())
}

/// `Err` naming the first value that is NaN or infinite.
pub(super) fn all_finite(place: &str, what: &str, values: impl Iterator<Item = f64>) -> Result<(), NetError> {
    for (index, found) in values.enumerate() {
        if !found.is_finite() {
            return Err(NetError::NotFinite { place: place.to_owned(), what: what.to_owned(), index, found });
        }
    }
    Ok(())
}

/// `Err` naming found and expected when two lengths differ.
pub(super) fn same_len(place: &str, what: &str, found: usize, expected: usize) -> Result<(), NetError> {
    if found != expected {
        return Err(NetError::mismatch(place, format!("length of {what}"), found, expected));
    }
    Ok(())
}
