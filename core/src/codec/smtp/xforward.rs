//! XFORWARD: how Postfix tells a filter who the first client was, and how the filter tells the next Postfix.
//!
//! `XFORWARD NAME=mail.example.com ADDR=192.0.2.1 PROTO=ESMTP ...`; values are xtext, `[UNAVAILABLE]` says that
//! there is none (Postfix, XFORWARD_README).

use super::reply::Reply;
use super::xtext;
use std::net::IpAddr;

/// Longest decoded value accepted, as Postfix bounds it.
const MAX_VALUE: usize = 255;

/// An attribute of the first client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// Host name of the client.
    Name,
    /// Network address of the client.
    Addr,
    /// Its port.
    Port,
    /// The protocol it spoke: SMTP or ESMTP.
    Proto,
    /// What it said in HELO.
    Helo,
    /// Queue id at the sending MTA.
    Ident,
    /// LOCAL or REMOTE.
    Source,
}

impl Attribute {
    /// All attributes, in the order in which the EHLO reply lists them.
    pub const ALL: [Attribute; 7] = [
        Attribute::Name,
        Attribute::Addr,
        Attribute::Port,
        Attribute::Proto,
        Attribute::Helo,
        Attribute::Ident,
        Attribute::Source,
    ];

    /// The name on the wire, in upper case.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Name => "NAME",
            Attribute::Addr => "ADDR",
            Attribute::Port => "PORT",
            Attribute::Proto => "PROTO",
            Attribute::Helo => "HELO",
            Attribute::Ident => "IDENT",
            Attribute::Source => "SOURCE",
        }
    }

    /// Reads a name, in any case.
    pub fn parse(name: &[u8]) -> Option<Attribute> {
        Attribute::ALL.into_iter().find(|attribute| name.eq_ignore_ascii_case(attribute.name().as_bytes()))
    }
}

/// What is known of the first client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    values: [Option<Vec<u8>>; Attribute::ALL.len()],
    helo_named: bool,
}

impl Forwarded {
    /// The decoded value, if the client gave one.
    pub fn get(&self, attribute: Attribute) -> Option<&[u8]> {
        self.values[attribute as usize].as_deref()
    }

    /// The decoded value as text, octets that are not UTF-8 replaced.
    pub fn text(&self, attribute: Attribute) -> Option<String> {
        self.get(attribute).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The address of the first client.
    pub fn address(&self) -> Option<IpAddr> {
        std::str::from_utf8(self.get(Attribute::Addr)?).ok()?.parse().ok()
    }

    /// True when HELO was named at all, be it as `[UNAVAILABLE]`.
    pub fn helo_named(&self) -> bool {
        self.helo_named
    }

    /// Sets a value as if the client had sent it.
    pub fn set(&mut self, attribute: Attribute, value: Option<Vec<u8>>) {
        self.values[attribute as usize] = value;
    }

    /// Takes over the arguments of one XFORWARD command, all of them or none.
    ///
    /// The error is the reply to give: 501 for a malformed argument, an unknown attribute, or a value that cannot
    /// be what it claims (an ADDR that is no address, octets that would break a line).
    pub fn apply(&mut self, arguments: &[u8]) -> Result<(), Reply> {
        let mut updated = self.clone();
        let mut any = false;
        for argument in arguments.split(u8::is_ascii_whitespace).filter(|argument| !argument.is_empty()) {
            updated.apply_one(argument)?;
            any = true;
        }
        if !any {
            return Err(syntax_error());
        }
        *self = updated;
        Ok(())
    }

    fn apply_one(&mut self, argument: &[u8]) -> Result<(), Reply> {
        let equals = memchr::memchr(b'=', argument).ok_or_else(syntax_error)?;
        let refused = || {
            let shown = String::from_utf8_lossy(argument);
            Reply::new(501, (5, 5, 4), format!("XFORWARD command parameter error: {shown}"))
        };
        let attribute = Attribute::parse(&argument[..equals]).ok_or_else(refused)?;
        self.helo_named |= attribute == Attribute::Helo;
        let value = xtext::decode(&argument[equals + 1..]).ok_or_else(syntax_error)?;
        if value.eq_ignore_ascii_case(b"[UNAVAILABLE]") || value.is_empty() {
            self.set(attribute, None);
            return Ok(());
        }
        let value = accept(attribute, value).ok_or_else(refused)?;
        self.set(attribute, Some(value));
        Ok(())
    }

    /// The XFORWARD command lines for a next hop that announced `known`, each at most 512 octets long. Empty when
    /// there is nothing to tell.
    pub fn commands(&self, known: &[Attribute]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for attribute in Attribute::ALL.into_iter().filter(|attribute| known.contains(attribute)) {
            let Some(value) = self.get(attribute) else { continue };
            let mut text = xtext::encode(value);
            if attribute == Attribute::Addr && text.contains(':') {
                text = format!("IPV6:{text}");
            }
            let argument = format!(" {}={text}", attribute.name());
            match lines.last_mut() {
                Some(line) if line.len() + argument.len() <= 510 => line.push_str(&argument),
                _ => lines.push(format!("XFORWARD{argument}")),
            }
        }
        lines
    }
}

/// Checks a decoded value and brings it into the form we keep.
fn accept(attribute: Attribute, value: Vec<u8>) -> Option<Vec<u8>> {
    if value.len() > MAX_VALUE || value.iter().any(|octet| *octet < 0x20 || *octet == 0x7f) {
        return None;
    }
    match attribute {
        Attribute::Addr => {
            let prefixed = value.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"IPv6:"));
            let text = std::str::from_utf8(if prefixed { &value[5..] } else { &value }).ok()?;
            Some(text.parse::<IpAddr>().ok()?.to_string().into_bytes())
        }
        Attribute::Port => {
            let port: u16 = std::str::from_utf8(&value).ok()?.parse().ok()?;
            Some(port.to_string().into_bytes())
        }
        Attribute::Source => {
            (value.eq_ignore_ascii_case(b"LOCAL") || value.eq_ignore_ascii_case(b"REMOTE")).then_some(value)
        }
        _ => Some(value),
    }
}

