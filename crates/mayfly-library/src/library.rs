//! A library on the disk: what is in it, and what a task gets of it.
//!
//! It is a plain folder, which may be a checkout, and which people edit while tasks are accepted: each reading takes
//! it as it stands. One that is not there is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::id::{GLOBAL, Kind, Name, ResourceId};
use crate::known;
use crate::pack;
use crate::problem::{Problem, Problems};
use crate::resolve::{Resolution, Wishes, resolve, servers_twice, too_large};
use crate::resource::Resource;
use crate::shelf::Shelf;
use crate::tree::{self, File};

/// The most folders and files of one kind and namespace that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// What was kept of contents that are not in the library any more: the archive whose name begins so.
pub type Kept<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// A library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    folder: PathBuf,
}

impl Library {
    /// The one in `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The resources that it has, by name, without reading them.
    pub fn ids(&self) -> Result<BTreeSet<ResourceId>, Problems> {
        Ok(self.walk()?.0)
    }

    /// The namespaces that it has, without `_global`.
    pub fn projects(&self) -> Result<BTreeSet<Name>, Problems> {
        let namespaces = self.ids()?.into_iter().map(|id| id.namespace);
        Ok(namespaces.filter(|namespace| namespace.as_str() != GLOBAL).collect())
    }

    /// Whether it has a resource of this name, good or not.
    pub fn has(&self, id: &ResourceId) -> bool {
        self.place(id).is_ok_and(|place| place.symlink_metadata().is_ok())
    }

    /// Reads one resource.
    pub fn read(&self, id: &ResourceId) -> Result<Resource, Problems> {
        let folder = self.place(id).map_err(|error| Problem::new(id.to_string(), error.to_string()))?;
        if !folder.is_dir() {
            return Err(Problem::new(
                id.to_string(),
                "is not in the library: `mayfly library ls` lists what is",
            )
            .into());
        }
        let files = tree::read(&folder, &id.to_string())?;
        Resource::read(id.clone(), files)
    }

