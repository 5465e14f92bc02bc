//! Repositories and bundles that mean harm.

use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use mayfly_git::{Base, GitError, Repo, read_through};

use super::Place;

/// A program that leaves a trace when it runs.
fn canary(place: &Place) -> (PathBuf, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let (program, trace) = (place.dir.path().join("canary.sh"), place.dir.path().join("ran"));
    fs::write(&program, format!("#!/bin/sh\necho \"$0 $*\" >> {}\ncat 2>/dev/null\n", trace.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, trace)
}

/// S07: nothing that a repository's configuration names is run, by the snapshot or by the landing.
#[tokio::test]
async fn no_program_that_a_repository_names_is_run() {
    let place = Place::with_repository();
    let (program, trace) = canary(&place);
    let program = program.to_str().unwrap();
    let repo = place.repo();

    // A submodule whose own configuration is as bad.
    place.git(place.dir.path(), &["clone", "-q", repo.to_str().unwrap(), "other"]);
    let other = place.dir.path().join("other");
    place.git(&repo, &["submodule", "--quiet", "add", other.to_str().unwrap(), "sub"]);
    fs::write(repo.join(".gitattributes"), "*.txt filter=bad diff=bad merge=bad\n").unwrap();
    place.commit("set up");
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "work\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    drop(quarantine);
    fs::remove_dir_all(place.dir.path().join("scratch")).unwrap();

    let hooks = place.dir.path().join("hooks");
    fs::create_dir(&hooks).unwrap();
    for hook in ["post-index-change", "reference-transaction", "pre-commit", "post-checkout", "pre-auto-gc"] {
        fs::copy(program, hooks.join(hook)).unwrap();
    }
    let settings = [
        "core.fsmonitor",
        "core.sshCommand",
        "core.alternateRefsCommand",
        "core.askPass",
        "core.pager",
        "core.editor",
        "diff.external",
        "diff.bad.command",
        "diff.bad.textconv",
        "filter.bad.clean",
        "filter.bad.smudge",
        "filter.bad.process",
        "merge.bad.driver",
        "credential.helper",
        "gpg.program",
        "uploadpack.packObjectsHook",
        "sequence.editor",
    ];
    for git_dir in [repo.join(".git"), repo.join(".git/modules/sub")] {
        let mut bad = format!("[core]\n\thooksPath = {}\n[commit]\n\tgpgSign = true\n", hooks.display());
        for setting in settings {
            let (section, key) = setting.rsplit_once('.').unwrap();
            let section = section.split_once('.').map_or(section.to_owned(), |(a, b)| format!("{a} \"{b}\""));
            writeln!(bad, "[{section}]\n\t{key} = {program}").unwrap();
        }
        writeln!(bad, "[alias]\n\tadd = !{program}\n\trev-parse = !{program}\n[submodule]\n\trecurse = true")
            .unwrap();
        let config = git_dir.join("config");
        fs::write(&config, fs::read_to_string(&config).unwrap() + &bad).unwrap();
    }
    fs::write(repo.join("a.txt"), "changed\n").unwrap();
    fs::write(repo.join("sub/a.txt"), "changed\n").unwrap();

    let (quarantine, snapshot) = place.snapshot().await;
    assert_eq!(snapshot.submodules, ["sub"], "they are told of, and not read");
    quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap();

    let ran = fs::read_to_string(&trace).unwrap_or_default();
    assert_eq!(ran, "");
    // The canary is able to sing: a plain git in that repository starts it.
    let _ = std::process::Command::new("git").arg("-C").arg(&repo).arg("status").output();
    assert_ne!(fs::read_to_string(&trace).unwrap_or_default(), "");
}

/// S06: a work tree pointed elsewhere by the configuration is not read.
#[tokio::test]
async fn the_configuration_cannot_move_the_work_tree() {
    let place = Place::with_repository();
    let secret = place.dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "canary").unwrap();
    place.git(&place.repo(), &["config", "core.worktree", secret.to_str().unwrap()]);
    let (_quarantine, snapshot) = place.snapshot().await;
    assert!(!snapshot.dirty);
}

