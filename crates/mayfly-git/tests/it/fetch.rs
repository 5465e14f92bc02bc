//! One commit of a repository elsewhere, as files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use mayfly_git::{GitError, fetch};

use super::Place;

impl Place {
    async fn fetched(&self, url: &str) -> Result<PathBuf, GitError> {
        let scratch = self.dir.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let top = scratch.join("tree");
        fetch(&self.ours(), url, &scratch.join("git"), &top, []).await.map(|()| top)
    }

    fn url(&self) -> String {
        format!("file://{}", self.repo().display())
    }
}

#[tokio::test]
async fn the_files_of_the_last_commit_come_without_what_was_before() {
    let place = Place::with_repository();
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    symlink("/etc", place.repo().join("link")).unwrap();
    place.commit("second");
    fs::write(place.repo().join("a.txt"), "not committed\n").unwrap();
    let top = place.fetched(&place.url()).await.unwrap();
    assert_eq!(fs::read_to_string(top.join("a.txt")).unwrap(), "two\n");
    assert!(top.join("link").symlink_metadata().unwrap().is_symlink(), "a link is not what it leads to");
    let git_dir = place.dir.path().join("scratch/git");
    assert_eq!(place.git(&git_dir, &["rev-list", "--count", "FETCH_HEAD"]), "1");
}

#[tokio::test]
async fn another_way_than_the_usual_ones_is_not_taken() {
    let trap = "sprung";
    for url in
        ["http://127.0.0.1:1/x", "git://127.0.0.1:1/x", &format!("ext::touch% {trap}"), "--upload-pack=x"]
    {
        let place = Place::with_repository();
        let refused = place.fetched(url).await.unwrap_err().to_string();
        assert!(refused.contains("not allowed") || refused.contains("blocked"), "{refused}");
        assert!(!PathBuf::from("/").join(trap).exists());
    }
}

#[tokio::test]
async fn a_repository_with_nothing_in_it_is_told() {
    let place = Place::with_repository();
    let empty = place.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    place.git(&empty, &["init", "-q"]);
    let refused = place.fetched(&format!("file://{}", empty.display())).await.unwrap_err();
    assert!(matches!(refused, GitError::Failed { .. }), "{refused}");
}
