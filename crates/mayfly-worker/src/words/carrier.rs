//! Goes through a repository, and writes what may be carried over.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_library::Expected;
use mayfly_library::matter::{self, Setting};
use serde_json::{Map, Value};

use super::ignored::Ignored;
use super::tree::{Entry, Tree, Unread};
use super::{BYTES_MAX, DEPTH_MAX, FILES_MAX, FOLDERS_MAX, imports};

/// Where the repository's memory and rules are mirrored, in the CLI's folder.
const MIRROR: &str = "rules/repository";
/// What the CLI remembers of a folder; the last only where the first is not.
const MEMORY: [&str; 3] = ["CLAUDE.md", "CLAUDE.local.md", "AGENTS.md"];
/// Files of settings of which nothing counts.
const SETTINGS: [&str; 3] = [".claude/settings.json", ".claude/settings.local.json", ".mcp.json"];
/// How far an import of an import of an import goes.
const IMPORTS_MAX: usize = 5;

/// A setting that may stay, and what it is called in the CLI's own.
type Kept = &'static [(&'static str, &'static str)];

const RULE: Kept = &[("paths", "paths")];
const AGENT: Kept = &[
    ("name", "name"),
    ("description", "description"),
    ("tools", "tools"),
    ("allowedTools", "tools"),
    ("disallowedTools", "disallowedTools"),
    ("deniedTools", "disallowedTools"),
    ("model", "model"),
    ("maxTurns", "maxTurns"),
    ("skills", "skills"),
    ("color", "color"),
];
/// Those of an agent that bound it: without one of them it could do more than it says.
const BOUNDS: [&str; 4] = ["tools", "allowedTools", "disallowedTools", "deniedTools"];
/// What is said of an agent without one of them.
const UNREAD: &str = "all of it: what bounds its tools cannot be read";
const SKILL: Kept = &[
    ("name", "name"),
    ("description", "description"),
    ("when_to_use", "when_to_use"),
    ("argument-hint", "argument-hint"),
    ("model", "model"),
    ("disable-model-invocation", "disable-model-invocation"),
    ("user-invocable", "user-invocable"),
];

/// What bounds an agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) tools: Option<Vec<String>>,
    pub(crate) denied: Vec<String>,
}

impl Bounds {
    fn of(kept: &[(&str, Value)]) -> Self {
        let words = |key: &str| {
            kept.iter().find(|(known, _)| *known == key).and_then(|(_, value)| matter::words(value))
        };
        Self { tools: words("tools"), denied: words("disallowedTools").unwrap_or_default() }
    }
}

/// One repository on its way into one folder of the CLI's.
#[derive(Debug)]
pub(crate) struct Carrier<'a> {
    tree: Tree,
    library: &'a Expected,
    /// What bounds the agent that the task is run by, if it is one of the repository's.
    main: Option<Bounds>,
    /// The CLI's folder; none where nothing is written.
    config: Option<PathBuf>,
    ignored: Ignored,
    mirrored: BTreeSet<PathBuf>,
    files_left: usize,
    bytes_left: usize,
    folders_left: usize,
}

impl<'a> Carrier<'a> {
    pub(crate) fn new(tree: Tree, config: Option<PathBuf>, library: &'a Expected) -> Self {
        Self {
            tree,
            library,
            main: None,
            config,
            ignored: Ignored::default(),
            mirrored: BTreeSet::new(),
            files_left: FILES_MAX,
            bytes_left: BYTES_MAX,
            folders_left: FOLDERS_MAX,
        }
    }

    /// Carries all over. An error is one of the CLI's folder; what is wrong with the repository is told of.
    pub(crate) fn carry(mut self) -> io::Result<(Ignored, Option<Bounds>)> {
        // First, so that whatever else is told of, these are.
        for settings in SETTINGS {
            self.name_keys(Path::new(settings));
        }
        self.memory(Path::new(""), 0)?;
        Ok((self.ignored, self.main))
    }

    /// Reads the agents alone.
    pub(crate) fn read_agents(mut self) -> io::Result<(Ignored, Option<Bounds>)> {
        self.rewritten(Path::new(".claude/agents"), AGENT)?;
        Ok((self.ignored, self.main))
    }

    /// `.claude`: words of five kinds, and the rest, which is only named.
    fn own_folder(&mut self) -> io::Result<()> {
        for Entry { name, .. } in self.list(Path::new(".claude")) {
            let path = Path::new(".claude").join(&name);
            match name.to_str() {
                Some("CLAUDE.md") => self.mirror(&path, None, 0)?,
                Some("rules") => {
                    for file in self.texts(&path) {
                        self.mirror(&file, None, 0)?;
                    }
                }
                Some("agents") => self.rewritten(&path, AGENT)?,
                Some("commands") => self.rewritten(&path, SKILL)?,
                Some("skills") => self.skills(&path)?,
                _ if SETTINGS.iter().any(|settings| path == Path::new(settings)) => {}
                _ => self.ignored.whole(&path, ""),
            }
        }
        Ok(())
    }

