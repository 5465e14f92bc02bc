//! Files that cannot come out cost nothing but themselves, and are named.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use mayfly_wire::api::Collected;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::host::Host;
use super::the_work::{Place, git, read, told};

/// Makes a file of this length that takes no room.
fn sparse(place: &Place, name: &str, length: u64) {
    place.write(name, "");
    File::options().write(true).open(place.work().join(name)).unwrap().set_len(length).unwrap();
}

/// Covers S11.
#[tokio::test]
async fn a_file_that_is_too_large_is_named_and_the_rest_comes_out() {
    let place = Place::new();
    sparse(&place, "huge.bin", 300 << 30);
    sparse(&place, "build/out/a", 300 << 30);
    sparse(&place, "build/b", 300 << 30);
    sparse(&place, "gone", 300 << 30);
    place.write("kept", "two\n");
    place.write("new/file", "new\n");
    let (made, unsaved) = place.bundle().await;
    let expected = [
        "gone: its changes: it has 300 GiB now",
        "build: 2 files with 600 GiB in all, left out",
        "huge.bin: 300 GiB, left out",
    ];
    assert_eq!(unsaved, expected);
    let taken = place.taken(&made.unwrap());
    assert_eq!((read(&taken, "kept"), read(&taken, "new/file")), ("two\n".to_owned(), "new\n".to_owned()));
    assert_eq!(read(&taken, "gone"), "x\n");
}

#[tokio::test]
async fn of_many_large_files_the_smallest_come_out_up_to_the_bound() {
    let place = Place::new();
    for (name, mib) in [("a/1", 1), ("a/1535", 1535), ("b/2", 2), ("b/1534", 1534)] {
        sparse(&place, name, mib << 20);
    }
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, ["a/1535: 1.5 GiB, left out", "b/1534: 1.5 GiB, left out"]);
    let taken = place.taken(&made.unwrap());
    assert_eq!(git(&taken, &["ls-files", "a", "b"]), "a/1\nb/2");
}

#[tokio::test]
async fn what_is_no_file_costs_nothing_else() {
    let place = Place::new();
    mkfifoat(CWD, place.work().join("pipe"), Mode::RWXU).unwrap();
    fs::remove_file(place.work().join("gone")).unwrap();
    mkfifoat(CWD, place.work().join("gone"), Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(place.work().join("socket")).unwrap();
    place.write("shut", "s\n");
    fs::set_permissions(place.work().join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    place.write("kept", "two\n");
    let (made, unsaved) = place.bundle().await;
    assert!(unsaved.iter().all(|line| line.contains("gone")), "{unsaved:?}");
    let taken = place.taken(&made.unwrap());
    assert_eq!((read(&taken, "kept"), read(&taken, "shut")), ("two\n".to_owned(), "s\n".to_owned()));
}

/// A name that git takes for its own, as another file system would have it.
#[tokio::test]
async fn a_file_that_git_refuses_is_named_and_the_rest_comes_out() {
    let place = Place::new();
    place.write("sub/git~1", "x\n");
    place.write("sub/new", "new\n");
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, ["sub/git~1: 2 bytes, left out"]);
    assert_eq!(read(&place.taken(&made.unwrap()), "sub/new"), "new\n");
}

/// Covers S08 for the way out.
#[tokio::test]
async fn files_in_the_place_of_a_submodule_are_told() {
    let mut place = Place::new();
    let link = format!("160000,{},sub", place.base);
    place.git(&["update-index", "--add", "--cacheinfo", &link]);
    place.git(&["commit", "--quiet", "--message", "with a submodule"]);
    place.base = place.git(&["rev-parse", "HEAD"]);
    git(&place.dir.path().join("base"), &["pull", "--quiet", "../work", "HEAD"]);
    place.write("sub/file", "x\n");
    let (made, unsaved) = place.bundle().await;
    assert!(made.is_none(), "{made:?}");
    assert_eq!(unsaved, ["sub: 1 files or folders that were made in the place of this submodule"]);
}

#[tokio::test]
async fn ignored_files_are_noted_and_no_loss() {
    let place = Place::new();
    for name in ["a.log", "b.log", "c/d.log", "e.log", "f.log"] {
        place.write(name, "x\n");
    }
    let (made, Collected { unsaved, notes, .. }) = told(place.dir.path(), Some(&place.base)).await;
    assert!(made.is_none() && unsaved.is_empty(), "{unsaved:?}");
    assert_eq!(notes, ["ignored by the code's own rules, and left behind: a.log, b.log, c/ and 2 more"]);
}

/// The folder with the session file is something else: there was one, and it is lost.
#[tokio::test]
async fn a_session_file_that_cannot_be_read_is_lost_and_said_to_be() {
    let host =
        Host::with("mkdir -p $CLAUDE_CONFIG_DIR; echo x > $CLAUDE_CONFIG_DIR/projects; exit 3", |_| {});
    host.live().await.unwrap();
    let collected = host.collected();
    let told = |line: &String| line.starts_with("the session file: ") && line.contains("cannot be read");
    assert!(!collected.transcript && collected.unsaved.iter().any(told), "{collected:?}");
}

#[tokio::test]
async fn a_session_file_that_is_refused_is_lost_and_said_to_be() {
    let host = Host::with("", |desk| desk.takes_results = false);
    let session = host.desk.order.session_id.clone();
    let folder = "$CLAUDE_CONFIG_DIR/projects/x";
    let script = format!("#!/bin/sh\nmkdir -p {folder}; echo > {folder}/{session}.jsonl; exit 3\n");
    fs::write(host.boot().claude, script).unwrap();
    host.live().await.unwrap();
    let collected = host.collected();
    let told = |line: &String| line.starts_with("the session file: ") && line.contains("401");
    assert!(!collected.transcript && collected.unsaved.iter().any(told), "{collected:?}");
}
