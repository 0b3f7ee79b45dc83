//! Answers of a directory remembered for a short while.

use super::{
    AccountSource, Answer, Directory, DirectoryError, DomainQuota, DomainScope, ListEntry, ListKind,
    PasswordChange, QuotaAccount, SenderRights,
};
use crate::clock::SharedClock;
use crate::daemon::DependencyHealth;
use crate::settings::Interval;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

crate::settings! {
    /// How long answers about accounts are remembered.
    pub struct DirectorySettings {
        /// How long an answer about a domain, an alias or a list is used again, found or not; "0s" switches this off.
        pub cache_life: Interval = Interval::seconds(10),
        /// Answers remembered at most.
        pub cache_size: usize = 10_000,
        /// How long old answers may be used while the accounts cannot be asked; "0s": not at all.
        pub cache_stale: Interval = Interval::seconds(0),
    }
}

/// A directory in front of which answers are remembered, those that found nothing included. Usage of mailboxes, quota and
/// password age always come fresh.
pub struct CachedDirectory<D: ?Sized> {
    inner: Arc<D>,
    clock: SharedClock,
    life_millis: i64,
    stale_millis: i64,
    answers: Mutex<LruCache<Question, (i64, Remembered)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    IsLocalDomain(String, DomainScope),
    AliasTarget(String),
    AliasDomainOf(String, String),
    DomainNames(String),
    LoginHasAlias(String, String),
    LoginMayUse(String, String, SenderRights),
    ListHasMember(String, String),
    UsersWithAlias(String, String),
    AliasHasMember(String, String),
    IsActiveMaillist(String),
    ListPolicy(ListKind, String),
    AliasMembers(String),
    Moderators(String),
    Owners(String),
    ForwardingTargets(String),
}

/// The longest text of a question whose answer is worth remembering, in octets. No address is longer (RFC 5321 section
/// 4.5.3.1), and a cache bounded by entries must not be filled with attributes of 8 KiB each.
const LONGEST: usize = 512;

impl Question {
    /// Whether an honest client could have asked it.
    fn is_ordinary(&self) -> bool {
        use Question::*;
        let (first, second) = match self {
            AliasDomainOf(one, other)
            | LoginHasAlias(one, other)
            | LoginMayUse(one, other, _)
            | ListHasMember(one, other)
            | UsersWithAlias(one, other)
            | AliasHasMember(one, other) => (one, other.as_str()),
            IsLocalDomain(only, _)
            | AliasTarget(only)
            | DomainNames(only)
            | IsActiveMaillist(only)
            | ListPolicy(_, only)
            | AliasMembers(only)
            | Moderators(only)
            | Owners(only)
            | ForwardingTargets(only) => (only, ""),
        };
        first.len() <= LONGEST && second.len() <= LONGEST
    }
}

#[derive(Debug, Clone)]
enum Remembered {
    Flag(bool),
    Name(Option<String>),
    Names(Arc<[String]>),
}

/// What can be remembered and told again.
trait Memory: Sized + Clone {
    fn remember(&self) -> Remembered;
    fn recall(remembered: &Remembered) -> Option<Self>;
}

