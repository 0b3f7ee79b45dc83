//! Domains whose mail servers are never greylisted: `iredapd.greylisting_whitelist_domains`, and in
//! `greylisting_whitelist_domain_spf` the addresses that their SPF or MX records named when they were last looked up.
//!
//! An address belongs to the first domain that names it: the key of the table is the address, and providers share
//! networks. A domain's row is locked while its addresses are replaced, so of two hosts that do it at once the second
//! waits and then finds what the first has written; a domain that was removed in the meantime stays removed.
//!
//! Domains are written in lower case. Rows of other programs may hold capitals, which only MySQL compares as equal: what
//! concerns such a domain finds its row, and the rows of its addresses, in either spelling.

use std::collections::HashSet;
use std::time::Duration;

use super::greylisting::lowered;
use super::{AccountError, Edit, Edited, Result, Rules, column, taken};
use crate::sql::{DbError, Row, Stmt, Transaction, Value};

const DOMAINS: Stmt = Stmt::same("SELECT domain FROM greylisting_whitelist_domains ORDER BY domain");
const INSERT_DOMAIN: Stmt = Stmt::same("INSERT INTO greylisting_whitelist_domains (domain) VALUES (?)");
const DELETE_DOMAIN: Stmt = Stmt::same("DELETE FROM greylisting_whitelist_domains WHERE domain = ?");
/// On SQLite a transaction is alone from its beginning.
const LOCK_DOMAIN: Stmt = Stmt::per_engine(
    "SELECT id FROM greylisting_whitelist_domains WHERE domain = ? FOR UPDATE",
    "SELECT id FROM greylisting_whitelist_domains WHERE domain = ? FOR UPDATE",
    "SELECT id FROM greylisting_whitelist_domains WHERE domain = ?",
);
const ALL_ADDRESSES: Stmt = Stmt::same(
    "SELECT account, sender, comment FROM greylisting_whitelist_domain_spf ORDER BY comment, sender",
);
const ADDRESSES: Stmt = Stmt::same(
    "SELECT sender FROM greylisting_whitelist_domain_spf WHERE account = '@.' AND comment IN (?) ORDER BY sender",
);
const KNOWN: Stmt =
    Stmt::same("SELECT sender FROM greylisting_whitelist_domain_spf WHERE account = '@.' AND sender IN (?)");
/// Another domain's refresh may be faster; its row is as good. (A plain insert that fails would leave a shared lock
/// on MySQL, and two that wait for each other.)
const INSERT_ADDRESS: Stmt = Stmt::per_engine(
    "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES ('@.', ?, ?) \
     ON DUPLICATE KEY UPDATE id = id",
    "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES ('@.', ?, ?) \
     ON CONFLICT DO NOTHING",
    "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES ('@.', ?, ?) \
     ON CONFLICT DO NOTHING",
);
const DELETE_ADDRESS: Stmt = Stmt::same(
    "DELETE FROM greylisting_whitelist_domain_spf WHERE account = '@.' AND sender = ? AND comment IN (?)",
);
const DELETE_ADDRESSES: Stmt =
    Stmt::same("DELETE FROM greylisting_whitelist_domain_spf WHERE comment IN (?)");
/// Where releases before 2.1 of iRedAPD kept them.
const DELETE_OLD_ADDRESSES: Stmt = Stmt::same("DELETE FROM greylisting_whitelists WHERE comment IN (?)");

/// How often a replacement is begun again that the server has undone in favour of another.
const ATTEMPTS: u32 = 5;
/// The width of the column `comment`.
const COMMENT: usize = 255;

impl Rules {
    /// The domains.
    pub async fn greylisting_domains(&self) -> Result<Vec<String>> {
        let rows = self.iredapd.fetch_all(&DOMAINS, &[]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect())
    }