    /// A file of memory or a rule with what it imports, at the same place in the mirror.
    fn mirror(&mut self, path: &Path, scope: Option<&Path>, depth: usize) -> io::Result<()> {
        if self.mirrored.contains(path) {
            return Ok(());
        }
        let Some(text) = self.text(path) else { return Ok(()) };
        self.mirrored.insert(path.to_owned());
        let folder = path.parent().unwrap_or(Path::new(""));
        let (settings, body) = matter::split(&text);
        let (mut kept, _) = self.kept(path, settings, RULE);
        if !kept.iter().all(|(_, patterns)| matter::patterns_are_bounded(&patterns.to_string())) {
            kept.clear();
            self.name(path, vec!["paths".to_owned()]);
        }
        if let Some(scope) = scope {
            kept = vec![("paths", Value::from(vec![pattern(scope)]))];
        }
        let body = self.without_leaving(path, body, |_, path| imports::within(folder, path).is_none());
        self.write(&Path::new(MIRROR).join(path), matter::join(&kept, &body).as_bytes())?;
        let imported = imports::paths(&body).into_iter().filter_map(|path| imports::within(folder, &path));
        for imported in imported.filter(|_| depth < IMPORTS_MAX) {
            self.mirror(&imported, None, depth + 1)?;
        }
        Ok(())
    }

    /// What there is to remember of a folder, and of those below it; of these it counts for what is in them.
    fn memory(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        let entries = self.list(folder);
        let is_there = |wanted: &str| entries.iter().any(|entry| entry.name == wanted);
        let [first, .., last] = MEMORY;
        let scope = (depth > 0).then_some(folder);
        for name in MEMORY.into_iter().filter(|name| is_there(name) && !(*name == last && is_there(first))) {
            self.mirror(&folder.join(name), scope, 0)?;
        }
        if depth == 0 {
            self.own_folder()?;
        }
        for Entry { name, is_folder } in entries {
            let (path, is_hidden) = (folder.join(&name), name.as_encoded_bytes().starts_with(b"."));
            if is_folder && !is_hidden && depth < DEPTH_MAX {
                self.memory(&path, depth + 1)?;
            } else if name == ".claude" && depth > 0 {
                self.ignored.whole(&path, "");
            }
        }
        Ok(())
    }

