//! Table `smtp_sessions`: what was answered to whom.

use outrider_core::sql::{Db, DbError, Engine, Stmt, Value};

use super::{Sweep, fit};

const INSERT: Stmt = Stmt::same(
    "INSERT INTO smtp_sessions (time, time_num, action, reason, instance, client_address, client_name, \
     reverse_client_name, helo_name, sender, sender_domain, sasl_username, sasl_domain, recipient, \
     recipient_domain, encryption_protocol, encryption_cipher, server_address, server_port) \
     VALUES ?",
);

/// Rows of one transaction at most. SQLite has one writer, and others wait for it.
const TRANSACTION: PerEngine = PerEngine { sqlite: 64, server: 512 };
/// Rows of one statement at most. A server does not look up from a statement: where it has few cores, those that somebody
/// waits for wait for the end of it.
const STATEMENT: PerEngine = PerEngine { sqlite: 64, server: 16 };

struct PerEngine {
    sqlite: usize,
    server: usize,
}

impl PerEngine {
    fn of(&self, engine: Engine) -> usize {
        if engine == Engine::Sqlite { self.sqlite } else { self.server }
    }
}

const OLD: Sweep = Sweep {
    step: Stmt::same(
        "SELECT MAX(id) FROM (SELECT id FROM smtp_sessions WHERE id > ? ORDER BY id LIMIT ?) AS step",
    ),
    delete: Stmt::same("DELETE FROM smtp_sessions WHERE id > ? AND id <= ? AND time_num < ?").repeatable(),
    ordered: true,
};

/// One row. Text of any length; it is cut to the columns' widths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRow {
    /// Unix seconds.
    pub time: i64,
    /// First word of the answer.
    pub action: String,
    /// The rest of it; empty for `DUNNO`.
    pub reason: String,
    /// Postfix's id of the transaction.
    pub instance: String,
    /// The client's address.
    pub client_address: String,
    /// The client's verified name.
    pub client_name: String,
    /// The client's unverified name.
    pub reverse_client_name: String,
    /// What the client called itself.
    pub helo_name: String,
    /// Sender without extension.
    pub sender: String,
    /// The domain of it.
    pub sender_domain: String,
    /// The login.
    pub sasl_username: String,
    /// The domain of it.
    pub sasl_domain: String,
    /// Recipient without extension.
    pub recipient: String,
    /// The domain of it.
    pub recipient_domain: String,
    /// TLS version.
    pub encryption_protocol: String,
    /// TLS cipher.
    pub encryption_cipher: String,
    /// Postfix's address.
    pub server_address: String,
    /// Postfix's port.
    pub server_port: String,
}

/// The table.
pub struct SessionStore {
    db: Db,
}

impl SessionStore {
    /// The table in this database.
    pub fn new(db: Db) -> SessionStore {
        SessionStore { db }
    }

    /// Rows that one transaction should hold at most.
    pub fn batch(&self) -> usize {
        TRANSACTION.of(self.db.engine())
    }

    /// Forgets rows from before `time` (Unix seconds), going through `batch` rows at a time; how many.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn forget_before(&self, time: i64, batch: u32) -> Result<u64, DbError> {
        OLD.run(&self.db, time, batch).await
    }

    /// Writes rows, all or none.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn insert(&self, rows: &[SessionRow]) -> Result<(), DbError> {
        let engine = self.db.engine();
        if rows.len() <= STATEMENT.of(engine) && rows.len().is_power_of_two() {
            return self.db.execute(&INSERT, &[values(rows, engine)]).await.map(drop);
        }
        let mut transaction = self.db.begin().await?;
        for rows in pieces(rows, STATEMENT.of(engine)) {
            let rows = values(rows, engine);
            transaction.execute(&INSERT, &[rows]).await?;
        }
        transaction.commit().await
    }
}

/// The rows cut into pieces of `most`, half as many and so on: few different statements stay prepared for any number of
/// rows. `most` is a power of two.
fn pieces(mut rows: &[SessionRow], most: usize) -> impl Iterator<Item = &[SessionRow]> {
    std::iter::from_fn(move || {
        let length = 1 << rows.len().min(most).checked_ilog2()?;
        let (piece, rest) = rows.split_at(length);
        rows = rest;
        Some(piece)
    })
}

/// The columns of rows, cut to what they hold.
fn values(rows: &[SessionRow], engine: Engine) -> Value {
    let reason_width = if engine == Engine::MySql { 150 } else { 255 };
    Value::Rows(rows.iter().map(|row| row_values(row, reason_width)).collect())
}

fn row_values(row: &SessionRow, reason_width: usize) -> Vec<Value> {
    vec![
        Value::time(utc_text(row.time)),
        row.time.into(),
        fit(&row.action, 20).into(),
        fit(&row.reason, reason_width).into(),
        fit(&row.instance, 40).into(),
        fit(&row.client_address, 40).into(),
        fit(&row.client_name, 255).into(),
        fit(&row.reverse_client_name, 255).into(),
        fit(&row.helo_name, 255).into(),
        fit(&row.sender, 255).into(),
        fit(&row.sender_domain, 255).into(),
        fit(&row.sasl_username, 255).into(),
        fit(&row.sasl_domain, 255).into(),
        fit(&row.recipient, 255).into(),
        fit(&row.recipient_domain, 255).into(),
        fit(&row.encryption_protocol, 20).into(),
        fit(&row.encryption_cipher, 50).into(),
        fit(&row.server_address, 40).into(),
        fit(&row.server_port, 10).into(),
    ]
}

/// `YYYY-MM-DD HH:MM:SS` in UTC, as the column has always held it.
fn utc_text(unix: i64) -> String {
    let time = jiff::Timestamp::from_second(unix).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc_text(1_742_040_000), "2025-03-15 12:00:00");
        assert_eq!(utc_text(i64::MAX), "1970-01-01 00:00:00");
    }

    #[test]
    fn rows_are_written_in_few_sizes() {
        let rows = vec![SessionRow::default(); 203];
        let sizes = |most| -> Vec<usize> { pieces(&rows, most).map(<[_]>::len).collect() };
        assert_eq!(sizes(64), [64, 64, 64, 8, 2, 1]);
        assert_eq!(sizes(128), [128, 64, 8, 2, 1]);
        assert_eq!(pieces(&[], 64).count(), 0);
    }

    #[test]
    fn long_text_is_cut() {
        let row =
            SessionRow { reason: "r".repeat(400), helo_name: "ü".repeat(300), ..SessionRow::default() };
        for (engine, width) in [(Engine::MySql, 150), (Engine::Postgres, 255), (Engine::Sqlite, 255)] {
            let Value::Rows(rows) = values(std::slice::from_ref(&row), engine) else { panic!("no rows") };
            assert_eq!(rows[0][3], Value::Text("r".repeat(width)));
            assert_eq!(rows[0][8], Value::Text("ü".repeat(255)));
        }
    }
}
