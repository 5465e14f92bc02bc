//! Takes back what a machine made: checked in quarantine, then one new branch, and nothing else. What the agent
//! committed beside its work has a branch of its own each, which appears with the first or not at all.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use mayfly_core::unfold::{self, TooMuch};
use mayfly_failpoint::failpoint;
use mayfly_wire::worker::{OTHER_REFS, OTHERS_MAX, STAGED_REF, WORK_REF, is_commit, is_other_name};

use crate::base::{BASE_REF, Base, take_base};
use crate::command::{Git, GitCommand, GitError};
use crate::mirror::{Mirror, name_origin};
use crate::snapshot::{Quarantine, init_bare, object_format};

impl Quarantine {
    /// Makes `branch` in the user's repository point to `head`, which the bundle holds. Every object is checked
    /// before the user's repository sees it. The branch must not exist; no tree and no other ref changes, but for
    /// what else the bundle holds: that becomes branches `<branch>--<name>`, which are given back.
    pub async fn land(&self, bundle: &Path, head: &str, branch: &str) -> Result<Vec<String>, GitError> {
        let landed = format!("refs/landed/{head}");
        let others = fetch(self.git(), bundle, head, &landed).await?;
        failpoint("land-fetched");
        // What the user has already need not travel; what is checked here enters as one pack.
        let commits = others.iter().map(|other| &*other.commit).chain([head]);
        let wanted = commits.collect::<Vec<_>>().join("\n") + &format!("\n^{}\n", self.repo.head);
        let pack = self.git_dir.join("landing.pack");
        let packing =
            self.git().bounded().args(["pack-objects", "--quiet", "--revs", "--stdout"]).input(wanted);
        packing.output_to(&pack)?.run().await?;
        let user = || self.repo.git.within(&self.repo.git_dir);
        let index = user().bounded().args(["index-pack", "--stdin", "--strict"]).input_from(&pack)?;
        index.run().await.map_err(refusal)?;
        failpoint("land-indexed");
        let branches: Vec<_> = others.iter().map(|other| other.branch(branch)).collect();
        let new = branches.iter().zip(&others).map(|(branch, other)| (&**branch, &*other.commit));
        let create = |(branch, commit)| format!("create refs/heads/{branch} {commit}\n");
        let steps: String = new.chain([(branch, head)]).map(create).collect();
        let update = ["update-ref", "-m", "mayfly: the work of a task", "--stdin"];
        user().args(update).input(steps).run().await?;
        failpoint("land-named");
        Ok(branches)
    }
}

/// The most that is written of the work's files in a new repository: a small bundle can hold any number, and this lands
/// unasked.
const CHECKOUT_BYTES_MAX: u64 = 2 << 30;

/// A new repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The branches of what the bundle holds beside the work.
    pub others: Vec<String>,
    /// Why its files are not there; none is that they are.
    pub without_files: Option<TooMuch>,
}

/// Makes a new repository at `folder`, which must not exist, with the work of a bundle on `branch`. It is there whole or not
/// at all, also if this is given up half-way; without its files if they are too many or too large. `began` is what the work
/// started from, if from anything.
pub async fn unbundle(
    git: &Git,
    began: Option<Began<'_>>,
    bundle: &Path,
    head: &str,
    folder: &Path,
    branch: &str,
) -> Result<Made, GitError> {
    make(git, began.map_or(Start::Nothing, Start::Code), bundle, head, folder, branch).await
}

/// What work started from, where no repository has that.
#[derive(Debug, Clone, Copy)]
pub struct Began<'a> {
    /// The code.
    pub base: Base<'a>,
    /// The URL that it was fetched from, if any.
    pub origin: Option<&'a str>,
}