impl Memory for bool {
    fn remember(&self) -> Remembered {
        Remembered::Flag(*self)
    }
    fn recall(remembered: &Remembered) -> Option<bool> {
        match remembered {
            Remembered::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl Memory for Option<String> {
    fn remember(&self) -> Remembered {
        Remembered::Name(self.clone())
    }
    fn recall(remembered: &Remembered) -> Option<Option<String>> {
        match remembered {
            Remembered::Name(name) => Some(name.clone()),
            _ => None,
        }
    }
}

impl Memory for Vec<String> {
    fn remember(&self) -> Remembered {
        Remembered::Names(self.as_slice().into())
    }
    fn recall(remembered: &Remembered) -> Option<Vec<String>> {
        match remembered {
            Remembered::Names(names) => Some(names.to_vec()),
            _ => None,
        }
    }
}

impl<D: Directory + ?Sized> CachedDirectory<D> {
    /// Remembers answers of `inner` as the settings say.
    pub fn new(inner: Arc<D>, settings: &DirectorySettings, clock: SharedClock) -> CachedDirectory<D> {
        let size = NonZeroUsize::new(settings.cache_size).unwrap_or(NonZeroUsize::MIN);
        let life = if settings.cache_size == 0 { 0 } else { settings.cache_life.duration().as_millis() };
        CachedDirectory {
            inner,
            clock,
            life_millis: i64::try_from(life).unwrap_or(i64::MAX),
            stale_millis: i64::try_from(settings.cache_stale.duration().as_millis()).unwrap_or(i64::MAX),
            answers: Mutex::new(LruCache::new(size)),
        }
    }

    /// What is remembered, else what `fresh` brings: most often it is not even begun.
    async fn ask<'a, T: Memory>(
        &self,
        question: Question,
        fresh: impl FnOnce() -> Answer<'a, T> + Send,
    ) -> Result<T, DirectoryError> {
        let keeps = self.life_millis > 0 || self.stale_millis > 0;
        if !keeps || !question.is_ordinary() {
            return fresh().await;
        }
        let now = self.clock.unix_millis();
        if let Some(answer) = self.younger_than(self.life_millis, &question, now) {
            return Ok(answer);
        }
        match fresh().await {
            Ok(answer) => {
                self.lock().put(question, (now, answer.remember()));
                Ok(answer)
            }
            // What held until the accounts went away is the best guess.
            Err(error) if error.cause.is_temporary() => {
                self.younger_than(self.stale_millis, &question, now).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn younger_than<T: Memory>(&self, life_millis: i64, question: &Question, now: i64) -> Option<T> {
        let mut answers = self.lock();
        let (since, remembered) = answers.get(question)?;
        // A clock that was set back must not make answers last.
        let age = now.checked_sub(*since)?;
        (0..life_millis).contains(&age).then(|| T::recall(remembered)).flatten()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Question, (i64, Remembered)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One method that asks through the memory.
macro_rules! remembered {
    ($self:ident, $question:expr, $fresh:expr) => {
        Box::pin(async move { $self.ask($question, || $fresh).await })
    };
}

impl<D: Directory + ?Sized> Directory for CachedDirectory<D> {
    fn source(&self) -> AccountSource {
        self.inner.source()
    }

    fn is_local_domain<'a>(&'a self, domain: &'a str, scope: DomainScope) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::IsLocalDomain(domain.to_lowercase(), scope),
            self.inner.is_local_domain(domain, scope)
        )
    }

    fn alias_target<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<String>> {
        remembered!(self, Question::AliasTarget(domain.to_lowercase()), self.inner.alias_target(domain))
    }

    fn alias_domain_of<'a>(&'a self, alias: &'a str, target: &'a str) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::AliasDomainOf(alias.to_lowercase(), target.to_lowercase()),
            self.inner.alias_domain_of(alias, target)
        )
    }

    fn domain_names<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(self, Question::DomainNames(domain.to_lowercase()), self.inner.domain_names(domain))
    }

    fn local_domains(&self) -> Answer<'_, Vec<String>> {
        self.inner.local_domains()
    }

