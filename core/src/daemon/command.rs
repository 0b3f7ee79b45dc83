//! The command line of a daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::run::launch_on;
use super::{Daemon, Environment, StartError};
use crate::clock::TestClock;
use crate::net::{self, Inherited, Shutdown};
use crate::settings::{self, DaemonSettings, Loaded};

/// The main function of a daemon's binary.
pub fn main<D: Daemon>() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config: Option<PathBuf> = None;
    let mut state: Option<PathBuf> = None;
    let mut clock: Option<i64> = None;
    let mut check = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--config" => config = arguments.next().map(PathBuf::from),
            "--state-directory" => state = arguments.next().map(PathBuf::from),
            "--test-clock" => clock = arguments.next().and_then(|text| text.parse().ok()),
            "--check" | "-t" => check = true,
            other => {
                eprintln!("{}: unknown argument {other:?}", D::NAME);
                return ExitCode::from(64);
            }
        }
    }
    let loaded = match settings::load::<D::Settings>(config.as_deref(), D::NAME) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if check {
        return ExitCode::SUCCESS;
    }
    let state = state.unwrap_or_else(|| PathBuf::from(format!("/var/lib/outrider/{}", D::NAME)));
    let mut env = Environment::system(D::NAME, state);
    if let Some(seconds) = clock {
        env.clock = Arc::new(TestClock::new(seconds));
    }
    match run::<D>(loaded, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", D::NAME);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run<D: Daemon>(loaded: Loaded<D::Settings>, env: Environment) -> Result<(), StartError> {
    std::fs::create_dir_all(&env.state_directory)
        .map_err(|error| StartError::File(env.state_directory.clone(), error))?;
    let sockets = net::bind(
        &loaded.settings.listeners(),
        Inherited::from_environment()?,
        loaded.settings.frame().process,
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Other(Box::new(error)))?;
    runtime.block_on(async {
        let (trigger, shutdown) = Shutdown::new();
        let running = launch_on::<D>(loaded.settings, env, shutdown, sockets).await?;
        let mut ready = format!("ready service={}", D::NAME);
        for listener in &running.bound {
            ready.push_str(&format!(" {listener}"));
        }
        println!("{ready}");
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|error| StartError::Other(Box::new(error)))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        trigger.request();
        running.finished().await;
        Ok(())
    })
}
