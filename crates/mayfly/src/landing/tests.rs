//! What is lost and what is not, and the commands that the user is told.

use std::fs;
use std::process::Command;

use mayfly_client::Client;
use mayfly_git::Repo;

use super::*;
use crate::environment::Environment;

/// A user with a repository of one commit.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        // A name that a shell would take apart.
        let dir = tempfile::Builder::new().prefix("it's a ").tempdir().expect("a folder");
        let place = Self { dir };
        fs::create_dir(place.repo()).expect("made");
        place.sh("git init -q -b main && echo one >a.txt && git add . && git commit -q -m first");
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

    fn nobody(&self) -> Contact {
        Contact::within(Client::new(&self.dir.path().join("api.sock")))
    }

    async fn landing(&self, with_code: bool) -> Landing {
        let home = self.dir.path().to_str().expect("UTF-8");
        let git = Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home)]).git();
        let repo = match with_code {
            true => Some(Repo::discover(&git, &self.repo()).await.expect("a repository")),
            false => None,
        };
        // As the system names the current folder.
        let folder = self.repo().canonicalize().expect("there");
        Landing {
            repo,
            named: false,
            code: None,
            mirror: None,
            folder,
            saved: self.dir.path().join("saved"),
            git,
        }
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
    let nobody = place.nobody();
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

#[tokio::test]
async fn git_is_pointed_at_the_repository_only_from_elsewhere() {
    let place = Place::new();
    let mut landing = place.landing(true).await;
    let contact = place.nobody();
    let take = |landing: &Landing| landing.take_command(&contact, "1a2b3c4d", true, "--branch");
    assert_eq!(landing.git_words(), "git");
    assert_eq!(take(&landing), None, "the orchestrator ends with this process");
    landing.folder = place.dir.path().to_owned();
    let git = landing.git_words();
    assert!(git.starts_with("git -C '"), "{git}");
    assert_eq!(place.sh(&format!("cd / && {git} log --format=%s")), "first");
}

/// S48.
#[test]
fn what_takes_effect_by_itself_is_told_with_the_branch_that_has_it() {
    let file = |beside: Option<&str>| Flagged {
        beside: beside.map(str::to_owned),
        path: ".envrc".to_owned(),
        words: "a setting of a shell",
    };
    let changes = Changes { flagged: vec![file(None), file(Some("side"))], ..Changes::default() };
    let line = ".envrc: a setting of a shell, which takes effect by itself";
    assert_eq!(flagged(&changes), [line.to_owned(), format!("side: {line}")]);
}

/// S11.
#[test]
fn a_folder_without_its_files_is_told_with_what_writes_them() {
    let (folder, others) = (PathBuf::from("/x/it's a"), Vec::new());
    let made = |without_files| Made { others: others.clone(), without_files };
    let words = |made| Placed::in_folder(folder.clone(), made, Ok(Changes::default())).without_files;
    assert_eq!(words(made(None)), None);
    let words = words(made(Some(mayfly_core::TooMuch::Bytes(2 << 30)))).expect("it has none");
    assert_eq!(
        words,
        r"the folder has no files yet, since it unfolds to more than 2 GiB: `git -C '/x/it'\''s a' reset --hard` writes them"
    );
}
