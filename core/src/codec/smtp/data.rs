//! Message data between `DATA` and the dot, both directions.
//!
//! Receiving: the end is `CR LF . CR LF` and nothing else (RFC 5321 section 4.1.1.4); every look-alike is data.
//! A bare LF is data that becomes a line end (CR LF) in the stored text, a bare CR is kept, because a scanner has
//! to see what a lenient reader would see. One leading dot of each line is taken off, whatever follows it.
//!
//! Sending: [`Outgoing`] removes what may not travel on (a bare CR is dropped, NUL becomes the two octets C0 80 as
//! Amavisd writes it), then [`Stuffer`] puts the dots back. Signers hash what `Outgoing` produces, so that a
//! signature covers the octets that really leave.

/// Longest line of message data accepted, in octets. The standard says 998; Postfix passes longer ones.
pub const MAX_DATA_LINE: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    LineStart,
    /// After a dot that began a line. The dot is not stored.
    Dot,
    /// After a dot that began a line and a CR. Neither is stored yet.
    DotCr,
    /// Inside a line; the last octet was not CR.
    Text,
    /// Inside a line, after a CR that is stored already.
    TextCr,
}

/// What the message turned out to contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// A CR that no LF followed.
    pub bare_cr: bool,
    /// An LF that no CR preceded (already a full line end in the stored text).
    pub bare_lf: bool,
    /// A NUL octet.
    pub nul: bool,
    /// An octet above 127.
    pub eight_bit: bool,
    /// A line longer than [`MAX_DATA_LINE`].
    pub long_line: bool,
}

impl Traits {
    /// True when the stored text may not leave as it is and has to pass through [`Outgoing`].
    pub fn needs_cleaning(&self) -> bool {
        self.bare_cr || self.nul
    }
}

/// The receiving side: takes dots off, finds the end, notes what is unusual.
#[derive(Debug)]
pub struct Receiver {
    state: State,
    traits: Traits,
    /// Octets of the line that the stored text ends in.
    line: usize,
    /// CR octets stored less LF octets stored. Each stored LF follows a CR, so that more CR than LF means a bare one.
    surplus_cr: usize,
}

/// How far [`Receiver::push`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Octets of the input that belong to this message. Less than the input only when `finished`.
    pub consumed: usize,
    /// The final dot has been seen; the rest of the input is the next command.
    pub finished: bool,
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver { state: State::LineStart, traits: Traits::default(), line: 0, surplus_cr: 0 }
    }
}

impl Receiver {
    /// Takes the next piece of input and appends the message text in it to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let start = out.len();
        let mut at = 0;
        let mut finished = false;
        while at < input.len() && !finished {
            match self.state {
                State::LineStart if input[at] == b'.' => {
                    self.state = State::Dot;
                    at += 1;
                }
                State::Dot if input[at] == b'\r' => {
                    self.state = State::DotCr;
                    at += 1;
                }
                State::DotCr if input[at] == b'\n' => {
                    at += 1;
                    finished = true;
                }
                State::DotCr => {
                    out.push(b'\r');
                    self.state = State::TextCr;
                }
                _ => at = self.text(input, at, out),
            }
        }
        self.inspect(&out[start..]);
        Progress { consumed: at, finished }
    }

    /// What the message contains. Final once [`Progress::finished`] was true; before that a CR whose LF is still
    /// on the way counts as a bare one.
    pub fn traits(&self) -> Traits {
        Traits { bare_cr: self.surplus_cr > 0, ..self.traits }
    }

    /// Copies text up to a place where the next line may begin with a dot, or to the end of the input.
    fn text(&mut self, input: &[u8], from: usize, out: &mut Vec<u8>) -> usize {
        let mut run = from;
        for newline in memchr::memchr_iter(b'\n', &input[from..]).map(|offset| from + offset) {
            let after_cr =
                if newline == from { self.state == State::TextCr } else { input[newline - 1] == b'\r' };
            if after_cr {
                let next = newline + 1;
                // Lines that do not begin with a dot stay in one run, copied at once.
                if next < input.len() && input[next] != b'.' {
                    continue;
                }
                out.extend_from_slice(&input[run..next]);
                self.state = State::LineStart;
                return next;
            }
            // The line goes on for the sender, but what we store is a line end. A dot after it is not stuffed.
            self.traits.bare_lf = true;
            out.extend_from_slice(&input[run..newline]);
            out.extend_from_slice(b"\r\n");
            run = newline + 1;
        }
        out.extend_from_slice(&input[run..]);
        self.state = match input.last() {
            Some(b'\r') => State::TextCr,
            _ => State::Text,
        };
        input.len()
    }

    fn inspect(&mut self, stored: &[u8]) {
        if stored.is_empty() {
            return;
        }
        self.traits.eight_bit |= !stored.is_ascii();
        self.traits.nul |= memchr::memchr(0, stored).is_some();
        let mut line_start = 0;
        let mut newlines = 0;
        for newline in memchr::memchr_iter(b'\n', stored) {
            self.traits.long_line |= self.line + (newline - line_start) > MAX_DATA_LINE;
            self.line = 0;
            line_start = newline + 1;
            newlines += 1;
        }
        // The CR of a line end may have been stored by the piece before, so the sum is settled over both.
        self.surplus_cr =
            (self.surplus_cr + memchr::memchr_iter(b'\r', stored).count()).saturating_sub(newlines);
        self.line += stored.len() - line_start;
        self.traits.long_line |= self.line > MAX_DATA_LINE;
    }
}

