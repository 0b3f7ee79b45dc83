//! Rows that a fresh installation has.

use super::Database;
use super::table::quote;
use crate::sql::Engine;

/// Greylisting for everybody, and one content policy for everybody.
pub(super) fn insert(database: Database, engine: Engine) -> Vec<String> {
    match database {
        Database::Iredapd => vec![
            "INSERT INTO greylisting (account, priority, sender, sender_priority, active) \
             VALUES ('@.', 0, '@.', 0, 1)"
                .to_owned(),
        ],
        Database::Amavisd => {
            // `@.` as octets, for the column is binary.
            let everybody = match engine {
                Engine::MySql => "'@.'",
                Engine::Postgres => "convert_to('@.', 'UTF8')",
                Engine::Sqlite => "CAST('@.' AS BLOB)",
            };
            let users = quote(engine, "users");
            vec![
                "INSERT INTO policy (policy_name, spam_lover, virus_lover, banned_files_lover, bad_header_lover, \
                 bypass_spam_checks, bypass_virus_checks, bypass_banned_checks, bypass_header_checks, \
                 spam_quarantine_to, virus_quarantine_to, banned_quarantine_to, bad_header_quarantine_to) \
                 VALUES ('@.', 'Y', 'N', 'N', 'Y', 'N', 'N', 'N', 'N', '', 'virus-quarantine', \
                 'banned-quarantine', '')"
                    .to_owned(),
                format!(
                    "INSERT INTO {users} (priority, policy_id, email) \
                     SELECT 0, id, {everybody} FROM policy WHERE policy_name = '@.'"
                ),
            ]
        }
        Database::Vmail | Database::Iredadmin => Vec::new(),
    }
}
