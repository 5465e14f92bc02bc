//! Repositories that cannot be worked on, each with its own words.

use std::fs;

use mayfly_git::{Git, GitError, Repo};

use super::Place;

#[tokio::test]
async fn a_folder_outside_any_repository_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::with_repository();
    let error = Repo::discover(&place.ours(), folder.path()).await.unwrap_err();
    assert!(matches!(error, GitError::NoRepository(_)), "{error}");
    let error = Repo::discover(&place.ours(), &folder.path().join("nowhere")).await.unwrap_err();
    assert!(matches!(error, GitError::File { .. }), "{error}");
}

#[tokio::test]
async fn a_bare_repository_is_named() {
    let place = Place::with_repository();
    place.git(place.dir.path(), &["clone", "-q", "--bare", "repo", "bare.git"]);
    let error = Repo::discover(&place.ours(), &place.dir.path().join("bare.git")).await.unwrap_err();
    assert!(matches!(error, GitError::Bare(_)), "{error}");
}

#[tokio::test]
async fn a_repository_without_a_commit_is_named() {
    let place = Place::with_repository();
    let empty = place.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    place.git(&empty, &["init", "-q"]);
    let error = Repo::discover(&place.ours(), &empty).await.unwrap_err();
    assert!(matches!(error, GitError::NoCommit(_)), "{error}");
}

/// One that has all that is needed is as good as any other.
#[tokio::test]
async fn a_partial_clone_is_told_how_to_be_completed() {
    let place = Place::with_repository();
    place.git(&place.repo(), &["config", "uploadpack.allowFilter", "true"]);
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    place.commit("second");
    let url = format!("file://{}", place.repo().display());
    place.git(place.dir.path(), &["clone", "-q", "--filter=blob:none", &url, "partial clone"]);
    let partial = place.dir.path().join("partial clone");
    let take = async || {
        let scratch = tempfile::tempdir().unwrap();
        let repo = Repo::discover(&place.ours(), &partial).await.unwrap();
        repo.snapshot(scratch.path()).await.map(|(_, snapshot)| snapshot.base)
    };
    let error = take().await.unwrap_err();
    assert!(matches!(error, GitError::Partial(_)), "{error}");
    let words = error.to_string();
    let advice = words.split('`').find_map(|part| part.strip_prefix("git ")).unwrap();
    place.git(&partial, &advice.split(' ').collect::<Vec<_>>());
    assert_eq!(take().await.unwrap(), place.git(&partial, &["rev-parse", "HEAD"]));
}

/// S11: before anything of it is handed over.
#[tokio::test]
async fn a_commit_of_more_files_than_a_workspace_may_have_is_named() {
    let place = Place::with_repository();
    let (bundle, head) = place.bundle_of_copies(7, 2);
    place.git(&place.repo(), &["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/work:refs/heads/copies"]);
    let scratch = tempfile::tempdir().unwrap();
    let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap().at("copies").await.unwrap();
    let error = repo.snapshot(scratch.path()).await.unwrap_err();
    let words = format!("the commit {head} has more than 1000000 files, the most that a workspace may have");
    assert!(error.to_string().starts_with(&words), "{error}");
}

#[tokio::test]
async fn a_machine_without_git_is_told_what_to_install() {
    let place = Place::with_repository();
    let git = Git::new("/nonexistent".into(), None, None);
    let error = Repo::discover(&git, &place.repo()).await.unwrap_err();
    assert!(matches!(error, GitError::Missing(_)), "{error}");
}

/// A git that does nothing, as on a disk that does not answer.
#[tokio::test(start_paused = true)]
async fn a_git_that_never_ends_is_killed_and_named_with_its_limit() {
    let place = Place::with_repository();
    let program = place.dir.path().join("git");
    fs::write(&program, "#!/bin/sh\nexec /usr/bin/tail -f /dev/null\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let git = Git::new(place.dir.path().into(), None, None);
    let error = Repo::discover(&git, &place.repo()).await.unwrap_err();
    assert!(matches!(error, GitError::TooLong { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("git rev-parse") && text.contains("10 minutes"), "{text}");
}
