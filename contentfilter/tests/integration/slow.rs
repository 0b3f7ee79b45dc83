//! A client that sends too slowly (T03), on paused time.

use crate::parts::{Switchboard, filter};
use outrider_contentfilter::Settings;
use outrider_contentfilter::session::{self, Origin};
use outrider_core::dns::MemoryResolver;
use outrider_core::net::Shutdown;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Sends `octets` of a message every `pause` until the filter hangs up or an hour has passed; whether it hung up, and
/// what it said last.
async fn drip(octets: usize, pause: Duration) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = Switchboard::new(Box::new(|_| false));
    let filter = filter(Settings::default(), nobody, MemoryResolver::default(), 1, folder.path());
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let origin = Origin { role: "inbound", peer: None, local: None };
    let serving = session::serve(server, origin, &filter, Shutdown::never());
    let talking = async {
        let envelope = b"EHLO a.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n";
        client.write_all(envelope).await.expect("the filter reads");
        let begun = Instant::now();
        let line = [vec![b'x'; octets - 2], b"\r\n".to_vec()].concat();
        while begun.elapsed() < Duration::from_secs(3600) {
            tokio::time::sleep(pause).await;
            if client.write_all(&line).await.is_err() {
                break;
            }
        }
        let hung_up = begun.elapsed() < Duration::from_secs(3600);
        let mut said = String::new();
        if hung_up {
            client.read_to_string(&mut said).await.expect("text");
        }
        drop(client);
        (hung_up, said.lines().last().unwrap_or_default().to_owned())
    };
    let (_, outcome) = tokio::join!(serving, talking);
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_is_sent_away() {
    let (hung_up, said) = drip(100, Duration::from_secs(60)).await;
    assert!(hung_up);
    assert!(said.starts_with("421 4.3.2 "), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_is_no_reason() {
    let (hung_up, said) = drip(1000, Duration::from_secs(5)).await;
    assert!(!hung_up, "{said}");
}
