//! `mayfly serve` as a process that is killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where programs are found: nothing else of this environment reaches the orchestrator.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// What it takes to start one.
#[derive(Debug)]
pub(crate) struct Place {
    /// The program, built beside this one.
    pub(crate) mayfly: PathBuf,
    /// The Claude Code CLI that it runs.
    pub(crate) claude: PathBuf,
    /// A folder of our own.
    pub(crate) home: PathBuf,
}

impl Place {
    /// Builds the program, and finds or fetches the CLI.
    pub(crate) async fn prepare(home: &Path) -> anyhow::Result<Self> {
        let built = Command::new("cargo").args(["build", "--quiet", "--package", "mayfly"]).status().await;
        ensure!(built.context("cannot run `cargo`")?.success(), "mayfly does not build");
        let mayfly = std::env::current_exe()?.with_file_name("mayfly");
        let found = Command::new(&mayfly).arg("claude-path").stderr(Stdio::inherit()).output().await;
        let found = found.with_context(|| format!("cannot run `{}`", mayfly.display()))?;
        ensure!(found.status.success(), "there is no Claude Code CLI to run");
        let claude = PathBuf::from(String::from_utf8(found.stdout)?.trim_end());
        Ok(Self { mayfly, claude, home: home.to_owned() })
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Starts one, and waits until it serves.
    pub(crate) async fn serve(&self) -> anyhow::Result<Child> {
        let mut serve = Command::new(&self.mayfly);
        serve.env_clear().env("PATH", PATH).env("HOME", &self.home).kill_on_drop(true);
        serve.arg("--claude").arg(&self.claude).args(["serve", "--listen", "127.0.0.1:0"]);
        serve.arg("--data").arg(self.data()).stdin(Stdio::null()).stdout(Stdio::piped());
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut child = serve.stderr(log).spawn()?;
        let stdout = child.stdout.take().context("its standard output is a pipe")?;
        match BufReader::new(stdout).lines().next_line().await? {
            Some(line) if line.starts_with("serving on") => Ok(child),
            _ => bail!("the orchestrator did not start: see {}", self.log().display()),
        }
    }

    /// What all of them said.
    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("serve.log")
    }
}
