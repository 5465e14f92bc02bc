//! Bringing work out of a machine: 10,000 small files that were all changed, and one new file of 1 GB, against
//! `tar | zstd` of the same on this host.
//!
//! The two do not do equal work. Ours begins with the end of `claude` and is over once the changes are on the
//! orchestrator's disk as a git bundle, were searched for the task's credential, and the log tells of it; what did not
//! change was looked at too. The other is over once its archive is on the disk. All files were written just before.
//!
//! Run: `MAYFLY_TEST_CLAUDE=$(mayfly claude-path) cargo bench --bench collect -- [PAIRS] [PAIRS OF THE LARGE FILE]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use mayfly_client::{Bundle, Client};
use mayfly_engine::SystemClock;
use mayfly_git::{Git, Repo};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_server::{Server, ServerConfig};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Workspace};
use mayfly_wire::event::{Event, MayflyEvent};

const FILES: usize = 10_000;
/// Words of each of them: about 4 KB.
const WORDS: usize = 600;
const LARGE_BYTES: u64 = 1 << 30;
const PAIRS: usize = 9;
const LARGE_PAIRS: usize = 3;
const TOKEN: &str = "sk-ant-oat01-made-up";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (pairs, large_pairs) = (numbers.next().unwrap_or(PAIRS), numbers.next().unwrap_or(LARGE_PAIRS));
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let bed = Bed::start(dir.path()).await?;
    let small = Work {
        what: format!("{FILES} small files, each changed"),
        command: "for file in d*/*; do echo changed >> $file; done".to_owned(),
        repo: dir.path().join("small"),
    };
    small.make(words)?;
    bed.measure(&small, pairs).await?;
    let large = Work {
        what: "one new file of 1 GB that nothing makes shorter".to_owned(),
        command: format!("head -c {LARGE_BYTES} /dev/urandom > large.bin"),
        repo: dir.path().join("large"),
    };
    large.make(|_| Ok(()))?;
    bed.measure(&large, large_pairs).await?;
    bed.end().await;
    Ok(())
}

/// What an agent does.
struct Work {
    what: String,
    command: String,
    /// What it begins with; the same is done there for the other contender.
    repo: PathBuf,
}

impl Work {
    fn make(&self, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        fs::create_dir(&self.repo)?;
        fs::write(self.repo.join("kept.txt"), "kept\n")?;
        fill(&self.repo)
    }

    fn shell(&self, command: &str) -> anyhow::Result<()> {
        let status = Command::new("sh").args(["-c", command]).current_dir(&self.repo).status()?;
        ensure!(status.success(), "`{command}` failed");
        Ok(())
    }

    /// Does the work here, and packs it.
    fn tar(&self) -> anyhow::Result<Duration> {
        self.shell(&self.command)?;
        let start = Instant::now();
        self.shell("tar cf - --exclude=.git . | zstd -q -f -o ../archive && sync ../archive")?;
        Ok(start.elapsed())
    }
}

/// Text of words that repeat.
fn words(repo: &Path) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let word = |random: &mut fastrand::Rng| -> String {
        (0..random.usize(2..9)).map(|_| random.lowercase()).collect()
    };
    let all: Vec<String> = (0..2000).map(|_| word(&mut random)).collect();
    for file in 0..FILES {
        let folder = repo.join(format!("d{}", file / 100));
        fs::create_dir_all(&folder)?;
        let text: Vec<&str> = (0..WORDS).map(|_| all[random.usize(..all.len())].as_str()).collect();
        fs::write(folder.join(format!("f{file}.txt")), text.join(" ") + "\n")?;
    }
    Ok(())
}

/// An orchestrator, and a model that plays a script.
struct Bed {
    api: ScriptedApi,
    server: Server,
    client: Client,
}

impl Bed {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let accepted = Accepted::Oauth(TOKEN.to_owned());
        let api = ScriptedApi::start_paced("127.0.0.1:0".parse()?, accepted, 0.0).await?;
        let config = ServerConfig::in_dir(dir.join("data"));
        fs::create_dir(&config.data)?;
        let provider = support::sandbox(&config.data, support::claude()?);
        let server = Server::start(config, provider, std::sync::Arc::new(SystemClock)).await?;
        let client = Client::new(&server.socket());
        Ok(Self { api, server, client })
    }

    async fn measure(&self, work: &Work, pairs: usize) -> anyhow::Result<()> {
        let workspace = self.hand_over(&work.repo).await?;
        let (mut times, mut memory) = (support::Pairs::default(), 0);
        for _ in 0..pairs {
            let (ours, most) = self.collect(work, &workspace).await?;
            memory = memory.max(most);
            times.push(ours, tokio::task::block_in_place(|| work.tar())?);
        }
        times.print(
            &format!("collect: {}", work.what),
            "mayfly: a bundle, searched and durable",
            "tar | zstd",
        );
        println!("  at most {} MB of memory, the orchestrator's and the machine's", memory / 1_000_000);
        Ok(())
    }

    async fn hand_over(&self, top: &Path) -> anyhow::Result<Workspace> {
        let git = Git::new(std::env::var_os("PATH").unwrap_or_default(), None, None);
        mayfly_git::create(&git, top, "first").await?;
        let scratch = tempfile::tempdir()?;
        let (quarantine, snapshot) = Repo::discover(&git, top).await?.snapshot(scratch.path()).await?;
        let bundle = scratch.path().join("base.bundle");
        quarantine.bundle(&snapshot.base, None, &bundle).await?;
        Ok(self.client.upload_workspace("repo", &Bundle::read(&bundle, None).await?).await?)
    }

    /// How long it took from the end of `claude` until the work was out, and the most memory meanwhile.
    async fn collect(&self, work: &Work, workspace: &Workspace) -> anyhow::Result<(Duration, u64)> {
        let (kind, url) = (CredentialKind::OauthToken, Some(self.api.base_url()));
        let create = CreateTask {
            prompt: format!("[script: bash command=\"{}\"]", work.command),
            workspace: Some(workspace.clone()),
            credential: Some(Credential::new(kind, TOKEN.to_owned().into(), url)),
            ..CreateTask::default()
        };
        let task = self.client.submit(&create, &uuid::Uuid::now_v7().to_string()).await?;
        let mut events = self.client.events(&task.id, 0);
        let mut began: Option<(Timestamp, support::Watch)> = None;
        let mut took = None;
        while let Some(line) = events.next().await? {
            let event = Event::parse(&line)?;
            match event.event {
                Some(MayflyEvent::Collecting { .. }) => began = Some((event.at, support::Watch::start())),
                Some(MayflyEvent::Collected { result }) => {
                    ensure!(result.bundle && result.unsaved.is_empty(), "{result:?}");
                    let (at, watch) = began.take().context("it was not begun")?;
                    took = Some((Duration::try_from(event.at.duration_since(at))?, watch.end()));
                }
                _ => {}
            }
        }
        let summary = self.client.task(&task.id).await?;
        ensure!(summary.outcome.is_some_and(|outcome| outcome.name == "succeeded"), "it did not end well");
        took.context("nothing came out")
    }

    async fn end(self) {
        self.server.stop().await;
        self.api.stop().await;
    }
}
