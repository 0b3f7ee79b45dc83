//! One question, one answer over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::load::Exchange;

/// Connects and yields the exchange: sends `request(count)` and reads until `end`, which must begin with one of `good`.
pub(crate) fn exchange(
    address: SocketAddr,
    end: &'static [u8],
    good: &'static [&'static str],
    mut request: impl FnMut(u64) -> String + Send + 'static,
) -> Result<Exchange> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut buffer = vec![0; 65_536];
    Ok(Box::new(move |count| {
        stream.write_all(request(count).as_bytes())?;
        let mut filled = 0;
        loop {
            let size = stream.read(&mut buffer[filled..])?;
            filled += size;
            if size == 0 {
                bail!("{address} closed the connection");
            }
            if buffer[..filled].ends_with(end) {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&buffer[..filled]);
        if !good.iter().any(|start| answer.starts_with(start)) {
            bail!("{address} answered {answer:?}, expected one of {good:?}");
        }
        Ok(())
    }))
}

/// A policy request as Postfix 3.7 writes it.
pub(crate) fn policy_request(
    state: &str,
    sender: &str,
    recipient: &str,
    client: &str,
    user: &str,
    size: u32,
) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state={state}\nprotocol_name=ESMTP\nclient_address={client}\n\
         client_name=unknown\nclient_port=51234\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=25\n\
         helo_name=mx.world.example\nsender={sender}\nrecipient={recipient}\nrecipient_count={}\nqueue_id=\n\
         instance=1b2c.673f0001.a1b2c.0\nsize={size}\netrn_domain=\nstress=\nsasl_method={}\nsasl_username={user}\n\
         sasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n\
         encryption_protocol=\nencryption_cipher=\nencryption_keysize=0\npolicy_context=\n\n",
        u8::from(state == "END-OF-MESSAGE"),
        if user.is_empty() { "" } else { "PLAIN" },
    )
}
