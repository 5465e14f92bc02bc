//! Finds the agent's commits that its `HEAD` does not hold, and gives them refs of their own in the bundle.
//!
//! ```text
//! base ─┬─► HEAD ─► "Uncommitted work"        refs/heads/work
//!       ├─► another branch, a stash, a tag    refs/heads/other/<its name>
//!       └─► left behind: in a log alone       refs/heads/other/<id>, or …/rest: one commit that joins them
//! ```
//!
//! Only what is whole is taken. Bounds: [`OTHERS_MAX`] refs; what has a name beyond that is joined with the rest,
//! which are at most [`REST_MAX`].

use std::collections::HashSet;

use mayfly_core::causes;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::{OTHER_NAME_BYTES_MAX, OTHER_REFS, OTHERS_MAX};
use tokio::time::Instant;

use super::git::{Git, GitError};
use super::refs::{Tip, Tips};

/// The most commits that are joined in one.
const REST_MAX: usize = 100;
/// How much of a commit's name stands for it.
const SHORT: usize = 8;
/// The message of the commit that joins what was left behind.
const MESSAGE: &str = "What was left behind: each parent is a commit that no branch holds any more";

/// A commit that comes out under a name of its own.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    /// The last part of its ref.
    pub(crate) name: String,
    pub(crate) commit: String,
}

impl Other {
    pub(crate) fn git_ref(&self) -> String {
        format!("{OTHER_REFS}{}", self.name)
    }
}

/// Looks at one commit after the other.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) git: &'a Git<'a>,
    pub(super) deadline: Instant,
    /// Commits that are taken or known: what they reach is not looked for.
    pub(super) known: Vec<String>,
    /// Commits that need no look any more.
    pub(super) seen: HashSet<String>,
}

