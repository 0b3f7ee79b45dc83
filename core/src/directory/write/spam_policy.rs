//! What the content filter does for an account: `amavisd.policy`, linked from `users.policy_id`.

use super::wblist::user_id;
use super::{Result, Rules, Scope, taken};
use crate::sql::{Row, Stmt, Value};

/// A column of a policy that administrators set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyColumn {
    /// Not checked for spam (`Y`, `N`).
    BypassSpam,
    /// Not checked for viruses.
    BypassVirus,
    /// Not checked for banned files.
    BypassBanned,
    /// Not checked for bad headers.
    BypassHeader,
    /// Gets spam all the same.
    SpamLover,
    /// Gets viruses all the same.
    VirusLover,
    /// Gets banned files all the same.
    BannedLover,
    /// Gets bad headers all the same.
    BadHeaderLover,
    /// Where spam is kept.
    SpamQuarantine,
    /// Where viruses are kept.
    VirusQuarantine,
    /// Where banned files are kept.
    BannedQuarantine,
    /// Where bad headers are kept.
    BadHeaderQuarantine,
    /// What is put before the subject of spam.
    SubjectTag2,
    /// The score from which headers are inserted.
    TagLevel,
    /// The score from which mail is spam.
    Tag2Level,
    /// The score from which spam is stopped.
    KillLevel,
}

impl PolicyColumn {
    const fn update(self) -> Stmt {
        Stmt::same(match self {
            Self::BypassSpam => "UPDATE policy SET bypass_spam_checks = ? WHERE policy_name = ?",
            Self::BypassVirus => "UPDATE policy SET bypass_virus_checks = ? WHERE policy_name = ?",
            Self::BypassBanned => "UPDATE policy SET bypass_banned_checks = ? WHERE policy_name = ?",
            Self::BypassHeader => "UPDATE policy SET bypass_header_checks = ? WHERE policy_name = ?",
            Self::SpamLover => "UPDATE policy SET spam_lover = ? WHERE policy_name = ?",
            Self::VirusLover => "UPDATE policy SET virus_lover = ? WHERE policy_name = ?",
            Self::BannedLover => "UPDATE policy SET banned_files_lover = ? WHERE policy_name = ?",
            Self::BadHeaderLover => "UPDATE policy SET bad_header_lover = ? WHERE policy_name = ?",
            Self::SpamQuarantine => "UPDATE policy SET spam_quarantine_to = ? WHERE policy_name = ?",
            Self::VirusQuarantine => "UPDATE policy SET virus_quarantine_to = ? WHERE policy_name = ?",
            Self::BannedQuarantine => "UPDATE policy SET banned_quarantine_to = ? WHERE policy_name = ?",
            Self::BadHeaderQuarantine => {
                "UPDATE policy SET bad_header_quarantine_to = ? WHERE policy_name = ?"
            }
            Self::SubjectTag2 => "UPDATE policy SET spam_subject_tag2 = ? WHERE policy_name = ?",
            Self::TagLevel => "UPDATE policy SET spam_tag_level = ? WHERE policy_name = ?",
            Self::Tag2Level => "UPDATE policy SET spam_tag2_level = ? WHERE policy_name = ?",
            Self::KillLevel => "UPDATE policy SET spam_kill_level = ? WHERE policy_name = ?",
        })
    }
}

const READ: Stmt = Stmt::same("SELECT * FROM policy WHERE policy_name = ?");
const INSERT: Stmt = Stmt::same("INSERT INTO policy (policy_name) VALUES (?)");
const LINK: Stmt = Stmt::same("UPDATE users SET policy_id = ? WHERE id = ?");
const UNLINK: Stmt = Stmt::same("UPDATE users SET policy_id = 0 WHERE email = ?");
const DELETE: Stmt = Stmt::same("DELETE FROM policy WHERE policy_name = ?");

impl Rules {
    /// The policy set for exactly this scope, if there is one.
    pub async fn spam_policy(&self, scope: &Scope) -> Result<Option<Row>> {
        Ok(self.amavisd.fetch_optional(&READ, &[scope.account().into()]).await?)
    }

    /// Sets columns of the policy of this scope, making it where it is missing; NULL leaves a column to the wider scope.
    pub async fn set_spam_policy(&self, scope: &Scope, values: &[(PolicyColumn, Value)]) -> Result<()> {
        let account = scope.account();
        let mut tx = self.amavisd.begin().await?;
        if tx.fetch_optional(&READ, &[(&account).into()]).await?.is_none() {
            tx.execute(&INSERT, &[(&account).into()]).await.map_err(taken)?;
        }
        let row = tx.fetch_optional(&READ, &[(&account).into()]).await?;
        let policy = row.and_then(|row| row.int("id")).unwrap_or(0);
        let user = user_id(&mut tx, &scope.into()).await?;
        tx.execute(&LINK, &[policy.into(), user.into()]).await?;
        for (column, value) in values {
            tx.execute(&column.update(), &[value.clone(), (&account).into()]).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Removes the policy of this scope: the wider one holds again.
    pub async fn remove_spam_policy(&self, scope: &Scope) -> Result<()> {
        let account = scope.account();
        let mut tx = self.amavisd.begin().await?;
        tx.execute(&UNLINK, &[Value::bytes(&account)]).await?;
        tx.execute(&DELETE, &[account.into()]).await?;
        Ok(tx.commit().await?)
    }
}
