//! Many seeds, each in a process of its own, as many at once as there are processors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Plays them, prints what they found, and fails if one did.
pub(crate) fn run(first: u64, count: u64) -> Result<ExitCode> {
    let program = std::env::current_exe().context("this program has no name")?;
    let begun = Instant::now();
    let seen = play(&program, first..first + count);
    let broken: Vec<u64> =
        seen.iter().filter(|(_, output)| !output.status.success()).map(|(seed, _)| *seed).collect();
    for seed in &broken {
        let Output { stdout, stderr, status } = &seen[seed];
        println!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
        println!("seed {seed} ({status}); again: cargo run -p mayfly-simulation -- --seed {seed}\n");
    }
    for (name, count) in faults(seen.values()) {
        println!("{count:>8} {name}");
    }
    println!(
        "{count} seeds from {first}, {} broken, in {:.1} s",
        broken.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(program: &Path, seeds: Range<u64>) -> BTreeMap<u64, Output> {
    let (todo, seen) = (Mutex::new(seeds), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(seed) = lock(&todo).next() {
            let output = Command::new(program).args(["--seed", &seed.to_string()]).output();
            lock(&seen).insert(seed, output.expect("what runs can be run again"));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    seen.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each fault came, over all seeds.
fn faults<'a>(seen: impl Iterator<Item = &'a Output>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for output in seen {
        let said = String::from_utf8_lossy(&output.stdout);
        let told =
            said.lines().next().and_then(|line| line.split_once("; ")).map_or("", |(_, faults)| faults);
        for (name, count) in told.split(", ").filter_map(|fault| fault.rsplit_once(' ')) {
            *all.entry(name.to_owned()).or_default() += count.parse().unwrap_or(0);
        }
    }
    all
}
