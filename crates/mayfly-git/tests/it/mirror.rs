//! Repositories elsewhere, and the copies of them that are kept.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use mayfly_git::{Base, Git, GitError, Mirror, Mirrors, Repo, Wanted, Work};

use super::site::Site;
use super::{Place, path};

impl Place {
    fn mirrors(&self) -> PathBuf {
        self.dir.path().join("mirrors")
    }

    async fn mirror_of(&self, url: &str, revision: Option<&str>) -> Result<Mirror, GitError> {
        let (folder, git) = (self.mirrors(), self.ours());
        let wanted = Wanted { url, revision, depth: None };
        Mirrors { folder: &folder, git: &git, ways: &[] }.fetch(wanted, |_| {}).await
    }

    async fn mirror(&self, revision: Option<&str>) -> Result<Mirror, GitError> {
        self.mirror_of(&self.repo_url(), revision).await
    }

    fn repo_url(&self) -> String {
        format!("file://{}", self.repo().display())
    }

    /// The only mirror's repository.
    fn git_dir(&self) -> PathBuf {
        let entries = fs::read_dir(self.mirrors()).unwrap().map(|entry| entry.unwrap().path());
        let mut found = entries.filter(|path| path.extension() == Some(OsStr::new("git")));
        let one = found.next().unwrap();
        assert!(found.next().is_none(), "more than one mirror");
        one
    }

    fn packs(&self) -> usize {
        let packs = fs::read_dir(self.git_dir().join("objects/pack")).unwrap();
        packs.filter(|entry| entry.as_ref().unwrap().path().extension() == Some(OsStr::new("pack"))).count()
    }
}

#[tokio::test]
async fn a_second_time_brings_only_what_is_new() {
    let place = Place::with_repository();
    let mut lines = Vec::new();
    let (folder, git, url) = (place.mirrors(), place.ours(), place.repo_url());
    let mirrors = Mirrors { folder: &folder, git: &git, ways: &[] };
    let wanted = Wanted { url: &url, revision: None, depth: None };
    let mirror = mirrors.fetch(wanted, |line| lines.push(line.to_owned())).await.unwrap();
    let first = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    assert_eq!((mirror.repo.head.as_str(), mirror.repo.name.as_str()), (first.as_str(), "repo"));
    assert!(!lines.is_empty(), "it tells how it goes");
    assert_eq!(place.packs(), 1);
    place.mirror(None).await.unwrap();
    assert_eq!(place.packs(), 1, "there was nothing new");
    fs::write(place.repo().join("b.txt"), "b\n").unwrap();
    place.commit("second");
    let mirror = place.mirror(None).await.unwrap();
    assert_eq!(place.packs(), 2);
    assert_ne!(mirror.repo.head, first);
    let listed = place.git(&place.git_dir(), &["rev-list", "--count", &mirror.repo.head]);
    assert_eq!(listed, "2", "the history is there");
}

/// However often something is new there; and not while another reads what would be repacked.
#[tokio::test]
async fn a_mirror_that_grows_is_repacked_once_nobody_reads_it() {
    let place = Place::with_repository();
    let read = place.mirror(None).await.unwrap();
    let mut head = String::new();
    for number in 0..21 {
        fs::write(place.repo().join("a.txt"), format!("{number}\n")).unwrap();
        place.commit("more");
        head = place.mirror(None).await.unwrap().repo.head;
    }
    assert_eq!(place.packs(), 22);
    drop(read);
    let mirror = place.mirror(None).await.unwrap();
    assert_eq!((place.packs(), &mirror.repo.head), (1, &head));
    let git = |args: &[&str]| place.git(&place.git_dir(), args);
    assert_eq!(git(&["rev-list", "--count", &head]), "22");
    git(&["fsck", "--strict"]);
}

