//! DNS look-ups behind one trait.
//!
//! Decisions ask a [`Resolver`]; only this module knows which library does the asking. The trait keeps apart what
//! mail rules keep apart: a name that does not exist, a name without records of the type, a server that fails,
//! and a server that stays silent. Everything is bounded: each question has one deadline for all its attempts, the
//! number of records handed out is limited, and the cache has a fixed size with capped lives.
//!
//! Names are asked as they are given, never with a search domain appended.

mod memory;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryDnsError, NetError};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use thiserror::Error;

use crate::settings::{Findings, Interval};

pub use memory::MemoryResolver;

/// What a [`Resolver`] gives back: an answer that arrives later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// Why a question brought no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN).
    #[error("no such name")]
    NoSuchName,
    /// The name exists but has no records of the type.
    #[error("no records of this type")]
    NoData,
    /// The server answered with a failure, refused, or could not be reached. Temporary.
    #[error("the name server failed")]
    ServerFailure,
    /// No answer before the deadline. Temporary.
    #[error("no answer from the name server in time")]
    Timeout,
    /// The text cannot be a name of the DNS, so it was not asked.
    #[error("not a domain name")]
    BadName,
}

impl DnsError {
    /// Whether the answer is certain: the records are not there now. A failure or silence says nothing about them.
    pub fn is_negative(self) -> bool {
        matches!(self, DnsError::NoSuchName | DnsError::NoData | DnsError::BadName)
    }
}

/// One mail exchanger of a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailExchanger {
    /// Lower is tried first.
    pub preference: u16,
    /// Host name without the final dot, lower case; empty for the null MX of RFC 7505.
    pub host: String,
}

/// Look-ups by record type. `Ok` holds at least one record.
pub trait Resolver: Send + Sync {
    /// TXT records, the strings of each joined without a separator (RFC 7208 section 3.3).
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>>;
    /// IPv4 addresses.
    fn a<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv4Addr>>;
    /// IPv6 addresses.
    fn aaaa<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv6Addr>>;
    /// Mail exchangers, best first.
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<MailExchanger>>;
    /// Host names of an address, without the final dot, lower case.
    fn ptr(&self, address: IpAddr) -> Answer<'_, Vec<String>>;
}

crate::settings! {
    /// Where and how names are looked up.
    pub struct DnsSettings {
        /// Name servers with their ports, such as ["127.0.0.1:53"]; those of /etc/resolv.conf if empty.
        pub servers: Vec<SocketAddr> = Vec::new(),
        /// Time for one question, all attempts together.
        pub timeout: Interval = Interval::seconds(3),
        /// How often a question is sent within that time.
        pub attempts: u32 = 2,
        /// Number of answers kept in memory, as long as their TTL says; 0 keeps none.
        pub cache_size: u32 = 8192,
    }
}

impl DnsSettings {
    /// Checks what types cannot express; `section` is the name of the section, usually `dns`.
    pub fn check(&self, section: &str, findings: &mut Findings) {
        if self.timeout.duration().is_zero() {
            findings.error(format!("{section}.timeout"), "must be longer than nothing", "write \"3s\"");
        }
        if !(1..=10).contains(&self.attempts) {
            findings.error(format!("{section}.attempts"), "must be between 1 and 10", "the default is 2");
        }
    }
}

/// The system's name servers could not be read.
#[derive(Debug, Error)]
#[error("setting up DNS: {0}")]
pub struct DnsSetupError(#[from] NetError);

/// Aliases of aliases that are followed within one answer.
const MAX_ALIASES: usize = 16;
/// Pauses before a question is asked again whose connection was lost.
const LOST_CONNECTION: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200)];

/// More records than any honest name has of one type; the rest of an answer is dropped.
const MAX_RECORDS: usize = 256;

/// [`Resolver`] over the hickory library. Cloning shares the cache.
#[derive(Clone)]
pub struct HickoryResolver {
    inner: TokioResolver,
    timeout: Duration,
}

impl HickoryResolver {
    /// Builds a resolver; asks nobody yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If no servers are given and `/etc/resolv.conf` cannot be read.
    pub fn from_settings(settings: &DnsSettings) -> Result<HickoryResolver, DnsSetupError> {
        let mut builder = if settings.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        set_options(builder.options_mut(), settings);
        // Name servers are asked over UDP and TCP only. Without this the library would load the certificates of the
        // system for TLS, and fail where there are none.
        let builder = builder.with_tls_config(no_authorities());
        Ok(HickoryResolver { inner: builder.build()?, timeout: settings.timeout.duration() })
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T> + Send,
    ) -> Result<Vec<T>, DnsError> {
        let name = parse_name(name).ok_or(DnsError::BadName)?;
        self.ask_name(name, kind, pick).await
    }

