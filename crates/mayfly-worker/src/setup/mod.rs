//! The set-up commands of a repository, before `claude` is started.
//!
//! ```text
//! key: CLI, lock files ──► kept for it? ──yes──► unpack ─────────────────► claude
//!                              └────no───► commands ──► pack, hand over ──► claude
//! ```
//!
//! They run as the agent does: by the same user, in the workspace, with the same way to other hosts and without any
//! credential. What they print is in the log as lines of the standard error. What they made is packed before the agent
//! has begun, when nothing runs any more, so no agent has a say in what later machines get. The orchestrator keeps it for
//! the repository and the commands alone. What they put into the CLI's own folder is gone when that is filled. What they
//! changed besides, and nobody touched since, is not the agent's work ([`made`]).
//!
//! Bounds: the time of the commands, all in all, and [`KEEPING_MAX`] for taking what is kept and for handing it over; the
//! machine's disk for each of them; [`STDERR_BYTES_MAX`](crate::listen::STDERR_BYTES_MAX) of each command's output;
//! [`LOCK_FILE_BYTES_MAX`]; those of [`archive`].

mod archive;
pub(crate) mod made;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use mayfly_core::causes;
use mayfly_failpoint::failpoint;
use mayfly_wire::api::Setup;
use mayfly_wire::boot::DiskLimit;
use mayfly_wire::worker::{End, Report, SETUP_BYTES_MAX, SETUP_PATH, Source};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::archive::{BadArchive, Stoppable, pack, unpack};
use crate::claude::command::give_surroundings;
use crate::disk;
use crate::exchange::{Exchange, ExchangeError};
use crate::listen::output;
use crate::reaper::{KillOnDrop, Reaper};
use crate::uplink::Outlet;

/// How long a pipe is read that outlives its command.
const DRAIN: Duration = Duration::from_secs(2);
/// The longest that it takes to take what is kept, and to hand it over: what takes longer is not worth it.
const KEEPING_MAX: Duration = Duration::from_secs(5 * 60);
/// The longest lock file.
const LOCK_FILE_BYTES_MAX: u64 = 64 << 20;
/// What is kept differs where this does.
const KEY_OF: &[u8] = b"mayfly set-up 1";

/// Why the workspace is not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A command could not be started.
    #[error("the set-up command `{command}` cannot be started")]
    Start {
        /// Which.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("the set-up command `{command}` {end}")]
    Failed {
        /// Which.
        command: String,
        /// How it ended, and what it said last.
        end: String,
    },
    /// They took too long.
    #[error("the set-up commands were not done within {} s: it was at `{command}`", time.as_secs())]
    Late {
        /// The last one.
        command: String,
        /// How long they had.
        time: Duration,
    },
    /// They took too much of the disk.
    #[error("the set-up commands took too much of the disk: {0}")]
    Disk(String),
    /// A lock file cannot be read.
    #[error("the lock file `{file}` of the set-up cannot be read")]
    LockFile {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What it takes to set a workspace up.
#[derive(Debug)]
pub(crate) struct SettingUp<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) workspace: &'a Path,
    pub(crate) home: &'a Path,
    pub(crate) egress_port: Option<u16>,
    /// The version of the CLI that is asked for.
    pub(crate) version: Option<&'a str>,
    pub(crate) exchange: &'a Exchange<'a>,
    pub(crate) reaper: &'a Reaper,
    pub(crate) outlet: &'a Outlet,
    pub(crate) disk: Option<DiskLimit>,
    /// Whether an agent has worked here before: what is made then is for nobody else.
    pub(crate) is_resumed: bool,
}

