//! The real binary, as far as it gets without an orchestrator: its help, and what it says to wrong input.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod architecture;
mod bad_input;
mod credential;
mod doctor;
mod fly;
mod help;
mod image;
mod library;
mod listening;
mod microvm;
mod place;
mod program;
mod stand_in;
mod token;
mod tunnel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A user with an empty home, and nothing in the environment but where programs are.
struct User {
    dir: TempDir,
}

impl User {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cwd")).unwrap();
        program::stand_in(&dir.path().join("claude"), program::CLAUDE);
        Self { dir }
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    fn cwd(&self) -> PathBuf {
        self.home().join("cwd")
    }

    /// `mayfly` with `args`, in [`cwd`](Self::cwd).
    fn mayfly(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.env_clear().env("HOME", self.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.current_dir(self.cwd()).args(args);
        command
    }

    /// The same, with a credential of the right kind, made up.
    fn with_token(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = self.mayfly(args);
        command.env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up");
        command
    }

    /// A repository `cwd`/`name` without a commit.
    fn git_init(&self, name: &str, more: &[&str]) -> PathBuf {
        let path = self.cwd().join(name);
        let mut git = Command::new("git");
        git.env_clear().env("HOME", self.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        assert!(git.args(["init", "--quiet"]).args(more).arg(&path).status().unwrap().success());
        path
    }

    /// Runs it; the exit code, and all that it printed, without what differs from run to run.
    fn said(&self, mut command: assert_cmd::Command) -> String {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let said = format!("exit {}\n{stdout}{stderr}", output.status.code().unwrap());
        // It may be named by a link.
        let real = fs::canonicalize(self.home()).unwrap();
        said.replace(&real.display().to_string(), "[home]")
            .replace(&self.home().display().to_string(), "[home]")
    }

    /// Whether the user has no more than before: no data, no process that would have left some.
    fn untouched(&self) -> bool {
        !self.home().join(".local").exists()
    }
}
