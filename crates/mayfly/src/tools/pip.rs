//! Packages for Python, by pip, for the Python that machines have. Only what is built already is taken: to build a package
//! is to run what its authors wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use mayfly_library::tool::PYTHON;
use mayfly_library::tree::is_plain;

use super::{ANSWER_MAX, Fetcher, Found, MANIFEST_BYTES_MAX, all_of, start_of};
use crate::printer::Shown;

/// The most characters of a name that is shown.
const NAME_CHARS_MAX: usize = 100;
/// The most bytes of a program that are looked at.
const FIRST_LINES_BYTES_MAX: u64 = 1024;
/// Where pip is looked for: beside the Python of machines, then where the user has one.
const PYTHONS: [&str; 2] = [PYTHON, "python3"];
/// What prints a Python's version as pip is told it.
const VERSION: &str = "import sys; print('%d.%d' % sys.version_info[:2])";
/// How pip installs: it asks nobody, runs nothing that it installs, and does so always alike.
const FLAGS: [&str; 8] = [
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "--no-warn-script-location",
    // What the user's configuration may have beside a folder of its own.
    "--no-user",
    // What is compiled knows the time.
    "--no-compile",
    "--progress-bar=off",
    "--only-binary=:all:",
];

/// What a server asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package<'a> {
    name: &'a str,
    /// As pip reads it.
    requirement: String,
}

