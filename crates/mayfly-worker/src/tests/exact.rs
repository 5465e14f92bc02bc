//! What goes in and is not changed comes out as it was, byte for byte, whatever it is called: from the user's repository
//! through a machine's checkout and what its worker collects to a branch.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_git::{Base, Git, Quarantine, Repo, Snapshot, whole};
use mayfly_test_needs::odd::{Known, Listing, Thing, as_git_keeps_it, fill, listing, tree};
use mayfly_wire::api::Collected;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::Instant;

use super::the_work::{git, written};
use crate::checkout::Bundle;
use crate::collect::work::Work;
use crate::reaper::{Realm, Reaper};
use crate::setup::made::Made;

/// What the repository's own `.gitattributes` say of the ends of lines.
fn rules() -> impl Strategy<Value = &'static str> {
    let rules = [
        "* text=auto\n",
        "* text\n",
        "* -text\n",
        "* text eol=lf\n",
        "* text eol=crlf\n",
        "* text=auto eol=crlf\n",
        "* text=auto\r\n*e text eol=crlf\n[a-m]* -text\n",
        "* text=auto ident\n",
    ];
    prop::sample::select(rules.to_vec())
}

/// The user's repository, and a machine.
struct Way {
    dir: TempDir,
}

impl Way {
    fn new(tree: &[(PathBuf, Thing, Known)], rules: Option<&str>) -> Self {
        let way = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(way.at("repo")).unwrap();
        way.git(&["init", "-q", "-b", "main"]);
        if let Some(rules) = rules {
            fs::write(way.at("repo/.gitattributes"), rules).unwrap();
        }
        fill(&way.at("repo"), |args| way.git(args), tree);
        way
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In the user's repository.
    fn git(&self, args: &[&str]) -> String {
        git(&self.at("repo"), args)
    }

    /// All that must not change there: refs, `HEAD`, index and what is not committed.
    fn state(&self) -> String {
        self.git(&["for-each-ref"]) + &self.git(&["status", "--porcelain=v2", "--branch"])
    }

    /// The bundle that a machine fetches, made of what was handed over.
    async fn handed_over(&self, ours: &Git, quarantine: &Quarantine, snapshot: &Snapshot) -> PathBuf {
        let [history, more, all] = ["history.bundle", "more.bundle", "all.bundle"].map(|name| self.at(name));
        let head = self.git(&["rev-parse", "HEAD"]);
        quarantine.bundle(&head, None, &history).await.unwrap();
        if !snapshot.dirty {
            return history;
        }
        quarantine.bundle(&snapshot.base, Some(&head), &more).await.unwrap();
        let base = Base { bundle: &more, commit: &snapshot.base, on: Some(&history) };
        let scratch = tempfile::tempdir().unwrap();
        whole(ours, scratch.path(), base, &all).await.unwrap();
        all
    }

    async fn checkout(&self, reaper: &Reaper, file: &Path, base: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for (at, bytes_max) in [(self.at("base"), None), (self.at("machine"), Some(1 << 30))] {
            fs::create_dir(&at).unwrap();
            Bundle { file, base }.unpack(reaper, &at, bytes_max, deadline).await.unwrap();
        }
    }

    /// What the worker brings out: a bundle and its commit.
    async fn collect(&self, reaper: &Reaper, base: &str) -> (PathBuf, String) {
        let scratch = self.at("scratch");
        fs::create_dir(&scratch).unwrap();
        let (workspace, base_objects) = (self.at("machine"), self.at("base/.git/objects"));
        let (workspace, base_objects) = (&*workspace, &*base_objects);
        let work = Work {
            reaper,
            workspace,
            base: Some(base),
            base_objects,
            scratch: &scratch,
            made: &Made::default(),
        };
        let mut collected = Collected::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let bundle = work.bundle(deadline, &mut collected).await.unwrap().unwrap();
        assert_eq!((collected.unsaved, collected.notes), (vec![], vec![]));
        (written(&bundle, self.dir.path()), bundle.head)
    }

    /// What the user's git makes of that commit, by its rules.
    fn as_users_git_has_it(&self, bundle: &Path, base: &str) -> Listing {
        let at = self.at("theirs");
        git(self.dir.path(), &["init", "-q", "theirs"]);
        git(&at, &["bundle", "unbundle", bundle.to_str().unwrap()]);
        git(&at, &["checkout", "-q", "--detach", base]);
        listing(&at)
    }

    async fn goes_in_and_out(&self, rules: Option<&str>) {
        let ours = Git::new(std::env::var_os("PATH").unwrap(), Some(self.dir.path().to_owned()), None);
        let repo = Repo::discover(&ours, &self.at("repo")).await.unwrap();
        let (scratch, reaper) = (tempfile::tempdir().unwrap(), Reaper::start(Realm::Children).unwrap());
        let (files, state, machine) = (listing(&self.at("repo")), self.state(), self.at("machine"));
        let (quarantine, snapshot) = repo.snapshot(scratch.path()).await.unwrap();
        let bundle = self.handed_over(&ours, &quarantine, &snapshot).await;
        self.checkout(&reaper, &bundle, &snapshot.base).await;
        let expected = match rules {
            None => as_git_keeps_it(files.clone()),
            Some(_) => self.as_users_git_has_it(&bundle, &snapshot.base),
        };
        assert_eq!(listing(&machine), expected, "what is in the machine");
        assert_eq!(git(&machine, &["status", "--porcelain"]), "", "nothing was changed in the machine");

        fs::write(machine.join("committed by the agent"), "x").unwrap();
        git(&machine, &["add", "--all"]);
        git(&machine, &["commit", "-q", "-m", "work"]);
        fs::write(machine.join("left by the agent"), "x").unwrap();
        let (bundle, head) = self.collect(&reaper, &snapshot.base).await;
        quarantine.land(&bundle, &head, "landed").await.unwrap();
        let tree = |commit: &str| self.git(&["ls-tree", "-r", "-z", "--full-tree", commit]);
        let landed = tree("landed");
        let mut without: Vec<_> = landed.split('\0').collect();
        without.retain(|entry| !entry.ends_with(" by the agent"));
        assert_eq!(without.len() + 2, landed.split('\0').count(), "what the agent made");
        assert_eq!(without.join("\0"), tree("landed~2"), "what came out");
        assert_eq!(self.git(&["rev-parse", "landed~2"]), snapshot.base);
        assert_eq!(listing(&self.at("repo")), files, "the user's files");
        self.git(&["branch", "-q", "-D", "landed"]);
        assert_eq!(self.state(), state, "the user's index and refs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// S10
    #[test]
    fn what_is_not_changed_comes_out_as_it_went_in(tree in tree()) {
        let way = Way::new(&tree, None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(way.goes_in_and_out(None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines end in the machine as the rules have them, and what is not changed is no change for that.
    #[test]
    fn what_is_not_changed_is_none_by_the_rules_of_the_repository(tree in tree(), rules in rules()) {
        let way = Way::new(&tree, Some(rules));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(way.goes_in_and_out(Some(rules)));
    }
}
