//! Joins the orchestrator of a data folder, or starts one in the background and waits until it is ready.
//!
//! ```text
//! run ── healthy? ──────────────────────────► client
//!      └ no ─ lock ─ healthy? ──────────────► client        another run has just started it
//!                    └ no ─ serve ─ ready ──► client        as the last one was (`last`), if anything is left of it
//! ```
//!
//! `mayfly serve` says that it is ready by the first line of its standard output, here a pipe; one that ends
//! without it has said why in its log, whose new lines are shown. The credential is not in its environment:
//! it goes with each task, over the socket.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use mayfly_client::{Client, ClientError};
use mayfly_provider_fly::TOKEN;
use mayfly_server::{NO_LINK, ServerConfig, make_data_folder};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;

use crate::claude::Claude;
use crate::config::{Flags, Settings};
use crate::contact::Origin;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::last::Last;
use crate::machines;
use crate::tunnel::Saved;
use crate::values::ProviderName;

/// How one in the background is started; by this it is known.
pub(crate) const BACKGROUND: [&str; 2] = ["serve", "--background"];
/// How long an orchestrator that nobody needs stays.
const IDLE_EXIT: &str = "60s";
/// The longest that one may take to be ready.
const START_MAX: Duration = Duration::from_secs(120);
/// The longest first line.
const READY_BYTES_MAX: u64 = 4 * 1024;
/// How much of the log of a failed start is shown.
const LOG_BYTES_MAX: u64 = 4 * 1024;

/// An orchestrator that answers.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The way to it.
    pub(crate) client: Client,
    /// What was there before.
    pub(crate) was: Was,
    /// The CLI that it was started with, if it was started here.
    pub(crate) claude: Option<PathBuf>,
}

/// What was there before somebody joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// An orchestrator, with a configuration of its own.
    There,
    /// None that anything is left of.
    Nowhere,
    /// One that was killed: the one that was started is like it.
    Killed,
    /// One that its user ended, with tasks left: the one that was started has its limits.
    Ended,
}

/// Joins the orchestrator of a data folder, or starts one.
pub(crate) async fn join(origin: &Origin) -> Result<Joined, Stop> {
    let Origin { data, claude, settings, environment } = origin;
    let client = Client::new(&ServerConfig::in_dir(data).socket());
    if answers(&client).await? {
        return Ok(Joined { client, was: Was::There, claude: None });
    }
    leads_here(data)?;
    can_start(origin)?;
    make_data_folder(data).map_err(Stop::usage)?;
    let _starting = Starting::begin(data).await?;
    if answers(&client).await? {
        return Ok(Joined { client, was: Was::There, claude: None });
    }
    let last = Last::of(data);
    // Of what the last one was like, tasks that are left may depend on all.
    let (claude, settings) = match &last {
        None => (claude.clone(), settings.clone()),
        Some(last) => {
            let settings = remembered(last, environment)?;
            (settings.claude(), settings)
        }
    };
    let claude = machines::cli(&settings, claude, environment).await?;
    start(data, claude.as_ref(), &settings, environment).await?;
    let was = match last {
        None => Was::Nowhere,
        Some(Last { ended: false, .. }) => Was::Killed,
        Some(Last { ended: true, .. }) => Was::Ended,
    };
    Ok(Joined { client, was, claude: claude.map(|claude| claude.path) })
}

