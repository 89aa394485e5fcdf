//! Exit codes: one number, one name and one meaning for each way a command can end, for cron, systemd and Kubernetes.
//! The numbers are those of `sysexits.h` where that has one. Does not decide when to retry.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// How a command ended. Serialises as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum ExitCode {
    /// The work is done, or there was nothing to do.
    Done = 0,
    /// The command line is wrong.
    Usage = 64,
    /// A file's content is wrong; trying again will not help.
    BadData = 65,
    /// A file that should be read is not there.
    InputMissing = 66,
    /// A service this needs does not answer.
    Unavailable = 69,
    /// A bug in this program.
    Bug = 70,
    /// An output cannot be created where it was asked for.
    CannotCreate = 73,
    /// Reading or writing failed; a full disk counts.
    Io = 74,
    /// Try again later; a lost lease counts.
    TryLater = 75,
    /// Key, plan, parameters or version are not the ones expected.
    Mismatch = 76,
    /// The system forbids it.
    Permission = 77,
    /// The configuration is wrong, or the work does not fit this machine.
    Config = 78,
}

impl ExitCode {
    /// Every code, ascending.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Usage,
        Self::BadData,
        Self::InputMissing,
        Self::Unavailable,
        Self::Bug,
        Self::CannotCreate,
        Self::Io,
        Self::TryLater,
        Self::Mismatch,
        Self::Permission,
        Self::Config,
    ];

    /// The number given to the system.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.code() == code)
    }

    /// A short name for logs and receipts: lower case, words joined by hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Usage => "usage",
            Self::BadData => "bad-data",
            Self::InputMissing => "input-missing",
            Self::Unavailable => "unavailable",
            Self::Bug => "bug",
            Self::CannotCreate => "cannot-create",
            Self::Io => "io",
            Self::TryLater => "try-later",
            Self::Mismatch => "mismatch",
            Self::Permission => "permission",
            Self::Config => "config",
        }
    }

    /// One line for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done, or nothing to do",
            Self::Usage => "the command line is wrong",
            Self::BadData => "a file's content is wrong; trying again will not help",
            Self::InputMissing => "an input file is missing",
            Self::Unavailable => "a service is unavailable",
            Self::Bug => "a bug in this program",
            Self::CannotCreate => "an output cannot be created",
            Self::Io => "reading or writing failed, or the disk is full",
            Self::TryLater => "try again later, or the lease was lost",
            Self::Mismatch => "key, plan, parameters or version do not match",
            Self::Permission => "permission denied",
            Self::Config => "wrong configuration, or the work does not fit this machine",
        }
    }

    /// The code for an error met while opening or reading an input.
    pub fn on_read(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound | Kind::NotADirectory => Self::InputMissing,
            Kind::InvalidData
            | Kind::UnexpectedEof
            | Kind::IsADirectory
            | Kind::InvalidInput
            | Kind::InvalidFilename => Self::BadData,
            _ => Self::on_any(error).unwrap_or(Self::Io),
        }
    }

    /// The code for an error met while creating an output or renaming it into place.
    pub fn on_create(error: &io::Error) -> Self {
        Self::on_any(error).unwrap_or(Self::CannotCreate)
    }

    /// The code for an error met while writing to, or syncing, an output already created.
    pub fn on_write(error: &io::Error) -> Self {
        Self::on_any(error).unwrap_or(Self::Io)
    }

    /// Errors that mean the same whatever was being done.
    fn on_any(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Kind;
        /// `EIO`, for which the standard library has no name.
        const RAW_EIO: i32 = 5;
        match error.kind() {
            Kind::PermissionDenied => Some(Self::Permission),
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::WriteZero => Some(Self::Io),
            Kind::WouldBlock
            | Kind::TimedOut
            | Kind::Interrupted
            | Kind::ResourceBusy
            | Kind::StaleNetworkFileHandle => Some(Self::TryLater),
            Kind::OutOfMemory => Some(Self::Config),
            _ if error.raw_os_error() == Some(RAW_EIO) => Some(Self::Io),
            _ => None,
        }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code(), self.name())
    }
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code.code()
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Self::from_code(code).ok_or_else(|| format!("exit code {code} is none of {:?}", Self::ALL.map(Self::code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_documented_ones_and_come_back() {
        let numbers = ExitCode::ALL.map(ExitCode::code);
        assert_eq!(numbers, [0, 64, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78]);
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from_code(code.code()), Some(code));
        }
        for number in [1, 2, 63, 67, 68, 71, 72, 79, 255] {
            assert_eq!(ExitCode::from_code(number), None);
        }
    }

    #[test]
    fn names_and_meanings_are_distinct() {
        let mut names = ExitCode::ALL.map(ExitCode::name).to_vec();
        let mut meanings = ExitCode::ALL.map(ExitCode::meaning).to_vec();
        for list in [&mut names, &mut meanings] {
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), ExitCode::ALL.len());
        }
        assert_eq!(ExitCode::Io.to_string(), "74 (io)");
    }

    #[test]
    fn system_errors_map_by_what_was_being_done() {
        let (enoent, eacces, enospc, eio, eexist, erofs, edquot) = (2, 13, 28, 5, 17, 30, 122);
        let of = |raw: i32| {
            let error = io::Error::from_raw_os_error(raw);
            [ExitCode::on_read(&error), ExitCode::on_create(&error), ExitCode::on_write(&error)].map(ExitCode::code)
        };
        assert_eq!(of(enoent), [66, 73, 74]);
        assert_eq!(of(eacces), [77, 77, 77]);
        assert_eq!(of(enospc), [74, 74, 74]);
        assert_eq!(of(edquot), [74, 74, 74]);
        assert_eq!(of(eio), [74, 74, 74]);
        assert_eq!(of(eexist), [74, 73, 74]);
        assert_eq!(of(erofs), [74, 73, 74]);
        assert_eq!(ExitCode::on_read(&io::Error::from(io::ErrorKind::UnexpectedEof)), ExitCode::BadData);
        assert_eq!(ExitCode::on_create(&io::Error::from(io::ErrorKind::OutOfMemory)), ExitCode::Config);
    }

    #[test]
    fn serialises_as_its_number_and_refuses_others() {
        assert_eq!(serde_json::to_string(&ExitCode::Mismatch).unwrap(), "76");
        assert_eq!(serde_json::from_str::<ExitCode>("0").unwrap(), ExitCode::Done);
        let refused = serde_json::from_str::<ExitCode>("3").unwrap_err().to_string();
        assert!(refused.contains("exit code 3 is none of"), "{refused}");
    }
}