    fn login_has_alias<'a>(&'a self, login: &'a str, sender: &'a str) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::LoginHasAlias(login.to_lowercase(), sender.to_lowercase()),
            self.inner.login_has_alias(login, sender)
        )
    }

    fn login_may_use<'a>(
        &'a self,
        login: &'a str,
        sender: &'a str,
        rights: SenderRights,
    ) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::LoginMayUse(login.to_lowercase(), sender.to_lowercase(), rights),
            self.inner.login_may_use(login, sender, rights)
        )
    }

    fn alias_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::AliasHasMember(list.to_lowercase(), member.to_lowercase()),
            self.inner.alias_has_member(list, member)
        )
    }

    fn is_active_maillist<'a>(&'a self, address: &'a str) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::IsActiveMaillist(address.to_lowercase()),
            self.inner.is_active_maillist(address)
        )
    }

    fn list_policy<'a>(&'a self, kind: ListKind, address: &'a str) -> Answer<'a, Option<String>> {
        remembered!(
            self,
            Question::ListPolicy(kind, address.to_lowercase()),
            self.inner.list_policy(kind, address)
        )
    }

    fn list_entry<'a>(&'a self, address: &'a str) -> Answer<'a, Option<ListEntry>> {
        self.inner.list_entry(address)
    }

    fn list_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        remembered!(
            self,
            Question::ListHasMember(list.to_lowercase(), member.to_lowercase()),
            self.inner.list_has_member(list, member)
        )
    }

    fn users_with_alias<'a>(&'a self, domain: &'a str, alias: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(
            self,
            Question::UsersWithAlias(domain.to_lowercase(), alias.to_lowercase()),
            self.inner.users_with_alias(domain, alias)
        )
    }

    fn alias_members<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(self, Question::AliasMembers(address.to_lowercase()), self.inner.alias_members(address))
    }

    fn moderators<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(self, Question::Moderators(address.to_lowercase()), self.inner.moderators(address))
    }

    fn owners<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(self, Question::Owners(address.to_lowercase()), self.inner.owners(address))
    }

    fn password_last_change<'a>(&'a self, username: &'a str) -> Answer<'a, Option<PasswordChange>> {
        self.inner.password_last_change(username)
    }

    fn mailbox_exists<'a>(&'a self, username: &'a str) -> Answer<'a, bool> {
        self.inner.mailbox_exists(username)
    }

    fn quota_account<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        self.inner.quota_account(address)
    }

    fn quota_limit<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        self.inner.quota_limit(address)
    }

    fn domain_quota<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<DomainQuota>> {
        self.inner.domain_quota(domain)
    }

    fn maildir<'a>(&'a self, username: &'a str) -> Answer<'a, Option<String>> {
        self.inner.maildir(username)
    }

    fn used_quota<'a>(&'a self, username: &'a str) -> Answer<'a, Option<i64>> {
        self.inner.used_quota(username)
    }

    fn forwarding_targets<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        remembered!(
            self,
            Question::ForwardingTargets(address.to_lowercase()),
            self.inner.forwarding_targets(address)
        )
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.inner.health()
    }

    fn forget(&self) {
        self.lock().clear();
        self.inner.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqlDirectory;
    use super::*;
    use crate::clock::TestClock;
    use crate::schema::{Database, create_statements};
    use crate::sql::{Db, Engine, PoolOptions, Stmt};

    const ADD: Stmt = Stmt::same("INSERT INTO domain (domain) VALUES (?)");

    async fn directory(folder: &tempfile::TempDir) -> (Db, Arc<TestClock>, CachedDirectory<SqlDirectory>) {
        let db = Db::open_file(&folder.path().join("vmail.db"), &PoolOptions::default());
        for statement in create_statements(Database::Vmail, Engine::Sqlite) {
            db.execute_script(statement).await.expect("created");
        }
        let clock = Arc::new(TestClock::new(1_000_000));
        let inner = Arc::new(SqlDirectory::new(db.clone()));
        let cached = CachedDirectory::new(inner, &DirectorySettings::default(), clock.clone());
        (db, clock, cached)
    }

    #[tokio::test]
    async fn an_answer_lasts_for_its_life_and_no_longer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (db, clock, directory) = directory(&folder).await;
        let ask =
            async || directory.is_local_domain("Example.com", DomainScope::ALL).await.expect("answered");
        assert!(!ask().await);
        db.execute(&ADD, &["example.com".into()]).await.expect("added");
        assert!(!ask().await, "still remembered");
        clock.advance(10);
        assert!(ask().await, "asked anew");
    }

    #[tokio::test]
    async fn forgetting_and_a_clock_set_back_lead_to_a_fresh_answer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (db, clock, directory) = directory(&folder).await;
        let ask =
            async |name: &str| directory.is_local_domain(name, DomainScope::ALL).await.expect("answered");
        assert!(!ask("a.example").await);
        assert!(!ask("b.example").await);
        db.execute(&ADD, &["a.example".into()]).await.expect("added");
        db.execute(&ADD, &["b.example".into()]).await.expect("added");
        clock.set(900_000);
        assert!(ask("a.example").await);
        assert!(!directory.lock().is_empty());
        directory.forget();
        assert!(ask("b.example").await);
    }

    #[tokio::test]
    async fn old_answers_serve_while_the_accounts_are_away() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (db, clock, directory) = directory(&folder).await;
        let settings = DirectorySettings { cache_stale: Interval::seconds(3600), ..Default::default() };
        let directory = CachedDirectory::new(directory.inner.clone(), &settings, clock.clone());
        db.execute(&ADD, &["example.com".into()]).await.expect("added");
        let ask = async |name: &str| directory.is_local_domain(name, DomainScope::ALL).await.ok();
        assert_eq!(ask("example.com").await, Some(true));
        db.execute_script("ALTER TABLE domain RENAME TO gone").await.expect("renamed");
        clock.advance(11);
        assert_eq!(ask("example.com").await, None, "a mistake does not go away by itself");

        let away = "mysql://nobody@127.0.0.1:1/vmail".parse().expect("a URL");
        let away = Db::open(&away, &PoolOptions::default()).expect("opened");
        let away = CachedDirectory::new(Arc::new(SqlDirectory::new(away)), &settings, clock.clone());
        std::mem::swap(&mut *away.lock(), &mut *directory.lock());
        let ask = async |name: &str| away.is_local_domain(name, DomainScope::ALL).await.ok();
        assert_eq!(ask("example.com").await, Some(true), "the last that was known");
        assert_eq!(ask("other.example").await, None, "nothing is known");
        clock.advance(3600);
        assert_eq!(ask("example.com").await, None, "too long ago");
    }

    #[tokio::test]
    async fn what_no_address_can_be_is_not_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, _, directory) = directory(&folder).await;
        let long = format!("{}.example", "x".repeat(8000));
        assert!(!directory.login_has_alias("a@example.com", &long).await.expect("answered"));
        assert!(!directory.is_local_domain(&long, DomainScope::ALL).await.expect("answered"));
        assert!(directory.lock().is_empty());
        assert!(!directory.login_has_alias("a@example.com", "b@example.com").await.expect("answered"));
        assert_eq!(directory.lock().len(), 1);
    }
}
