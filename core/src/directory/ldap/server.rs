//! A few connections to one LDAP server, each carrying many searches at a time.
//!
//! Nothing here waits longer than its time-out. After a failed attempt to connect further requests fail at once until
//! a pause is over that doubles from attempt to attempt. A connection that broke is replaced and the search, which
//! changes nothing, asked once more. Referrals are not followed: an answer that would need one, and one
//! that was cut short, is no answer.

use super::filter::Filter;
use super::settings::{LdapSettings, LdapUri, Scheme};
use crate::daemon::DependencyHealth;
use crate::net::client_trusting;
use crate::settings::Secret;
use crate::sql::DbError;
use crate::sql::reconnect::{self, Setback};
use ldap3::adapters::PagedResults;
use ldap3::{DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, SearchEntry};
use ldap3::{Scope, SearchOptions, SearchStream, StdStream};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Entries of one page of a long answer.
const PAGE: i32 = 500;
/// Entries of a long answer at most.
const MOST_PAGED: usize = 1_000_000;
/// Attributes by which no attribute is asked for (RFC 4511, 4.5.1.8).
pub(super) const NONE: &[&str] = &["1.1"];

/// How much of the answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Whether there is any entry at all.
    Any,
    /// All entries, which are few.
    All,
    /// All entries, which may be many: fetched page by page (RFC 2696).
    Pages,
}

/// One search.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) base: String,
    pub(super) scope: Scope,
    pub(super) filter: Filter,
    pub(super) attributes: &'static [&'static str],
    pub(super) want: Want,
    /// An entry above `base`. If this is there and `base` is not, nothing is found; if neither is, the tree is missing
    /// or hidden, and that is no answer.
    pub(super) above: Option<String>,
}

impl Query {
    /// Whether an entry is there.
    fn presence(entry: String) -> Query {
        Query {
            base: entry,
            scope: Scope::Base,
            filter: Filter::Present("objectClass"),
            attributes: NONE,
            want: Want::Any,
            above: None,
        }
    }
}

/// The one attribute whose case matters: a folder on disk.
const NAMES_A_FILE: &str = "mailboxfolder";

/// One entry found. Values that are no UTF-8 are left out.
#[derive(Debug, Default)]
pub(super) struct Entry(HashMap<String, Vec<String>>);

