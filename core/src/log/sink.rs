//! Where lines go: standard error, a file, the syslog socket.
//!
//! Until [`Sink::start_writer`] a line is written by whoever logs it. Afterwards a thread of its own writes, so that a
//! slow terminal, disk or syslog daemon never makes a request wait; what does not fit into the queue is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait to be written.
const LONGEST_QUEUE: usize = 4 * 1024 * 1024;

/// How long the writer lets lines gather after the first one: waking it for each would cost more than writing it.
const GATHER: Duration = Duration::from_millis(5);

/// A place for lines.
#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    File { path: PathBuf, file: File },
    Syslog { path: PathBuf, socket: UnixDatagram },
}

impl Output {
    /// Opens a file for appending; it is readable by its owner and group.
    pub(super) fn file(path: &Path) -> io::Result<Output> {
        Ok(Output::File { path: path.to_path_buf(), file: open_log(path)? })
    }

    /// A syslog socket. Whether somebody listens there shows with the first line.
    pub(super) fn syslog(path: &Path) -> io::Result<Output> {
        Ok(Output::Syslog { path: path.to_path_buf(), socket: UnixDatagram::unbound()? })
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Output::File { path, file } = self {
            *file = open_log(path)?;
        }
        Ok(())
    }

    /// Writes lines. A syslog datagram has one line, the others take them all at once.
    fn write(&self, queue: &Queue) -> io::Result<()> {
        match self {
            Output::Stderr => io::stderr().lock().write_all(&queue.bytes),
            Output::File { file, .. } => (&*file).write_all(&queue.bytes),
            Output::Syslog { path, socket } => {
                let mut start = 0;
                for end in &queue.ends {
                    // The line end is for files.
                    socket.send_to(&queue.bytes[start..end - 1], path)?;
                    start = *end;
                }
                Ok(())
            }
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    lost: u64,
    /// Whether the writer thread is at work on lines taken from the queue.
    writing: bool,
}

impl Queue {
    fn push(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
    }
}

/// The way of lines to their [`Output`].
#[derive(Debug)]
pub(super) struct Sink {
    output: Mutex<Output>,
    queue: Mutex<Queue>,
    changed: Condvar,
    threaded: std::sync::atomic::AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    pub(super) fn new(output: Output) -> Sink {
        Sink {
            output: Mutex::new(output),
            queue: Mutex::default(),
            changed: Condvar::new(),
            threaded: false.into(),
        }
    }

    /// Takes one line without its line end.
    pub(super) fn push(&self, line: &str) {
        if !self.threaded.load(std::sync::atomic::Ordering::Acquire) {
            let mut queue = Queue::default();
            queue.push(line);
            self.write(&queue);
            return;
        }
        let mut queue = lock(&self.queue);
        if queue.bytes.len() + line.len() > LONGEST_QUEUE {
            queue.lost += 1;
            return;
        }
        let was_empty = queue.ends.is_empty();
        queue.push(line);
        drop(queue);
        if was_empty {
            self.changed.notify_all();
        }
    }

    fn write(&self, queue: &Queue) {
        let output = lock(&self.output);
        if output.write(queue).is_err() && !matches!(*output, Output::Stderr) {
            // Better in the wrong place than nowhere.
            let _ = io::stderr().lock().write_all(&queue.bytes);
        }
    }

    /// Lets a thread of its own write from now on.
    pub(super) fn start_writer(self: &Arc<Self>) -> io::Result<()> {
        let sink = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || sink.run())?;
        self.threaded.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    fn run(&self) {
        let mut work = Queue::default();
        loop {
            let mut queue = lock(&self.queue);
            queue.writing = false;
            self.changed.notify_all();
            while queue.ends.is_empty() {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            drop(queue);
            std::thread::sleep(GATHER);
            let mut queue = lock(&self.queue);
            std::mem::swap(&mut *queue, &mut work);
            queue.writing = true;
            drop(queue);
            if work.lost > 0 {
                work.push(&format!("level=warn event=\"log lines lost\" count={}", work.lost));
            }
            self.write(&work);
            work.bytes.clear();
            work.ends.clear();
            work.lost = 0;
        }
    }

    /// Waits until everything is written, at most `most`.
    pub(super) fn flush(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut queue = lock(&self.queue);
        while queue.writing || !queue.ends.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Opens the file again, after rotation.
    pub(super) fn reopen(&self) -> io::Result<()> {
        lock(&self.output).reopen()
    }

    /// Sends lines to another place from now on.
    pub(super) fn replace(&self, output: Output) {
        *lock(&self.output) = output;
    }
}
