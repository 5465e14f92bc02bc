//! The checkouts that workspaces start from: made once for each bundle and commit, shared, never written again.
//!
//! ```text
//! bases/<bundle's digest>-<commit>/         a repository with `main` checked out at the commit
//! bases/<bundle's digest>-<commit>.making/  one being made; renamed when it is whole. Also one being removed
//! ```
//!
//! A bundle is only believed if its SHA-256 is its id. Git runs with an environment built from nothing, without
//! any configuration but the flags given here, and without hooks; a submodule is not fetched. Machines lay an
//! overlay over the checkout, whose lower part must not change: hence the rename, and the refreshed index.
//!
//! Bound: `GIT_MAX` for one git command. How many there are, and which is removed, is [`shelf`](crate::shelf)'s
//! business.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mayfly_provider::WorkspaceSpec;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Step};
use crate::lock::Lock;
use crate::{process, shelf};

/// The longest that one git command may take.
const GIT_MAX: Duration = Duration::from_secs(600);
/// How much of git's own words is shown when it fails.
const GIT_WORDS_MAX: usize = 600;
/// An id is that of a SHA-256, a commit's that of SHA-1 or SHA-256, in hex.
const ID_CHARS: usize = 64;
const COMMIT_CHARS: [usize; 2] = [40, 64];

/// All the configuration that git has.
const SETTINGS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "fetch.fsckObjects=true",
    "submodule.recurse=false",
    "advice.detachedHead=false",
    "gc.auto=0",
    "maintenance.auto=false",
];
/// Old mistakes in real histories that harm nobody; every other finding of git's check is an error.
const HARMLESS: [&str; 4] = ["zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone", "missingEmail"];

/// The checkout for `workspace` below `bases`, made now if nobody has yet, and the lock that keeps it. `owner` is whose
/// files they are to be.
pub(crate) fn checkout(
    bases: &Path,
    workspace: &WorkspaceSpec,
    owner: Option<u32>,
) -> Result<(PathBuf, Lock), Failure> {
    check_names(workspace)?;
    let base = bases.join(format!("{}-{}", workspace.id, workspace.base));
    loop {
        // Waits for whoever makes it.
        if let Some(held) = shelf::hold(&base)? {
            return Ok((base, held));
        }
        // To wait for the whole lock would be to wait for the end of every machine that uses the base by then.
        let lock = Lock::acquire_if_free(&shelf::lock_of(&base)).step("lock the workspace's base")?;
        let Some(lock) = lock.filter(|_| !base.is_dir()) else { continue };
        if let Err(failure) = make_at(&base, workspace, owner) {
            lock.remove().step("unlock the workspace's base")?;
            return Err(failure);
        }
    }
}

/// Whether a base could have this name.
pub(crate) fn is_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(id, commit)| is_id(id) && is_commit(commit))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && is_hex(text)
}

fn is_commit(text: &str) -> bool {
    COMMIT_CHARS.contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_names(workspace: &WorkspaceSpec) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::new(format!("the workspace's {what}; this is a fault in mayfly")));
    if !is_id(&workspace.id) {
        return wrong("id is not a SHA-256 in hex");
    }
    if !is_commit(&workspace.base) {
        return wrong("base is not a commit in hex");
    }
    let plain = !workspace.name.is_empty() && !workspace.name.contains(['/', '\0']);
    if !plain || matches!(workspace.name.as_str(), "." | "..") {
        return wrong("name is not one plain file name");
    }
    Ok(())
}

/// Makes it beside its place, and moves it there when it is whole.
fn make_at(base: &Path, workspace: &WorkspaceSpec, owner: Option<u32>) -> Result<(), Failure> {
    let making = shelf::making_of(base);
    shelf::make_room(base)?;
    let made = make(&making, workspace, owner)
        .and_then(|()| fs::rename(&making, base).step("put the workspace's base in its place"));
    if made.is_err() {
        crate::remove::remove_tree(&making).step("remove a base that was not made")?;
    }
    made
}