/// What a new repository has before the work.
enum Start<'a> {
    Nothing,
    Code(Began<'a>),
    Mirror(&'a Mirror),
}

impl Mirror {
    /// The same for work that began with a commit of the mirror: the new repository is a clone of it, with the URL as its
    /// `origin`.
    pub async fn clone_with(
        &self,
        bundle: &Path,
        head: &str,
        folder: &Path,
        branch: &str,
    ) -> Result<Made, GitError> {
        make(&self.repo.git, Start::Mirror(self), bundle, head, folder, branch).await
    }
}

async fn make(
    git: &Git,
    start: Start<'_>,
    bundle: &Path,
    head: &str,
    folder: &Path,
    branch: &str,
) -> Result<Made, GitError> {
    if fs::symlink_metadata(folder).is_ok() {
        return Err(GitError::file(folder)(io::ErrorKind::AlreadyExists.into()));
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new().prefix(".mayfly-").tempdir_in(beside);
    let unfinished = unfinished.map_err(GitError::file(beside))?;
    // One level down, so that its mode is the user's usual one.
    let made = unfinished.path().join("made");
    fs::create_dir(&made).map_err(GitError::file(&made))?;
    let git_dir = made.join(".git");
    let format = object_format(head.len());
    init_bare(git, &git_dir, format).await?;
    let inside = || git.within(&git_dir);
    match &start {
        Start::Nothing => {}
        Start::Code(Began { base, origin }) => {
            take_base(inside, *base).await?;
            if let Some(url) = origin {
                name_origin(inside, url).await?;
            }
        }
        Start::Mirror(mirror) => mirror.give(&git_dir).await?,
    }
    let main = format!("refs/heads/{branch}");
    let others = fetch(inside(), bundle, head, &main).await?;
    inside().args(["symbolic-ref", "HEAD", &main]).run().await?;
    inside().args(["config", "core.bare", "false"]).run().await?;
    let list = inside().bounded().args(unfold::LIST).args([&main]);
    let without_files = list.unfold(CHECKOUT_BYTES_MAX).await?.err();
    if without_files.is_none() {
        inside().bounded().work_tree(&made).args(["reset", "--quiet", "--hard"]).run().await?;
    }
    if !matches!(start, Start::Nothing) {
        inside().args(["update-ref", "-d", BASE_REF]).run().await?;
    }
    failpoint("land-made");
    fs::rename(&made, folder).map_err(GitError::file(folder))?;
    Ok(Made { others: others.iter().map(|other| other.branch(branch)).collect(), without_files })
}

/// Takes the bundle's work as `into` and what else it holds as `<into>--<name>`, with every object checked, in bounded
/// memory, and only if the work is the announced commit.
pub(crate) async fn fetch(
    git: GitCommand,
    bundle: &Path,
    head: &str,
    into: &str,
) -> Result<Vec<Other>, GitError> {
    let Heads { work, others, .. } = heads(bundle)?;
    if work != head {
        return Err(GitError::WrongHead { found: work, announced: head.to_owned() });
    }
    let specs = others.iter().map(|other| format!("{OTHER_REFS}{}:{}", other.name, other.branch(into)));
    fetch_as(git, bundle, specs.chain([format!("{WORK_REF}:{into}")])).await?;
    Ok(others)
}

/// Takes what was staged as `into`, in the same way.
pub(crate) async fn fetch_staged(git: GitCommand, bundle: &Path, into: &str) -> Result<(), GitError> {
    fetch_as(git, bundle, [format!("{STAGED_REF}:{into}")]).await
}

async fn fetch_as(
    git: GitCommand,
    bundle: &Path,
    specs: impl IntoIterator<Item = String>,
) -> Result<(), GitError> {
    let fetch =
        ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options"].map(OsStr::new);
    let git = git.bounded().config("fetch.fsckObjects", OsStr::new("true")).args(fetch).args([bundle]);
    git.args(specs).run().await.map(drop).map_err(refusal)
}

/// Tells a failed check of objects from what else can go wrong.
pub(crate) fn refusal(error: GitError) -> GitError {
    match error {
        GitError::Failed { said, .. } if said.contains("fsck error") => GitError::BadObject(said),
        other => other,
    }
}

/// What a bundle holds.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) work: String,
    pub(crate) others: Vec<Other>,
    /// Whether what was staged is in it.
    pub(crate) has_staged: bool,
    /// The names of all that it holds, a line each, also of what nobody takes from it.
    pub(crate) names: Vec<u8>,
}

/// What a bundle says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The commit of its work.
    pub head: String,
    /// The commits beside it, by their names.
    pub others: BTreeMap<String, String>,
}

/// The commits that a bundle says it holds: its work, and what is beside it. None of its objects is looked at.
pub fn announced(bundle: &Path) -> Result<Announced, GitError> {
    let Heads { work: head, others, names, .. } = heads(bundle)?;
    let is_bundle = begins_as_bundle(&names);
    let others: BTreeMap<_, _> = others.into_iter().map(|other| (other.name, other.commit)).collect();
    if !is_bundle || !others.values().chain([&head]).all(|commit| is_commit(commit)) {
        return Err(GitError::BadName("no work".to_owned()));
    }
    Ok(Announced { head, others })
}

/// Whether it is a bundle, by its first line.
pub(crate) fn begins_as_bundle(header: &[u8]) -> bool {
    [b"# v2 git bundle\n", b"# v3 git bundle\n"].iter().any(|first| header.starts_with(*first))
}

/// A commit beside the work.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) name: String,
    pub(crate) commit: String,
}

impl Other {
    fn branch(&self, of: &str) -> String {
        format!("{of}--{}", self.name)
    }
}

/// The longest header of a bundle.
pub(crate) const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// What the bundle's header says; it is text and ends with an empty line.
pub(crate) fn heads(bundle: &Path) -> Result<Heads, GitError> {
    use std::io::{BufReader, Read as _};
    let file = fs::File::open(bundle).map_err(GitError::file(bundle))?;
    heads_in(BufReader::new(file.take(HEADER_BYTES_MAX)))
}

/// The same of what a bundle begins with.
pub(crate) fn heads_in(header: impl io::BufRead) -> Result<Heads, GitError> {
    let (work, others, names) = ("nothing".to_owned(), Vec::new(), Vec::new());
    let mut heads = Heads { work, others, has_staged: false, names };
    let (mut lines, mut seen, mut is_whole) = (header.split(b'\n'), HashSet::new(), false);
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            is_whole = true;
            break;
        }
        heads.names.extend_from_slice(&line);
        heads.names.push(b'\n');
        // Its version, what it is able to do, and what it is on top of, with any words.
        if matches!(line[0], b'#' | b'@' | b'-') {
            continue;
        }
        let line = String::from_utf8_lossy(&line);
        let shown = || line.chars().filter(|c| !c.is_control()).take(100).collect();
        // Git takes more for a space, ends a name where that has a zero byte, and takes the last of two.
        let plain = line.split_once(' ').filter(|(commit, name)| {
            is_commit(commit) && !name.contains(char::is_control) && seen.insert((*name).to_owned())
        });
        let (commit, name) = plain.ok_or_else(|| GitError::BadName(shown()))?;
        let commit = commit.to_owned();
        if name == WORK_REF {
            heads.work = commit;
        } else if name == STAGED_REF {
            heads.has_staged = true;
        } else if let Some(name) = name.strip_prefix(OTHER_REFS) {
            if !is_other_name(name) || heads.others.len() == OTHERS_MAX {
                return Err(GitError::BadName(name.chars().filter(|c| !c.is_control()).take(100).collect()));
            }
            heads.others.push(Other { name: name.to_owned(), commit });
        }
    }
    // What comes after would be another bundle for us than for git.
    if !is_whole {
        return Err(GitError::BadName("no end of its refs".to_owned()));
    }
    Ok(heads)
}
