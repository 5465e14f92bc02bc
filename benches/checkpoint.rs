//! A look for a checkpoint at a work tree of 20,000 files and 300 MB in which nothing has changed, against `git status`
//! there.
//!
//! The two do not do equal work: a look also reads what the agent's branches are, and gives way to other programs;
//! `git status` also compares the index with `HEAD`. Processor time is that of git; the worker's own is beside it.
//! Run: `cargo bench --bench checkpoint`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mayfly_worker::WorkTree;

const FOLDERS: usize = 200;
const FILES: usize = 100;
const FILE_BYTES: usize = 15_000;
const PAIRS: usize = 100;
const WARM_UPS: usize = 3;
const CHANGES: usize = 21;
/// The longest that a look may take.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// How often an agent that does nothing is looked at.
const EVERY: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (repo, place) = (dir.path().join("repo"), dir.path().join("place"));
    fs::create_dir(&place)?;
    make(&repo)?;
    let base = git(&repo, &["rev-parse", "HEAD"])?;
    let mut tree = WorkTree::new(&repo, base.trim(), &place)?;
    let begun = Instant::now();
    ensure!(look(&mut tree).await?.is_none(), "nothing has changed");
    println!("the first look, which makes the folder: {:.0} ms", begun.elapsed().as_secs_f64() * 1000.0);
    let (mut pairs, mut ticks) = (support::Pairs::default(), [0; 2]);
    for round in 0..WARM_UPS + PAIRS {
        let mut at = [Instant::now(); 3];
        let mut spent = [children()?; 3];
        look(&mut tree).await?;
        (at[1], spent[1]) = (Instant::now(), children()?);
        git(&repo, &["status", "--porcelain"])?;
        (at[2], spent[2]) = (Instant::now(), children()?);
        if round >= WARM_UPS {
            pairs.push(at[1] - at[0], at[2] - at[1]);
            ticks = [ticks[0] + spent[1] - spent[0], ticks[1] + spent[2] - spent[1]];
        }
    }
    let files = FOLDERS * FILES;
    let what = format!("checkpoint with no change, {files} files, {} MB", files * FILE_BYTES / 1_000_000);
    pairs.print(&what, "mayfly: a look at the work tree", "git status --porcelain");
    #[expect(clippy::cast_precision_loss, reason = "far below where it would matter")]
    let per = |ticks: u64| ticks as f64 * 10.0 / PAIRS as f64;
    println!("  processor time for each: {:.1} ms, and git status {:.1} ms", per(ticks[0]), per(ticks[1]));
    let share = per(ticks[0]) / 1000.0 / EVERY.as_secs_f64() * 100.0;
    println!("  of one core, once a minute: {share:.3} %");
    let mut times = Vec::new();
    for round in 0..CHANGES {
        fs::write(repo.join("d0/f0"), format!("changed {round}"))?;
        let begun = Instant::now();
        ensure!(look(&mut tree).await?.is_some(), "one file has changed");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let median = times[CHANGES / 2].as_secs_f64() * 1000.0;
    println!("  a look that finds one changed file: {median:.1} ms (median of {CHANGES})");
    Ok(())
}

async fn look(tree: &mut WorkTree) -> anyhow::Result<Option<String>> {
    tree.look(LOOK_MAX).await.map_err(anyhow::Error::from_boxed)
}

/// Files that no compression makes short.
fn make(repo: &Path) -> anyhow::Result<()> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for folder in 0..FOLDERS {
        let folder = repo.join(format!("d{folder}"));
        fs::create_dir_all(&folder)?;
        for file in 0..FILES {
            let bytes: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(FILE_BYTES).collect();
            fs::write(folder.join(format!("f{file}")), bytes)?;
        }
    }
    for args in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message=base"],
        &["update-index", "-q", "--refresh"],
    ] {
        git(repo, args)?;
    }
    Ok(())
}

fn git(repo: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(repo);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@localhost");
    }
    let output = command.args(args).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The processor time of children that were waited for, in hundredths of a second.
fn children() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').context("no name in it")?;
    let numbers: Vec<u64> =
        rest.split_whitespace().skip(13).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(numbers.iter().sum())
}
