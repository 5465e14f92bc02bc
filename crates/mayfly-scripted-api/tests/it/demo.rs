//! The demo's jobs: that the repository is as the scripts say, and that the real CLI does them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use mayfly_scripted_api::demo::{AGENT_JOBS, FILES, JOBS};

use crate::runs::{Run, Setup, run_with};

fn lay_out(folder: &Path) {
    for file in FILES {
        let path = folder.join(file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, file.content).unwrap();
        let mode = if file.executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn shell(folder: &Path, command: &str) -> (Option<i32>, String) {
    let Output { status, stdout, .. } =
        Command::new("bash").args(["-c", command]).current_dir(folder).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

/// The last line of the tests' output.
fn tests(folder: &Path) -> (Option<i32>, String) {
    let (code, output) = shell(folder, "./test.sh");
    (code, output.lines().last().unwrap().to_owned())
}

fn changed(folder: &Path) -> Vec<&'static str> {
    let same = |path: &Path, content: &str| std::fs::read_to_string(path).is_ok_and(|now| now == content);
    FILES.iter().filter(|file| !same(&folder.join(file.path), file.content)).map(|file| file.path).collect()
}

/// How many files there are, so that a new one is noticed.
fn files(folder: &Path) -> usize {
    shell(folder, "find . -type f -not -path './.git/*' | wc -l").1.trim().parse().unwrap()
}

async fn job(name: &str) -> Option<Run> {
    let job =
        JOBS.iter().chain(AGENT_JOBS).find(|job| job.prompt.ends_with(&format!("[script: {name}]"))).unwrap();
    let run = run_with(Setup { prepare: lay_out, ..Setup::new(job.prompt) }).await?;
    run.assert_succeeded();
    Some(run)
}

/// How many tools ended in an error, as one does that runs tests which fail.
fn failed_tools(run: &Run) -> usize {
    run.blocks("tool_result").iter().filter(|block| block["is_error"] == true).count()
}

fn outputs(run: &Run) -> String {
    let results = run.blocks("tool_result");
    results.iter().filter_map(|block| block["content"].as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_repository_has_the_mistakes_that_the_jobs_are_about() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path());
    assert_eq!(tests(folder.path()), (Some(1), "4 passed, 2 failed".into()));
    let shell = |command| shell(folder.path(), command);
    assert_eq!(shell("printf 'one two\\n' | ./tally --words"), (Some(0), "1\n".into()), "the bug to fix");
    assert_eq!(shell("printf 'one\\ntwo' | ./tally --lines"), (Some(0), "1\n".into()), "review, 2");
    assert_eq!(shell("./tally --lines nothing.txt").0, Some(0), "review, 3");
    assert_eq!(shell("printf '  a b\\n' | ./tally --top 1 | wc -w"), (Some(0), "1\n".into()), "review, 4");
    assert!(!FILES[0].content.contains("--top"), "the docs to write");
}

#[tokio::test]
async fn the_fix_makes_the_tests_pass() {
    let Some(run) = job("demo-fix").await else { return };
    assert_eq!(tests(run.folder.path()), (Some(0), "6 passed, 0 failed".into()));
    assert_eq!(changed(run.folder.path()), ["lib/count.sh"]);
    assert_eq!(failed_tools(&run), 1, "the tests fail before the fix, and nothing else does");
    assert!(outputs(&run).contains("52 samples/harbour.txt\n52 samples/harbour.txt"));
}

#[tokio::test]
async fn the_new_checks_pass_and_are_seen_to_fail_on_a_broken_copy() {
    let Some(run) = job("demo-test").await else { return };
    let folder = run.folder.path();
    assert_eq!(shell(folder, "./test.sh test/top.sh | tail -n 1").1, "4 passed, 0 failed\n");
    assert_eq!((changed(folder).len(), files(folder)), (0, FILES.len() + 1));
    assert_eq!(failed_tools(&run), 0);
    assert!(outputs(&run).contains("2 passed, 2 failed"), "{}", outputs(&run));
}

#[tokio::test]
async fn the_documentation_shows_real_output() {
    let Some(run) = job("demo-docs").await else { return };
    assert_eq!((changed(run.folder.path()), files(run.folder.path())), (vec!["README.md"], FILES.len()));
    assert_eq!(failed_tools(&run), 0);
    assert!(outputs(&run).ends_with("\nsame"), "{}", outputs(&run));
    assert!(run.file("README.md").contains("## The most frequent words"));
}

#[tokio::test]
async fn the_refactoring_changes_no_output() {
    let Some(run) = job("demo-refactor").await else { return };
    let folder = run.folder.path();
    assert_eq!((changed(folder), files(folder)), (vec!["tally"], FILES.len()));
    assert_eq!(failed_tools(&run), 0);
    assert!(outputs(&run).ends_with("\nsame\n4 passed, 2 failed"), "{}", outputs(&run));
    assert_eq!(run.file("tally").matches("case $what in").count(), 1);
}

#[tokio::test]
async fn the_review_finds_what_is_there_and_changes_nothing() {
    let Some(run) = job("demo-review").await else { return };
    let folder = run.folder.path();
    assert_eq!((changed(folder).len(), files(folder)), (0, FILES.len()));
    assert_eq!(failed_tools(&run), 1, "only the tests fail");
    assert!(outputs(&run).contains("nothing.txt\nexit 0"), "{}", outputs(&run));
}

#[tokio::test]
async fn an_agent_that_may_writes_down_what_it_finds() {
    let Some(run) = job("demo-agent").await else { return };
    let folder = run.folder.path();
    assert_eq!((changed(folder), files(folder)), (vec!["README.md"], FILES.len() + 1));
    assert!(run.file("FINDINGS.md").contains("`count_lines`"));
}

#[test]
fn the_prompts_are_all_different_and_end_with_their_directive() {
    let mut prompts: Vec<_> = JOBS.iter().map(|job| job.prompt).collect();
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!(prompts.len(), 5);
    assert!(prompts.iter().all(|prompt| prompt.contains("[script: demo-") && prompt.ends_with(']')));
}
