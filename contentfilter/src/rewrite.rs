//! Selective SRS: whose copy of a message gets a rewritten envelope sender.
//!
//! Postfix' canonical maps rewrite a foreign sender before it is known where the message goes, so that every message
//! from outside carries an SRS address in Return-Path, filters and logs. The filter sees recipients after aliases and
//! forwardings were expanded: it rewrites for those that leave this mail system and for nobody else. Bounces come back
//! through `recipient_canonical_maps` and srsd, which must have the same secrets.

use crate::process::Incoming;
use outrider_core::codec::smtp::path::Path;
use outrider_core::forwarding::{Forward, Forwarding};

/// The envelope senders of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Senders {
    /// What recipients elsewhere see; `None` when all see the original.
    rewritten: Option<Path>,
    /// For each recipient, whether his mail leaves.
    leaves: Vec<bool>,
}

impl Senders {
    /// The sender that a recipient (by position) gets in place of the original.
    pub(crate) fn replaced_for(&self, recipient: usize) -> Option<&Path> {
        self.rewritten.as_ref().filter(|_| self.leaves.get(recipient).copied().unwrap_or(false))
    }

    /// Decides for a message.
    ///
    /// # Errors
    /// It cannot be decided now, and `srs.on_failure` says that such mail waits.
    pub(crate) async fn of(incoming: &Incoming, forwarding: Option<&Forwarding>) -> Result<Senders, String> {
        let Some(forwarding) = forwarding.filter(|_| !incoming.mail.path.is_null()) else {
            return Ok(Senders::default());
        };
        let patience = incoming.snapshot.settings.srs_timeout();
        forwarding.first_attempt(patience).await;
        let undecided = || match forwarding.defers() {
            true => Err("local domains are not known".to_owned()),
            false => Ok(Senders::default()),
        };
        let mut leaves = Vec::with_capacity(incoming.recipients.len());
        for recipient in &incoming.recipients {
            let domain = recipient.path.domain_lower();
            // An address without domain is one of this machine.
            match domain.is_empty().then_some(true).or_else(|| forwarding.is_local(&domain)) {
                Some(local) => leaves.push(!local),
                None => return undecided(),
            }
        }
        if !leaves.contains(&true) {
            return Ok(Senders::default());
        }
        let sender = incoming.mail.path.address();
        match forwarding.forward(&sender, patience).await {
            Forward::Rewritten(address) => {
                tracing::info!(event = "rewrote", id = incoming.log_id.as_str(), sender, result = address);
                let (local, domain) = address.rsplit_once('@').unwrap_or((&address, ""));
                let rewritten = Some(Path::from_parts(local.as_bytes(), domain.as_bytes()));
                Ok(Senders { rewritten, leaves })
            }
            Forward::Left(_) => Ok(Senders::default()),
            Forward::Undecided => undecided(),
            Forward::Unkept => Err("the sender could not be kept".to_owned()),
        }
    }
}
