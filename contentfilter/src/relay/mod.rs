//! Handing mail to the next hop.
//!
//! One delivery is one transaction: (RSET,) XFORWARD, MAIL and all RCPT in one write, their replies, DATA, the mail,
//! the reply to its final dot. A connection is kept for further messages of the same client connection. What becomes of each recipient is a
//! [`Fate`], and only [`Fate::Accepted`] - the next hop's 2xx after the final dot - means that it has taken
//! responsibility. Whenever that is not certain the fate is [`Fate::Trouble`], and the client keeps the mail.
//!
//! Bounds: replies as in [`outrider_core::codec::smtp::reply`], one deadline for the whole delivery, one connection
//! to each next hop.

mod connect;
mod connection;

pub use connect::{Connect, Connecting, Link, SystemConnect, Watched};
pub use connection::Trouble;

use crate::hop::NextHop;
use crate::store::Message;
use connection::{Connection, Wire};
use outrider_core::codec::smtp::capability::Capability;
use outrider_core::codec::smtp::command::{Body, Mail, Rcpt, Ret};
use outrider_core::codec::smtp::reply::NextHopReply;
use outrider_core::codec::smtp::xforward::Forwarded;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection is kept without use. Postfix' smtpd hangs up after 300 s of silence.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// How long a next hop has to answer QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What is told to the next hop beside the mail itself.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Sender and its parameters.
    pub mail: Mail,
    /// Recipients and their parameters.
    pub recipients: Vec<Rcpt>,
    /// The first client; nothing is forwarded for mail of our own.
    pub forwarded: Option<Forwarded>,
    /// One refused or deferred recipient does not keep the others from being served (LMTP clients get a reply for
    /// each; for an SMTP client a deferred one must stop all, or the others get the mail twice).
    pub separate_replies: bool,
}

/// The mail as it leaves: header section with all edits, then the body of the stored message.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Header fields without the empty line.
    pub header: &'a [u8],
    /// Whose body follows.
    pub message: &'a Message,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The next hop is responsible now.
    Accepted(NextHopReply),
    /// The next hop said 5xx.
    Refused(NextHopReply, Stage),
    /// The next hop said 4xx.
    Deferred(NextHopReply),
    /// No answer, no sense in it, or none was asked for: to be tried again.
    Trouble(Trouble),
}

/// To what a next hop replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// MAIL or RCPT.
    Envelope,
    /// DATA or the final dot.
    Data,
}

/// Hands the mail of one client connection to next hops.
///
/// Its connections live no longer than the client's: Postfix brings up to 20 messages (`max_use`) on one, so that
/// little is saved by keeping them longer, and a next hop that was stopped is noticed at once.
pub struct Relay {
    connect: Arc<dyn Connect>,
    kept: Vec<(NextHop, Connection)>,
}

impl Relay {
    /// A relay without any connection yet.
    pub fn new(connect: Arc<dyn Connect>) -> Relay {
        Relay { connect, kept: Vec::new() }
    }

