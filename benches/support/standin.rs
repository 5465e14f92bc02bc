//! A program that writes lines, in the place of `claude`: the benchmark itself, when it is called as such.
//!
//! What to write comes as the prompt, or as an argument: `stream LINE_BYTES TOTAL_BYTES`, or
//! `ticks LINE_BYTES PAUSE_US COUNT [WAIT_MS]`, where each line begins with the time at which it was written, and which
//! come after a while; or nothing, by `burn SECONDS`; or `machine`: it is what was asked for, tells its [token](token),
//! and does nothing until its input ends.

#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "no benchmark takes all of it; it is asked for its version"
)]

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

/// What it says it is.
const VERSION: &str = "2.1.330";
/// How a line of [`ticks`] begins; its time follows.
pub(crate) const TICK: &[u8] = br#"{"type":"x","at":""#;
/// How the line begins in which [`machine`] tells its token.
const TOKEN: &str = "token ";
/// What is written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Writes, if this process was called to do that.
pub(crate) fn is_one() -> bool {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    let words = match first.as_deref() {
        // Whoever is about to call it as `claude` asks first.
        Some("--version") => {
            println!("{VERSION} (Claude Code)");
            return true;
        }
        Some("stand-in") => args.collect::<Vec<_>>().join(" "),
        // As the worker calls `claude`.
        Some("-p") => from_prompt(),
        _ => return false,
    };
    write(&words).expect("standard output takes it");
    true
}

/// The words of the user's message, which is the second line.
fn from_prompt() -> String {
    let line = std::io::stdin().lock().lines().nth(1).expect("a prompt").expect("a line");
    let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    message["message"]["content"][0]["text"].as_str().expect("a text").to_owned()
}

fn write(words: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = words.split(' ').collect();
    let number = |at: usize| words.get(at).context("a number")?.parse::<u64>().context("a number");
    match words[0] {
        "stream" => stream(usize::try_from(number(1)?)?, number(2)?),
        "ticks" => {
            std::thread::sleep(Duration::from_millis(number(4).unwrap_or(0)));
            ticks(usize::try_from(number(1)?)?, Duration::from_micros(number(2)?), number(3)?)
        }
        "burn" => {
            let end = Instant::now() + Duration::from_secs(number(1)?);
            while Instant::now() < end {}
            Ok(())
        }
        "machine" => machine(),
        other => bail!("no `{other}`"),
    }
}

/// The line with this number, with its newline.
pub(crate) fn line(out: &mut Vec<u8>, number: u64, bytes: usize) {
    let start = out.len();
    write!(out, r#"{{"type":"x","n":"{number:012}","p":""#).expect("a Vec takes it");
    out.resize(start + bytes - 3, b'a' + u8::try_from(number % 26).expect("small"));
    out.extend_from_slice(b"\"}\n");
}

fn stream(line_bytes: usize, total: u64) -> anyhow::Result<()> {
    let (mut stdout, mut out) = (std::io::stdout().lock(), Vec::new());
    for number in 0..total / line_bytes as u64 {
        line(&mut out, number, line_bytes);
        if out.len() >= WRITE_BYTES {
            stdout.write_all(&out)?;
            out.clear();
        }
    }
    stdout.write_all(&out)?;
    Ok(stdout.flush()?)
}

/// The hash of what [`stream`] writes.
pub(crate) fn hash(line_bytes: usize, total: u64) -> [u8; 32] {
    let (mut hash, mut out) = (Sha256::new(), Vec::new());
    for number in 0..total / line_bytes as u64 {
        line(&mut out, number, line_bytes);
        if out.len() >= WRITE_BYTES {
            hash.update(&out);
            out.clear();
        }
    }
    hash.update(&out);
    hash.finalize().into()
}

fn ticks(line_bytes: usize, pause: Duration, count: u64) -> anyhow::Result<()> {
    let (mut stdout, mut out) = (std::io::stdout().lock(), Vec::new());
    let mut next = Instant::now();
    for _ in 0..count {
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        out.clear();
        out.extend_from_slice(TICK);
        write!(out, r#"{:020}","p":""#, now_ns())?;
        out.resize(line_bytes - 3, b'a');
        out.extend_from_slice(b"\"}\n");
        stdout.write_all(&out)?;
        stdout.flush()?;
    }
    Ok(())
}

/// Says that it is what it was asked to be, and with which token the model can be asked.
fn machine() -> anyhow::Result<()> {
    let mut asked = std::env::args().skip_while(|arg| arg != "--session-id");
    let session = asked.nth(1).context("a session")?;
    let init = serde_json::json!({
        "type": "system", "subtype": "init", "cwd": std::env::current_dir()?, "session_id": session,
        "tools": ["Bash"], "mcp_servers": [], "model": "claude-sonnet-5-5", "permissionMode": "bypassPermissions",
        "claude_code_version": VERSION,
    });
    println!("{init}\n{TOKEN}{}", std::env::var("CLAUDE_CODE_OAUTH_TOKEN")?);
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    Ok(())
}

/// The token that a line of [`machine`] tells, if it is one.
pub(crate) fn token(line: &str) -> Option<&str> {
    line.strip_prefix(TOKEN)
}

/// The time that a line of [`ticks`] carries, if it is one.
pub(crate) fn tick(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(TICK)?.get(..20)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
