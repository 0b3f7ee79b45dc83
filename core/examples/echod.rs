//! A complete small daemon: it answers each line with the same line.
//!
//! It shows what a daemon has to write, and the tests of the frame run it. Some words of a line make it misbehave:
//! `sleep MS` answers late, `block MS` stops the thread, `panic` is a program fault.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use outrider_core::daemon::{
    Connection, Daemon, DaemonSettings, DependencyHealth, Environment, Findings, FrameSettings, ListenerSpec,
    Shutdown, StartError,
};
use outrider_core::settings::{
    Documented, Interval, LimitSettings, ListenAddress, LogSettings, MetricsSettings, ProcessSettings,
    Secret, SectionDoc,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

outrider_core::settings! {
    /// Settings of the echo service.
    pub struct Settings {
        /// Where clients connect.
        pub listen: Vec<ListenAddress> = vec![ListenAddress::local(7007)],
        /// A second service that answers in capitals; off by default.
        pub loud: Vec<ListenAddress> = Vec::new(),
        /// Text in front of each answer.
        pub prefix: String = String::new(),
        /// A word that clients need not know.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password: Option<Secret> = None,
        /// How answers are given.
        pub answer: AnswerSettings = AnswerSettings::default(),
        pub log: LogSettings = LogSettings::default(),
        pub metrics: MetricsSettings = MetricsSettings::default(),
        pub process: ProcessSettings = ProcessSettings::default(),
        pub limits: LimitSettings = LimitSettings::default(),
    }
}

outrider_core::settings! {
    /// How answers are given.
    pub struct AnswerSettings {
        /// How long each answer waits.
        pub delay: Interval = Interval::seconds(0),
        /// The longest delay that `sleep` may ask for.
        pub longest: Interval = Interval::seconds(60),
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        let with = |role, list: &[ListenAddress]| -> Vec<ListenerSpec> {
            list.iter().map(|address| ListenerSpec { role, address: address.clone() }).collect()
        };
        [with("echo", &self.listen), with("loud", &self.loud)].concat()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        if self.answer.delay > self.answer.longest {
            findings.error("answer.delay", "must not be longer than answer.longest", "write \"0s\"");
        }
        if self.prefix == "refuse" {
            findings.warning("prefix", "looks odd", "");
        }
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}

struct Echo {
    settings: RwLock<Arc<Settings>>,
    up: AtomicBool,
    env: Environment,
}

impl Echo {
    async fn answer(&self, line: &str, role: &str) -> String {
        // The snapshot of the moment when the request began.
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let _inflight = self.env.metrics.inflight();
        let time = |text: &str| {
            Duration::from_millis(text.parse().unwrap_or(0)).min(settings.answer.longest.duration())
        };
        match line.split_once(' ').unwrap_or((line, "")) {
            ("sleep", millis) => tokio::time::sleep(time(millis)).await,
            ("block", millis) => std::thread::sleep(time(millis)),
            ("down", _) => self.up.store(false, Ordering::Relaxed),
            ("panic", _) => panic!("asked to panic"),
            _ => tokio::time::sleep(settings.answer.delay.duration()).await,
        }
        let text = if role == "loud" { line.to_uppercase() } else { line.to_owned() };
        format!("{}{text}\n", settings.prefix)
    }
}

impl Daemon for Echo {
    const NAME: &'static str = "echod";
    const ABOUT: &'static str = "answers each line with the same line";
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Echo, StartError> {
        if settings.prefix == "no start" {
            return Err(StartError::Settings("prefix: asked not to start".into()));
        }
        Ok(Echo { settings: RwLock::new(settings), up: AtomicBool::new(true), env })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        if settings.prefix == "no reload" {
            return Err(StartError::Settings("prefix: asked not to reload".into()));
        }
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let Connection { stream, peer, role, .. } = connection;
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            let read = tokio::select! {
                read = stream.read_line(&mut line) => read,
                () = shutdown.wait() => return,
            };
            match read {
                Ok(length) if length > 0 => {}
                _ => return,
            }
            let answer = self.answer(line.trim_end(), role).await;
            // In a crate named outrider_* the target is right by itself.
            tracing::info!(target: "outrider_echod", event = "answer", client = %peer, check = role, reason = line.trim_end());
            if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn health(&self) -> Vec<DependencyHealth> {
        let up = self.up.load(Ordering::Relaxed);
        vec![DependencyHealth {
            name: "voice",
            up,
            detail: if up { "" } else { "hoarse" }.to_owned(),
            pool: None,
        }]
    }
}

fn main() -> ExitCode {
    outrider_core::daemon::main::<Echo>()
}
