//! `mayfly serve` and `mayfly tunnel` as processes that are killed and started again.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Where programs are found: nothing else of this environment reaches the processes that we start.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// One that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    child: Child,
    /// Kept open: it may have more to say.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Serving {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(kill_process(pid.context("it ended by itself")?, signal)?)
    }

    /// Ends it with a signal, and waits until it has ended. One that had ended before is an error.
    pub(crate) async fn end(mut self, signal: Signal) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "it ended by itself");
        self.signal(signal)?;
        self.child.wait().await?;
        Ok(())
    }
}

/// Whether the program is built before it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    First,
    /// The program is there.
    Not,
}

/// What it takes to start one.
#[derive(Debug)]
pub(crate) struct Place {
    /// The program: a copy, so that whatever runs it is one of ours.
    pub(crate) mayfly: PathBuf,
    /// The Claude Code CLI that it runs.
    pub(crate) claude: PathBuf,
    /// A folder of our own.
    pub(crate) home: PathBuf,
    /// What else is in the environment of the program.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Place {
    /// Builds the program, and finds or fetches the CLI if none is named.
    pub(crate) async fn prepare(home: &Path, how: Build, claude: Option<PathBuf>) -> anyhow::Result<Self> {
        if how == Build::First {
            let cargo = Command::new("cargo").args(["build", "--package", "mayfly"]).status();
            ensure!(cargo.await.context("cannot run `cargo`")?.success(), "mayfly does not build");
        }
        let (program, mayfly) = (std::env::current_exe()?.with_file_name("mayfly"), home.join("mayfly"));
        std::fs::copy(&program, &mayfly).with_context(|| format!("cannot copy `{}`", program.display()))?;
        let claude = match claude {
            Some(claude) => claude,
            None => pinned(&mayfly).await?,
        };
        Ok(Self { mayfly, claude, home: home.to_owned(), environment: Vec::new() })
    }

    /// The orchestrator's data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The program, with an environment of ours.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.mayfly);
        command.env_clear().env("PATH", PATH).env("HOME", &self.home).current_dir(&self.home);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts an orchestrator, and waits until it serves.
    pub(crate) async fn serve(&self, listen: SocketAddr) -> anyhow::Result<Serving> {
        let (claude, listen, data) = (self.claude.as_os_str(), listen.to_string(), self.data());
        let serve = ["--claude".as_ref(), claude, "serve".as_ref(), "--listen".as_ref(), listen.as_ref()];
        self.start(&serve, &data).await
    }

    /// Starts what says on standard output that it serves, and waits for that.
    pub(crate) async fn start(&self, args: &[&OsStr], data: &Path) -> anyhow::Result<Serving> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.command();
        command.args(args).arg("--data").arg(data).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("its standard output is a pipe")?;
        let mut said = BufReader::new(stdout).lines();
        match said.next_line().await? {
            Some(line) if line.starts_with("serving on") => Ok(Serving { child, _said: said }),
            _ => bail!("`mayfly` did not start with {args:?}: see {}", self.log().display()),
        }
    }

    /// What all of them said.
    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("serve.log")
    }
}

/// The CLI that the program is made for.
async fn pinned(mayfly: &Path) -> anyhow::Result<PathBuf> {
    let found = Command::new(mayfly).arg("claude-path").stderr(Stdio::inherit()).output().await;
    let found = found.with_context(|| format!("cannot run `{}`", mayfly.display()))?;
    ensure!(found.status.success(), "there is no Claude Code CLI to run");
    Ok(PathBuf::from(String::from_utf8(found.stdout)?.trim_end()))
}
