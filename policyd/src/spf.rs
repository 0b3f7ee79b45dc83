//! Addresses that a domain's SPF record lists.
//!
//! This is the compatible look-up of the policy service and no evaluation after RFC 7208: `ip4`, `ip6`, `a`, `mx`,
//! `include` and `redirect` with qualifier `+` or none give addresses, everything else (other qualifiers, `all`,
//! `exists`, `ptr`, macros, `a/24`) gives nothing, and a failing name server counts as "no record".
//!
//! Bounds: `spf.max_queries` questions a domain, each with its own deadline, every domain visited once, a
//! bounded number of networks, `spf.lookups_per_minute` new domains for each client network. A look-up runs in the
//! [background](crate::background): a domain whose name server hangs delays nobody but those who ask about it, and those
//! no longer than they can wait.

use std::collections::HashSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ipnet::IpNet;
use outrider_core::dns::{DnsError, Resolver};
use outrider_core::network;

use crate::background::Lookups;
use crate::network_rate::NetworkRate;
use crate::settings::SpfSettings;

/// Networks and addresses kept of one domain; more than any mail provider publishes.
const MAX_NETWORKS: usize = 4096;

/// What a domain's record lists.
#[derive(Clone)]
struct Listed {
    networks: Arc<[IpNet]>,
    /// Whether a name server failed or stayed silent: nothing to be remembered.
    failed: bool,
}

/// The addresses of a domain's mail servers, as far as they could be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MailServers {
    pub(crate) networks: Vec<IpNet>,
    /// Whether a name server failed or stayed silent: there may be more.
    pub(crate) failed: bool,
    /// Whether a bound was reached: there is more.
    pub(crate) cut: bool,
}

/// Look-ups with their results of the last minutes.
pub struct SpfLookup {
    resolver: Arc<dyn Resolver>,
    max_queries: u32,
    lookups: Lookups<Listed>,
    rate: NetworkRate,
}

impl SpfLookup {
    /// A look-up with an empty memory.
    pub fn new(resolver: Arc<dyn Resolver>, settings: &SpfSettings) -> SpfLookup {
        SpfLookup {
            resolver,
            max_queries: settings.max_queries,
            lookups: Lookups::new(settings.entries, settings.lifetime.duration(), |listed| !listed.failed),
            rate: NetworkRate::new(settings.lookups_per_minute),
        }
    }

    /// Whether the domain's record lists the client; `None` if that is not found out within `patience`.
    pub async fn lists(&self, domain: &str, client: IpAddr, patience: Duration) -> Option<bool> {
        if domain.is_empty() {
            return Some(false);
        }
        let start = || self.rate.take(client).then(|| self.networks(domain).boxed());
        let listed = self.lookups.get(domain, patience, start).await?;
        Some(listed.networks.iter().any(|network| network.contains(&client)))
    }

    /// The networks and addresses that the domain's record lists, asked for now.
    fn networks(&self, domain: &str) -> impl Future<Output = Listed> + Send + use<> {
        self.search().run(domain.to_owned())
    }

    /// What the domain's SPF record lists, or without one the addresses of its mail exchangers. Asked anew each time
    /// (but for what the resolver remembers), within the same bounds.
    pub(crate) async fn mail_servers(&self, domain: &str) -> MailServers {
        let mut search = self.search();
        search.follow(domain.to_owned()).await;
        if search.records == 0 && !search.failed {
            search.add_exchangers(domain).await;
        }
        MailServers { networks: search.found, failed: search.failed, cut: search.cut }
    }

    fn search(&self) -> Search {
        Search {
            resolver: self.resolver.clone(),
            queries_left: self.max_queries,
            visited: HashSet::new(),
            found: Vec::new(),
            records: 0,
            failed: false,
            cut: false,
        }
    }
}

struct Search {
    resolver: Arc<dyn Resolver>,
    queries_left: u32,
    visited: HashSet<String>,
    found: Vec<IpNet>,
    /// SPF records read.
    records: usize,
    failed: bool,
    cut: bool,
}

