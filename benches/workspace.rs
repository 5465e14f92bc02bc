//! What a workspace costs: taking a copy of it, handing it over, and having it in a machine.
//!
//! ```text
//! 20 000 files, 300 MB:  one machine, five at once, and with changes on top, beside machines with an empty workspace and
//!                        beside an overlay alone, the cheapest there is of copies, clones and mounts
//! 100 000 files; 1 GB in one file:  time, and memory of this process with the git that it runs
//! ```
//!
//! A machine's own start is in the times of both contenders; what a workspace adds is the difference.
//! Run: `MAYFLY_TEST_CLAUDE=$(mayfly claude-path) cargo bench --bench workspace`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mayfly_client::Bundle;
use mayfly_core::task::Attempt;
use mayfly_core::{AttemptId, TaskId};
use mayfly_git::{Git, Repo, Snapshot};
use mayfly_provider::{CodeSpec, Limits, MachineSpec, Provider, WorkspaceSpec};
use mayfly_provider_sandbox::Sandbox;
use tempfile::TempDir;

const ROUNDS: usize = 20;
const AT_ONCE: usize = 5;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let place = Place::new(&dir)?;
    let many = place.repository("many", 20_000, 15_000)?;
    let whole = place.hand_over("20 000 files, 300 MB", &many, None).await?;
    place.machines(&many, &whole).await?;
    let more = place.repository("more", 100_000, 200)?;
    let more = place.hand_over("100 000 files", &more, None).await?;
    place.first("100 000 files", &more).await?;
    let large = place.repository("large", 1, 1 << 30)?;
    let large = place.hand_over("1 GB in one file", &large, None).await?;
    place.first("1 GB in one file", &large).await
}

/// Where all of it is.
struct Place {
    top: PathBuf,
    way_out: PathBuf,
    provider: Arc<Sandbox>,
}

impl Place {
    fn new(dir: &TempDir) -> anyhow::Result<Self> {
        let (top, way_out) = (dir.path().to_owned(), dir.path().join("way-out"));
        fs::create_dir(&way_out)?;
        let provider = support::sandbox(&top.join("data"), support::claude()?);
        Ok(Self { top, way_out, provider })
    }

    /// A repository of one commit, with files of so many bytes that nothing makes shorter.
    fn repository(&self, name: &str, files: usize, bytes: usize) -> anyhow::Result<PathBuf> {
        let top = self.top.join(name);
        let mut random = fastrand::Rng::with_seed(1);
        let mut piece = vec![0; bytes.min(1 << 20)];
        for number in 0..files {
            let folder = top.join(format!("{}/{}", number / 1000, number / 50 % 20));
            fs::create_dir_all(&folder)?;
            let mut file = fs::File::create(folder.join(format!("{number}.bin")))?;
            for _ in 0..bytes.div_ceil(piece.len()) {
                random.fill(&mut piece);
                file.write_all(&piece)?;
            }
        }
        git(&top, &["init", "-q"])?;
        git(&top, &["-c", "core.looseCompression=0", "-c", "pack.compression=0", "add", "."])?;
        git(&top, &["commit", "-q", "-m", "all"])?;
        git(&top, &["-c", "pack.compression=0", "repack", "-q", "-a", "-d", "--window=0"])?;
        Ok(top)
    }

    /// Captures and bundles it, as `mayfly run` does, and says what that took.
    async fn hand_over(
        &self,
        what: &str,
        top: &Path,
        on: Option<&WorkspaceSpec>,
    ) -> anyhow::Result<WorkspaceSpec> {
        let watch = support::Watch::start();
        let start = Instant::now();
        let scratch = tempfile::tempdir_in(&self.top)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let repo = Repo::discover(&Git::new(path, None, None), top).await?;
        let (quarantine, Snapshot { base, .. }) = repo.snapshot(scratch.path()).await?;
        let captured = start.elapsed();
        let bundle = self.top.join(format!("{base}.bundle"));
        quarantine.bundle(&base, on.map(|on| on.code.base.as_str()), &bundle).await?;
        let read = Bundle::read(&bundle, None).await?;
        let (bytes, id) = (read.bytes, read.sha256().to_owned());
        println!(
            "{what}: captured in {} ms, a bundle of {bytes} bytes after {} ms; at most {} MB of memory",
            captured.as_millis(),
            start.elapsed().as_millis(),
            watch.end() / 1_000_000
        );
        let code = CodeSpec { id, base, bundle };
        Ok(WorkspaceSpec { name: "code".to_owned(), code, on: on.map(|on| on.code.clone()) })
    }