    /// What a task gets. Contents that it names may be `kept` where they are not here any more.
    pub fn resolve(&self, wishes: &Wishes, kept: Kept<'_>) -> Result<Resolution, Problems> {
        let (ids, mut strays) = self.walk()?;
        strays.retain(|stray| concerns(stray, wishes.project.as_ref()));
        let choice = resolve(&ids, wishes)?;
        let (mut resources, mut problems, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (id, from, content) in choice.chosen {
            match self.read_pinned(id, content.as_deref(), kept) {
                Ok(resource) => {
                    bytes += resource.bytes();
                    if let Some(problem) = too_large(bytes) {
                        problems.push(problem);
                        return Err(Problems(problems));
                    }
                    resources.push((resource, from));
                }
                Err(Problems(wrong)) => problems.extend(wrong),
            }
        }
        let agent = wishes.agent.as_ref().map(|agent| agent.name.clone());
        let (project, shadowed) = (wishes.project.clone(), choice.shadowed);
        let resolution = Resolution { project, agent, resources, shadowed, strays };
        problems.extend(resolution.servers_twice());
        if problems.is_empty() { Ok(resolution) } else { Err(Problems(problems)) }
    }

    fn read_pinned(
        &self,
        id: ResourceId,
        content: Option<&str>,
        kept: Kept<'_>,
    ) -> Result<Resource, Problems> {
        let Some(content) = content else { return self.read(&id) };
        match self.read(&id) {
            Ok(resource) if resource.sha256.starts_with(content) => return Ok(resource),
            _ => {}
        }
        let archive = kept(content).ok_or_else(|| {
            Problem::new(
                id.to_string(),
                format!(
                    "is not {content} any more, and nothing of that content is kept beside the library: `mayfly library \
                     ls` shows what it is now"
                ),
            )
        })?;
        let files = pack::files(&archive).map_err(|error| Problem::new(id.to_string(), error.to_string()))?;
        let shown = id.to_string();
        let resource = Resource::read(id, files)?;
        match resource.sha256.starts_with(content) {
            true => Ok(resource),
            false => Err(Problem::new(shown, format!("what is kept as {content} is something else")).into()),
        }
    }

    /// All that is wrong with it: in one of its resources, of which `more` tells what it knows, or for the tasks of one of
    /// its projects.
    pub fn check(&self, more: &dyn Fn(&Resource) -> Vec<Problem>) -> Vec<Problem> {
        let (ids, mut problems) = match self.walk() {
            Ok(found) => found,
            Err(Problems(problems)) => return problems,
        };
        let (mut names, mut good) = (known::Names::default(), BTreeMap::new());
        // One after the other: all of them may be more than there is memory for.
        for id in &ids {
            match self.read(id) {
                Ok(resource) => {
                    names.add(&resource);
                    problems.extend(more(&resource));
                    good.insert(id, Weight::of(&resource));
                }
                Err(Problems(wrong)) => problems.extend(wrong),
            }
        }
        problems.extend(names.problems());
        let projects: BTreeSet<_> = ids.iter().map(|id| Some(id.namespace.clone())).chain([None]).collect();
        for project in projects {
            match resolve(&ids, &Wishes { project, ..Wishes::default() }) {
                Ok(choice) => {
                    let chosen = choice.chosen.iter().filter_map(|(id, ..)| good.get_key_value(id));
                    problems.extend(together(chosen.map(|(id, weight)| (*id, weight))));
                }
                Err(Problems(wrong)) => problems.extend(wrong),
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Puts a resource there; another of its name is replaced, unless it has what a resource leaves out, such as a
    /// checkout's `.git`, which would be lost. What is wrong with it leaves the library as it is.
    pub fn put(&self, resource: &Resource) -> io::Result<()> {
        let (locked, place) = self.shelf(&resource.id)?;
        if let Some(path) = tree::left_out(&place)? {
            let words = format!(
                "{}/{} would be lost, since it is no part of the resource: change its files where they are, or remove it \
                 first",
                resource.id,
                path.escape_debug()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        locked.replace(resource.id.name.as_str(), &resource.files)
    }

    /// Puts a resource there where none of its name is; else the error is [`io::ErrorKind::AlreadyExists`].
    pub fn add(&self, resource: &Resource) -> io::Result<()> {
        let (locked, _) = self.shelf(&resource.id)?;
        locked.add(resource.id.name.as_str(), &resource.files)
    }

    /// Writes one file of a resource that is there, at its top, and touches nothing else of it.
    pub fn write_file(&self, id: &ResourceId, file: &File) -> io::Result<()> {
        let (locked, _) = self.shelf(id)?;
        locked.write(id.name.as_str(), file)
    }

    /// Takes a resource away. False: it was not there.
    pub fn remove(&self, id: &ResourceId) -> io::Result<bool> {
        let place = self.place(id)?;
        if place.symlink_metadata().is_err() {
            return Ok(false);
        }
        Shelf::lock(place.parent().unwrap_or(&self.folder))?.remove(id.name.as_str())
    }

    /// The folder that a resource stands in, locked, and its place there.
    fn shelf(&self, id: &ResourceId) -> io::Result<(Shelf, PathBuf)> {
        let place = self.place(id)?;
        let folder = place.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        Ok((Shelf::lock(folder)?, place))
    }

    /// Where a resource is, or would be. A link on the way could lead out of the library, and is refused.
    fn place(&self, id: &ResourceId) -> io::Result<PathBuf> {
        let mut place = self.folder.clone();
        for part in [id.kind.name(), id.namespace.as_str(), id.name.as_str()] {
            place.push(part);
            if place.is_symlink() {
                let below = place.strip_prefix(&self.folder).unwrap_or(&place).display();
                let words = format!("{below} is a link, and does not count: put the folder itself there");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
            }
        }
        Ok(place)
    }

    /// What is there, and what looks as if it were to be, by name.
    fn walk(&self) -> Result<(BTreeSet<ResourceId>, Vec<Problem>), Problems> {
        let (mut ids, mut strays) = (BTreeSet::new(), Vec::new());
        for name in folders(&self.folder, "", &mut strays)? {
            let Ok(kind) = name.parse::<Kind>() else {
                strays.push(Problem::new(
                    name,
                    "is no kind of resource: these are skill, agent, mcp, hooks, rules, settings",
                ));
                continue;
            };
            for namespace in names(&self.folder.join(kind.name()), kind.name(), &mut strays)? {
                let below = format!("{kind}/{namespace}");
                for name in names(&self.folder.join(&below), &below, &mut strays)? {
                    ids.insert(ResourceId { kind, namespace: namespace.clone(), name });
                }
            }
        }
        strays.sort();
        Ok((ids, strays))
    }
}

/// Whether what does not count looks as if it were for tasks of this project: it is not in the namespace of another.
fn concerns(stray: &Problem, project: Option<&Name>) -> bool {
    let namespace = stray.file.split('/').nth(1).and_then(|name| name.parse::<Name>().ok());
    namespace.is_none_or(|namespace| namespace.as_str() == GLOBAL || Some(&namespace) == project)
}

/// What counts of a resource where it stands together with others.
struct Weight {
    bytes: usize,
    servers: Vec<String>,
}

impl Weight {
    fn of(resource: &Resource) -> Self {
        let servers = resource.servers().iter().map(|server| server.name.clone());
        Self { bytes: resource.bytes(), servers: servers.collect() }
    }
}

/// What is wrong with resources together, as [`Library::resolve`] would find it.
fn together<'a>(chosen: impl Iterator<Item = (&'a ResourceId, &'a Weight)> + Clone) -> Vec<Problem> {
    let bytes = chosen.clone().map(|(_, weight)| weight.bytes).sum();
    let servers = chosen.flat_map(|(id, weight)| weight.servers.iter().map(move |name| (id, name.as_str())));
    too_large(bytes).into_iter().chain(servers_twice(servers)).collect()
}

/// The names of the folders in a folder; what is hidden, and plain files, are nothing of a library's.
fn folders(folder: &Path, below: &str, strays: &mut Vec<Problem>) -> Result<Vec<String>, Problems> {
    let wrong =
        |error: io::Error| Problems::from(Problem::new(shown(below), format!("cannot be read: {error}")));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut names = Vec::new();
    for (count, entry) in entries.enumerate() {
        if count == ENTRIES_MAX {
            return Err(
                Problem::new(shown(below), format!("has more than {ENTRIES_MAX} folders and files")).into()
            );
        }
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(wrong)?;
        if kind.is_dir() {
            names.push(name);
        } else if kind.is_symlink() {
            strays.push(Problem::new(
                join(below, &name),
                "is a link, and does not count: put the folder itself there",
            ));
        } else if !below.is_empty() {
            strays.push(Problem::new(
                join(below, &name),
                "does not count: a resource is a folder KIND/NAMESPACE/NAME",
            ));
        }
    }
    Ok(names)
}

/// Those of them that can be names of ours.
fn names(folder: &Path, below: &str, strays: &mut Vec<Problem>) -> Result<Vec<Name>, Problems> {
    let mut names = Vec::new();
    for name in folders(folder, below, strays)? {
        match name.parse::<Name>() {
            Ok(good) => names.push(good),
            Err(error) => strays.push(Problem::new(join(below, &name), format!("does not count: {error}"))),
        }
    }
    Ok(names)
}

fn join(below: &str, name: &str) -> String {
    if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") }
}

fn shown(below: &str) -> &str {
    if below.is_empty() { "the library" } else { below }
}
