//! The checkouts that workspaces start from: made once for each bundle and commit, shared, never written again.
//!
//! ```text
//! bases/<bundle's digest>-<commit>/         a repository with `main` checked out at the commit
//! bases/<bundle's digest>-<commit>.making/  one being made; renamed when it is whole and on the disk. Also one being
//!                                           removed
//! ```
//!
//! A bundle that is on top of another one begins with the checkout of that: its files and objects are shared by hard links,
//! which git never writes to, and what else git keeps is copied. So it costs what differs, and a name for each file.
//!
//! A bundle is only believed if its SHA-256 is its id. Git runs with an environment built from nothing, without
//! any configuration but the flags given here, and without hooks; a submodule is not fetched. Machines lay an
//! overlay over the checkout, whose lower part must not change: hence the rename, and the refreshed index. A git whose
//! orchestrator was killed goes on to its end, and shares the lock with it: nobody makes the base anew beside it.
//!
//! What the commit comes to is counted before a file is written: a bundle says nothing of it by its length.
//!
//! Bounds: `GIT_MAX` for the time of one git command, the task's memory for that of each process of it; the task's disk and
//! [`ENTRIES_MAX`](mayfly_core::unfold::ENTRIES_MAX) for what a base comes to, and what the disk has free. How many there are,
//! and which is removed, is [`shelf`](crate::shelf)'s business.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use mayfly_core::unfold::{self, TooMuch, Unfolding};
use mayfly_core::{amount, sha256_of};
use mayfly_failpoint::failpoint;
use mayfly_provider::{CodeSpec, Limits, WorkspaceSpec};
use mayfly_wire::worker::shallow;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat, statvfs, syncfs};
use rustix::io::Errno;

use crate::{shelf, sys};
use mayfly_holder::{Failure, Lock, Step};

/// The longest that one git command may take.
const GIT_MAX: Duration = Duration::from_secs(600);
/// How much of git's own words is shown when it fails.
const GIT_WORDS_MAX: usize = 600;
/// How much of a bundle its head can be.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// What git may have of memory where a task may have less: what an ordinary history takes is no harm.
const MEMORY_BYTES_MIN: u64 = 1 << 30;
/// What a base leaves free on the disk for all else that is written there.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// An id is that of a SHA-256, a commit's that of SHA-1 or SHA-256, in hex.
const ID_CHARS: usize = 64;
const COMMIT_CHARS: [usize; 2] = [40, 64];

/// All the configuration that git has.
const SETTINGS: [&str; 10] = [
    // What is larger is not held in memory.
    "core.bigFileThreshold=64m",
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

/// Whose a base is to be, and what it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The owner of its files; none is this process.
    pub(crate) owner: Option<u32>,
    /// Those of the task that it is made for.
    pub(crate) limits: Limits,
}

/// The checkout for `workspace` below `bases`, made now if nobody has yet, and the lock that keeps it.
pub(crate) fn checkout(
    bases: &Path,
    workspace: &WorkspaceSpec,
    terms: Terms,
) -> Result<(PathBuf, Lock), Failure> {
    check_names(workspace)?;
    let base = place_of(bases, &workspace.code);
    loop {
        // Waits for whoever makes it.
        if let Some(held) = shelf::hold(&base)? {
            return Ok((base, held));
        }
        // To wait for the whole lock would be to wait for the end of every machine that uses the base by then.
        let lock = Lock::acquire_if_free(&shelf::lock_of(&base)).step("lock the workspace's base")?;
        let Some(lock) = lock.filter(|_| !base.is_dir()) else { continue };
        let made = Making { base: &base, lock: &lock, terms }.make(workspace);
        if let Err(failure) = made {
            lock.remove().step("unlock the workspace's base")?;
            return Err(failure);
        }
    }
}