/// A repository whose objects are named by SHA-256 is one like another, also where it has taken the place of one that
/// was not.
#[tokio::test]
async fn a_repository_of_the_other_object_format_is_mirrored() {
    let place = Place::with_repository();
    let before = place.mirror(None).await.unwrap();
    assert_eq!(before.repo.head.len(), 40);
    fs::remove_dir_all(place.repo()).unwrap();
    fs::create_dir(place.repo()).unwrap();
    place.git(&place.repo(), &["init", "-q", "-b", "main", "--object-format=sha256"]);
    fs::write(place.repo().join("a.txt"), "one\n").unwrap();
    place.commit("first");
    for _ in 0..2 {
        let mirror = place.mirror(None).await.unwrap();
        assert_eq!(mirror.repo.head, place.git(&place.repo(), &["rev-parse", "HEAD"]));
        assert_eq!(mirror.repo.head.len(), 64);
    }
}

#[tokio::test]
async fn a_branch_a_tag_or_a_commit_is_found_and_what_is_not_there_is_named() {
    let place = Place::with_repository();
    let git = |args: &[&str]| place.git(&place.repo(), args);
    let first = git(&["rev-parse", "HEAD"]);
    git(&["tag", "-a", "-m", "a tag", "v1"]);
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    place.commit("second");
    git(&["branch", "topic/x"]);
    git(&["commit", "-q", "--allow-empty", "-m", "third"]);
    let second = git(&["rev-parse", "topic/x"]);
    for (revision, commit) in
        [("topic/x", &second), ("v1", &first), (&first[..10], &first), (first.as_str(), &first)]
    {
        assert_eq!(&place.mirror(Some(revision)).await.unwrap().repo.head, commit, "{revision}");
    }
    for wrong in ["none", "-x", "HEAD@{1}", "a\nb", &"0".repeat(40)] {
        let error = place.mirror(Some(wrong)).await.unwrap_err();
        assert!(matches!(&error, GitError::NoRevision { revision, .. } if revision == wrong), "{error}");
    }
    // A branch that is gone there is gone here.
    git(&["branch", "-D", "topic/x"]);
    assert!(matches!(place.mirror(Some("topic/x")).await, Err(GitError::NoRevision { .. })));
}

#[tokio::test]
async fn a_remote_that_is_away_is_asked_for_nothing_that_is_here() {
    let place = Place::with_repository();
    let (url, head) = (place.repo_url(), place.mirror(None).await.unwrap().repo.head);
    fs::rename(place.repo(), place.dir.path().join("away")).unwrap();
    assert_eq!(place.mirror_of(&url, Some(&head)).await.unwrap().repo.head, head);
    let error = place.mirror_of(&url, None).await.unwrap_err();
    assert!(matches!(&error, GitError::Failed { said, .. } if said.contains("repo")), "{error}");
}

#[tokio::test]
async fn two_at_once_and_one_after_a_kill_find_a_whole_mirror() {
    let place = Place::with_repository();
    let (a, b) = tokio::join!(place.mirror(None), place.mirror(None));
    assert_eq!(a.unwrap().repo.head, b.unwrap().repo.head);
    // What git leaves that is killed.
    let git_dir = place.git_dir();
    for left in ["packed-refs.lock", "refs/heads/main.lock", "HEAD.lock", "objects/pack/tmp_pack_abc"] {
        fs::write(git_dir.join(left), "half").unwrap();
    }
    fs::remove_file(git_dir.join("HEAD")).unwrap();
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    place.commit("second");
    let mirror = place.mirror(None).await.unwrap();
    assert_eq!(mirror.repo.head, place.git(&place.repo(), &["rev-parse", "HEAD"]));
    assert!(!git_dir.join("objects/pack/tmp_pack_abc").exists());
}

/// git's own unfinished files begin as such a branch does.
#[tokio::test]
async fn a_branch_called_as_an_unfinished_file_keeps_its_commit() {
    let place = Place::with_repository();
    let head = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    for branch in ["tmp_fix", "tmp_objdir-x/y"] {
        place.git(&place.repo(), &["branch", branch]);
    }
    place.mirror(None).await.unwrap();
    // Found without asking there, the refs are as they were here.
    assert_eq!(place.mirror(Some(&head)).await.unwrap().repo.head, head);
    for branch in ["tmp_fix", "tmp_objdir-x/y"] {
        assert_eq!(place.git(&place.git_dir(), &["rev-parse", &format!("refs/heads/{branch}")]), head);
    }
}

