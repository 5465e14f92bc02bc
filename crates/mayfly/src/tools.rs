//! Fetches, once and on the user's machine, what servers of the library would download in each machine.
//!
//! ```text
//! npm install --ignore-scripts ─► no links ─► what the package's `bin` names ─► SHA-256 ─► .tools/{sha256}, tools.json
//! ```
//!
//! npm brings its own configuration, so no host is named here; it runs none of the packages' scripts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use mayfly_library::kinds::What;
use mayfly_library::tool::{self, Download, Tool};
use mayfly_library::{Kind, Library, Resource, ResourceId};
use serde_json::{Map, Value};

use crate::environment::Environment;
use crate::printer::Shown;

/// The most characters of what npm said.
const SAID_CHARS_MAX: usize = 600;

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
            let Some(download) = server.unlocked() else { continue };
            tell(&format!("fetching `{}` for {id}", Shown::line(download.package, SAID_CHARS_MAX)));
            let tool = fetch_one(library, &download, environment);
            let tool = tool.with_context(|| format!("`{}` for {id} was not fetched", download.package))?;
            new.push(Fetched { id: id.clone(), server: server.name.clone(), tool });
        }
        if !new.is_empty() {
            write_down(library, &resource, &new)?;
        }
        fetched.extend(new);
    }
    Ok(fetched)
}

/// Notes beside the servers what they run, so that it is a part of what they are.
fn write_down(library: &Library, resource: &Resource, new: &[Fetched]) -> anyhow::Result<()> {
    let What::Mcp(servers) = &resource.what else { return Ok(()) };
    let known = servers.iter().filter_map(|server| Some((server.name.clone(), server.tool.clone()?)));
    let mut tools: BTreeMap<String, Tool> = known.collect();
    tools.extend(new.iter().map(|fetched| (fetched.server.clone(), fetched.tool.clone())));
    let mut files: Vec<_> = resource.files.iter().filter(|file| file.path != tool::FILE).cloned().collect();
    let bytes = serde_json::to_vec_pretty(&tools)?;
    files.push(mayfly_library::File { path: tool::FILE.to_owned(), executable: false, bytes });
    files.sort();
    Ok(library.put(&Resource::read(resource.id.clone(), files)?)?)
}

fn fetch_one(library: &Library, download: &Download<'_>, environment: &Environment) -> anyhow::Result<Tool> {
    let Download { runner: "npx", package, .. } = *download else {
        bail!(
            "`{}` cannot be locked: put the program into the resource's folder, and name it by {}",
            download.runner,
            mayfly_library::kinds::mcp::OWN_FOLDER
        );
    };
    let trees = library.folder().join(tool::FOLDER);
    fs::create_dir_all(&trees)?;
    let beside = tempfile::Builder::new().prefix("fetch-").tempdir_in(&trees)?;
    let tree = beside.path().join("tree");
    fs::create_dir(&tree)?;
    install(package, &tree, beside.path(), environment)?;
    remove_links(&tree)?;
    let (resolved, path) = program(&tree)?;
    let sha256 = tool::sha256(&tree)?;
    let place = trees.join(&sha256);
    if !place.is_dir() {
        fs::rename(&tree, &place)?;
    }
    let (package, program) = (package.to_owned(), "node".to_owned());
    Ok(Tool { package, resolved, sha256, program, path })
}

