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
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use mayfly_library::kinds::What;
use mayfly_library::kinds::mcp::Server;
use mayfly_library::tool::{self, Download, Tool};
use mayfly_library::{Kind, Library, ResourceId};

use crate::environment::Environment;
use crate::printer::Shown;

/// The most characters of what npm or pip said.
const SAID_CHARS_MAX: usize = 600;
/// The longest that it may take for one package.
const FETCH_MAX: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(50);

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

/// Fetches what servers of these resources would download and have not locked yet; `tell` hears of each before.
pub(crate) fn fetch(
    library: &Library,
    ids: impl IntoIterator<Item = ResourceId>,
    environment: &Environment,
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
            let tool = fetch_one(library, &download, environment);
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

/// What a server would download whose tree is not in the library any more.
fn gone<'a>(library: &Library, server: &'a Server) -> Option<Download<'a>> {
    let tree = library.folder().join(tool::FOLDER).join(&server.tool.as_ref()?.sha256);
    server.download().filter(|_| !tree.is_dir())
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

fn fetch_one(library: &Library, download: &Download<'_>, environment: &Environment) -> anyhow::Result<Tool> {
    let Download { package, named, program, .. } = *download;
    let trees = library.folder().join(tool::FOLDER);
    fs::create_dir_all(&trees)?;
    let beside = tempfile::Builder::new().prefix("fetch-").tempdir_in(&trees)?;
    let tree = beside.path().join("tree");
    fs::create_dir(&tree)?;
    let found = if program == tool::PYTHON {
        let package = pip::Package::read(package)?;
        pip::install(&package, &tree, beside.path(), environment)?;
        remove_links(&tree)?;
        pip::program(&tree, &package, named)?
    } else {
        npm::install(package, &tree, beside.path(), environment)?;
        remove_links(&tree)?;
        npm::program(&tree)?
    };
    let sha256 = tool::sha256(&tree)?;
    let place = trees.join(&sha256);
    match File::open(&place) {
        // As old as what nobody names could be taken away.
        Ok(there) => there.set_modified(SystemTime::now())?,
        Err(_) => fs::rename(&tree, &place)?,
    }
    let Found { resolved, path } = found;
    let (package, named, program) = (package.to_owned(), named.map(str::to_owned), program.to_owned());
    Ok(Tool { package, named, resolved, sha256, program, path })
}

/// Runs what fetches, and nothing of the user's credentials for the model with it. It is called `name` in messages.
fn run(mut command: Command, name: &str, scratch: &Path, environment: &Environment) -> anyhow::Result<()> {
    let said = scratch.join("said");
    command.env_clear().envs(environment.without_credentials());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    let child = command.spawn().with_context(|| format!("{name} cannot be started: install {name}"))?;
    let status = wait(child, FETCH_MAX)?.with_context(|| {
        format!("{name} took longer than {} minutes, and was ended: try again", FETCH_MAX.as_secs() / 60)
    })?;
    if !status.success() {
        let said = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
        bail!("{name} says: {}", Shown::line(said.trim(), SAID_CHARS_MAX));
    }
    Ok(())
}

/// Waits for a process. `None`: it took longer, and was killed.
fn wait(mut child: Child, most: Duration) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > most {
            child.kill()?;
            return child.wait().map(|_| None);
        }
        thread::sleep(LOOK);
    }
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
    use super::*;

    /// A package with one program, as npm packs it, and a library with a server that would run it.
    fn bed() -> (tempfile::TempDir, Library) {
        let place = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, text).expect("a file");
        };
        let script = format!("touch '{}'", place.path().join("ran").display());
        let package = serde_json::json!({"name": "tiny-server", "version": "1.2.3", "bin": "./main.js",
            "scripts": {"preinstall": script, "install": script, "postinstall": script}});
        write("tiny/package.json", &package.to_string());
        write("tiny/main.js", "#!/usr/bin/env node\nconsole.log('tiny')\n");
        let package = place.path().join("tiny");
        let server = serde_json::json!({"command": "npx", "args": ["-y", package, "--root", "/workspace"]});
        write("library/mcp/_global/tiny/mcp.json", &server.to_string());
        let library = Library::at(place.path().join("library"));
        (place, library)
    }

    /// Where npm is looked for.
    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn has_npm() -> bool {
        let is_there = PATH.split(':').any(|folder| Path::new(folder).join("npm").exists());
        if !is_there {
            mayfly_test_needs::skip("npm is not installed");
        }
        is_there
    }

    fn environment(home: &Path) -> Environment {
        [("PATH", PATH), ("HOME", home.to_str().expect("UTF-8"))].into()
    }

    #[test]
    fn what_a_server_would_download_is_fetched_once_and_is_a_part_of_it() {
        if !has_npm() {
            return;
        }
        let (place, library) = bed();
        let environment = environment(place.path());
        let ids = || library.ids().expect("ids");
        let before = library.read(&ids().pop_first().expect("one")).expect("a resource");
        let fetched = fetch(&library, ids(), &environment, |_| ()).expect("fetched");
        let [Fetched { server, tool, .. }] = &fetched[..] else { panic!("{fetched:?}") };
        assert_eq!((server.as_str(), tool.resolved.as_str()), ("tiny", "tiny-server@1.2.3"));
        assert_eq!(tool.path, "node_modules/tiny-server/main.js");
        assert!(!place.path().join("ran").exists(), "npm ran the package's scripts");
        let tree = library.folder().join(tool::FOLDER).join(&tool.sha256);
        assert_eq!(tool::sha256(&tree).expect("a tree"), tool.sha256);
        let after = library.read(&before.id).expect("a resource");
        assert_eq!(after.tools().collect::<Vec<_>>(), [tool]);
        assert_ne!(after.sha256, before.sha256);
        assert_eq!(fetch(&library, ids(), &environment, |_| ()).expect("nothing to do"), []);
        fs::remove_dir_all(&tree).expect("taken away");
        assert_eq!(fetch(&library, ids(), &environment, |_| ()).expect("fetched again"), fetched);
        assert!(tree.is_dir());
    }

    #[test]
    fn what_cannot_be_fetched_is_named() {
        if !has_npm() {
            return;
        }
        let (place, library) = bed();
        fs::remove_dir_all(place.path().join("tiny")).expect("removed");
        let failed = fetch(&library, library.ids().expect("ids"), &environment(place.path()), |_| ());
        let said = format!("{:#}", failed.expect_err("gone"));
        assert!(said.contains("for mcp/_global/tiny was not fetched: npm says: "), "{said}");
        assert_eq!(fs::read_dir(library.folder().join(tool::FOLDER)).expect("a folder").count(), 0);
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        let mut waits = Command::new("cat");
        let mut child = waits.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        // As long as it is held, the process reads.
        let _held = child.stdin.take();
        assert_eq!(wait(child, Duration::ZERO).expect("ended"), None);
        let ends = Command::new("true").spawn().expect("true");
        assert!(wait(ends, FETCH_MAX).expect("waited for").is_some_and(|status| status.success()));
    }
}
