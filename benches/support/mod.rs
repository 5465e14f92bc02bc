//! What the benchmarks share: a table of two contenders that ran in turn, and where things are.
#![allow(dead_code, reason = "no benchmark takes all of it")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mayfly_provider_sandbox::{Sandbox, SandboxConfig};

/// The binary under test, built by the same profile.
pub(crate) const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");

/// Times of A and B, taken in turn: A B A B.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    a: Vec<Duration>,
    b: Vec<Duration>,
}

impl Pairs {
    pub(crate) fn push(&mut self, a: Duration, b: Duration) {
        self.a.push(a);
        self.b.push(b);
    }

    /// Prints both, the ratio of the medians, and the median of the ratios pair by pair.
    pub(crate) fn print(&self, what: &str, a: &str, b: &str) {
        println!("{what}\n  {} pairs, taken in turn; {}", self.a.len(), machine());
        println!("  {:44} {:>9} {:>9} {:>9} ms", "", "p50", "min", "p99");
        for (name, times) in [(a, &self.a), (b, &self.b)] {
            let at = |part| milliseconds(quantile(times, part));
            println!("  {name:44} {:9.2} {:9.2} {:9.2}", at(0.5), at(0.0), at(0.99));
        }
        let mut ratios: Vec<f64> =
            self.a.iter().zip(&self.b).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let of_medians = milliseconds(quantile(&self.a, 0.5)) / milliseconds(quantile(&self.b, 0.5));
        println!(
            "  ratio of the medians {of_medians:.2}, median of the ratios {:.2}",
            ratios[ratios.len() / 2]
        );
    }
}

/// Prints what several took for the same, and by how much each took longer than the first.
pub(crate) fn print_beside(what: &str, all: &[(&str, &[Duration])]) {
    println!("{what}, in ms\n  taken in turn; {}", machine());
    println!("  {:44} {:>6} {:>9} {:>9} {:>9} {:>9}", "", "n", "p50", "p99", "p50 more", "p99 more");
    for (name, times) in all {
        let at = |part| milliseconds(quantile(times, part));
        let more = |part| at(part) - milliseconds(quantile(all[0].1, part));
        let (n, p50, p99) = (times.len(), at(0.5), at(0.99));
        println!("  {name:44} {n:6} {p50:9.3} {p99:9.3} {:9.3} {:9.3}", more(0.5), more(0.99));
    }
}

/// Prints how many bytes a second pass where a body of so many megabytes took these times, and the share that each has of
/// what the last does.
pub(crate) fn print_rates(what: &str, megabytes: f64, all: &[(&str, &[Duration])]) {
    println!("{what}\n  taken in turn; {}", machine());
    println!("  {:44} {:>6} {:>9} {:>9} {:>9} {:>9}", "", "n", "p50 ms", "p99 ms", "MB/s", "of last");
    let last = all.last().map_or(0.0, |(_, times)| milliseconds(quantile(times, 0.5)));
    for (name, times) in all {
        let (n, p50, p99) =
            (times.len(), milliseconds(quantile(times, 0.5)), milliseconds(quantile(times, 0.99)));
        println!("  {name:44} {n:6} {p50:9.2} {p99:9.2} {:9.0} {:9.2}", megabytes * 1e3 / p50, last / p50);
    }
}

/// What it is measured on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The time that this part of them does not exceed.
fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index]
}

/// A folder on a disk, where an `fsync` is one.
pub(crate) fn scratch() -> &'static Path {
    Path::new("/var/tmp")
}

/// The pinned `claude`, as the tests find it.
pub(crate) fn claude() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("MAYFLY_TEST_CLAUDE").map(PathBuf::from);
    named.ok_or_else(|| anyhow::anyhow!("set MAYFLY_TEST_CLAUDE to what `mayfly claude-path` prints"))
}

/// The sandbox provider on a data folder.
pub(crate) fn sandbox(data: &Path, claude: PathBuf) -> Arc<Sandbox> {
    Arc::new(Sandbox::new(SandboxConfig {
        machines: data.join("machines"),
        bases: data.join("bases"),
        claude,
        mayfly: MAYFLY.into(),
    }))
}

/// The most memory of this process with all that it has started.
#[derive(Debug)]
pub(crate) struct Watch {
    most: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let (most, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&most), Arc::clone(&ended));
        let looking = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(memory_of_all(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { most, ended, looking }
    }

    /// In bytes.
    pub(crate) fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.looking.join().expect("it does not panic");
        self.most.load(Ordering::Relaxed)
    }
}

/// Pages of files that are shared, such as a pack that is mapped, are not counted.
fn memory_of_all() -> u64 {
    let mut all = vec![std::process::id()];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split(' ').filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    let anonymous = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    all.iter().filter_map(anonymous).sum::<u64>() * 1024
}
