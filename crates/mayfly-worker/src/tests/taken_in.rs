//! What is taken in without git is what git would have made of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use mayfly_wire::api::Collected;

use super::the_work::{Place, git, read, told, written};

/// Bytes that nothing makes shorter.
fn dense(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

/// The tree that the agent's own git makes of all files, before anything is brought out.
fn tree(place: &Place) -> String {
    let (objects, index) = (place.dir.path().join("its-objects"), place.dir.path().join("its-index"));
    fs::create_dir(&objects).unwrap();
    let script = format!(
        "cp .git/index {index} && export GIT_INDEX_FILE={index} GIT_OBJECT_DIRECTORY={objects} \
         GIT_ALTERNATE_OBJECT_DIRECTORIES=$PWD/.git/objects && git add --all && git write-tree",
        index = index.display(),
        objects = objects.display(),
    );
    let mut command = std::process::Command::new("sh");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(place.work());
    let output = command.args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn comes_out_as_git_has_it(place: &Place) {
    let tree = tree(place);
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, [""; 0]);
    let taken = place.taken(&made.unwrap());
    assert_eq!(git(&taken, &["rev-parse", "HEAD^{tree}"]), tree);
}

#[tokio::test]
async fn what_attributes_change_is_changed_and_nothing_else() {
    let place = Place::new();
    let attributes = "* text=auto\n*.bin -text\n*.dos eol=crlf\n*.id ident\n*.wide working-tree-encoding=UTF-16LE\n*.lfs filter=lfs -text\n";
    place.write(".gitattributes", attributes);
    place.write("deep/.gitattributes", "*.old crlf\n*.off !text\n");
    for name in ["a", "a.bin", "a.dos", "a.id", "a.lfs", "deep/a.old", "deep/a.off", "deep/a.bin"] {
        place.write(&format!("{name}-lf"), "one\ntwo\n");
        place.write(name, "one\r\ntwo $Id: abc $\r\n");
    }
    fs::write(place.work().join("a.wide"), b"o\0n\0e\0\n\0").unwrap();
    comes_out_as_git_has_it(&place).await;
}

#[tokio::test]
async fn files_of_any_length_and_mode_come_out_once() {
    let place = Place::new();
    for (name, bytes) in
        [("empty", 0), ("block", 65_535), ("blocks", 65_536), ("spooled", 1 << 20), ("long", (3 << 20) + 1)]
    {
        let bytes = dense(bytes);
        fs::write(place.work().join(name), &bytes).unwrap();
        fs::write(place.work().join(format!("{name} again")), &bytes).unwrap();
        fs::write(place.work().join(format!("{name} as text")), hex::encode(&bytes)).unwrap();
    }
    fs::set_permissions(place.work().join("long"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.work().join("kept"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(place.work().join("gone")).unwrap();
    fs::create_dir(place.work().join("gone")).unwrap();
    place.write("gone/file", "a folder in the place of a file\n");
    symlink("kept", place.work().join("link")).unwrap();
    comes_out_as_git_has_it(&place).await;
}

/// In a repository whose objects have names of 64 digits.
#[tokio::test]
async fn a_repository_with_longer_names_comes_out_too() {
    let place = Place::with_names_by("sha256");
    place.commit("committed");
    place.write("new", "new\n");
    fs::write(place.work().join("long"), dense(2 << 20)).unwrap();
    comes_out_as_git_has_it(&place).await;
}

/// What a bundle would be without it.
#[tokio::test]
async fn a_file_that_changes_once_more_on_its_way_out_is_no_good_bundle() {
    let place = Place::new();
    fs::write(place.work().join("long"), dense(2 << 20)).unwrap();
    let made = place.bundle().await.0.unwrap();
    let all = fs::read(written(&made, place.dir.path())).unwrap();
    let again = fs::read(written(&made, place.dir.path())).unwrap();
    assert!(all == again, "it is written as often as it has to be");
    fs::write(place.work().join("long"), vec![0; 2 << 20]).unwrap();
    let error = made.body.write(Vec::new()).unwrap_err();
    assert!(error.to_string().contains("`long` has changed"), "{error}");
    fs::write(place.work().join("long"), "").unwrap();
    made.body.write(Vec::new()).unwrap_err();
}

/// An object that is gone is no hole in a bundle: what can be had without it comes out.
#[tokio::test]
async fn a_missing_object_of_the_agents_leaves_no_hole() {
    let place = Place::new();
    let head = place.commit("committed");
    place.write("staged", "staged\n");
    place.git(&["add", "staged"]);
    place.write("staged", "changed again\n");
    let lost = place.git(&["rev-parse", ":staged"]);
    fs::remove_file(place.work().join(".git/objects").join(&lost[..2]).join(&lost[2..])).unwrap();
    let (made, Collected { unsaved, notes, .. }) = told(place.dir.path(), Some(&place.base)).await;
    assert!(
        unsaved.is_empty() && notes.len() == 1 && notes[0].contains("were staged"),
        "{unsaved:?} {notes:?}"
    );
    let taken = place.taken(&made.unwrap());
    assert_eq!(
        (read(&taken, "staged"), git(&taken, &["rev-parse", "HEAD^"])),
        ("changed again\n".into(), head)
    );
}