fn install(package: &str, tree: &Path, scratch: &Path, environment: &Environment) -> anyhow::Result<()> {
    let said = scratch.join("npm-said");
    let mut npm = Command::new("npm");
    npm.env_clear().envs(environment.without_credentials()).stdin(Stdio::null()).stdout(Stdio::null());
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--install-links"]);
    npm.args(["--no-package-lock", "--no-update-notifier", "--loglevel=error", "--prefix"]).arg(tree);
    npm.args(["--", package]).current_dir(tree).stderr(File::create(&said)?);
    let status = npm.status().context("npm cannot be started: install npm")?;
    if !status.success() {
        let said = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
        bail!("npm says: {}", Shown::line(said.trim(), SAID_CHARS_MAX));
    }
    Ok(())
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

/// What was installed, by name and version, and the file in the tree that it is run by.
fn program(tree: &Path) -> anyhow::Result<(String, String)> {
    let asked = read_json(&tree.join("package.json"))?;
    let dependencies = asked.get("dependencies").and_then(Value::as_object);
    let name = dependencies.and_then(|all| all.keys().next()).context("npm installed nothing")?;
    let folder: PathBuf = ["node_modules", name].iter().collect();
    let package = read_json(&tree.join(&folder).join("package.json"))?;
    let version = package.get("version").and_then(Value::as_str).unwrap_or_default();
    let short = name.rsplit('/').next().unwrap_or(name);
    let file = match package.get("bin") {
        Some(Value::String(file)) => Some(file.as_str()),
        Some(Value::Object(files)) if files.len() == 1 => files.values().next().and_then(Value::as_str),
        Some(Value::Object(files)) => files.get(short).and_then(Value::as_str),
        _ => None,
    };
    let file = file.with_context(|| format!("{name} has no program of its name"))?;
    let path = folder.join(file.trim_start_matches("./"));
    let plain = path.to_str().filter(|path| mayfly_library::tree::is_plain(path));
    let plain = plain.filter(|path| tree.join(path).is_file());
    let path = plain.with_context(|| format!("the program of {name} is not where it says"))?;
    Ok((format!("{name}@{version}"), path.to_owned()))
}

fn read_json(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
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
        write(
            "tiny/package.json",
            r#"{"name": "tiny-server", "version": "1.2.3", "bin": "./main.js", "scripts": {"install": "touch /tmp/ran"}}"#,
        );
        write("tiny/main.js", "#!/usr/bin/env node\nconsole.log('tiny')\n");
        let package = place.path().join("tiny");
        let server = serde_json::json!({"command": "npx", "args": ["-y", package, "--root", "/workspace"]});
        write("library/mcp/_global/tiny/mcp.json", &server.to_string());
        let library = Library::at(place.path().join("library"));
        (place, library)
    }

    fn environment(home: &Path) -> Environment {
        [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home.to_str().expect("UTF-8"))].into()
    }

    #[test]
    fn what_a_server_would_download_is_fetched_once_and_is_a_part_of_it() {
        let (place, library) = bed();
        let environment = environment(place.path());
        let ids = || library.ids().expect("ids");
        let before = library.read(&ids().pop_first().expect("one")).expect("a resource");
        let fetched = fetch(&library, ids(), &environment, |_| ()).expect("fetched");
        let [Fetched { server, tool, .. }] = &fetched[..] else { panic!("{fetched:?}") };
        assert_eq!((server.as_str(), tool.resolved.as_str()), ("tiny", "tiny-server@1.2.3"));
        assert_eq!(tool.path, "node_modules/tiny-server/main.js");
        let tree = library.folder().join(tool::FOLDER).join(&tool.sha256);
        assert_eq!(tool::sha256(&tree).expect("a tree"), tool.sha256);
        let after = library.read(&before.id).expect("a resource");
        assert_eq!(after.tools().collect::<Vec<_>>(), [tool]);
        assert_ne!(after.sha256, before.sha256);
        assert_eq!(fetch(&library, ids(), &environment, |_| ()).expect("nothing to do"), []);
    }

    #[test]
    fn what_cannot_be_fetched_is_named() {
        let (place, library) = bed();
        fs::remove_dir_all(place.path().join("tiny")).expect("removed");
        let failed = fetch(&library, library.ids().expect("ids"), &environment(place.path()), |_| ());
        let said = format!("{:#}", failed.expect_err("gone"));
        assert!(said.contains("for mcp/_global/tiny was not fetched: npm says: "), "{said}");
        assert_eq!(fs::read_dir(library.folder().join(tool::FOLDER)).expect("a folder").count(), 0);
    }
}
