//! The order of work for one message (contentfilter section 4), from its last octet to its replies.
//!
//! Read the header; decide who signs; pass once over the body; fetch DKIM keys; edit, sign and hand on in groups of
//! recipients that get the same header; report refused recipients; reply; log.

use crate::bank::Bank;
use crate::dkim::{self, BodyPass};
use crate::edit::Edits;
use crate::facts::Facts;
use crate::filter::{Filter, Snapshot};
use crate::identity::MailId;
use crate::notify;
use crate::outcome::{self, Outcome};
use crate::relay::{Content, Envelope, Fate, Relay};
use crate::report;
use crate::rewrite::Senders;
use crate::settings::LogTemplate;
use crate::store::Message;
use outrider_core::codec::smtp::command::{Body, Mail, Rcpt};
use outrider_core::codec::smtp::reply::Reply;
use outrider_core::codec::smtp::xforward::{Attribute, Forwarded};
use outrider_core::log;
use outrider_core::mailauth::canonical::{BodyHash, BodyHashKind};
use outrider_core::mailauth::results;
use outrider_core::mailauth::sign::Plan;
use outrider_core::mailauth::verify::{Outcome as Check, Verifier};
use outrider_core::settings::LogStyle;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// More Received fields than this are a loop.
const MAX_HOPS: usize = 100;

/// Who talks to us.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it said in HELO, EHLO or LHLO.
    pub helo: String,
    /// Word after `with` in Received: ESMTP, SMTP, LMTP, UTF8SMTP, UTF8LMTP.
    pub protocol: &'static str,
    /// One reply for each recipient.
    pub lmtp: bool,
    /// Its address; `None` over a UNIX socket.
    pub peer: Option<IpAddr>,
    /// Our address and port on this connection; `None` over a UNIX socket.
    pub local: Option<(IpAddr, u16)>,
    /// What it told about the first client.
    pub forwarded: Forwarded,
}

/// A message that has arrived and waits for its replies.
#[derive(Debug)]
pub struct Incoming {
    /// The settings with which it began.
    pub snapshot: Arc<Snapshot>,
    /// Policy bank of listener and client.
    pub bank: Bank,
    /// Sender and parameters.
    pub mail: Mail,
    /// Accepted recipients; at least one.
    pub recipients: Vec<Rcpt>,
    /// Who brought it.
    pub client: Client,
    /// Log id.
    pub log_id: String,
    /// When its last octet arrived, in seconds since 1970.
    pub arrived: i64,
    /// The same on the clock that never jumps.
    pub started: Instant,
    /// The mail.
    pub message: Message,
}

/// What became of it.
#[derive(Debug)]
pub struct Done {
    /// For each recipient.
    pub outcomes: Vec<Outcome>,
    /// What its header said.
    pub facts: Facts,
    /// Its name.
    pub mail_id: MailId,
    /// Results of DKIM verification.
    pub checked: Vec<Check>,
    /// `selector:domain` of signatures made.
    pub signed: Vec<String>,
    /// Digest of the body for the log.
    pub body_digest: Option<String>,
    /// Size as Amavisd counts it.
    pub size: u64,
    /// Time from the last octet to now.
    pub elapsed_ms: u64,
}

impl Incoming {
    /// The first client's address: that of XFORWARD, else of the connection.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.client.forwarded.address().or(self.client.peer)
    }

    /// Time of arrival as a Date field has it, in the zone of this machine.
    pub fn date(&self) -> String {
        let time = jiff::Timestamp::from_second(self.arrived).unwrap_or_default();
        time.to_zoned(self.snapshot.zone.clone()).strftime("%a, %e %b %Y %H:%M:%S %z (%Z)").to_string()
    }

    /// Our Received field.
    fn received(&self, mail_id: &str) -> String {
        let literal = |ip: Option<IpAddr>| match ip {
            Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
            Some(ip) => format!("[{ip}]"),
            None => "localhost".to_owned(),
        };
        let helo: String = self.client.helo.chars().filter(char::is_ascii_graphic).take(255).collect();
        let helo = if helo.is_empty() { "unknown" } else { &helo };
        let product = &self.snapshot.settings.myproduct_name;
        let port = self.client.local.map(|(_, port)| format!(", port {port}")).unwrap_or_default();
        let recipient = match self.recipients.as_slice() {
            [only] => format!(" for {}", only.path),
            _ => String::new(),
        };
        format!(
            "Received: from {helo} ({})\r\n\tby {} ({} {}) ({product}{port})\r\n\twith {} id {mail_id}{recipient};\r\n\t{}\r\n",
            literal(self.client.peer),
            self.snapshot.localhost_name,
            self.snapshot.hostname,
            literal(self.client.local.map(|(ip, _)| ip)),
            self.client.protocol,
            self.date(),
        )
    }

    /// MAIL as it goes on: the body type follows from the text when the client declared none.
    fn outgoing_mail(&self) -> Mail {
        let traits = self.message.traits();
        let found = (!traits.eight_bit && !traits.nul).then_some(Body::SevenBit);
        Mail { body: self.mail.body.or(found), ..self.mail.clone() }
    }

    /// XFORWARD as it goes on; the address is always told.
    fn outgoing_client(&self) -> Forwarded {
        let mut forwarded = self.client.forwarded.clone();
        if forwarded.get(Attribute::Addr).is_none() {
            forwarded.set(Attribute::Addr, self.client.peer.map(|ip| ip.to_string().into_bytes()));
        }
        forwarded
    }
}