    /// Delivers; one fate for each recipient, in their order. `name` is what we call ourselves in EHLO. `committed`
    /// is called right before the final dot is written: from then on the next hop may be responsible.
    pub async fn deliver(
        &mut self,
        hop: &NextHop,
        name: &str,
        envelope: &Envelope,
        content: Content<'_>,
        deadline: Instant,
        committed: &(dyn Fn() + Sync),
    ) -> Vec<Fate> {
        let kept = self.take(hop);
        let attempt = async {
            let (mut connection, replies) = self.open(kept, hop, name, envelope).await?;
            let fates = transact(&mut connection, envelope, replies, content, committed).await?;
            Ok((connection, fates))
        };
        let outcome = match tokio::time::timeout_at(deadline, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Trouble::Timeout),
        };
        match outcome {
            Ok((connection, fates)) => {
                if connection.is_sound() {
                    self.kept.push((hop.clone(), connection));
                }
                fates
            }
            Err(trouble) => vec![Fate::Trouble(trouble); envelope.recipients.len()],
        }
    }

    /// A connection on which the whole envelope has been sent and answered. A kept connection that turns out to be
    /// dead is replaced by a new one: nothing of the mail has been sent by then.
    async fn open(
        &self,
        kept: Option<Connection>,
        hop: &NextHop,
        name: &str,
        envelope: &Envelope,
    ) -> Result<(Connection, Vec<NextHopReply>), Trouble> {
        if let Some(mut kept) = kept
            && let Ok(replies) = send_envelope(&mut kept, envelope, true).await
            && replies.iter().all(|reply| reply.code != 421)
        {
            return Ok((kept, replies));
        }
        let link = self.connect.connect(hop).await.map_err(|error| Trouble::Connect(error.to_string()))?;
        let mut connection = Connection::greet(link, name).await?;
        let replies = send_envelope(&mut connection, envelope, false).await?;
        Ok((connection, replies))
    }

    /// The connection kept for a next hop, unless it has been idle for too long.
    fn take(&mut self, hop: &NextHop) -> Option<Connection> {
        let at = self.kept.iter().position(|(kept, _)| kept == hop)?;
        let (_, connection) = self.kept.swap_remove(at);
        (connection.used().elapsed() <= MAX_IDLE).then_some(connection)
    }

    /// Takes leave of the next hops, so that their logs do not speak of lost connections.
    pub async fn close(&mut self) {
        for (_, mut connection) in self.kept.drain(..) {
            // Nothing depends on the answer.
            let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.commands(&[b"QUIT".to_vec()])).await;
        }
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

/// Sends MAIL and all RCPT (after RSET and XFORWARD where needed) and collects the replies to MAIL and RCPT.
async fn send_envelope(
    connection: &mut Connection,
    envelope: &Envelope,
    reused: bool,
) -> Result<Vec<NextHopReply>, Trouble> {
    connection.expect_silence().await?;
    let mut commands: Vec<Vec<u8>> = Vec::new();
    if reused {
        commands.push(b"RSET".to_vec());
    }
    let known = connection.capabilities().iter().find_map(|capability| match capability {
        Capability::Xforward(attributes) => Some(attributes.as_slice()),
        _ => None,
    });
    if let (Some(forwarded), Some(known)) = (&envelope.forwarded, known) {
        commands.extend(forwarded.commands(known).into_iter().map(String::into_bytes));
    }
    let before_mail = commands.len();
    commands.push(mail_command(&envelope.mail, connection));
    commands.extend(envelope.recipients.iter().map(|recipient| rcpt_command(recipient, connection)));
    let mut replies = connection.commands(&commands).await?;
    let asked_first: Vec<NextHopReply> = replies.drain(..before_mail).collect();
    // A next hop that refuses RSET is not in a state we know; one that refuses XFORWARD only knows less of the client.
    if reused && asked_first.first().is_none_or(|reply| !completed(reply)) {
        return Err(Trouble::Protocol("RSET refused"));
    }
    Ok(replies)
}

fn mail_command(mail: &Mail, connection: &Connection) -> Vec<u8> {
    let mut command = b"MAIL FROM:".to_vec();
    mail.path.write(&mut command);
    let mut add = |parameter: &str| command.extend_from_slice(format!(" {parameter}").as_bytes());
    if connection.has(&Capability::EightBitMime) {
        match mail.body {
            Some(Body::SevenBit) => add("BODY=7BIT"),
            Some(Body::EightBitMime) => add("BODY=8BITMIME"),
            None => {}
        }
    }
    if connection.has(&Capability::Dsn) {
        match mail.ret {
            Some(Ret::Full) => add("RET=FULL"),
            Some(Ret::Hdrs) => add("RET=HDRS"),
            None => {}
        }
        if let Some(envid) = &mail.envid {
            add(&format!("ENVID={envid}"));
        }
    }
    if mail.smtputf8 && connection.has(&Capability::SmtpUtf8) {
        add("SMTPUTF8");
    }
    command
}