#[tokio::test]
async fn a_branch_is_found_where_head_names_none() {
    let place = Place::with_repository();
    let git = |args: &[&str]| place.git(&place.repo(), args);
    let head = git(&["rev-parse", "HEAD"]);
    git(&["branch", "topic"]);
    git(&["symbolic-ref", "HEAD", "refs/heads/none"]);
    assert_eq!(place.mirror(Some("topic")).await.unwrap().repo.head, head);
    assert!(place.mirror(None).await.is_err());
}

/// S08, S09: of a repository elsewhere no submodule is fetched, no filter or hook is run, and an LFS pointer stays one.
#[tokio::test]
async fn nothing_of_a_repository_elsewhere_runs() {
    let place = Place::with_repository();
    let (repo, trap) = (place.repo(), place.dir.path().join("sprung"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    fs::write(repo.join("big.bin"), pointer).unwrap();
    fs::write(repo.join(".gitattributes"), "*.bin filter=lfs\n").unwrap();
    fs::write(repo.join(".lfsconfig"), "[lfs]\n\turl = https://canary.example\n").unwrap();
    let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = --upload-pack=touch{}\n", trap.display());
    fs::write(repo.join(".gitmodules"), modules).unwrap();
    let head = place.git(&repo, &["rev-parse", "HEAD"]);
    place.git(&repo, &["add", "."]);
    place.git(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},s")]);
    place.git(&repo, &["commit", "-q", "-m", "hostile"]);
    let hook = format!("#!/bin/sh\ntouch {}\n", trap.display());
    fs::create_dir_all(repo.join(".git/hooks")).unwrap();
    fs::write(repo.join(".git/hooks/post-checkout"), hook).unwrap();
    // git's own check of `.gitmodules` refuses such a URL.
    let refused = place.mirror(None).await;
    assert!(refused.is_err() && !trap.exists(), "{refused:?}");
    let modules = "[submodule \"s\"]\n\tpath = s\n\turl = https://canary.example/s\n";
    fs::write(repo.join(".gitmodules"), modules).unwrap();
    place.git(&repo, &["commit", "-q", "--amend", "-m", "less so", ".gitmodules"]);
    let mirror = place.mirror(None).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (quarantine, snapshot) = mirror.repo.snapshot(scratch.path()).await.unwrap();
    quarantine.bundle(&snapshot.base, None, &place.base()).await.unwrap();
    assert_eq!(snapshot.submodules, ["s"]);
    let machine = place.machine(&snapshot);
    assert_eq!(fs::read_to_string(machine.join("big.bin")).unwrap(), pointer);
    assert!(!trap.exists());
}

#[tokio::test]
async fn another_way_than_the_usual_ones_leads_to_no_mirror() {
    let place = Place::with_repository();
    for url in ["http://127.0.0.1:1/x", "git://127.0.0.1:1/x", "ext::true", "ssh://-oProxyCommand=true/x"] {
        let refused = place.mirror_of(url, None).await.unwrap_err().to_string();
        assert!(refused.contains("not allowed") || refused.contains("blocked"), "{refused}");
    }
}

/// What a clone of the user's would be, with the work on a branch of its own.
#[tokio::test]
async fn work_comes_back_as_a_clone_that_shares_the_packs() {
    let place = Place::with_repository();
    place.git(&place.repo(), &["branch", "topic"]);
    let mirror = place.mirror(None).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (quarantine, snapshot) = mirror.repo.snapshot(scratch.path()).await.unwrap();
    quarantine.bundle(&snapshot.base, None, &place.base()).await.unwrap();
    assert!(!snapshot.dirty);
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "changed\n").unwrap();
    place.git(&machine, &["commit", "-q", "-am", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let folder = place.dir.path().join("clone");
    mirror.clone_with(&bundle, &head, &folder, "mayfly/x-y").await.unwrap();
    let git = |args: &[&str]| place.git(&folder, args);
    assert_eq!(git(&["symbolic-ref", "HEAD"]), "refs/heads/mayfly/x-y");
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["remote", "get-url", "origin"]), place.repo_url());
    let refs = git(&["for-each-ref", "--format=%(refname)"]);
    assert_eq!(
        refs.lines().collect::<Vec<_>>(),
        ["refs/heads/mayfly/x-y", "refs/remotes/origin/main", "refs/remotes/origin/topic"]
    );
    git(&["fsck", "--strict", "--connectivity-only"]);
    let packs = fs::read_dir(folder.join(".git/objects/pack")).unwrap().map(Result::unwrap);
    assert!(packs.into_iter().any(|entry| entry.metadata().unwrap().nlink() > 1), "no pack is shared");
    assert!(!folder.join(".git/objects/info/alternates").exists());
}

/// Also one that no branch there leads to within as many commits.
#[tokio::test]
async fn an_old_commit_of_a_history_that_is_cut_off_is_one_to_land_on() {
    let place = Place::with_repository();
    for number in 0..5 {
        fs::write(place.repo().join("a.txt"), format!("{number}\n")).unwrap();
        place.commit(&format!("number {number}"));
    }
    let old = place.git(&place.repo(), &["rev-parse", "HEAD~3"]);
    let (folder, git, url) = (place.mirrors(), place.ours(), place.repo_url());
    let mirrors = Mirrors { folder: &folder, git: &git, ways: &[] };
    for depth in [1, 2] {
        let wanted = Wanted { url: &url, revision: Some(&old), depth: NonZeroU32::new(depth) };
        let mirror = mirrors.fetch(wanted, |_| {}).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let (_quarantine, snapshot) = mirror.repo.snapshot(scratch.path()).await.unwrap();
        assert_eq!(snapshot.base, old);
        let work = scratch.path().join("work");
        place.git(scratch.path(), &["clone", "-q", &url, work.to_str().unwrap()]);
        place.git(&work, &["checkout", "-q", "--detach", &old]);
        place.git(&work, &["commit", "-q", "--allow-empty", "-m", "work"]);
        let (bundle, head) = place.bundle(&work, &snapshot);
        let clone = scratch.path().join("clone");
        mirror.clone_with(&bundle, &head, &clone, "mayfly/x-y").await.unwrap();
        assert_eq!(place.git(&clone, &["rev-list", "--count", "HEAD"]), (depth + 1).to_string());
        place.git(&clone, &["fsck", "--strict"]);
    }
}

/// Of a long history as much as was asked for: that is what git shows in a machine, and what a new clone has. A whole clone
/// takes the work as it takes any other, as soon as it has what that began with.
#[tokio::test]
async fn a_history_that_is_cut_off_is_one_to_work_on_and_to_land_on() {
    let place = Place::with_repository();
    for number in 0..5 {
        fs::write(place.repo().join("a.txt"), format!("{number}\n")).unwrap();
        place.commit(&format!("number {number}"));
    }
    place.git(&place.repo(), &["checkout", "-q", "-b", "side", "HEAD~1"]);
    fs::write(place.repo().join("b.txt"), "b\n").unwrap();
    place.commit("side");
    place.git(&place.repo(), &["checkout", "-q", "main"]);
    place.git(&place.repo(), &["merge", "-q", "--no-ff", "-m", "merged", "side"]);
    place.git(&place.repo(), &["branch", "-q", "-D", "side"]);
    let (folder, git, url) = (place.mirrors(), place.ours(), place.repo_url());
    let wanted = Wanted { url: &url, revision: None, depth: NonZeroU32::new(2) };
    let mirrors = Mirrors { folder: &folder, git: &git, ways: &[] };
    let mirror = mirrors.fetch(wanted, |_| {}).await.unwrap();
    assert_ne!(place.mirror(None).await.unwrap().repo.top, mirror.repo.top, "a whole one is another");
    // Neither another branch there nor that it is fetched as well makes it any shorter.
    place.git(&place.repo(), &["branch", "topic/x", "HEAD~1"]);
    place.git(&place.repo(), &["tag", "-a", "-m", "a tag", "v1"]);
    for (revision, named) in
        [("topic/x", "topic/x"), ("v1", "v1^{commit}"), ("main", "main"), (&mirror.repo.head, "main")]
    {
        let mirror = mirrors.fetch(Wanted { revision: Some(revision), ..wanted }, |_| {}).await.unwrap();
        assert_eq!(mirror.repo.head, place.git(&place.repo(), &["rev-parse", named]), "{revision}");
    }
    for wrong in ["none", "-x", "HEAD@{1}", "a\nb", &"0".repeat(40)] {
        let error = mirrors.fetch(Wanted { revision: Some(wrong), ..wanted }, |_| {}).await.unwrap_err();
        assert!(matches!(&error, GitError::NoRevision { revision, .. } if revision == wrong), "{error}");
    }
    let again = mirrors.fetch(wanted, |_| {}).await.unwrap();
    assert_eq!(again.repo.head, mirror.repo.head);
    let scratch = tempfile::tempdir().unwrap();
    let (quarantine, snapshot) = mirror.repo.snapshot(scratch.path()).await.unwrap();
    quarantine.bundle(&snapshot.base, None, &place.base()).await.unwrap();
    let head = fs::read(place.base()).unwrap();
    assert_eq!(String::from_utf8_lossy(&head).matches(" refs/mayfly/cut/").count(), 2);

    // As a machine has it.
    let machine = place.machine_cut_off(&snapshot);
    let inside = |args: &[&str]| place.git(&machine, args);
    assert_eq!(
        inside(&["log", "--topo-order", "--format=%s"]).lines().collect::<Vec<_>>(),
        ["merged", "side", "number 4"]
    );
    inside(&["fsck", "--strict"]);
    fs::write(machine.join("a.txt"), "changed\n").unwrap();
    place.git(&machine, &["commit", "-q", "-am", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);

    let (base, read) = (place.base(), tempfile::tempdir().unwrap());
    let base = Base { bundle: &base, commit: &snapshot.base, on: None };
    let work = Work::open(&place.ours(), read.path(), Some(base), &bundle, &head).await.unwrap();
    work.diff(&read.path().join("diff")).await.unwrap();
    assert!(fs::read_to_string(read.path().join("diff")).unwrap().contains("+changed"));
    let clone = place.dir.path().join("clone");
    mirror.clone_with(&bundle, &head, &clone, "mayfly/x-y").await.unwrap();
    let count = place.git(&clone, &["rev-list", "--count", "HEAD"]);
    assert_eq!((count.as_str(), place.git(&clone, &["status", "--porcelain"]).as_str()), ("4", ""));
    place.git(&clone, &["fsck", "--strict"]);

    let late = place.dir.path().join("late");
    let alone = ["clone", "-q", "--no-tags", "--single-branch", "-b", "main", &url, late.to_str().unwrap()];
    place.git(place.dir.path(), &alone);
    place.git(&late, &["update-ref", "refs/heads/main", "HEAD~2"]);
    place.git(&late, &["update-ref", "-d", "refs/remotes/origin/main"]);
    place.git(&late, &["reflog", "expire", "--expire=now", "--all"]);
    place.git(&late, &["gc", "-q", "--prune=now"]);
    let repo = Repo::discover(&place.ours(), &late).await.unwrap();
    let taking = async || {
        let scratch = tempfile::tempdir().unwrap();
        let quarantine = repo.quarantine(scratch.path()).await.unwrap();
        if !quarantine.starts_from(&snapshot.base).await.unwrap() {
            quarantine.start_from(&place.base(), &snapshot.base).await?;
        }
        quarantine.land(&bundle, &head, "mayfly/x-y").await
    };
    let refused = taking().await.unwrap_err();
    assert!(matches!(&refused, GitError::CutOff { .. }), "{refused}");
    place.git(&late, &["fetch", "-q"]);
    taking().await.unwrap();
    place.git(&late, &["fsck", "--strict"]);
    assert_eq!(place.git(&late, &["rev-list", "--count", "mayfly/x-y"]), "9");
}

/// A branch or a commit of the user's own repository, and nothing of what is not committed.
#[tokio::test]
async fn a_task_can_begin_at_another_commit_of_the_users_repository() {
    let place = Place::with_repository();
    let first = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    place.git(&place.repo(), &["branch", "topic"]);
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    place.commit("second");
    fs::write(place.repo().join("untracked"), "x").unwrap();
    let git = Git::new(path(), Some(place.dir.path().to_owned()), None);
    let repo = mayfly_git::Repo::discover(&git, &place.repo()).await.unwrap();
    for revision in ["topic", "HEAD~1", &first[..12]] {
        let scratch = tempfile::tempdir().unwrap();
        let at = repo.clone().at(revision).await.unwrap();
        let (_, snapshot) = at.snapshot(scratch.path()).await.unwrap();
        assert_eq!((snapshot.base.as_str(), snapshot.dirty), (first.as_str(), false), "{revision}");
    }
    let error = repo.at("--all").await.unwrap_err();
    assert!(matches!(error, GitError::NoRevision { .. }), "{error}");
}

/// By the user's own ssh client, which is told of their agent and of nothing else of theirs.
#[tokio::test]
async fn a_repository_is_reached_by_the_users_own_ssh() {
    let place = Place::with_repository();
    let (programs, asked) = (place.dir.path().join("bin"), place.dir.path().join("asked"));
    fs::create_dir(&programs).unwrap();
    // Does there what a server would, and is strict about what it is asked.
    let ssh = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK ${{OTHER-none}} $*\" >>{asked}\n\
         for last; do :; done\n[ \"$last\" = \"git-upload-pack '{repo}'\" ] && exec sh -c \"$last\"\nexit 9\n",
        asked = asked.display(),
        repo = place.repo().display()
    );
    fs::write(programs.join("ssh"), ssh).unwrap();
    fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut all = programs.into_os_string();
    all.push(":");
    all.push(path());
    let (folder, git) = (place.mirrors(), Git::new(all, Some(place.dir.path().to_owned()), None));
    let ways = [("SSH_AUTH_SOCK", OsStr::new("/the/agent"))];
    let mirrors = Mirrors { folder: &folder, git: &git, ways: &ways };
    let head = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    let repo = place.repo().display().to_string();
    for url in [format!("ssh://me@host.example:2222{repo}"), format!("me@host.example:{repo}")] {
        let mirror = mirrors.fetch(Wanted { url: &url, revision: Some("main"), depth: None }, |_| {}).await;
        assert_eq!(mirror.unwrap().repo.head, head, "{url}");
    }
    let asked = fs::read_to_string(asked).unwrap();
    let lines: Vec<_> = asked.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains(" -p 2222 me@host.example "), "{asked}");
    assert!(lines.iter().all(|line| line.starts_with("/the/agent none ")), "{asked}");
}

