//! `outrider demo`: all five daemons on free ports and embedded databases, and a short true story told over the
//! real protocols. Nothing is installed, nothing outside a temporary folder is written.

use std::process::ExitCode;

use anyhow::{Context, Result};

mod client;
mod dns;
mod narrator;
mod next_hop;
mod story;
mod world;

use narrator::Narrator;

/// Plays the story. Exit status 0 if every promise was kept, 1 if one was broken, 70 if the story could not be told.
pub(crate) fn run() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outrider demo: {error}");
            return ExitCode::from(crate::exit::SYSTEM);
        }
    };
    match runtime.block_on(tell()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(crate::exit::NEGATIVE),
        Err(error) => {
            eprintln!("outrider demo: {error:#}");
            ExitCode::from(crate::exit::INTERNAL)
        }
    }
}

async fn tell() -> Result<bool> {
    println!(
        "Five daemons, on free ports of this machine and with embedded databases in a temporary folder:\n"
    );
    let mut world = world::World::start().await.context("starting the daemons")?;
    for line in world.ready_lines() {
        println!("   {line}");
    }
    let mut narrator = Narrator::default();
    let told = story::tell(&mut world, &mut narrator).await;
    world.stop().await;
    told?;
    Ok(narrator.finish())
}
