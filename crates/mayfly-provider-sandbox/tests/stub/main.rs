//! Stands in for the `mayfly` binary in this crate's tests: a holder, and a worker that does what the test says.
//!
//! The worker dials the way out and obeys one JSON line at a time, each with one word:
//! `{"sh": "…"}` runs a shell command and answers `{"code", "out", "err"}`; `{"calls": null}` answers what each
//! forbidden system call did; `{"boot": null}` what it was started with; `{"exit": N}` ends the machine.

#![expect(clippy::unwrap_used, reason = "a fault here is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

use mayfly_wire::Endpoint;
use mayfly_wire::boot::Boot;
use serde_json::{Value, json};

mod calls;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().unwrap().to_str().unwrap() {
        mayfly_provider_sandbox::HOLDER_VERB => mayfly_provider_sandbox::holder_main(args),
        "worker" => worker(),
        other => panic!("no such verb: {other}"),
    }
}

fn worker() -> ExitCode {
    let open: Vec<_> =
        std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let open: Vec<_> = open.iter().map(|name| name.to_str().unwrap()).collect();
    let environment: Vec<_> = std::env::vars().collect();
    let args: Vec<_> = std::env::args().collect();
    let started =
        json!({ "fds": open, "env": environment, "args": args, "cwd": std::env::current_dir().unwrap() });
    let boot = read_boot();
    let Endpoint::Unix(endpoint) = &boot.endpoint else { panic!("a sandbox has a socket") };
    let mut link = UnixStream::connect(endpoint).unwrap();
    let hello = json!({ "attempt": boot.attempt, "ticket": boot.ticket, "started": started, "boot": boot });
    writeln!(link, "{hello}").unwrap();
    for line in BufReader::new(link.try_clone().unwrap()).lines() {
        let order: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (verb, value) = order.as_object().unwrap().iter().next().unwrap();
        let answer = match verb.as_str() {
            "sh" => shell(value.as_str().unwrap()),
            "calls" => calls::each(),
            "exit" => return ExitCode::from(u8::try_from(value.as_u64().unwrap()).unwrap()),
            other => panic!("no such order: {other}"),
        };
        writeln!(link, "{answer}").unwrap();
    }
    // The test has let go of us, as an orchestrator would that is restarted: the machine stays.
    loop {
        std::thread::park();
    }
}

fn read_boot() -> Boot {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn shell(command: &str) -> Value {
    let output = Command::new("/bin/sh").args(["-c", command]).output().unwrap();
    json!({
        "code": output.status.code(),
        "out": String::from_utf8_lossy(&output.stdout),
        "err": String::from_utf8_lossy(&output.stderr),
    })
}