#[tokio::test]
async fn a_bundle_with_another_head_than_announced_is_refused() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    place.git(&machine, &["commit", "-q", "--allow-empty", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let before = place.state();
    let error = quarantine.land(&bundle, &snapshot.base, "mayfly/1-x").await.unwrap_err();
    assert!(matches!(&error, GitError::WrongHead { found, .. } if *found == head), "{error}");
    assert_eq!(place.state(), before);
}

/// Objects are checked before the user's repository sees them: here a tree with an entry named `.git`.
#[tokio::test]
async fn a_bundle_with_a_bad_object_is_refused_and_leaves_nothing() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    let blob = place.git(&machine, &["rev-parse", "HEAD:a.txt"]);
    let mut tree = b"100644 .git\0".to_vec();
    tree.extend((0..blob.len()).step_by(2).map(|i| u8::from_str_radix(&blob[i..i + 2], 16).unwrap()));
    fs::write(machine.join("tree"), tree).unwrap();
    let tree = place.git(&machine, &["hash-object", "-t", "tree", "-w", "--literally", "tree"]);
    let commit = place.git(&machine, &["commit-tree", &tree, "-p", "HEAD", "-m", "bad"]);
    place.git(&machine, &["update-ref", "HEAD", &commit]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let before = place.state();
    let error = quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("hasDotgit"), "{error}");
    assert_eq!(place.state(), before);
    let missing = std::process::Command::new("git")
        .arg("-C")
        .arg(place.repo())
        .args(["cat-file", "-e", &head])
        .output();
    assert!(!missing.unwrap().status.success(), "the bad commit must not be in the user's repository");
}

/// S08: submodules that are programs, options or paths of somebody else's are data, or refused by name; none is fetched or
/// checked out, of a repository that is handed over or of work that comes back.
#[tokio::test]
async fn submodules_that_mean_harm_are_refused_or_stay_data() {
    let place = Place::with_repository();
    let (program, trace) = canary(&place);
    let (program, repo) = (program.display(), place.repo());
    let submodule = |name: &str, path: &str, url: &str| {
        format!("[submodule \"{name}\"]\n\tpath = {path}\n\turl = {url}\n")
    };
    let fetches = [
        submodule("s", "sub", &format!("ext::{program}")),
        submodule("s", "sub", &format!("file://{}", repo.display())),
        submodule("s", "\"sub\r\"", "https://x.invalid/x"),
    ];
    let lies = [
        submodule("s", "sub", &format!("-u{program}")),
        submodule("s", "-sub", "https://x.invalid/x"),
        submodule("../../hooks", "sub", "https://x.invalid/x"),
        submodule("s", "sub", "https://x.invalid/%0ahost=y.invalid"),
        submodule("s", "sub", "https://x.invalid/x") + &format!("\tupdate = !{program}\n"),
    ];
    fs::create_dir(repo.join("sub")).unwrap();
    fs::write(repo.join(".gitmodules"), fetches.concat() + &lies.concat()).unwrap();
    let link = format!("160000,{},sub", place.git(&repo, &["rev-parse", "HEAD"]));
    place.git(&repo, &["update-index", "--add", "--cacheinfo", &link]);
    place.commit("hostile");
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    let work = |text: &str| {
        place.git(&machine, &["reset", "-q", "--hard", &snapshot.base]);
        fs::write(machine.join(".gitmodules"), text).unwrap();
        place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
        place.bundle(&machine, &snapshot)
    };
    for (at, text) in fetches.iter().enumerate() {
        let (bundle, head) = work(text);
        let branch = format!("mayfly/{at}-x");
        quarantine.land(&bundle, &head, &branch).await.unwrap();
        assert_eq!(place.git(&repo, &["show", &format!("{branch}:.gitmodules")]), text.trim_end());
    }
    for text in &lies {
        let (bundle, head) = work(text);
        let error = quarantine.land(&bundle, &head, "mayfly/9-x").await.unwrap_err();
        assert!(error.is_refusal(), "{text}: {error}");
    }
    assert!(!trace.exists() && fs::read_dir(repo.join("sub")).unwrap().count() == 0, "nothing was fetched");
}

/// A bundle of some hundred bytes, whose one object says that it is a commit of this length.
fn bundle_of_a_long_commit(head: &str, mut length: u64) -> Vec<u8> {
    const COMMIT: u8 = 1 << 4;
    let mut bundle = format!("# v2 git bundle\n{head} refs/heads/work\n\n").into_bytes();
    bundle.extend_from_slice(b"PACK\0\0\0\x02\0\0\0\x01");
    bundle.push(0x80 | COMMIT | u8::try_from(length & 0xf).unwrap());
    length >>= 4;
    while length > 0 {
        let more = if length > 0x7f { 0x80 } else { 0 };
        bundle.push(more | u8::try_from(length & 0x7f).unwrap());
        length >>= 7;
    }
    // Nothing, as zlib writes it, and a checksum that nobody comes to.
    bundle.extend_from_slice(&[0x78, 0x9c, 3, 0, 0, 0, 0, 1]);
    bundle.extend_from_slice(&[0; 20]);
    bundle
}

