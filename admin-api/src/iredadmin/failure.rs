//! What a failed call answers: one of the codes that clients know; the details are in the log.

use std::borrow::Cow;

use outrider_core::directory::write::AccountError;
use outrider_core::sql::DbError;

/// The code of a failure; several broken password rules are joined with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(Cow<'static, str>);

impl Failure {
    pub(crate) const fn new(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    pub(crate) const LOGIN_REQUIRED: Self = Self::new("LOGIN_REQUIRED");
    pub(crate) const PERMISSION_DENIED: Self = Self::new("PERMISSION_DENIED");
    pub(crate) const INVALID_CREDENTIALS: Self = Self::new("INVALID_CREDENTIALS");
    pub(crate) const INVALID_DOMAIN_NAME: Self = Self::new("INVALID_DOMAIN_NAME");
    pub(crate) const INVALID_MAIL: Self = Self::new("INVALID_MAIL");
    pub(crate) const NO_SUCH_ACCOUNT: Self = Self::new("NO_SUCH_ACCOUNT");
    pub(crate) const SERVER_DOWN: Self = Self::new("SERVER_DOWN");

    /// The code for the client.
    pub(crate) fn code(&self) -> &str {
        &self.0
    }
}

impl From<String> for Failure {
    fn from(code: String) -> Self {
        Self(Cow::Owned(code))
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        tracing::error!(event = "database failed", reason = %error);
        Self::SERVER_DOWN
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NoSuchDomain => Self::INVALID_DOMAIN_NAME,
            AccountError::NoSuchAccount => Self::NO_SUCH_ACCOUNT,
            AccountError::AlreadyExists => Self::new("ALREADY_EXISTS"),
            AccountError::NotAllowed => Self::new("NOT_ALLOWED"),
            AccountError::AccountLimit => Self::new("EXCEEDED_DOMAIN_ACCOUNT_LIMIT"),
            AccountError::QuotaLimit => Self::new("EXCEEDED_DOMAIN_QUOTA_SIZE"),
            AccountError::Database(error) => error.into(),
            error => {
                tracing::error!(event = "account not changed", reason = %error);
                Self::SERVER_DOWN
            }
        }
    }
}
