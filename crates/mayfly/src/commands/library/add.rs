//! `mayfly library add`: a folder or a file of this machine, or of a git repository elsewhere.
//!
//! It is read as the library would read it, and only what is good is put there. Of a git repository one commit is
//! fetched, in a temporary folder, by a git that runs nothing of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_library::tree::{self, BYTES_MAX, is_plain};
use mayfly_library::{File, Kind, Resource, ResourceId};

use super::ls::{short, size};
use super::{AddArgs, Place, counted, wrong};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::git_url::{GitUrl, ways};
use crate::interrupts::Interrupts;
use crate::printer::Printer;

pub(super) async fn add(args: AddArgs, place: &Place, environment: &Environment) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(false, environment);
    if place.library.has(&args.id) && !args.replace {
        return Err(super::taken(&args.id));
    }
    let resource = read_from(&args, environment).await?;
    place.make()?;
    let put = if args.replace { place.library.put(&resource) } else { place.library.add(&resource) };
    match put {
        // Since it was looked for.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(super::taken(&args.id)),
        put => put?,
    }
    printer.aside(&added(&resource, "the library"));
    printer.exit(Exit::Success)
}

/// What is to be added, from this machine or from a git repository.
pub(super) async fn read_from(
    AddArgs { from, id, .. }: &AddArgs,
    environment: &Environment,
) -> Result<Resource, Stop> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let at = match Elsewhere::read(from)? {
        Some(elsewhere) => {
            let mut interrupts = Interrupts::install()?;
            interrupts.or_stop(elsewhere.fetch(scratch.path(), environment)).await?
        }
        None => PathBuf::from(from),
    };
    Resource::read(id.clone(), files(&at, id)?).map_err(wrong)
}

/// What is said of a resource that is in a library now, which is called so.
pub(super) fn added(resource: &Resource, library: &str) -> String {
    format!(
        "{} is in {library}: {} in {}, content {}",
        resource.id,
        size(resource.bytes() as u64),
        counted(resource.files.len(), "file"),
        short(&resource.sha256)
    )
}

/// A part of a git repository.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    url: String,
    below: Option<String>,
}

impl Elsewhere {
    /// `None`: it is a path.
    fn read(from: &str) -> Result<Option<Self>, Stop> {
        let Some(GitUrl { url, after }) = GitUrl::read(from)? else { return Ok(None) };
        let below = after.as_deref().map(|below| below.trim_matches('/'));
        if below.is_some_and(|below| !is_plain(below)) {
            return Err(Stop::wrong(format!(
                "after `#` stands a folder of the repository, such as skills/pdf: `{from}`"
            )));
        }
        Ok(Some(Self { below: below.map(str::to_owned), url }))
    }

    /// Fetches it below `scratch`, and says where the part is.
    async fn fetch(&self, scratch: &Path, environment: &Environment) -> Result<PathBuf, Stop> {
        let top = scratch.join("tree");
        let ways = ways(environment);
        mayfly_git::fetch(&environment.git(), &self.url, &scratch.join("git"), &top, ways).await.map_err(
            |error| Stop::usage(anyhow::Error::new(error).context(format!("cannot fetch `{}`", self.url))),
        )?;
        self.part(&top)
    }

    /// A link on the way would lead out of what was fetched.
    fn part(&self, top: &Path) -> Result<PathBuf, Stop> {
        let mut at = top.to_owned();
        for part in self.below.iter().flat_map(|below| below.split('/')) {
            at.push(part);
            let is = fs::symlink_metadata(&at);
            if !is.is_ok_and(|is| is.is_dir() || is.is_file()) {
                let below = self.below.as_deref().unwrap_or_default();
                return Err(Stop::wrong(format!("`{}` has no folder or file `{below}`", self.url)));
            }
        }
        Ok(at)
    }
}