fn place_of(bases: &Path, code: &CodeSpec) -> PathBuf {
    bases.join(format!("{}-{}", code.id, code.base))
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
    for code in std::iter::once(&workspace.code).chain(&workspace.on) {
        if !is_id(&code.id) {
            return wrong("id is not a SHA-256 in hex");
        }
        if !is_commit(&code.base) {
            return wrong("base is not a commit in hex");
        }
    }
    let plain = !workspace.name.is_empty() && !workspace.name.contains(['/', '\0']);
    if !plain || matches!(workspace.name.as_str(), "." | "..") {
        return wrong("name is not one plain file name");
    }
    Ok(())
}

/// A base that is being made.
struct Making<'a> {
    base: &'a Path,
    /// Its own, held alone.
    lock: &'a Lock,
    terms: Terms,
}

impl Making<'_> {
    /// Makes it beside its place, and moves it there when it is whole.
    fn make(&self, workspace: &WorkspaceSpec) -> Result<(), Failure> {
        // Held until what is made of it is whole.
        let below = match &workspace.on {
            Some(on) if *on == workspace.code => {
                return Err(Failure::new(
                    "the workspace's bundle is on top of itself; this is a fault in mayfly",
                ));
            }
            Some(on) => {
                let whole = WorkspaceSpec { code: on.clone(), on: None, name: workspace.name.clone() };
                let bases = self.base.parent().expect("a base is in the folder of bases");
                Some(checkout(bases, &whole, self.terms)?)
            }
            None => None,
        };
        let making = shelf::making_of(self.base);
        shelf::make_room(self.base)?;
        let below = below.as_ref().map(|(below, _held)| below.as_path());
        let on_disk = |made: &Path| Ok(syncfs(File::open(made)?)?);
        let filled = self.fill(&making, &workspace.code, below);
        let made = filled.and_then(|()| put_in_place(&making, self.base, on_disk));
        if made.is_err() {
            crate::remove::remove_tree(&making).step("remove a base that was not made")?;
        }
        made
    }

    fn fill(&self, making: &Path, code: &CodeSpec, below: Option<&Path>) -> Result<(), Failure> {
        check_bundle(code)?;
        crate::remove::remove_tree(making).step("remove a half-made base")?;
        fs::create_dir_all(making).step("make a folder for the workspace's base")?;
        failpoint("base-begun");
        let words = shelf::words_of(making);
        let git = Git { folder: making, words: &words, lock: self.lock, limits: self.terms.limits };
        let begun = match below {
            Some(below) => share_tree(below, making).step("share the files of the base below"),
            None => git.begin(code),
        };
        let made = begun.and_then(|()| git.make(code, below.is_some()));
        let made = made.and_then(|()| self.terms.owner.map_or(Ok(()), |owner| give_tree(making, owner)));
        let _ = fs::remove_file(&words);
        made
    }
}

/// What has its name is believed from then on, also after a loss of power: so all of it is on the disk before.
fn put_in_place(
    making: &Path,
    base: &Path,
    on_disk: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), Failure> {
    on_disk(making).step("write the workspace's base to the disk")?;
    failpoint("base-unnamed");
    fs::rename(making, base).step("put the workspace's base in its place")?;
    failpoint("base-named");
    Ok(())
}

