//! One SMTP or LMTP client: commands in, exact replies out (contentfilter section 2).
//!
//! Generic over the stream. Replies are gathered while further commands are already there and written in one go, in
//! the order of the commands. Bounds: `MAX_BAD_COMMANDS` lines that are no commands, the line lengths of the codec,
//! `smtpd_timeout` of silence, `smtpd_recipient_limit`, `smtpd_message_size_limit`.

use crate::bank::Bank;
use crate::filter::{Filter, Snapshot};
use crate::identity;
use crate::outcome;
use crate::process::{self, Client, Incoming};
use crate::relay::Relay;
use crate::settings::BareNewline;
use crate::store::Arriving;
use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use outrider_core::codec::smtp::command::{self, Mail, Rcpt, Verb};
use outrider_core::codec::smtp::reply::Reply;
use outrider_core::codec::smtp::xforward::Forwarded;
use outrider_core::codec::smtp::{Line, LineReader};
use outrider_core::net::Shutdown;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Lines that are no commands before the client is sent away.
const MAX_BAD_COMMANDS: u32 = 20;
/// Octets a second that a message has to come in at, measured from `smtpd_timeout` after its begin: a client that sends
/// an octet now and then must not hold its place for ever.
const MIN_DATA_RATE: u64 = 100;
/// Octets read at once.
const READ_SIZE: usize = 64 * 1024;

/// What is known of a connection when it begins.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Role of the listener.
    pub role: &'static str,
    /// Address of the client; `None` over a UNIX socket.
    pub peer: Option<IpAddr>,
    /// Our address and port; `None` over a UNIX socket.
    pub local: Option<(IpAddr, u16)>,
}

/// Serves a client until it leaves, is sent away, or `shutdown` asks.
///
/// # Errors
/// The connection broke; nothing has to be done about it.
pub async fn serve<S>(stream: S, origin: Origin, filter: &Filter, shutdown: Shutdown) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let log_id = filter.connections.next();
    let mut session = Session {
        stream,
        filter,
        origin,
        shutdown,
        log_id,
        snapshot: filter.snapshot(),
        relay: Relay::new(filter.connect.clone()),
        input: BytesMut::new(),
        output: Vec::new(),
        lines: LineReader::default(),
        greeting: Greeting::None,
        helo: String::new(),
        forwarded: Forwarded::default(),
        transaction: None,
        transactions: 0,
        bad_commands: 0,
    };
    let result = session.run().await;
    session.relay.close().await;
    result
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    None,
    Helo,
    Ehlo,
    Lhlo,
}

struct Transaction {
    bank: Bank,
    mail: Mail,
    recipients: Vec<Rcpt>,
    /// A recipient was named and refused.
    refused: bool,
}

struct Session<'f, S> {
    stream: S,
    filter: &'f Filter,
    origin: Origin,
    shutdown: Shutdown,
    log_id: String,
    snapshot: Arc<Snapshot>,
    relay: Relay,
    input: BytesMut,
    output: Vec<u8>,
    lines: LineReader,
    greeting: Greeting,
    helo: String,
    forwarded: Forwarded,
    transaction: Option<Transaction>,
    transactions: u64,
    bad_commands: u32,
}