/// Drops bare CR and rewrites NUL in text that leaves, across any split of it.
#[derive(Debug, Default)]
pub struct Outgoing {
    pending_cr: bool,
}

impl Outgoing {
    /// Cleans the next piece of stored text and appends it to `out`.
    pub fn push(&mut self, stored: &[u8], out: &mut Vec<u8>) {
        let mut rest = stored;
        if rest.is_empty() {
            return;
        }
        if std::mem::take(&mut self.pending_cr) && rest.first() == Some(&b'\n') {
            out.push(b'\r');
        }
        while let Some(at) = memchr::memchr2(b'\r', 0, rest) {
            out.extend_from_slice(&rest[..at]);
            if rest[at] == 0 {
                out.extend_from_slice(&[0xc0, 0x80]);
            } else if let Some(next) = rest.get(at + 1) {
                if *next == b'\n' {
                    out.push(b'\r');
                }
            } else {
                self.pending_cr = true;
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }
}

/// Where the stuffed text stands between two pieces.
#[derive(Debug, Clone, Copy)]
pub struct Stuffer {
    line_start: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Stuffer { line_start: true }
    }
}

impl Stuffer {
    /// The pieces to write for `text` (which has CR LF line ends only): slices of it, with a dot between them where
    /// a line begins with one. Nothing is copied.
    pub fn stuff<'a>(&mut self, text: &'a [u8]) -> Stuffed<'a> {
        let dot_first = self.line_start && text.first() == Some(&b'.');
        if let Some(last) = text.last() {
            self.line_start = *last == b'\n';
        }
        Stuffed { rest: text, dot_first }
    }

    /// What ends the message: the final dot, after a line end if the text lacks one.
    pub fn finish(self) -> &'static [u8] {
        if self.line_start { b".\r\n" } else { b"\r\n.\r\n" }
    }
}

/// Iterator over the pieces of one [`Stuffer::stuff`].
#[derive(Debug)]
pub struct Stuffed<'a> {
    rest: &'a [u8],
    dot_first: bool,
}