impl Search<'_> {
    /// All that is to come out besides what is known. What could not be is told in `collected`.
    pub(super) async fn run(&mut self, tips: Tips, collected: &mut Collected) -> Vec<Other> {
        collected.unsaved.extend(tips.lost);
        collected.notes.extend(tips.notes);
        let (mut others, mut rest) = (Vec::new(), Vec::new());
        let found = self.look(tips.named, tips.left, &mut others, &mut rest, collected).await;
        if let Err(error) = found {
            collected
                .unsaved
                .push(format!("the agent's other commits, if there are more: {}", causes(&error)));
        }
        if rest.len() > REST_MAX {
            let names: Vec<_> = rest[REST_MAX..].iter().map(|commit| &commit[..SHORT]).collect();
            collected.unsaved.push(format!("commits that were left behind: {}", names.join(", ")));
            rest.truncate(REST_MAX);
        }
        match self.join(&rest, &others).await {
            Ok(joined) => others.extend(joined),
            Err(error) => {
                collected.unsaved.push(format!("commits that were left behind: {}", causes(&error)));
            }
        }
        others
    }

    async fn look(
        &mut self,
        named: Vec<Tip>,
        left: Vec<String>,
        others: &mut Vec<Other>,
        rest: &mut Vec<String>,
        collected: &mut Collected,
    ) -> Result<(), GitError> {
        self.skip_known().await?;
        for Tip { name, commit } in named {
            match self.new_commit(&commit).await {
                Ok(None) => {}
                // One place is for the rest.
                Ok(Some(commit)) if others.len() + 1 < OTHERS_MAX => {
                    others.push(Other { name: free_name(&name, others), commit });
                }
                Ok(Some(commit)) => rest.push(commit),
                Err(late @ GitError::Late { .. }) => return Err(late),
                Err(error) => {
                    collected.unsaved.push(format!("the agent's commits of `{name}`: {}", causes(&error)));
                }
            }
        }
        for commit in left {
            match self.new_commit(&commit).await {
                Ok(new) => rest.extend(new),
                Err(late @ GitError::Late { .. }) => return Err(late),
                Err(error) => {
                    let short = &commit[..SHORT];
                    collected.unsaved.push(format!("the commit {short}, left behind: {}", causes(&error)));
                }
            }
        }
        Ok(())
    }

    /// What the known commits hold, for as much as fits: the usual log of `HEAD` is then done without a look.
    async fn skip_known(&mut self) -> Result<(), GitError> {
        let [result, base @ ..] = &self.known[..] else { return Ok(()) };
        let walk = ["rev-list", result].map(str::to_owned);
        let without = base.iter().map(|base| format!("^{base}"));
        let commits = self.git.run(walk.into_iter().chain(without), self.deadline).await?;
        self.seen.extend(commits.lines().map(str::to_owned));
        self.seen.extend(self.known.iter().cloned());
        Ok(())
    }

    /// The commit that this names, if it holds anything that is not known; from now on it is.
    async fn new_commit(&mut self, named: &str) -> Result<Option<String>, GitError> {
        if !self.seen.insert(named.to_owned()) {
            return Ok(None);
        }
        // A tag names a commit by way of an object of its own.
        let named = format!("{named}^{{commit}}");
        let walk = ["rev-list", "--objects", "--count", &named].map(str::to_owned);
        let without = self.known.iter().map(|commit| format!("^{commit}"));
        if self.git.run(walk.into_iter().chain(without), self.deadline).await? == "0" {
            return Ok(None);
        }
        let commit = self.git.run(["rev-parse", "--verify", &named], self.deadline).await?;
        self.known.push(commit.clone());
        Ok(Some(commit))
    }

    /// One commit for all of these, the newest of which gives the files; a single one is its own.
    async fn join(&self, rest: &[String], others: &[Other]) -> Result<Option<Other>, GitError> {
        let [newest, older @ ..] = rest else { return Ok(None) };
        if older.is_empty() {
            let name = free_name(&newest[..SHORT], others);
            return Ok(Some(Other { name, commit: newest.clone() }));
        }
        let tree = format!("{newest}^{{tree}}");
        let mut arguments = vec!["commit-tree", "-m", MESSAGE, &tree];
        arguments.extend(rest.iter().flat_map(|commit| ["-p", commit]));
        let commit = self.git.run(arguments, self.deadline).await?;
        Ok(Some(Other { name: "rest".to_owned(), commit }))
    }
}

/// A plain name for what has this one, that none of the others has, even where case makes no difference.
fn free_name(name: &str, others: &[Other]) -> String {
    let name = name.strip_prefix("heads/").unwrap_or(name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.chars().map(plain).take(OTHER_NAME_BYTES_MAX - "-99".len()).collect();
    let name = match name.trim_matches('-') {
        "" => "unnamed",
        "rest" => "the-rest",
        name => name,
    };
    let taken = |name: &str| others.iter().any(|other| other.name.eq_ignore_ascii_case(name));
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).expect("there are more numbers than others")
}

#[cfg(test)]
mod tests {
    use mayfly_wire::worker::is_other_name;

    use super::*;

    #[test]
    fn every_name_becomes_a_plain_one_of_its_own() {
        let mut others: Vec<Other> = Vec::new();
        let long = format!("heads/{}", "n".repeat(300));
        for (name, plain) in [
            ("heads/feature/x", "feature-x"),
            ("heads/feature-x", "feature-x-2"),
            ("heads/Feature.X", "Feature-X-3"),
            ("heads/--upload-pack=x", "upload-pack-x"),
            ("heads/\u{4fee}\u{590d}", "unnamed"),
            ("heads/rest", "the-rest"),
            ("tags/v1.0", "tags-v1-0"),
            ("heads/a\nb\u{1b}[2J", "a-b--2J"),
            (&long, &"n".repeat(57)),
            (&long, &format!("{}-2", "n".repeat(57))),
        ] {
            let found = free_name(name, &others);
            assert_eq!(found, plain);
            assert!(is_other_name(&found), "{found}");
            others.push(Other { name: found, commit: String::new() });
        }
    }
}
