//! What a job's results say of an image: every class's score, or which class it is and nothing else.
//!
//! Labels only: the worker compares each two scores by a programmable bootstrap (the sign of their difference), adds up who wins how
//! often, and one more bootstrap for each class asks whether it has won them all. So an image costs C (C - 1) / 2 + C more bootstraps for C
//! classes, all of one round independent of each other, and what the key owner can decrypt is one bit a class.

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The scores of all classes.
    #[default]
    Scores,
    /// A bit for each class: whether it is the label.
    Label,
}

impl Answer {
    /// Name of a manifest's option.
    pub const OPTION: &str = "answer";
    /// What the option may say; left out, the scores are asked for.
    pub const VALUES: [&str; 1] = ["label"];

    /// Of the option's value, one of [`Answer::VALUES`].
    #[must_use]
    pub fn of(option: Option<&str>) -> Self {
        option.map_or(Self::Scores, |_| Self::Label)
    }

    /// The option's value.
    #[must_use]
    pub fn option(self) -> Option<&'static str> {
        match self {
            Self::Scores => None,
            Self::Label => Some(Self::VALUES[0]),
        }
    }

    /// Bootstraps that an image takes beside those of its neurons.
    #[must_use]
    pub fn bootstraps(self, classes: usize) -> usize {
        match self {
            Self::Scores => 0,
            Self::Label => classes * classes.saturating_sub(1) / 2 + classes,
        }
    }
}

/// On the torus, what one win counts: the class that won all then stands as far above zero as the one that won none is
/// from the wrap below.
pub(super) fn win(classes: usize) -> u64 {
    (1_u64 << 63) / (2 * classes.max(2) as u64 - 2)
}

/// On the torus, that a class is the label; otherwise zero.
pub(super) const YES: u64 = 1 << 62;
