//! A daemon launched inside a test, as `outrider serve` and the simulations do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::daemon::{Connection, Findings, FrameSettings, ListenerSpec};
use crate::settings::{
    Interval, LimitSettings, ListenAddress, LogSettings, MetricsSettings, ProcessSettings,
};

crate::settings! {
    /// Settings of the daemon below.
    pub(super) struct Settings {
        /// How long it takes to answer.
        pub delay: Interval = Interval::seconds(0),
        pub log: LogSettings = LogSettings::default(),
        pub metrics: MetricsSettings = MetricsSettings::default(),
        pub process: ProcessSettings = ProcessSettings::default(),
        pub limits: LimitSettings = LimitSettings::default(),
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        vec![ListenerSpec { role: "slow", address: ListenAddress::local(0) }]
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, _: &mut Findings) {}
}

/// Answers `.` after its delay; its background work fails twice.
struct Slow {
    delay: Interval,
    background_runs: AtomicUsize,
}

impl Daemon for Slow {
    const NAME: &'static str = "slow";
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, _: Environment) -> Result<Slow, StartError> {
        Ok(Slow { delay: settings.delay, background_runs: AtomicUsize::new(0) })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        assert!(settings.delay != Interval::seconds(13), "asked to panic");
        Ok(())
    }

    async fn serve(self: Arc<Self>, mut connection: Connection, _: Shutdown) {
        let mut byte = [0];
        while connection.stream.read_exact(&mut byte).await.is_ok() {
            tokio::time::sleep(self.delay.duration()).await;
            if connection.stream.write_all(b".").await.is_err() {
                return;
            }
        }
    }

    async fn background(self: Arc<Self>, shutdown: Shutdown) {
        assert!(self.background_runs.fetch_add(1, Ordering::SeqCst) >= 2, "asked to panic");
        shutdown.wait().await;
    }
}

async fn start(delay: u64, grace: u64) -> (Running<Slow>, ShutdownTrigger, tempfile::TempDir, TcpStream) {
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::system("slow", folder.path().join("made/by/launch"));
    let settings = Settings {
        delay: Interval::seconds(delay),
        limits: LimitSettings { grace: Interval(Duration::from_millis(grace)), ..LimitSettings::default() },
        ..Settings::default()
    };
    let (trigger, shutdown) = Shutdown::new();
    let running = launch::<Slow>(settings, env, shutdown).await.unwrap();
    let ListenAddress::Tcp(address) = running.bound[0].address else { panic!("no TCP") };
    let client = TcpStream::connect(address).await.unwrap();
    (running, trigger, folder, client)
}

#[tokio::test]
async fn work_that_outlasts_the_grace_is_cut_off_in_the_same_process_too() {
    let (running, trigger, _folder, mut client) = start(3600, 300).await;
    client.write_all(b"x").await.unwrap();
    while running.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    trigger.request();
    running.finished().await;
    assert!(begin.elapsed() >= Duration::from_millis(290));
    // Its task is gone, not only forgotten: the connection is closed.
    let end = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
}

#[tokio::test]
async fn fault_while_reloading_keeps_the_old_settings() {
    let (running, trigger, folder, mut client) = start(0, 1000).await;
    assert!(folder.path().join("made/by/launch").is_dir());
    assert!(running.ready_line().starts_with("ready service=slow slow=127.0.0.1:"));
    let bad = Settings { delay: Interval::seconds(13), ..Settings::default() };
    let error = running.reload(bad).await.unwrap_err();
    assert!(error.to_string().contains("program fault"), "{error}");
    let text = running.environment().metrics.render();
    assert!(text.contains("outrider_slow_config_last_reload_successful 0\n"));
    running.reload(Settings::default()).await.unwrap();
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    trigger.request();
    drop(client);
    running.finished().await;
}

#[tokio::test]
async fn background_work_begins_again_after_a_fault() {
    let (running, trigger, _folder, _client) = start(0, 1000).await;
    let end = Instant::now() + Duration::from_secs(20);
    while running.daemon().background_runs.load(Ordering::SeqCst) < 3 {
        assert!(Instant::now() < end, "not started again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(running.environment().metrics.panics(), 2);
    trigger.request();
    running.finished().await;
}
