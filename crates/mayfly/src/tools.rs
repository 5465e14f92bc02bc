//! Fetches, once and on the user's machine, what servers of the library would download in each machine.
//!
//! ```text
//! npx   npm install --ignore-scripts  ─┐
//! uvx   pip install --only-binary ────►┴► no links ─► the package's program ─► SHA-256 ─► .tools/{sha256}, tools.json
//! ```
//!
//! npm and pip bring their own configuration, so no host is named here; they run nothing of the packages.

mod npm;
mod pip;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use mayfly_library::kinds::What;
use mayfly_library::kinds::mcp::Server;
use mayfly_library::tool::{self, Download, Tool};
use mayfly_library::{Kind, Library, ResourceId};

use crate::environment::Environment;
use crate::fetching::{self, Ended, Flag, Scratch};
use crate::printer::Shown;

/// The most characters of what npm or pip said.
const SAID_CHARS_MAX: usize = 600;
/// The most bytes that are read of what they said.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// The most bytes of a file in which a package says what it is.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// The longest that it may take for one package.
const FETCH_MAX: Duration = Duration::from_secs(10 * 60);
/// The longest that a program may take to say which one it is.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What was fetched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// For which resource.
    pub(crate) id: ResourceId,
    /// For which of its servers.
    pub(crate) server: String,
    /// What it is.
    pub(crate) tool: Tool,
}

/// Fetches what servers of these resources would download and have not locked yet, until it is `given_up`; `tell` hears of
/// each before.
pub(crate) fn fetch(
    library: &Library,
    ids: impl IntoIterator<Item = ResourceId>,
    environment: &Environment,
    given_up: &Flag,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<Vec<Fetched>> {
    let mut fetched = Vec::new();
    for id in ids.into_iter().filter(|id| id.kind == Kind::Mcp) {
        let resource = library.read(&id)?;
        let What::Mcp(servers) = &resource.what else { continue };
        let mut new = Vec::new();
        for server in servers {
            let Some(download) = server.unlocked().or_else(|| gone(library, server)) else { continue };
            tell(&format!("fetching `{}` for {id}", Shown::line(download.package, SAID_CHARS_MAX)));
            let tool = fetch_one(library, &download, environment, given_up);
            let tool = tool.with_context(|| format!("`{}` for {id} was not fetched", download.package))?;
            new.push(Fetched { id: id.clone(), server: server.name.clone(), tool });
        }
        if !new.is_empty() {
            write_down(library, &id, &new)?;
        }
        fetched.extend(new);
    }
    Ok(fetched)
}

/// What a server would download whose tree is not in the library any more, or not as it was.
fn gone<'a>(library: &Library, server: &'a Server) -> Option<Download<'a>> {
    let sha256 = &server.tool.as_ref()?.sha256;
    let tree = library.folder().join(tool::FOLDER).join(sha256);
    server.download().filter(|_| !is_whole(&tree, sha256))
}

fn is_whole(tree: &Path, sha256: &str) -> bool {
    tool::sha256(tree).is_ok_and(|found| found == sha256)
}

/// Notes beside the servers what they run, so that it is a part of what they are. The rest of the resource, which may be a
/// checkout that somebody edits meanwhile, is as it stands then.
fn write_down(library: &Library, id: &ResourceId, new: &[Fetched]) -> anyhow::Result<()> {
    let resource = library.read(id)?;
    let What::Mcp(servers) = &resource.what else { return Ok(()) };
    let known = servers.iter().filter_map(|server| Some((server.name.clone(), server.tool.clone()?)));
    let mut tools: BTreeMap<String, Tool> = known.collect();
    tools.extend(new.iter().map(|fetched| (fetched.server.clone(), fetched.tool.clone())));
    let bytes = serde_json::to_vec_pretty(&tools)?;
    let file = mayfly_library::File { path: tool::FILE.to_owned(), executable: false, bytes };
    Ok(library.write_file(id, &file)?)
}