/// Whether an orchestrator is there. One that is, and says nothing, is no reason to start another.
async fn answers(client: &Client) -> Result<bool, Stop> {
    match client.healthy().await {
        Ok(()) => Ok(true),
        Err(error @ ClientError::Silent { .. }) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

fn remembered(last: &Last, environment: &Environment) -> Result<Settings, Stop> {
    let read = Settings::load(Some(&last.file), Flags::default(), environment);
    let shown = last.file.display();
    let known = read.with_context(|| {
        format!("what the last orchestrator was like cannot be read: delete `{shown}`, and it is forgotten")
    });
    Ok(known?)
}

/// The turn to start an orchestrator in a data folder; the kernel ends it if we die.
#[derive(Debug)]
pub(crate) struct Starting {
    _lock: File,
}

impl Starting {
    /// Waits until it is our turn.
    pub(crate) async fn begin(data: &Path) -> Result<Self, Stop> {
        Ok(Self { _lock: lock(data.join("start.lock")).await? })
    }
}

/// Where a tunnel is remembered the tasks are elsewhere, and none is begun here unasked.
pub(crate) fn leads_here(data: &Path) -> Result<(), Stop> {
    match Saved::load(data)? {
        None => Ok(()),
        Some(saved) => {
            let (to, file) = (saved.to.without_pin(), Saved::file(data));
            Err(anyhow!(
                "the tunnel to {to} does not run: start it with `mayfly tunnel`; or delete `{}`, and tasks run on this \
                 machine again",
                file.display()
            )
            .into())
        }
    }
}

/// Whether one could be started on this system.
pub(crate) fn can_start(origin: &Origin) -> Result<(), Stop> {
    let Origin { data, settings, environment, .. } = origin;
    let socket = ServerConfig::in_dir(data).socket();
    let what = format!("no orchestrator answers at `{}`, and to start one", socket.display());
    machines::can_be_made(settings, environment, &what)
}

/// The log of the orchestrator in the background.
pub(crate) fn log_file(data: &Path) -> PathBuf {
    data.join("serve.log")
}

/// Held until it is dropped, and released by the kernel if we die.
async fn lock(path: PathBuf) -> Result<File, Stop> {
    let locked = spawn_blocking(move || {
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
        let file = options.open(&path);
        let lock = |file: File| file.lock().map(|()| file);
        file.and_then(lock).with_context(|| format!("cannot lock `{}`", path.display()))
    });
    Ok(locked.await??)
}

async fn start(
    data: &Path,
    claude: Option<&Claude>,
    settings: &Settings,
    environment: &Environment,
) -> Result<(), Stop> {
    let path = log_file(data);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(NO_LINK).open(&path);
    let log = log.with_context(|| format!("cannot write `{}`", path.display()))?;
    let before = log.metadata()?.len();
    let mut child = spawn(data, claude, settings, environment, log)?;
    match tokio::time::timeout(START_MAX, first_line(&mut child)).await {
        // From here on it is on its own.
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(failed(&path, before)),
        Ok(Err(error)) => Err(anyhow!(error).context("lost the orchestrator while it started").into()),
        Err(_) => {
            child.start_kill()?;
            let (waited, log) = (START_MAX.as_secs(), path.display());
            Err(anyhow!("the orchestrator was not ready after {waited}s: see {log}").into())
        }
    }
}

fn spawn(
    data: &Path,
    claude: Option<&Claude>,
    settings: &Settings,
    environment: &Environment,
    log: File,
) -> Result<Child, Stop> {
    let mayfly = std::env::current_exe().context("cannot tell where this program is")?;
    let mut serve = Command::new(&mayfly);
    serve.args(BACKGROUND);
    // It reads what we have read.
    if let Some(file) = settings.file() {
        serve.arg("--config").arg(file);
    }
    if settings.idle_exit().is_none() {
        serve.args(["--idle-exit", IDLE_EXIT]);
    }
    serve.arg("--data").arg(data).args(["--provider", settings.provider().word()]);
    if let Some(claude) = claude {
        serve.arg("--claude").arg(&claude.path);
    }
    serve.env_clear().envs(environment.without_credentials()).current_dir("/");
    if settings.provider() == ProviderName::Fly {
        serve.envs(environment.get(TOKEN).map(|token| (TOKEN, token)));
    }
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let child = serve.spawn().with_context(|| format!("cannot start `{}`", mayfly.display()))?;
    Ok(child)
}

/// Whether it said that it is ready, before it closed its standard output.
async fn first_line(child: &mut Child) -> io::Result<bool> {
    let stdout = child.stdout.take().expect("its standard output is a pipe");
    let mut line = Vec::new();
    BufReader::new(stdout.take(READY_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    Ok(line.ends_with(b"\n"))
}

/// Says what it said.
fn failed(log: &Path, before: u64) -> Stop {
    let said = new_text(log, before).unwrap_or_default();
    let said = said.trim().trim_start_matches("mayfly: ");
    match said.is_empty() {
        true => {
            anyhow!("the orchestrator could not start, and did not say why: see {}", log.display()).into()
        }
        false => anyhow!("the orchestrator could not start: {said}").into(),
    }
}

/// The end of what was appended to the file.
fn new_text(path: &Path, before: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG_BYTES_MAX).max(before);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_only_what_is_new_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serve.log");
        std::fs::write(&path, "an old error\nmayfly: a new one\n").expect("written");
        assert_eq!(new_text(&path, 13).expect("read"), "mayfly: a new one\n");
        let shown: Vec<String> = failed(&path, 13).lines().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["mayfly: the orchestrator could not start: a new one"]);
        let silent: Vec<String> = failed(&path, 31).lines().iter().map(ToString::to_string).collect();
        assert!(silent[0].contains("did not say why") && silent[0].contains("serve.log"), "{silent:?}");
    }
}