impl SettingUp<'_> {
    /// Runs the commands, or takes what they made before.
    pub(crate) async fn prepare(&self) -> Result<(), SetupError> {
        let key = if self.can_keep() { Some(self.key()?) } else { None };
        if let Some(key) = &key
            && self.take(key).await
        {
            return Ok(());
        }
        let ran = tokio::select! {
            ran = self.run() => ran,
            over = disk::over(self.disk.clone()) => Err(SetupError::Disk(over)),
        };
        // Nothing of theirs lives on beside the agent, or changes what is packed.
        self.reaper.kill_all_others();
        ran?;
        failpoint("setup-ran");
        if let Some(key) = key.filter(|_| !self.is_resumed) {
            self.give(&key).await;
        }
        Ok(())
    }

    /// What is in the repository already would be another commit's next time.
    pub(crate) fn can_keep(&self) -> bool {
        let absent = |folder: &String| self.workspace.join(folder).symlink_metadata().is_err();
        !self.setup.keep.is_empty() && self.setup.keep.iter().all(absent)
    }

    /// The same key is the same outcome of the commands, as their owner says.
    fn key(&self) -> Result<String, SetupError> {
        let mut key = Sha256::new();
        let mut part = |bytes: &[u8]| {
            key.update((bytes.len() as u64).to_le_bytes());
            key.update(bytes);
        };
        part(KEY_OF);
        part(self.version.unwrap_or_default().as_bytes());
        for file in &self.setup.lock_files {
            part(file.as_bytes());
            let digest = digest(self.workspace, file);
            let digest = digest.map_err(|source| SetupError::LockFile { file: file.clone(), source })?;
            part(&digest.unwrap_or_default());
        }
        Ok(hex::encode(key.finalize()))
    }

    /// Takes what is kept. `false`: there is nothing, or it is of no use.
    async fn take(&self, key: &str) -> bool {
        let threads = TaskTracker::new();
        let taken = self.bounded(self.try_to_take(key, &threads)).await;
        // One that was stopped has a piece left to write at most.
        threads.close();
        threads.wait().await;
        match taken {
            Ok(true) => {
                self.say(&format!("set-up: {} as an earlier task left it", self.setup.keep.join(", "))).await;
                true
            }
            Ok(false) => false,
            Err(error) => {
                for folder in &self.setup.keep {
                    // It was not there before. If it cannot go, the commands say so.
                    let _ = std::fs::remove_dir_all(self.workspace.join(folder));
                }
                self.warn(&format!("what was kept of the set-up is of no use: {}", causes(&error))).await;
                false
            }
        }
    }

    async fn try_to_take(&self, key: &str, threads: &TaskTracker) -> Result<bool, KeepError> {
        let scratch = TempDir::new_in(self.home)?;
        let file = scratch.path().join("kept");
        match self.exchange.fetch(&format!("{SETUP_PATH}{key}"), &file, SETUP_BYTES_MAX).await {
            Err(ExchangeError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(false),
            fetched => fetched?,
        }
        failpoint("setup-fetched");
        let (top, keep) = (self.workspace.to_owned(), self.setup.keep.clone());
        let stop = CancellationToken::new();
        let from = Stoppable { file: File::open(file)?, stop: stop.clone() };
        let _stop = stop.drop_guard();
        let unpacked = threads.spawn_blocking(move || unpack(from, &top, &keep)).await;
        unpacked.expect("it does not panic")?;
        failpoint("setup-unpacked");
        Ok(true)
    }

    /// Hands over what the commands made. Without that the next machine runs them again.
    async fn give(&self, key: &str) {
        if let Err(error) = self.bounded(self.try_to_give(key)).await {
            self.warn(&format!("what the set-up made was not kept for later tasks: {}", causes(&error)))
                .await;
        }
    }

    async fn try_to_give(&self, key: &str) -> Result<(), KeepError> {
        let scratch = TempDir::new_in(self.home)?;
        let file = scratch.path().join("kept");
        let (top, keep) = (self.workspace.to_owned(), self.setup.keep.clone());
        let stop = CancellationToken::new();
        let to = Stoppable { file: File::create(&file)?, stop: stop.clone() };
        let _stop = stop.drop_guard();
        let packed = tokio::task::spawn_blocking(move || pack(&top, &keep, to)).await;
        packed.expect("it does not panic")?;
        failpoint("setup-packed");
        self.exchange.put_at(&format!("{SETUP_PATH}{key}"), &file).await?;
        failpoint("setup-handed");
        Ok(())
    }

    /// Takes or hands over in time, and as long as there is room.
    async fn bounded<T>(&self, part: impl Future<Output = Result<T, KeepError>>) -> Result<T, KeepError> {
        tokio::select! {
            done = timeout(KEEPING_MAX, part) => done.unwrap_or(Err(KeepError::Late)),
            over = disk::over(self.disk.clone()) => Err(KeepError::Full(over)),
        }
    }

    async fn run(&self) -> Result<(), SetupError> {
        let time = Duration::from_millis(self.setup.timeout_ms);
        let deadline = Instant::now() + time;
        for command in &self.setup.commands {
            self.say(&format!("set-up: {command}")).await;
            let ran = timeout_at(deadline, self.run_one(command)).await;
            ran.map_err(|_| SetupError::Late { command: command.clone(), time })??;
        }
        Ok(())
    }

    async fn run_one(&self, words: &str) -> Result<(), SetupError> {
        let mut command = Command::new("/bin/sh");
        command.env_clear().current_dir(self.workspace).process_group(0);
        give_surroundings(&mut command, self.home, self.egress_port);
        // One stream, so that the lines stay in their order.
        command.arg("-c").arg(format!("exec 2>&1\n{words}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let named = || words.to_owned();
        let child = self.reaper.spawn(&mut command);
        let child = child.map_err(|source| SetupError::Start { command: named(), source })?;
        let _killed = KillOnDrop(child.handle);
        let (exited, exit) = watch::channel(false);
        let stdout = child.stdout.expect("it is a pipe");
        let reading = output(stdout, "a set-up command", self.outlet.clone(), exit, DRAIN);
        let ending = async {
            let status = child.end.await;
            exited.send_replace(true);
            status
        };
        let (said, status) = tokio::join!(reading, ending);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(SetupError::Failed { command: named(), end: how(status, &said) }),
            Err(_) => Err(SetupError::Failed { command: named(), end: "was not heard to end".to_owned() }),
        }
    }

    async fn say(&self, line: &str) {
        self.outlet.say(Source::Stderr, vec![(Bytes::from(line.to_owned()), End::Newline)]).await;
    }

    async fn warn(&self, text: &str) {
        self.outlet.report(&Report::Warning { text: text.to_owned() }).await;
    }
}

/// How a command ended, with the last line that it said.
fn how(status: ExitStatus, said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map(|line| format!(": {}", crate::claude::interpret::shorten(line))).unwrap_or_default();
    match status.code() {
        Some(code) => format!("failed with {code}{last}"),
        None => format!("was killed ({status}){last}"),
    }
}

/// The SHA-256 of a file of the workspace, read beneath it; `None`: it is not there.
fn digest(workspace: &Path, file: &str) -> io::Result<Option<Vec<u8>>> {
    let top = openat2(CWD, workspace, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match openat2(top, file, flags, Mode::empty(), beneath) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        opened => File::from(opened?),
    };
    let is = file.metadata()?;
    if !is.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    if is.len() > LOCK_FILE_BYTES_MAX {
        let words = format!("it has {} bytes, and {LOCK_FILE_BYTES_MAX} are the most", is.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    let (mut sha256, mut piece) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Some(sha256.finalize().to_vec())),
            read => sha256.update(&piece[..read]),
        }
    }
}

