//! The directory that the settings choose.

use serde::{Deserialize, Serialize};

/// Where accounts are kept: setting `accounts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountSource {
    /// In the tables of database `vmail`.
    Sql,
    /// In an LDAP tree; only what changes with every mail is in database `iredadmin`.
    Ldap,
}

#[cfg(feature = "ldap")]
pub use with_ldap::open;

#[cfg(feature = "ldap")]
mod with_ldap {
    use super::AccountSource;
    use crate::directory::{Directory, LdapDirectory, LdapSettings, SqlDirectory};
    use crate::schema::Database;
    use crate::settings::Findings;
    use crate::sql::{DatabaseSettings, DbError};
    use std::path::Path;
    use std::sync::Arc;

    /// The accounts that the settings `accounts`, `[ldap]` and `[database]` name, with nothing remembered. Never waits for
    /// a server. To be called inside the runtime.
    ///
    /// # Errors
    /// As [`DatabaseSettings::open`] and [`LdapDirectory::new`].
    pub async fn open(
        source: AccountSource,
        ldap: &LdapSettings,
        database: &DatabaseSettings,
        state: &Path,
    ) -> Result<Arc<dyn Directory>, DbError> {
        Ok(match source {
            AccountSource::Sql => Arc::new(SqlDirectory::new(database.open(Database::Vmail, state).await?)),
            AccountSource::Ldap => {
                // An embedded database would be one that nobody writes the usage of mailboxes to.
                let usage = match database.iredadmin {
                    Some(_) => Some(database.open(Database::Iredadmin, state).await?),
                    None => None,
                };
                Arc::new(LdapDirectory::new(ldap, usage)?)
            }
        })
    }

    impl AccountSource {
        /// Checks the settings of the accounts: `[ldap]` matters only where it is used.
        pub fn check(self, ldap: &LdapSettings, findings: &mut Findings) {
            if self == AccountSource::Ldap {
                ldap.check("ldap", findings);
            }
        }
    }
}