/// What was installed.
struct Found {
    /// It, with its version.
    resolved: String,
    /// The file in the tree that it is run by.
    path: String,
}

fn fetch_one(
    library: &Library,
    download: &Download<'_>,
    environment: &Environment,
    given_up: &Flag,
) -> anyhow::Result<Tool> {
    let Download { package, named, program, .. } = *download;
    let trees = library.folder().join(tool::FOLDER);
    fs::create_dir_all(&trees)?;
    let scratch = Scratch::below(&trees, "for this library", given_up)?.context(GIVEN_UP)?;
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree)?;
    let fetcher = Fetcher { scratch: scratch.path(), environment, given_up };
    let found = if program == tool::PYTHON {
        let package = pip::Package::read(package)?;
        pip::install(&package, &tree, fetcher)?;
        remove_links(&tree)?;
        pip::program(&tree, &package, named)?
    } else {
        npm::install(package, &tree, fetcher)?;
        remove_links(&tree)?;
        npm::program(&tree)?
    };
    let sha256 = tool::sha256(&tree)?;
    keep(&tree, &trees, &sha256)?;
    let Found { resolved, path } = found;
    let (package, named, program) = (package.to_owned(), named.map(str::to_owned), program.to_owned());
    Ok(Tool { package, named, resolved, sha256, program, path })
}

/// Has a tree among the others by its name, unless it is there as it was; what is damaged makes room.
fn keep(tree: &Path, trees: &Path, sha256: &str) -> io::Result<()> {
    let place = trees.join(sha256);
    if is_whole(&place, sha256) {
        // As old as what nobody names could be taken away.
        return File::open(&place)?.set_modified(SystemTime::now());
    }
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    // All of it is on the disk before it has its name.
    tool::sync(tree)?;
    fs::rename(tree, place)?;
    File::open(trees)?.sync_all()
}

/// What is said where nobody waits for it any more.
const GIVEN_UP: &str = "it was given up";

/// How npm and pip are run: with nothing of the user's credentials for the model.
#[derive(Debug, Clone, Copy)]
struct Fetcher<'a> {
    /// A folder for what they say.
    scratch: &'a Path,
    environment: &'a Environment,
    given_up: &'a Flag,
}

impl Fetcher<'_> {
    /// Runs what fetches, which is called `name` in messages.
    fn fetch(self, command: Command, name: &str) -> anyhow::Result<()> {
        match self.run(command, name, FETCH_MAX)? {
            None => bail!("{name} cannot be started: install {name}"),
            Some(true) => Ok(()),
            Some(false) => {
                let said = String::from_utf8_lossy(&start_of(&self.said(), SAID_BYTES_MAX)?).into_owned();
                bail!("{name} says: {}", Shown::line(said.trim(), SAID_CHARS_MAX));
            }
        }
    }

    /// What a program prints, which is called `name` in messages. `None`: it is not there, or failed.
    fn answer(self, command: Command, name: &str, most: Duration) -> anyhow::Result<Option<String>> {
        match self.run(command, name, most)? {
            Some(true) => Ok(String::from_utf8(all_of(&self.printed(), SAID_BYTES_MAX)?).ok()),
            _ => Ok(None),
        }
    }

    /// Whether it succeeded. `None`: it is not there.
    fn run(self, mut command: Command, name: &str, most: Duration) -> anyhow::Result<Option<bool>> {
        command.env_clear().envs(self.environment.without_credentials()).stdin(Stdio::null());
        command.stdout(File::create(self.printed())?).stderr(File::create(self.said())?);
        match fetching::run(&mut command, most, self.given_up, || ()) {
            Ok(Ended::Itself(status)) => Ok(Some(status.success())),
            Ok(Ended::TooLate) => bail!("{name} took longer than {most:?}, and was ended: try again"),
            Ok(Ended::GivenUp) => bail!(GIVEN_UP),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{name} cannot be run")),
        }
    }

    fn printed(self) -> PathBuf {
        self.scratch.join("printed")
    }

    fn said(self) -> PathBuf {
        self.scratch.join("said")
    }
}

