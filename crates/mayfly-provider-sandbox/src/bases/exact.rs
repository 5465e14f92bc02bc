//! What a machine's workspace is laid over is the user's files, byte for byte, whatever they are called; and so is what is
//! committed on it and lands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly_git::{Git, Quarantine, Repo, Snapshot};
use mayfly_provider::{CodeSpec, Limits, WorkspaceSpec};
use mayfly_test_needs::odd::{Tree, as_git_keeps_it, fill, listing, tree};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::Terms;

/// git, as the user and the agent run it.
fn git(at: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").current_dir(at);
    command.args(["-c", "user.name=u", "-c", "user.email=u@localhost"]).args(args);
    let output = command.output().expect("git is there");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The user's repository, and where bases are made.
struct Way(TempDir);

impl Way {
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A commit as it is handed over: all of it, or what is on top of another.
    async fn handed_over(&self, quarantine: &Quarantine, commit: &str, on: Option<&str>) -> CodeSpec {
        let bundle = self.at(&format!("{commit}.bundle"));
        quarantine.bundle(commit, on, &bundle).await.expect("made");
        let id = hex::encode(Sha256::digest(fs::read(&bundle).expect("there")));
        CodeSpec { id, base: commit.to_owned(), bundle }
    }

    async fn base(&self, quarantine: &Quarantine, snapshot: &Snapshot) -> PathBuf {
        let head = git(&self.at("repo"), &["rev-parse", "HEAD"]);
        let whole = self.handed_over(quarantine, &head, None).await;
        let workspace = match snapshot.dirty {
            true => {
                let code = self.handed_over(quarantine, &snapshot.base, Some(&head)).await;
                WorkspaceSpec { code, on: Some(whole), name: "repo".to_owned() }
            }
            false => WorkspaceSpec { code: whole, on: None, name: "repo".to_owned() },
        };
        let limits = Limits::default();
        super::checkout(&self.at("bases"), &workspace, Terms { owner: None, limits }).expect("made").0
    }

    async fn goes_in_and_out(&self, odd: &Tree) {
        let (user, machine) = (self.at("repo"), self.at("machine"));
        for folder in [&user, &self.at("bases")] {
            fs::create_dir(folder).expect("made");
        }
        git(&user, &["init", "-q", "-b", "main"]);
        fill(&user, |args| git(&user, args), odd);
        let path = std::env::var_os("PATH").expect("a PATH");
        let ours = Git::new(path, Some(self.0.path().to_owned()), None);
        let repo = Repo::discover(&ours, &user).await.expect("found");
        let scratch = tempfile::tempdir().expect("a folder");
        let (quarantine, snapshot) = repo.snapshot(scratch.path()).await.expect("taken");
        let base = self.base(&quarantine, &snapshot).await;
        let files = listing(&user);
        assert_eq!(listing(&base), as_git_keeps_it(files.clone()), "what is in the machine");

        // What is written in a machine is beside the base.
        let copied = Command::new("cp").arg("-a").arg(&base).arg(&machine).status();
        assert!(copied.expect("it runs").success());
        assert_eq!(git(&machine, &["status", "--porcelain"]), "", "nothing was changed in the machine");
        fs::write(machine.join("made by the agent"), "x").expect("written");
        git(&machine, &["add", "--all"]);
        git(&machine, &["commit", "-q", "-m", "work"]);
        let bundle = self.at("work.bundle");
        git(&machine, &["update-ref", "refs/heads/work", "HEAD"]);
        let on = format!("^{}", snapshot.base);
        git(&machine, &["bundle", "create", "-q", bundle.to_str().expect("text"), "refs/heads/work", &on]);
        quarantine.land(&bundle, &git(&machine, &["rev-parse", "HEAD"]), "landed").await.expect("landed");
        let tree = |commit: &str| git(&user, &["ls-tree", "-r", "-z", "--full-tree", commit]);
        let landed = tree("landed");
        let (made, others): (Vec<_>, Vec<_>) =
            landed.split('\0').partition(|entry| entry.ends_with("\tmade by the agent"));
        assert_eq!((made.len(), others.join("\0")), (1, tree(&snapshot.base)), "what came out");
        assert_eq!(listing(&user), files, "the user's files");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// S10
    #[test]
    fn what_is_not_changed_is_in_a_machine_as_it_went_in_and_comes_out_so(odd in tree()) {
        let way = Way(tempfile::tempdir().expect("a folder"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
        runtime.block_on(way.goes_in_and_out(&odd));
    }
}