    /// The first machine with it, for which it is checked out.
    async fn first(&self, what: &str, workspace: &WorkspaceSpec) -> anyhow::Result<()> {
        let watch = support::Watch::start();
        let (took, attempt) = self.machine(Some(workspace)).await?;
        println!(
            "{what}: the first machine after {} ms; at most {} MB of memory",
            took.as_millis(),
            watch.end() / 1_000_000
        );
        Ok(self.provider.destroy(attempt).await?)
    }

    async fn machines(&self, top: &Path, whole: &WorkspaceSpec) -> anyhow::Result<()> {
        self.first("20 000 files, 300 MB", whole).await?;
        fs::write(top.join("0/0/0.bin"), "changed")?;
        let changed = self.hand_over("one file of them changed", top, Some(whole)).await?;
        self.first("one file of them changed", &changed).await?;
        let base = self.top.join("data/bases").join(format!("{}-{}", whole.code.id, whole.code.base));
        let (mut empty, mut one, mut on_top, mut overlay) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut five_empty, mut five) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (times, workspace) in
                [(&mut empty, None), (&mut one, Some(whole)), (&mut on_top, Some(&changed))]
            {
                let (took, attempt) = self.machine(workspace).await?;
                times.push(took);
                self.provider.destroy(attempt).await?;
            }
            overlay.push(self.overlay(&base)?);
            five_empty.push(self.at_once(None).await?);
            five.push(self.at_once(Some(whole)).await?);
        }
        support::print_beside(
            "a machine, from asking for it",
            &[
                ("an empty workspace", &empty),
                ("20 000 files, 300 MB", &one),
                ("with one file of them changed", &on_top),
            ],
        );
        support::print_beside(
            "five machines at once",
            &[("empty workspaces", &five_empty), ("20 000 files, 300 MB each", &five)],
        );
        support::print_beside(
            "beside: `unshare`, and an overlay over the same files mounted in it",
            &[("the overlay", &overlay)],
        );
        Ok(())
    }

    async fn at_once(&self, workspace: Option<&WorkspaceSpec>) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let all: Vec<_> = (0..AT_ONCE).map(|_| self.machine(workspace)).collect();
        let made = futures_util::future::try_join_all(all).await?;
        let took = start.elapsed();
        for (_, attempt) in made {
            self.provider.destroy(attempt).await?;
        }
        Ok(took)
    }

    async fn machine(&self, workspace: Option<&WorkspaceSpec>) -> anyhow::Result<(Duration, AttemptId)> {
        let attempt = TaskId::new(uuid::Uuid::now_v7()).attempt(Attempt(1));
        let ticket = secrecy::SecretString::from("made up");
        let (way_out, limits) = (self.way_out.clone(), Limits::default());
        let workspace = workspace.cloned();
        let spec = MachineSpec { tools: Vec::new(), attempt, ticket, workspace, way_out, limits };
        let start = Instant::now();
        self.provider.create(&spec).await?;
        Ok((start.elapsed(), attempt))
    }

    fn overlay(&self, base: &Path) -> anyhow::Result<Duration> {
        let dir = tempfile::tempdir_in(&self.top)?;
        for name in ["upper", "work", "to"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let at = dir.path().display();
        let options = format!("lowerdir={},upperdir={at}/upper,workdir={at}/work,userxattr", base.display());
        let start = Instant::now();
        let mut command = Command::new("unshare");
        command.args(["-Urm", "mount", "-t", "overlay", "-o", &options, "overlay", &format!("{at}/to")]);
        ensure!(command.status().context("cannot run unshare")?.success(), "no overlay");
        Ok(start.elapsed())
    }
}

fn git(folder: &Path, args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("git");
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "b").env(format!("GIT_{who}_EMAIL"), "b@localhost");
    }
    ensure!(command.status()?.success(), "git {args:?}");
    Ok(())
}
