//! Subscribable mailing lists: `maillists`, their row in `forwardings`, `maillist_owners` and `moderators`.

use super::{AccountError, Accounts, Pending, Result, domain_of, found, is_taken, taken};
use crate::sql::{Stmt, Transaction, Value};

/// Who may post to a list, as far as the database says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessPolicy {
    /// Subscribers (and moderators).
    Members,
    /// Moderators.
    Moderators,
}

impl AccessPolicy {
    fn name(self) -> &'static str {
        match self {
            Self::Members => "membersonly",
            Self::Moderators => "moderatorsonly",
        }
    }
}

/// A list to be made.
#[derive(Debug, Clone, Default)]
pub struct NewList {
    /// Its address.
    pub address: String,
    /// Its display name.
    pub name: String,
    /// `maillists.transport`.
    pub transport: String,
    /// A random UUID.
    pub mlid: String,
    /// Largest post in bytes; 0 is no limit.
    pub max_message_size: i64,
    /// Who may post.
    pub access_policy: Option<AccessPolicy>,
    /// Addresses of the owners, if any were named.
    pub owners: Option<Vec<String>>,
    /// Addresses of the moderators, if any were named.
    pub moderators: Option<Vec<String>>,
}

/// A change of a list; what is `None` or empty stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListChange {
    /// The new display name.
    pub name: Option<String>,
    /// The new size limit in bytes; 0 is no limit.
    pub max_message_size: Option<i64>,
    /// Who may post from now on.
    pub grant: Option<AccessPolicy>,
    /// Policies that end: where one of them is in force, everybody may post.
    pub revoke: Vec<AccessPolicy>,
    /// The owners, all of them.
    pub owners: Option<Vec<String>>,
    /// The moderators, all of them.
    pub moderators: Option<Vec<String>>,
}

impl ListChange {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const HOSTED: Stmt = Stmt::same(
    "SELECT domain FROM domain WHERE domain = ? UNION SELECT alias_domain FROM alias_domain WHERE alias_domain = ?",
);
const INSERT_LIST: Stmt = Stmt::same(
    "INSERT INTO maillists (active, address, domain, name, transport, mlid, maxmsgsize, accesspolicy) \
     VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
);
const INSERT_FORWARDING: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_maillist, active) \
     VALUES (?, ?, ?, ?, 1, 1)",
);
const INSERT_OWNER: Stmt =
    Stmt::same("INSERT INTO maillist_owners (address, owner, domain, dest_domain) VALUES (?, ?, ?, ?)");
const INSERT_MODERATOR: Stmt =
    Stmt::same("INSERT INTO moderators (address, moderator, domain, dest_domain) VALUES (?, ?, ?, ?)");
const DELETE_OWNERS: Stmt = Stmt::same("DELETE FROM maillist_owners WHERE address = ?");
const DELETE_MODERATORS: Stmt = Stmt::same("DELETE FROM moderators WHERE address = ?");
const DELETE_LIST: Stmt = Stmt::same("DELETE FROM maillists WHERE address = ?");
const DELETE_FORWARDING: Stmt = Stmt::same("DELETE FROM forwardings WHERE address = ? AND is_maillist = 1");
const DELETE_FORWARDINGS: Stmt = Stmt::same("DELETE FROM forwardings WHERE address = ?");
const SET_NAME: Stmt = Stmt::same("UPDATE maillists SET name = ? WHERE address = ?");
const SET_SIZE: Stmt = Stmt::same("UPDATE maillists SET maxmsgsize = ? WHERE address = ?");
const SET_POLICY: Stmt = Stmt::same("UPDATE maillists SET accesspolicy = ? WHERE address = ?");
const END_POLICY: Stmt =
    Stmt::same("UPDATE maillists SET accesspolicy = '' WHERE address = ? AND accesspolicy = ?");
const EXISTS: Stmt = Stmt::same("SELECT address FROM maillists WHERE address = ?");
const KNOWN_ADDRESSES: Stmt = Stmt::same("SELECT address FROM forwardings WHERE address IN (?)");
const ALL_LISTS: Stmt = Stmt::same("SELECT address FROM maillists ORDER BY address");
const LISTS_OF_DOMAIN: Stmt = Stmt::same("SELECT address FROM maillists WHERE domain = ? ORDER BY address");

/// The two tables of people who have a say in a list.
#[derive(Clone, Copy)]
enum Role {
    Owner,
    Moderator,
}

