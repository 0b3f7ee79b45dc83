//! Login sessions.
//!
//! They are kept in a small database of this daemon's own, `sessions.db` in the state directory; the table
//! `iredadmin.sessions` belongs to the old panel, which would not understand ours, and is left alone. Only the
//! SHA-256 of a session's id is stored, so that nobody who reads the file can take a session over.
//!
//! A session ends after some time without use, when the client's address changes (unless the settings say
//! otherwise), and when the stored password of its account changes.

use std::net::IpAddr;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use outrider_core::random::Random;
use outrider_core::sql::{Db, DbError, PoolOptions, Stmt};

/// The file below the state directory.
const FILE_NAME: &str = "sessions.db";
/// The name of the cookie.
pub(crate) const COOKIE: &str = "iRedAdmin";
/// How exactly the last use of a session is kept: writing at each request would cost more than it is worth.
const TOUCH_AFTER: i64 = 60;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS session (\
    id TEXT PRIMARY KEY, account TEXT NOT NULL, stamp TEXT NOT NULL, client TEXT NOT NULL, used INTEGER NOT NULL);\
    CREATE INDEX IF NOT EXISTS session_account ON session (account);\
    CREATE INDEX IF NOT EXISTS session_used ON session (used);";
const INSERT: Stmt =
    Stmt::same("INSERT INTO session (id, account, stamp, client, used) VALUES (?, ?, ?, ?, ?)");
const FIND: Stmt = Stmt::same("SELECT account, stamp, client, used FROM session WHERE id = ?");
const TOUCH: Stmt = Stmt::same("UPDATE session SET used = ? WHERE id = ?");
const DELETE: Stmt = Stmt::same("DELETE FROM session WHERE id = ?");
const DELETE_OLD: Stmt = Stmt::same("DELETE FROM session WHERE used < ?");

/// The sessions.
#[derive(Clone)]
pub(crate) struct Sessions {
    db: Db,
}

/// What ends a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    /// Seconds without use.
    pub(crate) idle: i64,
    /// Whether the client may change its address.
    pub(crate) any_client: bool,
}

/// A session that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Who logged in.
    pub(crate) account: String,
    /// The fingerprint of the stored password at login.
    pub(crate) stamp: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fingerprint of a stored password, to notice when it changes.
pub(crate) fn stamp(stored_password: &str) -> String {
    hex(digest(&SHA256, stored_password.as_bytes()).as_ref())
}

fn key(id: &str) -> String {
    hex(digest(&SHA256, id.as_bytes()).as_ref())
}

fn client_text(client: Option<IpAddr>) -> String {
    client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
}

impl Sessions {
    /// Opens the store, making it where it is missing.
    pub(crate) async fn open(state: &Path) -> Result<Self, DbError> {
        let db = Db::open_file(&state.join(FILE_NAME), &PoolOptions::default());
        db.execute_script(CREATE).await?;
        Ok(Self { db })
    }

    /// Begins a session and returns its id, which only the client gets to know.
    pub(crate) async fn begin(
        &self,
        account: &str,
        stamp: &str,
        client: Option<IpAddr>,
        now: i64,
        random: &dyn Random,
    ) -> Result<String, DbError> {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        let id = hex(&bytes);
        let row = [key(&id).into(), account.into(), stamp.into(), client_text(client).into(), now.into()];
        self.db.execute(&INSERT, &row).await?;
        Ok(id)
    }

    /// Finds a session that is still in force and notes that it is used.
    pub(crate) async fn find(
        &self,
        id: &str,
        client: Option<IpAddr>,
        now: i64,
        lifetime: Lifetime,
    ) -> Result<Option<Session>, DbError> {
        let Some(row) = self.db.fetch_optional(&FIND, &[key(id).into()]).await? else { return Ok(None) };
        let used = row.int("used").unwrap_or(0);
        let same_client = row.text("client") == Some(client_text(client).as_str());
        if now.saturating_sub(used) > lifetime.idle || !(same_client || lifetime.any_client) {
            self.end(id).await?;
            return Ok(None);
        }
        if now.saturating_sub(used) >= TOUCH_AFTER.min(lifetime.idle / 2) {
            self.db.execute(&TOUCH, &[now.into(), key(id).into()]).await?;
        }
        let text = |name| row.text(name).unwrap_or("").to_owned();
        Ok(Some(Session { account: text("account"), stamp: text("stamp") }))
    }

