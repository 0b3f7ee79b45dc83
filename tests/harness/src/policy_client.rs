//! A client of Postfix' policy delegation protocol (SMTPD_POLICY_README).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A connection to a policy server.
#[derive(Debug)]
pub struct PolicyClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl PolicyClient {
    /// Connects.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        let writer = TcpStream::connect(server).with_context(|| format!("connecting to {server}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Sends one request and returns the text after `action=`.
    pub fn ask(&mut self, attributes: &[(&str, &str)]) -> Result<String> {
        let mut request = String::from("request=smtpd_access_policy\n");
        for (name, value) in attributes {
            request.push_str(&format!("{name}={value}\n"));
        }
        request.push('\n');
        self.writer.write_all(request.as_bytes())?;
        self.read_action()
    }

    /// Reads one answer.
    pub fn read_action(&mut self) -> Result<String> {
        let (mut line, mut end) = (String::new(), String::new());
        self.reader.read_line(&mut line)?;
        self.reader.read_line(&mut end)?;
        match line.trim_end_matches('\n').strip_prefix("action=") {
            Some(action) if end == "\n" => Ok(action.to_owned()),
            _ => bail!("not a policy answer: {line:?} {end:?}"),
        }
    }
}