impl Done {
    /// `selector:domain` of valid signatures, joined with commas.
    pub fn verified(&self) -> String {
        let valid = self.checked.iter().filter(|check| check.passed());
        let names = valid
            .filter_map(|check| Some(format!("{}:{}", check.selector.as_ref()?, check.domain.as_ref()?)));
        names.collect::<Vec<_>>().join(",")
    }
}

/// Works on a message and returns the replies: one for SMTP, one for each recipient for LMTP. `committed` is called
/// when the first final dot is about to be written.
pub async fn process(
    filter: &Filter,
    relay: &mut Relay,
    incoming: &Incoming,
    committed: &(dyn Fn() + Sync),
) -> Vec<Reply> {
    let mail_id = MailId::new(&*filter.random);
    let facts = Facts::read(incoming.message.header());
    // Amavisd adds the empty line that a mail without one lacks, and counts it.
    let size = incoming.message.size() + if incoming.message.has_separator() { 0 } else { 2 };
    let mut done = Done {
        outcomes: Vec::new(),
        facts,
        mail_id,
        checked: Vec::new(),
        signed: Vec::new(),
        body_digest: None,
        size,
        elapsed_ms: 0,
    };
    if done.facts.received.len() > MAX_HOPS {
        let refused = Outcome::too_many_hops(done.facts.received.len(), &incoming.log_id);
        done.outcomes = vec![refused; incoming.recipients.len()];
    } else {
        match inspect(filter, incoming, &mut done).await {
            Ok((plans, hashes)) => match Senders::of(incoming, filter.forwarding().as_deref()).await {
                Ok(senders) => {
                    forward(relay, incoming, &mut done, &plans, &hashes, &senders, committed).await;
                }
                Err(reason) => {
                    let fault = Outcome::own_fault("srs", &reason, &incoming.log_id);
                    done.outcomes = vec![fault; incoming.recipients.len()];
                }
            },
            Err(error) => {
                let fault = Outcome::own_fault("store", &error.to_string(), &incoming.log_id);
                done.outcomes = vec![fault; incoming.recipients.len()];
            }
        }
    }
    let mut replies: Vec<Reply> = if incoming.client.lmtp {
        done.outcomes.iter().map(|outcome| outcome.reply.clone()).collect()
    } else {
        vec![outcome::merged(&done.outcomes, &incoming.log_id)]
    };
    if !incoming.client.lmtp
        && outcome::needs_report(&done.outcomes)
        && let Err(reply) = report_refused(filter, relay, incoming, &done).await
    {
        replies = vec![reply];
    }
    done.elapsed_ms = u64::try_from(incoming.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report::write(incoming, &done);
    filter.counters.message(incoming, &done);
    replies
}

/// Everything that looks at the mail without changing it.
async fn inspect(
    filter: &Filter,
    incoming: &Incoming,
    done: &mut Done,
) -> std::io::Result<(Vec<Plan>, Vec<(BodyHashKind, BodyHash)>)> {
    let (snapshot, message) = (&incoming.snapshot, &incoming.message);
    if message.header_is_cut() {
        tracing::warn!(
            event = "header section too long",
            id = incoming.log_id.as_str(),
            reason = "DKIM left out"
        );
        return Ok(Default::default());
    }
    let mut plans = Vec::new();
    if incoming.bank.sign {
        if done.facts.from_fields > 1 && !snapshot.settings.dkim.sign_several_from {
            tracing::warn!(
                event = "not signed",
                id = incoming.log_id.as_str(),
                reason = "several From fields"
            );
        } else {
            plans = snapshot.signer.plan(&done.facts.signing_candidates(&envelope_sender(&incoming.mail)));
        }
    }
    let verifier = if incoming.bank.verify { Verifier::new(message.header()) } else { None };
    let digest = snapshot.settings.log_templ == LogTemplate::Verbose && log::style() == LogStyle::Amavis;
    let findings = BodyPass::new(verifier, &plans, digest).run(message).await?;
    done.body_digest = findings.digest;
    if let Some(verifier) = findings.verifier {
        let now = u64::try_from(incoming.arrived).unwrap_or(0);
        let resolver = filter.resolver();
        done.checked = verifier.finish(&*resolver, &snapshot.settings.dkim.policy(), now).await;
    }
    let valid = |domain: &str| {
        done.checked.iter().any(|check| check.passed() && check.domain.as_deref() == Some(domain))
    };
    plans.retain(|plan| !valid(plan.domain()));
    Ok((plans, findings.hashes))
}

fn envelope_sender(mail: &Mail) -> String {
    if mail.path.is_null() { String::new() } else { mail.path.address() }
}

/// Hands the mail on, once for each group of recipients that get the same header and the same envelope sender.
async fn forward(
    relay: &mut Relay,
    incoming: &Incoming,
    done: &mut Done,
    plans: &[Plan],
    hashes: &[(BodyHashKind, BodyHash)],
    senders: &Senders,
    committed: &(dyn Fn() + Sync),
) {
    let (snapshot, settings) = (&incoming.snapshot, &incoming.snapshot.settings);
    let edits = Edits {
        settings,
        authserv_id: &snapshot.authserv_id,
        scanned: incoming.bank.virus_checks,
        received: incoming.received(&done.mail_id.id),
    };
    let results = (!done.checked.is_empty())
        .then(|| results::write(&snapshot.authserv_id, &settings.myproduct_name, &done.checked));
    let deadline = incoming.started + settings.child_timeout.duration();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; incoming.recipients.len()];
    for group in groups(incoming, results.is_some(), senders) {
        let with_results =
            results.as_deref().filter(|_| snapshot.is_local(&incoming.recipients[group[0]].path));
        let mut header = edits.apply(incoming.message.editable_header(), with_results);
        if edits.allowed("DKIM-Signature") {
            let now = u64::try_from(incoming.arrived).unwrap_or(0);
            let (signatures, names) = dkim::sign(plans, &snapshot.signer.fields, &header, hashes, now);
            header.splice(0..0, signatures);
            done.signed = names;
        }
        let mut mail = incoming.outgoing_mail();
        if let Some(sender) = senders.replaced_for(group[0]) {
            mail.path = sender.clone();
        }
        let envelope = Envelope {
            mail,
            recipients: group.iter().map(|at| incoming.recipients[*at].clone()).collect(),
            forwarded: Some(incoming.outgoing_client()),
            separate_replies: incoming.client.lmtp,
        };
        let content = Content { header: &header, message: &incoming.message };
        let hop = &incoming.bank.forward;
        let fates =
            relay.deliver(hop, &snapshot.localhost_name, &envelope, content, deadline, committed).await;
        for (at, fate) in group.iter().zip(fates) {
            if let Fate::Trouble(trouble) = &fate {
                tracing::warn!(event = "next hop", id = incoming.log_id.as_str(), hop = %hop, reason = %trouble);
            }
            outcomes[*at] = Some(Outcome::of(fate, hop, &incoming.log_id));
        }
    }
    let missing = || Outcome::own_fault("forward", "no outcome", &incoming.log_id);
    done.outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect();
}

