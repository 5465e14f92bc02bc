use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_test_needs::layout;
use proptest::prelude::*;

use super::*;
use crate::parts;
use crate::tree::{Content, Data, Entry};

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.add(path, Entry::file(0o644, Data::Bytes((*text).into()))).expect("plain");
    }
    tree
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::in_folder(dir.path().join("images"));
    (dir, store)
}

fn lock(store: &Store) -> Lock {
    store.lock(|| panic!("nobody else is there")).expect("the only one")
}

fn add(store: &Store, key: &str, tree: &Tree, lock: &Lock) -> Layer {
    store.add_layer(key, tree, &mut |_| true, lock).expect("added")
}

fn put(store: &Store, name: &str, layers: &[Layer], lock: &Lock) -> Image {
    let layers: Vec<_> = layers.iter().map(|layer| (layer.clone(), "something".to_owned())).collect();
    let run = parts::run("/opt/mayfly/mayfly", BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    store.put(name, "amd64", run, &layers, lock).expect("put")
}

/// A tree of everything that there can be.
fn whole() -> Tree {
    let file = tempfile::tempfile().expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"0123456789", 0).expect("written");
    let mut tree = tree(&[("etc/a", "text"), ("zz", "last")]);
    let long = format!("usr/{}/{}", "long".repeat(40), "name".repeat(30));
    let entries = [
        ("etc", Entry { mode: 0o700, ..Entry::folder() }.of(1000, 1000)),
        ("etc/b", Entry::file(0o755, Data::Part(Arc::new(file), 2, 5))),
        ("etc/c", Entry { content: Content::Link("../x".to_owned()), ..Entry::folder() }),
        ("etc/d", Entry { content: Content::Same("etc/b".to_owned()), ..Entry::folder() }),
        ("etc/Főtanúsítvány", Entry::file(0o600, Data::Bytes(Vec::new()))),
        (&*long, Entry { content: Content::Link("y/".repeat(90)), ..Entry::folder() }),
    ];
    for (path, entry) in entries {
        tree.add(path, entry).expect("plain");
    }
    tree
}

/// The same tree is the same bytes, wherever and whenever it is written. Who changes them counts `RECIPE` up.
#[test]
fn a_layer_is_these_very_bytes() {
    let mut written = Vec::new();
    let of = layer::write(&whole(), &mut written, &mut |_| true).expect("written");
    assert_eq!(of.sha256, hex::encode(Sha256::digest(&written)));
    assert_eq!(of.bytes, written.len() as u64);
    let tar = layer::write_tar(&whole(), Vec::new()).expect("written");
    assert_eq!(of.tar_sha256, hex::encode(Sha256::digest(&tar)));
    assert_eq!(of.tar_sha256, "63d9cdee61e721d548cfa615d8033f50f1d5f9d8548a72cf6a6a50dc5103d867");
    assert_eq!(of.sha256, "dd327f7e3fc454b414b01e3cf57ca90ae2033be43d1a0074f39595e5212fa83c");
}

#[test]
fn a_layout_is_as_its_specification_has_it() {
    let (_dir, store) = store();
    let lock = lock(&store);
    let layers = [add(&store, "one", &whole(), &lock), add(&store, "two", &tree(&[("x", "y")]), &lock)];
    let image = put(&store, "mayfly", &layers, &lock);
    let read = layout::check(store.folder());
    assert_eq!(read.len(), 1);
    assert_eq!((&read[0].name, &read[0].digest), (&image.name, &image.descriptor.digest));
    let paths: Vec<_> =
        read[0].layers[0].iter().map(|member| (&*member.path, member.mode, member.owner)).collect();
    assert_eq!(paths[0], ("etc", 0o700, (1000, 1000)));
    assert_eq!(paths[1], ("etc/Főtanúsítvány", 0o600, (0, 0)));
    let text = |path: &str| {
        let member = read[0].layers[0].iter().find(|member| member.path == path).expect("it is there");
        (member.text.clone().expect("a text"), member.to.clone())
    };
    assert_eq!(text("etc/b"), ("23456".to_owned(), None));
    assert_eq!(text("etc/c").1.as_deref(), Some("../x"));
    assert_eq!(text("etc/d").1.as_deref(), Some("etc/b"));
    assert_eq!(read[0].config["config"]["Entrypoint"][0], "/opt/mayfly/mayfly");
    assert_eq!(store.images().expect("read"), [image]);
}

#[test]
fn a_layer_is_made_once_and_again_if_it_is_damaged() {
    let (_dir, store) = store();
    let lock = lock(&store);
    assert_eq!(store.layer("one", &lock).expect("looked"), None);
    let layer = add(&store, "one", &whole(), &lock);
    assert_eq!(store.layer("one", &lock).expect("looked").as_ref(), Some(&layer));
    assert_eq!(store.layer("two", &lock).expect("looked"), None, "of other things");
    let blob = store.blob(&layer.sha256);
    let mut bytes = fs::read(&blob).expect("a blob");
    *bytes.last_mut().expect("some") ^= 1;
    fs::write(&blob, bytes).expect("damaged");
    assert_eq!(store.layer("one", &lock).expect("looked"), None);
    assert_eq!(add(&store, "one", &whole(), &lock), layer);
    fs::remove_file(&blob).expect("removed");
    assert_eq!(store.layer("one", &lock).expect("looked"), None);
}

