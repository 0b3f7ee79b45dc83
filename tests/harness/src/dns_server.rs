//! A DNS server with the answers a test gives it; everything else does not exist.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

const TYPE_A: u16 = 1;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const NO_SUCH_NAME: u8 = 3;

/// (name in lower case, type) -> the data of its records.
type Zone = HashMap<(String, u16), Vec<Vec<u8>>>;

#[derive(Debug, Default)]
struct State {
    zone: Mutex<Zone>,
    silent: AtomicBool,
    /// Domains about which nothing is ever answered.
    mute: Mutex<Vec<String>>,
    closing: AtomicBool,
    queries: AtomicUsize,
}

impl State {
    fn is_mute_about(&self, query: &[u8]) -> bool {
        let mute = self.mute.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((name, _)) = question(query).filter(|_| !mute.is_empty()) else { return false };
        mute.iter().any(|domain| name == *domain || name.ends_with(&format!(".{domain}")))
    }
}

/// The server; ends on drop.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    state: Arc<State>,
}

impl DnsServer {
    /// Listens on a free UDP port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let address = socket.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut packet = [0_u8; 4096];
            while !shared.closing.load(Ordering::SeqCst) {
                let Ok((size, peer)) = socket.recv_from(&mut packet) else { continue };
                shared.queries.fetch_add(1, Ordering::SeqCst);
                if shared.silent.load(Ordering::SeqCst) || shared.is_mute_about(&packet[..size]) {
                    continue;
                }
                let zone = shared.zone.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer(&packet[..size], &zone) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Ok(Self { address, state })
    }

    /// Where it listens (UDP).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a TXT record; long text becomes several strings of 255 bytes.
    pub fn txt(&self, name: &str, text: &str) {
        let mut data = Vec::new();
        for piece in text.as_bytes().chunks(255) {
            data.push(u8::try_from(piece.len()).unwrap_or(255));
            data.extend_from_slice(piece);
        }
        self.add(name, TYPE_TXT, data);
    }

    /// Adds an address record.
    pub fn a(&self, name: &str, address: Ipv4Addr) {
        self.add(name, TYPE_A, address.octets().to_vec());
    }

    /// Adds a mail exchanger of preference 10.
    pub fn mx(&self, name: &str, exchanger: &str) {
        let mut data = vec![0, 10];
        data.extend(encoded_name(exchanger));
        self.add(name, TYPE_MX, data);
    }

    fn add(&self, name: &str, kind: u16, data: Vec<u8>) {
        let mut zone = self.state.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.entry((name.to_ascii_lowercase(), kind)).or_default().push(data);
    }

    /// From now on: no answers at all (true), or answers again.
    pub fn set_silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// From now on: no answers about this domain and what is below it.
    pub fn be_silent_about(&self, domain: &str) {
        self.state.mute.lock().unwrap_or_else(PoisonError::into_inner).push(domain.to_ascii_lowercase());
    }

    /// How many queries came in.
    pub fn queries(&self) -> usize {
        self.state.queries.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn encoded_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or(63));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// The name in the question of a query, in lower case, and where its type begins.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    Some((labels.join("."), at))
}

/// The reply to one query (RFC 1035 section 4); `None` for what is not a query with one question.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, at) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let records = zone.get(&(name.clone(), kind)).map_or(&[][..], Vec::as_slice);
    let name_exists = zone.keys().any(|(known, _)| *known == name);

    let mut reply = query.get(..2)?.to_vec();
    // Response, authoritative, recursion desired and available.
    reply.push(0x85);
    reply.push(0x80 | if name_exists { 0 } else { NO_SUCH_NAME });
    for count in [1, u16::try_from(records.len()).unwrap_or(u16::MAX), 0, 0] {
        reply.extend(count.to_be_bytes());
    }
    reply.extend_from_slice(question);
    for data in records {
        // A pointer to the name in the question, type, class IN, 60 seconds.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        reply.extend_from_slice(data);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &DnsServer, name: &str, kind: u16) -> Vec<u8> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(encoded_name(name));
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        socket.send_to(&query, server.address()).unwrap();
        let mut reply = [0; 1500];
        let size = socket.recv(&mut reply).unwrap();
        reply[..size].to_vec()
    }

    #[test]
    fn answers_what_it_knows() {
        let server = DnsServer::start().unwrap();
        server.txt("Key.example", &"x".repeat(300));
        server.a("host.example", Ipv4Addr::new(192, 0, 2, 1));
        let reply = ask(&server, "key.EXAMPLE", TYPE_TXT);
        assert_eq!((reply[3] & 15, reply[7]), (0, 1));
        assert!(reply.ends_with(&[b'x'; 45]));
        assert!(ask(&server, "host.example", TYPE_A).ends_with(&[192, 0, 2, 1]));
        let (no_data, no_name) =
            (ask(&server, "host.example", TYPE_TXT), ask(&server, "other.example", TYPE_A));
        assert_eq!((no_data[3] & 15, no_data[7]), (0, 0));
        assert_eq!(no_name[3] & 15, NO_SUCH_NAME);
        assert_eq!(server.queries(), 4);
    }
}
