//! Where the usage of a mailbox is read: setting `usage`.
//!
//! `sql` has it from the same statement as the limit and is not here. The two others are asked for each request, within
//! `usage_timeout`.

pub(crate) mod doveadm;
mod maildirsize;

use crate::settings::{Settings, UsageSource};
use doveadm::Doveadm;
use maildirsize::Maildirsize;
use outrider_core::directory::Directory;
use outrider_core::sql::DbError;
use std::time::Duration;

/// A source of usage beside the database.
pub(crate) enum Usage {
    /// Column `bytes` of table `used_quota`, joined to the limit.
    Sql,
    /// The file that Dovecot's maildir quota keeps in each mailbox.
    Maildirsize(Maildirsize, Duration),
    /// Dovecot itself.
    Doveadm(Box<Doveadm>, Duration),
}

impl Usage {
    /// The source that the settings name.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for authorities (`doveadm.ca_file`) that cannot be used.
    pub(crate) fn new(settings: &Settings) -> Result<Usage, DbError> {
        let limit = settings.usage_timeout.duration();
        Ok(match settings.usage {
            UsageSource::Sql => Usage::Sql,
            UsageSource::Maildirsize => Usage::Maildirsize(Maildirsize::default(), limit),
            UsageSource::Doveadm => Usage::Doveadm(Box::new(Doveadm::new(&settings.doveadm)?), limit),
        })
    }

    /// Bytes used by a mailbox whose account is known; `None` when nothing is stored about it. The error says why it
    /// could not be read. Not to be asked where the database has it.
    pub(crate) async fn read(
        &self,
        directory: &dyn Directory,
        username: &str,
    ) -> Result<Option<i64>, String> {
        let (limit, outcome) = match self {
            Usage::Sql => return Ok(None),
            Usage::Maildirsize(reader, limit) => {
                let read = async {
                    match directory.maildir(username).await {
                        Ok(Some(folder)) => reader.read(&folder).await,
                        Ok(None) => Err("the mailbox is no maildir".to_owned()),
                        Err(error) => Err(error.to_string()),
                    }
                };
                (limit, tokio::time::timeout(*limit, read).await)
            }
            Usage::Doveadm(client, limit) => {
                (limit, tokio::time::timeout(*limit, client.used(username)).await)
            }
        };
        outcome.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// Where the figures come from, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Usage::Sql => "table used_quota",
            Usage::Maildirsize(..) => "maildirsize",
            Usage::Doveadm(..) => "doveadm",
        }
    }
}
