use std::io::{Seek as _, Write as _};

use tar::{Builder, Header};

use super::*;

/// What every tree has.
const STATUS_TEXT: &str = "\
Package: bash
Status: install ok installed
Version: 5.2-1

Package: git
Status: install ok installed
Architecture: amd64
Version: 1:2.39
";

/// An entry of an archive, its name and where it leads as they are written.
struct Written<'a> {
    path: &'a [u8],
    kind: EntryType,
    to: &'a [u8],
    text: &'a str,
    mode: u32,
}

fn file<'a>(path: &'a str, text: &'a str) -> Written<'a> {
    Written { path: path.as_bytes(), kind: EntryType::Regular, to: b"", text, mode: 0o644 }
}

fn of_kind<'a>(path: &'a str, kind: EntryType, to: &'a str) -> Written<'a> {
    Written { path: path.as_bytes(), kind, to: to.as_bytes(), text: "", mode: 0o755 }
}

/// An archive of these, and of what every tree has.
fn archive(written: &[Written<'_>]) -> File {
    let whole = [
        of_kind("./", EntryType::Directory, ""),
        file("./etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        file("./etc/group", "root:x:0:\n"),
        Written { mode: 0o640, ..file("./etc/shadow", "root:*:1::::::\n") },
        file("./etc/gshadow", "root:*::\n"),
        file("./var/lib/dpkg/status", STATUS_TEXT),
    ];
    let mut builder = Builder::new(tempfile::tempfile().expect("a file"));
    for Written { path, kind, to, text, mode } in whole.iter().chain(written) {
        let mut header = Header::new_gnu();
        // As they are: what a careful packer refuses too.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..to.len()].copy_from_slice(to);
        header.set_entry_type(*kind);
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(42);
        header.set_mtime(1_700_000_000);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).expect("written");
    }
    let mut file = builder.into_inner().expect("written");
    file.flush().expect("written");
    file.rewind().expect("a file");
    file
}

fn read_of(written: &[Written<'_>]) -> Tree {
    super::read(archive(written)).expect("a tree").0
}

fn refused(written: &[Written<'_>]) -> String {
    super::read(archive(written)).expect_err("it cannot be in an image").to_string()
}

fn text_of(tree: &Tree, path: &str) -> String {
    text(tree, path).expect("it is there")
}

#[test]
fn the_agent_is_added_and_nothing_is_this_machines_own() {
    let tree = read_of(&[
        file("./etc/hostname", "builder\n"),
        file("./etc/resolv.conf", "nameserver 10.0.0.1\n"),
        file("./etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        file("./etc/apt/sources.list", "deb http://user:canary@mirror.example/ bookworm main\n"),
        file("./etc/apt/apt.conf.d/99mmdebstrap", "Acquire::http::Proxy \"http://canary/\";\n"),
    ]);
    assert_eq!(text_of(&tree, "etc/machine-id"), "");
    for gone in ["etc/hostname", "etc/resolv.conf", "etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap"]
    {
        assert!(tree.get(gone).is_none(), "{gone}");
    }
    assert_eq!(
        text_of(&tree, "etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1000::/home/agent:/bin/bash\n"
    );
    assert_eq!(tree.get("etc/shadow").map(|entry| (entry.mode, entry.uid, entry.gid)), Some((0o640, 0, 42)));
    for path in ["home/agent", "workspace"] {
        assert_eq!(tree.get(path).map(|entry| (entry.uid, entry.gid)), Some((AGENT_ID, AGENT_ID)), "{path}");
    }
}

#[test]
fn what_no_machine_reads_is_left_out() {
    let tree = read_of(&[
        of_kind("./usr/share/doc/", EntryType::Directory, ""),
        of_kind("./usr/share/doc/git/", EntryType::Directory, ""),
        file("./usr/share/doc/git/README.gz", "x"),
        file("./usr/share/doc/git/copyright", "GPL"),
        file("./usr/share/doc/git/html/copyright", "GPL"),
        of_kind("./usr/share/man/", EntryType::Directory, ""),
        file("./usr/share/man/man1/git.1.gz", "x"),
        file("./usr/share/manpages", "x"),
        file("./var/cache/apt/archives/git.deb", "x"),
        file("./var/lib/apt/lists/x", "x"),
        file("./var/log/dpkg.log", "x"),
        file("./var/lib/dpkg/status-old", "x"),
        file("./etc/passwd-", "x"),
        file("./tmp/x", "x"),
        of_kind("./dev/null", EntryType::Char, ""),
        Written { mode: 0o1777, ..of_kind("./tmp/", EntryType::Directory, "") },
    ]);
    let paths: Vec<&str> = tree.entries().map(|(path, _)| path).collect();
    assert_paths(
        &paths,
        "etc/group etc/gshadow etc/hosts etc/machine-id etc/passwd etc/shadow home/agent tmp usr/share/doc usr/share/doc/git \
         usr/share/doc/git/copyright usr/share/doc/git/html/copyright usr/share/man usr/share/manpages var/lib/dpkg/status \
         workspace",
    );
    assert_eq!(tree.get("tmp").map(|entry| entry.mode), Some(0o1777));
}

fn assert_paths(paths: &[&str], are: &str) {
    assert_eq!(paths, are.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn a_program_has_no_right_to_be_another_user() {
    let tree = read_of(&[Written { mode: 0o6755, ..file("./usr/bin/su", "x") }]);
    assert_eq!(tree.get("usr/bin/su").map(|entry| entry.mode), Some(0o755));
}

#[test]
fn a_file_with_several_names_has_its_content_under_the_first_that_is_kept() {
    let tree = read_of(&[
        file("./var/cache/original", "content"),
        of_kind("./usr/bin/z", EntryType::Link, "./var/cache/original"),
        of_kind("./usr/bin/a", EntryType::Link, "./var/cache/original"),
        file("./usr/bin/perl5", "perl"),
        of_kind("./usr/bin/perl", EntryType::Link, "./usr/bin/perl5"),
    ]);
    assert_eq!(text_of(&tree, "usr/bin/a"), "content");
    assert_eq!(text_of(&tree, "usr/bin/perl"), "perl");
    let same = |path: &str| match &tree.get(path).expect("it is there").content {
        Content::Same(to) => to.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (same("usr/bin/z"), same("usr/bin/perl5")),
        ("usr/bin/a".to_owned(), "usr/bin/perl".to_owned())
    );
}

#[test]
fn which_packages_are_in_it_is_read_and_a_half_installed_one_is_refused() {
    let (_, packages) = super::read(archive(&[])).expect("a tree");
    let packages: Vec<String> = packages.iter().map(ToString::to_string).collect();
    assert_eq!(packages, ["bash=5.2-1", "git=1:2.39"]);
    let half = "\nPackage: vim\nStatus: install ok half-configured\nVersion: 9\n";
    let mut tree = read_of(&[]);
    let status = format!("{STATUS_TEXT}{half}");
    tree.set(STATUS, Entry::file(0o644, Data::Bytes(status.into_bytes()))).expect("set");
    let refused = super::packages(&tree).expect_err("half installed").to_string();
    assert!(refused.ends_with("it has a package that is not installed whole: Package: vim"), "{refused}");
}

#[test]
fn another_user_of_the_agents_name_or_number_is_refused() {
    for line in ["agent:x:998:998::/:/bin/sh\n", "other:x:1000:1000::/:/bin/sh\n"] {
        let mut tree = read_of(&[]);
        tree.set("etc/passwd", Entry::file(0o644, Data::Bytes(line.into()))).expect("set");
        finish(&mut tree).expect_err(line);
    }
}

/// Covers hostile names: a tree is taken from an archive by others.
#[test]
fn what_could_be_elsewhere_or_is_no_file_is_refused() {
    for path in ["/etc/evil", "../evil", "./a/../../evil", "./a//b", "./etc/.wh.passwd"] {
        refused(&[file(path, "x")]);
    }
    refused(&[Written { path: b"./\xff\xfe", ..file("", "x") }]);
    refused(&[file("./usr/x", "1"), file("./usr/x", "2")]);
    refused(&[of_kind("./usr/x", EntryType::Link, "../../etc/passwd")]);
    refused(&[of_kind("./usr/x", EntryType::Link, "./not/there")]);
    refused(&[of_kind("./usr/x", EntryType::Link, "./")]);
    refused(&[of_kind("./usr/x", EntryType::Symlink, "/etc"), file("./usr/x/passwd", "x")]);
    refused(&[of_kind("./usr/pipe", EntryType::Fifo, "")]);
    refused(&[of_kind("./usr/null", EntryType::Char, "")]);
    let odd = refused(&[of_kind("./usr/\u{1b}[2J", EntryType::Fifo, "")]);
    assert_eq!(odd, r"`usr/\u{1b}[2J` cannot be in an image: it is neither a file nor a folder nor a link");
}

#[test]
fn an_archive_that_is_cut_off_or_none_is_refused() {
    let whole = archive(&[file("./usr/x", &"x".repeat(2000))]);
    let length = whole.metadata().expect("a file").len();
    whole.set_len(length - 2048).expect("cut");
    // The part that is missing is missed when it is read, at the latest.
    if let Ok((tree, _)) = super::read(whole) {
        text(&tree, "usr/x").expect_err("cut off");
    }
    let mut none = tempfile::tempfile().expect("a file");
    none.write_all(&[b'x'; 2048]).expect("written");
    super::read(none).expect_err("no tar");
}
