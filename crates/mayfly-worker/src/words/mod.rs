//! What of a repository counts before its owner trusts it: its words.
//!
//! `claude` is told not to look for settings of the repository's. What it would read there as words (`CLAUDE.md`,
//! rules, agents, skills, commands) is carried over into its own folder, without what would run by itself or widen
//! what may be done: each file's settings are written anew, from those in a list; a path that leads out is none any
//! more. The working tree is only read, so neither its state nor what comes out of it tells of this.
//!
//! ```text
//! CLAUDE.md, what it imports, .claude/rules  ──►  rules/repository/, at the same paths
//! sub/CLAUDE.md                              ──►  the same, for files below `sub`
//! .claude/{agents,commands,skills}           ──►  {agents,commands,skills}
//! .claude/settings.json, .mcp.json, the rest ──►  nothing; told of by name
//! ```
//!
//! Bounds: [`FILES_MAX`] files of [`FILE_BYTES_MAX`](tree::FILE_BYTES_MAX), [`BYTES_MAX`] in all, [`FOLDERS_MAX`] folders
//! looked into, [`DEPTH_MAX`] below each other.

mod carrier;
mod ignored;
mod imports;
mod tree;

use std::fs;
use std::io;
use std::path::Path;

use mayfly_library::{Compiled, Expected};
use mayfly_wire::worker::{Report, WorkOrder};
use serde_json::json;

use self::carrier::{Bounds, Carrier};
use self::tree::Tree;
use crate::claude::command::config_dir;

/// The most files that are carried over.
const FILES_MAX: usize = 2000;
/// The most bytes of them.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most folders that are looked into.
const FOLDERS_MAX: usize = 10_000;
/// How deep they are looked for.
const DEPTH_MAX: usize = 32;

/// The CLI's own switch for commands in skills and commands, which it would run while it reads them.
const SETTINGS: &str = r#"{"disableSkillShellExecution":true}"#;

/// Makes ready what the CLI finds of the repository at `workspace`, trusted or not; what was left out, as reports.
/// What the library has stands before it; if the task is run by an agent of the repository, that is held to its bounds.
pub(crate) fn prepare(
    order: &WorkOrder,
    workspace: &Path,
    home: &Path,
    library: &mut Compiled,
) -> io::Result<Vec<Report>> {
    let config = config_dir(home);
    if order.trust_repo {
        // The CLI asks its user before it lets a repository widen what may be done, and keeps the answer there.
        let trusted = json!({"projects": {workspace.to_string_lossy(): {"hasTrustDialogAccepted": true}}});
        fs::write(config.join(".claude.json"), trusted.to_string())?;
        return hold_to_own_agent(workspace, library).map(|()| Vec::new());
    }
    fs::write(config.join("settings.json"), SETTINGS)?;
    let carrier = Carrier::new(Tree::at(workspace)?, Some(config), &library.expected);
    let (ignored, main) = carrier.carry()?;
    if let Some(Bounds { tools, denied }) = main {
        library.hold_to(tools, &denied);
    }
    Ok(ignored.reports())
}

/// Holds the session to what bounds the agent of a trusted repository that it is run by, which the CLI reads there itself.
fn hold_to_own_agent(workspace: &Path, library: &mut Compiled) -> io::Result<()> {
    let Expected { agent, agents, .. } = &library.expected;
    let Some(agent) = agent.as_ref().filter(|agent| !agents.contains(agent)) else { return Ok(()) };
    let wanted = Expected { agent: Some(agent.clone()), ..Expected::default() };
    let (ignored, main) = Carrier::new(Tree::at(workspace)?, None, &wanted).read_agents()?;
    match (main, ignored.first_whole()) {
        (Some(Bounds { tools, denied }), _) => library.hold_to(tools, &denied),
        (None, Some(unread)) => {
            let words = format!("what bounds the agent {agent} cannot be told: {unread}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        (None, None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
