//! Who may use the list API: the address of the client, then the token.

use std::net::IpAddr;

use hyper::header::HeaderMap;

use crate::http::{Answer, Head};
use crate::token::Tokens;

/// Decides from the head of a request alone, for each request anew.
#[derive(Debug)]
pub(crate) struct Gate {
    tokens: Tokens,
    /// Both spellings of the header: CGI programs never told `-` from `_`, so clients use either.
    headers: [String; 2],
    /// The only clients let in, if there is a restriction.
    clients: Option<Vec<IpAddr>>,
    failures: prometheus_client::metrics::counter::Counter,
}

impl Gate {
    /// A gate for `tokens` sent in `header`.
    pub(crate) fn new(
        tokens: Tokens,
        header: &str,
        clients: Option<Vec<IpAddr>>,
        failures: prometheus_client::metrics::counter::Counter,
    ) -> Self {
        let header = header.to_ascii_lowercase();
        Self { tokens, headers: [header.replace('_', "-"), header.replace('-', "_")], clients, failures }
    }

    /// Lets the request pass or gives the answer that refuses it.
    pub(crate) fn check(&self, head: &Head) -> Result<(), Answer> {
        // A UNIX socket has its own permissions; its clients have no address.
        if let (Some(clients), Some(peer)) = (&self.clients, head.peer)
            && !clients.contains(&peer)
        {
            return Err(self.refuse(head, "NOT_AUTHORIZED_API_CLIENT"));
        }
        match self.sent_token(&head.headers) {
            None => Err(self.refuse(head, "NO_API_AUTH_TOKEN")),
            Some(token) if self.tokens.contains(token) => Ok(()),
            Some(_) => Err(self.refuse(head, "INVALID_MLMMJADMIN_API_AUTH_TOKEN")),
        }
    }

    /// The token sent; of several header fields none counts, because nobody can say which one a proxy looked at.
    fn sent_token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let mut sent = self.headers.iter().flat_map(|name| headers.get_all(name));
        let token = sent.next()?.as_bytes();
        match sent.next() {
            Some(_) => Some(b""),
            None if token.is_empty() => None,
            None => Some(token),
        }
    }

    fn refuse(&self, head: &Head, code: &'static str) -> Answer {
        self.failures.inc();
        tracing::warn!(
            event = "token refused",
            client = %head.peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
            reason = code,
        );
        Answer::failure(code)
    }
}