fn rcpt_command(recipient: &Rcpt, connection: &Connection) -> Vec<u8> {
    let mut command = b"RCPT TO:".to_vec();
    recipient.path.write(&mut command);
    if connection.has(&Capability::Dsn) {
        if let Some(notify) = &recipient.notify {
            command.extend_from_slice(format!(" NOTIFY={notify}").as_bytes());
        }
        if let Some(orcpt) = &recipient.orcpt {
            command.extend_from_slice(format!(" ORCPT={orcpt}").as_bytes());
        }
    }
    command
}

/// From the replies to the envelope to the fates of all recipients.
async fn transact(
    connection: &mut Connection,
    envelope: &Envelope,
    replies: Vec<NextHopReply>,
    content: Content<'_>,
    committed: &(dyn Fn() + Sync),
) -> Result<Vec<Fate>, Trouble> {
    let (mail, recipients) = replies.split_first().ok_or(Trouble::Protocol("no reply to MAIL"))?;
    if !completed(mail) {
        return Ok(vec![failed(mail, Stage::Envelope); envelope.recipients.len()]);
    }
    let mut fates: Vec<Option<Fate>> =
        recipients.iter().map(|reply| (!completed(reply)).then(|| failed(reply, Stage::Envelope))).collect();
    let deferred = fates.iter().flatten().any(|fate| !matches!(fate, Fate::Refused(..)));
    let nobody = fates.iter().all(Option::is_some);
    if nobody || deferred && !envelope.separate_replies {
        // The transaction ends with the RSET of the next one; a next hop forgets it as well when we go.
        let others = Fate::Trouble(Trouble::Abandoned);
        return Ok(fates.into_iter().map(|fate| fate.unwrap_or_else(|| others.clone())).collect());
    }
    let verdict = send_data(connection, content, committed).await?;
    let fate = if completed(&verdict) { Fate::Accepted(verdict) } else { failed(&verdict, Stage::Data) };
    for open in fates.iter_mut().filter(|fate| fate.is_none()) {
        *open = Some(fate.clone());
    }
    Ok(fates.into_iter().flatten().collect())
}

/// 250, 251 and the like: the second digit says that the mail system speaks (RFC 5321 section 4.2.1). A 221 in the
/// place of a 250 is a next hop that says good-bye, not one that takes the mail.
fn completed(reply: &NextHopReply) -> bool {
    reply.code / 10 == 25
}

fn failed(reply: &NextHopReply, stage: Stage) -> Fate {
    match reply.class() {
        5 => Fate::Refused(reply.clone(), stage),
        4 => Fate::Deferred(reply.clone()),
        _ => Fate::Trouble(Trouble::Protocol("unexpected reply code")),
    }
}

/// DATA, the mail, the dot. Returns the reply that decides: 2xx only after the dot.
async fn send_data(
    connection: &mut Connection,
    content: Content<'_>,
    committed: &(dyn Fn() + Sync),
) -> Result<NextHopReply, Trouble> {
    let go_ahead = connection.commands(&[b"DATA".to_vec()]).await?.remove(0);
    match go_ahead.class() {
        3 => {}
        4 | 5 => return Ok(go_ahead),
        _ => return Err(Trouble::Protocol("DATA not answered with 354")),
    }
    let mut wire = Wire::new(connection);
    wire.text(content.header).await?;
    if content.message.has_separator() {
        wire.text(b"\r\n").await?;
    }
    let mut body = content.message.outgoing_body();
    while let Some(piece) = body.next().await.map_err(|error| Trouble::Store(error.to_string()))? {
        wire.text(piece).await?;
    }
    if let Some(early) = wire.finish(committed).await? {
        // A next hop may give up while the mail is still on its way; it cannot have accepted what it has not seen.
        return match early.class() {
            4 | 5 => {
                connection.spoil();
                Ok(early)
            }
            _ => Err(Trouble::Protocol("reply before the end of the mail")),
        };
    }
    connection.reply().await
}
