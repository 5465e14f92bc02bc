//! Code that comes in parts, and on top of what is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use http::StatusCode;
use mayfly_client::{Bundle, ClientError};
use mayfly_wire::api::{CreateTask, Workspace};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::bed::{Bed, raw, task};

/// A user's repository.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.git(&["init", "-q", "-b", "main"]);
        this.commit("first");
        this
    }

    fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(args).current_dir(self.0.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.com");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        std::fs::write(self.0.path().join("a.txt"), message).unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn bundle(&self, name: &str, without: &[&str]) -> PathBuf {
        self.git(&["update-ref", "refs/heads/base", "HEAD"]);
        self.git(&[&["bundle", "create", "-q", name, "refs/heads/base"], without].concat());
        self.0.path().join(name)
    }
}

async fn upload(bed: &Bed, file: &Path, on: Option<&str>) -> Result<Workspace, ClientError> {
    bed.client.upload_workspace("repo", &Bundle::read(file, on).await.unwrap()).await
}

fn url(bed: &Bed, sha256: &str, from: usize) -> (PathBuf, String) {
    (bed.server.socket(), format!("http://mayfly/v1/workspaces/{sha256}?name=repo&from={from}"))
}

/// Who has sent the first half of a bundle, and it is there.
async fn half_sent(bed: &Bed, sha256: &str, bytes: &[u8]) -> UnixStream {
    let half = bytes.len() / 2;
    let mut stream = UnixStream::connect(bed.server.socket()).await.unwrap();
    let head = format!(
        "PUT /v1/workspaces/{sha256}?name=repo&from=0 HTTP/1.1\r\nhost: mayfly\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(&[head.as_bytes(), &bytes[..half]].concat()).await.unwrap();
    let part = bed.data().join(format!("workspaces/{sha256}.part"));
    while std::fs::metadata(&part).map_or(0, |found| found.len()) < half as u64 {
        tokio::task::yield_now().await;
    }
    stream
}

/// Who still has the part open when another has finished it writes no more; nobody waits for who sends nothing.
#[tokio::test]
async fn a_second_sender_changes_nothing_of_a_bundle_that_is_finished() {
    let (bed, repository) = (Bed::start().await, Repository::new());
    let file = repository.bundle("whole.bundle", &[]);
    let bytes = std::fs::read(&file).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let mut slow = half_sent(&bed, &sha256, &bytes).await;
    upload(&bed, &file, None).await.unwrap();
    slow.write_all(&vec![b'x'; bytes.len() - bytes.len() / 2]).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    assert_eq!(std::fs::read(bed.data().join(format!("workspaces/{sha256}.bundle"))).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(bed.data().join("workspaces")).unwrap().count(), 1);
}

/// Whatever else is wrong, what has come is not sent again.
#[tokio::test]
async fn what_is_what_its_name_says_stays_when_it_cannot_be_finished() {
    let (bed, repository) = (Bed::start().await, Repository::new());
    let file = repository.bundle("whole.bundle", &[]);
    let bytes = std::fs::read(&file).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let (socket, put) = url(&bed, &sha256, 0);
    let wrong = format!("{put}&on={}", "b".repeat(64));
    let answer = raw(&socket).put(wrong).body(bytes.clone()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let told = raw(&socket).get(format!("http://mayfly/v1/workspaces/{sha256}")).send().await.unwrap();
    assert_eq!(told.text().await.unwrap(), format!("{{\"bytes\":{}}}", bytes.len()));
    let rest = raw(&socket).put(url(&bed, &sha256, bytes.len()).1).send().await.unwrap();
    assert_eq!(rest.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn an_upload_that_broke_off_is_gone_on_with() {
    let (bed, repository) = (Bed::start().await, Repository::new());
    let file = repository.bundle("whole.bundle", &[]);
    let bytes = std::fs::read(&file).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    // Whoever announces more than they send goes away in the middle.
    let half = bytes.len() / 2;
    let (socket, _) = url(&bed, &sha256, 0);
    drop(half_sent(&bed, &sha256, &bytes).await);
    let part = bed.data().join(format!("workspaces/{sha256}.part"));
    // A start forgets nothing of it, unlike of what is in `incoming`.
    let told = raw(&socket).get(format!("http://mayfly/v1/workspaces/{sha256}")).send().await.unwrap();
    assert_eq!(told.text().await.unwrap(), format!("{{\"bytes\":{half}}}"));
    let too_far = raw(&socket).put(url(&bed, &sha256, half + 1).1).send().await.unwrap();
    assert_eq!(too_far.status(), StatusCode::CONFLICT);
    let bundle = Bundle::read(&file, None).await.unwrap();
    let workspace = bed.client.upload_workspace("repo", &bundle).await.unwrap();
    assert_eq!((workspace.id.as_str(), workspace.on), (sha256.as_str(), None));
    // What the user is told of: counted from where it stood, to its end.
    assert_eq!((bundle.sent.load(Ordering::Relaxed), bundle.bytes), (bytes.len() as u64, bytes.len() as u64));
    assert!(!part.exists());
    assert_eq!(std::fs::read(bed.data().join(format!("workspaces/{sha256}.bundle"))).unwrap(), bytes);
    // Sent again, nothing of it is.
    assert_eq!(upload(&bed, &file, None).await.unwrap().id, sha256);
}

/// A part whose first bytes are others, as after a loss of power: the bundle is sent from its beginning by itself.
#[tokio::test]
async fn a_part_that_is_damaged_is_begun_anew() {
    let (bed, repository) = (Bed::start().await, Repository::new());
    let file = repository.bundle("whole.bundle", &[]);
    let bytes = std::fs::read(&file).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let part = bed.data().join(format!("workspaces/{sha256}.part"));
    std::fs::write(&part, vec![0; bytes.len() / 2]).unwrap();
    assert_eq!(upload(&bed, &file, None).await.unwrap().id, sha256);
    assert_eq!(std::fs::read(bed.data().join(format!("workspaces/{sha256}.bundle"))).unwrap(), bytes);
    assert!(!part.exists());
    // What is refused for another reason is not sent twice.
    let wrong = upload(&bed, &repository.bundle("other.bundle", &["--all"]), Some(&"b".repeat(64))).await;
    assert!(matches!(wrong, Err(ClientError::Refused(_))), "{wrong:?}");
}

#[tokio::test]
async fn what_is_not_what_its_name_says_is_not_kept() {
    let bed = Bed::start().await;
    let sha256 = "a".repeat(64);
    let (socket, put) = url(&bed, &sha256, 0);
    let answer = raw(&socket).put(&put).body("something else").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    for name in ["A".repeat(64), "..%2f..".to_owned(), "a".to_owned()] {
        let answer = raw(&socket).put(url(&bed, &name, 0).1).body("x").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{name}");
    }
    assert_eq!(std::fs::read_dir(bed.data().join("workspaces")).unwrap().count(), 0);
}

/// What is there once is not sent again; what a task started from can be had whole all the same.
#[tokio::test]
async fn work_comes_on_top_of_a_history_that_is_there() {
    let (bed, repository) = (Bed::start().await, Repository::new());
    let first = repository.git(&["rev-parse", "HEAD"]);
    let known = async |commits: &[&str]| {
        let commits = commits.iter().map(|&commit| commit.to_owned()).collect();
        bed.client.known_code(commits).await.unwrap()
    };
    assert_eq!(known(&[&first]).await, None);
    let whole = upload(&bed, &repository.bundle("whole.bundle", &[]), None).await.unwrap();
    let second = repository.commit("second");
    let found = known(&[&second, &first]).await.unwrap();
    assert_eq!((&found.id, &found.base), (&whole.id, &first));

    let file = repository.bundle("more.bundle", &[&format!("^{first}")]);
    for wrong in [None, Some("b".repeat(64))] {
        let error = upload(&bed, &file, wrong.as_deref()).await.unwrap_err();
        let refused = matches!(&error, ClientError::Refused(problem) if problem.kind == "invalid-workspace");
        assert!(refused, "{error}");
    }
    let more = upload(&bed, &file, Some(&whole.id)).await.unwrap();
    assert_eq!((&more.base, more.on.as_ref().map(|on| &on.id)), (&second, Some(&whole.id)));
    // It holds not all of its commit, so nothing can be on top of it.
    assert_eq!(known(&[&second, &first]).await.unwrap().id, whole.id);

    let create = CreateTask { workspace: Some(more), ..task("p", None) };
    let task = bed.client.submit(&create, "key").await.unwrap();
    let got = repository.0.path().join("got.bundle");
    bed.client.workspace(&task.id, &got).await.unwrap();
    let clone = repository.0.path().join("clone");
    repository.git(&["clone", "-q", "-b", "base", got.to_str().unwrap(), clone.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(clone.join("a.txt")).unwrap(), "second");
    let mut gone = create.clone();
    gone.workspace.as_mut().unwrap().on.as_mut().unwrap().id = "c".repeat(64);
    let error = bed.client.submit(&gone, "other").await.unwrap_err();
    assert!(error.to_string().contains("workspace.on"), "{error}");
}