/// Reads the whole bundle and compares.
fn check_bundle(code: &CodeSpec) -> Result<(), Failure> {
    let shown = code.bundle.display();
    let file = File::open(&code.bundle).step(format!("open the workspace's bundle {shown}"))?;
    let found = sha256_of(file).step(format!("read the workspace's bundle {shown}"))?;
    if found == code.id {
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
    /// Held as long as it runs, whoever ends before it.
    lock: &'a Lock,
    limits: Limits,
}

impl Git<'_> {
    /// An empty repository.
    fn begin(&self, code: &CodeSpec) -> Result<(), Failure> {
        let format = if code.base.len() == 40 { "sha1" } else { "sha256" };
        self.run(&["init", "--quiet", "--template=", "--initial-branch=main", "--object-format", format])
    }

    /// The commit of a bundle, in what there is already; whether that is shared with a base below.
    fn make(&self, code: &CodeSpec, is_on_another: bool) -> Result<(), Failure> {
        let shared = if is_on_another { self.unfold(u64::MAX)?.unwrap_or(0) } else { 0 };
        let CodeSpec { base, bundle, .. } = code;
        let bundle = fs::canonicalize(bundle).step("find the workspace's bundle")?;
        self.cut_off(&bundle).step("see where the history in the workspace's bundle begins")?;
        let bundle = bundle.to_str().ok_or_else(|| Failure::new("the bundle's path is not UTF-8"))?;
        let fetch =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok", "--", bundle];
        self.run(&[&fetch[..], &[&format!("+{base}:refs/heads/main")]].concat())?;
        failpoint("base-fetched");
        self.check_room(base, shared)?;
        self.run(&["reset", "--quiet", "--hard", "main"])?;
        failpoint("base-checked-out");
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

    /// Tells git of the commits whose parents are not in the bundle, so that a history ends there.
    fn cut_off(&self, bundle: &Path) -> io::Result<()> {
        let (mut head, mut lines) = (Vec::new(), BufReader::new(File::open(bundle)?.take(HEAD_BYTES_MAX)));
        while lines.read_until(b'\n', &mut head)? > 1 {}
        let cut = shallow(&String::from_utf8_lossy(&head));
        cut.map_or(Ok(()), |cut| fs::write(self.folder.join(".git/shallow"), cut))
    }

    /// Checks that what the commit comes to is within the task's bounds, and that there is room for what of it is not shared.
    fn check_room(&self, base: &str, shared: u64) -> Result<(), Failure> {
        let Limits { disk_bytes_max, .. } = self.limits;
        let needed = self.unfold(disk_bytes_max)?.map_err(|too_much| {
            let advice = match too_much {
                TooMuch::Entries => "the most that a workspace may have: hand over a part of the repository",
                TooMuch::Bytes(_) => {
                    "the task's limit of the disk: raise `machine.disk`, or hand over a part of it"
                }
            };
            Failure::new(format!("the commit {base} is not checked out: {too_much}, {advice}"))
        })?;
        let step = "see what the disk of the workspaces has free";
        let found = statvfs(self.folder).step(step)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        check_free(needed.saturating_sub(shared), free).map_err(|words| Failure {
            may_pass: true,
            ..Failure::new(format!("the commit {base} is not checked out: {words}"))
        })
    }

    /// What is checked out comes to, counted no further than to `bytes_max`.
    fn unfold(&self, bytes_max: u64) -> Result<Result<u64, TooMuch>, Failure> {
        let step = "list what is in the workspace's commit";
        let (list, to) = io::pipe().step(step)?;
        // Once too much has come, the pipe is closed, and git ends.
        let counting = thread::spawn(move || Unfolding::of(bytes_max, list));
        let listed = self.run_to(&[&unfold::LIST[..], &["main"]].concat(), to.into());
        match counting.join().expect("counting does not panic").step(step)? {
            Ok(bytes) => listed.map(|()| Ok(bytes)),
            too_much => Ok(too_much),
        }
    }

    fn run(&self, args: &[&str]) -> Result<(), Failure> {
        self.run_to(args, Stdio::null())
    }

    fn run_to(&self, args: &[&str], to: Stdio) -> Result<(), Failure> {
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
        // It reads nothing, and so has the lock there.
        command.args(args).stdin(self.lock.share().step(&step)?);
        command.stdout(to).stderr(words.try_clone().step(&step)?);
        let status = mayfly_holder::run(&mut command, GIT_MAX).map_err(|error| match error.kind() {
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
        if is_about_memory(&said) {
            return Err(Failure::new(format!(
                "`git {verb}` needs more than {} of memory for the repository, and is not given more: raise \
                 `machine.memory` if it is as large as that",
                amount(self.memory_bytes_max())
            )));
        }
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
        command.env("GIT_ALLOC_LIMIT", self.memory_bytes_max().to_string());
        command.current_dir(self.folder);
        command.env("GIT_DIR", self.folder.join(".git")).env("GIT_WORK_TREE", self.folder);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        for name in HARMLESS {
            command.arg("-c").arg(format!("fetch.fsck.{name}=ignore"));
        }
        sys::bound_memory(&mut command, self.memory_bytes_max());
        command
    }

    fn memory_bytes_max(&self) -> u64 {
        self.limits.memory_bytes_max.max(MEMORY_BYTES_MIN)
    }
}

/// Whether so much can be written without filling the disk.
fn check_free(needed: u64, free: u64) -> Result<(), String> {
    if free.saturating_sub(FREE_BYTES_MIN) >= needed {
        return Ok(());
    }
    let [needed, free, kept] = [needed, free, FREE_BYTES_MIN].map(amount);
    Err(format!(
        "it needs {needed}, and of the {free} that the disk has free {kept} are kept: make room there"
    ))
}

/// Whether git got no memory from the system, or gave itself none.
fn is_about_memory(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("out of memory") || said.contains("attempting to allocate")
}

/// Makes `to`, an empty folder, the same as `from`, a base: files and objects by hard links. Git replaces a file of a work
/// tree and an object by another one, and writes into neither; what else it keeps it may add to, and that is copied.
fn share_tree(from: &Path, to: &Path) -> io::Result<()> {
    let git_dir = from.join(".git");
    let (mut folders, objects) = (vec![PathBuf::new()], git_dir.join("objects"));
    while let Some(below) = folders.pop() {
        let folder = from.join(&below);
        let shared = !folder.starts_with(&git_dir) || folder.starts_with(&objects);
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (is, below) = (entry.file_type()?, below.join(entry.file_name()));
            let new = to.join(&below);
            if is.is_dir() {
                fs::create_dir(&new)?;
                fs::set_permissions(&new, entry.metadata()?.permissions())?;
                folders.push(below);
            } else if shared {
                share(&entry.path(), &new)?;
            } else {
                copy(&entry.path(), &new)?;
            }
        }
    }
    Ok(())
}

/// A link's link is one to the same place.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()) {
        // The file has as many names as it can have, or the file system gives one alone.
        Err(Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) if !from.symlink_metadata()?.is_symlink() => {
            copy(from, to)
        }
        Err(Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)
        }
        done => Ok(done?),
    }
}