    async fn ask_name<T>(
        &self,
        name: Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T> + Send,
    ) -> Result<Vec<T>, DnsError> {
        let answer = tokio::time::timeout(self.timeout, self.lookup(&name, kind)).await;
        let lookup: Lookup = answer.map_err(|_| DnsError::Timeout)?.map_err(|error| classify(&error))?;
        let about_it = about(&name, lookup.message());
        let records: Vec<T> = about_it.filter_map(|record| pick(&record.data)).take(MAX_RECORDS).collect();
        if records.is_empty() { Err(DnsError::NoData) } else { Ok(records) }
    }

    /// Asks again when the connection was lost. Long answers come over one TCP connection for all questions; a server that
    /// closes it because of one of them would else leave the others without an answer.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        for pause in LOST_CONNECTION {
            match self.inner.lookup(name.clone(), kind).await {
                Err(NetError::Io(_) | NetError::NoConnections) => tokio::time::sleep(pause).await,
                other => return other,
            }
        }
        self.inner.lookup(name.clone(), kind).await
    }
}

/// The records of an answer that are about the name that was asked for. The library hands out all of them, whosever
/// they are.
fn about<'a>(name: &'a Name, message: &'a Message) -> impl Iterator<Item = &'a Record> {
    let names = names_of(name, &message.answers);
    // When the target of an alias was in its memory, the library leaves the aliases out. Nothing in such an answer has
    // the name that was asked for, and all of it is what the target's own server said.
    let by_alias = !message.all_sections().any(|record| record.name == *name);
    message.answers.iter().filter(move |record| by_alias || names.contains(&&record.name))
}

/// A name and those it is an alias of.
fn names_of<'a>(name: &'a Name, answers: &'a [Record]) -> Vec<&'a Name> {
    let mut names = vec![name];
    for _ in 0..MAX_ALIASES {
        let last = names[names.len() - 1];
        let target = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *last => Some(&target.0),
            _ => None,
        });
        match target {
            Some(target) if !names.contains(&target) => names.push(target),
            _ => break,
        }
    }
    names
}

/// TLS settings that trust nobody.
fn no_authorities() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider knows both versions of TLS");
    builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn set_options(options: &mut ResolverOpts, settings: &DnsSettings) {
    let attempts = settings.attempts.max(1);
    // The library counts repetitions, we count questions. A lost datagram has to be repeated within the deadline.
    options.attempts = (attempts - 1) as usize;
    options.timeout = settings.timeout.duration() / attempts;
    options.cache_size = u64::from(settings.cache_size);
    options.positive_max_ttl = Some(Duration::from_secs(86_400));
    options.negative_max_ttl = Some(Duration::from_secs(300));
    options.use_hosts_file = ResolveHosts::Never;
    options.ndots = 0;
    // The aliases on the way show which records are about the name that was asked for.
    options.preserve_intermediates = true;
    // Names that hang must not exhaust a connection on which others are asked.
    options.max_active_requests = 4096;
}

/// Names with blanks, control characters or back-slash escapes are not asked: no host has them, and the
/// text comes from strangers.
fn parse_name(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty()
        || text.len() > 253
        || text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control())
    {
        return None;
    }
    let mut name = if text.is_ascii() { Name::from_ascii(text) } else { Name::from_utf8(text) }.ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn classify(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Dns(HickoryDnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsError::NoSuchName,
            ResponseCode::NoError => DnsError::NoData,
            _ => DnsError::ServerFailure,
        },
        _ => DnsError::ServerFailure,
    }
}