fn syntax_error() -> Reply {
    Reply::new(501, (5, 5, 4), "Syntax error in XFORWARD parameters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(arguments: &str) -> Result<Forwarded, String> {
        let mut forwarded = Forwarded::default();
        forwarded.apply(arguments.as_bytes()).map(|()| forwarded).map_err(|reply| reply.to_string())
    }

    #[test]
    fn accepted() {
        let table: [(&str, Attribute, Option<&str>); 10] = [
            ("ADDR=192.0.2.1 PORT=[UNAVAILABLE]", Attribute::Addr, Some("192.0.2.1")),
            ("ADDR=192.0.2.1 PORT=[UNAVAILABLE]", Attribute::Port, None),
            ("name=xx.test", Attribute::Name, Some("xx.test")),
            ("ADDR=IPv6:2001:DB8::1", Attribute::Addr, Some("2001:db8::1")),
            ("ADDR=2001:db8::1", Attribute::Addr, Some("2001:db8::1")),
            ("ADDR=[UNAVAILABLE]", Attribute::Addr, None),
            ("HELO=a+20b", Attribute::Helo, Some("a b")),
            ("PORT=40022", Attribute::Port, Some("40022")),
            ("SOURCE=LOCAL", Attribute::Source, Some("LOCAL")),
            ("IDENT=4XQx6b1Hk2z9sk  PROTO=ESMTP", Attribute::Proto, Some("ESMTP")),
        ];
        for (arguments, attribute, expected) in table {
            let forwarded = apply(arguments).unwrap_or_else(|reply| panic!("{arguments}: {reply}"));
            assert_eq!(forwarded.text(attribute).as_deref(), expected, "{arguments}");
        }
    }

    #[test]
    fn threat_t07_refused() {
        let syntax = "501 5.5.4 Syntax error in XFORWARD parameters".to_owned();
        let parameter = |shown: &str| format!("501 5.5.4 XFORWARD command parameter error: {shown}");
        let table = [
            ("", syntax.clone()),
            ("ADDR", syntax.clone()),
            ("HELO=a+0", syntax),
            ("FOO=bar", parameter("FOO=bar")),
            ("ADDR=999.1.1.1", parameter("ADDR=999.1.1.1")),
            ("ADDR=IPV6:zz", parameter("ADDR=IPV6:zz")),
            ("PORT=65536", parameter("PORT=65536")),
            ("SOURCE=ELSEWHERE", parameter("SOURCE=ELSEWHERE")),
            ("HELO=a+0D+0ANOOP", parameter("HELO=a+0D+0ANOOP")),
        ];
        for (arguments, expected) in table {
            assert_eq!(apply(arguments), Err(expected), "{arguments}");
        }
    }

    #[test]
    fn a_refused_command_changes_nothing() {
        let mut forwarded = apply("ADDR=192.0.2.1").expect("accepted");
        forwarded.apply(b"ADDR=192.0.2.2 FOO=1").expect_err("refused");
        assert_eq!(forwarded.text(Attribute::Addr).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn passes_on_what_the_next_hop_knows() {
        let forwarded = apply("NAME=a+20b ADDR=2001:db8::1 SOURCE=REMOTE IDENT=4X").expect("accepted");
        assert_eq!(
            forwarded.commands(&Attribute::ALL),
            ["XFORWARD NAME=a+20b ADDR=IPV6:2001:db8::1 IDENT=4X SOURCE=REMOTE"]
        );
        assert_eq!(forwarded.commands(&[Attribute::Name]), ["XFORWARD NAME=a+20b"]);
        assert!(forwarded.commands(&[]).is_empty());
        let long = "x".repeat(255);
        let forwarded = apply(&format!("NAME={long} HELO={long} IDENT={long}")).expect("accepted");
        let lines = forwarded.commands(&Attribute::ALL);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= 510));
    }
}
