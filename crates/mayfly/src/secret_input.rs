//! Where a secret of the user's comes from, which is never the command line: whoever may list processes sees that.
//!
//! A file, standard input, what a command prints, or a prompt on the terminal that shows nothing of it. Bound:
//! [`SECRET_BYTES_MAX`].

use std::io::{self, BufRead as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use mayfly_wire::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::task::spawn_blocking;

use crate::credential::SECRET_BYTES_MAX;
use crate::exit::Stop;
use crate::interrupts::Interrupts;

/// Where to read it.
#[derive(Debug)]
pub(crate) enum Source {
    /// This file; `-` is standard input.
    File(PathBuf),
    /// What this command of the shell prints.
    Command(String),
    /// The terminal, by a prompt; standard input where there is none.
    Asked,
}

/// Reads the secret, without white space at its ends.
pub(crate) async fn read(source: Source, interrupts: &mut Interrupts) -> Result<Secret, Stop> {
    let hidden = match &source {
        Source::Asked => Hidden::of_terminal()?,
        Source::File(_) | Source::Command(_) => None,
    };
    let reading = async {
        match source {
            Source::Command(command) => printed(&command).await,
            Source::File(path) if path == Path::new("-") => blocking(|| whole(io::stdin())).await,
            Source::File(path) => blocking(move || whole(open(&path)?)).await,
            Source::Asked if hidden.is_some() => blocking(line).await,
            Source::Asked => blocking(|| whole(io::stdin())).await,
        }
    };
    let bytes = interrupts.or_stop(reading).await;
    drop(hidden);
    secret(&bytes?)
}

fn secret(bytes: &[u8]) -> Result<Secret, Stop> {
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Stop::wrong(format!(
            "a secret has at most {SECRET_BYTES_MAX} bytes: is this the right file?"
        )));
    }
    match std::str::from_utf8(bytes).map(str::trim) {
        Ok("") => Err(Stop::wrong("the secret is empty: nothing was read")),
        Ok(text) => Ok(Secret::from(text.to_owned())),
        Err(_) => Err(Stop::wrong("the secret is not text: is this the right file?")),
    }
}

async fn blocking(read: impl FnOnce() -> anyhow::Result<Vec<u8>> + Send + 'static) -> Result<Vec<u8>, Stop> {
    spawn_blocking(read).await.context("the secret cannot be read")?.map_err(Stop::usage)
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("cannot read the secret from `{}`", path.display()))
}

/// At most one byte more than is allowed, so that the endless ends too.
fn whole(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).context("cannot read the secret")?;
    Ok(bytes)
}

fn line() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = SECRET_BYTES_MAX as u64 + 1;
    io::stdin().lock().take(limit).read_until(b'\n', &mut bytes).context("cannot read the secret")?;
    Ok(bytes)
}

/// The command is the user's own, as typed.
async fn printed(command: &str) -> Result<Vec<u8>, Stop> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::inherit()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = shell.output().await.context("cannot run `sh`")?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            Err(Stop::wrong(format!("the command that was to print the secret failed ({})", output.status)))
        }
    }
}

/// A terminal that shows nothing of what is typed. Dropped, it does again.
#[derive(Debug)]
struct Hidden {
    before: Termios,
}

impl Hidden {
    /// `None`: standard input is no terminal.
    fn of_terminal() -> Result<Option<Self>, Stop> {
        let Ok(before) = tcgetattr(io::stdin()) else { return Ok(None) };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).context("the terminal cannot be silenced")?;
        let hidden = Self { before };
        io::stderr().write_all(b"The secret (it is not shown): ")?;
        Ok(Some(hidden))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
        let _ = io::stderr().write_all(b"\n");
    }
}
