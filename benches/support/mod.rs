//! What the benchmarks share: a table of two contenders that ran in turn, and where things are.
#![allow(dead_code, reason = "no benchmark takes all of it")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
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
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        println!("{what}\n  {} pairs, taken in turn; {cores} cores, Linux {}", self.a.len(), kernel.trim());
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

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

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
