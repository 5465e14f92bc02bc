//! Real git on real repositories, hostile ones among them.
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod arriving;
mod fetch;
mod hostile;
mod mirror;
mod refusals;
mod round_trip;
mod site;
mod work;
mod work_tree;

use std::ffi::OsString;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly_git::{Git, Quarantine, Repo, Snapshot};
use tempfile::TempDir;

/// A folder with a user's home, a repository in it, and room for a machine.
#[derive(Debug)]
pub struct Place {
    pub dir: TempDir,
}

impl Place {
    /// A repository `repo` with one commit of one file, `a.txt`.
    pub fn with_repository() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.repo()).unwrap();
        place.git(&place.repo(), &["init", "-q", "-b", "main"]);
        fs::write(place.repo().join("a.txt"), "one\n").unwrap();
        place.commit("first");
        place
    }

    pub fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn commit(&self, message: &str) {
        self.git(&self.repo(), &["add", "-A"]);
        self.git(&self.repo(), &["commit", "-q", "-m", message]);
    }

    /// git as the user or the agent would run it, configuration and all.
    pub fn git(&self, cwd: &Path, args: &[&str]) -> String {
        self.git_of(cwd, args, "")
    }

    /// The same with this on its standard input.
    pub fn git_of(&self, cwd: &Path, args: &[&str], input: &str) -> String {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.rewind().unwrap();
        let mut command = Command::new("git");
        command.env_clear().env("PATH", path()).env("HOME", self.dir.path()).current_dir(cwd);
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "a user")
                .env(format!("GIT_{who}_EMAIL"), "user@localhost");
        }
        command.args(["-c", "protocol.file.allow=always"]).args(args).stdin(stdin);
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        // A name may be no text.
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    pub fn ours(&self) -> Git {
        Git::new(path(), Some(self.dir.path().to_owned()), None)
    }

    pub async fn snapshot(&self) -> (Quarantine, Snapshot) {
        let scratch = self.dir.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let repo = Repo::discover(&self.ours(), &self.repo()).await.unwrap();
        let (quarantine, snapshot) = repo.snapshot(&scratch).await.unwrap();
        quarantine.bundle(&snapshot.base, None, &self.base()).await.unwrap();
        (quarantine, snapshot)
    }

    /// The bundle of a snapshot.
    pub fn base(&self) -> PathBuf {
        self.dir.path().join("base.bundle")
    }

    /// What a machine would have: the snapshot, checked out.
    pub fn machine(&self, _of: &Snapshot) -> PathBuf {
        let (machine, bundle) = (self.dir.path().join("machine"), self.base());
        let args = ["clone", "-q", "-b", "base", bundle.to_str().unwrap(), machine.to_str().unwrap()];
        self.git(self.dir.path(), &args);
        machine
    }

    /// The same where the history is cut off.
    pub fn machine_cut_off(&self, of: &Snapshot) -> PathBuf {
        let machine = self.dir.path().join("machine");
        fs::create_dir(&machine).unwrap();
        self.git(&machine, &["init", "-q", "-b", "main"]);
        let refs = self.git(&machine, &["bundle", "unbundle", self.base().to_str().unwrap()]);
        fs::write(machine.join(".git/shallow"), mayfly_wire::worker::shallow(&refs).unwrap()).unwrap();
        self.git(&machine, &["reset", "-q", "--hard", &of.base]);
        machine
    }

    /// What a worker would hand over: the machine's `HEAD` as a bundle on top of the base.
    pub fn bundle(&self, machine: &Path, snapshot: &Snapshot) -> (PathBuf, String) {
        self.git(machine, &["update-ref", "refs/heads/work", "HEAD"]);
        let bundle = self.dir.path().join("work.bundle");
        let base = format!("^{}", snapshot.base);
        self.git(machine, &["bundle", "create", "-q", bundle.to_str().unwrap(), "refs/heads/work", &base]);
        (bundle, self.git(machine, &["rev-parse", "HEAD"]))
    }

    /// Work as a small bundle, with `depth` levels of ten entries each, all the same, down to a file of `bytes`.
    pub fn bundle_of_copies(&self, depth: u32, bytes: usize) -> (PathBuf, String) {
        let (folder, bundle) = (self.dir.path().join("copies"), self.dir.path().join("copies.bundle"));
        fs::create_dir(&folder).unwrap();
        let ask = |args: &[&str], input: &str| self.git_of(&folder, args, input);
        ask(&["init", "-q"], "");
        let file = "x".repeat(bytes);
        let mut entry = "100644 blob ".to_owned() + &ask(&["hash-object", "-w", "--stdin"], &file);
        for _ in 0..depth {
            let entries = (0..10).map(|name| format!("{entry}\t{name}\n")).collect::<Vec<_>>().concat();
            entry = "040000 tree ".to_owned() + &ask(&["mktree"], &entries);
        }
        let head = ask(&["commit-tree", "-m", "copies", entry.rsplit(' ').next().unwrap()], "");
        ask(&["update-ref", "refs/heads/work", &head], "");
        ask(&["bundle", "create", "-q", bundle.to_str().unwrap(), "refs/heads/work"], "");
        (bundle, head)
    }

    /// All that must not change in the user's repository: refs, HEAD, index and tree.
    pub fn state(&self) -> String {
        let refs = self.git(&self.repo(), &["for-each-ref"]);
        let status = self.git(&self.repo(), &["status", "--porcelain=v2", "--branch"]);
        format!("{refs}\n{status}")
    }
}

pub fn path() -> OsString {
    std::env::var_os("PATH").unwrap()
}