fn make(making: &Path, workspace: &WorkspaceSpec, owner: Option<u32>) -> Result<(), Failure> {
    check_bundle(workspace)?;
    crate::remove::remove_tree(making).step("remove a half-made base")?;
    fs::create_dir_all(making).step("make a folder for the workspace's base")?;
    let words = shelf::words_of(making);
    let git = Git { folder: making, words: &words };
    let made = git.make(workspace).and_then(|()| owner.map_or(Ok(()), |owner| give_tree(making, owner)));
    let _ = fs::remove_file(&words);
    made
}

/// Reads the whole bundle and compares.
fn check_bundle(workspace: &WorkspaceSpec) -> Result<(), Failure> {
    let shown = workspace.bundle.display();
    let mut file = File::open(&workspace.bundle).step(format!("open the workspace's bundle {shown}"))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).step(format!("read the workspace's bundle {shown}"))? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    let found = hex::encode(digest.finalize());
    if found == workspace.id {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the bundle {shown} is not what it was when it was handed in; submit the task again"
    )))
}

/// Git in the one folder that it may know of.
struct Git<'a> {
    folder: &'a Path,
    /// Where its error output goes.
    words: &'a Path,
}

impl Git<'_> {
    fn make(&self, workspace: &WorkspaceSpec) -> Result<(), Failure> {
        let WorkspaceSpec { base, bundle, .. } = workspace;
        let format = if base.len() == 40 { "sha1" } else { "sha256" };
        self.run(&["init", "--quiet", "--template=", "--initial-branch=main", "--object-format", format])?;
        let bundle = fs::canonicalize(bundle).step("find the workspace's bundle")?;
        let bundle = bundle.to_str().ok_or_else(|| Failure::new("the bundle's path is not UTF-8"))?;
        let fetch =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok", "--", bundle];
        self.run(&[&fetch[..], &[&format!("{base}:refs/heads/main")]].concat())?;
        self.run(&["reset", "--quiet", "--hard", "main"])?;
        // The same file has another owner, inode and change time when it is seen in a machine; with the default
        // each `git status` there would read every file anew. And a repack would copy the whole history up.
        for (key, value) in [
            ("core.checkStat", "minimal"),
            ("core.trustctime", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
        ] {
            self.run(&["config", key, value])?;
        }
        self.run(&["update-index", "-q", "--refresh"])
    }

    fn run(&self, args: &[&str]) -> Result<(), Failure> {
        let verb = args[0];
        let step = format!("run `git {verb}` for the workspace");
        let mut words = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.words)
            .step(&step)?;
        let mut command = self.command();
        command.args(args).stderr(words.try_clone().step(&step)?);
        let status = process::run(&mut command, GIT_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new("cannot find `git` on PATH: install git"),
            _ => Failure::of(format!("cannot {step}"), &error),
        })?;
        if status.success() {
            return Ok(());
        }
        words.rewind().step(&step)?;
        let mut said = Vec::new();
        words.take(GIT_WORDS_MAX as u64).read_to_end(&mut said).step(&step)?;
        let said = String::from_utf8_lossy(&said).trim().escape_debug().to_string();
        Err(Failure::said(format!("cannot {step} ({status}: {said})"), &said))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", "/nonexistent");
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env("GIT_ATTR_NOSYSTEM", "1");
        command.current_dir(self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("GIT_DIR", self.folder.join(".git")).env("GIT_WORK_TREE", self.folder);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        for name in HARMLESS {
            command.arg("-c").arg(format!("fetch.fsck.{name}=ignore"));
        }
        command
    }
}

/// Gives a tree that git made to `owner`, links themselves and not what they name.
fn give_tree(top: &Path, owner: u32) -> Result<(), Failure> {
    let give = |path: &Path| {
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    };
    let step = "give the workspace's base to the agent";
    let mut folders = vec![top.to_owned()];
    give(top).step(step)?;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).step(step)? {
            let entry = entry.step(step)?;
            give(&entry.path()).step(step)?;
            if entry.file_type().step(step)?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}
