//! Takes plain files into the index without git reading them.
//!
//! What git makes of a file by its attributes is known before: it changes nothing where there are none that say so, and line
//! ends only where a carriage return is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::contents::{Candidate, Contents, Named};
use super::files::{Files, Sized};
use super::git::{Feed, GitError};

/// Attributes by which git changes more than line ends. A filter is not one: there is no program for any.
const CHANGING: [&str; 2] = ["ident", "working-tree-encoding"];
/// Attributes by which git changes line ends.
const LINE_ENDS: [&str; 3] = ["crlf", "eol", "text"];

impl Files<'_> {
    /// Takes what it can of a batch, and gives what is left for git.
    pub(super) async fn take_plain<'b>(
        &self,
        contents: &Arc<Contents>,
        known: Option<&HashMap<PathBuf, Named>>,
        batch: &[&'b Sized],
    ) -> Result<Vec<&'b Sized>, GitError> {
        let known = |path: &PathBuf| known.and_then(|known| known.get(path));
        let attributes = self.attributes(batch).await?;
        let (files, candidates): (Vec<_>, Vec<_>) = batch
            .iter()
            .filter(|(_, path)| !attributes.changing.contains(path))
            .map(|file @ (length, path)| {
                let (path, length, known) = (path.clone(), *length, known(path).cloned());
                let has_line_ends = attributes.line_ends.contains(&path);
                (*file, Candidate { path, length, known, has_line_ends })
            })
            .unzip();
        let given_up = CancellationToken::new();
        let _given_up = given_up.clone().drop_guard();
        let contents = Arc::clone(contents);
        let taken = self.blocking(move || contents.take(&candidates, &given_up)).await?;
        let is = files.into_iter().zip(taken).filter_map(|((_, path), named)| Some((path, named?)));
        let is: BTreeMap<&PathBuf, Named> = is.collect();
        let news = is.iter().filter(|(path, named)| known(path) != Some(*named));
        let news: Vec<u8> = news.flat_map(|(path, named)| line(path, named)).collect();
        if !news.is_empty() {
            let index = ["update-index", "-z", "--index-info"];
            match self.git.feed_lines(&index, &news, Feed::Loose, self.read_by).await {
                // It says why when it has read it itself.
                Err(GitError::Failed { .. }) if batch.len() == 1 => return Ok(batch.to_vec()),
                done => done?,
            }
        }
        Ok(batch.iter().filter(|(_, path)| !is.contains_key(path)).copied().collect())
    }

    /// What the files of a batch have of attributes that change them.
    async fn attributes(&self, batch: &[&Sized]) -> Result<Attributes, GitError> {
        let ask = ["check-attr", "-z", "--stdin", "--all"];
        let told = self.git.list_of(&ask, batch.iter().map(|(_, path)| path), self.read_by).await?;
        let mut attributes = Attributes::default();
        for entry in told.entries.chunks_exact(3) {
            let [path, name, value] = entry else { continue };
            let is = |names: &[&str]| value != "unset" && names.iter().any(|other| name == OsStr::new(other));
            if is(&CHANGING) {
                attributes.changing.insert(path.into());
            } else if is(&LINE_ENDS) {
                attributes.line_ends.insert(path.into());
            }
        }
        if !told.whole {
            attributes.changing.extend(batch.iter().map(|(_, path)| path.clone()));
        }
        Ok(attributes)
    }
}

/// Files that git would change on their way in.
#[derive(Debug, Default)]
struct Attributes {
    changing: HashSet<PathBuf>,
    /// If they have a carriage return.
    line_ends: HashSet<PathBuf>,
}

/// A line of what `update-index` reads.
fn line(path: &Path, Named { executable, object }: &Named) -> Vec<u8> {
    let mode = if *executable { "100755" } else { "100644" };
    [format!("{mode} {object} 0\t").as_bytes(), path.as_os_str().as_encoded_bytes(), b"\0"].concat()
}
