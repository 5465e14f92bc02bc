//! Packages for node, by npm: it runs none of their scripts.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::{Fetcher, Found, MANIFEST_BYTES_MAX, all_of, start_of};
use crate::printer::Shown;

/// The most characters of a name that is shown.
const NAME_CHARS_MAX: usize = 100;
/// The longest first line of a program that is looked at.
const FIRST_LINE_BYTES_MAX: u64 = 256;
/// What the files of programs for node end in.
const NODE_ENDS: [&str; 3] = ["js", "mjs", "cjs"];

/// What ends the name of a file that npm would install.
const FILE_ENDS: [&str; 3] = [".tgz", ".tar.gz", ".tar"];

/// Whether it is `NAME`, or `NAME@VERSION`, with or without a scope. All else npm would take from a folder of this machine,
/// or from any host there is.
fn is_by_name(package: &str) -> bool {
    let (scope, package) = match package.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').unwrap_or(("", "")),
        None => ("any", package),
    };
    let (name, version) = package.split_once('@').unwrap_or((package, "latest"));
    let is_of = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || "^~<>=*".contains(c) && more.contains(c))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            && !FILE_ENDS.iter().any(|end| text.to_ascii_lowercase().ends_with(end))
    };
    is_of(scope, "._-") && is_of(name, "._-") && is_of(version, "._-^~<>=*+| ")
}

/// Installs a package into the empty folder `tree`.
pub(super) fn install(package: &str, tree: &Path, fetcher: Fetcher<'_>) -> anyhow::Result<()> {
    if !is_by_name(package) {
        bail!(
            "`{}` is no package by its name: write NAME, NAME@VERSION or @SCOPE/NAME@VERSION",
            Shown::line(package, NAME_CHARS_MAX)
        );
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--install-links"]);
    npm.args(["--no-package-lock", "--no-update-notifier", "--loglevel=error", "--prefix"]).arg(tree);
    npm.args(["--", package]).current_dir(tree);
    fetcher.fetch(npm, "npm")
}

/// What was installed, by name and version, and the file in the tree that it is run by.
pub(super) fn program(tree: &Path) -> anyhow::Result<Found> {
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
    if !is_for_node(&tree.join(path))? {
        bail!("the program of {name} is `{path}`, which is none for node: no other can be locked");
    }
    Ok(Found { resolved: format!("{name}@{version}"), path: path.to_owned() })
}

/// Whether a program is one for node, by its name or by what it says itself.
fn is_for_node(path: &Path) -> io::Result<bool> {
    if path.extension().and_then(OsStr::to_str).is_some_and(|end| NODE_ENDS.contains(&end)) {
        return Ok(true);
    }
    let start = start_of(path, FIRST_LINE_BYTES_MAX)?;
    let start = String::from_utf8_lossy(&start);
    let interpreter = start.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or_default();
    Ok(interpreter.split(['/', ' ', '\t']).any(|word| word == "node"))
}

fn read_json(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = all_of(path, MANIFEST_BYTES_MAX)?;
    serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_package_is_one_by_its_name() {
        for package in [
            "tiny",
            "Tiny.server_2",
            "tiny@1.2.3",
            "tiny@latest",
            "tiny@^1.2.0-rc.1+b",
            "tiny@>=1 <2 || *",
            "@scope/tiny",
            "@scope/tiny@~1",
        ] {
            assert!(is_by_name(package), "{package:?}");
        }
        for package in [
            "",
            "@",
            "@scope",
            "@/tiny",
            "@scope/",
            "tiny@",
            "-g",
            ".",
            "..",
            "./tiny",
            "../tiny",
            "/tiny",
            "~/tiny",
            "tiny/server",
            "tiny.tgz",
            "tiny.TAR.GZ",
            "tiny@.",
            "tiny@..",
            "tiny@~/x",
            "tiny@x.tar",
            "tiny@./x",
            "tiny@owner/x",
            "tiny@file:x",
            "tiny@npm:other",
            "tiny@https://host.example/x.tgz",
            "@scope/tiny@github:owner/x",
            "@scope/tiny/x",
            "github:owner/tiny",
            "git+ssh://git@host.example/owner/tiny.git",
            "git@host.example:owner/tiny.git",
            "https://host.example/tiny.tgz",
            "file:tiny",
            "tiny\n",
            "tin\u{e9}",
        ] {
            assert!(!is_by_name(package), "{package:?}");
        }
    }

    #[test]
    fn a_program_for_node_is_told_from_others() {
        let place = tempfile::tempdir().expect("a folder");
        let is_for_node = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).expect("a file");
            super::is_for_node(&path).expect("read")
        };
        assert!(is_for_node("a.js", "") && is_for_node("a.mjs", "") && is_for_node("a.cjs", "#!/bin/sh\n"));
        assert!(is_for_node("a", "#!/usr/bin/env node\n") && is_for_node("b", "#!/usr/bin/node --x\n"));
        for text in ["", "#!/bin/sh\nnode x\n", "\x7fELF", "node\n", "#!/usr/bin/env node-gyp\n"] {
            assert!(!is_for_node("c", text), "{text:?}");
        }
    }
}
