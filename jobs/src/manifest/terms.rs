//! What a job asks of a queue: the manifest's optional table `[queue]`. A queue keeps to it; a one-shot run, which has no
//! queue, looks at the memory limit alone.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::check;
use crate::error::{JobsError, Result};
use crate::time;

/// Largest magnitude of a priority.
pub const PRIORITY_LIMIT: i16 = 1000;

/// Wishes to a queue. An absent field asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Two jobs of a tenant with the same key are one: the second is refused, or does nothing if it is the same manifest. 1 to
    /// 128 of `A-Z a-z 0-9 . _ -`; without it, the job's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Larger ones are claimed first, -1000 to 1000; without it, 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// No batch is begun after this moment: RFC 3339 in UTC with whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Most bytes of memory that one batch may take: a plan that needs more is refused wherever it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

impl Terms {
    /// Whether nothing is asked for: the table is then left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The deadline as a time. None where there is none; a manifest that was checked has no other reason.
    pub fn deadline(&self) -> Option<SystemTime> {
        time::parse(self.deadline.as_deref()?)
    }

    pub(super) fn check(&self) -> Result<()> {
        if let Some(key) = &self.idempotency_key {
            check::check_name("queue.idempotency_key", key)?;
        }
        if let Some(priority) = self.priority.filter(|priority| priority.unsigned_abs() > PRIORITY_LIMIT as u16) {
            let expected = format!("-{PRIORITY_LIMIT} to {PRIORITY_LIMIT}");
            return Err(JobsError::field("queue.priority", priority, expected));
        }
        if let Some(deadline) = self.deadline.as_deref().filter(|text| time::parse(text).is_none()) {
            return Err(JobsError::field("queue.deadline", deadline, "a UTC time such as 2026-01-31T18:00:00Z"));
        }
        if self.memory_limit_bytes == Some(0) {
            return Err(JobsError::field("queue.memory_limit_bytes", 0, "at least 1"));
        }
        Ok(())
    }
}