impl Entry {
    fn new(entry: SearchEntry) -> Entry {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        let mut add = |name: &str, value: &str| {
            let name = name.to_ascii_lowercase();
            let value = if name == NAMES_A_FILE { value.to_owned() } else { value.to_lowercase() };
            values.entry(name).or_default().push(value);
        };
        for (name, texts) in &entry.attrs {
            texts.iter().for_each(|text| add(name, text));
        }
        for (name, bytes) in &entry.bin_attrs {
            bytes.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()).for_each(|text| add(name, text));
        }
        Entry(values)
    }

    /// The values of an attribute in lower case, but for [`NAMES_A_FILE`].
    pub(super) fn values(&self, attribute: &str) -> &[String] {
        self.0.get(&attribute.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// The first value of an attribute in lower case.
    pub(super) fn first(&self, attribute: &str) -> Option<&str> {
        self.values(attribute).first().map(String::as_str)
    }

    /// Whether an attribute has a value, given in lower case.
    pub(super) fn has(&self, attribute: &str, value: &str) -> bool {
        self.values(attribute).iter().any(|known| known == value)
    }
}

/// Why a search brought nothing.
enum Failure {
    /// The connection is gone; another one may do better.
    Connection(String),
    /// There is no entry with the name of the base.
    NoBase(DbError),
    /// The server refuses.
    Answer(DbError),
}

impl From<LdapError> for Failure {
    fn from(error: LdapError) -> Failure {
        match error {
            LdapError::LdapResult { result } => Failure::Answer(refusal(&result)),
            LdapError::FilterParsing | LdapError::AdapterInit(_) => {
                Failure::Answer(DbError::Refused(error.to_string()))
            }
            other => Failure::Connection(other.to_string()),
        }
    }
}

/// One connection, numbered so that only the one that failed is given up.
struct Lane {
    number: u64,
    ldap: Ldap,
}

/// The server.
pub(super) struct Server {
    uri: LdapUri,
    place: String,
    bind_dn: String,
    bind_password: Secret,
    starttls: bool,
    verify_certificate: bool,
    tls: Option<Arc<rustls::ClientConfig>>,
    connect_timeout: Duration,
    search_timeout: Duration,
    size_limit: usize,
    lanes: Vec<tokio::sync::Mutex<Option<Lane>>>,
    next_lane: AtomicUsize,
    next_number: AtomicU64,
    /// A connection answers one paged search at a time, so they take turns.
    paging: tokio::sync::Mutex<()>,
    up: AtomicBool,
    setback: Setback,
}

impl Server {
    /// Connects when something is asked; only the file of authorities is read here.
    pub(super) fn new(settings: &LdapSettings) -> Result<Arc<Server>, DbError> {
        let tls = match &settings.ca_file {
            Some(file) if settings.is_encrypted() => Some(Arc::new(client_trusting(Some(file))?)),
            _ => None,
        };
        Ok(Arc::new(Server {
            uri: settings.uri.clone(),
            place: settings.uri.to_string(),
            bind_dn: settings.bind_dn.clone(),
            bind_password: settings.bind_password.clone(),
            starttls: settings.starttls,
            verify_certificate: settings.verify_certificate,
            tls,
            connect_timeout: settings.connect_timeout.duration(),
            search_timeout: settings.search_timeout.duration(),
            size_limit: settings.size_limit,
            lanes: (0..settings.connections.max(1)).map(|_| tokio::sync::Mutex::new(None)).collect(),
            next_lane: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            paging: tokio::sync::Mutex::new(()),
            up: AtomicBool::new(true),
            setback: Setback::default(),
        }))
    }

    pub(super) fn health(&self) -> DependencyHealth {
        DependencyHealth {
            name: "ldap",
            up: self.up.load(Ordering::Relaxed),
            detail: self.place.clone(),
            pool: None,
        }
    }

    /// Asks for a sign of life now and then; `base` is an entry that exists.
    pub(super) fn watch(self: &Arc<Server>, base: &str) {
        let weak = Arc::downgrade(self);
        let query = Query::presence(base.to_owned());
        reconnect::watch(
            move || weak.upgrade(),
            move |server: Arc<Server>| {
                let query = query.clone();
                async move { server.search(query).await.is_ok() }
            },
        );
    }

    /// The entries found.
    ///
    /// The search runs in a task of its own: a caller that gives up leaves nothing half done on a shared connection, and
    /// an answer that is no LDAP at all ends this search and nothing else.
    pub(super) async fn search(self: &Arc<Server>, query: Query) -> Result<Vec<Entry>, DbError> {
        let server = Arc::clone(self);
        match tokio::spawn(async move { server.search_here(&query).await }).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.broken("the answer makes no sense".to_owned())),
        }
    }

    async fn search_here(&self, query: &Query) -> Result<Vec<Entry>, DbError> {
        let _turn = match query.want {
            Want::Pages => Some(self.paging.lock().await),
            _ => None,
        };
        let lane = self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let mut attempt = 1;
        let mut wanted = query.clone();
        let mut above = wanted.above.take();
        loop {
            let (number, ldap) = self.connection(lane).await?;
            match timeout(self.search_timeout, self.ask(ldap, &wanted)).await {
                Ok(Ok(entries)) => {
                    self.up.store(true, Ordering::Relaxed);
                    // When it was the entry above that was found, nothing was.
                    let asked = wanted.base == query.base;
                    return Ok(if asked { entries } else { Vec::new() });
                }
                Ok(Err(Failure::Answer(error))) => return Err(error),
                Ok(Err(Failure::NoBase(error))) => match above.take() {
                    Some(above) => wanted = Query::presence(above),
                    None => return Err(error),
                },
                Ok(Err(Failure::Connection(reason))) => {
                    self.give_up(lane, number).await;
                    if attempt == 2 {
                        self.up.store(false, Ordering::Relaxed);
                        return Err(self.broken(reason));
                    }
                    attempt = 2;
                }
                Err(_) => {
                    // Others may still wait for answers on it; new searches get a connection that works.
                    self.give_up(lane, number).await;
                    self.up.store(false, Ordering::Relaxed);
                    return Err(DbError::Timeout { server: self.place.clone(), limit: self.search_timeout });
                }
            }
        }
    }

    async fn ask(&self, mut ldap: Ldap, query: &Query) -> Result<Vec<Entry>, Failure> {
        let (most, limit) = match query.want {
            Want::Any => (1, 1),
            Want::All => (self.size_limit, i32::try_from(self.size_limit).unwrap_or(i32::MAX)),
            Want::Pages => (MOST_PAGED, 0),
        };
        let seconds = i32::try_from(self.search_timeout.as_secs().saturating_add(1)).unwrap_or(i32::MAX);
        ldap.with_search_options(
            SearchOptions::new().deref(DerefAliases::Never).sizelimit(limit).timelimit(seconds),
        );
        let filter = query.filter.to_string();
        let attributes: Vec<&'static str> = query.attributes.to_vec();
        let mut stream: SearchStream<'_, &'static str, Vec<&'static str>> = match query.want {
            Want::Pages => {
                let pages = PagedResults::new(PAGE);
                ldap.streaming_search_with(pages, &query.base, query.scope, &filter, attributes).await?
            }
            _ => ldap.streaming_search(&query.base, query.scope, &filter, attributes).await?,
        };
        let mut entries = Vec::new();
        let mut elsewhere = false;
        while let Some(found) = stream.next().await? {
            if found.is_ref() {
                elsewhere = true;
            } else if entries.len() >= most {
                return Err(Failure::Answer(partial("more entries than asked for")));
            } else if !found.is_intermediate() {
                entries.push(Entry::new(SearchEntry::construct(found)));
            }
        }
        let result = stream.finish().await;
        match result.rc {
            // One is enough to know that there is one.
            0 | 4 if query.want == Want::Any && !entries.is_empty() => Ok(entries),
            0 if elsewhere => Err(Failure::Answer(partial("a part of the tree is on another server"))),
            0 => Ok(entries),
            32 => Err(Failure::NoBase(refusal(&result))),
            _ => Err(Failure::Answer(refusal(&result))),
        }
    }

    async fn connection(&self, lane: usize) -> Result<(u64, Ldap), DbError> {
        // Whoever is connecting in this lane does so within the same limit.
        let Ok(mut slot) = timeout(self.connect_timeout, self.lanes[lane].lock()).await else {
            return Err(DbError::Busy { server: self.place.clone(), limit: self.connect_timeout });
        };
        if let Some(Lane { number, ldap }) = &mut *slot
            && !ldap.is_closed()
        {
            return Ok((*number, ldap.clone()));
        }
        *slot = None;
        self.setback.check()?;
        let attempt = self.setback.attempt(&self.place, self.connect_timeout, self.connect());
        let ldap = attempt.await.inspect_err(|_| self.up.store(false, Ordering::Relaxed))?;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        *slot = Some(Lane { number, ldap: ldap.clone() });
        Ok((number, ldap))
    }

    async fn connect(&self) -> Result<Ldap, LdapError> {
        let stream = match self.uri.scheme {
            Scheme::Ldapi => StdStream::Unix(UnixStream::connect(self.uri.host()).await?.into_std()?),
            _ => {
                let stream = TcpStream::connect((self.uri.host(), self.uri.port())).await?;
                // Small requests of several callers on one connection must not wait for each other's receipts.
                stream.set_nodelay(true)?;
                StdStream::Tcp(stream.into_std()?)
            }
        };
        let mut settings = LdapConnSettings::new()
            .set_std_stream(stream)
            .set_starttls(self.starttls)
            .set_no_tls_verify(!self.verify_certificate);
        if let Some(tls) = self.tls.as_ref().filter(|_| self.verify_certificate) {
            settings = settings.set_config(tls.clone());
        }
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &self.place).await?;
        // Ends when the last handle is dropped; its error reaches those who wait for answers.
        tokio::spawn(connection.drive());
        if !self.bind_dn.is_empty() {
            ldap.simple_bind(&self.bind_dn, self.bind_password.expose()).await?.success()?;
        }
        Ok(ldap)
    }

    /// Forgets a connection, unless somebody else has replaced it already.
    async fn give_up(&self, lane: usize, number: u64) {
        let mut slot = self.lanes[lane].lock().await;
        if slot.as_ref().is_some_and(|lane| lane.number == number) {
            *slot = None;
        }
    }

    fn broken(&self, reason: String) -> DbError {
        DbError::Broken { server: self.place.clone(), reason }
    }
}

