//! Where a message stays between the client and the next hop.
//!
//! Its first mebibyte stays in memory, what is beyond goes to an unlinked file in the state directory, so that a
//! large mail costs disk and not memory, and a crash leaves nothing behind. Each octet is copied once on its way in
//! and not at all on its way out.

use outrider_core::codec::header::{self, Boundary};
use outrider_core::codec::smtp::data::{Outgoing, Progress, Receiver, Traits};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Octets of a message kept in memory.
pub const MEMORY_PART: usize = 1024 * 1024;
/// Octets written to or read from the scratch file at once.
const FILE_CHUNK: usize = 256 * 1024;

/// A message that is still arriving.
#[derive(Debug)]
pub struct Arriving {
    receiver: Receiver,
    head: Vec<u8>,
    /// Text beyond the memory part that is not in the file yet.
    staged: Vec<u8>,
    file: Option<Arc<File>>,
    filed: u64,
    folder: PathBuf,
    limit: u64,
    failure: Option<io::Error>,
}

impl Arriving {
    /// An empty message. Text beyond `limit` octets is counted and thrown away.
    pub fn new(folder: PathBuf, limit: u64) -> Arriving {
        Arriving {
            receiver: Receiver::default(),
            head: Vec::new(),
            staged: Vec::new(),
            file: None,
            filed: 0,
            folder,
            limit,
            failure: None,
        }
    }

    /// Takes the next piece of wire data. A failing disk is noted and reported by [`finish`](Arriving::finish): the
    /// client has to be heard to the end in any case.
    pub async fn push(&mut self, input: &[u8]) -> Progress {
        let progress = if self.head.len() < MEMORY_PART {
            self.receiver.push(input, &mut self.head)
        } else {
            self.receiver.push(input, &mut self.staged)
        };
        if self.staged.len() >= FILE_CHUNK {
            self.write_staged().await;
        }
        progress
    }

    /// Octets of the text so far (RFC 1870: dots taken off, line ends as two octets).
    pub fn size(&self) -> u64 {
        self.head.len() as u64 + self.filed + self.staged.len() as u64
    }

    /// The whole message.
    ///
    /// # Errors
    /// The scratch file could not be written.
    pub async fn finish(mut self) -> io::Result<Message> {
        if !self.staged.is_empty() {
            self.write_staged().await;
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let size = self.head.len() as u64 + self.filed;
        let boundary = header::boundary(&self.head);
        Ok(Message {
            head: self.head,
            file: self.file,
            filed: self.filed,
            size,
            boundary,
            traits: self.receiver.traits(),
        })
    }

    async fn write_staged(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        let length = staged.len() as u64;
        if self.failure.is_none() && self.size() + length <= self.limit {
            let (file, folder) = (self.file.clone(), self.folder.clone());
            let write = move || -> io::Result<(Arc<File>, Vec<u8>)> {
                let file = match file {
                    Some(file) => file,
                    // O_TMPFILE: never has a name, so a crash cannot leave it behind.
                    None => Arc::new(tempfile::tempfile_in(folder)?),
                };
                (&*file).write_all(&staged)?;
                Ok((file, staged))
            };
            match tokio::task::spawn_blocking(write)
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
            {
                Ok((file, mut staged)) => {
                    staged.clear();
                    self.staged = staged;
                    self.file = Some(file);
                }
                Err(error) => self.failure = Some(error),
            }
        }
        self.filed += length;
    }
}

/// A message that has arrived.
#[derive(Debug)]
pub struct Message {
    head: Vec<u8>,
    file: Option<Arc<File>>,
    filed: u64,
    size: u64,
    boundary: Option<Boundary>,
    traits: Traits,
}

impl Message {
    /// A message made here, all in memory.
    pub fn from_text(text: Vec<u8>) -> Message {
        let (boundary, size) = (header::boundary(&text), text.len() as u64);
        let traits = Traits { eight_bit: !text.is_ascii(), ..Traits::default() };
        Message { head: text, file: None, filed: 0, size, boundary, traits }
    }

    /// Octets of the text.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is unusual in it.
    pub fn traits(&self) -> Traits {
        self.traits
    }

    /// The header section as received. Without an empty line all of the memory part counts as header.
    pub fn header(&self) -> &[u8] {
        &self.head[..self.boundary.map_or(self.head.len(), |boundary| boundary.header)]
    }

    /// True when an empty line separates header and body.
    pub fn has_separator(&self) -> bool {
        self.boundary.is_some()
    }

    /// True when the header section does not end within the memory part: it cannot be worked on as a whole.
    pub fn header_is_cut(&self) -> bool {
        self.boundary.is_none() && self.file.is_some()
    }

    /// The part of the header section that may be edited: all of it, or nothing when it is cut, since the octets
    /// around the cut belong together.
    pub fn editable_header(&self) -> &[u8] {
        if self.header_is_cut() { &[] } else { self.header() }
    }

    /// What follows the editable header, piece by piece: the body, or all of a message whose header section is cut.
    pub fn body(&self) -> Pieces<'_> {
        let without = if self.header_is_cut() { 0 } else { self.head.len() };
        let start = self.boundary.map_or(without, |boundary| boundary.body);
        Pieces {
            head: Some(&self.head[start..]),
            file: self.file.as_ref(),
            at: 0,
            end: self.filed,
            chunk: Vec::new(),
        }
    }

