//! The programs that a machine runs on: started so that none outlives its holder.
//!
//! The kernel kills a process at its parent's end if the process has asked for it, and only a process itself can ask. So
//! our own binary is started first, asks, and becomes the program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use mayfly_holder::{Failure, Step};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::set_no_new_privs;
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

use super::{HOLDER_VERB, VMM_WORD, WORDS_BYTES_MAX};

/// Where programs are looked for that have a name alone.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// The exit of what did not become its program, as shells have it.
const NOT_FOUND: u8 = 127;

/// Starts `program`. What it says is to be read.
pub(super) fn start(mayfly: &Path, program: &Path, arguments: &[OsString]) -> Result<Child, Failure> {
    let mut command = tokio::process::Command::new(mayfly);
    command.arg(HOLDER_VERB).arg(VMM_WORD).arg(getpid().as_raw_nonzero().to_string());
    command.arg(program).args(arguments).env_clear().env("PATH", PATH);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().step(format!("start {}", program.display()))
}

/// `args` are the process that this one is to end with, the program, and what is for the program.
pub(super) fn become_program(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = args.next().and_then(|parent| parent.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = args.next() else { return ExitCode::FAILURE };
    let error = turn_into(parent, &program, args);
    eprint_line(&program, &error);
    ExitCode::from(NOT_FOUND)
}

fn turn_into(parent: Option<Pid>, program: &OsStr, args: impl Iterator<Item = OsString>) -> io::Error {
    let bound = || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        set_no_new_privs(true)?;
        // It may have ended before it was asked for.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    match bound() {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    }
}

/// To whoever started us, who reads it as the program's.
fn eprint_line(program: &OsStr, error: &io::Error) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "cannot run {}: {error}", program.display());
}

/// Why a program that was to stay has ended, in its own words.
pub(super) async fn ended_early(what: &str, status: ExitStatus, program: &mut Child) -> Failure {
    let mut said = Vec::new();
    if let Some(stderr) = program.stderr.take() {
        // What cannot be read was not said.
        let _ = stderr.take(WORDS_BYTES_MAX).read_to_end(&mut said).await;
    }
    let said = String::from_utf8_lossy(&said);
    let words = said.trim().escape_debug();
    Failure::said(format!("{what} does not start ({status}: {words})"), &said)
}
