//! The root tree of a machine, from what mmdebstrap made.
//!
//! mmdebstrap's tar is read as it stands on the disk, and nothing of it is unpacked. What Debian's packages put there is kept, but
//! for what no program of a machine reads: manuals, translations, the packages' archives and lists, logs. Gone are also
//! what is this machine's own (its name, its resolver, its mirror), device nodes, and every right to be another user.
//! Added is the agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use mayfly_wire::boot::{AGENT_ID, HOME, WORKSPACE};
use tar::{Archive, EntryType};

use crate::debian::Package;
use crate::tree::{BadTree, Content, Data, Entry, Tree};

/// Where dpkg keeps what is installed.
const STATUS: &str = "var/lib/dpkg/status";
/// The longest of the files that are read whole.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Folders of which nothing is kept but they themselves.
const EMPTY: [&str; 11] = [
    "boot",
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/log",
];
/// What is not there at all.
const GONE: [&str; 14] = [
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/hostname",
    "etc/resolv.conf",
    "usr/share/doc-base",
    "usr/share/lintian",
    "var/lib/apt",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd",
];
/// Where packages keep what is to be read, and what of it goes along with every copy.
const DOCS: &str = "usr/share/doc";
const COPYRIGHT: &str = "/copyright";
/// What files end in that are older ones of the same name.
const OLDER: [&str; 2] = ["-", "-old"];
/// The folders in which they are.
const WITH_OLDER: [&str; 2] = ["etc/", "var/lib/dpkg/"];

/// The files of users, and what each has about the agent.
const USERS: [(&str, &str); 4] = [
    ("etc/passwd", "agent:x:1000:1000::/home/agent:/bin/bash\n"),
    ("etc/group", "agent:x:1000:\n"),
    ("etc/shadow", "agent:!:10957::::::\n"),
    ("etc/gshadow", "agent:!::\n"),
];
/// What is the agent's.
const OF_AGENT: [&str; 2] = [HOME, WORKSPACE];
/// Files that are what they are in every machine; each gets an id of its own where it boots.
const FILES: [(&str, &str); 2] =
    [("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"), ("etc/machine-id", "")];

/// Reads the tree, and which packages are in it.
pub fn read(archive: File) -> Result<(Tree, Vec<Package>), BadTree> {
    let archive = Arc::new(archive);
    let mut tree = Tree::default();
    let mut same = Same::default();
    // Its position is this reader's own.
    let mut read = Archive::new(At::begin(&archive));
    for entry in read.entries().map_err(BadTree::Unreadable)? {
        let entry = entry.map_err(BadTree::Unreadable)?;
        let Some(path) = path(&entry.path_bytes())? else { continue };
        match found(&path, &entry, &archive)? {
            Some(Entry { content: Content::Same(of), .. }) => same.add(path, of),
            Some(found) => {
                same.files.insert(path.clone(), found.clone());
                if is_kept(&path) {
                    tree.add(&path, found)?;
                }
            }
            None => {}
        }
    }
    same.put_into(&mut tree)?;
    let packages = packages(&tree)?;
    finish(&mut tree)?;
    tree.check_folders()?;
    Ok((tree, packages))
}

/// A file that is read from one place on, without a position that others see.
pub(crate) struct At<'a> {
    file: &'a Arc<File>,
    at: u64,
}

impl<'a> At<'a> {
    pub(crate) fn begin(file: &'a Arc<File>) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&**self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The path of an entry; none for the root itself.
pub(crate) fn path(bytes: &[u8]) -> Result<Option<String>, BadTree> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| BadTree::name(&String::from_utf8_lossy(bytes), "has a name that is not UTF-8"))?;
    let path = text.strip_prefix("./").unwrap_or(text);
    let path = path.strip_suffix('/').unwrap_or(path);
    Ok((!path.is_empty() && path != ".").then(|| path.to_owned()))
}

/// What an entry of an archive is; none for what no tree has. Of the same file as another the content is not here.
pub(crate) fn found<R: Read>(
    path: &str,
    entry: &tar::Entry<'_, R>,
    archive: &Arc<File>,
) -> Result<Option<Entry>, BadTree> {
    let header = entry.header();
    let number = |number: io::Result<u64>| {
        let number = number.map_err(BadTree::Unreadable)?;
        u32::try_from(number).map_err(|_| BadTree::name(path, "has an owner beyond all users"))
    };
    let to = || {
        let to = entry.link_name_bytes().unwrap_or_default();
        String::from_utf8(to.into_owned())
            .map_err(|_| BadTree::name(path, "leads to a name that is not UTF-8"))
    };
    let content = match header.entry_type() {
        EntryType::Directory => Content::Folder,
        EntryType::Regular | EntryType::Continuous => {
            Content::File(Data::Part(Arc::clone(archive), entry.raw_file_position(), entry.size()))
        }
        EntryType::Symlink => Content::Link(to()?),
        EntryType::Link => {
            let to = to()?;
            let of = self::path(to.as_bytes())?;
            Content::Same(of.ok_or_else(|| BadTree::name(path, "is the same as the root"))?)
        }
        // mmdebstrap puts the usual ones into /dev; a machine has its own.
        EntryType::Char | EntryType::Block if path.starts_with("dev/") => return Ok(None),
        _ => return Err(BadTree::name(path, "is neither a file nor a folder nor a link")),
    };
    let (uid, gid) = (number(header.uid())?, number(header.gid())?);
    let mode = header.mode().map_err(BadTree::Unreadable)?;
    Ok(Some(Entry { mode, uid, gid, content }))
}

