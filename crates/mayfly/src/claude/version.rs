//! Asks a binary of unknown digest whether it is the Claude Code CLI: `PATH --version`, once.
//!
//! It gets an empty folder as its home, and nothing of the user's environment.
//!
//! Bounds: [`ANSWER_MAX`] for the answer, [`ANSWER_BYTES_MAX`] of it.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::ClaudeError;
use crate::printer::Shown;

/// The longest that it may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 1024;
/// How much of a wrong answer is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Refuses what does not answer as the CLI does.
pub(super) async fn check(path: &Path) -> Result<(), ClaudeError> {
    let said = match first_line(path, "--version").await {
        Ok(answer) if is_version(&answer) => return Ok(()),
        Ok(answer) => match Shown::line(&answer, SHOWN_CHARS_MAX) {
            nothing if nothing.as_str().is_empty() => "printed nothing".to_owned(),
            line => format!("printed `{line}`"),
        },
        Err(error) if error.kind() == io::ErrorKind::TimedOut => error.to_string(),
        Err(error) => format!("could not be run ({error})"),
    };
    Err(ClaudeError::NotClaude { path: path.to_owned(), said })
}

/// The first line that a program prints when it is asked by this argument, in an environment without anything of the user's.
pub(crate) async fn first_line(path: &Path, argument: &str) -> io::Result<String> {
    timeout(ANSWER_MAX, ask(path, argument)).await.unwrap_or_else(|_| {
        let words = format!("printed nothing in {}s", ANSWER_MAX.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, words))
    })
}

async fn ask(path: &Path, argument: &str) -> io::Result<String> {
    let home = tempfile::tempdir()?;
    // It is run elsewhere.
    let mut command = Command::new(std::path::absolute(path)?);
    command.arg(argument).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path());
    command.current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut answer = Vec::new();
    let stdout = child.stdout.take().expect("its standard output is a pipe");
    stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    child.kill().await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().trim().to_owned())
}

/// Whether it is such as `2.1.330 (Claude Code)`.
fn is_version(answer: &str) -> bool {
    let Some(version) = answer.strip_suffix(" (Claude Code)") else { return false };
    let parts: Vec<&str> = version.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(number)
}
