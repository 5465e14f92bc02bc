//! The session file, where the CLI looks for it: `projects/<the workspace's path>/<session>.jsonl` in its own folder.
//!
//! What the earlier task has cost is left out of it: the CLI would count it once more, as that of the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_core::sha256_of;
use mayfly_failpoint::failpoint;
use mayfly_wire::worker::{RESUMED_PATH, TRANSCRIPT_BYTES_MAX};
use tokio::task::spawn_blocking;

use super::{TakeUp, TakeUpError};
use crate::claude::command::config_dir;

/// How a line begins that says what a session has cost.
const COST: &[u8] = br#"{"type":"cost-state""#;

impl TakeUp<'_> {
    /// Takes up the session, if there is one, once nothing but `claude` runs any more that could change it.
    pub(crate) async fn session(&self) -> Result<(), TakeUpError> {
        let Some(expected) = self.resume.transcript.clone() else { return Ok(()) };
        let scratch = self.scratch()?;
        let fetched = scratch.path().join("transcript");
        let path = format!("{RESUMED_PATH}transcript");
        let fetching = self.exchange.fetch(&path, &fetched, TRANSCRIPT_BYTES_MAX);
        fetching.await.map_err(|source| TakeUpError::Fetch { what: "session file", source })?;
        failpoint("session-fetched");
        let place = place(self.home, self.workspace, &self.resume.session_id);
        let putting = spawn_blocking(move || put(&fetched, &expected, &place));
        putting.await.expect("reading does not panic")?;
        failpoint("session-put-back");
        Ok(())
    }
}

/// Where the CLI looks for a session. It names the folder after its own, with anything but letters and digits replaced.
fn place(home: &Path, workspace: &Path, session: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let project: String = workspace.to_string_lossy().chars().map(plain).collect();
    config_dir(home).join("projects").join(project).join(format!("{session}.jsonl"))
}

fn put(fetched: &Path, expected: &str, place: &Path) -> Result<(), TakeUpError> {
    if File::open(fetched).and_then(sha256_of).map_err(TakeUpError::Write)? != expected {
        return Err(TakeUpError::Other);
    }
    copy(fetched, place).map_err(TakeUpError::Write)?;
    fs::remove_file(fetched).map_err(TakeUpError::Write)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to.parent().unwrap_or(to))?;
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut to = BufWriter::new(to);
    without_cost(&mut BufReader::new(File::open(from)?), &mut to)?;
    to.flush()
}

/// Copies lines of any length in bounded memory.
fn without_cost(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut head = Vec::new();
    loop {
        head.clear();
        if from.by_ref().take(COST.len() as u64).read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
        if head == COST {
            from.skip_until(b'\n')?;
            continue;
        }
        to.write_all(&head)?;
        while !head.ends_with(b"\n") {
            head.clear();
            if from.by_ref().take(8192).read_until(b'\n', &mut head)? == 0 {
                break;
            }
            to.write_all(&head)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_where_the_cli_looks_for_it() {
        let place = place(Path::new("/home/agent"), Path::new("/workspace/my_repo.rs"), "s");
        assert_eq!(place, Path::new("/home/agent/.claude/projects/-workspace-my-repo-rs/s.jsonl"));
    }

    #[test]
    fn all_of_a_session_but_its_cost_is_copied() {
        let long = "x".repeat(100_000);
        let cost = r#"{"type":"cost-state","totalCostUSD":1}"#;
        let kept = [r#"{"type":"user"}"#, "", &long, r#"{"type":"cost-stat"}"#];
        let text = format!("{}\n{cost}\n{}\n{}\n{cost}\n{}", kept[0], kept[1], kept[2], kept[3]);
        let mut copied = Vec::new();
        without_cost(&mut BufReader::new(text.as_bytes()), &mut copied).expect("memory");
        assert!(String::from_utf8(copied).expect("text") == kept.join("\n"));
        let mut copied = Vec::new();
        without_cost(&mut BufReader::new(format!("a\n{cost}").as_bytes()), &mut copied).expect("memory");
        assert_eq!(copied, b"a\n");
    }
}