/// With its time, by which git knows a file that is unchanged.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::options().append(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}

/// Gives a tree that git made to `owner`, links themselves and not what they name. What has that owner already may be
/// shared with another base, and is left alone.
fn give_tree(top: &Path, owner: u32) -> Result<(), Failure> {
    let give = |path: &Path| {
        let is = path.symlink_metadata()?;
        if (is.uid(), is.gid()) == (owner, owner) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
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

#[cfg(test)]
mod exact;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_does_not_fill_the_disk() {
        assert_eq!(check_free(1 << 30, (1 << 30) + FREE_BYTES_MIN), Ok(()));
        let words = check_free(1 << 30, (1 << 30) + FREE_BYTES_MIN - 1).expect_err("one byte short");
        assert_eq!(
            words,
            "it needs 1 GiB, and of the 1.1 GiB that the disk has free 64 MiB are kept: make room there"
        );
        assert!(check_free(1, 0).is_err());
    }

    #[test]
    fn a_base_has_its_name_once_it_is_on_the_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let (making, base) = (dir.path().join("base.making"), dir.path().join("base"));
        fs::create_dir(&making).expect("made");
        fs::write(making.join("code"), "one").expect("written");
        let failed = put_in_place(&making, &base, |_| Err(Errno::IO.into())).expect_err("not on the disk");
        assert!(failed.to_string().contains("write the workspace's base to the disk"), "{failed}");
        assert!(!base.exists(), "what may be gone after a loss of power has no name");
        put_in_place(&making, &base, |made| {
            assert!(made.join("code").is_file() && !base.exists());
            Ok(syncfs(File::open(made)?)?)
        })
        .expect("put there");
        assert!(base.join("code").is_file() && !making.exists());
    }
}
