//! Why a verb did not do what it was asked.

use std::io;
use std::path::Path;

use outrider_core::daemon::StartError;
use outrider_core::directory::write::AccountError;
use outrider_core::privilege::PrivilegeError;
use outrider_core::settings::SettingsError;
use outrider_core::sql::DbError;
use outrider_policyd::context::RuleError;
use tokio::runtime::Runtime;

use crate::exit;

/// What to tell, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

/// The exit status of a verb that did what it was asked.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// Something typed has no meaning.
    pub(crate) fn data(text: impl Into<String>) -> Failure {
        Failure::new(exit::BAD_DATA, text)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(exit::USAGE, text)
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Failure {
        Failure::new(exit::SYSTEM, format!("{}: {error}", path.display()))
    }

    /// Says it on standard error; the exit status.
    pub(crate) fn tell(self) -> u8 {
        eprintln!("outrider: {}", self.text);
        self.code
    }
}

/// What the verbs wait in.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(exit::SYSTEM, format!("no runtime: {error}")))
}

/// The exit status for what a database said.
pub(crate) fn code_of(error: &DbError) -> u8 {
    match error {
        DbError::Unusable(_) | DbError::Refused(_) => exit::CONFIGURATION,
        DbError::TryAgain(_) | DbError::DuplicateKey(_) => exit::TRY_AGAIN,
        _ => exit::UNAVAILABLE,
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Failure {
        Failure::new(code_of(&error), error.to_string())
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Failure {
        match error {
            AccountError::Database(error) => error.into(),
            // Somebody else wrote the same row at the same moment.
            other => Failure::new(exit::TRY_AGAIN, other.to_string()),
        }
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Failure {
        let code = match &error {
            RuleError::Table { cause, .. } => code_of(cause),
            _ => exit::UNAVAILABLE,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<PrivilegeError> for Failure {
    fn from(error: PrivilegeError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(exit::INPUT_OUTPUT, error.to_string())
    }
}
