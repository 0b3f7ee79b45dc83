//! A notice by the program `sendmail`: the text by standard input, and nothing that came from a client on the command
//! line.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::settings::NotificationSettings;

/// Hands a message to the program; done when it has ended well. Dropping the future ends the program.
pub(super) async fn send(settings: &NotificationSettings, message: &str) -> std::io::Result<()> {
    let program: &PathBuf = &settings.sendmail;
    let mut child = Command::new(program)
        .arg("-f")
        .arg(&settings.sender)
        .arg("--")
        .args(&settings.recipients)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(message.as_bytes()).await?;
    }
    let status = child.wait().await?;
    if status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{} ended with {status}", program.display())))
    }
}
