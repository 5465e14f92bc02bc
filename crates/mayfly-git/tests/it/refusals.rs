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
