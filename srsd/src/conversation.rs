//! What is said on one connection, without the connection: bytes received in, bytes to send out.
//!
//! Both protocols come to the same port. The first byte decides: a netstring begins with a digit, a
//! tcp_table request with a letter; neither client waits for a greeting. With tcp_table the port
//! says the direction, with socketmap the name of the map.
//!
//! Every line and every frame gets an answer, as an unanswered one would hold a process of Postfix for 100 s.
//! What cannot be understood ends the connection: a line beyond 4096 bytes, a frame that is no netstring
//! or announces more than 100 000 bytes, and the beginning of a first line that belongs to neither protocol.

use crate::texts;
use bytes::{Bytes, BytesMut};
use outrider_core::codec::socketmap;
use outrider_core::codec::tcp_table::{self, Problem};
use outrider_core::forwarding::{Forward, Left, Reverse};
use std::future::Future;

/// Which way addresses are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Envelope senders into SRS addresses.
    Forward,
    /// SRS addresses into the original senders.
    Reverse,
}

/// Answers look-ups.
pub(crate) trait Lookup: Sync {
    /// Decides about a sender.
    fn forward(&self, key: &str) -> impl Future<Output = Forward> + Send;
    /// Gives back the original of an SRS address.
    fn reverse(&self, key: &str) -> impl Future<Output = Reverse> + Send;
    /// Whether undecided look-ups are temporary errors instead of "not found".
    fn defers(&self) -> bool;
}

/// What to do with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Send what there is to send and read on.
    Continue,
    /// Send what there is to send and close.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Undetermined,
    TcpTable,
    Socketmap,
}

/// Keys above this length are refused, as by PostSRSd 2; RFC 5321 has 254.
const MAX_KEY: usize = 512;
/// Octets of a map's name and a key; more ends the connection, as with PostSRSd 2, which takes 1023 with the blank.
const MAX_QUERY: usize = 1022;
/// `get` is the longest command; what has no blank after so many letters is no command.
const MAX_COMMAND: usize = 16;

/// One connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    direction: Direction,
    wire: Wire,
    served: bool,
}

impl Conversation {
    /// A connection to the port of `direction`.
    pub(crate) fn new(direction: Direction) -> Self {
        Conversation { direction, wire: Wire::Undetermined, served: false }
    }

    /// Answers all complete requests in `buffer`, which keeps the rest.
    pub(crate) async fn feed(
        &mut self,
        buffer: &mut BytesMut,
        out: &mut BytesMut,
        lookup: &impl Lookup,
    ) -> Flow {
        if self.wire == Wire::Undetermined {
            match buffer.first() {
                None => return Flow::Continue,
                Some(b'0'..=b'9') => self.wire = Wire::Socketmap,
                Some(_) => self.wire = Wire::TcpTable,
            }
        }
        match self.wire {
            Wire::Socketmap => socketmap_queries(buffer, out, lookup).await,
            _ => self.tcp_table(buffer, out, lookup).await,
        }
    }

    async fn tcp_table(&mut self, buffer: &mut BytesMut, out: &mut BytesMut, lookup: &impl Lookup) -> Flow {
        if !self.served && !buffer.contains(&b'\n') && !may_be_command(buffer) {
            return Flow::Close;
        }
        loop {
            let request = match tcp_table::decode(buffer) {
                Ok(Some(request)) => request,
                Ok(None) => return Flow::Continue,
                Err(_) => {
                    tcp_table::encode(&tcp_table::Reply::NotFound("Request too long.".into()), out);
                    return Flow::Close;
                }
            };
            self.served = true;
            let reply = match request {
                tcp_table::Request::Get(key) => self.get(&key, lookup).await,
                tcp_table::Request::Malformed { line, problem } => {
                    tcp_table::Reply::NotFound(match problem {
                        Problem::Empty => "Empty request.".into(),
                        Problem::BadEncoding => "Invalid encoding of the key.".into(),
                        Problem::UnknownCommand => {
                            format!("Unexpected input: {}", String::from_utf8_lossy(&line))
                        }
                    })
                }
            };
            tcp_table::encode(&reply, out);
        }
    }

