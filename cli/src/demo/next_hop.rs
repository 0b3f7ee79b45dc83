//! The mail server behind the content filter: takes every message and keeps it for the narrator.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A message as the next hop received it: dots unstuffed, lines ended by CRLF.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// The argument of `MAIL FROM`.
    pub(crate) sender: String,
    /// The arguments of `RCPT TO`.
    pub(crate) recipients: Vec<String>,
    /// Header and body.
    pub(crate) message: String,
}

/// Starts the server on a free loopback port. Messages come out of the channel in the order of their arrival.
pub(crate) async fn start() -> Result<(SocketAddr, mpsc::UnboundedReceiver<Delivered>)> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening a port for the next hop")?;
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let count = Arc::new(AtomicUsize::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, count) = (sender.clone(), count.clone());
            tokio::spawn(async move {
                // A connection that ends early has delivered nothing; there is nobody to tell.
                let _ = serve(stream, sender, &count).await;
            });
        }
    });
    Ok((address, receiver))
}

async fn serve(
    stream: TcpStream,
    delivered: mpsc::UnboundedSender<Delivered>,
    count: &AtomicUsize,
) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).split(b'\n');
    let mut sender = String::new();
    let mut recipients = Vec::new();
    writer.write_all(b"220 next-hop.demo.example ESMTP\r\n").await?;
    while let Some(line) = lines.next_segment().await? {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-next-hop.demo.example\r\n250-PIPELINING\r\n250 8BITMIME".to_owned(),
            "MAIL" => {
                sender = path(&line);
                recipients.clear();
                "250 2.1.0 Ok".to_owned()
            }
            "RCPT" => {
                recipients.push(path(&line));
                "250 2.1.5 Ok".to_owned()
            }
            "DATA" => {
                writer.write_all(b"354 End data with <CR><LF>.<CR><LF>\r\n").await?;
                let mut message = String::new();
                while let Some(line) = lines.next_segment().await? {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end_matches('\r');
                    if line == "." {
                        break;
                    }
                    message.push_str(line.strip_prefix('.').unwrap_or(line));
                    message.push_str("\r\n");
                }
                let delivery = Delivered { sender: sender.clone(), recipients: recipients.clone(), message };
                if delivered.send(delivery).is_err() {
                    break;
                }
                format!("250 2.0.0 Ok: queued as DEMO{}", 1 + count.fetch_add(1, Ordering::Relaxed))
            }
            "QUIT" => {
                writer.write_all(b"221 2.0.0 Bye\r\n").await?;
                break;
            }
            _ => "250 2.0.0 Ok".to_owned(),
        };
        writer.write_all(reply.as_bytes()).await?;
        writer.write_all(b"\r\n").await?;
    }
    Ok(())
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(inside, _)| inside);
    inside.unwrap_or_default().to_owned()
}
