//! How much memory and how many open files each end has over a run: what grows without an end shows.
//!
//! Every [`LOOK_EVERY`] the process that has a data folder is looked at, whichever it is by then. What counts is how much
//! more there is in the last third of the run than in the first, each by its median: neither a load that comes and goes
//! nor a process that has just begun moves that much. Both are told, and what that is an hour.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::{Place, here};
use crate::machines::is_of;
use crate::report::Line;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// By how much an end's memory may grow over a run, however long.
const GROWN_MIB_MAX: usize = 64;
/// By how many files.
const GROWN_FILES_MAX: usize = 64;

/// What a process has at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    mib: usize,
    files: usize,
}

impl Held {
    /// By the process that has this data folder, if it is one of `program`.
    fn by_holder_of(data: &Path, program: &Path) -> Option<Self> {
        let pid: i32 = fs::read_to_string(data.join("lock")).ok()?.trim().parse().ok()?;
        is_of(pid, program).then(|| Self::of(pid))?
    }

    fn of(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: usize = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self { mib: kib / 1024, files })
    }
}

/// What one end had, look by look.
#[derive(Debug, Clone, Default)]
struct Seen(Vec<Held>);

impl Seen {
    /// The medians of the first third and of the last.
    fn ends(&self, what: fn(&Held) -> usize) -> (usize, usize) {
        let third = self.0.len() / 3;
        (median(&self.0[..third], what), median(&self.0[self.0.len() - third..], what))
    }

    fn grown(&self, what: fn(&Held) -> usize) -> usize {
        let (first, last) = self.ends(what);
        last.saturating_sub(first)
    }

    /// As many more an hour: from the middle of the first third to that of the last there are two thirds.
    fn slope(&self, what: fn(&Held) -> usize) -> String {
        let looks = u32::try_from(self.0.len().max(1)).unwrap_or(u32::MAX);
        let (first, last) = self.ends(what);
        let hours = (LOOK_EVERY * looks).as_secs_f64() * 2.0 / 3.0 / 3600.0;
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        let slope = (last as f64 - first as f64) / hours;
        format!("{first} at first, {last} at last, {slope:+.0} an hour")
    }

    fn most(&self, what: fn(&Held) -> usize) -> usize {
        self.0.iter().map(what).max().unwrap_or_default()
    }
}

fn median(seen: &[Held], what: fn(&Held) -> usize) -> usize {
    let mut all: Vec<usize> = seen.iter().map(what).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Both ends over a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wear(Arc<Mutex<[Seen; 2]>>);

impl Wear {
    /// Looks again and again.
    pub(crate) async fn run(self, place: Arc<Place>) {
        let ends: [PathBuf; 2] = [place.data(), here(&place)];
        loop {
            for (end, data) in ends.iter().enumerate() {
                if let Some(held) = Held::by_holder_of(data, &place.mayfly) {
                    self.0.lock().unwrap_or_else(PoisonError::into_inner)[end].0.push(held);
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// How each end began and ended.
    pub(crate) fn print(&self) {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (end, seen) in ["orchestrator", "tunnel"].into_iter().zip(&*ends) {
            let (mib, files) = (seen.slope(|held| held.mib), seen.slope(|held| held.files));
            println!("the {end}'s MiB: {mib}; its files: {files}");
        }
    }

    /// The table's part.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let [orchestrator, tunnel] = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |name, count, most| (name, count, count <= most);
        vec![
            ("looks at the orchestrator's memory", orchestrator.0.len(), !orchestrator.0.is_empty()),
            ("looks at the tunnel's memory", tunnel.0.len(), !tunnel.0.is_empty()),
            ("MiB that the orchestrator had at most", orchestrator.most(|held| held.mib), true),
            ("MiB that the tunnel had at most", tunnel.most(|held| held.mib), true),
            ("files that the orchestrator had at most", orchestrator.most(|held| held.files), true),
            ("files that the tunnel had at most", tunnel.most(|held| held.files), true),
            within("MiB that the orchestrator grew by", orchestrator.grown(|held| held.mib), GROWN_MIB_MAX),
            within("MiB that the tunnel grew by", tunnel.grown(|held| held.mib), GROWN_MIB_MAX),
            within(
                "files that the orchestrator grew by",
                orchestrator.grown(|held| held.files),
                GROWN_FILES_MAX,
            ),
            within("files that the tunnel grew by", tunnel.grown(|held| held.files), GROWN_FILES_MAX),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mib: impl Iterator<Item = usize>) -> Seen {
        Seen(mib.map(|mib| Held { mib, files: 0 }).collect())
    }

    #[test]
    fn what_grows_is_told_from_what_comes_and_goes() {
        assert_eq!(seen((0..300).map(|n| 20 + n)).grown(|held| held.mib), 200);
        assert_eq!(seen((0..300).map(|n| if n % 7 == 0 { 500 } else { 20 })).grown(|held| held.mib), 0);
        assert_eq!(seen((0..300).map(|n| 400 - n)).grown(|held| held.mib), 0);
        assert_eq!(seen(std::iter::empty()).grown(|held| held.mib), 0);
    }

    #[test]
    fn a_slope_counts_an_hour() {
        // Two looks a second, for five minutes.
        let seen = seen((0..600).map(|n| 20 + n / 6));
        assert_eq!(seen.slope(|held| held.mib), "36 at first, 103 at last, +1206 an hour");
        assert_eq!(Seen::default().slope(|held| held.mib), "0 at first, 0 at last, +0 an hour");
    }

    #[test]
    fn a_growth_over_the_bound_is_not_as_promised() {
        let wear = Wear::default();
        let grown = (0..30).map(|n| Held { mib: 20, files: 10 + n * 10 }).collect();
        *wear.0.lock().expect("nobody has it") = [Seen(grown), seen(0..3)];
        let bad: Vec<_> = wear.lines().into_iter().filter(|(.., good)| !good).collect();
        assert_eq!(bad, [("files that the orchestrator grew by", 200, false)]);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let held = Held::of(std::process::id().cast_signed()).expect("it runs");
        assert!(held.mib > 0 && held.files > 2, "{held:?}");
    }
}
