//! The work as it is at a moment, in a git folder of ours that lives as long as the attempt.
//!
//! ```text
//! what the agent began with ──► its commits ──► HEAD ──► "Uncommitted work", anew each time
//! index: the files as they were last seen, so that a look reads what has changed and nothing else
//! ```
//!
//! The index begins as that of the base, whose files it has seen. Its own time is set back to the beginning of each look:
//! git then reads once more what was changed at that moment or later.
//!
//! Bounds: [`FILE_BYTES_MAX`] for a file, a share of the machine's disk for the folder, which is begun anew beyond it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mayfly_core::amount;
use mayfly_wire::api::{Collected, Repository};
use mayfly_wire::worker::{Checkpoint, UNCOMMITTED};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::claude::interpret::shorten;
use crate::collect::files::{Files, Take};
use crate::collect::git::{Git, GitError, not_run};
use crate::collect::nested::tell;
use crate::collect::others::Other;
use crate::collect::refs::{Tips, head, repository, tips};
use crate::collect::work::Work;
use crate::reaper::{Realm, Reaper};
use crate::setup::made::Made;

/// The longest file that a checkpoint holds, where the disk does not allow less.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What may be taken into the folder before it is begun anew, where the disk does not allow less.
const FOLDER_BYTES_MAX: u64 = 1 << 30;
/// The most lines that say what is left out.
const LEFT_OUT_MAX: usize = 20;
/// Asks for the files that are not as the index has them.
const CHANGED: [&str; 7] =
    ["ls-files", "-z", "-t", "--others", "--modified", "--deleted", "--exclude-standard"];
/// What an index of ours compares: what is seen in a machine differs in the rest from what was checked out.
const SETTINGS: &str = "[core]\n\tcheckStat = minimal\n\ttrustctime = false\n";

/// Looks at the work of one attempt.
#[derive(Debug)]
pub(crate) struct State {
    /// Starts programs that give way to others.
    pub(crate) reaper: Reaper,
    pub(crate) workspace: PathBuf,
    /// The commit that the agent began with; none is an empty folder.
    pub(crate) base: Option<String>,
    /// The objects of the base, out of the agent's reach; beside them is its index.
    pub(crate) base_objects: PathBuf,
    /// Where the folder may be.
    pub(crate) places: [PathBuf; 2],
    /// The most bytes of the machine's disk.
    pub(crate) disk_max: Option<u64>,
    /// What the set-up commands made.
    pub(crate) made: Arc<Made>,
    /// How often the folder was begun anew: what was packed before is not in it.
    pub(crate) begun: u64,
    pub(crate) folder: Option<Folder>,
}

/// A work tree as checkpoints look at it, for whoever measures what that costs.
#[derive(Debug)]
pub struct WorkTree(State);

impl WorkTree {
    /// That of the repository at `top`, which began with the commit `base`; our folder is in `place`. On the current
    /// runtime.
    ///
    /// # Errors
    /// The ends of processes cannot be heard.
    pub fn new(top: &Path, base: &str, place: &Path) -> io::Result<Self> {
        Ok(Self(State {
            reaper: Reaper::start(Realm::Children)?.gentle(),
            workspace: top.to_owned(),
            base: Some(base.to_owned()),
            base_objects: top.join(".git/objects"),
            places: [place.to_owned(), place.to_owned()],
            disk_max: None,
            made: Arc::default(),
            begun: 0,
            folder: None,
        }))
    }

    /// Looks at it once. Gives the commit that holds what differs from the beginning, if anything does.
    ///
    /// # Errors
    /// It did not come to its end within `most`, or git failed.
    pub async fn look(
        &mut self,
        most: Duration,
    ) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.look(Instant::now() + most).await?.head)
    }
}

/// The git folder, and what was seen with it.
#[derive(Debug)]
pub(crate) struct Folder {
    place: TempDir,
    /// What `HEAD` and the other names were.
    named: Option<Names>,
    /// The commit on which uncommitted work is, and its tree.
    parent: Option<String>,
    parent_tree: String,
    /// The last tree that was committed, with its commit.
    committed: Option<(String, String)>,
    /// What the others were, and what could not be had of them.
    others: (Vec<Other>, Vec<String>),
    /// What was taken in, in bytes.
    taken: u64,
}

/// What the agent's repository names.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    head: Option<String>,
    tips: Tips,
    repository: Option<Repository>,
}