#[test]
fn what_no_image_names_is_gone_and_layers_of_a_build_that_was_given_up_wait() {
    let (_dir, store) = store();
    let lock = lock(&store);
    let root = add(&store, "root", &whole(), &lock);
    let given_up = store.add_layer("given up", &tree(&[("x", "z")]), &mut |_| false, &lock);
    given_up.expect_err("nobody waits for it");
    assert!(store.layer("root", &lock).expect("looked").is_some(), "it is for the next build");
    let old = add(&store, "old", &tree(&[("x", "1")]), &lock);
    put(&store, "one", &[root.clone(), old.clone()], &lock);
    let new = add(&store, "new", &tree(&[("x", "2")]), &lock);
    put(&store, "one", &[root.clone(), new.clone()], &lock);
    assert!(!store.blob(&old.sha256).exists() && store.layer("old", &lock).expect("looked").is_none());
    put(&store, "two", std::slice::from_ref(&root), &lock);
    assert_eq!(layout::check(store.folder()).len(), 2);
    assert!(store.remove("one", &lock).expect("removed"));
    assert!(!store.remove("one", &lock).expect("looked"));
    assert!(store.blob(&root.sha256).exists() && !store.blob(&new.sha256).exists());
    assert!(store.remove("two", &lock).expect("removed"));
    assert_eq!(layout::check(store.folder()).len(), 0);
    let left = fs::read_dir(store.folder()).expect("a folder").count();
    assert_eq!(left, 5, "layout, index, blobs, notes, lock");
}

#[test]
fn the_same_parts_are_the_same_image_and_names_are_in_order() {
    let digests = |names: [&str; 2]| {
        let (_dir, store) = store();
        let lock = lock(&store);
        let layer = add(&store, "one", &whole(), &lock);
        let images =
            names.map(|name| put(&store, name, std::slice::from_ref(&layer), &lock).descriptor.digest);
        (images, fs::read(store.folder().join(INDEX_FILE)).expect("an index"))
    };
    let (one, other) = (digests(["a", "b"]), digests(["b", "a"]));
    assert_eq!(one, other);
    assert_eq!(one.0[0], one.0[1], "a name is not in an image");
}

#[test]
fn without_a_store_there_are_no_images_and_none_is_made() {
    let (_dir, store) = store();
    assert_eq!(store.images().expect("read"), []);
    assert_eq!(store.image("x").expect("read"), None);
    assert!(!store.folder().exists());
}

#[test]
fn a_store_that_was_changed_by_others_is_named() {
    let (_dir, store) = store();
    let lock = lock(&store);
    let layer = add(&store, "one", &whole(), &lock);
    let image = put(&store, "one", &[layer], &lock);
    let manifest = store.blob(image.descriptor.sha256().expect("one"));
    fs::write(&manifest, "{}").expect("changed");
    let said = store.images().expect_err("changed").to_string();
    let folder = store.folder().display();
    assert_eq!(
        said,
        format!(
            "`{}` is not as mayfly wrote it: remove the folder `{folder}`, and build the images again",
            manifest.display()
        )
    );
    for index in
        ["", "{", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":2,"mediaType":"x","manifests":[],"more":1}"#]
    {
        fs::write(store.folder().join(INDEX_FILE), index).expect("changed");
        store.images().expect_err(index);
    }
}

#[test]
fn one_changes_the_store_at_a_time() {
    let (_dir, store) = store();
    let held = lock(&store);
    let (waits, waiting) = std::sync::mpsc::channel();
    let other = Store::in_folder(store.folder().to_owned());
    let waiter = std::thread::spawn(move || other.lock(|| waits.send(()).expect("heard")).map(drop));
    waiting.recv().expect("the other waits");
    drop(held);
    waiter.join().expect("no panic").expect("its turn");
}

proptest! {
    /// Whatever plain names there are, they come out as they went in.
    #[test]
    fn any_names_come_out_as_they_went_in(
        names in prop::collection::btree_set("[^/\0]{1,140}(/[^/\0]{1,140}){0,2}", 1..8)
    ) {
        let mut tree = Tree::default();
        let added: Vec<_> = names.iter().filter(|name| {
            tree.add(name, Entry::file(0o644, Data::Bytes(name.as_bytes().to_vec()))).is_ok()
        }).collect();
        let tar = layer::write_tar(&tree, Vec::new()).expect("written");
        let mut archive = tar::Archive::new(&tar[..]);
        let read: Vec<_> = archive.entries().expect("a tar").map(|entry| {
            String::from_utf8(entry.expect("an entry").path_bytes().into_owned()).expect("UTF-8")
        }).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), added);
    }
}