/// Why nothing was kept, or taken of what is.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Archive(#[from] BadArchive),
    #[error("it was not handed over")]
    Exchange(#[from] ExchangeError),
    #[error("there is no room for it")]
    Disk(#[from] io::Error),
    #[error("it would take too much of the disk: {0}")]
    Full(String),
    #[error("it takes more than {} s", KEEPING_MAX.as_secs())]
    Late,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mayfly_link::{BackOff, Endpoint, Route};
    use mayfly_wire::Secret;
    use mayfly_wire::worker::{Hello, PROTOCOL};

    use super::*;
    use crate::outbox::Bounds;
    use crate::reaper::Realm;
    use crate::spool::Spool;
    use crate::uplink;

    fn setup() -> Setup {
        let lists = [["true"], ["deps.lock"], ["deps"]].map(|list| list.map(str::to_owned).to_vec());
        let [commands, lock_files, keep] = lists;
        Setup { commands, lock_files, keep, repository: None, timeout_ms: 1000 }
    }

    /// What was made before is a short cut: without it the commands run.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (way, token) = (Route::from(Endpoint::Unix("/nonexistent".into())), Secret::from("t".to_owned()));
        let hello = Hello {
            protocol: PROTOCOL,
            attempt: String::new(),
            ticket: Secret::from(String::new()),
            link: Secret::from(String::new()),
        };
        let room = (Bounds::USUAL, Spool::on_disk_of(dir.path(), 0));
        let link = uplink::start(Arc::new(way.clone()), hello, BackOff::new(|| 0), room);
        let setting_up = SettingUp {
            setup: &setup(),
            workspace: dir.path(),
            home: dir.path(),
            egress_port: None,
            version: None,
            exchange: &Exchange { way: &way, token: &token, random: || 0 },
            reaper: &Reaper::start(Realm::Children).unwrap(),
            outlet: &link.outlet,
            disk: None,
            is_resumed: false,
        };
        let begun = Instant::now();
        assert!(!setting_up.take(&"a".repeat(64)).await);
        assert_eq!(begun.elapsed(), KEEPING_MAX);
    }

    #[test]
    fn a_lock_file_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("deps.lock")).unwrap();
        assert!(digest(dir.path(), "deps.lock").unwrap().is_some());
        file.set_len(LOCK_FILE_BYTES_MAX + 1).unwrap();
        let refused = digest(dir.path(), "deps.lock").unwrap_err().to_string();
        assert!(refused.contains("67108864 are the most"), "{refused}");
        assert_eq!(digest(dir.path(), "none").unwrap(), None);
    }
}