    /// Agents or commands: a text each, with settings that are written anew.
    fn rewritten(&mut self, folder: &Path, list: Kept) -> io::Result<()> {
        for file in self.texts(folder) {
            self.rewrite(&file, list)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, path: &Path, list: Kept) -> io::Result<()> {
        let Some(text) = self.text(path) else { return Ok(()) };
        let (mut settings, body) = matter::split(&text);
        let mut body = body.to_owned();
        if list == AGENT {
            // Some write bounds without a head, and one that is not seen would bound nothing.
            let read = matter::check_head(&text).and_then(|()| matter::take_plain(&body, 1));
            let Ok((plain, rest)) = read else {
                self.ignored.whole(path, UNREAD);
                return Ok(());
            };
            settings.extend(plain);
            body = rest;
        }
        let (kept, unread) = self.kept(path, settings, list);
        if BOUNDS.iter().any(|bound| unread.iter().any(|key| key == bound)) {
            self.ignored.whole(path, UNREAD);
            return Ok(());
        }
        if list == AGENT && self.library.agents.contains(&name_of(&kept, path)) {
            self.ignored.whole(path, "all of it: the library has an agent of this name");
            return Ok(());
        }
        if list == AGENT && self.library.agent.as_ref() == Some(&name_of(&kept, path)) {
            self.main = Some(Bounds::of(&kept));
        }
        let body = self.without_leaving(path, &body, is_outside);
        let below = path.strip_prefix(".claude").unwrap_or(path);
        self.write(below, matter::join(&kept, &body).as_bytes())
    }

    /// Skills, with the files beside their texts; what is hidden there could make one a plugin.
    fn skills(&mut self, folder: &Path) -> io::Result<()> {
        for file in self.files(folder) {
            let name = file.file_name().unwrap_or_default();
            if self.is_skill_of_library(&file) {
                self.ignored.whole(&file, "all of it: the library has a skill of this name");
            } else if name.eq_ignore_ascii_case("SKILL.md") {
                self.rewrite(&file, SKILL)?;
            } else if let Some(bytes) = self.bytes(&file) {
                let below = file.strip_prefix(".claude").unwrap_or(&file).to_owned();
                self.write(&below, &bytes)?;
            }
        }
        Ok(())
    }

    fn is_skill_of_library(&self, file: &Path) -> bool {
        let skill = file.strip_prefix(".claude/skills").ok().and_then(|below| below.iter().next());
        self.library.skills.keys().any(|name| skill == Some(OsStr::new(name)))
    }

    /// What of a file's settings may stay, and the keys that should but cannot be read. The others are told of.
    fn kept(
        &mut self,
        path: &Path,
        settings: Vec<Setting>,
        list: Kept,
    ) -> (Vec<(&'static str, Value)>, Vec<String>) {
        let (mut kept, mut unread, mut gone) = (Vec::<(&str, Value)>::new(), Vec::new(), Vec::new());
        for Setting { key, value, .. } in settings {
            let ours = list.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| *ours);
            let is_new = |ours: &&str| kept.iter().all(|(known, _)| known != ours);
            match (ours.filter(is_new), value) {
                (Some(ours), Some(value)) => kept.push((ours, value)),
                _ if ours.is_some() => unread.push(key),
                _ => gone.push(key),
            }
        }
        self.name(path, [&gone[..], &unread[..]].concat());
        (kept, unread)
    }

    /// A text without the imports that leave the tree.
    fn without_leaving(&mut self, path: &Path, text: &str, leaves: impl Fn(&Tree, &str) -> bool) -> String {
        let (text, gone) = imports::broken(text, |path| leaves(&self.tree, path));
        self.name(path, gone.into_iter().map(|gone| format!("@{gone}")).collect());
        text
    }

    /// Names the keys of a file of settings, of which nothing counts.
    fn name_keys(&mut self, path: &Path) {
        let Some(text) = self.text(path) else { return };
        let keys = |value: Map<String, Value>| value.into_iter().map(|(key, _)| key).collect();
        let keys: Vec<String> = serde_json::from_str(&text).map(keys).unwrap_or_default();
        self.ignored.parts(path, keys);
    }

    fn name(&mut self, path: &Path, parts: Vec<String>) {
        if !parts.is_empty() {
            self.ignored.parts(path, parts);
        }
    }

    /// The files below a folder whose names end in `.md`.
    fn texts(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut files = self.files(folder);
        files.retain(|file| file.extension() == Some(OsStr::new("md")));
        files
    }

    /// The files below a folder, in links to folders of the tree too, but nothing that is hidden.
    fn files(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        self.add_files(folder, 0, &mut files);
        if files.len() > FILES_MAX {
            self.ignored.whole(folder, &format!("what is in more than {FILES_MAX} files"));
            files.truncate(FILES_MAX);
        }
        files
    }

    fn add_files(&mut self, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
        for Entry { name, .. } in self.list(folder) {
            let path = folder.join(&name);
            if files.len() > FILES_MAX {
                return;
            } else if name.as_encoded_bytes().starts_with(b".") {
                self.ignored.whole(&path, "");
            } else if depth < DEPTH_MAX && self.tree.list(&path).is_ok() {
                self.add_files(&path, depth + 1, files);
            } else {
                files.push(path);
            }
        }
    }

    fn list(&mut self, folder: &Path) -> Vec<Entry> {
        let Some(left) = self.folders_left.checked_sub(1) else {
            self.ignored.whole(Path::new("."), &format!("what is in more than {FOLDERS_MAX} folders"));
            return Vec::new();
        };
        self.folders_left = left;
        self.tree.list(folder).unwrap_or_else(|error| {
            self.refused(folder, &error);
            Vec::new()
        })
    }

    fn text(&mut self, path: &Path) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bytes(&mut self, path: &Path) -> Option<Vec<u8>> {
        match self.tree.read(path) {
            Ok(bytes) if self.files_left > 0 && bytes.len() <= self.bytes_left => {
                self.files_left -= 1;
                self.bytes_left -= bytes.len();
                Some(bytes)
            }
            Ok(_) => {
                self.ignored.whole(path, "all of it: too many files of this kind, or too large together");
                None
            }
            Err(error) => {
                self.refused(path, &error);
                None
            }
        }
    }

    fn refused(&mut self, path: &Path, error: &Unread) {
        match error {
            Unread::Absent | Unread::Odd => {}
            Unread::System(source) => self.ignored.whole(path, &format!("all of it: {error}: {source}")),
            error => self.ignored.whole(path, &format!("all of it: {error}")),
        }
    }

    /// Writes into the CLI's folder, which nobody else can have touched yet.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some(config) = &self.config else { return Ok(()) };
        let file = config.join(path);
        fs::create_dir_all(file.parent().unwrap_or(config))?;
        fs::write(file, bytes)
    }
}

/// What an agent is called: by its settings, else by its file.
fn name_of(kept: &[(&str, Value)], path: &Path) -> String {
    let named = kept.iter().find(|(key, _)| *key == "name").and_then(|(_, name)| name.as_str());
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    named.map_or_else(stem, str::to_owned)
}

/// Whether a path leads out of the tree in which the agent works: by its letters, or by a link in it.
fn is_outside(tree: &Tree, path: &str) -> bool {
    imports::within(Path::new(""), path).is_none_or(|path| matches!(tree.read(&path), Err(Unread::Outside)))
}

/// The pattern of the files below a folder; what has a meaning in a pattern stands for any character.
fn pattern(folder: &Path) -> String {
    let plain = |c: char| if "*?[]{}()!+@\\,".contains(c) { '?' } else { c };
    let folder: String = folder.to_string_lossy().chars().map(plain).collect();
    format!("{folder}/**")
}
