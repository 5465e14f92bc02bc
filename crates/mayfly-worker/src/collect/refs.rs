//! What a repository's refs name, read by hand, since git would read the repository's configuration too.
//!
//! All of it is the agent's making: links are not followed, and what is no commit's name is passed over. Where
//! commits can be: `HEAD` and its log, every ref, the stash and its log, each added work tree, and what an
//! operation under way has put aside. A commit that the agent itself put another in the place of, by amending or
//! rebasing, is none of them. Bounds: [`FILE_BYTES_MAX`] a file, [`LOOKED_AT_MAX`] refs in all,
//! [`LOGGED_MAX`] entries of a log.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirEntry};
use std::io::Read as _;
use std::path::Path;

use mayfly_wire::api::{Ref, Repository};
use mayfly_wire::worker::{REF_BYTES_MAX, REFS_MAX};

/// What is read of a file that names commits.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most refs that are looked at.
const LOOKED_AT_MAX: usize = 10_000;
/// The most entries of a log, the newest ones, that are looked at.
const LOGGED_MAX: usize = 500;
/// Where git keeps a commit while something is under way.
const PUT_ASIDE: [&str; 7] = [
    "rebase-merge/autostash",
    "rebase-apply/autostash",
    "MERGE_AUTOSTASH",
    "rebase-merge/orig-head",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "ORIG_HEAD",
];

/// A commit that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tip {
    /// What names it, such as `heads/feature`.
    pub(crate) name: String,
    pub(crate) commit: String,
}

/// What a repository names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tips {
    /// By a name: branches first.
    pub(crate) named: Vec<Tip>,
    /// By a log alone, or for an operation under way; the newest first.
    pub(crate) left: Vec<String>,
    /// What could not be looked at, a line each.
    pub(crate) lost: Vec<String>,
    /// Logs that are longer than what is looked at of them, a line each.
    pub(crate) notes: Vec<String>,
}

/// The commit that `HEAD` in this folder names.
pub(crate) fn head(git: &Path) -> Option<String> {
    head_of(git, git)
}

/// How the repository with this git folder is left, for whoever goes on with it. `None`: there is none.
pub(crate) fn repository(git: &Path) -> Option<Repository> {
    let named = text(&git.join("HEAD"))?;
    let named = named.trim_end().strip_prefix("ref: ").map(str::to_owned);
    let branch = named.as_deref().and_then(|name| name.strip_prefix("refs/heads/"));
    let mut refs = packed(git);
    loose(git, &mut refs, &mut Vec::new());
    let others = refs.into_iter().filter(|(name, _)| named.as_ref() != Some(name));
    let others = others.filter_map(|(name, commit)| Some((name.strip_prefix("refs/")?.to_owned(), commit)));
    let kept =
        |name: &str| name.len() <= REF_BYTES_MAX && (name.starts_with("heads/") || name.starts_with("tags/"));
    let refs = others.filter(|(name, _)| kept(name)).map(|(name, commit)| Ref { name, commit });
    let mut stash = logged(git, "refs/stash", &mut Vec::new());
    stash.truncate(REFS_MAX);
    Some(Repository {
        commit: head(git),
        branch: branch.filter(|branch| branch.len() <= REF_BYTES_MAX).map(str::to_owned),
        refs: refs.take(REFS_MAX).collect(),
        stash,
        index: None,
    })
}

/// All that the repository with this git folder names, but `HEAD`.
pub(crate) fn tips(git: &Path) -> Tips {
    let mut tips = Tips::default();
    let mut refs = packed(git);
    loose(git, &mut refs, &mut tips.lost);
    if refs.len() > LOOKED_AT_MAX {
        tips.lost
            .push(format!("the agent's other commits: of {} refs only {LOOKED_AT_MAX} are kept", refs.len()));
    }
    let (branches, others): (Vec<_>, Vec<_>) =
        refs.into_iter().take(LOOKED_AT_MAX).partition(|(name, _)| name.starts_with("refs/heads/"));
    let named = branches.into_iter().chain(others);
    let tip = |(name, commit): (String, String)| Tip { name: name["refs/".len()..].to_owned(), commit };
    tips.named.extend(named.map(tip));
    // The first of the stash's log is the stash itself.
    let stashed = logged(git, "refs/stash", &mut tips.notes);
    tips.named.extend(stashed.into_iter().map(|commit| Tip { name: "stash".to_owned(), commit }));
    work_trees(git, &mut tips);
    let aside = PUT_ASIDE.iter().filter_map(|name| commit(text(&git.join(name))?.trim_end()));
    tips.left.extend(aside);
    tips.left.extend(logged(git, "HEAD", &mut tips.notes));
    let replaced = replaced(git);
    tips.left.retain(|commit| !replaced.contains(commit));
    tips
}

