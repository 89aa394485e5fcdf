//! What a machine's kernels take, as `calibrate` found it: JSON, kept beside other caches of the user's. Estimates rest on it, nothing that is
//! computed does. Numbers by name: what the names mean is the planner's affair.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{JobsError, Result};
use crate::manifest::check;
use crate::{atomic, document};

/// The schema this program writes and reads.
pub const SCHEMA: &str = "nightshift.rates/1";
/// Most bytes of such a file.
pub const RATES_LIMIT_BYTES: u64 = 1 << 20;
/// Most kernels, and most units of one.
const COUNT_LIMIT: usize = 64;
/// No unit of work takes longer.
const LONGEST_SECS: f64 = 60.0;

/// Measured rates of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatesFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which machine: processor and cores.
    pub machine: String,
    /// Version of the program that measured.
    pub code_version: String,
    /// By kernel.
    pub kernels: Vec<KernelRates>,
}

/// Rates of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRates {
    /// Its name.
    pub isa: String,
    /// Threads that were compared with one.
    pub threads: u32,
    /// What each thread beyond the first cost all of them, as a share of its work: 0 to 1.
    pub thread_loss: f64,
    /// Seconds of one unit of each kind of work, above 0.
    pub unit_secs: BTreeMap<String, f64>,
}

impl RatesFile {
    /// Reads and checks a file of rates.
    ///
    /// # Errors
    /// As [`crate::manifest::load`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = document::read_capped(path, RATES_LIMIT_BYTES)?;
        let rates: Self = document::parse_json(path, &text, SCHEMA)?;
        rates.validate()?;
        Ok(rates)
    }

    /// Writes the file under `path`, whole or not at all, replacing an earlier one.
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`atomic::write_atomic`].
    pub fn write(&self, path: &Path) -> Result<()> {
        self.validate()?;
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| JobsError::Syntax { path: path.to_owned(), detail: error.to_string() })?;
        text.push('\n');
        atomic::write_atomic(path, text.as_bytes())
    }

    /// Checks every field by itself.
    ///
    /// # Errors
    /// [`JobsError::Field`], naming the first field that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.schema != SCHEMA {
            return Err(JobsError::field("schema", format_args!("{:?}", self.schema), format!("{SCHEMA:?}")));
        }
        check::check_text("machine", &self.machine, 256)?;
        check::check_text("code_version", &self.code_version, 128)?;
        let too_many = |field: &str, found: usize| JobsError::field(field, found, format!("at most {COUNT_LIMIT}"));
        if self.kernels.len() > COUNT_LIMIT {
            return Err(too_many("kernels", self.kernels.len()));
        }
        for (index, kernel) in self.kernels.iter().enumerate() {
            let field = |name: &str| format!("kernels[{index}].{name}");
            check::check_text(&field("isa"), &kernel.isa, 64)?;
            if self.kernels[..index].iter().any(|other| other.isa == kernel.isa) {
                return Err(JobsError::field(field("isa"), &kernel.isa, "each kernel once"));
            }
            if kernel.threads == 0 {
                return Err(JobsError::field(field("threads"), kernel.threads, "at least 1"));
            }
            if !(0.0..=1.0).contains(&kernel.thread_loss) {
                return Err(JobsError::field(field("thread_loss"), kernel.thread_loss, "0 to 1"));
            }
            if kernel.unit_secs.len() > COUNT_LIMIT {
                return Err(too_many(&field("unit_secs"), kernel.unit_secs.len()));
            }
            for (name, &secs) in &kernel.unit_secs {
                check::check_text(&field("unit_secs"), name, 64)?;
                // Written so that NaN is found too.
                if !(secs > 0.0 && secs <= LONGEST_SECS) {
                    let expected = format!("above 0, at most {LONGEST_SECS} seconds");
                    return Err(JobsError::field(format!("kernels[{index}].unit_secs.{name}"), secs, expected));
                }
            }
        }
        Ok(())
    }

    /// Rates of one kernel, if the file has them.
    #[must_use]
    pub fn kernel(&self, isa: &str) -> Option<&KernelRates> {
        self.kernels.iter().find(|kernel| kernel.isa == isa)
    }
}
