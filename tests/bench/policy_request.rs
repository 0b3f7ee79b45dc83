//! Policy requests as Postfix 3.7 writes them (SMTPD_POLICY_README).

/// The attributes that differ between the cases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PolicyRequest<'a> {
    pub(crate) state: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) recipient: &'a str,
    pub(crate) client: &'a str,
    /// `sasl_username`; empty without a login.
    pub(crate) user: &'a str,
    pub(crate) size: u32,
}

impl PolicyRequest<'_> {
    /// The request on the wire.
    pub(crate) fn text(&self) -> String {
        let Self { state, sender, recipient, client, user, size } = self;
        format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nprotocol_name=ESMTP\nclient_address={client}\n\
             client_name=unknown\nclient_port=51234\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=25\n\
             helo_name=mx.world.example\nsender={sender}\nrecipient={recipient}\nrecipient_count={}\nqueue_id=\n\
             instance=1b2c.673f0001.a1b2c.0\nsize={size}\netrn_domain=\nstress=\nsasl_method={}\nsasl_username={user}\n\
             sasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n\
             encryption_protocol=\nencryption_cipher=\nencryption_keysize=0\npolicy_context=\n\n",
            u8::from(*state == "END-OF-MESSAGE"),
            if user.is_empty() { "" } else { "PLAIN" },
        )
    }
}

/// A request with gaps for client, sender and recipient, so that a new one costs copying and no formatting.
#[derive(Debug, Clone)]
pub(crate) struct Template([Vec<u8>; 4]);

impl Template {
    /// An RCPT request of a client without a login.
    pub(crate) fn unknown_client() -> Self {
        const GAP: &str = "\u{1}";
        let text =
            PolicyRequest { state: "RCPT", sender: GAP, recipient: GAP, client: GAP, user: "", size: 0 }
                .text();
        let mut parts = text.split(GAP).map(|part| part.as_bytes().to_vec());
        Self(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    }

    /// Writes the request.
    pub(crate) fn fill(&self, client: &str, sender: &str, recipient: &str, out: &mut Vec<u8>) {
        for (part, value) in self.0.iter().zip([client, sender, recipient, ""]) {
            out.extend_from_slice(part);
            out.extend_from_slice(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_template_is_the_request() {
        let request = PolicyRequest {
            state: "RCPT",
            sender: "a@b.example",
            recipient: "c@d.example",
            client: "192.0.2.1",
            user: "",
            size: 0,
        };
        let mut out = Vec::new();
        Template::unknown_client().fill(request.client, request.sender, request.recipient, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), request.text());
    }
}