/// S11: what takes more memory than there is for it is refused by name, by the orchestrator's search and by the landing.
#[tokio::test]
async fn a_bundle_that_wants_all_memory_is_refused() {
    let place = Place::with_repository();
    let (quarantine, _snapshot) = place.snapshot().await;
    let (bundle, head) = (place.dir.path().join("long.bundle"), "1".repeat(40));
    fs::write(&bundle, bundle_of_a_long_commit(&head, 3 << 30)).unwrap();
    let before = place.state();
    let landed = quarantine.land(&bundle, &head, "mayfly/1-x").await;
    let scratch = tempfile::tempdir().unwrap();
    let read =
        read_through(&place.ours(), scratch.path(), None, &bundle, |_| ControlFlow::Continue(())).await;
    for error in [landed.map(drop).unwrap_err(), read.map(drop).unwrap_err()] {
        assert!(matches!(error, GitError::TooMuchMemory(_)) && error.is_refusal(), "{error}");
        assert!(error.to_string().contains("more than 1024 MiB of memory"), "{error}");
    }
    assert_eq!(place.state(), before);
    // One that says so of less is looked at, and told as what it is.
    fs::write(&bundle, bundle_of_a_long_commit(&head, 3 << 20)).unwrap();
    let error = quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap_err();
    assert!(matches!(error, GitError::Failed { .. }), "{error}");
}

/// What was staged and is in no file any more is in the bundle, so it is searched; nobody's repository gets it.
#[tokio::test]
async fn what_was_staged_is_searched_and_does_not_land() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("b.txt"), "canary-of-the-index").unwrap();
    place.git(&machine, &["add", "-A"]);
    let tree = place.git(&machine, &["write-tree"]);
    let staged = place.git(&machine, &["commit-tree", "-p", "HEAD", "-m", "Staged", &tree]);
    place.git(&machine, &["update-ref", "refs/mayfly/staged", &staged]);
    place.git(&machine, &["reset", "-q", "--hard"]);
    place.git(&machine, &["commit", "-q", "--allow-empty", "-m", "work"]);
    let head = place.git(&machine, &["rev-parse", "HEAD"]);
    place.git(&machine, &["update-ref", "refs/heads/work", "HEAD"]);
    let bundle = place.dir.path().join("work.bundle");
    let on = format!("^{}", snapshot.base);
    let refs = ["refs/heads/work", "refs/mayfly/staged", &*on];
    place.git(&machine, &[&["bundle", "create", "-q", bundle.to_str().unwrap()][..], &refs].concat());
    let (scratch, mut read) = (tempfile::tempdir().unwrap(), Vec::new());
    let (base, commit) = (place.base(), &*snapshot.base);
    let base = Some(Base { bundle: &base, commit, on: None });
    let ours = place.ours();
    let all = read_through(&ours, scratch.path(), base, &bundle, |piece| {
        read.extend_from_slice(piece);
        ControlFlow::Continue(())
    });
    assert!(all.await.unwrap() && String::from_utf8_lossy(&read).contains("canary-of-the-index"));
    assert_eq!(quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap(), [""; 0]);
    let repo = Repo::discover(&ours, &place.repo()).await.unwrap();
    assert!(repo.has(&head).await && !repo.has(&staged).await);
}

/// What git reads in a bundle is what we read: else what is shown, searched and named would not be what lands.
#[tokio::test]
async fn a_bundle_whose_refs_can_be_read_in_two_ways_is_refused() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "work\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let bytes = fs::read(&bundle).unwrap();
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap() + 1;
    let other = "1".repeat(40);
    let long = format!("{other} refs/{}\n", "x".repeat(70_000));
    let added = [
        format!("{other}\trefs/heads/work\n"),
        format!("{other} refs/heads/work\0x\n"),
        format!("{other} refs/heads/work\n"),
        long,
    ];
    let scratch = tempfile::tempdir().unwrap();
    for more in added {
        let odd = place.dir.path().join("odd.bundle");
        fs::write(&odd, [&bytes[..end], more.as_bytes(), &bytes[end..]].concat()).unwrap();
        let landed = quarantine.land(&odd, &head, "mayfly/1-x").await.map(drop).unwrap_err();
        let each = |_: &[u8]| ControlFlow::Continue(());
        let read = read_through(&place.ours(), scratch.path(), None, &odd, each).await.map(drop).unwrap_err();
        for error in [landed, read] {
            assert!(matches!(error, GitError::BadName(_)), "{error}");
        }
    }
    quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap();
}

#[tokio::test]
async fn what_is_no_bundle_is_refused() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let bundle = place.dir.path().join("no.bundle");
    for bytes in [&b""[..], b"# v2 git bundle\n", &vec![0xff; 100_000]] {
        fs::write(&bundle, bytes).unwrap();
        quarantine.land(&bundle, &snapshot.base, "mayfly/1-x").await.unwrap_err();
    }
}
