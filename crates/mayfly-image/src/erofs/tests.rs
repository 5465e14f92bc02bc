use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use super::*;

fn bytes_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(tree, &mut bytes, &mut |_| true).expect("written");
    bytes
}

fn text(text: &str) -> Entry {
    Entry::file(0o640, Data::Bytes(text.into()))
}

/// With all that a root has, and a folder that takes several blocks.
fn tree() -> Tree {
    let mut tree = Tree::default();
    let mut add = |path: &str, entry: Entry| tree.add(path, entry).expect("plain");
    add("etc", Entry::folder());
    add("etc/passwd", text("root:x:0:0:root:/root:/bin/bash\n"));
    add("etc/same", Entry { content: Content::Same("etc/passwd".to_owned()), ..text("") });
    add("etc-", Entry { content: Content::Link("etc/passwd".to_owned()), mode: 0o777, ..Entry::folder() });
    add("home", Entry::folder());
    add("home/agent", Entry { mode: 0o700, ..Entry::folder() }.of(1000, 1000));
    add("usr/share/doc/copyright", text("unnamed folders"));
    add("home/agent/none", text("").of(1000, 1000));
    add("large", text(&"0123456789abcdef".repeat(1000)));
    add("many", Entry { mode: 0o1777, ..Entry::folder() });
    for number in 0..300 {
        add(&format!("many/{number}-{}", "n".repeat(number % 40)), text(&number.to_string()));
    }
    add(&format!("many/{}", "l".repeat(NAME_BYTES_MAX)), text("long"));
    tree
}

/// What is at each path: kind and mode, owner, and content.
fn seen(root: &Path) -> BTreeMap<String, (u32, u32, String)> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is = path.symlink_metadata().expect("there");
            let content = match () {
                () if is.is_dir() => String::new(),
                () if is.is_symlink() => fs::read_link(&path).expect("a link").display().to_string(),
                () => fs::read_to_string(&path).expect("text"),
            };
            if is.is_dir() {
                folders.push(path.clone());
            }
            let name = path.strip_prefix(root).expect("below").to_str().expect("text").to_owned();
            seen.insert(name, (is.permissions().mode(), is.uid(), content));
        }
    }
    seen
}

fn expected(tree: &Tree) -> BTreeMap<String, (u32, u32, String)> {
    let content = |entry: &Entry| match &entry.content {
        Content::File(data) => String::from_utf8(data.bytes().expect("bytes")).expect("text"),
        Content::Link(to) => to.clone(),
        Content::Folder | Content::Same(_) => String::new(),
    };
    let of = |(path, entry): (&str, &Entry)| {
        let (kind, entry) = match &entry.content {
            Content::Folder => (0o040_000, entry),
            Content::Link(_) => (0o120_000, entry),
            Content::File(_) => (0o100_000, entry),
            Content::Same(of) => (0o100_000, tree.get(of).expect("there")),
        };
        (path.to_owned(), (kind | entry.mode, entry.uid, content(entry)))
    };
    let unnamed = ["usr", "usr/share", "usr/share/doc"];
    let unnamed = unnamed.map(|path| (path.to_owned(), (0o040_755, 0, String::new())));
    tree.entries().map(of).chain(unnamed).collect()
}

#[test]
fn the_tools_of_the_file_system_find_it_whole_and_all_that_is_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (image, root) = (dir.path().join("image"), dir.path().join("root"));
    fs::write(&image, bytes_of(&tree())).expect("written");
    let mut fsck = Command::new("fsck.erofs");
    let Ok(said) = fsck.arg(format!("--extract={}", root.display())).arg(&image).output() else {
        mayfly_test_needs::skip("fsck.erofs is not installed (erofs-utils)");
        return;
    };
    assert!(said.status.success(), "{said:?}");
    let (found, mut expected) = (seen(&root), expected(&tree()));
    if !rustix::process::geteuid().is_root() {
        // Only root can give files away.
        for (_, uid, _) in expected.values_mut() {
            *uid = rustix::process::geteuid().as_raw();
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn the_same_tree_is_the_same_whole_blocks() {
    let (one, other) = (bytes_of(&tree()), bytes_of(&tree()));
    assert!(one == other && one.len().is_multiple_of(BLOCK_BYTES));
}

#[test]
fn what_has_no_place_in_it_is_refused_by_its_name() {
    let refused = |path: &str, entry: Entry| {
        let mut tree = Tree::default();
        tree.add(path, entry).expect("plain");
        write(&tree, io::sink(), &mut |_| true).expect_err("refused").to_string()
    };
    let same = Entry { content: Content::Same("b".to_owned()), ..text("") };
    assert_eq!(refused("a", same), "`a` cannot be in an image: it is the same as a file that is not there");
    assert!(refused(&"n".repeat(256), text("")).ends_with("it has too long a name in it"));
}

#[test]
fn who_gives_up_gets_no_more() {
    let mut tree = Tree::default();
    tree.add("large", text(&"x".repeat(32 << 20))).expect("plain");
    let mut asked = 0;
    let given_up = write(&tree, io::sink(), &mut |_| {
        asked += 1;
        asked < 2
    });
    assert!(matches!(given_up, Err(BadTree::Unwritable(_))), "{given_up:?}");
}