fn partial(why: &str) -> DbError {
    DbError::TryAgain(format!("incomplete answer: {why}"))
}

/// What a result code (RFC 4511, appendix A) means here.
fn refusal(result: &LdapResult) -> DbError {
    match result.rc {
        3 | 4 | 11 => partial(&result.to_string()),
        10 => partial("the server refers to another one"),
        // busy, unavailable, unwilling to perform, other
        51 | 52 | 53 | 80 => DbError::TryAgain(result.to_string()),
        _ => DbError::Refused(result.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rc: u32) -> LdapResult {
        LdapResult { rc, matched: String::new(), text: "why".into(), refs: Vec::new(), ctrls: Vec::new() }
    }

    #[test]
    fn incomplete_answers_are_temporary() {
        for rc in [3, 4, 10, 11, 51, 52, 53, 80] {
            assert!(refusal(&result(rc)).is_temporary(), "{rc}");
        }
        for rc in [1, 2, 32, 34, 49, 50] {
            assert!(!refusal(&result(rc)).is_temporary(), "{rc}");
        }
    }

    #[test]
    fn entries_have_their_texts_in_lower_case_and_binary_values_hide_nothing() {
        let entry = Entry::new(SearchEntry {
            dn: "mail=A".into(),
            attrs: HashMap::from([("Mail".to_owned(), vec!["A@Example.com".to_owned()])]),
            bin_attrs: HashMap::from([(
                "shadowAddress".to_owned(),
                vec![vec![0xff], b"B@x.example".to_vec()],
            )]),
        });
        assert_eq!(entry.first("mail"), Some("a@example.com"));
        assert_eq!(entry.values("shadowaddress"), ["b@x.example"]);
        assert!(entry.has("shadowAddress", "b@x.example") && !entry.has("cn", ""));
    }

    #[test]
    fn authorities_are_read_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let settings = LdapSettings {
            uri: "ldaps://127.0.0.1:1".parse().unwrap(),
            ca_file: Some(file.clone()),
            ..LdapSettings::default()
        };
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            assert!(matches!(Server::new(&settings), Err(DbError::Unusable(_))), "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(Server::new(&settings).is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_at_once() {
        let settings = LdapSettings {
            uri: "ldapi://%2Fnonexistent%2Fldapi".parse().unwrap(),
            base_dn: "o=domains".into(),
            ..LdapSettings::default()
        };
        let server = Server::new(&settings).unwrap();
        assert!(server.health().up);
        let query = || Query::presence("o=domains".into());
        let first = server.search(query()).await.expect_err("nobody is there");
        let again = server.search(query()).await.expect_err("nobody is there");
        assert!(matches!(first, DbError::Unavailable { .. }), "{first}");
        assert_eq!(first, again);
        assert!(!server.health().up);
    }
}
