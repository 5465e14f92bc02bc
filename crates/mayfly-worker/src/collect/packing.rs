//! Puts a bundle together of what was found: all of it, or as much as can be had in the time.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mayfly_core::causes;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::{STAGED_REF, WORK_REF};
use tokio::time::Instant;

use super::bundle::{Body, Bundle};
use super::contents::{Chosen, Contents};
use super::git::{Git, GitError, not_run};
use super::others::Other;
use super::pack::Naming;
use super::work::part;

/// What a bundle is put together with.
#[derive(Debug)]
pub(super) struct Packing<'a> {
    pub(super) git: &'a Git<'a>,
    /// What git does not have.
    pub(super) contents: &'a Arc<Contents>,
    /// The commit that it is on top of.
    pub(super) base: Option<&'a str>,
    /// An empty folder of our own.
    pub(super) scratch: &'a Path,
    pub(super) deadline: Instant,
}

/// What a bundle is to hold.
#[derive(Debug, Clone)]
struct Wanted<'a> {
    head: String,
    others: &'a [Other],
    staged: Option<String>,
}

/// The objects of a bundle.
#[derive(Debug)]
struct Objects {
    /// The commits that it is on top of.
    before: Vec<String>,
    /// Those that were taken in without git.
    ours: Chosen,
    /// The names of those that git has, a line each.
    gits: String,
}

impl Packing<'_> {
    /// Bundles all of it; if that cannot be had, without what was staged, then the work alone, and then its commits alone.
    /// Where `HEAD` has nothing, the first of the others is the work.
    pub(super) async fn bundle(
        &self,
        heads: [Option<String>; 2],
        mut others: Vec<Other>,
        staged: Option<String>,
        collected: &mut Collected,
    ) -> Result<Option<Bundle>, GitError> {
        let [mut head, parent] = heads.map(|head| head.filter(|head| Some(head.as_str()) != self.base));
        if head.is_none() && !others.is_empty() {
            let first = others.remove(0);
            collected.notes.push(format!("HEAD had no changes: this is what `{}` had", first.name));
            head = Some(first.commit);
        }
        if head.is_none() && staged.is_some() {
            collected.notes.push("the files had no changes: this is what was staged".to_owned());
            head.clone_from(&staged);
        }
        let Some(head) = head else { return Ok(None) };
        let (is_staged, has_others) = (staged.is_some(), !others.is_empty());
        let mut now = Wanted { head, others: &others, staged };
        let (without_staged, alone) =
            (Wanted { staged: None, ..now.clone() }, Wanted { staged: None, others: &[], ..now.clone() });
        let commits = parent.filter(|parent| *parent != now.head);
        let commits = commits.map(|head| ("uncommitted work", Wanted { head, ..alone.clone() }));
        let less = is_staged.then_some(("that changes were staged", without_staged)).into_iter();
        let less = less.chain(has_others.then_some(("the agent's other commits", alone))).chain(commits);
        let mut less = less.peekable();
        loop {
            let by = if less.peek().is_some() { part(self.deadline, 2) } else { self.deadline };
            let (error, (lost, next)) = match (self.create(&now, by).await, less.next()) {
                (Ok(bundle), _) => return Ok(Some(bundle)),
                (Err(error), None) => return Err(error),
                (Err(error), Some(next)) => (error, next),
            };
            collected.unsaved.push(format!("{lost}: {}", causes(&error)));
            now = next;
        }
    }

    async fn create(&self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Bundle, GitError> {
        let Wanted { head, others, staged } = wanted;
        let refs = others.iter().map(|other| (other.git_ref(), &*other.commit));
        let staged_ref = staged.iter().map(|commit| (STAGED_REF.to_owned(), &**commit));
        let refs: Vec<_> = refs.chain(staged_ref).chain([(WORK_REF.to_owned(), &**head)]).collect();
        let Objects { before, ours, gits } = self.objects(&refs, deadline).await?;
        let packed = self.scratch.join("packed");
        let to = fs::File::create(&packed).map_err(not_run("pack-objects"))?;
        self.git.print_of(&["pack-objects", "--quiet", "--stdout"], gits, to, deadline).await?;
        let body =
            Body::new(self.header(&before, &refs), self.naming(), packed, Arc::clone(self.contents), ours);
        let body = body.map_err(not_run("pack-objects"))?;
        let others = others.iter().map(|other| other.name.clone()).collect();
        Ok(Bundle { head: head.clone(), others, staged: staged.clone(), body })
    }

    /// What a bundle with these refs needs.
    async fn objects(&self, refs: &[(String, &str)], deadline: Instant) -> Result<Objects, GitError> {
        let file = self.scratch.join("objects");
        let to = fs::File::create(&file).map_err(not_run("rev-list"))?;
        let not = self.base.map(|base| format!("^{base}"));
        let commits = refs.iter().map(|(_, commit)| *commit).chain(not.as_deref());
        let list = ["rev-list", "--objects", "--boundary", "--missing=print"];
        let list: Vec<_> = list.into_iter().chain(commits).collect();
        self.git.print(&list, to, deadline).await?;
        let listed = fs::read(&file).map_err(not_run("rev-list"))?;
        let (mut before, mut ours, mut gits) = (Vec::new(), HashSet::new(), String::new());
        for line in listed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let name = line.split(|&byte| byte == b' ').next().unwrap_or_default();
            let name = std::str::from_utf8(name).unwrap_or_default();
            if let Some(commit) = name.strip_prefix('-') {
                before.push(commit.to_owned());
                continue;
            }
            let missing = name.strip_prefix('?');
            let object = missing.unwrap_or(name);
            if self.contents.has(object) {
                ours.insert(object);
            } else if missing.is_some() {
                let complaint = format!("the object {object} is missing");
                return Err(GitError::Failed { verb: "rev-list".to_owned(), complaint });
            } else {
                gits.extend([object, "\n"]);
            }
        }
        Ok(Objects { before, ours: self.contents.choose(&ours), gits })
    }

    /// What a bundle begins with: what it is on top of, and its refs.
    fn header(&self, before: &[String], refs: &[(String, &str)]) -> Vec<u8> {
        let mut header = match self.naming() {
            Naming::Sha1 => "# v2 git bundle\n",
            Naming::Sha256 => "# v3 git bundle\n@object-format=sha256\n",
        }
        .to_owned();
        header.extend(before.iter().map(|commit| format!("-{commit} \n")));
        header.extend(refs.iter().map(|(name, commit)| format!("{commit} {name}\n")));
        header.push('\n');
        header.into_bytes()
    }

    fn naming(&self) -> Naming {
        Naming::of(self.base.unwrap_or_default())
    }
}
