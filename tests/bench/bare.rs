//! The least a server of each protocol can do: the limits the daemons are compared with.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// `policy ADDRESS`, `tcp-table ADDRESS`, `smtp-relay ADDRESS NEXT-HOP`, `smtp-sink ADDRESS`; runs until killed.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [role, address, rest @ ..] = arguments else { bail!("serve ROLE ADDRESS") };
    let address: SocketAddr = address.parse().context("address")?;
    let next_hop: Option<SocketAddr> =
        rest.first().map(|text| text.parse()).transpose().context("next hop")?;
    let role = role.clone();
    tokio::runtime::Runtime::new()?.block_on(async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let role = role.clone();
            tokio::spawn(async move {
                // Load connections break off at the end of a point; nothing is to be said about it.
                let _ = match (role.as_str(), next_hop) {
                    ("policy", _) => echo(stream, b"\n\n", b"action=DUNNO\n\n").await,
                    ("tcp-table", _) => {
                        echo(stream, b"\n", b"200 SRS0=abcd=WC=sender.example=user@srs.example.net\n").await
                    }
                    ("smtp-relay", Some(next_hop)) => smtp(stream, Some(next_hop)).await,
                    ("smtp-sink", _) => smtp(stream, None).await,
                    _ => Ok(()),
                };
            });
        }
    })
}

/// Answers every request that ends with `end`.
async fn echo(mut stream: TcpStream, end: &[u8], answer: &[u8]) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(8192);
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut answers = Vec::new();
        while let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            buffer.advance(at + end.len());
            answers.extend_from_slice(answer);
        }
        stream.write_all(&answers).await?;
    }
    Ok(())
}

/// An SMTP server that gives each message as it came to the next hop (or nobody), and answers with what that answered.
async fn smtp(stream: TcpStream, next_hop: Option<SocketAddr>) -> Result<()> {
    let mut stream = BufReader::with_capacity(65_536, stream);
    let mut onward = None;
    if let Some(address) = next_hop {
        let mut peer = BufReader::with_capacity(65_536, TcpStream::connect(address).await?);
        peer.get_ref().set_nodelay(true)?;
        reply(&mut peer).await?;
        peer.write_all(b"EHLO bare\r\n").await?;
        reply(&mut peer).await?;
        onward = Some(peer);
    }
    stream.write_all(b"220 bare ESMTP\r\n").await?;
    let mut envelope = String::new();
    let mut line = String::new();
    let mut out = Vec::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.get(..4).unwrap_or("") {
            "EHLO" => out.extend_from_slice(b"250-bare\r\n250-PIPELINING\r\n250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n250 8BITMIME\r\n"),
            "MAIL" => {
                envelope.clear();
                envelope.push_str(&line);
                out.extend_from_slice(b"250 Ok\r\n");
            }
            "RCPT" => {
                envelope.push_str(&line);
                out.extend_from_slice(b"250 Ok\r\n");
            }
            "DATA" => {
                out.extend_from_slice(b"354 go on\r\n");
                stream.write_all(&std::mem::take(&mut out)).await?;
                let message = message(&mut stream).await?;
                if let Some(peer) = &mut onward {
                    envelope.push_str("DATA\r\n");
                    peer.write_all(envelope.as_bytes()).await?;
                    for _ in envelope.lines() {
                        reply(peer).await?;
                    }
                    peer.write_all(&message).await?;
                    out.extend(reply(peer).await?);
                } else {
                    out.extend_from_slice(b"250 2.0.0 Ok: queued as BARE\r\n");
                }
            }
            "QUIT" => return Ok(()),
            _ => out.extend_from_slice(b"250 Ok\r\n"),
        }
        if stream.buffer().is_empty() {
            stream.write_all(&std::mem::take(&mut out)).await?;
        }
    }
}

async fn message(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut message = Vec::with_capacity(65_536);
    loop {
        let piece = stream.fill_buf().await?;
        if piece.is_empty() {
            bail!("closed within the message");
        }
        let size = piece.len();
        message.extend_from_slice(piece);
        stream.consume(size);
        // The client waits for the answer, so the end of the message is the end of what has arrived.
        if message.ends_with(b"\r\n.\r\n") {
            return Ok(message);
        }
    }
}

async fn reply(peer: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let start = text.len();
        if peer.read_until(b'\n', &mut text).await? == 0 {
            bail!("the next hop closed");
        }
        if text.get(start + 3) != Some(&b'-') {
            return Ok(text);
        }
    }
}
