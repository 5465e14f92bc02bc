//! Brings the work out: the agent's commits and files as a git bundle, the CLI's session file, and artifacts that were asked for.
//!
//! Everything in the workspace was in the agent's hands, its `.git` included, so nothing of its configuration
//! is used: see [`git`]. What could not be saved is named, line by line, and the rest is saved all the same.
//!
//! Bound: the order's `collect_ms_max` for the whole.

mod artifacts;
pub(crate) mod bundle;
mod contents;
mod dense;
pub(crate) mod files;
pub(crate) mod git;
pub(crate) mod nested;
pub(crate) mod others;
mod pack;
mod packing;
mod plain;
pub(crate) mod refs;
pub(crate) mod session;
mod submodule;
mod upload;
pub(crate) mod work;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_core::causes;
use mayfly_failpoint::failpoint;
use mayfly_link::Dial;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::WorkOrder;
use tokio::time::{Instant, timeout_at};

use crate::Surroundings;
use crate::claude::interpret::shorten;
use crate::exchange::Exchange;
use crate::reaper::Reaper;
use crate::setup::made::Made;
use work::Work;

/// The most lines that tell what could not be saved, and as many of notes.
const LINES_MAX: usize = 100;

/// What there is to bring out, and the way.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    pub(crate) reaper: Reaper,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) order: &'a WorkOrder,
    /// To the orchestrator.
    pub(crate) way: &'a dyn Dial,
    /// Where the agent worked.
    pub(crate) workspace: &'a Path,
    /// The agent's home.
    pub(crate) home: &'a Path,
    /// What the set-up commands made.
    pub(crate) made: Arc<Made>,
}

impl Collector<'_> {
    /// Brings out what can be in the time allowed.
    pub(crate) async fn collect(&self) -> Collected {
        self.reaper.kill_all_others();
        failpoint("collect-begun");
        // A tenth is left for telling of it.
        let time = Duration::from_millis(self.order.collect_ms_max) * 9 / 10;
        let begun = Instant::now();
        let mut collected = Collected::default();
        // First what is small and always there; then what may take the rest of the time.
        self.transcript(&mut collected, begun + time / 4).await;
        failpoint("collect-session-out");
        self.work(&mut collected, begun + time * 3 / 4, begun + time).await;
        self.artifacts(&mut collected, begun + time).await;
        bound(&mut collected.unsaved);
        bound(&mut collected.notes);
        collected
    }

    async fn transcript(&self, collected: &mut Collected, deadline: Instant) {
        let file = match session::find(self.home, &self.order.session_id) {
            Ok(Some(file)) => file,
            Ok(None) => return collected.notes.push("the session file: claude has written none".to_owned()),
            Err(error) => return collected.unsaved.push(format!("the session file: {}", causes(&error))),
        };
        match timeout_at(deadline, self.upload().put("transcript", &file)).await {
            Ok(Ok(())) => collected.transcript = true,
            Ok(Err(error)) => collected.unsaved.push(format!("the session file: {}", causes(&error))),
            Err(_) => collected.unsaved.push("the session file: the time for collecting ran out".to_owned()),
        }
    }

    async fn work(&self, collected: &mut Collected, bundled_by: Instant, deadline: Instant) {
        let scratch = match self.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return collected.unsaved.push(format!("the work: no place for a bundle: {error}")),
        };
        let work = Work {
            reaper: &self.reaper,
            workspace: self.workspace,
            base: self.order.workspace.as_ref().map(|workspace| workspace.base.as_str()),
            base_objects: &self.surroundings.base.join(".git/objects"),
            scratch: scratch.path(),
            made: &self.made,
        };
        let bundle = match work.bundle(bundled_by, collected).await {
            Ok(Some(bundle)) => bundle,
            Ok(None) => return,
            Err(error) => return collected.unsaved.push(format!("the work: {}", causes(&error))),
        };
        collected.head = Some(bundle.head);
        collected.others = bundle.others;
        failpoint("collect-bundled");
        match timeout_at(deadline, self.upload().put_bundle(bundle.body)).await {
            Ok(Ok(())) => {
                failpoint("collect-work-out");
                collected.bundle = true;
            }
            Ok(Err(error)) => collected.unsaved.push(format!("the work: {}", causes(&error))),
            Err(_) => collected.unsaved.push("the work: the time for collecting ran out".to_owned()),
        }
    }

    /// A new folder: on the disk, since the folder for temporary files takes memory and may be full. An agent can have
    /// closed its home.
    fn scratch(&self) -> std::io::Result<tempfile::TempDir> {
        let make = |place: &Path| tempfile::Builder::new().prefix("mayfly-").tempdir_in(place);
        make(self.home).or_else(|_| make(&self.surroundings.scratch))
    }

    fn upload(&self) -> Exchange<'_> {
        Exchange { way: self.way, token: &self.order.result_token, random: self.surroundings.random }
    }
}

/// Keeps a list within its bounds, so that both fit into one record.
fn bound(lines: &mut Vec<String>) {
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    for line in lines.iter_mut() {
        *line = shorten(line);
    }
    lines.extend((more > 0).then(|| format!("and {more} more")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_wire::worker::RECORD_BYTES_MAX;

    #[test]
    fn what_could_not_be_saved_fits_into_one_record_however_much_it_is() {
        let mut lines = vec!["\u{1}".repeat(5000); 5000];
        bound(&mut lines);
        assert_eq!((lines.len(), lines[100].as_str()), (101, "and 4900 more"));
        let collected = Collected { unsaved: lines.clone(), notes: lines, ..Collected::default() };
        assert!(serde_json::to_vec(&collected).unwrap().len() < RECORD_BYTES_MAX);
    }
}
