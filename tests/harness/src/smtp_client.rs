//! A scripted SMTP client: every command and reply is in the open, nothing is retried.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;

use crate::message::dot_stuffed;

/// One SMTP reply, of any number of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The lines without code, joined by LF.
    pub text: String,
}

impl Reply {
    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx.
    pub fn is_temporary(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// What became of one message, recipient by recipient.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The reply to MAIL.
    pub mail: Reply,
    /// The reply to each RCPT, in order.
    pub recipients: Vec<Reply>,
    /// The reply to the final dot, if it came to that.
    pub data: Option<Reply>,
}

impl Outcome {
    /// True when the message was accepted for every recipient.
    pub fn accepted(&self) -> bool {
        self.recipients.iter().all(Reply::is_positive) && self.data.as_ref().is_some_and(Reply::is_positive)
    }

    /// The reply that decided: the first refusal, or the one to the final dot.
    pub fn decisive(&self) -> &Reply {
        if !self.mail.is_positive() {
            return &self.mail;
        }
        self.recipients.iter().find(|reply| !reply.is_positive()).or(self.data.as_ref()).unwrap_or(&self.mail)
    }
}

/// A connection to an SMTP server.
#[derive(Debug)]
pub struct SmtpClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl SmtpClient {
    /// Connects, reads the greeting and says EHLO.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        let mut client = Self::connect_silently(server)?;
        client.expect(220)?;
        client.say("EHLO client.test.example")?;
        client.expect(250)?;
        Ok(client)
    }

    /// Connects as if from `address` (XCLIENT, which the harness' Postfix allows from loopback), with `name` in EHLO.
    pub fn connect_from(server: SocketAddr, address: &str, name: &str) -> Result<Self> {
        let mut client = Self::connect_silently(server)?;
        client.expect(220)?;
        client.say(&format!("EHLO {name}"))?;
        client.expect(250)?;
        client.say(&format!("XCLIENT ADDR={address} NAME={name} HELO={name} PROTO=ESMTP"))?;
        client.expect(220)?;
        client.say(&format!("EHLO {name}"))?;
        client.expect(250)?;
        Ok(client)
    }

    fn connect_silently(server: SocketAddr) -> Result<Self> {
        let writer = TcpStream::connect(server).with_context(|| format!("connecting to {server}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_secs(90)))?;
        writer.set_write_timeout(Some(Duration::from_secs(90)))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Logs in with AUTH PLAIN; returns the server's reply.
    pub fn login(&mut self, user: &str, password: &str) -> Result<Reply> {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        self.command(&format!("AUTH PLAIN {token}"))
    }

    /// Sends a line without waiting for its reply.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.writer.write_all(format!("{line}\r\n").as_bytes())?;
        Ok(())
    }

    /// Sends raw bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes)?;
        Ok(())
    }

    /// Sends a line and reads its reply.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        self.say(line)?;
        self.read_reply().with_context(|| format!("after {line:?}"))
    }

    /// Reads one reply.
    pub fn read_reply(&mut self) -> Result<Reply> {
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                bail!("the server closed the connection");
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let (code, rest) = (line.get(..3).unwrap_or(""), line.get(4..).unwrap_or(""));
            let code: u16 = code.parse().with_context(|| format!("not an SMTP reply: {line:?}"))?;
            text.push_str(rest);
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text });
            }
            text.push('\n');
        }
    }

    /// Reads one reply that must have this code.
    pub fn expect(&mut self, code: u16) -> Result<Reply> {
        let reply = self.read_reply()?;
        if reply.code != code {
            bail!("expected {code}, the server said {reply}");
        }
        Ok(reply)
    }

    /// One transaction, commands in one packet where the server allows pipelining (Postfix does). `parameters` follow MAIL FROM.
    ///
    /// # Errors
    /// Only when the connection breaks; refusals are in the outcome.
    pub fn send(
        &mut self,
        sender: &str,
        parameters: &str,
        recipients: &[&str],
        message: &[u8],
    ) -> Result<Outcome> {
        let mut envelope = format!("MAIL FROM:<{sender}>{parameters}\r\n");
        for recipient in recipients {
            envelope.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
        }
        envelope.push_str("DATA\r\n");
        self.send_bytes(envelope.as_bytes())?;
        let mail = self.read_reply()?;
        let answers: Vec<Reply> = recipients.iter().map(|_| self.read_reply()).collect::<Result<_>>()?;
        let go_ahead = self.read_reply()?;
        let data = if go_ahead.code == 354 {
            self.send_bytes(&dot_stuffed(message))?;
            Some(self.read_reply()?)
        } else {
            let reset = self.command("RSET")?;
            if !reset.is_positive() && reset.code != 421 {
                bail!("RSET refused: {reset}");
            }
            None
        };
        Ok(Outcome { mail, recipients: answers, data })
    }

    /// Says QUIT and does not care for the answer.
    pub fn quit(mut self) {
        let _ = self.command("QUIT");
    }
}
