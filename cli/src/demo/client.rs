//! The other side of each protocol: what Postfix, an administrator's script or a mailing list manager says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer of a daemon on this machine takes longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks a policy service one question and returns the text behind `action=`.
pub(crate) async fn policy(address: SocketAddr, attributes: &[(&str, &str)]) -> Result<String> {
    let mut request = String::from("request=smtpd_access_policy\n");
    for (name, value) in attributes {
        request.push_str(&format!("{name}={value}\n"));
    }
    request.push('\n');
    let reply = converse(address, &request, "\n\n").await?;
    match reply.strip_prefix("action=") {
        Some(action) => Ok(action.trim_end().to_owned()),
        None => bail!("the policy service said {reply:?}, which is no action"),
    }
}

/// Looks up one key with Postfix' tcp_table protocol and returns the whole reply line.
pub(crate) async fn tcp_table(address: SocketAddr, key: &str) -> Result<String> {
    Ok(converse(address, &format!("get {key}\n"), "\n").await?.trim_end().to_owned())
}

/// Looks up one key with Postfix' socketmap protocol and returns the reply without its frame.
pub(crate) async fn socketmap(address: SocketAddr, map: &str, key: &str) -> Result<String> {
    let query = format!("{map} {key}");
    let reply = converse(address, &format!("{}:{query},", query.len()), ",").await?;
    let text = reply.split_once(':').map(|(_, text)| text.trim_end_matches(','));
    Ok(text.context("the socketmap reply has no frame")?.to_owned())
}

/// Sends `request` over a new connection and reads until the reply ends with `end`.
async fn converse(address: SocketAddr, request: &str, end: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        while !reply.ends_with(end.as_bytes()) {
            if stream.read_buf(&mut reply).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&reply).into_owned())
    };
    timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer from {address}"))?
        .with_context(|| format!("talking to {address}"))
}

/// Hands one message to an SMTP server and returns the reply to the final dot. Each line of `message` ends with CRLF.
pub(crate) async fn smtp(
    address: SocketAddr,
    sender: &str,
    recipient: &str,
    message: &str,
) -> Result<String> {
    let exchange = async {
        let (reader, mut writer) = TcpStream::connect(address).await?.into_split();
        let mut replies = BufReader::new(reader);
        read_reply(&mut replies).await?;
        let envelope = [
            "EHLO client.demo.example".to_owned(),
            format!("MAIL FROM:<{sender}>"),
            format!("RCPT TO:<{recipient}>"),
            "DATA".to_owned(),
        ];
        for command in envelope {
            writer.write_all(format!("{command}\r\n").as_bytes()).await?;
            let reply = read_reply(&mut replies).await?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        let stuffed = message.replace("\r\n.", "\r\n..");
        writer.write_all(format!("{stuffed}.\r\n").as_bytes()).await?;
        let reply = read_reply(&mut replies).await?;
        writer.write_all(b"QUIT\r\n").await?;
        Ok::<_, anyhow::Error>(reply)
    };
    timeout(PATIENCE, exchange).await.with_context(|| format!("no answer from {address}"))?
}

/// Reads a reply and returns its last line.
async fn read_reply<R: AsyncBufReadExt + Unpin>(reader: &mut R) -> Result<String> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            bail!("the SMTP server closed the connection");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
}

/// An answer of an HTTP server.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    /// The values of all Set-Cookie fields, without their attributes.
    pub(crate) cookies: Vec<String>,
    /// The text of the answer.
    pub(crate) body: String,
}

/// One HTTP request over a connection of its own; `form` is sent as the body.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    form: &str,
) -> Result<HttpAnswer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!(
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    ));
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok::<_, std::io::Error>(reply)
    };
    let reply = timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer from {address}"))?
        .with_context(|| format!("talking to {address}"))?;
    let (head, body) = reply.split_once("\r\n\r\n").context("the HTTP answer has no header section")?;
    let cookies = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .filter_map(|(_, value)| value.trim().split(';').next())
        .map(str::to_owned)
        .collect();
    Ok(HttpAnswer { cookies, body: body.to_owned() })
}
