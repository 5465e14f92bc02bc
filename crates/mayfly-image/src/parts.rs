//! What an image is made of: the layers, what each is known by before it is made, and how the whole is run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use mayfly_core::sha256_of;
use sha2::{Digest as _, Sha256};

use crate::debian::Package;
use crate::oci::Run;
use crate::tree::{BadTree, Content, Data, Entry, Tree};

/// Counts the ways in which layers were made: another number makes all of them again. It goes up with every change of what
/// a layer has of the same packages and programs.
const RECIPE: u32 = 1;
/// Where an image's program looks for others.
const PATH: &str =
    "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/opt/mayfly:/opt/claude";

/// A program that is a layer of its own.
#[derive(Debug)]
pub struct Program {
    file: Arc<File>,
    at: String,
    /// Its SHA-256.
    pub sha256: String,
}

impl Program {
    /// The program in `file`, which is to be `at` that path.
    pub fn new(file: File, at: &str) -> io::Result<Self> {
        let sha256 = sha256_of(&file)?;
        Ok(Self { file: Arc::new(file), at: at.trim_start_matches('/').to_owned(), sha256 })
    }

    /// What the layer is known by.
    pub fn key(&self) -> String {
        key(["program", &self.at, &self.sha256])
    }

    /// It, and the folders that it is in.
    pub fn tree(&self) -> Result<Tree, BadTree> {
        let mut tree = Tree::default();
        for (at, _) in self.at.match_indices('/') {
            tree.add(&self.at[..at], Entry::folder())?;
        }
        let length = self.file.metadata().map_err(BadTree::Unreadable)?.len();
        let content = Content::File(Data::Part(Arc::clone(&self.file), 0, length));
        tree.add(&self.at, Entry { content, ..Entry::folder() })?;
        Ok(tree)
    }
}

/// What the layer of these packages is known by.
pub fn root_key(suite: &str, processors: &str, packages: &[Package]) -> String {
    key(["root", suite, processors, &listed(packages)])
}

/// Packages, as one text.
pub fn listed(packages: &[Package]) -> String {
    let packages: Vec<String> = packages.iter().map(ToString::to_string).collect();
    packages.join(" ")
}

/// The SHA-256 of all that goes into a layer. No part has a line's end in it.
fn key<const N: usize>(parts: [&str; N]) -> String {
    hex::encode(Sha256::digest(format!("{RECIPE}\n{}", parts.join("\n"))))
}

/// How an image is run whose program is at `program`: as root, which becomes the agent's user in a machine.
pub fn run(program: &str, labels: BTreeMap<String, String>) -> Run {
    Run {
        env: vec![PATH.to_owned()],
        entrypoint: vec![program.to_owned()],
        working_dir: "/".to_owned(),
        labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_layer_is_known_by_all_that_goes_into_it() {
        let packages = [package("bash", "5.2"), package("git", "1:2")];
        let one = root_key("bookworm", "amd64", &packages);
        assert_eq!(one, root_key("bookworm", "amd64", &packages));
        assert_ne!(one, root_key("trixie", "amd64", &packages));
        assert_ne!(one, root_key("bookworm", "arm64", &packages));
        assert_ne!(one, root_key("bookworm", "amd64", &packages[..1]));
        assert_ne!(one, root_key("bookworm", "amd64", &[package("bash", "5.2"), package("git", "1:3")]));
    }

    #[test]
    fn a_program_is_a_layer_with_the_folders_that_it_is_in() {
        let program =
            Program::new(tempfile::tempfile().expect("a file"), "/opt/claude/claude").expect("read");
        let tree = program.tree().expect("plain");
        let has: Vec<_> = tree.entries().map(|(path, entry)| (path, entry.mode)).collect();
        assert_eq!(has, [("opt", 0o755), ("opt/claude", 0o755), ("opt/claude/claude", 0o755)]);
        let other = Program::new(tempfile::tempfile().expect("a file"), "/opt/mayfly/mayfly").expect("read");
        assert_ne!(program.key(), other.key(), "the same bytes elsewhere");
    }
}
