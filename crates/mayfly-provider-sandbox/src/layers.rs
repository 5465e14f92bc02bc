//! What this host has of the parts of a sandbox, each by its name: tried, not read from versions.
//!
//! The trial is a run of our own binary, as a holder is, since it needs a process with one thread; see
//! `holder::trial`. Bound: [`TRIAL_MAX`].

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::SandboxConfig;
use crate::holder::{HOLDER_VERB, TRIAL_WORD};
use crate::remove::remove_tree;
use mayfly_holder::{Failure, Step, make_private, wait_readable};

/// The longest that all trials may take.
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// One part of a sandbox, as it was found here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Whether it can be had.
    pub state: LayerState,
    /// What was found, or why it cannot be had.
    pub detail: String,
    /// The command that puts it right, if there is one.
    pub fix: Option<String>,
}

/// Whether a part of a sandbox can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerState {
    /// It was tried, and holds.
    Works,
    /// It cannot be had, and machines run without it.
    Limited,
    /// It cannot be had, and there are no machines without it.
    Missing,
}

/// Tries every layer, in the place where machines are to be.
pub(crate) fn layers(config: &SandboxConfig) -> Result<Vec<Layer>, Failure> {
    let folder = config.machines.join(format!(".trial-{}", Uuid::now_v7()));
    let shown = folder.display().to_string();
    make_private(&config.machines).and_then(|()| fs::create_dir(&folder)).step(format!("make {shown}"))?;
    let tried = run(&config.mayfly, &folder);
    remove_tree(&folder).step(format!("remove {shown}"))?;
    tried
}

fn run(mayfly: &Path, folder: &Path) -> Result<Vec<Layer>, Failure> {
    let step = format!("run {}", mayfly.display());
    let mut command = Command::new(mayfly);
    command.arg(HOLDER_VERB).arg(TRIAL_WORD).arg(folder).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().step(&step)?;
    let heard = hear(&mut child);
    // It may have ended already.
    let _ = child.kill();
    child.wait().step(&step)?;
    let text = heard.step("hear how the trial went")?;
    serde_json::from_slice(&text)
        .map_err(|_| Failure::new("the trial ended without a word: its binary may not be ours"))
}

/// All that it says: a process that it leaves behind would hold its output open, and ends with the bound.
fn hear(child: &mut Child) -> std::io::Result<Vec<u8>> {
    let until = Instant::now() + TRIAL_MAX;
    let mut stdout = child.stdout.take().expect("its standard output is a pipe");
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        wait_readable(&stdout, until)?;
        match stdout.read(&mut chunk)? {
            0 => return Ok(text),
            read => text.extend_from_slice(&chunk[..read]),
        }
    }
}
