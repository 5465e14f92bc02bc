//! What is lost and what is not, and the commands that take by hand what has not landed.

use std::process::Command;

use mayfly_client::Client;
use mayfly_git::Repo;
use tempfile::TempDir;

use super::*;
use crate::environment::Environment;

/// A user with a repository whose one file has been changed since the one commit.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        // A name that a shell would take apart.
        let dir = tempfile::Builder::new().prefix("it's a ").tempdir().expect("a folder");
        let place = Self { dir };
        fs::create_dir(place.repo()).expect("made");
        place.sh("git init -q -b main && echo one >a.txt && git add . && git commit -q -m first && echo two >a.txt");
        place
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// What the user types, in the repository.
    fn sh(&self, line: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-ec", line]).current_dir(self.repo()).env("HOME", self.dir.path());
        for who in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{who}_NAME"), "a user").env(format!("GIT_{who}_EMAIL"), "user@localhost");
        }
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    async fn landing(&self, with_code: bool) -> Landing {
        let home = self.dir.path().to_str().expect("UTF-8");
        let git = Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home)]).git();
        let code = match with_code {
            true => {
                let scratch = self.dir.path().join("scratch");
                fs::create_dir(&scratch).expect("made");
                let repo = Repo::discover(&git, &self.repo()).await.expect("a repository");
                let (quarantine, snapshot) = repo.snapshot(&scratch).await.expect("a copy");
                Some(Code { top: repo.top, quarantine, snapshot })
            }
            false => None,
        };
        let saved = self.dir.path().join("saved");
        make_private(&saved).expect("made");
        Landing { code, folder: self.repo(), saved, git }
    }

    /// A bundle as a worker makes it, of a commit on top of `base`.
    fn bundle(&self, landing: &Landing) -> (PathBuf, String) {
        let bundle = landing.bundle("1a2b3c4d");
        let machine = word(&self.dir.path().join("machine"));
        let (start, without) = match &landing.code {
            Some(code) => (
                format!("git clone -q -b base {} {machine}", word(&code.snapshot.bundle)),
                format!("^{}", code.snapshot.base),
            ),
            None => (format!("git init -q {machine}"), String::new()),
        };
        let head = self.sh(&format!(
            "{start}; cd {machine}; echo new >new.txt; git add .; git commit -q -m work; \
             git update-ref refs/heads/work HEAD; git commit -q --allow-empty -m beside; git update-ref refs/heads/other/x HEAD; \
             git bundle create -q {} refs/heads/work refs/heads/other/x {without}; git rev-parse HEAD^",
            word(&bundle)
        ));
        (bundle, head)
    }
}

/// A task that is over, with this result.
fn over_with(result: Option<Collected>) -> Task {
    let outcome = r#"{"name":"succeeded"}"#;
    let task = format!(
        r#"{{"id":"0193b2c4-0000-7000-8000-01231a2b3c4d","short":"1a2b3c4d","title":"t","state":"finished",
            "attempt":1,"last_seq":9,"created_at":"2026-01-01T00:00:00Z","outcome":{outcome}}}"#
    );
    Task { result, ..serde_json::from_str(&task).expect("a task") }
}

async fn landed(result: Option<Collected>, result_due: bool) -> Landed {
    let place = Place::new();
    let nobody = Contact::within(Client::new(&place.dir.path().join("api.sock")));
    let mut printer = Printer::of_process(false, &Environment::default());
    let task = over_with(result);
    let over = Over { task: &task, title: "fix it", result_due };
    place.landing(false).await.land(&nobody, &mut printer, over).await
}

#[tokio::test]
async fn work_that_did_not_come_out_is_trouble() {
    let no_bundle = Collected { head: Some("a".repeat(40)), ..Collected::default() };
    let unsaved = Collected { unsaved: vec!["big.bin: no room".to_owned()], ..Collected::default() };
    let not_fetched = Collected { bundle: true, ..no_bundle.clone() };
    for result in [None, Some(no_bundle), Some(unsaved), Some(not_fetched)] {
        let landed = landed(result.clone(), true).await;
        assert!(landed.failed && !landed.lost.is_empty() && !landed.unchanged, "{result:?}: {landed:?}");
    }
}

#[tokio::test]
async fn where_nothing_was_lost_nothing_is_said_to_be() {
    let never_began = landed(None, false).await;
    assert_eq!(never_began, Landed::default());
    assert_eq!(lines(&never_began), []);
    let note = "the session file: claude has written none";
    let noted = Collected { notes: vec![note.to_owned()], ..Collected::default() };
    let noted = landed(Some(noted), true).await;
    assert!(!noted.failed, "{noted:?}");
    assert_eq!(lines(&noted), [("no changes", String::new()), ("note", note.to_owned())]);
}

/// A branch `mayfly` is in the way of every `mayfly/…`.
#[tokio::test]
async fn what_cannot_land_is_taken_by_the_command_that_is_printed() {
    let place = Place::new();
    place.sh("git branch mayfly");
    let landing = place.landing(true).await;
    let (bundle, head) = place.bundle(&landing);
    let mut landed = Landed::default();
    landing.work(&bundle, &head, "1a2b3c4d-fix-it", &mut landed).await;
    assert!(landed.failed && landed.place.is_none(), "{landed:?}");
    let command = landed.by_hand.expect("a command");
    assert_eq!(landing.kept("1a2b3c4d", "fix it"), Some(command.clone()));
    place.sh(&command);
    assert_eq!(place.sh("git rev-parse mayfly-1a2b3c4d-fix-it"), head);
    assert_eq!(place.sh("git log -1 --format=%s mayfly-1a2b3c4d-fix-it--x"), "beside");
    assert_eq!(place.sh("git show mayfly-1a2b3c4d-fix-it:new.txt mayfly-1a2b3c4d-fix-it:a.txt"), "new\ntwo");
}

#[tokio::test]
async fn without_a_repository_the_command_makes_one() {
    let place = Place::new();
    let landing = place.landing(false).await;
    let (bundle, head) = place.bundle(&landing);
    fs::create_dir(place.repo().join("mayfly-1a2b3c4d-fix-it")).expect("made");
    let mut landed = Landed::default();
    landing.work(&bundle, &head, "1a2b3c4d-fix-it", &mut landed).await;
    assert!(landed.failed, "{landed:?}");
    place.sh(&landed.by_hand.expect("a command"));
    assert_eq!(place.sh("cat mayfly-1a2b3c4d-fix-it-by-hand/new.txt"), "new");
}

#[tokio::test]
async fn git_is_pointed_at_the_repository_only_from_elsewhere() {
    let place = Place::new();
    let mut landing = place.landing(true).await;
    assert_eq!(landing.git_words(), "git");
    landing.folder = place.dir.path().to_owned();
    let git = landing.git_words();
    assert!(git.starts_with("git -C '"), "{git}");
    assert_eq!(place.sh(&format!("cd / && {git} log --format=%s")), "first");
}
