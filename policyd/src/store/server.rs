//! What a MySQL or MariaDB server can do.

use outrider_core::sql::{Db, DbError, Stmt};
use tokio::sync::OnceCell;

const SERVER: Stmt = Stmt::same(
    "SELECT VERSION() AS version, @@log_bin AND @@binlog_format = 'STATEMENT' AS statements_are_logged",
);

/// The server of a database; asked once, when somebody needs to know.
pub(crate) struct Server {
    db: Db,
    /// Major and minor version of a MariaDB without a binary log of statements.
    free: OnceCell<Option<(u32, u32)>>,
}

impl Server {
    pub(crate) fn new(db: Db) -> Server {
        Server { db, free: OnceCell::new() }
    }

    /// Whether it looks while it writes, without locks, and tells of a write what it did.
    pub(crate) async fn tells_what_it_wrote(&self) -> Result<bool, DbError> {
        Ok(self.free().await? >= Some((10, 5)))
    }

    /// Whether a write can leave out rows that somebody else holds, and tell.
    pub(crate) async fn skips_locked_rows(&self) -> Result<bool, DbError> {
        Ok(self.free().await? >= Some((10, 6)))
    }

    async fn free(&self) -> Result<Option<(u32, u32)>, DbError> {
        self.free.get_or_try_init(|| ask(&self.db)).await.copied()
    }
}

async fn ask(db: &Db) -> Result<Option<(u32, u32)>, DbError> {
    let row = match db.fetch_optional(&SERVER, &[]).await {
        // A server without one of these variables.
        Err(DbError::Refused(_)) => return Ok(None),
        row => row?,
    };
    let statements_are_logged = row.as_ref().and_then(|row| row.int("statements_are_logged"));
    let version = row.as_ref().and_then(|row| row.text("version")).unwrap_or_default();
    Ok(if statements_are_logged == Some(0) { mariadb(version) } else { None })
}

/// `10.11.6-MariaDB-0+deb12u1`; `5.5.5-` is in front of it where a proxy still shows what old clients need.
fn mariadb(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("5.5.5-").unwrap_or(version).split(['.', '-']);
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    version.contains("MariaDB").then_some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_mariadb() {
        for (version, expected) in [
            ("10.11.19-MariaDB-0+deb12u1", Some((10, 11))),
            ("5.5.5-10.6.12-MariaDB", Some((10, 6))),
            ("11.4.2-MariaDB-log", Some((11, 4))),
            ("10.4.30-MariaDB", Some((10, 4))),
            ("5.5.68-MariaDB", Some((5, 5))),
            ("8.0.36", None),
            ("", None),
        ] {
            assert_eq!(mariadb(version), expected, "{version}");
        }
    }
}