    async fn get(&self, key: &[u8], lookup: &impl Lookup) -> tcp_table::Reply {
        use tcp_table::Reply;
        // iRedAPD says nothing when it cannot tell.
        let undecided = || match lookup.defers() {
            true => Reply::Temporary(UNDECIDED.into()),
            false => Reply::NotFound(String::new()),
        };
        let Ok(key) = std::str::from_utf8(key) else {
            return Reply::NotFound(texts::left_as_iredapd(Left::Unsuitable).into());
        };
        match self.direction {
            Direction::Forward => match lookup.forward(key).await {
                Forward::Rewritten(address) => Reply::Found(address.into_bytes()),
                Forward::Left(left) => Reply::NotFound(texts::left_as_iredapd(left).into()),
                Forward::Undecided => undecided(),
                Forward::Unkept => Reply::Temporary(texts::DATABASE_ERROR.into()),
            },
            Direction::Reverse => match lookup.reverse(key).await {
                Reverse::Original(original) => Reply::Found(original.address.into_bytes()),
                Reverse::Left(error) => Reply::NotFound(texts::unreversed_as_iredapd(key, error).into()),
                Reverse::UnknownToken => Reply::NotFound(texts::UNKNOWN_TOKEN.into()),
                Reverse::NoDatabase => Reply::Temporary(texts::NO_DATABASE.into()),
                Reverse::Unreadable => Reply::Temporary(texts::DATABASE_ERROR.into()),
                Reverse::Undecided => undecided(),
            },
        }
    }
}

async fn socketmap_queries(buffer: &mut BytesMut, out: &mut BytesMut, lookup: &impl Lookup) -> Flow {
    let invalid = || socketmap::Reply::Perm("Invalid query.".into());
    loop {
        let (reply, flow) = match socketmap::decode(buffer) {
            Ok(None) => return Flow::Continue,
            Ok(Some(query)) if !(1..=MAX_QUERY).contains(&(query.map.len() + query.key.len())) => {
                (invalid(), Flow::Close)
            }
            Ok(Some(query)) => (query_map(&query.map, &query.key, lookup).await, Flow::Continue),
            Err(_) => (invalid(), Flow::Close),
        };
        socketmap::encode(&reply, out);
        if flow == Flow::Close {
            return flow;
        }
    }
}

/// Why there is no answer, for the log of Postfix.
const UNDECIDED: &str = "Local domains could not be read.";

async fn query_map(map: &Bytes, key: &Bytes, lookup: &impl Lookup) -> socketmap::Reply {
    use socketmap::Reply;
    let undecided = || match lookup.defers() {
        true => Reply::Temp(UNDECIDED.into()),
        false => Reply::NotFound(UNDECIDED.into()),
    };
    let direction = match &map[..] {
        b"forward" => Direction::Forward,
        b"reverse" => Direction::Reverse,
        _ => return Reply::Perm("Invalid map.".into()),
    };
    if key.len() > MAX_KEY {
        return Reply::Perm("Too big.".into());
    }
    let Ok(key) = std::str::from_utf8(key) else {
        return Reply::NotFound(texts::left_as_postsrsd(Left::Unsuitable).into());
    };
    match direction {
        Direction::Forward => match lookup.forward(key).await {
            Forward::Rewritten(address) => Reply::Ok(address.into_bytes()),
            Forward::Left(left) => Reply::NotFound(texts::left_as_postsrsd(left).into()),
            Forward::Undecided => undecided(),
            // To Postfix each of these is a failed look-up, after which the mail is tried again.
            Forward::Unkept => Reply::Perm(texts::DATABASE_ERROR.into()),
        },
        Direction::Reverse => match lookup.reverse(key).await {
            Reverse::Original(original) => Reply::Ok(original.address.into_bytes()),
            Reverse::Left(error) => Reply::NotFound(error.to_string()),
            Reverse::UnknownToken => Reply::NotFound(texts::UNKNOWN_TOKEN.into()),
            Reverse::NoDatabase => Reply::Perm(texts::NO_DATABASE.into()),
            Reverse::Unreadable => Reply::Perm(texts::DATABASE_ERROR.into()),
            Reverse::Undecided => undecided(),
        },
    }
}

