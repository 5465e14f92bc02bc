//! The code in a machine: its own copy, over a base that nobody writes.

use std::fs;

use mayfly_provider::{Provider, ProviderError};

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
    assert_eq!(worker.sh("cd /workspace/code && git rev-parse HEAD").await, workspace.base);
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
        format!("{}\none", workspace.base)
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
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 1, "one checkout for both");
    world.destroy(one.attempt).await;
    world.destroy(two.attempt).await;
}

#[tokio::test]
async fn a_bundle_that_is_not_what_its_id_says_is_refused() {
    let world = World::new();
    let mut spec = world.spec();
    let mut workspace = world.bundle("code");
    fs::write(&workspace.bundle, "something else").unwrap();
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
    workspace.base = "0123456789abcdef0123456789abcdef01234567".to_owned();
    spec.workspace = Some(workspace);
    let error = world.sandbox.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("git fetch") && error.to_string().contains("0123456789"), "{error}");
    assert_eq!(fs::read_dir(&world.config.bases).unwrap().count(), 0, "nothing half-made");
}
