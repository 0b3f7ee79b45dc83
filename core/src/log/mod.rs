//! Log lines, one event one line.
//!
//! Code logs with `tracing`: `tracing::info!(event = "answer", client = %ip, sender = bytes, action = "DUNNO")`. The
//! layer here writes the fields in a fixed order as `key=value` or JSON, to standard error, syslog or a file.
//!
//! * Values are escaped and cut at 512 bytes, lines at 8 KiB; a line never spans two lines (see [`escape()`]).
//! * In the styles `iredapd` and `amavis` an event that has a field `line` is written as that text alone; in the
//!   other styles the field is left out. Ask [`style`] before building such a text.
//! * A warning or error that repeats itself exactly is written once and then counted each minute, unless it has a field
//!   `client`: ban filters count those.
//! * Other crates (the SQL driver, the resolver) are heard from level `warn` on; their steps are shown at `trace`.

mod escape;
mod record;
mod repeat;
mod sink;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use escape::{LONGEST_VALUE, escape, quote};
use record::{COMPATIBLE, Record, cut};
use repeat::Repeats;
use sink::{Output, Sink};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::{LogLevel, LogSettings, LogStyle, LogTarget};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file or socket cannot be opened.
    #[error("cannot open the log {0}: {1}")]
    Open(PathBuf, #[source] io::Error),
    /// The process logs already.
    #[error("logging was set up before")]
    AlreadyInstalled,
}

/// The style in force in this process, for [`style`].
static STYLE: AtomicU8 = AtomicU8::new(0);

/// The style of log lines: daemons ask it before they build a line of a replaced program.
pub fn style() -> LogStyle {
    match STYLE.load(Ordering::Relaxed) {
        1 => LogStyle::Json,
        2 => LogStyle::Iredapd,
        3 => LogStyle::Amavis,
        _ => LogStyle::KeyValue,
    }
}

/// Starts logging for the whole process; `service` is named in lines that no daemon's span names.
pub fn install(settings: &LogSettings, service: &'static str) -> Result<LogHandle, LogError> {
    let (layer, handle) = layer(settings, service)?;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadyInstalled)?;
    STYLE.store(settings.style as u8, Ordering::Relaxed);
    Ok(handle)
}

/// The layer and its handle without making it the process' own.
fn layer(settings: &LogSettings, service: &'static str) -> Result<(LogLayer, LogHandle), LogError> {
    let shared = Arc::new(Shared {
        form: RwLock::new(Form::new(settings, service)),
        sink: Arc::new(Sink::new(output(settings)?)),
        repeats: Mutex::default(),
        swept: AtomicI64::new(0),
        service,
    });
    Ok((LogLayer { shared: shared.clone() }, LogHandle { shared }))
}

fn output(settings: &LogSettings) -> Result<Output, LogError> {
    match settings.target {
        LogTarget::Stderr => Ok(Output::Stderr),
        LogTarget::Syslog => {
            let path = &settings.syslog_socket;
            Output::syslog(path).map_err(|error| LogError::Open(path.clone(), error))
        }
        LogTarget::File => {
            // The settings check demands a path with this target.
            let path = settings.path.clone().unwrap_or_default();
            Output::file(&path).map_err(|error| LogError::Open(path, error))
        }
    }
}

/// Changes logging while it runs; clones act on the same log.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

impl LogHandle {
    /// Lets a thread of its own write lines from now on. Call it after privileges were dropped.
    pub fn start_writer(&self) -> io::Result<()> {
        self.shared.sink.start_writer()
    }