    /// Ends a session.
    pub(crate) async fn end(&self, id: &str) -> Result<(), DbError> {
        self.db.execute(&DELETE, &[key(id).into()]).await.map(drop)
    }

    /// Removes sessions that nobody used since `before`.
    pub(crate) async fn sweep(&self, before: i64) -> Result<u64, DbError> {
        Ok(self.db.execute(&DELETE_OLD, &[before.into()]).await?.rows_affected)
    }
}

/// The id in the cookie of a request; none if there are two, because only one of them can be ours.
pub(crate) fn id_in(headers: &hyper::header::HeaderMap) -> Option<String> {
    let mut ids = headers
        .get_all(hyper::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    match (ids.next(), ids.next()) {
        (Some(id), None) if (1..=128).contains(&id.len()) => Some(id.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::random::SeededRandom;

    const LIFETIME: Lifetime = Lifetime { idle: 1800, any_client: false };

    async fn sessions() -> (tempfile::TempDir, Sessions, String) {
        let state = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(state.path()).await.unwrap();
        let client = Some("192.0.2.1".parse().unwrap());
        let id = sessions.begin("a@x.example", "stamp", client, 1000, &SeededRandom::new(1)).await.unwrap();
        (state, sessions, id)
    }

    #[tokio::test]
    async fn a_session_lives_while_it_is_used() {
        let (_state, sessions, id) = sessions().await;
        let client = Some("192.0.2.1".parse().unwrap());
        let expected = Some(Session { account: "a@x.example".to_owned(), stamp: "stamp".to_owned() });
        for now in [1000, 2800, 4600] {
            assert_eq!(sessions.find(&id, client, now, LIFETIME).await.unwrap(), expected, "{now}");
        }
        assert_eq!(sessions.find(&id, client, 6401, LIFETIME).await.unwrap(), None);
        assert_eq!(sessions.find(&id, client, 4600, LIFETIME).await.unwrap(), None);
    }

    #[tokio::test]
    async fn another_client_ends_it_unless_that_is_allowed() {
        let (_state, sessions, id) = sessions().await;
        let other = Some("192.0.2.2".parse().unwrap());
        let lax = Lifetime { any_client: true, ..LIFETIME };
        assert!(sessions.find(&id, other, 1000, lax).await.unwrap().is_some());
        assert!(sessions.find(&id, other, 1000, LIFETIME).await.unwrap().is_none());
        assert!(
            sessions.find(&id, Some("192.0.2.1".parse().unwrap()), 1000, LIFETIME).await.unwrap().is_none()
        );
    }

    #[tokio::test]
    async fn unknown_ended_and_swept_sessions_are_none() {
        let (_state, sessions, id) = sessions().await;
        let client = Some("192.0.2.1".parse().unwrap());
        assert!(sessions.find("0123456789abcdef", client, 1000, LIFETIME).await.unwrap().is_none());
        assert_eq!(sessions.sweep(1000).await.unwrap(), 0);
        assert_eq!(sessions.sweep(1001).await.unwrap(), 1);
        assert!(sessions.find(&id, client, 1000, LIFETIME).await.unwrap().is_none());
    }

    #[test]
    fn cookies() {
        for (cookie, expected) in [
            ("iRedAdmin=abc", Some("abc")),
            ("lang=de; iRedAdmin=abc; x=y", Some("abc")),
            ("iRedAdmin=abc; iRedAdmin=def", None),
            ("iRedAdmin=", None),
            ("xiRedAdmin=abc", None),
        ] {
            let mut headers = hyper::header::HeaderMap::new();
            headers.insert(hyper::header::COOKIE, cookie.parse().unwrap());
            assert_eq!(id_in(&headers).as_deref(), expected, "{cookie}");
        }
    }
}