impl Accounts {
    /// Makes the rows of a list.
    ///
    /// # Errors
    /// `NoSuchDomain`, `AlreadyExists` (also if the address is that of a user or an alias).
    pub async fn create_list(&self, list: &NewList) -> Result<Pending> {
        let domain = domain_of(&list.address);
        let address = || Value::from(&list.address);
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &HOSTED, &[domain.into(), domain.into()]).await? {
            return Err(AccountError::NoSuchDomain);
        }
        if is_taken(&mut tx, &list.address).await? {
            return Err(AccountError::AlreadyExists);
        }
        let row = [
            address(),
            domain.into(),
            Value::from(&list.name),
            Value::from(&list.transport),
            Value::from(&list.mlid),
            list.max_message_size.into(),
            list.access_policy.map_or("", AccessPolicy::name).into(),
        ];
        tx.execute(&INSERT_LIST, &row).await.map_err(taken)?;
        let row = [address(), address(), domain.into(), domain.into()];
        tx.execute(&INSERT_FORWARDING, &row).await.map_err(taken)?;
        for (role, people) in [(Role::Owner, &list.owners), (Role::Moderator, &list.moderators)] {
            if let Some(people) = people {
                replace_people(&mut tx, role, &list.address, people).await?;
            }
        }
        Ok(Pending(tx))
    }

    /// Changes the rows of a list; a list without rows stays without.
    pub async fn change_list(&self, address: &str, change: &ListChange) -> Result<Pending> {
        let mut tx = self.vmail.begin().await?;
        if let Some(name) = &change.name {
            tx.execute(&SET_NAME, &[name.into(), address.into()]).await?;
        }
        if let Some(bytes) = change.max_message_size {
            tx.execute(&SET_SIZE, &[bytes.into(), address.into()]).await?;
        }
        for policy in &change.revoke {
            tx.execute(&END_POLICY, &[address.into(), policy.name().into()]).await?;
        }
        if let Some(policy) = change.grant {
            tx.execute(&SET_POLICY, &[policy.name().into(), address.into()]).await?;
        }
        let people = [(Role::Owner, &change.owners), (Role::Moderator, &change.moderators)];
        if people.iter().any(|(_, people)| people.is_some())
            && found(&mut tx, &EXISTS, &[address.into()]).await?
        {
            for (role, people) in people {
                if let Some(people) = people {
                    replace_people(&mut tx, role, address, people).await?;
                }
            }
        }
        Ok(Pending(tx))
    }

    /// Removes all rows of a list. It is no error if there are none.
    pub async fn delete_list(&self, address: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        // What else goes on from the address of a list belongs to the list; that of a user's address does not.
        let was_list = tx.execute(&DELETE_LIST, &[address.into()]).await?.rows_affected > 0;
        let forwardings = if was_list { &DELETE_FORWARDINGS } else { &DELETE_FORWARDING };
        for stmt in [forwardings, &DELETE_MODERATORS, &DELETE_OWNERS] {
            tx.execute(stmt, &[address.into()]).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Whether the list has a row.
    pub async fn list_exists(&self, address: &str) -> Result<bool> {
        Ok(self.vmail.fetch_optional(&EXISTS, &[address.into()]).await?.is_some())
    }

    /// The addresses of the lists of one domain, or of all.
    pub async fn list_addresses(&self, domain: Option<&str>) -> Result<Vec<String>> {
        let rows = match domain {
            Some(domain) => self.vmail.fetch_all(&LISTS_OF_DOMAIN, &[domain.into()]).await?,
            None => self.vmail.fetch_all(&ALL_LISTS, &[]).await?,
        };
        Ok(rows.iter().filter_map(|row| row.text_at(0)).map(str::to_lowercase).collect())
    }
}

/// Replaces the owners or moderators. Addresses below the list's own domain that nobody has are left out: the
/// policy service would take mail from them for granted.
async fn replace_people(tx: &mut Transaction, role: Role, address: &str, people: &[String]) -> Result<()> {
    let (delete, insert) = match role {
        Role::Owner => (&DELETE_OWNERS, &INSERT_OWNER),
        Role::Moderator => (&DELETE_MODERATORS, &INSERT_MODERATOR),
    };
    tx.execute(delete, &[address.into()]).await?;
    let domain = domain_of(address);
    let own: Vec<&str> = people.iter().map(String::as_str).filter(|p| domain_of(p) == domain).collect();
    let known =
        if own.is_empty() { Vec::new() } else { tx.fetch_all(&KNOWN_ADDRESSES, &[Value::list(own)]).await? };
    let mut written: Vec<&str> = Vec::new();
    for person in people {
        let exists = domain_of(person) != domain
            || known.iter().any(|row| row.text_at(0).is_some_and(|text| text.eq_ignore_ascii_case(person)));
        if exists && !written.contains(&person.as_str()) {
            let row = [address.into(), person.into(), domain.into(), domain_of(person).into()];
            tx.execute(insert, &row).await?;
            written.push(person);
        }
    }
    Ok(())
}