impl<'a> Package<'a> {
    /// Reads `NAME[EXTRAS]`, with `@VERSION` as uvx has it or `==VERSION` and the like. A URL or a path is none: what is
    /// fetched would have to be built.
    pub(super) fn read(text: &'a str) -> anyhow::Result<Self> {
        let end = text.find(|c: char| !is_of_name(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (extras, version) = match rest.split_once(']') {
            Some((extras, version)) if extras.starts_with('[') => (format!("{extras}]"), version),
            _ => (String::new(), rest),
        };
        let is_known = |c: char| c.is_ascii_alphanumeric() || "[]=<>!~.,*+-_@ ".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !rest.chars().all(is_known) {
            bail!(
                "`{}` is no package by its name: write NAME, NAME@VERSION or NAME==VERSION",
                Shown::line(text, NAME_CHARS_MAX)
            );
        }
        let version = match version.trim().strip_prefix('@') {
            Some("latest") => String::new(),
            Some(version) => format!("=={version}"),
            None => version.to_owned(),
        };
        Ok(Self { name, requirement: format!("{name}{extras}{version}") })
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Installs a package, and all that it needs, into the empty folder `tree`.
pub(super) fn install(package: &Package<'_>, tree: &Path, fetcher: Fetcher<'_>) -> anyhow::Result<()> {
    let version = says(PYTHON, &["-c", VERSION], fetcher)?.with_context(|| {
        format!("{PYTHON}, which runs such servers in machines, is not on this machine: install python3")
    })?;
    let python = with_pip(fetcher)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install"]).args(FLAGS).args(["--python-version", version.trim(), "--target"]);
    pip.arg(tree).args(["--", &package.requirement]).current_dir(fetcher.scratch);
    fetcher.fetch(pip, "pip")
}

/// A Python that has pip.
fn with_pip(fetcher: Fetcher<'_>) -> anyhow::Result<&'static str> {
    for python in PYTHONS {
        if says(python, &["-m", "pip", "--version"], fetcher)?.is_some() {
            return Ok(python);
        }
    }
    bail!("there is no pip for python3: install python3-pip")
}

/// What a Python says. `None`: it is not there, or failed.
fn says(python: &str, arguments: &[&str], fetcher: Fetcher<'_>) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(python);
    command.args(arguments).current_dir(fetcher.scratch);
    fetcher.answer(command, python, ANSWER_MAX)
}

/// What was installed of it, and the file that it is run by: the program of this name, else of its own.
pub(super) fn program(tree: &Path, package: &Package<'_>, named: Option<&str>) -> anyhow::Result<Found> {
    let version = version(tree, package.name)?;
    let resolved = format!("{}=={version}", package.name);
    let path = format!("bin/{}", named.unwrap_or(package.name));
    if !is_plain(&path) || !tree.join(&path).is_file() {
        let there = programs(&tree.join("bin"))?;
        bail!(
            "{resolved} has no program `{}`: it has {}: write uvx --from {} NAME",
            Shown::line(named.unwrap_or(package.name), NAME_CHARS_MAX),
            if there.is_empty() {
                "none".to_owned()
            } else {
                Shown::line(&there.join(", "), NAME_CHARS_MAX).to_string()
            },
            package.name
        );
    }
    let start = start_of(&tree.join(&path), FIRST_LINES_BYTES_MAX);
    let text = start.with_context(|| format!("cannot read {path}"))?;
    if !is_for_python(&text) {
        bail!("the program `{path}` of {resolved} is none for Python: no other can be locked");
    }
    Ok(Found { resolved, path })
}

/// The names of what can be run.
fn programs(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The version of a package, as it says it itself.
fn version(tree: &Path, name: &str) -> anyhow::Result<String> {
    for entry in fs::read_dir(tree)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "dist-info") {
            continue;
        }
        let says_it = path.join("METADATA");
        if !says_it.is_file() {
            continue;
        }
        let text = String::from_utf8_lossy(&all_of(&says_it, MANIFEST_BYTES_MAX)?).into_owned();
        let says = |key: &str| {
            text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(key))
        };
        if says("Name: ").is_some_and(|own| normal(own) == normal(name)) {
            let version = says("Version: ").map(str::trim).filter(|version| is_plain(version));
            return version.map(str::to_owned).with_context(|| format!("{name} does not say its version"));
        }
    }
    bail!("pip installed no package that is called {name}")
}

/// A name as all of its spellings are one.
fn normal(name: &str) -> String {
    let parts = name.trim().split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Whether Python runs it, by what it says itself, also where pip's path would be too long for a first line.
fn is_for_python(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let first = lines.next().and_then(|line| line.strip_prefix("#!")).unwrap_or_default();
    let is_named = first.split(['/', ' ']).any(|word| word.starts_with("python"));
    is_named || lines.next().is_some_and(|line| line.starts_with("'''exec' ") && line.contains("python"))
}

#[cfg(test)]
mod tests {
    use mayfly_library::{Library, tool};

    use super::*;
    use crate::environment::Environment;
    use crate::tools::Fetched;
    use crate::tools::tests::fetched;

    /// A library with a server that would run the test's own package, and an environment in which pip finds that.
    fn bed(arguments: &[&str]) -> Option<(tempfile::TempDir, Library, Environment)> {
        let place = tempfile::tempdir().expect("a folder");
        let packages = place.path().join("packages");
        fs::create_dir(&packages).expect("a folder");
        let pip = mayfly_test_needs::wheel(&packages, "def main():\n    print('tiny')\n")?;
        let folder = place.path().join("library/mcp/_global/tiny");
        fs::create_dir_all(&folder).expect("folders");
        let server = serde_json::json!({"command": "uvx", "args": arguments});
        fs::write(folder.join("mcp.json"), server.to_string()).expect("a file");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (pip, home) = (text(&pip), text(place.path()));
        let environment =
            [("PATH", "/usr/bin:/bin"), ("HOME", home.as_str()), ("PIP_CONFIG_FILE", pip.as_str())].into();
        let library = Library::at(place.path().join("library"));
        Some((place, library, environment))
    }

    fn failed(arguments: &[&str]) -> Option<String> {
        let (_place, library, environment) = bed(arguments)?;
        let failed = fetched(&library, &environment);
        let there = fs::read_dir(library.folder().join(tool::FOLDER));
        assert_eq!(there.map_or(0, Iterator::count), 0, "nothing is left of it");
        Some(format!("{:#}", failed.expect_err("it cannot be fetched")))
    }

    #[test]
    fn a_package_is_fetched_once_and_is_run_where_nothing_else_is() {
        for (arguments, path) in [
            (&["tiny-server@1.2.3", "--root"][..], "bin/tiny-server"),
            (&["--from", "Tiny_Server", "serve"], "bin/serve"),
        ] {
            let Some((_place, library, environment)) = bed(arguments) else { return };
            let first = fetched(&library, &environment).expect("fetched");
            let [Fetched { tool, .. }] = &first[..] else { panic!("{first:?}") };
            assert_eq!((tool.path.as_str(), tool.program.as_str()), (path, PYTHON));
            assert!(tool.resolved.ends_with("==1.2.3"), "{tool:?}");
            let tree = library.folder().join(tool::FOLDER).join(&tool.sha256);
            assert_eq!(tool::sha256(&tree).expect("a tree"), tool.sha256);
            let mut python = Command::new(PYTHON);
            python.arg(tree.join(path)).env_clear().env("PYTHONPATH", &tree);
            let said = python.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("it runs");
            assert_eq!(String::from_utf8_lossy(&said.stdout), "tiny\n");
            assert_eq!(fetched(&library, &environment).expect("nothing to do"), []);
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_named() {
        for (arguments, words) in [
            (&["tiny-server==9"][..], "pip says: "),
            (
                &["--from", "tiny-server", "other"],
                "has no program `other`: it has serve, tiny-server: write uvx",
            ),
            (&["--from", "tiny-server", "../tiny_server/__init__.py"], "has no program `../tiny_server"),
            (
                &["--from", "git+https://host.example/x", "x"],
                "`git+https://host.example/x` is no package by its name",
            ),
            (&["./packages"], "is no package by its name"),
        ] {
            let Some(said) = failed(arguments) else { return };
            assert!(
                said.contains("for mcp/_global/tiny was not fetched: ") && said.contains(words),
                "{said}"
            );
        }
    }

    #[test]
    fn a_package_is_read_as_uvx_and_pip_have_it() {
        for (text, name, requirement) in [
            ("a-b", "a-b", "a-b"),
            ("a@latest", "a", "a"),
            ("a@1.2", "a", "a==1.2"),
            ("a[x,y]@1.2", "a", "a[x,y]==1.2"),
            ("a_b.c>=1,<2", "a_b.c", "a_b.c>=1,<2"),
        ] {
            let requirement = requirement.to_owned();
            assert_eq!(Package::read(text).expect(text), Package { name, requirement });
        }
        for text in ["", "-r", ".", "a/b", "a @ file:///x", "a;b", "a\n"] {
            assert!(Package::read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_program_for_python_is_told_from_others() {
        let long = "#!/bin/sh\n'''exec' /long/python3 \"$0\" \"$@\"\n";
        for text in ["#!/usr/bin/python3\n", "#!/usr/bin/env python\n", long] {
            assert!(is_for_python(text.as_bytes()), "{text:?}");
        }
        for text in ["", "#!/bin/sh\npython x\n", "\x7fELF", "import python\n"] {
            assert!(!is_for_python(text.as_bytes()), "{text:?}");
        }
    }
}
