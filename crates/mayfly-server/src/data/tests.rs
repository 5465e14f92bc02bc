//! A data folder as it is made, found and refused.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::secret::TOKEN_PREFIX;
use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn parent() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// S32
#[test]
fn all_of_it_is_the_owners_alone() {
    let parent = parent();
    let root = parent.path().join("a/b");
    let data = DataFolder::open(&root).expect("a data folder");
    data.key(0).expect("a key");
    for (name, expected) in
        [("", 0o700), ("lock", 0o600), ("key", 0o600), ("results", 0o700), ("way-out", 0o700)]
    {
        assert_eq!(mode(&root.join(name)), expected, "{name}");
    }
}

#[test]
fn a_folder_that_others_can_read_is_closed_to_them() {
    let parent = parent();
    set_mode(parent.path(), 0o755);
    DataFolder::open(parent.path()).expect("ours");
    assert_eq!(mode(parent.path()), 0o700);
}

/// S56: whoever can write to it could plant anything.
#[test]
fn a_folder_that_others_can_write_is_refused_and_named() {
    let parent = parent();
    for writable in [0o770, 0o702, 0o1777] {
        set_mode(parent.path(), writable);
        let error = DataFolder::open(parent.path()).expect_err("shared");
        assert!(matches!(error, DataError::Shared { mode, .. } if mode == writable), "{error}");
        assert!(error.to_string().contains(&parent.path().display().to_string()));
        assert_eq!(mode(parent.path()), writable, "what is not ours is not changed");
    }
    set_mode(parent.path(), 0o700);
}

#[test]
fn a_file_is_no_data_folder() {
    let parent = parent();
    let path = parent.path().join("file");
    File::create(&path).expect("a file");
    for wanted in [path.clone(), path.join("below"), path.join("far/below")] {
        let error = DataFolder::open(&wanted).expect_err("a file");
        assert!(matches!(&error, DataError::NoFolder { path: named } if *named == path), "{error}");
    }
}

/// R21: the second is told who the first is; once that one is gone, the folder is free.
#[test]
fn a_second_orchestrator_is_refused_with_the_firsts_process_id() {
    let parent = parent();
    let first = DataFolder::open(parent.path()).expect("free");
    let error = DataFolder::open(parent.path()).expect_err("taken");
    let pid = std::process::id().to_string();
    assert!(matches!(&error, DataError::Locked { pid: first, .. } if *first == pid), "{error}");
    drop(first);
    DataFolder::open(parent.path()).expect("free again");
}

#[test]
fn the_key_is_made_once() {
    let parent = parent();
    let first = DataFolder::open(parent.path()).expect("free").key(0).expect("a key");
    let second = DataFolder::open(parent.path()).expect("free").key(0).expect("a key");
    assert_eq!(first, second);
    let other = DataFolder::open(&parent.path().join("other")).expect("free").key(0).expect("a key");
    assert_ne!(first, other);
}

#[test]
fn a_key_that_is_short_or_open_to_others_is_not_used() {
    let parent = parent();
    let data = DataFolder::open(parent.path()).expect("free");
    let path = parent.path().join("key");
    for (bytes, bits) in [(31, 0o600), (33, 0o600), (0, 0o600), (32, 0o640)] {
        fs::write(&path, vec![7; bytes]).expect("written");
        set_mode(&path, bits);
        assert!(matches!(data.key(0), Err(DataError::Secret { .. })), "{bytes} bytes, mode {bits:o}");
    }
}