/// Whether an unfinished first line begins with a command word. Whoever begins differently (TLS, HTTP/2, a netstring
/// gone wrong) may never finish it and wait for something that we would never send.
fn may_be_command(received: &[u8]) -> bool {
    let word = received.split(|b| matches!(b, b' ' | b'\r')).next().unwrap_or_default();
    word.len() <= MAX_COMMAND && word.iter().all(u8::is_ascii_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::srs::{ReverseError, Reversed};

    /// Rewrites everything, `x@local` excepted; undecided about `?`.
    struct Fake {
        defers: bool,
    }

    impl Lookup for Fake {
        async fn forward(&self, key: &str) -> Forward {
            match key {
                "?" => Forward::Undecided,
                "!" => Forward::Unkept,
                "" => Forward::Left(Left::NoDomain),
                "x@local" => Forward::Left(Left::LocalDomain),
                key => Forward::Rewritten(format!("f({key})")),
            }
        }

        async fn reverse(&self, key: &str) -> Reverse {
            match key {
                "?" => Reverse::Undecided,
                "unknown@1" => Reverse::UnknownToken,
                "none@1" => Reverse::NoDatabase,
                "down@1" => Reverse::Unreadable,
                "SRS0=h=t=h=bad@x.y" => Reverse::Left(ReverseError::HashInvalid),
                "x@x.y" => Reverse::Left(ReverseError::NotSrs),
                key => Reverse::Original(Reversed { address: format!("r({key})"), srs1: false }),
            }
        }

        fn defers(&self) -> bool {
            self.defers
        }
    }

    /// Feeds the pieces; returns everything sent and whether the connection is to be closed.
    fn talk(direction: Direction, pieces: &[&[u8]], defers: bool) -> (String, Flow) {
        // Nothing here waits.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut conversation = Conversation::new(direction);
        let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            let lookup = Fake { defers };
            if runtime.block_on(conversation.feed(&mut buffer, &mut out, &lookup)) == Flow::Close {
                return (String::from_utf8_lossy(&out).into_owned(), Flow::Close);
            }
        }
        (String::from_utf8_lossy(&out).into_owned(), Flow::Continue)
    }

    #[test]
    fn conversations() {
        use Direction::*;
        use Flow::*;
        let long = [b"get ".as_slice(), &[b'a'; 5000], b"\n"].concat();
        let big = format!("518:forward {},", "a".repeat(510));
        let bigger = format!("521:forward {},3:x y,", "a".repeat(513));
        let longest = format!("1023:forward {},", "a".repeat(1015));
        let too_long = format!("1024:forward {},", "a".repeat(1016));
        let table: &[(Direction, &[u8], &str, Flow)] = &[
            (Forward, b"get a%25@b\n", "200 f(a%25@b)\n", Continue),
            (Reverse, b"get a@b\n", "200 r(a@b)\n", Continue),
            (Forward, b"get x@local\r\n", "500 Domain is a local mail domain, bypassed.\n", Continue),
            (Forward, b"get ?\n", "500 \n", Continue),
            (Forward, b"get \n", "500 Not a valid email address, bypassed.\n", Continue),
            (Forward, b"get \xFF\xFE@b\n", "500 Not a valid email address, bypassed.\n", Continue),
            (Reverse, b"get SRS0=h=t=h=bad@x.y\n", "500 \n", Continue),
            (Reverse, b"get x@x.y\n", "500 Not a valid SRS address, bypassed.\n", Continue),
            (Forward, b"get !\n", "400 Database error.\n", Continue),
            (Reverse, b"get unknown@1\n", "500 Unknown alias.\n", Continue),
            (Reverse, b"get none@1\n", "400 No database for alias.\n", Continue),
            (Reverse, b"get down@1\n", "400 Database error.\n", Continue),
            (Forward, b"9:forward !,", "20:PERM Database error.,", Continue),
            (Forward, b"17:reverse unknown@1,", "23:NOTFOUND Unknown alias.,", Continue),
            (Forward, b"14:reverse none@1,", "27:PERM No database for alias.,", Continue),
            (Forward, b"14:reverse down@1,", "20:PERM Database error.,", Continue),
            (Forward, b"\n", "500 Empty request.\n", Continue),
            (Forward, b"put a b\nget a\n", "500 Unexpected input: put a b\n200 f(a)\n", Continue),
            (Forward, b"get %zz\nget a\n", "500 Invalid encoding of the key.\n200 f(a)\n", Continue),
            (Forward, &long, "500 Request too long.\n", Close),
            (Forward, b"x22:forward user@gmail.com,", "", Close),
            (Forward, b"\x16\x03\x01", "", Close),
            (Forward, b"", "", Continue),
            (Forward, b"get a\n\x16", "200 f(a)\n", Continue),
            (Forward, b"11:forward a@b,11:reverse a@b,", "9:OK f(a@b),9:OK r(a@b),", Continue),
            (Reverse, b"11:forward a@b,", "9:OK f(a@b),", Continue),
            (Forward, b"11:FORWARD a@b,1:x,", "17:PERM Invalid map.,17:PERM Invalid map.,", Continue),
            (Forward, b"7:forward,", "19:NOTFOUND No domain.,", Continue),
            (Forward, b"9:forward ?,", "41:NOTFOUND Local domains could not be read.,", Continue),
            (Forward, b"0:,11:forward a@b,", "19:PERM Invalid query.,", Close),
            (Forward, b"11:forward a@b;", "19:PERM Invalid query.,", Close),
            (Forward, b"100001:", "19:PERM Invalid query.,", Close),
            (
                Forward,
                b"26:reverse SRS0=h=t=h=bad@x.y,",
                "37:NOTFOUND Hash invalid in SRS address.,",
                Continue,
            ),
            (Forward, bigger.as_bytes(), "13:PERM Too big.,17:PERM Invalid map.,", Continue),
            (Forward, longest.as_bytes(), "13:PERM Too big.,", Continue),
            (Forward, too_long.as_bytes(), "19:PERM Invalid query.,", Close),
            (Forward, b"9:forward \xFF,", "34:NOTFOUND Not a rewritable address.,", Continue),
        ];
        for (direction, input, expected, flow) in table {
            let expected = (expected.to_string(), *flow);
            assert_eq!(talk(*direction, &[input], false), expected, "{}", String::from_utf8_lossy(input));
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(talk(*direction, &bytes, false), expected, "byte by byte");
        }
        assert!(talk(Forward, &[big.as_bytes()], false).0.contains("OK f(aaa"));
    }

    #[test]
    fn a_complete_first_line_is_answered_whatever_it_is() {
        let table: &[(&[u8], &str)] = &[
            (b"foo@bar.com\n", "500 Unexpected input: foo@bar.com\n"),
            (b"x22:forward user@gmail.com,\n", "500 Unexpected input: x22:forward user@gmail.com,\n"),
            (b"\xFF\n", "500 Unexpected input: %ef%bf%bd\n"),
            (b"get\0x\n", "500 Unexpected input: get%00x\n"),
        ];
        for (line, expected) in table {
            let input = [line, b"get a\n".as_slice()].concat();
            let expected = (format!("{expected}200 f(a)\n"), Flow::Continue);
            let shown = String::from_utf8_lossy(line);
            assert_eq!(talk(Direction::Forward, &[&input], false), expected, "{shown}");
            assert_eq!(talk(Direction::Forward, &[line, b"get a\n"], false), expected, "{shown}");
        }
    }

    #[test]
    fn undecided_look_ups_are_deferred_when_asked_for() {
        for (direction, name) in [(Direction::Forward, "forward"), (Direction::Reverse, "reverse")] {
            assert_eq!(talk(direction, &[b"get ?\n"], true).0, format!("400 {UNDECIDED}\n"));
            let query = format!("9:{name} ?,");
            assert_eq!(talk(direction, &[query.as_bytes()], true).0, format!("37:TEMP {UNDECIDED},"));
        }
    }
}
