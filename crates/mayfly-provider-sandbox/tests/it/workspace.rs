//! The code in a machine: its own copy, over a base that nobody writes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use mayfly_provider::{CodeSpec, Provider, ProviderError};

use crate::world::World;

#[tokio::test]
async fn a_workspace_is_a_clean_checkout_that_can_be_worked_in() {
    let mut world = World::new();
    let mut spec = world.spec();
    let workspace = world.bundle("code");
    spec.workspace = Some(workspace.clone());
    let mut worker = world.boot(&spec).await;
    assert_eq!(worker.hello["boot"]["workspace"], "/workspace");
    assert_eq!(worker.sh("cd /workspace/code && cat code.txt src/deep.txt link").await, "one\ntwo\none");
    assert_eq!(worker.sh("cd /workspace/code && git status --porcelain --branch").await, "## main");
    assert_eq!(worker.sh("cd /workspace/code && git rev-parse HEAD").await, workspace.code.base);
    assert_eq!(
        worker.sh("cd /workspace/code && git for-each-ref --format='%(refname)'").await,
        "refs/heads/main"
    );
    worker.sh("cd /workspace/code && echo more >> code.txt && mv src source && rm link && git add -A").await;
    worker.sh("cd /workspace/code && git -c user.name=a -c user.email=a@example.com commit -qm change").await;
    // What was given is still to be had, whatever became of the repository.
    worker.sh("rm -rf /workspace/code/.git").await;
    assert_eq!(
        worker.sh("git -C /opt/base rev-parse main && cat /opt/base/code.txt").await,
        format!("{}\none", workspace.code.base)
    );
    assert_ne!(worker.try_sh("echo x >> /opt/base/code.txt").await["code"], 0);
    world.destroy(spec.attempt).await;
}

#[tokio::test]
async fn machines_share_a_base_and_not_their_changes() {
    let mut world = World::new();
    let workspace = world.bundle("code");
    let (mut one, mut two) = (world.spec(), world.spec());
    one.workspace = Some(workspace.clone());
    two.workspace = Some(workspace);
    let (first, second) = tokio::join!(world.sandbox.create(&one), world.sandbox.create(&two));
    first.unwrap();
    second.unwrap();
    let mut first = world.hello(one.attempt).await;
    let mut second = world.hello(two.attempt).await;
    first.sh("cd /workspace/code && echo changed > code.txt && touch new && rm -r src").await;
    assert_eq!(second.sh("cd /workspace/code && cat code.txt && ls").await, "one\ncode.txt\nlink\nsrc");
    let folders = fs::read_dir(&world.config.bases).unwrap().map(Result::unwrap);
    assert_eq!(folders.filter(|entry| entry.path().is_dir()).count(), 1, "one checkout for both");
    world.destroy(one.attempt).await;
    world.destroy(two.attempt).await;
}

/// However many others are wanted, and however long ago its machine was made.
#[tokio::test]
async fn a_base_stays_as_long_as_a_machine_uses_it_and_goes_when_others_are_wanted() {
    let mut world = World::new();
    let mut spec = world.spec();
    let workspace = world.bundle("code");
    spec.workspace = Some(workspace.clone());
    let mut worker = world.boot(&spec).await;
    let base = world.config.bases.join(format!("{}-{}", workspace.code.id, workspace.code.base));
    // Last used before all others.
    let lock = fs::File::options().write(true).open(base.with_extension("lock")).unwrap();
    lock.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(lock);
    let other = |number: u32| world.config.bases.join(format!("{number:064x}-{number:040x}"));
    let fill = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            fs::create_dir(other(number)).unwrap();
            fs::write(other(number).with_extension("lock"), "").unwrap();
        }
    };
    // One that cannot be made drives others out as well.
    let mut wanted = world.spec();
    let base_of_nobody = "0123456789abcdef0123456789abcdef01234567".to_owned();
    wanted.workspace = Some(mayfly_provider::WorkspaceSpec {
        code: CodeSpec { base: base_of_nobody, ..workspace.code },
        ..workspace
    });
    fill(0..32);
    world.sandbox.create(&wanted).await.unwrap_err();
    assert_eq!([0, 1, 2].map(|number| other(number).exists()), [false, false, true]);
    assert_eq!(worker.sh("cat /workspace/code/src/deep.txt /opt/base/code.txt").await, "two\none");
    world.destroy(spec.attempt).await;
    fill(0..1);
    world.sandbox.create(&wanted).await.unwrap_err();
    assert!(!base.exists() && other(0).exists());
}

