//! Keeps copies of repositories elsewhere, so that the next time brings only what is new there.
//!
//! ```text
//! mirrors/<SHA-256 of the URL>.git     bare and ours: all branches and tags, with their history
//! mirrors/<SHA-256 of more>.git        the last commits of one history: their number and what was asked for stand before the
//!                                      URL
//! mirrors/<SHA-256 of the URL>.fetch   held alone by who fetches; its time of change is that of the last use
//! mirrors/<SHA-256 of the URL>.use     held with others by who reads it
//! ```
//!
//! The user's git fetches, by ssh with their own client and agent, by https with the credential helpers that their own
//! configuration names, each for that host alone. Hooks, filters and submodules of the repository have no part in it.
//! What a fetch that was killed has left is removed by the next one: git's own files are whole or have other names. Each
//! fetch that brings something brings a pack; when they are many, and nobody reads the mirror, they become one.
//!
//! Bounds: [`UNUSED_MAX`] for one that nobody uses, [`PACKS_MAX`].

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use mayfly_failpoint::failpoint;
use sha2::{Digest as _, Sha256};

use crate::base::BASE_REF;
use crate::command::{Git, GitCommand, GitError};
use crate::fetch::allow_ways;
use crate::repo::{Repo, plain_name};
use crate::snapshot::{copy_shallow, init_bare};

/// How long a mirror is kept that nobody uses.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The most packs of a mirror that nobody reads.
const PACKS_MAX: usize = 20;
/// What `HEAD` is elsewhere.
const THEIR_HEAD: &str = "refs/mayfly/head";
/// What is fetched where no revision was asked for: the commit that `HEAD` names, which may be none.
const FROM_HEAD: &str = "+HEAD:refs/mayfly/head";
/// How git says that there is nothing of a name, or that it is no name.
const NOT_THERE: [&str; 3] = ["couldn't find remote ref", "invalid refspec", "not our ref"];
/// What is fetched: every branch and every tag.
const EVERYTHING: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

/// Where mirrors are kept, and what fetches into them.
#[derive(Debug, Clone, Copy)]
pub struct Mirrors<'a> {
    /// A folder of ours alone, made if missing.
    pub folder: &'a Path,
    /// git, as this user has it.
    pub git: &'a Git,
    /// The variables by which the user reaches others.
    pub ways: &'a [(&'a str, &'a OsStr)],
}

/// What is to be brought.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// From where.
    pub url: &'a str,
    /// A branch, a tag or a commit there; none is what `HEAD` is.
    pub revision: Option<&'a str>,
    /// With how many commits of the history; none are all.
    pub depth: Option<NonZeroU32>,
}

/// A repository elsewhere, as it is here.
#[derive(Debug)]
pub struct Mirror {
    /// The mirror, with the commit that was asked for as its head.
    pub repo: Repo,
    pub(crate) url: String,
    /// Keeps it from being removed.
    _in_use: File,
}

