//! A [`Resolver`] whose answers are given by hand, for tests without a name server. It has neither IPv6 addresses nor reverse
//! names.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use super::{Answer, DnsError, MailExchanger, Resolver};

#[derive(Clone, Default)]
struct Records {
    txt: Vec<Vec<u8>>,
    a: Vec<Ipv4Addr>,
    mx: Vec<MailExchanger>,
}

#[derive(Clone)]
enum Entry {
    Records(Records),
    Fails(DnsError),
    Silent,
}

/// Answers from a table. Names that are not in it do not exist.
#[derive(Default)]
pub struct MemoryResolver {
    names: Mutex<HashMap<String, Entry>>,
    asked: Mutex<Vec<String>>,
}

impl MemoryResolver {
    /// An empty world: every name is unknown.
    pub fn new() -> MemoryResolver {
        MemoryResolver::default()
    }

    /// Adds one TXT record.
    pub fn with_txt(self, name: &str, text: &str) -> MemoryResolver {
        self.change(name, |records| records.txt.push(text.as_bytes().to_vec()))
    }

    /// Adds one IPv4 address.
    pub fn with_a(self, name: &str, address: Ipv4Addr) -> MemoryResolver {
        self.change(name, |records| records.a.push(address))
    }

    /// Adds one mail exchanger.
    pub fn with_mx(self, name: &str, preference: u16, host: &str) -> MemoryResolver {
        self.change(name, |records| records.mx.push(MailExchanger { preference, host: key(host) }))
    }

    /// Makes every question about the name fail in this way at once.
    pub fn with_failure(self, name: &str, error: DnsError) -> MemoryResolver {
        lock(&self.names).insert(key(name), Entry::Fails(error));
        self
    }

    /// Makes every question about the name stay without an answer for ever.
    pub fn with_silence(self, name: &str) -> MemoryResolver {
        lock(&self.names).insert(key(name), Entry::Silent);
        self
    }

    /// The questions so far, as `TYPE name`.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    fn change(self, name: &str, change: impl FnOnce(&mut Records)) -> MemoryResolver {
        let mut names = lock(&self.names);
        let entry = names.entry(key(name)).or_insert_with(|| Entry::Records(Records::default()));
        if let Entry::Records(records) = entry {
            change(records);
        }
        drop(names);
        self
    }

    async fn answer<T>(
        &self,
        kind: &str,
        name: &str,
        pick: impl Fn(Records) -> Vec<T> + Send,
    ) -> Result<Vec<T>, DnsError> {
        let name = key(name);
        lock(&self.asked).push(format!("{kind} {name}"));
        let entry = lock(&self.names).get(&name).cloned();
        match entry {
            None => Err(DnsError::NoSuchName),
            Some(Entry::Fails(error)) => Err(error),
            Some(Entry::Silent) => std::future::pending().await,
            Some(Entry::Records(records)) => {
                Some(pick(records)).filter(|list| !list.is_empty()).ok_or(DnsError::NoData)
            }
        }
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

/// A panic elsewhere does not make the table wrong.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Resolver for MemoryResolver {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(self.answer("TXT", name, |records| records.txt))
    }

    fn a<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv4Addr>> {
        Box::pin(self.answer("A", name, |records| records.a))
    }

    fn aaaa<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Ipv6Addr>> {
        Box::pin(self.answer("AAAA", name, |_| Vec::new()))
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<MailExchanger>> {
        Box::pin(self.answer("MX", name, |mut records| {
            records.mx.sort();
            records.mx
        }))
    }

    fn ptr(&self, _: IpAddr) -> Answer<'_, Vec<String>> {
        Box::pin(async { Err(DnsError::NoSuchName) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_as_told() {
        let dns = MemoryResolver::new()
            .with_txt("example.com.", "v=spf1 -all")
            .with_a("Example.com", Ipv4Addr::new(192, 0, 2, 1))
            .with_mx("example.com", 20, "b.example.com")
            .with_mx("example.com", 10, "a.example.com")
            .with_failure("broken.example", DnsError::ServerFailure);
        assert_eq!(dns.txt("EXAMPLE.com").await, Ok(vec![b"v=spf1 -all".to_vec()]));
        assert_eq!(dns.a("example.com.").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1)]));
        assert_eq!(dns.mx("example.com").await.unwrap()[0].host, "a.example.com");
        assert_eq!(dns.aaaa("example.com").await, Err(DnsError::NoData));
        assert_eq!(dns.txt("other.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.txt("broken.example").await, Err(DnsError::ServerFailure));
        assert_eq!(dns.asked().len(), 6);
    }
}