fn host_text(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

impl Resolver for HickoryResolver {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        }))
    }

    fn a<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv4Addr>> {
        Box::pin(self.ask(name, RecordType::A, |data| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        }))
    }

    fn aaaa<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv6Addr>> {
        Box::pin(self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(aaaa.0),
            _ => None,
        }))
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<MailExchanger>> {
        Box::pin(async move {
            let pick = |data: &RData| match data {
                RData::MX(mx) => {
                    Some(MailExchanger { preference: mx.preference, host: host_text(&mx.exchange) })
                }
                _ => None,
            };
            let mut exchangers = self.ask(name, RecordType::MX, pick).await?;
            exchangers.sort();
            Ok(exchangers)
        })
    }

    fn ptr(&self, address: IpAddr) -> Answer<'_, Vec<String>> {
        Box::pin(self.ask_name(Name::from(address), RecordType::PTR, |data| match data {
            RData::PTR(ptr) => Some(host_text(&ptr.0)),
            _ => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use hickory_resolver::proto::op::{MessageType, OpCode};
    use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, TXT};
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server on the loopback that knows a few names by heart; the settings that lead to it.
    async fn scripted_server() -> DnsSettings {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                if let Some(reply) = script(&query) {
                    let _ = socket.send_to(&reply.to_vec().unwrap(), client).await;
                }
            }
        });
        DnsSettings {
            servers: vec![address],
            timeout: Interval(Duration::from_millis(600)),
            attempts: 2,
            cache_size: 16,
        }
    }

    fn script(query: &Message) -> Option<Message> {
        let question = query.queries.first()?.clone();
        let name = question.name().clone();
        let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
        reply.add_query(question.clone());
        let mut add = |data: RData| {
            reply.add_answer(Record::from_rdata(name.clone(), 60, data));
        };
        match (name.to_ascii().to_ascii_lowercase().as_str(), question.query_type()) {
            ("good.example.", RecordType::TXT) => {
                add(RData::TXT(TXT::new(vec!["v=spf1 ip4:192.0.2.".into(), "0/24 -all".into()])));
            }
            ("good.example.", RecordType::A) => add(RData::A(A::new(192, 0, 2, 1))),
            ("good.example.", RecordType::MX) => {
                add(RData::MX(MX::new(20, Name::from_ascii("B.good.example.").unwrap())));
                add(RData::MX(MX::new(10, Name::from_ascii("a.good.example.").unwrap())));
            }
            ("good.example.", _) => {}
            ("broken.example.", _) => reply.metadata.response_code = ResponseCode::ServFail,
            ("silent.example.", _) => return None,
            _ => reply.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(reply)
    }

    #[tokio::test]
    async fn outcomes_are_kept_apart() {
        let dns = HickoryResolver::from_settings(&scripted_server().await).unwrap();
        assert_eq!(dns.txt("good.example").await, Ok(vec![b"v=spf1 ip4:192.0.2.0/24 -all".to_vec()]));
        assert_eq!(dns.a("GOOD.example.").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1)]));
        let exchangers = dns.mx("good.example").await.unwrap();
        assert_eq!(exchangers[0], MailExchanger { preference: 10, host: "a.good.example".into() });
        assert_eq!(exchangers[1].host, "b.good.example");
        assert_eq!(dns.aaaa("good.example").await, Err(DnsError::NoData));
        assert_eq!(dns.txt("missing.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.txt("broken.example").await, Err(DnsError::ServerFailure));
        assert_eq!(dns.ptr(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))).await, Err(DnsError::NoSuchName));
    }

    #[test]
    fn only_records_about_the_name_are_believed() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let a = |owner: &str, last| Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, last)));
        let alias = |owner: &str, target: &str| {
            Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
        };
        let asked = name("asked.example.");
        for (case, answers, believed) in [
            ("its own", vec![a("other.example.", 1), a("ASKED.example.", 2)], vec![2]),
            (
                "by aliases",
                vec![
                    a("c.example.", 1),
                    alias("b.example.", "c.example."),
                    alias("asked.example.", "b.example."),
                    a("other.example.", 2),
                ],
                vec![1],
            ),
            ("a loop", vec![alias("asked.example.", "asked.example."), a("other.example.", 1)], vec![]),
            ("the target of an alias from memory", vec![a("c.example.", 1)], vec![1]),
        ] {
            let mut message = Message::response(0, OpCode::Query);
            message.add_answers(answers);
            let addresses: Vec<u8> = about(&asked, &message)
                .filter_map(|record| match &record.data {
                    RData::A(a) => Some(a.0.octets()[3]),
                    _ => None,
                })
                .collect();
            assert_eq!(addresses, believed, "{case}");
        }
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let dns = HickoryResolver::from_settings(&scripted_server().await).unwrap();
        let start = Instant::now();
        assert_eq!(dns.txt("silent.example").await, Err(DnsError::Timeout));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(60), "{waited:?}");
    }

    #[tokio::test]
    async fn one_silent_name_delays_no_other() {
        let mut settings = scripted_server().await;
        settings.timeout = Interval::seconds(300);
        settings.cache_size = 0;
        let dns = HickoryResolver::from_settings(&settings).unwrap();
        let mut stuck = Vec::new();
        for _ in 0..200 {
            let dns = dns.clone();
            stuck.push(tokio::spawn(async move { dns.txt("silent.example").await }));
        }
        tokio::task::yield_now().await;
        let start = Instant::now();
        for _ in 0..20 {
            assert!(dns.a("good.example").await.is_ok());
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        assert!(stuck.iter().all(|task| !task.is_finished()));
        stuck.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn names_that_are_never_asked() {
        for bad in [
            "",
            ".",
            "a b.example",
            "a\nb.example",
            "a\\046b.example",
            "a..example",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(parse_name(bad).is_none(), "{bad:?}");
        }
        assert_eq!(parse_name("müller.example").unwrap().to_ascii(), "xn--mller-kva.example.");
        assert_eq!(parse_name("_spf.example.com").unwrap().to_ascii(), "_spf.example.com.");
    }
}