impl<'a> Iterator for Stuffed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if std::mem::take(&mut self.dot_first) {
            return Some(b".");
        }
        if self.rest.is_empty() {
            return None;
        }
        let piece = match memchr::memmem::find(self.rest, b"\n.") {
            Some(at) => {
                self.dot_first = true;
                &self.rest[..at + 1]
            }
            None => self.rest,
        };
        self.rest = &self.rest[piece.len()..];
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Receives `input` in pieces of the given lengths; returns text, traits, and what was left after the end.
    fn receive(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Traits, Option<Vec<u8>>) {
        let (mut receiver, mut text, mut at) = (Receiver::default(), Vec::new(), 0);
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(input.len().max(1)));
        while at < input.len() {
            let end = (at + cuts.next().unwrap_or(1).max(1)).min(input.len());
            let progress = receiver.push(&input[at..end], &mut text);
            at += progress.consumed;
            if progress.finished {
                return (text, receiver.traits(), Some(input[at..].to_vec()));
            }
            assert_eq!(at, end, "an unfinished message takes all of the input");
        }
        (text, receiver.traits(), None)
    }

    fn send(text: &[u8], cut: usize) -> Vec<u8> {
        let (mut clean, mut outgoing) = (Vec::new(), Outgoing::default());
        for piece in text.chunks(cut.max(1)) {
            outgoing.push(piece, &mut clean);
        }
        let (mut wire, mut stuffer) = (Vec::new(), Stuffer::default());
        for piece in clean.chunks(cut.max(1)) {
            stuffer.stuff(piece).for_each(|part| wire.extend_from_slice(part));
        }
        wire.extend_from_slice(stuffer.finish());
        wire
    }

    #[test]
    fn stored_text() {
        let table: [(&[u8], &[u8]); 12] = [
            (b".\r\n", b""),
            (b"Hi\r\n.\r\n", b"Hi\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"...a\r\n.\r\n", b"..a\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\n.b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a\rb\r\n.\r\n", b"a\rb\r\n"),
            (b"a\r\r\n.\r\n", b"a\r\r\n"),
            (b".\n\r\n.\r\n", b"\r\n\r\n"),
            (b".\rb\r\n.\r\n", b"\rb\r\n"),
            (b"\r\n.\r\n", b"\r\n"),
        ];
        for (input, expected) in table {
            for cut in 1..=input.len() {
                let cuts = vec![cut; input.len()];
                let (text, _, rest) = receive(input, &cuts);
                assert_eq!(text, expected, "{input:?} cut {cut}");
                assert_eq!(rest.as_deref(), Some(b"".as_slice()), "{input:?} cut {cut}");
            }
        }
    }

    #[test]
    fn threat_t01_only_crlf_dot_crlf_ends_the_data() {
        let ends: [&[u8]; 7] = [b"\r", b"\n", b"\r\n", b"\r\r\n", b"\0", b"\r\0\n", b"x"];
        for before in ends {
            for after in ends {
                let smuggled =
                    [b"body".as_slice(), before, b".", after, b"MAIL FROM:<evil@example.com>\r\n"].concat();
                let input = [smuggled.as_slice(), b"\r\n.\r\nQUIT\r\n"].concat();
                let genuine = before.ends_with(b"\r\n") && after == b"\r\n";
                for cut in [1, 2, 3, 7, input.len()] {
                    let (text, _, rest) = receive(&input, &vec![cut; input.len()]);
                    let rest = rest.expect("the message ends");
                    if genuine {
                        assert!(rest.starts_with(b"MAIL FROM"), "{before:?} {after:?}");
                        continue;
                    }
                    assert_eq!(rest, b"QUIT\r\n", "{before:?} . {after:?} cut {cut}");
                    let wire = send(&text, cut);
                    assert!(!wire.contains(&0), "NUL left in {wire:?}");
                    for (at, octet) in wire.iter().enumerate() {
                        match octet {
                            b'\r' => assert_eq!(wire.get(at + 1), Some(&b'\n'), "bare CR in {wire:?}"),
                            b'\n' => assert_eq!(wire[at - 1], b'\r', "bare LF in {wire:?}"),
                            _ => {}
                        }
                    }
                    let (_, _, rest) = receive(&wire, &[]);
                    assert_eq!(rest.as_deref(), Some(b"".as_slice()), "one transaction only: {wire:?}");
                }
            }
        }
    }

    #[test]
    fn traits_are_noticed() {
        let t = Traits::default();
        let table: [(&[u8], Traits); 8] = [
            (b"plain\r\n.\r\n", t),
            (b"caf\xc3\xa9\r\n.\r\n", Traits { eight_bit: true, ..t }),
            (b"a\0\r\n.\r\n", Traits { nul: true, ..t }),
            (b"a\rb\r\n.\r\n", Traits { bare_cr: true, ..t }),
            (b"a\r\r\n.\r\n", Traits { bare_cr: true, ..t }),
            (b".\r\r\n.\r\n", Traits { bare_cr: true, ..t }),
            (b"a\nb\r\n.\r\n", Traits { bare_lf: true, ..t }),
            (b"\n\r\n.\r\n", Traits { bare_lf: true, ..t }),
        ];
        for (input, expected) in table {
            for cut in 1..=input.len() {
                let (_, traits, _) = receive(input, &vec![cut; input.len()]);
                assert_eq!(traits, expected, "{input:?} cut {cut}");
            }
        }
        let long = [vec![b'x'; MAX_DATA_LINE + 2], b"\r\n.\r\n".to_vec()].concat();
        assert!(receive(&long, &[4096; 400]).1.long_line);
        let two = [vec![b'x'; MAX_DATA_LINE - 2], b"\r\n".to_vec()].concat().repeat(2);
        assert!(!receive(&[two, b".\r\n".to_vec()].concat(), &[4096; 600]).1.long_line);
    }

    #[test]
    fn stuffing() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n..b\r\n.\r\n", b"a\r\n...b\r\n..\r\n.\r\n"),
            (b"a\0\r\n\rb\r\n", b"a\xc0\x80\r\nb\r\n.\r\n"),
        ];
        for (text, expected) in table {
            for cut in 1..=text.len().max(1) {
                assert_eq!(send(text, cut), expected, "{text:?} cut {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_message(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), Just(0), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(1_usize..20, 0..50),
        ) {
            prop_assert_eq!(receive(&input, &cuts), receive(&input, &[]));
        }

        #[test]
        fn what_is_sent_is_received_unchanged(
            lines in proptest::collection::vec("[.a-c ]{0,5}", 0..20),
            cut in 1_usize..30,
        ) {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
            let wire = send(text.as_bytes(), cut);
            let (again, traits, rest) = receive(&wire, &vec![cut; wire.len()]);
            prop_assert_eq!(again, text.as_bytes());
            prop_assert_eq!(traits, Traits::default());
            prop_assert_eq!(rest, Some(Vec::new()));
        }
    }
}