    /// Takes new settings; on error the old ones stay.
    pub fn apply(&self, settings: &LogSettings) -> Result<(), LogError> {
        let output = output(settings)?;
        let form = Form::new(settings, self.shared.service);
        *self.shared.form.write().unwrap_or_else(PoisonError::into_inner) = form;
        self.shared.sink.replace(output);
        STYLE.store(settings.style as u8, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens a log file again, after rotation.
    pub fn reopen(&self) -> io::Result<()> {
        self.shared.sink.reopen()
    }

    /// Waits until all lines are written, at most two seconds.
    pub fn flush(&self) {
        self.shared.sink.flush(Duration::from_secs(2));
    }
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

/// What a line looks like.
#[derive(Clone, Debug)]
struct Form {
    ours: LevelFilter,
    others: LevelFilter,
    style: LogStyle,
    head: Head,
}

/// What stands in front of a line.
#[derive(Clone, Debug)]
enum Head {
    /// The time, for files and terminals.
    Time,
    /// `<6>`: the journal keeps the time itself and takes the level from here (sd-daemon(3)).
    Journal,
    /// RFC 3164: `<22>Mar  1 12:00:00 policyd[123]: `
    Syslog { facility: u8, tag: String },
}

impl Form {
    fn new(settings: &LogSettings, service: &str) -> Form {
        let ours = match settings.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let others =
            if ours == LevelFilter::TRACE { LevelFilter::DEBUG } else { ours.min(LevelFilter::WARN) };
        let head = match settings.target {
            LogTarget::Syslog => {
                let tag = settings.tag.clone().unwrap_or_else(|| service.to_owned());
                Head::Syslog { facility: settings.facility as u8, tag }
            }
            LogTarget::Stderr if std::env::var_os("JOURNAL_STREAM").is_some() => Head::Journal,
            _ => Head::Time,
        };
        Form { ours, others, style: settings.style, head }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let most = if metadata.target().starts_with("outrider") { self.ours } else { self.others };
        // Spans carry fields for the events inside them, which are judged on their own.
        metadata.is_span() && metadata.target().starts_with("outrider") || *metadata.level() <= most
    }

    /// The line with its head. `plain` is the key=value spelling, which the caller has made already.
    fn line(&self, level: Level, record: &Record, plain: &str, time_millis: i64) -> String {
        let mut line = String::with_capacity(plain.len() + 64);
        self.write_head(level, time_millis, &mut line);
        match (self.style, record.text(COMPATIBLE)) {
            (LogStyle::Json, _) => {
                let _ = write!(line, "{{\"time\":\"{}\",\"level\":\"{}\"", utc(time_millis), name(level));
                record.write_json(&mut line);
                line.push('}');
                return line;
            }
            (LogStyle::Iredapd | LogStyle::Amavis, Some(text)) => escape_line(text, &mut line),
            _ => line.push_str(plain),
        }
        cut(&mut line);
        line
    }

    fn write_head(&self, level: Level, time_millis: i64, out: &mut String) {
        let json = self.style == LogStyle::Json;
        let _ = match &self.head {
            Head::Time if json => Ok(()),
            Head::Time if self.style == LogStyle::KeyValue => write!(out, "time={} ", utc(time_millis)),
            Head::Time => write!(out, "{} ", utc(time_millis)),
            Head::Journal => write!(out, "<{}>", severity(level)),
            Head::Syslog { facility, tag } => write!(
                out,
                "<{}>{} {tag}[{}]: ",
                facility * 8 + severity(level),
                local(time_millis),
                std::process::id()
            ),
        };
    }
}

/// Escapes a whole line: values in it were escaped by who built it, so quotation marks stay.
fn escape_line(text: &[u8], out: &mut String) {
    let text = &text[..text.len().min(record::LONGEST_LINE)];
    for chunk in text.utf8_chunks() {
        for part in chunk.valid().split_inclusive(['"', '\\']) {
            let (part, last) = match part.chars().last() {
                Some(last @ ('"' | '\\')) => (&part[..part.len() - 1], Some(last)),
                _ => (part, None),
            };
            // `escape` cuts at the length of a value: give it pieces.
            let mut rest = part;
            while !rest.is_empty() {
                let end = (0..=rest.len().min(LONGEST_VALUE)).rev().find(|end| rest.is_char_boundary(*end));
                let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
                escape(piece.as_bytes(), out);
                rest = after;
            }
            out.extend(last);
        }
        escape(chunk.invalid(), out);
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The severities of syslog (RFC 5424 section 6.2.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// RFC 3339 with milliseconds.
fn utc(millis: i64) -> String {
    thread_local!(static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) });
    let mut text = in_this_second(&LAST, millis, |time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    let _ = write!(text, ".{:03}Z", millis.rem_euclid(1000));
    text
}

/// The time of RFC 3164 in the zone of the machine, which is what other lines of the mail log have.
fn local(millis: i64) -> String {
    thread_local!(static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) });
    in_this_second(&LAST, millis, |time| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%b %e %H:%M:%S").to_string()
    })
}

/// The text of a second, made once for all lines of that second: calendars cost more than the rest of a line.
fn in_this_second(
    last: &'static std::thread::LocalKey<RefCell<(i64, String)>>,
    millis: i64,
    make: impl Fn(jiff::Timestamp) -> String,
) -> String {
    let second = millis.div_euclid(1000);
    last.with_borrow_mut(|(known, text)| {
        if *known != second {
            *text = make(jiff::Timestamp::from_second(second).unwrap_or_default());
            *known = second;
        }
        text.clone()
    })
}

#[derive(Debug)]
struct Shared {
    form: RwLock<Form>,
    sink: Arc<Sink>,
    repeats: Mutex<Repeats>,
    /// The second in which `repeats` was last looked through.
    swept: AtomicI64,
    service: &'static str,
}

impl Shared {
    fn form(&self) -> std::sync::RwLockReadGuard<'_, Form> {
        self.form.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, level: Level, mut record: Record) {
        record.default_text("service", self.service);
        record.arrange();
        let mut plain = format!("level={}", name(level));
        record.write_plain(&mut plain);
        let now = time_millis();
        let form = self.form();
        // The list of warnings is looked at for a warning, and once a second for those whose minute is over: lines about
        // ordinary work do not queue for its lock.
        let second = now.div_euclid(1000);
        let counted = level <= Level::WARN && record.text("client").is_none();
        if counted || self.swept.swap(second, Ordering::Relaxed) != second {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            for (line, count) in repeats.due(Instant::now()) {
                self.sink.push(&summary(&form, &line, count, now));
            }
            if counted && !repeats.admit(&plain, Instant::now()) {
                return;
            }
        }
        self.sink.push(&form.line(level, &record, &plain, now));
    }
}

/// The line that says how often a warning was repeated in the last minute.
fn summary(form: &Form, line: &str, count: u64, now: i64) -> String {
    let mut out = String::new();
    form.write_head(Level::WARN, now, &mut out);
    let _ = match form.style {
        LogStyle::Json => write!(
            out,
            "{{\"time\":\"{}\",\"level\":\"warn\",\"event\":\"repeated\",\"repeated\":{count},\"reason\":{}}}",
            utc(now),
            serde_json::Value::from(line)
        ),
        _ => write!(out, "{line} repeated={count}"),
    };
    out
}

fn time_millis() -> i64 {
    // Log lines carry the true time, also when decisions are made by a test clock.
    crate::clock::Clock::unix_millis(&crate::clock::SystemClock)
}

/// Turns tracing events into lines.
struct LogLayer {
    shared: Arc<Shared>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shared.form().wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shared.form().wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Spans of any level carry fields.
        Some(LevelFilter::TRACE)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut record = Record::default();
            attributes.record(&mut record);
            span.extensions_mut().insert(record);
        }
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(record) = span.extensions_mut().get_mut::<Record>()
        {
            values.record(record);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Record>() {
                record.inherit(outer);
            }
        }
        self.shared.log(*event.metadata().level(), record);
    }
}

#[cfg(test)]
mod tests;