/// The files of a folder, or the one that a file is to be.
fn files(at: &Path, id: &ResourceId) -> Result<Vec<File>, Stop> {
    let is = fs::metadata(at).with_context(|| format!("cannot look at `{}`", at.display()));
    if is.map_err(Stop::usage)?.is_dir() {
        return tree::read(at, &id.to_string()).map_err(|problem| wrong(problem.into()));
    }
    let path = called(id.kind, at).ok_or_else(|| {
        let (kind, ends) = (id.kind, if id.kind == Kind::Agent { ".md or .json" } else { end(id.kind) });
        Stop::wrong(format!(
            "`{}` is no file for {id}: one file of the kind {kind} ends in {ends}; else name a folder",
            at.display()
        ))
    })?;
    let bytes = read(at).with_context(|| format!("cannot read `{}`", at.display())).map_err(Stop::usage)?;
    if bytes.len() > BYTES_MAX {
        return Err(Stop::wrong(format!("`{}` is larger than {} MiB", at.display(), BYTES_MAX >> 20)));
    }
    Ok(vec![File { path, executable: false, bytes }])
}

fn read(at: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(at)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a single file of a kind ends in.
fn end(kind: Kind) -> &'static str {
    match kind {
        Kind::Skill | Kind::Agent | Kind::Rules => ".md",
        Kind::Mcp | Kind::Hooks | Kind::Settings => ".json",
    }
}

/// What a single file is called in a resource of a kind.
fn called(kind: Kind, path: &Path) -> Option<String> {
    let end = path.extension().and_then(OsStr::to_str)?;
    let name = match (kind, end) {
        (Kind::Skill, "md") => "SKILL.md",
        (Kind::Agent, "md") => "agent.md",
        (Kind::Agent, "json") => "agent.json",
        (Kind::Mcp, "json") => "mcp.json",
        (Kind::Hooks, "json") => "hooks.json",
        (Kind::Settings, "json") => "settings.json",
        (Kind::Rules, "md") => path.file_name()?.to_str().filter(|name| is_plain(name))?,
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_is_told_from_a_path() {
        let read = |from: &str| Elsewhere::read(from).ok();
        let of = |url: &str, below: Option<&str>| {
            Some(Some(Elsewhere { url: url.to_owned(), below: below.map(str::to_owned) }))
        };
        assert_eq!(read("./a#b"), Some(None));
        assert_eq!(read("https://x.example/a.git"), of("https://x.example/a.git", None));
        assert_eq!(read("ssh://git@x.example/a#b/c/"), of("ssh://git@x.example/a", Some("b/c")));
        assert_eq!(read("https://x.example/a#../b"), None);
    }

    /// Covers S06: a link in what was fetched leads nowhere.
    #[test]
    fn a_part_is_not_reached_by_a_link() {
        let top = tempfile::tempdir().expect("a folder");
        fs::create_dir(top.path().join("real")).expect("made");
        std::os::unix::fs::symlink("/etc", top.path().join("link")).expect("made");
        let part = |below: &str| {
            let elsewhere = Elsewhere { url: "file:///x".to_owned(), below: Some(below.to_owned()) };
            elsewhere.part(top.path()).is_ok()
        };
        assert!(part("real") && !part("link") && !part("link/ssh") && !part("none"));
    }

    #[test]
    fn a_single_file_gets_the_name_that_its_kind_has() {
        let called = |kind, path: &str| super::called(kind, Path::new(path));
        for (kind, path, name) in [
            (Kind::Agent, "a/reviewer.md", Some("agent.md")),
            (Kind::Agent, "reviewer.json", Some("agent.json")),
            (Kind::Skill, "pdf.md", Some("SKILL.md")),
            (Kind::Rules, "style.md", Some("style.md")),
            (Kind::Mcp, "x.json", Some("mcp.json")),
            (Kind::Mcp, "x.md", None),
            (Kind::Settings, "x", None),
        ] {
            assert_eq!(called(kind, path).as_deref(), name, "{path}");
        }
    }
}