/// What a file begins with.
fn start_of(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut start)?;
    Ok(start)
}

/// A file, which may not be longer than this.
fn all_of(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let all = start_of(path, bytes_max + 1).with_context(|| format!("cannot read {}", path.display()))?;
    if all.len() as u64 > bytes_max {
        bail!("{} has more than {bytes_max} bytes", path.display());
    }
    Ok(all)
}

/// Takes away what only leads elsewhere, such as npm's own folder of commands.
fn remove_links(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        let kind = kind?;
        if kind.is_symlink() {
            fs::remove_file(path)?;
        } else if kind.is_dir() {
            remove_links(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mayfly_test_needs::Registry;

    use super::*;

    /// A library with a server that npx would download, and a registry that has its package, whose scripts would leave a
    /// trace. `None`: there is no npm.
    fn bed() -> Option<(tempfile::TempDir, Library, Registry)> {
        let place = tempfile::tempdir().expect("a folder");
        let script = format!("touch '{}'", place.path().join("ran").display());
        let package = serde_json::json!({"name": "tiny-server", "version": "1.2.3", "bin": "./main.js",
            "scripts": {"preinstall": script, "install": script, "postinstall": script}});
        let program = "#!/usr/bin/env node\nconsole.log('tiny')\n";
        let registry = Registry::start(place.path(), &package, program)?;
        let folder = place.path().join("library/mcp/_global/tiny");
        fs::create_dir_all(&folder).expect("folders");
        let server =
            serde_json::json!({"command": "npx", "args": ["-y", "tiny-server", "--root", "/workspace"]});
        fs::write(folder.join("mcp.json"), server.to_string()).expect("a file");
        let library = Library::at(place.path().join("library"));
        Some((place, library, registry))
    }

    fn environment(home: &Path, registry: &str) -> Environment {
        let home = home.to_str().expect("UTF-8");
        [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home), ("npm_config_registry", registry)].into()
    }

    /// Fetches to the end.
    pub(super) fn fetched(library: &Library, environment: &Environment) -> anyhow::Result<Vec<Fetched>> {
        fetch(library, library.ids().expect("ids"), environment, &Flag::default(), |_| ())
    }

    #[test]
    fn what_a_server_would_download_is_fetched_once_and_is_a_part_of_it() {
        let Some((place, library, registry)) = bed() else { return };
        let environment = environment(place.path(), registry.url());
        let id = library.ids().expect("ids").pop_first().expect("one");
        let before = library.read(&id).expect("a resource");
        let first = fetched(&library, &environment).expect("fetched");
        let [Fetched { server, tool, .. }] = &first[..] else { panic!("{first:?}") };
        assert_eq!((server.as_str(), tool.resolved.as_str()), ("tiny", "tiny-server@1.2.3"));
        assert_eq!(tool.path, "node_modules/tiny-server/main.js");
        assert!(!place.path().join("ran").exists(), "npm ran the package's scripts");
        let tree = library.folder().join(tool::FOLDER).join(&tool.sha256);
        assert_eq!(tool::sha256(&tree).expect("a tree"), tool.sha256);
        let after = library.read(&before.id).expect("a resource");
        assert_eq!(after.tools().collect::<Vec<_>>(), [tool]);
        assert_ne!(after.sha256, before.sha256);
        assert_eq!(fetched(&library, &environment).expect("nothing to do"), []);
        fs::remove_dir_all(&tree).expect("taken away");
        assert_eq!(fetched(&library, &environment).expect("fetched again"), first);
        assert!(is_whole(&tree, &tool.sha256));
    }

    #[test]
    fn a_tree_that_is_damaged_is_fetched_again() {
        let Some((place, library, registry)) = bed() else { return };
        let environment = environment(place.path(), registry.url());
        let first = fetched(&library, &environment).expect("fetched");
        let tool = &first[0].tool;
        let tree = library.folder().join(tool::FOLDER).join(&tool.sha256);
        fs::write(tree.join(&tool.path), "").expect("a file");
        fs::write(tree.join("more"), "").expect("a file");
        assert_eq!(fetched(&library, &environment).expect("fetched again"), first);
        assert_eq!(tool::sha256(&tree).expect("a tree"), tool.sha256);
        assert_eq!(fetched(&library, &environment).expect("nothing to do"), []);
    }

    #[test]
    fn what_strangers_publish_is_read_no_further_than_its_bound() {
        let place = tempfile::tempdir().expect("a folder");
        let tree = place.path();
        let sparse = |path: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("one")).expect("folders");
            File::create(path).expect("a file").set_len(MANIFEST_BYTES_MAX + 1).expect("its length");
        };
        let wrong = |found: anyhow::Result<Found>| format!("{:#}", found.err().expect("refused"));
        sparse("package.json");
        let said = wrong(npm::program(tree));
        assert!(said.ends_with("package.json has more than 4194304 bytes"), "{said}");
        sparse("tiny-1.0.dist-info/METADATA");
        let said = wrong(pip::program(tree, &pip::Package::read("tiny").expect("one"), None));
        assert!(said.ends_with("METADATA has more than 4194304 bytes"), "{said}");

        let environment = environment(tree, "");
        let never = &Flag::default();
        let fetcher = Fetcher { scratch: tree, environment: &environment, given_up: never };
        let shell = |script: String| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]);
            shell
        };
        let much = format!("head -c {} /dev/zero", SAID_BYTES_MAX + 1);
        let said = fetcher.answer(shell(much.clone()), "it", ANSWER_MAX).expect_err("refused");
        assert!(format!("{said:#}").ends_with("printed has more than 65536 bytes"), "{said:#}");
        let complains = format!("{{ echo first; {much} | tr '\\0' x; }} >&2; false");
        let said = fetcher.fetch(shell(complains), "it").expect_err("it failed").to_string();
        assert!(said.starts_with("it says: first"), "{said}");
    }

    #[test]
    fn what_cannot_be_fetched_is_named_and_nothing_is_left_of_it() {
        let Some((place, library, registry)) = bed() else { return };
        let environment = environment(place.path(), registry.url());
        for (package, words) in [
            ("tiny-server@9", "npm says: "),
            ("@scope/none", "npm says: "),
            (
                "github:owner/tiny",
                "`github:owner/tiny` is no package by its name: write NAME, NAME@VERSION or @SCOPE/NAME@VERSION",
            ),
            ("tiny-server@./elsewhere", "is no package by its name"),
        ] {
            let server = serde_json::json!({"command": "npx", "args": [package]});
            fs::write(library.folder().join("mcp/_global/tiny/mcp.json"), server.to_string())
                .expect("a file");
            let said = format!("{:#}", fetched(&library, &environment).expect_err(package));
            assert!(
                said.contains(" for mcp/_global/tiny was not fetched: ") && said.contains(words),
                "{said}"
            );
            assert_eq!(fs::read_dir(library.folder().join(tool::FOLDER)).expect("a folder").count(), 0);
        }
    }

    #[test]
    fn a_program_that_does_not_answer_is_ended_and_named() {
        let place = tempfile::tempdir().expect("a folder");
        let environment = environment(place.path(), "");
        let never = &Flag::default();
        let fetcher = Fetcher { scratch: place.path(), environment: &environment, given_up: never };
        let mut waits = Command::new("tail");
        waits.args(["-f", "/dev/null"]);
        let said = fetcher.answer(waits, "it", Duration::ZERO).expect_err("ended").to_string();
        assert_eq!(said, "it took longer than 0ns, and was ended: try again");
        let answer =
            |program: &str| fetcher.answer(Command::new(program), "it", ANSWER_MAX).expect("it ended");
        assert_eq!((answer("pwd").is_some(), answer("false"), answer("/nonexistent")), (true, None, None));
    }
}