/// What the work was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// The last commit, if the work differs from what it began with.
    pub(crate) head: Option<String>,
    pub(crate) others: BTreeMap<String, String>,
    /// How the agent's repository was.
    pub(crate) repository: Option<Repository>,
    pub(crate) left_out: Vec<String>,
}

/// What is to be handed over.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) file: PathBuf,
    pub(crate) bytes: u64,
}

impl Folder {
    fn git(&self) -> PathBuf {
        self.place.path().join("git")
    }
}

impl Look {
    /// Whether the work is that of another look.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let seen = |look: &Self| (look.head.clone(), look.others.clone(), look.repository.clone());
        seen(self) == seen(other)
    }

    /// Whether nothing differs from what the task began with.
    pub(crate) fn is_nothing(&self) -> bool {
        self.head.is_none() && self.left_out.is_empty()
    }

    fn commits(&self) -> impl Iterator<Item = &String> {
        self.head.iter().chain(self.others.values())
    }
}

impl State {
    /// Looks at the work. After an error the folder is begun anew.
    pub(crate) async fn look(&mut self, deadline: Instant) -> Result<Look, GitError> {
        let full = self.share(FOLDER_BYTES_MAX, 8);
        let folder = self.folder.take().filter(|folder| folder.taken <= full && folder.place.path().is_dir());
        let mut folder = if let Some(folder) = folder {
            folder
        } else {
            self.begun += 1;
            self.begin(deadline).await?
        };
        let look = self.look_with(&mut folder, deadline).await;
        match &look {
            Ok(_) => self.folder = Some(folder),
            // What was read is in the index.
            Err(GitError::Late { .. }) => {
                self.git(&folder.git()).unlock_index();
                self.folder = Some(folder);
            }
            Err(_) => {}
        }
        look
    }

    /// The files that are not as the commit has them that the agent's repository is at. Nothing of them is taken in.
    pub(crate) async fn differing(&mut self, deadline: Instant) -> Result<HashSet<PathBuf>, GitError> {
        let mut folder = match self.folder.take() {
            Some(folder) => folder,
            None => self.begin(deadline).await?,
        };
        let (path, own) = (folder.place.path().to_owned(), folder.git());
        let (git, work) = (self.git(&own), self.work(&path));
        self.follow_names(&git, &work, &mut folder, deadline).await?;
        let list = git.list(&CHANGED, deadline).await?;
        self.folder = Some(folder);
        match list.whole {
            true => Ok(list.entries.into_iter().filter_map(path_of).collect()),
            false => Err(GitError::Late { verb: "ls-files".to_owned() }),
        }
    }

    /// Packs what a look has that the one before, which has this number, has not.
    pub(crate) async fn pack(
        &mut self,
        look: &Look,
        before: Option<(u64, &Look)>,
        deadline: Instant,
    ) -> Result<Packed, GitError> {
        let folder = self.folder.take().expect("it was looked with it");
        let packed = self.pack_with(&folder, look, before, deadline).await;
        let is_whole = matches!(packed, Ok(_) | Err(GitError::Late { .. }));
        self.folder = is_whole.then_some(folder);
        packed
    }

