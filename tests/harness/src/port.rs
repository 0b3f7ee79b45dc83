//! Loopback ports that stay ours while a server is restarted.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

/// Below the kernel's range for outgoing connections (32768 and up), so that no connection takes the port of a server that is down for a moment.
const FIRST: u16 = 20_200;
const COUNT: u16 = 9_000;
/// One lock file a port, shared by every test process of the machine.
const LOCKS: &str = "/tmp/outrider-test-ports";

/// A reserved TCP port of 127.0.0.1. The reservation ends on drop, also when the process is killed.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        fs::create_dir_all(LOCKS).with_context(|| format!("making {LOCKS}"))?;
        // Processes start at different places, so that they seldom try the same lock.
        let start = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT)).unwrap_or(0);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (start.wrapping_add(step)) % COUNT;
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(format!("{LOCKS}/{number}"))
                .with_context(|| format!("opening the lock of port {number}"))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:NUMBER`.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_differ() {
        let (a, b) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        assert_ne!(a.number(), b.number());
        assert!(a.number() < 32_768);
    }
}