/// By TLS to a host that is who it says, with the password that the user's own helper has for it.
#[tokio::test]
async fn a_repository_is_reached_by_https_with_the_users_own_password() {
    let place = Place::with_repository();
    let (sites, head) = (place.dir.path().join("sites"), place.git(&place.repo(), &["rev-parse", "HEAD"]));
    fs::create_dir(&sites).unwrap();
    let bare = sites.join("app.git");
    place.git(place.dir.path(), &["clone", "-q", "--bare", "repo", bare.to_str().unwrap()]);
    place.git(&bare, &["update-server-info"]);
    let site = Site::start(&sites).await;
    let url = format!("https://{}/app.git", site.address);
    assert!(place.mirror_of(&url, None).await.is_err(), "nobody vouches for that host");
    assert_eq!(site.requests.lock().unwrap().len(), 0);

    let certificate = place.dir.path().join("certificate.pem");
    fs::write(&certificate, &site.certificate).unwrap();
    let (folder, git, ways) = (place.mirrors(), place.ours(), [("GIT_SSL_CAINFO", certificate.as_os_str())]);
    let mirrors = Mirrors { folder: &folder, git: &git, ways: &ways };
    let wanted = Wanted { url: &url, revision: None, depth: None };
    let refused = mirrors.fetch(wanted, |_| {}).await.unwrap_err();
    assert!(matches!(&refused, GitError::Failed { said, .. } if said.contains("Username")), "{refused}");
    let helper = "[credential]\n\thelper = \"!f() { echo username=me; echo password=word; }; f\"\n";
    fs::write(place.dir.path().join(".gitconfig"), helper).unwrap();
    assert_eq!(mirrors.fetch(wanted, |_| {}).await.unwrap().repo.head, head);
}
