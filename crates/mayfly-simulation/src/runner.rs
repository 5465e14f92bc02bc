//! Many seeds, each in a process of its own, as many at once as there are processors.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Plays them, prints what they found, and fails if one did.
pub(crate) fn run(first: u64, count: u64) -> Result<ExitCode> {
    let program = std::env::current_exe().context("this program has no name")?;
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let seen: Mutex<BTreeMap<u64, Output>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let output = Command::new(&program).args(["--seed", &seed.to_string()]).output();
                    let output = output.expect("what runs can be run again");
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, output);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken: Vec<u64> =
        seen.iter().filter(|(_, output)| !output.status.success()).map(|(seed, _)| *seed).collect();
    for seed in &broken {
        let Output { stdout, stderr, status } = &seen[seed];
        println!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
        println!("seed {seed} ({status}); again: cargo run -p mayfly-simulation -- --seed {seed}\n");
    }
    println!(
        "{count} seeds from {first}, {} broken, in {:.1} s",
        broken.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