    async fn begin(&self, deadline: Instant) -> Result<Folder, GitError> {
        let place = self.place().map_err(not_run("init"))?;
        let path = place.path().join("git");
        let git = self.git(&path);
        self.work(place.path()).init(&git, deadline).await?;
        let config = File::options().append(true).open(git.folder.join("config"));
        config.and_then(|mut config| config.write_all(SETTINGS.as_bytes())).map_err(not_run("config"))?;
        let nothing = git.run(["write-tree"], deadline).await?;
        if self.base.is_some() {
            let index = fs::copy(self.base_objects.with_file_name("index"), git.folder.join("index"));
            match index {
                // Where the base is not kept apart, the first look reads all files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => {
                    copied.map_err(not_run("read-tree"))?;
                }
            }
        }
        Ok(Folder {
            named: None,
            parent: None,
            parent_tree: nothing,
            committed: None,
            others: (Vec::new(), Vec::new()),
            taken: 0,
            place,
        })
    }

    /// On the disk, as hidden as can be.
    fn place(&self) -> io::Result<TempDir> {
        let make = |place: &PathBuf| tempfile::Builder::new().prefix(".mayfly-").tempdir_in(place);
        make(&self.places[0]).or_else(|_| make(&self.places[1]))
    }

    async fn look_with(&self, folder: &mut Folder, deadline: Instant) -> Result<Look, GitError> {
        let began = SystemTime::now();
        let (path, own) = (folder.place.path().to_owned(), folder.git());
        let (git, work) = (self.git(&own), self.work(&path));
        let mut told = Collected::default();
        self.follow_names(&git, &work, folder, deadline).await?;
        let made = &self.made;
        let files = Files { git: &git, base: None, read_by: deadline, deadline, contents: None, made };
        let changed = self.changed(&files, deadline, &mut told).await?;
        if !changed.is_empty() {
            folder.taken += changed.iter().map(|(length, _)| length).sum::<u64>();
            let how = ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"];
            let take = Take { how: &how, known: None, most: u64::MAX };
            files.take(take, &changed, &mut told).await?;
            set_back(&git.folder.join("index"), began);
        }
        let head = self.commit(&git, folder, deadline).await?;
        let mut others = folder.others.0.clone();
        let head = head.or_else(|| (!others.is_empty()).then(|| others.remove(0).commit));
        told.unsaved.extend(folder.others.1.iter().cloned());
        let left_out = bounded(told.unsaved);
        let others = others.into_iter().map(|other| (other.name, other.commit)).collect();
        let repository = folder.named.as_ref().and_then(|named| named.repository.clone());
        Ok(Look { head, others, repository, left_out })
    }

    /// Sees where the agent's commits are now.
    async fn follow_names(
        &self,
        git: &Git<'_>,
        work: &Work<'_>,
        folder: &mut Folder,
        deadline: Instant,
    ) -> Result<(), GitError> {
        let dot_git = self.workspace.join(".git");
        let read = spawn_blocking(move || Names {
            head: head(&dot_git),
            tips: tips(&dot_git),
            repository: repository(&dot_git),
        });
        let named = read.await.expect("reading does not panic");
        if folder.named.as_ref() == Some(&named) {
            return Ok(());
        }
        let mut told = Collected::default();
        if folder.named.as_ref().is_none_or(|before| before.head != named.head) {
            // It may have become a repository only now.
            work.borrow_objects(git)?;
            let parent = work.parent(git, deadline, &mut told).await;
            if let Some(commit) = &parent {
                git.run(["read-tree", "--reset", commit], deadline).await?;
                folder.parent_tree = git.run(["rev-parse", &format!("{commit}^{{tree}}")], deadline).await?;
            }
            (folder.parent, folder.committed) = (parent, None);
        }
        let others =
            work.others(git, named.tips.clone(), folder.parent.as_deref(), deadline, &mut told).await;
        folder.others = (others, told.unsaved);
        folder.named = Some(named);
        Ok(())
    }

    /// The files that are not as the index has them, with their lengths, and without what is not to be taken.
    async fn changed(
        &self,
        files: &Files<'_>,
        deadline: Instant,
        told: &mut Collected,
    ) -> Result<Vec<(u64, PathBuf)>, GitError> {
        let list = files.git.list(&CHANGED, deadline).await?;
        if !list.whole {
            told.unsaved.push("some files: there are too many to list".to_owned());
        }
        let mut seen = HashSet::new();
        let paths = list.entries.into_iter().filter_map(|entry| {
            let is_new = entry.as_encoded_bytes().starts_with(b"?");
            let path = path_of(entry)?;
            (!(self.made.has(&path) || is_new && self.made.is_kept(&path))).then_some(path)
        });
        let paths = paths.filter(|path| seen.insert(path.clone()));
        let (inner, paths): (Vec<_>, Vec<_>) =
            paths.partition(|path| path.as_os_str().as_encoded_bytes().ends_with(b"/"));
        told.unsaved.extend(inner.iter().map(|path| tell(path, "this repository inside the workspace")));
        let most = self.share(FILE_BYTES_MAX, 16);
        let (take, long): (Vec<_>, Vec<_>) =
            files.measure(paths).await?.into_iter().partition(|(length, _)| *length <= most);
        told.unsaved
            .extend(long.iter().map(|(length, path)| {
                tell(path, &format!("{}, too much for a checkpoint", amount(*length)))
            }));
        Ok(take)
    }

    /// The commit with the files as the index has them. `None`: they are what the task began with.
    async fn commit(
        &self,
        git: &Git<'_>,
        folder: &mut Folder,
        deadline: Instant,
    ) -> Result<Option<String>, GitError> {
        let tree = git.run(["write-tree"], deadline).await?;
        if tree == folder.parent_tree {
            return Ok(folder.parent.clone().filter(|parent| Some(parent) != self.base.as_ref()));
        }
        if let Some((_, commit)) = folder.committed.as_ref().filter(|(committed, _)| *committed == tree) {
            return Ok(Some(commit.clone()));
        }
        let mut arguments = vec!["commit-tree", "-m", UNCOMMITTED];
        arguments.extend(folder.parent.iter().flat_map(|parent| ["-p", parent]));
        arguments.push(&tree);
        let commit = git.run(arguments, deadline).await?;
        folder.committed = Some((tree, commit.clone()));
        Ok(Some(commit))
    }

    async fn pack_with(
        &self,
        folder: &Folder,
        look: &Look,
        before: Option<(u64, &Look)>,
        deadline: Instant,
    ) -> Result<Packed, GitError> {
        let own = folder.git();
        let git = self.git(&own);
        let head = Checkpoint {
            after: before.map_or(0, |(number, _)| number),
            head: look.head.clone(),
            others: look.others.clone(),
            repository: look.repository.clone(),
            files: self.count(&git, look, deadline).await?,
            left_out: look.left_out.clone(),
        };
        let mut line = serde_json::to_vec(&head).expect("a head is plain data");
        line.push(b'\n');
        let known = before.iter().flat_map(|(_, look)| look.commits());
        // Also what was not committed then: its tree is known, but no commit of the agent's leads there.
        let known = known.flat_map(|commit| [format!("^{commit}"), format!("^{commit}^{{tree}}")]);
        let revisions =
            look.commits().cloned().chain(self.base.iter().map(|base| format!("^{base}"))).chain(known);
        let file = folder.place.path().join("checkpoint");
        let mut to = File::create(&file).map_err(not_run("pack-objects"))?;
        to.write_all(&line).map_err(not_run("pack-objects"))?;
        let pack = ["pack-objects", "--quiet", "--revs", "--stdout"];
        git.print_of(&pack, revisions.collect::<Vec<_>>().join("\n") + "\n", to, deadline).await?;
        let bytes = fs::metadata(&file).map_err(not_run("pack-objects"))?.len();
        Ok(Packed { file, bytes })
    }

    /// How many files differ from those that the task began with.
    async fn count(&self, git: &Git<'_>, look: &Look, deadline: Instant) -> Result<u64, GitError> {
        let list = match (&look.head, &self.base) {
            (None, _) => return Ok(0),
            (Some(head), Some(base)) => {
                git.list(&["diff-tree", "-r", "-z", "--name-only", base, head], deadline).await?
            }
            (Some(head), None) => git.list(&["ls-tree", "-r", "-z", "--name-only", head], deadline).await?,
        };
        Ok(list.entries.len() as u64)
    }

    fn work<'a>(&'a self, scratch: &'a Path) -> Work<'a> {
        Work {
            reaper: &self.reaper,
            workspace: &self.workspace,
            base: self.base.as_deref(),
            base_objects: &self.base_objects,
            scratch,
            made: &self.made,
        }
    }

    fn git<'a>(&'a self, folder: &'a Path) -> Git<'a> {
        Git { reaper: &self.reaper, folder, work_tree: &self.workspace }
    }

    /// The most of something, or this part of the disk.
    fn share(&self, most: u64, of_disk: u64) -> u64 {
        self.disk_max.map_or(most, |disk| most.min(disk / of_disk))
    }
}

/// `<tag> <path>`.
fn path_of(entry: OsString) -> Option<PathBuf> {
    let bytes = entry.into_vec();
    Some(OsString::from_vec(bytes.get(2..)?.to_vec()).into())
}

/// Gives the index an earlier time. If that does not work, git reads no less than usual.
fn set_back(index: &Path, to: SystemTime) {
    let _ = File::options().write(true).open(index).and_then(|index| index.set_modified(to));
}

fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LEFT_OUT_MAX);
    lines.truncate(LEFT_OUT_MAX);
    let told = lines.iter().map(|line| shorten(&format!("not in the checkpoint: {line}")));
    told.chain((more > 0).then(|| format!("not in the checkpoint: {more} more"))).collect()
}