/// Files with several names, of which the first that is kept has the content.
#[derive(Default)]
struct Same {
    files: BTreeMap<String, Entry>,
    /// The other names of each.
    names: BTreeMap<String, Vec<String>>,
}

impl Same {
    fn add(&mut self, path: String, of: String) {
        self.names.entry(of).or_default().push(path);
    }

    fn put_into(mut self, tree: &mut Tree) -> Result<(), BadTree> {
        for (of, mut names) in self.names {
            let file = self.files.remove(&of).filter(|entry| matches!(entry.content, Content::File(_)));
            let file =
                file.ok_or_else(|| BadTree::name(&names[0], "is the same as a file that is not there"))?;
            names.push(of);
            names.sort();
            names.retain(|name| is_kept(name));
            let mut names = names.into_iter();
            let Some(first) = names.next() else { continue };
            let content = Content::Same(first.clone());
            tree.set(&first, file.clone())?;
            for name in names {
                tree.set(&name, Entry { content: content.clone(), ..file.clone() })?;
            }
        }
        Ok(())
    }
}

/// Whether a machine has use for what is at this path.
fn is_kept(path: &str) -> bool {
    let is_older = WITH_OLDER.iter().any(|folder| path.starts_with(folder))
        && OLDER.iter().any(|end| path.ends_with(end));
    !(EMPTY.iter().any(|folder| is_below(path, folder))
        || GONE.iter().any(|gone| path == *gone || is_below(path, gone))
        || is_below(path, DOCS) && !is_copyright(path)
        || is_older)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether it is a package's copyright, or the folder of one.
fn is_copyright(path: &str) -> bool {
    let below = path.strip_prefix(DOCS).unwrap_or_default();
    below.ends_with(COPYRIGHT) || below.matches('/').count() == 1
}

/// What is installed, as dpkg has it, by name.
fn packages(tree: &Tree) -> Result<Vec<Package>, BadTree> {
    let text = text(tree, STATUS)?;
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let mut packages = Vec::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let package = (|| {
            let is_whole = field(paragraph, "Status:")? == "install ok installed";
            let (name, version) = (field(paragraph, "Package:")?, field(paragraph, "Version:")?);
            is_whole.then_some(Package { name, version })
        })();
        packages.push(package.ok_or_else(|| {
            let name = paragraph.lines().next().unwrap_or_default();
            BadTree::name(
                STATUS,
                format!("has a package that is not installed whole: {}", name.escape_debug()),
            )
        })?);
    }
    packages.sort();
    Ok(packages)
}

/// A file's content, which is text.
fn text(tree: &Tree, path: &str) -> Result<String, BadTree> {
    let Some(Entry { content: Content::File(data), .. }) = tree.get(path) else {
        return Err(BadTree::name(path, "is not there as a file"));
    };
    if data.len() > FILE_BYTES_MAX {
        return Err(BadTree::name(path, "is longer than such a file can be"));
    }
    let bytes = data.bytes().map_err(BadTree::Unreadable)?;
    String::from_utf8(bytes).map_err(|_| BadTree::name(path, "is not UTF-8"))
}

/// Adds the agent, and what is the same in all images.
fn finish(tree: &mut Tree) -> Result<(), BadTree> {
    for (path, line) in USERS {
        let mut users = text(tree, path)?;
        if users.lines().any(|line| line.starts_with("agent:") || line.contains(":x:1000:")) {
            return Err(BadTree::name(path, "has a user 1000 or `agent` already, which is the agent's"));
        }
        users.push_str(line);
        let entry = tree.get(path).expect("it was read").clone();
        tree.set(path, Entry { content: Content::File(Data::Bytes(users.into_bytes())), ..entry })?;
    }
    for (path, text) in FILES {
        tree.set(path, Entry::file(0o644, Data::Bytes(text.into())))?;
    }
    for path in OF_AGENT {
        tree.set(path.trim_start_matches('/'), Entry::folder().of(AGENT_ID, AGENT_ID))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