impl Mirrors<'_> {
    /// Brings what is new there, and finds the commit that is wanted. `each` is given the lines in which git tells how it
    /// goes. Where a whole commit id is asked for that is here already, nobody is asked.
    pub async fn fetch(&self, wanted: Wanted<'_>, each: impl FnMut(&str)) -> Result<Mirror, GitError> {
        let Wanted { url, revision, depth } = wanted;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.folder)
            .map_err(GitError::file(self.folder))?;
        let part = |depth| format!("{depth} {} {url}", revision.unwrap_or_default());
        let named = depth.map_or(url.to_owned(), part);
        let name = self.folder.join(hex::encode(Sha256::digest(named)));
        let (git_dir, fetch_lock) = (name.with_extension("git"), name.with_extension("fetch"));
        let fetching = lock(&fetch_lock).await?;
        fetching.set_modified(SystemTime::now()).map_err(GitError::file(&fetch_lock))?;
        let in_use = open(&name.with_extension("use"))?;
        if git_dir.exists() {
            remove_leftovers(&git_dir).map_err(GitError::file(&git_dir))?;
        }
        let inside = Inside { git: self.git, git_dir: &git_dir };
        if in_use.try_lock().is_ok() {
            inside.tidy_up().await;
        }
        in_use.lock_shared().map_err(GitError::file(&name))?;
        self.remove_unused();
        init_bare(self.git, &git_dir, inside.format()).await?;
        failpoint("mirror-made");
        let here = match revision.filter(|revision| is_whole_id(revision)) {
            Some(commit) => inside.commit(commit).await,
            None => None,
        };
        let head = match here {
            Some(head) => head,
            None => self.bring_as_it_is(&inside, wanted, each).await?,
        };
        failpoint("mirror-fetched");
        let repo = Repo {
            top: git_dir.clone(),
            name: name_in(url),
            head,
            at_commit: true,
            common_dir: git_dir.clone(),
            git_dir,
            git: self.git.clone(),
        };
        Ok(Mirror { repo, url: url.to_owned(), _in_use: in_use })
    }

    /// Whatever its objects are named by: that is seen only once git has asked there.
    async fn bring_as_it_is(
        &self,
        inside: &Inside<'_>,
        wanted: Wanted<'_>,
        mut each: impl FnMut(&str),
    ) -> Result<String, GitError> {
        let other = match inside.format() {
            "sha1" => "sha256",
            _ => "sha1",
        };
        match self.bring(inside, wanted, &mut each).await {
            Err(GitError::Failed { said, .. }) if said.contains(&format!("; server {other}")) => {}
            brought => return brought,
        }
        fs::remove_dir_all(inside.git_dir).map_err(GitError::file(inside.git_dir))?;
        init_bare(self.git, inside.git_dir, other).await?;
        self.bring(inside, wanted, each).await
    }

    async fn bring(
        &self,
        inside: &Inside<'_>,
        wanted: Wanted<'_>,
        mut each: impl FnMut(&str),
    ) -> Result<String, GitError> {
        let Wanted { url, revision, depth } = wanted;
        let fetch = async || self.fetching(inside, wanted).await;
        if depth.is_some() {
            return self.bring_part(inside, wanted, each).await;
        }
        let head = revision.is_none().then_some(FROM_HEAD);
        fetch().await?.args(EVERYTHING).args(head).run_telling(&mut each).await?;
        let Some(revision) = revision else {
            return inside.commit(THEIR_HEAD).await.ok_or_else(|| no_revision(url, "HEAD"));
        };
        if let Some(found) = inside.find(revision).await {
            return Ok(found);
        }
        // A commit that no branch or tag leads to, such as that of a change under review.
        if is_whole_id(revision) && fetch().await?.args([revision]).run_telling(each).await.is_ok() {
            return inside.commit(revision).await.ok_or_else(|| no_revision(url, revision));
        }
        Err(no_revision(url, revision))
    }

    /// Brings one history and no other: git would cut each of several off where another begins.
    async fn bring_part(
        &self,
        inside: &Inside<'_>,
        wanted: Wanted<'_>,
        mut each: impl FnMut(&str),
    ) -> Result<String, GitError> {
        let revision = wanted.revision;
        let named = |kind: &str| revision.map(|revision| format!("+refs/{kind}/{revision}:{THEIR_HEAD}"));
        let id = revision.filter(|revision| is_whole_id(revision)).map(|id| format!("+{id}:{THEIR_HEAD}"));
        let head = revision.is_none().then(|| FROM_HEAD.to_owned());
        for from in [named("heads"), named("tags"), id, head].into_iter().flatten() {
            match self.fetching(inside, wanted).await?.args([from]).run_telling(&mut each).await {
                Ok(()) => return inside.commit(THEIR_HEAD).await.ok_or_else(|| no_commit(wanted)),
                Err(GitError::Failed { said, .. }) if NOT_THERE.iter().any(|words| said.contains(words)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(no_commit(wanted))
    }

    /// A fetch of what is named after it.
    async fn fetching(&self, inside: &Inside<'_>, wanted: Wanted<'_>) -> Result<GitCommand, GitError> {
        let args = ["fetch", "--prune", "--progress", "--no-tags", "--no-recurse-submodules"];
        let command = self.reaching(inside, wanted.url).await?.args(args);
        let command = command.args(wanted.depth.map(|depth| format!("--depth={depth}")));
        Ok(command.args(["--no-write-fetch-head", "--", wanted.url]))
    }

    /// git, as the user reaches that host: what it fetches is another's.
    async fn reaching(&self, inside: &Inside<'_>, url: &str) -> Result<GitCommand, GitError> {
        let mut command = inside.git().bounded().for_long().passing(self.ways.iter().copied());
        // What comes is kept as it came, in packs, which can be shared.
        for (key, value) in [("transfer.fsckObjects", "true"), ("fetch.unpackLimit", "1")] {
            command = command.config(key, OsStr::new(value));
        }
        for harmless in HARMLESS {
            command = command.config(&format!("fetch.fsck.{harmless}"), OsStr::new("ignore"));
        }
        command = allow_ways(command);
        if url.starts_with("https://") {
            for (key, value) in self.git.credential_settings(url).await? {
                command = command.hidden_config(&key, &value);
            }
            command = command.with_home(self.git);
        }
        Ok(command)
    }

    /// Removes the mirrors that nobody has used for long.
    fn remove_unused(&self) {
        let Ok(entries) = fs::read_dir(self.folder) else { return };
        for fetch_lock in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if fetch_lock.extension() == Some(OsStr::new("fetch"))
                && let Err(error) = remove_if_unused(&fetch_lock)
            {
                tracing::warn!(mirror = %fetch_lock.display(), %error, "an old mirror was not removed");
            }
        }
    }
}

/// Old mistakes in real histories that harm nobody; every other finding of git's check is an error.
const HARMLESS: [&str; 4] = ["zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone", "missingEmail"];

fn no_commit(Wanted { url, revision, .. }: Wanted<'_>) -> GitError {
    no_revision(url, revision.unwrap_or("HEAD"))
}

fn no_revision(url: &str, revision: &str) -> GitError {
    GitError::NoRevision { place: url.to_owned(), revision: revision.to_owned() }
}

fn remove_if_unused(fetch_lock: &Path) -> io::Result<()> {
    let old = |used: SystemTime| used.elapsed().is_ok_and(|since| since > UNUSED_MAX);
    if !fs::metadata(fetch_lock)?.modified().is_ok_and(old) {
        return Ok(());
    }
    let in_use = fetch_lock.with_extension("use");
    let locks = [File::options().write(true).open(fetch_lock)?, open(&in_use).map_err(io::Error::other)?];
    if locks.iter().any(|lock| lock.try_lock().is_err()) {
        return Ok(());
    }
    match fs::remove_dir_all(fetch_lock.with_extension("git")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Whoever waits for one of these files sees that it is another's by then, and begins again.
    fs::remove_file(in_use)?;
    fs::remove_file(fetch_lock)
}

fn open(path: &Path) -> Result<File, GitError> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.map_err(GitError::file(path))
}

/// Waits until nobody else has the lock.
async fn lock(path: &Path) -> Result<File, GitError> {
    use std::os::unix::fs::MetadataExt as _;
    loop {
        let file = open(path)?;
        // Whoever waits no longer lets go of it as soon as it has it.
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        let file = waiting.await.expect("it does not panic").map_err(GitError::file(path))?;
        let held = file.metadata().map_err(GitError::file(path))?;
        let there = fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

/// Removes what a git that was killed has left: its locks, and packs that are not whole. A branch may have any name but
/// that of a lock.
fn remove_leftovers(git_dir: &Path) -> io::Result<()> {
    let (refs, objects) = (git_dir.join("refs"), git_dir.join("objects"));
    let mut folders = vec![git_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let of_objects = folder.starts_with(&objects);
            if path.symlink_metadata()?.is_dir() {
                if of_objects && name.starts_with(b"tmp_objdir-") {
                    fs::remove_dir_all(&path)?;
                } else if path.starts_with(&refs) || path.starts_with(&objects) {
                    folders.push(path);
                }
            } else if name.ends_with(b".lock") || of_objects && name.starts_with(b"tmp_") {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// The repository of a mirror.
struct Inside<'a> {
    git: &'a Git,
    git_dir: &'a Path,
}

impl Inside<'_> {
    fn git(&self) -> GitCommand {
        self.git.within(self.git_dir)
    }

    /// By what its objects are named, or will be if there is none yet.
    fn format(&self) -> &'static str {
        let config = fs::read_to_string(self.git_dir.join("config")).unwrap_or_default();
        if config.to_ascii_lowercase().contains("objectformat = sha256") { "sha256" } else { "sha1" }
    }

    /// Makes one pack of many, without what no branch or tag leads to any more. Nobody reads it meanwhile.
    async fn tidy_up(&self) {
        let packs = fs::read_dir(self.git_dir.join("objects/pack")).into_iter().flatten();
        let is_pack = |entry: &fs::DirEntry| entry.path().extension() == Some(OsStr::new("pack"));
        if packs.filter_map(Result::ok).filter(is_pack).count() <= PACKS_MAX {
            return;
        }
        // What another left that was killed is no reason to wait.
        let args = ["gc", "--quiet", "--force", "--prune=now"];
        let settings =
            [("repack.writeBitmaps", "false"), ("gc.writeCommitGraph", "false"), ("gc.cruftPacks", "false")];
        let gc = settings.iter().fold(self.git(), |git, (key, value)| git.config(key, OsStr::new(value)));
        if let Err(error) = gc.bounded().for_long().args(args).run().await {
            tracing::warn!(mirror = %self.git_dir.display(), %error, "a mirror was not repacked");
        }
    }

    /// A branch before a tag, and both before a commit.
    async fn find(&self, revision: &str) -> Option<String> {
        for name in [format!("refs/heads/{revision}"), format!("refs/tags/{revision}")] {
            if let Some(found) = self.commit(&name).await {
                return Some(found);
            }
        }
        let is_id = revision.len() >= 7 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { self.commit(revision).await } else { None }
    }

    async fn commit(&self, name: &str) -> Option<String> {
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        self.git().args(args).args([format!("{name}^{{commit}}")]).line().await.ok()
    }
}

fn is_whole_id(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a repository is called by its URL.
pub fn name_in(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    plain_name(Path::new(last.strip_suffix(".git").unwrap_or(last)))
}

impl Git {
    /// The user's own settings of how a password for `url` is found, as settings for its host alone.
    async fn credential_settings(&self, url: &str) -> Result<Vec<(String, OsString)>, GitError> {
        let host = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let mut settings = Vec::new();
        for name in ["helper", "username", "useHttpPath"] {
            if let Some(value) = self.setting_for(url, &format!("credential.{name}")).await? {
                settings.push((format!("credential.{host}.{name}"), value));
            }
        }
        Ok(settings)
    }
}

impl Mirror {
    /// Where it was fetched from.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives `git_dir`, a new repository, all that is here: the branches as those of its remote `origin`.
    pub(crate) async fn give(&self, git_dir: &Path) -> Result<(), GitError> {
        let (theirs, ours) = (self.repo.git_dir.join("objects/pack"), git_dir.join("objects/pack"));
        link_packs(&theirs, &ours).map_err(GitError::file(&ours))?;
        let inside = || self.repo.git.within(git_dir);
        let from = self.repo.git_dir.as_os_str();
        copy_shallow(&self.repo.git_dir, git_dir)?;
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--"].map(OsStr::new);
        let refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"].map(OsStr::new);
        inside().for_long().args(fetch).args([from]).args(refs).run().await?;
        // Also where no branch of theirs leads to it.
        let head = ["update-ref", BASE_REF, &self.repo.head];
        inside().args(head).run().await?;
        name_origin(inside, &self.url).await
    }
}

/// Makes `url` the `origin` of a repository.
pub(crate) async fn name_origin(git: impl Fn() -> GitCommand, url: &str) -> Result<(), GitError> {
    for (key, value) in [("url", url), ("fetch", "+refs/heads/*:refs/remotes/origin/*")] {
        git().args(["config", &format!("remote.origin.{key}"), value]).run().await?;
    }
    Ok(())
}

/// Shares what is never written again; where that cannot be, it is copied.
fn link_packs(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"pack-") {
            continue;
        }
        let to = to.join(entry.file_name());
        if fs::hard_link(entry.path(), &to).is_err() {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_repository_is_called_by_the_end_of_its_url() {
        for (url, name) in [
            ("https://x.example/me/app.git", "app"),
            ("https://x.example/me/app/", "app"),
            ("ssh://git@x.example/~/a b", "a-b"),
            ("git@x.example:app.git", "app"),
            ("https://x.example/.git", "repository"),
        ] {
            assert_eq!(name_in(url), name, "{url}");
        }
    }

    /// S09: a helper that the user has for all hosts is asked about the one of the URL, and about no other.
    #[tokio::test]
    async fn a_credential_helper_is_for_the_host_of_the_url_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let config = "[credential]\n\thelper = \"!f() { echo username=u; echo password=canary; }; f\"\n\
                      [credential \"https://other.example\"]\n\thelper = other\n";
        fs::write(home.path().join(".gitconfig"), config).expect("written");
        let path = std::env::var_os("PATH").expect("a PATH");
        let git = Git::new(path, Some(home.path().to_owned()), None);
        let settings = git.credential_settings("https://x.example:8443/me/app.git").await.expect("asked");
        assert_eq!(settings.len(), 1, "{settings:?}");
        assert_eq!(settings[0].0, "credential.https://x.example:8443.helper");
        let git_dir = home.path().join("x.git");
        init_bare(&git, &git_dir, "sha1").await.expect("made");
        let mirrors = Mirrors { folder: home.path(), git: &git, ways: &[] };
        let inside = Inside { git: &git, git_dir: &git_dir };
        let url = "https://x.example:8443/me/app.git";
        let reaching = async || mirrors.reaching(&inside, url).await.expect("asked");
        let read_by_all = reaching().await.arguments();
        assert!(!read_by_all.contains("canary"), "{read_by_all}");
        for (host, known) in [("x.example:8443", true), ("x.example", false), ("y.example", false)] {
            let asking = reaching().await.args(["credential", "fill"]);
            let asked = asking.input(format!("protocol=https\nhost={host}\n\n")).run().await;
            let told = asked.is_ok_and(|answer| String::from_utf8_lossy(&answer).contains("canary"));
            assert_eq!(told, known, "{host}");
        }
    }

    /// With a clock that nothing moves but a timer.
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_another_to_fetch_has_the_lock_as_soon_as_it_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, started) = (folder.path().join("a.fetch"), tokio::time::Instant::now());
        let held = lock(&path).await.expect("free");
        let mut waiting = std::pin::pin!(lock(&path));
        let at_once = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_ready()));
        assert!(!at_once.await);
        drop(held);
        waiting.await.expect("free");
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_mirror_that_nobody_used_for_long_goes_unless_somebody_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = std::env::var_os("PATH").expect("a PATH");
        let git = Git::new(path, None, None);
        let mirrors = Mirrors { folder: folder.path(), git: &git, ways: &[] };
        let make = |name: &str, age: Duration| {
            let lock = folder.path().join(name).with_extension("fetch");
            fs::create_dir(lock.with_extension("git")).expect("made");
            open(&lock).expect("made").set_modified(SystemTime::now() - age).expect("set");
            lock.with_extension("git")
        };
        let (old, new) = (make("a", UNUSED_MAX * 2), make("b", UNUSED_MAX / 2));
        let read = make("c", UNUSED_MAX * 2);
        let reader = open(&read.with_extension("use")).expect("made");
        reader.lock_shared().expect("free");
        mirrors.remove_unused();
        assert!(!old.exists() && !old.with_extension("fetch").exists() && new.exists() && read.exists());
        drop(reader);
        mirrors.remove_unused();
        assert!(!read.exists());
    }

    #[test]
    fn what_a_killed_git_has_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = ["HEAD", "config", "refs/heads/a", "objects/pack/pack-1.pack", "objects/ab/cdef"];
        let left =
            ["packed-refs.lock", "refs/heads/a.lock", "objects/pack/tmp_pack_x", "objects/tmp_objdir-x/pack"];
        for file in files.iter().chain(&left) {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "").expect("written");
        }
        remove_leftovers(dir.path()).expect("removed");
        assert!(files.iter().all(|file| dir.path().join(file).exists()));
        assert!(left.iter().all(|file| !dir.path().join(file).exists()));
    }
}