/// Whether the session goes on.
type Flow = std::ops::ControlFlow<()>;
const ON: Flow = Flow::Continue(());
const END: Flow = Flow::Break(());

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run(&mut self) -> io::Result<()> {
        let product = &self.snapshot.settings.myproduct_name;
        let greeting = format!("{} ESMTP {product} service ready", self.literal());
        self.say(Reply::bare(220, greeting));
        loop {
            while let Some(line) = self.lines.next(&mut self.input) {
                if self.line(line).await?.is_break() {
                    return self.flush().await;
                }
            }
            self.flush().await?;
            let timeout = self.snapshot.settings.smtpd_timeout.duration();
            self.input.reserve(READ_SIZE);
            let read = tokio::select! {
                biased;
                () = self.shutdown.wait() => None,
                read = tokio::time::timeout(timeout, self.stream.read_buf(&mut self.input)) => Some(read),
            };
            match read {
                None => return self.dismiss("closing").await,
                Some(Err(_)) => return self.dismiss("timeout exceeded").await,
                Some(Ok(Err(error))) => return Err(error),
                Some(Ok(Ok(0))) => return Ok(()),
                Some(Ok(Ok(_))) => {}
            }
        }
    }

    /// `421`, flush, end.
    async fn dismiss(&mut self, reason: &str) -> io::Result<()> {
        self.say(Reply::new(421, (4, 3, 2), format!("Service shutting down, {reason}")));
        self.flush().await
    }

    fn say(&mut self, reply: Reply) {
        reply.write(&mut self.output);
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let timeout = self.snapshot.settings.smtpd_timeout.duration();
        let write = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(timeout, write).await.map_err(timed_out)??;
        self.output.clear();
        Ok(())
    }

    /// Our own address literal.
    fn literal(&self) -> String {
        match self.origin.local {
            Some((IpAddr::V6(ip), _)) => format!("[IPv6:{ip}]"),
            Some((ip, _)) => format!("[{ip}]"),
            None => "[127.0.0.1]".to_owned(),
        }
    }

    async fn line(&mut self, line: Line) -> io::Result<Flow> {
        let split = match &line {
            Line::Complete(line) => command::split(line),
            Line::BareNewline | Line::TooLong => Err(command::bad_syntax()),
        };
        match split {
            Ok((Verb::Data, [])) => self.data().await,
            Ok((verb, arguments)) => {
                let reply = self.command(verb, arguments);
                let end = verb == Verb::Quit && reply.code == 221;
                self.say(reply);
                Ok(if end { END } else { ON })
            }
            Err(reply) => {
                self.say(reply);
                self.bad_commands += 1;
                if self.bad_commands < MAX_BAD_COMMANDS {
                    return Ok(ON);
                }
                self.dismiss("too many errors").await?;
                Ok(END)
            }
        }
    }

    fn command(&mut self, verb: Verb, arguments: &[u8]) -> Reply {
        let no_arguments =
            |name: &str| Reply::new(501, (5, 5, 4), format!("Error: {name} does not accept arguments"));
        match verb {
            Verb::Helo | Verb::Ehlo | Verb::Lhlo => self.hello(verb, arguments),
            Verb::Mail => self.mail(arguments),
            Verb::Rcpt => self.rcpt(arguments),
            Verb::Xforward if self.transaction.is_some() => {
                Reply::new(503, (5, 5, 1), "Error: XFORWARD not allowed within transaction")
            }
            Verb::Xforward => match self.forwarded.apply(arguments) {
                Ok(()) => Reply::new(250, (2, 5, 0), "Ok XFORWARD"),
                Err(reply) => reply,
            },
            Verb::Rset if !arguments.is_empty() => no_arguments("RSET"),
            Verb::Rset => {
                self.forget();
                Reply::new(250, (2, 0, 0), "Ok RSET")
            }
            Verb::Quit if !arguments.is_empty() => no_arguments("QUIT"),
            Verb::Quit => {
                let product = &self.snapshot.settings.myproduct_name;
                Reply::new(
                    221,
                    (2, 0, 0),
                    format!("{} {product} closing transmission channel", self.literal()),
                )
            }
            Verb::Data => no_arguments("DATA"),
            Verb::Noop => Reply::new(250, (2, 0, 0), "Ok NOOP"),
            Verb::Vrfy if arguments.is_empty() => Reply::new(501, (5, 5, 2), "Syntax: VRFY address"),
            Verb::Vrfy => Reply::new(252, (2, 0, 0), "Argument not checked"),
            Verb::Help => Reply::new(
                214,
                (2, 0, 0),
                "Commands: EHLO HELO LHLO XFORWARD MAIL RCPT DATA RSET NOOP\nVRFY HELP QUIT",
            ),
        }
    }

    fn hello(&mut self, verb: Verb, arguments: &[u8]) -> Reply {
        self.forget();
        self.snapshot = self.filter.snapshot();
        self.helo = String::from_utf8_lossy(arguments).into_owned();
        self.greeting = match verb {
            Verb::Helo => Greeting::Helo,
            Verb::Lhlo => Greeting::Lhlo,
            _ => Greeting::Ehlo,
        };
        let mut text = self.literal();
        if self.greeting == Greeting::Helo {
            return Reply::bare(250, text);
        }
        let limit = self.snapshot.settings.smtpd_message_size_limit.0;
        let size = if limit == 0 { "SIZE".to_owned() } else { format!("SIZE {limit}") };
        let bank = self.snapshot.bank(self.origin.role);
        for keyword in [
            "VRFY",
            "PIPELINING",
            &size,
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
        ] {
            let name = keyword.split(' ').next().unwrap_or_default();
            if bank.announces(name) {
                text.push('\n');
                text.push_str(keyword);
            }
        }
        Reply::bare(250, text)
    }

    /// State after RSET, a greeting and each message: nothing of the last transaction is left.
    fn forget(&mut self) {
        self.transaction = None;
        self.forwarded = Forwarded::default();
    }

    fn mail(&mut self, arguments: &[u8]) -> Reply {
        if self.transaction.is_some() {
            return Reply::new(503, (5, 5, 1), "Error: nested MAIL command");
        }
        let mail = match Mail::parse(arguments) {
            Ok(mail) => mail,
            Err(reply) => return reply,
        };
        self.snapshot = self.filter.snapshot();
        let limit = self.snapshot.settings.smtpd_message_size_limit.0;
        if let Some(size) = mail.size.filter(|size| limit > 0 && *size > limit) {
            return Reply::new(
                552,
                (5, 3, 4),
                format!("Declared message size ({size} B) exceeds size limit"),
            );
        }
        let bank = self.snapshot.bank(self.origin.role).clone();
        let bank = bank.for_client(&self.snapshot.settings, self.forwarded.address());
        let reply = Reply::new(250, (2, 1, 0), format!("Sender <{}> OK", echo(&mail.path.received)));
        self.transaction = Some(Transaction { bank, mail, recipients: Vec::new(), refused: false });
        reply
    }

    fn rcpt(&mut self, arguments: &[u8]) -> Reply {
        let limit = self.snapshot.settings.smtpd_recipient_limit;
        let Some(transaction) = &mut self.transaction else {
            return Reply::new(503, (5, 5, 1), "Need MAIL command before RCPT");
        };
        if transaction.recipients.len() >= limit {
            return Reply::new(452, (4, 5, 3), "Too many recipients");
        }
        match Rcpt::parse(arguments) {
            Ok(recipient) => {
                let text = format!("Recipient <{}> OK", echo(&recipient.path.received));
                transaction.recipients.push(recipient);
                Reply::new(250, (2, 1, 5), text)
            }
            Err(reply) => {
                transaction.refused = true;
                reply
            }
        }
    }

    /// DATA without arguments: the reply, the message, the verdict.
    async fn data(&mut self) -> io::Result<Flow> {
        let lmtp = self.greeting == Greeting::Lhlo;
        let refusal = match &self.transaction {
            None => Some(Reply::new(503, (5, 5, 1), "Need MAIL command before DATA")),
            Some(transaction) if !transaction.recipients.is_empty() => None,
            Some(transaction) if transaction.refused => {
                let code = if lmtp { 503 } else { 554 };
                Some(Reply::new(code, (5, 1, 1), "Error (DATA): no valid recipients"))
            }
            Some(_) => Some(Reply::new(503, (5, 5, 1), "Need RCPT command before DATA")),
        };
        if let Some(refusal) = refusal {
            self.say(refusal);
            return Ok(ON);
        }
        let Some(transaction) = self.transaction.take() else { return Ok(ON) };
        self.transactions += 1;
        self.say(Reply::bare(354, "End data with <CR><LF>.<CR><LF>"));
        self.flush().await?;
        let recipients = transaction.recipients.len();
        let replies = match self.receive().await? {
            Some(arriving) => self.verdict(transaction, arriving).await?,
            None => {
                self.dismiss("timeout exceeded").await?;
                return Ok(END);
            }
        };
        // LMTP wants one reply for each recipient, also when the message was refused as a whole.
        let copies = if lmtp && replies.len() == 1 { recipients } else { 1 };
        for _ in 0..copies {
            replies.iter().for_each(|reply| reply.write(&mut self.output));
        }
        self.forget();
        Ok(ON)
    }

    /// Reads the message up to the final dot; `None` when the client falls silent or is far too slow.
    async fn receive(&mut self) -> io::Result<Option<Arriving>> {
        let limit = self.snapshot.settings.smtpd_message_size_limit.0;
        let limit = if limit == 0 { u64::MAX } else { limit };
        let timeout = self.snapshot.settings.smtpd_timeout.duration();
        let mut arriving = Arriving::new(self.filter.folder.clone(), limit);
        let begun = Instant::now();
        loop {
            if !self.input.is_empty() {
                let progress = arriving.push(&self.input).await;
                self.input.advance(progress.consumed);
                if progress.finished {
                    return Ok(Some(arriving));
                }
            }
            let late = begun.elapsed().saturating_sub(timeout).as_secs();
            if arriving.size() < late.saturating_mul(MIN_DATA_RATE) {
                return Ok(None);
            }
            self.input.reserve(READ_SIZE);
            match tokio::time::timeout(timeout, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The replies to the final dot. The error means that the client is gone.
    async fn verdict(&mut self, transaction: Transaction, arriving: Arriving) -> io::Result<Vec<Reply>> {
        let log_id = identity::log_id(&self.log_id, self.transactions);
        let settings = self.snapshot.settings.clone();
        let limit = settings.smtpd_message_size_limit.0;
        let size = arriving.size();
        if limit > 0 && size > limit {
            return Ok(vec![Reply::new(
                552,
                (5, 3, 4),
                format!("Message size ({size} B) exceeds size limit"),
            )]);
        }
        let message = match arriving.finish().await {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(event = "message not stored", id = log_id.as_str(), reason = %error);
                return Ok(vec![outcome::processing_failed("store", &error.to_string(), &log_id)]);
            }
        };
        if message.traits().long_line {
            return Ok(vec![Reply::new(552, (5, 3, 4), "Message line too long")]);
        }
        if message.traits().bare_lf && settings.bare_newline == BareNewline::Reject {
            return Ok(vec![Reply::new(550, (5, 5, 2), "Error: bare <LF> received")]);
        }
        let incoming = Incoming {
            snapshot: self.snapshot.clone(),
            bank: transaction.bank,
            client: self.client(transaction.mail.smtputf8),
            mail: transaction.mail,
            recipients: transaction.recipients,
            log_id,
            arrived: self.filter.clock.unix_seconds(),
            started: Instant::now(),
            message,
        };
        self.work(&incoming).await
    }

    /// Processes a message while an eye is kept on the client: when it goes away before the mail has been handed on,
    /// nothing is handed on; afterwards the work is finished, for the log and for the next hop.
    async fn work(&mut self, incoming: &Incoming) -> io::Result<Vec<Reply>> {
        let committed = AtomicBool::new(false);
        let commit = || committed.store(true, Ordering::SeqCst);
        let work = AssertUnwindSafe(process::process(self.filter, &mut self.relay, incoming, &commit))
            .catch_unwind();
        tokio::pin!(work);
        let result = tokio::select! {
            // A fixed order, so that simulations can be repeated.
            biased;
            result = &mut work => result,
            gone = watch(&mut self.stream, &mut self.input) => {
                if !committed.load(Ordering::SeqCst) {
                    tracing::info!(event = "client gone", id = incoming.log_id.as_str());
                    return Err(gone);
                }
                // Nobody hears the reply, so the error stays.
                let _ = work.await;
                return Err(gone);
            }
        };
        Ok(result.unwrap_or_else(|_| {
            self.filter.counters.metrics.panic();
            tracing::error!(
                event = "message failed",
                id = incoming.log_id.as_str(),
                reason = "program fault"
            );
            vec![outcome::processing_failed("process", "internal error", &incoming.log_id)]
        }))
    }

    fn client(&self, utf8: bool) -> Client {
        Client {
            helo: self.helo.clone(),
            protocol: match (self.greeting, utf8) {
                (Greeting::Lhlo, false) => "LMTP",
                (Greeting::Lhlo, true) => "UTF8LMTP",
                (Greeting::Ehlo, false) => "ESMTP",
                (Greeting::Ehlo, true) => "UTF8SMTP",
                (Greeting::Helo | Greeting::None, _) => "SMTP",
            },
            lmtp: self.greeting == Greeting::Lhlo,
            peer: self.origin.peer,
            local: self.origin.local,
            forwarded: self.forwarded.clone(),
        }
    }
}

/// Returns when the client has gone; what it pipelined meanwhile is kept, up to a bound.
async fn watch<S: AsyncRead + Unpin>(stream: &mut S, input: &mut BytesMut) -> io::Error {
    while input.len() < READ_SIZE {
        input.reserve(READ_SIZE);
        match stream.read_buf(input).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// An address for a reply: octets that are not UTF-8 are replaced.
fn echo(received: &[u8]) -> String {
    String::from_utf8_lossy(received).into_owned()
}