#[test]
fn the_token_is_made_once_and_is_not_used_when_others_can_read_it() {
    let parent = parent();
    let data = DataFolder::open(parent.path()).expect("free");
    let path = parent.path().join(TOKEN);
    let token = data.token().expect("made");
    assert_eq!((data.token().expect("read"), mode(&path)), (token.clone(), 0o600));
    assert_eq!(token.len(), TOKEN_PREFIX.len() + 64);
    renew_token(&path).expect("made anew");
    assert_ne!(token_at(&path).expect("made anew"), token);
    assert_eq!(mode(&path), 0o600);
    set_mode(&path, 0o644);
    let error = data.token().expect_err("open").to_string();
    assert!(check_data_folder(parent.path()).is_err());
    assert!(error.contains("read by others") && error.contains(&path.display().to_string()), "{error}");
    set_mode(&path, 0o600);
    for text in ["", "mayfly-owner-", "x", &format!("{token}0"), &token.to_uppercase()] {
        fs::write(&path, text).expect("written");
        assert!(matches!(data.token(), Err(DataError::Secret { .. })), "{text}");
    }
}

#[test]
fn what_was_still_arriving_at_the_last_end_is_gone() {
    let parent = parent();
    let data = DataFolder::open(parent.path()).expect("free");
    let left = data.incoming().join("left");
    fs::write(&left, "half").expect("written");
    drop(data);
    DataFolder::open(parent.path()).expect("free");
    assert!(!left.exists());
}

/// A link would have what it leads to changed, or believed.
#[test]
fn a_link_or_a_folder_in_the_place_of_a_file_is_refused_and_left_as_it_is() {
    for name in [LOCK, KEY, TOKEN, TLS, STORE] {
        let parent = parent();
        let (root, other) = (parent.path().join("data"), parent.path().join("other"));
        make_data_folder(&root).expect("made");
        fs::write(&other, "precious").expect("written");
        set_mode(&other, 0o600);
        symlink(&other, root.join(name)).expect("made");
        for refused in [DataFolder::open(&root).map(drop), check_data_folder(&root)] {
            let error = refused.expect_err(name);
            assert!(matches!(&error, DataError::NoFile { path } if path.ends_with(name)), "{error}");
        }
        assert_eq!(fs::read_to_string(&other).expect("there"), "precious");
        fs::remove_file(root.join(name)).expect("removed");
        fs::create_dir(root.join(name)).expect("made");
        assert!(matches!(check_data_folder(&root), Err(DataError::NoFile { .. })), "{name}");
    }
}

/// A check and an open are two moments: between them a link is refused too.
#[test]
fn neither_a_lock_nor_a_secret_is_opened_through_a_link() {
    let parent = parent();
    let other = parent.path().join("other");
    fs::write(&other, "precious").expect("written");
    set_mode(&other, 0o600);
    for name in [LOCK, KEY, "token.new"] {
        symlink(&other, parent.path().join(name)).expect("made");
    }
    lock(parent.path()).expect_err("a link");
    known_secret(&parent.path().join(KEY)).expect_err("a link");
    renew_token(&parent.path().join(TOKEN)).expect_err("a link");
    assert_eq!(fs::read_to_string(&other).expect("there"), "precious");
}

#[test]
fn a_key_is_not_made_anew_where_tasks_depend_on_the_last_one() {
    let parent = parent();
    let data = DataFolder::open(parent.path()).expect("free");
    let error = data.key(2).expect_err("lost").to_string();
    assert!(error.contains("2 task(s)") && error.contains("mv ") && error.contains(".lost"), "{error}");
    data.key(0).expect("nothing depends on it");
    data.key(2).expect("it is there");
    set_mode(&parent.path().join(KEY), 0o644);
    let open = data.key(2).expect_err("open").to_string();
    assert!(open.contains("chmod 600") && open.contains("those that are not over are lost"), "{open}");
}

#[test]
fn secrets_that_a_start_would_refuse_are_refused_by_a_look() {
    let parent = parent();
    let data = DataFolder::open(parent.path()).expect("free");
    data.key(0).expect("made");
    data.token().expect("made");
    for (name, text) in [(KEY, &[7; 31][..]), (TOKEN, b"")] {
        let good = fs::read(parent.path().join(name)).expect("there");
        fs::write(parent.path().join(name), text).expect("written");
        assert!(matches!(check_data_folder(parent.path()), Err(DataError::Secret { .. })), "{name}");
        fs::write(parent.path().join(name), good).expect("written");
        check_data_folder(parent.path()).expect("good again");
    }
}