    /// The addresses found for all domains.
    pub async fn greylisting_domain_addresses(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&ALL_ADDRESSES, &[]).await?)
    }

    /// Changes the domains whose mail servers, as their SPF and MX records name them, are never greylisted. With a
    /// domain go the addresses found for it.
    pub async fn edit_greylisting_domains(&self, edit: &Edit) -> Result<Edited> {
        let mut tx = self.iredapd.begin().await?;
        let rows = column(&mut tx, &DOMAINS, &[]).await?;
        let edited = Edited::between(lowered(&rows), &edit.lowered());
        for row in rows {
            let domain = row.to_lowercase();
            if edited.removed.contains(&domain) {
                tx.execute(&DELETE_DOMAIN, &[(&row).into()]).await?;
                forget_addresses(&mut tx, &[row, domain]).await?;
            }
        }
        for new in &edited.added {
            tx.execute(&INSERT_DOMAIN, &[new.into()]).await.map_err(taken)?;
        }
        tx.commit().await?;
        Ok(edited)
    }

    /// Forgets the addresses found for a domain, whether or not it is among the domains; how many.
    pub async fn forget_greylisting_addresses(&self, domain: &str) -> Result<u64> {
        let mut tx = self.iredapd.begin().await?;
        let rows = forget_addresses(&mut tx, &[domain.to_owned(), domain.to_lowercase()]).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Makes `addresses` those of a domain, in one transaction that writes only what differs; what changed. Addresses
    /// that another domain has named already stay that domain's. `None`, with nothing done, if the domain has
    /// to be among the domains and is not.
    pub async fn replace_greylisting_addresses(
        &self,
        domain: &str,
        addresses: &[String],
        has_to_be_listed: bool,
    ) -> Result<Option<Edited>> {
        let mut addresses = addresses.to_vec();
        // One order for everybody: two transactions that insert the same rows never wait for each other in turn.
        addresses.sort_unstable();
        addresses.dedup();
        for attempt in 1..ATTEMPTS {
            match self.replace_once(domain, &addresses, has_to_be_listed).await {
                Err(AccountError::Database(DbError::TryAgain(_))) => {
                    tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                }
                other => return other,
            }
        }
        self.replace_once(domain, &addresses, has_to_be_listed).await
    }

    async fn replace_once(
        &self,
        domain: &str,
        addresses: &[String],
        has_to_be_listed: bool,
    ) -> Result<Option<Edited>> {
        let comment = comment_of(&domain.to_lowercase());
        let comments = || Value::list([&comment, &comment_of(domain)]);
        let mut tx = self.iredapd.begin().await?;
        if tx.fetch_optional(&LOCK_DOMAIN, &[domain.into()]).await?.is_none() && has_to_be_listed {
            tx.rollback().await?;
            return Ok(None);
        }
        let current = column(&mut tx, &ADDRESSES, &[comments()]).await?;
        let removed: Vec<String> =
            current.into_iter().filter(|address| addresses.binary_search(address).is_err()).collect();
        for gone in &removed {
            tx.execute(&DELETE_ADDRESS, &[gone.into(), comments()]).await?;
        }
        let known = column(&mut tx, &KNOWN, &[Value::list(addresses)]).await?;
        let known: HashSet<String> = known.into_iter().collect();
        let added: Vec<String> =
            addresses.iter().filter(|address| !known.contains(*address)).cloned().collect();
        for new in &added {
            tx.execute(&INSERT_ADDRESS, &[new.into(), (&comment).into()]).await?;
        }
        tx.commit().await?;
        Ok(Some(Edited { added, removed }))
    }
}

async fn forget_addresses(tx: &mut Transaction, spellings: &[String]) -> Result<u64> {
    let comments = [Value::list(spellings.iter().map(|domain| comment_of(domain)))];
    let found = tx.execute(&DELETE_ADDRESSES, &comments).await?;
    let old = tx.execute(&DELETE_OLD_ADDRESSES, &comments).await?;
    Ok(found.rows_affected + old.rows_affected)
}

/// What marks the rows of a domain.
fn comment_of(domain: &str) -> String {
    format!("AUTO-UPDATE: {domain}").chars().take(COMMENT).collect()
}
