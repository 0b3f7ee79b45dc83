//! What a failed call answers: a stable code for the client, the details for the log.

use std::fmt::Display;

use outrider_core::directory::write::AccountError;

use super::spool::SpoolError;

/// The code of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure(&'static str);

impl Failure {
    pub(super) const NO_SUCH_ACCOUNT: Self = Self("NO_SUCH_ACCOUNT");
    pub(super) const INVALID_EMAIL: Self = Self("INVALID_EMAIL");
    pub(super) const UNKNOWN_PARAMETER: Self = Self("UNKNOWN_PARAMETER");
    pub(super) const SUB_COMMAND_NOT_FOUND: Self = Self("SUB_COMMAND_NOT_FOUND");
    pub(super) const SUB_COMMAND_FAILED: Self = Self("SUB_COMMAND_FAILED");

    /// The code for the client.
    pub(super) fn code(self) -> &'static str {
        self.0
    }

    /// A fault of the program itself.
    pub(super) fn fault(error: &dyn Display) -> Self {
        tracing::error!(event = "file work failed", reason = %error);
        Self("IO_ERROR")
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::NoSuchList => Self::NO_SUCH_ACCOUNT,
            SpoolError::BadAddress => Self::INVALID_EMAIL,
            SpoolError::NoTemplates(_) => {
                tracing::error!(event = "spool failed", reason = %error);
                Self("SKEL_DIR_NOT_EXIST")
            }
            SpoolError::Io { .. } => {
                tracing::error!(event = "spool failed", reason = %error);
                Self("IO_ERROR")
            }
        }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NoSuchDomain => Self("NO_SUCH_DOMAIN"),
            AccountError::NoSuchAccount => Self::NO_SUCH_ACCOUNT,
            AccountError::AlreadyExists => Self("ALREADY_EXISTS"),
            error => {
                tracing::error!(event = "database failed", reason = %error);
                Self("SQL_ERROR")
            }
        }
    }
}