/// Recipients (by position) that get the same: local ones get Authentication-Results, others may get another envelope
/// sender.
fn groups(incoming: &Incoming, results: bool, senders: &Senders) -> Vec<Vec<usize>> {
    let mut groups: [Vec<usize>; 4] = Default::default();
    for (at, recipient) in incoming.recipients.iter().enumerate() {
        let without_results = results && !incoming.snapshot.is_local(&recipient.path);
        let replaced = senders.replaced_for(at).is_some();
        groups[usize::from(without_results) + 2 * usize::from(replaced)].push(at);
    }
    groups.into_iter().filter(|group| !group.is_empty()).collect()
}

/// Tells the sender about refused recipients. The error is the reply that makes the client try the whole mail again:
/// those served get it twice then, which is better than a refusal that nobody hears of.
async fn report_refused(
    filter: &Filter,
    relay: &mut Relay,
    incoming: &Incoming,
    done: &Done,
) -> Result<(), Reply> {
    let report_id = MailId::new(&*filter.random).id;
    let Some(report) = notify::about_refused(incoming, done, &report_id) else { return Ok(()) };
    let snapshot = &incoming.snapshot;
    let deadline = incoming.started + snapshot.settings.child_timeout.duration();
    let content = Content { header: &report.header, message: &report.message };
    let hop = &snapshot.settings.notify_method;
    let fates =
        relay.deliver(hop, &snapshot.localhost_name, &report.envelope, content, deadline, &|| {}).await;
    match fates.into_iter().next() {
        Some(Fate::Accepted(_)) => Ok(()),
        // The sender's own mail system refuses to hear of it: no use in trying again.
        Some(Fate::Refused(reply, _)) => {
            let text = reply.one_line();
            tracing::warn!(event = "report refused", id = incoming.log_id.as_str(), reason = text.as_str());
            Ok(())
        }
        _ => Err(outcome::processing_failed(
            "notif",
            "the report to the sender was deferred",
            &incoming.log_id,
        )),
    }
}