#[tokio::test]
async fn a_bundle_that_is_not_what_its_id_says_is_refused() {
    let world = World::new();
    let mut spec = world.spec();
    let mut workspace = world.bundle("code");
    fs::write(&workspace.code.bundle, "something else").unwrap();
    spec.workspace = Some(workspace.clone());
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("is not what it was when it was handed in"), "{error}");
    assert!(matches!(error, ProviderError::Refused { .. }));
    world.is_gone(spec.attempt, None);
    for name in ["", "..", "a/b"] {
        name.clone_into(&mut workspace.name);
        spec.workspace = Some(workspace.clone());
        let error = world.sandbox.create(&spec).await.unwrap_err();
        assert!(error.to_string().contains("not one plain file name"), "{error}");
    }
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing half-made");
}

#[tokio::test]
async fn a_commit_that_the_bundle_does_not_have_is_refused_with_gits_words() {
    let world = World::new();
    let mut spec = world.spec();
    let mut workspace = world.bundle("code");
    workspace.code.base = "0123456789abcdef0123456789abcdef01234567".to_owned();
    spec.workspace = Some(workspace);
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("git fetch") && error.to_string().contains("0123456789"), "{error}");
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing half-made");
}

/// S11: what a bundle of a kilobyte or two unfolds to is counted before it is written.
#[tokio::test]
async fn what_a_small_bundle_unfolds_to_is_bounded() {
    let world = World::new();
    let mut spec = world.spec();
    let workspace = world.bundle_of_copies(6, 1);
    assert!(fs::metadata(&workspace.code.bundle).unwrap().len() < 2000);
    spec.workspace = Some(workspace);
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("it unfolds to more than 1000000 files and folders"), "{error}");
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing of it was written");
}

/// S11: the limit of the disk is the task's own.
#[tokio::test]
async fn a_commit_that_is_larger_than_the_tasks_disk_is_refused() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.workspace = Some(world.bundle_of_copies(2, 1 << 20));
    spec.limits.disk_bytes_max = 100 << 20;
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    let words = "it unfolds to more than 100 MiB, the task's limit of the disk: raise `machine.disk`";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing of it was written");
    // With its folders.
    spec.limits.disk_bytes_max = (100 << 20) + 10 * 4096;
    let mut worker = world.boot(&spec).await;
    assert_eq!(worker.sh("cd /workspace/copies && git ls-files | wc -l").await, "100");
    world.destroy(spec.attempt).await;
}

/// S11: git's memory is the task's, and never less than what an ordinary history takes.
#[tokio::test]
async fn a_bundle_that_wants_all_memory_makes_no_base() {
    let world = World::new();
    let mut spec = world.spec();
    spec.workspace = Some(world.bundle_of_a_long_commit());
    spec.limits.memory_bytes_max = 256 << 20;
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("`git fetch` needs more than 1 GiB of memory"), "{error}");
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing half-made");
}

/// The user's changes cost what they are: files and objects of the base below are shared, and it stays as it was.
#[tokio::test]
async fn code_on_top_of_other_code_shares_what_it_does_not_change() {
    let mut world = World::new();
    let whole = world.bundle("code");
    let more = world.bundle_on(&whole);
    let (mut one, mut two) = (world.spec(), world.spec());
    one.workspace = Some(whole.clone());
    two.workspace = Some(more.clone());
    let mut first = world.boot(&one).await;
    let base = |code: &CodeSpec| world.config.bases.join(format!("{}-{}", code.id, code.base));
    let (below, above) = (base(&whole.code), base(&more.code));
    let before = listing(&below);
    let mut second = world.boot(&two).await;
    assert_eq!(
        second.sh("cd /workspace/code && cat code.txt new.txt src/deep.txt link").await,
        "changed\nnew\ntwo\nchanged"
    );
    assert_eq!(second.sh("cd /workspace/code && git status --porcelain --branch").await, "## main");
    assert_eq!(second.sh("cd /workspace/code && git log --oneline | wc -l").await, "2");
    assert_eq!(first.sh("cd /workspace/code && cat code.txt && git status --porcelain").await, "one");
    assert_eq!(listing(&below), before, "the base below was changed");
    let shared = |name: &str| {
        let is = |base: &std::path::Path| fs::symlink_metadata(base.join(name)).unwrap().ino();
        is(&below) == is(&above)
    };
    assert!(shared("src/deep.txt") && shared("link") && !shared("code.txt") && !shared(".git/index"));
    second.sh("cd /workspace/code && git rm -q src/deep.txt && git commit -qm x --author 'a <a@b.example>' || true").await;
    assert_eq!(listing(&below), before);
    world.destroy(one.attempt).await;
    world.destroy(two.attempt).await;
}

/// Each file's path and content.
fn listing(top: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => files.push((entry.path(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    files.sort();
    files
}