    /// The body as it leaves: stray CR and NUL taken care of.
    pub fn outgoing_body(&self) -> OutgoingPieces<'_> {
        let cleaner = self.traits.needs_cleaning().then(Outgoing::default);
        OutgoingPieces { pieces: self.body(), cleaner, cleaned: Vec::new() }
    }
}

/// Reads a body in pieces; those from memory are not copied.
#[derive(Debug)]
pub struct Pieces<'a> {
    head: Option<&'a [u8]>,
    file: Option<&'a Arc<File>>,
    at: u64,
    end: u64,
    chunk: Vec<u8>,
}

impl Pieces<'_> {
    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// The scratch file could not be read.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if let Some(head) = self.head.take()
            && !head.is_empty()
        {
            return Ok(Some(head));
        }
        let Some(file) = self.file.filter(|_| self.at < self.end) else { return Ok(None) };
        let (file, at) = (file.clone(), self.at);
        let length = usize::try_from(self.end - at).map_or(FILE_CHUNK, |rest| rest.min(FILE_CHUNK));
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(length, 0);
        let read = move || file.read_exact_at(&mut chunk, at).map(|()| chunk);
        self.chunk =
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.at += length as u64;
        Ok(Some(&self.chunk))
    }
}

/// Reads a body as it leaves.
#[derive(Debug)]
pub struct OutgoingPieces<'a> {
    pieces: Pieces<'a>,
    cleaner: Option<Outgoing>,
    cleaned: Vec<u8>,
}

impl OutgoingPieces<'_> {
    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// The scratch file could not be read.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(piece) = self.pieces.next().await? else { return Ok(None) };
        let Some(cleaner) = &mut self.cleaner else { return Ok(Some(piece)) };
        self.cleaned.clear();
        cleaner.push(piece, &mut self.cleaned);
        Ok(Some(&self.cleaned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(wire: &[u8], limit: u64) -> io::Result<Message> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arriving = Arriving::new(folder.path().to_path_buf(), limit);
        for piece in wire.chunks(50_000) {
            arriving.push(piece).await;
        }
        let message = arriving.finish().await;
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0,
            "the scratch file has no name"
        );
        message
    }

    async fn whole(message: &Message) -> Vec<u8> {
        let (mut text, mut body) = (Vec::new(), message.outgoing_body());
        while let Some(piece) = body.next().await.expect("reads") {
            text.extend_from_slice(piece);
        }
        text
    }

    #[tokio::test]
    async fn small_and_large_messages_come_out_as_they_went_in() {
        for lines in [0, 1, 1000, 40_000, 60_000] {
            let body: String =
                (0..lines).map(|n| format!("line {n} of a message that may be large\r\n")).collect();
            let wire = format!("Subject: x\r\n\r\n{body}.\r\n");
            let message = receive(wire.as_bytes(), u64::MAX).await.expect("stored");
            assert_eq!(message.header(), b"Subject: x\r\n");
            assert_eq!(message.size(), wire.len() as u64 - 3);
            assert!(whole(&message).await == body.as_bytes(), "{lines} lines");
            assert_eq!(message.file.is_some(), body.len() > MEMORY_PART + 50_000);
        }
    }

    #[tokio::test]
    async fn stray_octets_do_not_leave() {
        let filler = "x".repeat(998) + "\r\n";
        let body = format!("a\rb\0c\r\n{}end\r\r\n", filler.repeat(1500));
        let wire = format!("Subject: x\r\n\r\n{body}.\r\n");
        let message = receive(wire.as_bytes(), u64::MAX).await.expect("stored");
        let mut expected = b"ab\xc0\x80c\r\n".to_vec();
        expected.extend_from_slice(filler.repeat(1500).as_bytes());
        expected.extend_from_slice(b"end\r\n");
        assert!(whole(&message).await == expected);
    }

    #[tokio::test]
    async fn a_cut_header_is_left_in_one_piece() {
        // The memory part may end anywhere, also between CR and LF.
        for length in [76, 77, 78, 79] {
            let wire = format!("X: {}\r\n", "y".repeat(length)).repeat(20_000);
            let message = receive(format!("{wire}.\r\n").as_bytes(), u64::MAX).await.expect("stored");
            assert!(message.header_is_cut() && !message.has_separator());
            assert!(message.editable_header().is_empty());
            assert!(whole(&message).await == wire.as_bytes(), "{length}");
        }
    }

    #[tokio::test]
    async fn what_exceeds_the_limit_is_counted_and_not_kept() {
        let wire = "x".repeat(998) + "\r\n";
        let folder = tempfile::tempdir().expect("a folder");
        let mut arriving = Arriving::new(folder.path().to_path_buf(), 1000);
        for _ in 0..3000 {
            arriving.push(wire.as_bytes()).await;
        }
        assert_eq!(arriving.size(), 3_000_000);
        assert!(arriving.file.is_none());
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_at_the_end() {
        let mut arriving = Arriving::new(PathBuf::from("/nonexistent"), u64::MAX);
        for _ in 0..3000 {
            arriving.push(("x".repeat(998) + "\r\n").as_bytes()).await;
        }
        assert!(arriving.finish().await.is_err());
    }
}