/// What the log of `HEAD` says was amended, or rebased to its end.
fn replaced(git: &Path) -> HashSet<String> {
    let log = text(&git.join("logs/HEAD")).unwrap_or_default();
    let (mut replaced, mut ended) = (HashSet::new(), false);
    for line in log.lines().rev().take(LOGGED_MAX) {
        let Some((entry, message)) = line.split_once('\t') else { continue };
        let before = entry.split(' ').next().and_then(commit);
        if message.starts_with("rebase (finish)") {
            ended = true;
        } else if message.starts_with("rebase (start)") {
            replaced.extend(before.filter(|_| std::mem::take(&mut ended)));
        } else if message.starts_with("commit (amend)") {
            replaced.extend(before);
        }
    }
    replaced
}

fn work_trees(git: &Path, tips: &mut Tips) {
    for work_tree in
        entries(&git.join("worktrees")).iter().filter(|entry| is_folder(entry)).take(LOOKED_AT_MAX)
    {
        let (own, name) = (work_tree.path(), work_tree.file_name());
        let name = format!("worktree-{}", name.to_string_lossy());
        tips.named.extend(head_of(&own, git).map(|commit| Tip { name, commit }));
        tips.left.extend(logged(&own, "HEAD", &mut tips.notes));
    }
}

/// The commit that `HEAD` in `own` names, whose refs are in `common`.
fn head_of(own: &Path, common: &Path) -> Option<String> {
    let head = text(&own.join("HEAD"))?;
    match head.trim_end().strip_prefix("ref: ") {
        None => commit(head.trim_end()),
        Some(name) => {
            let plain =
                name.starts_with("refs/") && !name.split('/').any(|part| part.is_empty() || part == "..");
            let loose = || text(&common.join(name)).and_then(|hex| commit(hex.trim_end()));
            plain.then(|| loose().or_else(|| packed(common).remove(name)))?
        }
    }
}

fn packed(git: &Path) -> BTreeMap<String, String> {
    let refs = text(&git.join("packed-refs")).unwrap_or_default();
    let pairs = refs.lines().filter_map(|line| line.split_once(' '));
    let named = pairs.filter(|(_, name)| name.starts_with("refs/"));
    named.filter_map(|(hex, name)| Some((name.to_owned(), commit(hex)?))).collect()
}

/// Adds the refs that have a file of their own.
fn loose(git: &Path, refs: &mut BTreeMap<String, String>, lost: &mut Vec<String>) {
    let (mut folders, mut left) = (vec![git.join("refs")], LOOKED_AT_MAX);
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder) {
            if left == 0 {
                return lost.push(format!(
                    "the agent's other commits: `refs` has more than {LOOKED_AT_MAX} entries"
                ));
            }
            left -= 1;
            let path = entry.path();
            let name = path.strip_prefix(git).unwrap_or(&path).to_string_lossy().into_owned();
            if is_folder(&entry) {
                folders.push(path);
            } else if path.is_symlink() {
                lost.push(format!("the agent's commits of `{name}`, if it made any: it is a link"));
            } else if let Some(commit) = text(&path).and_then(|hex| commit(hex.trim_end())) {
                refs.insert(name, commit);
            }
        }
    }
}

/// The commits of a log's newest entries, the newest first, each once.
fn logged(git: &Path, name: &str, notes: &mut Vec<String>) -> Vec<String> {
    let (text, mut seen) = (text(&git.join("logs").join(name)).unwrap_or_default(), HashSet::new());
    let mut newest = text.lines().rev();
    let commits = newest.by_ref().take(LOGGED_MAX).filter_map(|line| commit(line.split(' ').nth(1)?));
    let commits = commits.filter(|commit| seen.insert(commit.clone())).collect();
    if newest.next().is_some() {
        notes.push(format!(
            "the log of `{name}` has more than {LOGGED_MAX} entries: older ones are not looked at"
        ));
    }
    commits
}

fn commit(hex: &str) -> Option<String> {
    let hexadecimal = [40, 64].contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let none = hex.bytes().all(|byte| byte == b'0');
    (hexadecimal && !none).then(|| hex.to_owned())
}

/// The entries of a folder that is no link.
fn entries(folder: &Path) -> Vec<DirEntry> {
    let folder = folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()).then_some(folder);
    let read = folder.and_then(|folder| fs::read_dir(folder).ok());
    read.into_iter().flatten().flatten().take(LOOKED_AT_MAX + 1).collect()
}

fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// A plain file's text, within its bound.
pub(crate) fn text(path: &Path) -> Option<String> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