/// One mechanism that gives addresses.
#[derive(Debug, PartialEq, Eq)]
enum Term<'a> {
    Network(IpNet),
    Addresses(&'a str),
    Exchangers(&'a str),
    Record(&'a str),
}

impl Search {
    async fn run(mut self, domain: String) -> Listed {
        self.follow(domain).await;
        Listed { networks: self.found.into(), failed: self.failed }
    }

    async fn follow(&mut self, domain: String) {
        let mut domains = vec![domain];
        while let Some(domain) = domains.pop() {
            if !self.visited.insert(domain.clone()) {
                continue;
            }
            let Some(record) = self.record(&domain).await else { continue };
            self.records += 1;
            // Includes are followed after the record itself: what is cheap to find comes first.
            let mut included = Vec::new();
            for term in record.split_whitespace().filter_map(|word| parse_term(word, &domain)) {
                match term {
                    Term::Network(network) => self.add(network),
                    Term::Addresses(host) => self.add_addresses(host).await,
                    Term::Exchangers(host) => self.add_exchangers(host).await,
                    Term::Record(next) => included.push(next.to_owned()),
                }
            }
            domains.extend(included.into_iter().rev());
        }
    }

    fn add(&mut self, network: IpNet) {
        if self.found.len() < MAX_NETWORKS {
            self.found.push(network);
        } else {
            self.cut = true;
        }
    }

    /// The answer, or nothing; remembers whether that means that there is nothing.
    fn heard<T>(&mut self, answer: Result<T, DnsError>) -> Option<T> {
        if let Err(error) = &answer {
            self.failed |= !error.is_negative();
        }
        answer.ok()
    }

    fn may_ask(&mut self) -> bool {
        let may = self.queries_left > 0;
        self.cut |= !may;
        self.queries_left = self.queries_left.saturating_sub(1);
        may
    }

    /// The first record that is an SPF record.
    async fn record(&mut self, domain: &str) -> Option<String> {
        if !self.may_ask() {
            return None;
        }
        let answer = self.resolver.txt(domain).await;
        let records = self.heard(answer)?;
        let text = records.iter().map(|record| String::from_utf8_lossy(record));
        text.map(|text| text.to_lowercase()).find(|text| text.starts_with("v=spf1"))
    }

    async fn add_addresses(&mut self, host: &str) {
        if !self.may_ask() {
            return;
        }
        let answer = self.resolver.a(host).await;
        if let Some(addresses) = self.heard(answer) {
            addresses.into_iter().for_each(|address| self.add(IpNet::from(IpAddr::V4(address))));
        }
    }

    async fn add_exchangers(&mut self, domain: &str) {
        if !self.may_ask() {
            return;
        }
        let answer = self.resolver.mx(domain).await;
        if let Some(exchangers) = self.heard(answer) {
            for exchanger in exchangers.into_iter().filter(|exchanger| !exchanger.host.is_empty()) {
                self.add_addresses(&exchanger.host).await;
            }
        }
    }
}

fn parse_term<'a>(word: &'a str, domain: &'a str) -> Option<Term<'a>> {
    if let Some(next) = word.strip_prefix("redirect=") {
        return plain_name(next).map(Term::Record);
    }
    let word = word.strip_prefix('+').unwrap_or(word);
    let (mechanism, value) = word.split_once(':').map_or((word, None), |(name, value)| (name, Some(value)));
    let strict = |value: &str| network::parse_strict(value);
    match (mechanism, value) {
        ("ip4", Some(value)) => {
            strict(value).filter(|network| matches!(network, IpNet::V4(_))).map(Term::Network)
        }
        ("ip6", Some(value)) => {
            strict(value).filter(|network| matches!(network, IpNet::V6(_))).map(Term::Network)
        }
        ("a", None) => Some(Term::Addresses(domain)),
        ("a", Some(host)) => plain_name(host).map(Term::Addresses),
        ("mx", None) => Some(Term::Exchangers(domain)),
        ("mx", Some(host)) => plain_name(host).map(Term::Exchangers),
        ("include", Some(next)) => plain_name(next).map(Term::Record),
        _ => None,
    }
}

/// A name without macros and prefix lengths.
fn plain_name(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains(['%', '/'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use outrider_core::dns::MemoryResolver;
    use outrider_core::settings::Interval;
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn lookup(resolver: MemoryResolver) -> (SpfLookup, Arc<MemoryResolver>) {
        let resolver = Arc::new(resolver);
        (SpfLookup::new(resolver.clone(), &SpfSettings::default()), resolver)
    }

    #[tokio::test]
    async fn addresses_a_record_lists() {
        let v4 = |d| Ipv4Addr::new(198, 51, 100, d);
        let world = || {
            MemoryResolver::new()
                .with_a("mail.example.org", v4(1))
                .with_a("example.org", v4(2))
                .with_mx("example.org", 10, "mail.example.org")
                .with_txt("inner.example", "v=spf1 ip4:192.0.2.0/24 include:example.org -all")
        };
        let table = [
            ("v=spf1 ip4:203.0.113.10 -all", "203.0.113.10", true),
            ("v=spf1 +ip4:203.0.113.8/29 -all", "203.0.113.10", true),
            ("v=spf1 ip4:203.0.113.9/29 -all", "203.0.113.10", false),
            ("v=spf1 -ip4:203.0.113.10 ~ip4:203.0.113.10 ?ip4:203.0.113.10", "203.0.113.10", false),
            ("V=SPF1 IP6:2001:DB8::/32", "2001:db8:77::1", true),
            ("v=spf1 ip4:2001:db8::/32", "2001:db8:77::1", false),
            ("v=spf1 a -all", "198.51.100.2", true),
            ("v=spf1 +a:mail.example.org -all", "198.51.100.1", true),
            ("v=spf1 a:mail.example.org/24 a/24", "198.51.100.1", false),
            ("v=spf1 mx -all", "198.51.100.1", true),
            ("v=spf1 include:inner.example -all", "192.0.2.77", true),
            ("v=spf1 redirect=inner.example", "192.0.2.77", true),
            ("v=spf1 +all", "203.0.113.10", false),
            ("v=spf1 exists:%{i}.example.org include:%{d}.example ptr", "203.0.113.10", false),
            ("spf1 ip4:203.0.113.10", "203.0.113.10", false),
        ];
        for (record, client, expected) in table {
            let (spf, _) = lookup(world().with_txt("example.org", record));
            assert_eq!(spf.lists("example.org", ip(client), PATIENCE).await, Some(expected), "{record}");
        }
        let (spf, asked) = lookup(MemoryResolver::new());
        assert_eq!(spf.lists("", ip("192.0.2.1"), PATIENCE).await, Some(false));
        assert!(asked.asked().is_empty());
    }

    #[tokio::test]
    async fn the_first_record_counts_and_is_kept() {
        let (spf, asked) = lookup(
            MemoryResolver::new()
                .with_txt("example.org", "something else")
                .with_txt("example.org", "v=spf1 ip4:192.0.2.1")
                .with_txt("example.org", "v=spf1 ip4:192.0.2.2"),
        );
        assert_eq!(spf.lists("example.org", ip("192.0.2.1"), PATIENCE).await, Some(true));
        assert_eq!(spf.lists("example.org", ip("192.0.2.2"), PATIENCE).await, Some(false));
        assert_eq!(asked.asked(), ["TXT example.org"]);
    }

    #[tokio::test]
    async fn mail_servers_of_a_domain() {
        let world = || {
            MemoryResolver::new()
                .with_txt("listed.example", "v=spf1 ip4:192.0.2.0/24 -all")
                .with_mx("listed.example", 10, "mx.example")
                .with_txt("plain.example", "no SPF here")
                .with_mx("plain.example", 10, "mx.example")
                .with_a("mx.example", Ipv4Addr::new(198, 51, 100, 1))
                .with_txt("half.example", "v=spf1 ip4:192.0.2.1 include:broken.example")
                .with_failure("broken.example", DnsError::Timeout)
        };
        for (domain, expected, failed) in [
            ("listed.example", &["192.0.2.0/24"][..], false),
            ("plain.example", &["198.51.100.1/32"], false),
            ("half.example", &["192.0.2.1/32"], true),
            ("broken.example", &[], true),
            ("nowhere.example", &[], false),
        ] {
            let (spf, _) = lookup(world());
            let found = spf.mail_servers(domain).await;
            let networks: Vec<String> = found.networks.iter().map(ToString::to_string).collect();
            assert_eq!(
                (networks.as_slice(), found.failed, found.cut),
                (&expected.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..], failed, false),
                "{domain}"
            );
        }
        let hosts: String = (0..500).map(|n| format!(" a:h{n}.example")).collect();
        let (spf, _) = lookup(MemoryResolver::new().with_txt("wide.example", &format!("v=spf1{hosts}")));
        assert!(spf.mail_servers("wide.example").await.cut);
    }

    /// T32: loops and fans of includes end at the number of queries.
    #[tokio::test]
    async fn threat_t32_queries_are_bounded() {
        let looping = MemoryResolver::new()
            .with_txt("a.example", "v=spf1 include:b.example")
            .with_txt("b.example", "v=spf1 include:a.example redirect=b.example");
        let (spf, asked) = lookup(looping);
        assert_eq!(spf.lists("a.example", ip("192.0.2.1"), PATIENCE).await, Some(false));
        assert_eq!(asked.asked().len(), 2);

        let hosts: String = (0..500).map(|n| format!(" a:h{n}.example include:i{n}.example")).collect();
        let (spf, asked) = lookup(MemoryResolver::new().with_txt("wide.example", &format!("v=spf1{hosts}")));
        assert_eq!(spf.lists("wide.example", ip("192.0.2.1"), PATIENCE).await, Some(false));
        assert_eq!(asked.asked().len(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_delays_only_its_own_domain() {
        let world = MemoryResolver::new()
            .with_silence("slow.example")
            .with_failure("broken.example", DnsError::ServerFailure)
            .with_txt("quick.example", "v=spf1 ip4:192.0.2.1");
        let (spf, asked) = lookup(world);
        let spf = Arc::new(spf);
        let start = Instant::now();
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let spf = spf.clone();
                tokio::spawn(async move { spf.lists("slow.example", ip("192.0.2.1"), PATIENCE).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(spf.lists("quick.example", ip("192.0.2.1"), PATIENCE).await, Some(true));
        assert_eq!(spf.lists("broken.example", ip("192.0.2.1"), PATIENCE).await, Some(false));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for task in waiting {
            assert_eq!(task.await.unwrap(), None);
        }
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert_eq!(asked.asked().iter().filter(|question| question.contains("slow")).count(), 1, "shared");
    }

    /// T32: a network that names ever new domains makes us ask only so much.
    #[tokio::test(start_paused = true)]
    async fn threat_t32_networks_have_a_budget() {
        let resolver = Arc::new(MemoryResolver::new().with_txt("good.example", "v=spf1 ip4:198.51.100.1"));
        let settings = SpfSettings { lookups_per_minute: 10, ..SpfSettings::default() };
        let spf = SpfLookup::new(resolver.clone(), &settings);
        for number in 0..50 {
            let client = format!("192.0.2.{number}").parse().unwrap();
            let expected = (number < 10).then_some(false);
            assert_eq!(spf.lists(&format!("d{number}.example"), client, PATIENCE).await, expected);
        }
        assert_eq!(resolver.asked().len(), 10);
        assert_eq!(
            spf.lists("good.example", ip("198.51.100.1"), PATIENCE).await,
            Some(true),
            "others are not concerned"
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(spf.lists("later.example", ip("192.0.2.1"), PATIENCE).await, Some(false));
        assert_eq!(resolver.asked().len(), 12);
    }

    /// A sender that only SPF proves must not be refused for minutes because of one answer of its name server.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_remembered() {
        let world = MemoryResolver::new()
            .with_txt("example.org", "v=spf1 ip4:192.0.2.1 include:broken.example")
            .with_failure("broken.example", DnsError::ServerFailure);
        let (spf, asked) = lookup(world);
        for (client, expected) in [("192.0.2.1", true), ("192.0.2.2", false), ("192.0.2.2", false)] {
            assert_eq!(spf.lists("example.org", ip(client), PATIENCE).await, Some(expected));
        }
        assert_eq!(asked.asked().iter().filter(|question| question.contains("broken")).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_when_told_so() {
        let resolver = Arc::new(MemoryResolver::new().with_txt("example.org", "v=spf1 ip4:192.0.2.1"));
        let settings = SpfSettings { lifetime: Interval::seconds(0), ..SpfSettings::default() };
        let spf = SpfLookup::new(resolver.clone(), &settings);
        assert_eq!(spf.lists("example.org", ip("192.0.2.1"), PATIENCE).await, Some(true));
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!(spf.lists("example.org", ip("192.0.2.1"), PATIENCE).await, Some(true));
        assert_eq!(resolver.asked().len(), 2);
    }
}
