//! A bundle that is read while it arrives, against what git reads of it.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mayfly_git::{Arriving, Snapshot, read_through};

use super::Place;

/// What is read of a bundle that arrives in such pieces, and whether that is all.
fn read(bundle: &[u8], piece: usize) -> (Vec<u8>, Option<bool>) {
    let mut read = Vec::new();
    let mut arriving = Arriving::new(|piece| {
        read.extend_from_slice(piece);
        ControlFlow::Continue(())
    });
    bundle.chunks(piece).for_each(|piece| arriving.read(piece));
    let whole = arriving.over();
    (read, whole)
}

/// What a machine hands over that has changed files and added long ones.
async fn work(place: &Place) -> (Snapshot, PathBuf, Vec<u8>) {
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "changed\n").unwrap();
    fs::write(machine.join("empty"), "").unwrap();
    let long = (0..200_000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    fs::write(machine.join("long.txt"), &long).unwrap();
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "a message"]);
    let (bundle, _) = place.bundle(&machine, &snapshot);
    let bundle = fs::read(bundle).unwrap();
    (snapshot, machine, bundle)
}

/// The lines of both, in any order: git reads objects as they lie.
fn sorted(read: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = read.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

async fn by_git(place: &Place, bundle: &Path) -> Vec<u8> {
    let (scratch, mut all) = (tempfile::tempdir().unwrap(), Vec::new());
    let each = |piece: &[u8]| {
        all.extend_from_slice(piece);
        ControlFlow::Continue(())
    };
    assert!(read_through(&place.ours(), scratch.path(), None, bundle, each).await.unwrap());
    all
}

#[tokio::test]
async fn what_arrives_is_read_as_git_reads_it_wherever_it_is_cut() {
    let place = Place::with_repository();
    let (_, _, bundle) = work(&place).await;
    let (all, whole) = read(&bundle, usize::MAX);
    assert_eq!(whole, Some(true));
    assert!(sorted(&all) == sorted(&by_git(&place, &place.dir.path().join("work.bundle")).await));
    for piece in [1, 7, 4096] {
        assert!(read(&bundle, piece) == (all.clone(), Some(true)), "in pieces of {piece}");
    }
}

/// Whoever has enough is given no more.
#[tokio::test]
async fn what_was_found_is_the_end() {
    let place = Place::with_repository();
    let (_, _, bundle) = work(&place).await;
    let mut pieces = 0;
    let mut arriving = Arriving::new(|_| {
        pieces += 1;
        ControlFlow::Break(())
    });
    arriving.read(&bundle);
    assert_eq!(arriving.over(), Some(false));
    assert_eq!(pieces, 1);
}

#[tokio::test]
async fn what_is_not_whole_or_not_quite_a_bundle_is_left_to_git() {
    let place = Place::with_repository();
    let (_, _, bundle) = work(&place).await;
    let pack = bundle.windows(4).position(|four| four == b"PACK").unwrap();
    let changed = |at: usize, to: u8| {
        let mut changed = bundle.clone();
        changed[at] = to;
        changed
    };
    let header = b"# v2 git bundle\n";
    let odd = [
        Vec::new(),
        b"no bundle at all".to_vec(),
        vec![b'x'; 100_000],
        [&header[..], b"\nPACK"].concat(),
        bundle[..bundle.len() - 1].to_vec(),
        [&bundle[..], b"x"].concat(),
        changed(2, b'w'),
        changed(pack, b'p'),
        changed(pack + 7, 4),
        // More objects than there are, and one less.
        changed(pack + 11, bundle[pack + 11] + 1),
        changed(pack + 11, bundle[pack + 11] - 1),
        // A kind that there is not, another length, and no zlib.
        changed(pack + 12, bundle[pack + 12] & 0x8f),
        changed(pack + 12, bundle[pack + 12] ^ 1),
        changed(pack + 14, 0xff),
    ];
    for (number, odd) in odd.iter().enumerate() {
        assert_eq!(read(odd, 1000).1, None, "{number}");
    }
}

/// Of what git has packed before, an object may be told as a difference to another.
#[tokio::test]
async fn differences_are_left_to_git() {
    let place = Place::with_repository();
    let (snapshot, machine, _) = work(&place).await;
    let long = machine.join("long.txt");
    fs::write(&long, fs::read_to_string(&long).unwrap() + "more\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "more"]);
    place.git(&machine, &["gc", "-q"]);
    let (bundle, _) = place.bundle(&machine, &snapshot);
    assert_eq!(read(&fs::read(bundle).unwrap(), 1000).1, None);
}
